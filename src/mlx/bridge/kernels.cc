// The threads and the instruction set of our kernels.

#include <string>

#include "bridge.h"
#include "kernels/pool.h"
#include "kernels/table.h"

namespace mlxcel {

bool choose_isa(rust::Str name) noexcept {
  return kernels::choose(std::string(name).c_str());
}

rust::Vec<rust::String> available_isas() {
  rust::Vec<rust::String> names;
  kernels::for_each_available(
      [](const char* name, void* names) {
        static_cast<rust::Vec<rust::String>*>(names)->push_back(name);
      },
      &names);
  return names;
}

rust::String current_isa() noexcept {
  return rust::String(kernels::table().name);
}

void quantize_activations(bool quantize) noexcept {
  kernels::quantize_activations(quantize);
}

void set_kernel_threads(std::size_t threads) {
  kernels::set_threads(threads);
}

} // namespace mlxcel

// The library, its devices and its memory.

#include <stdexcept>
#include <string>
#include <variant>

#include "bridge.h"
#include "mlx/backend/gpu/device_info.h"
#include "mlx/device.h"
#include "mlx/memory.h"
#include "mlx/version.h"

namespace mx = mlx::core;

namespace mlxcel {

rust::String library_version() noexcept {
  return rust::String(mx::version());
}

rust::String header_version() noexcept {
  return rust::String(
      std::to_string(MLX_VERSION_MAJOR) + "." + std::to_string(MLX_VERSION_MINOR) + "." +
      std::to_string(MLX_VERSION_PATCH));
}

bool gpu_available() noexcept {
  try {
    return mx::is_available(mx::Device(mx::Device::gpu));
  } catch (const std::exception&) {
    return false; // a driver that cannot be asked is one that cannot be used
  }
}

void use_gpu(bool gpu) {
  mx::set_default_device(mx::Device(gpu ? mx::Device::gpu : mx::Device::cpu));
}

std::uint64_t gpu_memory() {
  const auto& info = mx::device_info(mx::Device(mx::Device::gpu));
  for (const char* key :
       {"max_recommended_working_set_size", "free_memory", "total_memory", "memory_size"}) {
    auto found = info.find(key);
    if (found != info.end() && std::holds_alternative<std::size_t>(found->second)) {
      return std::get<std::size_t>(found->second);
    }
  }
  throw std::runtime_error("the device does not tell its memory");
}

std::uint64_t active_memory() noexcept {
  return mx::get_active_memory();
}

std::uint64_t peak_memory() noexcept {
  return mx::get_peak_memory();
}

std::uint64_t cache_memory() noexcept {
  return mx::get_cache_memory();
}

void set_cache_limit(std::uint64_t bytes) {
  mx::set_cache_limit(bytes);
}

void clear_cache() {
  mx::clear_cache();
}

} // namespace mlxcel

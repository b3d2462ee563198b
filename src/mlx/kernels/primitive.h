// What our primitives share.
#pragma once

#include <stdexcept>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"

namespace mlxcel::kernels {

/// A primitive of one result that only the CPU has.
class CpuPrimitive : public mlx::core::UnaryPrimitive {
 public:
  explicit CpuPrimitive(mlx::core::Stream stream) : UnaryPrimitive(stream) {}

  void eval_gpu(const std::vector<mlx::core::array>&, mlx::core::array&) override {
    throw std::logic_error(std::string(name()) + " runs on the CPU only");
  }

 protected:
  template <class Task>
  void dispatch(Task task) {
    mlx::core::cpu::get_command_encoder(stream()).dispatch(std::move(task));
  }
  /// Memory of `floats` floats that lives until the primitive's tasks are done.
  float* temporary(std::size_t floats) {
    using namespace mlx::core;
    const int size = static_cast<int>(floats);
    array memory(allocator::malloc(floats * sizeof(float)), Shape{size}, float32);
    float* data = memory.data<float>();
    cpu::get_command_encoder(stream()).add_temporary(std::move(memory));
    return data;
  }
};

/// Whether the rows along the last dimension are without gaps.
inline bool has_whole_rows(const mlx::core::array& x) {
  return x.ndim() == 0 || x.shape(-1) == 1 || x.strides(-1) == 1;
}

/// Where row `index` along the last dimension begins, counted in row-major order of the others.
inline std::ptrdiff_t row_offset(const mlx::core::array& x, std::size_t index) {
  std::ptrdiff_t offset = 0;
  for (int axis = static_cast<int>(x.ndim()) - 2; axis >= 0; axis--) {
    const auto length = static_cast<std::size_t>(x.shape(axis));
    offset += static_cast<std::ptrdiff_t>(index % length) * x.strides(axis);
    index /= length;
  }
  return offset;
}

inline void allocate(mlx::core::array& out) {
  out.set_data(mlx::core::allocator::malloc(out.nbytes()));
}

/// The stream that operations on the CPU go to.
inline mlx::core::Stream cpu_stream() {
  return mlx::core::default_stream(mlx::core::Device::cpu);
}

} // namespace mlxcel::kernels

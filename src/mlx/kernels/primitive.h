// What our primitives share.
#pragma once

#include <stdexcept>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"

namespace mlxcel::kernels {

/// A primitive that only the CPU has.
template <class Base>
class OnCpu : public Base {
 public:
  using Base::Base;

 protected:
  [[noreturn]] void refuse_gpu() {
    throw std::logic_error(std::string(this->name()) + " runs on the CPU only");
  }
  template <class Task>
  void dispatch(Task task) {
    mlx::core::cpu::get_command_encoder(this->stream()).dispatch(std::move(task));
  }
  /// Memory of `floats` floats that lives until the primitive's tasks are done.
  float* temporary(std::size_t floats) {
    using namespace mlx::core;
    const int size = static_cast<int>(floats);
    array memory(allocator::malloc(floats * sizeof(float)), Shape{size}, float32);
    float* data = memory.data<float>();
    cpu::get_command_encoder(this->stream()).add_temporary(std::move(memory));
    return data;
  }
};

/// One of one result.
class CpuPrimitive : public OnCpu<mlx::core::UnaryPrimitive> {
 public:
  using OnCpu::OnCpu;
  void eval_gpu(const std::vector<mlx::core::array>&, mlx::core::array&) override { refuse_gpu(); }
};

/// One of several.
class CpuPrimitives : public OnCpu<mlx::core::Primitive> {
 public:
  using OnCpu::OnCpu;
  void eval_gpu(
      const std::vector<mlx::core::array>&, std::vector<mlx::core::array>&) override {
    refuse_gpu();
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

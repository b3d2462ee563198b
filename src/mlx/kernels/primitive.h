// What our primitives share.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdint>
#include <functional>
#include <stdexcept>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"
#include "mlx/scheduler.h"

namespace mlxcel::kernels {

/// Memory of `floats` floats that lives until the tasks are done that `stream` has been given so far, and the
/// primitive's own.
inline float* temporary(mlx::core::Stream stream, std::size_t floats) {
  using namespace mlx::core;
  const int size = static_cast<int>(floats);
  array memory(allocator::malloc(floats * sizeof(float)), Shape{size}, float32);
  float* data = memory.data<float>();
  cpu::get_command_encoder(stream).add_temporary(std::move(memory));
  return data;
}

/// A primitive that only the CPU has.
template <class Base>
class OnCpu : public Base {
 public:
  using Base::Base;

 protected:
  [[noreturn]] void refuse_gpu() {
    throw std::logic_error(std::string(this->name()) + " runs on the CPU only");
  }
  /// Has `task` done on the stream, which makes `out`. MLX's encoder holds up the thread that evaluates while a
  /// hundred tasks are open, lest they take up all memory; a token has more, but of small results.
  template <class Task>
  void dispatch(const mlx::core::array& out, Task task) {
    constexpr std::size_t SMALL = 256 * 1024;
    if (out.nbytes() <= SMALL) {
      mlx::core::scheduler::enqueue(this->stream(), std::move(task));
    } else {
      mlx::core::cpu::get_command_encoder(this->stream()).dispatch(std::move(task));
    }
  }
  float* temporary(std::size_t floats) { return kernels::temporary(this->stream(), floats); }
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

/// One whose result, without gaps, another one of ours can compute as a part of its own task: what is asked for
/// only there need not be a node of the graph, each of which costs microseconds.
class StepPrimitive : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  /// What is to be done on the stream once `inputs` are there.
  virtual std::function<void()> task(const mlx::core::array* inputs, float* out) = 0;
  /// Whether it takes so little that computing it once for each of its readers is no loss.
  virtual bool is_cheap() const { return false; }

  void eval_cpu(const std::vector<mlx::core::array>& inputs, mlx::core::array& out) override;
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

/// The same for what many tokens will read: in large pages where the system gives them on request, since looking up
/// small ones slows the reading down.
inline void allocate_for_long(mlx::core::array& out) {
  allocate(out);
#if defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t PAGE = 2 << 20;
  const auto begin = reinterpret_cast<std::uintptr_t>(out.data<char>());
  const auto from = (begin + PAGE - 1) / PAGE * PAGE, to = (begin + out.nbytes()) / PAGE * PAGE;
  if (from < to) {
    // Advice: where it is not taken, the pages are small ones.
    madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
  }
#endif
}

/// Leaves `inputs`, those of one of the results, to that one. Each result holds all of them until the graph lets
/// go, so that MLX would take none for free to be written to.
inline void hold_once(
    const std::vector<mlx::core::array>& inputs, std::vector<mlx::core::array>& outputs) {
  for (auto& out : outputs) {
    if (&out.inputs() != &inputs) {
      out.inputs().clear();
    }
  }
}

inline void StepPrimitive::eval_cpu(
    const std::vector<mlx::core::array>& inputs, mlx::core::array& out) {
  allocate(out);
  dispatch(out, task(inputs.data(), out.data<float>()));
}

/// The stream that operations on the CPU go to.
inline mlx::core::Stream cpu_stream() {
  return mlx::core::default_stream(mlx::core::Device::cpu);
}

} // namespace mlxcel::kernels

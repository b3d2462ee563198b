// Arrays behind one another in memory of their own, a row at a time: MLX's CPU backend copies what is
// not contiguous element by element on one thread, which would be most of a prefix hit.

#include <algorithm>
#include <cstring>
#include <vector>

#include "mlx/ops.h"

#include "pool.h"
#include "primitive.h"
#include "weight.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

/// Bytes that a thread copies at a time.
constexpr std::size_t PIECE = 64 * 1024;

/// One input as runs of bytes that lie together in it and in the result.
struct Runs {
  const char* source;
  char* target;
  std::size_t bytes;
  std::size_t count;
  /// Of the dimensions before the run, in bytes.
  std::vector<std::size_t> lengths;
  std::vector<std::ptrdiff_t> source_strides;
  std::vector<std::ptrdiff_t> target_strides;

  Runs(const mx::array& in, const mx::array& out, int axis, std::size_t before, char* result) {
    const auto size = static_cast<std::ptrdiff_t>(in.itemsize());
    const auto out_stride = [&](int dim) {
      std::ptrdiff_t stride = size;
      for (int d = static_cast<int>(out.ndim()) - 1; d > dim; d--) {
        stride *= out.shape(d);
      }
      return stride;
    };
    source = in.data<char>();
    target = result + static_cast<std::ptrdiff_t>(before) * out_stride(axis);
    int outer = static_cast<int>(in.ndim());
    std::size_t items = 1;
    while (outer > axis &&
           (in.shape(outer - 1) == 1 || in.strides(outer - 1) == static_cast<std::int64_t>(items))) {
      outer--;
      items *= static_cast<std::size_t>(in.shape(outer));
    }
    bytes = items * in.itemsize();
    count = 1;
    for (int d = 0; d < outer; d++) {
      count *= static_cast<std::size_t>(in.shape(d));
      lengths.push_back(static_cast<std::size_t>(in.shape(d)));
      source_strides.push_back(in.strides(d) * size);
      target_strides.push_back(out_stride(d));
    }
  }

  void copy(std::size_t index) const {
    std::ptrdiff_t from = 0, to = 0;
    for (std::size_t d = lengths.size(); d-- > 0;) {
      const auto at = static_cast<std::ptrdiff_t>(index % lengths[d]);
      index /= lengths[d];
      from += at * source_strides[d];
      to += at * target_strides[d];
    }
    std::memcpy(target + to, source + from, bytes);
  }
};

class Join : public CpuPrimitive {
 public:
  Join(mx::Stream stream, int axis) : CpuPrimitive(stream), axis_(axis) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate_for_long(out);
    std::vector<Runs> parts;
    std::size_t filled = 0;
    for (const auto& input : inputs) {
      if (input.size() > 0) {
        parts.emplace_back(input, out, axis_, filled, out.data<char>());
      }
      filled += static_cast<std::size_t>(input.shape(axis_));
    }
    // What is left of the axis, as so many runs of zeros.
    std::size_t inner = out.itemsize(), outer = 1;
    for (int d = 0; d < static_cast<int>(out.ndim()); d++) {
      (d > axis_ ? inner : outer) *= d == axis_ ? 1 : static_cast<std::size_t>(out.shape(d));
    }
    const std::size_t whole = inner * static_cast<std::size_t>(out.shape(axis_));
    const std::size_t used = inner * filled;
    char* result = out.data<char>();
    dispatch(out, [=, parts = std::move(parts)] {
      for (const auto& part : parts) {
        const std::size_t step = std::max<std::size_t>(1, PIECE / part.bytes);
        parallel_for((part.count + step - 1) / step, [&](std::size_t piece) {
          for (std::size_t i = piece * step; i < std::min((piece + 1) * step, part.count); i++) {
            part.copy(i);
          }
        });
      }
      for (std::size_t i = 0; used < whole && i < outer; i++) {
        std::memset(result + i * whole + used, 0, whole - used);
      }
    });
  }

  const char* name() const override { return "mlxcel::Join"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return axis_ == static_cast<const Join&>(other).axis_;
  }

 private:
  int axis_;
};

} // namespace
} // namespace kernels

using namespace kernels;

mx::array join(const std::vector<mx::array>& arrays, int axis, int room) {
  if (arrays.empty()) {
    throw std::invalid_argument("nothing to put together");
  }
  const auto& first = arrays.front();
  const int ndim = static_cast<int>(first.ndim());
  axis += axis < 0 ? ndim : 0;
  if (axis < 0 || axis >= ndim || room < 0) {
    throw std::invalid_argument("no such axis to put arrays together along");
  }
  mx::Shape shape = first.shape();
  shape[axis] = room;
  for (const auto& array : arrays) {
    bool fits = static_cast<int>(array.ndim()) == ndim && array.dtype() == first.dtype();
    for (int d = 0; fits && d < ndim; d++) {
      fits = d == axis || array.shape(d) == first.shape(d);
    }
    if (!fits) {
      throw std::invalid_argument("the arrays do not fit behind one another");
    }
    shape[axis] += array.shape(axis);
  }
  if (mx::default_device() != mx::Device::cpu) {
    auto all = arrays;
    if (room > 0) {
      mx::Shape rest = shape;
      rest[axis] = room;
      all.push_back(mx::zeros(rest, first.dtype()));
    }
    return all.size() == 1 ? mx::copy(all.front()) : mx::concatenate(std::move(all), axis);
  }
  auto primitive = std::make_shared<Join>(cpu_stream(), axis);
  return mx::array(std::move(shape), first.dtype(), std::move(primitive), arrays);
}

} // namespace mlxcel

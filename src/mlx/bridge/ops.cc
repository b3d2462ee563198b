// MLX's operations on arrays.

#include <stdexcept>

#include "mlx/linalg.h"
#include "mlx/ops.h"
#include "values.h"

namespace mx = mlx::core;

namespace mlxcel {

ArrayPtr astype(const Array& a, std::uint8_t dtype) {
  return own(mx::astype(a, to_dtype(dtype)));
}

ArrayPtr reshape(const Array& a, Dims shape) {
  return own(mx::reshape(a, to_shape(shape)));
}

ArrayPtr transpose(const Array& a, Dims axes) {
  return own(mx::transpose(a, to_axes(axes)));
}

ArrayPtr slice(const Array& a, Dims start, Dims stop) {
  return own(mx::slice(a, to_shape(start), to_shape(stop)));
}

ArrayPtr slice_update(const Array& a, const Array& update, Dims start, Dims stop) {
  return own(mx::slice_update(a, update, to_shape(start), to_shape(stop)));
}

ArrayPtr concatenate(const ArrayList& list, std::int32_t axis, std::int32_t room) {
  return own(join(list.arrays, axis, room));
}

ArrayPtr take(const Array& a, const Array& indices, std::int32_t axis) {
  return own(mx::take(a, indices, axis));
}

ArrayPtr add(const Array& a, const Array& b) {
  return own(mx::add(a, b));
}

ArrayPtr multiply(const Array& a, const Array& b) {
  return own(mx::multiply(a, b));
}

ArrayPtr scale(const Array& a, float factor) {
  return own(mx::multiply(a, Array(factor, a.dtype())));
}

std::unique_ptr<ArrayList> quantize(const Array& a, std::int32_t group_size, std::int32_t bits) {
  auto list = std::make_unique<ArrayList>();
  list->arrays = mx::quantize(a, group_size, bits);
  return list;
}

ArrayPtr sigmoid(const Array& a) {
  return own(mx::sigmoid(a));
}

ArrayPtr matmul(const Array& a, const Array& b) {
  return own(mx::matmul(a, b));
}

ArrayPtr quantized_matmul(
    const Array& x,
    const Array& w,
    const Array& scales,
    const ArrayList& biases,
    std::int32_t group_size,
    std::int32_t bits,
    std::uint8_t mode) {
  const auto given = biases.arrays.empty() ? std::nullopt : std::optional(biases.arrays[0]);
  return own(mx::quantized_matmul(
      x, w, scales, given, true, group_size, bits, mode_name(static_cast<kernels::Mode>(mode))));
}

ArrayPtr broadcast_to(const Array& a, Dims shape) {
  return own(mx::broadcast_to(a, to_shape(shape)));
}

ArrayPtr contiguous(const Array& a) {
  return own(mx::contiguous(a));
}

ArrayPtr view(const Array& a, std::uint8_t dtype) {
  return own(mx::view(a, to_dtype(dtype)));
}

ArrayPtr every_other(const Array& a, std::int32_t axis, std::int32_t first) {
  const int ndim = static_cast<int>(a.ndim());
  if (axis < 0 || axis >= ndim || first < 0) {
    throw std::invalid_argument("no such axis");
  }
  mx::Shape start(ndim, 0), stop = a.shape(), strides(ndim, 1);
  start[axis] = first;
  strides[axis] = 2;
  return own(mx::slice(a, start, stop, strides));
}

ArrayPtr inverse(const Array& a) {
  return own(mx::linalg::inv(a, mx::Device::cpu));
}

} // namespace mlxcel

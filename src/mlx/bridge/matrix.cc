// Matrices of a checkpoint: made, and rows read of them.

#include <array>
#include <stdexcept>

#include "mlx/ops.h"
#include "mlx/transforms.h"
#include "values.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace {

// The order is that of `Mode` in matrix.rs.
const std::array<const char*, 4> MODES = {"affine", "mxfp4", "nvfp4", "mxfp8"};

bool has_packing(kernels::Mode mode, int group, int bits) {
  switch (mode) {
    case kernels::Mode::affine:
      return ((bits >= 2 && bits <= 6) || bits == 8) && (group == 32 || group == 64 || group == 128);
    case kernels::Mode::mxfp4:
      return bits == 4 && group == 32;
    case kernels::Mode::nvfp4:
      return bits == 4 && group == 16;
    case kernels::Mode::mxfp8:
      return bits == 8 && group == 32;
  }
  return false;
}

/// Whether a matrix, or a stack of them, can have this many dimensions.
bool is_weight(const Array& values) {
  return values.ndim() == 2 || values.ndim() == 3;
}

/// The array without gaps. One that is so already is taken as it is: MLX's `contiguous` does not know the size of
/// the memory behind what is mapped from a file, and copies it.
Array without_gaps(const Array& x) {
  return x.is_available() && x.flags().row_contiguous ? x : mx::contiguous(x);
}

} // namespace

const char* mode_name(kernels::Mode mode) {
  return MODES.at(static_cast<std::size_t>(mode));
}

WeightPtr dense_weight(const Array& values) {
  if (!is_weight(values)) {
    throw std::invalid_argument("a weight is a matrix, or one an expert");
  }
  auto rows = without_gaps(values);
  auto transposed = mx::swapaxes(rows, -1, -2);
  // Once, so that no step builds the view again.
  mx::eval(rows, transposed);
  auto weight = std::make_unique<Weight>(Weight{.values = rows});
  weight->transposed = transposed;
  return weight;
}

WeightPtr quantized_weight(
    const Array& words,
    const Array& scales,
    const ArrayList& biases,
    std::int32_t group_size,
    std::int32_t bits,
    std::uint8_t mode_index) {
  const auto mode = static_cast<kernels::Mode>(mode_index);
  if (mode_index >= MODES.size() || !has_packing(mode, group_size, bits)) {
    throw std::invalid_argument("no such quantization");
  }
  const bool affine = mode == kernels::Mode::affine;
  mx::Shape groups = words.shape();
  const int columns = is_weight(words) ? words.shape(-1) * 32 / bits : 0;
  if (!groups.empty()) {
    groups.back() = columns / group_size;
  }
  const bool scaled = affine
      ? mx::issubdtype(scales.dtype(), mx::floating) && scales.dtype() != mx::float64
      : scales.dtype() == mx::uint8;
  if (!is_weight(words) || words.dtype() != mx::uint32 || columns % group_size != 0 ||
      scales.shape() != groups || !scaled || biases.arrays.size() != (affine ? 1 : 0)) {
    throw std::invalid_argument("words, scales and biases do not make a quantized matrix");
  }
  auto weight = std::make_unique<Weight>(Weight{.values = without_gaps(words)});
  weight->scales = without_gaps(scales);
  weight->group = group_size;
  weight->bits = bits;
  weight->mode = mode;
  if (affine) {
    const auto& given = biases.arrays[0];
    if (given.shape() != groups || given.dtype() != scales.dtype()) {
      throw std::invalid_argument("the biases are not of the scales' shape and type");
    }
    weight->biases = without_gaps(given);
    weight->biases->eval();
  }
  mx::eval(weight->values, *weight->scales);
  return weight;
}

void set_offset(Weight& weight, const Array& offset) {
  auto shape = weight.values.shape();
  shape.pop_back();
  if (offset.shape() != shape) {
    throw std::invalid_argument("a bias has one number a row of its matrix");
  }
  weight.offset = mx::contiguous(offset);
  weight.offset->eval();
  weight.operand.reset();
}

void set_factors(Weight& weight, const Array& factors) {
  if (weight.values.ndim() != 3 || factors.shape() != mx::Shape{weight.experts()} ||
      factors.dtype() != mx::float32) {
    throw std::invalid_argument("there is one factor an expert, in float32");
  }
  weight.factors = mx::contiguous(factors);
  weight.factors->eval();
  weight.operand.reset();
}

ArrayPtr weight_rows(const Weight& weight, const Array& indices, std::uint8_t index) {
  const auto dtype = to_dtype(index);
  if (dtype == mx::float32 && mx::default_device() == mx::Device::cpu) {
    return own(take_rows(weight, indices));
  }
  auto rows = mx::take(weight.values, indices, 0);
  if (weight.bits > 0) {
    const auto part = [&](const Array& of) { return mx::take(of, indices, 0); };
    rows = mx::dequantize(
        rows, part(*weight.scales),
        weight.biases ? std::optional(part(*weight.biases)) : std::nullopt, weight.group,
        weight.bits, mode_name(weight.mode));
  }
  return own(mx::astype(rows, dtype));
}

} // namespace mlxcel

// How the operands of a product lie among the inputs of a primitive, and how its work is cut.
#pragma once

#include <algorithm>
#include <vector>

#include "pool.h"
#include "primitive.h"
#include "table.h"
#include "weight.h"

namespace mlxcel::kernels {

/// Multiplications below which a second thread costs more than it brings.
constexpr std::size_t SMALL_PRODUCT = 32 * 1024;
/// Rows of the matrix that a thread takes at once: a multiple of a cache line of results.
constexpr std::size_t LEAST_ROWS = 16;
constexpr std::size_t MOST_ROWS = 64;
/// Activations that a thread packs at once.
constexpr std::size_t PACKED_AT_ONCE = 16;

inline Element element_of(const mlx::core::array& array) {
  return array.dtype() == mlx::core::float32  ? Element::f32
      : array.dtype() == mlx::core::bfloat16 ? Element::bf16
                                             : Element::f16;
}

/// How a weight's arrays lie among the inputs of a primitive.
struct Layout {
  int group;
  int bits;
  Mode mode;
  bool offset;
  bool factors;

  explicit Layout(const Weight& weight)
      : group(weight.group),
        bits(weight.bits),
        mode(weight.mode),
        offset(weight.offset.has_value()),
        factors(weight.factors.has_value()) {}
  bool operator==(const Layout&) const = default;
};

inline void push(std::vector<mlx::core::array>& inputs, const Weight& weight) {
  inputs.push_back(weight.values);
  for (const auto* part : {&weight.scales, &weight.biases, &weight.offset, &weight.factors}) {
    if (*part) {
      inputs.push_back(**part);
    }
  }
}

/// A weight again, among the inputs from `next` on. The matrices of experts are one, below one another.
struct Operand {
  Matrix matrix;
  std::size_t experts;
  const float* offset = nullptr;
  const float* factors = nullptr;

  Operand(const Layout& layout, const std::vector<mlx::core::array>& inputs, std::size_t& next) {
    const auto& values = inputs[next++];
    const bool packed = layout.bits > 0, affine = packed && layout.mode == Mode::affine;
    experts = values.ndim() == 3 ? values.shape(0) : 1;
    matrix.rows = experts * values.shape(-2);
    matrix.columns = packed ? values.shape(-1) * 32 / layout.bits : values.shape(-1);
    matrix.element = !packed ? element_of(values) : affine ? element_of(inputs[next]) : Element::f32;
    matrix.mode = layout.mode;
    matrix.bits = layout.bits;
    matrix.group = layout.group;
    matrix.values = values.data<void>();
    matrix.scales = packed ? inputs[next++].data<void>() : nullptr;
    matrix.biases = affine ? inputs[next++].data<void>() : nullptr;
    if (layout.offset) {
      offset = inputs[next++].data<float>();
    }
    if (layout.factors) {
      factors = inputs[next++].data<float>();
    }
  }

  /// Of one expert.
  std::size_t rows() const { return matrix.rows / experts; }
};

inline Rows rows_of(const mlx::core::array& x) {
  return {
      x.data<float>(), static_cast<std::size_t>(x.shape(0)), static_cast<std::size_t>(x.shape(1)),
      static_cast<std::ptrdiff_t>(x.strides(0)), static_cast<std::ptrdiff_t>(x.strides(1))};
}

/// Rows of a matrix for one thread at once. What it is changes no result.
inline std::size_t rows_at_once(std::size_t rows, std::size_t columns, std::size_t count) {
  if (rows * columns * count < SMALL_PRODUCT) {
    return rows;
  }
  const std::size_t even = rows / (4 * threads()) / LEAST_ROWS * LEAST_ROWS;
  return std::clamp(even, LEAST_ROWS, MOST_ROWS);
}

/// Adds rows `from` to `to` of the operand's offset to `count` rows of products.
inline void add_offset(
    const Table& kernels,
    const Operand& operand,
    std::size_t count,
    std::size_t from,
    std::size_t to,
    float* out,
    std::size_t stride) {
  if (operand.offset != nullptr) {
    for (std::size_t m = 0; m < count; m++) {
      kernels.add_to(out + m * stride, operand.offset + from, to - from);
    }
  }
}

} // namespace mlxcel::kernels

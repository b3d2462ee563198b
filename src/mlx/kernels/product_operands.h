// The operands of products, and how their work is cut.
#pragma once

#include <algorithm>
#include <memory>
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

/// A weight as kernels read it. It keeps the arrays alive by itself: as inputs of every primitive they
/// would cost the graph more time than a small product takes.
struct Operand {
  /// The matrices of experts are one, below one another.
  Matrix matrix;
  std::size_t experts;
  const float* offset = nullptr;
  const float* factors = nullptr;

  explicit Operand(const Weight& weight) : experts(weight.experts()) {
    const auto data = [&](const std::optional<mlx::core::array>& part) -> const void* {
      if (!part) {
        return nullptr;
      }
      kept_.push_back(*part);
      return part->data<void>();
    };
    kept_.push_back(weight.values);
    const bool packed = weight.bits > 0;
    matrix.rows = experts * static_cast<std::size_t>(weight.rows());
    matrix.columns = weight.columns();
    matrix.element = !packed   ? element_of(weight.values)
        : weight.biases ? element_of(*weight.scales)
                        : Element::f32;
    matrix.mode = weight.mode;
    matrix.bits = weight.bits;
    matrix.group = weight.group;
    matrix.values = weight.values.data<void>();
    matrix.scales = data(weight.scales);
    matrix.biases = data(weight.biases);
    offset = static_cast<const float*>(data(weight.offset));
    factors = static_cast<const float*>(data(weight.factors));
  }

  /// Of one expert.
  std::size_t rows() const { return matrix.rows / experts; }

 private:
  std::vector<mlx::core::array> kept_;
};

using OperandPtr = std::shared_ptr<const Operand>;

/// Made when it is first asked for: until then a weight's offset and factors may be set.
inline OperandPtr operand_of(const Weight& weight) {
  if (!weight.operand) {
    weight.operand = std::make_shared<const Operand>(weight);
  }
  return weight.operand;
}

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

/// Calls `work` with ranges of the matrix' rows on all threads.
template <class Work>
void for_rows(const Matrix& matrix, std::size_t count, Work work) {
  const std::size_t step = rows_at_once(matrix.rows, matrix.columns, count);
  parallel_for((matrix.rows + step - 1) / step, [&](std::size_t piece) {
    const std::size_t from = piece * step;
    work(from, std::min(from + step, matrix.rows));
  });
}

/// Lays all rows of `x` out for `matrix`.
inline void pack_all(const Table& kernels, const Matrix& matrix, const Rows& x, float* packed) {
  const std::size_t pieces = (x.rows + PACKED_AT_ONCE - 1) / PACKED_AT_ONCE;
  parallel_for(pieces, [&](std::size_t piece) {
    const std::size_t from = piece * PACKED_AT_ONCE;
    kernels.products->pack(matrix, x, from, std::min(from + PACKED_AT_ONCE, x.rows), packed);
  });
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

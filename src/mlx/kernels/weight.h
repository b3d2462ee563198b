// A matrix of a checkpoint, as products want it.
#pragma once

#include <optional>

#include "mlx/array.h"

#include "operands.h"

namespace mlxcel {

/// A matrix `[rows, columns]`, dense or affine-quantized, to be multiplied as its transpose.
struct Weight {
  mlx::core::array values;
  /// A view of the dense values, for MLX's own product.
  std::optional<mlx::core::array> transposed;
  /// Both where the matrix is quantized, `[rows, columns / group]`.
  std::optional<mlx::core::array> scales, biases;
  /// Added to a product, `[rows]`.
  std::optional<mlx::core::array> offset;
  int group = 0;
  int bits = 0;

  int rows() const { return values.shape(0); }
  int columns() const { return bits == 0 ? values.shape(1) : values.shape(1) * 32 / bits; }
};

/// Whether our kernels compute with these: on the CPU, in float32.
bool has_kernels(const mlx::core::array& x);

// Operations of our own primitives (lazy). All arrays but the weights' are float32.

/// `x Wᵀ + b`, and `residual` if there is one: `[tokens, columns]` to `[tokens, rows]`.
mlx::core::array product(
    const mlx::core::array& x, const Weight& weight, const mlx::core::array* residual);

/// `activation(x Gᵀ) · x Uᵀ`.
mlx::core::array gated_product(
    const mlx::core::array& x,
    const Weight& gate,
    const Weight& up,
    kernels::Activation activation);

/// The rows that `indices` (uint32 or int32, `[tokens]`) names: `[tokens, columns]`.
mlx::core::array take_rows(const Weight& weight, const mlx::core::array& indices);

/// Over the last dimension.
mlx::core::array rms_norm_rows(const mlx::core::array& x, const mlx::core::array& weight, float eps);

/// Layer normalization over the last dimension; `bias` may be null.
mlx::core::array layer_norm_rows(
    const mlx::core::array& x,
    const mlx::core::array& weight,
    const mlx::core::array* bias,
    float eps);

/// `activation(x) · up`, without `up` where that is null.
mlx::core::array activate_numbers(
    const mlx::core::array& x, const mlx::core::array* up, kernels::Activation activation);

/// `x` `[batch, heads, seq, dim]` turned: entry `s` of batch `b` stands at `positions[b] + s` (int32,
/// one for all or one each), and feature pair `i` turns by `position · frequencies[i]`; what is turned
/// is multiplied by `amplitude`.
mlx::core::array rotate_heads(
    const mlx::core::array& x,
    const mlx::core::array& positions,
    const mlx::core::array& frequencies,
    bool traditional,
    float amplitude);

/// What becomes of the products of queries and keys.
struct Scores {
  float scale;
  /// Positions that a query sees, its own the last; 0: all before it.
  int window;
  /// Scores go through `soft_cap · tanh(score / soft_cap)`; 0 leaves them.
  float soft_cap;

  bool operator==(const Scores&) const = default;
};

/// Causal attention of the last `seq` of `total` positions: queries `[1, heads, seq, dim]`, keys and
/// values `[1, kv_heads, total, dim]`, whose features lie side by side. `sinks`, one a head or null,
/// take part in the softmax without a value.
mlx::core::array attend_causally(
    const mlx::core::array& queries,
    const mlx::core::array& keys,
    const mlx::core::array& values,
    Scores scores,
    const mlx::core::array* sinks);

} // namespace mlxcel

// Layers that carry a state from token to token. All of them see every row of a step at once: the rows'
// tokens behind one another, and a state each.
#pragma once

#include <optional>
#include <vector>

#include "mlx/array.h"

namespace mlxcel {

/// The result for all tokens, then the rows' states after it.
using Advanced = std::vector<mlx::core::array>;

/// What a step's rows carry, and how many tokens each has.
struct Carried {
  const std::vector<mlx::core::array>& states;
  std::vector<int> lengths;
};

/// A causal depthwise convolution. A state, `[taps - 1, features]`, is the last tokens.
struct ShortConv {
  /// `[taps, features]`.
  mlx::core::array weight;
  /// `[features]`.
  std::optional<mlx::core::array> bias;
  /// Whether the result goes through SiLU.
  bool silu;

  int taps() const { return weight.shape(0); }
  int features() const { return weight.shape(1); }
};

/// A linear recurrence over heads whose state is a matrix: the gated delta rule, or Mamba-2's state
/// space. A state is `[value_heads, key_dim, value_dim]` in float32.
struct Recurrent {
  /// Each serves as many neighbouring value heads as come to it.
  int key_heads;
  int value_heads;
  int key_dim;
  int value_dim;
  /// How fast a head forgets, at most 0, and what its step size is shifted by: `[value_heads]`, float32.
  mlx::core::array rate;
  mlx::core::array dt_bias;
  /// Of the state space: what of a value goes past the state, `[value_heads]`, float32.
  std::optional<mlx::core::array> skip;
  /// Bounds of a step size.
  float least;
  float most;

  bool is_delta() const { return !skip; }
  int keys() const { return key_heads * key_dim; }
  int values() const { return value_heads * value_dim; }
  int features() const { return 2 * keys() + values(); }
};

/// What a recurrence reads of its tokens. `mixed` is `[tokens, features]`: queries, keys and values of
/// the delta rule; values, keys and queries of the state space (x, B, C). `dt` is
/// `[tokens, value_heads]`; so is `beta`, which only the delta rule has.
struct Mixed {
  mlx::core::array mixed;
  mlx::core::array dt;
  std::optional<mlx::core::array> beta;
};

/// Normalization by the root mean square of groups of features, gated by SiLU.
struct GatedNorm {
  /// One number a feature of a group, or one a feature of all.
  mlx::core::array weight;
  float eps;
  int group;
  /// Whether the gate is applied before the normalization.
  bool gate_first;
};

/// `x` is `[tokens, features]`.
Advanced convolve(const mlx::core::array& x, const ShortConv& conv, const Carried& carried);
/// Gives `[tokens, value_heads · value_dim]`.
Advanced recur(const Mixed& mixed, const Recurrent& layer, const Carried& carried);
/// `x` and `gate` are `[tokens, features]`.
mlx::core::array normalize_gated(
    const mlx::core::array& x, const mlx::core::array& gate, const GatedNorm& norm);

// The same by MLX's own operations, for any type and device. That of a recurrence grows with the tokens.
namespace graph {
Advanced convolve(const mlx::core::array& x, const ShortConv& conv, const Carried& carried);
Advanced recur(const Mixed& mixed, const Recurrent& layer, const Carried& carried);
mlx::core::array normalize_gated(
    const mlx::core::array& x, const mlx::core::array& gate, const GatedNorm& norm);
} // namespace graph

} // namespace mlxcel

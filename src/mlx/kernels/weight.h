// A matrix of a checkpoint, as products want it.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "mlx/array.h"

#include "operands.h"

namespace mlxcel {

namespace kernels {
struct Operand;
}

/// A matrix `[rows, columns]`, dense or quantized, to be multiplied as its transpose; or one for each
/// expert, `[experts, rows, columns]`, and so with everything below.
struct Weight {
  mlx::core::array values;
  /// A view of the dense values, for MLX's own product.
  std::optional<mlx::core::array> transposed = {};
  /// `[rows, columns / group]` where the matrix is quantized; biases with affine quantization only.
  std::optional<mlx::core::array> scales = {}, biases = {};
  /// Added to a product, `[rows]`.
  std::optional<mlx::core::array> offset = {};
  /// What each expert's matrix is multiplied by, `[experts]`.
  std::optional<mlx::core::array> factors = {};
  int group = 0;
  int bits = 0;
  kernels::Mode mode = kernels::Mode::affine;
  /// The same as our kernels read it, once one of them was asked for.
  mutable std::shared_ptr<const kernels::Operand> operand = {};

  int experts() const { return values.ndim() == 3 ? values.shape(0) : 1; }
  int rows() const { return values.shape(-2); }
  int columns() const { return bits == 0 ? values.shape(-1) : values.shape(-1) * 32 / bits; }
};

/// What opens the gate of an expert.
struct Gate {
  /// `activation(gate) · up`, unless `clamped`.
  kernels::Activation activation = {};
  /// `min(gate, limit) · sigmoid(alpha · min(gate, limit)) · (clip(up, ±limit) + 1)`, as in gpt-oss.
  bool clamped = false;
  float alpha = 0;
  float limit = 0;

  bool operator==(const Gate&) const = default;
};

/// How experts are chosen from their scores.
struct Routing {
  enum class Scoring : std::uint8_t { softmax, softmax_of_chosen, sigmoid };

  Scoring scoring;
  /// Experts a token.
  int choices;
  /// Whether the weights of a token's experts are made to sum up to one.
  bool normalize;
  /// What the weights are multiplied by at last.
  float scale;
  /// Experts compete in groups, of which the best ones are kept (by the sum of their two best); 1: no groups.
  int groups;
  int kept_groups;

  bool operator==(const Routing&) const = default;
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

/// `(activation(x Gᵀ) · x Uᵀ) Dᵀ`, and `residual` if there is one: the layer that is called MLP.
mlx::core::array gated_mlp(
    const mlx::core::array& x,
    const Weight& gate,
    const Weight& up,
    kernels::Activation activation,
    const Weight& down,
    const mlx::core::array* residual);

/// What becomes of the heads of queries and keys.
struct HeadsFormat {
  /// Features of a head.
  int dim;
  /// Of the norms.
  float eps;
  /// As in `rotate_heads`.
  bool traditional;
  float amplitude;

  bool operator==(const HeadsFormat&) const = default;
};

/// Queries, keys and values of tokens `x`, `[tokens, columns]`: a product each. The heads of the first
/// two are normalized where there are norms (`[dim]` both, root-mean-square), then turned where there are
/// frequencies, token `i` standing at `positions[i]` (int32): `[tokens, heads, 1, dim]`.
std::vector<mlx::core::array> project_heads(
    const mlx::core::array& x,
    const std::array<const Weight*, 3>& weights,
    const std::vector<mlx::core::array>& norms,
    const mlx::core::array* frequencies,
    const mlx::core::array& positions,
    HeadsFormat format);

/// Each token with its experts: `choices` (uint32, `[tokens, k]`) names the matrices that row `t` of `x`
/// (`[tokens, columns]`), or row `t · k + i` of it (`[tokens · k, columns]`), is multiplied with:
/// `[tokens · k, rows]`.
mlx::core::array gathered_product(
    const mlx::core::array& x, const Weight& weight, const mlx::core::array& choices);

/// The same, with the gate opened.
mlx::core::array gathered_gate(
    const mlx::core::array& x,
    const Weight& gate,
    const Weight& up,
    const mlx::core::array& choices,
    const Gate& opening);

/// The products of a token's experts, weighed with `weights` (`[tokens, k]`) and summed up, and `residual` if
/// there is one: `[tokens, rows]`.
mlx::core::array gathered_sum(
    const mlx::core::array& x,
    const Weight& weight,
    const mlx::core::array& choices,
    const mlx::core::array& weights,
    const mlx::core::array* residual);

/// The experts of each token and their weights, `[tokens, k]` both, the best first. `logits` are
/// `[tokens, experts]`; `correction`, `[experts]`, takes part in the choice but not in the weights.
std::pair<mlx::core::array, mlx::core::array> route_tokens(
    const mlx::core::array& logits, const mlx::core::array* correction, const Routing& routing);

/// The rows that `indices` (uint32 or int32, `[tokens]`) names: `[tokens, columns]`.
mlx::core::array take_rows(const Weight& weight, const mlx::core::array& indices);

/// The arrays behind one another along `axis`, with `room` entries of zeros after them; always a copy.
/// On any device.
mlx::core::array join(const std::vector<mlx::core::array>& arrays, int axis, int room);

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
  /// Positions from the first on that are seen beside the window.
  int keep;
  /// Scores go through `soft_cap · tanh(score / soft_cap)`; 0 leaves them.
  float soft_cap;

  bool operator==(const Scores&) const = default;
};

/// How keys and values are packed, as by MLX's affine quantization.
struct CachePacking {
  int group;
  /// 8 or 4; 0 where they are not packed.
  int bits;

  /// How many arrays hold the keys, and how many the values: the numbers, or words, scales and biases.
  std::size_t arrays() const { return bits > 0 ? 3 : 1; }
  bool operator==(const CachePacking&) const = default;
};

/// Causal attention of the last `seq` of `total` positions: queries `[1, heads, seq, dim]`, keys and
/// values `[1, kv_heads, total, dim]`, in float32 or float16 or packed, whose features lie side by side.
/// `sinks`, one a head or null, take part in the softmax without a value.
mlx::core::array attend_causally(
    const mlx::core::array& queries,
    const std::vector<mlx::core::array>& keys,
    const std::vector<mlx::core::array>& values,
    CachePacking packing,
    Scores scores,
    const mlx::core::array* sinks);

/// What a sequence holds, and how many tokens it has in the step.
struct Cache {
  /// Arrays as above, those of the keys first, each with room for the new positions.
  std::vector<mlx::core::array> buffers;
  /// Positions that are filled.
  int filled;
  /// Positions that come behind them.
  int added;
  /// Whether nobody else writes behind these: then there is nothing to be copied first.
  bool own;
};

/// Writes the keys and values of new tokens, `[tokens, kv_heads, 1, dim]`, those of one sequence behind those of the
/// one before, each behind those of its cache; every token attends to its own sequence: what is found,
/// `[tokens, heads · dim]`, then the caches' buffers.
std::vector<mlx::core::array> attend_and_keep(
    const mlx::core::array& queries,
    const mlx::core::array& keys,
    const mlx::core::array& values,
    const std::vector<Cache>& caches,
    CachePacking packing,
    Scores scores,
    const mlx::core::array* sinks);

} // namespace mlxcel

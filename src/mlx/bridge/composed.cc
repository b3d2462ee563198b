#include "composed.h"

#include <cmath>
#include <optional>
#include <string>

#include "mlx/fast.h"
#include "mlx/ops.h"

namespace mx = mlx::core;

namespace mlxcel::composed {
namespace {

using mx::array;

array number(float value, const array& like) {
  return array(value, like.dtype());
}

/// Which of the last `total` positions each of the last `seq` sees: `[seq, total]`, true where it does.
array causal_mask(int seq, int total, Scores scores) {
  const auto places = mx::expand_dims(mx::arange(total - seq, total), 1);
  const auto keys = mx::expand_dims(mx::arange(total), 0);
  auto mask = mx::greater_equal(places, keys);
  if (scores.window > 0 && scores.window < total) {
    auto seen = mx::less(places, mx::add(keys, array(scores.window)));
    seen = mx::logical_or(seen, mx::less(keys, array(scores.keep)));
    mask = mx::logical_and(mask, seen);
  }
  return mask;
}

/// `x` times the rows of one side of a cache: by their features, or by their positions.
array times(
    const array& x, const std::vector<array>& rows, CachePacking packing, bool by_features) {
  const auto grouped = [&](std::size_t i) { return mx::expand_dims(rows[i], 2); };
  if (packing.bits > 0) {
    return mx::quantized_matmul(
        x, grouped(0), grouped(1), grouped(2), by_features, packing.group, packing.bits);
  }
  return mx::matmul(x, by_features ? mx::swapaxes(grouped(0), -1, -2) : grouped(0));
}

/// Attention with what MLX's own operation cannot do: scores through tanh, a packed cache.
array attend_in_steps(
    const array& q,
    const std::vector<array>& k,
    const std::vector<array>& v,
    CachePacking packing,
    Scores scores,
    const array* sinks) {
  const int heads = q.shape(1), seq = q.shape(2), dim = q.shape(3), kv_heads = k[0].shape(1);
  const auto grouped = mx::reshape(
      mx::multiply(q, number(scores.scale, q)), {1, kv_heads, heads / kv_heads, seq, dim});
  auto logits = times(grouped, k, packing, true);
  if (scores.soft_cap > 0) {
    const auto cap = number(scores.soft_cap, logits);
    logits = mx::multiply(mx::tanh(mx::divide(logits, cap)), cap);
  }
  const auto mask = causal_mask(seq, k[0].shape(2), scores);
  logits = mx::where(mask, logits, number(-INFINITY, logits));
  if (sinks != nullptr) {
    const auto shape = mx::Shape{1, kv_heads, heads / kv_heads, 1, 1};
    const auto column = mx::broadcast_to(
        mx::reshape(*sinks, shape), {1, kv_heads, heads / kv_heads, seq, 1});
    logits = mx::concatenate({mx::astype(column, logits.dtype()), logits}, -1);
  }
  auto weights = mx::softmax(logits, -1, true);
  if (sinks != nullptr) {
    const int end = weights.shape(-1);
    weights = mx::slice(weights, {0, 0, 0, 0, 1}, {1, kv_heads, heads / kv_heads, seq, end});
  }
  const auto out = times(weights, v, packing, false);
  return mx::reshape(out, {1, heads, seq, out.shape(-1)});
}

} // namespace

array activate(const array& x, kernels::Activation activation) {
  using Kind = kernels::Activation::Kind;
  switch (activation.kind) {
    case Kind::silu:
      return mx::multiply(x, mx::sigmoid(x));
    case Kind::gelu: {
      const auto below = mx::add(number(1, x), mx::erf(mx::multiply(x, number(M_SQRT1_2, x))));
      return mx::multiply(mx::multiply(x, below), number(0.5, x));
    }
    case Kind::gelu_tanh: {
      const auto cubic = mx::add(number(1, x), mx::multiply(mx::square(x), number(0.044715f, x)));
      const auto inner = mx::multiply(mx::multiply(x, number(0.79788456f, x)), cubic);
      return mx::multiply(
          mx::multiply(x, number(0.5, x)), mx::add(number(1, x), mx::tanh(inner)));
    }
    case Kind::relu_squared:
      return mx::square(mx::maximum(x, number(0, x)));
    case Kind::sigmoid:
      return mx::sigmoid(x);
    case Kind::soft_cap: {
      const auto cap = number(activation.limit, x);
      return mx::multiply(mx::tanh(mx::divide(x, cap)), cap);
    }
  }
  throw std::invalid_argument("no such activation");
}

array attend(
    const array& q,
    const std::vector<array>& keys,
    const std::vector<array>& values,
    CachePacking packing,
    Scores scores,
    const array* sinks) {
  const int seq = q.shape(2), total = keys.at(0).shape(2);
  if (seq == 1 && scores.keep == 0 && scores.window > 0 && scores.window < total) {
    const auto seen = [&](std::vector<array> side) {
      for (auto& past : side) {
        past = mx::slice(
            past, {0, 0, total - scores.window, 0}, {1, past.shape(1), total, past.shape(3)});
      }
      return side;
    };
    const Scores all{.scale = scores.scale, .window = 0, .keep = 0, .soft_cap = scores.soft_cap};
    return attend(q, seen(keys), seen(values), packing, all, sinks);
  }
  if (scores.soft_cap > 0 || packing.bits > 0) {
    return attend_in_steps(q, keys, values, packing, scores, sinks);
  }
  // The type of the queries, also where the cache is in a smaller one.
  const auto k = mx::astype(keys[0], q.dtype()), v = mx::astype(values.at(0), q.dtype());
  const auto optional_sinks = sinks == nullptr ? std::nullopt : std::optional<array>(*sinks);
  if (scores.window > 0 && scores.window < total) {
    return mx::fast::scaled_dot_product_attention(
        q, k, v, scores.scale, "array", causal_mask(seq, total, scores), optional_sinks);
  }
  return mx::fast::scaled_dot_product_attention(
      q, k, v, scores.scale, seq > 1 ? "causal" : "", std::nullopt, optional_sinks);
}

} // namespace mlxcel::composed

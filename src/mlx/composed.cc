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
array causal_mask(int seq, int total, int window) {
  const auto places = mx::expand_dims(mx::arange(total - seq, total), 1);
  const auto keys = mx::expand_dims(mx::arange(total), 0);
  auto mask = mx::greater_equal(places, keys);
  if (window > 0 && window < total) {
    mask = mx::logical_and(mask, mx::less(places, mx::add(keys, array(window))));
  }
  return mask;
}

/// Attention whose scores go through tanh, which MLX's own operation cannot do.
array attend_capped(
    const array& q, const array& k, const array& v, Scores scores, const array* sinks) {
  const int heads = q.shape(1), seq = q.shape(2), dim = q.shape(3), kv_heads = k.shape(1);
  const auto grouped = mx::reshape(
      mx::multiply(q, number(scores.scale, q)), {1, kv_heads, heads / kv_heads, seq, dim});
  auto logits = mx::matmul(grouped, mx::swapaxes(mx::expand_dims(k, 2), -1, -2));
  const auto cap = number(scores.soft_cap, logits);
  logits = mx::multiply(mx::tanh(mx::divide(logits, cap)), cap);
  const auto mask = causal_mask(seq, k.shape(2), scores.window);
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
  return mx::reshape(mx::matmul(weights, mx::expand_dims(v, 2)), {1, heads, seq, v.shape(3)});
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

array attend(const array& q, const array& k, const array& v, Scores scores, const array* sinks) {
  const int seq = q.shape(2), total = k.shape(2);
  if (seq == 1 && scores.window > 0 && scores.window < total) {
    const auto seen = [&](const array& past) {
      return mx::slice(
          past, {0, 0, total - scores.window, 0}, {1, past.shape(1), total, past.shape(3)});
    };
    return attend(q, seen(k), seen(v), Scores{scores.scale, 0, scores.soft_cap}, sinks);
  }
  if (scores.soft_cap > 0) {
    return attend_capped(q, k, v, scores, sinks);
  }
  const auto optional_sinks = sinks == nullptr ? std::nullopt : std::optional<array>(*sinks);
  if (seq > 1 && scores.window > 0 && scores.window < total) {
    return mx::fast::scaled_dot_product_attention(
        q, k, v, scores.scale, "array", causal_mask(seq, total, scores.window), optional_sinks);
  }
  return mx::fast::scaled_dot_product_attention(
      q, k, v, scores.scale, seq > 1 ? "causal" : "", std::nullopt, optional_sinks);
}

} // namespace mlxcel::composed

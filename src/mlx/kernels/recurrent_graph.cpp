// What recurrent_primitives.cpp computes, by MLX's own operations: for other devices than the CPU, and
// for other types than float32. Rows of one token, as in decoding, are computed together.

#include "recurrent.h"

#include <algorithm>
#include <cmath>

#include "mlx/fast.h"
#include "mlx/ops.h"

namespace mx = mlx::core;

namespace mlxcel::graph {
namespace {

mx::array silu(const mx::array& x) {
  return mx::multiply(x, mx::sigmoid(x));
}

/// Tokens `from` to `to` of `[tokens, ..]`.
mx::array tokens(const mx::array& x, int from, int to) {
  mx::Shape start(x.ndim(), 0), stop = x.shape();
  start[0] = from;
  stop[0] = to;
  return mx::slice(x, start, stop);
}

/// Features `from` to `to` of `[.., features]`.
mx::array features(const mx::array& x, int from, int to) {
  mx::Shape start(x.ndim(), 0), stop = x.shape();
  start.back() = from;
  stop.back() = to;
  return mx::slice(x, start, stop);
}

/// Calls `step` with `[rows, length, ..]` of each array and the rows' states, `[rows, ..]`: once where
/// every row has one token, else row by row.
template <class Step>
Advanced by_rows(const std::vector<mx::array>& arrays, const Carried& carried, Step step) {
  const auto& lengths = carried.lengths;
  const int rows = static_cast<int>(lengths.size());
  const bool single = std::all_of(lengths.begin(), lengths.end(), [](int n) { return n == 1; });
  std::vector<mx::array> outs, states;
  const auto take = [&](int start, int rows_at_once, int length, std::vector<mx::array> before) {
    std::vector<mx::array> parts;
    for (const auto& array : arrays) {
      auto part = tokens(array, start, start + rows_at_once * length);
      parts.push_back(mx::unflatten(part, 0, {rows_at_once, length}));
    }
    auto [out, after] = step(parts, mx::stack(std::move(before), 0));
    outs.push_back(mx::flatten(out, 0, 1));
    for (auto& state : mx::split(after, rows_at_once, 0)) {
      states.push_back(mx::squeeze(state, 0));
    }
  };
  if (single) {
    take(0, rows, 1, carried.states);
  } else {
    for (int row = 0, start = 0; row < rows; start += lengths[row], row++) {
      take(start, 1, lengths[row], {carried.states[row]});
    }
  }
  Advanced result{outs.size() == 1 ? outs[0] : mx::concatenate(std::move(outs), 0)};
  result.insert(result.end(), states.begin(), states.end());
  return result;
}

} // namespace

Advanced convolve(const mx::array& x, const ShortConv& conv, const Carried& carried) {
  return by_rows({x}, carried, [&](const auto& parts, const mx::array& before) {
    const int length = parts[0].shape(1), kept = conv.taps() - 1;
    const auto padded = mx::concatenate({mx::astype(before, x.dtype()), parts[0]}, 1);
    const auto window = [&](int from, int to) {
      return mx::slice(padded, {0, from, 0}, {padded.shape(0), to, padded.shape(2)});
    };
    auto sum = mx::multiply(window(0, length), tokens(conv.weight, 0, 1));
    for (int tap = 1; tap <= kept; tap++) {
      sum = mx::add(
          sum, mx::multiply(window(tap, tap + length), tokens(conv.weight, tap, tap + 1)));
    }
    if (conv.bias) {
      sum = mx::add(sum, *conv.bias);
    }
    const auto after = mx::contiguous(window(length, length + kept));
    return std::pair{mx::astype(conv.silu ? silu(sum) : sum, x.dtype()), after};
  });
}

Advanced recur(const Mixed& mixed, const Recurrent& layer, const Carried& carried) {
  const auto type = mixed.mixed.dtype();
  const int keys = layer.keys(), values = layer.values();
  const bool delta = layer.is_delta();
  std::vector<mx::array> arrays{mx::astype(mixed.mixed, mx::float32), mixed.dt};
  if (delta) {
    arrays.push_back(*mixed.beta);
  }
  return by_rows(arrays, carried, [&](const auto& parts, const mx::array& before) {
    const int rows = parts[0].shape(0), length = parts[0].shape(1);
    // `[rows, length, value_heads, 1, dim]`
    const auto heads = [&](int from, int dim, int count) {
      auto part = features(parts[0], from, from + count * dim);
      return mx::reshape(part, {rows, length, count, 1, dim});
    };
    const auto of_key_heads = [&](int from, float scale) {
      auto x = heads(from, layer.key_dim, layer.key_heads);
      if (delta) {
        const float eps = 1e-6f / static_cast<float>(layer.key_dim);
        x = mx::multiply(mx::array(scale), mx::fast::rms_norm(x, std::nullopt, eps));
      }
      return mx::repeat(x, layer.value_heads / layer.key_heads, 2);
    };
    const float scale = 1.0f / std::sqrt(static_cast<float>(layer.key_dim));
    const auto queries = of_key_heads(delta ? 0 : values + keys, scale * scale);
    const auto key = of_key_heads(delta ? keys : values, scale);
    const auto value = heads(delta ? 2 * keys : 0, layer.value_dim, layer.value_heads);

    const auto x = mx::add(mx::astype(parts[1], mx::float32), layer.dt_bias);
    auto step = mx::logaddexp(x, mx::array(0.0f));
    step = mx::minimum(mx::maximum(step, mx::array(layer.least)), mx::array(layer.most));
    const auto gate = [&](const mx::array& of) { return mx::expand_dims(of, {3, 4}); };
    const auto decay = gate(mx::exp(mx::multiply(layer.rate, step)));
    const auto write = gate(delta ? mx::sigmoid(mx::astype(parts[2], mx::float32)) : step);

    const auto at = [&](const mx::array& of, int t) {
      mx::Shape start(of.ndim(), 0), stop = of.shape();
      start[1] = t;
      stop[1] = t + 1;
      return mx::squeeze(mx::slice(of, start, stop), 1);
    };
    auto state = mx::astype(before, mx::float32);
    std::vector<mx::array> outs;
    for (int t = 0; t < length; t++) {
      state = mx::multiply(state, at(decay, t));
      auto news = at(value, t);
      const auto k = at(key, t);
      if (delta) {
        news = mx::subtract(news, mx::matmul(k, state));
      }
      news = mx::multiply(news, at(write, t));
      state = mx::add(state, mx::multiply(mx::swapaxes(k, -1, -2), news));
      outs.push_back(mx::matmul(at(queries, t), state));
    }
    auto out = mx::reshape(mx::stack(std::move(outs), 1), {rows, length, layer.value_heads, -1});
    if (!delta) {
      const auto past = mx::multiply(mx::squeeze(value, 3), mx::expand_dims(*layer.skip, 1));
      out = mx::add(out, past);
    }
    return std::pair{mx::astype(mx::flatten(out, 2, 3), type), state};
  });
}

mx::array normalize_gated(const mx::array& x, const mx::array& gate, const GatedNorm& norm) {
  const auto type = x.dtype();
  const auto open = silu(mx::astype(gate, mx::float32));
  auto out = mx::astype(x, mx::float32);
  if (norm.gate_first) {
    out = mx::multiply(open, out);
  }
  const int groups = x.shape(1) / norm.group;
  out = mx::fast::rms_norm(mx::unflatten(out, 1, {groups, norm.group}), std::nullopt, norm.eps);
  const bool shared = norm.weight.size() == static_cast<std::size_t>(norm.group);
  const auto weight = mx::reshape(norm.weight, {shared ? 1 : groups, norm.group});
  out = mx::flatten(mx::multiply(out, weight), 1, 2);
  if (!norm.gate_first) {
    out = mx::multiply(open, out);
  }
  return mx::astype(out, type);
}

} // namespace mlxcel::graph

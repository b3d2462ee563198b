// The operands of attention as plain memory.
#pragma once

#include <stdexcept>
#include <vector>

#include "mlx/ops.h"

#include "attention_task.h"
#include "primitive.h"
#include "weight.h"

namespace mlxcel::kernels {

/// Heads of some tokens: queries, keys or values, whose features lie side by side.
struct Heads {
  const float* data;
  std::size_t heads, seq, dim;
  /// Floats from one head of a token to the next, and from one token to the next.
  std::size_t head, token;

  /// `[1, heads, seq, dim]`
  static Heads of_sequence(const mlx::core::array& x) { return Heads(x, 2, 0, x.shape(2)); }
  /// `seq` tokens from `first` on of `[tokens, heads, 1, dim]`.
  static Heads of_tokens(const mlx::core::array& x, std::size_t first, std::size_t seq) {
    return Heads(x, 0, first, seq);
  }

 private:
  Heads(const mlx::core::array& x, int axis, std::size_t first, std::size_t seq)
      : heads(x.shape(1)),
        seq(seq),
        dim(x.shape(3)),
        head(static_cast<std::size_t>(x.strides(1))),
        token(static_cast<std::size_t>(x.strides(axis))) {
    data = x.data<float>() + first * token;
  }
};

inline void want_whole_rows(const mlx::core::array& x) {
  if (!has_whole_rows(x)) {
    throw std::invalid_argument("the features of a head do not lie side by side");
  }
}

/// The rows of head `kv` in the arrays of one side of a cache: the numbers, or packed integers with
/// their scales and biases.
inline CacheRows rows_of_head(const mlx::core::array* arrays, CachePacking packing, std::size_t kv) {
  const auto& data = arrays[0];
  CacheRows rows{
      .data = data.data<unsigned char>() + kv * data.strides(1) * data.itemsize(),
      .stride = data.strides(2) * data.itemsize(),
      .element = data.dtype() == mlx::core::float16 ? Element::f16 : Element::f32,
      .bits = packing.bits,
      .group = static_cast<std::size_t>(packing.group),
      .scales = nullptr,
      .biases = nullptr,
      .scale_stride = 0};
  if (packing.bits > 0) {
    // One of both was written as the other was.
    rows.scales = arrays[1].data<float>() + kv * arrays[1].strides(1);
    rows.biases = arrays[2].data<float>() + kv * arrays[2].strides(1);
    rows.scale_stride = arrays[1].strides(2);
  }
  return rows;
}

/// All that `queries` want, of a cache whose first `total` positions count; what they find goes to `result`,
/// token by token.
inline Queries describe(
    const Heads& queries,
    const mlx::core::array* cache,
    std::size_t total,
    CachePacking packing,
    const Scores& scores,
    const mlx::core::array* sinks,
    float* result) {
  const std::size_t kv_heads = cache->shape(1);
  const std::size_t window = scores.window > 0 ? static_cast<std::size_t>(scores.window) : total;
  Queries all{
      .heads = {},
      .queries = queries.data,
      .query_head = queries.head,
      .query_row = queries.token,
      .sinks = sinks == nullptr ? nullptr : sinks->data<float>(),
      .result = result,
      .group = queries.heads / kv_heads,
      .seq = queries.seq,
      .total = total,
      .window = window,
      .keep = window < total ? static_cast<std::size_t>(scores.keep) : 0};
  for (std::size_t kv = 0; kv < kv_heads; kv++) {
    all.heads.push_back(
        {rows_of_head(cache, packing, kv), rows_of_head(cache + packing.arrays(), packing, kv), queries.dim,
         scores.scale, scores.soft_cap});
  }
  return all;
}

/// Whether the arrays can be those of a cache for heads of `dim` features.
inline bool fit_cache(
    const mlx::core::array* arrays,
    std::size_t count,
    CachePacking packing,
    int kv_heads,
    int positions,
    int dim) {
  namespace mx = mlx::core;
  const bool packed = packing.bits > 0;
  if (packed && ((packing.bits != 8 && packing.bits != 4) ||
                 (packing.group != 32 && packing.group != 64 && packing.group != 128) ||
                 dim % packing.group != 0)) {
    return false;
  }
  const auto& first = arrays[0];
  for (std::size_t i = 0; i < count; i++) {
    const auto& array = arrays[i];
    const bool numbers = i % packing.arrays() == 0;
    const auto plain = first.dtype() == mx::float16 ? mx::float16 : mx::float32;
    const auto dtype = !numbers ? mx::float32 : packed ? mx::uint32 : plain;
    const int features = !packed ? dim : numbers ? dim * packing.bits / 32 : dim / packing.group;
    if (array.shape() != mx::Shape{1, kv_heads, positions, features} || array.dtype() != dtype) {
      return false;
    }
  }
  return count == 2 * packing.arrays();
}

/// Puts `sinks` behind the other inputs, one a head.
inline void push_sinks(std::vector<mlx::core::array>& inputs, const mlx::core::array* sinks, int heads) {
  if (sinks == nullptr) {
    return;
  }
  if (sinks->shape() != mlx::core::Shape{heads} || sinks->dtype() != mlx::core::float32) {
    throw std::invalid_argument("there is one sink a head");
  }
  inputs.push_back(mlx::core::contiguous(*sinks));
}

} // namespace mlxcel::kernels

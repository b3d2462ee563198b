// Attention over a cache, and the writing of new keys and values into it.

#include <cstring>
#include <vector>

#include "mlx/ops.h"

#include "attention_task.h"
#include "pool.h"
#include "primitive.h"
#include "weight.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

/// The rows of head `kv` in the arrays of one side of a cache: the numbers, or packed integers with
/// their scales and biases.
CacheRows rows_of_head(const mx::array* arrays, CachePacking packing, std::size_t kv) {
  const auto& data = arrays[0];
  CacheRows rows{
      .data = data.data<unsigned char>() + kv * data.strides(1) * data.itemsize(),
      .stride = data.strides(2) * data.itemsize(),
      .element = data.dtype() == mx::float16 ? Element::f16 : Element::f32,
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

/// Memory for what `queries` `[1, heads, seq, dim]` find, and the plain description of all that.
/// `past` are the arrays of a cache whose first `total` positions count.
Queries describe(
    const mx::array& q,
    const mx::array* past,
    std::size_t total,
    CachePacking packing,
    const Scores& scores,
    const mx::array* sinks,
    mx::array& out) {
  const std::size_t heads = q.shape(1), seq = q.shape(2), dim = q.shape(3), kv_heads = past->shape(1);
  // In memory the tokens come first: what follows joins the heads of a token.
  out.set_data(
      mx::allocator::malloc(out.nbytes()), out.size(),
      {static_cast<std::int64_t>(heads * seq * dim), static_cast<std::int64_t>(dim),
       static_cast<std::int64_t>(heads * dim), 1},
      {/*contiguous=*/true, /*row_contiguous=*/seq == 1 || heads == 1, /*col_contiguous=*/false});
  const std::size_t window = scores.window > 0 ? static_cast<std::size_t>(scores.window) : total;
  Queries all{
      .heads = {},
      .queries = q.data<float>(),
      .query_head = static_cast<std::size_t>(q.strides(1)),
      .query_row = static_cast<std::size_t>(q.strides(2)),
      .sinks = sinks == nullptr ? nullptr : sinks->data<float>(),
      .result = out.data<float>(),
      .group = heads / kv_heads,
      .seq = seq,
      .total = total,
      .window = window,
      .keep = window < total ? static_cast<std::size_t>(scores.keep) : 0};
  for (std::size_t kv = 0; kv < kv_heads; kv++) {
    all.heads.push_back(
        {rows_of_head(past, packing, kv), rows_of_head(past + packing.arrays(), packing, kv), dim,
         scores.scale, scores.soft_cap});
  }
  return all;
}

void want_whole_rows(const mx::array& x) {
  if (!has_whole_rows(x)) {
    throw std::invalid_argument("the features of a head do not lie side by side");
  }
}

/// Inputs are the queries, the arrays of keys and values, and maybe the sinks.
class Attention : public CpuPrimitive {
 public:
  Attention(mx::Stream stream, Scores scores, CachePacking packing)
      : CpuPrimitive(stream), scores_(scores), packing_(packing) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    const Table& kernels = table();
    const std::size_t arrays = 1 + 2 * packing_.arrays();
    for (std::size_t i = 0; i < arrays; i++) {
      want_whole_rows(inputs[i]);
    }
    Queries all = describe(
        inputs[0], &inputs[1], inputs[1].shape(2), packing_, scores_,
        inputs.size() > arrays ? &inputs.back() : nullptr, out);
    const std::size_t floats = found_of(kernels, all);
    float* found = floats > 0 ? temporary(floats) : nullptr;
    dispatch(out, [&kernels, found, all = std::move(all)] { attend(kernels, all, found); });
  }

  const char* name() const override { return "mlxcel::Attention"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const Attention&>(other);
    return scores_ == same.scores_ && packing_ == same.packing_;
  }

 private:
  Scores scores_;
  CachePacking packing_;
};

/// Keys or values of new positions as plain memory.
struct News {
  const float* data;
  std::size_t head, row;

  explicit News(const mx::array& x)
      : data(x.data<float>()),
        head(static_cast<std::size_t>(x.strides(1))),
        row(static_cast<std::size_t>(x.strides(2))) {}
};

/// The same, with new keys and values that are first written behind those of the cache. Inputs are queries,
/// keys, values, the cache's arrays, and maybe the sinks; results what is found, and the arrays.
class CachedAttention : public CpuPrimitives {
 public:
  CachedAttention(mx::Stream stream, Scores scores, CachePacking packing, int filled, bool own)
      : CpuPrimitives(stream), scores_(scores), packing_(packing), filled_(filled), own_(own) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const Table& kernels = table();
    const std::size_t arrays = 2 * packing_.arrays(), filled = filled_, count = inputs[1].shape(2);
    for (std::size_t i = 0; i < 3; i++) {
      want_whole_rows(inputs[i]);
    }
    for (std::size_t i = 0; i < arrays; i++) {
      keep_array(inputs[3 + i], outputs[1 + i]);
    }
    Queries all = describe(
        inputs[0], &outputs[1], filled + count, packing_, scores_,
        inputs.size() > 3 + arrays ? &inputs.back() : nullptr, outputs[0]);
    const std::size_t floats = found_of(kernels, all);
    float* found = floats > 0 ? temporary(floats) : nullptr;
    const News keys(inputs[1]), values(inputs[2]);
    dispatch(outputs[0], [=, &kernels, all = std::move(all)] {
      const std::size_t heads = all.heads.size(), dim = all.heads[0].dim;
      for_each_of(heads * count, 2 * dim, [&](std::size_t index) {
        const std::size_t kv = index % heads, t = index / heads;
        const AttentionHead& head = all.heads[kv];
        kernels.keep_position(head.keys, filled + t, keys.data + kv * keys.head + t * keys.row, dim);
        kernels.keep_position(head.values, filled + t, values.data + kv * values.head + t * values.row, dim);
      });
      attend(kernels, all, found);
    });
  }

  const char* name() const override { return "mlxcel::CachedAttention"; }

 private:
  Scores scores_;
  CachePacking packing_;
  int filled_;
  bool own_;

  /// The array itself where it may be written to, else a copy of what is filled. MLX would not donate it:
  /// each result of a primitive holds its inputs.
  void keep_array(const mx::array& before, mx::array& after) {
    if (own_ && before.flags().row_contiguous) {
      return after.copy_shared_buffer(before);
    }
    want_whole_rows(before);
    allocate_for_long(after);
    const std::size_t size = before.itemsize(), row = size * static_cast<std::size_t>(before.shape(3));
    const auto head_stride = static_cast<std::ptrdiff_t>(size) * before.strides(1);
    const auto row_stride = static_cast<std::ptrdiff_t>(size) * before.strides(2);
    const std::size_t heads = before.shape(1), room = before.shape(2), filled = filled_;
    const char* source = before.data<char>();
    char* target = after.data<char>();
    dispatch(after, [=] {
      for_each_of(heads * filled, row / sizeof(float) + 1, [&](std::size_t index) {
        const std::size_t head = index / filled, t = index % filled;
        std::memcpy(
            target + (head * room + t) * row,
            source + static_cast<std::ptrdiff_t>(head) * head_stride +
                static_cast<std::ptrdiff_t>(t) * row_stride,
            row);
      });
    });
  }
};

/// Whether the arrays can be those of a cache for heads of `dim` features.
bool fit_cache(
    const mx::array* arrays, std::size_t count, CachePacking packing, int kv_heads, int positions, int dim) {
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

[[noreturn]] void refuse() {
  throw std::invalid_argument("attention wants queries, keys and values [1, heads, seq, dim] that fit");
}

void push_sinks(std::vector<mx::array>& inputs, const mx::array* sinks, int heads) {
  if (sinks == nullptr) {
    return;
  }
  if (sinks->shape() != mx::Shape{heads} || sinks->dtype() != mx::float32) {
    throw std::invalid_argument("there is one sink a head");
  }
  inputs.push_back(mx::contiguous(*sinks));
}

} // namespace
} // namespace kernels

using namespace kernels;

mx::array attend_causally(
    const mx::array& queries,
    const std::vector<mx::array>& keys,
    const std::vector<mx::array>& values,
    CachePacking packing,
    Scores scores,
    const mx::array* sinks) {
  std::vector<mx::array> inputs{queries};
  inputs.insert(inputs.end(), keys.begin(), keys.end());
  inputs.insert(inputs.end(), values.begin(), values.end());
  if (queries.ndim() != 4 || queries.shape(0) != 1 || keys.empty() || keys[0].ndim() != 4 ||
      keys[0].shape(1) < 1 || queries.shape(1) % keys[0].shape(1) != 0 ||
      keys[0].shape(2) < queries.shape(2) ||
      !fit_cache(
          &inputs[1], inputs.size() - 1, packing, keys[0].shape(1), keys[0].shape(2), queries.shape(3))) {
    refuse();
  }
  push_sinks(inputs, sinks, queries.shape(1));
  auto primitive = std::make_shared<Attention>(cpu_stream(), scores, packing);
  return mx::array(queries.shape(), mx::float32, std::move(primitive), std::move(inputs));
}

std::vector<mx::array> attend_and_keep(
    const mx::array& queries,
    const mx::array& keys,
    const mx::array& values,
    Cache cache,
    Scores scores,
    const mx::array* sinks) {
  const auto is_new = [&](const mx::array& x) {
    return x.ndim() == 4 && x.shape() == keys.shape() && x.dtype() == mx::float32;
  };
  if (queries.ndim() != 4 || queries.shape(0) != 1 || !is_new(keys) || !is_new(values) ||
      keys.shape(1) < 1 || queries.shape(1) % keys.shape(1) != 0 ||
      keys.shape(2) != queries.shape(2) || keys.shape(3) != queries.shape(3) ||
      cache.buffers.empty() || cache.buffers[0].ndim() != 4 || cache.filled < 0 ||
      cache.buffers[0].shape(2) - cache.filled < keys.shape(2) ||
      !fit_cache(
          cache.buffers.data(), cache.buffers.size(), cache.packing, keys.shape(1),
          cache.buffers[0].shape(2), keys.shape(3))) {
    refuse();
  }
  std::vector<mx::Shape> shapes{queries.shape()};
  std::vector<mx::Dtype> types{mx::float32};
  for (const auto& buffer : cache.buffers) {
    shapes.push_back(buffer.shape());
    types.push_back(buffer.dtype());
  }
  std::vector<mx::array> inputs{queries, keys, values};
  inputs.insert(inputs.end(), cache.buffers.begin(), cache.buffers.end());
  push_sinks(inputs, sinks, queries.shape(1));
  auto primitive = std::make_shared<CachedAttention>(
      cpu_stream(), scores, cache.packing, cache.filled, cache.own);
  return mx::array::make_arrays(std::move(shapes), types, primitive, inputs);
}

} // namespace mlxcel

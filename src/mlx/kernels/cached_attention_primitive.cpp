// Attention of several sequences, each over its own cache, and the writing of their new keys and values.

#include <cstring>
#include <vector>

#include "attention_operands.h"
#include "pool.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

/// A sequence in the step.
struct Part {
  /// Its tokens: the first of them among those of all sequences, and how many.
  std::size_t first, count;
  /// Positions of its cache that are filled.
  std::size_t filled;
  /// As in `Cache`.
  bool own;
};

/// Inputs are queries, keys, values, the arrays of each cache, and maybe the sinks; results what is found, and
/// the arrays.
class CachedAttention : public CpuPrimitives {
 public:
  CachedAttention(mx::Stream stream, Scores scores, CachePacking packing, std::vector<Part> parts)
      : CpuPrimitives(stream), scores_(scores), packing_(packing), parts_(std::move(parts)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const Table& kernels = table();
    const std::size_t arrays = 2 * packing_.arrays(), fixed = 3 + parts_.size() * arrays;
    const mx::array* sinks = inputs.size() > fixed ? &inputs.back() : nullptr;
    for (std::size_t i = 0; i < 3; i++) {
      want_whole_rows(inputs[i]);
    }
    allocate(outputs[0]);
    std::vector<Queries> queries;
    std::vector<News> news;
    for (std::size_t p = 0; p < parts_.size(); p++) {
      const Part& part = parts_[p];
      for (std::size_t i = p * arrays; i < (p + 1) * arrays; i++) {
        keep_array(part, inputs[3 + i], outputs[1 + i]);
      }
      queries.push_back(describe(
          Heads::of_tokens(inputs[0], part.first, part.count), &outputs[1 + p * arrays],
          part.filled + part.count, packing_, scores_, sinks,
          outputs[0].data<float>() + part.first * outputs[0].shape(1)));
      news.push_back(
          {Heads::of_tokens(inputs[1], part.first, part.count),
           Heads::of_tokens(inputs[2], part.first, part.count), part.filled});
    }
    const std::size_t floats = found_of(kernels, queries);
    float* found = floats > 0 ? temporary(floats) : nullptr;
    dispatch(outputs[0], [=, &kernels, news = std::move(news), queries = std::move(queries)] {
      write(kernels, news, queries);
      attend(kernels, queries, found);
    });
  }

  const char* name() const override { return "mlxcel::CachedAttention"; }

 private:
  Scores scores_;
  CachePacking packing_;
  std::vector<Part> parts_;

  /// What is written behind the `filled` positions of a cache.
  struct News {
    Heads keys, values;
    std::size_t filled;
  };

  static void write(const Table& kernels, const std::vector<News>& all, const std::vector<Queries>& queries) {
    std::size_t tokens = 0;
    for (const News& news : all) {
      tokens += news.keys.seq;
    }
    const std::size_t heads = all[0].keys.heads, dim = all[0].keys.dim;
    for_each_of(tokens * heads, 2 * dim, [&](std::size_t index) {
      std::size_t t = index / heads, p = 0;
      while (t >= all[p].keys.seq) {
        t -= all[p++].keys.seq;
      }
      const News& news = all[p];
      const std::size_t kv = index % heads;
      const AttentionHead& head = queries[p].heads[kv];
      const auto keep = [&](const CacheRows& rows, const Heads& from) {
        kernels.keep_position(rows, news.filled + t, from.data + kv * from.head + t * from.token, dim);
      };
      keep(head.keys, news.keys);
      keep(head.values, news.values);
    });
  }

  /// The array itself where it may be written to, else a copy of what is filled. MLX would not donate it:
  /// each result of a primitive holds its inputs.
  void keep_array(const Part& part, const mx::array& before, mx::array& after) {
    if (part.own && before.flags().row_contiguous) {
      return after.copy_shared_buffer(before);
    }
    want_whole_rows(before);
    allocate_for_long(after);
    const std::size_t size = before.itemsize(), row = size * static_cast<std::size_t>(before.shape(3));
    const auto head_stride = static_cast<std::ptrdiff_t>(size) * before.strides(1);
    const auto row_stride = static_cast<std::ptrdiff_t>(size) * before.strides(2);
    const std::size_t heads = before.shape(1), room = before.shape(2), filled = part.filled;
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

} // namespace
} // namespace kernels

using namespace kernels;

std::vector<mx::array> attend_and_keep(
    const mx::array& queries,
    const mx::array& keys,
    const mx::array& values,
    const std::vector<Cache>& caches,
    CachePacking packing,
    Scores scores,
    const mx::array* sinks) {
  const auto fits = [&](const mx::array& x) {
    return x.ndim() == 4 && x.shape(0) == queries.shape(0) && x.shape(2) == 1 &&
        x.shape(3) == queries.shape(3) && x.dtype() == mx::float32;
  };
  bool fit = queries.ndim() == 4 && fits(queries) && fits(keys) && values.shape() == keys.shape() &&
      fits(values) && keys.shape(1) >= 1 && queries.shape(1) % keys.shape(1) == 0;
  std::vector<mx::Shape> shapes;
  std::vector<mx::Dtype> types{mx::float32};
  std::vector<mx::array> inputs{queries, keys, values};
  std::vector<Part> parts;
  std::size_t tokens = 0;
  for (const Cache& cache : caches) {
    fit = fit && cache.filled >= 0 && cache.added >= 1 && !cache.buffers.empty() &&
        cache.buffers[0].ndim() == 4 && cache.buffers[0].shape(2) - cache.filled >= cache.added &&
        fit_cache(
              cache.buffers.data(), cache.buffers.size(), packing, keys.shape(1),
              cache.buffers[0].shape(2), keys.shape(3));
    if (!fit) {
      break;
    }
    for (const auto& buffer : cache.buffers) {
      shapes.push_back(buffer.shape());
      types.push_back(buffer.dtype());
      inputs.push_back(buffer);
    }
    const std::size_t added = cache.added;
    parts.push_back({tokens, added, static_cast<std::size_t>(cache.filled), cache.own});
    tokens += added;
  }
  if (!fit || parts.empty() || tokens != static_cast<std::size_t>(queries.shape(0))) {
    throw std::invalid_argument(
        "attention wants queries, keys and values [tokens, heads, 1, dim] that fit the caches");
  }
  shapes.insert(shapes.begin(), {queries.shape(0), queries.shape(1) * queries.shape(3)});
  push_sinks(inputs, sinks, queries.shape(1));
  auto primitive = std::make_shared<CachedAttention>(cpu_stream(), scores, packing, std::move(parts));
  return mx::array::make_arrays(std::move(shapes), types, primitive, inputs);
}

} // namespace mlxcel

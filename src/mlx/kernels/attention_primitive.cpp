// Attention over a cache: which rows see what, and how that is divided among the threads.

#include <algorithm>
#include <vector>

#include "mlx/ops.h"

#include "pool.h"
#include "primitive.h"
#include "table.h"
#include "weight.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

/// Query rows that any instruction set takes together at most.
constexpr std::size_t MOST_ROWS = 32;

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

/// Queries and what they see, as plain memory.
struct Queries {
  /// One of each key head. The arrays live until the task is done, their handles need not.
  std::vector<AttentionHead> heads;
  const float* queries;
  std::size_t query_head, query_row;
  /// One a query head, or null.
  const float* sinks;
  /// `[seq, heads, dim]`
  float* result;
  /// Query heads that share a key head.
  std::size_t group;
  std::size_t seq, total, window, keep;

  /// Queries that share their keys are taken together, neighbours in time with one another.
  std::size_t rows_of_head() const { return seq * group; }

  AttentionRow row(std::size_t kv, std::size_t i) const {
    const std::size_t all = heads.size() * group, h = kv * group + i % group, s = i / group;
    const std::size_t last = total - seq + s, dim = heads[kv].dim;
    return {
        queries + h * query_head + s * query_row,
        result + (s * all + h) * dim,
        last + 1 > window ? last + 1 - window : 0,
        last,
        keep,
        sinks == nullptr ? nullptr : sinks + h};
  }
};

/// Some of a head's rows.
struct Block {
  AttentionRow rows[MOST_ROWS];
  std::size_t count = 0;

  Block(const Queries& of, std::size_t kv, std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; i++) {
      rows[count++] = of.row(kv, i);
    }
  }
};

/// The segments that the first row to the last see something of.
struct Segments {
  std::size_t begin, count;

  explicit Segments(const Queries& of) {
    const std::size_t first = of.row(0, 0).first;
    begin = of.keep > 0 ? 0 : first / ATTENTION_SEGMENT;
    count = (of.total + ATTENTION_SEGMENT - 1) / ATTENTION_SEGMENT - begin;
  }
};

/// A thread takes some rows over all that they see.
void attend_by_rows(const Table& kernels, const Queries& all) {
  const std::size_t heads = all.heads.size(), rows = all.rows_of_head();
  const std::size_t at_once = kernels.attention_rows(), blocks = (rows + at_once - 1) / at_once;
  parallel_for(heads * blocks, [&](std::size_t piece) {
    // The longest ones first, so that no thread begins one last.
    const std::size_t kv = piece % heads, from = (blocks - 1 - piece / heads) * at_once;
    const Block block(all, kv, from, std::min(from + at_once, rows));
    const AttentionHead& head = all.heads[kv];
    kernels.attend(head, block.rows, block.count, scratch(kernels.attention_scratch(head.dim)));
  });
}

/// A thread takes some segments of a head; `found` is what all rows find in each.
void attend_by_segments(const Table& kernels, const Queries& all, float* found) {
  const std::size_t heads = all.heads.size(), rows = all.rows_of_head();
  const std::size_t at_once = kernels.attention_rows(), blocks = (rows + at_once - 1) / at_once;
  const std::size_t dim = all.heads[0].dim, size = kernels.attention_found(dim);
  const Segments segments(all);
  // Enough pieces for threads that come late, and as long ones as that allows.
  const std::size_t run = std::max<std::size_t>(1, heads * blocks * segments.count / (8 * threads()));
  const std::size_t runs = (segments.count + run - 1) / run, stride = segments.count * size;
  const std::size_t needed = kernels.attention_scratch(dim);
  parallel_for(heads * blocks * runs, [&](std::size_t piece) {
    const std::size_t kv = piece / runs / blocks, first = piece / runs % blocks * at_once;
    const std::size_t from = piece % runs * run, to = std::min(from + run, segments.count);
    const Block block(all, kv, first, std::min(first + at_once, rows));
    kernels.attend_segments(
        all.heads[kv], block.rows, block.count, segments.begin + from, segments.begin + to,
        found + (kv * rows + first) * stride + from * size, stride, scratch(needed));
  });
  for_each_of(heads * rows, 2 * stride, [&](std::size_t index) {
    const std::size_t kv = index / rows;
    kernels.merge_segments(
        all.heads[kv], all.row(kv, index % rows), found + index * stride, segments.count,
        scratch(needed));
  });
}

class Attention : public CpuPrimitive {
 public:
  Attention(mx::Stream stream, Scores scores, CachePacking packing)
      : CpuPrimitive(stream), scores_(scores), packing_(packing) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    const Table& kernels = table();
    const auto& q = inputs[0];
    const auto& k = inputs[1];
    const std::size_t heads = q.shape(1), seq = q.shape(2), dim = q.shape(3);
    const std::size_t kv_heads = k.shape(1), total = k.shape(2);
    const std::size_t side = packing_.arrays();
    for (std::size_t i = 0; i <= 2 * side; i++) {
      if (!has_whole_rows(inputs[i])) {
        throw std::invalid_argument("the features of a head do not lie side by side");
      }
    }
    // In memory the tokens come first: what follows joins the heads of a token.
    out.set_data(
        mx::allocator::malloc(out.nbytes()), out.size(),
        {static_cast<std::int64_t>(heads * seq * dim), static_cast<std::int64_t>(dim),
         static_cast<std::int64_t>(heads * dim), 1},
        {/*contiguous=*/true, /*row_contiguous=*/seq == 1 || heads == 1, /*col_contiguous=*/false});
    const std::size_t window = scores_.window > 0 ? static_cast<std::size_t>(scores_.window) : total;
    Queries all{
        .heads = {},
        .queries = q.data<float>(),
        .query_head = static_cast<std::size_t>(q.strides(1)),
        .query_row = static_cast<std::size_t>(q.strides(2)),
        .sinks = inputs.size() > 1 + 2 * side ? inputs.back().data<float>() : nullptr,
        .result = out.data<float>(),
        .group = heads / kv_heads,
        .seq = seq,
        .total = total,
        .window = window,
        .keep = window < total ? static_cast<std::size_t>(scores_.keep) : 0};
    for (std::size_t kv = 0; kv < kv_heads; kv++) {
      all.heads.push_back(
          {rows_of_head(&inputs[1], packing_, kv), rows_of_head(&inputs[1 + side], packing_, kv), dim,
           scores_.scale, scores_.soft_cap});
    }
    const std::size_t segments = Segments(all).count;
    const std::size_t blocks = (all.rows_of_head() - 1) / kernels.attention_rows() + 1;
    if (segments > 1 && kv_heads * blocks < 4 * threads()) {
      float* found = temporary(heads * seq * segments * kernels.attention_found(dim));
      dispatch([=, &kernels, all = std::move(all)] { attend_by_segments(kernels, all, found); });
    } else {
      dispatch([&kernels, all = std::move(all)] { attend_by_rows(kernels, all); });
    }
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
  const bool packed = packing.bits > 0;
  const int dim = queries.ndim() == 4 ? queries.shape(3) : 0;
  const auto fits = [&](const mx::array& past, mx::Dtype dtype, int features) {
    return past.ndim() == 4 && past.shape(0) == 1 && past.shape(1) > 0 &&
        queries.shape(1) % past.shape(1) == 0 && past.shape(2) >= queries.shape(2) &&
        past.shape(3) == features && past.dtype() == dtype &&
        past.shape(1) == keys[0].shape(1) && past.shape(2) == keys[0].shape(2);
  };
  bool fit = queries.ndim() == 4 && queries.shape(0) == 1 && keys.size() == packing.arrays() &&
      values.size() == packing.arrays() &&
      (!packed || ((packing.bits == 8 || packing.bits == 4) &&
                   (packing.group == 32 || packing.group == 64 || packing.group == 128) &&
                   dim % packing.group == 0));
  for (const auto* side : {&keys, &values}) {
    for (std::size_t i = 0; fit && i < side->size(); i++) {
      const auto& past = (*side)[i];
      const auto plain = past.dtype() == mx::float16 ? mx::float16 : mx::float32;
      const int integers = packed ? dim * packing.bits / 32 : dim;
      fit = i == 0 ? fits(past, packed ? mx::uint32 : plain, integers)
                   : fits(past, mx::float32, dim / packing.group);
    }
  }
  if (!fit) {
    throw std::invalid_argument("attention wants queries, keys and values [1, heads, seq, dim] that fit");
  }
  std::vector<mx::array> inputs{queries};
  inputs.insert(inputs.end(), keys.begin(), keys.end());
  inputs.insert(inputs.end(), values.begin(), values.end());
  if (sinks != nullptr) {
    if (sinks->shape() != mx::Shape{queries.shape(1)} || sinks->dtype() != mx::float32) {
      throw std::invalid_argument("there is one sink a head");
    }
    inputs.push_back(mx::contiguous(*sinks));
  }
  auto primitive = std::make_shared<Attention>(cpu_stream(), scores, packing);
  return mx::array(queries.shape(), mx::float32, std::move(primitive), std::move(inputs));
}

} // namespace mlxcel

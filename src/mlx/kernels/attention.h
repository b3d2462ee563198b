// Attention of query rows over the keys and values of one head. Included once by each instruction set.
//
// Keys are taken in segments of fixed places (`ATTENTION_SEGMENT` positions from 0 on). What a row finds in
// a segment is computed by itself, with an exact softmax; what it finds in several is merged in their
// order, as in FlashAttention (Dao et al., 2022). What a row gives thus depends on its own position only:
// not on the rows computed with it, on how a prompt was cut, or on the threads that share its segments.
#pragma once

#include "activations.h"
#include "attention_products.h"

namespace mlxcel::kernels {
namespace {

constexpr float MINUS_INFINITY = -__builtin_inff();

/// What a row finds, in floats: the sum of the values it weighed, whose weights are relative to the
/// highest score; then that score, and the sum of the weights.
std::size_t attention_found(std::size_t dim) {
  return vectors_of(dim) * Vec::LANES + 2;
}

/// Makes of a row's scores for positions `from` to `to` weights, and puts down their highest and sum.
inline void soften(
    const AttentionHead& head,
    const AttentionRow& row,
    std::size_t from,
    std::size_t to,
    float* scores,
    float* highest_and_sum) {
  const std::size_t filled = (to - from + Vec::LANES - 1) / Vec::LANES * Vec::LANES;
  if (head.soft_cap > 0) {
    for (std::size_t t = 0; t < filled; t += Vec::LANES) {
      Vec::store(scores + t, soft_cap(Vec::load(scores + t), head.soft_cap));
    }
  }
  // What lies before and behind the positions that the row sees.
  const std::size_t unseen = row.first > from ? least(row.first - from, filled) : 0;
  const std::size_t kept = row.keep > from ? row.keep - from : 0;
  const std::size_t seen = row.last < from ? 0 : least(row.last + 1 - from, filled);
  for (std::size_t t = kept; t < unseen; t++) {
    scores[t] = MINUS_INFINITY;
  }
  for (std::size_t t = seen; t < filled; t++) {
    scores[t] = MINUS_INFINITY;
  }
  auto top = Vec::set1(MINUS_INFINITY);
  for (std::size_t t = 0; t < filled; t += Vec::LANES) {
    top = Vec::max(top, Vec::load(scores + t));
  }
  const float highest = Vec::maximum(top);
  auto sum = Vec::zero();
  if (highest == MINUS_INFINITY) { // nothing to be seen
    __builtin_memset(scores, 0, filled * sizeof(float));
  } else {
    for (std::size_t t = 0; t < filled; t += Vec::LANES) {
      const auto weight = exp(Vec::sub(Vec::load(scores + t), Vec::set1(highest)));
      Vec::store(scores + t, weight);
      sum = Vec::add(sum, weight);
    }
  }
  highest_and_sum[0] = highest;
  highest_and_sum[1] = Vec::sum(sum);
}

/// What `count` queries, laid out for the format, find in positions `from` to `to` of one segment.
template <class Format>
void find_in_segment(
    const AttentionHead& head,
    const AttentionRow* rows,
    std::size_t count,
    const float* queries,
    std::size_t from,
    std::size_t to,
    float* found,
    std::size_t found_stride,
    float* scratch) {
  const std::size_t vectors = vectors_of(head.dim), length = vectors * Vec::LANES;
  float* scores = scratch;
  float* copies = scores + QUERIES * SEGMENT;
  scores_of<Format>(head.keys, head.dim, queries, count, from, to, copies, scores);
  for (std::size_t m = 0; m < count; m++) {
    soften(head, rows[m], from, to, scores + m * SEGMENT, found + m * found_stride + length);
  }
  if (reads_in_place<Format>(head.dim, count)) {
    weigh_all<Format>(count, scores, head.values, from, to - from, vectors, found, found_stride);
  } else {
    const CacheRows values = widened<Format>(head.values, from, to, head.dim, copies);
    weigh_all<Numbers<float>>(count, scores, values, 0, to - from, vectors, found, found_stride);
  }
}

/// Adds what was found in the segment that follows.
inline void merge(float* found, const float* next, std::size_t length) {
  const float highest = found[length], other = next[length];
  if (other == MINUS_INFINITY) {
    return;
  }
  const float top = highest > other ? highest : other;
  const auto keep = exp(Vec::set1(highest - top)), take = exp(Vec::set1(other - top));
  for (std::size_t d = 0; d < length; d += Vec::LANES) {
    Vec::store(
        found + d, Vec::fma(Vec::load(next + d), take, Vec::mul(Vec::load(found + d), keep)));
  }
  float sum[Vec::LANES];
  Vec::store(
      sum, Vec::add(Vec::mul(Vec::set1(found[length + 1]), keep), Vec::mul(Vec::set1(next[length + 1]), take)));
  found[length] = top;
  found[length + 1] = sum[0];
}

/// Before the first segment: nothing, or the sink, a score without a value.
inline void begin(const AttentionRow& row, std::size_t length, float* found) {
  __builtin_memset(found, 0, length * sizeof(float));
  found[length] = row.sink ? *row.sink : MINUS_INFINITY;
  found[length + 1] = row.sink ? 1.0f : 0.0f;
}

template <class Format>
void finish(const AttentionRow& row, std::size_t dim, const float* found) {
  const float sum = found[vectors_of(dim) * Vec::LANES + 1];
  for (std::size_t d = 0; d < dim; d++) {
    const std::size_t within = d % Vec::LANES;
    row.out[d] = found[d - within + Format::lane(static_cast<int>(within))] / sum;
  }
}

/// Calls `each` with every segment from `begin` to `end` of which one of the rows sees something: its
/// number and the positions that the rows reach.
template <class Each>
void for_segments(
    const AttentionRow* rows, std::size_t count, std::size_t begin, std::size_t end, Each each) {
  std::size_t first = rows[0].first, last = rows[0].last;
  for (std::size_t m = 1; m < count; m++) {
    first = least(first, rows[m].first);
    last = rows[m].last > last ? rows[m].last : last;
  }
  for (std::size_t s = begin; s < end && s * SEGMENT <= last; s++) {
    const std::size_t from = s * SEGMENT;
    if (from < rows[0].keep || from + SEGMENT > first) {
      each(s, from, least(from + SEGMENT, last + 1));
    }
  }
}

/// The queries times the scale as the format wants them, filled up with zeros.
template <class Format>
void lay_out(const AttentionHead& head, const AttentionRow* rows, std::size_t count, float* queries) {
  const std::size_t length = vectors_of(head.dim) * Vec::LANES;
  __builtin_memset(queries, 0, count * length * sizeof(float));
  for (std::size_t m = 0; m < count; m++) {
    for (std::size_t d = 0; d < head.dim; d++) {
      const std::size_t within = d % Vec::LANES;
      queries[m * length + d - within + Format::lane(static_cast<int>(within))] =
          rows[m].query[d] * head.scale;
    }
  }
}

// What the table has.

std::size_t attention_rows() {
  return QUERIES;
}

/// Queries, two times what they find, scores, copies.
std::size_t attention_scratch(std::size_t dim) {
  const std::size_t length = vectors_of(dim) * Vec::LANES;
  return QUERIES * (length + 2 * attention_found(dim) + SEGMENT) + SEGMENT * length;
}

void attend_segments(
    const AttentionHead& head,
    const AttentionRow* rows,
    std::size_t count,
    std::size_t begin,
    std::size_t end,
    float* found,
    std::size_t stride,
    float* scratch) {
  const std::size_t length = vectors_of(head.dim) * Vec::LANES, size = attention_found(head.dim);
  for (std::size_t s = begin; s < end; s++) {
    for (std::size_t m = 0; m < count; m++) {
      found[m * stride + (s - begin) * size + length] = MINUS_INFINITY;
    }
  }
  with_format(head.keys, [&](auto format) {
    using Format = decltype(format);
    lay_out<Format>(head, rows, count, scratch);
    for_segments(rows, count, begin, end, [&](std::size_t s, std::size_t from, std::size_t to) {
      find_in_segment<Format>(
          head, rows, count, scratch, from, to, found + (s - begin) * size, stride,
          scratch + QUERIES * length);
    });
  });
}

void merge_segments(
    const AttentionHead& head,
    const AttentionRow& row,
    const float* found,
    std::size_t segments,
    float* scratch) {
  const std::size_t length = vectors_of(head.dim) * Vec::LANES, size = attention_found(head.dim);
  begin(row, length, scratch);
  for (std::size_t s = 0; s < segments; s++) {
    merge(scratch, found + s * size, length);
  }
  with_format(head.keys, [&](auto format) { finish<decltype(format)>(row, head.dim, scratch); });
}

void attend(const AttentionHead& head, const AttentionRow* rows, std::size_t count, float* scratch) {
  const std::size_t length = vectors_of(head.dim) * Vec::LANES, size = attention_found(head.dim);
  float* all = scratch + QUERIES * length;
  float* found = all + QUERIES * size;
  for (std::size_t m = 0; m < count; m++) {
    begin(rows[m], length, all + m * size);
  }
  with_format(head.keys, [&](auto format) {
    using Format = decltype(format);
    lay_out<Format>(head, rows, count, scratch);
    const std::size_t end = ~std::size_t{0} / SEGMENT;
    for_segments(rows, count, 0, end, [&](std::size_t, std::size_t from, std::size_t to) {
      find_in_segment<Format>(
          head, rows, count, scratch, from, to, found, size, found + QUERIES * size);
      for (std::size_t m = 0; m < count; m++) {
        merge(all + m * size, found + m * size, length);
      }
    });
    for (std::size_t m = 0; m < count; m++) {
      finish<Format>(rows[m], head.dim, all + m * size);
    }
  });
}

} // namespace
} // namespace mlxcel::kernels

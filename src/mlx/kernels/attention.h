// Attention of query rows over the keys and values of one head. Included once by each instruction set.
//
// Keys are taken in segments of fixed places (`ATTENTION_SEGMENT` positions from 0 on). What a row finds in
// a segment is computed by itself, with an exact softmax; what it finds in several is merged in their
// order, as in FlashAttention (Dao et al., 2022). What a row gives thus depends on its own position only:
// not on the rows computed with it, on how a prompt was cut, or on the threads that share its segments.
#pragma once

#include <type_traits>

#include "activations.h"
#include "cache_rows.h"
#include "products.h"

namespace mlxcel::kernels {
namespace {

constexpr std::size_t SEGMENT = ATTENTION_SEGMENT;
/// Query rows that are computed together at most.
constexpr std::size_t QUERIES = 2 * Vec::TILE;
constexpr float MINUS_INFINITY = -__builtin_inff();

/// Whether as many query rows read keys and values where they lie: what is widened anew for each tile of
/// them must not cost more than copies do.
template <class Format>
bool reads_in_place(std::size_t dim, std::size_t count) {
  return dim % Vec::LANES == 0 && (count <= Vec::TILE || std::is_same_v<Format, Numbers<float>>);
}

/// The sum over features `FEATURE`, `FEATURE + WIDTH` and so on of a query and as many keys as there are
/// lanes, in halves.
template <int FEATURE = 0, int WIDTH = 1>
inline typename Vec::F sum_of_features(const typename Vec::F (&keys)[Vec::LANES], const float* query) {
  if constexpr (WIDTH == Vec::LANES) {
    return Vec::mul(keys[FEATURE], Vec::set1(query[FEATURE]));
  } else {
    return Vec::add(
        sum_of_features<FEATURE, 2 * WIDTH>(keys, query),
        sum_of_features<FEATURE + WIDTH, 2 * WIDTH>(keys, query));
  }
}

/// Scores of `count` queries whose features fill one vector, for keys `from` to `to`. A lane holds a
/// key rather than a feature: summing up the lanes would cost more than the products.
template <class Format>
void scores_of_small(
    const CacheRows& keys,
    std::size_t dim,
    const float* queries,
    std::size_t count,
    std::size_t from,
    std::size_t to,
    float* scores) {
  for (std::size_t t = from; t < to; t += Vec::LANES) {
    typename Vec::F strip[Vec::LANES];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < Vec::LANES; i++) {
      const std::size_t at = least(t + i, to - 1);
      float copy[Vec::LANES];
      widened<Format>(keys, at, at + 1, dim, copy);
      strip[i] = Vec::load(copy);
    }
    Vec::transpose(strip);
    for (std::size_t m = 0; m < count; m++) {
      Vec::store(scores + m * SEGMENT + (t - from), sum_of_features(strip, queries + m * Vec::LANES));
    }
  }
}

/// Scores of `ROWS` queries of `vectors` vectors for keys `from` to `to`. Some more are written, up to a
/// whole strip.
template <class Format, int ROWS>
void score(
    const CacheRows& keys,
    std::size_t from,
    std::size_t to,
    const float* queries,
    std::size_t vectors,
    float* scores) {
  static_assert(STRIP == 4);
  for (std::size_t t = from; t < to; t += STRIP, scores += STRIP) {
    typename Format::Row rows[STRIP];
    typename Vec::F sums[ROWS][STRIP];
    prefetch(keys, t, STRIP);
#pragma GCC unroll 16
    for (std::size_t r = 0; r < STRIP; r++) {
      rows[r] = Format::row(keys, least(t + r, to - 1));
#pragma GCC unroll 16
      for (int m = 0; m < ROWS; m++) {
        sums[m][r] = Vec::zero();
      }
    }
    for (std::size_t first = 0; first < vectors; first += Format::SPAN) {
      const typename Format::Common common[STRIP] = {
          Format::common(rows[0], first), Format::common(rows[1], first),
          Format::common(rows[2], first), Format::common(rows[3], first)};
#pragma GCC unroll 4
      for (std::size_t v = first; v < first + Format::SPAN; v++) {
        typename Vec::F strip[STRIP];
#pragma GCC unroll 16
        for (std::size_t r = 0; r < STRIP; r++) {
          strip[r] = Format::vector(rows[r], common[r], v);
        }
#pragma GCC unroll 16
        for (int m = 0; m < ROWS; m++) {
          const auto one = Vec::load(queries + (m * vectors + v) * Vec::LANES);
#pragma GCC unroll 16
          for (std::size_t r = 0; r < STRIP; r++) {
            sums[m][r] = Vec::fma(strip[r], one, sums[m][r]);
          }
        }
      }
    }
#pragma GCC unroll 16
    for (int m = 0; m < ROWS; m++) {
      Vec::sum4(sums[m][0], sums[m][1], sums[m][2], sums[m][3], scores + m * SEGMENT);
    }
  }
}

/// The same for a number of queries up to `Vec::TILE` that is only known now.
template <class Format, int ROWS = Vec::TILE, class... Rest>
void score_of(std::size_t count, Rest&&... rest) {
  if constexpr (ROWS > 1) {
    if (count < ROWS) {
      return score_of<Format, ROWS - 1>(count, rest...);
    }
  }
  score<Format, ROWS>(rest...);
}

/// Scores of `count` queries (whole vectors, filled up with zeros) for keys `from` to `to`.
template <class Format>
void scores_of(
    const CacheRows& keys,
    std::size_t dim,
    const float* queries,
    std::size_t count,
    std::size_t from,
    std::size_t to,
    float* copies,
    float* scores) {
  const std::size_t vectors = vectors_of(dim), length = vectors * Vec::LANES;
  if (vectors == 1) {
    return scores_of_small<Format>(keys, dim, queries, count, from, to, scores);
  }
  const bool in_place = reads_in_place<Format>(dim, count);
  if (in_place && count <= Vec::TILE) {
    return score_of<Format>(count, keys, from, to, queries, vectors, scores);
  }
  // A strip at a time, which all tiles of queries find in the first-level cache.
  for (std::size_t t = from; t < to; t += STRIP) {
    const std::size_t wanted = least(STRIP, to - t);
    const bool as_is = in_place && std::is_same_v<Format, Numbers<float>>;
    const CacheRows strip = as_is ? keys : widened<Format>(keys, t, t + wanted, dim, copies);
    const std::size_t first = as_is ? t : 0;
    for (std::size_t m = 0; m < count; m += Vec::TILE) {
      score_of<Numbers<float>>(
          least(Vec::TILE, count - m), strip, first, first + wanted, queries + m * length, vectors,
          scores + m * SEGMENT + (t - from));
    }
  }
}

/// `weights · values` for `ROWS` rows of weights and vectors `first` to `first + WIDTH` of the values of
/// `count` positions from `from` on.
template <class Format, int ROWS, int WIDTH>
void weigh(
    const float* weights,
    const CacheRows& values,
    std::size_t from,
    std::size_t count,
    std::size_t first,
    float* out,
    std::size_t out_stride) {
  typename Vec::F sums[ROWS][WIDTH];
#pragma GCC unroll 16
  for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 16
    for (int w = 0; w < WIDTH; w++) {
      sums[m][w] = Vec::zero();
    }
  }
  for (std::size_t t = 0; t < count; t++) {
    const auto row = Format::row(values, from + t);
    if (first == 0 && t % STRIP == 0) {
      prefetch(values, from + t, STRIP);
    }
    constexpr int SPAN = Format::SPAN < WIDTH ? Format::SPAN : WIDTH;
#pragma GCC unroll 16
    for (int s = 0; s < WIDTH; s += SPAN) {
      const auto common = Format::common(row, first + s);
#pragma GCC unroll 16
      for (int w = s; w < s + SPAN; w++) {
        const auto value = Format::vector(row, common, first + w);
#pragma GCC unroll 16
        for (int m = 0; m < ROWS; m++) {
          sums[m][w] = Vec::fma(Vec::set1(weights[m * SEGMENT + t]), value, sums[m][w]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 16
    for (int w = 0; w < WIDTH; w++) {
      Vec::store(out + m * out_stride + (first + w) * Vec::LANES, sums[m][w]);
    }
  }
}

/// The same for all features, and for a number of rows that is only known now.
template <class Format, int ROWS = std::is_same_v<Format, Numbers<float>> ? QUERIES : Vec::TILE>
void weigh_of(
    std::size_t rows,
    const float* weights,
    const CacheRows& values,
    std::size_t from,
    std::size_t count,
    std::size_t vectors,
    float* out,
    std::size_t out_stride) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) {
      return weigh_of<Format, ROWS - 1>(rows, weights, values, from, count, vectors, out, out_stride);
    }
  }
  // As many sums as the registers hold.
  constexpr int WIDTH = 2 * ROWS <= Vec::TILE ? 4 : 2;
  std::size_t v = 0;
  for (; v + WIDTH <= vectors; v += WIDTH) {
    weigh<Format, ROWS, WIDTH>(weights, values, from, count, v, out, out_stride);
  }
  for (; v < vectors; v++) {
    weigh<Format, ROWS, 1>(weights, values, from, count, v, out, out_stride);
  }
}

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
    weigh_of<Format>(count, scores, head.values, from, to - from, vectors, found, found_stride);
  } else {
    const CacheRows values = widened<Format>(head.values, from, to, head.dim, copies);
    weigh_of<Numbers<float>>(count, scores, values, 0, to - from, vectors, found, found_stride);
  }
}

/// Adds what was found in the segment that follows.
inline void merge(float* found, const float* next, std::size_t length) {
  const float highest = found[length], other = next[length];
  if (other == MINUS_INFINITY) {
    return;
  }
  const float top = highest > other ? highest : other;
  float differences[Vec::LANES] = {highest - top, other - top};
  Vec::store(differences, exp(Vec::load(differences)));
  const auto keep = Vec::set1(differences[0]), take = Vec::set1(differences[1]);
  for (std::size_t d = 0; d < length; d += Vec::LANES) {
    Vec::store(
        found + d, Vec::fma(Vec::load(next + d), take, Vec::mul(Vec::load(found + d), keep)));
  }
  found[length] = top;
  found[length + 1] = found[length + 1] * differences[0] + next[length + 1] * differences[1];
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

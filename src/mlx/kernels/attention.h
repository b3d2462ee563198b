// Attention of query rows over the keys and values of one head. Included once by each instruction set.
//
// Keys are taken in segments of fixed places (`SEGMENT` from position 0 on). Within a segment the
// softmax is exact; segments are merged in order, as in FlashAttention (Dao et al., 2022). What a row
// gives thus depends on its own position only: not on the rows computed with it, on how a prompt was
// cut, or on the threads.
#pragma once

#include "activations.h"
#include "products.h"

namespace mlxcel::kernels {
namespace {

constexpr std::size_t SEGMENT = 256;
/// Query rows that are computed together at most.
constexpr std::size_t QUERIES = 2 * Vec::TILE;
constexpr float MINUS_INFINITY = -__builtin_inff();

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
inline void scores_of_small(
    const AttentionHead& head,
    const float* queries,
    std::size_t count,
    std::size_t from,
    std::size_t to,
    float* scores) {
  for (std::size_t t = from; t < to; t += Vec::LANES) {
    typename Vec::F keys[Vec::LANES];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < Vec::LANES; i++) {
      const float* key = head.keys + least(t + i, to - 1) * head.key_stride;
      if (head.dim == Vec::LANES) {
        keys[i] = Vec::load(key);
      } else {
        float filled[Vec::LANES] = {};
        __builtin_memcpy(filled, key, head.dim * sizeof(float));
        keys[i] = Vec::load(filled);
      }
    }
    Vec::transpose(keys);
    for (std::size_t m = 0; m < count; m++) {
      Vec::store(scores + m * SEGMENT + (t - from), sum_of_features(keys, queries + m * Vec::LANES));
    }
  }
}

/// Scores of `count` queries (`length` floats each, filled up with zeros) for keys `from` to `to`.
inline void scores_of(
    const AttentionHead& head,
    const float* queries,
    std::size_t count,
    std::size_t from,
    std::size_t to,
    float* keys,
    float* scores) {
  const std::size_t per_row = (head.dim + Vec::LANES - 1) / Vec::LANES;
  const std::size_t length = per_row * Vec::LANES;
  if (per_row == 1) {
    return scores_of_small(head, queries, count, from, to, scores);
  }
  for (std::size_t t = from; t < to; t += STRIP) {
    const float* w[STRIP];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < STRIP; r++) {
      const float* key = head.keys + least(t + r, to - 1) * head.key_stride;
      if (length != head.dim) {
        // The lanes behind the last feature would read the next key.
        float* copy = keys + r * length;
        __builtin_memset(copy, 0, length * sizeof(float));
        __builtin_memcpy(copy, key, head.dim * sizeof(float));
        key = copy;
      }
      w[r] = key;
    }
    for (std::size_t m = 0; m < count; m += Vec::TILE) {
      tile_of(
          least(Vec::TILE, count - m), queries + m * length, length, w, per_row,
          scores + m * SEGMENT + (t - from), SEGMENT, least(STRIP, to - t));
    }
  }
}

/// `out += weights · values` for `ROWS` rows and `WIDTH` vectors of features.
template <int ROWS, int WIDTH>
void weigh(
    const float* weights,
    const float* values,
    std::size_t value_stride,
    std::size_t count,
    float* out,
    std::size_t out_stride) {
  typename Vec::F sums[ROWS][WIDTH];
#pragma GCC unroll 16
  for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 16
    for (int w = 0; w < WIDTH; w++) {
      sums[m][w] = Vec::load(out + m * out_stride + w * Vec::LANES);
    }
  }
  for (std::size_t t = 0; t < count; t++) {
    typename Vec::F value[WIDTH];
#pragma GCC unroll 16
    for (int w = 0; w < WIDTH; w++) {
      value[w] = Vec::load(values + t * value_stride + w * Vec::LANES);
    }
#pragma GCC unroll 16
    for (int m = 0; m < ROWS; m++) {
      const auto weight = Vec::set1(weights[m * SEGMENT + t]);
#pragma GCC unroll 16
      for (int w = 0; w < WIDTH; w++) {
        sums[m][w] = Vec::fma(weight, value[w], sums[m][w]);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 16
    for (int w = 0; w < WIDTH; w++) {
      Vec::store(out + m * out_stride + w * Vec::LANES, sums[m][w]);
    }
  }
}

/// The same for all features, and for a number of rows up to `QUERIES` that is only known now.
template <int ROWS = QUERIES>
void weigh_of(
    std::size_t rows,
    const float* weights,
    const float* values,
    std::size_t value_stride,
    std::size_t count,
    float* out,
    std::size_t length) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) {
      return weigh_of<ROWS - 1>(rows, weights, values, value_stride, count, out, length);
    }
  }
  // As many sums as the registers hold.
  constexpr int WIDTH = 2 * ROWS <= Vec::TILE ? 4 : 2;
  std::size_t d = 0;
  for (; d + WIDTH * Vec::LANES <= length; d += WIDTH * Vec::LANES) {
    weigh<ROWS, WIDTH>(weights, values + d, value_stride, count, out + d, length);
  }
  for (; d < length; d += Vec::LANES) {
    weigh<ROWS, 1>(weights, values + d, value_stride, count, out + d, length);
  }
}

/// A place for everything that a call needs, in floats.
std::size_t attention_scratch(std::size_t dim) {
  const std::size_t length = (dim + Vec::LANES - 1) / Vec::LANES * Vec::LANES;
  return QUERIES * (2 * length + SEGMENT) + (STRIP + SEGMENT) * length;
}

std::size_t attention_rows() {
  return QUERIES;
}

/// Up to `QUERIES` rows, each seeing the keys from its `first` to its `last` (inclusive).
void attend(const AttentionHead& head, const AttentionRow* rows, std::size_t count, float* scratch) {
  const std::size_t dim = head.dim;
  const std::size_t length = (dim + Vec::LANES - 1) / Vec::LANES * Vec::LANES;
  float* queries = scratch;
  float* sums = queries + QUERIES * length;
  float* scores = sums + QUERIES * length;
  float* keys = scores + QUERIES * SEGMENT;
  float* padded = keys + STRIP * length;
  float maxima[QUERIES], totals[QUERIES];
  std::size_t first = rows[0].first, last = 0;
  for (std::size_t m = 0; m < count; m++) {
    first = least(first, rows[m].first);
    last = rows[m].last > last ? rows[m].last : last;
    __builtin_memset(queries + m * length, 0, length * sizeof(float));
    __builtin_memset(sums + m * length, 0, length * sizeof(float));
    for (std::size_t d = 0; d < dim; d++) {
      queries[m * length + d] = rows[m].query[d] * head.scale;
    }
    // A sink is one more score, without a value.
    maxima[m] = rows[m].sink ? *rows[m].sink : MINUS_INFINITY;
    totals[m] = rows[m].sink ? 1.0f : 0.0f;
  }
  for (std::size_t from = first / SEGMENT * SEGMENT; from <= last; from += SEGMENT) {
    const std::size_t to = least(from + SEGMENT, last + 1);
    scores_of(head, queries, count, from, to, keys, scores);
    const std::size_t filled = (to - from + Vec::LANES - 1) / Vec::LANES * Vec::LANES;
    for (std::size_t m = 0; m < count; m++) {
      float* row = scores + m * SEGMENT;
      if (head.soft_cap > 0) {
        for (std::size_t t = 0; t < filled; t += Vec::LANES) {
          Vec::store(row + t, soft_cap(Vec::load(row + t), head.soft_cap));
        }
      }
      // What lies before and behind the positions that the row sees.
      const std::size_t unseen = rows[m].first > from ? least(rows[m].first - from, filled) : 0;
      const std::size_t seen = rows[m].last < from ? 0 : least(rows[m].last + 1 - from, filled);
      for (std::size_t t = 0; t < unseen; t++) {
        row[t] = MINUS_INFINITY;
      }
      for (std::size_t t = seen; t < filled; t++) {
        row[t] = MINUS_INFINITY;
      }
      auto top = Vec::set1(MINUS_INFINITY);
      for (std::size_t t = 0; t < filled; t += Vec::LANES) {
        top = Vec::max(top, Vec::load(row + t));
      }
      float maximum = Vec::maximum(top);
      maximum = maximum > maxima[m] ? maximum : maxima[m];
      if (maximum == MINUS_INFINITY) { // nothing to be seen so far
        __builtin_memset(row, 0, filled * sizeof(float));
        continue;
      }
      const auto shift = Vec::set1(maximum);
      auto total = Vec::zero();
      for (std::size_t t = 0; t < filled; t += Vec::LANES) {
        const auto weight = exp(Vec::sub(Vec::load(row + t), shift));
        Vec::store(row + t, weight);
        total = Vec::add(total, weight);
      }
      float lanes[Vec::LANES];
      Vec::store(lanes, exp(Vec::sub(Vec::set1(maxima[m]), shift)));
      const float keep = lanes[0];
      totals[m] = totals[m] * keep + Vec::sum(total);
      maxima[m] = maximum;
      for (std::size_t d = 0; d < length; d += Vec::LANES) {
        float* sum = sums + m * length + d;
        Vec::store(sum, Vec::mul(Vec::load(sum), Vec::set1(keep)));
      }
    }
    const float* values = head.values + from * head.value_stride;
    std::size_t stride = head.value_stride;
    if (length != dim) {
      for (std::size_t t = 0; t < to - from; t++) {
        __builtin_memset(padded + t * length, 0, length * sizeof(float));
        __builtin_memcpy(padded + t * length, values + t * stride, dim * sizeof(float));
      }
      values = padded;
      stride = length;
    }
    weigh_of(count, scores, values, stride, to - from, sums, length);
  }
  for (std::size_t m = 0; m < count; m++) {
    for (std::size_t d = 0; d < dim; d++) {
      rows[m].out[d] = sums[m * length + d] / totals[m];
    }
  }
}

} // namespace
} // namespace mlxcel::kernels

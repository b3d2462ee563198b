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

template <class T>
void widen(const T* in, std::size_t size, float* out) {
  std::size_t i = 0;
  for (; i + Vec::LANES <= size; i += Vec::LANES) {
    Vec::store(out + i, Vec::load(in + i));
  }
  for (; i < size; i++) {
    out[i] = to_float(in[i]);
  }
}

/// Position `t` of packed rows. The loops are as long as the compiler knows, so that it makes vectors
/// of them.
template <int BITS>
void unpack_position(const CacheRows& rows, std::size_t t, std::size_t dim, float* out) {
  constexpr std::size_t STEP = 32;
  const unsigned char* in = rows.data + t * rows.stride;
  const float* scales = rows.scales + t * rows.scale_stride;
  const float* biases = rows.biases + t * rows.scale_stride;
  for (std::size_t from = 0; from < dim; from += STEP) {
    const float scale = scales[from / rows.group], bias = biases[from / rows.group];
    if constexpr (BITS == 8) {
      for (std::size_t i = 0; i < STEP; i++) {
        out[from + i] = scale * static_cast<float>(in[from + i]) + bias;
      }
    } else {
      static_assert(BITS == 4);
      unsigned char numbers[STEP];
      for (std::size_t i = 0; i < STEP / 2; i++) {
        numbers[2 * i] = in[from / 2 + i] & 15;
        numbers[2 * i + 1] = in[from / 2 + i] >> 4;
      }
      for (std::size_t i = 0; i < STEP; i++) {
        out[from + i] = scale * static_cast<float>(numbers[i]) + bias;
      }
    }
  }
}

/// The features of position `t` as `length` floats, those behind the last one zeros: where they lie, or
/// in `copy`.
inline const float* features_of(
    const CacheRows& rows, std::size_t t, std::size_t dim, std::size_t length, float* copy) {
  const unsigned char* data = rows.data + t * rows.stride;
  if (rows.bits == 8) {
    unpack_position<8>(rows, t, dim, copy);
  } else if (rows.bits == 4) {
    unpack_position<4>(rows, t, dim, copy);
  } else if (rows.element == Element::f16) {
    widen(reinterpret_cast<const Half*>(data), dim, copy);
  } else if (rows.element == Element::bf16) {
    widen(reinterpret_cast<const BFloat*>(data), dim, copy);
  } else if (dim == length) {
    return reinterpret_cast<const float*>(data);
  } else {
    __builtin_memcpy(copy, data, dim * sizeof(float));
  }
  for (std::size_t i = dim; i < length; i++) {
    copy[i] = 0;
  }
  return copy;
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
      float copy[Vec::LANES];
      keys[i] = Vec::load(features_of(head.keys, least(t + i, to - 1), head.dim, Vec::LANES, copy));
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
      w[r] = features_of(head.keys, least(t + r, to - 1), head.dim, length, keys + r * length);
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
  float* copies = keys + STRIP * length;
  float maxima[QUERIES], totals[QUERIES];
  std::size_t first = rows[0].first, last = 0;
  const std::size_t keep = rows[0].keep;
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
  for (std::size_t from = keep > 0 ? 0 : first / SEGMENT * SEGMENT; from <= last; from += SEGMENT) {
    if (from >= keep && from + SEGMENT <= first) {
      continue; // between what is kept and the window
    }
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
      const std::size_t kept = keep > from ? keep - from : 0;
      const std::size_t seen = rows[m].last < from ? 0 : least(rows[m].last + 1 - from, filled);
      for (std::size_t t = kept; t < unseen; t++) {
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
    const float* values = features_of(head.values, from, dim, length, copies);
    std::size_t stride = head.values.stride / sizeof(float);
    if (values == copies) {
      for (std::size_t t = 1; t < to - from; t++) {
        features_of(head.values, from + t, dim, length, copies + t * length);
      }
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

// Scores of keys and sums of weighed values, for some queries of one head. Included once by each instruction
// set.
#pragma once

#include <type_traits>

#include "cache_rows.h"
#include "products.h"

namespace mlxcel::kernels {
namespace {

constexpr std::size_t SEGMENT = ATTENTION_SEGMENT;
/// Query rows that are computed together at most.
constexpr std::size_t QUERIES = 2 * Vec::TILE;

/// Whether as many query rows read keys and values where they lie, else copies: where the last vector of a position
/// must be filled up, or where what is widened anew for each tile of rows costs more than copies do.
template <class Format>
bool reads_in_place(std::size_t dim, std::size_t count) {
  return dim % Vec::LANES == 0 &&
      (count <= Vec::TILE || Vec::WIDENS_FAST || std::is_same_v<Format, Numbers<float>>);
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
  // Summing up the lanes is a long chain: those of a strip are left to the products of the next one, where the
  // registers hold both.
  constexpr bool LATER = 2 * ROWS <= Vec::TILE;
  using Lanes = typename Vec::F[ROWS][STRIP];
  const auto sum_up = [](const Lanes& lanes, float* out) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int m = 0; m < ROWS; m++) {
      Vec::sum4(lanes[m][0], lanes[m][1], lanes[m][2], lanes[m][3], out + m * SEGMENT);
    }
  };
  // At first zeros, which the first strip's scores replace.
  Lanes before;
  float* out = scores;
  if constexpr (LATER) {
#pragma GCC unroll 16
    for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 16
      for (std::size_t r = 0; r < STRIP; r++) {
        before[m][r] = Vec::zero();
      }
    }
  }
  for (std::size_t t = from; t < to; t += STRIP) {
    typename Format::Row rows[STRIP];
    Lanes sums;
    Format::prefetch(keys, t, STRIP);
#pragma GCC unroll 16
    for (std::size_t r = 0; r < STRIP; r++) {
      rows[r] = Format::row(keys, least(t + r, to - 1));
#pragma GCC unroll 16
      for (int m = 0; m < ROWS; m++) {
        sums[m][r] = Vec::zero();
      }
    }
    if constexpr (LATER) {
      sum_up(before, out);
      out = scores + (t - from);
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
    if constexpr (LATER) {
#pragma GCC unroll 16
      for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 16
        for (std::size_t r = 0; r < STRIP; r++) {
          before[m][r] = sums[m][r];
        }
      }
    } else {
      sum_up(sums, scores + (t - from));
    }
  }
  if constexpr (LATER) {
    sum_up(before, out);
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
    const auto score_tiles = [&](auto format, const CacheRows& strip, std::size_t first) {
      for (std::size_t m = 0; m < count; m += Vec::TILE) {
        score_of<decltype(format)>(
            least(Vec::TILE, count - m), strip, first, first + wanted, queries + m * length, vectors,
            scores + m * SEGMENT + (t - from));
      }
    };
    in_place ? score_tiles(Format{}, keys, t)
             : score_tiles(Numbers<float>{}, widened<Format>(keys, t, t + wanted, dim, copies), 0);
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
      Format::prefetch(values, from + t, STRIP);
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

/// Rows of weights that are taken together.
template <class Format>
constexpr int MOST_WEIGHTS = std::is_same_v<Format, Numbers<float>> ? QUERIES : Vec::TILE;

/// The same for all features, and for a number of rows up to `MOST_WEIGHTS` that is only known now.
template <class Format, int ROWS = MOST_WEIGHTS<Format>>
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

/// The same for any number of rows.
template <class Format>
void weigh_all(
    std::size_t rows,
    const float* weights,
    const CacheRows& values,
    std::size_t from,
    std::size_t count,
    std::size_t vectors,
    float* out,
    std::size_t out_stride) {
  constexpr std::size_t MOST = MOST_WEIGHTS<Format>;
  for (std::size_t m = 0; m < rows; m += MOST) {
    weigh_of<Format>(
        least(MOST, rows - m), weights + m * SEGMENT, values, from, count, vectors, out + m * out_stride, out_stride);
  }
}

} // namespace
} // namespace mlxcel::kernels

// Products of activations with the transpose of a matrix. Included once by each instruction set.
//
// An element of the result is one chain of fused multiply-adds a lane over the columns in order, then
// the sum of the lanes in the order of `Vec::sum`. That holds for one row of activations and for many,
// so a row's result depends neither on the rows beside it nor on how the work was divided.
#pragma once

#include "formats.h"
#include "table.h"

namespace mlxcel::kernels {
namespace {

/// Floats of unpacked rows that a thread keeps: they stay in its second-level cache.
constexpr std::size_t PANEL = 64 * 1024;

template <int VALUES>
void pack_rows(const Rows& x, std::size_t from, std::size_t to, float* out) {
  constexpr std::size_t BLOCK = VALUES * Vec::LANES;
  const std::size_t length = (x.columns + BLOCK - 1) / BLOCK * BLOCK;
  for (std::size_t r = from; r < to; r++) {
    const float* source = x.data + static_cast<std::ptrdiff_t>(r) * x.row_stride;
    float* target = out + r * length;
    for (std::size_t first = 0; first < x.columns; first += BLOCK, target += BLOCK) {
      if (x.columns - first >= BLOCK && x.column_stride == 1) {
        for (int i = 0; i < VALUES; i++) {
          for (int j = 0; j < Vec::LANES; j++) {
            target[i * Vec::LANES + j] = source[first + j * VALUES + i];
          }
        }
        continue;
      }
      for (int i = 0; i < VALUES; i++) {
        for (int j = 0; j < Vec::LANES; j++) {
          const std::size_t column = first + j * VALUES + i;
          target[i * Vec::LANES + j] =
              column < x.columns ? source[static_cast<std::ptrdiff_t>(column) * x.column_stride] : 0;
        }
      }
    }
  }
}

/// One row of activations by `Format::TOGETHER` rows of the matrix from `first` on, none behind `last`.
template <class Format>
__attribute__((always_inline)) inline void sum_rows(
    const Matrix& matrix, const float* x, std::size_t first, std::size_t last, typename Vec::F* out) {
  constexpr std::size_t ROWS = Format::TOGETHER;
  const std::size_t blocks = matrix.columns / Format::BLOCK;
  const std::size_t rest = matrix.columns % Format::BLOCK;
  typename Format::Row rows[ROWS];
  typename Vec::F sums[ROWS];
#pragma GCC unroll 16
  for (std::size_t r = 0; r < ROWS; r++) {
    rows[r] = Format::row(matrix, least(first + r, last));
    sums[r] = Vec::zero();
  }
  for (std::size_t b = 0; b < blocks; b++) {
    const float* block = x + b * Format::BLOCK;
    // Unrolled by hand: in a loop the sums would live in memory.
    auto row = [&](auto r) __attribute__((always_inline)) {
      auto& sum = sums[decltype(r)::value];
      Format::prefetch(rows[decltype(r)::value], b);
      Format::block(rows[decltype(r)::value], b, [&](auto i, typename Vec::F w) __attribute__((always_inline)) {
        sum = Vec::fma(w, Vec::load(block + decltype(i)::value * Vec::LANES), sum);
      });
    };
    unroll<ROWS>(row);
  }
  if (rest > 0) {
    const float* block = x + blocks * Format::BLOCK;
#pragma GCC unroll 16
    for (std::size_t r = 0; r < ROWS; r++) {
      typename Format::Tail tail;
      const auto end = Format::tail(rows[r], blocks, rest, tail);
      Format::block(end, 0, [&](auto i, typename Vec::F w) __attribute__((always_inline)) {
        sums[r] = Vec::fma(w, Vec::load(block + decltype(i)::value * Vec::LANES), sums[r]);
      });
    }
  }
#pragma GCC unroll 16
  for (std::size_t r = 0; r < ROWS; r++) {
    out[r] = sums[r];
  }
}

/// One row of activations by rows `from` to `to` of the matrix, straight from their packed form.
template <class Format>
void product_of_one(const Matrix& matrix, const float* x, std::size_t from, std::size_t to, float* out) {
  for (std::size_t n = from; n < to; n += STRIP) {
    Format::prefetch_scales(Format::row(matrix, n), matrix.columns);
    typename Vec::F sums[STRIP];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < STRIP; r += Format::TOGETHER) {
      sum_rows<Format>(matrix, x, n + r, to - 1, sums + r);
    }
    float four[STRIP];
    Vec::sum4(sums[0], sums[1], sums[2], sums[3], four);
    __builtin_memcpy(out + (n - from), four, least(STRIP, to - n) * sizeof(float));
  }
}

/// `ROWS` rows of activations by `STRIP` rows of numbers, each of `count` vectors.
template <int ROWS>
void tile(
    const float* x,
    std::size_t length,
    const float* const (&w)[STRIP],
    std::size_t count,
    float* out,
    std::size_t out_stride,
    std::size_t wanted) {
  typename Vec::F sums[ROWS][STRIP];
#pragma GCC unroll 16
  for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 16
    for (std::size_t r = 0; r < STRIP; r++) {
      sums[m][r] = Vec::zero();
    }
  }
  for (std::size_t v = 0; v < count; v++) {
    typename Vec::F strip[STRIP];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < STRIP; r++) {
      strip[r] = Vec::load(w[r] + v * Vec::LANES);
    }
#pragma GCC unroll 16
    for (int m = 0; m < ROWS; m++) {
      const auto one = Vec::load(x + m * length + v * Vec::LANES);
#pragma GCC unroll 16
      for (std::size_t r = 0; r < STRIP; r++) {
        sums[m][r] = Vec::fma(strip[r], one, sums[m][r]);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < ROWS; m++) {
    float four[STRIP];
    Vec::sum4(sums[m][0], sums[m][1], sums[m][2], sums[m][3], four);
    __builtin_memcpy(out + m * out_stride, four, wanted * sizeof(float));
  }
}

/// The same for a number of rows up to `Vec::TILE` that is only known now.
template <int ROWS = Vec::TILE, class... Rest>
void tile_of(std::size_t rows, Rest&&... rest) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) {
      return tile_of<ROWS - 1>(rows, rest...);
    }
  }
  tile<ROWS>(rest...);
}

/// Rows of the matrix that one panel holds.
inline std::size_t panel_rows(std::size_t length) {
  const std::size_t rows = PANEL / length / STRIP * STRIP;
  return rows < STRIP ? STRIP : least(rows, 32);
}

/// The vectors of one row.
template <class Format>
__attribute__((noinline)) void unpack(const Matrix& matrix, std::size_t index, float* out) {
  for_vectors<Format>(matrix, index, [&](std::size_t v, typename Vec::F w) {
    Vec::store(out + v * Vec::LANES, w);
  });
}

/// Many rows of activations: the matrix is unpacked a panel at a time, which all of them then use.
template <class Format>
void product_of_many(
    const Matrix& matrix,
    const float* x,
    std::size_t count,
    std::size_t from,
    std::size_t to,
    float* out,
    std::size_t out_stride,
    float* panel) {
  const std::size_t per_row = vectors<Format>(matrix.columns);
  const std::size_t length = per_row * Vec::LANES;
  const std::size_t step = panel_rows(length);
  for (std::size_t first = from; first < to; first += step) {
    const std::size_t end = least(first + step, to);
    const float* rows[32];
    for (std::size_t n = first; n < end; n++) {
      if constexpr (Format::IN_PLACE) {
        if (matrix.columns == length) {
          rows[n - first] = static_cast<const float*>(matrix.values) + n * length;
          continue;
        }
      }
      float* target = panel + (n - first) * length;
      rows[n - first] = target;
      unpack<Format>(matrix, n, target);
    }
    for (std::size_t m = 0; m < count; m += Vec::TILE) {
      for (std::size_t n = first; n < end; n += STRIP) {
        const float* w[STRIP];
        for (std::size_t r = 0; r < STRIP; r++) {
          w[r] = rows[least(n + r, end - 1) - first];
        }
        tile_of(
            least(Vec::TILE, count - m), x + m * length, length, w, per_row,
            out + m * out_stride + (n - from), out_stride, least(STRIP, end - n));
      }
    }
  }
}

// What the table has.

std::size_t packed_length(const Matrix& matrix) {
  const std::size_t block = values_of(matrix) * Vec::LANES;
  return (matrix.columns + block - 1) / block * block;
}

bool same_packing(const Matrix& a, const Matrix& b) {
  return a.columns == b.columns && values_of(a) == values_of(b);
}

void pack(const Matrix& matrix, const Rows& x, std::size_t from, std::size_t to, float* out) {
  switch (values_of(matrix)) {
    case 1:
      return pack_rows<1>(x, from, to, out);
    case 4:
      return pack_rows<4>(x, from, to, out);
    case 8:
      return pack_rows<8>(x, from, to, out);
    default:
      return pack_rows<16>(x, from, to, out);
  }
}

std::size_t product_scratch(const Matrix& matrix) {
  const std::size_t length = packed_length(matrix);
  return length * panel_rows(length);
}

void product(
    const Matrix& matrix,
    const float* x,
    std::size_t count,
    std::size_t from,
    std::size_t to,
    float* out,
    std::size_t out_stride,
    float* scratch) {
  with_format(matrix, [&](auto format) {
    using Format = decltype(format);
    if (count == 1) {
      product_of_one<Format>(matrix, x, from, to, out);
    } else {
      product_of_many<Format>(matrix, x, count, from, to, out, out_stride, scratch);
    }
  });
}

void unpack_row(const Matrix& matrix, std::size_t index, float* out, float* scratch) {
  const std::size_t values = values_of(matrix), block = values * Vec::LANES;
  with_format(matrix, [&](auto format) { unpack<decltype(format)>(matrix, index, scratch); });
  for (std::size_t column = 0; column < matrix.columns; column++) {
    const std::size_t within = column % block;
    out[column] = scratch[column - within + within % values * Vec::LANES + within / values];
  }
}

constexpr Products PRODUCTS = {
    .packed_length = packed_length,
    .same_packing = same_packing,
    .pack = pack,
    .product_scratch = product_scratch,
    .product = product,
};

} // namespace
} // namespace mlxcel::kernels

// Products with activations that are quantized to 8 bits on the way. Included once by each instruction set, after
// its `Vec`. Matrices that are not affine with 4 or 8 bits go to the exact products.
//
// 32 neighbouring activations share a scale, their largest size over 127. An element of the result is one chain a
// lane over the columns in order, then the sum of the lanes: in a lane of a block the integers are multiplied and
// summed up exactly, then comes the scale of the weights times that of the activations, and the bias of the
// weights times the sum of the activations. It is the same chain for one row of activations and for many.
#pragma once

#include "formats.h"
#include "table.h"

namespace mlxcel::kernels {
namespace {

/// Activations that share a scale; a lane's never lie in two groups.
constexpr std::size_t SHARING = 32;

/// Whether products with the matrix take quantized activations.
inline bool takes_integers(const Matrix& matrix) {
  return matrix.mode == Mode::affine && (matrix.bits == 4 || matrix.bits == 8);
}

/// How a block of activations lies in memory: the integers in the order in which `integers` finds the weights',
/// then for each lane the scale, then the scaled sum.
template <int BITS>
struct Packed {
  static constexpr std::size_t COLUMNS = Vec::LANES * values_of(BITS);
  static constexpr std::size_t FLOATS = COLUMNS / sizeof(float) + 2 * Vec::LANES;

  /// Where the integer of column `column` of the block goes: of weights of four bits, the even columns' are behind
  /// one another, then the odd ones'.
  static constexpr std::size_t place(std::size_t column) {
    return BITS == 8 ? column : column % 2 * (COLUMNS / 2) + column / 2;
  }
  static const float* scales(const float* block) { return block + COLUMNS / sizeof(float); }
  static const float* sums(const float* block) { return scales(block) + Vec::LANES; }
};

/// Rounds `x · factor`, whose size is 127 at most, to the nearest integer: it is what the mantissa ends with after
/// 1.5 · 2^23 was added.
inline std::int8_t nearest(float x, float factor) {
  const float shifted = x * factor + 0x1.8p23f;
  std::int32_t bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  return static_cast<std::int8_t>(bits);
}

template <int BITS>
void quantize_row(const float* x, std::ptrdiff_t stride, std::size_t columns, float* out) {
  using Layout = Packed<BITS>;
  constexpr std::size_t BLOCK = Layout::COLUMNS, EACH = values_of(BITS);
  // A group may be longer than a block.
  constexpr std::size_t STEP = BLOCK > SHARING ? BLOCK : SHARING;
  for (std::size_t first = 0; first < columns; first += STEP) {
    float values[STEP] = {};
    const std::size_t count = least(STEP, columns - first);
    for (std::size_t i = 0; i < count; i++) {
      values[i] = x[static_cast<std::ptrdiff_t>(first + i) * stride];
    }
    std::int8_t integers[STEP];
    float scales[STEP / SHARING];
    for (std::size_t group = 0; group < STEP; group += SHARING) {
      float largest = 0;
      for (std::size_t i = 0; i < SHARING; i++) {
        const float size = __builtin_fabsf(values[group + i]);
        largest = size > largest ? size : largest;
      }
      scales[group / SHARING] = largest / 127.0f;
      // Numbers that are all as good as nothing would have no finite factor.
      const float factor = largest > 0x1p-100f ? 127.0f / largest : 0.0f;
      for (std::size_t i = 0; i < SHARING; i++) {
        integers[group + i] = nearest(values[group + i], factor);
      }
    }
    for (std::size_t block = 0; block < STEP && first + block < columns; block += BLOCK) {
      auto* bytes = reinterpret_cast<std::int8_t*>(out);
      for (std::size_t i = 0; i < BLOCK; i++) {
        bytes[Layout::place(i)] = integers[block + i];
      }
      float* lanes = out + BLOCK / sizeof(float);
      for (std::size_t lane = 0; lane < Vec::LANES; lane++) {
        const std::size_t from = block + lane * EACH;
        std::int32_t sum = 0;
        for (std::size_t i = 0; i < EACH; i++) {
          sum += integers[from + i];
        }
        const float scale = scales[from / SHARING];
        lanes[lane] = scale;
        lanes[Vec::LANES + lane] = scale * static_cast<float>(sum);
      }
      out += Layout::FLOATS;
    }
  }
}

/// The sums of the lanes' products of a block's weights and activations.
template <int BITS>
__attribute__((always_inline)) inline typename Vec::F integers(typename Vec::I words, const float* block) {
  const auto* x = reinterpret_cast<const std::int8_t*>(block);
  if constexpr (BITS == 8) {
    return Vec::numbers(Vec::template dot<8>(Vec::no_integers(), words, x));
  } else {
    const auto even = Vec::template dot<4>(Vec::no_integers(), Vec::low_nibbles(words), x);
    return Vec::numbers(Vec::template dot<4>(even, Vec::high_nibbles(words), x + 4 * Vec::LANES));
  }
}

/// `ROWS` rows of activations, `length` floats apart, by rows `from` to `to` of the matrix.
template <class Format, int BITS, int ROWS>
void quantized_product(
    const Matrix& matrix,
    const float* x,
    std::size_t length,
    std::size_t from,
    std::size_t to,
    float* out,
    std::size_t out_stride) {
  using Layout = Packed<BITS>;
  const std::size_t blocks = matrix.columns / Format::BLOCK;
  const std::size_t rest = matrix.columns % Format::BLOCK;
  for (std::size_t n = from; n < to; n += STRIP) {
    Format::prefetch_scales(Format::row(matrix, n), matrix.columns);
    typename Format::Row rows[STRIP];
    typename Vec::F sums[ROWS][STRIP];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < STRIP; r++) {
      rows[r] = Format::row(matrix, least(n + r, to - 1));
#pragma GCC unroll 16
      for (int m = 0; m < ROWS; m++) {
        sums[m][r] = Vec::zero();
      }
    }
    const auto add = [&](typename Format::Row row, std::size_t b, const float* block, auto r)
                         __attribute__((always_inline)) {
      const auto words = Vec::template words<BITS>(row.words + b * Format::BYTES);
      const std::size_t group = b * Format::BLOCK / Format::SHARED;
      const auto scale = Vec::template spread<Format::GROUPS>(row.scales + group);
      const auto bias = Vec::template spread<Format::GROUPS>(row.biases + group);
#pragma GCC unroll 16
      for (int m = 0; m < ROWS; m++) {
        const float* at = block + m * length;
        auto& sum = sums[m][decltype(r)::value];
        const auto scaled = Vec::mul(integers<BITS>(words, at), Vec::load(Layout::scales(at)));
        sum = Vec::fma(bias, Vec::load(Layout::sums(at)), Vec::fma(scale, scaled, sum));
      }
    };
    for (std::size_t b = 0; b < blocks; b++) {
      auto row = [&](auto r) __attribute__((always_inline)) {
        Format::prefetch(rows[decltype(r)::value], b);
        add(rows[decltype(r)::value], b, x + b * Layout::FLOATS, r);
      };
      unroll<STRIP>(row);
    }
    if (rest > 0) {
      auto row = [&](auto r) __attribute__((always_inline)) {
        typename Format::Tail tail;
        add(Format::tail(rows[decltype(r)::value], blocks, rest, tail), 0, x + blocks * Layout::FLOATS, r);
      };
      unroll<STRIP>(row);
    }
#pragma GCC unroll 16
    for (int m = 0; m < ROWS; m++) {
      float four[STRIP];
      Vec::sum4(sums[m][0], sums[m][1], sums[m][2], sums[m][3], four);
      __builtin_memcpy(out + m * out_stride + (n - from), four, least(STRIP, to - n) * sizeof(float));
    }
  }
}

/// Rows of activations whose sums the registers hold.
constexpr int AT_ONCE = Vec::LANES == 16 ? 4 : 2;

/// The same for a number of rows up to `AT_ONCE` that is only known now.
template <class Format, int BITS, int ROWS = AT_ONCE, class... Rest>
void quantized_rows(std::size_t rows, const Rest&... rest) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) {
      return quantized_rows<Format, BITS, ROWS - 1>(rows, rest...);
    }
  }
  quantized_product<Format, BITS, ROWS>(rest...);
}

/// Calls `call` with the format of a matrix that takes integers.
template <class Call>
void with_integers(const Matrix& matrix, Call call) {
  const auto of = [&](auto number) {
    using T = decltype(number);
    if (matrix.bits == 4) {
      with_group<T, 4>(matrix.group, [&](auto format) { call(format, Index<4>{}); });
    } else {
      with_group<T, 8>(matrix.group, [&](auto format) { call(format, Index<8>{}); });
    }
  };
  switch (matrix.element) {
    case Element::f32:
      return of(float{});
    case Element::bf16:
      return of(BFloat{});
    case Element::f16:
      return of(Half{});
  }
}

// What the table has.

inline const Products& exact() {
  return *table().exact;
}

std::size_t quantized_length(const Matrix& matrix) {
  if (!takes_integers(matrix)) {
    return exact().packed_length(matrix);
  }
  const std::size_t block = values_of(matrix) * Vec::LANES;
  const std::size_t floats = matrix.bits == 4 ? Packed<4>::FLOATS : Packed<8>::FLOATS;
  return (matrix.columns + block - 1) / block * floats;
}

bool same_quantized(const Matrix& a, const Matrix& b) {
  return takes_integers(a) || takes_integers(b)
      ? takes_integers(a) && takes_integers(b) && a.bits == b.bits && a.columns == b.columns
      : exact().same_packing(a, b);
}

void pack_quantized(const Matrix& matrix, const Rows& x, std::size_t from, std::size_t to, float* out) {
  if (!takes_integers(matrix)) {
    return exact().pack(matrix, x, from, to, out);
  }
  const std::size_t length = quantized_length(matrix);
  const auto quantize = matrix.bits == 4 ? quantize_row<4> : quantize_row<8>;
  for (std::size_t m = from; m < to; m++) {
    const float* row = x.data + static_cast<std::ptrdiff_t>(m) * x.row_stride;
    quantize(row, x.column_stride, x.columns, out + m * length);
  }
}

std::size_t quantized_scratch(const Matrix& matrix) {
  return takes_integers(matrix) ? 0 : exact().product_scratch(matrix);
}

void product_of_quantized(
    const Matrix& matrix,
    const float* x,
    std::size_t count,
    std::size_t from,
    std::size_t to,
    float* out,
    std::size_t out_stride,
    float* scratch) {
  if (!takes_integers(matrix)) {
    return exact().product(matrix, x, count, from, to, out, out_stride, scratch);
  }
  const std::size_t length = quantized_length(matrix);
  with_integers(matrix, [&](auto format, auto bits) {
    using Format = decltype(format);
    constexpr int BITS = decltype(bits)::value;
    if (count == 1) {
      return quantized_product<Format, BITS, 1>(matrix, x, length, from, to, out, out_stride);
    }
    // A strip of rows stays in the first-level cache while all activations pass by.
    for (std::size_t n = from; n < to; n += STRIP) {
      for (std::size_t m = 0; m < count; m += AT_ONCE) {
        quantized_rows<Format, BITS>(
            least(AT_ONCE, count - m), matrix, x + m * length, length, n, least(n + STRIP, to),
            out + m * out_stride + (n - from), out_stride);
      }
    }
  });
}

constexpr Products QUANTIZING = {
    .packed_length = quantized_length,
    .same_packing = same_quantized,
    .pack = pack_quantized,
    .product_scratch = quantized_scratch,
    .product = product_of_quantized,
};

} // namespace
} // namespace mlxcel::kernels

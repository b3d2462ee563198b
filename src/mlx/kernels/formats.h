// How the rows of a matrix become vectors. Included once by each instruction set, after its `Vec`.
//
// A row is read in blocks of `LANES · VALUES` columns: `VALUES` vectors, of which vector `i` holds in
// lane `j` column `j · VALUES + i`. A lane thus finds its packed integers in one 32-bit word, and
// activations are laid out in the same order once (`pack`), not each weight. What is missing of a
// row's last block counts as zero.
#pragma once

#include "operands.h"

namespace mlxcel::kernels {
namespace {

/// Rows of the matrix that are computed together.
constexpr std::size_t STRIP = 4;

inline std::size_t least(std::size_t a, std::size_t b) {
  return a < b ? a : b;
}

/// Bytes of a row that are asked for ahead, by measurement: what a thread reads next lies behind what it reads. Rows
/// of float32 the processor asks for by itself. Behind the last row nothing happens.
constexpr std::size_t DENSE_AHEAD = 4 * 1024, PACKED_AHEAD = 10 * 1024;

/// Asks for the lines of `bytes` from `at` on. Always inlined: GCC takes a call that only prefetches for one that does
/// nothing.
__attribute__((always_inline)) inline void prefetch_lines(const void* at, std::size_t bytes) {
  constexpr std::size_t LINE = 64;
  for (std::size_t i = 0; i < bytes; i += LINE) {
    __builtin_prefetch(static_cast<const unsigned char*>(at) + i);
  }
}

/// Asks for the scales of the strip after next, or biases: a strip has too few of them for the processor to notice,
/// and each begins a line that it would wait for.
template <class T>
__attribute__((always_inline)) inline void prefetch_strip(const T* row, std::size_t groups) {
  prefetch_lines(row + 2 * STRIP * groups, STRIP * groups * sizeof(T));
}

/// The number of a vector within its block, known when compiling.
template <int I>
struct Index {
  static constexpr int value = I;
};

/// Calls `each` with `Index<0>` to `Index<N - 1>`.
template <int N, int I = 0, class Each>
__attribute__((always_inline)) inline void unroll(Each& each) {
  if constexpr (I < N) {
    each(Index<I>{});
    unroll<N, I + 1>(each);
  }
}

/// Neighbouring columns that a lane holds of a block.
constexpr int values_of(int bits) {
  return bits == 0 ? 1 : bits == 2 ? 16 : bits <= 4 ? 8 : 4;
}

inline std::size_t values_of(const Matrix& matrix) {
  return values_of(matrix.bits);
}

/// Numbers as they are.
template <class T>
struct Dense {
  /// Whether the rows in memory are what `block` gives.
  static constexpr bool IN_PLACE = sizeof(T) == sizeof(float);
  static constexpr int VALUES = values_of(0);
  static constexpr int BLOCK = Vec::LANES;
  static constexpr int BYTES = BLOCK * sizeof(T);
  /// Rows of a strip that one row of activations goes through at once. Where memory keeps up with a single chain of
  /// multiply-adds, one stream of it is faster than four.
  static constexpr std::size_t TOGETHER = !IN_PLACE && Vec::LANES == 16 ? 1 : STRIP;

  struct Row {
    const T* values;
  };
  struct Tail {
    T values[BLOCK];
  };

  static Row row(const Matrix& matrix, std::size_t index) {
    return {static_cast<const T*>(matrix.values) + index * matrix.columns};
  }
  /// A block of its own for the row's last `columns`, which begin at block `index`.
  static Row tail(Row row, std::size_t index, std::size_t columns, Tail& tail) {
    tail = {};
    __builtin_memcpy(tail.values, row.values + index * BLOCK, columns * sizeof(T));
    return {tail.values};
  }
  static void prefetch(Row row, std::size_t index) {
    if constexpr (!IN_PLACE) {
      __builtin_prefetch(reinterpret_cast<const unsigned char*>(row.values + index * BLOCK) + DENSE_AHEAD);
    }
  }
  static void prefetch_scales(Row, std::size_t) {}
  /// Calls `each` with the number of every vector of a block, and the vector.
  template <class Each>
  __attribute__((always_inline)) static void block(Row row, std::size_t index, Each each) {
    each(Index<0>{}, Vec::load(row.values + index * BLOCK));
  }
};

/// MLX's affine quantization: integers of `BITS` bits behind one another, little-endian.
template <int BITS, int GROUP, class T>
struct Affine {
  static constexpr bool IN_PLACE = false;
  /// Columns that share a scale.
  static constexpr int SHARED = GROUP;
  static constexpr int VALUES = values_of(BITS);
  static constexpr int BLOCK = Vec::LANES * VALUES;
  static constexpr int BYTES = BLOCK * BITS / 8;
  static constexpr std::size_t TOGETHER = STRIP;
  static constexpr int GROUPS = BLOCK > GROUP ? BLOCK / GROUP : 1;

  struct Row {
    const unsigned char* words;
    const T* scales;
    const T* biases;
  };
  struct Tail {
    unsigned char words[BYTES];
    T scales[GROUPS];
    T biases[GROUPS];
  };

  static Row row(const Matrix& matrix, std::size_t index) {
    const std::size_t groups = index * (matrix.columns / GROUP);
    return {
        static_cast<const unsigned char*>(matrix.values) + index * (matrix.columns * BITS / 8),
        static_cast<const T*>(matrix.scales) + groups,
        static_cast<const T*>(matrix.biases) + groups};
  }
  static Row tail(Row row, std::size_t index, std::size_t columns, Tail& tail) {
    tail = {};
    const std::size_t group = index * BLOCK / GROUP;
    __builtin_memcpy(tail.words, row.words + index * BYTES, columns * BITS / 8);
    __builtin_memcpy(tail.scales, row.scales + group, columns / GROUP * sizeof(T));
    __builtin_memcpy(tail.biases, row.biases + group, columns / GROUP * sizeof(T));
    return {tail.words, tail.scales, tail.biases};
  }
  static void prefetch(Row row, std::size_t index) {
    __builtin_prefetch(row.words + index * BYTES + PACKED_AHEAD);
  }
  static void prefetch_scales(Row row, std::size_t columns) {
    prefetch_strip(row.scales, columns / GROUP);
    prefetch_strip(row.biases, columns / GROUP);
  }
  template <class Each>
  __attribute__((always_inline)) static void block(Row row, std::size_t index, Each each) {
    const auto words = Vec::words<BITS>(row.words + index * BYTES);
    const std::size_t group = index * BLOCK / GROUP;
    const auto scale = Vec::spread<GROUPS>(row.scales + group);
    const auto bias = Vec::spread<GROUPS>(row.biases + group);
    auto vector = [&](auto i) __attribute__((always_inline)) {
      each(i, Vec::fma(Vec::value<BITS, decltype(i)::value>(words), scale, bias));
    };
    unroll<VALUES>(vector);
  }
};

/// Floating-point numbers of 4 bits (E2M1) or 8 (E4M3) behind one another, `GROUP` of which share a
/// `Scale` of one byte.
template <int BITS, int GROUP, class Scale>
struct Micro {
  static constexpr bool IN_PLACE = false;
  static constexpr int VALUES = values_of(BITS);
  static constexpr int BLOCK = Vec::LANES * VALUES;
  static constexpr int BYTES = BLOCK * BITS / 8;
  static constexpr std::size_t TOGETHER = STRIP;
  static constexpr int GROUPS = BLOCK > GROUP ? BLOCK / GROUP : 1;

  struct Row {
    const unsigned char* words;
    const Scale* scales;
  };
  struct Tail {
    unsigned char words[BYTES];
    Scale scales[GROUPS];
  };

  static Row row(const Matrix& matrix, std::size_t index) {
    return {
        static_cast<const unsigned char*>(matrix.values) + index * (matrix.columns * BITS / 8),
        static_cast<const Scale*>(matrix.scales) + index * (matrix.columns / GROUP)};
  }
  static Row tail(Row row, std::size_t index, std::size_t columns, Tail& tail) {
    tail = {};
    __builtin_memcpy(tail.words, row.words + index * BYTES, columns * BITS / 8);
    __builtin_memcpy(tail.scales, row.scales + index * BLOCK / GROUP, columns / GROUP);
    return {tail.words, tail.scales};
  }
  static void prefetch(Row row, std::size_t index) {
    __builtin_prefetch(row.words + index * BYTES + PACKED_AHEAD);
  }
  static void prefetch_scales(Row row, std::size_t columns) {
    prefetch_strip(row.scales, columns / GROUP);
  }
  template <class Each>
  __attribute__((always_inline)) static void block(Row row, std::size_t index, Each each) {
    const auto words = Vec::words<BITS>(row.words + index * BYTES);
    const Scale* scales = row.scales + index * BLOCK / GROUP;
    float wide[GROUPS];
    for (int g = 0; g < GROUPS; g++) {
      wide[g] = to_float(scales[g]);
    }
    const auto scale = Vec::spread<GROUPS>(wide);
    auto vector = [&](auto i) __attribute__((always_inline)) {
      constexpr int INDEX = decltype(i)::value;
      if constexpr (BITS == 4) {
        each(i, Vec::mul(Vec::e2m1<INDEX>(words), scale));
      } else {
        each(i, Vec::mul(Vec::e4m3<INDEX>(words), scale));
      }
    };
    unroll<VALUES>(vector);
  }
};

template <class T, int BITS, class Call>
void with_group(int group, Call call) {
  switch (group) {
    case 32:
      return call(Affine<BITS, 32, T>{});
    case 64:
      return call(Affine<BITS, 64, T>{});
    default:
      return call(Affine<BITS, 128, T>{});
  }
}

template <class T, class Call>
void with_bits(const Matrix& matrix, Call call) {
  switch (matrix.bits) {
    case 0:
      return call(Dense<T>{});
    case 2:
      return with_group<T, 2>(matrix.group, call);
    case 3:
      return with_group<T, 3>(matrix.group, call);
    case 4:
      return with_group<T, 4>(matrix.group, call);
    case 5:
      return with_group<T, 5>(matrix.group, call);
    case 6:
      return with_group<T, 6>(matrix.group, call);
    default:
      return with_group<T, 8>(matrix.group, call);
  }
}

/// Calls `call` with the format of `matrix`, whose bits and group were checked.
template <class Call>
void with_format(const Matrix& matrix, Call call) {
  switch (matrix.mode) {
    case Mode::affine:
      break;
    case Mode::mxfp4:
      return call(Micro<4, 32, Power>{});
    case Mode::nvfp4:
      return call(Micro<4, 16, Float8>{});
    case Mode::mxfp8:
      return call(Micro<8, 32, Power>{});
  }
  switch (matrix.element) {
    case Element::f32:
      return with_bits<float>(matrix, call);
    case Element::bf16:
      return with_bits<BFloat>(matrix, call);
    case Element::f16:
      return with_bits<Half>(matrix, call);
  }
}

/// Vectors that a row takes, the last block filled up.
template <class Format>
std::size_t vectors(std::size_t columns) {
  return (columns + Format::BLOCK - 1) / Format::BLOCK * Format::VALUES;
}

/// Calls `each` with the number of each vector of a row within the row, and the vector.
template <class Format, class Each>
__attribute__((always_inline)) inline void for_vectors(
    const Matrix& matrix, std::size_t index, Each each) {
  const auto row = Format::row(matrix, index);
  const std::size_t blocks = matrix.columns / Format::BLOCK;
  const std::size_t rest = matrix.columns % Format::BLOCK;
  for (std::size_t b = 0; b < blocks; b++) {
    Format::block(row, b, [&](auto i, typename Vec::F v) __attribute__((always_inline)) {
      each(b * Format::VALUES + decltype(i)::value, v);
    });
  }
  if (rest > 0) {
    typename Format::Tail tail;
    const auto last = Format::tail(row, blocks, rest, tail);
    Format::block(last, 0, [&](auto i, typename Vec::F v) __attribute__((always_inline)) {
      each(blocks * Format::VALUES + decltype(i)::value, v);
    });
  }
}

} // namespace
} // namespace mlxcel::kernels

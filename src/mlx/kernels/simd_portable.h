// Plain C++, for every machine: four lanes that compilers map onto whatever vectors there are.
#pragma once

#include "half.h"

namespace mlxcel::kernels {
namespace {

struct Vec {
  static constexpr int LANES = 4;
  // Vectors of the compiler (GCC, Clang): operators work lane by lane, on any machine.
  using F = float __attribute__((vector_size(4 * LANES)));
  using I = std::uint32_t __attribute__((vector_size(4 * LANES)));
  using S = std::int32_t __attribute__((vector_size(4 * LANES)));
  /// Rows of activations that the registers hold beside four rows of weights.
  static constexpr int TILE = 2;
  /// Whether widening the numbers of a cache costs less than reading copies.
  static constexpr bool WIDENS_FAST = false;

  static F zero() { return F{}; }
  static F set1(float x) { return F{x, x, x, x}; }
  static F load(const float* p) {
    F out;
    __builtin_memcpy(&out, p, sizeof out);
    return out;
  }
  template <class T>
  static F load(const T* p) {
    return F{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
  }
  static void store(float* p, F x) { __builtin_memcpy(p, &x, sizeof x); }
  static void store(Half* p, F x) {
    for (int i = 0; i < LANES; i++) {
      p[i] = to_half(x[i]);
    }
  }
  /// Rounds twice: a fused one would be a function call without the instruction.
  static F fma(F a, F b, F c) { return a * b + c; }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F min(F a, F b) { return a < b ? a : b; }
  /// Adding and taking away 1.5 · 2^23 leaves the nearest whole number, of those below 2^22.
  static F round(F a) { return (a + 0x1.8p23f) - 0x1.8p23f; }
  /// `2^n` for whole `n` within the exponents of normal numbers.
  static F exp2i(F n) {
    const S exponents = __builtin_convertvector(n, S) + 127;
    return reinterpret_cast<F>(exponents << 23);
  }

  /// The sum of the lanes: `(0 + 2) + (1 + 3)`.
  static float sum(F v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  /// The sums of four vectors, each in the order of `sum`.
  static void sum4(F a, F b, F c, F d, float* out) {
    const float sums[4] = {sum(a), sum(b), sum(c), sum(d)};
    __builtin_memcpy(out, sums, sizeof sums);
  }
  /// Lane `i` of row `j` becomes lane `j` of row `i`.
  static void transpose(F (&r)[LANES]) {
    const F a = r[0], b = r[1], c = r[2], d = r[3];
    for (int i = 0; i < LANES; i++) {
      r[i] = F{a[i], b[i], c[i], d[i]};
    }
  }
  static float maximum(F v) {
    const F folded = max(v, F{v[2], v[3], v[0], v[1]});
    return folded[0] > folded[1] ? folded[0] : folded[1];
  }

  /// `GROUPS` numbers, each in as many neighbouring lanes as it takes to fill the vector.
  template <int GROUPS, class T>
  static F spread(const T* p) {
    static_assert(GROUPS == 1 || GROUPS == 2);
    const float first = to_float(p[0]), last = to_float(p[GROUPS - 1]);
    return F{first, first, last, last};
  }

  /// The lanes' words of one block: 32 bits that hold the lane's neighbouring values.
  template <int BITS>
  static I words(const unsigned char* p) {
    I out;
    for (int j = 0; j < LANES; j++) {
      if constexpr (BITS == 2 || BITS == 4 || BITS == 8) {
        const unsigned char* at = p + 4 * j;
        out[j] = at[0] | at[1] << 8 | at[2] << 16 | static_cast<std::uint32_t>(at[3]) << 24;
      } else if constexpr (BITS == 5) {
        // Four values a lane: bytes 0-2 of five, and 2-4, four bits in.
        const unsigned char* at = p + 5 * (j / 2) + 2 * (j % 2);
        out[j] = (at[0] | at[1] << 8 | at[2] << 16) >> (4 * (j % 2));
      } else {
        static_assert(BITS == 3 || BITS == 6);
        const unsigned char* at = p + 3 * j;
        out[j] = at[0] | at[1] << 8 | at[2] << 16;
      }
    }
    return out;
  }
  /// Value `INDEX` of every lane.
  template <int BITS, int INDEX>
  static F value(I words) {
    return __builtin_convertvector(words >> (BITS * INDEX) & ((1u << BITS) - 1), F);
  }
  // For integers that are multiplied as such.
  static I no_integers() { return I{}; }
  static F numbers(I integers) { return __builtin_convertvector(reinterpret_cast<S>(integers), F); }
  /// The lower four bits of every byte, and the upper ones.
  static I low_nibbles(I words) { return words & 0x0F0F0F0Fu; }
  static I high_nibbles(I words) { return words >> 4 & 0x0F0F0F0Fu; }
  /// Adds the products of a lane's four bytes, below `2^BITS`, and four of `x` to the lane.
  template <int BITS>
  static I dot(I sum, I bytes, const std::int8_t* x) {
    for (int j = 0; j < LANES; j++) {
      for (int i = 0; i < 4; i++) {
        const auto byte = static_cast<std::int32_t>(bytes[j] >> (8 * i) & 0xFF);
        sum[j] += static_cast<std::uint32_t>(byte * x[4 * j + i]);
      }
    }
    return sum;
  }
  /// Number `INDEX` of every lane, of four bits: sign, two bits of exponent, one of mantissa.
  template <int INDEX>
  static F e2m1(I words) {
    static constexpr float NUMBERS[16] = {
        0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    F out;
    for (int j = 0; j < LANES; j++) {
      out[j] = NUMBERS[words[j] >> (4 * INDEX) & 15];
    }
    return out;
  }
  /// The same of eight bits: sign, four bits of exponent, three of mantissa.
  template <int INDEX>
  static F e4m3(I words) {
    const I shifted = words >> (8 * INDEX);
    // The exponents' biases differ by 120.
    return reinterpret_cast<F>((shifted & 0x80) << 24 | (shifted & 0x7F) << 20) * 0x1p120f;
  }

  /// The numbers that the integers 0 to `2^BITS - 1` of one group stand for.
  template <int BITS>
  class Levels {
   public:
    Levels(float scale, float bias) : scale_(set1(scale)), bias_(set1(bias)) {}
    /// As many neighbours as there are lanes, feature `i` of them in lane `lane(i)`.
    F at(const unsigned char* p) const {
      static_assert(BITS == 4 || BITS == 8);
      S integers;
      if constexpr (BITS == 4) {
        integers = S{p[0] & 15, p[0] >> 4, p[1] & 15, p[1] >> 4};
      } else {
        integers = S{p[0], p[1], p[2], p[3]};
      }
      return fma(__builtin_convertvector(integers, F), scale_, bias_);
    }
    static constexpr int lane(int feature) { return feature; }

   private:
    F scale_, bias_;
  };
};

} // namespace
} // namespace mlxcel::kernels

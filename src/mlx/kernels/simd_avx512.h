// AVX-512 (F, BW, DQ, VL): 16 lanes. For the one translation unit that is compiled for it.
#pragma once

#include <immintrin.h>

#include "half.h"

namespace mlxcel::kernels {
namespace {

struct Vec {
  using F = __m512;
  using I = __m512i;
  static constexpr int LANES = 16;
  /// Rows of activations that the registers hold beside four rows of weights.
  static constexpr int TILE = 6;
  /// Whether widening the numbers of a cache costs less than reading copies.
  static constexpr bool WIDENS_FAST = true;

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const BFloat* p) {
    return widen(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
  }
  static F load(const Half* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void store(Half* p, F x) {
    const __m256i halves = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), halves);
  }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  /// `2^n` for whole `n` within the exponents of normal numbers.
  static F exp2i(F n) {
    const I bits = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 23));
  }

  /// The sum of the lanes: `i + (i+8)`, then `i + (i+4)`, `i + (i+2)`, `i + (i+1)`.
  static float sum(F v) {
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
  }
  /// The sums of four vectors, each in the order of `sum`.
  static void sum4(F a, F b, F c, F d, float* out) {
    const F ab = add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
    const F cd = add(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
    F v = add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
    v = add(v, _mm512_permute_ps(v, 0x4E));
    v = add(v, _mm512_permute_ps(v, 0xB1));
    const I heads = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(heads, v)));
  }
  /// Lane `i` of row `j` becomes lane `j` of row `i`.
  static void transpose(F (&r)[LANES]) {
    F t[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4) {
      r[i] = pairs<false>(t[i], t[i + 2]);
      r[i + 1] = pairs<true>(t[i], t[i + 2]);
      r[i + 2] = pairs<false>(t[i + 1], t[i + 3]);
      r[i + 3] = pairs<true>(t[i + 1], t[i + 3]);
    }
    // Quarter `q` of row `4 i + j` has column `4 q + j` of rows `4 i` on.
#pragma GCC unroll 16
    for (int j = 0; j < 4; j++) {
      const F a = _mm512_shuffle_f32x4(r[j], r[4 + j], 0x88);
      const F b = _mm512_shuffle_f32x4(r[j], r[4 + j], 0xDD);
      const F c = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0x88);
      const F d = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0xDD);
      t[j] = _mm512_shuffle_f32x4(a, c, 0x88);
      t[4 + j] = _mm512_shuffle_f32x4(b, d, 0x88);
      t[8 + j] = _mm512_shuffle_f32x4(a, c, 0xDD);
      t[12 + j] = _mm512_shuffle_f32x4(b, d, 0xDD);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      r[i] = t[i];
    }
  }
  static float maximum(F v) { return _mm512_reduce_max_ps(v); }

  /// `GROUPS` numbers, each in as many neighbouring lanes as it takes to fill the vector.
  template <int GROUPS, class T>
  static F spread(const T* p) {
    if constexpr (GROUPS == 1) {
      return set1(to_float(*p));
    } else {
      const I lanes =
          _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
      const I source = _mm512_srli_epi32(lanes, __builtin_ctz(LANES / GROUPS));
      return _mm512_permutexvar_ps(source, some<GROUPS>(p));
    }
  }

  /// The lanes' words of one block: 32 bits that hold the lane's neighbouring values.
  template <int BITS>
  static I words(const unsigned char* p) {
    if constexpr (BITS == 2 || BITS == 4 || BITS == 8) {
      return _mm512_loadu_si512(p);
    } else if constexpr (BITS == 5) {
      // 10 bytes a quarter, four values a lane: bytes 0-2 of five, and 2-4, four bits in.
      const I raw = _mm512_maskz_loadu_epi32(0x03FF, p);
      const I quarters = _mm512_set_epi16(
          0, 0, 0, 19, 18, 17, 16, 15, 0, 0, 0, 14, 13, 12, 11, 10,
          0, 0, 0, 9, 8, 7, 6, 5, 0, 0, 0, 4, 3, 2, 1, 0);
      const I shuffle = _mm512_broadcast_i32x4(
          _mm_setr_epi8(0, 1, 2, -1, 2, 3, 4, -1, 5, 6, 7, -1, 7, 8, 9, -1));
      const I spread = _mm512_shuffle_epi8(_mm512_permutexvar_epi16(quarters, raw), shuffle);
      return _mm512_srlv_epi32(
          spread, _mm512_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4));
    } else {
      static_assert(BITS == 3 || BITS == 6);
      // Three bytes a lane.
      const I raw = _mm512_maskz_loadu_epi32(0x0FFF, p);
      const I quarters = _mm512_setr_epi32(0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11, 0);
      const I shuffle = _mm512_broadcast_i32x4(
          _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1));
      return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(quarters, raw), shuffle);
    }
  }
  /// Value `INDEX` of every lane.
  template <int BITS, int INDEX>
  static F value(I words) {
    const I shifted = INDEX == 0 ? words : _mm512_srli_epi32(words, BITS * INDEX);
    if constexpr (BITS == 4) {
      // A table of 16 numbers looks at the low four bits only.
      const F table =
          _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
      return _mm512_permutexvar_ps(shifted, table);
    } else {
      const I mask = _mm512_set1_epi32((1 << BITS) - 1);
      return _mm512_cvtepi32_ps(_mm512_and_si512(shifted, mask));
    }
  }
  // For integers that are multiplied as such.
  static I no_integers() { return _mm512_setzero_si512(); }
  static F numbers(I integers) { return _mm512_cvtepi32_ps(integers); }
  /// The lower four bits of every byte, and the upper ones.
  static I low_nibbles(I words) { return _mm512_and_si512(words, _mm512_set1_epi8(15)); }
  static I high_nibbles(I words) { return low_nibbles(_mm512_srli_epi16(words, 4)); }
  /// Adds the products of a lane's four bytes, below `2^BITS`, and four of `x` to the lane.
  template <int BITS>
  static I dot(I sum, I bytes, const std::int8_t* x) {
    const I other = _mm512_loadu_si512(x);
#if defined(__AVX512VNNI__)
    return _mm512_dpbusd_epi32(sum, bytes, other);
#else
    if constexpr (BITS < 8) {
      const I pairs = _mm512_maddubs_epi16(bytes, other);
      return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    } else {
      // The sum of two products would not fit in 16 bits.
      const I even = _mm512_madd_epi16(
          _mm512_and_si512(bytes, _mm512_set1_epi16(0xFF)), _mm512_srai_epi16(_mm512_slli_epi16(other, 8), 8));
      const I odd = _mm512_madd_epi16(_mm512_srli_epi16(bytes, 8), _mm512_srai_epi16(other, 8));
      return _mm512_add_epi32(sum, _mm512_add_epi32(even, odd));
    }
#endif
  }
  /// Number `INDEX` of every lane, of four bits: sign, two bits of exponent, one of mantissa.
  template <int INDEX>
  static F e2m1(I words) {
    const I shifted = INDEX == 0 ? words : _mm512_srli_epi32(words, 4 * INDEX);
    const F table = _mm512_setr_ps(
        0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6);
    return _mm512_permutexvar_ps(shifted, table);
  }
  /// The same of eight bits: sign, four bits of exponent, three of mantissa.
  template <int INDEX>
  static F e4m3(I words) {
    const I shifted = INDEX == 0 ? words : _mm512_srli_epi32(words, 8 * INDEX);
    const I sign = _mm512_slli_epi32(_mm512_and_si512(shifted, _mm512_set1_epi32(0x80)), 24);
    const I rest = _mm512_slli_epi32(_mm512_and_si512(shifted, _mm512_set1_epi32(0x7F)), 20);
    // The exponents' biases differ by 120.
    return mul(_mm512_castsi512_ps(_mm512_or_si512(sign, rest)), set1(0x1p120f));
  }

  /// The numbers that the integers 0 to `2^BITS - 1` of one group stand for.
  template <int BITS>
  class Levels {
   public:
    Levels(float scale, float bias) : scale_(set1(scale)), bias_(set1(bias)) {
      if constexpr (BITS == 4) {
        const F integers = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        scale_ = fma(integers, scale_, bias_);
      }
    }
    /// As many neighbours as there are lanes, feature `i` of them in lane `lane(i)`.
    F at(const unsigned char* p) const {
      if constexpr (BITS == 4) {
        // Two words in turn. A table of 16 numbers looks at the low four bits only.
        std::int64_t words;
        __builtin_memcpy(&words, p, sizeof words);
        const I shifts =
            _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
        return _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_set1_epi64(words), shifts), scale_);
      } else {
        static_assert(BITS == 8);
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return fma(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), scale_, bias_);
      }
    }
    static constexpr int lane(int feature) {
      return BITS == 4 ? feature % 8 * 2 + feature / 8 : feature;
    }

   private:
    F scale_, bias_;
  };

 private:
  /// Of the pairs in each quarter the first ones, or the second.
  template <bool SECOND>
  static F pairs(F a, F b) {
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_castpd_ps(SECOND ? _mm512_unpackhi_pd(x, y) : _mm512_unpacklo_pd(x, y));
  }
  static F widen(I low) { return _mm512_castsi512_ps(_mm512_slli_epi32(low, 16)); }

  template <int N>
  static F some(const float* p) {
    if constexpr (N == 2) {
      return _mm512_castps128_ps512(_mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
    } else if constexpr (N == 4) {
      return _mm512_castps128_ps512(_mm_loadu_ps(p));
    } else {
      static_assert(N == 8);
      return _mm512_castps256_ps512(_mm256_loadu_ps(p));
    }
  }
  template <int N>
  static __m128i some16(const void* p) {
    if constexpr (N == 2) {
      return _mm_loadu_si32(p);
    } else if constexpr (N == 4) {
      return _mm_loadl_epi64(static_cast<const __m128i*>(p));
    } else {
      static_assert(N == 8);
      return _mm_loadu_si128(static_cast<const __m128i*>(p));
    }
  }
  template <int N>
  static F some(const BFloat* p) {
    return widen(_mm512_castsi256_si512(_mm256_cvtepu16_epi32(some16<N>(p))));
  }
  template <int N>
  static F some(const Half* p) {
    return _mm512_castps256_ps512(_mm256_cvtph_ps(some16<N>(p)));
  }
};

} // namespace
} // namespace mlxcel::kernels

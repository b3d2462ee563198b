// AVX2 with FMA and F16C: 8 lanes. For the one translation unit that is compiled for it.
#pragma once

#include <immintrin.h>

#include "half.h"

namespace mlxcel::kernels {
namespace {

struct Vec {
  using F = __m256;
  using I = __m256i;
  static constexpr int LANES = 8;
  /// Rows of activations that the registers hold beside four rows of weights.
  static constexpr int TILE = 3;
  /// Whether widening the numbers of a cache costs less than reading copies.
  static constexpr bool WIDENS_FAST = true;

  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load(const BFloat* p) {
    return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static F load(const Half* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static void store(Half* p, F x) {
    const __m128i halves = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves);
  }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  /// `2^n` for whole `n` within the exponents of normal numbers.
  static F exp2i(F n) {
    const I bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
  }

  /// The sum of the lanes: `i + (i+4)`, then `i + (i+2)`, `i + (i+1)`.
  static float sum(F v) {
    const __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
  }
  /// The sums of four vectors, each in the order of `sum`.
  static void sum4(F a, F b, F c, F d, float* out) {
    const F ab = add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    const F cd = add(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31));
    const F pairs = add(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
    const F sums = add(pairs, _mm256_permute_ps(pairs, 0xB1));
    // The lanes hold a, c and b, d.
    const __m128 ac = _mm256_castps256_ps128(sums), bd = _mm256_extractf128_ps(sums, 1);
    _mm_storeu_ps(out, _mm_movelh_ps(_mm_unpacklo_ps(ac, bd), _mm_unpackhi_ps(ac, bd)));
  }
  /// Lane `i` of row `j` becomes lane `j` of row `i`.
  static void transpose(F (&r)[LANES]) {
    F t[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 4) {
      r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
      r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
    // Half `h` of row `4 i + j` has column `4 h + j` of rows `4 i` on.
#pragma GCC unroll 8
    for (int j = 0; j < 4; j++) {
      const F low = r[j], high = r[4 + j];
      r[j] = _mm256_permute2f128_ps(low, high, 0x20);
      r[4 + j] = _mm256_permute2f128_ps(low, high, 0x31);
    }
  }
  static float maximum(F v) {
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
  }

  /// `GROUPS` numbers, each in as many neighbouring lanes as it takes to fill the vector.
  template <int GROUPS, class T>
  static F spread(const T* p) {
    if constexpr (GROUPS == 1) {
      return set1(to_float(*p));
    } else {
      const I source =
          _mm256_srli_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), __builtin_ctz(LANES / GROUPS));
      return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(some<GROUPS>(p)), source);
    }
  }

  /// The lanes' words of one block: 32 bits that hold the lane's neighbouring values.
  template <int BITS>
  static I words(const unsigned char* p) {
    if constexpr (BITS == 2 || BITS == 4 || BITS == 8) {
      return _mm256_loadu_si256(reinterpret_cast<const I*>(p));
    } else if constexpr (BITS == 5) {
      // 10 bytes a half, four values a lane: bytes 0-2 of five, and 2-4, four bits in. The upper
      // half is loaded six bytes early, so that nothing behind the block is read.
      const I shuffle = _mm256_setr_epi8(
          0, 1, 2, -1, 2, 3, 4, -1, 5, 6, 7, -1, 7, 8, 9, -1,
          6, 7, 8, -1, 8, 9, 10, -1, 11, 12, 13, -1, 13, 14, 15, -1);
      return _mm256_srlv_epi32(
          _mm256_shuffle_epi8(halves(p, p + 4), shuffle), _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4));
    } else {
      static_assert(BITS == 3 || BITS == 6);
      // Three bytes a lane; the upper half is loaded four bytes early.
      const I shuffle = _mm256_setr_epi8(
          0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1,
          4, 5, 6, -1, 7, 8, 9, -1, 10, 11, 12, -1, 13, 14, 15, -1);
      return _mm256_shuffle_epi8(halves(p, p + 8), shuffle);
    }
  }
  /// Value `INDEX` of every lane.
  template <int BITS, int INDEX>
  static F value(I words) {
    const I shifted = INDEX == 0 ? words : _mm256_srli_epi32(words, BITS * INDEX);
    return _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32((1 << BITS) - 1)));
  }
  // For integers that are multiplied as such.
  static I no_integers() { return _mm256_setzero_si256(); }
  static F numbers(I integers) { return _mm256_cvtepi32_ps(integers); }
  /// The lower four bits of every byte, and the upper ones.
  static I low_nibbles(I words) { return _mm256_and_si256(words, _mm256_set1_epi8(15)); }
  static I high_nibbles(I words) { return low_nibbles(_mm256_srli_epi16(words, 4)); }
  /// Adds the products of a lane's four bytes, below `2^BITS`, and four of `x` to the lane.
  template <int BITS>
  static I dot(I sum, I bytes, const std::int8_t* x) {
    const I other = _mm256_loadu_si256(reinterpret_cast<const I*>(x));
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, bytes, other);
#else
    if constexpr (BITS < 8) {
      const I pairs = _mm256_maddubs_epi16(bytes, other);
      return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    } else {
      // The sum of two products would not fit in 16 bits.
      const I even = _mm256_madd_epi16(
          _mm256_and_si256(bytes, _mm256_set1_epi16(0xFF)), _mm256_srai_epi16(_mm256_slli_epi16(other, 8), 8));
      const I odd = _mm256_madd_epi16(_mm256_srli_epi16(bytes, 8), _mm256_srai_epi16(other, 8));
      return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
    }
#endif
  }
  /// Number `INDEX` of every lane, of four bits: sign, two bits of exponent, one of mantissa.
  template <int INDEX>
  static F e2m1(I words) {
    const I shifted = INDEX == 0 ? words : _mm256_srli_epi32(words, 4 * INDEX);
    // The look-up takes the three bits below the sign.
    const F magnitudes = _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6);
    const I sign = _mm256_slli_epi32(_mm256_and_si256(shifted, _mm256_set1_epi32(8)), 28);
    return _mm256_xor_ps(
        _mm256_permutevar8x32_ps(magnitudes, shifted), _mm256_castsi256_ps(sign));
  }
  /// The same of eight bits: sign, four bits of exponent, three of mantissa.
  template <int INDEX>
  static F e4m3(I words) {
    const I shifted = INDEX == 0 ? words : _mm256_srli_epi32(words, 8 * INDEX);
    const I sign = _mm256_slli_epi32(_mm256_and_si256(shifted, _mm256_set1_epi32(0x80)), 24);
    const I rest = _mm256_slli_epi32(_mm256_and_si256(shifted, _mm256_set1_epi32(0x7F)), 20);
    // The exponents' biases differ by 120.
    return mul(_mm256_castsi256_ps(_mm256_or_si256(sign, rest)), set1(0x1p120f));
  }

  /// The numbers that the integers 0 to `2^BITS - 1` of one group stand for.
  template <int BITS>
  class Levels {
   public:
    Levels(float scale, float bias) : scale_(set1(scale)), bias_(set1(bias)) {}
    /// As many neighbours as there are lanes, feature `i` of them in lane `lane(i)`.
    F at(const unsigned char* p) const {
      I integers;
      if constexpr (BITS == 4) {
        std::int32_t word;
        __builtin_memcpy(&word, p, sizeof word);
        const I shifted =
            _mm256_srlv_epi32(_mm256_set1_epi32(word), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
        integers = _mm256_and_si256(shifted, _mm256_set1_epi32(15));
      } else {
        static_assert(BITS == 8);
        integers = _mm256_cvtepu8_epi32(load64(p));
      }
      return fma(_mm256_cvtepi32_ps(integers), scale_, bias_);
    }
    static constexpr int lane(int feature) { return feature; }

   private:
    F scale_, bias_;
  };

 private:
  static F widen(__m128i low) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(low), 16));
  }
  static I halves(const unsigned char* low, const unsigned char* high) {
    return _mm256_loadu2_m128i(
        reinterpret_cast<const __m128i*>(high), reinterpret_cast<const __m128i*>(low));
  }
  static __m128i load64(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }

  template <int N>
  static __m128 some(const float* p) {
    static_assert(N == 2 || N == 4);
    return N == 2 ? _mm_castsi128_ps(load64(p)) : _mm_loadu_ps(p);
  }
  template <int N>
  static __m128 some(const BFloat* p) {
    static_assert(N == 2 || N == 4);
    const __m128i raw = N == 2 ? _mm_loadu_si32(p) : load64(p);
    return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(raw), 16));
  }
  template <int N>
  static __m128 some(const Half* p) {
    static_assert(N == 2 || N == 4);
    return _mm_cvtph_ps(N == 2 ? _mm_loadu_si32(p) : load64(p));
  }
};

} // namespace
} // namespace mlxcel::kernels

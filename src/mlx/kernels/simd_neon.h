// NEON of 64-bit Arm: 4 lanes, on every such machine.
#pragma once

#include <arm_neon.h>

#include <type_traits>

#include "half.h"

namespace mlxcel::kernels {
namespace {

struct Vec {
  using F = float32x4_t;
  using I = uint32x4_t;
  static constexpr int LANES = 4;
  /// Rows of activations that the registers hold beside four rows of weights.
  static constexpr int TILE = 6;
  /// Whether widening the numbers of a cache costs less than reading copies.
  static constexpr bool WIDENS_FAST = true;

  static F zero() { return vdupq_n_f32(0); }
  static F set1(float x) { return vdupq_n_f32(x); }
  static F load(const float* p) { return vld1q_f32(p); }
  static F load(const BFloat* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16));
  }
  static F load(const Half* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
  }
  static void store(float* p, F x) { vst1q_f32(p, x); }
  static void store(Half* p, F x) { vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(x))); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F div(F a, F b) { return vdivq_f32(a, b); }
  static F max(F a, F b) { return vmaxq_f32(a, b); }
  static F min(F a, F b) { return vminq_f32(a, b); }
  static F round(F a) { return vrndnq_f32(a); }
  /// `2^n` for whole `n` within the exponents of normal numbers.
  static F exp2i(F n) {
    const int32x4_t bits = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(bits, 23));
  }

  /// The sum of the lanes: `(0 + 1) + (2 + 3)`.
  static float sum(F v) {
    const F pairs = vpaddq_f32(v, v);
    return vgetq_lane_f32(vpaddq_f32(pairs, pairs), 0);
  }
  /// The sums of four vectors, each in the order of `sum`.
  static void sum4(F a, F b, F c, F d, float* out) {
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
  }
  /// Lane `i` of row `j` becomes lane `j` of row `i`.
  static void transpose(F (&r)[LANES]) {
    const F a = vtrn1q_f32(r[0], r[1]), b = vtrn2q_f32(r[0], r[1]);
    const F c = vtrn1q_f32(r[2], r[3]), d = vtrn2q_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    r[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    r[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    r[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
  }
  static float maximum(F v) { return vmaxvq_f32(v); }

  /// `GROUPS` numbers, each in as many neighbouring lanes as it takes to fill the vector.
  template <int GROUPS, class T>
  static F spread(const T* p) {
    if constexpr (GROUPS == 1) {
      return set1(to_float(*p));
    } else {
      static_assert(GROUPS == 2);
      return vcombine_f32(vdup_n_f32(to_float(p[0])), vdup_n_f32(to_float(p[1])));
    }
  }

  /// The lanes' words of one block: 32 bits that hold the lane's neighbouring values.
  template <int BITS>
  static I words(const unsigned char* p) {
    if constexpr (BITS == 2 || BITS == 4 || BITS == 8) {
      return vreinterpretq_u32_u8(vld1q_u8(p));
    } else {
      static_assert(BITS == 3 || BITS == 5 || BITS == 6);
      // Three bytes a lane; with five bits, four values: bytes 0-2 of five, and 2-4, four bits in.
      static constexpr unsigned char THREE[16] = {0, 1, 2, 255, 3, 4, 5, 255, 6, 7, 8, 255, 9, 10, 11, 255};
      static constexpr unsigned char FIVE[16] = {0, 1, 2, 255, 2, 3, 4, 255, 5, 6, 7, 255, 7, 8, 9, 255};
      unsigned char bytes[16] = {};
      __builtin_memcpy(bytes, p, BITS == 5 ? 10 : 12);
      const uint8x16_t raw = vld1q_u8(bytes);
      if constexpr (BITS == 5) {
        const int32x4_t right = {0, -4, 0, -4};
        return vshlq_u32(vreinterpretq_u32_u8(vqtbl1q_u8(raw, vld1q_u8(FIVE))), right);
      } else {
        return vreinterpretq_u32_u8(vqtbl1q_u8(raw, vld1q_u8(THREE)));
      }
    }
  }
  /// Value `INDEX` of every lane.
  template <int BITS, int INDEX>
  static F value(I words) {
    I shifted = words;
    if constexpr (INDEX > 0) {
      shifted = vshrq_n_u32(words, BITS * INDEX);
    }
    return vcvtq_f32_u32(vandq_u32(shifted, vdupq_n_u32((1u << BITS) - 1)));
  }
  // For integers that are multiplied as such.
  static I no_integers() { return vdupq_n_u32(0); }
  static F numbers(I integers) { return vcvtq_f32_s32(vreinterpretq_s32_u32(integers)); }
  /// The lower four bits of every byte, and the upper ones.
  static I low_nibbles(I words) { return vandq_u32(words, vdupq_n_u32(0x0F0F0F0Fu)); }
  static I high_nibbles(I words) { return low_nibbles(vshrq_n_u32(words, 4)); }
  /// Adds the products of a lane's four bytes, below `2^BITS`, and four of `x` to the lane.
  template <int BITS>
  static I dot(I sum, I bytes, const std::int8_t* x) {
    const uint8x16_t weights = vreinterpretq_u8_u32(bytes);
    const int8x16_t other = vld1q_s8(x);
    // Bytes as 16 bits: products of such pairs are added up in 32.
    const auto half = [](uint8x8_t a, int8x8_t b) {
      const int16x8_t wide = vreinterpretq_s16_u16(vmovl_u8(a)), by = vmovl_s8(b);
      return vpaddq_s32(
          vmull_s16(vget_low_s16(wide), vget_low_s16(by)), vmull_high_s16(wide, by));
    };
    const int32x4_t low = half(vget_low_u8(weights), vget_low_s8(other));
    const int32x4_t high = half(vget_high_u8(weights), vget_high_s8(other));
    return vaddq_u32(sum, vreinterpretq_u32_s32(vpaddq_s32(low, high)));
  }
  /// Number `INDEX` of every lane, of four bits: sign, two bits of exponent, one of mantissa.
  template <int INDEX>
  static F e2m1(I words) {
    I shifted = words;
    if constexpr (INDEX > 0) {
      shifted = vshrq_n_u32(words, 4 * INDEX);
    }
    // The third and the fourth byte of each number as a float32; the others are zero.
    static constexpr unsigned char BYTES[32] = {
        0x00, 0x00, 0x80, 0xC0, 0x00, 0x40, 0x80, 0xC0, 0x00, 0x00, 0x80, 0xC0, 0x00, 0x40, 0x80, 0xC0,
        0x00, 0x3F, 0x3F, 0x3F, 0x40, 0x40, 0x40, 0x40, 0x80, 0xBF, 0xBF, 0xBF, 0xC0, 0xC0, 0xC0, 0xC0};
    const uint8x16x2_t table = {vld1q_u8(BYTES), vld1q_u8(BYTES + 16)};
    const I number = vandq_u32(shifted, vdupq_n_u32(15));
    const I places = vaddq_u32(vmulq_n_u32(number, 0x01010000u), vdupq_n_u32(0x1000FFFFu));
    return vreinterpretq_f32_u8(vqtbl2q_u8(table, vreinterpretq_u8_u32(places)));
  }
  /// The same of eight bits: sign, four bits of exponent, three of mantissa.
  template <int INDEX>
  static F e4m3(I words) {
    I shifted = words;
    if constexpr (INDEX > 0) {
      shifted = vshrq_n_u32(words, 8 * INDEX);
    }
    const I sign = vshlq_n_u32(vandq_u32(shifted, vdupq_n_u32(0x80)), 24);
    const I rest = vshlq_n_u32(vandq_u32(shifted, vdupq_n_u32(0x7F)), 20);
    // The exponents' biases differ by 120.
    return vmulq_n_f32(vreinterpretq_f32_u32(vorrq_u32(sign, rest)), 0x1p120f);
  }

  /// The numbers that the integers 0 to `2^BITS - 1` of one group stand for.
  template <int BITS>
  class Levels {
   public:
    Levels(float scale, float bias) : scale_(set1(scale)), bias_(set1(bias)) {}
    /// As many neighbours as there are lanes, feature `i` of them in lane `lane(i)`.
    F at(const unsigned char* p) const {
      static_assert(BITS == 4 || BITS == 8);
      const int32x4_t right = {0, -BITS, -2 * BITS, -3 * BITS};
      std::conditional_t<BITS == 4, std::uint16_t, std::uint32_t> word;
      __builtin_memcpy(&word, p, sizeof word);
      const I shifted = vshlq_u32(vdupq_n_u32(word), right);
      return fma(vcvtq_f32_u32(vandq_u32(shifted, vdupq_n_u32((1u << BITS) - 1))), scale_, bias_);
    }
    static constexpr int lane(int feature) { return feature; }

   private:
    F scale_, bias_;
  };
};

} // namespace
} // namespace mlxcel::kernels

// Numbers of 16 and of 8 bits, one at a time.
#pragma once

#include <cstdint>

namespace mlxcel::kernels {
// Each instruction set compiles its own copy: a shared one could hold instructions that another
// machine lacks.
namespace {

/// bfloat16: the upper half of a float32.
struct BFloat {
  std::uint16_t bits;
};
/// float16 of IEEE 754.
struct Half {
  std::uint16_t bits;
};

/// A power of two (E8M0 of OCP Microscaling).
struct Power {
  std::uint8_t bits;
};
/// E4M3 of OCP Microscaling: no infinities.
struct Float8 {
  std::uint8_t bits;
};

inline float to_float(float x) {
  return x;
}

inline float to_float(BFloat x) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16);
}

inline float to_float(Half x) {
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000) << 16;
  const std::uint32_t rest = x.bits & 0x7FFF;
  if (rest >= 0x7C00) { // infinite, or not a number
    return __builtin_bit_cast(float, sign | 0x7F800000 | (rest & 0x3FF) << 13);
  }
  if (rest < 0x400) { // subnormal: a whole number of 2^-24
    const float magnitude = static_cast<float>(rest) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return __builtin_bit_cast(float, sign | ((rest << 13) + ((127u - 15u) << 23)));
}

/// To the nearest, of two equally near ones the even.
inline Half to_half(float x) {
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
  std::uint32_t half;
  if (rest > 0x7F800000) { // not a number
    half = 0x7E00;
  } else if (rest >= 0x477FF000) { // 65520 and more
    half = 0x7C00;
  } else if (rest < 0x38800000) { // subnormal: the last bit of numbers near 0.5 is 2^-24, too
    half = __builtin_bit_cast(std::uint32_t, __builtin_bit_cast(float, rest) + 0.5f) - 0x3F000000;
  } else {
    half = (rest - 0x38000000 + 0xFFF + (rest >> 13 & 1)) >> 13;
  }
  return {static_cast<std::uint16_t>(sign | half)};
}

inline float to_float(Power x) {
  return x.bits == 0 ? 0x1p-127f : __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 23);
}

inline float to_float(Float8 x) {
  // As a float32 the exponent is 2^120 too small; that way subnormals come out right too.
  const std::uint32_t bits = (x.bits & 0x80u) << 24 | (x.bits & 0x7Fu) << 20;
  return __builtin_bit_cast(float, bits) * 0x1p120f;
}

} // namespace
} // namespace mlxcel::kernels

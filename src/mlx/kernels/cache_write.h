// How keys and values become rows of a cache. Included once by each instruction set, after its `Vec`.
#pragma once

#include "operands.h"

namespace mlxcel::kernels {
namespace {

void keep_halves(const float* x, std::size_t dim, unsigned char* out) {
  Half* halves = reinterpret_cast<Half*>(out);
  std::size_t i = 0;
  for (; i + Vec::LANES <= dim; i += Vec::LANES) {
    Vec::store(halves + i, Vec::load(x + i));
  }
  for (; i < dim; i++) {
    halves[i] = to_half(x[i]);
  }
}

/// One group as MLX's affine quantization packs it: its end that lies further from zero is met exactly.
template <int BITS>
void keep_group(const float* x, std::size_t group, unsigned char* out, float& scale, float& bias) {
  constexpr float MOST = (1 << BITS) - 1;
  auto high = Vec::load(x), low = high;
  for (std::size_t i = Vec::LANES; i < group; i += Vec::LANES) {
    high = Vec::max(high, Vec::load(x + i));
    low = Vec::min(low, Vec::load(x + i));
  }
  const float top = Vec::maximum(high), bottom = -Vec::maximum(Vec::sub(Vec::zero(), low));
  const bool below = __builtin_fabsf(bottom) > __builtin_fabsf(top);
  const float step = (top - bottom) / MOST, edge = below ? bottom : top;
  scale = step > 1e-7f ? step : 1e-7f;
  scale = below ? scale : -scale;
  const float steps = __builtin_rintf(edge / scale);
  bias = 0;
  if (steps != 0) {
    scale = edge / steps;
    bias = edge;
  }
  float numbers[128];
  for (std::size_t i = 0; i < group; i += Vec::LANES) {
    const auto away = Vec::div(Vec::sub(Vec::load(x + i), Vec::set1(bias)), Vec::set1(scale));
    Vec::store(numbers + i, Vec::min(Vec::max(Vec::round(away), Vec::zero()), Vec::set1(MOST)));
  }
  if constexpr (BITS == 8) {
    for (std::size_t i = 0; i < group; i++) {
      out[i] = static_cast<unsigned char>(numbers[i]);
    }
  } else {
    static_assert(BITS == 4);
    for (std::size_t i = 0; i < group / 2; i++) {
      out[i] = static_cast<unsigned char>(
          static_cast<int>(numbers[2 * i]) | static_cast<int>(numbers[2 * i + 1]) << 4);
    }
  }
}

// What the table has.

void keep_position(const CacheRows& rows, std::size_t t, const float* x, std::size_t dim) {
  unsigned char* out = const_cast<unsigned char*>(rows.data) + t * rows.stride;
  if (rows.bits == 0) {
    return rows.element == Element::f16 ? keep_halves(x, dim, out)
                                        : void(__builtin_memcpy(out, x, dim * sizeof(float)));
  }
  float* scales = const_cast<float*>(rows.scales) + t * rows.scale_stride;
  float* biases = const_cast<float*>(rows.biases) + t * rows.scale_stride;
  const auto keep = rows.bits == 8 ? keep_group<8> : keep_group<4>;
  for (std::size_t d = 0; d < dim; d += rows.group) {
    keep(x + d, rows.group, out + d * rows.bits / 8, scales[d / rows.group], biases[d / rows.group]);
  }
}

} // namespace
} // namespace mlxcel::kernels

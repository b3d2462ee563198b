// The angles of rotary positions.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace mlxcel::kernels {

/// The cosine and the sine, times `amplitude`, of each pair's angle at `position`.
inline void angles_of(
    std::int32_t position,
    const float* frequencies,
    std::size_t pairs,
    float amplitude,
    float* cosines,
    float* sines) {
  for (std::size_t i = 0; i < pairs; i++) {
    const float angle = static_cast<float>(position) * frequencies[i];
    cosines[i] = amplitude * std::cos(angle);
    sines[i] = amplitude * std::sin(angle);
  }
}

} // namespace mlxcel::kernels

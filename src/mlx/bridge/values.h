// What crosses the bridge as a number, in the terms of MLX and of our kernels.
#pragma once

#include <array>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "bridge.h"

namespace mlxcel {

// The order is that of `Dtype` in dtype.rs.
inline const std::array<mlx::core::Dtype, 9> DTYPES = {
    mlx::core::float32,
    mlx::core::bfloat16,
    mlx::core::float16,
    mlx::core::uint8,
    mlx::core::uint32,
    mlx::core::int32,
    mlx::core::int64,
    mlx::core::bool_,
    mlx::core::uint16,
};

inline mlx::core::Dtype to_dtype(std::uint8_t index) {
  return DTYPES.at(index);
}

inline mlx::core::Shape to_shape(Dims dims) {
  return mlx::core::Shape(dims.begin(), dims.end());
}

inline std::vector<int> to_axes(Dims dims) {
  return std::vector<int>(dims.begin(), dims.end());
}

// The order is that of `Activation` in ops.rs.
inline kernels::Activation to_activation(std::uint8_t kind, float limit) {
  if (kind > static_cast<std::uint8_t>(kernels::Activation::Kind::soft_cap)) {
    throw std::invalid_argument("no such activation");
  }
  return {static_cast<kernels::Activation::Kind>(kind), limit};
}

inline ArrayPtr own(Array&& array) {
  return std::make_unique<Array>(std::move(array));
}

} // namespace mlxcel

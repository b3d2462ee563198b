// What MLX has no single operation for, made of those it has: for wherever our kernels do not compute.
#pragma once

#include "kernels/weight.h"

namespace mlxcel::composed {

mlx::core::array activate(const mlx::core::array& x, kernels::Activation activation);

/// As `attend_causally`.
mlx::core::array attend(
    const mlx::core::array& queries,
    const std::vector<mlx::core::array>& keys,
    const std::vector<mlx::core::array>& values,
    CachePacking packing,
    Scores scores,
    const mlx::core::array* sinks);

} // namespace mlxcel::composed

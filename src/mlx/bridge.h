#pragma once
#include "rust/cxx.h"
#include "mlx/mlx.h"

namespace mlxcel {
rust::String mlx_version();
}

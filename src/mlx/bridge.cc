#include "bridge.h"

namespace mlxcel {
rust::String mlx_version() { return rust::String(mlx::core::version()); }
}

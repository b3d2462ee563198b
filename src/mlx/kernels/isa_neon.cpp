// Every 64-bit Arm has NEON: no flag is needed.
#if defined(__aarch64__)
#include "table.h"

#include "simd_neon.h"

#include "attention.h"
#include "cache_write.h"
#include "quantized_products.h"
#include "recurrence.h"

namespace mlxcel::kernels {

const Table neon = {
    .name = "neon",
    .products = &PRODUCTS,
    .exact = &PRODUCTS,
    .quantizing = &QUANTIZING,
    .row_scratch = packed_length,
    .unpack_row = unpack_row,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .clamped_silu_multiply = clamped_silu_multiply,
    .add_scaled = add_scaled,
    .activate = activate,
    .add_to = add_to,
    .rotate = rotate,
    .keep_position = keep_position,
    .attention_rows = attention_rows,
    .attention_scratch = attention_scratch,
    .attend = attend,
    .attention_found = attention_found,
    .attend_segments = attend_segments,
    .merge_segments = merge_segments,
    .convolve = convolve,
    .recurrence_width = recurrence_width,
    .recurrence_scratch = recurrence_scratch,
    .recur = recur,
};

} // namespace mlxcel::kernels
#endif

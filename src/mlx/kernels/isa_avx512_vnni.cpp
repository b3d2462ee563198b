// Compiled with -mavx512vnni and what isa_avx512.cpp is compiled with.
#if defined(__x86_64__)
#include "table.h"

#include "simd_avx512.h"

#include "quantized_products.h"

namespace mlxcel::kernels {

const Products avx512_vnni = QUANTIZING;

} // namespace mlxcel::kernels
#endif

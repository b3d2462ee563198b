// Compiled with -mavxvnni and what isa_avx2.cpp is compiled with.
#if defined(__x86_64__)
#include "table.h"

#include "simd_avx2.h"

#include "quantized_products.h"

namespace mlxcel::kernels {

const Products avx2_vnni = QUANTIZING;

} // namespace mlxcel::kernels
#endif

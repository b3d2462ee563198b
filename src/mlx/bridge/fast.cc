// Fused operations: our kernels for float32 on the CPU, else MLX's.

#include <optional>

#include "composed.h"
#include "mlx/fast.h"
#include "mlxcel/src/mlx/bridge.rs.h"
#include "values.h"

namespace mx = mlx::core;

namespace mlxcel {

ArrayPtr rms_norm(const Array& x, const Array& weight, float eps) {
  return own(
      has_kernels(x) && weight.dtype() == mx::float32 ? rms_norm_rows(x, weight, eps)
                                                      : mx::fast::rms_norm(x, weight, eps));
}

ArrayPtr layer_norm(const Array& x, const Array& weight, const ArrayPtr& bias, float eps) {
  if (has_kernels(x) && weight.dtype() == mx::float32) {
    return own(layer_norm_rows(x, weight, bias.get(), eps));
  }
  return own(mx::fast::layer_norm(
      x, weight, bias ? std::optional<Array>(*bias) : std::nullopt, eps));
}

ArrayPtr rope(
    const Array& x,
    std::int32_t dims,
    bool traditional,
    float base,
    float scale,
    const Array& positions) {
  return own(mx::fast::rope(x, dims, traditional, base, scale, positions));
}

ArrayPtr rope_with_freqs(
    const Array& x,
    std::int32_t dims,
    bool traditional,
    const Array& freqs,
    const Array& positions) {
  return own(mx::fast::rope(x, dims, traditional, std::nullopt, 1.0f, positions, freqs));
}

bool computes_here(const Array& x) noexcept {
  return has_kernels(x);
}

ArrayPtr rotate(
    const Array& x,
    const Array& positions,
    const Array& frequencies,
    bool traditional,
    float amplitude) {
  return own(rotate_heads(x, positions, frequencies, traditional, amplitude));
}

ArrayPtr attention(
    const Array& queries,
    const ArrayList& keys,
    const ArrayList& values,
    std::int32_t group_size,
    std::int32_t bits,
    float scale,
    std::int32_t window,
    std::int32_t keep,
    float soft_cap,
    const ArrayPtr& sinks) {
  const Scores scores{
      .scale = scale, .window = window, .keep = keep, .soft_cap = soft_cap};
  const CachePacking packing{.group = group_size, .bits = bits};
  const auto attend = has_kernels(queries) ? attend_causally : composed::attend;
  return own(attend(queries, keys.arrays, values.arrays, packing, scores, sinks.get()));
}

std::unique_ptr<ArrayList> attend_and_keep(
    const Array& queries,
    const Array& keys,
    const Array& values,
    const ArrayList& buffers,
    rust::Slice<const KeptRow> rows,
    std::int32_t group_size,
    std::int32_t bits,
    float scale,
    std::int32_t window,
    std::int32_t keep,
    float soft_cap,
    const ArrayPtr& sinks) {
  const CachePacking packing{.group = group_size, .bits = bits};
  const Scores scores{
      .scale = scale, .window = window, .keep = keep, .soft_cap = soft_cap};
  const std::size_t each = 2 * packing.arrays();
  if (buffers.arrays.size() != rows.size() * each) {
    throw std::invalid_argument("the caches are not of as many arrays");
  }
  std::vector<Cache> caches;
  auto next = buffers.arrays.begin();
  for (const KeptRow& row : rows) {
    caches.push_back(
        {.buffers = {next, next + static_cast<std::ptrdiff_t>(each)},
         .filled = row.filled,
         .added = row.added,
         .own = row.own});
    next += static_cast<std::ptrdiff_t>(each);
  }
  return std::make_unique<ArrayList>(
      ArrayList{attend_and_keep(queries, keys, values, caches, packing, scores, sinks.get())});
}

} // namespace mlxcel

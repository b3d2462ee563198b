// Products with the matrices of a checkpoint, and what goes between two of them.

#include "composed.h"
#include "mlx/ops.h"
#include "values.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace {

Array linear_of(const Array& x, const Weight& weight) {
  if (weight.bits > 0) {
    auto out = mx::quantized_matmul(
        x, weight.values, *weight.scales, weight.biases, true, weight.group, weight.bits,
        mode_name(weight.mode));
    return weight.offset ? mx::add(out, *weight.offset) : out;
  }
  return weight.offset ? mx::addmm(*weight.offset, x, *weight.transposed)
                       : mx::matmul(x, *weight.transposed);
}

Array gated_linear_of(
    const Array& x, const Weight& gate, const Weight& up, kernels::Activation activation) {
  return mx::multiply(composed::activate(linear_of(x, gate), activation), linear_of(x, up));
}

} // namespace

ArrayPtr linear(const Array& x, const Weight& weight) {
  return own(has_kernels(x) ? product(x, weight, nullptr) : linear_of(x, weight));
}

ArrayPtr linear_add(const Array& x, const Weight& weight, const Array& residual) {
  if (has_kernels(x)) {
    return own(product(x, weight, &residual));
  }
  return own(mx::add(linear_of(x, weight), residual));
}

ArrayPtr gated_linear(
    const Array& x, const Weight& gate, const Weight& up, std::uint8_t kind) {
  const auto activation = to_activation(kind, 0);
  const auto compute = has_kernels(x) ? gated_product : gated_linear_of;
  return own(compute(x, gate, up, activation));
}

ArrayPtr gated_mlp(
    const Array& x,
    const Weight& gate,
    const Weight& up,
    const Weight& down,
    std::uint8_t kind,
    const ArrayPtr& residual) {
  const auto activation = to_activation(kind, 0);
  if (has_kernels(x)) {
    return own(gated_mlp(x, gate, up, activation, down, residual.get()));
  }
  auto out = linear_of(gated_linear_of(x, gate, up, activation), down);
  return own(residual ? mx::add(out, *residual) : std::move(out));
}

std::unique_ptr<ArrayList> project_heads(
    const Array& x,
    const Weight& queries,
    const Weight& keys,
    const Weight& values,
    std::int32_t head_dim,
    const ArrayList& norms,
    float eps,
    const ArrayPtr& frequencies,
    bool traditional,
    float amplitude,
    const Array& positions) {
  const HeadsFormat format{
      .dim = head_dim, .eps = eps, .traditional = traditional, .amplitude = amplitude};
  return std::make_unique<ArrayList>(ArrayList{project_heads(
      x, {&queries, &keys, &values}, norms.arrays, frequencies.get(), positions, format)});
}

ArrayPtr activate(const Array& x, std::uint8_t kind, float limit) {
  const auto activation = to_activation(kind, limit);
  return own(
      has_kernels(x) ? activate_numbers(x, nullptr, activation) : composed::activate(x, activation));
}

ArrayPtr activate_times(const Array& x, const Array& up, std::uint8_t kind) {
  const auto activation = to_activation(kind, 0);
  return own(
      has_kernels(x) ? activate_numbers(x, &up, activation)
                     : mx::multiply(composed::activate(x, activation), up));
}

} // namespace mlxcel

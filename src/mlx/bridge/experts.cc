// Mixtures of experts: our kernels for float32 on the CPU, else MLX's operations.

#include <stdexcept>

#include "composed.h"
#include "mlx/ops.h"
#include "values.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace {

/// Choices from which on sorting them by expert pays, as in mlx-lm: an expert's matrix is read once.
constexpr std::size_t SORTED = 64;

/// One row of `x` for each choice (`[n, columns]`), by the experts that `choices` (`[n]`) names.
Array multiply(const Array& x, const Weight& weight, const Array& choices, bool sorted) {
  const auto rows = mx::expand_dims(x, 1);
  auto out = weight.bits > 0
      ? mx::gather_qmm(
            rows, weight.values, *weight.scales, weight.biases, std::nullopt, choices, true,
            weight.group, weight.bits, mode_name(weight.mode), std::nullopt, sorted)
      : mx::gather_mm(rows, *weight.transposed, std::nullopt, choices, sorted);
  out = mx::squeeze(out, 1);
  if (weight.factors) {
    const auto factors = mx::astype(mx::take(*weight.factors, choices, 0), out.dtype());
    out = mx::multiply(out, mx::expand_dims(factors, 1));
  }
  return weight.offset ? mx::add(out, mx::take(*weight.offset, choices, 0)) : out;
}

/// Each token, or each pair of a token and an expert, by its experts: `[tokens · k, rows]`.
Array gather(const Array& x, const Weight& weight, const Array& choices) {
  const int each = choices.shape(1), pairs = choices.shape(0) * each;
  const bool shared = x.shape(0) != pairs;
  const auto chosen = mx::flatten(choices);
  if (chosen.size() >= SORTED) {
    const auto order = mx::argsort(chosen, 0);
    const auto source = shared ? mx::floor_divide(order, Array(each, mx::uint32)) : order;
    const auto out =
        multiply(mx::take(x, source, 0), weight, mx::take(chosen, order, 0), true);
    return mx::take(out, mx::argsort(order, 0), 0);
  }
  return multiply(shared ? mx::repeat(x, each, 0) : x, weight, chosen, false);
}

Array opened(const Array& gate, const Array& up, const Gate& opening) {
  if (!opening.clamped) {
    return mx::multiply(composed::activate(gate, opening.activation), up);
  }
  const auto number = [&](float value) { return Array(value, gate.dtype()); };
  const auto low = mx::minimum(gate, number(opening.limit));
  const auto clipped = mx::clip(up, number(-opening.limit), number(opening.limit));
  const auto factor = mx::multiply(low, mx::sigmoid(mx::multiply(number(opening.alpha), low)));
  return mx::multiply(mx::add(clipped, number(1)), factor);
}

/// The places of the `count` largest along the last dimension.
Array best_of(const Array& ranks, int count) {
  const auto order = mx::argsort(mx::negative(ranks), -1);
  return mx::slice(order, {0, 0}, {order.shape(0), count});
}

/// Sets the ranks in all but the best groups to zero, as the kernel does.
Array drop_groups(const Array& ranks, const Routing& routing) {
  const int tokens = ranks.shape(0), size = ranks.shape(1) / routing.groups;
  const auto grouped = mx::reshape(ranks, {tokens, routing.groups, size});
  const bool by_best = routing.scoring == Routing::Scoring::softmax;
  const auto strength =
      by_best ? mx::max(grouped, -1) : mx::sum(mx::topk(grouped, 2, -1), -1);
  const auto dropped = mx::slice(
      mx::argsort(mx::negative(strength), -1), {0, routing.kept_groups}, {tokens, routing.groups});
  const auto zero = mx::zeros({1}, ranks.dtype());
  return mx::reshape(
      mx::put_along_axis(grouped, mx::expand_dims(dropped, -1), zero, 1), {tokens, -1});
}

std::pair<Array, Array> route_by_mlx(
    const Array& logits, const Array* correction, const Routing& routing) {
  using Scoring = Routing::Scoring;
  const auto wide = mx::astype(logits, mx::float32);
  const auto scores = routing.scoring == Scoring::softmax ? mx::softmax(wide, -1, true)
      : routing.scoring == Scoring::sigmoid             ? mx::sigmoid(wide)
                                                      : wide;
  auto ranks = correction == nullptr ? scores : mx::add(scores, *correction);
  if (routing.groups > 1) {
    ranks = drop_groups(ranks, routing);
  }
  const auto chosen = best_of(ranks, routing.choices);
  auto weights = mx::take_along_axis(scores, chosen, -1);
  if (routing.scoring == Scoring::softmax_of_chosen) {
    weights = mx::softmax(weights, -1, true);
  }
  if (routing.normalize) {
    weights = mx::divide(weights, mx::sum(weights, -1, true));
  }
  if (routing.scale != 1.0f) {
    weights = mx::multiply(weights, Array(routing.scale));
  }
  return {chosen, mx::astype(weights, logits.dtype())};
}

} // namespace

ArrayPtr gather_linear(const Array& x, const Weight& weight, const Array& choices) {
  return own(has_kernels(x) ? gathered_product(x, weight, choices) : gather(x, weight, choices));
}

ArrayPtr gather_gate(
    const Array& x,
    const Weight& gate,
    const Weight& up,
    const Array& choices,
    std::uint8_t activation,
    bool clamped,
    float alpha,
    float limit) {
  const kernels::Activation kind{static_cast<kernels::Activation::Kind>(activation)};
  const Gate opening{kind, clamped, alpha, limit};
  if (has_kernels(x)) {
    return own(gathered_gate(x, gate, up, choices, opening));
  }
  return own(opened(gather(x, gate, choices), gather(x, up, choices), opening));
}

ArrayPtr gather_sum(
    const Array& x,
    const Weight& weight,
    const Array& choices,
    const Array& weights,
    const ArrayList& residual) {
  const Array* more = residual.arrays.empty() ? nullptr : residual.arrays.data();
  if (has_kernels(x)) {
    return own(gathered_sum(x, weight, choices, weights, more));
  }
  const auto products = mx::reshape(
      gather(x, weight, choices), {choices.shape(0), choices.shape(1), weight.rows()});
  const auto weighed =
      mx::multiply(products, mx::expand_dims(mx::astype(weights, products.dtype()), -1));
  auto out = mx::sum(weighed, 1);
  return own(more == nullptr ? std::move(out) : mx::add(out, *more));
}

std::unique_ptr<ArrayList> route(
    const Array& logits,
    const ArrayList& correction,
    std::uint8_t scores,
    std::int32_t choices,
    bool normalize,
    float scale,
    std::int32_t groups,
    std::int32_t kept_groups) {
  const Routing routing{
      static_cast<Routing::Scoring>(scores), choices, normalize, scale, groups, kept_groups};
  const Array* bias = correction.arrays.empty() ? nullptr : correction.arrays.data();
  const int experts = logits.ndim() == 2 ? logits.shape(1) : 0;
  const bool grouped = groups >= 1 && experts % groups == 0 && kept_groups >= 1 &&
      kept_groups <= groups && (groups == 1 || experts / groups >= 2);
  if (choices < 1 || choices > experts || !grouped ||
      (bias != nullptr && (bias->shape() != mx::Shape{experts} || bias->dtype() != mx::float32))) {
    throw std::invalid_argument("experts cannot be chosen like this");
  }
  auto [chosen, weights] =
      has_kernels(logits) ? route_tokens(logits, bias, routing) : route_by_mlx(logits, bias, routing);
  auto list = new_list();
  list->arrays = {chosen, weights};
  return list;
}

} // namespace mlxcel

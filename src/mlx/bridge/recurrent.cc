// Layers that carry a state: checked here, computed by the kernels.

#include <limits>
#include <stdexcept>

#include "mlx/ops.h"
#include "values.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace {

std::unique_ptr<ArrayList> list_of(Advanced advanced) {
  return std::make_unique<ArrayList>(ArrayList{std::move(advanced)});
}

Carried carried(const ArrayList& states, Dims lengths) {
  return {states.arrays, std::vector<int>(lengths.begin(), lengths.end())};
}

std::unique_ptr<Recurrent> recurrent(
    const Array& a_log,
    const Array& dt_bias,
    std::optional<Array> skip,
    int key_heads,
    int key_dim,
    int value_dim) {
  const auto numbers = [&](const Array& given) {
    if (given.ndim() != 1 || given.shape() != a_log.shape()) {
      throw std::invalid_argument("a recurrence has one number of each a head");
    }
    auto array = mx::contiguous(mx::astype(given, mx::float32));
    array.eval();
    return array;
  };
  if (key_heads < 1 || key_dim < 1 || value_dim < 1 || a_log.size() % key_heads != 0) {
    throw std::invalid_argument("the value heads cannot share the key heads evenly");
  }
  return std::make_unique<Recurrent>(Recurrent{
      .key_heads = key_heads,
      .value_heads = static_cast<int>(a_log.size()),
      .key_dim = key_dim,
      .value_dim = value_dim,
      .rate = numbers(mx::negative(mx::exp(mx::astype(a_log, mx::float32)))),
      .dt_bias = numbers(dt_bias),
      .skip = skip ? std::optional(numbers(*skip)) : std::nullopt,
      .least = 0,
      .most = std::numeric_limits<float>::infinity()});
}

} // namespace

std::unique_ptr<ShortConv> short_conv(const Array& weight, const ArrayList& bias, bool silu) {
  if (weight.ndim() != 2 || weight.shape(1) < 2 || bias.arrays.size() > 1) {
    throw std::invalid_argument("a short convolution has two taps at least");
  }
  auto conv = std::make_unique<ShortConv>(
      ShortConv{mx::contiguous(mx::transpose(weight)), std::nullopt, silu});
  conv->weight.eval();
  for (const auto& numbers : bias.arrays) {
    if (numbers.shape() != mx::Shape{conv->features()} || numbers.dtype() != weight.dtype()) {
      throw std::invalid_argument("a bias has one number a feature");
    }
    conv->bias = mx::contiguous(numbers);
    conv->bias->eval();
  }
  return conv;
}

std::unique_ptr<ArrayList> convolve(
    const Array& x, const ShortConv& conv, const ArrayList& states, Dims lengths) {
  return list_of(convolve(x, conv, carried(states, lengths)));
}

std::unique_ptr<Recurrent> delta_rule(
    const Array& a_log,
    const Array& dt_bias,
    std::int32_t key_heads,
    std::int32_t key_dim,
    std::int32_t value_dim) {
  return recurrent(a_log, dt_bias, std::nullopt, key_heads, key_dim, value_dim);
}

std::unique_ptr<Recurrent> state_space(
    const Array& a_log,
    const Array& dt_bias,
    const Array& skip,
    std::int32_t key_heads,
    std::int32_t key_dim,
    std::int32_t value_dim) {
  return recurrent(a_log, dt_bias, skip, key_heads, key_dim, value_dim);
}

void set_limits(Recurrent& layer, float least, float most) noexcept {
  layer.least = least;
  layer.most = most;
}

std::unique_ptr<ArrayList> recur(
    const Array& mixed,
    const ArrayList& gates,
    const Recurrent& layer,
    const ArrayList& states,
    Dims lengths) {
  const auto& given = gates.arrays;
  if (given.size() != (layer.is_delta() ? 2 : 1)) {
    throw std::invalid_argument("a delta rule has two gates, a state space one");
  }
  Mixed tokens{mixed, given[0], given.size() > 1 ? std::optional(given[1]) : std::nullopt};
  return list_of(recur(tokens, layer, carried(states, lengths)));
}

std::unique_ptr<GatedNorm> gated_norm(
    const Array& weight, float eps, std::int32_t group, bool gate_first) {
  if (weight.ndim() != 1 || group < 1 || weight.shape(0) % group != 0) {
    throw std::invalid_argument("the features of a normalization are whole groups");
  }
  auto contiguous = mx::contiguous(weight);
  contiguous.eval();
  return std::make_unique<GatedNorm>(GatedNorm{contiguous, eps, group, gate_first});
}

ArrayPtr normalize(const Array& x, const Array& gate, const GatedNorm& norm) {
  return own(normalize_gated(x, gate, norm));
}

} // namespace mlxcel

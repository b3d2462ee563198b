// What goes between two products. Included once by each instruction set.
#pragma once

#include "elementwise.h"

namespace mlxcel::kernels {
namespace {

inline typename Vec::F sigmoid(typename Vec::F x) {
  const auto one = Vec::set1(1.0f);
  return Vec::div(one, Vec::add(one, exp(Vec::sub(Vec::zero(), x))));
}

/// `limit · tanh(x / limit)`.
inline typename Vec::F soft_cap(typename Vec::F x, float limit) {
  // tanh(y) = 1 - 2 / (1 + e^2y)
  const auto power = exp(Vec::mul(x, Vec::set1(2.0f / limit)));
  const auto below = Vec::add(Vec::set1(1.0f), power);
  return Vec::sub(Vec::set1(limit), Vec::div(Vec::set1(2.0f * limit), below));
}

/// `x Φ(x)`, by formula 7.1.26 of Abramowitz and Stegun for the error function (to 1.5e-7).
inline typename Vec::F gelu(typename Vec::F x) {
  using V = Vec;
  const auto size = V::max(x, V::sub(V::zero(), x));
  const auto z = V::mul(size, V::set1(0.70710678f));
  const auto t = V::div(V::set1(1.0f), V::fma(z, V::set1(0.3275911f), V::set1(1.0f)));
  auto p = V::set1(1.061405429f);
  p = V::fma(p, t, V::set1(-1.453152027f));
  p = V::fma(p, t, V::set1(1.421413741f));
  p = V::fma(p, t, V::set1(-0.284496736f));
  p = V::fma(p, t, V::set1(0.254829592f));
  const auto tail = V::mul(V::mul(p, t), exp(V::sub(V::zero(), V::mul(z, z))));
  return V::sub(V::max(V::zero(), x), V::mul(V::mul(size, V::set1(0.5f)), tail));
}

/// The same by way of tanh: `x / (1 + e^-2u)` with `u = √(2/π) (x + 0.044715 x³)`.
inline typename Vec::F gelu_tanh(typename Vec::F x) {
  using V = Vec;
  const auto cubic = V::fma(V::mul(x, x), V::set1(0.044715f), V::set1(1.0f));
  return V::mul(x, sigmoid(V::mul(V::mul(x, V::set1(1.5957691216f)), cubic)));
}

/// Calls `each` with the activation as a function of a vector.
template <class Each>
void with_activation(Activation activation, Each each) {
  using V = Vec;
  switch (activation.kind) {
    case Activation::Kind::silu:
      return each([](auto x) {
        return V::div(x, V::add(V::set1(1.0f), exp(V::sub(V::zero(), x))));
      });
    case Activation::Kind::gelu:
      return each([](auto x) { return gelu(x); });
    case Activation::Kind::gelu_tanh:
      return each([](auto x) { return gelu_tanh(x); });
    case Activation::Kind::relu_squared:
      return each([](auto x) {
        const auto positive = V::max(V::zero(), x);
        return V::mul(positive, positive);
      });
    case Activation::Kind::sigmoid:
      return each([](auto x) { return sigmoid(x); });
    case Activation::Kind::soft_cap:
      return each([limit = activation.limit](auto x) { return soft_cap(x, limit); });
  }
}

/// `out = activation(x) · up`, without `up` where that is null.
void activate(Activation activation, const float* x, const float* up, std::size_t size, float* out) {
  with_activation(activation, [&](auto function) {
    if (up == nullptr) {
      for_each_vector(size, out, x, x, [&](auto a, auto) { return function(a); });
    } else {
      for_each_vector(size, out, x, up, [&](auto a, auto b) { return Vec::mul(function(a), b); });
    }
  });
}

/// One row of layer normalization; `bias` may be null.
void layer_norm(
    const float* x, const float* weight, const float* bias, float eps, std::size_t size, float* out) {
  auto sum = Vec::zero();
  std::size_t i = 0;
  for (; i + Vec::LANES <= size; i += Vec::LANES) {
    sum = Vec::add(sum, Vec::load(x + i));
  }
  float total = Vec::sum(sum);
  for (; i < size; i++) {
    total += x[i];
  }
  const float mean = total / static_cast<float>(size);
  const auto middle = Vec::set1(mean);
  auto squares = Vec::zero();
  for (i = 0; i + Vec::LANES <= size; i += Vec::LANES) {
    const auto apart = Vec::sub(Vec::load(x + i), middle);
    squares = Vec::fma(apart, apart, squares);
  }
  float spread = Vec::sum(squares);
  for (; i < size; i++) {
    spread += (x[i] - mean) * (x[i] - mean);
  }
  const auto factor = Vec::set1(1.0f / __builtin_sqrtf(spread / static_cast<float>(size) + eps));
  for_each_vector(size, out, x, weight, [&](auto a, auto w) {
    return Vec::mul(Vec::mul(Vec::sub(a, middle), factor), w);
  });
  if (bias != nullptr) {
    add_to(out, bias, size);
  }
}

} // namespace
} // namespace mlxcel::kernels

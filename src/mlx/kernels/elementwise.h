// Functions of single numbers and rows. Included once by each instruction set.
#pragma once

#include "operands.h"

namespace mlxcel::kernels {
namespace {

/// `e^x`, to about two units in the last place: the Taylor polynomial of the remainder after the
/// nearest multiple of ln 2, as in Cephes. Below -87.7 it is 0, above 88 it stays at its value there.
inline typename Vec::F exp(typename Vec::F x) {
  using V = Vec;
  // The constant first: that keeps what is not a number.
  const auto low = V::set1(-88.0f); // 2^-127 comes out as zero
  const auto clamped = V::min(V::set1(88.0f), V::max(low, x));
  const auto n = V::round(V::mul(clamped, V::set1(1.44269504f)));
  auto r = V::fma(n, V::set1(-0.693359375f), clamped);
  r = V::fma(n, V::set1(2.12194440e-4f), r);
  auto p = V::set1(1.9875691500e-4f);
  p = V::fma(p, r, V::set1(1.3981999507e-3f));
  p = V::fma(p, r, V::set1(8.3334519073e-3f));
  p = V::fma(p, r, V::set1(4.1665795894e-2f));
  p = V::fma(p, r, V::set1(1.6666665459e-1f));
  p = V::fma(p, r, V::set1(5.0000001201e-1f));
  p = V::fma(p, V::mul(r, r), V::add(r, V::set1(1.0f)));
  return V::mul(p, V::exp2i(n));
}

/// Calls `each` for every vector of `size` floats, the last one by way of buffers.
template <class Each>
void for_each_vector(std::size_t size, float* out, const float* a, const float* b, Each each) {
  std::size_t i = 0;
  for (; i + Vec::LANES <= size; i += Vec::LANES) {
    Vec::store(out + i, each(Vec::load(a + i), Vec::load(b + i)));
  }
  if (i < size) {
    float left[Vec::LANES] = {}, right[Vec::LANES] = {};
    __builtin_memcpy(left, a + i, (size - i) * sizeof(float));
    __builtin_memcpy(right, b + i, (size - i) * sizeof(float));
    Vec::store(left, each(Vec::load(left), Vec::load(right)));
    __builtin_memcpy(out + i, left, (size - i) * sizeof(float));
  }
}

/// `gate = min(gate, limit) · sigmoid(alpha · min(gate, limit)) · (clip(up, ±limit) + 1)`.
void clamped_silu_multiply(float* gate, const float* up, float alpha, float limit, std::size_t size) {
  const auto top = Vec::set1(limit), bottom = Vec::set1(-limit), one = Vec::set1(1.0f);
  const auto slope = Vec::set1(-alpha);
  for_each_vector(size, gate, gate, up, [&](auto g, auto u) {
    // The constant first: that keeps what is not a number.
    g = Vec::min(top, g);
    u = Vec::max(bottom, Vec::min(top, u));
    const auto opened = Vec::div(g, Vec::add(one, exp(Vec::mul(g, slope))));
    return Vec::mul(Vec::add(u, one), opened);
  });
}

/// `out += factor · other`.
void add_scaled(float* out, const float* other, float factor, std::size_t size) {
  const auto times = Vec::set1(factor);
  for_each_vector(size, out, out, other, [&](auto a, auto b) { return Vec::fma(b, times, a); });
}

void add_to(float* out, const float* other, std::size_t size) {
  for_each_vector(size, out, out, other, [](auto a, auto b) { return Vec::add(a, b); });
}

/// One row of root-mean-square normalization.
void rms_norm(const float* x, const float* weight, float eps, std::size_t size, float* out) {
  // Two chains, for the sake of the sum's speed and of its error.
  auto even = Vec::zero(), odd = Vec::zero();
  std::size_t i = 0;
  for (; i + 2 * Vec::LANES <= size; i += 2 * Vec::LANES) {
    const auto a = Vec::load(x + i), b = Vec::load(x + i + Vec::LANES);
    even = Vec::fma(a, a, even);
    odd = Vec::fma(b, b, odd);
  }
  float total = Vec::sum(Vec::add(even, odd));
  for (; i < size; i++) {
    total += x[i] * x[i];
  }
  const auto factor = Vec::set1(1.0f / __builtin_sqrtf(total / static_cast<float>(size) + eps));
  for_each_vector(size, out, x, weight, [&](auto a, auto w) {
    return Vec::mul(Vec::mul(a, factor), w);
  });
}

/// Turns the first `2 · pairs` features of a head by the angles whose cosines and sines are given:
/// pairs of neighbours (`traditional`), or of the two halves. The rest is copied.
void rotate(
    const float* x,
    const float* cosines,
    const float* sines,
    std::size_t pairs,
    std::size_t dim,
    bool traditional,
    float* out) {
  const std::size_t step = traditional ? 2 : 1, partner = traditional ? 1 : pairs;
  for (std::size_t i = 0; i < pairs; i++) {
    const float a = x[i * step], b = x[i * step + partner];
    out[i * step] = a * cosines[i] - b * sines[i];
    out[i * step + partner] = a * sines[i] + b * cosines[i];
  }
  __builtin_memcpy(out + 2 * pairs, x + 2 * pairs, (dim - 2 * pairs) * sizeof(float));
}

} // namespace
} // namespace mlxcel::kernels

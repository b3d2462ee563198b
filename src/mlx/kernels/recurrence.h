// What recurrent layers do with a sequence, token by token. Included once by each instruction set.
//
// Nothing here looks ahead or sums over tokens in another order than theirs, so what a token gives
// depends on those before it only: not on how a prompt was cut, nor on the threads.
#pragma once

#include "elementwise.h"

namespace mlxcel::kernels {
namespace {

/// Vectors of a value that are computed together: as many sums as the registers hold twice.
constexpr int RECURRENCE_VECTORS = 4;

/// A token of a causal depthwise convolution: each feature is the weighted sum of its last values.
void convolve(const Convolution& at, std::size_t from, std::size_t to) {
  const auto sum = [&](auto load) {
    auto total = at.bias ? load(at.bias) : Vec::zero();
    for (std::size_t tap = 0; tap < at.taps; tap++) {
      total = Vec::fma(load(at.values[tap]), load(at.weights + tap * at.features), total);
    }
    if (at.silu) {
      const auto below = Vec::add(Vec::set1(1.0f), exp(Vec::sub(Vec::zero(), total)));
      total = Vec::div(total, below);
    }
    return total;
  };
  std::size_t i = from;
  for (; i + Vec::LANES <= to; i += Vec::LANES) {
    Vec::store(at.out + i, sum([&](const float* p) { return Vec::load(p + i); }));
  }
  if (i < to) {
    const std::size_t rest = (to - i) * sizeof(float);
    float lanes[Vec::LANES];
    Vec::store(lanes, sum([&](const float* p) {
      float copy[Vec::LANES] = {};
      __builtin_memcpy(copy, p + i, rest);
      return Vec::load(copy);
    }));
    __builtin_memcpy(at.out + i, lanes, rest);
  }
}

/// Features of a value that one call of `recur` takes at most.
std::size_t recurrence_width() {
  return RECURRENCE_VECTORS * Vec::LANES;
}

/// Floats that `recur` wants as scratch.
std::size_t recurrence_scratch(std::size_t key_dim) {
  return key_dim * recurrence_width();
}

/// `count` features of the values from `from` on, in `WIDTH` vectors.
template <int WIDTH, bool DELTA>
void recur_with(const Recurrence& head, std::size_t from, std::size_t count, float* state) {
  using F = typename Vec::F;
  constexpr std::size_t LENGTH = WIDTH * Vec::LANES;
  const std::size_t keys = head.key_dim;
  // The state's part stays in the first-level cache for all tokens.
  for (std::size_t k = 0; k < keys; k++) {
    if (count < LENGTH) {
      __builtin_memset(state + k * LENGTH, 0, LENGTH * sizeof(float));
    }
    __builtin_memcpy(
        state + k * LENGTH, head.before + k * head.value_dim + from, count * sizeof(float));
  }
  float row[LENGTH] = {};
  for (std::size_t t = 0; t < head.tokens; t++) {
    const float* key = head.keys + t * head.key_stride;
    const float* query = head.queries + t * head.query_stride;
    const auto decay = Vec::set1(head.decays[t * head.gate_stride]);
    const auto rate = Vec::set1(head.rates[t * head.gate_stride]);
    __builtin_memcpy(row, head.values + t * head.value_stride + from, count * sizeof(float));
    F value[WIDTH], sums[WIDTH];
#pragma GCC unroll 16
    for (int w = 0; w < WIDTH; w++) {
      value[w] = Vec::load(row + w * Vec::LANES);
    }
    if constexpr (DELTA) {
      // What the state says about the key is taken off its value. Two chains, for their latency.
      F even[WIDTH], odd[WIDTH];
#pragma GCC unroll 16
      for (int w = 0; w < WIDTH; w++) {
        even[w] = odd[w] = Vec::zero();
      }
      std::size_t k = 0;
      for (; k + 2 <= keys; k += 2) {
        const auto a = Vec::set1(key[k]), b = Vec::set1(key[k + 1]);
        const float* at = state + k * LENGTH;
#pragma GCC unroll 16
        for (int w = 0; w < WIDTH; w++) {
          even[w] = Vec::fma(Vec::load(at + w * Vec::LANES), a, even[w]);
          odd[w] = Vec::fma(Vec::load(at + LENGTH + w * Vec::LANES), b, odd[w]);
        }
      }
      if (k < keys) {
        const auto a = Vec::set1(key[k]);
#pragma GCC unroll 16
        for (int w = 0; w < WIDTH; w++) {
          even[w] = Vec::fma(Vec::load(state + k * LENGTH + w * Vec::LANES), a, even[w]);
        }
      }
#pragma GCC unroll 16
      for (int w = 0; w < WIDTH; w++) {
        const auto known = Vec::mul(decay, Vec::add(even[w], odd[w]));
        value[w] = Vec::mul(rate, Vec::sub(value[w], known));
      }
    } else {
#pragma GCC unroll 16
      for (int w = 0; w < WIDTH; w++) {
        value[w] = Vec::mul(rate, value[w]);
      }
    }
#pragma GCC unroll 16
    for (int w = 0; w < WIDTH; w++) {
      sums[w] = Vec::zero();
    }
    for (std::size_t k = 0; k < keys; k++) {
      const auto a = Vec::set1(key[k]), q = Vec::set1(query[k]);
      float* at = state + k * LENGTH;
#pragma GCC unroll 16
      for (int w = 0; w < WIDTH; w++) {
        const auto next =
            Vec::fma(a, value[w], Vec::mul(decay, Vec::load(at + w * Vec::LANES)));
        Vec::store(at + w * Vec::LANES, next);
        sums[w] = Vec::fma(next, q, sums[w]);
      }
    }
    if (head.skip) {
      const auto skip = Vec::set1(*head.skip);
#pragma GCC unroll 16
      for (int w = 0; w < WIDTH; w++) {
        sums[w] = Vec::fma(skip, Vec::load(row + w * Vec::LANES), sums[w]);
      }
    }
    float out[LENGTH];
#pragma GCC unroll 16
    for (int w = 0; w < WIDTH; w++) {
      Vec::store(out + w * Vec::LANES, sums[w]);
    }
    __builtin_memcpy(head.out + t * head.out_stride + from, out, count * sizeof(float));
  }
  for (std::size_t k = 0; k < keys; k++) {
    __builtin_memcpy(
        head.after + k * head.value_dim + from, state + k * LENGTH, count * sizeof(float));
  }
}

/// Features `from` to `to` of the values, at most `recurrence_width` of them, for all tokens.
template <int WIDTH = RECURRENCE_VECTORS>
void recur_in(const Recurrence& head, std::size_t from, std::size_t to, float* state) {
  if constexpr (WIDTH > 1) {
    if (to - from <= (WIDTH - 1) * Vec::LANES) {
      return recur_in<WIDTH - 1>(head, from, to, state);
    }
  }
  if (head.delta) {
    recur_with<WIDTH, true>(head, from, to - from, state);
  } else {
    recur_with<WIDTH, false>(head, from, to - from, state);
  }
}

void recur(const Recurrence& head, std::size_t from, std::size_t to, float* scratch) {
  recur_in(head, from, to, scratch);
}

} // namespace
} // namespace mlxcel::kernels

// Normalization, activations and rotary positions.

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "mlx/ops.h"

#include "pool.h"
#include "primitive.h"
#include "rotary.h"
#include "table.h"
#include "weight.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

/// Root-mean-square or layer normalization; inputs are rows, weight and, of the latter, maybe a bias.
class Norm : public StepPrimitive {
 public:
  Norm(mx::Stream stream, float eps, bool centered, bool biased)
      : StepPrimitive(stream), eps_(eps), centered_(centered), biased_(biased) {}

  bool is_cheap() const override { return true; }

  std::function<void()> task(const mx::array* inputs, float* result) override {
    const Table& kernels = table();
    const float* weight = inputs[1].data<float>();
    const float* bias = biased_ ? inputs[2].data<float>() : nullptr;
    const std::size_t size = inputs[1].size();
    // The array lives until the task is done, its handle need not.
    const auto x = mx::array::unsafe_weak_copy(inputs[0]);
    const float* data = x.data<float>();
    const std::ptrdiff_t stride = x.ndim() == 0 ? 1 : x.strides(-1);
    const std::size_t count = size == 0 ? 0 : x.size() / size;
    return [=, &kernels, eps = eps_, centered = centered_] {
      for_each_of(count, size, [&](std::size_t row) {
        const float* source = data + row_offset(x, row);
        if (!has_whole_rows(x)) {
          float* copy = scratch(size);
          for (std::size_t i = 0; i < size; i++) {
            copy[i] = source[static_cast<std::ptrdiff_t>(i) * stride];
          }
          source = copy;
        }
        if (centered) {
          kernels.layer_norm(source, weight, bias, eps, size, result + row * size);
        } else {
          kernels.rms_norm(source, weight, eps, size, result + row * size);
        }
      });
    };
  }

  const char* name() const override { return "mlxcel::Norm"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const Norm&>(other);
    return eps_ == same.eps_ && centered_ == same.centered_ && biased_ == same.biased_;
  }

 private:
  float eps_;
  bool centered_;
  bool biased_;
};

/// A function of every number, times a second array if there is one. Inputs are row-contiguous.
class Activate : public CpuPrimitive {
 public:
  Activate(mx::Stream stream, Activation activation)
      : CpuPrimitive(stream), activation_(activation) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    const Table& kernels = table();
    const float* x = inputs[0].data<float>();
    const float* up = inputs.size() > 1 ? inputs[1].data<float>() : nullptr;
    float* result = out.data<float>();
    const std::size_t size = out.size();
    dispatch(out, [=, &kernels, activation = activation_] {
      parallel_for((size + SMALL - 1) / SMALL, [&](std::size_t piece) {
        const std::size_t from = piece * SMALL, count = std::min(SMALL, size - from);
        kernels.activate(
            activation, x + from, up == nullptr ? nullptr : up + from, count, result + from);
      });
    });
  }

  const char* name() const override { return "mlxcel::Activate"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return activation_ == static_cast<const Activate&>(other).activation_;
  }

 private:
  Activation activation_;
};

class Rotate : public CpuPrimitive {
 public:
  Rotate(mx::Stream stream, bool traditional, float amplitude)
      : CpuPrimitive(stream), traditional_(traditional), amplitude_(amplitude) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    const Table& kernels = table();
    const auto& x = inputs[0];
    const std::size_t batch = x.shape(0), heads = x.shape(1), seq = x.shape(2), dim = x.shape(3);
    const float* source = x.data<float>();
    const std::array<std::ptrdiff_t, 3> strides{x.strides(0), x.strides(1), x.strides(2)};
    const std::ptrdiff_t feature_stride = x.strides(3);
    const auto* positions = inputs[1].data<std::int32_t>();
    const std::ptrdiff_t position_stride = inputs[1].size() == 1 ? 0 : inputs[1].strides(0);
    const float* frequencies = inputs[2].data<float>();
    const std::size_t pairs = inputs[2].size();
    float* result = out.data<float>();
    dispatch(out, [=, &kernels, traditional = traditional_, amplitude = amplitude_] {
      for_each_of(batch * seq, heads * dim, [&](std::size_t token) {
        const std::ptrdiff_t b = token / seq, s = token % seq;
        float* cosines = scratch(2 * pairs + dim);
        float* sines = cosines + pairs;
        float* copy = sines + pairs;
        angles_of(positions[b * position_stride] + static_cast<std::int32_t>(s), frequencies, pairs,
                  amplitude, cosines, sines);
        for (std::size_t h = 0; h < heads; h++) {
          const float* head =
              source + b * strides[0] + static_cast<std::ptrdiff_t>(h) * strides[1] + s * strides[2];
          if (feature_stride != 1) {
            for (std::size_t d = 0; d < dim; d++) {
              copy[d] = head[static_cast<std::ptrdiff_t>(d) * feature_stride];
            }
            head = copy;
          }
          float* target = result + ((b * heads + h) * seq + s) * dim;
          kernels.rotate(head, cosines, sines, pairs, dim, traditional, target);
        }
      });
    });
  }

  const char* name() const override { return "mlxcel::Rotate"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const Rotate&>(other);
    return traditional_ == same.traditional_ && amplitude_ == same.amplitude_;
  }

 private:
  bool traditional_;
  float amplitude_;
};

} // namespace
} // namespace kernels

using namespace kernels;

mx::array rms_norm_rows(const mx::array& x, const mx::array& weight, float eps) {
  if (weight.ndim() != 1 || x.ndim() == 0 || x.shape(-1) != weight.shape(0) ||
      weight.dtype() != mx::float32) {
    throw std::invalid_argument("a normalization has one weight a feature");
  }
  auto primitive = std::make_shared<Norm>(cpu_stream(), eps, false, false);
  return mx::array(
      x.shape(), mx::float32, std::move(primitive),
      {x, weight});
}

mx::array layer_norm_rows(
    const mx::array& x, const mx::array& weight, const mx::array* bias, float eps) {
  const auto fits = [&](const mx::array& vector) {
    return vector.ndim() == 1 && x.ndim() > 0 && x.shape(-1) == vector.shape(0) &&
        vector.dtype() == mx::float32;
  };
  if (!fits(weight) || (bias != nullptr && !fits(*bias))) {
    throw std::invalid_argument("a normalization has one weight and one bias a feature");
  }
  std::vector<mx::array> inputs{x, weight};
  if (bias != nullptr) {
    inputs.push_back(*bias);
  }
  auto primitive = std::make_shared<Norm>(cpu_stream(), eps, true, bias != nullptr);
  return mx::array(x.shape(), mx::float32, std::move(primitive), std::move(inputs));
}

mx::array activate_numbers(const mx::array& x, const mx::array* up, Activation activation) {
  std::vector<mx::array> inputs{mx::contiguous(x)};
  if (up != nullptr) {
    if (up->shape() != x.shape() || up->dtype() != mx::float32) {
      throw std::invalid_argument("the gate's shape is not that of what it opens");
    }
    inputs.push_back(mx::contiguous(*up));
  }
  auto primitive = std::make_shared<Activate>(cpu_stream(), activation);
  return mx::array(x.shape(), mx::float32, std::move(primitive), std::move(inputs));
}

mx::array rotate_heads(
    const mx::array& x, const mx::array& positions, const mx::array& frequencies, bool traditional, float amplitude) {
  const bool one_each = positions.ndim() == 1 && positions.shape(0) == x.shape(0);
  if (x.ndim() != 4 || (positions.size() != 1 && !one_each) ||
      positions.dtype() != mx::int32 || 2 * frequencies.shape(0) > x.shape(3)) {
    throw std::invalid_argument("rotary positions want [batch, heads, seq, dim] and int32 positions");
  }
  auto primitive = std::make_shared<Rotate>(cpu_stream(), traditional, amplitude);
  return mx::array(x.shape(), mx::float32, std::move(primitive), {x, positions, frequencies});
}

} // namespace mlxcel

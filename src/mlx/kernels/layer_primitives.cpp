// Normalization, rotary positions and attention.

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
    dispatch([=, &kernels, activation = activation_] {
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
    dispatch([=, &kernels, traditional = traditional_, amplitude = amplitude_] {
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

/// The rows of head `kv` in the arrays of one side of a cache: the numbers, or packed integers with
/// their scales and biases.
CacheRows rows_of_head(const mx::array* arrays, CachePacking packing, std::size_t kv) {
  const auto& data = arrays[0];
  CacheRows rows{
      .data = data.data<unsigned char>() + kv * data.strides(1) * data.itemsize(),
      .stride = data.strides(2) * data.itemsize(),
      .element = data.dtype() == mx::float16 ? Element::f16 : Element::f32,
      .bits = packing.bits,
      .group = static_cast<std::size_t>(packing.group),
      .scales = nullptr,
      .biases = nullptr,
      .scale_stride = 0};
  if (packing.bits > 0) {
    // One of both was written as the other was.
    rows.scales = arrays[1].data<float>() + kv * arrays[1].strides(1);
    rows.biases = arrays[2].data<float>() + kv * arrays[2].strides(1);
    rows.scale_stride = arrays[1].strides(2);
  }
  return rows;
}

class Attention : public CpuPrimitive {
 public:
  Attention(mx::Stream stream, Scores scores, CachePacking packing)
      : CpuPrimitive(stream), scores_(scores), packing_(packing) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    const Table& kernels = table();
    const auto& q = inputs[0];
    const auto& k = inputs[1];
    const std::size_t heads = q.shape(1), seq = q.shape(2), dim = q.shape(3);
    const std::size_t kv_heads = k.shape(1), total = k.shape(2);
    const std::size_t group = heads / kv_heads;
    const std::size_t side = packing_.arrays();
    for (std::size_t i = 0; i <= 2 * side; i++) {
      if (!has_whole_rows(inputs[i])) {
        throw std::invalid_argument("the features of a head do not lie side by side");
      }
    }
    const float* queries = q.data<float>();
    const std::size_t query_head = q.strides(1), query_row = q.strides(2);
    // One description a head: the arrays live until the task is done, their handles need not.
    std::vector<AttentionHead> all;
    for (std::size_t kv = 0; kv < kv_heads; kv++) {
      all.push_back(
          {rows_of_head(&inputs[1], packing_, kv), rows_of_head(&inputs[1 + side], packing_, kv), dim,
           scores_.scale, scores_.soft_cap});
    }
    const float* sinks = inputs.size() > 1 + 2 * side ? inputs.back().data<float>() : nullptr;
    // In memory the tokens come first: what follows joins the heads of a token.
    out.set_data(
        mx::allocator::malloc(out.nbytes()), out.size(),
        {static_cast<std::int64_t>(heads * seq * dim), static_cast<std::int64_t>(dim),
         static_cast<std::int64_t>(heads * dim), 1},
        {/*contiguous=*/true, /*row_contiguous=*/seq == 1 || heads == 1, /*col_contiguous=*/false});
    float* result = out.data<float>();
    const std::size_t window = scores_.window > 0 ? static_cast<std::size_t>(scores_.window) : total;
    const std::size_t keep = window < total ? scores_.keep : 0;
    dispatch([=, &kernels, all = std::move(all)] {
      // Queries that share their keys are taken together, neighbours in time with one another.
      const std::size_t at_once = kernels.attention_rows();
      const std::size_t blocks = (seq * group + at_once - 1) / at_once;
      parallel_for(kv_heads * blocks, [&](std::size_t piece) {
        // The longest ones first, so that no thread begins one last.
        const std::size_t kv = piece % kv_heads, block = blocks - 1 - piece / kv_heads;
        AttentionRow rows[32];
        std::size_t count = 0;
        for (std::size_t i = block * at_once; i < std::min((block + 1) * at_once, seq * group); i++) {
          const std::size_t h = kv * group + i % group, s = i / group;
          const std::size_t last = total - seq + s;
          rows[count++] = {
              queries + h * query_head + s * query_row,
              result + (s * heads + h) * dim, last + 1 > window ? last + 1 - window : 0, last, keep,
              sinks == nullptr ? nullptr : sinks + h};
        }
        kernels.attend(all[kv], rows, count, scratch(kernels.attention_scratch(dim)));
      });
    });
  }

  const char* name() const override { return "mlxcel::Attention"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const Attention&>(other);
    return scores_ == same.scores_ && packing_ == same.packing_;
  }

 private:
  Scores scores_;
  CachePacking packing_;
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

mx::array attend_causally(
    const mx::array& queries,
    const std::vector<mx::array>& keys,
    const std::vector<mx::array>& values,
    CachePacking packing,
    Scores scores,
    const mx::array* sinks) {
  const bool packed = packing.bits > 0;
  const int dim = queries.ndim() == 4 ? queries.shape(3) : 0;
  const auto fits = [&](const mx::array& past, mx::Dtype dtype, int features) {
    return past.ndim() == 4 && past.shape(0) == 1 && past.shape(1) > 0 &&
        queries.shape(1) % past.shape(1) == 0 && past.shape(2) >= queries.shape(2) &&
        past.shape(3) == features && past.dtype() == dtype &&
        past.shape(1) == keys[0].shape(1) && past.shape(2) == keys[0].shape(2);
  };
  bool fit = queries.ndim() == 4 && queries.shape(0) == 1 && keys.size() == packing.arrays() &&
      values.size() == packing.arrays() &&
      (!packed || ((packing.bits == 8 || packing.bits == 4) && packing.group % 32 == 0 &&
                   packing.group > 0 && dim % packing.group == 0));
  for (const auto* side : {&keys, &values}) {
    for (std::size_t i = 0; fit && i < side->size(); i++) {
      const auto& past = (*side)[i];
      const auto plain = past.dtype() == mx::float16 ? mx::float16 : mx::float32;
      const int integers = packed ? dim * packing.bits / 32 : dim;
      fit = i == 0 ? fits(past, packed ? mx::uint32 : plain, integers)
                   : fits(past, mx::float32, dim / packing.group);
    }
  }
  if (!fit) {
    throw std::invalid_argument("attention wants queries, keys and values [1, heads, seq, dim] that fit");
  }
  std::vector<mx::array> inputs{queries};
  inputs.insert(inputs.end(), keys.begin(), keys.end());
  inputs.insert(inputs.end(), values.begin(), values.end());
  if (sinks != nullptr) {
    if (sinks->shape() != mx::Shape{queries.shape(1)} || sinks->dtype() != mx::float32) {
      throw std::invalid_argument("there is one sink a head");
    }
    inputs.push_back(mx::contiguous(*sinks));
  }
  auto primitive = std::make_shared<Attention>(cpu_stream(), scores, packing);
  return mx::array(queries.shape(), mx::float32, std::move(primitive), std::move(inputs));
}

} // namespace mlxcel

// Normalization, rotary positions and attention.

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "mlx/ops.h"

#include "pool.h"
#include "primitive.h"
#include "table.h"
#include "weight.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

/// Numbers below which a second thread costs more than it brings.
constexpr std::size_t SMALL = 16 * 1024;

/// Calls `work` for every index below `count`; an index is worth `size` numbers.
template <class Work>
void for_each_of(std::size_t count, std::size_t size, Work work) {
  const std::size_t step = std::max<std::size_t>(1, SMALL / std::max<std::size_t>(1, size));
  parallel_for((count + step - 1) / step, [&](std::size_t piece) {
    for (std::size_t i = piece * step; i < std::min((piece + 1) * step, count); i++) {
      work(i);
    }
  });
}

class RmsNorm : public CpuPrimitive {
 public:
  RmsNorm(mx::Stream stream, float eps) : CpuPrimitive(stream), eps_(eps) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    const Table& kernels = table();
    const float* weight = inputs[1].data<float>();
    const std::size_t size = inputs[1].size();
    // The array lives until the task is done, its handle need not.
    const auto x = mx::array::unsafe_weak_copy(inputs[0]);
    const float* data = x.data<float>();
    const std::ptrdiff_t stride = x.ndim() == 0 ? 1 : x.strides(-1);
    const std::size_t count = size == 0 ? 0 : out.size() / size;
    float* result = out.data<float>();
    dispatch([=, &kernels, eps = eps_] {
      for_each_of(count, size, [&](std::size_t row) {
        const float* source = data + row_offset(x, row);
        if (!has_whole_rows(x)) {
          float* copy = scratch(size);
          for (std::size_t i = 0; i < size; i++) {
            copy[i] = source[static_cast<std::ptrdiff_t>(i) * stride];
          }
          source = copy;
        }
        kernels.rms_norm(source, weight, eps, size, result + row * size);
      });
    });
  }

  const char* name() const override { return "mlxcel::RmsNorm"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return eps_ == static_cast<const RmsNorm&>(other).eps_;
  }

 private:
  float eps_;
};

class Rotate : public CpuPrimitive {
 public:
  Rotate(mx::Stream stream, bool traditional) : CpuPrimitive(stream), traditional_(traditional) {}

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
    dispatch([=, &kernels, traditional = traditional_] {
      for_each_of(batch * seq, heads * dim, [&](std::size_t token) {
        const std::ptrdiff_t b = token / seq, s = token % seq;
        float* cosines = scratch(2 * pairs + dim);
        float* sines = cosines + pairs;
        float* copy = sines + pairs;
        const auto position = static_cast<float>(positions[b * position_stride] + s);
        for (std::size_t i = 0; i < pairs; i++) {
          const float angle = position * frequencies[i];
          cosines[i] = std::cos(angle);
          sines[i] = std::sin(angle);
        }
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
    return traditional_ == static_cast<const Rotate&>(other).traditional_;
  }

 private:
  bool traditional_;
};

/// Where the heads of a `[1, heads, seq, dim]` array lie.
struct Heads {
  const float* data;
  std::size_t head_stride;
  std::size_t row_stride;

  explicit Heads(const mx::array& array)
      : data(array.data<float>()),
        head_stride(array.strides(1)),
        row_stride(array.strides(2)) {}
};

class Attention : public CpuPrimitive {
 public:
  Attention(mx::Stream stream, float scale, int window, bool sinks)
      : CpuPrimitive(stream), scale_(scale), window_(window), sinks_(sinks) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    const Table& kernels = table();
    const auto& q = inputs[0];
    const auto& k = inputs[1];
    const std::size_t heads = q.shape(1), seq = q.shape(2), dim = q.shape(3);
    const std::size_t kv_heads = k.shape(1), total = k.shape(2);
    const std::size_t group = heads / kv_heads;
    for (const auto& input : {q, k, inputs[2]}) {
      if (!has_whole_rows(input)) {
        throw std::invalid_argument("the features of a head do not lie side by side");
      }
    }
    const Heads queries(q), keys(k), values(inputs[2]);
    const float* sinks = sinks_ ? inputs[3].data<float>() : nullptr;
    // In memory the tokens come first: what follows joins the heads of a token.
    out.set_data(
        mx::allocator::malloc(out.nbytes()), out.size(),
        {static_cast<std::int64_t>(heads * seq * dim), static_cast<std::int64_t>(dim),
         static_cast<std::int64_t>(heads * dim), 1},
        {/*contiguous=*/true, /*row_contiguous=*/seq == 1 || heads == 1, /*col_contiguous=*/false});
    float* result = out.data<float>();
    const std::size_t window = window_ > 0 ? static_cast<std::size_t>(window_) : total;
    dispatch([=, &kernels, scale = scale_] {
      // Queries that share their keys are taken together, neighbours in time with one another.
      const std::size_t at_once = kernels.attention_rows();
      const std::size_t blocks = (seq * group + at_once - 1) / at_once;
      parallel_for(kv_heads * blocks, [&](std::size_t piece) {
        // The longest ones first, so that no thread begins one last.
        const std::size_t kv = piece % kv_heads, block = blocks - 1 - piece / kv_heads;
        const AttentionHead head{
            keys.data + kv * keys.head_stride, values.data + kv * values.head_stride,
            keys.row_stride, values.row_stride, dim, scale};
        AttentionRow rows[32];
        std::size_t count = 0;
        for (std::size_t i = block * at_once; i < std::min((block + 1) * at_once, seq * group); i++) {
          const std::size_t h = kv * group + i % group, s = i / group;
          const std::size_t last = total - seq + s;
          rows[count++] = {
              queries.data + h * queries.head_stride + s * queries.row_stride,
              result + (s * heads + h) * dim, last + 1 > window ? last + 1 - window : 0, last,
              sinks == nullptr ? nullptr : sinks + h};
        }
        kernels.attend(head, rows, count, scratch(kernels.attention_scratch(dim)));
      });
    });
  }

  const char* name() const override { return "mlxcel::Attention"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const Attention&>(other);
    return scale_ == same.scale_ && window_ == same.window_ && sinks_ == same.sinks_;
  }

 private:
  float scale_;
  int window_;
  bool sinks_;
};

} // namespace
} // namespace kernels

using namespace kernels;

mx::array rms_norm_rows(const mx::array& x, const mx::array& weight, float eps) {
  if (weight.ndim() != 1 || x.ndim() == 0 || x.shape(-1) != weight.shape(0) ||
      weight.dtype() != mx::float32) {
    throw std::invalid_argument("a normalization has one weight a feature");
  }
  auto primitive = std::make_shared<RmsNorm>(cpu_stream(), eps);
  return mx::array(
      x.shape(), mx::float32, std::move(primitive),
      {x, weight});
}

mx::array rotate_heads(
    const mx::array& x, const mx::array& positions, const mx::array& frequencies, bool traditional) {
  const bool one_each = positions.ndim() == 1 && positions.shape(0) == x.shape(0);
  if (x.ndim() != 4 || (positions.size() != 1 && !one_each) ||
      positions.dtype() != mx::int32 || 2 * frequencies.shape(0) > x.shape(3)) {
    throw std::invalid_argument("rotary positions want [batch, heads, seq, dim] and int32 positions");
  }
  auto primitive = std::make_shared<Rotate>(cpu_stream(), traditional);
  return mx::array(x.shape(), mx::float32, std::move(primitive), {x, positions, frequencies});
}

mx::array attend_causally(
    const mx::array& queries,
    const mx::array& keys,
    const mx::array& values,
    float scale,
    int window,
    const mx::array* sinks) {
  const auto fits = [&](const mx::array& past) {
    return past.ndim() == 4 && past.shape(0) == 1 && past.shape(1) > 0 &&
        queries.shape(1) % past.shape(1) == 0 && past.shape(3) == queries.shape(3) &&
        past.shape(2) >= queries.shape(2) && past.dtype() == mx::float32;
  };
  if (queries.ndim() != 4 || queries.shape(0) != 1 || !fits(keys) || !fits(values) ||
      keys.shape() != values.shape()) {
    throw std::invalid_argument("attention wants queries, keys and values [1, heads, seq, dim] that fit");
  }
  std::vector<mx::array> inputs{queries, keys, values};
  if (sinks != nullptr) {
    inputs.push_back(*sinks);
  }
  auto primitive = std::make_shared<Attention>(cpu_stream(), scale, window, sinks != nullptr);
  return mx::array(queries.shape(), mx::float32, std::move(primitive), std::move(inputs));
}

} // namespace mlxcel

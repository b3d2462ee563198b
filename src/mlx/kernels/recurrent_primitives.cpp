// Convolutions and recurrences that carry a state, and the normalization behind them.

#include "recurrent.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "pool.h"
#include "primitive.h"
#include "table.h"
#include "weight.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

/// Features of a convolution that a thread takes at once.
constexpr std::size_t FEATURES = 4096;

/// The rows of a matrix, which may lie apart.
struct Tokens {
  const float* data;
  std::ptrdiff_t stride;

  explicit Tokens(const mx::array& array) : data(array.data<float>()), stride(array.strides(0)) {
    if (!has_whole_rows(array)) {
      throw std::invalid_argument("the features of a token do not lie side by side");
    }
  }
  const float* operator[](std::size_t token) const {
    return data + static_cast<std::ptrdiff_t>(token) * stride;
  }
};

/// One sequence's share of a step.
struct Row {
  std::size_t start;
  std::size_t length;
  const float* before;
  float* after;
};

/// The rows, whose states are the inputs from `first` on and the outputs from 1 on.
std::vector<Row> rows_of(
    const std::vector<int>& lengths,
    const std::vector<mx::array>& inputs,
    std::size_t first,
    std::vector<mx::array>& outputs) {
  std::vector<Row> rows;
  std::size_t start = 0;
  for (std::size_t i = 0; i < lengths.size(); i++) {
    const auto& before = inputs[first + i];
    if (!before.flags().row_contiguous) {
      throw std::invalid_argument("a state does not lie in one piece");
    }
    const auto length = static_cast<std::size_t>(lengths[i]);
    rows.push_back({start, length, before.data<float>(), outputs[1 + i].data<float>()});
    start += length;
  }
  return rows;
}

class Convolve : public CpuPrimitives {
 public:
  Convolve(mx::Stream stream, std::vector<int> lengths, bool bias, bool silu)
      : CpuPrimitives(stream), lengths_(std::move(lengths)), bias_(bias), silu_(silu) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    for (auto& out : outputs) {
      allocate(out);
    }
    const Table& kernels = table();
    const Tokens x(inputs[0]);
    const float* weights = inputs[1].data<float>();
    const float* bias = bias_ ? inputs[2].data<float>() : nullptr;
    const std::size_t taps = inputs[1].shape(0), features = inputs[1].shape(1);
    const auto rows = rows_of(lengths_, inputs, bias_ ? 3 : 2, outputs);
    float* result = outputs[0].data<float>();
    dispatch(outputs[0], [=, &kernels, silu = silu_] {
      const std::size_t blocks = (features + FEATURES - 1) / FEATURES;
      for (const Row& row : rows) {
        const std::size_t kept = taps - 1;
        /// The token before `token` by `back`, of this step or of the state.
        const auto at = [&](std::size_t token, std::size_t back) {
          return back <= token ? x[row.start + token - back]
                               : row.before + (kept + token - back) * features;
        };
        for_each_of(row.length * blocks, std::min(features, FEATURES) * taps, [&](std::size_t piece) {
          const std::size_t token = piece / blocks, from = piece % blocks * FEATURES;
          std::vector<const float*> values(taps);
          for (std::size_t tap = 0; tap < taps; tap++) {
            values[tap] = at(token, kept - tap);
          }
          const Convolution convolution{
              values.data(), weights, bias, taps, features, silu,
              result + (row.start + token) * features};
          kernels.convolve(convolution, from, std::min(from + FEATURES, features));
        });
        for (std::size_t i = 0; i < kept; i++) {
          const float* last = at(row.length - 1, kept - 1 - i);
          std::memcpy(row.after + i * features, last, features * sizeof(float));
        }
      }
    });
  }

  const char* name() const override { return "mlxcel::Convolve"; }

 private:
  std::vector<int> lengths_;
  bool bias_;
  bool silu_;
};

/// `log(1 + e^x)`, as MLX's `logaddexp` has it.
float softplus(float x) {
  return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x)));
}

/// What `Recur` computes before the recurrence, for all tokens.
struct Prepared {
  /// `[tokens, 2 · keys]`, normalized queries and keys; of the delta rule only.
  float* turned;
  /// `[tokens, 2 · value_heads]`: decays, then rates.
  float* gates;
};

class Recur : public CpuPrimitives {
 public:
  Recur(mx::Stream stream, const Recurrent& layer, std::vector<int> lengths)
      : CpuPrimitives(stream),
        key_heads_(layer.key_heads),
        value_heads_(layer.value_heads),
        key_dim_(layer.key_dim),
        value_dim_(layer.value_dim),
        least_(layer.least),
        most_(layer.most),
        delta_(layer.is_delta()),
        lengths_(std::move(lengths)) {}

  /// `mixed`, `dt`, `rate`, `dt_bias`, then `beta` or `skip`, then the states.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate(outputs[0]);
    hold_once(inputs, outputs);
    for (std::size_t i = 1; i < outputs.size(); i++) {
      // Nobody else has the state: it is advanced where it is.
      const auto& before = inputs[4 + i];
      if (before.is_donatable() && before.flags().row_contiguous) {
        outputs[i].copy_shared_buffer(before);
      } else {
        allocate(outputs[i]);
      }
    }
    const std::size_t tokens = outputs[0].shape(0);
    const std::size_t turned = delta_ ? 2 * key_heads_ * key_dim_ : 0;
    Prepared prepared{nullptr, temporary(tokens * 2 * value_heads_)};
    if (delta_) {
      prepared.turned = temporary(tokens * turned);
    }
    prepare(inputs, prepared, outputs[0]);
    recur(inputs, outputs, prepared);
  }

  const char* name() const override { return "mlxcel::Recur"; }

 private:
  std::size_t key_heads_, value_heads_, key_dim_, value_dim_;
  float least_, most_;
  bool delta_;
  std::vector<int> lengths_;

  /// For `out`, which `recur` makes.
  void prepare(const std::vector<mx::array>& inputs, Prepared to, const mx::array& out) {
    const std::size_t tokens = out.shape(0);
    const Tokens mixed(inputs[0]), dt(inputs[1]);
    const Tokens beta = delta_ ? Tokens(inputs[4]) : dt;
    const float* rate = inputs[2].data<float>();
    const float* dt_bias = inputs[3].data<float>();
    dispatch(out, [=, &kernels = table(), heads = value_heads_, keys = key_heads_, dim = key_dim_,
                   least = least_, most = most_, delta = delta_] {
      // Keys of length 1, and queries of 1 / √dim.
      const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
      std::vector<float> scales(2 * dim, scale);
      std::fill_n(scales.begin(), dim, scale * scale);
      const float eps = 1e-6f / static_cast<float>(dim);
      for_each_of(tokens, delta ? 4 * keys * dim : 32 * heads, [&](std::size_t t) {
        float* decays = to.gates + t * 2 * heads;
        for (std::size_t h = 0; h < heads; h++) {
          const float step =
              std::min(std::max(softplus(dt[t][h] + dt_bias[h]), least), most);
          decays[h] = std::exp(rate[h] * step);
          decays[heads + h] = delta ? 1.0f / (1.0f + std::exp(-beta[t][h])) : step;
        }
        for (std::size_t h = 0; delta && h < 2 * keys; h++) {
          kernels.rms_norm(
              mixed[t] + h * dim, scales.data() + (h < keys ? 0 : dim), eps, dim,
              to.turned + (t * 2 * keys + h) * dim);
        }
      });
    });
  }

  void recur(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs,
      Prepared prepared) {
    const Tokens mixed(inputs[0]);
    const float* skip = delta_ ? nullptr : inputs[4].data<float>();
    const auto rows = rows_of(lengths_, inputs, 5, outputs);
    float* result = outputs[0].data<float>();
    dispatch(outputs[0], [=, &kernels = table(), heads = value_heads_, key_heads = key_heads_,
                          key_dim = key_dim_, value_dim = value_dim_, delta = delta_] {
      const std::size_t keys = key_heads * key_dim;
      const std::size_t width = kernels.recurrence_width();
      const std::size_t blocks = (value_dim + width - 1) / width;
      const std::size_t pieces = heads * blocks;
      parallel_for(rows.size() * pieces, [&](std::size_t piece) {
        const Row& row = rows[piece / pieces];
        const std::size_t h = piece % pieces / blocks, from = piece % blocks * width;
        const std::size_t k = h / (heads / key_heads);
        const float* mix = mixed[row.start];
        // Queries, keys, values; or values, keys, queries.
        const float* left = delta ? prepared.turned + row.start * 2 * keys : mix + heads * value_dim;
        const std::size_t stride = delta ? 2 * keys : static_cast<std::size_t>(mixed.stride);
        const float* gates = prepared.gates + row.start * 2 * heads;
        const std::size_t state = h * key_dim * value_dim;
        const Recurrence head{
            .keys = left + (delta ? keys : 0) + k * key_dim,
            .queries = left + (delta ? 0 : keys) + k * key_dim,
            .values = mix + (delta ? 2 * keys : 0) + h * value_dim,
            .key_stride = stride,
            .query_stride = stride,
            .value_stride = static_cast<std::size_t>(mixed.stride),
            .decays = gates + h,
            .rates = gates + heads + h,
            .gate_stride = 2 * heads,
            .skip = skip == nullptr ? nullptr : skip + h,
            .tokens = row.length,
            .key_dim = key_dim,
            .value_dim = value_dim,
            .delta = delta,
            .before = row.before + state,
            .after = row.after + state,
            .out = result + row.start * heads * value_dim + h * value_dim,
            .out_stride = heads * value_dim};
        kernels.recur(
            head, from, std::min(from + width, value_dim),
            scratch(kernels.recurrence_scratch(key_dim)));
      });
    });
  }
};

class Normalize : public CpuPrimitive {
 public:
  Normalize(mx::Stream stream, const GatedNorm& norm)
      : CpuPrimitive(stream), eps_(norm.eps), group_(norm.group), gate_first_(norm.gate_first) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    const Tokens x(inputs[0]), gate(inputs[1]);
    const float* weight = inputs[2].data<float>();
    const std::size_t weights = inputs[2].size();
    const std::size_t tokens = out.shape(0), features = out.shape(1);
    float* result = out.data<float>();
    dispatch(out, [=, &kernels = table(), eps = eps_, group = group_, gate_first = gate_first_] {
      const std::size_t groups = features / group;
      for_each_of(tokens * groups, 8 * group, [&](std::size_t piece) {
        const std::size_t token = piece / groups, first = piece % groups * group;
        const float* scale = weight + first % weights;
        float* target = result + token * features + first;
        float* other = scratch(group);
        if (gate_first) {
          kernels.activate(
              {Activation::Kind::silu}, gate[token] + first, x[token] + first, group, other);
          kernels.rms_norm(other, scale, eps, group, target);
        } else {
          kernels.rms_norm(x[token] + first, scale, eps, group, other);
          kernels.activate({Activation::Kind::silu}, gate[token] + first, other, group, target);
        }
      });
    });
  }

  const char* name() const override { return "mlxcel::Normalize"; }

 private:
  float eps_;
  std::size_t group_;
  bool gate_first_;
};

/// Shapes and types of what the rows carry, `shape` being that of a state.
void check(const Carried& carried, int tokens, const mx::Shape& shape) {
  int total = 0;
  for (int length : carried.lengths) {
    total += length;
    if (length < 1) {
      throw std::invalid_argument("a row without tokens");
    }
  }
  if (total != tokens || carried.lengths.size() != carried.states.size()) {
    throw std::invalid_argument("the rows' tokens are not those of the step");
  }
  for (const auto& state : carried.states) {
    if (state.shape() != shape) {
      throw std::invalid_argument("a state is not of the layer's shape");
    }
  }
}

Advanced advanced(
    const mx::Shape& out,
    const mx::Shape& state,
    std::shared_ptr<mx::Primitive> primitive,
    std::vector<mx::array> inputs,
    const Carried& carried) {
  inputs.insert(inputs.end(), carried.states.begin(), carried.states.end());
  std::vector<mx::Shape> shapes(1 + carried.states.size(), state);
  shapes[0] = out;
  return mx::array::make_arrays(
      std::move(shapes), std::vector<mx::Dtype>(shapes.size(), mx::float32), primitive, inputs);
}

} // namespace
} // namespace kernels

using namespace kernels;

Advanced convolve(const mx::array& x, const ShortConv& conv, const Carried& carried) {
  if (x.ndim() != 2 || x.shape(1) != conv.features()) {
    throw std::invalid_argument("a convolution wants [tokens, features]");
  }
  const mx::Shape state{conv.taps() - 1, conv.features()};
  check(carried, x.shape(0), state);
  if (!has_kernels(x) || conv.weight.dtype() != mx::float32) {
    return graph::convolve(x, conv, carried);
  }
  std::vector<mx::array> inputs{x, conv.weight};
  if (conv.bias) {
    inputs.push_back(*conv.bias);
  }
  auto primitive = std::make_shared<Convolve>(
      cpu_stream(), carried.lengths, conv.bias.has_value(), conv.silu);
  return advanced(x.shape(), state, std::move(primitive), std::move(inputs), carried);
}

Advanced recur(const Mixed& mixed, const Recurrent& layer, const Carried& carried) {
  const int tokens = mixed.mixed.ndim() == 2 ? mixed.mixed.shape(0) : 0;
  const mx::Shape gates{tokens, layer.value_heads};
  if (mixed.mixed.ndim() != 2 || mixed.mixed.shape(1) != layer.features() ||
      mixed.dt.shape() != gates || mixed.beta.has_value() != layer.is_delta() ||
      (mixed.beta && mixed.beta->shape() != gates)) {
    throw std::invalid_argument("a recurrence wants its features and gates for every token");
  }
  const mx::Shape state{layer.value_heads, layer.key_dim, layer.value_dim};
  check(carried, tokens, state);
  if (!has_kernels(mixed.mixed)) {
    return graph::recur(mixed, layer, carried);
  }
  std::vector<mx::array> inputs{
      mixed.mixed, mixed.dt, layer.rate, layer.dt_bias, mixed.beta ? *mixed.beta : *layer.skip};
  auto primitive = std::make_shared<Recur>(cpu_stream(), layer, carried.lengths);
  return advanced(
      {tokens, layer.values()}, state, std::move(primitive), std::move(inputs), carried);
}

mx::array normalize_gated(const mx::array& x, const mx::array& gate, const GatedNorm& norm) {
  if (x.ndim() != 2 || gate.shape() != x.shape() || x.shape(1) % norm.group != 0 ||
      (norm.weight.size() != static_cast<std::size_t>(norm.group) &&
       norm.weight.size() != static_cast<std::size_t>(x.shape(1)))) {
    throw std::invalid_argument("a gated normalization wants groups of features and a gate for each");
  }
  if (!has_kernels(x) || norm.weight.dtype() != mx::float32) {
    return graph::normalize_gated(x, gate, norm);
  }
  auto primitive = std::make_shared<Normalize>(cpu_stream(), norm);
  return mx::array(x.shape(), mx::float32, std::move(primitive), {x, gate, norm.weight});
}

} // namespace mlxcel

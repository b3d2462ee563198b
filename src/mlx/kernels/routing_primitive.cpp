// The choice of experts.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "primitive.h"
#include "weight.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

constexpr float NEVER = -std::numeric_limits<float>::infinity();

/// What routing one token takes, kept from token to token.
class Router {
 public:
  Router(const Routing& routing, std::size_t experts)
      : routing_(routing), scores_(experts), ranks_(experts), order_(experts) {}

  void route(const float* logits, const float* correction, std::uint32_t* chosen, float* weights) {
    score(logits);
    for (std::size_t e = 0; e < scores_.size(); e++) {
      const float rank = correction == nullptr ? scores_[e] : scores_[e] + correction[e];
      ranks_[e] = std::isnan(rank) ? NEVER : rank;
    }
    if (routing_.groups > 1) {
      drop_groups();
    }
    const auto best = best_of(ranks_, routing_.choices);
    for (int i = 0; i < routing_.choices; i++) {
      chosen[i] = static_cast<std::uint32_t>(best[i]);
      weights[i] = scores_[best[i]];
    }
    weigh(weights);
  }

 private:
  void score(const float* logits) {
    std::copy_n(logits, scores_.size(), scores_.begin());
    if (routing_.scoring == Routing::Scoring::softmax) {
      softmax(scores_.data(), scores_.size());
    } else if (routing_.scoring == Routing::Scoring::sigmoid) {
      for (auto& score : scores_) {
        score = 1.0f / (1.0f + std::exp(-score));
      }
    }
  }

  void weigh(float* weights) const {
    const int count = routing_.choices;
    if (routing_.scoring == Routing::Scoring::softmax_of_chosen) {
      softmax(weights, count);
    }
    const float total =
        routing_.normalize ? std::accumulate(weights, weights + count, 0.0f) : 1.0f;
    for (int i = 0; i < count; i++) {
      weights[i] = weights[i] / total * routing_.scale;
    }
  }

  static void softmax(float* values, std::size_t count) {
    const float top = *std::max_element(values, values + count);
    float total = 0;
    for (std::size_t i = 0; i < count; i++) {
      values[i] = std::exp(values[i] - top);
      total += values[i];
    }
    for (std::size_t i = 0; i < count; i++) {
      values[i] /= total;
    }
  }

  /// The places of the `count` largest numbers, the largest first; of equals, the first.
  const std::vector<std::size_t>& best_of(const std::vector<float>& numbers, std::size_t count) {
    order_.resize(numbers.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::partial_sort(
        order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(count), order_.end(),
        [&](std::size_t a, std::size_t b) {
          return numbers[a] != numbers[b] ? numbers[a] > numbers[b] : a < b;
        });
    return order_;
  }

  /// Sets the ranks in all but the best groups to zero, as DeepSeek-V3 does; by a softmax DeepSeek-V2,
  /// where a group is as good as its best.
  void drop_groups() {
    const std::size_t size = ranks_.size() / routing_.groups;
    groups_.resize(routing_.groups);
    for (std::size_t g = 0; g < groups_.size(); g++) {
      float first = NEVER, second = NEVER;
      for (std::size_t e = g * size; e < (g + 1) * size; e++) {
        second = std::max(second, std::min(first, ranks_[e]));
        first = std::max(first, ranks_[e]);
      }
      groups_[g] = routing_.scoring == Routing::Scoring::softmax ? first : first + second;
    }
    const auto& order = best_of(groups_, groups_.size());
    for (std::size_t i = routing_.kept_groups; i < groups_.size(); i++) {
      const auto from = ranks_.begin() + static_cast<std::ptrdiff_t>(order[i] * size);
      std::fill_n(from, size, 0.0f);
    }
  }

  Routing routing_;
  std::vector<float> scores_, ranks_, groups_;
  std::vector<std::size_t> order_;
};

/// Gives the chosen experts and their weights.
class Route : public mx::Primitive {
 public:
  Route(mx::Stream stream, Routing routing) : Primitive(stream), routing_(routing) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    allocate(outputs[0]);
    allocate(outputs[1]);
    const std::size_t tokens = inputs[0].shape(0), experts = inputs[0].shape(1);
    const float* logits = inputs[0].data<float>();
    const std::ptrdiff_t token_stride = inputs[0].strides(0), stride = inputs[0].strides(1);
    const float* correction = inputs.size() > 1 ? inputs[1].data<float>() : nullptr;
    auto* chosen = outputs[0].data<std::uint32_t>();
    auto* weights = outputs[1].data<float>();
    mx::cpu::get_command_encoder(stream()).dispatch([=, routing = routing_] {
      Router router(routing, experts);
      std::vector<float> row(experts);
      for (std::size_t t = 0; t < tokens; t++) {
        for (std::size_t e = 0; e < experts; e++) {
          row[e] = logits
              [static_cast<std::ptrdiff_t>(t) * token_stride +
               static_cast<std::ptrdiff_t>(e) * stride];
        }
        const std::size_t place = t * static_cast<std::size_t>(routing.choices);
        router.route(row.data(), correction, chosen + place, weights + place);
      }
    });
  }

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::logic_error("mlxcel::Route runs on the CPU only");
  }

  const char* name() const override { return "mlxcel::Route"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return routing_ == static_cast<const Route&>(other).routing_;
  }

 private:
  Routing routing_;
};

} // namespace
} // namespace kernels

std::pair<mx::array, mx::array> route_tokens(
    const mx::array& logits, const mx::array* correction, const Routing& routing) {
  std::vector<mx::array> inputs{logits};
  if (correction != nullptr) {
    inputs.push_back(*correction);
  }
  const mx::Shape shape{logits.shape(0), routing.choices};
  auto primitive = std::make_shared<kernels::Route>(kernels::cpu_stream(), routing);
  auto outputs =
      mx::array::make_arrays({shape, shape}, {mx::uint32, mx::float32}, primitive, inputs);
  return {outputs[0], outputs[1]};
}

} // namespace mlxcel

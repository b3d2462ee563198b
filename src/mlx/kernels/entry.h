// What a product multiplies: an input of its primitive, or what a step before it makes of the inputs.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "operands.h"
#include "primitive.h"
#include "product_operands.h"

namespace mlxcel::kernels {

/// Fails unless `x` is `[tokens, columns]`.
inline void check_columns(const mlx::core::array& x, const Weight& weight) {
  if (x.ndim() != 2 || x.shape(1) != weight.columns() || weight.values.ndim() != 2) {
    throw std::invalid_argument(
        "a product of " + std::to_string(weight.columns()) + " columns wants [tokens, " +
        std::to_string(weight.columns()) + "]");
  }
}

/// Activations on their way into a product. A norm in front of it becomes a step of the product's own task
/// instead of a node of the graph; whoever else reads the norm computes it, too.
class Entry {
 public:
  enum class Takes { what_is_cheap, any_step };

  /// Of `x`, `[tokens, columns]`; appends the arrays that it needs to the `inputs` of the primitive, as the first.
  Entry(const mlx::core::array& x, Takes takes, std::vector<mlx::core::array>& inputs)
      : tokens_(x.shape(0)), columns_(x.shape(1)) {
    if (x.has_primitive() && x.status() == mlx::core::array::Status::unscheduled) {
      auto step = std::dynamic_pointer_cast<StepPrimitive>(x.primitive_ptr());
      if (step && (takes == Takes::any_step || step->is_cheap())) {
        step_ = std::move(step);
      }
    }
    if (step_) {
      inputs.insert(inputs.end(), x.inputs().begin(), x.inputs().end());
    } else {
      inputs.push_back(x);
    }
    inputs_ = inputs.size();
  }

  /// How many of the primitive's inputs are its own.
  std::size_t inputs() const { return inputs_; }

  /// Where the activations will be, and what makes them, to be run on the stream.
  std::pair<Rows, std::function<void()>> open(
      mlx::core::Stream stream, const mlx::core::array* inputs) const {
    if (!step_) {
      return {rows_of(inputs[0]), [] {}};
    }
    float* memory = temporary(stream, tokens_ * columns_);
    const Rows rows{memory, tokens_, columns_, static_cast<std::ptrdiff_t>(columns_), 1};
    return {rows, step_->task(inputs, memory)};
  }

  bool operator==(const Entry& other) const { return step_ == other.step_; }

 private:
  std::size_t tokens_, columns_;
  std::size_t inputs_ = 0;
  std::shared_ptr<StepPrimitive> step_;
};

} // namespace mlxcel::kernels

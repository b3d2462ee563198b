// Products with a checkpoint's matrices, and their rows.

#include <algorithm>
#include <vector>

#include "mlx/ops.h"

#include "entry.h"
#include "product_operands.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

class Product : public StepPrimitive {
 public:
  Product(mx::Stream stream, Entry entry, OperandPtr operand, bool residual)
      : StepPrimitive(stream), entry_(std::move(entry)), operand_(std::move(operand)), residual_(residual) {}

  std::function<void()> task(const mx::array* inputs, float* result) override {
    const Table& kernels = table();
    auto [x, enter] = entry_.open(stream(), inputs);
    float* packed = temporary(x.rows * kernels.products->packed_length(operand_->matrix));
    const Rows residual = residual_ ? rows_of(inputs[entry_.inputs()]) : Rows{};
    return [=, &kernels, x = x, enter = std::move(enter), operand = operand_] {
      const std::size_t stride = operand->matrix.rows;
      enter();
      pack_all(kernels, operand->matrix, x, packed);
      for_rows(operand->matrix, x.rows, [&](std::size_t from, std::size_t to) {
        float* memory = scratch(kernels.products->product_scratch(operand->matrix));
        float* part = result + from;
        kernels.products->product(operand->matrix, packed, x.rows, from, to, part, stride, memory);
        add_offset(kernels, *operand, x.rows, from, to, part, stride);
        for (std::size_t m = 0; m < residual.rows; m++) {
          const float* more = residual.data + static_cast<std::ptrdiff_t>(m) * residual.row_stride;
          if (residual.column_stride == 1) {
            kernels.add_to(part + m * stride, more + from, to - from);
          } else {
            for (std::size_t n = from; n < to; n++) {
              result[m * stride + n] += more[static_cast<std::ptrdiff_t>(n) * residual.column_stride];
            }
          }
        }
      });
    };
  }

  const char* name() const override { return "mlxcel::Product"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const Product&>(other);
    return entry_ == same.entry_ && operand_ == same.operand_ && residual_ == same.residual_;
  }

 private:
  Entry entry_;
  OperandPtr operand_;
  bool residual_;
};

class GatedProduct : public StepPrimitive {
 public:
  GatedProduct(mx::Stream stream, Entry entry, OperandPtr gate, OperandPtr up, Activation activation)
      : StepPrimitive(stream),
        entry_(std::move(entry)),
        gate_(std::move(gate)),
        up_(std::move(up)),
        activation_(activation) {}

  std::function<void()> task(const mx::array* inputs, float* result) override {
    const Table& kernels = table();
    auto [x, enter] = entry_.open(stream(), inputs);
    const bool shared = kernels.products->same_packing(gate_->matrix, up_->matrix);
    float* for_gate = temporary(x.rows * kernels.products->packed_length(gate_->matrix));
    float* for_up = shared ? for_gate : temporary(x.rows * kernels.products->packed_length(up_->matrix));
    return [=, &kernels, x = x, enter = std::move(enter), kept_gate = gate_, kept_up = up_,
            activation = activation_] {
      const Operand &gate = *kept_gate, &up = *kept_up;
      const std::size_t stride = gate.matrix.rows;
      enter();
      pack_all(kernels, gate.matrix, x, for_gate);
      if (!shared) {
        pack_all(kernels, up.matrix, x, for_up);
      }
      const std::size_t unpacked =
          std::max(kernels.products->product_scratch(gate.matrix), kernels.products->product_scratch(up.matrix));
      for_rows(gate.matrix, 2 * x.rows, [&](std::size_t from, std::size_t to) {
        float* memory = scratch(unpacked + x.rows * (to - from));
        float* factors = memory + unpacked;
        float* part = result + from;
        kernels.products->product(gate.matrix, for_gate, x.rows, from, to, part, stride, memory);
        add_offset(kernels, gate, x.rows, from, to, part, stride);
        kernels.products->product(up.matrix, for_up, x.rows, from, to, factors, to - from, memory);
        add_offset(kernels, up, x.rows, from, to, factors, to - from);
        for (std::size_t m = 0; m < x.rows; m++) {
          float* row = part + m * stride;
          kernels.activate(activation, row, factors + m * (to - from), to - from, row);
        }
      });
    };
  }

  const char* name() const override { return "mlxcel::GatedProduct"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const GatedProduct&>(other);
    return entry_ == same.entry_ && gate_ == same.gate_ && up_ == same.up_ &&
        activation_ == same.activation_;
  }

 private:
  Entry entry_;
  OperandPtr gate_, up_;
  Activation activation_;
};

class TakeRows : public CpuPrimitive {
 public:
  TakeRows(mx::Stream stream, OperandPtr operand)
      : CpuPrimitive(stream), operand_(std::move(operand)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    const Table& kernels = table();
    const auto* indices = inputs[0].data<std::int32_t>();
    const std::ptrdiff_t stride = inputs[0].strides(0);
    const std::size_t count = inputs[0].size();
    float* result = out.data<float>();
    dispatch(out, [=, &kernels, operand = operand_] {
      const std::size_t pieces = (count + PACKED_AT_ONCE - 1) / PACKED_AT_ONCE;
      parallel_for(pieces, [&](std::size_t piece) {
        const std::size_t from = piece * PACKED_AT_ONCE;
        for (std::size_t i = from; i < std::min(from + PACKED_AT_ONCE, count); i++) {
          const auto row = static_cast<std::size_t>(indices[static_cast<std::ptrdiff_t>(i) * stride]);
          float* memory = scratch(kernels.row_scratch(operand->matrix));
          kernels.unpack_row(operand->matrix, row, result + i * operand->matrix.columns, memory);
        }
      });
    });
  }

  const char* name() const override { return "mlxcel::TakeRows"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return operand_ == static_cast<const TakeRows&>(other).operand_;
  }

 private:
  OperandPtr operand_;
};

/// The product of what `enter` makes of the inputs.
mx::array product_of(
    const mx::array& x,
    Entry::Takes takes,
    const Weight& weight,
    const mx::array* residual) {
  check_columns(x, weight);
  std::vector<mx::array> inputs;
  Entry entry(x, takes, inputs);
  const mx::Shape shape{x.shape(0), weight.rows()};
  if (residual != nullptr) {
    if (residual->shape() != shape || residual->dtype() != mx::float32) {
      throw std::invalid_argument("the residual is not of the product's shape and type");
    }
    inputs.push_back(*residual);
  }
  auto primitive = std::make_shared<Product>(
      cpu_stream(), std::move(entry), operand_of(weight), residual != nullptr);
  return mx::array(shape, mx::float32, std::move(primitive), std::move(inputs));
}

} // namespace
} // namespace kernels

using namespace kernels;

mx::array product(const mx::array& x, const Weight& weight, const mx::array* residual) {
  return product_of(x, Entry::Takes::what_is_cheap, weight, residual);
}

mx::array gated_product(
    const mx::array& x, const Weight& gate, const Weight& up, Activation activation) {
  if (gate.rows() != up.rows() || gate.columns() != up.columns()) {
    throw std::invalid_argument("the gate's shape is not that of what it opens");
  }
  check_columns(x, gate);
  std::vector<mx::array> inputs;
  Entry entry(x, Entry::Takes::what_is_cheap, inputs);
  auto primitive = std::make_shared<GatedProduct>(
      cpu_stream(), std::move(entry), operand_of(gate), operand_of(up), activation);
  return mx::array(
      {x.shape(0), gate.rows()}, mx::float32, std::move(primitive), std::move(inputs));
}

mx::array gated_mlp(
    const mx::array& x,
    const Weight& gate,
    const Weight& up,
    Activation activation,
    const Weight& down,
    const mx::array* residual) {
  return product_of(gated_product(x, gate, up, activation), Entry::Takes::any_step, down, residual);
}

mx::array take_rows(const Weight& weight, const mx::array& indices) {
  if (indices.ndim() != 1 || (indices.dtype() != mx::uint32 && indices.dtype() != mx::int32)) {
    throw std::invalid_argument("rows are taken by a vector of 32-bit integers");
  }
  auto primitive = std::make_shared<TakeRows>(cpu_stream(), operand_of(weight));
  return mx::array(
      {indices.shape(0), weight.columns()}, mx::float32, std::move(primitive), {indices});
}

bool has_kernels(const mx::array& x) {
  return x.dtype() == mx::float32 && mx::default_device() == mx::Device::cpu;
}

} // namespace mlxcel

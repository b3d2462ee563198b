// Products with a checkpoint's matrices, and their rows.

#include <algorithm>
#include <vector>

#include "mlx/ops.h"

#include "product_operands.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

void pack_all(const Table& kernels, const Matrix& matrix, const Rows& x, float* packed) {
  const std::size_t pieces = (x.rows + PACKED_AT_ONCE - 1) / PACKED_AT_ONCE;
  parallel_for(pieces, [&](std::size_t piece) {
    const std::size_t from = piece * PACKED_AT_ONCE;
    kernels.pack(matrix, x, from, std::min(from + PACKED_AT_ONCE, x.rows), packed);
  });
}

/// Calls `work` with ranges of the matrix' rows on all threads.
template <class Work>
void for_rows(const Matrix& matrix, std::size_t count, Work work) {
  const std::size_t step = rows_at_once(matrix.rows, matrix.columns, count);
  parallel_for((matrix.rows + step - 1) / step, [&](std::size_t piece) {
    const std::size_t from = piece * step;
    work(from, std::min(from + step, matrix.rows));
  });
}

class Product : public CpuPrimitive {
 public:
  Product(mx::Stream stream, Layout layout, bool residual)
      : CpuPrimitive(stream), layout_(layout), residual_(residual) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    std::size_t next = 1;
    const Operand operand(layout_, inputs, next);
    const Table& kernels = table();
    const Rows x = rows_of(inputs[0]);
    float* packed = temporary(x.rows * kernels.packed_length(operand.matrix));
    float* result = out.data<float>();
    const Rows residual = residual_ ? rows_of(inputs[next]) : Rows{};
    dispatch([=, &kernels] {
      const std::size_t stride = operand.matrix.rows;
      pack_all(kernels, operand.matrix, x, packed);
      for_rows(operand.matrix, x.rows, [&](std::size_t from, std::size_t to) {
        float* memory = scratch(kernels.product_scratch(operand.matrix));
        float* part = result + from;
        kernels.product(operand.matrix, packed, x.rows, from, to, part, stride, memory);
        add_offset(kernels, operand, x.rows, from, to, part, stride);
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
    });
  }

  const char* name() const override { return "mlxcel::Product"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const Product&>(other);
    return layout_ == same.layout_ && residual_ == same.residual_;
  }

 private:
  Layout layout_;
  bool residual_;
};

class GatedProduct : public CpuPrimitive {
 public:
  GatedProduct(mx::Stream stream, Layout gate, Layout up, Activation activation)
      : CpuPrimitive(stream), gate_(gate), up_(up), activation_(activation) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    std::size_t next = 1;
    const Operand gate(gate_, inputs, next);
    const Operand up(up_, inputs, next);
    const Table& kernels = table();
    const Rows x = rows_of(inputs[0]);
    const bool shared = kernels.same_packing(gate.matrix, up.matrix);
    float* for_gate = temporary(x.rows * kernels.packed_length(gate.matrix));
    float* for_up = shared ? for_gate : temporary(x.rows * kernels.packed_length(up.matrix));
    float* result = out.data<float>();
    dispatch([=, &kernels, activation = activation_] {
      const std::size_t stride = gate.matrix.rows;
      pack_all(kernels, gate.matrix, x, for_gate);
      if (!shared) {
        pack_all(kernels, up.matrix, x, for_up);
      }
      const std::size_t unpacked =
          std::max(kernels.product_scratch(gate.matrix), kernels.product_scratch(up.matrix));
      for_rows(gate.matrix, 2 * x.rows, [&](std::size_t from, std::size_t to) {
        float* memory = scratch(unpacked + x.rows * (to - from));
        float* factors = memory + unpacked;
        float* part = result + from;
        kernels.product(gate.matrix, for_gate, x.rows, from, to, part, stride, memory);
        add_offset(kernels, gate, x.rows, from, to, part, stride);
        kernels.product(up.matrix, for_up, x.rows, from, to, factors, to - from, memory);
        add_offset(kernels, up, x.rows, from, to, factors, to - from);
        for (std::size_t m = 0; m < x.rows; m++) {
          float* row = part + m * stride;
          kernels.activate(activation, row, factors + m * (to - from), to - from, row);
        }
      });
    });
  }

  const char* name() const override { return "mlxcel::GatedProduct"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const GatedProduct&>(other);
    return gate_ == same.gate_ && up_ == same.up_ && activation_ == same.activation_;
  }

 private:
  Layout gate_, up_;
  Activation activation_;
};

class TakeRows : public CpuPrimitive {
 public:
  TakeRows(mx::Stream stream, Layout layout) : CpuPrimitive(stream), layout_(layout) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    std::size_t next = 1;
    const Operand operand(layout_, inputs, next);
    const Table& kernels = table();
    const auto* indices = inputs[0].data<std::int32_t>();
    const std::ptrdiff_t stride = inputs[0].strides(0);
    const std::size_t count = inputs[0].size();
    float* result = out.data<float>();
    dispatch([=, &kernels] {
      const std::size_t pieces = (count + PACKED_AT_ONCE - 1) / PACKED_AT_ONCE;
      parallel_for(pieces, [&](std::size_t piece) {
        const std::size_t from = piece * PACKED_AT_ONCE;
        for (std::size_t i = from; i < std::min(from + PACKED_AT_ONCE, count); i++) {
          const auto row = static_cast<std::size_t>(indices[static_cast<std::ptrdiff_t>(i) * stride]);
          float* memory = scratch(kernels.packed_length(operand.matrix));
          kernels.unpack_row(operand.matrix, row, result + i * operand.matrix.columns, memory);
        }
      });
    });
  }

  const char* name() const override { return "mlxcel::TakeRows"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return layout_ == static_cast<const TakeRows&>(other).layout_;
  }

 private:
  Layout layout_;
};

mx::array matrix_of_tokens(const mx::array& x, const Weight& weight) {
  if (x.ndim() != 2 || x.shape(1) != weight.columns() || weight.values.ndim() != 2) {
    throw std::invalid_argument(
        "a product of " + std::to_string(weight.columns()) + " columns wants [tokens, " +
        std::to_string(weight.columns()) + "]");
  }
  return x;
}

} // namespace
} // namespace kernels

using namespace kernels;

mx::array product(const mx::array& x, const Weight& weight, const mx::array* residual) {
  std::vector<mx::array> inputs{matrix_of_tokens(x, weight)};
  push(inputs, weight);
  const mx::Shape shape{x.shape(0), weight.rows()};
  if (residual != nullptr) {
    if (residual->shape() != shape || residual->dtype() != mx::float32) {
      throw std::invalid_argument("the residual is not of the product's shape and type");
    }
    inputs.push_back(*residual);
  }
  auto primitive = std::make_shared<Product>(cpu_stream(), Layout(weight), residual != nullptr);
  return mx::array(shape, mx::float32, std::move(primitive), std::move(inputs));
}

mx::array gated_product(
    const mx::array& x, const Weight& gate, const Weight& up, Activation activation) {
  if (gate.rows() != up.rows() || gate.columns() != up.columns()) {
    throw std::invalid_argument("the gate's shape is not that of what it opens");
  }
  std::vector<mx::array> inputs{matrix_of_tokens(x, gate)};
  push(inputs, gate);
  push(inputs, up);
  auto primitive = std::make_shared<GatedProduct>(
      cpu_stream(), Layout(gate), Layout(up), activation);
  return mx::array(
      {x.shape(0), gate.rows()}, mx::float32, std::move(primitive), std::move(inputs));
}

mx::array take_rows(const Weight& weight, const mx::array& indices) {
  if (indices.ndim() != 1 || (indices.dtype() != mx::uint32 && indices.dtype() != mx::int32)) {
    throw std::invalid_argument("rows are taken by a vector of 32-bit integers");
  }
  std::vector<mx::array> inputs{indices};
  push(inputs, weight);
  auto primitive = std::make_shared<TakeRows>(cpu_stream(), Layout(weight));
  return mx::array(
      {indices.shape(0), weight.columns()}, mx::float32, std::move(primitive), std::move(inputs));
}

bool has_kernels(const mx::array& x) {
  return x.dtype() == mx::float32 && mx::default_device() == mx::Device::cpu;
}

} // namespace mlxcel

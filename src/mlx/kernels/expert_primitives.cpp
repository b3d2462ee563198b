// Products of tokens with the matrices of their experts.
//
// The pairs of a token and an expert are sorted by expert, so that a matrix is unpacked once for all of
// its tokens. A pair's product is the one that a dense layer would give, in any company.

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "mlx/ops.h"

#include "product_operands.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

/// Which experts each token chose: `[tokens, k]`.
struct Choices {
  const std::uint32_t* data;
  std::size_t tokens;
  std::size_t each;
  std::ptrdiff_t token_stride;
  std::ptrdiff_t choice_stride;

  explicit Choices(const mx::array& array)
      : data(array.data<std::uint32_t>()),
        tokens(array.shape(0)),
        each(array.shape(1)),
        token_stride(array.strides(0)),
        choice_stride(array.strides(1)) {}

  std::size_t pairs() const { return tokens * each; }
  std::size_t of(std::size_t pair) const {
    return data[static_cast<std::ptrdiff_t>(pair / each) * token_stride +
                static_cast<std::ptrdiff_t>(pair % each) * choice_stride];
  }
};

/// The pairs sorted by expert, those of one expert in the order of the tokens.
struct Sorted {
  std::vector<std::size_t> pairs;
  /// Where each expert's pairs begin, and the end of the last one's.
  std::vector<std::size_t> starts;

  Sorted(const Choices& choices, std::size_t experts) : pairs(choices.pairs()), starts(experts + 1) {
    // An expert that there is not would be read from outside of the matrices.
    const auto expert = [&](std::size_t pair) { return std::min(choices.of(pair), experts - 1); };
    for (std::size_t pair = 0; pair < pairs.size(); pair++) {
      starts[expert(pair) + 1]++;
    }
    for (std::size_t e = 0; e < experts; e++) {
      starts[e + 1] += starts[e];
    }
    auto next = starts;
    for (std::size_t pair = 0; pair < pairs.size(); pair++) {
      pairs[next[expert(pair)]++] = pair;
    }
  }
};

/// Some rows of one expert's matrix, to be multiplied with all of its tokens.
struct Piece {
  std::size_t expert, from, to;
};

std::vector<Piece> cut(const Sorted& sorted, std::size_t rows, std::size_t columns) {
  std::vector<Piece> pieces;
  for (std::size_t e = 0; e + 1 < sorted.starts.size(); e++) {
    const std::size_t count = sorted.starts[e + 1] - sorted.starts[e];
    if (count == 0) {
      continue;
    }
    const std::size_t step = rows_at_once(rows, columns, sorted.pairs.size());
    for (std::size_t from = 0; from < rows; from += step) {
      pieces.push_back({e, from, std::min(from + step, rows)});
    }
  }
  return pieces;
}

/// The pairs' activations in the order of `sorted`, laid out for `matrix`.
void pack_sorted(
    const Table& kernels, const Matrix& matrix, const Rows& x, const Choices& choices,
    const Sorted& sorted, float* packed) {
  const std::size_t length = kernels.products->packed_length(matrix), count = sorted.pairs.size();
  // One row a token, or one a pair.
  const std::size_t sharing = x.rows == count ? 1 : choices.each;
  parallel_for((count + PACKED_AT_ONCE - 1) / PACKED_AT_ONCE, [&](std::size_t piece) {
    const std::size_t from = piece * PACKED_AT_ONCE;
    for (std::size_t i = from; i < std::min(from + PACKED_AT_ONCE, count); i++) {
      Rows one = x;
      one.data += static_cast<std::ptrdiff_t>(sorted.pairs[i] / sharing) * x.row_stride;
      one.rows = 1;
      kernels.products->pack(matrix, one, 0, 1, packed + i * length);
    }
  });
}

/// The products of a piece, the pairs behind one another: `[pairs, to - from]`.
void multiply(
    const Table& kernels, const Operand& operand, const float* packed, const Sorted& sorted,
    const Piece& piece, float* out, float* memory) {
  const std::size_t first = sorted.starts[piece.expert];
  const std::size_t count = sorted.starts[piece.expert + 1] - first, width = piece.to - piece.from;
  const std::size_t from = piece.expert * operand.rows() + piece.from;
  const float* rows = packed + first * kernels.products->packed_length(operand.matrix);
  kernels.products->product(operand.matrix, rows, count, from, from + width, out, width, memory);
  if (operand.factors != nullptr) {
    for (std::size_t i = 0; i < count * width; i++) {
      out[i] *= operand.factors[piece.expert];
    }
  }
  add_offset(kernels, operand, count, from, from + width, out, width);
}

/// Puts the products of a piece where their pairs belong: `[tokens · k, rows]`.
void scatter(
    const Sorted& sorted, const Piece& piece, std::size_t rows, const float* products, float* out) {
  const std::size_t first = sorted.starts[piece.expert], width = piece.to - piece.from;
  for (std::size_t i = first; i < sorted.starts[piece.expert + 1]; i++) {
    float* target = out + sorted.pairs[i] * rows + piece.from;
    std::memcpy(target, products + (i - first) * width, width * sizeof(float));
  }
}

/// The products of all pairs, `[tokens · k, rows]`.
void multiply_all(
    const Table& kernels, const Operand& operand, const Rows& x, const Choices& choices, float* packed,
    float* out) {
  const Sorted sorted(choices, operand.experts);
  pack_sorted(kernels, operand.matrix, x, choices, sorted, packed);
  const auto pieces = cut(sorted, operand.rows(), operand.matrix.columns);
  const std::size_t unpacked = kernels.products->product_scratch(operand.matrix);
  parallel_for(pieces.size(), [&](std::size_t i) {
    const Piece& piece = pieces[i];
    const std::size_t count = sorted.starts[piece.expert + 1] - sorted.starts[piece.expert];
    float* memory = scratch(unpacked + count * (piece.to - piece.from));
    float* products = memory + unpacked;
    multiply(kernels, operand, packed, sorted, piece, products, memory);
    scatter(sorted, piece, operand.rows(), products, out);
  });
}

class GatheredProduct : public CpuPrimitive {
 public:
  GatheredProduct(mx::Stream stream, OperandPtr operand)
      : CpuPrimitive(stream), operand_(std::move(operand)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    const Table& kernels = table();
    const Rows x = rows_of(inputs[0]);
    const Choices choices(inputs[1]);
    float* packed = temporary(choices.pairs() * kernels.products->packed_length(operand_->matrix));
    float* result = out.data<float>();
    dispatch(out, [=, &kernels, operand = operand_] {
      multiply_all(kernels, *operand, x, choices, packed, result);
    });
  }

  const char* name() const override { return "mlxcel::GatheredProduct"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return operand_ == static_cast<const GatheredProduct&>(other).operand_;
  }

 private:
  OperandPtr operand_;
};

class GatheredGate : public CpuPrimitive {
 public:
  GatheredGate(mx::Stream stream, OperandPtr gate, OperandPtr up, Gate opening)
      : CpuPrimitive(stream), gate_(std::move(gate)), up_(std::move(up)), opening_(opening) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    const Table& kernels = table();
    const Rows x = rows_of(inputs[0]);
    const Choices choices(inputs[1]);
    const bool shared = kernels.products->same_packing(gate_->matrix, up_->matrix);
    float* for_gate = temporary(choices.pairs() * kernels.products->packed_length(gate_->matrix));
    float* for_up =
        shared ? for_gate : temporary(choices.pairs() * kernels.products->packed_length(up_->matrix));
    float* result = out.data<float>();
    dispatch(out, [=, &kernels, opening = opening_, kept_gate = gate_, kept_up = up_] {
      const Operand &gate = *kept_gate, &up = *kept_up;
      const Sorted sorted(choices, gate.experts);
      pack_sorted(kernels, gate.matrix, x, choices, sorted, for_gate);
      if (!shared) {
        pack_sorted(kernels, up.matrix, x, choices, sorted, for_up);
      }
      const auto pieces = cut(sorted, gate.rows(), 2 * gate.matrix.columns);
      const std::size_t unpacked =
          std::max(kernels.products->product_scratch(gate.matrix), kernels.products->product_scratch(up.matrix));
      parallel_for(pieces.size(), [&](std::size_t i) {
        const Piece& piece = pieces[i];
        const std::size_t count = sorted.starts[piece.expert + 1] - sorted.starts[piece.expert];
        const std::size_t size = count * (piece.to - piece.from);
        float* memory = scratch(unpacked + 2 * size);
        float* opened = memory + unpacked;
        float* factors = opened + size;
        multiply(kernels, gate, for_gate, sorted, piece, opened, memory);
        multiply(kernels, up, for_up, sorted, piece, factors, memory);
        // By rows: where one ends within a vector must not depend on the others.
        const std::size_t width = piece.to - piece.from;
        for (std::size_t m = 0; m < count; m++) {
          open(kernels, opening, opened + m * width, factors + m * width, width);
        }
        scatter(sorted, piece, gate.rows(), opened, result);
      });
    });
  }

  const char* name() const override { return "mlxcel::GatheredGate"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const GatheredGate&>(other);
    return gate_ == same.gate_ && up_ == same.up_ && opening_ == same.opening_;
  }

 private:
  static void open(
      const Table& kernels, const Gate& opening, float* gate, const float* up, std::size_t size) {
    if (opening.clamped) {
      kernels.clamped_silu_multiply(gate, up, opening.alpha, opening.limit, size);
    } else {
      kernels.activate(opening.activation, gate, up, size, gate);
    }
  }

  OperandPtr gate_, up_;
  Gate opening_;
};

class GatheredSum : public CpuPrimitive {
 public:
  GatheredSum(mx::Stream stream, OperandPtr operand, bool residual)
      : CpuPrimitive(stream), operand_(std::move(operand)), residual_(residual) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    allocate(out);
    const Table& kernels = table();
    const Rows x = rows_of(inputs[0]);
    const Choices choices(inputs[1]);
    const Rows weights = rows_of(inputs[2]);
    const Rows residual = residual_ ? rows_of(inputs[3]) : Rows{};
    const std::size_t rows = operand_->rows();
    float* packed = temporary(choices.pairs() * kernels.products->packed_length(operand_->matrix));
    float* products = temporary(choices.pairs() * rows);
    float* result = out.data<float>();
    dispatch(out, [=, &kernels, operand = operand_] {
      multiply_all(kernels, *operand, x, choices, packed, products);
      parallel_for(choices.tokens, [&](std::size_t token) {
        float* sum = result + token * rows;
        for (std::size_t n = 0; n < rows; n++) {
          sum[n] = residual.data == nullptr
              ? 0.0f
              : residual.data[static_cast<std::ptrdiff_t>(token) * residual.row_stride +
                              static_cast<std::ptrdiff_t>(n) * residual.column_stride];
        }
        for (std::size_t i = 0; i < choices.each; i++) {
          const float weight = weights.data
              [static_cast<std::ptrdiff_t>(token) * weights.row_stride +
               static_cast<std::ptrdiff_t>(i) * weights.column_stride];
          kernels.add_scaled(sum, products + (token * choices.each + i) * rows, weight, rows);
        }
      });
    });
  }

  const char* name() const override { return "mlxcel::GatheredSum"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const GatheredSum&>(other);
    return operand_ == same.operand_ && residual_ == same.residual_;
  }

 private:
  OperandPtr operand_;
  bool residual_;
};

/// Fails unless these can be multiplied.
void check(const mx::array& x, const Weight& weight, const mx::array& choices) {
  const bool chosen = choices.ndim() == 2 && choices.dtype() == mx::uint32;
  const bool fits = chosen && x.ndim() == 2 && x.shape(1) == weight.columns() &&
      (x.shape(0) == choices.shape(0) || x.shape(0) == choices.shape(0) * choices.shape(1));
  if (!fits || weight.values.ndim() != 3) {
    throw std::invalid_argument(
        "experts of " + std::to_string(weight.columns()) +
        " columns want [tokens, columns] and choices [tokens, k]");
  }
}

} // namespace
} // namespace kernels

using namespace kernels;

mx::array gathered_product(const mx::array& x, const Weight& weight, const mx::array& choices) {
  check(x, weight, choices);
  const mx::Shape shape{choices.shape(0) * choices.shape(1), weight.rows()};
  auto primitive = std::make_shared<GatheredProduct>(cpu_stream(), operand_of(weight));
  return mx::array(shape, mx::float32, std::move(primitive), {x, choices});
}

mx::array gathered_gate(
    const mx::array& x, const Weight& gate, const Weight& up, const mx::array& choices,
    const Gate& opening) {
  check(x, gate, choices);
  check(x, up, choices);
  if (gate.rows() != up.rows() || gate.experts() != up.experts()) {
    throw std::invalid_argument("the gate's shape is not that of what it opens");
  }
  const mx::Shape shape{choices.shape(0) * choices.shape(1), gate.rows()};
  auto primitive =
      std::make_shared<GatheredGate>(cpu_stream(), operand_of(gate), operand_of(up), opening);
  return mx::array(shape, mx::float32, std::move(primitive), {x, choices});
}

mx::array gathered_sum(
    const mx::array& x, const Weight& weight, const mx::array& choices, const mx::array& weights,
    const mx::array* residual) {
  check(x, weight, choices);
  if (weights.shape() != choices.shape() || weights.dtype() != mx::float32) {
    throw std::invalid_argument("every choice has one weight");
  }
  std::vector<mx::array> inputs{x, choices, weights};
  const mx::Shape shape{choices.shape(0), weight.rows()};
  if (residual != nullptr) {
    if (residual->shape() != shape || residual->dtype() != mx::float32) {
      throw std::invalid_argument("the residual is not of the product's shape and type");
    }
    inputs.push_back(*residual);
  }
  auto primitive =
      std::make_shared<GatheredSum>(cpu_stream(), operand_of(weight), residual != nullptr);
  return mx::array(shape, mx::float32, std::move(primitive), std::move(inputs));
}

} // namespace mlxcel

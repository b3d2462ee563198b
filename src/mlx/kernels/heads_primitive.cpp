// The projections that attention begins with.

#include <algorithm>
#include <vector>

#include "entry.h"
#include "product_operands.h"
#include "rotary.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

/// One of the projections of a task.
struct Projected {
  const Operand* operand;
  /// The tokens, laid out for it.
  float* packed;
  bool packs;
  /// `[tokens, rows]`.
  float* products;
  /// Where normalized and turned heads go; the products stay where they are if null.
  float* heads = nullptr;
  /// One a feature of a head, or null.
  const float* norm = nullptr;

  std::size_t rows() const { return operand->matrix.rows; }
};

/// The matrices go through the pool as one, and what comes behind is done while the products are in the cache.
class ProjectHeads : public CpuPrimitives {
 public:
  ProjectHeads(
      mx::Stream stream, Entry entry, std::array<OperandPtr, 3> operands, bool norms, bool turns, HeadsFormat format)
      : CpuPrimitives(stream),
        entry_(std::move(entry)),
        operands_(std::move(operands)),
        norms_(norms),
        turns_(turns),
        format_(format) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const Table& kernels = table();
    auto [x, enter] = entry_.open(stream(), inputs.data());
    const mx::array* rest = inputs.data() + entry_.inputs();
    std::array<Projected, 3> all;
    for (std::size_t i = 0; i < all.size(); i++) {
      allocate(outputs[i]);
      const Matrix& matrix = operands_[i]->matrix;
      const bool packs = i == 0 || !kernels.products->same_packing(matrix, operands_[0]->matrix);
      float* out = outputs[i].data<float>();
      all[i] = {
          .operand = operands_[i].get(),
          .packed = packs ? temporary(x.rows * kernels.products->packed_length(matrix)) : all[0].packed,
          .packs = packs,
          .products = out};
      if (i < 2 && (norms_ || turns_)) {
        all[i].heads = out;
        all[i].products = temporary(x.rows * matrix.rows);
        all[i].norm = norms_ ? rest[i].data<float>() : nullptr;
      }
    }
    rest += norms_ ? 2 : 0;
    const auto* positions = rest[0].data<std::int32_t>();
    const std::ptrdiff_t position_stride = rest[0].size() == 1 ? 0 : rest[0].strides(0);
    const float* frequencies = turns_ ? rest[1].data<float>() : nullptr;
    const std::size_t pairs = turns_ ? rest[1].size() : 0;
    dispatch(outputs[0], [=, &kernels, x = x, enter = std::move(enter), kept = operands_, format = format_] {
      enter();
      multiply(kernels, x, all);
      if (all[0].heads == nullptr) {
        return;
      }
      const std::size_t features = all[0].rows() + all[1].rows();
      for_each_of(x.rows, features, [&](std::size_t token) {
        float* cosines = scratch(2 * pairs + format.dim);
        float* sines = cosines + pairs;
        const std::int32_t position = positions[static_cast<std::ptrdiff_t>(token) * position_stride];
        angles_of(position, frequencies, pairs, format.amplitude, cosines, sines);
        for (std::size_t i = 0; i < 2; i++) {
          finish(kernels, all[i], token, format, cosines, sines, pairs, sines + pairs);
        }
      });
    });
  }

  const char* name() const override { return "mlxcel::ProjectHeads"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& same = static_cast<const ProjectHeads&>(other);
    return entry_ == same.entry_ && operands_ == same.operands_ && norms_ == same.norms_ &&
        turns_ == same.turns_ && format_ == same.format_;
  }

 private:
  /// All products, the matrices' rows behind one another over all threads.
  static void multiply(const Table& kernels, const Rows& x, const std::array<Projected, 3>& all) {
    std::array<std::size_t, 3> steps, pieces;
    for (std::size_t i = 0; i < all.size(); i++) {
      const Matrix& matrix = all[i].operand->matrix;
      if (all[i].packs) {
        pack_all(kernels, matrix, x, all[i].packed);
      }
      steps[i] = rows_at_once(matrix.rows, matrix.columns, x.rows);
      pieces[i] = (matrix.rows + steps[i] - 1) / steps[i];
    }
    parallel_for(pieces[0] + pieces[1] + pieces[2], [&](std::size_t piece) {
      std::size_t i = 0;
      for (; piece >= pieces[i]; i++) {
        piece -= pieces[i];
      }
      const Projected& at = all[i];
      const Matrix& matrix = at.operand->matrix;
      const std::size_t from = piece * steps[i], to = std::min(from + steps[i], matrix.rows);
      float* part = at.products + from;
      float* memory = scratch(kernels.products->product_scratch(matrix));
      kernels.products->product(matrix, at.packed, x.rows, from, to, part, matrix.rows, memory);
      add_offset(kernels, *at.operand, x.rows, from, to, part, matrix.rows);
    });
  }

  /// The heads of one token; `copy` holds one of them.
  static void finish(
      const Table& kernels,
      const Projected& at,
      std::size_t token,
      const HeadsFormat& format,
      const float* cosines,
      const float* sines,
      std::size_t pairs,
      float* copy) {
    const auto dim = static_cast<std::size_t>(format.dim);
    for (std::size_t head = 0; head < at.rows(); head += dim) {
      const float* source = at.products + token * at.rows() + head;
      float* target = at.heads + token * at.rows() + head;
      if (at.norm != nullptr) {
        float* normed = pairs > 0 ? copy : target;
        kernels.rms_norm(source, at.norm, format.eps, dim, normed);
        source = normed;
      }
      if (pairs > 0) {
        kernels.rotate(source, cosines, sines, pairs, dim, format.traditional, target);
      }
    }
  }

  Entry entry_;
  std::array<OperandPtr, 3> operands_;
  bool norms_;
  bool turns_;
  HeadsFormat format_;
};

} // namespace
} // namespace kernels

using namespace kernels;

std::vector<mx::array> project_heads(
    const mx::array& x,
    const std::array<const Weight*, 3>& weights,
    const std::vector<mx::array>& norms,
    const mx::array* frequencies,
    const mx::array& positions,
    HeadsFormat format) {
  std::vector<mx::Shape> shapes;
  std::array<OperandPtr, 3> operands;
  for (std::size_t i = 0; i < weights.size(); i++) {
    const Weight& weight = *weights[i];
    check_columns(x, weight);
    if (format.dim < 1 || weight.rows() % format.dim != 0) {
      throw std::invalid_argument("a projection has whole heads");
    }
    shapes.push_back({x.shape(0), weight.rows() / format.dim, 1, format.dim});
    operands[i] = operand_of(weight);
  }
  for (const auto& norm : norms) {
    if (norms.size() != 2 || norm.shape() != mx::Shape{format.dim} || norm.dtype() != mx::float32) {
      throw std::invalid_argument("queries and keys have a norm each, of one weight a feature of a head");
    }
  }
  const bool one_each = positions.ndim() == 1 && positions.shape(0) == x.shape(0);
  const bool turns = frequencies != nullptr;
  if (!one_each || positions.dtype() != mx::int32 ||
      (turns && (frequencies->ndim() != 1 || 2 * frequencies->shape(0) > format.dim ||
                 frequencies->dtype() != mx::float32))) {
    throw std::invalid_argument("every token has an int32 position, and a head two features a frequency");
  }
  std::vector<mx::array> inputs;
  Entry entry(x, Entry::Takes::what_is_cheap, inputs);
  inputs.insert(inputs.end(), norms.begin(), norms.end());
  inputs.push_back(positions);
  if (turns) {
    inputs.push_back(*frequencies);
  }
  auto primitive = std::make_shared<ProjectHeads>(
      cpu_stream(), std::move(entry), std::move(operands), !norms.empty(), turns, format);
  return mx::array::make_arrays(
      std::move(shapes), {mx::float32, mx::float32, mx::float32}, primitive, inputs);
}

} // namespace mlxcel

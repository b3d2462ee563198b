// Attention over keys and values that are there.

#include <vector>

#include "attention_operands.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace kernels {
namespace {

/// Inputs are the queries, the arrays of keys and values, and maybe the sinks.
class Attention : public CpuPrimitive {
 public:
  Attention(mx::Stream stream, Scores scores, CachePacking packing)
      : CpuPrimitive(stream), scores_(scores), packing_(packing) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    const Table& kernels = table();
    const std::size_t arrays = 1 + 2 * packing_.arrays();
    for (std::size_t i = 0; i < arrays; i++) {
      want_whole_rows(inputs[i]);
    }
    const mx::array& q = inputs[0];
    const std::int64_t heads = q.shape(1), seq = q.shape(2), dim = q.shape(3);
    // In memory the tokens come first: what follows joins the heads of a token.
    out.set_data(
        mx::allocator::malloc(out.nbytes()), out.size(), {heads * seq * dim, dim, heads * dim, 1},
        {/*contiguous=*/true, /*row_contiguous=*/seq == 1 || heads == 1, /*col_contiguous=*/false});
    std::vector<Queries> all{describe(
        Heads::of_sequence(q), &inputs[1], inputs[1].shape(2), packing_, scores_,
        inputs.size() > arrays ? &inputs.back() : nullptr, out.data<float>())};
    const std::size_t floats = found_of(kernels, all);
    float* found = floats > 0 ? temporary(floats) : nullptr;
    dispatch(out, [&kernels, found, all = std::move(all)] { attend(kernels, all, found); });
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

mx::array attend_causally(
    const mx::array& queries,
    const std::vector<mx::array>& keys,
    const std::vector<mx::array>& values,
    CachePacking packing,
    Scores scores,
    const mx::array* sinks) {
  std::vector<mx::array> inputs{queries};
  inputs.insert(inputs.end(), keys.begin(), keys.end());
  inputs.insert(inputs.end(), values.begin(), values.end());
  if (queries.ndim() != 4 || queries.shape(0) != 1 || keys.empty() || keys[0].ndim() != 4 ||
      keys[0].shape(1) < 1 || queries.shape(1) % keys[0].shape(1) != 0 ||
      keys[0].shape(2) < queries.shape(2) ||
      !fit_cache(
          &inputs[1], inputs.size() - 1, packing, keys[0].shape(1), keys[0].shape(2), queries.shape(3))) {
    throw std::invalid_argument("attention wants queries, keys and values [1, heads, seq, dim] that fit");
  }
  push_sinks(inputs, sinks, queries.shape(1));
  auto primitive = std::make_shared<Attention>(cpu_stream(), scores, packing);
  return mx::array(queries.shape(), mx::float32, std::move(primitive), std::move(inputs));
}

} // namespace mlxcel

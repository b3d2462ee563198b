// A computation of Rust's over the rows of an array, as a node of MLX's graph.

#include <memory>
#include <stdexcept>

#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "mlxcel/src/mlx/bridge.rs.h"
#include "values.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace {

/// Runs in the order of the CPU's stream.
class PerRow : public mx::UnaryPrimitive {
 public:
  PerRow(mx::Stream stream, rust::Box<RowOp> op)
      : UnaryPrimitive(stream), op_(std::make_shared<rust::Box<RowOp>>(std::move(op))) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    out.set_data(mx::allocator::malloc(out.nbytes()));
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.set_input_array(inputs[0]);
    encoder.set_output_array(out);
    encoder.dispatch([op = op_,
                      in = mx::array::unsafe_weak_copy(inputs[0]),
                      out = mx::array::unsafe_weak_copy(out)]() mutable {
      (*op)->run(
          rust::Slice<const float>(in.data<float>(), in.size()),
          rust::Slice<std::uint32_t>(out.data<std::uint32_t>(), out.size()));
    });
  }

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::logic_error("rows are computed on the CPU's stream");
  }

  const char* name() const override {
    return "PerRow";
  }

 private:
  std::shared_ptr<rust::Box<RowOp>> op_;
};

} // namespace

ArrayPtr per_row(const Array& a, rust::Box<RowOp> op) {
  auto stream = mx::default_stream(mx::Device::cpu);
  auto rows = mx::contiguous(mx::astype(a, mx::float32, stream), false, stream);
  auto primitive = std::make_shared<PerRow>(stream, std::move(op));
  return own(Array({a.shape(0)}, mx::uint32, std::move(primitive), {std::move(rows)}));
}

} // namespace mlxcel

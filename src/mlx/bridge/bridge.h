// What Rust may ask of MLX. Functions may throw, `cxx` turns the exception into an error; those that
// are declared `noexcept` cannot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/recurrent.h"
#include "kernels/weight.h"
#include "mlx/array.h"
#include "rust/cxx.h"

namespace mlxcel {

using Array = mlx::core::array;
using ArrayPtr = std::unique_ptr<Array>;
using Dims = rust::Slice<const std::int32_t>;

/// An owner of foreign memory: Rust's memory map of a weights file.
struct Mapping;

/// A computation over rows that Rust does.
struct RowOp;

/// A sequence in `attend_and_keep`.
struct KeptRow;

/// Arrays handed over together (`cxx` has no slice of opaque C++ values).
struct ArrayList {
  std::vector<Array> arrays;
};
std::unique_ptr<ArrayList> new_list() noexcept;
void list_push(ArrayList& list, const Array& array) noexcept;
ArrayPtr list_get(const ArrayList& list, std::size_t index);

// The library and its devices.
rust::String library_version() noexcept;
rust::String header_version() noexcept;
bool gpu_available() noexcept;
void use_gpu(bool gpu);
std::uint64_t gpu_memory();
std::uint64_t active_memory() noexcept;
std::uint64_t peak_memory() noexcept;
std::uint64_t cache_memory() noexcept;
void set_cache_limit(std::uint64_t bytes);
void clear_cache();

// Making and reading arrays. `dtype` is the index in `DTYPES` (dtype.rs has the same order).
ArrayPtr clone_array(const Array& array) noexcept;
ArrayPtr from_bytes(rust::Slice<const std::uint8_t> bytes, Dims shape, std::uint8_t dtype);
ArrayPtr from_mapping(
    rust::Slice<const std::uint8_t> bytes,
    Dims shape,
    std::uint8_t dtype,
    rust::Box<Mapping> owner);
ArrayPtr zeros(Dims shape, std::uint8_t dtype);
rust::Slice<const std::int32_t> shape(const Array& array) noexcept;
std::uint8_t dtype(const Array& array);
std::size_t nbytes(const Array& array) noexcept;
void eval(const ArrayList& list);
void async_eval(const ArrayList& list);
rust::String graph_dot(const ArrayList& list);
void copy_f32(const Array& array, rust::Slice<float> out);

// Operations (lazy).
ArrayPtr astype(const Array& a, std::uint8_t dtype);
ArrayPtr reshape(const Array& a, Dims shape);
ArrayPtr transpose(const Array& a, Dims axes);
ArrayPtr slice(const Array& a, Dims start, Dims stop);
ArrayPtr slice_update(const Array& a, const Array& update, Dims start, Dims stop);
ArrayPtr concatenate(const ArrayList& list, std::int32_t axis, std::int32_t room);
ArrayPtr take(const Array& a, const Array& indices, std::int32_t axis);
ArrayPtr add(const Array& a, const Array& b);
ArrayPtr multiply(const Array& a, const Array& b);
ArrayPtr scale(const Array& a, float factor);
ArrayPtr per_row(const Array& a, rust::Box<RowOp> op);
std::unique_ptr<ArrayList> quantize(const Array& a, std::int32_t group_size, std::int32_t bits);
ArrayPtr sigmoid(const Array& a);
ArrayPtr broadcast_to(const Array& a, Dims shape);
ArrayPtr contiguous(const Array& a);
ArrayPtr view(const Array& a, std::uint8_t dtype);
/// From `first` on.
ArrayPtr every_other(const Array& a, std::int32_t axis, std::int32_t first);
ArrayPtr inverse(const Array& a);

ArrayPtr matmul(const Array& a, const Array& b);
ArrayPtr quantized_matmul(
    const Array& x,
    const Array& w,
    const Array& scales,
    const ArrayList& biases,
    std::int32_t group_size,
    std::int32_t bits,
    std::uint8_t mode);
// Matrices of a checkpoint, and products with them (lazy): our kernels in float32 on the CPU, else MLX.
using WeightPtr = std::unique_ptr<Weight>;
WeightPtr dense_weight(const Array& values);
WeightPtr quantized_weight(
    const Array& words,
    const Array& scales,
    const ArrayList& biases,
    std::int32_t group_size,
    std::int32_t bits,
    std::uint8_t mode);
void set_offset(Weight& weight, const Array& offset);
void set_factors(Weight& weight, const Array& factors);
/// MLX's name.
const char* mode_name(kernels::Mode mode);
ArrayPtr linear(const Array& x, const Weight& weight);
ArrayPtr linear_add(const Array& x, const Weight& weight, const Array& residual);
ArrayPtr gated_linear(const Array& x, const Weight& gate, const Weight& up, std::uint8_t activation);
/// `residual` may be null.
ArrayPtr gated_mlp(
    const Array& x,
    const Weight& gate,
    const Weight& up,
    const Weight& down,
    std::uint8_t activation,
    const ArrayPtr& residual);
/// Of our kernels only. `norms` are none or two, `frequencies` may be null.
std::unique_ptr<ArrayList> project_heads(
    const Array& x,
    const Weight& queries,
    const Weight& keys,
    const Weight& values,
    std::int32_t head_dim,
    const ArrayList& norms,
    float eps,
    const ArrayPtr& frequencies,
    bool traditional,
    float amplitude,
    const Array& positions);
ArrayPtr activate(const Array& x, std::uint8_t activation, float limit);
ArrayPtr activate_times(const Array& x, const Array& up, std::uint8_t activation);
ArrayPtr weight_rows(const Weight& weight, const Array& indices, std::uint8_t dtype);

// Products with the matrices of experts (lazy): our kernels in float32 on the CPU, else MLX. What is
// there or not is a list of one or none.
ArrayPtr gather_linear(const Array& x, const Weight& weight, const Array& choices);
ArrayPtr gather_gate(
    const Array& x,
    const Weight& gate,
    const Weight& up,
    const Array& choices,
    std::uint8_t activation,
    bool clamped,
    float alpha,
    float limit);
ArrayPtr gather_sum(
    const Array& x,
    const Weight& weight,
    const Array& choices,
    const Array& weights,
    const ArrayList& residual);
std::unique_ptr<ArrayList> route(
    const Array& logits,
    const ArrayList& correction,
    std::uint8_t scores,
    std::int32_t choices,
    bool normalize,
    float scale,
    std::int32_t groups,
    std::int32_t kept_groups);

// The kernels' threads and instruction set.
bool choose_isa(rust::Str name) noexcept;
rust::Vec<rust::String> available_isas();
rust::String current_isa() noexcept;
void quantize_activations(bool quantize) noexcept;
void set_kernel_threads(std::size_t threads);

// Fused operations (lazy): our kernels in float32 on the CPU, else MLX's.
ArrayPtr rms_norm(const Array& x, const Array& weight, float eps);
ArrayPtr layer_norm(const Array& x, const Array& weight, const ArrayPtr& bias, float eps);
ArrayPtr rope(
    const Array& x,
    std::int32_t dims,
    bool traditional,
    float base,
    float scale,
    const Array& positions);
ArrayPtr rope_with_freqs(
    const Array& x,
    std::int32_t dims,
    bool traditional,
    const Array& freqs,
    const Array& positions);
bool computes_here(const Array& x) noexcept;
ArrayPtr rotate(
    const Array& x,
    const Array& positions,
    const Array& frequencies,
    bool traditional,
    float amplitude);
ArrayPtr attention(
    const Array& queries,
    const ArrayList& keys,
    const ArrayList& values,
    std::int32_t group_size,
    std::int32_t bits,
    float scale,
    std::int32_t window,
    std::int32_t keep,
    float soft_cap,
    const ArrayPtr& sinks);
std::unique_ptr<ArrayList> attend_and_keep(
    const Array& queries,
    const Array& keys,
    const Array& values,
    const ArrayList& buffers,
    rust::Slice<const KeptRow> rows,
    std::int32_t group_size,
    std::int32_t bits,
    float scale,
    std::int32_t window,
    std::int32_t keep,
    float soft_cap,
    const ArrayPtr& sinks);

// Layers that carry a state (lazy). What is carried comes in and goes out with the arrays.
std::unique_ptr<ShortConv> short_conv(const Array& weight, const ArrayList& bias, bool silu);
std::unique_ptr<ArrayList> convolve(
    const Array& x, const ShortConv& conv, const ArrayList& states, Dims lengths);
std::unique_ptr<Recurrent> delta_rule(
    const Array& a_log,
    const Array& dt_bias,
    std::int32_t key_heads,
    std::int32_t key_dim,
    std::int32_t value_dim);
std::unique_ptr<Recurrent> state_space(
    const Array& a_log,
    const Array& dt_bias,
    const Array& skip,
    std::int32_t key_heads,
    std::int32_t key_dim,
    std::int32_t value_dim);
void set_limits(Recurrent& layer, float least, float most) noexcept;
std::unique_ptr<ArrayList> recur(
    const Array& mixed,
    const ArrayList& gates,
    const Recurrent& layer,
    const ArrayList& states,
    Dims lengths);
std::unique_ptr<GatedNorm> gated_norm(
    const Array& weight, float eps, std::int32_t group, bool gate_first);
ArrayPtr normalize(const Array& x, const Array& gate, const GatedNorm& norm);

} // namespace mlxcel

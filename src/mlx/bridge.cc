#include "bridge.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>

#include "composed.h"
#include "kernels/pool.h"
#include "kernels/table.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/graph_utils.h"
#include "mlx/primitives.h"
#include "mlxcel/src/mlx/bridge.rs.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace {

// The order is that of `Dtype` in dtype.rs.
const std::array<mx::Dtype, 9> DTYPES = {
    mx::float32,
    mx::bfloat16,
    mx::float16,
    mx::uint8,
    mx::uint32,
    mx::int32,
    mx::int64,
    mx::bool_,
    mx::uint16,
};

mx::Dtype to_dtype(std::uint8_t index) {
  return DTYPES.at(index);
}

mx::Shape to_shape(Dims dims) {
  return mx::Shape(dims.begin(), dims.end());
}

std::vector<int> to_axes(Dims dims) {
  return std::vector<int>(dims.begin(), dims.end());
}

// The order is that of `Activation` in ops.rs.
kernels::Activation to_activation(std::uint8_t kind, float limit) {
  if (kind > static_cast<std::uint8_t>(kernels::Activation::Kind::soft_cap)) {
    throw std::invalid_argument("no such activation");
  }
  return {static_cast<kernels::Activation::Kind>(kind), limit};
}

ArrayPtr own(Array&& array) {
  return std::make_unique<Array>(std::move(array));
}

std::size_t checked_nbytes(const mx::Shape& shape, mx::Dtype dtype, std::size_t given) {
  std::size_t bytes = mx::size_of(dtype);
  for (auto dim : shape) {
    bytes *= static_cast<std::size_t>(dim);
  }
  if (bytes != given) {
    throw std::invalid_argument(
        "the shape takes " + std::to_string(bytes) + " bytes, but " + std::to_string(given) +
        " are given");
  }
  return bytes;
}

// Bytes between a CPU buffer's handle and its data: the backend keeps the size there.
std::ptrdiff_t cpu_buffer_header() {
  char probe[64];
  mx::allocator::Buffer buffer(probe);
  return static_cast<char*>(buffer.raw_ptr()) - probe;
}

// Rust's computation as a node of the graph, run in the order of the CPU's stream.
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

std::unique_ptr<ArrayList> new_list() noexcept {
  return std::make_unique<ArrayList>();
}

ArrayPtr list_get(const ArrayList& list, std::size_t index) {
  return std::make_unique<Array>(list.arrays.at(index));
}

void list_push(ArrayList& list, const Array& array) noexcept {
  list.arrays.push_back(array);
}

rust::String library_version() noexcept {
  return rust::String(mx::version());
}

rust::String header_version() noexcept {
  return rust::String(
      std::to_string(MLX_VERSION_MAJOR) + "." + std::to_string(MLX_VERSION_MINOR) + "." +
      std::to_string(MLX_VERSION_PATCH));
}

bool gpu_available() noexcept {
  try {
    return mx::is_available(mx::Device(mx::Device::gpu));
  } catch (const std::exception&) {
    return false; // a driver that cannot be asked is one that cannot be used
  }
}

void use_gpu(bool gpu) {
  mx::set_default_device(mx::Device(gpu ? mx::Device::gpu : mx::Device::cpu));
}

std::uint64_t gpu_memory() {
  const auto& info = mx::device_info(mx::Device(mx::Device::gpu));
  for (const char* key :
       {"max_recommended_working_set_size", "free_memory", "total_memory", "memory_size"}) {
    auto found = info.find(key);
    if (found != info.end() && std::holds_alternative<std::size_t>(found->second)) {
      return std::get<std::size_t>(found->second);
    }
  }
  throw std::runtime_error("the device does not tell its memory");
}

std::uint64_t active_memory() noexcept {
  return mx::get_active_memory();
}

std::uint64_t peak_memory() noexcept {
  return mx::get_peak_memory();
}

std::uint64_t cache_memory() noexcept {
  return mx::get_cache_memory();
}

void set_cache_limit(std::uint64_t bytes) {
  mx::set_cache_limit(bytes);
}

void clear_cache() {
  mx::clear_cache();
}

ArrayPtr clone_array(const Array& array) noexcept {
  return std::make_unique<Array>(array);
}

ArrayPtr from_bytes(rust::Slice<const std::uint8_t> bytes, Dims dims, std::uint8_t index) {
  auto shape = to_shape(dims);
  auto dtype = to_dtype(index);
  auto size = checked_nbytes(shape, dtype, bytes.size());
  auto data = mx::allocator::malloc(size);
  auto* target = static_cast<std::uint8_t*>(data.buffer().raw_ptr());
  constexpr std::size_t PIECE = 1 << 20;
  if (size <= PIECE) { // what a step needs never waits for the threads
    std::copy_n(bytes.data(), size, target);
  } else {
    kernels::parallel_for((size + PIECE - 1) / PIECE, [&](std::size_t piece) {
      const std::size_t from = piece * PIECE;
      std::copy_n(bytes.data() + from, std::min(PIECE, size - from), target + from);
    });
  }
  return own(Array(std::move(data), std::move(shape), dtype));
}

ArrayPtr from_mapping(
    rust::Slice<const std::uint8_t> bytes,
    Dims dims,
    std::uint8_t index,
    rust::Box<Mapping> owner) {
  auto shape = to_shape(dims);
  auto dtype = to_dtype(index);
  checked_nbytes(shape, dtype, bytes.size());
  auto* data = const_cast<std::uint8_t*>(bytes.data());
  // A shared owner, because a std::function must be copyable.
  auto shared = std::make_shared<rust::Box<Mapping>>(std::move(owner));
  if (mx::default_device() == mx::Device::gpu) {
    // Without a copy where the device can use the pages as they are.
    return own(Array(data, std::move(shape), dtype, [shared](void*) {}));
  }
  // `make_buffer` of the CPU backend refuses foreign memory, so the buffer is made by hand. What
  // the backend would read as the buffer's size is the file's header, never written.
  mx::allocator::Buffer buffer(data - cpu_buffer_header());
  Array array(
      mx::allocator::Data(buffer, [shared](mx::allocator::Buffer) {}), std::move(shape), dtype);
  if (array.data<std::uint8_t>() != data) {
    throw std::runtime_error("this build of MLX lays out its CPU buffers in an unknown way");
  }
  return own(std::move(array));
}

ArrayPtr zeros(Dims dims, std::uint8_t index) {
  return own(mx::zeros(to_shape(dims), to_dtype(index)));
}

rust::Slice<const std::int32_t> shape(const Array& array) noexcept {
  const auto& dims = array.shape();
  return rust::Slice<const std::int32_t>(dims.data(), dims.size());
}

std::uint8_t dtype(const Array& array) {
  for (std::size_t index = 0; index < DTYPES.size(); index++) {
    if (DTYPES[index] == array.dtype()) {
      return static_cast<std::uint8_t>(index);
    }
  }
  throw std::runtime_error("an array of a type that the bridge does not know");
}

std::size_t nbytes(const Array& array) noexcept {
  return array.nbytes();
}

void eval(const ArrayList& list) {
  mx::eval(list.arrays);
}

void async_eval(const ArrayList& list) {
  mx::async_eval(list.arrays);
}

rust::String graph_dot(const ArrayList& list) {
  std::ostringstream dot;
  mx::export_to_dot(dot, list.arrays);
  return dot.str();
}

void copy_f32(const Array& array, rust::Slice<float> out) {
  Array source = mx::astype(array, mx::float32);
  source.eval();
  if (!source.flags().row_contiguous) {
    source = mx::contiguous(source);
    source.eval();
  }
  if (source.size() != out.size()) {
    throw std::invalid_argument("the target is not as long as the array");
  }
  std::memcpy(out.data(), source.data<float>(), source.nbytes());
}

ArrayPtr astype(const Array& a, std::uint8_t dtype) {
  return own(mx::astype(a, to_dtype(dtype)));
}

ArrayPtr reshape(const Array& a, Dims shape) {
  return own(mx::reshape(a, to_shape(shape)));
}

ArrayPtr transpose(const Array& a, Dims axes) {
  return own(mx::transpose(a, to_axes(axes)));
}

ArrayPtr slice(const Array& a, Dims start, Dims stop) {
  return own(mx::slice(a, to_shape(start), to_shape(stop)));
}

ArrayPtr slice_update(const Array& a, const Array& update, Dims start, Dims stop) {
  return own(mx::slice_update(a, update, to_shape(start), to_shape(stop)));
}

ArrayPtr concatenate(const ArrayList& list, std::int32_t axis, std::int32_t room) {
  return own(join(list.arrays, axis, room));
}

ArrayPtr take(const Array& a, const Array& indices, std::int32_t axis) {
  return own(mx::take(a, indices, axis));
}

ArrayPtr add(const Array& a, const Array& b) {
  return own(mx::add(a, b));
}

ArrayPtr multiply(const Array& a, const Array& b) {
  return own(mx::multiply(a, b));
}

ArrayPtr scale(const Array& a, float factor) {
  return own(mx::multiply(a, Array(factor, a.dtype())));
}

ArrayPtr per_row(const Array& a, rust::Box<RowOp> op) {
  auto stream = mx::default_stream(mx::Device::cpu);
  auto rows = mx::contiguous(mx::astype(a, mx::float32, stream), false, stream);
  auto primitive = std::make_shared<PerRow>(stream, std::move(op));
  return own(Array({a.shape(0)}, mx::uint32, std::move(primitive), {std::move(rows)}));
}

std::unique_ptr<ArrayList> quantize(const Array& a, std::int32_t group_size, std::int32_t bits) {
  auto list = std::make_unique<ArrayList>();
  list->arrays = mx::quantize(a, group_size, bits);
  return list;
}

ArrayPtr sigmoid(const Array& a) {
  return own(mx::sigmoid(a));
}

ArrayPtr matmul(const Array& a, const Array& b) {
  return own(mx::matmul(a, b));
}

ArrayPtr quantized_matmul(
    const Array& x,
    const Array& w,
    const Array& scales,
    const ArrayList& biases,
    std::int32_t group_size,
    std::int32_t bits,
    std::uint8_t mode) {
  const auto given = biases.arrays.empty() ? std::nullopt : std::optional(biases.arrays[0]);
  return own(mx::quantized_matmul(
      x, w, scales, given, true, group_size, bits, mode_name(static_cast<kernels::Mode>(mode))));
}

ArrayPtr broadcast_to(const Array& a, Dims shape) {
  return own(mx::broadcast_to(a, to_shape(shape)));
}

ArrayPtr contiguous(const Array& a) {
  return own(mx::contiguous(a));
}

ArrayPtr view(const Array& a, std::uint8_t dtype) {
  return own(mx::view(a, to_dtype(dtype)));
}

ArrayPtr every_other(const Array& a, std::int32_t axis, std::int32_t first) {
  const int ndim = static_cast<int>(a.ndim());
  if (axis < 0 || axis >= ndim || first < 0) {
    throw std::invalid_argument("no such axis");
  }
  mx::Shape start(ndim, 0), stop = a.shape(), strides(ndim, 1);
  start[axis] = first;
  strides[axis] = 2;
  return own(mx::slice(a, start, stop, strides));
}

ArrayPtr inverse(const Array& a) {
  return own(mx::linalg::inv(a, mx::Device::cpu));
}

namespace {

// The order is that of `Mode` in matrix.rs.
const std::array<const char*, 4> MODES = {"affine", "mxfp4", "nvfp4", "mxfp8"};

bool has_packing(kernels::Mode mode, int group, int bits) {
  switch (mode) {
    case kernels::Mode::affine:
      return ((bits >= 2 && bits <= 6) || bits == 8) && (group == 32 || group == 64 || group == 128);
    case kernels::Mode::mxfp4:
      return bits == 4 && group == 32;
    case kernels::Mode::nvfp4:
      return bits == 4 && group == 16;
    case kernels::Mode::mxfp8:
      return bits == 8 && group == 32;
  }
  return false;
}

/// Whether a matrix, or a stack of them, can have this many dimensions.
bool is_weight(const Array& values) {
  return values.ndim() == 2 || values.ndim() == 3;
}

} // namespace

const char* mode_name(kernels::Mode mode) {
  return MODES.at(static_cast<std::size_t>(mode));
}

namespace {

/// The array without gaps. One that is so already is taken as it is: MLX's `contiguous` does not know the size of
/// the memory behind what is mapped from a file, and copies it.
Array without_gaps(const Array& x) {
  return x.is_available() && x.flags().row_contiguous ? x : mx::contiguous(x);
}

} // namespace

WeightPtr dense_weight(const Array& values) {
  if (!is_weight(values)) {
    throw std::invalid_argument("a weight is a matrix, or one an expert");
  }
  auto rows = without_gaps(values);
  auto transposed = mx::swapaxes(rows, -1, -2);
  // Once, so that no step builds the view again.
  mx::eval(rows, transposed);
  auto weight = std::make_unique<Weight>(Weight{.values = rows});
  weight->transposed = transposed;
  return weight;
}

WeightPtr quantized_weight(
    const Array& words,
    const Array& scales,
    const ArrayList& biases,
    std::int32_t group_size,
    std::int32_t bits,
    std::uint8_t mode_index) {
  const auto mode = static_cast<kernels::Mode>(mode_index);
  if (mode_index >= MODES.size() || !has_packing(mode, group_size, bits)) {
    throw std::invalid_argument("no such quantization");
  }
  const bool affine = mode == kernels::Mode::affine;
  mx::Shape groups = words.shape();
  const int columns = is_weight(words) ? words.shape(-1) * 32 / bits : 0;
  if (!groups.empty()) {
    groups.back() = columns / group_size;
  }
  const bool scaled = affine
      ? mx::issubdtype(scales.dtype(), mx::floating) && scales.dtype() != mx::float64
      : scales.dtype() == mx::uint8;
  if (!is_weight(words) || words.dtype() != mx::uint32 || columns % group_size != 0 ||
      scales.shape() != groups || !scaled || biases.arrays.size() != (affine ? 1 : 0)) {
    throw std::invalid_argument("words, scales and biases do not make a quantized matrix");
  }
  auto weight = std::make_unique<Weight>(Weight{.values = without_gaps(words)});
  weight->scales = without_gaps(scales);
  weight->group = group_size;
  weight->bits = bits;
  weight->mode = mode;
  if (affine) {
    const auto& given = biases.arrays[0];
    if (given.shape() != groups || given.dtype() != scales.dtype()) {
      throw std::invalid_argument("the biases are not of the scales' shape and type");
    }
    weight->biases = without_gaps(given);
    weight->biases->eval();
  }
  mx::eval(weight->values, *weight->scales);
  return weight;
}

void set_offset(Weight& weight, const Array& offset) {
  auto shape = weight.values.shape();
  shape.pop_back();
  if (offset.shape() != shape) {
    throw std::invalid_argument("a bias has one number a row of its matrix");
  }
  weight.offset = mx::contiguous(offset);
  weight.offset->eval();
  weight.operand.reset();
}

void set_factors(Weight& weight, const Array& factors) {
  if (weight.values.ndim() != 3 || factors.shape() != mx::Shape{weight.experts()} ||
      factors.dtype() != mx::float32) {
    throw std::invalid_argument("there is one factor an expert, in float32");
  }
  weight.factors = mx::contiguous(factors);
  weight.factors->eval();
  weight.operand.reset();
}

namespace {

Array linear_of(const Array& x, const Weight& weight) {
  if (weight.bits > 0) {
    auto out = mx::quantized_matmul(
        x, weight.values, *weight.scales, weight.biases, true, weight.group, weight.bits,
        mode_name(weight.mode));
    return weight.offset ? mx::add(out, *weight.offset) : out;
  }
  return weight.offset ? mx::addmm(*weight.offset, x, *weight.transposed)
                       : mx::matmul(x, *weight.transposed);
}

} // namespace

ArrayPtr linear(const Array& x, const Weight& weight) {
  return own(has_kernels(x) ? product(x, weight, nullptr) : linear_of(x, weight));
}

ArrayPtr linear_add(const Array& x, const Weight& weight, const Array& residual) {
  if (has_kernels(x)) {
    return own(product(x, weight, &residual));
  }
  return own(mx::add(linear_of(x, weight), residual));
}

namespace {

Array gated_linear_of(
    const Array& x, const Weight& gate, const Weight& up, kernels::Activation activation) {
  return mx::multiply(composed::activate(linear_of(x, gate), activation), linear_of(x, up));
}

} // namespace

ArrayPtr gated_linear(
    const Array& x, const Weight& gate, const Weight& up, std::uint8_t kind) {
  const auto activation = to_activation(kind, 0);
  const auto compute = has_kernels(x) ? gated_product : gated_linear_of;
  return own(compute(x, gate, up, activation));
}

ArrayPtr gated_mlp(
    const Array& x,
    const Weight& gate,
    const Weight& up,
    const Weight& down,
    std::uint8_t kind,
    const ArrayPtr& residual) {
  const auto activation = to_activation(kind, 0);
  if (has_kernels(x)) {
    return own(gated_mlp(x, gate, up, activation, down, residual.get()));
  }
  auto out = linear_of(gated_linear_of(x, gate, up, activation), down);
  return own(residual ? mx::add(out, *residual) : std::move(out));
}

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
    const Array& positions) {
  const HeadsFormat format{
      .dim = head_dim, .eps = eps, .traditional = traditional, .amplitude = amplitude};
  return std::make_unique<ArrayList>(ArrayList{project_heads(
      x, {&queries, &keys, &values}, norms.arrays, frequencies.get(), positions, format)});
}

ArrayPtr activate(const Array& x, std::uint8_t kind, float limit) {
  const auto activation = to_activation(kind, limit);
  return own(
      has_kernels(x) ? activate_numbers(x, nullptr, activation) : composed::activate(x, activation));
}

ArrayPtr activate_times(const Array& x, const Array& up, std::uint8_t kind) {
  const auto activation = to_activation(kind, 0);
  return own(
      has_kernels(x) ? activate_numbers(x, &up, activation)
                     : mx::multiply(composed::activate(x, activation), up));
}

ArrayPtr weight_rows(const Weight& weight, const Array& indices, std::uint8_t index) {
  const auto dtype = to_dtype(index);
  if (dtype == mx::float32 && mx::default_device() == mx::Device::cpu) {
    return own(take_rows(weight, indices));
  }
  auto rows = mx::take(weight.values, indices, 0);
  if (weight.bits > 0) {
    const auto part = [&](const Array& of) { return mx::take(of, indices, 0); };
    rows = mx::dequantize(
        rows, part(*weight.scales),
        weight.biases ? std::optional(part(*weight.biases)) : std::nullopt, weight.group,
        weight.bits, mode_name(weight.mode));
  }
  return own(mx::astype(rows, dtype));
}

bool choose_isa(rust::Str name) noexcept {
  return kernels::choose(std::string(name).c_str());
}

rust::Vec<rust::String> available_isas() {
  rust::Vec<rust::String> names;
  kernels::for_each_available(
      [](const char* name, void* names) {
        static_cast<rust::Vec<rust::String>*>(names)->push_back(name);
      },
      &names);
  return names;
}

rust::String current_isa() noexcept {
  return rust::String(kernels::table().name);
}

void quantize_activations(bool quantize) noexcept {
  kernels::quantize_activations(quantize);
}

void set_kernel_threads(std::size_t threads) {
  kernels::set_threads(threads);
}

ArrayPtr rms_norm(const Array& x, const Array& weight, float eps) {
  return own(
      has_kernels(x) && weight.dtype() == mx::float32 ? rms_norm_rows(x, weight, eps)
                                                      : mx::fast::rms_norm(x, weight, eps));
}

ArrayPtr layer_norm(const Array& x, const Array& weight, const ArrayPtr& bias, float eps) {
  if (has_kernels(x) && weight.dtype() == mx::float32) {
    return own(layer_norm_rows(x, weight, bias.get(), eps));
  }
  return own(mx::fast::layer_norm(
      x, weight, bias ? std::optional<Array>(*bias) : std::nullopt, eps));
}

ArrayPtr rope(
    const Array& x,
    std::int32_t dims,
    bool traditional,
    float base,
    float scale,
    const Array& positions) {
  return own(mx::fast::rope(x, dims, traditional, base, scale, positions));
}

ArrayPtr rope_with_freqs(
    const Array& x,
    std::int32_t dims,
    bool traditional,
    const Array& freqs,
    const Array& positions) {
  return own(mx::fast::rope(x, dims, traditional, std::nullopt, 1.0f, positions, freqs));
}

bool computes_here(const Array& x) noexcept {
  return has_kernels(x);
}

ArrayPtr rotate(
    const Array& x,
    const Array& positions,
    const Array& frequencies,
    bool traditional,
    float amplitude) {
  return own(rotate_heads(x, positions, frequencies, traditional, amplitude));
}

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
    const ArrayPtr& sinks) {
  const Scores scores{
      .scale = scale, .window = window, .keep = keep, .soft_cap = soft_cap};
  const CachePacking packing{.group = group_size, .bits = bits};
  const auto attend = has_kernels(queries) ? attend_causally : composed::attend;
  return own(attend(queries, keys.arrays, values.arrays, packing, scores, sinks.get()));
}

std::unique_ptr<ArrayList> attend_and_keep(
    const Array& queries,
    const Array& keys,
    const Array& values,
    const ArrayList& buffers,
    std::int32_t group_size,
    std::int32_t bits,
    std::int32_t filled,
    bool own,
    float scale,
    std::int32_t window,
    std::int32_t keep,
    float soft_cap,
    const ArrayPtr& sinks) {
  const Scores scores{
      .scale = scale, .window = window, .keep = keep, .soft_cap = soft_cap};
  Cache cache{
      .buffers = buffers.arrays,
      .packing = {.group = group_size, .bits = bits},
      .filled = filled,
      .own = own};
  return std::make_unique<ArrayList>(
      ArrayList{attend_and_keep(queries, keys, values, std::move(cache), scores, sinks.get())});
}

std::unique_ptr<ShortConv> short_conv(const Array& weight, const ArrayList& bias, bool silu) {
  if (weight.ndim() != 2 || weight.shape(1) < 2 || bias.arrays.size() > 1) {
    throw std::invalid_argument("a short convolution has two taps at least");
  }
  auto conv = std::make_unique<ShortConv>(
      ShortConv{mx::contiguous(mx::transpose(weight)), std::nullopt, silu});
  conv->weight.eval();
  for (const auto& numbers : bias.arrays) {
    if (numbers.shape() != mx::Shape{conv->features()} || numbers.dtype() != weight.dtype()) {
      throw std::invalid_argument("a bias has one number a feature");
    }
    conv->bias = mx::contiguous(numbers);
    conv->bias->eval();
  }
  return conv;
}

namespace {

std::unique_ptr<ArrayList> list_of(Advanced advanced) {
  return std::make_unique<ArrayList>(ArrayList{std::move(advanced)});
}

Carried carried(const ArrayList& states, Dims lengths) {
  return {states.arrays, std::vector<int>(lengths.begin(), lengths.end())};
}

std::unique_ptr<Recurrent> recurrent(
    const Array& a_log,
    const Array& dt_bias,
    std::optional<Array> skip,
    int key_heads,
    int key_dim,
    int value_dim) {
  const auto numbers = [&](const Array& given) {
    if (given.ndim() != 1 || given.shape() != a_log.shape()) {
      throw std::invalid_argument("a recurrence has one number of each a head");
    }
    auto array = mx::contiguous(mx::astype(given, mx::float32));
    array.eval();
    return array;
  };
  if (key_heads < 1 || key_dim < 1 || value_dim < 1 || a_log.size() % key_heads != 0) {
    throw std::invalid_argument("the value heads cannot share the key heads evenly");
  }
  return std::make_unique<Recurrent>(Recurrent{
      .key_heads = key_heads,
      .value_heads = static_cast<int>(a_log.size()),
      .key_dim = key_dim,
      .value_dim = value_dim,
      .rate = numbers(mx::negative(mx::exp(mx::astype(a_log, mx::float32)))),
      .dt_bias = numbers(dt_bias),
      .skip = skip ? std::optional(numbers(*skip)) : std::nullopt,
      .least = 0,
      .most = std::numeric_limits<float>::infinity()});
}

} // namespace

std::unique_ptr<ArrayList> convolve(
    const Array& x, const ShortConv& conv, const ArrayList& states, Dims lengths) {
  return list_of(convolve(x, conv, carried(states, lengths)));
}

std::unique_ptr<Recurrent> delta_rule(
    const Array& a_log,
    const Array& dt_bias,
    std::int32_t key_heads,
    std::int32_t key_dim,
    std::int32_t value_dim) {
  return recurrent(a_log, dt_bias, std::nullopt, key_heads, key_dim, value_dim);
}

std::unique_ptr<Recurrent> state_space(
    const Array& a_log,
    const Array& dt_bias,
    const Array& skip,
    std::int32_t key_heads,
    std::int32_t key_dim,
    std::int32_t value_dim) {
  return recurrent(a_log, dt_bias, skip, key_heads, key_dim, value_dim);
}

void set_limits(Recurrent& layer, float least, float most) noexcept {
  layer.least = least;
  layer.most = most;
}

std::unique_ptr<ArrayList> recur(
    const Array& mixed,
    const ArrayList& gates,
    const Recurrent& layer,
    const ArrayList& states,
    Dims lengths) {
  const auto& given = gates.arrays;
  if (given.size() != (layer.is_delta() ? 2 : 1)) {
    throw std::invalid_argument("a delta rule has two gates, a state space one");
  }
  Mixed tokens{mixed, given[0], given.size() > 1 ? std::optional(given[1]) : std::nullopt};
  return list_of(recur(tokens, layer, carried(states, lengths)));
}

std::unique_ptr<GatedNorm> gated_norm(
    const Array& weight, float eps, std::int32_t group, bool gate_first) {
  if (weight.ndim() != 1 || group < 1 || weight.shape(0) % group != 0) {
    throw std::invalid_argument("the features of a normalization are whole groups");
  }
  auto contiguous = mx::contiguous(weight);
  contiguous.eval();
  return std::make_unique<GatedNorm>(GatedNorm{contiguous, eps, group, gate_first});
}

ArrayPtr normalize(const Array& x, const Array& gate, const GatedNorm& norm) {
  return own(normalize_gated(x, gate, norm));
}

} // namespace mlxcel

// Arrays: made, read and computed.

#include <algorithm>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>

#include "kernels/pool.h"
#include "mlx/allocator.h"
#include "mlx/graph_utils.h"
#include "mlx/ops.h"
#include "mlx/transforms.h"
#include "mlxcel/src/mlx/bridge.rs.h"
#include "values.h"

namespace mx = mlx::core;

namespace mlxcel {
namespace {

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

} // namespace mlxcel

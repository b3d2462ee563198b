// The kernels of one instruction set, and which one this process uses.
#pragma once

#include "operands.h"

namespace mlxcel::kernels {

/// Products of rows of activations with a matrix in any format.
struct Products {
  /// Floats of a row of activations in the order that `matrix` is multiplied in.
  std::size_t (*packed_length)(const Matrix& matrix);
  /// Whether activations packed for one matrix are right for the other.
  bool (*same_packing)(const Matrix& a, const Matrix& b);
  /// Lays rows `from` to `to` of `x` out for `matrix`, at their places in `out`.
  void (*pack)(const Matrix& matrix, const Rows& x, std::size_t from, std::size_t to, float* out);
  /// Floats that `product` wants as scratch.
  std::size_t (*product_scratch)(const Matrix& matrix);
  /// `count` packed rows by rows `from` to `to` of the matrix; element `[m, n]` goes to
  /// `out[m * out_stride + n - from]`.
  void (*product)(
      const Matrix& matrix,
      const float* packed,
      std::size_t count,
      std::size_t from,
      std::size_t to,
      float* out,
      std::size_t out_stride,
      float* scratch);
};

struct Table {
  const char* name;

  /// Those in use.
  const Products* products;
  const Products* exact;
  /// The same with activations that are quantized to 8 bits where the matrix is affine with 4 or 8 bits.
  const Products* quantizing;
  /// Floats that `unpack_row` wants as scratch.
  std::size_t (*row_scratch)(const Matrix& matrix);
  /// The numbers of one row of a matrix.
  void (*unpack_row)(const Matrix& matrix, std::size_t index, float* out, float* scratch);

  void (*rms_norm)(const float* x, const float* weight, float eps, std::size_t size, float* out);
  /// `bias` may be null.
  void (*layer_norm)(
      const float* x, const float* weight, const float* bias, float eps, std::size_t size, float* out);
  void (*clamped_silu_multiply)(
      float* gate, const float* up, float alpha, float limit, std::size_t size);
  void (*add_scaled)(float* out, const float* other, float factor, std::size_t size);
  /// `out = activation(x) · up`, without `up` where that is null.
  void (*activate)(
      Activation activation, const float* x, const float* up, std::size_t size, float* out);
  void (*add_to)(float* out, const float* other, std::size_t size);
  void (*rotate)(
      const float* x,
      const float* cosines,
      const float* sines,
      std::size_t pairs,
      std::size_t dim,
      bool traditional,
      float* out);

  /// Writes a key or a value of `dim` features to position `t` of the rows, as they keep it.
  void (*keep_position)(const CacheRows& rows, std::size_t t, const float* x, std::size_t dim);

  /// Query rows that one call of `attend` takes.
  std::size_t (*attention_rows)();
  /// Floats that each of those below wants as scratch.
  std::size_t (*attention_scratch)(std::size_t dim);
  /// The results of so many rows, all segments one after the other.
  void (*attend)(
      const AttentionHead& head, const AttentionRow* rows, std::size_t count, float* scratch);
  /// Floats that tell what one row finds in one segment.
  std::size_t (*attention_found)(std::size_t dim);
  /// What the rows find in segments `begin` to `end`, each by itself: row `m` in segment `s` at
  /// `found + m · stride + (s - begin) · attention_found(dim)`.
  void (*attend_segments)(
      const AttentionHead& head,
      const AttentionRow* rows,
      std::size_t count,
      std::size_t begin,
      std::size_t end,
      float* found,
      std::size_t stride,
      float* scratch);
  /// The result of one row from what it found in as many segments, one behind the other.
  void (*merge_segments)(
      const AttentionHead& head,
      const AttentionRow& row,
      const float* found,
      std::size_t segments,
      float* scratch);

  /// Features `from` to `to`.
  void (*convolve)(const Convolution& at, std::size_t from, std::size_t to);
  /// Features of a value that one call of `recur` takes at most.
  std::size_t (*recurrence_width)();
  /// Floats that `recur` wants as scratch.
  std::size_t (*recurrence_scratch)(std::size_t key_dim);
  /// Features `from` to `to` of the values.
  void (*recur)(const Recurrence& head, std::size_t from, std::size_t to, float* scratch);
};

/// Those of this processor's architecture.
extern const Table avx512, avx2, neon, portable;
/// What multiplies integers by the instructions made for neural networks.
extern const Products avx512_vnni, avx2_vnni;

/// The kernels in use: those of the fastest instruction set here, unless `choose` said otherwise.
const Table& table();

/// Uses the instruction set of that name from now on; false where this machine lacks it.
bool choose(const char* name);

/// From now on activations are quantized to 8 bits for the matrices that have integers, or not.
void quantize_activations(bool quantize);

/// Calls `each` with the name of every instruction set that this machine has, the fastest first.
void for_each_available(void (*each)(const char* name, void* context), void* context);

} // namespace mlxcel::kernels

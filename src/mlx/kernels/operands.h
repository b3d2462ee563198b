// Plain descriptions of the operands: what the kernels need to know, without MLX.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlxcel::kernels {

enum class Element : std::uint8_t { f32, bf16, f16 };

inline std::size_t size_of(Element element) {
  return element == Element::f32 ? 4 : 2;
}

/// What MLX's quantization makes of a number: an integer with `value = scale · integer + bias`, or a
/// small floating-point number with `value = scale · number`, the scale being a byte.
enum class Mode : std::uint8_t {
  affine,
  /// E2M1 numbers, 32 of which share a power of two (OCP Microscaling, 2023).
  mxfp4,
  /// E2M1 numbers, 16 of which share an E4M3 scale.
  nvfp4,
  /// E4M3 numbers, 32 of which share a power of two.
  mxfp8,
};

/// A row-major matrix `[rows, columns]`: of `element`s, or packed.
struct Matrix {
  std::size_t rows;
  std::size_t columns;
  /// Type of the dense values, or of the scales and biases of affine quantization.
  Element element;
  Mode mode;
  /// Bits of a packed number; 0 where the matrix is dense.
  int bits;
  /// Columns that share a scale.
  int group;
  /// The dense values, or the packed integers.
  const void* values;
  const void* scales;
  const void* biases;
};

/// A float32 matrix `[rows, columns]` whose rows and columns may lie apart (in elements).
struct Rows {
  const float* data;
  std::size_t rows;
  std::size_t columns;
  std::ptrdiff_t row_stride;
  std::ptrdiff_t column_stride;
};

/// A function of single numbers.
struct Activation {
  enum class Kind : std::uint8_t {
    /// `x sigmoid(x)`
    silu,
    /// `x Φ(x)`
    gelu,
    /// The same by the approximation with tanh.
    gelu_tanh,
    /// `max(x, 0)²`
    relu_squared,
    sigmoid,
    /// `limit tanh(x / limit)`
    soft_cap,
  };
  Kind kind;
  float limit = 0;

  bool operator==(const Activation&) const = default;
};

/// Positions whose keys and values attention takes together, counted from the first.
constexpr std::size_t ATTENTION_SEGMENT = 256;

/// Keys or values of one head, a row a position, as the cache has them.
struct CacheRows {
  /// The numbers, or their packed integers.
  const unsigned char* data;
  /// Bytes from one position to the next.
  std::size_t stride;
  /// Type of the numbers, where they are not packed.
  Element element;
  /// Bits of a packed integer, 8 or 4; 0 where there is none.
  int bits;
  /// Features that share a scale and a bias: 32, 64 or 128.
  std::size_t group;
  const float* scales;
  const float* biases;
  /// Scales from one position to the next.
  std::size_t scale_stride;
};

/// Keys and values of one head, as many rows as there are positions.
struct AttentionHead {
  CacheRows keys;
  CacheRows values;
  /// Features of a key and of a value.
  std::size_t dim;
  /// What scores are multiplied by.
  float scale;
  /// Scores go through `soft_cap · tanh(score / soft_cap)`; 0 leaves them.
  float soft_cap;
};

/// One query, and where what it finds is to go.
struct AttentionRow {
  const float* query;
  float* out;
  /// The positions it sees, the last one included, and those before `keep`.
  std::size_t first;
  std::size_t last;
  std::size_t keep;
  /// A score that belongs to no position, or null.
  const float* sink;
};

/// One token of a causal depthwise convolution.
struct Convolution {
  /// The token's features and those before it, oldest first: one pointer a tap.
  const float* const* values;
  /// `[taps, features]`.
  const float* weights;
  /// One a feature, or null.
  const float* bias;
  std::size_t taps;
  std::size_t features;
  /// Whether the sum goes through `x / (1 + e^-x)`.
  bool silu;
  float* out;
};

/// One head of a linear recurrence over some tokens of a sequence. Its state is a matrix
/// `[key_dim, value_dim]`, for each token: `state = decay · state + key ⊗ (rate · value)`, and out
/// goes `query · state + skip · value`. With the delta rule, what the decayed state gives for the key
/// is first taken off the value.
struct Recurrence {
  const float* keys;
  const float* queries;
  const float* values;
  std::size_t key_stride;
  std::size_t query_stride;
  std::size_t value_stride;
  /// One of each a token.
  const float* decays;
  const float* rates;
  std::size_t gate_stride;
  /// A factor, or null.
  const float* skip;
  std::size_t tokens;
  std::size_t key_dim;
  std::size_t value_dim;
  bool delta;
  /// The state before and after; may be the same.
  const float* before;
  float* after;
  float* out;
  std::size_t out_stride;
};

} // namespace mlxcel::kernels

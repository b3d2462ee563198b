// How the rows of a cache become vectors. Included once by each instruction set, after its `Vec`.
//
// A row is read a vector of features at a time and widened in registers. A format says in which lane a
// feature is found (`lane`, within a vector's features): queries are laid out in that order, and what
// they find comes in it.
#pragma once

#include "formats.h"

namespace mlxcel::kernels {
namespace {

/// Numbers as they are.
template <class T>
struct Numbers {
  /// Vectors of a row that have something in common, `Common`.
  static constexpr int SPAN = 1;

  struct Row {
    const T* numbers;
  };
  struct Common {};

  static Row row(const CacheRows& rows, std::size_t t) {
    return {reinterpret_cast<const T*>(rows.data + t * rows.stride)};
  }
  static Common common(Row, std::size_t) { return {}; }
  static typename Vec::F vector(Row row, const Common&, std::size_t v) {
    return Vec::load(row.numbers + v * Vec::LANES);
  }
  static constexpr int lane(int feature) { return feature; }

  /// Asks for the rows of `count` positions that come later than `t`. What one head has of a segment is too
  /// short, and its keys and values too far apart, for the processor to notice in time where the reading goes
  /// on. Behind the last row nothing happens.
  __attribute__((always_inline)) static void prefetch(
      const CacheRows& rows, std::size_t t, std::size_t count) {
    constexpr std::size_t AHEAD = 24 * 1024;
    prefetch_lines(rows.data + t * rows.stride + AHEAD, count * rows.stride);
  }
};

/// Integers of `BITS` bits, `GROUP` of which share a scale and a bias.
template <int BITS, int GROUP>
struct Integers {
  static constexpr int SPAN = GROUP / Vec::LANES;
  using Common = typename Vec::template Levels<BITS>;

  struct Row {
    const unsigned char* integers;
    const float* scales;
    const float* biases;
  };

  static Row row(const CacheRows& rows, std::size_t t) {
    return {
        rows.data + t * rows.stride, rows.scales + t * rows.scale_stride,
        rows.biases + t * rows.scale_stride};
  }
  /// What the vectors around vector `v` have in common.
  static Common common(Row row, std::size_t v) { return {row.scales[v / SPAN], row.biases[v / SPAN]}; }
  static typename Vec::F vector(Row row, const Common& levels, std::size_t v) {
    return levels.at(row.integers + v * (Vec::LANES * BITS / 8));
  }
  static constexpr int lane(int feature) { return Common::lane(feature); }

  /// As above, the scales too.
  __attribute__((always_inline)) static void prefetch(
      const CacheRows& rows, std::size_t t, std::size_t count) {
    constexpr std::size_t AHEAD = 16 * 1024;
    prefetch_lines(rows.data + t * rows.stride + AHEAD, count * rows.stride);
    const std::size_t later = (t + AHEAD / rows.stride) * rows.scale_stride;
    __builtin_prefetch(rows.scales + later);
    __builtin_prefetch(rows.biases + later);
  }
};

template <int BITS, class Call>
void with_integers(std::size_t group, Call call) {
  switch (group) {
    case 32:
      return call(Integers<BITS, 32>{});
    case 64:
      return call(Integers<BITS, 64>{});
    default:
      return call(Integers<BITS, 128>{});
  }
}

/// Calls `call` with the format of `rows`, whose bits and group were checked.
template <class Call>
void with_format(const CacheRows& rows, Call call) {
  switch (rows.bits) {
    case 4:
      return with_integers<4>(rows.group, call);
    case 8:
      return with_integers<8>(rows.group, call);
    default:
      return rows.element == Element::f16 ? call(Numbers<Half>{}) : call(Numbers<float>{});
  }
}

/// Vectors that `dim` features take, the last one filled up.
inline std::size_t vectors_of(std::size_t dim) {
  return (dim + Vec::LANES - 1) / Vec::LANES;
}

/// Positions `from` to `to` as float32 in `copies`, each filled up with zeros to whole vectors.
template <class Format>
CacheRows widened(
    const CacheRows& rows, std::size_t from, std::size_t to, std::size_t dim, float* copies) {
  const std::size_t length = vectors_of(dim) * Vec::LANES, whole = dim / Vec::LANES;
  for (std::size_t t = from; t < to; t++) {
    const auto row = Format::row(rows, t);
    float* out = copies + (t - from) * length;
    for (std::size_t v = 0; v < whole; v++) {
      Vec::store(out + v * Vec::LANES, Format::vector(row, Format::common(row, v), v));
    }
    // Groups of integers fill whole vectors.
    if constexpr (requires { row.numbers; }) {
      for (std::size_t i = whole * Vec::LANES; i < length; i++) {
        out[i] = i < dim ? to_float(row.numbers[i]) : 0;
      }
    }
  }
  return {
      .data = reinterpret_cast<const unsigned char*>(copies),
      .stride = length * sizeof(float),
      .element = Element::f32,
      .bits = 0,
      .group = 0,
      .scales = nullptr,
      .biases = nullptr,
      .scale_stride = 0};
}

} // namespace
} // namespace mlxcel::kernels

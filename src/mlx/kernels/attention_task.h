// Attention as plain memory: which rows see what, and how that is divided among the threads.
#pragma once

#include <vector>

#include "table.h"

namespace mlxcel::kernels {

/// Queries and what they see, as plain memory.
struct Queries {
  /// One of each key head. The arrays live until the task is done, their handles need not.
  std::vector<AttentionHead> heads;
  const float* queries;
  std::size_t query_head, query_row;
  /// One a query head, or null.
  const float* sinks;
  /// `[seq, heads, dim]`
  float* result;
  /// Query heads that share a key head.
  std::size_t group;
  std::size_t seq, total, window, keep;

  /// Queries that share their keys are taken together, neighbours in time with one another.
  std::size_t rows_of_head() const { return seq * group; }

  AttentionRow row(std::size_t kv, std::size_t i) const {
    const std::size_t all = heads.size() * group, h = kv * group + i % group, s = i / group;
    const std::size_t last = total - seq + s, dim = heads[kv].dim;
    return {
        queries + h * query_head + s * query_row,
        result + (s * all + h) * dim,
        last + 1 > window ? last + 1 - window : 0,
        last,
        keep,
        sinks == nullptr ? nullptr : sinks + h};
  }
};

/// Floats that it takes to divide by segments what there are not rows enough to divide by; 0 where there are.
std::size_t found_of(const Table& kernels, const std::vector<Queries>& all);

/// Computes all results, with `found_of` floats of memory.
void attend(const Table& kernels, const std::vector<Queries>& all, float* found);

} // namespace mlxcel::kernels

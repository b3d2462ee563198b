#include "attention_task.h"

#include <algorithm>

#include "pool.h"

namespace mlxcel::kernels {
namespace {

/// Query rows that any instruction set takes together at most.
constexpr std::size_t MOST_ROWS = 32;

/// Some of a head's rows.
struct Block {
  AttentionRow rows[MOST_ROWS];
  std::size_t count = 0;

  Block(const Queries& of, std::size_t kv, std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; i++) {
      rows[count++] = of.row(kv, i);
    }
  }
};

/// The segments that the first row to the last see something of.
struct Segments {
  std::size_t begin, count;

  explicit Segments(const Queries& of) {
    const std::size_t first = of.row(0, 0).first;
    begin = of.keep > 0 ? 0 : first / ATTENTION_SEGMENT;
    count = (of.total + ATTENTION_SEGMENT - 1) / ATTENTION_SEGMENT - begin;
  }
};

/// Pieces of some rows of a head.
std::size_t pieces_of(const Table& kernels, const Queries& all) {
  const std::size_t at_once = kernels.attention_rows();
  return all.heads.size() * ((all.rows_of_head() + at_once - 1) / at_once);
}

/// Computes piece `piece` over all that its rows see.
void attend_piece(const Table& kernels, const Queries& all, std::size_t piece) {
  const std::size_t heads = all.heads.size(), rows = all.rows_of_head();
  const std::size_t at_once = kernels.attention_rows(), blocks = (rows + at_once - 1) / at_once;
  // The longest ones first, so that no thread begins one last.
  const std::size_t kv = piece % heads, from = (blocks - 1 - piece / heads) * at_once;
  const Block block(all, kv, from, std::min(from + at_once, rows));
  const AttentionHead& head = all.heads[kv];
  kernels.attend(head, block.rows, block.count, scratch(kernels.attention_scratch(head.dim)));
}

/// A thread takes some rows over all that they see.
void attend_by_rows(const Table& kernels, const std::vector<const Queries*>& all) {
  std::vector<std::size_t> ends;
  std::size_t pieces = 0;
  for (const Queries* queries : all) {
    ends.push_back(pieces += pieces_of(kernels, *queries));
  }
  parallel_for(pieces, [&](std::size_t piece) {
    const std::size_t which = std::upper_bound(ends.begin(), ends.end(), piece) - ends.begin();
    attend_piece(kernels, *all[which], piece - (which == 0 ? 0 : ends[which - 1]));
  });
}

/// A thread takes some segments of a head; `found` is what all rows find in each.
void attend_by_segments(const Table& kernels, const Queries& all, float* found) {
  const std::size_t heads = all.heads.size(), rows = all.rows_of_head();
  const std::size_t at_once = kernels.attention_rows(), blocks = (rows + at_once - 1) / at_once;
  const std::size_t dim = all.heads[0].dim, size = kernels.attention_found(dim);
  const Segments segments(all);
  // Enough pieces for threads that come late, and as long ones as that allows.
  const std::size_t run = std::max<std::size_t>(1, heads * blocks * segments.count / (8 * threads()));
  const std::size_t runs = (segments.count + run - 1) / run, stride = segments.count * size;
  const std::size_t needed = kernels.attention_scratch(dim);
  parallel_for(heads * blocks * runs, [&](std::size_t piece) {
    const std::size_t kv = piece / runs / blocks, first = piece / runs % blocks * at_once;
    const std::size_t from = piece % runs * run, to = std::min(from + run, segments.count);
    const Block block(all, kv, first, std::min(first + at_once, rows));
    kernels.attend_segments(
        all.heads[kv], block.rows, block.count, segments.begin + from, segments.begin + to,
        found + (kv * rows + first) * stride + from * size, stride, scratch(needed));
  });
  for_each_of(heads * rows, 2 * stride, [&](std::size_t index) {
    const std::size_t kv = index / rows;
    kernels.merge_segments(
        all.heads[kv], all.row(kv, index % rows), found + index * stride, segments.count,
        scratch(needed));
  });
}

/// Floats that it takes to divide these by segments; 0 where there is but one.
std::size_t floats_of(const Table& kernels, const Queries& queries) {
  const std::size_t segments = Segments(queries).count;
  return segments > 1 ? queries.heads.size() * queries.rows_of_head() * segments *
          kernels.attention_found(queries.heads[0].dim)
                      : 0;
}

} // namespace

std::size_t found_of(const Table& kernels, const std::vector<Queries>& all) {
  std::size_t pieces = 0, floats = 0;
  for (const Queries& queries : all) {
    pieces += pieces_of(kernels, queries);
    floats += floats_of(kernels, queries);
  }
  return pieces < 4 * threads() ? floats : 0;
}

void attend(const Table& kernels, const std::vector<Queries>& all, float* found) {
  std::vector<const Queries*> whole;
  for (const Queries& queries : all) {
    const std::size_t floats = found == nullptr ? 0 : floats_of(kernels, queries);
    if (floats == 0) {
      whole.push_back(&queries);
    } else {
      attend_by_segments(kernels, queries, found);
      found += floats;
    }
  }
  attend_by_rows(kernels, whole);
}

} // namespace mlxcel::kernels

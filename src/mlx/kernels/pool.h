// The threads that kernels share: one pool a process.
#pragma once

#include <algorithm>
#include <cstddef>

namespace mlxcel::kernels {

/// Threads that work together, the calling one among them; before the first `parallel`, or between two.
void set_threads(std::size_t threads);
std::size_t threads();

/// Calls `work(context, index)` for every index below `count`, each once, on whichever thread is free,
/// and returns when all are done. Only one thread at a time may call it; `work` must not.
void parallel(std::size_t count, void (*work)(void* context, std::size_t index), void* context);

/// The same for a callable. One piece is done at once, without the pool.
template <class Work>
void parallel_for(std::size_t count, Work work) {
  parallel(
      count, [](void* context, std::size_t index) { (*static_cast<Work*>(context))(index); }, &work);
}

/// Numbers below which a second thread costs more than it brings.
constexpr std::size_t SMALL = 16 * 1024;

/// Calls `work` for every index below `count`; an index is worth `size` numbers.
template <class Work>
void for_each_of(std::size_t count, std::size_t size, Work work) {
  const std::size_t step = std::max<std::size_t>(1, SMALL / std::max<std::size_t>(1, size));
  parallel_for((count + step - 1) / step, [&](std::size_t piece) {
    for (std::size_t i = piece * step; i < std::min((piece + 1) * step, count); i++) {
      work(i);
    }
  });
}

/// The calling thread's own memory of at least `floats`, aligned to a cache line, until its next call.
float* scratch(std::size_t floats);

} // namespace mlxcel::kernels

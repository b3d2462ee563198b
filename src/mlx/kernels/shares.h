// Who does which pieces of a job.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace mlxcel::kernels {

/// The pieces of a job, dealt out: each thread has neighbouring ones and goes through them in order, so that
/// it reads memory in one go, what is asked for ahead comes to the core that wants it, and the next job of the
/// same size finds its numbers in the same core's caches. Who has none left takes others' last ones.
class Shares {
 public:
  explicit Shares(std::size_t threads) : shares_(threads) {}

  /// Pieces 0 to `count` (below 2^32), while nobody takes any.
  void deal(std::size_t count) {
    const std::uint64_t threads = shares_.size();
    for (std::uint64_t i = 0; i < threads; i++) {
      const std::uint64_t from = count * i / threads, to = count * (i + 1) / threads;
      shares_[i].left.store(from << 32 | to, std::memory_order_relaxed);
    }
  }

  /// The next piece for `thread`; nothing when all are taken.
  std::optional<std::size_t> take(std::size_t thread) {
    if (const auto own = shares_[thread].first()) {
      return own;
    }
    for (std::size_t i = 1; i < shares_.size(); i++) {
      if (const auto other = shares_[(thread + i) % shares_.size()].last()) {
        return other;
      }
    }
    return std::nullopt;
  }

 private:
  /// A cache line of its own.
  struct alignas(64) Share {
    /// The first piece that is left, in the upper half, and the one behind the last.
    std::atomic<std::uint64_t> left{0};

    std::optional<std::size_t> first() {
      return taken([](std::uint64_t from, std::uint64_t to) { return (from + 1) << 32 | to; },
                   [](std::uint64_t from, std::uint64_t) { return from; });
    }
    std::optional<std::size_t> last() {
      return taken([](std::uint64_t from, std::uint64_t to) { return from << 32 | (to - 1); },
                   [](std::uint64_t, std::uint64_t to) { return to - 1; });
    }

   private:
    template <class Rest, class Piece>
    std::optional<std::size_t> taken(Rest rest, Piece piece) {
      std::uint64_t now = left.load(std::memory_order_relaxed);
      for (;;) {
        const std::uint64_t from = now >> 32, to = now & 0xFFFFFFFF;
        if (from >= to) {
          return std::nullopt;
        }
        if (left.compare_exchange_weak(now, rest(from, to), std::memory_order_relaxed)) {
          return static_cast<std::size_t>(piece(from, to));
        }
      }
    }
  };

  std::vector<Share> shares_;
};

} // namespace mlxcel::kernels

#include "pool.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "shares.h"

namespace mlxcel::kernels {
namespace {

/// How long an idle worker looks for work before it sleeps: longer than the gaps within a token's
/// computation, shorter than a person's notice.
constexpr std::chrono::microseconds SPIN{100};
/// How often a waiting thread looks before it offers its core to others.
constexpr int LOOKS = 200;

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// A job is open to whoever comes. `state` holds its number, whether it is open, and how many workers
/// are in it; a worker that comes late finds it closed and is not waited for.
class Pool {
 public:
  ~Pool() { stop(); }

  void resize(std::size_t threads) {
    stop();
    stopping_ = false;
    shares_ = Shares(threads);
    for (std::size_t i = 1; i < threads; i++) {
      workers_.emplace_back([this, i] { serve(i); });
    }
  }

  std::size_t threads() const { return workers_.size() + 1; }

  void run(std::size_t count, void (*work)(void*, std::size_t), void* context) {
    if (count <= 1 || workers_.empty()) {
      for (std::size_t i = 0; i < count; i++) {
        work(context, i);
      }
      return;
    }
    work_ = work;
    context_ = context;
    shares_.deal(count);
    state_.fetch_add(JOB | OPEN, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      state_.notify_all();
    }
    take_part(0);
    state_.fetch_sub(OPEN, std::memory_order_acq_rel);
    for (int looks = 0; (state_.load(std::memory_order_acquire) & INSIDE) != 0; looks++) {
      looks < LOOKS ? relax() : std::this_thread::yield();
    }
  }

 private:
  static constexpr std::uint64_t INSIDE = 0xFFFF, OPEN = 0x10000, JOB = 0x20000;

  void take_part(std::size_t thread) {
    while (const auto index = shares_.take(thread)) {
      work_(context_, *index);
    }
  }

  void serve(std::size_t thread) {
    std::uint64_t done = 0;
    for (;;) {
      std::uint64_t state = wait(done);
      if (stopping_.load(std::memory_order_relaxed)) {
        return;
      }
      while ((state & OPEN) != 0) {
        if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) {
          take_part(thread);
          state_.fetch_sub(1, std::memory_order_acq_rel);
          break;
        }
      }
      done = state / JOB;
    }
  }

  /// Waits for a job other than `done`, at first awake.
  std::uint64_t wait(std::uint64_t done) {
    const auto start = std::chrono::steady_clock::now();
    for (int looks = 1;; looks++) {
      const std::uint64_t state = state_.load(std::memory_order_acquire);
      if (state / JOB != done || stopping_.load(std::memory_order_relaxed)) {
        return state;
      }
      relax();
      if (looks % LOOKS == 0 && std::chrono::steady_clock::now() - start > SPIN) {
        break;
      }
    }
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    std::uint64_t state = state_.load(std::memory_order_seq_cst);
    while (state / JOB == done && !stopping_.load(std::memory_order_relaxed)) {
      state_.wait(state, std::memory_order_acquire);
      state = state_.load(std::memory_order_acquire);
    }
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    return state;
  }

  void stop() {
    stopping_ = true;
    state_.fetch_add(JOB, std::memory_order_seq_cst);
    state_.notify_all();
    for (auto& worker : workers_) {
      worker.join();
    }
    workers_.clear();
  }

  std::vector<std::thread> workers_;
  std::atomic<bool> stopping_{false};
  void (*work_)(void*, std::size_t) = nullptr;
  void* context_ = nullptr;
  Shares shares_{1};
  alignas(64) std::atomic<std::uint64_t> state_{0};
  alignas(64) std::atomic<int> sleepers_{0};
};

/// Never destroyed: a process may exit while the engine thread still computes.
Pool& pool() {
  static Pool* pool = new Pool;
  return *pool;
}

/// MLX may run several streams, and each of them has its own thread.
std::mutex& turn() {
  static std::mutex* turn = new std::mutex;
  return *turn;
}

struct Free {
  void operator()(float* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};

} // namespace

void set_threads(std::size_t threads) {
  std::lock_guard lock(turn());
  pool().resize(threads);
}

std::size_t threads() {
  return pool().threads();
}

void parallel(std::size_t count, void (*work)(void*, std::size_t), void* context) {
  std::lock_guard lock(turn());
  pool().run(count, work, context);
}

float* scratch(std::size_t floats) {
  thread_local std::unique_ptr<float, Free> memory;
  thread_local std::size_t size = 0;
  if (size < floats) {
    memory.reset();
    size = 0;
    memory.reset(static_cast<float*>(
        ::operator new(floats * sizeof(float), std::align_val_t{64})));
    size = floats;
  }
  return memory.get();
}

} // namespace mlxcel::kernels

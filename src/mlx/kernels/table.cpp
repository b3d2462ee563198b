#include "table.h"

#include <array>
#include <atomic>
#include <cstring>

namespace mlxcel::kernels {
namespace {

struct Candidate {
  Table exact;
  /// The same where activations are quantized.
  Table quantizing;
  bool available;

  Candidate(const Table& table, bool available) : exact(table), quantizing(table), available(available) {
    quantizing.products = table.quantizing;
  }
};

#if defined(__x86_64__)
/// `table` with other products of integers.
Table with(Table table, const char* name, const Products& quantizing) {
  table.name = name;
  table.quantizing = &quantizing;
  return table;
}
#endif

/// The fastest first.
auto find_candidates() {
#if defined(__x86_64__)
  // These ask the operating system too, whether it keeps the registers.
  __builtin_cpu_init();
  const bool half = __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool has_avx512 = half && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool has_avx2 = half && __builtin_cpu_supports("avx2");
  return std::array{
      Candidate{
          with(avx512, "avx512vnni", avx512_vnni), has_avx512 && __builtin_cpu_supports("avx512vnni")},
      Candidate{avx512, has_avx512},
      Candidate{with(avx2, "avx2vnni", avx2_vnni), has_avx2 && __builtin_cpu_supports("avxvnni")},
      Candidate{avx2, has_avx2},
      Candidate{portable, true}};
#elif defined(__aarch64__)
  return std::array{Candidate{neon, true}, Candidate{portable, true}};
#else
  return std::array{Candidate{portable, true}};
#endif
}

const auto& candidates() {
  static const auto found = find_candidates();
  return found;
}

/// Where `candidates` has the set in use.
std::atomic<std::size_t>& chosen() {
  const auto fastest = [] {
    std::size_t i = 0;
    while (!candidates()[i].available) {
      i++;
    }
    return i;
  };
  static std::atomic<std::size_t> index{fastest()};
  return index;
}

std::atomic<bool> quantizes{false};

} // namespace

const Table& table() {
  const auto& candidate = candidates()[chosen().load(std::memory_order_relaxed)];
  return quantizes.load(std::memory_order_relaxed) ? candidate.quantizing : candidate.exact;
}

bool choose(const char* name) {
  const auto& all = candidates();
  for (std::size_t i = 0; i < all.size(); i++) {
    if (all[i].available && std::strcmp(all[i].exact.name, name) == 0) {
      chosen().store(i, std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

void quantize_activations(bool quantize) {
  quantizes.store(quantize, std::memory_order_relaxed);
}

void for_each_available(void (*each)(const char* name, void* context), void* context) {
  for (const auto& candidate : candidates()) {
    if (candidate.available) {
      each(candidate.exact.name, context);
    }
  }
}

} // namespace mlxcel::kernels

#include "table.h"

#include <array>
#include <atomic>
#include <cstring>

namespace mlxcel::kernels {
namespace {

struct Candidate {
  const Table* table;
  bool available;
};

auto candidates() {
#if defined(__x86_64__)
  // These ask the operating system too, whether it keeps the registers.
  __builtin_cpu_init();
  const bool half = __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  return std::array{
      Candidate{
          &avx512,
          half && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")},
      Candidate{&avx2, half && __builtin_cpu_supports("avx2")},
      Candidate{&portable, true}};
#elif defined(__aarch64__)
  return std::array{Candidate{&neon, true}, Candidate{&portable, true}};
#else
  return std::array{Candidate{&portable, true}};
#endif
}

const Table* fastest() {
  for (const auto& candidate : candidates()) {
    if (candidate.available) {
      return candidate.table;
    }
  }
  return &portable;
}

std::atomic<const Table*>& chosen() {
  static std::atomic<const Table*> table{fastest()};
  return table;
}

} // namespace

const Table& table() {
  return *chosen().load(std::memory_order_relaxed);
}

bool choose(const char* name) {
  for (const auto& candidate : candidates()) {
    if (candidate.available && std::strcmp(candidate.table->name, name) == 0) {
      chosen().store(candidate.table, std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

void for_each_available(void (*each)(const char* name, void* context), void* context) {
  for (const auto& candidate : candidates()) {
    if (candidate.available) {
      each(candidate.table->name, context);
    }
  }
}

} // namespace mlxcel::kernels

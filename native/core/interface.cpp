// The C interface: choice of the instruction set, and division of rows into parts.
#include "interface.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "elliptical.h"
#include "parameters.h"
#include "target.h"
#include "threads.h"

namespace kmvn {
namespace {

// Available targets, best first.
std::vector<const Target*> available() {
  std::vector<const Target*> targets;
#if defined(KMVN_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) targets.push_back(&target_avx512);
  if (__builtin_cpu_supports("x86-64-v3")) targets.push_back(&target_avx2);
#endif
  targets.push_back(&target_baseline);
  return targets;
}

std::atomic<const Target*>& current() {
  static std::atomic<const Target*> target{available().front()};
  return target;
}

const Target& chosen() { return *current().load(std::memory_order_relaxed); }

constexpr int64_t bytes_of_a_part = 1 << 17;  // less is not worth waking another thread
constexpr int64_t tile = 16;                  // a multiple of the tiles of all instruction sets

int64_t grain_for(int64_t row_bytes, int64_t unit) {
  const int64_t least = bytes_of_a_part / std::max<int64_t>(row_bytes, 1);
  return std::max<int64_t>((least + unit - 1) / unit * unit, unit);
}

template <class Arguments>
int run(kmvn_body body, const Arguments& a, int64_t bytes, const kmvn_threads& threads,
        int64_t unit = tile) {
  const int64_t grain = grain_for((2 * a.d + a.k) * bytes, unit);
  if (a.rows <= 0) return KMVN_OK;
  const bool done = run_in_parts(threads, a.rows, grain, body, const_cast<Arguments*>(&a));
  return done ? KMVN_OK : KMVN_NO_MEMORY;
}

bool is_known(int32_t structure, int64_t d, int64_t k) {
  if (d < 1 || k < 0) return false;
  if (structure == KMVN_LOW_RANK) return k % d == 0;
  return (structure == KMVN_CHOLESKY || structure == KMVN_PRECISION_CHOLESKY) &&
         k == d * (d - 1) / 2;
}

template <class Arguments>
int elliptical(kmvn_body body, const Arguments& a, int64_t bytes, const kmvn_threads& threads) {
  if (!is_known(a.structure, a.d, a.k)) return KMVN_UNKNOWN;
  return run(body, a, bytes, threads, a.structure == KMVN_LOW_RANK ? 1 : tile);
}

template <class Arguments>
int parameters(kmvn_body body, const Arguments& a, int64_t bytes, const kmvn_threads& threads) {
  if (a.d < 1 || a.k < 0) return KMVN_UNKNOWN;
  return run(body, a, bytes, threads);
}

}  // namespace
}  // namespace kmvn

using kmvn::chosen;

#define KMVN_ENTRY(op, pass, arguments)                                                  \
  int kmvn_##op##_##pass##_f32(const arguments* a, kmvn_threads t) {                     \
    return kmvn::op(chosen().op##_##pass##_f32, *a, 4, t);                               \
  }                                                                                      \
  int kmvn_##op##_##pass##_f64(const arguments* a, kmvn_threads t) {                     \
    return kmvn::op(chosen().op##_##pass##_f64, *a, 8, t);                               \
  }
KMVN_ENTRY(elliptical, forward, kmvn_forward)
KMVN_ENTRY(elliptical, backward, kmvn_backward)
KMVN_ENTRY(parameters, forward, kmvn_parameters_forward)
KMVN_ENTRY(parameters, backward, kmvn_parameters_backward)

const char* kmvn_instructions(void) { return chosen().name; }

int kmvn_use_instructions(const char* name) {
  for (const kmvn::Target* target : kmvn::available())
    if (std::strcmp(target->name, name) == 0) {
      kmvn::current().store(target, std::memory_order_relaxed);
      return 0;
    }
  return 1;
}

int kmvn_abi(void) { return KMVN_ABI; }

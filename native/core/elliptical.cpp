// The C interface: which instructions, in which parts.
#include "elliptical.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "target.h"
#include "threads.h"

namespace kmvn {
namespace {

// The best first.
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

constexpr int64_t bytes_of_a_part = 1 << 17;  // less is not worth waking another thread for
constexpr int64_t tile = 16;                  // parts end where tiles of any instructions do

int64_t grain_for(int64_t d, int64_t bytes_of_a_number) {
  const int64_t row_bytes = (2 * d + d * (d - 1) / 2) * bytes_of_a_number;
  const int64_t least = std::max<int64_t>(bytes_of_a_part / std::max<int64_t>(row_bytes, 1), 1);
  return std::max<int64_t>((least + tile - 1) / tile * tile, tile);
}

template <class Arguments>
int run(kmvn_body body, const Arguments& a, int64_t bytes, const kmvn_threads& threads) {
  if (a.rows <= 0) return 0;
  const bool known = a.structure == KMVN_CHOLESKY || a.structure == KMVN_PRECISION_CHOLESKY;
  if (!known || a.d < 1) return 1;
  run_in_parts(threads, a.rows, grain_for(a.d, bytes), body, const_cast<Arguments*>(&a));
  return 0;
}

}  // namespace
}  // namespace kmvn

using kmvn::chosen;
using kmvn::run;

int kmvn_elliptical_forward_f32(const kmvn_forward* a, kmvn_threads t) {
  return run(chosen().forward_f32, *a, 4, t);
}
int kmvn_elliptical_forward_f64(const kmvn_forward* a, kmvn_threads t) {
  return run(chosen().forward_f64, *a, 8, t);
}
int kmvn_elliptical_backward_f32(const kmvn_backward* a, kmvn_threads t) {
  return run(chosen().backward_f32, *a, 4, t);
}
int kmvn_elliptical_backward_f64(const kmvn_backward* a, kmvn_threads t) {
  return run(chosen().backward_f64, *a, 8, t);
}

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

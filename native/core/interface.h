// What all operations of the C interface share.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define KMVN_API __declspec(dllexport)
#else
#define KMVN_API __attribute__((visibility("default")))
#endif

// Work on rows [begin, end).
typedef void (*kmvn_body)(void* context, int64_t begin, int64_t end);

// Whose threads do the work: a team, a scheduler, or, if both are NULL, threads of our own.
typedef struct {
  int threads;  // that may work at the same time, the calling one among them
  // Hands a task to another thread, now or later, and returns 0, or refuses it with anything else.
  int (*submit)(void* scheduler, void (*task)(void*), void* data);
  void* scheduler;
  // Runs the task in so many threads at once and returns when all are done: `GOMP_parallel` of a
  // caller whose OpenMP threads spin while they wait, and would be in the way of any others.
  void (*team)(void (*task)(void*), void* data, unsigned threads, unsigned flags);
} kmvn_threads;

// What operations return: success; a structure that is not known, or a d or a k that it cannot
// have; not enough memory, and what was written is not all of it.
enum { KMVN_OK = 0, KMVN_UNKNOWN = 1, KMVN_NO_MEMORY = 2 };

// The instructions that were chosen on this machine: "avx512", "avx2", "baseline".
KMVN_API const char* kmvn_instructions(void);

// Chooses others, from the next call on, for tests and comparisons; 1 if this machine lacks them.
KMVN_API int kmvn_use_instructions(const char* name);

// Changes whenever a struct or a meaning above does; bindings compare.
#define KMVN_ABI 5
KMVN_API int kmvn_abi(void);

#ifdef __cplusplus
}
#endif

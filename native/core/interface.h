// Declarations shared by all operations of the C interface.
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

// Processes rows [begin, end).
typedef void (*kmvn_body)(void* context, int64_t begin, int64_t end);

// The threads that do the work: a team, a scheduler, or, if both are NULL, our own threads.
typedef struct {
  int threads;  // maximum number of concurrent threads, including the caller
  // Hands a task to another thread, now or later; returns 0, or nonzero if it is rejected.
  int (*submit)(void* scheduler, void (*task)(void*), void* data);
  void* scheduler;
  // Runs the task in this many threads at once, and returns when all are done: `GOMP_parallel` if
  // the caller uses OpenMP, whose threads spin while they wait and would compete with others.
  void (*team)(void (*task)(void*), void* data, unsigned threads, unsigned flags);
} kmvn_threads;

// Return values of operations: success; an unknown structure, or a d or k that it does not allow;
// not enough memory, in which case the results are incomplete.
enum { KMVN_OK = 0, KMVN_UNKNOWN = 1, KMVN_NO_MEMORY = 2 };

// The instruction set in use on this machine: "avx512", "avx2" or "baseline".
KMVN_API const char* kmvn_instructions(void);

// Chooses an instruction set from the next call on, for tests and benchmarks; returns 1 if this
// machine does not have it.
KMVN_API int kmvn_use_instructions(const char* name);

// Changes whenever a struct or its meaning does; bindings check it.
#define KMVN_ABI 6
KMVN_API int kmvn_abi(void);

#ifdef __cplusplus
}
#endif

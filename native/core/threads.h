// Rows in parts, by several threads.
#pragma once

#include <cstdint>

#include "interface.h"

namespace kmvn {

// body over [0, n) in parts of `grain`; returns when all of it is done, or false if for some of it
// there was no memory.
bool run_in_parts(const kmvn_threads& threads, int64_t n, int64_t grain, kmvn_body body,
                  void* context);

}  // namespace kmvn

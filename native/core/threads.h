// Processing of rows in parts, by several threads.
#pragma once

#include <cstdint>

#include "interface.h"

namespace kmvn {

// Runs body over [0, n) in parts of `grain`; returns when all parts are done: true, or false if
// there was not enough memory for some of them.
bool run_in_parts(const kmvn_threads& threads, int64_t n, int64_t grain, kmvn_body body,
                  void* context);

}  // namespace kmvn

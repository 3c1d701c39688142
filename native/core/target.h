// What a set of instructions offers: the passes over a range of rows.
#pragma once

#include "elliptical.h"

namespace kmvn {

struct Target {
  const char* name;
  kmvn_body forward_f32, forward_f64, backward_f32, backward_f64;
};

extern const Target target_baseline;
#if defined(KMVN_X86)
extern const Target target_avx2, target_avx512;
#endif

}  // namespace kmvn

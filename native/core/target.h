// The passes over a range of rows, compiled for one instruction set.
#pragma once

#include "interface.h"

namespace kmvn {

struct Target {
  const char* name;
  kmvn_body elliptical_forward_f32, elliptical_forward_f64;
  kmvn_body elliptical_backward_f32, elliptical_backward_f64;
  kmvn_body parameters_forward_f32, parameters_forward_f64;
  kmvn_body parameters_backward_f32, parameters_backward_f64;
};

extern const Target target_baseline;
#if defined(KMVN_X86)
extern const Target target_avx2, target_avx512;
#endif

}  // namespace kmvn

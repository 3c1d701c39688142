// The two passes of elliptical.h over a range of rows.
#pragma once

#include <algorithm>

#include "low_rank_kernel.h"
#include "triangular_kernel.h"

namespace kmvn {
namespace KMVN_TARGET {

template <class T>
void elliptical_forward(void* arguments, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const kmvn_forward*>(arguments);
  if (a.structure == KMVN_LOW_RANK)
    LowRankForward<T>(a).rows(begin, end);
  else
    TriangularForward<T>(a).rows(begin, end);
}

template <class T>
void elliptical_backward(void* arguments, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const kmvn_backward*>(arguments);
  if (a.structure == KMVN_LOW_RANK)
    LowRankBackward<T>(a).rows(begin, end);
  else
    TriangularBackward<T>(a).rows(begin, end);
  // Last, as whole vectors of a row may have been written beyond its end.
  const int64_t width = 2 * a.d + a.k + a.trailing;
  for (int64_t row = begin; row < end && a.trailing; ++row)
    std::copy_n(static_cast<const T*>(a.trailing_bar) + row * a.trailing, a.trailing,
                static_cast<T*>(a.y_pred_bar) + (row + 1) * width - a.trailing);
}

}  // namespace KMVN_TARGET
}  // namespace kmvn

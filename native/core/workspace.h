// Memory of a thread, kept between calls, because new pages cost more than the arithmetic.
#pragma once

#include <vector>

#include "simd.h"

namespace kmvn {
namespace KMVN_TARGET {

template <class T>
inline Vector<T>* workspace(size_t vectors) {
  static thread_local std::vector<Vector<T>> kept;
  if (kept.size() < vectors) kept.resize(vectors);
  return kept.data();
}

}  // namespace KMVN_TARGET
}  // namespace kmvn

// Computations with mean and scale, independent of the shape.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "elliptical.h"

namespace kmvn {
namespace KMVN_TARGET {

// Σ log scale if a scale is 0, negative, denormal or not finite.
template <class T>
T sum_of_logs(const T* scale, int64_t d, const T* observed = nullptr) {
  double sum = 0;
  for (int64_t i = 0; i < d; ++i)
    if (!observed || observed[i] > 0) sum += std::log(double(scale[i]));
  return T(sum);
}

// x / scale, with one division for all x where that is as accurate.
template <class T>
struct ByReciprocal {
  explicit ByReciprocal(T scale) : reciprocal(T(1) / scale) {}
  T operator()(T x) const { return x * reciprocal; }
  const T reciprocal;
};

template <class T>
struct ByDivision {
  explicit ByDivision(T scale) : scale(scale) {}
  T operator()(T x) const { return x / scale; }
  const T scale;
};

// Whether the scales and their reciprocals are positive and neither denormal nor infinite. Tests
// exponents, because compilers vectorize integer operations, but not such comparisons.
template <class T>
bool have_reciprocals(const T* scale, int64_t d) {
  using Unsigned = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr int digits = std::numeric_limits<T>::digits - 1;
  constexpr Unsigned largest = sizeof(T) == 4 ? 0xff : 0x7ff;  // exponent
  Unsigned outside = 0;
  for (int64_t i = 0; i < d; ++i) {
    Unsigned bits;
    std::memcpy(&bits, scale + i, sizeof bits);
    outside |= Unsigned((bits >> digits) - 3 > largest - 6);  // a sign bit makes it large
  }
  return !outside;
}

template <class T, class By>
void location_scale_bars_by(const kmvn_backward& a, int64_t row, T* u) {
  const int64_t d = a.d;
  const T *const mean = static_cast<const T*>(a.y_pred) + row * a.stride, *const scale = mean + d;
  const T *const y = static_cast<const T*>(a.y) + row * d,
          *const v = static_cast<const T*>(a.v) + row * d;
  const T* const observed = a.observed ? static_cast<const T*>(a.observed) + row * d : nullptr;
  const T* const of_mean = a.mean_bar ? static_cast<const T*>(a.mean_bar) + row * d : nullptr;
  T *const mean_bar = static_cast<T*>(a.y_pred_bar) + row * (2 * d + a.k + a.trailing),
    *const scale_bar = mean_bar + d;
  const T twice = 2 * static_cast<const T*>(a.squared_mahalanobis_bar)[row],
          log_bar = static_cast<const T*>(a.half_log_det_bar)[row];
  for (int64_t i = 0; i < d; ++i) {
    const By over(scale[i]);
    const T u_i = over(y[i] - mean[i]), along = twice * v[i];
    const T here = observed ? observed[i] : T(1);
    const T scale_bar_i = over(log_bar - u_i * along);
    scale_bar[i] = here > 0 ? scale_bar_i : T(0);
    mean_bar[i] = (a.fixed_mean ? T(0) : -over(along)) + (of_mean ? of_mean[i] : T(0));
    u[i] = u_i;
  }
}

// Writes the first 2 d columns of a row of y_pred_bar, and the u of that row.
template <class T>
void location_scale_bars(const kmvn_backward& a, int64_t row, T* u) {
  const T* const scale = static_cast<const T*>(a.y_pred) + row * a.stride + a.d;
  if (have_reciprocals(scale, a.d))
    location_scale_bars_by<T, ByReciprocal<T>>(a, row, u);
  else
    location_scale_bars_by<T, ByDivision<T>>(a, row, u);
}

}  // namespace KMVN_TARGET
}  // namespace kmvn

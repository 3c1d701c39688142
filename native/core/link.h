// The link for positive scales and its derivative, on vectors.
#pragma once

#include "simd.h"

namespace kmvn {
namespace KMVN_TARGET {

// exp(x) for 0 ≤ x ≤ 3: x = n log 2 + r, |r| ≤ ½ log 2, and the Taylor series at r.
template <class T>
inline Vector<T> small_exponential(const Vector<T>& x) {
  constexpr T log2 = T(0.693147180559945309417232), inverse = T(1.44269504088896340735992);
  // The leading bits of log 2, whose product with n is exact, and the rest.
  constexpr T leading = T(0.693145751953125), rest = T(1.42860682030941723212e-6);
  static_assert(leading + rest > log2 * T(0.999999) && leading + rest < log2 * T(1.000001), "");
  constexpr int terms = sizeof(T) == 4 ? 7 : 13;
  constexpr int digits = sizeof(T) == 4 ? 23 : 52;
  constexpr int bias = sizeof(T) == 4 ? 127 : 1023;
  const Bits<T> n = __builtin_convertvector(x * inverse + T(0.5), Bits<T>);  // x ≥ 0: rounds
  const Vector<T> whole = __builtin_convertvector(n, Vector<T>);
  const Vector<T> r = (x - whole * leading) - whole * rest;
  Vector<T> series = broadcast<T>(1);
  for (int i = terms; i > 0; --i) series = series * (r * (T(1) / T(i))) + T(1);
  const Bits<T> power = (n + bias) << digits;
  Vector<T> factor;
  std::memcpy(&factor, &power, sizeof factor);
  return series * factor;
}

constexpr int knee = 3;

template <class T>
struct Link {
  Vector<T> value, slope;
};

template <class T>
inline Link<T> link(const Vector<T>& x) {
  const Vector<T> zero{}, one = broadcast<T>(1), limit = broadcast<T>(knee);
  const auto up = x >= zero;
  const Vector<T> size = up ? x : -x;
  const auto outside = size > limit;
  // NaN is not outside; small_exponential cannot take it, so it is restored below.
  const Vector<T> inside = outside ? limit : size;
  const Vector<T> exponential = small_exponential<T>(inside == inside ? inside : zero);
  const Vector<T> grown = x == x ? exponential * (one + (size - inside)) : x;
  const Vector<T> slope = outside ? exponential : grown;
  const Vector<T> shrunk = one / grown;
  return {up ? grown : shrunk, up ? slope : slope * shrunk * shrunk};
}

}  // namespace KMVN_TARGET
}  // namespace kmvn

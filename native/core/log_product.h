// Σ log x as the logarithm of a product: one logarithm per row instead of d.
#pragma once

#include <limits>
#include <type_traits>

#include "simd.h"

namespace kmvn {
namespace KMVN_TARGET {

// The significands, in [1, 2), are multiplied and the exponents added, so nothing overflows or
// underflows; the rounding error of d products is less than that of d logarithms and their sum.
template <class T>
class LogProduct {
 public:
  void multiply(const Vector<T>& x) {
    const auto ordinary = (x >= std::numeric_limits<T>::min()) & (x <= std::numeric_limits<T>::max());
    ordinary_ &= ordinary;
    Bits<T> bits;
    std::memcpy(&bits, &x, sizeof bits);
    exponent_ += (bits >> digits) & exponent_mask;
    exponent_ -= bias;
    bits = (bits & fraction_mask) | one;
    Vector<T> significand;
    std::memcpy(&significand, &bits, sizeof bits);
    product_ *= significand;
    if (++factors_ % 64 == 0) normalize();
  }

  // Whether lane l had only normal positive numbers; if not, `log` is invalid there.
  bool ordinary(int l) const { return ordinary_[l] != 0; }

  // With the significand m in [1/√2, √2) and s = (m - 1)/(m + 1), log m = 2 (s + s³/3 + s⁵/5 + …).
  Vector<T> log() {
    normalize();
    const auto large = product_ >= T(1.41421356237309504880);
    const Vector<T> m = large ? product_ * T(0.5) : product_;
    const Bits<T> exponent = exponent_ - large;  // a true comparison is -1
    const Vector<T> s = (m - T(1)) / (m + T(1)), square = s * s;
    Vector<T> series{};
    for (int n = terms; n > 0; --n) series = (series + T(1) / T(2 * n + 1)) * square;
    const Vector<T> fraction = T(2) * s * (series + T(1));
    return fraction + __builtin_convertvector(exponent, Vector<T>) * T(0.693147180559945309417232);
  }

 private:
  static constexpr int terms = sizeof(T) == 4 ? 5 : 11;  // square ≤ 0.0295
  static constexpr int digits = std::numeric_limits<T>::digits - 1;
  using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  static constexpr Int exponent_mask = sizeof(T) == 4 ? 0xff : 0x7ff;
  static constexpr Int bias = sizeof(T) == 4 ? 127 : 1023;
  static constexpr Int fraction_mask = (Int(1) << digits) - 1;
  static constexpr Int one = bias << digits;

  void normalize() {
    Bits<T> bits;
    std::memcpy(&bits, &product_, sizeof bits);
    exponent_ += ((bits >> digits) & exponent_mask) - bias;
    bits = (bits & fraction_mask) | one;
    std::memcpy(&product_, &bits, sizeof bits);
  }

  Vector<T> product_ = broadcast<T>(1);
  Bits<T> exponent_{};
  Bits<T> ordinary_ = ~Bits<T>{};
  int64_t factors_ = 0;
};

}  // namespace KMVN_TARGET
}  // namespace kmvn

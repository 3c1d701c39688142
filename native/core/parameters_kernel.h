// The two passes of parameters.h over a range of rows.
#pragma once

#include <cmath>

#include "link.h"
#include "parameters.h"
#include "simd.h"

namespace kmvn {
namespace KMVN_TARGET {

// Sum of raw numbers and their bias.
template <class T>
struct Biased {
  const T *raw, *bias;

  Vector<T> operator()(int64_t i, int count) const {
    return load_up_to(raw + i, count) + load_up_to(bias + i, count);
  }
};

// 1/√(1 + ‖x‖²/radius²); x is divided before it is squared, so a long x gives 0.
template <class T>
inline T ball_factor(const Biased<T>& x, int64_t k, double radius) {
  if (radius == 0) return 1;
  const Vector<T> inverse = broadcast<T>(T(1 / radius));
  Vector<T> squares{};
  for_each_vector<T>(k, [&](int64_t i, int count) {
    const Vector<T> relative = x(i, count) * inverse;
    squares += relative * relative;
  });
  return T(1) / std::sqrt(T(1) + sum<T>(squares));
}

// Derivative and twice the value of the penalty strength raw²/2, for numbers i to i + count.
template <class T>
struct Shrinkage {
  const T* strengths;

  Vector<T> derivative(const T* raw, int64_t i, int count) const {
    return load_up_to(strengths + i, count) * load_up_to(raw + i, count);
  }
  Vector<T> twice_penalty(const T* raw, int64_t i, int count) const {
    return derivative(raw, i, count) * load_up_to(raw + i, count);
  }
};

template <class T>
struct NoShrinkage {
  Vector<T> derivative(const T*, int64_t, int) const { return Vector<T>{}; }
  Vector<T> twice_penalty(const T*, int64_t, int) const { return Vector<T>{}; }
};

// Calls f with the shrinkage for these strengths.
template <class T, class F>
void with_shrinkage(const void* strengths, const F& f) {
  if (strengths)
    f(Shrinkage<T>{static_cast<const T*>(strengths)});
  else
    f(NoShrinkage<T>{});
}

template <class T, class Shrinks>
void parameters_forward_of(const kmvn_parameters_forward& a, int64_t begin, int64_t end,
                           const Shrinks& shrinkage) {
  const int64_t d = a.d, k = a.k;
  const T *const bias = static_cast<const T*>(a.bias),
          *const mean = static_cast<const T*>(a.origin_mean),
          *const stddev = static_cast<const T*>(a.origin_stddev),
          *const scale = static_cast<const T*>(a.origin_scale),
          *const shape = static_cast<const T*>(a.origin_shape),
          *const floor = static_cast<const T*>(a.floor);
  for (int64_t row = begin; row < end; ++row) {
    const T* const raw = static_cast<const T*>(a.raw) + row * (2 * d + k);
    const T* const shrunk = raw + d;
    const Biased<T> raw_mean{raw, bias}, raw_scale{raw + d, bias + d};
    const Biased<T> raw_shape{raw + 2 * d, bias + 2 * d};
    T* const to = static_cast<T*>(a.y_pred) + row * (2 * d + k);
    Vector<T> penalty{};
    for_each_vector<T>(d, [&](int64_t i, int count) {
      const Vector<T> x = raw_mean(i, count), t = load_up_to(stddev + i, count);
      store_up_to<T>(to + i, load_up_to(mean + i, count) + t * x, count);
      const Link<T> linked = link<T>(raw_scale(i, count));
      const Vector<T> above = load_up_to(scale + i, count) * linked.value;
      store_up_to<T>(to + d + i, load_up_to(floor + i, count) + above, count);
      penalty += shrinkage.twice_penalty(shrunk, i, count);
    });
    const Vector<T> factor = broadcast<T>(ball_factor(raw_shape, k, a.radius));
    for_each_vector<T>(k, [&](int64_t i, int count) {
      const Vector<T> x = raw_shape(i, count) * factor;
      store_up_to<T>(to + 2 * d + i, load_up_to(shape + i, count) + x, count);
      penalty += shrinkage.twice_penalty(shrunk, d + i, count);
    });
    if (a.penalty) static_cast<T*>(a.penalty)[row] = T(0.5) * sum<T>(penalty);
  }
}

template <class T>
void parameters_forward(void* arguments, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const kmvn_parameters_forward*>(arguments);
  with_shrinkage<T>(a.strengths, [&](const auto& shrinkage) {
    parameters_forward_of<T>(a, begin, end, shrinkage);
  });
}

// With w = x/(radius √(1 + ‖x‖²/radius²)), ‖w‖ < 1: x_bar = factor (g - w (w·g)).
template <class T, class Shrinks>
void parameters_backward_of(const kmvn_parameters_backward& a, int64_t begin, int64_t end,
                            const Shrinks& shrinkage) {
  const int64_t d = a.d, k = a.k;
  const T *const bias = static_cast<const T*>(a.bias),
          *const stddev = static_cast<const T*>(a.origin_stddev),
          *const scale = static_cast<const T*>(a.origin_scale);
  for (int64_t row = begin; row < end; ++row) {
    const T* const raw = static_cast<const T*>(a.raw) + row * (2 * d + k);
    const T* const shrunk = raw + d;
    const T* const bar = static_cast<const T*>(a.y_pred_bar) + row * (2 * d + k);
    T* const raw_bar = static_cast<T*>(a.raw_bar) + row * (2 * d + k);
    const Vector<T> weight =
        broadcast<T>(a.penalty_bar ? static_cast<const T*>(a.penalty_bar)[row] : T(0));
    const Biased<T> raw_scale{raw + d, bias + d}, x{raw + 2 * d, bias + 2 * d};
    for_each_vector<T>(d, [&](int64_t i, int count) {
      const Vector<T> t = load_up_to(stddev + i, count), s = load_up_to(scale + i, count);
      store_up_to<T>(raw_bar + i, t * load_up_to(bar + i, count), count);
      const Vector<T> slope = link<T>(raw_scale(i, count)).slope;
      const Vector<T> through = s * slope * load_up_to(bar + d + i, count);
      const Vector<T> pull = weight * shrinkage.derivative(shrunk, i, count);
      store_up_to<T>(raw_bar + d + i, through + pull, count);
    });
    const T* const g = bar + 2 * d;
    const T factor = ball_factor(x, k, a.radius);
    const T shorter = a.radius == 0 ? T(0) : factor / T(a.radius);
    Vector<T> along{};
    if (shorter != 0)
      for_each_vector<T>(k, [&](int64_t i, int count) {
        along += load_up_to(g + i, count) * (x(i, count) * shorter);
      });
    const T projected = sum<T>(along);
    for_each_vector<T>(k, [&](int64_t i, int count) {
      const Vector<T> w = x(i, count) * shorter;
      const Vector<T> through = factor * (load_up_to(g + i, count) - w * projected);
      const Vector<T> pull = weight * shrinkage.derivative(shrunk, d + i, count);
      store_up_to<T>(raw_bar + 2 * d + i, through + pull, count);
    });
  }
}

template <class T>
void parameters_backward(void* arguments, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const kmvn_parameters_backward*>(arguments);
  with_shrinkage<T>(a.strengths, [&](const auto& shrinkage) {
    parameters_backward_of<T>(a, begin, end, shrinkage);
  });
}

}  // namespace KMVN_TARGET
}  // namespace kmvn

// The two passes of parameters.h over a range of rows.
#pragma once

#include <cmath>

#include "link.h"
#include "parameters.h"
#include "simd.h"

namespace kmvn {
namespace KMVN_TARGET {

// 1/√(1 + ‖x‖²/radius²); x is divided before it is squared, so that a long one gives 0.
template <class T>
inline T ball_factor(const T* x, int64_t k, double radius) {
  if (radius == 0) return 1;
  const Vector<T> inverse = broadcast<T>(T(1 / radius));
  Vector<T> squares{};
  for_each_vector<T>(k, [&](int64_t i, int count) {
    const Vector<T> relative = load_up_to(x + i, count) * inverse;
    squares += relative * relative;
  });
  return T(1) / std::sqrt(T(1) + sum<T>(squares));
}

template <class T>
void parameters_forward(void* arguments, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const kmvn_parameters_forward*>(arguments);
  const int64_t d = a.d, k = a.k;
  const T *const mean = static_cast<const T*>(a.origin_mean),
          *const stddev = static_cast<const T*>(a.origin_stddev),
          *const scale = static_cast<const T*>(a.origin_scale),
          *const shape = static_cast<const T*>(a.origin_shape);
  for (int64_t row = begin; row < end; ++row) {
    const T* const raw_mean = static_cast<const T*>(a.raw) + row * (2 * d + k);
    const T *const raw_scale = raw_mean + d, *const raw_shape = raw_scale + d;
    T* const to = static_cast<T*>(a.y_pred) + row * (2 * d + k);
    for_each_vector<T>(d, [&](int64_t i, int count) {
      const Vector<T> x = load_up_to(raw_mean + i, count), t = load_up_to(stddev + i, count);
      store_up_to<T>(to + i, load_up_to(mean + i, count) + t * x, count);
      const Link<T> linked = link<T>(load_up_to(raw_scale + i, count));
      store_up_to<T>(to + d + i, load_up_to(scale + i, count) * linked.value, count);
    });
    const Vector<T> factor = broadcast<T>(ball_factor(raw_shape, k, a.radius));
    for_each_vector<T>(k, [&](int64_t i, int count) {
      const Vector<T> x = load_up_to(raw_shape + i, count) * factor;
      store_up_to<T>(to + 2 * d + i, load_up_to(shape + i, count) + x, count);
    });
  }
}

// With w = x/(radius √(1 + ‖x‖²/radius²)), shorter than 1: x_bar = factor (g - w (w·g)).
template <class T>
void parameters_backward(void* arguments, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const kmvn_parameters_backward*>(arguments);
  const int64_t d = a.d, k = a.k;
  const T *const stddev = static_cast<const T*>(a.origin_stddev),
          *const scale = static_cast<const T*>(a.origin_scale);
  for (int64_t row = begin; row < end; ++row) {
    const T* const raw = static_cast<const T*>(a.raw) + row * (2 * d + k);
    const T* const bar = static_cast<const T*>(a.y_pred_bar) + row * (2 * d + k);
    T* const raw_bar = static_cast<T*>(a.raw_bar) + row * (2 * d + k);
    for_each_vector<T>(d, [&](int64_t i, int count) {
      const Vector<T> t = load_up_to(stddev + i, count), s = load_up_to(scale + i, count);
      store_up_to<T>(raw_bar + i, t * load_up_to(bar + i, count), count);
      const Vector<T> slope = link<T>(load_up_to(raw + d + i, count)).slope;
      store_up_to<T>(raw_bar + d + i, s * slope * load_up_to(bar + d + i, count), count);
    });
    const T *const x = raw + 2 * d, *const g = bar + 2 * d;
    const T factor = ball_factor(x, k, a.radius);
    const T shorter = a.radius == 0 ? T(0) : factor / T(a.radius);
    Vector<T> along{};
    if (shorter != 0)
      for_each_vector<T>(k, [&](int64_t i, int count) {
        along += load_up_to(g + i, count) * (load_up_to(x + i, count) * shorter);
      });
    const T projected = sum<T>(along);
    for_each_vector<T>(k, [&](int64_t i, int count) {
      const Vector<T> w = load_up_to(x + i, count) * shorter;
      store_up_to<T>(raw_bar + 2 * d + i, factor * (load_up_to(g + i, count) - w * projected), count);
    });
  }
}

}  // namespace KMVN_TARGET
}  // namespace kmvn

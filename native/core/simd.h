// Vectors, by a compiler extension, and transposition between rows and lanes.
//
// KMVN_BYTES is the width of a vector. Each instruction set has its own width and its own namespace
// KMVN_TARGET, so that the linker does not merge functions of different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace kmvn {
namespace KMVN_TARGET {

template <class T>
constexpr int lanes = KMVN_BYTES / int(sizeof(T));

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(KMVN_BYTES)));
  typedef int32_t bits __attribute__((vector_size(KMVN_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(KMVN_BYTES)));
  typedef int64_t bits __attribute__((vector_size(KMVN_BYTES)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
using Bits = typename VectorOf<T>::bits;

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

template <class T>
inline void store(T* to, const Vector<T>& x) {
  std::memcpy(to, &x, sizeof x);
}

template <class T>
inline Vector<T> broadcast(T x) {
  return Vector<T>{} + x;
}

// Sums the lanes by repeated halving.
template <class T, int S, size_t... I>
inline Vector<T> fold(const Vector<T>& x, std::index_sequence<I...>) {
  return x + __builtin_shufflevector(x, x, (int(I) ^ S)...);
}

template <class T, int S = lanes<T> / 2>
inline T sum(const Vector<T>& x) {
  if constexpr (S == 0)
    return x[0];
  else
    return sum<T, S / 2>(fold<T, S>(x, std::make_index_sequence<lanes<T>>{}));
}

// Swaps blocks of S lanes between vectors that are S apart; log2(lanes) such steps transpose.
template <class T, int S, size_t... I>
inline void exchange(Vector<T>& a, Vector<T>& b, std::index_sequence<I...>) {
  constexpr int n = lanes<T>;
  const Vector<T> first = __builtin_shufflevector(a, b, ((I & S) ? n + int(I) - S : int(I))...);
  b = __builtin_shufflevector(a, b, ((I & S) ? n + int(I) : int(I) + S)...);
  a = first;
}

template <class T, int S>
inline void exchange_all(Vector<T>* x) {
  if constexpr (S < lanes<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i)
      if (!(i & S)) exchange<T, S>(x[i], x[i + S], std::make_index_sequence<lanes<T>>{});
    exchange_all<T, 2 * S>(x);
  }
}

template <class T>
inline void transpose(Vector<T>* x) {
  exchange_all<T, 1>(x);
}

// Loads `count` numbers, at most one vector, without reading beyond them.
template <class T>
inline Vector<T> load_part(const T* from, int count) {
  Vector<T> x{};
  std::memcpy(&x, from, size_t(count) * sizeof(T));
  return x;
}

// Calls f(i, count) for [0, n) in steps of one vector; the last count may be smaller.
template <class T, class F>
inline void for_each_vector(int64_t n, const F& f) {
  for (int64_t i = 0; i < n; i += lanes<T>)
    f(i, n - i < lanes<T> ? int(n - i) : lanes<T>);
}

template <class T>
inline Vector<T> load_up_to(const T* from, int count) {
  return count == lanes<T> ? load(from) : load_part(from, count);
}

template <class T>
inline void store_up_to(T* to, const Vector<T>& x, int count) {
  if (count == lanes<T>)
    store<T>(to, x);
  else
    std::memcpy(to, &x, size_t(count) * sizeof(T));
}

// Moves columns [0, width) of `count` rows into lanes: to[c] = column c of the rows; absent rows
// are 0. Nothing at `end` or beyond is read.
template <class T>
inline void rows_to_lanes(const T* rows, int64_t stride, int count, int64_t width, const T* end,
                          Vector<T>* to) {
  constexpr int n = lanes<T>;
  for (int64_t c = 0; c < width; c += n) {
    const int part = width - c < n ? int(width - c) : n;
    Vector<T> x[n];
    if (count == n && rows + (n - 1) * stride + c + n <= end) {
#pragma GCC unroll 16
      for (int l = 0; l < n; ++l) x[l] = load(rows + l * stride + c);
    } else {
      for (int l = 0; l < n; ++l)
        x[l] = l < count ? load_part(rows + l * stride + c, part) : Vector<T>{};
    }
    transpose<T>(x);
    if (part == n) {
#pragma GCC unroll 16
      for (int l = 0; l < n; ++l) to[c + l] = x[l];
    } else {
      for (int l = 0; l < part; ++l) to[c + l] = x[l];
    }
  }
}

// The inverse, for contiguous rows of `width` numbers. Nothing at `end` or beyond is written;
// memory between the last row and `end` may be overwritten, because it is written later.
template <class T>
inline void lanes_to_rows(const Vector<T>* from, int64_t width, int count, T* end, T* rows) {
  constexpr int n = lanes<T>;
  for (int64_t c = 0; c < width; c += n) {
    const int part = width - c < n ? int(width - c) : n;
    Vector<T> x[n];
    for (int l = 0; l < n; ++l) x[l] = l < part ? from[c + l] : Vector<T>{};
    transpose<T>(x);
    const bool whole = part == n || width < n;  // else the next row's start is already written
    for (int l = 0; l < count; ++l) {
      T* const to = rows + l * width + c;
      if (whole && to + n <= end)
        store<T>(to, x[l]);
      else
        std::memcpy(to, &x[l], size_t(part) * sizeof(T));
    }
  }
}

}  // namespace KMVN_TARGET
}  // namespace kmvn

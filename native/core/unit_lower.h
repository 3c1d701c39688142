// Products and substitutions with I + N, for as many rows at once as a vector has lanes.
#pragma once

#include "simd.h"

namespace kmvn {
namespace KMVN_TARGET {

inline int64_t row_offset(int64_t i) { return i * (i - 1) / 2; }

// Σ_{j < i} row[j] x[j], in four sums, because the latency of one is four multiplications.
template <class T>
inline Vector<T> dot(const Vector<T>* row, const Vector<T>* x, int64_t i) {
  Vector<T> a{}, b{}, c{}, e{};
  int64_t j = 0;
  for (; j + 4 <= i; j += 4) {
    a += row[j] * x[j];
    b += row[j + 1] * x[j + 1];
    c += row[j + 2] * x[j + 2];
    e += row[j + 3] * x[j + 3];
  }
  for (; j < i; ++j) a += row[j] * x[j];
  return (a + b) + (c + e);
}

// (I + N) z = u
template <class T>
inline void solve(const Vector<T>* n, const Vector<T>* u, Vector<T>* z, int64_t d) {
  for (int64_t i = 0; i < d; ++i) z[i] = u[i] - dot<T>(n + row_offset(i), z, i);
}

// (I + N)ᵀ v = z, row by row of N from the last: subtracts v_j N_j from earlier entries.
template <class T>
inline void solve_transposed(const Vector<T>* n, const Vector<T>* z, Vector<T>* v, int64_t d) {
  for (int64_t i = 0; i < d; ++i) v[i] = z[i];
  for (int64_t j = d - 1; j > 0; --j) {
    const Vector<T>* row = n + row_offset(j);
    const Vector<T> known = v[j];
    for (int64_t i = 0; i < j; ++i) v[i] -= row[i] * known;
  }
}

// z = (I + N) u
template <class T>
inline void multiply(const Vector<T>* n, const Vector<T>* u, Vector<T>* z, int64_t d) {
  for (int64_t i = 0; i < d; ++i) z[i] = u[i] + dot<T>(n + row_offset(i), u, i);
}

// v = (I + N)ᵀ z
template <class T>
inline void multiply_transposed(const Vector<T>* n, const Vector<T>* z, Vector<T>* v, int64_t d) {
  for (int64_t i = 0; i < d; ++i) v[i] = z[i];
  for (int64_t j = 1; j < d; ++j) {
    const Vector<T>* row = n + row_offset(j);
    const Vector<T> factor = z[j];
    for (int64_t i = 0; i < j; ++i) v[i] += row[i] * factor;
  }
}

// 1 + Σ_j N_ij²: the diagonal of R = (I + N)(I + N)ᵀ.
template <class T>
inline void row_squares(const Vector<T>* n, Vector<T>* squares, int64_t d) {
  for (int64_t i = 0; i < d; ++i)
    squares[i] = broadcast<T>(1) + dot<T>(n + row_offset(i), n + row_offset(i), i);
}

}  // namespace KMVN_TARGET
}  // namespace kmvn

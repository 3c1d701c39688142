// What an elliptical density needs of packed parameters, on the CPU: plain C, no dependencies.
//
// A row of y_pred is [mean (d) | scale (d) | shape (k)], Σ = S R S with S = diag(scale). With
// u = (y - mean)/scale and z the whitened u, z ~ N(0, I) under the model,
//
//     squared_mahalanobis = ‖z‖²,   half_log_det = ½ log det Σ,   v = ½ ∂‖z‖²/∂u.
//
// Structures of which N, strictly lower triangular, is the shape, row by row, k = d(d - 1)/2:
//
//     KMVN_CHOLESKY            R = (I + N)(I + N)ᵀ,         (I + N) z = u,   (I + N)ᵀ v = z
//     KMVN_PRECISION_CHOLESKY  R⁻¹ = (I + N)ᵀ(I + N),       z = (I + N) u,   v = (I + N)ᵀ z
//
// One of which V, d × r, is the shape, row by row, k = d r:
//
//     KMVN_LOW_RANK            R = I + V Vᵀ,   C = I + Vᵀ V,   v = u - V a,   C a = Vᵀ u
//
// The forward pass keeps v and z, in the place of which a low rank has a and C⁻¹. With them the
// backward pass needs mean and scale of y_pred, and V, and writes its gradient once.
#pragma once

#include "interface.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KMVN_CHOLESKY = 0, KMVN_PRECISION_CHOLESKY = 1, KMVN_LOW_RANK = 2 };

// How many numbers of a row stand in z: d; of a low rank r (1 + r).
static inline int64_t kmvn_kept(int32_t structure, int64_t d, int64_t k) {
  return structure == KMVN_LOW_RANK ? k / d * (1 + k / d) : d;
}

// Of the forward pass. Rows are contiguous but for those of y_pred, which are `stride` apart.
typedef struct {
  int32_t structure;
  int64_t rows, d, k, stride;
  const void* y_pred;
  const void* y;         // (rows, d)
  const void* observed;  // (rows, d), 1 or 0; NULL: all
  void* squared_mahalanobis;  // (rows,)
  void* half_log_det;         // (rows,)
  void* variance;        // (rows, d), the diagonal of Σ; NULL: not wanted (and not of a precision)
  void* z;               // (rows, kmvn_kept); NULL with v: only the values are wanted
  void* v;               // (rows, d)
} kmvn_forward;

// The backward pass: y_pred_bar from the cotangents of squared_mahalanobis, half_log_det and mean.
typedef struct {
  int32_t structure;
  int32_t fixed_mean;  // not zero: squared_mahalanobis counts as independent of the mean
  int64_t rows, d, k, stride;
  const void* y_pred;
  const void* y;
  const void* observed;
  const void* z;
  const void* v;
  const void* squared_mahalanobis_bar;  // (rows,)
  const void* half_log_det_bar;         // (rows,)
  const void* mean_bar;         // (rows, d), of the mean itself; NULL: none
  void* y_pred_bar;             // (rows, 2 d + k), contiguous
} kmvn_backward;

// See interface.h for what they return.
KMVN_API int kmvn_elliptical_forward_f32(const kmvn_forward*, kmvn_threads);
KMVN_API int kmvn_elliptical_forward_f64(const kmvn_forward*, kmvn_threads);
KMVN_API int kmvn_elliptical_backward_f32(const kmvn_backward*, kmvn_threads);
KMVN_API int kmvn_elliptical_backward_f64(const kmvn_backward*, kmvn_threads);

#ifdef __cplusplus
}
#endif

// The operation `elliptical` on packed parameters, on the CPU: plain C, no dependencies.
//
// A row of y_pred is [mean (d) | scale (d) | shape (k)], Σ = S R S with S = diag(scale). With
// u = (y - mean)/scale and z the whitened u, z ~ N(0, I) under the model,
//
//     squared_mahalanobis = ‖z‖²,   half_log_det = ½ log det Σ,   v = ½ ∂‖z‖²/∂u.
//
// Structures whose shape is N, strictly lower triangular, stored by rows, k = d(d - 1)/2:
//
//     KMVN_CHOLESKY            R = (I + N)(I + N)ᵀ,         (I + N) z = u,   (I + N)ᵀ v = z
//     KMVN_PRECISION_CHOLESKY  R⁻¹ = (I + N)ᵀ(I + N),       z = (I + N) u,   v = (I + N)ᵀ z
//
// A structure whose shape is V, d × r, stored by rows, k = d r:
//
//     KMVN_LOW_RANK            R = I + V Vᵀ,   C = I + Vᵀ V,   v = u - V a,   C a = Vᵀ u
//
// The forward pass keeps v and z; for low rank, a and C⁻¹ in place of z. From these, mean and scale
// of y_pred, and V, the backward pass computes the gradient, which it writes once.
#pragma once

#include "interface.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KMVN_CHOLESKY = 0, KMVN_PRECISION_CHOLESKY = 1, KMVN_LOW_RANK = 2 };

// Number of values of z per row: d, or r (1 + r) for low rank.
static inline int64_t kmvn_kept(int32_t structure, int64_t d, int64_t k) {
  return structure == KMVN_LOW_RANK ? k / d * (1 + k / d) : d;
}

// Arguments of the forward pass. Rows are contiguous, except those of y_pred, which are `stride`
// apart; what is behind the first 2 d + k columns is not read.
typedef struct {
  int32_t structure;
  int64_t rows, d, k, stride;
  const void* y_pred;
  const void* y;         // (rows, d)
  const void* observed;  // (rows, d), 1 or 0; NULL: all observed
  void* squared_mahalanobis;  // (rows,)
  void* half_log_det;         // (rows,)
  void* variance;        // (rows, d), diagonal of Σ; NULL: not requested (always for a precision)
  void* z;               // (rows, kmvn_kept); NULL, like v, if only the values are requested
  void* v;               // (rows, d)
} kmvn_forward;

// Arguments of the backward pass, which computes y_pred_bar from the cotangents of
// squared_mahalanobis, half_log_det and mean.
typedef struct {
  int32_t structure;
  int32_t fixed_mean;  // nonzero: squared_mahalanobis is treated as independent of the mean
  int64_t rows, d, k, stride;
  int64_t trailing;             // columns of y_pred_bar behind the first 2 d + k
  const void* y_pred;
  const void* y;
  const void* observed;
  const void* z;
  const void* v;
  const void* squared_mahalanobis_bar;  // (rows,)
  const void* half_log_det_bar;         // (rows,)
  const void* mean_bar;         // (rows, d), cotangent of the mean output; NULL: none
  const void* trailing_bar;     // (rows, trailing), copied to y_pred_bar
  void* y_pred_bar;             // (rows, 2 d + k + trailing), contiguous
} kmvn_backward;

// Return values are defined in interface.h.
KMVN_API int kmvn_elliptical_forward_f32(const kmvn_forward*, kmvn_threads);
KMVN_API int kmvn_elliptical_forward_f64(const kmvn_forward*, kmvn_threads);
KMVN_API int kmvn_elliptical_backward_f32(const kmvn_backward*, kmvn_threads);
KMVN_API int kmvn_elliptical_backward_f64(const kmvn_backward*, kmvn_threads);

#ifdef __cplusplus
}
#endif

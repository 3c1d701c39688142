// What a network emits becomes valid packed parameters, written once.
//
//     x     = raw + bias, of mean, scale and shape
//     mean  = origin_mean  + origin_stddev · x_mean
//     scale = origin_scale · link(x_scale)
//     shape = origin_shape + x_shape / √(1 + ‖x_shape‖²/radius²)
//
// link is exp(x) for |x| ≤ 3, above it e³ (x - 2), and link(-x) = 1/link(x).
//
// On the way, what shrinkage asks of each row, of raw scale and shape without the bias:
//
//     penalty = ½ Σⱼ strengthsⱼ rawⱼ²
#pragma once

#include "interface.h"

#ifdef __cplusplus
extern "C" {
#endif

// Everything is contiguous.
typedef struct {
  int64_t rows, d, k;
  double radius;              // of the ball that holds the shape; 0: no bound
  const void* raw;            // (rows, 2 d + k): mean, scale, shape
  const void* bias;           // (2 d + k,)
  const void* origin_mean;    // (d,)
  const void* origin_stddev;  // (d,)
  const void* origin_scale;   // (d,)
  const void* origin_shape;   // (k,)
  const void* strengths;      // (d + k,); may be null
  void* y_pred;               // (rows, 2 d + k)
  void* penalty;              // (rows,); may be null without strengths, else 0
} kmvn_parameters_forward;

typedef struct {
  int64_t rows, d, k;
  double radius;
  const void* raw;            // (rows, 2 d + k)
  const void* bias;           // (2 d + k,)
  const void* origin_stddev;  // (d,)
  const void* origin_scale;   // (d,)
  const void* strengths;      // (d + k,); may be null, as penalty_bar
  const void* y_pred_bar;     // (rows, 2 d + k)
  const void* penalty_bar;    // (rows,)
  void* raw_bar;              // (rows, 2 d + k)
} kmvn_parameters_backward;

KMVN_API int kmvn_parameters_forward_f32(const kmvn_parameters_forward*, kmvn_threads);
KMVN_API int kmvn_parameters_forward_f64(const kmvn_parameters_forward*, kmvn_threads);
KMVN_API int kmvn_parameters_backward_f32(const kmvn_parameters_backward*, kmvn_threads);
KMVN_API int kmvn_parameters_backward_f64(const kmvn_parameters_backward*, kmvn_threads);

#ifdef __cplusplus
}
#endif

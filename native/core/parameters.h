// The operation `parameters`: from raw network outputs to valid packed parameters.
//
//     x     = raw + bias, for mean, scale and shape
//     mean  = origin_mean  + origin_stddev · x_mean
//     scale = floor + origin_scale · link(x_scale)
//     shape = origin_shape + x_shape / √(1 + ‖x_shape‖²/radius²)
//
// link is exp(x) for |x| ≤ 3, above it e³ (x - 2), and link(-x) = 1/link(x).
//
// It also computes the shrinkage penalty of each row, from raw scale and shape without the bias:
//
//     penalty = ½ Σⱼ strengthsⱼ rawⱼ²
#pragma once

#include "interface.h"

#ifdef __cplusplus
extern "C" {
#endif

// All arrays are contiguous.
typedef struct {
  int64_t rows, d, k;
  double radius;              // of the ball that bounds the shape; 0: no bound
  const void* raw;            // (rows, 2 d + k): mean, scale, shape
  const void* bias;           // (2 d + k,)
  const void* origin_mean;    // (d,)
  const void* origin_stddev;  // (d,)
  const void* origin_scale;   // (d,)
  const void* origin_shape;   // (k,)
  const void* floor;          // (d,), of the scales
  const void* strengths;      // (d + k,); may be NULL
  void* y_pred;               // (rows, 2 d + k)
  void* penalty;              // (rows,), 0 without strengths; may then be NULL
} kmvn_parameters_forward;

typedef struct {
  int64_t rows, d, k;
  double radius;
  const void* raw;            // (rows, 2 d + k)
  const void* bias;           // (2 d + k,)
  const void* origin_stddev;  // (d,)
  const void* origin_scale;   // (d,)
  const void* strengths;      // (d + k,); may be NULL, like penalty_bar
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

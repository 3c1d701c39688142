// The two passes of elliptical.h if the shape is a triangle: as many rows at once as a vector has
// lanes.
#pragma once

#include <algorithm>
#include <cmath>

#include "elliptical.h"
#include "gaps.h"
#include "location_scale.h"
#include "log_product.h"
#include "simd.h"
#include "unit_lower.h"
#include "workspace.h"

namespace kmvn {
namespace KMVN_TARGET {

template <class T>
inline bool has_gaps(const T* observed, int64_t d) {
  for (int64_t i = 0; i < d; ++i)
    if (!(observed[i] > 0)) return true;
  return false;
}

// --- forward -------------------------------------------------------------------------------------

template <class T>
class TriangularForward {
 public:
  explicit TriangularForward(const kmvn_forward& a)
      : a_(a), d_(a.d), k_(a.k), y_pred_(static_cast<const T*>(a.y_pred)),
        y_(static_cast<const T*>(a.y)), observed_(static_cast<const T*>(a.observed)),
        squared_mahalanobis_(static_cast<T*>(a.squared_mahalanobis)),
        half_log_det_(static_cast<T*>(a.half_log_det)),
        variance_(static_cast<T*>(a.variance)), z_(static_cast<T*>(a.z)), v_(static_cast<T*>(a.v)) {}

  void rows(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; row += lanes<T>)
      tile(row, int(std::min<int64_t>(lanes<T>, end - row)), end);
    if (observed_) rows_with_gaps(begin, end);
  }

 private:
  void tile(int64_t row, int count, int64_t end) const {
    Vector<T>* const packed = workspace<T>(size_t(2 * d_ + k_ + 4 * d_));
    Vector<T>* const u = packed + 2 * d_ + k_;
    Vector<T>*const z = u + d_, *const v = z + d_, *const spare = v + d_;
    const T* const from = y_pred_ + row * a_.stride;
    const T* const last = y_pred_ + (a_.rows - 1) * a_.stride + 2 * d_ + k_;
    rows_to_lanes<T>(from, a_.stride, count, 2 * d_ + k_, last, packed);
    rows_to_lanes<T>(y_ + row * d_, d_, count, d_, y_ + a_.rows * d_, u);
    const Vector<T>*const mean = packed, *const scale = packed + d_, *const n = packed + 2 * d_;
    LogProduct<T> scales;
    for (int64_t i = 0; i < d_; ++i) {
      u[i] = (u[i] - mean[i]) / scale[i];
      scales.multiply(scale[i]);
    }
    whiten(n, u, z, v);
    Vector<T> q{};
    for (int64_t i = 0; i < d_; ++i) q += z[i] * z[i];
    const Vector<T> log_scale = scales.log();
    for (int l = 0; l < count; ++l) {
      squared_mahalanobis_[row + l] = q[l];
      half_log_det_[row + l] =
          scales.ordinary(l) ? log_scale[l] : sum_of_logs(from + l * a_.stride + d_, d_);
    }
    if (z_) lanes_to_rows<T>(z, d_, count, z_ + end * d_, z_ + row * d_);
    if (v_) lanes_to_rows<T>(v, d_, count, v_ + end * d_, v_ + row * d_);
    if (variance_) {
      row_squares<T>(n, spare, d_);
      for (int64_t i = 0; i < d_; ++i) spare[i] *= scale[i] * scale[i];
      lanes_to_rows<T>(spare, d_, count, variance_ + end * d_, variance_ + row * d_);
    }
  }

  void whiten(const Vector<T>* n, const Vector<T>* u, Vector<T>* z, Vector<T>* v) const {
    if (a_.structure == KMVN_CHOLESKY) {
      solve<T>(n, u, z, d_);
      if (v_) solve_transposed<T>(n, z, v, d_);
    } else {
      multiply<T>(n, u, z, d_);
      if (v_) multiply_transposed<T>(n, z, v, d_);
    }
  }

  void rows_with_gaps(int64_t begin, int64_t end) const {
    RowWithGaps<T> marginal(a_.structure, d_);
    for (int64_t row = begin; row < end; ++row) {
      const T* const observed = observed_ + row * d_;
      if (!has_gaps(observed, d_)) continue;
      marginal.read(y_pred_ + row * a_.stride, y_ + row * d_, observed);
      squared_mahalanobis_[row] = T(marginal.squared_mahalanobis());
      half_log_det_[row] = T(marginal.half_log_det());
      for (int64_t i = 0; z_ && i < d_; ++i) z_[row * d_ + i] = T(marginal.z()[size_t(i)]);
      for (int64_t i = 0; v_ && i < d_; ++i) v_[row * d_ + i] = T(marginal.v()[size_t(i)]);
    }
  }

  const kmvn_forward& a_;
  int64_t d_, k_;
  const T *y_pred_, *y_, *observed_;
  T *squared_mahalanobis_, *half_log_det_, *variance_, *z_, *v_;
};

// --- backward ------------------------------------------------------------------------------------

template <class T>
class TriangularBackward {
 public:
  explicit TriangularBackward(const kmvn_backward& a)
      : a_(a), d_(a.d), width_(2 * a.d + a.k + a.trailing),
        y_pred_(static_cast<const T*>(a.y_pred)), y_(static_cast<const T*>(a.y)),
        observed_(static_cast<const T*>(a.observed)), z_(static_cast<const T*>(a.z)),
        v_(static_cast<const T*>(a.v)),
        squared_mahalanobis_bar_(static_cast<const T*>(a.squared_mahalanobis_bar)),
        half_log_det_bar_(static_cast<const T*>(a.half_log_det_bar)),
        to_(static_cast<T*>(a.y_pred_bar)) {}

  void rows(int64_t begin, int64_t end) const {
    // Right factor of the outer product, padded so that whole vectors can be read.
    T* const right = reinterpret_cast<T*>(workspace<T>(size_t(d_ / lanes<T> + 2)));
    for (int64_t row = begin; row < end; ++row) {
      location_scale_bars<T>(a_, row, right);
      if (a_.structure == KMVN_CHOLESKY) std::copy_n(z_ + row * d_, d_, right);
      outer_product(row, right, row + 1 < end);
    }
    if (observed_) rows_with_gaps(begin, end);
  }

 private:
  // N_bar_ij = ∓2 squared_mahalanobis_bar left_i right_j. Rows of N are written in whole vectors if
  // the memory after them is written later.
  void outer_product(int64_t row, const T* right, bool another) const {
    const bool cholesky = a_.structure == KMVN_CHOLESKY;
    const T* const left = (cholesky ? v_ : z_) + row * d_;
    const T factor = (cholesky ? T(-2) : T(2)) * squared_mahalanobis_bar_[row];
    T* to = to_ + row * width_ + 2 * d_;
    const T* const end = to_ + row * width_ + width_ + (another ? width_ : 0);
    for (int64_t i = 1; i < d_; to += i, ++i) {
      const T along = factor * left[i];
      int64_t j = 0;
      for (; j < i && to + j + lanes<T> <= end; j += lanes<T>)
        store<T>(to + j, load(right + j) * along);
      for (; j < i; ++j) to[j] = along * right[j];
    }
  }

  void rows_with_gaps(int64_t begin, int64_t end) const {
    RowWithGaps<T> marginal(a_.structure, d_);
    for (int64_t row = begin; row < end; ++row) {
      const T* const observed = observed_ + row * d_;
      if (!has_gaps(observed, d_)) continue;
      marginal.read(y_pred_ + row * a_.stride, y_ + row * d_, observed);
      marginal.shape_bar(double(squared_mahalanobis_bar_[row]), double(half_log_det_bar_[row]),
                         to_ + row * width_ + 2 * d_);
    }
  }

  const kmvn_backward& a_;
  int64_t d_, width_;
  const T *y_pred_, *y_, *observed_, *z_, *v_, *squared_mahalanobis_bar_, *half_log_det_bar_;
  T* to_;
};

}  // namespace KMVN_TARGET
}  // namespace kmvn

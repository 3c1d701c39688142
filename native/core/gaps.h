// Rows with missing targets: the exact marginal, one row at a time.
//
// Let A = I + N, M the columns of Aᵀ for observed targets (Cholesky) or the columns of A for
// missing targets (precision), and M = Q T, T upper triangular:
//
//     Cholesky    R_oo = MᵀM      precision    R_oo⁻¹ = A_oᵀ(I - QQᵀ)A_o,   |R_oo| = |MᵀM|
//
// so that ½ log det R_oo = Σ log T_ii, and its gradient with respect to M is G = Q T⁻ᵀ. Computed in
// double precision for all types; nothing is squared, so only √κ of the accuracy is lost.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "elliptical.h"

namespace kmvn {
namespace KMVN_TARGET {

template <class T>
class RowWithGaps {
 public:
  RowWithGaps(int structure, int64_t d)
      : structure_(structure), d_(d), a_(d * d), q_(d * d), t_(d * d), u_(d), z_(d), v_(d), w_(d) {
    chosen_.reserve(size_t(d));
  }

  // Reads a row; the members below then refer to the marginal of its observed targets.
  void read(const T* row, const T* y, const T* observed) {
    const T *mean = row, *scale = row + d_, *n = row + 2 * d_;
    chosen_.clear();
    half_log_det_ = 0;
    for (int64_t i = 0; i < d_; ++i) {
      const bool here = observed[i] > 0;
      if (here == (structure_ == KMVN_CHOLESKY)) chosen_.push_back(i);
      u_[i] = here ? (double(y[i]) - double(mean[i])) / double(scale[i]) : 0.0;
      if (here) half_log_det_ += std::log(double(scale[i]));
      for (int64_t j = 0; j < i; ++j) a_[i * d_ + j] = double(*n++);
      a_[i * d_ + i] = 1.0;
      for (int64_t j = i + 1; j < d_; ++j) a_[i * d_ + j] = 0.0;
    }
    orthogonalize();
    structure_ == KMVN_CHOLESKY ? whiten_by_rows() : whiten_by_columns(observed);
    squared_mahalanobis_ = 0;
    for (int64_t i = 0; i < d_; ++i) squared_mahalanobis_ += z_[i] * z_[i];
  }

  double squared_mahalanobis() const { return squared_mahalanobis_; }
  double half_log_det() const { return half_log_det_; }
  const std::vector<double>& z() const { return z_; }
  const std::vector<double>& v() const { return v_; }

  // Writes N_bar, packed, for the cotangents of squared_mahalanobis and half_log_det.
  void shape_bar(double squared_mahalanobis_bar, double half_log_det_bar, T* to) {
    const bool by_rows = structure_ == KMVN_CHOLESKY;
    const auto& left = by_rows ? v_ : z_;
    const auto& right = by_rows ? z_ : u_;
    const double factor = (by_rows ? -2.0 : 2.0) * squared_mahalanobis_bar;
    for (int64_t i = 0; i < d_; ++i)
      for (int64_t j = 0; j < i; ++j) a_[i * d_ + j] = factor * left[i] * right[j];
    gradient_of_half_log_det();
    for (int64_t c = 0; c < int64_t(chosen_.size()); ++c) {
      const double* g = &q_[c * d_];
      const int64_t at = chosen_[size_t(c)];
      if (by_rows)
        for (int64_t j = 0; j < at; ++j) a_[at * d_ + j] += half_log_det_bar * g[j];
      else
        for (int64_t i = at + 1; i < d_; ++i) a_[i * d_ + at] += half_log_det_bar * g[i];
    }
    for (int64_t i = 0; i < d_; ++i)
      for (int64_t j = 0; j < i; ++j) *to++ = T(a_[i * d_ + j]);
  }

 private:
  // M = Q T by Gram–Schmidt, with each column orthogonalized twice for full orthogonality.
  void orthogonalize() {
    const int64_t m = int64_t(chosen_.size());
    for (int64_t c = 0; c < m; ++c) {
      double* q = &q_[c * d_];
      const int64_t at = chosen_[size_t(c)];
      for (int64_t i = 0; i < d_; ++i)
        q[i] = structure_ == KMVN_CHOLESKY ? a_[at * d_ + i] : a_[i * d_ + at];
      for (int64_t e = 0; e < c; ++e) t(e, c) = 0.0;
      for (int pass = 0; pass < 2; ++pass)
        for (int64_t e = 0; e < c; ++e) {
          const double* earlier = &q_[e * d_];
          const double along = inner(earlier, q);
          t(e, c) += along;
          for (int64_t i = 0; i < d_; ++i) q[i] -= along * earlier[i];
        }
      const double norm = std::sqrt(inner(q, q));
      t(c, c) = norm;
      half_log_det_ += std::log(norm);
      for (int64_t i = 0; i < d_; ++i) q[i] /= norm;
    }
  }

  // Tᵀ w = u_o, T v_o = w, z = Q w.
  void whiten_by_rows() {
    const int64_t m = int64_t(chosen_.size());
    for (int64_t c = 0; c < m; ++c) {
      double sum = u_[chosen_[size_t(c)]];
      for (int64_t e = 0; e < c; ++e) sum -= t(e, c) * w_[e];
      w_[c] = sum / t(c, c);
    }
    for (int64_t i = 0; i < d_; ++i) z_[i] = v_[i] = 0.0;
    for (int64_t c = 0; c < m; ++c)
      for (int64_t i = 0; i < d_; ++i) z_[i] += w_[c] * q_[c * d_ + i];
    for (int64_t c = m - 1; c >= 0; --c) {
      double sum = w_[c];
      for (int64_t e = c + 1; e < m; ++e) sum -= t(c, e) * w_[e];
      w_[c] = sum / t(c, c);
      v_[chosen_[size_t(c)]] = w_[c];
    }
  }

  // z = (I - QQᵀ) A u; u becomes the conditional mean for missing targets; v = Aᵀ z.
  void whiten_by_columns(const T* observed) {
    const int64_t m = int64_t(chosen_.size());
    for (int64_t i = 0; i < d_; ++i) {
      double sum = 0;
      for (int64_t j = 0; j <= i; ++j) sum += a_[i * d_ + j] * u_[j];
      z_[i] = sum;
    }
    for (int64_t c = 0; c < m; ++c) w_[c] = 0.0;
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t c = 0; c < m; ++c) {
        const double along = inner(&q_[c * d_], z_.data());
        w_[c] += along;
        for (int64_t i = 0; i < d_; ++i) z_[i] -= along * q_[c * d_ + i];
      }
    for (int64_t c = m - 1; c >= 0; --c) {
      double sum = -w_[c];
      for (int64_t e = c + 1; e < m; ++e) sum -= t(c, e) * u_[chosen_[size_t(e)]];
      u_[chosen_[size_t(c)]] = sum / t(c, c);
    }
    for (int64_t j = 0; j < d_; ++j) {
      double sum = 0;
      for (int64_t i = j; i < d_; ++i) sum += a_[i * d_ + j] * z_[i];
      v_[j] = observed[j] > 0 ? sum : 0.0;
    }
  }

  // Replaces Q by G = Q T⁻ᵀ, by solving G Tᵀ = Q from the last column.
  void gradient_of_half_log_det() {
    const int64_t m = int64_t(chosen_.size());
    for (int64_t c = m - 1; c >= 0; --c) {
      double* g = &q_[c * d_];
      for (int64_t e = c + 1; e < m; ++e)
        for (int64_t i = 0; i < d_; ++i) g[i] -= t(c, e) * q_[e * d_ + i];
      for (int64_t i = 0; i < d_; ++i) g[i] /= t(c, c);
    }
  }

  double inner(const double* x, const double* y) const {
    double sum = 0;
    for (int64_t i = 0; i < d_; ++i) sum += x[i] * y[i];
    return sum;
  }

  double& t(int64_t i, int64_t j) { return t_[i * d_ + j]; }

  int structure_;
  int64_t d_;
  std::vector<double> a_, q_, t_, u_, z_, v_, w_;
  std::vector<int64_t> chosen_;
  double squared_mahalanobis_ = 0, half_log_det_ = 0;
};

}  // namespace KMVN_TARGET
}  // namespace kmvn

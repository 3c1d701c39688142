// The two passes of elliptical.h if the shape is V, d × r: one row at a time, vectors along the
// targets, so that a row stays in the cache for any d.
//
// Gram–Schmidt, column by column, on [V; I] and then on [u; 0]:
//
//     [V; I] = Q T,   Q = [V T⁻¹; T⁻¹],   [u; 0] - Q Qᵀ [u; 0] = [v; -a]
//
// so that C = I + Vᵀ V = Tᵀ T is never formed. Nothing is squared: √κ(R) of the accuracy is lost,
// and ‖z‖² = ‖v‖² + ‖a‖² is a sum, not a difference. Columns of Q are not normalized.
// Å. Björck, "Solving linear least squares problems by Gram-Schmidt orthogonalization", 1967.
#pragma once

#include <cmath>

#include "elliptical.h"
#include "location_scale.h"
#include "log_product.h"
#include "simd.h"
#include "workspace.h"

namespace kmvn {
namespace KMVN_TARGET {

template <class T>
inline int64_t vectors_for(int64_t numbers) {
  return (numbers + lanes<T> - 1) / lanes<T>;
}

template <class T>
inline Vector<T> ones(int count) {
  Vector<T> x{};
  for (int l = 0; l < count; ++l) x[l] = 1;
  return x;
}

// Σ x y, four sums at a time.
template <class T>
inline T inner(const Vector<T>* x, const Vector<T>* y, int64_t vectors) {
  Vector<T> a{}, b{}, c{}, e{};
  int64_t i = 0;
  for (; i + 4 <= vectors; i += 4) {
    a += x[i] * y[i];
    b += x[i + 1] * y[i + 1];
    c += x[i + 2] * y[i + 2];
    e += x[i + 3] * y[i + 3];
  }
  for (; i < vectors; ++i) a += x[i] * y[i];
  return sum<T>((a + b) + (c + e));
}

// Half the logarithm of a product, without overflow or underflow.
class HalfLog {
 public:
  void multiply(double x) {
    int exponent = 0;
    product_ = std::frexp(product_ * std::frexp(x, &exponent), &more_);
    exponent_ += exponent + more_;
  }
  double value() const { return 0.5 * (std::log(product_) + double(exponent_) * std::log(2.0)); }

 private:
  double product_ = 1;
  int64_t exponent_ = 0;
  int more_ = 0;
};

// --- forward -------------------------------------------------------------------------------------

template <class T>
class LowRankForward {
 public:
  explicit LowRankForward(const kmvn_forward& a)
      : a_(a), d_(a.d), rank_(a.k / a.d), targets_(vectors_for<T>(a.d)),
        length_(targets_ + vectors_for<T>(rank_)), y_pred_(static_cast<const T*>(a.y_pred)),
        y_(static_cast<const T*>(a.y)), observed_(static_cast<const T*>(a.observed)),
        squared_mahalanobis_(static_cast<T*>(a.squared_mahalanobis)),
        half_log_det_(static_cast<T*>(a.half_log_det)),
        variance_(static_cast<T*>(a.variance)), z_(static_cast<T*>(a.z)), v_(static_cast<T*>(a.v)) {}

  void rows(int64_t begin, int64_t end) const {
    // Columns of [V; I], then [u; 0]; their squared lengths; the part of V read at once.
    Vector<T>* const columns = workspace<T>(size_t((rank_ + 1) * length_ + 2 * rank_));
    Vector<T>*const squares = columns + (rank_ + 1) * length_, *const part = squares + rank_;
    for (int64_t row = begin; row < end; ++row) {
      const T log_scale = read(row, columns, part);
      const double half_log_det = orthogonalize(columns, squares);
      const Vector<T>* const residual = columns + rank_ * length_;
      squared_mahalanobis_[row] = inner<T>(residual, residual, length_);
      half_log_det_[row] = log_scale + T(half_log_det);
      if (v_)
        for_each_vector<T>(d_, [&](int64_t i, int count) {
          store_up_to<T>(v_ + row * d_ + i, residual[i / lanes<T>], count);
        });
      if (z_) keep(columns, squares, z_ + row * rank_ * (1 + rank_));
    }
  }

 private:
  // Fills the columns, with zeros for missing targets; returns Σ log scale.
  T read(int64_t row, Vector<T>* columns, Vector<T>* part) const {
    const T *const mean = y_pred_ + row * a_.stride, *const scale = mean + d_;
    const T *const v = scale + d_, *const v_end = v + d_ * rank_;
    const T* const observed = observed_ ? observed_ + row * d_ : nullptr;
    const Vector<T> zero{}, one = broadcast<T>(1);
    LogProduct<T> scales;
    for_each_vector<T>(d_, [&](int64_t i, int count) {
      const int64_t b = i / lanes<T>;
      const auto here = (observed ? load_up_to<T>(observed + i, count) : ones<T>(count)) > zero;
      const Vector<T> s = here ? load_up_to<T>(scale + i, count) : one;
      const Vector<T> r = load_up_to<T>(y_ + row * d_ + i, count) - load_up_to<T>(mean + i, count);
      scales.multiply(s);
      rows_to_lanes<T>(v + i * rank_, rank_, count, rank_, v_end, part);
      if (variance_) write_variance(row, i, count, load_up_to<T>(scale + i, count), part);
      for (int64_t k = 0; k < rank_; ++k) columns[k * length_ + b] = here ? part[k] : zero;
      columns[rank_ * length_ + b] = here ? r / s : zero;
    });
    for (int64_t k = 0; k <= rank_; ++k)
      for (int64_t b = targets_; b < length_; ++b) {
        Vector<T> unit{};
        const int64_t lane = k - (b - targets_) * lanes<T>;
        if (k < rank_ && 0 <= lane && lane < lanes<T>) unit[lane] = 1;
        columns[k * length_ + b] = unit;
      }
    bool ordinary = true;
    for (int l = 0; l < lanes<T>; ++l) ordinary = ordinary && scales.ordinary(l);
    return ordinary ? sum<T>(scales.log()) : sum_of_logs(scale, d_, observed);
  }

  void write_variance(int64_t row, int64_t i, int count, const Vector<T>& scale,
                      const Vector<T>* part) const {
    Vector<T> sum = broadcast<T>(1);
    for (int64_t k = 0; k < rank_; ++k) sum += part[k] * part[k];
    store_up_to<T>(variance_ + row * d_ + i, scale * scale * sum, count);
  }

  // Subtracts the projection on each column from all later ones; returns ½ log det C.
  double orthogonalize(Vector<T>* columns, Vector<T>* squares) const {
    HalfLog half_log_det;
    for (int64_t k = 0; k < rank_; ++k) {
      const Vector<T>* const x = columns + k * length_;
      const T square = inner<T>(x, x, length_);
      squares[k] = broadcast<T>(square);
      half_log_det.multiply(double(square));
      for (int64_t j = k + 1; j <= rank_; ++j) {
        Vector<T>* const other = columns + j * length_;
        const T along = inner<T>(x, other, length_) / square;
        for (int64_t b = 0; b < length_; ++b) other[b] -= along * x[b];
      }
    }
    return half_log_det.value();
  }

  // Writes a and C⁻¹ = T⁻¹ T⁻ᵀ, computed from the last entries of the columns.
  void keep(const Vector<T>* columns, const Vector<T>* squares, T* to) const {
    const Vector<T>* const last = columns + rank_ * length_ + targets_;
    for (int64_t j = 0; j < rank_; ++j) to[j] = -last[j / lanes<T>][j % lanes<T>];
    for (int64_t i = 0; i < rank_; ++i)
      for_each_vector<T>(rank_, [&](int64_t j, int count) {
        Vector<T> sum{};
        for (int64_t k = i; k < rank_; ++k) {
          const Vector<T>* const top = columns + k * length_ + targets_;
          sum += top[i / lanes<T>][i % lanes<T>] / squares[k] * top[j / lanes<T>];
        }
        store_up_to<T>(to + rank_ * (1 + i) + j, sum, count);
      });
  }

  const kmvn_forward& a_;
  const int64_t d_, rank_, targets_, length_;
  const T *y_pred_, *y_, *observed_;
  T *squared_mahalanobis_, *half_log_det_, *variance_, *z_, *v_;
};

// --- backward ------------------------------------------------------------------------------------

// V_bar = half_log_det_bar V C⁻¹ - 2 squared_mahalanobis_bar v aᵀ.
template <class T>
class LowRankBackward {
 public:
  explicit LowRankBackward(const kmvn_backward& a)
      : a_(a), d_(a.d), rank_(a.k / a.d), y_pred_(static_cast<const T*>(a.y_pred)),
        observed_(static_cast<const T*>(a.observed)), z_(static_cast<const T*>(a.z)),
        v_(static_cast<const T*>(a.v)),
        squared_mahalanobis_bar_(static_cast<const T*>(a.squared_mahalanobis_bar)),
        half_log_det_bar_(static_cast<const T*>(a.half_log_det_bar)),
        to_(static_cast<T*>(a.y_pred_bar)) {}

  void rows(int64_t begin, int64_t end) const {
    Vector<T>* const part = workspace<T>(size_t(2 * rank_ + vectors_for<T>(d_)));
    T* const u = reinterpret_cast<T*>(part + 2 * rank_);
    for (int64_t row = begin; row < end; ++row) {
      location_scale_bars<T>(a_, row, u);
      loadings(row, part, part + rank_);
    }
  }

 private:
  void loadings(int64_t row, Vector<T>* part, Vector<T>* bars) const {
    const int64_t k = d_ * rank_;
    const T *const v = y_pred_ + row * a_.stride + 2 * d_, *const v_end = v + k;
    T *const to = to_ + row * (2 * d_ + k + a_.trailing) + 2 * d_, *const to_end = to + k;
    const T *const a = z_ + row * rank_ * (1 + rank_), *const c_inverse = a + rank_;
    const T factor = -2 * squared_mahalanobis_bar_[row], log_bar = half_log_det_bar_[row];
    const Vector<T> zero{};
    for_each_vector<T>(d_, [&](int64_t i, int count) {
      rows_to_lanes<T>(v + i * rank_, rank_, count, rank_, v_end, part);
      for (int64_t l = 0; l < rank_; ++l) part[l] *= log_bar;
      const Vector<T> along = factor * load_up_to<T>(v_ + row * d_ + i, count);
      for (int64_t j = 0; j < rank_; ++j) {
        Vector<T> sum = along * a[j];
        for (int64_t l = 0; l < rank_; ++l) sum += part[l] * c_inverse[j * rank_ + l];
        bars[j] = sum;
      }
      if (observed_) {
        const auto here = load_up_to<T>(observed_ + row * d_ + i, count) > zero;
        for (int64_t j = 0; j < rank_; ++j) bars[j] = here ? bars[j] : zero;
      }
      lanes_to_rows<T>(bars, rank_, count, to_end, to + i * rank_);
    });
  }

  const kmvn_backward& a_;
  const int64_t d_, rank_;
  const T *y_pred_, *observed_, *z_, *v_, *squared_mahalanobis_bar_, *half_log_det_bar_;
  T* to_;
};

}  // namespace KMVN_TARGET
}  // namespace kmvn

// Compares the C interface with an independent dense computation in long double: Σ is formed and
// factorized, gradients are complex steps. Covers both types, all structures, every instruction set
// of this machine, missing targets, strides, several threads, and guarded memory.
#include "elliptical.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <complex>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "checking.h"

namespace {

std::atomic<size_t> largest_allocation{std::numeric_limits<size_t>::max()};

void* allocated(size_t bytes) {
  return bytes > largest_allocation ? nullptr : std::malloc(std::max<size_t>(bytes, 1));
}

}  // namespace

// Replaces the global allocator, so that tests can make allocations fail.
void* operator new(size_t bytes) {
  if (void* const found = allocated(bytes)) return found;
  throw std::bad_alloc();
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return allocated(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace {

// --- reference -----------------------------------------------------------------------------------

template <class S>
struct Truth {
  S squared_mahalanobis, half_log_det;
  std::vector<S> v, z;  // z only for complete rows
};

template <class S>
using Matrix = std::vector<std::vector<S>>;

template <class S>
Matrix<S> matrix(int64_t rows, int64_t columns) {
  return Matrix<S>(size_t(rows), std::vector<S>(size_t(columns), S(0)));
}

// R from [mean | scale | N], by definition.
template <class S>
Matrix<S> shape_matrix(int structure, const std::vector<S>& row, int64_t d) {
  Matrix<S> a = matrix<S>(d, d), r = matrix<S>(d, d);
  size_t at = size_t(2 * d);
  if (structure == KMVN_LOW_RANK) {
    const int64_t rank = int64_t(row.size()) / d - 2;
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = 0; j < d; ++j) {
        r[i][j] = S(i == j);
        for (int64_t l = 0; l < rank; ++l)
          r[i][j] += row[size_t(2 * d + i * rank + l)] * row[size_t(2 * d + j * rank + l)];
      }
    return r;
  }
  for (int64_t i = 0; i < d; ++i) {
    for (int64_t j = 0; j < i; ++j) a[i][j] = row[at++];
    a[i][i] = S(1);
  }
  if (structure == KMVN_PRECISION_CHOLESKY) {
    Matrix<S> inverse = matrix<S>(d, d);
    for (int64_t c = 0; c < d; ++c)
      for (int64_t i = c; i < d; ++i) {
        inverse[i][c] = S(i == c);
        for (int64_t j = c; j < i; ++j) inverse[i][c] -= a[i][j] * inverse[j][c];
      }
    a = inverse;
  }
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = 0; j < d; ++j)
      for (int64_t l = 0; l <= std::min(i, j); ++l) r[i][j] += a[i][l] * a[j][l];
  return r;
}

// The marginal of the observed targets, from Σ_oo; analytic, so that complex steps work.
template <class S>
Truth<S> truth(int structure, const std::vector<S>& row, const std::vector<Real>& y,
               const std::vector<Real>& observed) {
  const int64_t d = int64_t(y.size());
  const Matrix<S> r = shape_matrix<S>(structure, row, d);
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < d; ++i)
    if (observed[size_t(i)] > 0) kept.push_back(i);
  const int64_t m = int64_t(kept.size());
  Matrix<S> factor = matrix<S>(m, m);
  std::vector<S> w(size_t(m), S(0)), x(size_t(m), S(0));
  Truth<S> found{S(0), S(0), std::vector<S>(size_t(d), S(0)), {}};
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      S sum = r[kept[i]][kept[j]];
      for (int64_t l = 0; l < j; ++l) sum -= factor[i][l] * factor[j][l];
      factor[i][j] = i == j ? std::sqrt(sum) : sum / factor[j][j];
    }
    const size_t at = size_t(kept[i]);
    w[i] = (S(y[at]) - row[at]) / row[size_t(d) + at];
    for (int64_t l = 0; l < i; ++l) w[i] -= factor[i][l] * w[l];
    w[i] /= factor[i][i];
    found.squared_mahalanobis += w[i] * w[i];
    found.half_log_det += std::log(row[size_t(d) + at]) + std::log(factor[i][i]);
  }
  for (int64_t i = m - 1; i >= 0; --i) {
    x[i] = w[i];
    for (int64_t l = i + 1; l < m; ++l) x[i] -= factor[l][i] * x[l];
    x[i] /= factor[i][i];
    found.v[kept[i]] = x[i];
  }
  if (m == d && structure == KMVN_CHOLESKY) found.z = w;
  return found;
}

// --- calls ---------------------------------------------------------------------------------------

int forward(const kmvn_forward& a, kmvn_threads threads, float) {
  return kmvn_elliptical_forward_f32(&a, threads);
}
int forward(const kmvn_forward& a, kmvn_threads threads, double) {
  return kmvn_elliptical_forward_f64(&a, threads);
}
int backward(const kmvn_backward& a, kmvn_threads threads, float) {
  return kmvn_elliptical_backward_f32(&a, threads);
}
int backward(const kmvn_backward& a, kmvn_threads threads, double) {
  return kmvn_elliptical_backward_f64(&a, threads);
}

struct Shape {
  int structure;
  int64_t rows, d;
  bool gaps = false, fixed_mean = false, with_mean_bar = false;
  int64_t padding = 0;  // between the rows of y_pred
  Edge edge = Edge::End;

  int64_t k() const {
    return structure == KMVN_LOW_RANK ? d * ((rows + 7 * d) % 19) : d * (d - 1) / 2;
  }
  int64_t width() const { return 2 * d + k(); }
  int64_t kept() const { return kmvn_kept(structure, d, k()); }
  int64_t stride() const { return width() + padding; }
  int64_t trailing() const { return (rows + d) % 3; }  // columns of y_pred_bar behind the others
  int64_t bar_width() const { return width() + trailing(); }
  // There may be no memory after the last row of a view.
  size_t y_pred_size() const { return rows ? size_t((rows - 1) * stride() + width()) : 0; }
};

// Arguments and results of both passes.
template <class T>
struct Batch {
  explicit Batch(const Shape& s, unsigned seed = 0)
      : shape(s), y_pred(s.y_pred_size(), s.edge), y(numbers(s), s.edge),
        observed(s.gaps ? numbers(s) : 0, s.edge), squared_mahalanobis_bar(size_t(s.rows), s.edge),
        half_log_det_bar(size_t(s.rows), s.edge),
        mean_bar(s.with_mean_bar ? numbers(s) : 0, s.edge),
        squared_mahalanobis(size_t(s.rows), s.edge), half_log_det(size_t(s.rows), s.edge),
        variance(s.structure != KMVN_PRECISION_CHOLESKY ? numbers(s) : 0, s.edge),
        z(size_t(s.rows * s.kept()), s.edge),
        v(numbers(s), s.edge), trailing_bar(size_t(s.rows * s.trailing()), s.edge),
        y_pred_bar(size_t(s.rows * s.bar_width()), s.edge) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    const auto fill = [](Guarded<T>& to, const std::function<double()>& from) {
      for (size_t i = 0; i < to.size(); ++i) to[i] = T(from());
    };
    const double spread = 0.5 / std::sqrt(double(s.d));
    fill(y_pred, [&] { return spread * normal(random); });
    for (int64_t row = 0; row < s.rows; ++row)
      for (int64_t i = 0; i < s.d; ++i) {
        y_pred[size_t(row * s.stride() + i)] = T(normal(random));
        y_pred[size_t(row * s.stride() + s.d + i)] = T(std::exp(normal(random)));
      }
    fill(y, [&] { return normal(random); });
    fill(observed, [&] { return double(uniform(random) < 0.6); });
    for (int64_t i = 0; s.gaps && i < s.d; ++i) {  // one complete row, one all missing
      if (s.rows > 0) observed[size_t(i)] = T(1);
      if (s.rows > 1) observed[size_t(s.d + i)] = T(0);
    }
    fill(squared_mahalanobis_bar, [&] { return normal(random); });
    fill(half_log_det_bar, [&] { return normal(random); });
    fill(mean_bar, [&] { return normal(random); });
    fill(trailing_bar, [&] { return normal(random); });
  }

  static size_t numbers(const Shape& s) { return size_t(s.rows * s.d); }

  kmvn_forward forward_arguments() {
    kmvn_forward a{};
    a.structure = shape.structure;
    a.rows = shape.rows;
    a.d = shape.d;
    a.k = shape.k();
    a.stride = shape.stride();
    a.y_pred = y_pred.data();
    a.y = y.data();
    a.observed = shape.gaps ? observed.data() : nullptr;
    a.squared_mahalanobis = squared_mahalanobis.data();
    a.half_log_det = half_log_det.data();
    a.variance = variance.size() ? variance.data() : nullptr;
    a.z = z.data();
    a.v = v.data();
    return a;
  }

  kmvn_backward backward_arguments() {
    kmvn_backward a{};
    a.structure = shape.structure;
    a.fixed_mean = shape.fixed_mean;
    a.rows = shape.rows;
    a.d = shape.d;
    a.k = shape.k();
    a.stride = shape.stride();
    a.y_pred = y_pred.data();
    a.y = y.data();
    a.observed = shape.gaps ? observed.data() : nullptr;
    a.z = z.data();
    a.v = v.data();
    a.squared_mahalanobis_bar = squared_mahalanobis_bar.data();
    a.half_log_det_bar = half_log_det_bar.data();
    a.mean_bar = shape.with_mean_bar ? mean_bar.data() : nullptr;
    a.trailing = shape.trailing();
    a.trailing_bar = trailing_bar.data();
    a.y_pred_bar = y_pred_bar.data();
    return a;
  }

  void run(kmvn_threads threads = {1, nullptr, nullptr}) {
    check(forward(forward_arguments(), threads, T()) == 0, "the forward pass refuses");
    check(backward(backward_arguments(), threads, T()) == 0, "the backward pass refuses");
  }

  std::vector<const Guarded<T>*> results() const {
    return {&squared_mahalanobis, &half_log_det, &variance, &z, &v, &y_pred_bar};
  }
  bool untouched_around() const {
    const auto good = [](const Guarded<T>* x) { return x->untouched_around(); };
    const auto outputs = results();
    return std::all_of(outputs.begin(), outputs.end(), good);
  }

  Shape shape;
  Guarded<T> y_pred, y, observed, squared_mahalanobis_bar, half_log_det_bar, mean_bar;
  Guarded<T> squared_mahalanobis, half_log_det, variance, z, v, trailing_bar, y_pred_bar;
};

template <class T>
bool same_bits(const Guarded<T>& a, const Guarded<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
bool same_results(const Batch<T>& a, const Batch<T>& b) {
  const auto of_a = a.results(), of_b = b.results();
  return std::equal(of_a.begin(), of_a.end(), of_b.begin(),
                    [](const auto* x, const auto* y) { return same_bits(*x, *y); });
}

// --- values and gradients ------------------------------------------------------------------------

template <class T>
std::vector<Real> reals(const Guarded<T>& from, int64_t begin, int64_t count) {
  return std::vector<Real>(from.data() + begin, from.data() + begin + count);
}

// Row `row` of a batch as input of the reference.
template <class T>
struct Row {
  Row(const Batch<T>& b, int64_t row)
      : y_pred(reals(b.y_pred, row * b.shape.stride(), b.shape.width())),
        y(reals(b.y, row * b.shape.d, b.shape.d)),
        observed(b.shape.gaps ? reals(b.observed, row * b.shape.d, b.shape.d)
                              : std::vector<Real>(size_t(b.shape.d), 1)) {}
  std::vector<Real> y_pred, y, observed;
};

template <class T>
constexpr Real bound = 300 * Real(std::numeric_limits<T>::epsilon());

template <class T>
void check_values(const Batch<T>& b, int64_t row) {
  const Shape& s = b.shape;
  const Row<T> from(b, row);
  const auto expected = truth<Real>(s.structure, from.y_pred, from.y, from.observed);
  check_close(b.squared_mahalanobis[row], expected.squared_mahalanobis, bound<T>,
              "squared_mahalanobis", row);
  check_close(b.half_log_det[row], expected.half_log_det, bound<T>, "half_log_det", row);
  // z and v are not small where it is large.
  const Real unit = std::sqrt(expected.squared_mahalanobis);
  for (int64_t i = 0; i < s.d; ++i) {
    check_close(b.v[row * s.d + i], expected.v[i], bound<T>, "v", row, unit);
    if (!expected.z.empty())
      check_close(b.z[row * s.d + i], expected.z[i], bound<T>, "z", row, unit);
  }
  if (!b.variance.size()) return;
  const auto r = shape_matrix<Real>(s.structure, from.y_pred, s.d);
  for (int64_t i = 0; i < s.d; ++i) {
    const Real scale = from.y_pred[size_t(s.d + i)];
    check_close(b.variance[row * s.d + i], scale * scale * r[i][i], bound<T>, "variance", row);
  }
}

// All columns if there are few targets; else the last ones and some that differ between rows.
bool is_sampled(const Shape& s, int64_t row, int64_t column) {
  return s.d <= 9 || s.width() - column <= 3 || (column + 5 * row + s.rows) % 29 == 0;
}

template <class T>
void check_gradient(const Batch<T>& b, int64_t row) {
  const Shape& s = b.shape;
  const Row<T> from(b, row);
  const Real step = 1e-30L;
  Real unit = 1;  // the largest entry
  for (int64_t i = 0; i < s.width(); ++i)
    unit = std::max(unit, std::abs(Real(b.y_pred_bar[row * s.bar_width() + i])));
  std::vector<std::complex<Real>> moved(from.y_pred.begin(), from.y_pred.end());
  for (int64_t i = 0; i < s.width(); ++i) {
    if (!is_sampled(s, row, i)) continue;
    moved[size_t(i)] += std::complex<Real>(0, step);
    const auto found = truth<std::complex<Real>>(s.structure, moved, from.y, from.observed);
    moved[size_t(i)] = from.y_pred[size_t(i)];
    Real slope = (Real(b.squared_mahalanobis_bar[row]) * found.squared_mahalanobis.imag() +
                  Real(b.half_log_det_bar[row]) * found.half_log_det.imag()) / step;
    if (i < s.d && s.fixed_mean) slope = 0;
    if (i < s.d && s.with_mean_bar) slope += Real(b.mean_bar[row * s.d + i]);
    const Real got = b.y_pred_bar[row * s.bar_width() + i];
    check_close(got, slope, bound<T>, ("gradient by column " + std::to_string(i)).c_str(), row,
                unit);
  }
  for (int64_t i = 0; i < s.trailing(); ++i)
    check(b.y_pred_bar[row * s.bar_width() + s.width() + i] ==
              b.trailing_bar[row * s.trailing() + i],
          "a trailing column");
}

const char* const names[] = {" cholesky", " precision_cholesky", " low_rank"};

template <class T>
void check_batch(const Shape& shape) {
  context = std::string(kmvn_instructions()) + (sizeof(T) == 4 ? " float" : " double") +
            names[shape.structure] +
            " rows=" + std::to_string(shape.rows) + " d=" + std::to_string(shape.d) +
            (shape.gaps ? " gaps" : "") + (shape.fixed_mean ? " fixed_mean" : "") +
            " padding=" + std::to_string(shape.padding);
  Batch<T> batch(shape, unsigned(shape.rows * 100 + shape.d));
  batch.run();
  check(batch.untouched_around(), "something was written outside");
  for (int64_t row = 0; row < shape.rows; ++row) {
    const bool at_an_edge = row % 16 == 0 || row % 16 == 15 || row + 1 == shape.rows;
    if (shape.d <= 9 || at_an_edge || row % 7 == 0) check_values(batch, row);
    if (row + 1 == shape.rows || (shape.d <= 9 && at_an_edge)) check_gradient(batch, row);
  }
  if (shape.rows < 1) return;

  // Values alone are equal up to contraction by the compiler; a single row is exactly equal.
  Batch<T> values(shape, unsigned(shape.rows * 100 + shape.d));
  auto only_values = values.forward_arguments();
  only_values.z = only_values.v = nullptr;
  forward(only_values, {1, nullptr, nullptr}, T());
  const Real rounding = 4 * Real(std::numeric_limits<T>::epsilon());
  for (int64_t row = 0; row < shape.rows; ++row) {
    check_close(values.squared_mahalanobis[row], batch.squared_mahalanobis[row], rounding,
                "distance alone", row);
    check_close(values.half_log_det[row], batch.half_log_det[row], rounding, "half_log_det alone", row);
  }
  const int64_t last = shape.rows - 1;
  auto one = values.forward_arguments();
  one.rows = 1;
  one.y_pred = batch.y_pred.data() + last * shape.stride();
  one.y = batch.y.data() + last * shape.d;
  one.observed = shape.gaps ? batch.observed.data() + last * shape.d : nullptr;
  forward(one, {1, nullptr, nullptr}, T());
  check(std::memcmp(values.v.data(), &batch.v[size_t(last * shape.d)],
                    size_t(shape.d) * sizeof(T)) == 0,
        "a row by itself differs");
}

// Few: shapes at the edges of vectors, which matter most for sanitizers.
template <class T>
void check_all_shapes(bool few) {
  const std::vector<int64_t> sizes =
      few ? std::vector<int64_t>{1, 3, 4, 8, 9, 16, 17}
          : std::vector<int64_t>{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 32, 33};
  for (int structure : {KMVN_CHOLESKY, KMVN_PRECISION_CHOLESKY, KMVN_LOW_RANK})
    for (int64_t d : sizes)
      for (int64_t rows : {0, 1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 33, 100}) {
        if ((d > 9 || few) && rows % 8 > 1) continue;
        const bool odd = (rows + d) % 2;
        check_batch<T>({structure, rows, d, false, odd, odd, 0, Edge::End});
        check_batch<T>({structure, rows, d, true, !odd, true, odd ? 3 : 0, Edge::Begin});
        if (odd) check_batch<T>({structure, rows, d, false, false, false, 5, Edge::End});
      }
}

// --- NaN and infinity ----------------------------------------------------------------------------

// A row with NaN or infinity does not affect other rows.
template <class T>
void check_spoiled_rows() {
  context = std::string(kmvn_instructions()) + " spoiled rows";
  for (int structure : {KMVN_CHOLESKY, KMVN_PRECISION_CHOLESKY, KMVN_LOW_RANK})
    for (bool gaps : {false, true})
      for (T spoil : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
        const Shape shape{structure, 37, 5, gaps, false, true};
        Batch<T> clean(shape), spoiled(shape);
        for (int64_t row : {5, 36}) {
          spoiled.y[size_t(row * 5 + 2)] = spoil;
          if (gaps) spoiled.observed[size_t(row * 5 + 2)] = T(1);
        }
        clean.run();
        spoiled.run();
        for (int64_t row = 0; row < shape.rows; ++row) {
          const bool hit = row == 5 || row == 36;
          check(!hit || !std::isfinite(spoiled.squared_mahalanobis[row]), "NaN or infinity is swallowed");
          if (hit) continue;
          check(spoiled.squared_mahalanobis[row] == clean.squared_mahalanobis[row], "another row's distance");
          check(std::memcmp(&spoiled.y_pred_bar[row * shape.bar_width()],
                            &clean.y_pred_bar[row * shape.bar_width()],
                            size_t(shape.width()) * sizeof(T)) == 0,
                "another row's gradient");
        }
      }
}

// ½ log det Σ for extreme scales, some of which have no logarithm.
template <class T>
void check_scales() {
  context = std::string(kmvn_instructions()) + (sizeof(T) == 4 ? " float" : " double") + " scales";
  using Limits = std::numeric_limits<T>;
  const std::vector<T> scales = {T(1e-30), T(1e30), Limits::min(), Limits::max(),
                                 Limits::denorm_min(), T(0), T(-2), Limits::infinity(),
                                 Limits::quiet_NaN(), T(1), Limits::min() / 2};
  for (int64_t d : {1, 3, 64, 65, 200}) {
    const Shape shape{KMVN_PRECISION_CHOLESKY, int64_t(scales.size()), d};
    Batch<T> batch(shape);
    for (int64_t row = 0; row < shape.rows; ++row)
      for (int64_t i = 0; i < d; ++i)
        if (i % 3 == 0) batch.y_pred[size_t(row * shape.stride() + d + i)] = scales[size_t(row)];
    forward(batch.forward_arguments(), {1, nullptr, nullptr}, T());
    for (int64_t row = 0; row < shape.rows; ++row) {
      Real expected = 0;
      for (int64_t i = 0; i < d; ++i)
        expected += std::log(Real(batch.y_pred[size_t(row * shape.stride() + d + i)]));
      check_close(batch.half_log_det[row], expected, bound<T>, "half_log_det", row);
    }
  }
}

// --- threads -------------------------------------------------------------------------------------

// Hands every task to a new thread, which starts late.
struct Late {
  std::vector<std::thread> threads;
  ~Late() {
    for (auto& thread : threads) thread.join();
  }
  static int submit(void* self, void (*task)(void*), void* data) {
    static_cast<Late*>(self)->threads.emplace_back([task, data] {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      task(data);
    });
    return 0;
  }
};

int refuse(void*, void (*)(void*), void*) { return 1; }

int at_once(void*, void (*task)(void*), void* data) {
  task(data);
  return 0;
}

const Shape large{KMVN_CHOLESKY, 5003, 8, true, false, true};  // several parts

// Like OpenMP: runs the task in several threads at once.
void in_a_team(void (*task)(void*), void* data, unsigned threads, unsigned) {
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; ++i) others.emplace_back(task, data);
  task(data);
  for (std::thread& other : others) other.join();
}

template <class T>
void check_threads() {
  context = "threads";
  for (int structure : {KMVN_CHOLESKY, KMVN_PRECISION_CHOLESKY, KMVN_LOW_RANK})
    for (bool gaps : {false, true}) {
      Shape shape = large;
      shape.structure = structure;
      shape.gaps = gaps;
      Batch<T> alone(shape);
      alone.run();
      Late late;
      for (kmvn_threads threads : {kmvn_threads{2, nullptr, nullptr}, {7, nullptr, nullptr},
                                   {3, Late::submit, &late}, {3, refuse, nullptr},
                                   {4, at_once, nullptr}, {0, nullptr, nullptr},
                                   {3, nullptr, nullptr, in_a_team}}) {
        Batch<T> shared(shape);
        shared.run(threads);
        check(same_results(alone, shared), "threads change the result");
        check(shared.untouched_around(), "something was written outside");
      }
    }
}

// Independent concurrent callers, each with helpers.
void check_callers() {
  context = "many callers";
  Batch<float> single(large);
  Batch<double> twice(large);
  single.run();
  twice.run();
  std::vector<std::thread> callers;
  std::vector<int> good(6, 0);
  for (size_t i = 0; i < good.size(); ++i)
    callers.emplace_back([&, i] {
      bool same = true;
      for (int repetition = 0; repetition < 4; ++repetition) {
        const kmvn_threads threads{3, nullptr, nullptr};
        if (i % 2) {
          Batch<float> batch(large);
          forward(batch.forward_arguments(), threads, 0.0f);
          backward(batch.backward_arguments(), threads, 0.0f);
          same = same && same_results(batch, single);
        } else {
          Batch<double> batch(large);
          forward(batch.forward_arguments(), threads, 0.0);
          backward(batch.backward_arguments(), threads, 0.0);
          same = same && same_results(batch, twice);
        }
      }
      good[i] = same;
    });
  for (auto& caller : callers) caller.join();
  for (int one : good) check(one, "callers disturb each other");
}

// --- out of memory -------------------------------------------------------------------------------

// Rows with missing targets need matrices; if allocation fails in any thread, the call reports it,
// and the next one works.
void check_memory() {
  context = "memory";
  Batch<float> batch({KMVN_CHOLESKY, 64, 64, true}), expected({KMVN_CHOLESKY, 64, 64, true});
  expected.run();
  for (const size_t most : {size_t(1) << 14, size_t(0)})
    for (const int threads : {1, 3}) {
      const auto arguments = batch.forward_arguments();
      largest_allocation = most;
      const int found = kmvn_elliptical_forward_f32(&arguments, {threads, nullptr, nullptr});
      largest_allocation = std::numeric_limits<size_t>::max();
      check(found == KMVN_NO_MEMORY, "a call without memory");
      batch.run();
      check(same_results(batch, expected), "after a call without memory");
    }
}

// --- invalid arguments ---------------------------------------------------------------------------

void check_refusals() {
  context = "refusals";
  Batch<float> batch({KMVN_CHOLESKY, 3, 2});
  auto unknown = batch.forward_arguments();
  unknown.structure = 3;
  check(kmvn_elliptical_forward_f32(&unknown, {1, nullptr, nullptr}) == 1, "another structure");
  auto too_wide = batch.forward_arguments();
  ++too_wide.k;
  check(kmvn_elliptical_forward_f32(&too_wide, {1, nullptr, nullptr}) == 1, "another triangle");
  too_wide.structure = KMVN_LOW_RANK;
  too_wide.k = 3;
  check(kmvn_elliptical_forward_f32(&too_wide, {1, nullptr, nullptr}) == 1, "half a column");
  auto no_targets = batch.backward_arguments();
  no_targets.d = 0;
  check(kmvn_elliptical_backward_f64(&no_targets, {1, nullptr, nullptr}) == 1, "d = 0");
  const std::string before = kmvn_instructions();
  check(kmvn_use_instructions("mmx") == 1, "instructions that don't exist");
  check(before == kmvn_instructions(), "a refusal that changes the instructions");
  check(kmvn_abi() == KMVN_ABI, "the interface's number");
}

}  // namespace

// With the argument "threads", tests only threading, which is the same whatever the instructions;
// with "few", tests fewer shapes.
int main(int count, char** arguments) {
  const bool only_threads = count > 1 && std::strcmp(arguments[1], "threads") == 0;
  const bool few = count > 1 && std::strcmp(arguments[1], "few") == 0;
  check_refusals();
  const std::string best = kmvn_instructions();
  for (const char* instructions : {"avx512", "avx2", "baseline"}) {
    if (kmvn_use_instructions(instructions) != 0) continue;
    check(std::strcmp(kmvn_instructions(), instructions) == 0, "the instructions were not taken");
    if (!only_threads) {
      check_all_shapes<float>(few);
      check_all_shapes<double>(few);
      check_spoiled_rows<float>();
      check_spoiled_rows<double>();
      check_scales<float>();
      check_scales<double>();
    }
    check_threads<float>();
    check_threads<double>();
    check_callers();
    check_memory();
    std::printf("%s: %d checks, %d failures\n", instructions, checks, failures);
    if (only_threads) break;
  }
  kmvn_use_instructions(best.c_str());
  return failures != 0;
}

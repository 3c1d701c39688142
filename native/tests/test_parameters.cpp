// Compares the operation `parameters` with its formula in long double; gradients are complex steps.
// Covers both types, every instruction set of this machine, with and without shrinkage and a ball,
// several threads, and guarded memory.
#include "parameters.h"

#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "checking.h"

namespace {

struct Shape {
  int64_t rows, d, k;
  double radius;
  bool shrinks;
  Edge edge = Edge::End;

  int64_t width() const { return 2 * d + k; }
};

int run(const kmvn_parameters_forward& a, kmvn_threads threads, float) {
  return kmvn_parameters_forward_f32(&a, threads);
}
int run(const kmvn_parameters_forward& a, kmvn_threads threads, double) {
  return kmvn_parameters_forward_f64(&a, threads);
}
int run(const kmvn_parameters_backward& a, kmvn_threads threads, float) {
  return kmvn_parameters_backward_f32(&a, threads);
}
int run(const kmvn_parameters_backward& a, kmvn_threads threads, double) {
  return kmvn_parameters_backward_f64(&a, threads);
}

template <class T>
struct Batch {
  explicit Batch(const Shape& shape)
      : shape(shape),
        raw(size_t(shape.rows * shape.width()), shape.edge),
        bias(size_t(shape.width()), shape.edge),
        mean(size_t(shape.d), shape.edge),
        stddev(size_t(shape.d), shape.edge),
        scale(size_t(shape.d), shape.edge),
        origin(size_t(shape.k), shape.edge),
        floor(size_t(shape.d), shape.edge),
        strengths(size_t(shape.d + shape.k), shape.edge),
        y_pred_bar(raw.size(), shape.edge),
        penalty_bar(size_t(shape.rows), shape.edge),
        y_pred(raw.size(), shape.edge),
        penalty(size_t(shape.rows), shape.edge),
        raw_bar(raw.size(), shape.edge) {
    std::mt19937 random(unsigned(shape.rows + 31 * shape.width()));
    std::normal_distribution<double> normal;
    for (auto* numbers : {&raw, &bias, &mean, &origin, &y_pred_bar, &penalty_bar})
      for (size_t i = 0; i < numbers->size(); ++i) (*numbers)[i] = T(2 * normal(random));
    for (auto* numbers : {&stddev, &scale, &floor, &strengths})
      for (size_t i = 0; i < numbers->size(); ++i) (*numbers)[i] = T(std::exp(normal(random)));
  }

  void run_both(kmvn_threads threads = {1, nullptr, nullptr, nullptr}) {
    const void* const strong = shape.shrinks ? strengths.data() : nullptr;
    const kmvn_parameters_forward forward{
        shape.rows,    shape.d,      shape.k,       shape.radius, raw.data(),    bias.data(),
        mean.data(),   stddev.data(), scale.data(), origin.data(), floor.data(), strong,
        y_pred.data(), penalty.data()};
    check(run(forward, threads, T()) == 0, "forward refused");
    const kmvn_parameters_backward backward{
        shape.rows,    shape.d,      shape.k, shape.radius,      raw.data(), bias.data(),
        stddev.data(), scale.data(), strong,  y_pred_bar.data(),
        shape.shrinks ? penalty_bar.data() : nullptr, raw_bar.data()};
    check(run(backward, threads, T()) == 0, "backward refused");
  }

  bool untouched_around() const {
    for (const auto* numbers : {&raw, &bias, &mean, &stddev, &scale, &origin, &floor,
                                &strengths,
                                &y_pred_bar, &penalty_bar, &y_pred, &penalty, &raw_bar})
      if (!numbers->untouched_around()) return false;
    return true;
  }

  Shape shape;
  Guarded<T> raw, bias, mean, stddev, scale, origin, floor, strengths, y_pred_bar, penalty_bar;
  Guarded<T> y_pred, penalty, raw_bar;
};

using Complex = std::complex<Real>;

Complex link(Complex x) {
  const Complex size = x.real() >= 0 ? x : -x;
  const Complex grown = size.real() > 3 ? std::exp(Real(3)) * (size - Real(2)) : std::exp(size);
  return x.real() >= 0 ? grown : Real(1) / grown;
}

struct Row {
  std::vector<Complex> y_pred;
  Complex penalty;
};

template <class T>
Row formula(const Batch<T>& batch, const std::vector<Complex>& raw) {
  const auto& [rows, d, k, radius, shrinks, edge] = batch.shape;
  Row row{std::vector<Complex>(raw.size()), 0};
  Complex squares = 0;
  std::vector<Complex> x = raw;
  for (size_t i = 0; i < x.size(); ++i) x[i] += Real(batch.bias[i]);
  for (int64_t i = 2 * d; i < 2 * d + k; ++i) squares += x[size_t(i)] * x[size_t(i)];
  const Complex factor =
      radius == 0 ? Complex(1) : Real(1) / std::sqrt(Real(1) + squares / Real(radius) / Real(radius));
  for (int64_t i = 0; i < d; ++i) {
    const size_t at = size_t(i);
    row.y_pred[at] = Real(batch.mean[at]) + Real(batch.stddev[at]) * x[at];
    row.y_pred[size_t(d) + at] =
        Real(batch.floor[at]) + Real(batch.scale[at]) * link(x[size_t(d) + at]);
  }
  for (int64_t i = 0; i < k; ++i)
    row.y_pred[size_t(2 * d + i)] = Real(batch.origin[size_t(i)]) + factor * x[size_t(2 * d + i)];
  for (int64_t i = 0; shrinks && i < d + k; ++i) {
    const Complex shrunk = raw[size_t(d + i)];
    row.penalty += Real(0.5) * Real(batch.strengths[size_t(i)]) * shrunk * shrunk;
  }
  return row;
}

template <class T>
void check_row(const Batch<T>& batch, int64_t row) {
  constexpr Real bound = sizeof(T) == 4 ? 2e-6L : 2e-15L, step = 1e-100L;
  const int64_t width = batch.shape.width();
  const size_t first = size_t(row * width);
  std::vector<Complex> raw(size_t(width), 0);
  for (size_t i = 0; i < raw.size(); ++i) raw[i] = Real(batch.raw[first + i]);
  const Row expected = formula(batch, raw);
  for (size_t i = 0; i < raw.size(); ++i)
    check_close(batch.y_pred[first + i], expected.y_pred[i].real(), bound, "y_pred", row);
  check_close(batch.penalty[size_t(row)], expected.penalty.real(), 4 * bound, "penalty", row);
  for (size_t column = 0; column < raw.size(); ++column) {
    raw[column] += Complex(0, step);
    const Row moved = formula(batch, raw);
    raw[column] = raw[column].real();
    Real slope = 0, unit = 1;
    const auto add = [&](T bar, const Complex& to) {
      const Real one = Real(bar) * to.imag() / step;
      slope += one;
      unit += std::abs(one);
    };
    for (size_t i = 0; i < raw.size(); ++i) add(batch.y_pred_bar[first + i], moved.y_pred[i]);
    if (batch.shape.shrinks) add(batch.penalty_bar[size_t(row)], moved.penalty);
    check_close(batch.raw_bar[first + column], slope, 4 * bound, "raw_bar", row, unit);
  }
}

template <class T>
void check_shapes(bool few) {
  const std::vector<int64_t> targets =
      few ? std::vector<int64_t>{1, 3, 8, 9} : std::vector<int64_t>{1, 2, 3, 7, 8, 9, 15, 16, 17};
  for (int64_t d : targets)
    for (int64_t k : {int64_t(0), int64_t(1), d * (d - 1) / 2, 2 * d})
      for (int64_t rows : {0, 1, 17})
        for (double radius : {0.0, 2.5})
          for (bool shrinks : {false, true})
            for (Edge edge : {Edge::End, Edge::Begin}) {
              context = "d " + std::to_string(d) + ", k " + std::to_string(k) + ", rows " +
                        std::to_string(rows) + (shrinks ? ", shrunk" : "") + ", radius " +
                        std::to_string(radius) + (sizeof(T) == 4 ? ", float" : ", double");
              Batch<T> batch({rows, d, k, radius, shrinks, edge});
              batch.run_both();
              for (int64_t row = 0; row < rows; row += 8) check_row(batch, row);
              check(batch.untouched_around(), "something was written outside");
            }
}

template <class T>
bool same(const Guarded<T>& a, const Guarded<T>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void check_threads() {
  context = "threads";
  const Shape large{5003, 8, 28, 2.5, true};  // several parts
  Batch<T> alone(large), shared(large);
  alone.run_both();
  shared.run_both({5, nullptr, nullptr, nullptr});
  check(same(alone.y_pred, shared.y_pred) && same(alone.penalty, shared.penalty) &&
            same(alone.raw_bar, shared.raw_bar),
        "threads change the result");
}

void check_refusals() {
  context = "refusals";
  kmvn_parameters_forward forward{};
  check(run(forward, {1, nullptr, nullptr, nullptr}, 0.0f) == 1, "d = 0");
  kmvn_parameters_backward backward{};
  backward.d = 1;
  backward.k = -1;
  check(run(backward, {1, nullptr, nullptr, nullptr}, 0.0) == 1, "k < 0");
}

}  // namespace

// With the argument "threads", tests only threading, which is the same whatever the instructions;
// with "few", tests fewer shapes.
int main(int count, char** arguments) {
  const bool only_threads = count > 1 && std::strcmp(arguments[1], "threads") == 0;
  const bool few = count > 1 && std::strcmp(arguments[1], "few") == 0;
  check_refusals();
  for (const char* instructions : {"avx512", "avx2", "baseline"}) {
    if (kmvn_use_instructions(instructions) != 0) continue;
    if (!only_threads) {
      check_shapes<float>(few);
      check_shapes<double>(few);
    }
    check_threads<float>();
    check_threads<double>();
    std::printf("%s: %d checks, %d failures\n", instructions, checks, failures);
    if (only_threads) break;
  }
  return failures != 0;
}

// Code shared by the tests in native/tests: checks with messages, and guarded memory.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

namespace {

// --- checks --------------------------------------------------------------------------------------

std::string context;  // description of the current test
int failures = 0, checks = 0;

void check(bool good, const std::string& message) {
  ++checks;
  if (good) return;
  if (++failures <= 20) std::fprintf(stderr, "FAILED %s: %s\n", context.c_str(), message.c_str());
}

using Real = long double;

// Checks that both are NaN, the same infinity, or within `bound` times max(`unit`, |`expected`|).
void check_close(Real found, Real expected, Real bound, const char* what, int64_t row,
                 Real unit = 1) {
  const double narrow = double(expected);  // Valgrind does not support an infinite long double
  const bool close = std::isfinite(narrow)
                         ? std::abs(found - expected) <= bound * std::max(unit, std::abs(expected))
                         : double(found) == narrow || (found != found && expected != expected);
  if (close) {
    ++checks;
    return;
  }
  char numbers[200];
  std::snprintf(numbers, sizeof numbers, "%s of row %ld is %.17Lg, not %.17Lg, bound %.2Lg", what,
                long(row), found, expected, bound * std::max(unit, std::abs(expected)));
  check(false, numbers);
}

// --- memory --------------------------------------------------------------------------------------

enum class Edge { End, Begin };  // which edge of the numbers borders inaccessible memory

// Numbers between two inaccessible pages; the rest of their own pages is checked for writes.
template <class T>
class Guarded {
 public:
  Guarded(size_t count, Edge edge) : count_(count) {
    const size_t page = size_t(sysconf(_SC_PAGESIZE)), bytes = count * sizeof(T);
    inner_ = (bytes + page - 1) / page * page;
    whole_ = inner_ + 2 * page;
    void* const found =
        mmap(nullptr, whole_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) std::abort();
    base_ = static_cast<unsigned char*>(found);
    begin_ = base_ + page;
    if (inner_ && mprotect(begin_, inner_, PROT_READ | PROT_WRITE) != 0) std::abort();
    std::memset(begin_, mark, inner_);
    numbers_ = reinterpret_cast<T*>(edge == Edge::End ? begin_ + inner_ - bytes : begin_);
    std::fill(numbers_, numbers_ + count, std::numeric_limits<T>::quiet_NaN());
  }
  ~Guarded() { munmap(base_, whole_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() { return numbers_; }
  const T* data() const { return numbers_; }
  T& operator[](size_t i) { return numbers_[i]; }
  const T& operator[](size_t i) const { return numbers_[i]; }
  size_t size() const { return count_; }

  bool untouched_around() const {
    const auto* const from = reinterpret_cast<const unsigned char*>(numbers_);
    const auto marked = [](unsigned char byte) { return byte == mark; };
    return std::all_of(static_cast<const unsigned char*>(begin_), from, marked) &&
           std::all_of(from + count_ * sizeof(T),
                       static_cast<const unsigned char*>(begin_) + inner_, marked);
  }

 private:
  static constexpr unsigned char mark = 0xa5;
  size_t count_, inner_ = 0, whole_ = 0;
  unsigned char *base_ = nullptr, *begin_ = nullptr;
  T* numbers_ = nullptr;
};

}  // namespace

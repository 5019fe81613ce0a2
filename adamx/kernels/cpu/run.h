// A call's tiles, shared out to threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "operands.h"
#include "parallel.h"

#if defined(ADAMX_X86)
#include <immintrin.h>
#endif

namespace adamx {

// While it lives, subnormal numbers are zero on this thread, as they are in XLA's own loops.
class [[maybe_unused]] FlushSubnormals {
#if defined(ADAMX_X86)
 public:
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  const unsigned before_;
#elif defined(__aarch64__)
 public:
  FlushSubnormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ | uint64_t{1} << 24));
  }
  ~FlushSubnormals() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  uint64_t before_;
#endif
};

constexpr int64_t kTilesPerPiece = 32;

// The norms of leaves, from sums of squares piece by piece: the same numbers whatever thread took a piece.
inline void write_norms(const std::vector<double>& squares, const std::vector<int64_t>& ends, float* norms) {
  int64_t piece = 0;
  for (const int64_t end : ends) {
    double sums[kNorms] = {};
    for (; piece < end; ++piece) {
      for (int of = 0; of < kNorms; ++of) sums[of] += squares[static_cast<size_t>(piece * kNorms + of)];
    }
    for (const double sum : sums) *norms++ = static_cast<float>(std::sqrt(sum));
  }
}

// Runs a call on this thread and up to `helpers` others that `schedule(task)` starts.
template <typename Schedule>
void run(Call call, int64_t helpers, Schedule schedule) {
  std::vector<int64_t> ends;  // of each leaf, in pieces
  int64_t pieces = 0;
  for (const Leaf& leaf : call.leaves) {
    ends.push_back(pieces += (tiling(leaf).count() + kTilesPerPiece - 1) / kTilesPerPiece);
  }
  float* const norms = call.norms;
  std::vector<double> squares(norms == nullptr ? 0 : static_cast<size_t>(pieces * kNorms));
  double* const sums = norms == nullptr ? nullptr : squares.data();  // lives as long as there are pieces to claim
  parallel(pieces, helpers, schedule, [call = std::move(call), ends, sums](int64_t piece) {
    [[maybe_unused]] const FlushSubnormals flushed;
    const auto index = std::upper_bound(ends.begin(), ends.end(), piece) - ends.begin();
    const Leaf& leaf = call.leaves[static_cast<size_t>(index)];
    const int64_t first = index == 0 ? 0 : ends[static_cast<size_t>(index - 1)];
    const int64_t begin = (piece - first) * kTilesPerPiece,
                  end = std::min(begin + kTilesPerPiece, tiling(leaf).count());
    step_tiles(leaf, call.step, begin, end, sums == nullptr ? nullptr : sums + piece * kNorms);
  });
  if (norms != nullptr) write_norms(squares, ends, norms);
}

}  // namespace adamx

// A call's tiles, shared out to threads.
#pragma once

#include <algorithm>
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

// Runs a call on this thread and up to `helpers` others that `schedule(task)` starts.
template <typename Schedule>
void run(Call call, int64_t helpers, Schedule schedule) {
  std::vector<int64_t> ends;  // of each leaf, in pieces
  int64_t pieces = 0;
  for (const Leaf& leaf : call.leaves) {
    ends.push_back(pieces += (tiling(leaf).count() + kTilesPerPiece - 1) / kTilesPerPiece);
  }
  parallel(pieces, helpers, schedule, [call = std::move(call), ends = std::move(ends)](int64_t piece) {
    [[maybe_unused]] const FlushSubnormals flushed;
    const auto index = std::upper_bound(ends.begin(), ends.end(), piece) - ends.begin();
    const Leaf& leaf = call.leaves[static_cast<size_t>(index)];
    const int64_t first = index == 0 ? 0 : ends[static_cast<size_t>(index - 1)];
    const int64_t begin = (piece - first) * kTilesPerPiece;
    step_tiles(leaf, call.step, begin, std::min(begin + kTilesPerPiece, tiling(leaf).count()));
  });
}

}  // namespace adamx

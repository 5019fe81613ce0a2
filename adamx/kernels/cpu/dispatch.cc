// Which of the compiled versions this processor runs.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "versions.h"

namespace adamx {

#define ADAMX_VERSION(name)                                                                            \
  namespace name {                                                                                     \
  void step_tiles(const Leaf& leaf, const Step& step, int64_t begin, int64_t end);                     \
  void measure_tiles(const Leaf& leaf, const Step& step, int64_t begin, int64_t end, double* squares); \
  }
#if defined(ADAMX_X86)
ADAMX_VERSION(avx512)
ADAMX_VERSION(avx2)
#endif
ADAMX_VERSION(portable)

std::vector<Version> versions() {
  std::vector<Version> found;
#if defined(ADAMX_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    found.push_back({"avx512", "AVX-512", avx512::step_tiles, avx512::measure_tiles});
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    found.push_back({"avx2", "AVX2", avx2::step_tiles, avx2::measure_tiles});
  }
  found.push_back({"portable", "SSE2", portable::step_tiles, portable::measure_tiles});
#elif defined(__aarch64__)
  found.push_back({"portable", "NEON", portable::step_tiles, portable::measure_tiles});
#else
  found.push_back({"portable", "generic", portable::step_tiles, portable::measure_tiles});
#endif
  return found;
}

namespace {

// The version that is asked for where the processor has it, else the best.
Version choose() {
  const std::vector<Version> there = versions();
  const char* asked = std::getenv("ADAMX_INSTRUCTIONS");
  for (const Version& version : there) {
    if (asked != nullptr && std::strcmp(asked, version.asked) == 0) return version;
  }
  return there.front();
}

const Version& version() {
  static const Version chosen = choose();
  return chosen;
}

}  // namespace

void step_tiles(const Leaf& leaf, const Step& step, int64_t begin, int64_t end, double* squares) {
  if (squares != nullptr) return version().measure_tiles(leaf, step, begin, end, squares);
  version().step_tiles(leaf, step, begin, end);
}

const char* instructions() { return version().name; }

Tiling tiling(const Leaf& leaf) {
  int64_t rows = leaf.rows(), last = leaf.last(), block = 1, least = kTile;
  for (const Moment* moment : {&leaf.mu, &leaf.nu}) {
    if (!moment->coded()) continue;
    block = std::max(block, moment->block);
    least = std::min(least, moment->block);
  }
  if (block > 1 && 0 < last && last <= least && last % kLanes == 0) block = last;  // each row is a block
  if (block == 1 || block == last) {
    last *= rows;
    rows = 1;
  }
  const int64_t length = kTile / block * block;
  return {rows, last, length, (last + length - 1) / length};
}

}  // namespace adamx

// Which of the compiled versions this processor runs.
#include <initializer_list>

#include "leaf.h"

namespace adamx {

#if defined(ADAMX_X86)
#define ADAMX_VERSION(name)                                                            \
  namespace name {                                                                     \
  void step_tiles(const Leaf& leaf, const Step& step, int64_t begin, int64_t end);     \
  }
ADAMX_VERSION(avx512)
ADAMX_VERSION(avx2)
#endif
namespace portable {
void step_tiles(const Leaf& leaf, const Step& step, int64_t begin, int64_t end);
}

namespace {

using StepTiles = void (*)(const Leaf&, const Step&, int64_t, int64_t);

struct Version {
  const char* name;
  StepTiles step_tiles;
};

Version best() {
#if defined(ADAMX_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return {"AVX-512", avx512::step_tiles};
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {"AVX2", avx2::step_tiles};
  return {"SSE2", portable::step_tiles};
#elif defined(__aarch64__)
  return {"NEON", portable::step_tiles};
#else
  return {"generic", portable::step_tiles};
#endif
}

const Version& version() {
  static const Version chosen = best();
  return chosen;
}

}  // namespace

void step_tiles(const Leaf& leaf, const Step& step, int64_t begin, int64_t end) {
  version().step_tiles(leaf, step, begin, end);
}

const char* instructions() { return version().name; }

Tiling tiling(const Leaf& leaf) {
  int64_t rows = leaf.rows(), last = leaf.last(), block = 1;
  for (const Moment* moment : {&leaf.mu, &leaf.nu}) {
    if (moment->storage == Storage::int8 && moment->block > block) block = moment->block;
  }
  if (block == 1) {
    last *= rows;
    rows = 1;
  }
  const int64_t length = kTile / block * block;
  return {rows, last, length, (last + length - 1) / length};
}

}  // namespace adamx

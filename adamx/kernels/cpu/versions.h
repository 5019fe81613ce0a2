// The step compiled for several sets of instructions.
#pragma once

#include <vector>

#include "leaf.h"

namespace adamx {

struct Version {
  const char* asked;  // by the environment variable ADAMX_INSTRUCTIONS
  const char* name;
  void (*step_tiles)(const Leaf& leaf, const Step& step, int64_t begin, int64_t end);
  void (*measure_tiles)(const Leaf& leaf, const Step& step, int64_t begin, int64_t end, double* squares);
};

// Those that this processor runs, the best first.
std::vector<Version> versions();

}  // namespace adamx

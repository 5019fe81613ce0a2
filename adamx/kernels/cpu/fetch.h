// Asks for what is worked on a little later. A processor sees by itself what comes next, but not past a page.
#pragma once

#include <cstddef>
#include <cstdint>

#include "registers.h"

namespace adamx {
namespace ADAMX_ISA {

constexpr int64_t kAhead = 512;  // elements

// The line that begins with element i, where one does, of an array that lies at the beginning of a line.
ADAMX_INLINE void fetch(const void* data, size_t bytes, int64_t i) {
  const size_t at = bytes * static_cast<size_t>(i);
  if (at % 64 == 0) __builtin_prefetch(static_cast<const char*>(data) + at, 1);
}

}  // namespace ADAMX_ISA
}  // namespace adamx

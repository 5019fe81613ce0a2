// The thresholds of adamx/storage/dither.py: a hash of the place, and a walk over the steps.
#pragma once

#include "leaf.h"

namespace adamx {
namespace ADAMX_ISA {

constexpr uint32_t kFirst = 0x7FEB352Du, kSecond = 0x846CA68Bu;
constexpr uint32_t kStrides[4] = {0x9E3779B9u, 0xB93E4B8Bu, 0x948697D7u, 0xB44DEC1Fu};

constexpr uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * kFirst;
  x = (x ^ (x >> 15)) * kSecond;
  return x ^ (x >> 16);
}

// What a step along an axis adds to the place; axes are counted from the last one, which is 1.
constexpr uint32_t along(int axis_from_last) { return mix(static_cast<uint32_t>(axis_from_last)) | 1u; }

// The place of the first element of a row.
inline uint32_t row_place(const Leaf& leaf, uint32_t salt, int64_t row) {
  for (int axis = leaf.rank - 2; axis >= 0; --axis) {
    salt += static_cast<uint32_t>(row % leaf.dims[axis]) * along(leaf.rank - axis);
    row /= leaf.dims[axis];
  }
  return salt;
}

// Thresholds of n neighbours from a place on.
inline void walk(uint32_t place, uint32_t count, int64_t n, uint32_t* __restrict out) {
  const uint32_t moved[4] = {count * kStrides[0], count * kStrides[1], count * kStrides[2], count * kStrides[3]};
  for (int32_t i = 0; i < static_cast<int32_t>(n); ++i) {
    uint32_t x = place + static_cast<uint32_t>(i) * along(1);
    x = (x ^ (x >> 16)) * kFirst;
    x ^= x >> 15;
    const uint32_t low = (x >> 30) & 1u ? moved[1] : moved[0], high = (x >> 30) & 1u ? moved[3] : moved[2];
    out[i] = x * kSecond + (x >> 31 ? high : low);
  }
}

// Thresholds of elements [begin, begin + n) of a leaf, counted row by row.
inline void thresholds(const Leaf& leaf, uint32_t salt, uint32_t count, int64_t begin, int64_t n, uint32_t* out) {
  const int64_t last = leaf.last();
  for (int64_t row = begin / last, column = begin % last; n > 0; ++row, column = 0) {
    const int64_t here = last - column < n ? last - column : n;
    walk(row_place(leaf, salt, row) + static_cast<uint32_t>(column) * along(1), count, here, out);
    out += here;
    n -= here;
  }
}

inline float fraction(uint32_t bits) { return static_cast<float>(static_cast<int32_t>(bits >> 8)) * 0x1p-24f; }

}  // namespace ADAMX_ISA
}  // namespace adamx

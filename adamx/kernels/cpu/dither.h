// The thresholds of adamx/storage/dither.py: a hash of the place, and a walk over the steps.
#pragma once

#include "lanes.h"
#include "leaf.h"

namespace adamx {
namespace ADAMX_ISA {

constexpr uint32_t kFirst = 0x7FEB352Du, kSecond = 0x846CA68Bu;
constexpr uint32_t kStrides[4] = {0x9E35BB67u, 0xB93F9635u, 0x9482B8A3u, 0xB44E9CFDu};

constexpr uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * kFirst;
  x = (x ^ (x >> 15)) * kSecond;
  return x ^ (x >> 16);
}

// What a step along an axis adds to the place; axes are counted from the last one, which is 1.
constexpr uint32_t along(int axis_from_last) { return mix(static_cast<uint32_t>(axis_from_last)) | 1u; }

// Where the first element of a row lies from the first one of the leaf.
inline uint32_t row_place(const Leaf& leaf, int64_t row) {
  uint32_t place = 0;
  for (int axis = leaf.rank - 2; axis >= 0; --axis) {
    place += static_cast<uint32_t>(row % leaf.dims[axis]) * along(leaf.rank - axis);
    row /= leaf.dims[axis];
  }
  return place;
}

// The places of a tile's elements: neighbours in one row, or listed where rows end within the tile.
class Places {
 public:
  Places(const Leaf& leaf, int64_t begin, int64_t n, uint32_t* list) : list_(nullptr) {
    const int64_t last = leaf.last();
    int64_t row = begin / last, column = begin % last;
    for (uint32_t i = 0; i < kLanes; ++i) lane_[i] = i * along(1);
    first_ = row_place(leaf, row) + static_cast<uint32_t>(column) * along(1);
    if (column + n <= last) return;
    list_ = list;
    for (int64_t i = 0; i < n; ++row, column = 0) {
      const uint32_t place = row_place(leaf, row) + static_cast<uint32_t>(column) * along(1);
      const int64_t here = last - column < n - i ? last - column : n - i;
      for (int64_t j = 0; j < here; ++j) list[i + j] = place + static_cast<uint32_t>(j) * along(1);
      i += here;
    }
  }

  U at(int64_t i) const {
    if (list_ != nullptr) return load<U>(list_ + i);
    return lane_ + (first_ + static_cast<uint32_t>(i) * along(1));
  }

 private:
  const uint32_t* list_;
  uint32_t first_;
  U lane_;
};

// The walk of a step.
class Walk {
 public:
  Walk(uint32_t salt, uint32_t count) : salt_(all(salt)) {
    for (int i = 0; i < kLanes; ++i) moved_[i] = count * kStrides[i % 4];
  }

  U thresholds(U place) const {
    U x = place + salt_;
    x = (x ^ (x >> 16)) * kFirst;
    x ^= x >> 15;
    return x * kSecond + pick(x >> 30, moved_);
  }

 private:
  U salt_, moved_;
};

// A threshold as a fraction of 1: its upper 23 bits, or its lower 16 bits, which are one as well. They become the
// digits of a number in [1, 2).
inline F fraction(U bits) { return float_of((bits >> 9) | 0x3F800000u) - 1.0f; }
inline F lower_fraction(U bits) { return float_of(((bits << 7) & 0x7FFF80u) | 0x3F800000u) - 1.0f; }

}  // namespace ADAMX_ISA
}  // namespace adamx

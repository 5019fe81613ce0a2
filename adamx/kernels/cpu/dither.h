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
  for (int axis = leaf.rank - 2; axis > 0; --axis) {
    place += static_cast<uint32_t>(row % leaf.dims[axis]) * along(leaf.rank - axis);
    row /= leaf.dims[axis];
  }
  return leaf.rank > 1 ? place + static_cast<uint32_t>(row) * along(leaf.rank) : place;
}

// The places of a tile's elements: neighbours in one row, or listed where rows end within the tile.
class Places {
 public:
  Places(const Leaf& leaf, const Begin& begin, int64_t n, uint32_t* list = nullptr)
      : leaf_(leaf), begin_(begin), first_(place(leaf, begin)), list_(nullptr) {
    for (uint32_t i = 0; i < kLanes; ++i) lane_[i] = i * along(1);
    const int64_t last = leaf.last();
    in_one_row_ = begin.column + n <= last;
    if (in_one_row_ || list == nullptr) return;
    list_ = list;
    for (int64_t i = 0, here = last - begin.column; i < n; i += here, here = last) {
      const uint32_t start = place(leaf, Begin(leaf, begin.element + i));
      here = here < n - i ? here : n - i;
      for (int64_t j = 0; j < here; ++j) list[i + j] = start + static_cast<uint32_t>(j) * along(1);
    }
  }

  U at(int64_t i) const { return list_ != nullptr ? load<U>(list_ + i) : lane_ + neighbour(i); }

  // The same where no row ends within the vector; it needs no list.
  U in_row(int64_t i) const {
    return lane_ + (in_one_row_ ? neighbour(i) : place(leaf_, Begin(leaf_, begin_.element + i)));
  }

 private:
  const Leaf& leaf_;
  Begin begin_;
  uint32_t first_;
  const uint32_t* list_;
  bool in_one_row_;
  U lane_;

  uint32_t neighbour(int64_t i) const { return first_ + static_cast<uint32_t>(i) * along(1); }

  static uint32_t place(const Leaf& leaf, const Begin& at) {
    return row_place(leaf, at.row) + static_cast<uint32_t>(at.column) * along(1);
  }
};

// The walk of a step.
class Walk {
 public:
  Walk(uint32_t salt, uint32_t count) : salt_(all(salt)) {
    for (int i = 0; i < kLanes; ++i) moved_[i] = count * kStrides[i % 4];
    short_ = ~moved_;
  }

  // A place as `complements` takes it.
  U salted(U place) const { return place + salt_; }

  U thresholds(U place) const {
    const U x = hashed(salted(place));
    return x * kSecond + pick(x >> 30, moved_);
  }

  // What thresholds are short of their largest number: -1 - x.
  U complements(U salted_place) const {
    const U x = hashed(salted_place);
    return x * (0u - kSecond) + pick(x >> 30, short_);
  }

 private:
  U salt_, moved_, short_;

  static U hashed(U x) {
    x = (x ^ (x >> 16)) * kFirst;
    return x ^ (x >> 15);
  }
};

// A threshold as a fraction of 1: its upper 23 bits become the digits of a number in [1, 2).
inline F fraction(U bits) { return float_of((bits >> 9) | 0x3F800000u) - 1.0f; }

}  // namespace ADAMX_ISA
}  // namespace adamx

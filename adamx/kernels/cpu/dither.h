// The thresholds of adamx/storage/dither.py: a hash that 16 neighbours share, what tells them apart, and a walk over
// steps. A vector needs one hash, which is calculated beside it, and an addition.
#pragma once

#include <algorithm>

#include "lanes.h"
#include "leaf.h"

namespace adamx {
namespace ADAMX_ISA {

constexpr uint32_t kFirst = 0x7FEB352Du, kSecond = 0x846CA68Bu;
constexpr uint32_t kGroup = 16, kSpread = 0x70005000u, kGolden = 0x9E377490u;
constexpr uint32_t kStrides[4] = {0x9E35BB67u, 0xB93F9635u, 0x9482B8A3u, 0xB44E9CFDu};

constexpr uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * kFirst;
  x = (x ^ (x >> 15)) * kSecond;
  return x ^ (x >> 16);
}

// What a step along an axis but the last one adds to the place. Axes are counted from the last one, which is 1.
constexpr uint32_t along(int axis_from_last) {
  return axis_from_last == 2 ? kGolden : (mix(static_cast<uint32_t>(axis_from_last)) | 1u) * kGroup;
}

// Where the first element of a row lies from the first one of the leaf.
ADAMX_INLINE uint32_t row_place(const Leaf& leaf, int64_t row) {
  uint32_t place = 0;
  for (int axis = leaf.rank - 2; axis > 0; --axis) {
    place += static_cast<uint32_t>(row % leaf.dims[axis]) * along(leaf.rank - axis);
    row /= leaf.dims[axis];
  }
  return leaf.rank > 1 ? place + static_cast<uint32_t>(row) * along(leaf.rank) : place;
}

ADAMX_INLINE uint32_t place(const Leaf& leaf, const Begin& at) {
  return row_place(leaf, at.row) + static_cast<uint32_t>(at.column);
}

// Calls `visit(place, i, end)` for the elements [i, end) of a tile that lie in one row, with the place of the first.
template <typename Visit>
ADAMX_INLINE void each_row(const Leaf& leaf, const Begin& begin, int64_t n, Visit visit) {
  for (int64_t i = 0, end = 0, column = begin.column; i < n; i = end, column = 0) {
    end = std::min(n, i + leaf.last() - column);
    visit(place(leaf, Begin(leaf, begin.element + i)), i, end);
  }
}

// Whether each vector of a tile lies in one group, or no place is asked for. Tiles of coded moments lie in a row or
// have rows of whole groups.
inline bool in_groups(const Leaf& leaf) {
  const bool coded = leaf.mu.coded() || leaf.nu.coded();
  const bool rows_fit = coded || leaf.rows() == 1 || leaf.last() % kGroup == 0;
  const bool asked = leaf.mu.storage != Storage::f32 || leaf.nu.storage != Storage::f32;
  return (rows_fit && (leaf.moment_salt | leaf.weight_salt) % kGroup == 0) || !(asked || leaf.dithers_weight());
}

// Whose thresholds.
enum Dithered : int { kMoments, kWeights };

template <typename T>
ADAMX_INLINE T hashed(T group) {
  const T x = (group ^ (group >> 16)) * kFirst;
  return (x ^ (x >> 15)) * kSecond;
}

// The hashes of a tile whose rows begin where groups do.
class InGroups {
 public:
  InGroups(const Leaf& leaf, const Begin& begin, int64_t n) {
    uint32_t places[kGroups];
    each_row(leaf, begin, n, [&](uint32_t first, int64_t i, int64_t end) {
      const auto group = static_cast<size_t>(i) / kGroup, groups = static_cast<size_t>(end - i + kGroup - 1) / kGroup;
      for (size_t k = 0; k < groups; ++k) places[group + k] = first + static_cast<uint32_t>(k) * kGroup;
    });
    for (const Dithered what : {kMoments, kWeights}) {
      const uint32_t salt = what == kMoments ? leaf.moment_salt : leaf.weight_salt;
      for (size_t k = 0; k * kGroup < static_cast<size_t>(n); k += kLanes) {
        store(hashes_[what] + k, hashed((load<U>(places + k) + salt) / kGroup));
      }
    }
  }
  uint32_t hash(Dithered what, int64_t i) const { return hashes_[what][static_cast<size_t>(i) / kGroup]; }

 private:
  static constexpr size_t kGroups = kTile / kGroup;
  uint32_t hashes_[2][kGroups];
};

// The places of any tile, one by one.
class OneByOne {
 public:
  OneByOne(const Leaf& leaf, const Begin& begin, int64_t n) {
    each_row(leaf, begin, n, [this](uint32_t first, int64_t i, int64_t end) {
      for (; i < end; ++i) each_[i] = first++;
    });
  }
  U each(int64_t i) const { return load<U>(each_ + i); }

 private:
  uint32_t each_[kTile + kLanes];  // a vector more, of which none is meant
};

// Of a step that asks for none.
struct Unplaced {
  Unplaced(const Leaf&, const Begin&, int64_t) {}
};

// The walk of a step.
template <Dithered what>
class Walk {
 public:
  Walk(uint32_t salt, uint32_t count) : salt_(salt) {
    for (uint32_t turn = 0; turn < 4; ++turn) {
      for (uint32_t i = 0; i < kGroup; ++i) moved_[turn][i] = i * kSpread + count * kStrides[(i + turn) % 4];
    }
    uint32_t strides[kLanes];
    for (uint32_t i = 0; i < kLanes; ++i) strides[i] = count * kStrides[i % 4];
    strides_ = load<U>(strides);
  }

  ADAMX_INLINE U thresholds(const InGroups& places, int64_t i) const {
    const uint32_t hash = places.hash(what, i);
    return load<U>(moved_[hash % 4]) + hash;
  }

  ADAMX_INLINE U thresholds(const OneByOne& places, int64_t i) const {
    const U place = places.each(i) + salt_, hash = hashed(place / kGroup);
    return hash + (place % kGroup) * kSpread + by_index((place + hash) % 4u, strides_);
  }

  ADAMX_INLINE U thresholds(const Unplaced&, int64_t) const { return U{}; }

  // What they are short of their largest number: -1 - x.
  ADAMX_INLINE U complements(const InGroups& places, int64_t i) const {
    const uint32_t hash = places.hash(what, i);
    return ~hash - load<U>(moved_[hash % 4]);
  }

  ADAMX_INLINE U complements(const Unplaced&, int64_t) const { return U{}; }

  ADAMX_INLINE U complements(const OneByOne& places, int64_t i) const { return ~thresholds(places, i); }

 private:
  uint32_t salt_;  // moved by where a shard begins
  alignas(64) uint32_t moved_[4][kGroup];
  U strides_;
};

// A threshold as a fraction of 1: its upper 23 bits become the digits of a number in [1, 2).
ADAMX_INLINE F fraction(U bits) { return float_of((bits >> 9) | 0x3F800000u) - 1.0f; }

}  // namespace ADAMX_ISA
}  // namespace adamx

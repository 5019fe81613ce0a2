// The codes of adamx/storage/int8.py, one block at a time. z is twice as large as there when it is rounded, between 2
// and 4 in place of 1 and 2: the code is then the lowest byte of the bits before the digits that it leaves out.
#pragma once

#include <cmath>

#include "dither.h"
#include "lanes.h"

namespace adamx {
namespace ADAMX_ISA {

constexpr float kRounding = 0x1p-21f;
constexpr uint32_t kOne = 0x3F800000u, kTwo = 0x40000000u;
constexpr int kDigits = 19;
constexpr uint32_t kBend = 160, kLowest = (kTwo >> kDigits) + 8;  // of v

// z - 1 of the two highest codes.
template <bool square>
constexpr float kMost = square ? 8063.0f : 14.75f;
template <bool square>
constexpr float kNext = square ? 7935.0f : 14.5f;

// What a block's elements have in common.
struct Block {
  float scale = 0, top = 0;
};

inline F decode_first(const void* codes, Block block) {
  const I code = (I)widen(load<I8>(codes));
  const U k = (U)(code < 0 ? -code : code);
  const F inner = (float_of((k << (kDigits - 1)) + kOne) - 1.0f) * block.scale;
  const F size = k == 127u ? all(block.top) : inner;
  return float_of(bits_of(size) | ((U)code & 0x80000000u));
}

inline F decode_second(const void* codes, Block block) {
  const U k = widen(load<U8>(codes));
  const U half = k << (kDigits - 1), four = half + half + kOne, five = half + ((kBend << (kDigits - 1)) + kOne);
  const F inner = (float_of(smaller(four, five)) - 1.0f) * block.scale;
  return k == 255u ? all(block.top) : inner;
}

// The two largest sizes of each lane. They compare as integers as they do as numbers, and NaN is the largest.
struct Seen {
  U top, next;
  void see(U size) {
    next = larger(next, smaller(top, size));
    top = larger(top, size);
  }
};

// The numbers of a block whose elements x have been seen. Returns the inverse of half the scale.
template <bool square>
inline float measure(const Seen& seen, const float* x, int64_t n, float* scale, float* top) {
  const Largest two = two_largest(seen.top, seen.next);
  const float most = std::fabs(two.top);
  const float tie = larger(kTiny, most * (1 - kRounding));  // what is as large stands apart; 0 does not; NaN stays
  float rest = two.next;
  if (rest >= tie) {
    Seen others{};
    for (int64_t i = 0; i < n; i += kLanes) {
      const F size = magnitude(load<F>(x + i));
      others.see(size >= tie ? U{} : bits_of(size));
    }
    rest = two_largest(others.top, others.next).top;
  }
  const float by_most = most * static_cast<float>((1 - 2.0 * kRounding) / static_cast<double>(kMost<square>));
  const float by_next = rest * static_cast<float>((1 + 1.0 * kRounding) / static_cast<double>(kNext<square>));
  const float unit = larger(2 * kTiny, smaller(by_next, by_most));  // half a unit is the least v; NaN stays
  *scale = unit;
  *top = most;
  return 2 * (1 / unit);
}

// Rounded up where the fraction exceeds the threshold that t is short of: its lower half.
inline U8 encode_first(F x, U t, F inverse) {
  const U z = smaller(bits_of(magnitude(x) * inverse + 2.0f), bits_of(all(2 * kMost<false> + 2)));
  const U k = (z + (((t << 2) & 0x3FFFFu) | 3u)) >> (kDigits - 1);
  return narrow8(x < 0.0f ? -k : k);
}

// The whole of it.
inline U8 encode_second(F x, U t, F inverse) {
  const U z = smaller(bits_of(x * inverse + 2.0f), bits_of(all(2 * kMost<true> + 2)));
  const U digits = larger(z, z + z - (kTwo + (kBend << kDigits)));
  const U k = (digits + (t >> (32 - kDigits))) >> kDigits;
  return narrow8(larger(k, smaller(bits_of(x), all(kLowest))));  // 0 is kept as 0, and nothing else is
}

}  // namespace ADAMX_ISA
}  // namespace adamx

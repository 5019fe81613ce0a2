// The codes of adamx/storage/int8.py, one block at a time. z is twice as large as there when it is rounded, between 2
// and 4 in place of 1 and 2: the code is then the lowest byte of the bits before the digits that it leaves out.
#pragma once

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

ADAMX_INLINE F decode_first(const int8_t* codes, Block block) {
  const U code = load_wide(codes), k = absolute(signed_of(code));
  const F inner = (float_of((k << (kDigits - 1)) + kOne) - 1.0f) * block.scale;
  const F size = pick(k == 127u, all(block.top), inner);
  return float_of(bits_of(size) | (code & 0x80000000u));
}

ADAMX_INLINE F decode_second(U k, Block block) {
  const U half = k << (kDigits - 1), four = half + half + kOne, five = half + ((kBend << (kDigits - 1)) + kOne);
  const F inner = (float_of(smaller(four, five)) - 1.0f) * block.scale;
  return pick(k == 255u, all(block.top), inner);
}

ADAMX_INLINE F decode_second(const uint8_t* codes, Block block) { return decode_second(load_wide(codes), block); }

// Rounded up where the fraction exceeds the threshold that t is short of: its lower half.
ADAMX_INLINE U encode_first(F x, U t, FR inverse) {
  const U z = smaller(bits_of(magnitude(x) * inverse + 2.0f), bits_of(all(2 * kMost<false> + 2)));
  const U k = (z + (((t << 2) & 0x3FFFFu) | 3u)) >> (kDigits - 1);
  return signed_like(k, x);
}

// The whole of it.
ADAMX_INLINE U encode_second(F x, U t, FR inverse) {
  const U z = smaller(bits_of(x * inverse + 2.0f), bits_of(all(2 * kMost<true> + 2)));
  const U digits = larger(z, z + z - (kTwo + (kBend << kDigits)));
  const U k = (digits + (t >> (32 - kDigits))) >> kDigits;
  return larger(k, smaller(bits_of(x), all(kLowest)));  // 0 is kept as 0, and nothing else is
}

}  // namespace ADAMX_ISA
}  // namespace adamx

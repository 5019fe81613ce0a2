// The codes of adamx/storage/int4.py. What a code stands for in a block is looked up among the sixteen numbers of the
// block.
#pragma once

#include <cmath>

#include "dither.h"
#include "int8.h"
#include "lanes.h"

namespace adamx {
namespace ADAMX_ISA {

// The levels of v, each 1.7 times the one below, from the second one on, and the fourth roots of all.
alignas(64) constexpr float kNextLevels[16] = {0x1.08ab66p-10f, 0x1.c1f02ep-10f, 0x1.7e728ep-9f, 0x1.451492p-8f,
                                               0x1.14517cp-7f,  0x1.d5bdb8p-7f,  0x1.8f47aap-6f, 0x1.53635p-5f,
                                               0x1.207ad2p-4f,  0x1.ea6a64p-4f,  0x1.a0da6ep-3f, 0x1.625344p-2f,
                                               0x1.2d2d2ep-1f,  0x1p0f,          HUGE_VALF,      HUGE_VALF};
alignas(64) constexpr float kFourths[16] = {0x1.3fb63cp-3f, 0x1.6d10cep-3f, 0x1.a0da6ep-3f, 0x1.dbfcc4p-3f,
                                            0x1.0fc14cp-2f, 0x1.364e48p-2f, 0x1.625344p-2f, 0x1.9496dap-2f,
                                            0x1.cdfbcep-2f, 0x1.07c28ap-1f, 0x1.2d2d2ep-1f, 0x1.57e6ap-1f,
                                            0x1.88afa2p-1f, 0x1.c06452p-1f, 0x1p0f,         0};
constexpr float kFourthGap = 0x1.2286ap-3f;     // to the next one, in units of it
constexpr float kLeastScale = 0x1.a4f1dp-116f;  // or the lowest level would vanish

// The levels of m over its root, and how far the next one is.
alignas(64) constexpr float kRatios[16] = {
    0, 0x1.ba539p-5f, 0x1.38c5a2p-3f, 0x1.1f4ca8p-2f, 0x1.ba539p-2f, 0x1.3515c2p-1f, 0x1.964d82p-1f, 0x1p0f, 0};
alignas(64) constexpr float kGaps[16] = {0x1.ba539p-5f,  0x1.94617ep-4f, 0x1.05d3aep-3f,
                                         0x1.360ddp-3f,  0x1.5fafe6p-3f, 0x1.84df02p-3f,
                                         0x1.a6c9f8p-3f, 0x1p0f,         0};

// Both by the four bits of a code: those of v are kept less 8, those of m have a sign.
alignas(64) constexpr float kOfSecond[16] = {0x1.53635p-5f,   0x1.207ad2p-4f,  0x1.ea6a64p-4f,  0x1.a0da6ep-3f,
                                             0x1.625344p-2f,  0x1.2d2d2ep-1f,  0x1p0f,          0,
                                             0x1.37603cp-11f, 0x1.08ab66p-10f, 0x1.c1f02ep-10f, 0x1.7e728ep-9f,
                                             0x1.451492p-8f,  0x1.14517cp-7f,  0x1.d5bdb8p-7f,  0x1.8f47aap-6f};
alignas(64) constexpr float kOfFirst[16] = {0,
                                            0x1.ba539p-5f,
                                            0x1.38c5a2p-3f,
                                            0x1.1f4ca8p-2f,
                                            0x1.ba539p-2f,
                                            0x1.3515c2p-1f,
                                            0x1.964d82p-1f,
                                            0x1p0f,
                                            0,
                                            -0x1p0f,
                                            -0x1.964d82p-1f,
                                            -0x1.3515c2p-1f,
                                            -0x1.ba539p-2f,
                                            -0x1.1f4ca8p-2f,
                                            -0x1.38c5a2p-3f,
                                            -0x1.ba539p-5f};
constexpr uint32_t kTopOfSecond = 7, kTopOfFirst = 8;
constexpr float kMostRatio = 0x1p63f;

// What the codes of a block stand for.
struct Decoded {
  alignas(64) float each[16];

  Decoded(const float* levels, float scale, float top, uint32_t top_code) {
    store(each, load<F>(levels) * all(scale));
    each[top_code] = top;
  }
  explicit Decoded(Block block) : Decoded(kOfSecond, block.scale, block.top, kTopOfSecond) {}
  explicit Decoded(HalfBlock block) : Decoded(kOfFirst, from_half(block.scale), from_half(block.top), kTopOfFirst) {}

  void take_roots() { store(each, root(load<F>(each))); }

  static float from_half(uint16_t bits) {
    const uint32_t whole = static_cast<uint32_t>(bits) << 16;
    return load_float(whole);
  }
  static float load_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }
};

// Sixteen codes from eight bytes, the first of two in the lower half, and back.
ADAMX_INLINE U load_fours(const void* data, int64_t i) {
  uint8_t codes[kLanes];
  for (int half = 0; half < 2; ++half) {
    uint32_t packed;
    std::memcpy(&packed, static_cast<const char*>(data) + i / 2 + 4 * half, sizeof packed);
    uint64_t x = packed;
    x = (x | x << 16) & 0x0000FFFF0000FFFFu;
    x = (x | x << 8) & 0x00FF00FF00FF00FFu;
    x = (x | x << 4) & 0x0F0F0F0F0F0F0F0Fu;
    std::memcpy(codes + 8 * half, &x, sizeof x);
  }
  return load_wide(codes);
}

ADAMX_INLINE void store_fours(void* data, int64_t i, U codes) {
  uint8_t packed[kLanes];  // in the first half
  store_narrow(packed, evens(codes, codes) | odds(codes, codes) << 4);
  std::memcpy(static_cast<char*>(data) + i / 2, packed, kLanes / 2);
}

// The number of the highest level of v that is not above y; 0 if all are, and of NaN. The bits of a number grow almost
// as its logarithm does: what they say is this or the one below.
ADAMX_INLINE U below(F y) {
  const F about = to_float(signed_of(bits_of(larger(y, all(0.0f))))) * 0x1.4e6822p-23f - 0x1.30d07p7f;
  const U k = bits_of(smaller(larger(about, all(0.0f)), all(14.0f)) + 0x1p23f) & 15u;
  return k - bits_of(y >= among(kNextLevels, k));
}

// Rounded so that the fourth root is right on average. The fourth power of the bar tells, but where it is close.
ADAMX_INLINE U encode_four_second(F x, U threshold, FR inverse, FR tie) {
  const F y = x * inverse;
  const U k = below(y);
  const F low = among(kFourths, k), over = fraction(threshold) * (low * kFourthGap);
  const F square = (low + over) * (low + over), bar = square * square, apart = y - bar;
  I up = apart > 0.0f;
  if (any(bar * 0x1p-20f >= magnitude(apart))) up = root(root(y)) - low > over;
  const U code = smaller(k - bits_of(up), all(14u)) ^ 8u;
  return pick(x >= tie, U{} + kTopOfSecond, code);
}

ADAMX_INLINE U encode_four_first(F x, U threshold, FR inverse, I at_top) {
  const F y = magnitude(x) * inverse;
  U k{};
  for (int level = 1; level < 8; ++level) k = k - bits_of(y >= kRatios[level]);
  const I up = y - among(kRatios, k) > fraction(threshold) * among(kGaps, k);
  const U size = smaller(k - bits_of(up), all(7u));
  return pick(at_top, U{} + kTopOfFirst, pick(x < 0.0f, U{} - size, size) & 15u);
}

}  // namespace ADAMX_ISA
}  // namespace adamx

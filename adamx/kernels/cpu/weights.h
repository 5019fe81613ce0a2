// How a weight takes its update: adamx/storage/split.py, adamx/storage/rounding.py and optax.apply_updates.
#pragma once

#include "bits.h"
#include "dither.h"
#include "formulas.h"

namespace adamx {
namespace ADAMX_ISA {

// The float32 weight: a bfloat16 number, ties away from zero, and the 16 bits that it drops.
inline float join(uint16_t upper, uint16_t lower) {
  const auto signed_lower = static_cast<uint32_t>(static_cast<int32_t>(static_cast<int16_t>(lower)));
  return float_of((static_cast<uint32_t>(upper) << 16) + signed_lower);
}

inline uint16_t upper_half(float x) {
  const uint32_t bits = bits_of(x);
  return static_cast<uint16_t>(is_nan(bits) ? 0x7FC0u : (bits + 0x8000u) >> 16);
}

// What rounded to infinity has no finite weight behind it.
inline uint16_t lower_half(float x, uint16_t upper) {
  return (upper & 0x7F80u) == 0x7F80u ? 0 : static_cast<uint16_t>(bits_of(x));
}

// x + y to bfloat16, rounded once against a threshold: what the float32 sum drops counts for the fraction as well.
inline uint16_t dithered_sum(float x, float y, uint32_t threshold) {
  const float total = x + y, part = total - x;
  const float dropped = (x - (total - part)) + (y - part);
  const uint32_t whole = bits_of(total);
  const float ulp = float_of(whole & 0x7F800000u) * 0x1p-23f;
  const float outward = (total < 0 ? -dropped : dropped) / (ulp < 0x1p-126f ? 0x1p-126f : ulp);
  const float fits = static_cast<float>(static_cast<int32_t>(whole & 0xFFFFu)) + outward;
  const uint32_t below = fits < 0 ? 1 : 0;
  const uint32_t up = fits + (below ? 65536.0f : 0.0f) > fraction(threshold) * 65536 ? 1 : 0;
  const uint32_t dithered = (whole >> 16) - below + up;
  const bool plain = total == 0 || (bits_of(dropped) & 0x7F800000u) == 0x7F800000u;
  return plain ? to_bfloat16(total) : static_cast<uint16_t>(dithered);
}

// bfloat16 moments against a threshold; a square that is not 0 does not become 0.
inline uint16_t dithered_bfloat16(float x, uint32_t threshold, bool square) {
  const uint32_t whole = bits_of(x);
  uint32_t rounded = (whole >> 16) + ((whole & 0xFFFFu) > (threshold >> 16) ? 1u : 0u);
  rounded = square && whole != 0 && rounded == 0 ? 1u : rounded;
  return static_cast<uint16_t>(is_nan(whole) ? 0x7FC0u : rounded);
}

}  // namespace ADAMX_ISA
}  // namespace adamx

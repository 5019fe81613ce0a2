// The test program's own plain scalar code of what the kernel does on vectors.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace adamx {
namespace scalar {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// adamx/storage/dither.py.
inline uint32_t threshold(uint32_t place, uint32_t step) {
  constexpr uint32_t strides[] = {0x9E35BB67u, 0xB93F9635u, 0x9482B8A3u, 0xB44E9CFDu};
  uint32_t hash = place / 16;
  hash = (hash ^ (hash >> 16)) * 0x7FEB352Du;
  hash = (hash ^ (hash >> 15)) * 0x846CA68Bu;
  return hash + place % 16 * 0x70005000u + step * strides[(place + hash) % 4];
}

inline double fraction(uint32_t threshold) { return std::ldexp(static_cast<double>(threshold >> 9), -23); }

// A weight of 24 bits: `split` and `join` of adamx/storage/split.py, `sum_to_24_bits` of adamx/storage/rounding.py.
struct Narrow {
  uint16_t upper;
  uint8_t lower;
};

inline float joined(Narrow weight) {
  const uint32_t whole = static_cast<uint32_t>(weight.upper) << 16, size = whole & 0x7FFFFFFFu;
  const int32_t rest = static_cast<int8_t>(weight.lower) * 256;
  const bool stale = (size == 0 && rest < 0) || size >= 0x7F800000u;
  return float_of(whole + (stale ? 0u : static_cast<uint32_t>(rest)));
}

inline Narrow split(uint32_t bits) {
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {0x7FC0, 0};
  const uint32_t upper = (bits + 0x8000u) >> 16;
  return {static_cast<uint16_t>(upper), static_cast<uint8_t>((upper & 0x7F80u) == 0x7F80u ? 0 : bits >> 8)};
}

// Rounded once, up in size where the part of a unit exceeds the threshold. Updates are normal numbers, and so are
// weights that are not 0.
inline Narrow moved(Narrow weight, float update, uint32_t threshold) {
  const float start = joined(weight), total = start + update;
  if (!std::isfinite(total) || total == 0) return split(bits_of(total));
  const double size = std::abs(static_cast<double>(total)), unit = std::ldexp(1, std::ilogb(total) - 23);
  const double exact = static_cast<double>(start) + static_cast<double>(update);
  const double beyond = (total < 0 ? -exact : exact) - size;
  const uint32_t bits = bits_of(total), last = bits & 0xFFu;
  const auto fits = static_cast<double>(static_cast<float>(last + beyond / unit));  // in units in its last place
  const bool below = fits < 0;
  const bool up = fits + (below ? 256 : 0) > 256 * fraction(threshold);
  return split((bits & ~0xFFu) + ((up ? 1u : 0u) - (below ? 1u : 0u)) * 256u);
}

}  // namespace scalar
}  // namespace adamx

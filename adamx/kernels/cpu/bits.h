// Floating numbers as integers, and half precision by integer operations that any compiler can vectorize.
#pragma once

#include <cstdint>
#include <cstring>

namespace adamx {
namespace ADAMX_ISA {

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

inline bool is_nan(uint32_t bits) { return (bits & 0x7FFFFFFFu) > 0x7F800000u; }

inline float from_bfloat16(uint16_t x) { return float_of(static_cast<uint32_t>(x) << 16); }

// To nearest, ties to even.
inline uint16_t to_bfloat16(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(is_nan(bits) ? 0x7FC0u : rounded);
}

inline float from_float16(uint16_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000u) << 16, size = x & 0x7FFFu;
  const uint32_t normal = (size << 13) + (112u << 23);
  const uint32_t special = (size << 13) | 0x7F800000u;
  const uint32_t subnormal = bits_of(static_cast<float>(static_cast<int32_t>(size)) * 0x1p-24f);
  const uint32_t finite = size < 0x0400u ? subnormal : normal;
  return float_of(sign | (size >= 0x7C00u ? special : finite));
}

// To nearest, ties to even.
inline uint16_t to_float16(float x) {
  const uint32_t bits = bits_of(x), sign = (bits >> 16) & 0x8000u, size = bits & 0x7FFFFFFFu;
  const uint32_t normal = (size - (112u << 23) + 0xFFFu + ((size >> 13) & 1u)) >> 13;
  const uint32_t subnormal = bits_of(float_of(size) + 0.5f) - 0x3F000000u;
  const uint32_t finite = size < 0x38800000u ? subnormal : normal;
  const uint32_t special = is_nan(bits) ? 0x7E00u : 0x7C00u;
  return static_cast<uint16_t>(sign | (size >= 0x477FF000u ? special : finite));
}

}  // namespace ADAMX_ISA
}  // namespace adamx

// The test program's own plain scalar code of what the kernel does on vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

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

// Blocks of adamx/storage/int4.py: codes from -8 to 7, the scale and the largest.
struct FourBlock {
  std::vector<int> codes;
  float scale, top;
};

constexpr float kRoundings = 0x1p-21f;

inline float level_of_v(int k) { return static_cast<float>(std::pow(1.7, k - 14)); }
inline float level_of_m(int k) { return static_cast<float>(std::pow(k / 7.0, 1.5)); }

inline float bfloat16(float x, uint32_t threshold) {  // threshold: of 2^16
  const uint32_t bits = bits_of(x);
  return float_of((bits & 0xFFFF0000u) + ((bits & 0xFFFFu) > threshold ? 0x10000u : 0u));
}

inline float decoded_v(const FourBlock& block, size_t i) {
  return block.codes[i] == 7 ? block.top : level_of_v(block.codes[i] + 8) * block.scale;
}

inline float decoded_m(const FourBlock& block, size_t i) {
  if (block.codes[i] == -8) return block.top;
  const float size = level_of_m(std::abs(block.codes[i])) * block.scale;
  return block.codes[i] < 0 ? -size : size;
}

inline FourBlock encoded_v(const std::vector<float>& v, const std::vector<uint32_t>& thresholds) {
  FourBlock block{{}, 0, *std::max_element(v.begin(), v.end())};
  const float tie = block.top * (1 - kRoundings);
  float rest = 0;
  for (const float x : v) rest = x >= tie ? rest : std::max(rest, x);
  const auto least = static_cast<float>(0x1p-126 / std::pow(1.7, -14));
  if (rest != 0) block.scale = std::max(rest * (1 + kRoundings), least);
  for (size_t i = 0; i < v.size(); ++i) {
    const float y = block.scale == 0 ? 0 : v[i] * (1 / block.scale);
    int k = 0;
    while (k < 14 && y >= level_of_v(k + 1)) ++k;
    const auto low = static_cast<float>(std::pow(1.7, (k - 14) / 4.0));
    const float gap = low * static_cast<float>(std::pow(1.7, .25) - 1);
    k += std::sqrt(std::sqrt(y)) - low > static_cast<float>(fraction(thresholds[i])) * gap;
    block.codes.push_back(v[i] >= tie ? 7 : std::min(k, 14) - 8);
  }
  return block;
}

// x is m over the root of the v that is kept.
inline FourBlock encoded_m(const std::vector<float>& x, const std::vector<uint32_t>& thresholds) {
  const float high = *std::max_element(x.begin(), x.end()), low = *std::min_element(x.begin(), x.end());
  const float top = high >= -low ? high : low, bound = top * (1 - kRoundings);
  const auto reaches = [bound](float one) { return bound < 0 ? one <= bound : one >= bound; };
  float rest = 0;
  for (const float one : x) rest = reaches(one) ? rest : std::max(rest, std::abs(one));
  const uint32_t bits = bits_of(rest == 0 ? 0 : std::max(rest, 0x1p-126f));
  FourBlock block{{}, float_of((bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u), 0};
  for (size_t i = 0; i < x.size(); ++i) {
    const float y = block.scale == 0 ? 0 : std::abs(x[i]) * (1 / block.scale);
    int k = 0;
    while (k < 7 && y >= level_of_m(k + 1)) ++k;
    const float gap = k == 7 ? 1 : static_cast<float>(std::pow((k + 1) / 7.0, 1.5) - std::pow(k / 7.0, 1.5));
    k = std::min(7, k + (y - level_of_m(k) > static_cast<float>(fraction(thresholds[i] << 16)) * gap));
    block.codes.push_back(reaches(x[i]) ? -8 : x[i] < 0 ? -k : k);
  }
  block.top = bfloat16(top, thresholds[0] & 0xFFFFu);
  return block;
}

}  // namespace scalar
}  // namespace adamx

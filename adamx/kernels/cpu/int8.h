// The codes of adamx/storage/int8.py, one block at a time: m = ± k² scale, v = k⁴ scale, the largest apart.
#pragma once

#include "bits.h"
#include "dither.h"

namespace adamx {
namespace ADAMX_ISA {

template <bool square>
struct Codes;

template <>
struct Codes<false> {
  using Code = int8_t;
  static constexpr int32_t top = 127, lowest = 0;
  static float power(float k) { return k * k; }
  static float root(float y) { return __builtin_sqrtf(y); }
};

template <>
struct Codes<true> {
  using Code = uint8_t;
  static constexpr int32_t top = 255, lowest = 9;
  static float power(float k) { return (k * k) * (k * k); }  // k² is exact
  static float root(float y) { return __builtin_sqrtf(__builtin_sqrtf(y)); }
};

template <bool square>
inline void decode_block(const void* codes, float scale, float top, int32_t n, float* __restrict out) {
  using C = Codes<square>;
  const auto* __restrict in = static_cast<const typename C::Code*>(codes);
  for (int32_t i = 0; i < n; ++i) {
    const int32_t code = in[i], k = code < 0 ? -code : code;
    const float inner = C::power(static_cast<float>(k)) * scale;
    const float size = k == C::top ? top : inner;
    out[i] = code < 0 ? -size : size;
  }
}

// As integers, sizes compare as they do as numbers, and NaN is larger than all.
template <bool square>
inline void encode_block(const float* __restrict x, const uint32_t* __restrict bits, int32_t n, void* codes,
                         float* scale_out, float* top_out) {
  using C = Codes<square>;
  auto* __restrict out = static_cast<typename C::Code*>(codes);
  int32_t largest = 0, second = 0;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t size = static_cast<int32_t>(bits_of(x[i]) & 0x7FFFFFFFu);
    largest = size > largest ? size : largest;
  }
  const float top = float_of(static_cast<uint32_t>(largest)), tie = top * (1 - 0x1p-20f);
  for (int32_t i = 0; i < n; ++i) {
    const uint32_t bits_here = bits_of(x[i]) & 0x7FFFFFFFu;
    const int32_t size = float_of(bits_here) >= tie ? 0 : static_cast<int32_t>(bits_here);
    second = size > second ? size : second;
  }
  constexpr float highest = C::top - 1;
  const float unit = static_cast<float>(1 / (square ? double{highest} * highest * highest * highest
                                                    : double{highest} * highest));
  const float shrunk = float_of(static_cast<uint32_t>(second)) * unit;
  const float scale = shrunk < 0x1p-126f ? 0x1p-126f : shrunk;  // NaN stays
  for (int32_t i = 0; i < n; ++i) {
    const float size = float_of(bits_of(x[i]) & 0x7FFFFFFFu), y = size / scale, root = C::root(y);
    float k = root < highest ? root : (root == root ? highest : 0.0f);
    k = static_cast<float>(static_cast<int32_t>(k));
    k = C::power(k) > y ? k - 1 : k;
    k = C::power(k + 1) <= y ? k + 1 : k;
    const float low = C::power(k), high = C::power(k + 1);
    k = y - low > fraction(bits[i]) * (high - low) ? k + 1 : k;
    k = k < highest ? k : highest;
    k = k > C::lowest ? k : static_cast<float>(C::lowest);
    const int32_t code = size >= tie ? C::top : static_cast<int32_t>(k);
    out[i] = static_cast<typename C::Code>(x[i] < 0 ? -code : x[i] == 0 ? 0 : code);
  }
  *scale_out = scale;
  *top_out = top;
}

}  // namespace ADAMX_ISA
}  // namespace adamx

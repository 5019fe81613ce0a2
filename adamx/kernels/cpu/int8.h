// The codes of adamx/storage/int8.py, one block at a time: m = ± k² scale, v = k⁴ scale, the largest apart.
#pragma once

#include "dither.h"
#include "lanes.h"

namespace adamx {
namespace ADAMX_ISA {

constexpr float kTie = 1 - 0x1p-20f;

// What a block's elements have in common.
struct Block {
  float scale = 0, top = 0;
  float inverse() const { return 1 / scale; }
  float tie() const { return top * kTie < kTiny ? kTiny : top * kTie; }  // what is as large stands apart; 0 does not
};

inline F fourth_power(F k) { return (k * k) * (k * k); }  // k² is exact

inline F decode_first(const void* codes, Block block) {
  const I8 code = load<I8>(codes);
  const F k = to_float(widen(code)), size = magnitude(k);
  const F inner = k * size * block.scale;
  const U sign = bits_of(k) & 0x80000000u;
  return size == 127.0f ? float_of(bits_of(all(block.top)) | sign) : inner;
}

inline F decode_second(const void* codes, Block block) {
  const F k = to_float(widen(load<U8>(codes)));
  return k == 255.0f ? all(block.top) : fourth_power(k) * block.scale;
}

// Sizes compare as integers as they do as numbers, and NaN is the largest.
template <bool square>
inline Block measure(const float* x, int64_t n) {
  U top{}, second{};
  for (int64_t i = 0; i < n; i += kLanes) top = larger(bits_of(magnitude(load<F>(x + i))), top);
  Block block;
  const uint32_t largest_bits = largest(top);
  std::memcpy(&block.top, &largest_bits, 4);
  const float tie = block.tie();
  for (int64_t i = 0; i < n; i += kLanes) {
    const F size = magnitude(load<F>(x + i));
    second = larger(size >= tie ? U{} : bits_of(size), second);
  }
  const uint32_t second_bits = largest(second);
  float rest;
  std::memcpy(&rest, &second_bits, 4);
  constexpr double highest = square ? 254.0 * 254 * 254 * 254 : 126.0 * 126;
  const float shrunk = rest * static_cast<float>(1 / highest);
  block.scale = shrunk < kTiny ? kTiny : shrunk;  // NaN stays
  return block;
}

// The code is k or k + 1, whichever way the fraction of y between their powers compares with the threshold t. As the
// fraction of the root differs from it by less than 1/4, the integer nearest to root - t is the code or the one below:
// a root to a few digits first, then one exact comparison decide. They are two steps so that a loop can work on the
// second one for a vector beside the first one for the next: in one chain they would wait for each other.
struct Guess {
  F y, t, k;
};

inline Guess guess_first(F x, F t, F inverse) {
  const F y = magnitude(x) * inverse, bounded = larger(y, all(0x1p-40f));
  return {y, t, nearest(larger(multiply_add(bounded, inverse_root(bounded), -t), all(0.0f)))};
}

inline U8 encode_first(const Guess& guess, F x, F tie) {
  F k = guess.k;
  k = guess.y - k * k > guess.t * (k + k + 1.0f) ? k + 1.0f : k;
  k = magnitude(x) >= tie ? all(127.0f) : smaller(k, all(126.0f));
  return narrow8(to_integer(float_of(bits_of(k) | (bits_of(x) & 0x80000000u))));
}

inline Guess guess_second(F x, F t, F inverse) {
  const F y = x * inverse, bounded = larger(y, all(0x1p-40f)), square_root = bounded * inverse_root(bounded);
  return {y, t, nearest(multiply_add(square_root, inverse_root(square_root), -t))};
}

inline U8 encode_second(const Guess& guess, F x, F tie) {
  F k = guess.k;
  const F low = fourth_power(k), high = fourth_power(k + 1.0f);
  k = guess.y - low > guess.t * (high - low) ? k + 1.0f : k;
  k = x >= tie ? all(255.0f) : smaller(k, all(254.0f));
  const I lowest = x == 0.0f ? I{} : I{} + 9, code = (I)to_integer(k);  // k may be -1
  return narrow8((U)(code > lowest ? code : lowest));
}

}  // namespace ADAMX_ISA
}  // namespace adamx

// Moments held as floating numbers: adamx/storage/floats.py.
#pragma once

#include "dither.h"
#include "lanes.h"

namespace adamx {
namespace ADAMX_ISA {

inline F load_moment(const Moment& moment, int64_t i) {
  if (moment.storage == Storage::f32) return load<F>(static_cast<const float*>(moment.data) + i);
  return from_bfloat16(load<U16>(static_cast<const uint16_t*>(moment.data) + i));
}

// Up where the fraction that does not fit exceeds a threshold that t is short of, below 2^16; NaN stays NaN.
inline U dithered_bfloat16(F x, U t) {
  const U rounded = (bits_of(x) + t) >> 16;
  return is_nan(x) ? all(0x7FC0u) : rounded;
}

template <bool square>
inline void store_moment(const Moment& moment, int64_t i, F x, U t) {
  if (moment.storage == Storage::f32) return store(static_cast<float*>(moment.data) + i, x);
  auto* to = static_cast<uint16_t*>(moment.data) + i;
  if (moment.storage == Storage::bf16_nearest) return store(to, narrow16(to_bfloat16(x)));
  U rounded = dithered_bfloat16(x, square ? t >> 16 : t & 0xFFFFu);
  if constexpr (square) rounded = larger(rounded, smaller(bits_of(x), all(1u)));  // what is not 0 does not become 0
  store(to, narrow16(rounded));
}

}  // namespace ADAMX_ISA
}  // namespace adamx

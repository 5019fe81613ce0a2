// Moments held as floating numbers: adamx/storage/floats.py.
#pragma once

#include "dither.h"
#include "lanes.h"

namespace adamx {
namespace ADAMX_ISA {

ADAMX_INLINE F load_moment(const Moment& moment, int64_t i) {
  if (moment.storage == Storage::f32) return load<F>(static_cast<const float*>(moment.data) + i);
  return from_bfloat16(load_wide(static_cast<const uint16_t*>(moment.data) + i));
}

// Up where the fraction that does not fit exceeds a threshold that t is short of; NaN stays NaN.
template <bool square>
ADAMX_INLINE U dithered_bfloat16(F x, U t) {
  if constexpr (square) return (smaller(bits_of(x), all(kNaN << 16)) + (t >> 16)) >> 16;
  return pick(is_nan(x), all(kNaN), (bits_of(x) + (t & 0xFFFFu)) >> 16);
}

template <bool square>
ADAMX_INLINE void store_moment(const Moment& moment, int64_t i, F x, U t) {
  if (moment.storage == Storage::f32) return store(static_cast<float*>(moment.data) + i, x);
  auto* to = static_cast<uint16_t*>(moment.data) + i;
  if (moment.storage == Storage::bf16_nearest) return store_narrow(to, to_bfloat16(x));
  U rounded = dithered_bfloat16<square>(x, t);
  if constexpr (square) rounded = larger(rounded, smaller(bits_of(x), all(1u)));  // what is not 0 does not become 0
  store_narrow(to, rounded);
}

}  // namespace ADAMX_ISA
}  // namespace adamx

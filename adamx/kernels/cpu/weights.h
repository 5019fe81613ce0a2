// How a weight takes its update: adamx/storage/split.py, adamx/storage/rounding.py and optax.apply_updates.
#pragma once

#include "dither.h"
#include "formulas.h"
#include "squares.h"

namespace adamx {
namespace ADAMX_ISA {

template <typename T>
ADAMX_INLINE T* at(void* data, int64_t i) {
  return static_cast<T*>(data) + i;
}

// Half precision or float32 as float32.
ADAMX_INLINE F as_float32(Type type, const void* data, int64_t i) {
  if (type == Type::f32) return load<F>(static_cast<const float*>(data) + i);
  const U half = load_wide(static_cast<const uint16_t*>(data) + i);
  return type == Type::bf16 ? from_bfloat16(half) : from_float16(half);
}

// The float32 weight: a bfloat16 number, ties away from zero, and the 16 bits that it drops, read with a sign. Bits
// that lead out of the numbers around it, from 0 downwards or from infinity, were left by another parameter.
ADAMX_INLINE F join(U whole, I rest) {
  const U size = whole & 0x7FFFu;
  const I beside_zero = pick(rest < 0, I{}, rest);
  const I fitting = pick(size == 0u, beside_zero, rest);
  return float_of((whole << 16) + bits_of(pick(size >= 0x7F80u, I{}, fitting)));
}

// The float32 weight that the step starts from; the parameter itself where something else has set it since.
ADAMX_INLINE F started(const Leaf& leaf, int64_t i) {
  if (leaf.weights == Weights::narrow) {
    return join(load_wide(at<uint16_t>(leaf.weight, i)), signed_of(load_wide(at<int8_t>(leaf.remainder, i)) << 8));
  }
  if (leaf.weights != Weights::master) return as_float32(leaf.weight_type, leaf.weight, i);
  if (leaf.weight_type == Type::f16) {
    const F kept = load<F>(at<float>(leaf.remainder, i));
    const U half = load_wide(at<uint16_t>(leaf.weight, i));
    return pick(to_float16(kept) == half, kept, from_float16(half));
  }
  return join(load_wide(at<uint16_t>(leaf.weight, i)), signed_of(load_wide(at<int16_t>(leaf.remainder, i))));
}

// The bits of bfloat16 and those behind them, of which each number has so many. What rounds to infinity has no finite
// weight behind it.
template <int behind, typename T>
ADAMX_INLINE void split(U bits, uint16_t* upper, T* lower) {
  const U rounded = (bits + (1u << (behind - 1))) >> behind;
  store_narrow(upper, rounded);
  store_narrow(lower, pick((rounded & 0x7F80u) == 0x7F80u, U{}, bits & ((1u << behind) - 1u)));
}

// x + y without so many of its last bits, rounded once against a threshold: what the float32 sum drops counts for the
// fraction as well.
template <int drop>
ADAMX_INLINE U dithered_sum(F x, F y, U threshold) {
  constexpr float parts = 1 << drop;
  const F total = x + y, part = total - x;
  const F dropped = (x - (total - part)) + (y - part);  // Knuth's two-sum: exact
  const U whole = bits_of(total);
  const F unit = larger(float_of(whole & 0x7F800000u) * 0x1p-23f, all(kTiny));
  const F per_unit = float_of(0x7F000000u - bits_of(unit));  // its inverse, a power of two as well
  const F outward = float_of(bits_of(dropped) ^ (whole & 0x80000000u)) * per_unit;
  const U last = whole & ((1u << drop) - 1u), kept = whole >> drop;
  const F fits = to_float(signed_of(last)) + outward;  // in units in the last place of the float32 sum
  const F bar = fraction(threshold) * parts;
  const U below = pick(fits < 0.0f, kept - 1u, kept);
  const F within_step = pick(fits < 0.0f, fits + parts, fits);
  const U dithered = pick(within_step > bar, below + 1u, below);
  const U finite = pick((bits_of(dropped) & 0x7F800000u) == 0x7F800000u, without<drop>(total), dithered);
  return pick(total == 0.0f, kept, finite);
}

// What the step averages: the gradient, clipped, say.
ADAMX_INLINE F gradient(const Rule& rule, const Leaf& leaf, int64_t i) {
  return rule.factor * as_float32(leaf.gradient_type, leaf.gradient, i);
}

// What the weight moves by. One sum of the three, so that a decay too small to move the weight alone still counts.
ADAMX_INLINE F update(const Leaf& leaf, const Rule& rule, F start, F direction) {
  const F scaled = rule.scale * direction;
  if (leaf.decays == Decay::nowhere) return scaled;
  const F both = multiply_add(rule.decay, start, scaled);
  if (leaf.decays == Decay::everywhere) return both;
  const F decay = rule.decay * start;
  return pick(((decay < 0.0f) & (scaled > 0.0f)) | ((decay > 0.0f) & (scaled < 0.0f)), scaled, both);
}

template <typename Places, typename Norms>
ADAMX_INLINE void land(const Leaf& leaf, const Rule& rule, int64_t i, F start, F direction, const Walk<kWeights>& walk,
                       const Places& places, [[maybe_unused]] Norms* norms) {
  const F moved = leaf.decays == Decay::nowhere ? multiply_add(rule.scale, direction, start)
                                                : start + update(leaf, rule, start, direction);
  if constexpr (Norms::kAsked) {
    norms->see(Of::gradient, as_float32(leaf.gradient_type, leaf.gradient, i), i);
    norms->see(Of::update, update(leaf, rule, start, direction), i);
  }
  if (leaf.weight_type == Type::f32) {
    store(at<float>(leaf.weight, i), moved);
  } else if (leaf.weight_type == Type::f16) {
    if (leaf.weights == Weights::master) store(at<float>(leaf.remainder, i), moved);
    store_narrow(at<uint16_t>(leaf.weight, i), to_float16(moved));
  } else if (leaf.weights == Weights::master) {
    split<16>(pick(is_nan(moved), all(kNaN << 16), bits_of(moved)), at<uint16_t>(leaf.weight, i),
              at<uint16_t>(leaf.remainder, i));
  } else if (leaf.weights == Weights::stochastic) {
    store_narrow(at<uint16_t>(leaf.weight, i),
                 dithered_sum<16>(start, update(leaf, rule, start, direction), walk.thresholds(places, i)));
  } else if (leaf.weights == Weights::narrow) {
    split<8>(dithered_sum<8>(start, update(leaf, rule, start, direction), walk.thresholds(places, i)),
             at<uint16_t>(leaf.weight, i), at<uint8_t>(leaf.remainder, i));
  } else {
    store_narrow(at<uint16_t>(leaf.weight, i), to_bfloat16(moved));
  }
  if constexpr (Norms::kAsked) {
    norms->see(Of::weight, leaf.weights == Weights::master ? moved : started(leaf, i), i);
  }
}

}  // namespace ADAMX_ISA
}  // namespace adamx

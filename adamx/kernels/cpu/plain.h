// A tile whose moments are not coded: one pass.
#pragma once

#include "constants.h"
#include "floats.h"
#include "weights.h"

namespace adamx {
namespace ADAMX_ISA {

// Lines 9 to 12 of Algorithm 1, with decoupled decay.
inline void land(const Constants& c, const Leaf& leaf, int64_t i, F m, F v, F g, F start, U place) {
  F u = direction(c.rule, m, v, g);
  if (leaf.decays) u = multiply_add(c.rule.decay, start, u);
  land(leaf, c.rule, i, start, u, c.weights, place);
}

[[gnu::always_inline]] inline void plain(const Constants& c, const Leaf& leaf, const Places& places, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const F g = widened(leaf.gradient_type, leaf.gradient, i), start = started(leaf, i);
    const F m = first_moment(c.rule, load_moment(leaf.mu, i), g);
    const F v = second_moment(c.rule, load_moment(leaf.nu, i), g);
    const U place = places.at(i), bits = c.dithered ? c.moments.thresholds(place) : U{};
    store_moment<false>(leaf.mu, i, m, bits);
    store_moment<true>(leaf.nu, i, v, bits);
    land(c, leaf, i, m, v, g, start, place);
  }
}

}  // namespace ADAMX_ISA
}  // namespace adamx

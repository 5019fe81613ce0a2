// A tile whose moments are not coded: one pass.
#pragma once

#include "constants.h"
#include "fetch.h"
#include "floats.h"
#include "view.h"
#include "weights.h"

namespace adamx {
namespace ADAMX_ISA {

struct Averages {
  F m, v;
};

// Lines 7 and 8 of Algorithm 1, and what is kept of them.
template <typename Places>
ADAMX_INLINE Averages average(const Constants& c, const Leaf& leaf, const Places& places, int64_t i) {
  const F g = gradient(c.rule, leaf, i);
  const F m = bounded_first(c.rule, first_average(c.rule, load_moment(leaf.mu, i), g));
  const F v = bounded_second(c.rule, second_average(c.rule, load_moment(leaf.nu, i), g));
  const U short_of = c.dithered ? c.moments.complements(places, i) : U{};
  store_moment<false>(leaf.mu, i, m, short_of);
  store_moment<true>(leaf.nu, i, v, short_of);
  return {m, v};
}

// Lines 9 to 12, with decoupled decay.
template <typename Places, typename Norms>
ADAMX_INLINE void land(const Constants& c, const Leaf& leaf, int64_t i, Averages of, const Places& places,
                       Norms* norms) {
  const F start = started(leaf, i), u = direction(c.rule, of.m, of.v, gradient(c.rule, leaf, i));
  land(leaf, c.rule, i, start, u, c.weights, places, norms);
}

ADAMX_INLINE void fetch_all(const Leaf& leaf, int64_t i) {
  fetch(leaf.gradient, width(leaf.gradient_type), i);
  fetch(leaf.weight, width(leaf.weight_type), i);
  if (leaf.weights == Weights::master || leaf.weights == Weights::narrow) {
    fetch(leaf.remainder, leaf.remainder_width(), i);
  }
  fetch(leaf.mu.data, leaf.mu.halves() / 2, i);
  fetch(leaf.nu.data, leaf.nu.halves() / 2, i);
}

// Each vector's averages beside the division of the one before, which would keep it waiting.
template <typename Places, typename Norms>
ADAMX_INLINE void plain(const Constants& c, const Leaf& leaf, const Places& places, int64_t n, Norms* norms) {
  Averages next = average(c, leaf, places, 0);
  int64_t i = 0;
  for (; i + kLanes < n; i += kLanes) {
    const Averages here = next;
    fetch_all(leaf, i + kAhead);
    next = average(c, leaf, places, i + kLanes);
    land(c, leaf, i, here, places, norms);
  }
  land(c, leaf, i, next, places, norms);
}

}  // namespace ADAMX_ISA
}  // namespace adamx

// The two numbers of each block of a tile: what its elements have in common when they are coded.
#pragma once

#include <algorithm>

#include "formulas.h"
#include "int8.h"
#include "leaf.h"

namespace adamx {
namespace ADAMX_ISA {

// The two largest sizes of each lane. They compare as integers as they do as numbers, and NaN is the largest.
struct Seen {
  U top, next;
  ADAMX_INLINE void see(U size) {
    next = larger(next, smaller(top, size));
    top = larger(top, size);
  }
};

// A moment between its old codes and its new ones.
struct Between {
  static constexpr int64_t kBlocks = kTile / kLanes;
  alignas(64) float x[kTile];
  Seen seen[kBlocks];
  alignas(64) float inverse[kBlocks];  // of half the new scales
};

// Of each two neighbouring lanes the two largest: those of a, then those of b.
ADAMX_INLINE Seen halved(const Seen& a, const Seen& b) {
  const U even = evens(a.top, b.top), odd = odds(a.top, b.top);
  return {larger(even, odd), larger(smaller(even, odd), larger(evens(a.next, b.next), odds(a.next, b.next)))};
}

// Of n blocks the two largest, each block's in kLanes / n lanes.
template <int n>
ADAMX_INLINE Seen across(const Seen* blocks) {
  if constexpr (n == 1) return *blocks;
  if constexpr (n > 1) return halved(across<n / 2>(blocks), across<n / 2>(blocks + n / 2));
}

// The largest element of a block in each lane, and the largest of those that do not stand apart with it.
struct Measured {
  F top, rest;
};

// From there on an element is as large as the largest and stands apart with it; 0 does not; NaN stays.
template <typename V>
ADAMX_INLINE V tied(V top) {
  return larger(all(kTiny), top * (1 - kRounding));
}

// The unit of codes in blocks; half of it is the least v.
template <bool square>
ADAMX_INLINE F unit(const Measured& of) {
  const F by_top = of.top * static_cast<float>((1 - 2.0 * kRounding) / static_cast<double>(kMost<square>));
  const F by_rest = of.rest * static_cast<float>((1 + 1.0 * kRounding) / static_cast<double>(kNext<square>));
  return larger(all(2 * kTiny), smaller(by_rest, by_top));  // NaN stays
}

template <bool square>
ADAMX_INLINE F bounded(const Rule& rule, F x) {
  return square ? bounded_second(rule, x) : bounded_first(rule, x);
}

// Looks at a block again of which an element is beyond its bounds or several are the largest: few are, so that no
// element is asked in the loop that averages.
template <bool square>
void see_again(const Rule& rule, float* x, int64_t n, float* top, float* rest) {
  U most{};
  for (int64_t i = 0; i < n; i += kLanes) {
    const F inside = bounded<square>(rule, load<F>(x + i));
    store(x + i, inside);
    most = larger(most, bits_of(magnitude(inside)));
  }
  *top = largest(most);
  const FR tie = tied(all(*top));
  U below{};
  for (int64_t i = 0; i < n; i += kLanes) {
    const F size = magnitude(load<F>(x + i));
    below = larger(below, pick(size >= tie, U{}, bits_of(size)));
  }
  *rest = largest(below);
}

// The numbers of the blocks, one block a lane.
template <bool square>
void measure_blocks(const Rule& rule, const Moment& moment, int64_t n, Between* between) {
  const int64_t blocks = (n + moment.block - 1) / moment.block;
  const UR bound = bits_of(square ? rule.largest : rule.limit);
  for (int64_t first = 0; first < blocks; first += kLanes) {
    Seen* seen = between->seen + first;
    const int64_t here = std::min<int64_t>(kLanes, blocks - first);
    for (int64_t k = here; k % (kLanes / 2) != 0; ++k) seen[k] = Seen{};
    const Seen two = here > kLanes / 2 ? across<kLanes>(seen) : halved(across<kLanes / 2>(seen), Seen{});
    Measured of{float_of(two.top), float_of(two.next)};
    const I again = (two.top > bound) | (of.rest >= tied(of.top));
    if (any(again)) {
      float top[kLanes], rest[kLanes];
      uint32_t asked[kLanes];
      store(top, of.top);
      store(rest, of.rest);
      store(asked, bits_of(again));
      for (int64_t k = 0, i = first * moment.block; k < here; ++k, i += moment.block) {
        if (asked[k] != 0) see_again<square>(rule, between->x + i, std::min(moment.block, n - i), top + k, rest + k);
      }
      of = {load<F>(top), load<F>(rest)};
    }
    const F scale = unit<square>(of);
    float scales[kLanes], tops[kLanes];
    store(scales, scale);
    store(tops, of.top);
    for (int64_t k = 0; k < here; ++k) moment.blocks[first + k] = {scales[k], tops[k]};
    store(between->inverse + first, 2.0f * (1.0f / scale));
  }
}

}  // namespace ADAMX_ISA
}  // namespace adamx

// A tile of which a moment is coded in int4: averages; weights; v as it is kept; then m over the root of that v.
#pragma once

#include <algorithm>

#include "int4.h"
#include "measure.h"
#include "plain.h"
#include "view.h"

namespace adamx {
namespace ADAMX_ISA {

// Moments between their old codes and their new ones, and the root of v as it is kept.
struct Fresh {
  alignas(64) float m[kTile], v[kTile], root[kTile];
};

// Calls `visit(block, begin, end)` for the blocks of a moment in a tile of n elements; what is not coded is one.
template <typename Visit>
ADAMX_INLINE void each_block(const Moment& moment, int64_t n, Visit visit) {
  const int64_t size = moment.coded() ? moment.block : kTile;
  for (int64_t begin = 0; begin < n; begin += size) visit(begin / size, begin, std::min(begin + size, n));
}

// Lines 7 and 8 of Algorithm 1. What lies behind the end of the tile is 0.
ADAMX_INLINE void average_fours(const Constants& c, const Leaf& leaf, int64_t n, Fresh* fresh) {
  each_block(leaf.nu, n, [&](int64_t block, int64_t begin, int64_t end) {
    const bool in_four = leaf.nu.storage == Storage::int4, in_eight = leaf.nu.storage == Storage::int8;
    const Block numbers = leaf.nu.coded() ? leaf.nu.blocks[block] : Block{};
    const Decoded decoded(numbers);
    Decoded roots = decoded;
    roots.take_roots();
    for (int64_t i = begin; i < end; i += kLanes) {
      F v;
      if (in_four) {
        const U code = load_fours(leaf.nu.data, i);
        v = among(decoded.each, code);
        store(fresh->root + i, among(roots.each, code));
      } else {
        v = in_eight ? decode_second(at<uint8_t>(leaf.nu.data, i), numbers) : load_moment(leaf.nu, i);
        store(fresh->root + i, root(v));
      }
      const F g = gradient(c.rule, leaf, i);
      store(fresh->v + i, bounded_second(c.rule, second_average(c.rule, v, g)));
    }
  });
  each_block(leaf.mu, n, [&](int64_t block, int64_t begin, int64_t end) {
    const bool in_four = leaf.mu.storage == Storage::int4, in_eight = leaf.mu.storage == Storage::int8;
    const Decoded decoded(in_four ? leaf.mu.half_blocks[block] : HalfBlock{});
    const Block numbers = in_eight ? leaf.mu.blocks[block] : Block{};
    for (int64_t i = begin; i < end; i += kLanes) {
      F m;
      if (in_four) {
        m = among(decoded.each, load_fours(leaf.mu.data, i)) * load<F>(fresh->root + i);
      } else {
        m = in_eight ? decode_first(at<int8_t>(leaf.mu.data, i), numbers) : load_moment(leaf.mu, i);
      }
      const F g = gradient(c.rule, leaf, i);
      store(fresh->m + i, bounded_first(c.rule, first_average(c.rule, m, g)));
    }
  });
  for (int64_t i = n; i % kLanes != 0; ++i) fresh->m[i] = fresh->v[i] = 0;
}

// A moment in int8, block by block.
template <bool square>
Block measure_eight(const Rule& rule, float* x, int64_t n) {
  Block block;
  float rest, scales[kLanes];
  see_again<square>(rule, x, n, &block.top, &rest);
  store(scales, unit<square>({spread(block.top), spread(rest)}));
  block.scale = scales[0];
  return block;
}

// v as it is kept, and its root.
template <typename Places>
ADAMX_INLINE void keep_second(const Constants& c, const Leaf& leaf, const Places& places, int64_t n, Fresh* fresh) {
  each_block(leaf.nu, n, [&](int64_t block, int64_t begin, int64_t end) {
    Block numbers;
    if (leaf.nu.storage == Storage::int4) {
      float rest;
      see_again<true>(c.rule, fresh->v + begin, end - begin, &numbers.top, &rest);
      const float above = rest * (1 + kRounding);
      numbers.scale = rest == 0 ? 0 : above < kLeastScale ? kLeastScale : above;  // NaN stays
      const FR inverse = all(numbers.scale == 0 ? 0 : 1 / numbers.scale), tie = all(numbers.top * (1 - kRounding));
      Decoded roots(numbers);
      roots.take_roots();
      for (int64_t i = begin; i < end; i += kLanes) {
        const U threshold = ~c.moments.complements(places, i);
        const U code = encode_four_second(load<F>(fresh->v + i), threshold, inverse, tie);
        store_fours(leaf.nu.data, i, code);
        store(fresh->root + i, among(roots.each, code));
      }
    } else if (leaf.nu.storage == Storage::int8) {
      numbers = measure_eight<true>(c.rule, fresh->v + begin, end - begin);
      const FR inverse = all(2.0f * (1.0f / numbers.scale));
      for (int64_t i = begin; i < end; i += kLanes) {
        const U code = encode_second(load<F>(fresh->v + i), c.moments.complements(places, i), inverse);
        store_narrow(at<uint8_t>(leaf.nu.data, i), code);
        store(fresh->root + i, root(decode_second(code & 255u, numbers)));
      }
    } else {
      for (int64_t i = begin; i < end; i += kLanes) {
        store_moment<true>(leaf.nu, i, load<F>(fresh->v + i), c.moments.complements(places, i));
        store(fresh->root + i, root(load_moment(leaf.nu, i)));
      }
      return;
    }
    leaf.nu.blocks[block] = numbers;
  });
}

// The element of a block of m over its root that stands apart, with its sign, and where others are as large as it.
struct Apart {
  float top;
  FR least;
  UR sign;

  explicit Apart(float largest) : top(largest) {
    const float bound = largest * (1 - kRounding);
    least = all(bound < 0 ? -bound : bound);
    sign = all(bound < 0 ? 0x80000000u : 0u);
  }
  ADAMX_INLINE I reached(F x) const { return float_of(bits_of(x) ^ sign) >= least; }
};

// Divides m by the root in place and finds what stands apart. The signs compare apart from sizes: NaN is the largest.
ADAMX_INLINE Apart over_root(float* m, const float* roots, int64_t n) {
  U above{}, under{};
  for (int64_t i = 0; i < n; i += kLanes) {
    const F by = load<F>(roots + i), ratio = load<F>(m + i) / pick(by == 0.0f, F{} + 1.0f, by);
    const F x = pick(by == 0.0f, F{}, pick(is_nan(ratio), ratio, within(ratio, all(kMostRatio))));
    store(m + i, x);
    const I negative = signed_of(bits_of(x)) < 0;
    above = larger(above, pick(negative, U{}, bits_of(x)));
    under = larger(under, pick(negative, bits_of(x) & 0x7FFFFFFFu, U{}));
  }
  const float high = largest(above), low = largest(under);
  return Apart(high < low || low != low ? -low : high);  // NaN stays
}

template <typename Places>
ADAMX_INLINE void keep_four_first(const Constants& c, const Leaf& leaf, const Places& places, int64_t n, Fresh* fresh) {
  each_block(leaf.mu, n, [&](int64_t block, int64_t begin, int64_t end) {
    const Apart apart = over_root(fresh->m + begin, fresh->root + begin, end - begin);
    U others{};
    for (int64_t i = begin; i < end; i += kLanes) {
      const F x = load<F>(fresh->m + i);
      others = larger(others, pick(apart.reached(x), U{}, bits_of(magnitude(x))));
    }
    const float rest = largest(others);
    uint32_t numbers[kLanes], first[kLanes];
    store(numbers, to_bfloat16(spread(rest == 0 ? 0 : rest < kTiny ? kTiny : rest)));
    HalfBlock kept{static_cast<uint16_t>(numbers[0]), 0};
    const float scale = Decoded::from_half(kept.scale);
    const FR inverse = all(scale == 0 ? 0 : 1 / scale);
    for (int64_t i = begin; i < end; i += kLanes) {
      const U complement = c.moments.complements(places, i);
      if (i == begin) store(first, dithered_bfloat16<false>(F{} + all(apart.top), complement));
      const F x = load<F>(fresh->m + i);
      store_fours(leaf.mu.data, i, encode_four_first(x, ~complement << 16, inverse, apart.reached(x)));
    }
    kept.top = static_cast<uint16_t>(first[0]);
    leaf.mu.half_blocks[block] = kept;
  });
}

template <typename Places>
ADAMX_INLINE void keep_first(const Constants& c, const Leaf& leaf, const Places& places, int64_t n, Fresh* fresh) {
  if (leaf.mu.storage == Storage::int4) return keep_four_first(c, leaf, places, n, fresh);
  each_block(leaf.mu, n, [&](int64_t block, int64_t begin, int64_t end) {
    const bool in_eight = leaf.mu.storage == Storage::int8;
    const Block numbers = in_eight ? measure_eight<false>(c.rule, fresh->m + begin, end - begin) : Block{};
    const FR inverse = all(2.0f * (1.0f / numbers.scale));
    if (in_eight) leaf.mu.blocks[block] = numbers;
    for (int64_t i = begin; i < end; i += kLanes) {
      const F m = load<F>(fresh->m + i);
      const U complement = c.moments.complements(places, i);
      if (in_eight) {
        store_narrow(at<uint8_t>(leaf.mu.data, i), encode_first(m, complement, inverse));
      } else {
        store_moment<false>(leaf.mu, i, m, complement);
      }
    }
  });
}

template <typename Places, typename Norms>
ADAMX_INLINE void four(const Constants& c, const Leaf& leaf, const Places& places, int64_t n, Norms* norms) {
  Fresh fresh;
  average_fours(c, leaf, n, &fresh);
  for (int64_t i = 0; i < n; i += kLanes) {
    land(c, leaf, i, {load<F>(fresh.m + i), load<F>(fresh.v + i)}, places, norms);
  }
  keep_second(c, leaf, places, n, &fresh);
  keep_first(c, leaf, places, n, &fresh);
}

}  // namespace ADAMX_ISA
}  // namespace adamx

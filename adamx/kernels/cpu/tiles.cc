// The step on a leaf, tile by tile. Compiled once for each set of instructions, under the name ADAMX_ISA.
#include <algorithm>
#include <cfloat>

#include "dither.h"
#include "floats.h"
#include "formulas.h"
#include "int8.h"
#include "leaf.h"
#include "view.h"
#include "weights.h"

namespace adamx {
namespace ADAMX_ISA {

namespace {

// What the tiles of a leaf have in common in a step. Each function works on a copy of its own, which no store can
// reach, so that its numbers stay in registers.
struct Constants {
  Rule rule;
  Walk moments, weights;
  bool dithered;  // a moment that is not coded

  Constants(const Leaf& leaf, const Step& step)
      : rule(step, half(leaf.nu) ? 0x1.FEp127f : FLT_MAX),
        moments(leaf.moment_salt, step.count),
        weights(leaf.weight_salt, step.weight_count),
        dithered(leaf.mu.storage == Storage::bf16_dithered || leaf.nu.storage == Storage::bf16_dithered) {}

  static bool half(const Moment& moment) {
    return moment.storage == Storage::bf16_nearest || moment.storage == Storage::bf16_dithered;
  }
};

// Fresh moments of a tile, until its blocks are measured and encoded.
struct Fresh {
  alignas(64) float mu[kTile], nu[kTile];
};

// One vector of elements.
template <bool coded_mu, bool coded_nu>
inline void elements(const Constants& c, const Leaf& leaf, int64_t i, U place, Block mu, Block nu, Fresh* fresh) {
  const F g = widened(leaf.gradient_type, leaf.gradient, i), start = started(leaf, i);
  F m, v;
  if constexpr (coded_mu) {
    m = decode_first(at<int8_t>(leaf.mu.data, i), mu);
  } else {
    m = load_moment(leaf.mu, i);
  }
  if constexpr (coded_nu) {
    v = decode_second(at<uint8_t>(leaf.nu.data, i), nu);
  } else {
    v = load_moment(leaf.nu, i);
  }
  m = first_moment(c.rule, m, g);
  v = second_moment(c.rule, v, g);
  const U bits = c.dithered ? c.moments.thresholds(place) : U{};
  if constexpr (coded_mu) {
    store(fresh->mu + i, m);
  } else {
    store_moment<false>(leaf.mu, i, m, bits);
  }
  if constexpr (coded_nu) {
    store(fresh->nu + i, v);
  } else {
    store_moment<true>(leaf.nu, i, v, bits);
  }
  F u = direction(c.rule, m, v, g);
  if (leaf.decays) u = multiply_add(c.rule.decay, start, u);
  land(leaf, c.rule, i, start, u, c.weights, place);
}

// The blocks of both moments, one of which may not be coded: it has the other's.
template <bool coded_mu, bool coded_nu>
struct Sizes {
  int64_t mu, nu;
  explicit Sizes(const Leaf& leaf)
      : mu(coded_mu ? leaf.mu.block : leaf.nu.block), nu(coded_nu ? leaf.nu.block : leaf.mu.block) {}

  // Calls `visit(begin, end, block of mu, block of nu)` for the parts of the first n elements within which neither
  // block changes.
  template <typename Visit>
  void each_part(const Leaf& leaf, int64_t n, Visit visit) const {
    const int64_t small = std::min(mu, nu);
    for (int64_t i = 0; i < n; i += small) {
      const uint32_t k = static_cast<uint32_t>(i) / static_cast<uint32_t>(mu);
      const uint32_t l = static_cast<uint32_t>(i) / static_cast<uint32_t>(nu);
      const Block first = coded_mu ? Block{leaf.mu.scale[k], leaf.mu.top[k]} : Block{};
      const Block second = coded_nu ? Block{leaf.nu.scale[l], leaf.nu.top[l]} : Block{};
      visit(i, std::min(i + small, n), first, second);
    }
  }
};

template <bool square>
void measure_blocks(const Moment& moment, const float* x, int64_t n) {
  for (int64_t i = 0, number = 0; i < n; i += moment.block, ++number) {
    const Block block = measure<square>(x + i, std::min(moment.block, n - i));
    moment.scale[number] = block.scale;
    moment.top[number] = block.top;
  }
}

template <bool coded_mu, bool coded_nu>
void encode(const Constants& constants, const Leaf& given, const Places& listed, int64_t n, const Fresh& fresh) {
  if constexpr (coded_mu) measure_blocks<false>(given.mu, fresh.mu, n);
  if constexpr (coded_nu) measure_blocks<true>(given.nu, fresh.nu, n);
  const Constants c = constants;
  const Leaf leaf = given;
  const Places places = listed;
  Sizes<coded_mu, coded_nu>(leaf).each_part(leaf, n, [&](int64_t i, int64_t stop, Block mu, Block nu) {
    const F inverse1 = all(mu.inverse()), tie1 = all(mu.tie()), inverse2 = all(nu.inverse()), tie2 = all(nu.tie());
    Guess first{}, second{};
    const auto guess = [&](int64_t j) {
      const U bits = c.moments.thresholds(places.at(j));
      if constexpr (coded_mu) first = guess_first(load<F>(fresh.mu + j), lower_fraction(bits), inverse1);
      if constexpr (coded_nu) second = guess_second(load<F>(fresh.nu + j), fraction(bits), inverse2);
    };
    for (guess(i); i < stop; i += kLanes) {
      const Guess first_here = first, second_here = second;
      guess(i + kLanes < stop ? i + kLanes : i);
      if constexpr (coded_mu)
        store(at<uint8_t>(leaf.mu.data, i), encode_first(first_here, load<F>(fresh.mu + i), tie1));
      if constexpr (coded_nu) {
        store(at<uint8_t>(leaf.nu.data, i), encode_second(second_here, load<F>(fresh.nu + i), tie2));
      }
    }
  });
}

template <bool coded_mu, bool coded_nu>
void coded(const Constants& constants, const Leaf& given, const Places& listed, int64_t n) {
  Fresh fresh;
  const Constants c = constants;
  const Leaf leaf = given;
  const Places places = listed;
  Sizes<coded_mu, coded_nu>(leaf).each_part(leaf, n, [&](int64_t i, int64_t stop, Block mu, Block nu) {
    for (; i < stop; i += kLanes) elements<coded_mu, coded_nu>(c, leaf, i, places.at(i), mu, nu, &fresh);
  });
  encode<coded_mu, coded_nu>(constants, given, listed, n, fresh);
}

void plain(const Constants& constants, const Leaf& given, const Places& listed, int64_t n) {
  const Constants c = constants;
  const Leaf leaf = given;
  const Places places = listed;
  for (int64_t i = 0; i < n; i += kLanes) elements<false, false>(c, leaf, i, places.at(i), {}, {}, nullptr);
}

// Float32 arrays, the rule without its options, both moments kept alike.
bool is_usual(const Rule& rule, const Leaf& leaf) {
  return !rule.nesterov && !rule.precise1 && !rule.precise2 && !rule.may_vanish && leaf.gradient_type == Type::f32 &&
         leaf.weight_type == Type::f32 && leaf.mu.storage == leaf.nu.storage;
}

// `plain` where it is usual: what that asks for in every vector, the compiler knows here.
template <Storage storage, bool alone>
void usual(const Constants& constants, const Leaf& given, const Places& listed, int64_t n) {
  Constants c = constants;
  Leaf leaf = given;
  const Places places = listed;
  c.rule.nesterov = c.rule.precise1 = c.rule.precise2 = c.rule.may_vanish = false;
  c.rule.alone = alone;
  c.dithered = storage == Storage::bf16_dithered;
  leaf.gradient_type = leaf.weight_type = Type::f32;
  leaf.mu.storage = leaf.nu.storage = storage;
  for (int64_t i = 0; i < n; i += kLanes) elements<false, false>(c, leaf, i, places.at(i), {}, {}, nullptr);
}

template <Storage storage>
void usual(const Constants& c, const Leaf& leaf, const Places& places, int64_t n) {
  if (c.rule.alone) return usual<storage, true>(c, leaf, places, n);
  usual<storage, false>(c, leaf, places, n);
}

void step_tile(const Constants& c, const Leaf& leaf, const Places& places, int64_t n) {
  if (is_usual(c.rule, leaf)) {
    if (leaf.mu.storage == Storage::f32) return usual<Storage::f32>(c, leaf, places, n);
    if (leaf.mu.storage == Storage::bf16_dithered) return usual<Storage::bf16_dithered>(c, leaf, places, n);
  }
  const bool mu = leaf.mu.storage == Storage::int8, nu = leaf.nu.storage == Storage::int8;
  if (mu && nu) return coded<true, true>(c, leaf, places, n);
  if (mu) return coded<true, false>(c, leaf, places, n);
  if (nu) return coded<false, true>(c, leaf, places, n);
  plain(c, leaf, places, n);
}

}  // namespace

void step_tiles(const Leaf& leaf, const Step& step, int64_t begin, int64_t end) {
  const Tiling tiles = tiling(leaf);
  const Constants constants(leaf, step);
  alignas(64) uint32_t list[kTile + kWidest];
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t column = tile % tiles.per_row * tiles.length, first = tile / tiles.per_row * tiles.last + column;
    const int64_t n = std::min(tiles.last - column, tiles.length);
    const Places places(leaf, first, n, list);
    const Leaf here = from_element(leaf, first);
    if (n % kLanes == 0) {
      step_tile(constants, here, places, n);
    } else {
      Padded padded(here, n);
      step_tile(constants, padded.copy(), places, n);
      padded.write_back();
    }
  }
}

}  // namespace ADAMX_ISA
}  // namespace adamx

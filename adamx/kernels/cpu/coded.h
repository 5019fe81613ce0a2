// A tile of which a moment is coded in int8, and none in int4: averages and the largest of each block, then the blocks'
// numbers, then weights, then codes. Passes of their own, so that no vector waits for the division or the block of
// another.
#pragma once

#include <algorithm>

#include "fetch.h"
#include "int8.h"
#include "measure.h"
#include "plain.h"
#include "view.h"

namespace adamx {
namespace ADAMX_ISA {

ADAMX_INLINE uint32_t block_of(const Moment& moment, int64_t i) {
  return static_cast<uint32_t>(i) / static_cast<uint32_t>(moment.block);
}

template <bool coded>
ADAMX_INLINE Block block_at(const Moment& moment, int64_t i) {
  if constexpr (!coded) return {};
  return moment.blocks[block_of(moment, i)];
}

// What has been seen of the block of element i before it.
template <bool coded>
ADAMX_INLINE Seen seen_before(const Moment& moment, const Between& between, int64_t i) {
  if (!coded || i % moment.block == 0) return Seen{};
  return between.seen[block_of(moment, i)];
}

template <bool coded>
ADAMX_INLINE FR inverse_at(const Moment& moment, const Between& between, int64_t i) {
  return coded ? all(between.inverse[block_of(moment, i)]) : FR{};
}

template <bool coded_mu, bool coded_nu, typename Places, typename Norms>
ADAMX_INLINE void coded(const Constants& c, const Leaf& leaf, const Places& places, int64_t n, Norms* norms) {
  Between mu, nu;
  const int64_t part = std::min(coded_mu ? leaf.mu.block : kTile, coded_nu ? leaf.nu.block : kTile);  // in each block
  for (int64_t begin = 0; begin < n; begin += part) {
    const Block mu_block = block_at<coded_mu>(leaf.mu, begin), nu_block = block_at<coded_nu>(leaf.nu, begin);
    Seen mu_seen = seen_before<coded_mu>(leaf.mu, mu, begin), nu_seen = seen_before<coded_nu>(leaf.nu, nu, begin);
    for (int64_t i = begin; i < std::min(begin + part, n); i += kLanes) {
      fetch(leaf.weight, width(leaf.weight_type), i);
      const F g = gradient(c.rule, leaf, i);
      const F m_before = coded_mu ? decode_first(at<int8_t>(leaf.mu.data, i), mu_block) : load_moment(leaf.mu, i);
      const F v_before = coded_nu ? decode_second(at<uint8_t>(leaf.nu.data, i), nu_block) : load_moment(leaf.nu, i);
      F m = first_average(c.rule, m_before, g), v = second_average(c.rule, v_before, g);
      if (!coded_mu) m = bounded_first(c.rule, m);  // a coded one is bounded with its block
      if (!coded_nu) v = bounded_second(c.rule, v);
      if (coded_mu) mu_seen.see(bits_of(magnitude(m)));
      if (coded_nu) nu_seen.see(bits_of(v));
      store(mu.x + i, m);
      store(nu.x + i, v);
    }
    if (coded_mu) mu.seen[block_of(leaf.mu, begin)] = mu_seen;
    if (coded_nu) nu.seen[block_of(leaf.nu, begin)] = nu_seen;
  }
  if (coded_mu) measure_blocks<false>(c.rule, leaf.mu, n, &mu);
  if (coded_nu) measure_blocks<true>(c.rule, leaf.nu, n, &nu);
  for (int64_t begin = 0; begin < n; begin += part) {
    const FR mu_inverse = inverse_at<coded_mu>(leaf.mu, mu, begin),
             nu_inverse = inverse_at<coded_nu>(leaf.nu, nu, begin);
    for (int64_t i = begin; i < std::min(begin + part, n); i += kLanes) {
      fetch(leaf.gradient, width(leaf.gradient_type), i + n);
      fetch(leaf.mu.data, leaf.mu.halves() / 2, i + n);
      fetch(leaf.nu.data, leaf.nu.halves() / 2, i + n);
      land(c, leaf, i, {load<F>(mu.x + i), load<F>(nu.x + i)}, places, norms);
    }
    for (int64_t i = begin; i < std::min(begin + part, n); i += kLanes) {
      const F m = load<F>(mu.x + i), v = load<F>(nu.x + i);
      const U bits = c.moments.complements(places, i);
      if constexpr (coded_mu) {
        store_narrow(at<uint8_t>(leaf.mu.data, i), encode_first(m, bits, mu_inverse));
      } else {
        store_moment<false>(leaf.mu, i, m, bits);
      }
      if constexpr (coded_nu) {
        store_narrow(at<uint8_t>(leaf.nu.data, i), encode_second(v, bits, nu_inverse));
      } else {
        store_moment<true>(leaf.nu, i, v, bits);
      }
    }
  }
}

}  // namespace ADAMX_ISA
}  // namespace adamx

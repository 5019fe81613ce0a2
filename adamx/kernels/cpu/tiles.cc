// The step on a leaf, tile by tile. Compiled once for each set of instructions, under the name ADAMX_ISA.
#include <algorithm>

#include "coded.h"
#include "plain.h"
#include "view.h"

namespace adamx {
namespace ADAMX_ISA {

namespace {

// The numbers of a step and what a tile is made of are copies that no store can reach: they stay in registers.
template <typename Known, bool coded_mu, bool coded_nu, typename Places>
void step(const Constants& constants, const Leaf& leaf, int64_t begin, int64_t end) {
  Constants c = constants;
  const Tiling tiles = tiling(leaf);
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t row = tile / tiles.per_row, column = (tile - row * tiles.per_row) * tiles.length;
    const int64_t n = std::min(tiles.last - column, tiles.length);
    const Begin first(leaf, row * tiles.last + column);
    const Leaf here = from(first, leaf);
    Padded padded(here, n);
    const bool whole = n % kLanes == 0;
    Leaf known = whole ? here : padded.copy();
    Known::tell(&c, &known);
    if constexpr (coded_mu || coded_nu) {
      coded<coded_mu, coded_nu>(c, known, Places(leaf, first, n), n);
    } else {
      plain(c, known, Places(leaf, first, n), n);
    }
    if (!whole) padded.write_back();
  }
}

template <Storage storage, typename Places>
void usual(const Constants& c, const Leaf& leaf, int64_t begin, int64_t end) {
  constexpr bool coded = storage == Storage::int8;
  step<Usual<storage>, coded, coded, Places>(c, leaf, begin, end);
}

template <typename Places>
void any(const Constants& c, const Leaf& leaf, int64_t begin, int64_t end) {
  const bool mu = leaf.mu.storage == Storage::int8, nu = leaf.nu.storage == Storage::int8;
  if (is_usual(c.rule, leaf)) {
    if (leaf.mu.storage == Storage::f32) return usual<Storage::f32, InGroups>(c, leaf, begin, end);  // asks for none
    if (leaf.mu.storage == Storage::bf16_dithered) return usual<Storage::bf16_dithered, Places>(c, leaf, begin, end);
    if (mu) return usual<Storage::int8, Places>(c, leaf, begin, end);
  }
  if (mu && nu) return step<Any, true, true, Places>(c, leaf, begin, end);
  if (mu) return step<Any, true, false, Places>(c, leaf, begin, end);
  if (nu) return step<Any, false, true, Places>(c, leaf, begin, end);
  step<Any, false, false, Places>(c, leaf, begin, end);
}

}  // namespace

void step_tiles(const Leaf& leaf, const Step& numbers, int64_t begin, int64_t end) {
  const Constants c(leaf, numbers);
  if (in_groups(leaf)) return any<InGroups>(c, leaf, begin, end);
  any<OneByOne>(c, leaf, begin, end);
}

}  // namespace ADAMX_ISA
}  // namespace adamx

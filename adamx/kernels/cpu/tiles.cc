// The step on a leaf, tile by tile. Compiled for each set of instructions, under the name ADAMX_ISA: once as it is, and
// once with norms. In one file both would be too much for the compiler to inline.
#include <algorithm>
#include <type_traits>

#include "coded.h"
#include "four.h"
#include "plain.h"
#include "view.h"

namespace adamx {
namespace ADAMX_ISA {

namespace {

// The numbers of a step and what a tile is made of are copies that no store can reach: they stay in registers.
template <typename Norms, typename Known, bool coded_mu, bool coded_nu, typename Places, bool in_four = false>
void step(const Constants& constants, const Leaf& leaf, int64_t begin, int64_t end, [[maybe_unused]] double* squares) {
  Constants c = constants;
  typename Norms::Room room;
  Norms norms(room);
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
    if constexpr (in_four) {
      four(c, known, Places(leaf, first, n), n, &norms);
    } else if constexpr (coded_mu || coded_nu) {
      coded<coded_mu, coded_nu>(c, known, Places(leaf, first, n), n, &norms);
    } else {
      plain(c, known, Places(leaf, first, n), n, &norms);
    }
    if constexpr (Norms::kAsked) {
      norms.end_tile(n, [&](Of of, int64_t i) {
        return of == Of::gradient ? as_float32(known.gradient_type, known.gradient, i) : started(known, i);
      });
    }
    if (!whole) padded.write_back();
  }
  if constexpr (Norms::kAsked) norms.add_to(squares);
}

template <typename Norms, typename Places, Weights weights>
void usual(const Constants& c, const Leaf& leaf, int64_t begin, int64_t end, double* squares) {
  if (leaf.mu.storage == Storage::f32) {
    using Asked = std::conditional_t<weights == Weights::stochastic, Places, Unplaced>;
    return step<Norms, Usual<Storage::f32, weights>, false, false, Asked>(c, leaf, begin, end, squares);
  }
  if (leaf.mu.storage == Storage::int8) {
    return step<Norms, Usual<Storage::int8, weights>, true, true, Places>(c, leaf, begin, end, squares);
  }
  step<Norms, Usual<Storage::bf16_dithered, weights>, false, false, Places>(c, leaf, begin, end, squares);
}

template <typename Norms, typename Places>
void any(const Constants& c, const Leaf& leaf, int64_t begin, int64_t end, double* squares) {
  if (leaf.has(Storage::int4)) return step<Norms, Any, true, true, Places, true>(c, leaf, begin, end, squares);
  const bool mu = leaf.mu.storage == Storage::int8, nu = leaf.nu.storage == Storage::int8;
  if (mu && nu) return step<Norms, Any, true, true, Places>(c, leaf, begin, end, squares);
  if (mu) return step<Norms, Any, true, false, Places>(c, leaf, begin, end, squares);
  if (nu) return step<Norms, Any, false, true, Places>(c, leaf, begin, end, squares);
  step<Norms, Any, false, false, Places>(c, leaf, begin, end, squares);
}

template <typename Norms, typename Places>
void with_weights(const Constants& c, const Leaf& leaf, int64_t begin, int64_t end, double* squares) {
  switch (leaf.weights) {
    case Weights::plain:
      return usual<Norms, Places, Weights::plain>(c, leaf, begin, end, squares);
    case Weights::master:
      return usual<Norms, Places, Weights::master>(c, leaf, begin, end, squares);
    case Weights::stochastic:
      return usual<Norms, Places, Weights::stochastic>(c, leaf, begin, end, squares);
    case Weights::narrow:  // not usual
      break;
  }
}

template <typename Norms>
void placed(const Leaf& leaf, const Step& numbers, int64_t begin, int64_t end, double* squares) {
  const Constants c(leaf, numbers);
  const bool known = is_usual(c.rule, leaf), groups = in_groups(leaf);
  if (known && groups) return with_weights<Norms, InGroups>(c, leaf, begin, end, squares);
  if constexpr (!Norms::kAsked) {  // or the library is half as large again, for few leaves
    if (known) return with_weights<Norms, OneByOne>(c, leaf, begin, end, squares);
    if (groups) return any<Norms, InGroups>(c, leaf, begin, end, squares);
  }
  any<Norms, OneByOne>(c, leaf, begin, end, squares);
}

}  // namespace

#if defined(ADAMX_MEASURES)
void measure_tiles(const Leaf& leaf, const Step& numbers, int64_t begin, int64_t end, double* squares) {
  placed<Squares>(leaf, numbers, begin, end, squares);
}
#else
void step_tiles(const Leaf& leaf, const Step& numbers, int64_t begin, int64_t end) {
  placed<NoSquares>(leaf, numbers, begin, end, nullptr);
}
#endif

}  // namespace ADAMX_ISA
}  // namespace adamx

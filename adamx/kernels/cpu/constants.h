// What the tiles of a leaf have in common in a step.
#pragma once

#include <cfloat>

#include "dither.h"
#include "formulas.h"
#include "leaf.h"

namespace adamx {
namespace ADAMX_ISA {

struct Constants {
  Rule rule;
  Walk<kMoments> moments;
  Walk<kWeights> weights;
  bool dithered;  // a moment that is not coded

  Constants(const Leaf& leaf, const Step& step)
      : rule(step, leaf, half(leaf.nu) ? 0x1.FEp127f : FLT_MAX),
        moments(leaf.moment_salt, step.count),
        weights(leaf.weight_salt, step.weight_count),
        dithered(leaf.mu.storage == Storage::bf16_dithered || leaf.nu.storage == Storage::bf16_dithered) {}

  static bool half(const Moment& moment) {
    return moment.storage == Storage::bf16_nearest || moment.storage == Storage::bf16_dithered;
  }
};

// The rule without its options, both moments kept alike, float32 arrays or bfloat16 ones with something behind them,
// but for int4 and weights of 24 bits: a step on them takes as long if nothing is known.
inline bool is_usual(const Rule& rule, const Leaf& leaf) {
  const Type type = leaf.weights == Weights::plain ? Type::f32 : Type::bf16;
  return !rule.nesterov && !rule.precise1 && !rule.precise2 && !rule.may_vanish && !rule.rooted &&
         leaf.gradient_type == type && leaf.weight_type == type && leaf.mu.storage == leaf.nu.storage &&
         leaf.mu.storage != Storage::bf16_nearest && leaf.mu.storage != Storage::int4 &&
         leaf.weights != Weights::narrow;
}

// What the compiler is told of a step that may be any.
struct Any {
  static void tell(Constants*, Leaf*) {}
};

// What it is told of a usual one, so that no vector asks for it.
template <Storage storage, Weights weights>
struct Usual {
  static void tell(Constants* c, Leaf* leaf) {
    c->rule.nesterov = c->rule.precise1 = c->rule.precise2 = c->rule.may_vanish = c->rule.rooted = false;
    c->dithered = storage == Storage::bf16_dithered;
    leaf->gradient_type = leaf->weight_type = weights == Weights::plain ? Type::f32 : Type::bf16;
    leaf->weights = weights;
    leaf->mu.storage = leaf->nu.storage = storage;
  }
};

}  // namespace ADAMX_ISA
}  // namespace adamx

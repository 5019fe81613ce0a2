// Lines 7 to 11 of Algorithm 1, in the order of operations of adamx/numerics.py as XLA:CPU contracts it.
#pragma once

#include <cfloat>

#include "lanes.h"
#include "leaf.h"

namespace adamx {
namespace ADAMX_ISA {

// A divisor that is the same for all lanes. A quotient is corrected by what its product leaves (Markstein, 1990): the
// bits of a division in the time of three multiplications.
struct Divisor {
  FR value, negative, inverse;
  explicit Divisor(float x) : value(all(x)), negative(all(-x)), inverse(all(1 / x)) {}
};

ADAMX_INLINE F operator/(F a, const Divisor& by) {
  if constexpr (!kFuses) return a / by.value;
  const F first = smaller(all(FLT_MAX), a * by.inverse);  // an infinite one would leave NaN
  return multiply_add(multiply_add(first, by.negative, a), by.inverse, first);
}

// The numbers of a step in all lanes.
struct Rule {
  FR b1, rest1, b2, rest2, eps, eps_root, factor, scale, decay;
  Divisor weight1, weight2, weight1_next;
  FR largest, limit;  // of v and m
  bool nesterov, precise1, precise2;
  bool rooted;      // eps_root is not 0
  bool may_vanish;  // what m̂ is divided by

  Rule(const Step& s, const Leaf& leaf, float largest_v)
      : b1(all(s.b1)),
        rest1(all(s.rest1)),
        b2(all(s.b2)),
        rest2(all(s.rest2)),
        eps(all(s.eps)),
        eps_root(all(s.eps_root)),
        factor(all(s.factor)),
        scale(all(leaf.scale)),
        decay(all(leaf.decay)),
        weight1(s.weight1),
        weight2(s.weight2),
        weight1_next(s.weight1_next),
        largest(all(largest_v)),
        limit(all(0x1p65f)),
        nesterov(s.nesterov),
        precise1(s.precise1),
        precise2(s.precise2),
        rooted(s.eps_root != 0),
        may_vanish(!(s.eps >= FLT_MIN)) {}
};

ADAMX_INLINE F average(FR decay, FR rest, bool precise, F a, F x) {
  if (precise) return a + multiply_add(rest, x, -(rest * a));
  return multiply_add(rest, x, decay * a);
}

// Line 7.
ADAMX_INLINE F first_average(const Rule& rule, F m, F g) { return average(rule.b1, rule.rest1, rule.precise1, m, g); }

// Line 8.
ADAMX_INLINE F second_average(const Rule& rule, F v, F g) {
  return average(rule.b2, rule.rest2, rule.precise2, v, g * g);
}

// An infinite m becomes NaN: it must show.
ADAMX_INLINE F bounded_first(const Rule& rule, F m) { return multiply_add(m, F{}, within(m, rule.limit)); }

ADAMX_INLINE F bounded_second(const Rule& rule, F v) { return smaller(rule.largest, v); }

// Lines 9 to 11 without the α: m once by the product of its weight and the root, as XLA does in a tree of several
// leaves.
ADAMX_INLINE F direction(const Rule& rule, F m, F v, F g) {
  const F v_hat = v / rule.weight2;
  F below = root(rule.rooted ? v_hat + rule.eps_root : v_hat) + rule.eps;
  if (rule.may_vanish) below = pick(below == 0.0f, all(1.0f), below);
  if (rule.nesterov) {
    const F ahead = multiply_add(rule.b1, m / rule.weight1_next, rule.rest1 * (g / rule.weight1));
    return within(ahead, rule.limit) / below;
  }
  return m / (rule.weight1.value * below);
}

}  // namespace ADAMX_ISA
}  // namespace adamx

// Lines 7 to 11 of Algorithm 1 on a tile, in the order of operations of adamx/numerics.py as XLA:CPU contracts it.
#pragma once

#include <cfloat>

#include "leaf.h"

namespace adamx {
namespace ADAMX_ISA {

// a b + c, rounded once where the processor can.
inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

template <bool precise>
inline float average(float decay, float rest, float a, float x) {
  if constexpr (precise) return a + multiply_add(rest, x, -(rest * a));
  return multiply_add(rest, x, decay * a);
}

inline float clamp(float x, float limit) {
  const float low = x > limit ? limit : x;
  return low < -limit ? -limit : low;
}

// Reads gradients and old moments, leaves new moments in their place and u in `direction`.
template <bool nesterov, bool precise1, bool precise2>
inline void formulas(const Step& s, float largest, int32_t n, const float* __restrict g, float* __restrict mu,
                     float* __restrict nu, float* __restrict direction) {
  constexpr float limit = 0x1p65f;
  for (int32_t i = 0; i < n; ++i) {
    const float raw = average<precise1>(s.b1, s.rest1, mu[i], g[i]);  // line 7
    const float m = clamp(raw, limit) - (raw - raw);                  // an infinite m becomes NaN: it must show
    const float sum = average<precise2>(s.b2, s.rest2, nu[i], g[i] * g[i]);  // line 8
    const float v = sum > largest ? largest : sum;
    float m_hat = m / (nesterov ? s.weight1_next : s.weight1);  // line 9
    if constexpr (nesterov) m_hat = clamp(multiply_add(s.b1, m_hat, s.rest1 * (g[i] / s.weight1)), limit);
    const float v_hat = v / s.weight2;  // line 10
    const float below = __builtin_sqrtf(v_hat + s.eps_root) + s.eps;
    mu[i] = m;
    nu[i] = v;
    direction[i] = m_hat / (below == 0 ? 1.0f : below);  // line 11
  }
}

// Adds λ θ.
inline void decay(float lambda, int32_t n, const float* __restrict weight, float* __restrict direction) {
  for (int32_t i = 0; i < n; ++i) direction[i] = multiply_add(lambda, weight[i], direction[i]);
}

}  // namespace ADAMX_ISA
}  // namespace adamx

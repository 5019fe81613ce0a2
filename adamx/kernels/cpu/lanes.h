// Sixteen numbers at a time, on every processor, in as many registers as they take: as many as share a hash of the
// dither, and as the narrow numbers of a register are. Operators work on all lanes; `pick(mask, a, b)` picks lane by
// lane.
#pragma once

#include <type_traits>

#include "leaf.h"
#include "registers.h"

namespace adamx {
namespace ADAMX_ISA {

constexpr float kTiny = 0x1p-126f;  // the smallest normal number
constexpr uint32_t kNaN = 0x7FC0;   // of bfloat16

template <typename Half>
struct Two {
  Half a, b;
};

// Registers, or pairs of registers, or pairs of pairs.
template <typename Register, int64_t wide>
struct Lanes {
  using Type = Two<typename Lanes<Register, 2 * wide>::Type>;
};
template <typename Register>
struct Lanes<Register, kLanes> {
  using Type = Register;
};

using F = Lanes<FR, kWide>::Type;
using I = Lanes<IR, kWide>::Type;
using U = Lanes<UR, kWide>::Type;

template <typename T>
struct IsTwo : std::false_type {};
template <typename H>
struct IsTwo<Two<H>> : std::true_type {};

// The halves of a pair; anything else, a number or a register with the same number in all lanes, goes to both.
template <typename T>
ADAMX_INLINE T first(T x) {
  return x;
}
template <typename H>
ADAMX_INLINE H first(Two<H> x) {
  return x.a;
}
template <typename T>
ADAMX_INLINE T second(T x) {
  return x;
}
template <typename H>
ADAMX_INLINE H second(Two<H> x) {
  return x.b;
}
template <typename H>
ADAMX_INLINE Two<H> two(H a, H b) {
  return {a, b};
}

// clang-format off
#define ADAMX_OPERATOR(op)                                                                     \
  template <typename X, typename Y, typename = std::enable_if_t<IsTwo<X>::value || IsTwo<Y>::value>> \
  ADAMX_INLINE auto operator op(X x, Y y) { return two(first(x) op first(y), second(x) op second(y)); }
#define ADAMX_UNARY(op) \
  template <typename H> ADAMX_INLINE Two<H> operator op(Two<H> x) { return {op x.a, op x.b}; }
#define ADAMX_FUNCTION(f)                                                                      \
  template <typename... X, typename = std::enable_if_t<(IsTwo<X>::value || ...)>>              \
  ADAMX_INLINE auto f(X... x) { return two(f(first(x)...), f(second(x)...)); }
ADAMX_OPERATOR(+) ADAMX_OPERATOR(-) ADAMX_OPERATOR(*) ADAMX_OPERATOR(/) ADAMX_OPERATOR(%) ADAMX_OPERATOR(&)
ADAMX_OPERATOR(|) ADAMX_OPERATOR(^) ADAMX_OPERATOR(<<) ADAMX_OPERATOR(>>) ADAMX_OPERATOR(<) ADAMX_OPERATOR(>)
ADAMX_OPERATOR(>=) ADAMX_OPERATOR(==) ADAMX_OPERATOR(!=)
ADAMX_UNARY(-) ADAMX_UNARY(~)
ADAMX_FUNCTION(bits_of) ADAMX_FUNCTION(float_of) ADAMX_FUNCTION(signed_of) ADAMX_FUNCTION(to_float)
ADAMX_FUNCTION(pick) ADAMX_FUNCTION(larger) ADAMX_FUNCTION(smaller) ADAMX_FUNCTION(multiply_add)
ADAMX_FUNCTION(within) ADAMX_FUNCTION(root) ADAMX_FUNCTION(absolute) ADAMX_FUNCTION(signed_like)
ADAMX_FUNCTION(by_index) ADAMX_FUNCTION(among) ADAMX_FUNCTION(from_float16) ADAMX_FUNCTION(to_float16)
    // clang-format on

    template <typename H>
    ADAMX_INLINE bool any(Two<H> mask) {
  return any(mask.a | mask.b);
}

// The even lanes of a, then those of b; and the odd ones.
template <typename H>
ADAMX_INLINE Two<H> evens(Two<H> a, Two<H> b) {
  return {evens(a.a, a.b), evens(b.a, b.b)};
}
template <typename H>
ADAMX_INLINE Two<H> odds(Two<H> a, Two<H> b) {
  return {odds(a.a, a.b), odds(b.a, b.b)};
}

template <typename V>
ADAMX_INLINE V load(const void* from) {
  if constexpr (std::is_class_v<V>) {
    using Half = decltype(V::a);
    return {load<Half>(from), load<Half>(static_cast<const char*>(from) + sizeof(Half))};
  } else {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
}

template <typename V>
ADAMX_INLINE void store(void* to, V v) {
  if constexpr (std::is_class_v<V>) {
    store(to, v.a);
    store(static_cast<char*>(to) + sizeof v.a, v.b);
  } else {
    std::memcpy(to, &v, sizeof v);
  }
}

// Narrow integers as numbers of 32 bits.
template <typename V = U, typename T>
ADAMX_INLINE V load_wide(const T* from) {
  if constexpr (std::is_class_v<V>) {
    using Half = decltype(V::a);
    return {load_wide<Half>(from), load_wide<Half>(from + sizeof(Half) / 4)};
  } else {
    return widened(from);
  }
}

ADAMX_INLINE FR all(float x) { return x - FR{}; }
ADAMX_INLINE UR all(uint32_t x) { return x - UR{}; }

ADAMX_INLINE F spread(float x) { return F{} + all(x); }  // 0 for -0

ADAMX_INLINE float largest(U sizes) {  // compared by bits
  uint32_t each[kLanes], most = 0;
  store(each, sizes);
  for (const uint32_t size : each) most = size > most ? size : most;
  return load<float>(&most);
}

ADAMX_INLINE F magnitude(F x) { return float_of(bits_of(x) & 0x7FFFFFFFu); }

// Writes numbers below 2^15, of either sign, as 16 bits or as their lowest byte; those of 16 bits may be below 2^16.
#if defined(__AVX512F__)

ADAMX_INLINE void store_narrow(uint16_t* to, U x) {
  _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi32_epi16((__m512i)x));
}
ADAMX_INLINE void store_narrow(uint8_t* to, U x) { _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)x)); }

#elif defined(__AVX2__)

ADAMX_INLINE void store_narrow(uint16_t* to, U x) {
  const __m256i packed = _mm256_packus_epi32((__m256i)x.a, (__m256i)x.b);
  _mm256_storeu_si256((__m256i*)to, _mm256_permute4x64_epi64(packed, 0xD8));
}
ADAMX_INLINE void store_narrow(uint8_t* to, U x) {
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)x.a, (__m256i)x.b), 0xD8);
  const __m256i low = _mm256_and_si256(packed, _mm256_set1_epi16(0xFF));
  _mm_storeu_si128((__m128i*)to, _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
}

#elif defined(__aarch64__)

ADAMX_INLINE uint16x8_t narrowed(UR a, UR b) {
  return vcombine_u16(vmovn_u32((uint32x4_t)a), vmovn_u32((uint32x4_t)b));
}
ADAMX_INLINE void store_narrow(uint16_t* to, U x) {
  vst1q_u16(to, narrowed(x.a.a, x.a.b));
  vst1q_u16(to + 8, narrowed(x.b.a, x.b.b));
}
ADAMX_INLINE void store_narrow(uint8_t* to, U x) {
  vst1q_u8(to, vcombine_u8(vmovn_u16(narrowed(x.a.a, x.a.b)), vmovn_u16(narrowed(x.b.a, x.b.b))));
}

#else

template <typename T>
ADAMX_INLINE void store_narrow(T* to, U x) {
  typedef T Narrow __attribute__((vector_size(sizeof(T) * kWide)));
  for (const UR part : {x.a.a, x.a.b, x.b.a, x.b.b}) {
    store(to, __builtin_convertvector(part, Narrow));
    to += kWide;
  }
}

#endif

ADAMX_INLINE I is_nan(F x) { return x != x; }
ADAMX_INLINE F from_bfloat16(U x) { return float_of(x << 16); }

// To nearest, ties to even: the bits that are left without so many of the last.
template <int drop>
ADAMX_INLINE U without(F x) {
  const U bits = bits_of(x), rounded = (bits + ((1u << (drop - 1)) - 1u) + ((bits >> drop) & 1u)) >> drop;
  return pick(is_nan(x), all(kNaN << (16 - drop)), rounded);
}

ADAMX_INLINE U to_bfloat16(F x) { return without<16>(x); }

}  // namespace ADAMX_ISA
}  // namespace adamx

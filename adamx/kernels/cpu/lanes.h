// Vectors as wide as the processor's, in the notation of GCC and Clang: operators work on all lanes, `mask ? a : b`
// picks lane by lane. What has no notation stands here, once for each set of instructions.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace adamx {
namespace ADAMX_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

constexpr float kTiny = 0x1p-126f;  // the smallest normal number

typedef float F __attribute__((vector_size(4 * kLanes)));
typedef int32_t I __attribute__((vector_size(4 * kLanes)));
typedef uint32_t U __attribute__((vector_size(4 * kLanes)));
typedef uint16_t U16 __attribute__((vector_size(2 * kLanes)));
typedef uint8_t U8 __attribute__((vector_size(kLanes)));
typedef int8_t I8 __attribute__((vector_size(kLanes)));

template <typename V>
inline V load(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <typename V>
inline void store(void* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

inline F all(float x) { return x - F{}; }
inline U all(uint32_t x) { return x - U{}; }
inline U bits_of(F x) { return reinterpret_cast<U>(x); }
inline F float_of(U x) { return reinterpret_cast<F>(x); }
inline F to_float(U x) { return __builtin_convertvector(reinterpret_cast<I>(x), F); }  // of numbers below 2^31

inline U larger(U a, U b) { return a > b ? a : b; }
inline U smaller(U a, U b) { return a < b ? a : b; }

inline F magnitude(F x) { return float_of(bits_of(x) & 0x7FFFFFFFu); }

// The two largest numbers of a vector, compared by their bits.
struct Largest {
  float top, next;
};

#if defined(__AVX2__)
// The two largest of both halves, lane by lane.
inline void fold(__m128i& top, __m128i& next, __m128i other_top, __m128i other_next) {
  next = _mm_max_epu32(_mm_min_epu32(top, other_top), _mm_max_epu32(next, other_next));
  top = _mm_max_epu32(top, other_top);
}
inline Largest two_largest(__m256i tops, __m256i nexts) {
  __m128i top = _mm256_castsi256_si128(tops), next = _mm256_castsi256_si128(nexts);
  fold(top, next, _mm256_extracti128_si256(tops, 1), _mm256_extracti128_si256(nexts, 1));
  fold(top, next, _mm_shuffle_epi32(top, 0x4E), _mm_shuffle_epi32(next, 0x4E));
  fold(top, next, _mm_shuffle_epi32(top, 0xB1), _mm_shuffle_epi32(next, 0xB1));
  return {_mm_cvtss_f32(_mm_castsi128_ps(top)), _mm_cvtss_f32(_mm_castsi128_ps(next))};
}
inline float larger(float a, float b) { return _mm_cvtss_f32(_mm_max_ss(_mm_set_ss(a), _mm_set_ss(b))); }
inline float smaller(float a, float b) { return _mm_cvtss_f32(_mm_min_ss(_mm_set_ss(a), _mm_set_ss(b))); }
#else
inline float larger(float a, float b) { return a > b ? a : b; }  // b where either is NaN, as in the other versions
inline float smaller(float a, float b) { return a < b ? a : b; }
#endif

#if defined(__AVX512F__)

constexpr bool kFuses = true;
inline F multiply_add(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F smaller(F a, F b) { return _mm512_min_ps(a, b); }  // b where either is NaN, as in the other versions
inline F larger(F a, F b) { return _mm512_max_ps(a, b); }
inline F within(F x, F limit) {
  return _mm512_range_ps(x, limit, 2);
}  // the limit's size and x's sign where |x| is more
inline F root(F x) { return _mm512_sqrt_ps(x); }
inline U widen(U16 x) { return (U)_mm512_cvtepu16_epi32((__m256i)x); }
inline U widen(U8 x) { return (U)_mm512_cvtepu8_epi32((__m128i)x); }
inline U widen(I8 x) { return (U)_mm512_cvtepi8_epi32((__m128i)x); }
inline U16 narrow16(U x) { return (U16)_mm512_cvtepi32_epi16((__m512i)x); }
inline U8 narrow8(U x) { return (U8)_mm512_cvtepi32_epi8((__m512i)x); }
inline Largest two_largest(U top, U next) {
  const __m256i low = _mm512_castsi512_si256((__m512i)top), high = _mm512_extracti64x4_epi64((__m512i)top, 1);
  const __m256i low_next = _mm512_castsi512_si256((__m512i)next),
                high_next = _mm512_extracti64x4_epi64((__m512i)next, 1);
  return two_largest(_mm256_max_epu32(low, high),
                     _mm256_max_epu32(_mm256_min_epu32(low, high), _mm256_max_epu32(low_next, high_next)));
}
inline U pick(U index, U from) { return (U)_mm512_permutexvar_epi32((__m512i)index, (__m512i)from); }
inline F from_float16(U16 x) { return _mm512_cvtph_ps((__m256i)x); }
inline U16 to_float16(F x) { return (U16)_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }

#elif defined(__AVX2__)

constexpr bool kFuses = true;
inline F multiply_add(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F smaller(F a, F b) { return _mm256_min_ps(a, b); }
inline F larger(F a, F b) { return _mm256_max_ps(a, b); }
inline F within(F x, F limit) { return larger(-limit, smaller(limit, x)); }
inline F root(F x) { return _mm256_sqrt_ps(x); }
inline U widen(U16 x) { return (U)_mm256_cvtepu16_epi32((__m128i)x); }
inline U widen(U8 x) { return (U)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)&x)); }
inline U widen(I8 x) { return (U)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)&x)); }
inline U16 narrow16(U x) {
  const __m256i low = _mm256_and_si256((__m256i)x, _mm256_set1_epi32(0xFFFF));
  return (U16)_mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08));
}
inline U8 narrow8(U x) {
  const __m256i low = _mm256_and_si256((__m256i)x, _mm256_set1_epi32(0xFF));
  const __m128i half = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  return load<U8>(&reinterpret_cast<const char&>(static_cast<const __m128i&>(_mm_packus_epi16(half, half))));
}
inline Largest two_largest(U top, U next) { return two_largest((__m256i)top, (__m256i)next); }
inline U pick(U index, U from) { return (U)_mm256_permutevar8x32_epi32((__m256i)from, (__m256i)index); }
inline F from_float16(U16 x) { return _mm256_cvtph_ps((__m128i)x); }
inline U16 to_float16(F x) { return (U16)_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }

#else

#if defined(__aarch64__)
constexpr bool kFuses = true;
inline F multiply_add(F a, F b, F c) { return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
constexpr bool kFuses = false;
inline F multiply_add(F a, F b, F c) { return a * b + c; }
#endif
inline F smaller(F a, F b) { return a < b ? a : b; }
inline F larger(F a, F b) { return a > b ? a : b; }
inline F within(F x, F limit) { return larger(-limit, smaller(limit, x)); }
inline F root(F x) {
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
inline U widen(U16 x) { return __builtin_convertvector(x, U); }
inline U widen(U8 x) { return __builtin_convertvector(x, U); }
inline U widen(I8 x) { return (U) __builtin_convertvector(x, I); }
inline U16 narrow16(U x) { return __builtin_convertvector(x, U16); }
inline U8 narrow8(U x) { return __builtin_convertvector(x, U8); }
inline Largest two_largest(U top, U next) {
  uint32_t most = 0, second = 0;
  for (int i = 0; i < kLanes; ++i) {
    for (const uint32_t x : {top[i], next[i]}) {
      second = x > most ? most : x > second ? x : second;
      most = x > most ? x : most;
    }
  }
  return {load<float>(&most), load<float>(&second)};
}
inline U pick(U index, U from) {
  U picked{};
  for (int i = 0; i < kLanes; ++i) picked[i] = from[index[i]];
  return picked;
}
inline F from_float16(U16 half) {
  const U x = widen(half), sign = (x & 0x8000u) << 16, size = x & 0x7FFFu;
  const U normal = (size << 13) + (112u << 23), special = (size << 13) | 0x7F800000u;
  const U subnormal = bits_of(to_float(size) * 0x1p-24f);
  const U finite = size < 0x0400u ? subnormal : normal;
  return float_of(sign | (size >= 0x7C00u ? special : finite));
}
inline U16 to_float16(F x) {  // to nearest, ties to even
  const U bits = bits_of(x), sign = (bits >> 16) & 0x8000u, size = bits & 0x7FFFFFFFu;
  const U normal = (size - (112u << 23) + 0xFFFu + ((size >> 13) & 1u)) >> 13;
  const U subnormal = bits_of(float_of(size) + 0.5f) - 0x3F000000u;
  const U finite = size < 0x38800000u ? subnormal : normal;
  const U special = size > 0x7F800000u ? all(0x7E00u) : all(0x7C00u);
  return narrow16(sign | (size >= 0x477FF000u ? special : finite));
}

#endif

inline I is_nan(F x) { return x != x; }
inline F from_bfloat16(U16 x) { return float_of(widen(x) << 16); }

// To nearest, ties to even; the bits of bfloat16 in the lower half of each lane.
inline U to_bfloat16(F x) {
  const U bits = bits_of(x), rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return is_nan(x) ? all(0x7FC0u) : rounded;
}

}  // namespace ADAMX_ISA
}  // namespace adamx

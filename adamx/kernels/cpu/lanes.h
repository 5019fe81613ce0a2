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

inline float largest(U sizes) {  // compared by bits
  uint32_t most = 0;
  for (int i = 0; i < kLanes; ++i) most = sizes[i] > most ? sizes[i] : most;
  return load<float>(&most);
}

inline F magnitude(F x) { return float_of(bits_of(x) & 0x7FFFFFFFu); }

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
inline U pick(U index, U from) { return (U)_mm512_permutexvar_epi32((__m512i)index, (__m512i)from); }
inline U evens(U a, U b) {  // the even lanes of a, then those of b
  const __m512i from = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return (U)_mm512_permutex2var_epi32((__m512i)a, from, (__m512i)b);
}
inline U odds(U a, U b) {
  const __m512i from = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return (U)_mm512_permutex2var_epi32((__m512i)a, from, (__m512i)b);
}
inline void store_first(float* to, F v, int64_t n) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << n) - 1u), v);
}
inline bool any(I mask) { return _mm512_movepi32_mask((__m512i)mask) != 0; }
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
inline U pick(U index, U from) { return (U)_mm256_permutevar8x32_epi32((__m256i)from, (__m256i)index); }
inline U evens(U a, U b) {
  const __m256 found = _mm256_shuffle_ps((__m256)a, (__m256)b, 0x88);  // two of a, two of b, and again
  return (U)_mm256_permute4x64_epi64(_mm256_castps_si256(found), 0xD8);
}
inline U odds(U a, U b) {
  const __m256 found = _mm256_shuffle_ps((__m256)a, (__m256)b, 0xDD);
  return (U)_mm256_permute4x64_epi64(_mm256_castps_si256(found), 0xD8);
}
inline bool any(I mask) { return _mm256_movemask_ps((__m256)mask) != 0; }
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
inline U pick(U index, U from) {
  U picked{};
  for (int i = 0; i < kLanes; ++i) picked[i] = from[index[i]];
  return picked;
}
inline U evens(U a, U b) { return U{a[0], a[2], b[0], b[2]}; }
inline U odds(U a, U b) { return U{a[1], a[3], b[1], b[3]}; }
inline bool any(I mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }
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

#if !defined(__AVX512F__)
inline void store_first(float* to, F v, int64_t n) { std::memcpy(to, &v, static_cast<size_t>(n) * sizeof *to); }
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

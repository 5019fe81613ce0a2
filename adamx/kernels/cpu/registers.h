// One register of the processor, in the notation of GCC and Clang: operators work on all of its lanes. What has no
// notation stands here, once for each set of instructions.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(ADAMX_SANITIZED)  // or compiling takes minutes
#define ADAMX_INLINE inline
#else
#define ADAMX_INLINE [[gnu::always_inline]] inline
#endif

namespace adamx {
namespace ADAMX_ISA {

#if defined(__AVX512F__)
constexpr int kWide = 16;
#elif defined(__AVX2__)
constexpr int kWide = 8;
#else
constexpr int kWide = 4;
#endif

#if defined(__AVX2__) || defined(__aarch64__)
constexpr bool kFuses = true;
#else
constexpr bool kFuses = false;
#endif

typedef float FR __attribute__((vector_size(4 * kWide)));
typedef int32_t IR __attribute__((vector_size(4 * kWide)));
typedef uint32_t UR __attribute__((vector_size(4 * kWide)));

ADAMX_INLINE UR bits_of(FR x) { return reinterpret_cast<UR>(x); }
ADAMX_INLINE UR bits_of(IR x) { return reinterpret_cast<UR>(x); }
ADAMX_INLINE FR float_of(UR x) { return reinterpret_cast<FR>(x); }
ADAMX_INLINE IR signed_of(UR x) { return reinterpret_cast<IR>(x); }
ADAMX_INLINE FR to_float(IR x) { return __builtin_convertvector(x, FR); }

template <typename V>
ADAMX_INLINE V pick(IR mask, V a, V b) {
  return mask ? a : b;
}

ADAMX_INLINE UR larger(UR a, UR b) { return a > b ? a : b; }
ADAMX_INLINE UR smaller(UR a, UR b) { return a < b ? a : b; }

// Of floating numbers: b where either is NaN.
#if defined(__AVX512F__)

ADAMX_INLINE FR multiply_add(FR a, FR b, FR c) { return _mm512_fmadd_ps(a, b, c); }
ADAMX_INLINE FR smaller(FR a, FR b) { return _mm512_min_ps(a, b); }
ADAMX_INLINE FR larger(FR a, FR b) { return _mm512_max_ps(a, b); }
ADAMX_INLINE FR within(FR x, FR limit) {
  return _mm512_range_ps(x, limit, 2);  // the limit's size and x's sign where |x| is more
}
ADAMX_INLINE FR root(FR x) { return _mm512_sqrt_ps(x); }
ADAMX_INLINE UR absolute(IR x) { return (UR)_mm512_abs_epi32((__m512i)x); }
ADAMX_INLINE UR signed_like(UR x, FR sign) {
  return (UR)_mm512_mask_sub_epi32((__m512i)x, _mm512_movepi32_mask((__m512i)sign), _mm512_setzero_si512(), (__m512i)x);
}
ADAMX_INLINE bool any(IR mask) { return _mm512_movepi32_mask((__m512i)mask) != 0; }
ADAMX_INLINE UR by_index(UR index, UR from) { return (UR)_mm512_permutexvar_epi32((__m512i)index, (__m512i)from); }
ADAMX_INLINE FR among(const float* sixteen, UR index) {
  return _mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(sixteen));
}
ADAMX_INLINE UR evens(UR a, UR b) {
  const __m512i from = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return (UR)_mm512_permutex2var_epi32((__m512i)a, from, (__m512i)b);
}
ADAMX_INLINE UR odds(UR a, UR b) {
  const __m512i from = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return (UR)_mm512_permutex2var_epi32((__m512i)a, from, (__m512i)b);
}
ADAMX_INLINE UR widened(const uint16_t* from) {
  return (UR)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
}
ADAMX_INLINE UR widened(const int16_t* from) {
  return (UR)_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i*)from));
}
ADAMX_INLINE UR widened(const uint8_t* from) { return (UR)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)from)); }
ADAMX_INLINE UR widened(const int8_t* from) { return (UR)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)); }
ADAMX_INLINE FR from_float16(UR half) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)half)); }
ADAMX_INLINE UR to_float16(FR x) { return (UR)_mm512_cvtepu16_epi32(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }

#elif defined(__AVX2__)

ADAMX_INLINE FR multiply_add(FR a, FR b, FR c) { return _mm256_fmadd_ps(a, b, c); }
ADAMX_INLINE FR smaller(FR a, FR b) { return _mm256_min_ps(a, b); }
ADAMX_INLINE FR larger(FR a, FR b) { return _mm256_max_ps(a, b); }
ADAMX_INLINE FR within(FR x, FR limit) { return larger(-limit, smaller(limit, x)); }
ADAMX_INLINE FR root(FR x) { return _mm256_sqrt_ps(x); }
ADAMX_INLINE UR absolute(IR x) { return (UR)_mm256_abs_epi32((__m256i)x); }
ADAMX_INLINE UR signed_like(UR x, FR sign) { return (UR)_mm256_sign_epi32((__m256i)x, (__m256i)sign); }
ADAMX_INLINE bool any(IR mask) { return _mm256_movemask_ps((__m256)mask) != 0; }
ADAMX_INLINE UR by_index(UR index, UR from) { return (UR)_mm256_permutevar8x32_epi32((__m256i)from, (__m256i)index); }
ADAMX_INLINE FR among(const float* sixteen, UR index) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(sixteen), (__m256i)index);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(sixteen + 8), (__m256i)index);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32((__m256i)index, 28)));
}
ADAMX_INLINE UR evens(UR a, UR b) {
  const __m256 found = _mm256_shuffle_ps((__m256)a, (__m256)b, 0x88);  // two of a, two of b, and again
  return (UR)_mm256_permute4x64_epi64(_mm256_castps_si256(found), 0xD8);
}
ADAMX_INLINE UR odds(UR a, UR b) {
  const __m256 found = _mm256_shuffle_ps((__m256)a, (__m256)b, 0xDD);
  return (UR)_mm256_permute4x64_epi64(_mm256_castps_si256(found), 0xD8);
}
ADAMX_INLINE UR widened(const uint16_t* from) {
  return (UR)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from));
}
ADAMX_INLINE UR widened(const int16_t* from) {
  return (UR)_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i*)from));
}
ADAMX_INLINE UR widened(const uint8_t* from) { return (UR)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from)); }
ADAMX_INLINE UR widened(const int8_t* from) { return (UR)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)); }
ADAMX_INLINE FR from_float16(UR half) {
  const __m256i packed = _mm256_packus_epi32((__m256i)half, (__m256i)half);
  return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}
ADAMX_INLINE UR to_float16(FR x) { return (UR)_mm256_cvtepu16_epi32(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }

#else

#if defined(__aarch64__)
ADAMX_INLINE FR multiply_add(FR a, FR b, FR c) { return (FR)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
ADAMX_INLINE FR root(FR x) { return (FR)vsqrtq_f32((float32x4_t)x); }
#else
ADAMX_INLINE FR multiply_add(FR a, FR b, FR c) { return a * b + c; }
ADAMX_INLINE FR root(FR x) {
  for (int i = 0; i < kWide; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
#endif
ADAMX_INLINE FR smaller(FR a, FR b) { return a < b ? a : b; }
ADAMX_INLINE FR larger(FR a, FR b) { return a > b ? a : b; }
ADAMX_INLINE FR within(FR x, FR limit) { return larger(-limit, smaller(limit, x)); }
ADAMX_INLINE UR absolute(IR x) { return bits_of(x < 0 ? -x : x); }
ADAMX_INLINE UR signed_like(UR x, FR sign) { return signed_of(bits_of(sign)) < 0 ? -x : x; }
ADAMX_INLINE bool any(IR mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }
ADAMX_INLINE UR by_index(UR index, UR from) {
  UR found{};
  for (int i = 0; i < kWide; ++i) found[i] = from[index[i]];
  return found;
}
ADAMX_INLINE FR among(const float* sixteen, UR index) {
  FR found{};
  for (int i = 0; i < kWide; ++i) found[i] = sixteen[index[i]];
  return found;
}
ADAMX_INLINE UR evens(UR a, UR b) { return UR{a[0], a[2], b[0], b[2]}; }
ADAMX_INLINE UR odds(UR a, UR b) { return UR{a[1], a[3], b[1], b[3]}; }

template <typename T>
ADAMX_INLINE UR widened(const T* from) {
  typedef T Narrow __attribute__((vector_size(sizeof(T) * kWide)));
  Narrow narrow;
  std::memcpy(&narrow, from, sizeof narrow);
  return bits_of(__builtin_convertvector(narrow, IR));
}
ADAMX_INLINE FR from_float16(UR half) {
  const UR sign = (half & 0x8000u) << 16, size = half & 0x7FFFu;
  const UR normal = (size << 13) + (112u << 23), special = (size << 13) | 0x7F800000u;
  const UR subnormal = bits_of(to_float(signed_of(size)) * 0x1p-24f);
  const UR finite = size < 0x0400u ? subnormal : normal;
  return float_of(sign | (size >= 0x7C00u ? special : finite));
}
ADAMX_INLINE UR to_float16(FR x) {  // to nearest, ties to even
  const UR bits = bits_of(x), sign = (bits >> 16) & 0x8000u, size = bits & 0x7FFFFFFFu;
  const UR normal = (size - (112u << 23) + 0xFFFu + ((size >> 13) & 1u)) >> 13;
  const UR subnormal = bits_of(float_of(size) + 0.5f) - 0x3F000000u;
  const UR finite = size < 0x38800000u ? subnormal : normal;
  const UR special = size > 0x7F800000u ? UR{} + 0x7E00u : UR{} + 0x7C00u;
  return sign | (size >= 0x477FF000u ? special : finite);
}

#endif

}  // namespace ADAMX_ISA
}  // namespace adamx

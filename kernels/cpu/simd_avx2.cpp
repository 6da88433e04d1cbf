// SPDX-License-Identifier: Apache-2.0
// AVX2 + FMA: 6 keys x 16 queries = 12 accumulators, 2 panel registers, 1 broadcast.
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/simd.h"
#include "cpu/unroll.h"

namespace sparsight::cpu {
namespace {

struct Vec {
  static constexpr Index kWidth = 8;
  __m256 r;
  static Vec load(const float* p) { return {_mm256_load_ps(p)}; }
  static Vec loadu(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec set(float x) { return {_mm256_set1_ps(x)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.r, b.r, c.r)}; }
  static Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.r, b.r)}; }
  static Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.r, b.r)}; }
  static Vec exponent(Vec a) {
    const __m256i bits = _mm256_castps_si256(a.r);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(127)), 23))};
  }
  static float sum(Vec a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.r), _mm256_extractf128_ps(a.r, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float largest(Vec a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.r), _mm256_extractf128_ps(a.r, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }
  static __m256 less(Vec a, Vec b) { return _mm256_cmp_ps(a.r, b.r, _CMP_LT_OQ); }
  static Vec pick(__m256 which, Vec a, Vec b) { return {_mm256_blendv_ps(b.r, a.r, which)}; }
  static __m256i loadInt(const std::int32_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
  static void storeInt(std::int32_t* p, __m256i a) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), a); }
  static __m256i pickInt(__m256 which, std::int32_t a, __m256i b) {
    return _mm256_blendv_epi8(b, _mm256_set1_epi32(a), _mm256_castps_si256(which));
  }
  static Vec half(const std::uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static Vec bfloat(const std::uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
  }
  void store(float* p) const { _mm256_store_ps(p, r); }
  void storeu(float* p) const { _mm256_storeu_ps(p, r); }
  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.r, b.r)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.r, b.r)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.r, b.r)}; }
};

constexpr Index kPanelVecs = 2;
constexpr Index kKeyUnroll = 6;
constexpr Index kLaneUnroll = 4;

#include "cpu/simd_kernels-inl.h"

}  // namespace

const SimdKernels& avx2Kernels() noexcept {
  static constexpr SimdKernels kKernels = makeKernels("avx2");
  return kKernels;
}

}  // namespace sparsight::cpu
#endif

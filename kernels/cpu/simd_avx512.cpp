// SPDX-License-Identifier: Apache-2.0
// AVX-512 F/BW/DQ/VL: 12 keys x 32 queries = 24 accumulators, 2 panel registers, 1 broadcast.
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/simd.h"
#include "cpu/unroll.h"

namespace sparsight::cpu {
namespace {

struct Vec {
  static constexpr Index kWidth = 16;
  __m512 r;
  static Vec load(const float* p) { return {_mm512_load_ps(p)}; }
  static Vec loadu(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec set(float x) { return {_mm512_set1_ps(x)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.r, b.r, c.r)}; }
  static Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.r, b.r)}; }
  static Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.r, b.r)}; }
  static Vec exponent(Vec a) {
    const __m512i bits = _mm512_castps_si512(a.r);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(127)), 23))};
  }
  /// In hardware: the fraction above the integer below, a polynomial of degree 5 on [0, 1) with a relative error of
  /// 8.3e-8 that is exactly 1 at 0 (a least-squares fit reweighted towards equal ripples), and scaling by 2^floor(x).
  /// Subnormal results would be slow on some CPUs: 0 instead.
  static Vec exp2(Vec x) {
    constexpr int kFloor = 0x1;
    const __m512 f = _mm512_reduce_ps(x.r, kFloor);
    __m512 p = _mm512_set1_ps(0.0018671301659196615F);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.009017029777169228F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.05579991266131401F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.24016444385051727F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.6931512951850891F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0F));
    return {_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x.r, _mm512_set1_ps(-126.0F), _CMP_NLT_UQ), p, x.r)};
  }
  static float sum(Vec a) { return _mm512_reduce_add_ps(a.r); }
  static float largest(Vec a) { return _mm512_reduce_max_ps(a.r); }
  static __mmask16 less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.r, b.r, _CMP_LT_OQ); }
  static Vec pick(__mmask16 which, Vec a, Vec b) { return {_mm512_mask_mov_ps(b.r, which, a.r)}; }
  static __m512i loadInt(const std::int32_t* p) { return _mm512_load_si512(p); }
  static void storeInt(std::int32_t* p, __m512i a) { _mm512_store_si512(p, a); }
  static __m512i pickInt(__mmask16 which, std::int32_t a, __m512i b) { return _mm512_mask_set1_epi32(b, which, a); }
  static Vec half(const std::uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Vec bfloat(const std::uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
  }
  void store(float* p) const { _mm512_store_ps(p, r); }
  void storeu(float* p) const { _mm512_storeu_ps(p, r); }
  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.r, b.r)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.r, b.r)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.r, b.r)}; }
};

constexpr Index kPanelVecs = 2;
constexpr Index kKeyUnroll = 12;
constexpr Index kLaneUnroll = 8;

#include "cpu/simd_kernels-inl.h"

}  // namespace

const SimdKernels& avx512Kernels() noexcept {
  static constexpr SimdKernels kKernels = makeKernels("avx512");
  return kKernels;
}

}  // namespace sparsight::cpu
#endif

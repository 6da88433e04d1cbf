// SPDX-License-Identifier: Apache-2.0
// AVX-512 F/BW/DQ/VL: 12 keys x 32 queries = 24 accumulators, 2 panel registers, 1 broadcast.
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/simd.h"

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

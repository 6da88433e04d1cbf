// SPDX-License-Identifier: Apache-2.0
// AVX2 + FMA: 6 keys x 16 queries = 12 accumulators, 2 panel registers, 1 broadcast.
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/simd.h"

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

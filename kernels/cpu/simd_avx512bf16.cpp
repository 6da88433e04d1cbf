// SPDX-License-Identifier: Apache-2.0
// AVX-512 with bfloat16 dot products (vdpbf16ps): the AVX-512 loops, and scores of bfloat16 tensors at twice their
// rate.
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/simd.h"
#include "cpu/unroll.h"

namespace sparsight::cpu {
namespace {

constexpr Index kWidth = 16;
constexpr Index kVecs = 2;
constexpr Index kLanes = kWidth * kVecs;
constexpr Index kKeyUnroll = 12;  // 24 accumulators, 2 panel registers, 1 broadcast

/// Out of line as its float32 twin is, for the same reason.
template <Index kKeys>
__attribute__((noinline)) void dotKeys(const std::uint16_t* panel, const std::uint16_t* keys, Index stride, Index dim,
                                       float* scores, float* largest) {
  __m512 sum[std::size_t{kKeys}][kVecs];
  SPARSIGHT_UNROLL
  for (Index n = 0; n < kKeys; ++n) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kVecs; ++j) sum[n][j] = _mm512_setzero_ps();
  }
  for (Index i = 0; i < dim; i += 2) {
    __m512bh query[kVecs];
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kVecs; ++j) {
      query[j] = reinterpret_cast<__m512bh>(_mm512_load_si512(panel + i * kLanes + j * 2 * kWidth));
    }
    SPARSIGHT_UNROLL
    for (Index n = 0; n < kKeys; ++n) {
      std::int32_t pair = 0;
      __builtin_memcpy(&pair, keys + n * stride + i, sizeof pair);
      const auto key = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      SPARSIGHT_UNROLL
      for (Index j = 0; j < kVecs; ++j) sum[n][j] = _mm512_dpbf16_ps(sum[n][j], query[j], key);
    }
  }
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kVecs; ++j) {
    __m512 top = _mm512_load_ps(largest + j * kWidth);
    SPARSIGHT_UNROLL
    for (Index n = 0; n < kKeys; ++n) {
      _mm512_store_ps(scores + n * kLanes + j * kWidth, sum[n][j]);
      top = _mm512_max_ps(top, sum[n][j]);
    }
    _mm512_store_ps(largest + j * kWidth, top);
  }
}

void scoresKernel(const std::uint16_t* panel, const std::uint16_t* keys, Index stride, Index count, Index dim,
                  float* scores, float* largest) noexcept {
  Index n = 0;
  for (; n + kKeyUnroll <= count; n += kKeyUnroll) {
    dotKeys<kKeyUnroll>(panel, keys + n * stride, stride, dim, scores + n * kLanes, largest);
  }
  for (; n + 4 <= count; n += 4) dotKeys<4>(panel, keys + n * stride, stride, dim, scores + n * kLanes, largest);
  for (; n < count; ++n) dotKeys<1>(panel, keys + n * stride, stride, dim, scores + n * kLanes, largest);
}

double peakKernel(Index rounds, float* sink) noexcept {
  constexpr Index kChains = 24;
  __m512 sum[kChains];
  SPARSIGHT_UNROLL
  for (Index i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(sink[i]);
  const auto a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f003f00));  // pairs of 0.5
  const auto b = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3e803e80));  // pairs of 0.25
  for (Index r = 0; r < rounds; ++r) {
    SPARSIGHT_UNROLL
    for (Index i = 0; i < kChains; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
  }
  SPARSIGHT_UNROLL
  for (Index i = 1; i < kChains; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  sink[2] += _mm512_reduce_add_ps(sum[0]);
  return 4.0 * static_cast<double>(kChains * kWidth) * static_cast<double>(rounds);
}

}  // namespace

const SimdKernels& avx512Bf16Kernels() noexcept {
  static const SimdKernels kKernels = [] {
    SimdKernels kernels = avx512Kernels();
    kernels.name = "avx512bf16";
    kernels.scoresBf16 = scoresKernel;
    kernels.peakBf16 = peakKernel;
    return kernels;
  }();
  return kKernels;
}

}  // namespace sparsight::cpu
#endif

// SPDX-License-Identifier: Apache-2.0
// Any CPU: the compiler's portable 4-float vectors (SSE2 on x86-64, NEON on AArch64).
#include <cstdint>

#include "cpu/simd.h"

namespace sparsight::cpu {
namespace {

typedef float Float4 __attribute__((vector_size(16)));
typedef std::int32_t Int4 __attribute__((vector_size(16)));
typedef float Float4Unaligned __attribute__((vector_size(16), aligned(4), may_alias));

struct Vec {
  static constexpr Index kWidth = 4;
  Float4 r;
  static Vec load(const float* p) { return {*reinterpret_cast<const Float4*>(p)}; }
  static Vec loadu(const float* p) { return {*reinterpret_cast<const Float4Unaligned*>(p)}; }
  static Vec set(float x) { return {Float4{x, x, x, x}}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {a.r * b.r + c.r}; }
  /// b where either is NaN, as the x86 instructions do.
  static Vec max(Vec a, Vec b) { return {a.r > b.r ? a.r : b.r}; }
  static Vec min(Vec a, Vec b) { return {a.r < b.r ? a.r : b.r}; }
  /// 2^n of the integer n that sits in the low bits of a number of 1.5 * 2^23 + n.
  static Vec exponent(Vec a) {
    const Int4 bits = reinterpret_cast<Int4>(a.r);
    return {reinterpret_cast<Float4>((bits + 127) << 23)};
  }
  void store(float* p) const { *reinterpret_cast<Float4*>(p) = r; }
  void storeu(float* p) const { *reinterpret_cast<Float4Unaligned*>(p) = r; }
  friend Vec operator+(Vec a, Vec b) { return {a.r + b.r}; }
  friend Vec operator-(Vec a, Vec b) { return {a.r - b.r}; }
  friend Vec operator*(Vec a, Vec b) { return {a.r * b.r}; }
};

constexpr Index kPanelVecs = 4;
constexpr Index kKeyUnroll = 2;
constexpr Index kLaneUnroll = 4;

#include "cpu/simd_kernels-inl.h"

}  // namespace

const SimdKernels& baselineKernels() noexcept {
  static constexpr SimdKernels kKernels = makeKernels("baseline");
  return kKernels;
}

}  // namespace sparsight::cpu

// SPDX-License-Identifier: Apache-2.0
// Any CPU: the compiler's portable 4-float vectors (SSE2 on x86-64, NEON on AArch64).
#include <cstdint>

#include "cpu/simd.h"
#include "cpu/unroll.h"

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
  static float sum(Vec a) { return (a.r[0] + a.r[2]) + (a.r[1] + a.r[3]); }
  static float largest(Vec a) {
    const float x = a.r[0] > a.r[2] ? a.r[0] : a.r[2];
    const float y = a.r[1] > a.r[3] ? a.r[1] : a.r[3];
    return x > y ? x : y;
  }
  static Int4 less(Vec a, Vec b) { return a.r < b.r; }
  static Vec pick(Int4 which, Vec a, Vec b) { return {which ? a.r : b.r}; }
  static Int4 loadInt(const std::int32_t* p) { return Int4{p[0], p[1], p[2], p[3]}; }
  static void storeInt(std::int32_t* p, Int4 a) {
    for (int i = 0; i < 4; ++i) p[i] = a[i];
  }
  static Int4 pickInt(Int4 which, std::int32_t a, Int4 b) { return which ? Int4{a, a, a, a} : b; }
  static Vec half(const std::uint16_t* p) {
    const Int4 bits{p[0], p[1], p[2], p[3]};
    const Int4 rest = bits & 0x7fff;
    // As detail::halfToFloat: half's exponent is 112 too small, which a multiplication mends for normals and
    // subnormals alike; infinity and NaN need the full exponent instead.
    const Int4 magnitude = reinterpret_cast<Int4>(reinterpret_cast<Float4>(rest << 13) * 0x1p112F);
    const Int4 special = (rest << 13) | 0x7f800000;
    const Int4 value = rest >= 0x7c00 ? special : magnitude;
    return {reinterpret_cast<Float4>(value | ((bits & 0x8000) << 16))};
  }
  static Vec bfloat(const std::uint16_t* p) { return {reinterpret_cast<Float4>(Int4{p[0], p[1], p[2], p[3]} << 16)}; }
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

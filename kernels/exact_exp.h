// SPDX-License-Identifier: Apache-2.0
#pragma once

// Arithmetic in double that has the same bits on the host and on a GPU: every operation is rounded on its own. Host
// sources that use it are compiled with -ffp-contract=off.

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define SPARSIGHT_EXACT __device__ __forceinline__
#else
#define SPARSIGHT_EXACT inline
#endif

namespace sparsight::exact {

SPARSIGHT_EXACT double mul(double a, double b) {
#ifdef __CUDACC__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}
SPARSIGHT_EXACT double add(double a, double b) {
#ifdef __CUDACC__
  return __dadd_rn(a, b);
#else
  return a + b;
#endif
}
SPARSIGHT_EXACT double sub(double a, double b) {
#ifdef __CUDACC__
  return __dsub_rn(a, b);
#else
  return a - b;
#endif
}
SPARSIGHT_EXACT double div(double a, double b) {
#ifdef __CUDACC__
  return __ddiv_rn(a, b);
#else
  return a / b;
#endif
}
SPARSIGHT_EXACT std::uint64_t bitsOf(double x) {
  std::uint64_t bits = 0;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
/// 2^n, -1022 <= n <= 1023.
SPARSIGHT_EXACT double powerOfTwo(std::int32_t n) {
  const std::uint64_t bits = static_cast<std::uint64_t>(static_cast<std::int64_t>(n) + 1023) << 52U;
  double x = 0;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/// e^x to within 1 ulp of the C library's, subnormal results included; 0 and infinity beyond; NaN stays NaN. Reduction
/// and rational approximation of fdlibm (e_exp.c: error below 1 ulp).
SPARSIGHT_EXACT double exp(double x) {
  x = x < -746.0 ? -746.0 : x;  // gives 0
  x = x > 710.0 ? 710.0 : x;    // gives infinity
  // Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits.
  const double shifted = add(mul(x, 1.44269504088896338700e+00), 0x1.8p52);
  const auto n = static_cast<std::int32_t>(static_cast<std::uint32_t>(bitsOf(shifted)));
  const double whole = sub(shifted, 0x1.8p52);
  const double high = sub(x, mul(whole, 6.93147180369123816490e-01));  // ln 2 in two parts: this product is exact
  const double low = mul(whole, 1.90821492927058770002e-10);
  const double r = sub(high, low);
  const double z = mul(r, r);
  double p = add(mul(z, 4.13813679705723846039e-08), -1.65339022054652515390e-06);
  p = add(mul(z, p), 6.61375632143793436117e-05);
  p = add(mul(z, p), -2.77777777770155933842e-03);
  p = add(mul(z, p), 1.66666666666666019037e-01);
  const double c = sub(r, mul(z, p));
  const double y = sub(1.0, sub(sub(low, div(mul(r, c), sub(2.0, c))), high));
  // In two steps: 2^n alone may be no number while the result is one. Only the second can round.
  const std::int32_t half = n >> 1;
  return mul(mul(y, powerOfTwo(half)), powerOfTwo(n - half));
}

/// For sorting: falls as a probability (never negative) rises, so that its bits stand in its order; NaN comes last.
SPARSIGHT_EXACT std::uint64_t rankOf(double probability) {
  constexpr std::uint64_t kLast = ~std::uint64_t{0} >> 1U;
  return probability == probability ? kLast - bitsOf(probability) : kLast;
}

}  // namespace sparsight::exact

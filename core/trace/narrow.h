// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

namespace sparsight::trace {

/// binary32 to binary16, round to nearest even; overflow gives infinity, NaN stays NaN.
[[nodiscard]] inline std::uint16_t floatToHalf(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16U) & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);
  if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);  // 65520 and up round to infinity
  if (magnitude < 0x38800000U) {
    // Below 2^-14 halves are multiples of 2^-24. Adding 0.5 puts the value's last kept bit at single's last bit (ulp of
    // [0.5, 1) is 2^-24), so that the addition itself rounds to nearest even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign |
                                      (std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0.5F)));
  }
  const std::uint32_t rebased = magnitude - 0x38000000U;
  const std::uint32_t rounded = rebased + 0xfffU + ((rebased >> 13U) & 1U);
  return static_cast<std::uint16_t>(sign | (rounded >> 13U));
}

/// binary32 to bfloat16, round to nearest even; NaN stays NaN.
[[nodiscard]] inline std::uint16_t floatToBfloat(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

}  // namespace sparsight::trace

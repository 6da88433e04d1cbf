// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

#include "sparsight/kernels/types.h"

namespace sparsight::detail {

/// IEEE binary16 to binary32; exact for every bit pattern (subnormals and infinities; a NaN stays a NaN with its
/// payload).
[[nodiscard]] inline float halfToFloat(std::uint16_t half) noexcept {
  const std::uint32_t sign = (half & 0x8000U) << 16U;
  const std::uint32_t rest = half & 0x7fffU;
  // Half's exponent moved into single's place is 112 too small. Multiplying by 2^112 mends it for normals and
  // subnormals alike (exactly: a power of two, and the result is a normal number); infinity and NaN need the full
  // exponent instead.
  if (rest >= 0x7c00U) return std::bit_cast<float>(sign | (rest << 13U) | 0x7f800000U);
  const float magnitude = std::bit_cast<float>(rest << 13U) * 0x1p112F;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

/// bfloat16 is the upper half of a binary32.
[[nodiscard]] inline float bfloatToFloat(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
}

/// rowToFloat without checks, for loops over rows known to be inside.
void convertRow(const MatrixView& view, Index row, float* out) noexcept;

}  // namespace sparsight::detail

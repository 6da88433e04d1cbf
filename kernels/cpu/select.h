// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "sparsight/kernels/types.h"

/// Exact selection by radix refinement: one histogram over a row, then only the members of the bucket that holds the
/// answer. No row is ever sorted whole.
namespace sparsight::cpu {

/// Unsigned integers in the order of the floats (-0 equals +0).
[[nodiscard]] inline std::uint32_t orderedBits(float x) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(x + 0.0F);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
[[nodiscard]] inline float fromOrderedBits(std::uint32_t ordered) noexcept {
  return std::bit_cast<float>((ordered & 0x80000000U) != 0 ? ordered & 0x7fffffffU : ~ordered);
}

/// Keeps everything above `value` and the first `ties` that equal it.
struct TopCut {
  float value = 0;
  Index ties = 0;
};

/// Working memory of the selections, reused from row to row.
class Selector {
 public:
  Selector();
  /// The cut that keeps the `count` largest of a row; count is limited to the entries above -inf.
  /// Nothing to keep: value = +inf, ties = 0.
  [[nodiscard]] TopCut top(std::span<const float> row, Index count);
  /// Smallest number of largest weights whose sum reaches mass x the sum of all; weights >= 0, sums in double.
  [[nodiscard]] Index countForMass(std::span<const float> weights, double mass);

 private:
  struct Bucket {
    Index count;
    double sum;
  };
  std::vector<Bucket> m_buckets;
  std::vector<Index> m_counts;
  std::vector<std::uint32_t> m_members, m_next;
};

}  // namespace sparsight::cpu

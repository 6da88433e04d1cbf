// SPDX-License-Identifier: Apache-2.0
#pragma once

// Rows of a matrix in another order.

#include "cuda/score_tile.h"

namespace sparsight::cuda {

struct GatherParams {
  const void* from;           ///< [., rowUnits] units of 16 bytes
  void* to;                   ///< [rowCount, rowUnits]
  const std::int32_t* order;  ///< [rowCount] rows of `from`
  std::int32_t rowCount;
  std::int32_t rowUnits;
};
struct GatherState {};

/// Units that a thread has under way at once.
inline constexpr int kGatherUnits = 4;
/// Rows of a block.
constexpr std::int32_t gatherRowsOf(std::int32_t rowUnits) {
  return rowUnits < kGatherUnits * kThreads ? kGatherUnits * kThreads / rowUnits : 1;
}

/// Block x: gatherRowsOf(rowUnits) rows. Neighbouring threads copy neighbouring units: a row is read and written in
/// whole sectors.
template <class Block>
SPARSIGHT_DEVICE void gatherBody(Block& block, const GatherParams& p) {
  const std::int32_t perBlock = gatherRowsOf(p.rowUnits);
  const std::int64_t first = static_cast<std::int64_t>(block.x()) * perBlock;
  if (first >= p.rowCount) return;
  const auto rows = static_cast<std::int32_t>(p.rowCount - first < perBlock ? p.rowCount - first : perBlock);
  const auto units = static_cast<std::uint32_t>(rows * p.rowUnits);
  const auto width = static_cast<std::uint32_t>(p.rowUnits);
  block.each([&](int t, auto&) {
    const Words4* const from = static_cast<const Words4*>(p.from);
    Words4* const to = static_cast<Words4*>(p.to) + first * p.rowUnits;
    for (std::uint32_t base = 0; base < units; base += kGatherUnits * kThreads) {
      // All loads before the first store: they wait for memory together.
      Words4 words[kGatherUnits];
      SPARSIGHT_UNROLL
      for (int n = 0; n < kGatherUnits; ++n) {
        const std::uint32_t i = base + static_cast<std::uint32_t>(t + n * kThreads);
        if (i >= units) continue;
        const std::uint32_t row = i / width;
        words[n] = from[static_cast<std::int64_t>(p.order[first + row]) * p.rowUnits + (i - row * width)];
      }
      SPARSIGHT_UNROLL
      for (int n = 0; n < kGatherUnits; ++n) {
        const std::uint32_t i = base + static_cast<std::uint32_t>(t + n * kThreads);
        if (i < units) to[i] = words[n];
      }
    }
  });
}

}  // namespace sparsight::cuda

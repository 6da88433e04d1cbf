// SPDX-License-Identifier: Apache-2.0
#pragma once

// How an operation is cut into launches and blocks. Host arithmetic only, a function of the shapes alone (never of the
// device or of time), so that results are the same on every run; tested without a GPU.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "sparsight/kernels/types.h"

namespace sparsight::cuda {

/// Rows of a tile; launches start at multiples of it.
inline constexpr Index kPanelStep = 64;
/// Keys of a sub-block at most: bounds the fp32 sums and lets one row's keys run in several blocks.
inline constexpr Index kMaxSubKeys = 2048;
/// Blocks that a launch should have where the shape allows: several per multiprocessor of the largest GPU.
inline constexpr Index kWantedBlocks = 1024;
/// How large a launch may become; constants outside of tests.
struct LaunchLimits {
  double work = 7.5e10;                   ///< multiply-adds: below 50 ms on a small GPU, so that stopping stays prompt
  Index scratchBytes = Index{256} << 20;  ///< unless one step of rows needs more
};

/// A column partition cut into sub-blocks that never cross its edges and never are empty.
struct ColumnPlan {
  std::vector<std::int32_t> subBounds;  ///< [subs + 1] key edges, strictly increasing
  std::vector<std::int32_t> subPtr;     ///< [columns + 1] sub-blocks of each column; equal for a zero-length column
  std::vector<std::int32_t> splitPtr;   ///< [splits + 1] sub-blocks of each block column of the launch
  Index panelRows = 0;                  ///< query rows of a launch, a multiple of kPanelStep

  [[nodiscard]] Index subs() const noexcept { return static_cast<Index>(subBounds.size()) - 1; }
  [[nodiscard]] Index splits() const noexcept { return static_cast<Index>(splitPtr.size()) - 1; }
};

/// Rows of one launch of a kernel that does `workPerRow` multiply-adds and needs `bytesPerRow` of scratch per row:
/// a multiple of kPanelStep, at least one step, at most what `rows` needs.
[[nodiscard]] inline Index rowsPerLaunch(const LaunchLimits& limits, Index rows, double workPerRow, Index bytesPerRow) {
  const double byWork = limits.work / std::max(workPerRow, 1.0);
  const double byBytes =
      static_cast<double>(limits.scratchBytes) / static_cast<double>(std::max<Index>(bytesPerRow, 1));
  const double most = std::min(byWork, byBytes) / static_cast<double>(kPanelStep);
  const Index needed = std::max<Index>(1, (rows + kPanelStep - 1) / kPanelStep);
  return (most >= static_cast<double>(needed) ? needed : std::max<Index>(1, static_cast<Index>(most))) * kPanelStep;
}

/// colBounds: edges of at least one column, non-decreasing, below 2^31. rows: query rows of the operation; depth:
/// padded head dimension; scratch per launch row: bytesPerPair for each sub-block and bytesPerRow once.
[[nodiscard]] inline ColumnPlan planColumns(const LaunchLimits& limits, std::span<const Index> colBounds, Index rows,
                                            Index depth, Index bytesPerPair, Index bytesPerRow) {
  ColumnPlan plan;
  const Index first = colBounds.front();
  const Index last = colBounds.back();
  plan.subBounds.push_back(static_cast<std::int32_t>(first));
  plan.subPtr.push_back(0);
  for (std::size_t c = 0; c + 1 < colBounds.size(); ++c) {
    const Index width = colBounds[c + 1] - colBounds[c];
    const Index pieces = (width + kMaxSubKeys - 1) / kMaxSubKeys;
    for (Index i = 1; i <= pieces; ++i) {
      plan.subBounds.push_back(static_cast<std::int32_t>(colBounds[c] + width * i / pieces));
    }
    plan.subPtr.push_back(static_cast<std::int32_t>(plan.subs()));
  }
  const Index subs = plan.subs();
  plan.panelRows = rowsPerLaunch(limits, rows, static_cast<double>(last - first) * static_cast<double>(depth),
                                 subs * bytesPerPair + bytesPerRow);
  plan.splitPtr.push_back(0);
  const Index rowTiles = plan.panelRows / kPanelStep;
  const Index wanted = std::clamp<Index>((kWantedBlocks + rowTiles - 1) / rowTiles, 1, std::max<Index>(subs, 1));
  for (Index i = 1; i < wanted; ++i) {
    // The sub-block edge at or behind an equal share of the keys.
    const auto edge = static_cast<std::int32_t>(first + (last - first) * i / wanted);
    const auto sub = static_cast<std::int32_t>(std::lower_bound(plan.subBounds.begin(), plan.subBounds.end(), edge) -
                                               plan.subBounds.begin());
    if (sub > plan.splitPtr.back() && sub < subs) plan.splitPtr.push_back(sub);
  }
  if (subs > 0) plan.splitPtr.push_back(static_cast<std::int32_t>(subs));
  return plan;
}

/// Row blocks [first, last) that hold the rows [row0, rowEnd), a non-empty range within the partition `bounds`. Blocks
/// in between that have no rows are included.
struct BlockRange {
  Index first = 0;
  Index last = 0;
};
[[nodiscard]] inline BlockRange blocksOfRows(std::span<const Index> bounds, Index row0, Index rowEnd) {
  return {std::upper_bound(bounds.begin(), bounds.end(), row0) - bounds.begin() - 1,
          std::lower_bound(bounds.begin(), bounds.end(), rowEnd) - bounds.begin()};
}

}  // namespace sparsight::cuda

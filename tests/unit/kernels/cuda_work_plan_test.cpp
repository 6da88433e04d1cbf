// SPDX-License-Identifier: Apache-2.0
// Index arithmetic of the CUDA launches, on random partitions.
#include "cuda/work_plan.h"

#include <gtest/gtest.h>

#include <random>

namespace sparsight::cuda {
namespace {

std::vector<Index> randomBounds(std::mt19937& random, Index first, Index last, Index blocks) {
  std::uniform_int_distribution<Index> edge(first, last);
  std::vector<Index> bounds{first, last};
  for (Index i = 1; i < blocks; ++i) bounds.push_back(edge(random));
  std::sort(bounds.begin(), bounds.end());
  return bounds;
}

TEST(CudaWorkPlan, SubBlocksTileEveryColumn) {
  std::mt19937 random(7);
  for (int round = 0; round < 500; ++round) {
    const Index first = static_cast<Index>(random() % 1000);
    const Index last = first + static_cast<Index>(random() % 20000);
    const std::vector<Index> cols = randomBounds(random, first, last, 1 + static_cast<Index>(random() % 40));
    const Index rows = 1 + static_cast<Index>(random() % 100000);
    const ColumnPlan plan = planColumns({}, cols, rows, 128, 8, 0);
    ASSERT_EQ(plan.subPtr.size(), cols.size());
    ASSERT_EQ(plan.subBounds.front(), first);
    ASSERT_EQ(plan.subBounds.back(), last);
    for (std::size_t s = 0; s + 1 < plan.subBounds.size(); ++s) {
      ASSERT_LT(plan.subBounds[s], plan.subBounds[s + 1]);
      ASSERT_LE(plan.subBounds[s + 1] - plan.subBounds[s], kMaxSubKeys);
    }
    for (std::size_t c = 0; c + 1 < cols.size(); ++c) {
      ASSERT_EQ(plan.subBounds[static_cast<std::size_t>(plan.subPtr[c])], cols[c]);
      ASSERT_EQ(plan.subBounds[static_cast<std::size_t>(plan.subPtr[c + 1])], cols[c + 1]);
      ASSERT_EQ(plan.subPtr[c] == plan.subPtr[c + 1], cols[c] == cols[c + 1]);
    }
    ASSERT_EQ(plan.splitPtr.front(), 0);
    ASSERT_EQ(plan.splitPtr.back(), plan.subs());
    for (std::size_t s = 0; s + 1 < plan.splitPtr.size(); ++s) ASSERT_LT(plan.splitPtr[s], plan.splitPtr[s + 1]);
  }
}

TEST(CudaWorkPlan, LaunchesFillTheDeviceWhereTheShapeAllows) {
  // The whole map of a 118,800-token head in 512 columns: enough blocks, and about equal shares.
  std::vector<Index> cols;
  for (Index i = 0; i <= 512; ++i) cols.push_back(i * 118800 / 512);
  const ColumnPlan plan = planColumns({}, cols, 118800, 128, 8, 0);
  EXPECT_EQ(plan.subs(), 512);
  EXPECT_GE(plan.panelRows / kPanelStep * plan.splits(), kWantedBlocks);
  for (std::size_t s = 0; s + 1 < plan.splitPtr.size(); ++s) {
    const Index keys = plan.subBounds[static_cast<std::size_t>(plan.splitPtr[s + 1])] -
                       plan.subBounds[static_cast<std::size_t>(plan.splitPtr[s])];
    EXPECT_LE(keys, 118800 / plan.splits() + 2 * 233);
  }
  EXPECT_LE(static_cast<double>(plan.panelRows) * 118800 * 128, LaunchLimits{}.work);
  EXPECT_LE(plan.panelRows * plan.subs() * 8, LaunchLimits{}.scratchBytes);
}

TEST(CudaWorkPlan, RowsPerLaunchRespectsLimits) {
  std::mt19937 random(11);
  for (int round = 0; round < 1000; ++round) {
    const Index rows = static_cast<Index>(random() % 200000);
    const double work = static_cast<double>(random() % 100000000);
    const Index bytes = static_cast<Index>(random() % 3000000);
    const LaunchLimits limits;
    const Index launch = rowsPerLaunch(limits, rows, work, bytes);
    ASSERT_GE(launch, kPanelStep);
    ASSERT_EQ(launch % kPanelStep, 0);
    ASSERT_LT(launch, rows + kPanelStep + (rows == 0 ? 1 : 0));
    if (launch > kPanelStep) {
      ASSERT_LE(static_cast<double>(launch) * work, limits.work);
      ASSERT_LE(launch * bytes, limits.scratchBytes);
    }
  }
}

TEST(CudaWorkPlan, BlocksOfRowsHoldExactlyTheRange) {
  std::mt19937 random(13);
  for (int round = 0; round < 2000; ++round) {
    const Index first = static_cast<Index>(random() % 50);
    const Index last = first + 1 + static_cast<Index>(random() % 300);
    const std::vector<Index> bounds = randomBounds(random, first, last, 1 + static_cast<Index>(random() % 30));
    const Index row0 = first + static_cast<Index>(random() % static_cast<std::uint64_t>(last - first));
    const Index rowEnd = row0 + 1 + static_cast<Index>(random() % static_cast<std::uint64_t>(last - row0));
    const BlockRange range = blocksOfRows(bounds, row0, rowEnd);
    ASSERT_GE(range.first, 0);
    ASSERT_LT(range.first, range.last);
    ASSERT_LT(range.last, static_cast<Index>(bounds.size()));
    for (Index b = 0; b + 1 < static_cast<Index>(bounds.size()); ++b) {
      const auto at = static_cast<std::size_t>(b);
      const bool intersects = std::max(bounds[at], row0) < std::min(bounds[at + 1], rowEnd);
      if (intersects) {
        ASSERT_TRUE(b >= range.first && b < range.last);
      }
    }
    ASSERT_LE(bounds[static_cast<std::size_t>(range.first)], row0);
    ASSERT_GE(bounds[static_cast<std::size_t>(range.last)], rowEnd);
  }
}

}  // namespace
}  // namespace sparsight::cuda

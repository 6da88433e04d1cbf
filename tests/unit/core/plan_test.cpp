// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace sparsight {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;

// 5 queries, 6 keys, blocks of 2 (last row block 1, one zero-length key block), rows 0-1 keep [0,2), row 2 keeps [1,5),
// rows 3-4 keep [0,1) and [4,6).
Plan bandedPlan() {
  Plan plan;
  plan.queryCount = 5;
  plan.keyCount = 6;
  plan.qBounds = {0, 2, 4, 5};
  plan.kBounds = {0, 2, 4, 4, 6};
  plan.intervalRows = {0, 2, 3, 5};
  plan.rowIntervalsPtr = {0, 1, 2, 4};
  plan.rowIntervals = {{0, 2}, {1, 5}, {0, 1}, {4, 6}};
  plan.deriveBlockMask();
  return plan;
}

std::string brokenRule(const std::function<void(Plan&)>& breakIt) {
  Plan plan = bandedPlan();
  breakIt(plan);
  try {
    plan.validate();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::InvalidArgument);
    return error.what();
  }
  return "accepted";
}

TEST(Plan, BlockMaskFollowsTheIntervals) {
  const Plan plan = bandedPlan();
  EXPECT_NO_THROW(plan.validate());
  EXPECT_THAT(plan.blockMask, ElementsAre(1, 0, 0, 0,    // rows 0-1: [0,2) whole
                                          2, 2, 0, 2,    // rows 2-3
                                          2, 0, 0, 1));  // row 4
}

TEST(Plan, ZeroLengthBlocksKeepTheirState) {
  Plan plan = bandedPlan();
  plan.blockMask[2] = 1;
  plan.deriveBlockMask();
  EXPECT_EQ(plan.blockMask[2], 1);
  EXPECT_NO_THROW(plan.validate());
}

TEST(Plan, LargeBandsAreDerivedWithoutPairs) {
  // 100,000 tokens, band of 1,000: 10^10 pairs, but 10^5 intervals.
  constexpr Index kTokens = 100000;
  Plan plan;
  plan.queryCount = plan.keyCount = kTokens;
  plan.intervalRows.push_back(0);
  plan.rowIntervalsPtr.push_back(0);
  for (Index row = 0; row < kTokens; ++row) {
    plan.rowIntervals.push_back({std::max<Index>(0, row - 1000), std::min(kTokens, row + 1001)});
    plan.intervalRows.push_back(row + 1);
    plan.rowIntervalsPtr.push_back(row + 1);
  }
  for (Index edge = 0; edge <= kTokens; edge += 100) plan.qBounds.push_back(edge);
  plan.kBounds = plan.qBounds;
  plan.deriveBlockMask();
  plan.validate();
  const auto state = [&](Index i, Index j) { return plan.blockMask[static_cast<std::size_t>(i * 1000 + j)]; };
  EXPECT_EQ(state(500, 500), 1);
  EXPECT_EQ(state(500, 491), 1);
  EXPECT_EQ(state(500, 490), 2);
  EXPECT_EQ(state(500, 510), 2);
  EXPECT_EQ(state(500, 511), 0);
}

TEST(Plan, KeptIntervalsComeFromIntervalsOrBlocks) {
  EXPECT_THAT(bandedPlan().keptIntervals(4), ElementsAre(Interval{0, 1}, Interval{4, 6}));
  Plan plan = bandedPlan();
  plan.intervalRows.clear();
  plan.rowIntervalsPtr.clear();
  plan.rowIntervals.clear();
  plan.blockMask = {1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1};
  plan.validate();
  EXPECT_THAT(plan.keptIntervals(0), ElementsAre(Interval{0, 4}));
  EXPECT_THAT(plan.keptIntervals(2), ElementsAre());
  EXPECT_THAT(plan.keptIntervals(4), ElementsAre(Interval{2, 6}));
  EXPECT_THROW((void)plan.keptIntervals(5), Error);
}

TEST(Plan, IsKeptMapsModelTokensToPositions) {
  Plan plan = bandedPlan();
  plan.qOrder = {4, 3, 2, 1, 0};
  plan.kOrder = {1, 0, 2, 3, 4, 5};
  plan.validate();
  // Row 4 is position 0 and keeps positions 0 and 1, tokens 1 and 0.
  EXPECT_EQ(isKept(plan, 4, 0), true);
  EXPECT_EQ(isKept(plan, 4, 2), false);
  // Row 0 is position 4: positions 0 (token 1), 4, 5.
  EXPECT_EQ(isKept(plan, 0, 1), true);
  EXPECT_EQ(isKept(plan, 0, 0), false);
  EXPECT_EQ(isKept(plan, 0, 5), true);
  EXPECT_THROW((void)isKept(plan, 0, 6), Error);
}

TEST(Plan, IsKeptIsUnknownForRowCounts) {
  Plan plan = densePlan(2, 3);
  plan.blockMask = {2};
  plan.rowCount = {1, 2};
  plan.rowThreshold = {0.5F, 0.1F};
  plan.validate();
  EXPECT_EQ(isKept(plan, 0, 0), std::nullopt);
  EXPECT_THROW((void)plan.keptIntervals(0), Error);
}

TEST(Plan, DensePlanKeepsEverything) {
  const Plan plan = densePlan(7, 9);
  plan.validate();
  EXPECT_THAT(plan.keptIntervals(3), ElementsAre(Interval{0, 9}));
  EXPECT_EQ(isKept(plan, 6, 8), true);
}

TEST(Plan, ValidateNamesTheBrokenRule) {
  EXPECT_THAT(brokenRule([](Plan& p) { p.qOrder = {0, 1, 2, 3}; }), HasSubstr("q_order has 4"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.kOrder = {0, 1, 2, 3, 4, 4}; }), HasSubstr("k_order is no permutation"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.kOrder = {0, 1, 2, 3, 4, 6}; }), HasSubstr("k_order is no permutation"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.qBounds = {0, 3, 2, 5}; }), HasSubstr("q_bounds decreases"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.kBounds.back() = 5; }), HasSubstr("k_bounds runs from 0 to 5"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.qBounds = {}; }), HasSubstr("q_bounds needs"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.blockMask.pop_back(); }), HasSubstr("block_mask has 11"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.blockMask[0] = 3; }), HasSubstr("block_mask holds 3"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.blockMask[0] = 0; }), HasSubstr("block (0, 0)"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.intervalRows = {0, 2, 3, 4}; }), HasSubstr("interval_rows"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.rowIntervalsPtr.back() = 5; }), HasSubstr("row_intervals_ptr"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.rowIntervals[0] = {2, 2}; }), HasSubstr("group 0"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.rowIntervals[3] = {0, 2}; }), HasSubstr("group 2"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.rowIntervals[1].last = 7; }), HasSubstr("group 1"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.rowCount = {1, 1, 1, 1, 1}; }), HasSubstr("row_threshold"));
  EXPECT_THAT(brokenRule([](Plan& p) {
                p.rowCount = {1, 1, 1, 1, 1};
                p.rowThreshold = {0, 0, 0, 0, 0};
              }),
              HasSubstr("exclude each other"));
  EXPECT_THAT(brokenRule([](Plan& p) {
                p.intervalRows.clear();
                p.rowIntervalsPtr.clear();
                p.rowIntervals.clear();
              }),
              HasSubstr("partial blocks"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.scores = {1.0F}; }), HasSubstr("scores"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.lse = {1.0F}; }), HasSubstr("lse"));
  EXPECT_THAT(brokenRule([](Plan& p) { p.kLabels = {1}; }), HasSubstr("k_labels"));
  EXPECT_EQ(brokenRule([](Plan&) {}), "accepted");
}

TEST(Plan, RowCountsBeyondTheKeysAreRefused) {
  Plan plan = densePlan(1, 3);
  plan.blockMask = {2};
  plan.rowCount = {4};
  plan.rowThreshold = {0};
  EXPECT_THROW(plan.validate(), Error);
}

}  // namespace
}  // namespace sparsight

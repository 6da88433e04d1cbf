// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/tile_scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <set>
#include <tuple>

namespace sparsight {
namespace {

using testing::ElementsAre;
using Time = TileScheduler::Time;

constexpr TileGrid kGrid{118'800, 118'800, 8, 9};
constexpr Index kDim = 128;
constexpr double kSide = kTileCells;

/// Tiles, a lane that computes them one by one in order of request, and a clock: all by hand.
struct Desk {
  TileScheduler scheduler;
  std::set<TileKey> there;
  std::deque<TileWish> lane;
  std::vector<TileKey> cancelled;
  Time now{0};
  std::optional<Time> wake;

  explicit Desk(const TileScheduler::Options& options = {}) : scheduler(options) {}
  TileScheduler::Step look(const TileView& view, bool quiet = true, bool affordable = true) {
    TileScheduler::Step step = scheduler.plan(
        kGrid, view, kDim, [this](const TileKey& key) { return there.contains(key); }, affordable, quiet, now);
    for (const TileKey& key : step.cancel) {
      const auto at = std::find_if(lane.begin(), lane.end(), [&](const TileWish& wish) { return wish.key == key; });
      EXPECT_NE(at, lane.end()) << "cancelled, but not in flight";
      if (at != lane.end()) lane.erase(at);
      cancelled.push_back(key);
    }
    lane.insert(lane.end(), step.start.begin(), step.start.end());
    EXPECT_EQ(lane.size(), scheduler.inFlight());
    wake = step.wake;
    return step;
  }
  std::optional<TileWish> computeOne() {
    if (lane.empty()) return std::nullopt;
    const TileWish wish = lane.front();
    lane.pop_front();
    there.insert(wish.key);
    scheduler.ended(wish.key);
    return wish;
  }
  /// Computes everything the view leads to; the order in which it came.
  std::vector<TileWish> settle(const TileView& view) {
    std::vector<TileWish> order;
    for (int i = 0; i < 10'000; ++i) {
      look(view);
      if (const auto done = computeOne()) {
        order.push_back(*done);
      } else if (wake) {
        now = *wake;
      } else {
        break;
      }
    }
    return order;
  }
};

/// Level 0, in tiles.
TileView tiles(double x, double y, double w, double h) {
  return {y * kSide, x * kSide, h * kSide, w * kSide, 0, Reduce::Max};
}

TEST(TileSchedulerTest, VisibleFirstFromTheCentreOutThenCoarserThenTheRing) {
  Desk desk;
  const TileView view = tiles(10, 20, 3, 3);
  const std::vector<TileWish> order = desk.settle(view);
  ASSERT_EQ(order.size(), 9U + 4U + 16U);
  EXPECT_EQ(order[0].key, (TileKey{0, 11, 21, Reduce::Max})) << "the middle one";
  double last = 0;
  for (std::size_t i = 0; i < 9; ++i) {
    EXPECT_EQ(order[i].role, TileRole::Visible);
    const double dx = static_cast<double>(order[i].key.tileX) - 11, dy = static_cast<double>(order[i].key.tileY) - 21;
    EXPECT_GE(std::hypot(dx, dy), last - 1e-9);
    last = std::hypot(dx, dy);
  }
  for (std::size_t i = 9; i < 13; ++i) EXPECT_EQ(order[i].role, TileRole::Coarser);
  for (std::size_t i = 13; i < order.size(); ++i) {
    EXPECT_EQ(order[i].role, TileRole::Ring);
    const TileKey& key = order[i].key;
    EXPECT_TRUE(key.tileX == 9 || key.tileX == 13 || key.tileY == 19 || key.tileY == 23);
  }
  EXPECT_TRUE(desk.cancelled.empty());
}

TEST(TileSchedulerTest, NothingIsAheadOfNeedBeforeTheViewRests) {
  Desk desk;
  const TileView view = tiles(4, 4, 1, 1);
  desk.look(view);
  ASSERT_EQ(desk.lane.size(), 1U);
  desk.computeOne();
  desk.look(view);
  EXPECT_TRUE(desk.lane.empty());
  ASSERT_TRUE(desk.wake.has_value());
  EXPECT_EQ(*desk.wake, Time{80});
  desk.now = Time{79};
  desk.look(view);
  EXPECT_TRUE(desk.lane.empty());
  desk.now = Time{80};
  desk.look(view);
  EXPECT_EQ(desk.lane.size(), 4U) << "few at a time";
  EXPECT_EQ(desk.lane.front().role, TileRole::Coarser);
  // A moving view never rests.
  Desk moving;
  for (int i = 0; i < 50; ++i) {
    moving.now += Time{16};
    const TileView next = tiles(4 + i * 0.001, 4, 0.5, 0.5);
    moving.look(next);
    while (moving.computeOne()) moving.look(next);
    for (const TileKey& key : moving.there) EXPECT_EQ(key.tileX, 4) << "no ring";
  }
}

TEST(TileSchedulerTest, NothingIsAheadOfNeedWhileSomethingElseRuns) {
  Desk desk;
  const TileView view = tiles(4, 4, 1, 1);
  desk.look(view, false);
  desk.computeOne();
  desk.now = Time{500};
  desk.look(view, false);
  EXPECT_TRUE(desk.lane.empty());
  EXPECT_FALSE(desk.wake.has_value()) << "the end of the other work is what to wait for";
  desk.look(view, true);
  EXPECT_FALSE(desk.lane.empty());
}

TEST(TileSchedulerTest, TheNewestViewWins) {
  TileScheduler::Options options;
  options.inFlight = 100;
  Desk desk(options);
  desk.look(tiles(0, 0, 4, 4));
  EXPECT_EQ(desk.lane.size(), 16U);
  desk.look(tiles(2, 0, 4, 4));
  EXPECT_EQ(desk.cancelled.size(), 8U);
  for (const TileKey& key : desk.cancelled) EXPECT_LT(key.tileX, 2);
  EXPECT_EQ(desk.lane.size(), 16U) << "what both want goes on";
  desk.look({1000 * kSide, 0, 40 * kSide, 40 * kSide, 4, Reduce::Max});
  for (const TileWish& wish : desk.lane) EXPECT_EQ(wish.key.level, 4);
  desk.look(tiles(0, 0, 1, 1));
  EXPECT_EQ(desk.lane.size(), 1U);
  TileView mean = tiles(0, 0, 1, 1);
  mean.reduce = Reduce::Mean;
  desk.look(mean);
  EXPECT_EQ(desk.lane.size(), 1U);
  EXPECT_EQ(desk.lane.front().key.reduce, Reduce::Mean);
}

TEST(TileSchedulerTest, WorkAheadOfNeedGivesWayAndIsAskedForAgainWhenItIsSeen) {
  Desk desk;
  const TileView view = tiles(4, 4, 1, 1);
  desk.look(view);
  desk.computeOne();
  desk.now = Time{100};
  desk.look(view);
  desk.computeOne();
  desk.look(view);  // four of the ring
  ASSERT_EQ(desk.lane.size(), 4U);
  ASSERT_EQ(desk.lane.front().role, TileRole::Ring);
  const TileKey first = desk.lane.front().key;
  const TileView moved = tiles(static_cast<double>(first.tileX), static_cast<double>(first.tileY), 1, 1);
  const auto step = desk.look(moved);
  EXPECT_THAT(step.start, ElementsAre(TileWish{first, TileRole::Visible}));
  EXPECT_EQ(desk.lane.size(), 1U) << "the rest of the ring waits until the visible tile is there";
}

TEST(TileSchedulerTest, TilesInFlightAreFew) {
  Desk desk;
  const TileView wide = tiles(0, 0, 20, 10);
  desk.look(wide);
  EXPECT_EQ(desk.lane.size(), 12U);
  int computed = 0;
  while (desk.computeOne()) {
    ++computed;
    desk.look(wide);
    EXPECT_LE(desk.lane.size(), 12U);
    if (computed == 200) break;
  }
  EXPECT_EQ(computed, 200);
}

TEST(TileSchedulerTest, WhatCostsTooMuchIsNotComputedAhead) {
  TileScheduler::Options options;
  Desk cheap(options);
  const TileView view{0, 0, kSide * 16, kSide * 16, 4, Reduce::Max};  // one tile of 4,096 tokens a side: 4.3 GFLOP
  std::size_t all = cheap.settle(view).size();
  EXPECT_GT(all, 1U);
  options.maxFlops = 4e9;
  Desk dear(options);
  EXPECT_EQ(dear.settle(view).size(), 1U);
}

TEST(TileSchedulerTest, CoarseLevelsAndUnaffordableViewsAskForNothing) {
  Desk desk;
  TileView coarse{0, 0, 118'800, 118'800, 8, Reduce::Max};
  desk.look(coarse);
  EXPECT_TRUE(desk.lane.empty());
  desk.look(tiles(0, 0, 2, 2));
  EXPECT_EQ(desk.lane.size(), 4U);
  desk.look(tiles(0, 0, 2, 2), true, false);
  EXPECT_TRUE(desk.lane.empty()) << "and what was asked for is stopped";
  desk.look(tiles(0, 0, 2, 2));
  desk.scheduler.reset();
  EXPECT_EQ(desk.scheduler.inFlight(), 0U);
}

TEST(TileSchedulerTest, EdgesOfTheMapAreKept) {
  TileScheduler::Options options;
  options.inFlight = 1000;
  options.speculative = 1000;
  Desk desk(options);
  const Index last = kGrid.tileCols(0) - 1;
  const TileView corner{118'800 - 300, 118'800 - 300, 300, 300, 0, Reduce::Max};
  for (const TileWish& wish : desk.settle(corner)) {
    EXPECT_LE(wish.key.tileX, wish.key.level == 0 ? last : kGrid.tileCols(1) - 1);
    EXPECT_LE(wish.key.tileY, wish.key.level == 0 ? last : kGrid.tileRows(1) - 1);
  }
  EXPECT_TRUE(desk.there.contains({0, last, last, Reduce::Max}));
  for (const auto& [first, count, wantFirst, wantLast] : {std::tuple{0.0, 256.0, Index{0}, Index{0}},
                                                          {0.0, 257.0, Index{0}, Index{1}},
                                                          {255.5, 0.2, Index{0}, Index{0}},
                                                          {256.0, 1.0, Index{1}, Index{1}},
                                                          {-5.0, 3.0, Index{0}, Index{0}},
                                                          {1e9, 5.0, Index{463}, Index{463}}}) {
    const TileSpan span = touchedTiles(first, count, 0, 464);
    EXPECT_EQ(span.first, wantFirst) << first;
    EXPECT_EQ(span.last, wantLast) << first;
  }
}

// ---------------------------------------------------------------- heads

TraceInfo someTrace() {
  TraceInfo info;
  for (const int step : {0, 10, 20}) {
    for (const int layer : {1, 5}) {
      CallInfo call;
      call.id = {step, "cond", layer};
      call.heads = {0, 2, 3, 7};
      if (step == 10 && layer == 5) call.unavailableHeads = {2};
      info.calls.push_back(call);
    }
  }
  return info;
}
HeadId headOf(int step, int layer, int head) { return {{step, "cond", layer}, head}; }

TEST(TileSchedulerTest, LikelyHeadsGoOnAlongTheLastMove) {
  const TraceInfo trace = someTrace();
  EXPECT_THAT(likelyNextHeads(trace, headOf(10, 1, 2), std::nullopt, 4),
              ElementsAre(headOf(10, 1, 3), headOf(10, 1, 0), headOf(20, 1, 2), headOf(0, 1, 2)))
      << "layer 5 has no head 2 at this step";
  EXPECT_THAT(likelyNextHeads(trace, headOf(10, 1, 3), headOf(10, 1, 7), 2),
              ElementsAre(headOf(10, 1, 2), headOf(10, 1, 7)))
      << "backwards";
  EXPECT_THAT(likelyNextHeads(trace, headOf(10, 1, 3), headOf(0, 1, 3), 3),
              ElementsAre(headOf(20, 1, 3), headOf(0, 1, 3), headOf(10, 1, 7)))
      << "through the steps";
  EXPECT_THAT(likelyNextHeads(trace, headOf(10, 1, 3), headOf(0, 5, 3), 1), ElementsAre(headOf(10, 1, 7)))
      << "a jump has no direction";
  EXPECT_TRUE(likelyNextHeads(trace, headOf(10, 1, 3), std::nullopt, 0).empty());
  for (const HeadId& id : likelyNextHeads(trace, headOf(20, 5, 7), headOf(20, 5, 3), 9))
    EXPECT_NE(id, headOf(20, 5, 7));
}

}  // namespace
}  // namespace sparsight

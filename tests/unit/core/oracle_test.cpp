// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;

class Oracle : public testing::Test {
 protected:
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

TEST_F(Oracle, TokenGlobalKeepsTheLargestProbabilities) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 5, 7);
  spec.paddingText = 3;
  spec.spread = 2;
  const HeadData head = makeHead(spec);
  const Plan plan = planOf("oracle_token", {"kept=0.2"}, head, *backend);
  const Naive naive(head, false);
  std::vector<double> all;
  for (std::size_t n = 0; n < naive.p.size(); ++n) {
    if (naive.valid[n] != 0) all.push_back(naive.p[n]);
  }
  std::sort(all.begin(), all.end(), std::greater<>());
  const auto total = static_cast<std::size_t>(std::llround(0.2 * static_cast<double>(all.size())));
  Index kept = 0;
  for (Index row = 0; row < naive.rows; ++row) {
    kept += plan.rowCount[at(row)];
    if (!naive.rowValid(row)) {
      EXPECT_EQ(plan.rowCount[at(row)], 0);
      continue;
    }
    const auto above = std::count_if(naive.p.begin() + row * naive.keys, naive.p.begin() + (row + 1) * naive.keys,
                                     [&](double p) { return p >= all[total - 1]; });
    EXPECT_NEAR(static_cast<double>(plan.rowCount[at(row)]), static_cast<double>(above), 1.0);
  }
  EXPECT_EQ(kept, static_cast<Index>(total));
  EXPECT_NEAR(static_cast<double>(plan.rowThreshold[0]), all[total - 1], 1e-6);
  EXPECT_TRUE(plan.rowIntervals.empty());
  EXPECT_TRUE(plan.qOrder.empty());
}

TEST_F(Oracle, TokenRowKeepsTheSameShareEverywhere) {
  const HeadData head = makeHead({});
  const Plan plan = planOf("oracle_token", {"kept=0.25", "scope=row"}, head, *backend);
  EXPECT_THAT(plan.rowCount, testing::Each(15));
  const Naive naive(head, false);
  for (Index row = 0; row < naive.rows; ++row) {
    std::vector<double> p(naive.p.begin() + row * naive.keys, naive.p.begin() + (row + 1) * naive.keys);
    std::sort(p.begin(), p.end(), std::greater<>());
    EXPECT_NEAR(static_cast<double>(plan.rowThreshold[at(row)]), p[14], 1e-6);
  }
  EXPECT_THAT(planOf("oracle_token", {"kept=0", "scope=row"}, head, *backend).rowCount, testing::Each(1));
  EXPECT_THAT(planOf("oracle_token", {"kept=1", "scope=row"}, head, *backend).rowCount, testing::Each(60));
}

TEST_F(Oracle, TiesGoToTheLowestKey) {
  HeadSpec spec;
  spec.spread = 0;  // all queries zero: all probabilities equal
  const HeadData head = makeHead(spec);
  const Plan row = planOf("oracle_token", {"kept=0.1", "scope=row"}, head, *backend);
  EXPECT_THAT(row.rowCount, testing::Each(6));
  const Plan global = planOf("oracle_token", {"kept=0.1", "scope=global"}, head, *backend);
  // 360 pairs: the first six rows whole.
  for (Index i = 0; i < 60; ++i) EXPECT_EQ(global.rowCount[at(i)], i < 6 ? 60 : 0);
}

TEST_F(Oracle, BlocksAreChosenByExactMass) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 5, 7);
  spec.paddingText = 3;
  spec.spread = 2;
  const HeadData head = makeHead(spec);
  const Naive naive(head, false);
  for (const char* scope : {"scope=global", "scope=row"}) {
    const Plan plan = planOf("oracle_block", {"kept=0.3", "block_size=8", scope}, head, *backend);
    double worstKept = 1, bestSkipped = 0;
    for (Index i = 0; i < plan.qBlocks(); ++i) {
      double rowWorst = 1, rowBest = 0;
      Index area = 0, kept = 0;
      for (Index j = 0; j < plan.kBlocks(); ++j) {
        double sum = 0;
        Index pairs = 0;
        for (Index r = plan.qBounds[at(i)]; r < plan.qBounds[at(i + 1)]; ++r) {
          for (Index c = plan.kBounds[at(j)]; c < plan.kBounds[at(j + 1)]; ++c) {
            sum += naive.p[at(r * naive.keys + c)];
            pairs += naive.valid[at(r * naive.keys + c)];
          }
        }
        const float score = plan.scores[at(i * plan.kBlocks() + j)];
        area += pairs;
        if (pairs == 0) {
          EXPECT_TRUE(std::isnan(score));
          continue;
        }
        const double mean = sum / static_cast<double>(pairs);
        EXPECT_NEAR(static_cast<double>(score), mean, 1e-6);
        if (plan.blockMask[at(i * plan.kBlocks() + j)] != 0) {
          kept += pairs;
          rowWorst = std::min(rowWorst, mean);
        } else {
          rowBest = std::max(rowBest, mean);
        }
      }
      worstKept = std::min(worstKept, rowWorst);
      bestSkipped = std::max(bestSkipped, rowBest);
      if (std::string(scope) == "scope=row" && area > 0) {
        EXPECT_GE(rowWorst, rowBest - 1e-6);
        EXPECT_NEAR(static_cast<double>(kept) / static_cast<double>(area), 0.3,
                    0.5 * 64 / static_cast<double>(area) + 1e-9);
      }
    }
    if (std::string(scope) == "scope=global") {
      EXPECT_GE(worstKept, bestSkipped - 1e-6);
      EXPECT_NEAR(evaluatePlan(plan, head, {}, *backend, {}).keptFraction, 0.3, 0.5 * 64 / (64.0 * 64));
    }
    EXPECT_EQ(plan.lse.size(), 67U);
  }
}

TEST_F(Oracle, TokenBoundsBlocksAndSvg) {
  HeadSpec spec;
  spec.layout = layoutOf(4, 10, 20, 0);
  spec.family = "wan2.1";
  spec.spread = 2;
  const HeadData head = makeHead(spec);
  for (const char* id : {"svg", "oracle_block"}) {
    const Plan plan = planOf(id, {"kept=0.3"}, head, *backend);
    const Evaluation numbers = evaluatePlan(plan, head, {}, *backend, {});
    const Plan bound = planOf("oracle_token", {fmt::format("kept={}", numbers.keptFraction)}, head, *backend);
    const Evaluation best = evaluatePlan(bound, head, {}, *backend, {});
    EXPECT_NEAR(best.keptFraction, numbers.keptFraction, 1e-9);
    EXPECT_GT(best.keptMass, numbers.keptMass) << id;
  }
}

}  // namespace
}  // namespace sparsight

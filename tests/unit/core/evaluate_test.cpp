// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sparsight/core/plan.h"
#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;

class Evaluate : public testing::Test {
 protected:
  void expectNaive(const Plan& plan, const HeadData& head, bool includePadding = false) {
    EvaluateOptions options;
    options.rows = 0;
    options.includePadding = includePadding;
    const Evaluation got = evaluatePlan(plan, head, options, *backend, {});
    const NaiveNumbers want = naiveNumbers(plan, head, includePadding);
    EXPECT_DOUBLE_EQ(got.keptFraction, want.keptFraction);
    EXPECT_NEAR(got.keptMass, want.keptMass, 1e-5);
    EXPECT_NEAR(got.keptMassP5, want.massP5, 1e-5);
    EXPECT_EQ(got.starvedRows, want.starved);
    if (!head.input.v.empty()) {
      ASSERT_TRUE(got.outputRelError && got.outputCosine);
      EXPECT_NEAR(*got.outputRelError, want.relError, 1e-5 + 1e-4 * want.relError);
      EXPECT_NEAR(*got.outputCosine, want.cosine, 1e-5);
    }
    EXPECT_FALSE(got.keptMassCi95);
  }
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

Plan blockPlan(Index nq, Index nk, Index block, unsigned seed) {
  Plan plan;
  plan.methodId = "test";
  plan.queryCount = nq;
  plan.keyCount = nk;
  for (Index e = 0; e < nq; e += block) plan.qBounds.push_back(e);
  for (Index e = 0; e < nk; e += block) plan.kBounds.push_back(e);
  plan.qBounds.push_back(nq);
  plan.kBounds.push_back(nk);
  std::mt19937 engine(seed);
  for (Index n = 0; n < plan.qBlocks() * plan.kBlocks(); ++n) plan.blockMask.push_back(engine() % 2);
  for (Index j = 0; j < plan.kBlocks(); ++j) plan.blockMask[at(j)] = 0;  // first block row starves
  return plan;
}

std::vector<Index> shuffled(Index n, unsigned seed) {
  std::vector<Index> order(at(n));
  for (Index i = 0; i < n; ++i) order[at(i)] = i;
  std::mt19937 engine(seed);
  for (Index i = n - 1; i > 0; --i) std::swap(order[at(i)], order[engine() % at(i + 1)]);
  return order;
}

TEST_F(Evaluate, DensePlanLosesNothing) {
  const HeadData head = makeHead({});
  const Evaluation got = evaluatePlan(densePlan(60, 60), head, {}, *backend, {});
  EXPECT_DOUBLE_EQ(got.keptFraction, 1.0);
  EXPECT_DOUBLE_EQ(got.blocksKeptFraction, 1.0);
  EXPECT_DOUBLE_EQ(got.keptMass, 1.0);
  EXPECT_DOUBLE_EQ(got.keptMassP5, 1.0);
  EXPECT_NEAR(*got.outputRelError, 0, 1e-6);
  EXPECT_NEAR(*got.outputCosine, 1, 1e-6);
  EXPECT_EQ(got.starvedRows, 0);
  EXPECT_EQ(got.evaluatedRows, 60);
  EXPECT_EQ(got.backend, "cpu");
  EXPECT_DOUBLE_EQ(got.attentionFlops, 2.0 * 60 * 60 * 16);
}

TEST_F(Evaluate, BlockPlansEqualANaiveReading) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 5, 7);
  spec.spread = 2;
  const HeadData head = makeHead(spec);
  Plan plan = blockPlan(67, 67, 8, 5);
  expectNaive(plan, head);
  plan.qOrder = shuffled(67, 1);
  plan.kOrder = shuffled(67, 2);
  expectNaive(plan, head);
}

TEST_F(Evaluate, PaddingIsOutsideUnlessIncluded) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 5, 7);
  spec.paddingText = 3;
  const HeadData head = makeHead(spec);
  Plan plan = blockPlan(67, 67, 8, 6);
  plan.kOrder = shuffled(67, 3);
  expectNaive(plan, head, false);
  expectNaive(plan, head, true);
  EvaluateOptions options;
  EXPECT_EQ(evaluatePlan(plan, head, options, *backend, {}).evaluatedRows, 64);
  options.includePadding = true;
  EXPECT_EQ(evaluatePlan(plan, head, options, *backend, {}).evaluatedRows, 67);
}

TEST_F(Evaluate, DenseMasksAreCountedByElement) {
  HeadSpec spec;
  std::mt19937 engine(3);
  for (int n = 0; n < 60 * 60; ++n) spec.denseMask.push_back(engine() % 3 != 0);
  const HeadData head = makeHead(spec);
  Plan plan = blockPlan(60, 60, 7, 8);
  plan.kOrder = shuffled(60, 4);
  plan.qOrder = shuffled(60, 5);
  expectNaive(plan, head);
  expectNaive(planOf("oracle_token", {"kept=0.3", "scope=row"}, head, *backend), head);
}

TEST_F(Evaluate, QuerySubsets) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 5, 7);
  spec.qRows = {0, 3, 17, 18, 40, 59, 61, 66};
  spec.paddingText = 2;
  const HeadData head = makeHead(spec);
  Plan plan = blockPlan(8, 67, 3, 9);
  plan.qOrder = {7, 6, 5, 4, 3, 2, 1, 0};
  expectNaive(plan, head);
}

TEST_F(Evaluate, WithoutValuesThereIsNoOutputError) {
  HeadSpec spec;
  spec.withV = false;
  const Evaluation got = evaluatePlan(blockPlan(60, 60, 8, 1), makeHead(spec), {}, *backend, {});
  EXPECT_FALSE(got.outputRelError);
  EXPECT_FALSE(got.outputCosine);
  EXPECT_THAT(got.warnings, testing::ElementsAre(testing::HasSubstr("values (V) were not captured")));
  EXPECT_GT(got.keptMass, 0);
}

TEST_F(Evaluate, SampledRowsCarryAnInterval) {
  HeadSpec spec;
  spec.layout = layoutOf(4, 8, 8, 0);
  const HeadData head = makeHead(spec);
  const Plan plan = blockPlan(256, 256, 16, 2);
  EvaluateOptions options;
  options.rows = 64;
  const Evaluation got = evaluatePlan(plan, head, options, *backend, {});
  const NaiveNumbers want = naiveNumbers(plan, head, false);
  EXPECT_EQ(got.evaluatedRows, 64);
  EXPECT_EQ(got.totalRows, 256);
  EXPECT_DOUBLE_EQ(got.keptFraction, want.keptFraction);  // exact, whatever rows are sampled
  EXPECT_EQ(got.starvedRows, want.starved);
  ASSERT_TRUE(got.keptMassCi95 && got.outputRelErrorCi95);
  EXPECT_GT(*got.keptMassCi95, 0);
  EXPECT_NEAR(got.keptMass, want.keptMass, 3 * *got.keptMassCi95);
  EXPECT_NEAR(*got.outputRelError, want.relError, 3 * *got.outputRelErrorCi95);
}

TEST_F(Evaluate, PerRowNumbers) {
  const HeadData head = makeHead({});
  const Plan plan = blockPlan(60, 60, 8, 3);
  EvaluateOptions options;
  options.perRow = true;
  const Evaluation got = evaluatePlan(plan, head, options, *backend, {});
  const NaiveNumbers want = naiveNumbers(plan, head, false);
  ASSERT_EQ(got.rowMass.size(), 60U);
  for (std::size_t i = 0; i < 60; ++i) {
    EXPECT_EQ(got.rows[i], static_cast<Index>(i));
    EXPECT_NEAR(static_cast<double>(got.rowMass[i]), want.mass[i], 1e-5);
  }
  EXPECT_FLOAT_EQ(got.rowKept[0], 0.0F);
  EXPECT_FLOAT_EQ(got.rowError[0], 1.0F);  // a starved row's output is zero
}

TEST_F(Evaluate, RowsAreEvenlySpacedOverTheValid) {
  const std::vector<Index> valid{2, 3, 5, 7, 11, 13, 17, 19};
  EXPECT_EQ(evaluationRows(valid, 20, 0), valid);
  EXPECT_EQ(evaluationRows(valid, 20, -1), valid);
  EXPECT_EQ(evaluationRows(valid, 20, 8), valid);
  EXPECT_EQ(evaluationRows(valid, 20, 100), valid);
  EXPECT_EQ(evaluationRows(valid, 20, 4), (std::vector<Index>{3, 7, 13, 19}));
  EXPECT_EQ(evaluationRows(valid, 20, 1), (std::vector<Index>{11}));
  std::vector<Index> many(9000);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<Index>(i);
  EXPECT_EQ(evaluationRows(many, 9000, -1).size(), 1024U);
  EXPECT_EQ(evaluationRows(many, 8192, -1).size(), 9000U);
}

TEST_F(Evaluate, APlanForOtherSizesIsRefused) {
  EXPECT_THROW((void)evaluatePlan(densePlan(59, 60), makeHead({}), {}, *backend, {}), Error);
}

TEST_F(Evaluate, StopsWhenAsked) {
  std::stop_source source;
  source.request_stop();
  const Control control{source.get_token(), {}};
  EXPECT_THROW((void)evaluatePlan(densePlan(60, 60), makeHead({}), {}, *backend, control), Cancelled);
}

}  // namespace
}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
// Properties of plans and methods over random sizes, layouts, budgets and draws.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "svg_rules.h"
#include "tests/unit/core/method_test_support.h"

#if SPARSIGHT_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#endif

namespace sparsight {
namespace {
using namespace test;

#if SPARSIGHT_HAVE_RAPIDCHECK

struct Kit {
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};
Kit& kit() {
  static Kit shared;
  return shared;
}

// Small heads of any model rule; frames around the 128-token blocks now and then.
HeadSpec anyHead() {
  HeadSpec spec;
  const int frames = *rc::gen::inRange(1, 5);
  const int height = *rc::gen::inRange(1, 9);
  const int width = *rc::gen::inRange(1, 20);
  const int text = *rc::gen::element(0, 0, 5, 11);
  const bool first = text > 0 && *rc::gen::arbitrary<bool>();
  spec.layout = layoutOf(frames, height, width, text, first);
  spec.family = text == 0 ? "wan2.1" : first ? "cogvideox" : "hunyuanvideo";
  spec.paddingText = text > 0 && !first ? *rc::gen::inRange(0, text) : 0;
  spec.seed = *rc::gen::inRange(1U, 1000U);
  spec.spread = *rc::gen::element(0.5, 2.0, 6.0);
  return spec;
}

double massOf(const Plan& plan, const HeadData& head) {
  return evaluatePlan(plan, head, {}, *kit().backend, {}).keptMass;
}

bool holds(const char* what, const std::function<void()>& property) { return rc::check(what, property); }

TEST(Plan, TokenOracleBoundsEveryPlanOfEqualPairs) {
  EXPECT_TRUE(holds("oracle_token with scope global keeps at least the mass of any plan of as many pairs", [] {
    const HeadData head = makeHead(anyHead());
    const std::string id =
        *rc::gen::element(std::string("svg"), std::string("oracle_block"), std::string("oracle_token"));
    std::vector<std::string> params{fmt::format("kept={}", *rc::gen::inRange(1, 100) / 100.0)};
    if (id != "svg") params.emplace_back("scope=row");
    const Plan plan = planOf(id, params, head, *kit().backend);
    const Evaluation numbers = evaluatePlan(plan, head, {}, *kit().backend, {});
    RC_PRE(numbers.keptFraction > 0);
    const Plan bound =
        planOf("oracle_token", {fmt::format("kept={}", std::min(1.0, numbers.keptFraction))}, head, *kit().backend);
    const Evaluation best = evaluatePlan(bound, head, {}, *kit().backend, {});
    RC_ASSERT(std::abs(best.keptFraction - numbers.keptFraction) < 1e-9);
    RC_ASSERT(best.keptMass >= numbers.keptMass - 1e-5);
  }));
}

TEST(Plan, MoreBudgetNeverLowersTheMass) {
  EXPECT_TRUE(holds("kept mass and kept fraction rise with the budget", [] {
    const HeadData head = makeHead(anyHead());
    const std::string id =
        *rc::gen::element(std::string("svg"), std::string("oracle_block"), std::string("oracle_token"));
    std::vector<std::string> shared;
    if (id == "svg") {
      shared.emplace_back(*rc::gen::element("force_class=spatial", "force_class=temporal"));
      shared.emplace_back(*rc::gen::element("variant=reference", "variant=sparsevideo"));
    } else {
      shared.emplace_back(*rc::gen::element("scope=row", "scope=global"));
      if (id == "oracle_block") shared.push_back(fmt::format("block_size={}", *rc::gen::inRange(1, 40)));
    }
    int low = *rc::gen::inRange(0, 101), high = *rc::gen::inRange(0, 101);
    if (low > high) std::swap(low, high);
    const auto at100 = [&](int kept) {
      std::vector<std::string> params = shared;
      params.push_back(fmt::format("kept={}", kept / 100.0));
      return planOf(id, params, head, *kit().backend);
    };
    const Evaluation a = evaluatePlan(at100(low), head, {}, *kit().backend, {});
    const Evaluation b = evaluatePlan(at100(high), head, {}, *kit().backend, {});
    RC_ASSERT(b.keptFraction >= a.keptFraction - 1e-12);
    RC_ASSERT(b.keptMass >= a.keptMass - 1e-5);
  }));
}

TEST(Plan, EvaluationEqualsTheNaiveReading) {
  EXPECT_TRUE(holds("evaluation equals double-precision N x N", [] {
    const HeadData head = makeHead(anyHead());
    const bool includePadding = *rc::gen::arbitrary<bool>();
    const std::string id = *rc::gen::element(std::string("dense"), std::string("svg"), std::string("oracle_block"),
                                             std::string("oracle_token"));
    const Plan plan = planOf(id, {}, head, *kit().backend, includePadding, *rc::gen::inRange<std::uint64_t>(0, 1000));
    EvaluateOptions options;
    options.includePadding = includePadding;
    const Evaluation numbers = evaluatePlan(plan, head, options, *kit().backend, {});
    const NaiveNumbers naive = naiveNumbers(plan, head, includePadding);
    RC_ASSERT(std::abs(numbers.keptFraction - naive.keptFraction) < 1e-12);
    RC_ASSERT(std::abs(numbers.keptMass - naive.keptMass) < 2e-4);
    RC_ASSERT(std::abs(numbers.outputRelError.value() - naive.relError) < 2e-4 * std::max(1.0, naive.relError));
    RC_ASSERT(numbers.starvedRows == naive.starved);
  }));
}

TEST(Plan, DenseKeepsAllMass) {
  EXPECT_TRUE(holds("the dense plan keeps mass 1", [] {
    const HeadData head = makeHead(anyHead());
    const Plan plan = densePlan(head.input.q.rows, head.input.k.rows);
    RC_ASSERT(massOf(plan, head) == 1.0);
  }));
}

TEST(Plan, PermuteThenInverseIsIdentity) {
  EXPECT_TRUE(holds("the layout transformation is a permutation and its inverse undoes it", [] {
    const HeadData head = makeHead(anyHead());
    const std::string variant = *rc::gen::element("variant=reference", "variant=sparsevideo");
    const SvgGeometry geometry = svgGeometry(head, paramsFor(methodById("svg"), {variant}, head));
    const std::vector<Index> order = svgOrder(geometry, true);
    std::vector<Index> inverse(order.size(), -1);
    for (std::size_t i = 0; i < order.size(); ++i) inverse[at(order[i])] = static_cast<Index>(i);
    const OwnedMatrix moved = gatherRows(head.input.k, order);
    const OwnedMatrix back = gatherRows(moved.view, inverse);
    std::vector<float> a(at(head.input.k.cols)), b(a);
    for (Index row = 0; row < head.input.k.rows; ++row) {
      rowToFloat(head.input.k, row, a);
      rowToFloat(back.view, row, b);
      RC_ASSERT(a == b);
    }
  }));
}

TEST(Plan, DerivedBlocksAgreeWithEveryPair) {
  EXPECT_TRUE(holds("a block is whole, partial or skipped as its pairs are", [] {
    Plan plan;
    plan.queryCount = *rc::gen::inRange<Index>(1, 30);
    plan.keyCount = *rc::gen::inRange<Index>(1, 30);
    const auto edges = [](Index count) {
      std::vector<Index> e{0, count};
      for (int n = *rc::gen::inRange(0, 6); n > 0; --n) e.push_back(*rc::gen::inRange<Index>(0, count + 1));
      std::sort(e.begin(), e.end());
      return e;
    };
    plan.qBounds = edges(plan.queryCount);
    plan.kBounds = edges(plan.keyCount);
    plan.intervalRows = edges(plan.queryCount);
    plan.rowIntervalsPtr.push_back(0);
    for (std::size_t g = 0; g + 1 < plan.intervalRows.size(); ++g) {
      const std::vector<Index> cuts = edges(plan.keyCount);
      for (std::size_t n = 0; n + 1 < cuts.size(); n += 2) {
        if (cuts[n] < cuts[n + 1]) plan.rowIntervals.push_back({cuts[n], cuts[n + 1]});
      }
      plan.rowIntervalsPtr.push_back(static_cast<Index>(plan.rowIntervals.size()));
    }
    plan.deriveBlockMask();
    plan.validate();
    for (Index i = 0; i < plan.qBlocks(); ++i) {
      for (Index j = 0; j < plan.kBlocks(); ++j) {
        Index kept = 0, area = 0;
        for (Index r = plan.qBounds[at(i)]; r < plan.qBounds[at(i + 1)]; ++r) {
          for (Index c = plan.kBounds[at(j)]; c < plan.kBounds[at(j + 1)]; ++c) {
            ++area;
            kept += isKept(plan, r, c).value() ? 1 : 0;
          }
        }
        if (area == 0) continue;
        RC_ASSERT(plan.blockMask[at(i * plan.kBlocks() + j)] == (kept == 0 ? 0 : kept == area ? 1 : 2));
      }
    }
  }));
}

TEST(Plan, FilesRoundTrip) {
  std::string pattern = (std::filesystem::temp_directory_path() / "sparsight-prop-XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const std::filesystem::path path = std::filesystem::path(pattern) / "plan.h5";
  EXPECT_TRUE(holds("a plan read back is the plan written", [&] {
    const HeadSpec spec = anyHead();
    const MemoryTrace trace = memoryTrace(spec, {2}, {1}, 1);
    RunRequest request;
    request.methodId = *rc::gen::element(std::string("svg"), std::string("oracle_block"), std::string("oracle_token"));
    request.params = ParamSet::parse(methodById(request.methodId).params(),
                                     {fmt::format("kept={}", *rc::gen::inRange(0, 101) / 100.0)});
    const RunReport report = runMethod(trace, request, *kit().backend, {});
    writePlanFile(path, trace, report, request);
    const Plan& a = report.heads.front().plan;
    const Plan b = readPlanFile(path).front().plan;
    RC_ASSERT(a.qOrder == b.qOrder && a.kOrder == b.kOrder && a.qBounds == b.qBounds && a.kBounds == b.kBounds);
    RC_ASSERT(a.blockMask == b.blockMask && a.intervalRows == b.intervalRows);
    RC_ASSERT(a.rowIntervalsPtr == b.rowIntervalsPtr && a.rowIntervals == b.rowIntervals);
    RC_ASSERT(a.rowCount == b.rowCount && a.rowThreshold == b.rowThreshold && a.headClass == b.headClass);
  }));
  std::filesystem::remove_all(pattern);
}

#else
TEST(Plan, Properties) { GTEST_SKIP() << "RapidCheck is not installed; properties of plans NOT run"; }
#endif

}  // namespace
}  // namespace sparsight

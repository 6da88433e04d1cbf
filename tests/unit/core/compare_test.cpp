// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fmt/format.h>

#include <chrono>
#include <filesystem>

#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;

class Compare : public testing::Test {
 protected:
  static MemoryTrace trace() {
    HeadSpec spec;
    spec.layout = layoutOf(4, 8, 20, 0);  // 640 tokens: SVG's bands of 128 are some steps apart
    spec.family = "wan2.1";
    spec.spread = 2.0;
    return memoryTrace(spec, {5}, {2}, 2);
  }
  static RunRequest requestOf(const std::string& id, const std::vector<std::string>& params = {}) {
    RunRequest request;
    request.methodId = id;
    request.params = ParamSet::parse(methodById(id).params(), params);
    return request;
  }
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

TEST_F(Compare, SolvesForAKeptFraction) {
  const MemoryTrace memory = trace();
  for (const char* id : {"svg2", "svoo", "adaspa", "oracle_block", "oracle_token"}) {
    SCOPED_TRACE(id);
    std::vector<std::string> params;
    if (std::string(id) == "svg2" || std::string(id) == "svoo") params = {"min_kc_ratio=0"};
    if (std::string(id) == "adaspa") params = {"levels=off", "block_size=16"};
    const Solution solution = solveBudget(memory, requestOf(id, params), {Budget::Kept, 0.4}, *backend, {});
    EXPECT_LE(std::abs(solution.reached - 0.4), std::max(solution.quantum, 1e-3));
    // It is what a plain run with that setting gives, evaluated in full.
    auto again = requestOf(id, params);
    again.params.set(solution.knob, fmt::format("{}", solution.knobValue));
    const RunReport report = runMethod(memory, again, *backend, {});
    EXPECT_EQ(summarise(report).keptFraction, solution.reached);
    EXPECT_EQ(summarise(report).keptMass, summarise(solution.report).keptMass);
    EXPECT_EQ(solution.flagged, std::abs(solution.reached - 0.4) > 0.005);
  }
}

TEST_F(Compare, SvgMovesInBandsAndSaysSo) {
  const MemoryTrace memory = trace();
  const Solution solution =
      solveBudget(memory, requestOf("svg", {"force_class=spatial"}), {Budget::Kept, 0.5}, *backend, {});
  EXPECT_GT(solution.quantum, 0.05);
  EXPECT_LE(std::abs(solution.reached - 0.5), solution.quantum);
  // No setting comes nearer.
  for (int kept = 0; kept <= 100; ++kept) {
    const RunReport report = runMethod(
        memory, requestOf("svg", {"force_class=spatial", fmt::format("kept={}", kept / 100.0)}), *backend, {});
    EXPECT_GE(std::abs(summarise(report).keptFraction - 0.5), std::abs(solution.reached - 0.5) - 1e-12);
  }
}

TEST_F(Compare, OneMethodIsAPlainRunOrASolvedBudget) {
  const MemoryTrace memory = trace();
  const Compared own = compareMethod(memory, requestOf("oracle_block"), std::nullopt, *backend, {});
  EXPECT_FALSE(own.solution);
  EXPECT_EQ(summarise(own.report).keptMass,
            summarise(runMethod(memory, requestOf("oracle_block"), *backend, {})).keptMass);
  std::vector<HeadReport> seen;
  RunRequest request = requestOf("oracle_block");
  request.keepPlanArrays = false;
  const Compared solved = compareMethod(memory, request, BudgetTarget{Budget::Kept, 0.4}, *backend, {},
                                        [&](const HeadReport& head) { seen.push_back(head); });
  const Solution alone = solveBudget(memory, requestOf("oracle_block"), {Budget::Kept, 0.4}, *backend, {});
  ASSERT_TRUE(solved.solution);
  EXPECT_EQ(solved.solution->knobValue, alone.knobValue);
  EXPECT_EQ(solved.solution->reached, alone.reached);
  EXPECT_EQ(summarise(solved.report).keptMass, summarise(alone.report).keptMass);
  // The heads of the last run alone, with their plans.
  ASSERT_EQ(seen.size(), alone.report.heads.size());
  for (std::size_t n = 0; n < seen.size(); ++n) {
    EXPECT_EQ(seen[n].plan.blockMask, alone.report.heads[n].plan.blockMask);
    EXPECT_EQ(seen[n].evaluation.keptFraction, alone.report.heads[n].evaluation.keptFraction);
  }
  // dense has no knob: it stands as it is.
  EXPECT_FALSE(compareMethod(memory, requestOf("dense"), BudgetTarget{Budget::Kept, 0.4}, *backend, {}).solution);
}

TEST_F(Compare, SolvesForMassAndError) {
  const MemoryTrace memory = trace();
  const Solution mass = solveBudget(memory, requestOf("oracle_token"), {Budget::Mass, 0.9}, *backend, {});
  EXPECT_NEAR(mass.reached, 0.9, 1e-3);
  const Solution error = solveBudget(memory, requestOf("oracle_token"), {Budget::Error, 0.1}, *backend, {});
  EXPECT_NEAR(error.reached, 0.1, 1e-3);
  // Out of reach: the nearest end, flagged.
  const Solution far = solveBudget(memory, requestOf("svg2", {"min_kc_ratio=0.5"}), {Budget::Kept, 0.01}, *backend, {});
  EXPECT_TRUE(far.flagged);
  EXPECT_GT(far.reached, 0.1);
  EXPECT_THROW((void)solveBudget(memory, requestOf("dense"), {Budget::Kept, 0.5}, *backend, {}), Error);
}

TEST_F(Compare, TheMemoryChangesNothingAndSavesTheClustering) {
  class Counting final : public Backend {
   public:
    explicit Counting(Backend& inner) : m_inner(inner) {}
    int clusters = 0;
    [[nodiscard]] BackendInfo info() const override { return m_inner.info(); }
    [[nodiscard]] bool supports(Op op, DType d, Index n) const noexcept override { return m_inner.supports(op, d, n); }
    std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in, std::shared_ptr<const void> keep,
                                                const Control& c) override {
      return m_inner.prepare(in, std::move(keep), c);
    }
    LseMapResult lseMap(const PreparedHead& h, const LseMapRequest& r, const Control& c) override {
      return m_inner.lseMap(h, r, c);
    }
    std::vector<float> tile(const PreparedHead& h, std::span<const float> l, const TileRect& t, Reduce r,
                            const Control& c) override {
      return m_inner.tile(h, l, t, r, c);
    }
    AttendResult attend(const PreparedHead& h, std::span<const Index> r, const RowKeep& k, const Control& c) override {
      return m_inner.attend(h, r, k, c);
    }
    AttendResult attendTop(const PreparedHead& h, std::span<const Index> r, std::span<const Index> n,
                           const Control& c) override {
      return m_inner.attendTop(h, r, n, c);
    }
    RowStats rowStats(const PreparedHead& h, std::span<const Index> r, double m, const Control& c) override {
      return m_inner.rowStats(h, r, m, c);
    }
    GlobalTop globalTop(const PreparedHead& h, std::span<const Index> r, Index t, const Control& c) override {
      return m_inner.globalTop(h, r, t, c);
    }
    ClusterResult cluster(const PreparedHead& h, const ClusterRequest& r, const Control& c) override {
      ++clusters;
      return m_inner.cluster(h, r, c);
    }

   private:
    Backend& m_inner;
  };
  Counting counting(*backend);
  const MemoryTrace memory = trace();
  const auto request = requestOf("svg2", {"kmeans_iter=4"});
  const auto memo = createMemoBackend(counting);
  const RunReport first = runMethod(memory, request, *memo, {});
  const int once = counting.clusters;
  const RunReport second = runMethod(memory, request, *memo, {});
  EXPECT_EQ(once, 2 * 2 * 4);
  EXPECT_EQ(counting.clusters, once);
  const RunReport plain = runMethod(memory, request, *backend, {});
  for (std::size_t h = 0; h < 2; ++h) {
    EXPECT_EQ(first.heads[h].plan.kLabels, plain.heads[h].plan.kLabels);
    EXPECT_EQ(second.heads[h].plan.kLabels, plain.heads[h].plan.kLabels);
    EXPECT_EQ(second.heads[h].plan.blockMask, plain.heads[h].plan.blockMask);
  }
  EXPECT_NE(first.heads[0].plan.kLabels, first.heads[1].plan.kLabels);
  // A memory too small to hold anything is no memory, and no error.
  const auto tiny = createMemoBackend(counting, 100);
  EXPECT_EQ(runMethod(memory, request, *tiny, {}).heads[0].plan.kLabels, plain.heads[0].plan.kLabels);
}

TEST_F(Compare, CostModelGivesThePublishedPetaflops) {
  // Wan T2V, I2V and HunyuanVideo as the SVG2 paper counts them; its tables' rows.
  const GenerationCost t2v{75600, 5120, 40, 100, 658.46e15};
  const GenerationCost i2v{75600, 5120, 40, 80, 526.76e15};
  const GenerationCost hunyuan{120000, 3072, 60, 50, 612.38e15};
  EXPECT_NEAR(t2v.attention() / 1e15, 468.2, 0.05);
  const auto near = [](const GenerationCost& cost, double density, double published) {
    EXPECT_NEAR(cost.total(0.3, density) / 1e15, published, 0.02);
  };
  near(i2v, 0.3899, 366.80);
  near(i2v, 0.3025, 343.88);
  near(i2v, 0.3128, 346.59);
  near(i2v, 0.1413, 301.62);
  near(t2v, 0.4203, 468.46);
  near(t2v, 0.3025, 429.86);
  near(t2v, 0.2951, 427.43);
  near(t2v, 0.1287, 372.89);
  near(hunyuan, 0.4262, 399.16);
  near(hunyuan, 0.3932, 386.90);
  near(hunyuan, 0.2986, 351.75);
  near(hunyuan, 0.2545, 335.36);
  EXPECT_DOUBLE_EQ(GenerationCost::speedup(1, 0, 0.25, 1, 0), 4.0);
  EXPECT_DOUBLE_EQ(GenerationCost::speedup(0.8, 1, 0.25, 1, 0), 1.0);
}

TEST_F(Compare, OverlapCountsPairsInModelOrder) {
  const MemoryTrace memory = trace();
  const HeadData a = memory.load({memory.info().calls.front().id, 0}, {});
  const HeadData b = memory.load({memory.info().calls.front().id, 1}, {});
  for (const char* id : {"svg2", "svg", "adaspa"}) {
    SCOPED_TRACE(id);
    const Plan left = planOf(id, {}, a, *backend), right = planOf(id, {}, b, *backend);
    const auto mine = keptPairs(left, Naive(a, false)), theirs = keptPairs(right, Naive(b, false));
    double both = 0, either = 0, own = 0;
    for (std::size_t n = 0; n < mine.size(); ++n) {
      both += mine[n] != 0 && theirs[n] != 0 ? 1 : 0;
      either += mine[n] != 0 || theirs[n] != 0 ? 1 : 0;
      own += mine[n] != 0 ? 1 : 0;
    }
    const Overlap overlap = overlapOf(left, right, 0, {});
    EXPECT_DOUBLE_EQ(overlap.jaccard, both / either);
    EXPECT_DOUBLE_EQ(overlap.covered, both / own);
    EXPECT_EQ(overlap.rows, 640);
    EXPECT_EQ(overlapOf(left, left, 16, {}).jaccard, 1.0);
    EXPECT_EQ(overlapOf(left, right, 16, {}).rows, 16);
  }
  const Plan counted = planOf("oracle_token", {}, a, *backend);
  EXPECT_THROW((void)overlapOf(counted, counted, 0, {}), Error);
}

TEST_F(Compare, CurvesAreMeasuredKeptAndLookedUp) {
  const MemoryTrace memory = trace();
  const auto request = requestOf("oracle_block", {"block_size=32"});
  const auto curves = responseCurves(memory, request, 6, *backend, {});
  ASSERT_EQ(curves.size(), 2U);
  for (const HeadCurve& curve : curves) {
    ASSERT_EQ(curve.points.size(), 6U);
    EXPECT_TRUE(std::is_sorted(curve.points.begin(), curve.points.end(),
                               [](const CurvePoint& a, const CurvePoint& b) { return a.mass < b.mass; }));
    EXPECT_EQ(curve.at(curve.points[3].kept).mass, curve.points[3].mass);
    const double middle = (curve.points[2].kept + curve.points[3].kept) / 2;
    EXPECT_NEAR(curve.at(middle).mass, (curve.points[2].mass + curve.points[3].mass) / 2, 1e-12);
    EXPECT_EQ(curve.at(2.0).mass, curve.points.back().mass);
  }
  const auto path = std::filesystem::temp_directory_path() / fmt::format("curves_{}/x.json", getpid());
  writeCurves(path, curves);
  const auto read = readCurves(path);
  ASSERT_EQ(read.size(), 2U);
  EXPECT_EQ(read[1].id, curves[1].id);
  EXPECT_EQ(read[1].points[4].mass, curves[1].points[4].mass);
  EXPECT_EQ(read[1].points[4].error, curves[1].points[4].error);
  std::filesystem::remove_all(path.parent_path());
  // Whatever decides the numbers decides the file.
  EXPECT_EQ(curvePath(memory, request, 6), curvePath(memory, request, 6));
  EXPECT_NE(curvePath(memory, request, 6), curvePath(memory, request, 7));
  EXPECT_NE(curvePath(memory, request, 6), curvePath(memory, requestOf("oracle_block", {"block_size=16"}), 6));
  auto other = request;
  other.selection.heads = Selector::parse("1");
  EXPECT_NE(curvePath(memory, request, 6), curvePath(memory, other, 6));
}

}  // namespace
}  // namespace sparsight

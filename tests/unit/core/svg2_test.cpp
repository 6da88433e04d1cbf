// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <numeric>
#include <set>

#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;
using testing::HasSubstr;

/// Lloyd's iteration in double, as the specification words it.
struct NaiveKMeans {
  std::vector<std::int32_t> labels;
  std::vector<std::vector<double>> centroids;
  std::vector<Index> sizes;
};
NaiveKMeans naiveKMeans(const MatrixView& tokens, Index first, Index count, const std::vector<Index>& seeds,
                        int iterations) {
  std::vector<std::vector<double>> x;
  for (Index i = 0; i < count; ++i) {
    std::vector<float> row(at(tokens.cols));
    rowToFloat(tokens, first + i, row);
    x.emplace_back(row.begin(), row.end());
  }
  NaiveKMeans result;
  for (const Index seed : seeds) result.centroids.push_back(x[at(seed)]);
  for (int n = 0; n < iterations; ++n) {
    result.labels.assign(x.size(), 0);
    result.sizes.assign(seeds.size(), 0);
    std::vector<std::vector<double>> sums(seeds.size(), std::vector<double>(at(tokens.cols), 0.0));
    for (std::size_t i = 0; i < x.size(); ++i) {
      double best = INFINITY;
      for (std::size_t c = 0; c < seeds.size(); ++c) {
        double square = 0;
        for (std::size_t d = 0; d < x[i].size(); ++d) square += std::pow(x[i][d] - result.centroids[c][d], 2);
        if (square < best) {
          best = square;
          result.labels[i] = static_cast<std::int32_t>(c);
        }
      }
      const auto c = static_cast<std::size_t>(result.labels[i]);
      ++result.sizes[c];
      for (std::size_t d = 0; d < x[i].size(); ++d) sums[c][d] += x[i][d];
    }
    for (std::size_t c = 0; c < seeds.size(); ++c) {
      if (result.sizes[c] == 0) continue;
      for (std::size_t d = 0; d < sums[c].size(); ++d) {
        result.centroids[c][d] = sums[c][d] / static_cast<double>(result.sizes[c]);
      }
    }
  }
  return result;
}

class Svg2 : public testing::Test {
 protected:
  static HeadSpec specOf(int text = 0, bool textFirst = false, Index padding = 0) {
    HeadSpec spec;
    spec.layout = layoutOf(4, 5, 8, text, textFirst);
    spec.family = text == 0 ? "wan2.1" : "hunyuanvideo";
    spec.paddingText = padding;
    spec.headDim = 6;
    return spec;
  }
  static Draws drawsOf(std::vector<Index> q, std::vector<Index> k) {
    Draws draws;
    draws.initQ = {std::move(q)};
    draws.initK = {std::move(k)};
    return draws;
  }
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

TEST_F(Svg2, ClustersMapAndBlocksEqualTheNaiveReading) {
  const Draws draws = drawsOf({3, 77, 3, 140, 20}, {9, 9, 50, 100, 150, 31, 88});  // with duplicates
  for (const auto& [text, textFirst] : {std::pair{0, false}, {9, false}, {9, true}}) {
    SCOPED_TRACE(fmt::format("text {} first {}", text, textFirst));
    const HeadData head = makeHead(specOf(text, textFirst, text > 0 ? 3 : 0));
    const Plan plan =
        planOf("svg2", {"kmeans_iter=4", "top_p_kmeans=0.6", "min_kc_ratio=0.3"}, head, *backend, false, 0, &draws);
    const Index start = head.layout.video()->start;
    const NaiveKMeans q = naiveKMeans(head.input.q, start, 160, draws.initQ[0], 4);
    const NaiveKMeans k = naiveKMeans(head.input.k, start, 160, draws.initK[0], 4);
    ASSERT_EQ(plan.qLabels.size(), at(160 + text));
    for (Index i = 0; i < 160; ++i) {
      ASSERT_EQ(plan.qLabels[at(start + i)], q.labels[at(i)]);
      ASSERT_EQ(plan.kLabels[at(start + i)], k.labels[at(i)]);
    }
    for (std::size_t c = 0; c < 7; ++c) {
      EXPECT_EQ(plan.kSizes[c], k.sizes[c]);
      for (std::size_t d = 0; d < 6; ++d) {
        EXPECT_NEAR(static_cast<double>(plan.kCentroids[c * 6 + d]), k.centroids[c][d], 1e-5);
      }
    }
    EXPECT_EQ(plan.facts.at("q_empty_clusters"), std::count(q.sizes.begin(), q.sizes.end(), 0));
    EXPECT_EQ(plan.facts.at("k_empty_clusters"), std::count(k.sizes.begin(), k.sizes.end(), 0));
    // After one iteration the second of two equal seeds is empty: the lower number won, and it kept its centroid.
    const Plan once = planOf("svg2", {"kmeans_iter=1"}, head, *backend, false, 0, &draws);
    EXPECT_EQ(once.qSizes[2], 0);
    EXPECT_EQ(once.kSizes[1], 0);
    EXPECT_EQ(once.facts.at("k_empty_clusters"), 1);
    // Inside a block tokens ascend; text blocks are prompt, then padding.
    for (Index b = 0; b < plan.qBlocks(); ++b) {
      for (Index p = plan.qBounds[at(b)]; p < plan.qBounds[at(b + 1)]; ++p) {
        EXPECT_EQ(plan.qLabels[at(plan.qOrder[at(p)])], b);
        if (p > plan.qBounds[at(b)]) {
          EXPECT_LT(plan.qOrder[at(p - 1)], plan.qOrder[at(p)]);
        }
      }
    }
    // Top-p with the crossing cluster, floor(0.3 * 7) = 2 clusters at least.
    const Index columns = plan.kBlocks();
    EXPECT_EQ(columns, text > 0 ? 9 : 7);
    for (std::size_t i = 0; i < 5; ++i) {
      std::vector<double> p(7);
      double sum = 0, top = -INFINITY;
      for (std::size_t j = 0; j < 7; ++j) {
        double z = 0;
        for (std::size_t d = 0; d < 6; ++d) z += q.centroids[i][d] * k.centroids[j][d];
        p[j] = z / std::sqrt(6.0);
        top = std::max(top, p[j]);
      }
      for (std::size_t j = 0; j < 7; ++j) sum += p[j] = static_cast<double>(k.sizes[j]) * std::exp(p[j] - top);
      std::vector<std::size_t> order(7);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] > p[b]; });
      double before = 0;
      for (std::size_t m = 0; m < 7; ++m) {
        const bool kept = m < 2 || before <= 0.6;
        before += p[order[m]] / sum;
        EXPECT_EQ(plan.map[i * at(columns) + order[m]], kept ? 1 : 0) << i << "," << m;
        EXPECT_NEAR(static_cast<double>(plan.scores[i * at(columns) + order[m]]), p[order[m]] / sum, 1e-5);
      }
    }
    if (text == 0) continue;
    const auto keeps = [&](Index i, Index j) { return plan.map[at(i * columns + j)] != 0; };
    for (Index i = 0; i < 5; ++i) {
      EXPECT_TRUE(keeps(i, 7));   // video sees the prompt
      EXPECT_FALSE(keeps(i, 8));  // and no padding
    }
    for (Index j = 0; j < 8; ++j) {
      EXPECT_TRUE(keeps(5, j));   // the prompt sees video and itself
      EXPECT_FALSE(keeps(6, j));  // padding sees padding only
    }
    EXPECT_TRUE(keeps(6, 8));
    EXPECT_FALSE(keeps(5, 8));
    EXPECT_EQ(plan.kSizes[7], 6);
    EXPECT_EQ(plan.kSizes[8], 3);
    EXPECT_TRUE(std::isnan(plan.scores[at(7)]));
  }
}

TEST_F(Svg2, LaterStepsGoOnFromTheStoredCentroids) {
  HeadSpec spec = specOf();
  const MemoryTrace trace = memoryTrace(spec, {2, 3, 6}, {1}, 2);
  RunRequest request;
  request.methodId = "svg2";
  request.params = ParamSet::parse(methodById("svg2").params(), {"qc=5", "kc=9", "kmeans_iter_init=6"});
  const RunReport report = runMethod(trace, request, *backend, {});
  ASSERT_EQ(report.heads.size(), 6U);
  const auto plan = [&](int step, int head) -> const Plan& { return report.heads[at(step * 2 + head)].plan; };
  EXPECT_FALSE(plan(0, 1).reusedFromStep);
  EXPECT_EQ(plan(0, 1).facts.at("k_iterations"), 6);
  EXPECT_EQ(*plan(1, 1).reusedFromStep, 2);
  EXPECT_EQ(plan(1, 1).facts.at("k_iterations"), 2);
  EXPECT_EQ(*plan(2, 0).reusedFromStep, 3);
  // The start is head 1's own centroids of step 2: two plain iterations from there.
  const HeadData head = trace.load({report.heads[3].id.call, 1}, {});
  std::vector<float> centroids = plan(0, 1).kCentroids;
  const auto prepared = backend->prepare(head.input, head.keepAlive, {});
  std::vector<std::int32_t> labels;
  for (int n = 0; n < 2; ++n) {
    ClusterResult round = backend->cluster(*prepared, {Side::Key, 0, 160, centroids}, {});
    labels = round.labels;
    centroids = round.means;
  }
  EXPECT_EQ(plan(1, 1).kLabels, labels);
  EXPECT_EQ(plan(1, 1).kCentroids, centroids);
  EXPECT_THAT(report.warnings, testing::Contains(HasSubstr("step 6 starts from the centroids of step 3")));
  EXPECT_EQ(report.resolved.at("num_k_centroids"), "9");
  // Objectives fall.
  for (int n = 1; n < 6; ++n) {
    EXPECT_LE(plan(0, 0).facts.at(fmt::format("q_objective_{:02}", n + 1)),
              plan(0, 0).facts.at(fmt::format("q_objective_{:02}", n)) + 1e-6);
  }
}

TEST_F(Svg2, BranchesShareTheCentroidsWhenAllAreRun) {
  const HeadSpec spec = specOf();
  TraceInfo info = memoryInfo(spec, {2, 3}, {1}, 1);
  const std::size_t calls = info.calls.size();
  for (std::size_t n = 0; n < calls; ++n) {
    info.calls.push_back(info.calls[n]);
    info.calls.back().id.branch = "uncond";
  }
  std::sort(info.calls.begin(), info.calls.end(), [](const CallInfo& a, const CallInfo& b) { return a.id < b.id; });
  const MemoryTrace trace(info, [spec](const HeadId& id) {
    HeadSpec own = spec;
    own.seed = static_cast<unsigned>(10 * id.call.step + static_cast<int>(id.call.branch.size()));
    return makeHead(own);
  });
  RunRequest request;
  request.methodId = "svg2";
  request.selection.branch = "all";
  for (const bool share : {true, false}) {
    request.params = ParamSet::parse(methodById("svg2").params(),
                                     {"kmeans_iter=2", share ? "share_branches=on" : "share_branches=off"});
    const RunReport report = runMethod(trace, request, *backend, {});
    ASSERT_EQ(report.heads.size(), 4U);
    std::vector<std::string> order;
    for (const HeadReport& head : report.heads) {
      order.push_back(
          fmt::format("{}{}{}", head.id.call.branch, head.id.call.step, head.plan.reusedFromStep ? "+" : ""));
    }
    if (share) {
      EXPECT_THAT(order, testing::ElementsAre("cond2", "uncond2+", "cond3+", "uncond3+"));
    } else {
      EXPECT_THAT(order, testing::ElementsAre("cond2", "cond3+", "uncond2", "uncond3+"));
    }
  }
}

TEST_F(Svg2, DenseStepsSeedTheCentroidsWhenAsked) {
  const MemoryTrace trace = memoryTrace(specOf(), {1, 2}, {1}, 1);  // 2 of 10 steps are dense
  RunRequest request;
  request.methodId = "svg2";
  request.warmup = true;
  for (const bool seeded : {false, true}) {
    request.params = ParamSet::parse(methodById("svg2").params(),
                                     {seeded ? "zero_step_kmeans_init=true" : "zero_step_kmeans_init=false"});
    const RunReport report = runMethod(trace, request, *backend, {});
    EXPECT_EQ(report.heads[0].evaluation.keptFraction, 1.0);
    EXPECT_EQ(report.heads[1].plan.reusedFromStep, seeded ? std::optional<int>(1) : std::nullopt);
  }
}

TEST_F(Svg2, CountsAreClampedToAnEighthAndFollowDraws) {
  const HeadData head = makeHead(specOf());
  const Plan clamped = planOf("svg2", {}, head, *backend);
  EXPECT_EQ(clamped.qBlocks(), 20);
  EXPECT_EQ(clamped.kBlocks(), 20);
  EXPECT_THAT(clamped.warnings, testing::Contains(HasSubstr("num_k_centroids 1000 clamped to 20")));
  const ParamSet params = paramsFor(methodById("svg2"), {}, head);
  const auto adjusted = methodById("svg2").adjusted(head.layout, params, nullptr);
  EXPECT_EQ(adjusted.at("num_q_centroids"), "20");
  const Draws draws = drawsOf(std::vector<Index>(40, 5), {1, 2, 3});
  EXPECT_EQ(methodById("svg2").adjusted(head.layout, params, &draws).at("num_q_centroids"), "40");
  EXPECT_EQ(planOf("svg2", {}, head, *backend, false, 0, &draws).qBlocks(), 40);
  const Draws outside = drawsOf({160}, {1});
  EXPECT_THROW((void)planOf("svg2", {}, head, *backend, false, 0, &outside), Error);
}

TEST_F(Svg2, EverythingKeptIsDense) {
  const HeadData head = makeHead(specOf(9, false, 3));
  const Plan plan = planOf("svg2", {"top_p_kmeans=1", "min_kc_ratio=1", "kmeans_iter=3"}, head, *backend);
  const Evaluation numbers = evaluatePlan(plan, head, {}, *backend, {});
  EXPECT_DOUBLE_EQ(numbers.keptFraction, 1.0);
  EXPECT_DOUBLE_EQ(numbers.keptMass, 1.0);
  EXPECT_NEAR(*numbers.outputRelError, 0, 1e-6);
  EXPECT_NEAR(plan.facts.at("estimated_mass"), 1.0, 1e-9);
}

TEST_F(Svg2, DistancesAndSeedingsAreSelectable) {
  const HeadData head = makeHead(specOf());
  std::set<std::vector<std::int32_t>> labels;
  for (const char* extra : {"distance=euclid", "distance=cosine", "distance=dot", "init=kmeans++"}) {
    const Plan plan = planOf("svg2", {"qc=8", "kc=12", "kmeans_iter=4", extra}, head, *backend, false, 5);
    labels.insert(plan.kLabels);
    if (std::string(extra) == "init=kmeans++") {
      EXPECT_EQ(plan.facts.at("k_empty_clusters"), 0);
    }
  }
  EXPECT_EQ(labels.size(), 4U);
}

TEST_F(Svg2, PlannerCostIsIterationsTimesTokensTimesClusters) {
  const HeadData head = makeHead(specOf());
  const Plan plan = planOf("svg2", {"qc=8", "kc=12", "kmeans_iter=3"}, head, *backend);
  EXPECT_DOUBLE_EQ(plan.plannerFlops, 3.0 * 2 * 160 * 6 * (8 + 12) + 2.0 * 8 * 12 * 6);
}

TEST_F(Svg2, UnsupportedHeadsSayWhy) {
  const auto reason = [&](const HeadData& head) {
    try {
      (void)planOf("svg2", {}, head, *backend);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::Unsupported);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  HeadSpec subset = specOf();
  subset.qRows = {1, 2, 30};
  EXPECT_THAT(reason(makeHead(subset)), HasSubstr("only 3 of 160 query rows"));
  HeadData cross = makeHead(specOf());
  cross.id.call.kind = "cross";
  EXPECT_THAT(reason(cross), HasSubstr("cross-attention"));
  HeadSpec noValues = specOf();
  noValues.withV = false;
  EXPECT_EQ(reason(makeHead(noValues)), "accepted");  // planning needs no values
}

TEST_F(Svg2, DefaultsFollowFamilyAndVariant) {
  const auto value = [](const char* family, const TokenLayout& layout, const char* name,
                        const std::vector<std::string>& given = {}) {
    HeadData head;
    head.family = family;
    head.layout = layout;
    return paramsFor(methodById("svg2"), given, head).text(name);
  };
  const TokenLayout plain = layoutOf(2, 2, 2, 0), joint = layoutOf(2, 2, 2, 3);
  EXPECT_EQ(value("wan2.1", plain, "num_q_centroids"), "300");
  EXPECT_EQ(value("hunyuanvideo", joint, "num_q_centroids"), "400");
  EXPECT_EQ(value("cosmos", plain, "num_q_centroids"), "400");
  EXPECT_EQ(value("wan2.1", plain, "num_k_centroids"), "1000");
  EXPECT_EQ(value("wan2.1", plain, "kmeans_iter_init"), "50");
  EXPECT_EQ(value("wan2.1", plain, "min_kc_ratio"), "0.1");
  EXPECT_EQ(value("wan2.1", plain, "num_q_centroids", {"variant=paper"}), "100");
  EXPECT_EQ(value("wan2.1", plain, "kmeans_iter_step", {"kmeans_iter=7"}), "7");
  EXPECT_EQ(value("wan2.1", plain, "kmeans_iter_init", {"kmeans_iter=7"}), "7");
}

TEST_F(Svg2, DrawsBelongToTheHeadNotToTheSelection) {
  const MemoryTrace trace = memoryTrace(specOf(), {2}, {1}, 3);
  RunRequest request;
  request.methodId = "svg2";
  request.params = ParamSet::parse(methodById("svg2").params(), {"kmeans_iter=2"});
  const RunReport all = runMethod(trace, request, *backend, {});
  request.selection.heads = Selector::parse("2");
  const RunReport one = runMethod(trace, request, *backend, {});
  EXPECT_EQ(one.heads.at(0).plan.kLabels, all.heads.at(2).plan.kLabels);
  EXPECT_EQ(one.heads.at(0).plan.blockMask, all.heads.at(2).plan.blockMask);
  request.seed = 1;
  EXPECT_NE(runMethod(trace, request, *backend, {}).heads.at(0).plan.kLabels, one.heads.at(0).plan.kLabels);
  // A file of draws for all heads serves a selection of one.
  request.draws = Draws{};
  request.draws->initQ = {{1, 2}, {3, 4}, {5, 6}};
  request.draws->initK = {{11, 12, 13}, {14, 15, 16}, {17, 18, 19}};
  const RunReport drawn = runMethod(trace, request, *backend, {});
  request.selection.heads = {};
  EXPECT_EQ(drawn.heads.at(0).plan.kLabels, runMethod(trace, request, *backend, {}).heads.at(2).plan.kLabels);
}

TEST_F(Svg2, TooShortListsAreRefusedBeforeWork) {
  const MemoryTrace trace = memoryTrace(specOf(), {2}, {1}, 3);
  RunRequest request;
  request.methodId = "svg2";
  request.params = ParamSet::parse(methodById("svg2").params(), {"min_kc_ratio=0.1,0.2"});
  int heads = 0;
  try {
    (void)runMethod(trace, request, *backend, {}, [&](const HeadReport&) { ++heads; });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::InvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr("2 values for 3 selected heads"));
  }
  EXPECT_EQ(heads, 0);
}

}  // namespace
}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <unistd.h>

#include <filesystem>
#include <numeric>

#include "sparsight/core/profile.h"
#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;
using testing::HasSubstr;

using Rows = std::vector<std::vector<double>>;

Rows rowsOf(const MatrixView& matrix, Index count) {
  Rows rows;
  for (Index i = 0; i < count; ++i) {
    std::vector<float> row(at(matrix.cols));
    rowToFloat(matrix, i, row);
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}
double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
/// x A^T at unit length, eps inside the root.
std::vector<double> profileOf(const std::vector<double>& x, const Rows& basis) {
  std::vector<double> u;
  for (const auto& row : basis) u.push_back(dot(x, row));
  const double norm = std::sqrt(dot(u, u) + 1e-8);
  for (double& value : u) value /= norm;
  return u;
}
/// One half-step: labels by profile cosine, then means in token space.
std::vector<std::int32_t> halfStep(const Rows& tokens, Rows& centroids, const Rows& basis) {
  std::vector<std::int32_t> labels;
  Rows profiles;
  for (const auto& c : centroids) profiles.push_back(profileOf(c, basis));
  Rows sums(centroids.size(), std::vector<double>(tokens[0].size(), 0.0));
  std::vector<double> count(centroids.size(), 0);
  for (const auto& x : tokens) {
    const std::vector<double> u = profileOf(x, basis);
    std::size_t best = 0;
    for (std::size_t c = 1; c < profiles.size(); ++c) {
      if (2 - 2 * dot(u, profiles[c]) < 2 - 2 * dot(u, profiles[best])) best = c;
    }
    labels.push_back(static_cast<std::int32_t>(best));
    count[best] += 1;
    for (std::size_t d = 0; d < x.size(); ++d) sums[best][d] += x[d];
  }
  for (std::size_t c = 0; c < centroids.size(); ++c) {
    for (std::size_t d = 0; count[c] > 0 && d < sums[c].size(); ++d) centroids[c][d] = sums[c][d] / count[c];
  }
  return labels;
}

class Svoo : public testing::Test {
 protected:
  static HeadSpec spec() {
    HeadSpec out;
    out.layout = layoutOf(4, 5, 8, 0);
    out.family = "wan2.1";
    out.headDim = 6;
    return out;
  }
  RunReport run(const Trace& trace, const std::vector<std::string>& params, const Draws* draws = nullptr) {
    RunRequest request;
    request.methodId = "svoo";
    request.params = ParamSet::parse(methodById("svoo").params(), params);
    if (draws != nullptr) request.draws = *draws;
    return runMethod(trace, request, *backend, {});
  }
  static std::string writeProfileFile(const Profile& profile) {
    const auto path = std::filesystem::temp_directory_path() / fmt::format("svoo_test_{}.json", getpid());
    writeProfile(path, profile);
    return path.string();
  }
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

TEST_F(Svoo, CoClusteringEqualsTheNaiveReading) {
  const HeadData head = makeHead(spec());
  Draws draws;
  draws.initQ = {{3, 77, 3, 140, 20}};
  draws.initK = {{9, 9, 50, 100, 150, 31, 88}};
  const Plan plan = planOf("svoo", {"kmeans_iter=3"}, head, *backend, false, 0, &draws);
  const Rows q = rowsOf(head.input.q, 160), k = rowsOf(head.input.k, 160);
  Rows cq, ck;
  for (const Index i : draws.initQ[0]) cq.push_back(q[at(i)]);
  for (const Index i : draws.initK[0]) ck.push_back(k[at(i)]);
  std::vector<std::int32_t> lq, lk;
  for (int n = 0; n < 3; ++n) {
    lk = halfStep(k, ck, cq);  // keys first
    lq = halfStep(q, cq, ck);  // then queries, by the new key centroids
  }
  EXPECT_EQ(plan.kLabels, lk);
  EXPECT_EQ(plan.qLabels, lq);
  for (std::size_t c = 0; c < ck.size(); ++c) {
    for (std::size_t d = 0; d < 6; ++d) EXPECT_NEAR(static_cast<double>(plan.kCentroids[c * 6 + d]), ck[c][d], 1e-5);
  }
  EXPECT_DOUBLE_EQ(plan.plannerFlops, 3 * 2.0 * 160 * (6 * 5 + 5 * 7 + 6 * 7 + 7 * 5) + 2.0 * 5 * 7 * 6);
}

TEST_F(Svoo, ReuseFollowsTheScheduleAndFreezesCentroids) {
  // start 4, interval 3: every step before 4 clusters, then 4, 7, 10.
  const MemoryTrace trace = memoryTrace(spec(), {2, 3, 4, 5, 6, 7, 9}, {1}, 1);
  const RunReport report = run(trace, {"start_reuse_step=4", "reuse_interval=3", "qc=6", "kc=10"});
  std::vector<int> from;
  for (const HeadReport& head : report.heads) from.push_back(head.plan.reusedFromStep.value_or(-1));
  EXPECT_THAT(from, testing::ElementsAre(-1, -1, -1, 4, 4, -1, 7));
  EXPECT_EQ(report.heads[3].plan.kLabels, report.heads[2].plan.kLabels);
  EXPECT_EQ(report.heads[3].plan.kCentroids, report.heads[2].plan.kCentroids);
  EXPECT_EQ(report.heads[3].plan.map, report.heads[2].plan.map) << "stale centroids, same floor: the same map";
  EXPECT_NE(report.heads[5].plan.kLabels, report.heads[2].plan.kLabels);
  EXPECT_LT(report.heads[3].plan.plannerFlops, report.heads[2].plan.plannerFlops / 10);

  const RunReport always = run(trace, {"start_reuse_step=none"});
  for (const HeadReport& head : always.heads) EXPECT_FALSE(head.plan.reusedFromStep);
  const RunReport never = run(trace, {"start_reuse_step=0", "reuse_interval=none"});
  for (std::size_t n = 1; n < 7; ++n) EXPECT_EQ(*never.heads[n].plan.reusedFromStep, 2);
  const RunReport runtime = run(trace, {"variant=sparsevideo", "reuse_interval=3"});
  from.clear();
  for (const HeadReport& head : runtime.heads) from.push_back(head.plan.reusedFromStep.value_or(-1));
  EXPECT_THAT(from, testing::ElementsAre(-1, 2, 2, -1, 5, 5, -1));
}

TEST_F(Svoo, ANotCapturedClusteringStepIsReplacedAndSaid) {
  const RunReport report = run(memoryTrace(spec(), {5, 8, 9}, {1}, 1), {"start_reuse_step=4", "reuse_interval=3"});
  EXPECT_FALSE(report.heads[0].plan.reusedFromStep);
  EXPECT_FALSE(report.heads[1].plan.reusedFromStep);
  EXPECT_EQ(*report.heads[2].plan.reusedFromStep, 8);
  EXPECT_THAT(report.warnings, testing::IsSupersetOf({HasSubstr("step 4, where the schedule clusters anew"),
                                                      HasSubstr("step 7, where")}));
}

TEST_F(Svoo, TheProfileIsAFloorWithTwoClips) {
  Profile profile(10, 4, 3, BudgetRole::KeptFloor);
  for (int head = 0; head < 3; ++head) {
    profile.set({2, 1, head}, 0.1 + 0.3 * head);  // 0.1, 0.4, 0.7
    if (head < 2) profile.set({5, 1, head}, 0.9);
  }
  const std::string path = writeProfileFile(profile);
  const MemoryTrace trace = memoryTrace(spec(), {2, 5}, {1}, 3);
  const auto floors = [&](const std::vector<std::string>& more) {
    std::vector<std::string> params{"profile=" + path, "kc=10", "top_p_kmeans=0", "min_kc_ratio=0.35"};
    params.insert(params.end(), more.begin(), more.end());
    const RunReport report = run(trace, params);
    std::vector<double> out;
    for (const HeadReport& head : report.heads) {
      out.push_back(head.plan.facts.at("floor_clusters"));
      // top_p 0 keeps one cluster: the floor decides alone.
      for (Index i = 0; i < head.plan.qBlocks(); ++i) {
        Index kept = 0;
        for (Index j = 0; j < 10; ++j) kept += head.plan.map[at(i * 10 + j)];
        EXPECT_EQ(static_cast<double>(kept), std::max(1.0, out.back()));
      }
    }
    return out;
  };
  // Step 5 misses head 2, so the whole layer falls back to the scalar, which is not clipped.
  using testing::ElementsAre;
  EXPECT_THAT(floors({"dynamic_min_kc_ratio_min=0.2", "dynamic_min_kc_ratio_max=0.5"}), ElementsAre(2, 4, 5, 3, 3, 3));
  EXPECT_THAT(floors({"dynamic_min_kc_ratio_min=none", "dynamic_min_kc_ratio_max=none"}),
              ElementsAre(1, 4, 7, 3, 3, 3));
  // lo above hi: hi wins.
  EXPECT_THAT(floors({"dynamic_min_kc_ratio_min=0.8", "dynamic_min_kc_ratio_max=0.3"}), ElementsAre(3, 3, 3, 3, 3, 3));
  // int(0.7f * 10) is 6 in the runtime's float32, 7 in Python floats.
  EXPECT_THAT(floors({"variant=sparsevideo", "dynamic_min_kc_ratio_min=none", "dynamic_min_kc_ratio_max=none"}),
              ElementsAre(1, 4, 6, 3, 3, 3));
  const RunReport report = run(trace, {"profile=" + path});
  EXPECT_THAT(report.warnings, testing::Contains(HasSubstr("no value for step 5 layer 1 head 2")));
  Profile other(50, 4, 3, BudgetRole::KeptTarget);
  for (int head = 0; head < 3; ++head) {
    for (const int step : {2, 5}) other.set({step, 1, head}, 0.2);
  }
  const std::string wrong = writeProfileFile(other);
  EXPECT_THAT(run(trace, {"profile=" + wrong}).warnings,
              testing::IsSupersetOf({HasSubstr("the profile has 50 steps and the run 10"), HasSubstr("kept_target")}));
  std::filesystem::remove(path);
  EXPECT_THROW((void)run(trace, {"profile=" + path}), Error);
}

TEST_F(Svoo, PaperRuleTurnsRoundForDenseHeads) {
  // Eq. 7: below a skipped fraction of 0.1 the profile caps instead of bounding from below.
  const HeadData head = makeHead(spec());
  const auto keptOf = [&](const std::string& ratio, const std::string& topP) {
    const Plan plan =
        planOf("svoo", {"variant=paper", "kc=20", "top_p_kmeans=" + topP, "min_kc_ratio=" + ratio}, head, *backend);
    return std::accumulate(plan.map.begin(), plan.map.begin() + 20, 0);
  };
  EXPECT_EQ(keptOf("0.5", "0"), 10);
  EXPECT_EQ(keptOf("0.95", "0.99999"), 19);
  EXPECT_EQ(keptOf("0.95", "0"), 1);
}

TEST_F(Svoo, TopPOfOneIsDense) {
  const HeadData head = makeHead(spec());
  const Plan plan = planOf("svoo", {"top_p_kmeans=1", "min_kc_ratio=0"}, head, *backend);
  EXPECT_DOUBLE_EQ(evaluatePlan(plan, head, {}, *backend, {}).keptFraction, 1.0);
}

TEST_F(Svoo, DefaultsFollowTheFamily) {
  const auto value = [](const char* family, const TokenLayout& layout, const char* name) {
    HeadData head;
    head.family = family;
    head.layout = layout;
    return paramsFor(methodById("svoo"), {}, head).text(name);
  };
  const TokenLayout plain = layoutOf(2, 2, 2, 0), joint = layoutOf(2, 2, 2, 3);
  EXPECT_EQ(value("wan2.1", plain, "top_p_kmeans"), "0.9");
  EXPECT_EQ(value("hunyuanvideo", joint, "top_p_kmeans"), "0.88");
  EXPECT_EQ(value("wan2.1", plain, "start_reuse_step"), "10");
  EXPECT_EQ(value("hunyuanvideo", joint, "start_reuse_step"), "5");
  EXPECT_EQ(value("hunyuanvideo", joint, "reuse_interval"), "50");
  EXPECT_EQ(value("wan2.1", plain, "dynamic_min_kc_ratio_max"), "0.1");
}

}  // namespace
}  // namespace sparsight

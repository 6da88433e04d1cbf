// SPDX-License-Identifier: Apache-2.0
// SVG2 against results of the public SparseVideo implementation (reference data set, absent in a bare clone).
#include "tests/unit/core/cluster_golden_support.h"

namespace sparsight {
namespace {
using namespace test;

class Svg2Golden : public ClusterGolden {
 protected:
  void SetUp() override { openCase("svg2"); }
};

TEST_P(Svg2Golden, LabelsSizesAndCentroids) { expectClusters(run({"kmeans_iter=5"}, drawsOf(""))); }

TEST_P(Svg2Golden, MapsAndDensities) {
  for (const auto& [p, r] : {std::pair{"0.5", "0.0"}, {"0.5", "0.3"}, {"0.9", "0.0"}, {"0.9", "0.1"}}) {
    const std::string name = fmt::format("map_p{}_r{}", p, r);
    const RunReport report =
        run({"kmeans_iter=5", fmt::format("top_p_kmeans={}", p), fmt::format("min_kc_ratio={}", r)}, drawsOf(""));
    expectMap(report, name);
    // Density over the clustered tokens, as the runtime counts it.
    const auto want = file->openDataset("density_" + name).read<float>();
    for (std::size_t h = 0; h < 2; ++h) {
      const Plan& plan = report.heads[h].plan;
      double area = 0;
      for (Index i = 0; i < 6; ++i) {
        for (Index j = 0; j < 12; ++j) {
          if (plan.map[at(i * plan.kBlocks() + j)] != 0)
            area += static_cast<double>(plan.qSizes[at(i)] * plan.kSizes[at(j)]);
        }
      }
      EXPECT_NEAR(area / static_cast<double>(videoTokens * videoTokens), static_cast<double>(want[h]), 1e-6);
    }
  }
  expectMap(run({"kmeans_iter=5", "top_p_kmeans=0.5", "min_kc_ratio=0,0.6"}, drawsOf("")), "map_per_head_ratio");
}

TEST_P(Svg2Golden, Probabilities) {
  const RunReport report = run({"kmeans_iter=5"}, drawsOf(""));
  const auto want = file->openDataset("probs").read<float>();
  for (std::size_t h = 0; h < 2; ++h) {
    const Plan& plan = report.heads[h].plan;
    for (Index i = 0; i < 6; ++i) {
      for (Index j = 0; j < 12; ++j) {
        EXPECT_NEAR(plan.scores[at(i * plan.kBlocks() + j)], want[h * 72 + at(i * 12 + j)], 1e-5F);
      }
    }
  }
}

TEST_P(Svg2Golden, EndToEnd) {
  const RunReport report = run({"kmeans_iter=5", "top_p_kmeans=0.9", "min_kc_ratio=0.1"}, drawsOf("e2e_"));
  expectMap(report, "e2e_map");
  expectSizes(report, "e2e_q_sizes", true);
  expectSizes(report, "e2e_k_sizes", false);
  expectOutputs(report, "e2e_out");
}

INSTANTIATE_TEST_SUITE_P(Cases, Svg2Golden, kGoldenCases, goldenName);

}  // namespace
}  // namespace sparsight

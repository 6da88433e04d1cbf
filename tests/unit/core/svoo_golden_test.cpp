// SPDX-License-Identifier: Apache-2.0
// SVOO against results of the public SparseVideo implementation (reference data set, absent in a bare clone).
#include "tests/unit/core/cluster_golden_support.h"

namespace sparsight {
namespace {
using namespace test;

class SvooGolden : public ClusterGolden {
 protected:
  void SetUp() override { openCase("svoo"); }
  // The budget of step 2, layer 1 as the lookup gave it, one value per head.
  [[nodiscard]] std::string ratios() const {
    const auto values = file->openDataset("lookup_s2_l1").read<float>();
    return fmt::format("min_kc_ratio={},{}", values[0], values[1]);
  }
};

TEST_P(SvooGolden, LabelsSizesAndCentroids) { expectClusters(run({"kmeans_iter=2"}, drawsOf(""))); }

TEST_P(SvooGolden, EndToEnd) {
  const RunReport report = run({"kmeans_iter=2", "top_p_kmeans=0.5", ratios()}, drawsOf(""));
  expectMap(report, "map_top0p5_lookup_s2_l1");
  expectMap(report, "e2e_map");
  expectSizes(report, "e2e_q_sizes", true);
  expectSizes(report, "e2e_k_sizes", false);
  expectOutputs(report, "e2e_out");
}

INSTANTIATE_TEST_SUITE_P(Cases, SvooGolden, kGoldenCases, goldenName);

}  // namespace
}  // namespace sparsight

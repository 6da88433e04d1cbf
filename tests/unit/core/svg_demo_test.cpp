// SPDX-License-Identifier: Apache-2.0
// SVG on the demo trace, whose heads have a known type.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "sparsight/core/run.h"
#include "sparsight/core/synth.h"

namespace sparsight {
namespace {

TEST(SvgDemo, RecoversEverySpatialAndTemporalHead) {
  std::string pattern = (std::filesystem::temp_directory_path() / "sparsight-demo-XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const std::filesystem::path path = std::filesystem::path(pattern) / "demo.h5";
  Executor executor(2);
  writeSyntheticTrace(path, synthPreset("demo"), executor, {});
  {
    const auto trace = openTrace(path);
    const auto truth = trace->truth();
    ASSERT_TRUE(truth);
    const std::vector<int> steps = trace->info().steps();
    const std::vector<int> layers = trace->info().layers();
    const auto backend = createBackend("cpu", executor);
    RunRequest request;
    request.methodId = "svg";
    request.evaluate.rows = 32;  // the class does not depend on the rows that are evaluated
    int spatial = 0, temporal = 0;
    for (const std::uint64_t seed : {0U, 1U, 2U}) {
      request.seed = seed;
      for (const HeadReport& head : runMethod(*trace, request, *backend, {}).heads) {
        ASSERT_EQ(head.skippedReason, "");
        const auto s = std::find(steps.begin(), steps.end(), head.id.call.step) - steps.begin();
        const auto l = std::find(layers.begin(), layers.end(), head.id.call.layer) - layers.begin();
        const auto cell = static_cast<std::size_t>((s * truth->layers + l) * truth->heads + head.id.head);
        const std::string& name = truth->classes[static_cast<std::size_t>(truth->classOf[cell])];
        if (name != "spatial" && name != "temporal") continue;
        (name == "spatial" ? spatial : temporal) += 1;
        EXPECT_EQ(headClassName(head.plan.headClass), name)
            << "seed " << seed << " step " << head.id.call.step << " layer " << head.id.call.layer << " head "
            << head.id.head << " margin " << head.plan.margin.value_or(-1);
      }
    }
    EXPECT_GT(spatial, 0);
    EXPECT_GT(temporal, 0);
  }
  std::filesystem::remove_all(pattern);
}

}  // namespace
}  // namespace sparsight

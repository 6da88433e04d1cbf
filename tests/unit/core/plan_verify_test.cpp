// SPDX-License-Identifier: Apache-2.0
// Plan files of every method verify: what is stored is what a naive double-precision reading of it gives.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fmt/format.h>

#include <filesystem>

#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;

class PlanVerify : public testing::TestWithParam<const char*> {
 protected:
  void TearDown() override { std::filesystem::remove(path); }
  // Reads the file back and recomputes every head from the trace.
  void verify(const Trace& trace, const RunRequest& request) {
    const RunReport report = runMethod(trace, request, *backend, {});
    writePlanFile(path, trace, report, request);
    const std::vector<PlanFileEntry> entries =
        readPlanFile(path);  // validates orders, bounds, intervals against blocks
    ASSERT_EQ(entries.size(), report.heads.size());
    for (const PlanFileEntry& entry : entries) {
      SCOPED_TRACE(fmt::format("step {} layer {} head {}", entry.id.call.step, entry.id.call.layer, entry.id.head));
      const Plan& plan = entry.plan;
      EXPECT_NO_THROW(plan.validate());
      const HeadData head = trace.load(entry.id, {});
      const NaiveNumbers naive = naiveNumbers(plan, head, request.evaluate.includePadding);
      EXPECT_NEAR(entry.evaluation.keptFraction, naive.keptFraction, 2e-4);
      EXPECT_NEAR(entry.evaluation.keptMass, naive.keptMass, 2e-4);
      ASSERT_TRUE(entry.evaluation.outputRelError);
      EXPECT_NEAR(*entry.evaluation.outputRelError, naive.relError, 2e-4 * std::max(1.0, naive.relError));
      if (plan.qLabels.empty()) continue;
      // Labels, sizes and bounds tell one story.
      std::vector<Index> sizes(plan.kSizes.size(), 0);
      for (const std::int32_t label : plan.kLabels) ++sizes.at(at(label));
      EXPECT_EQ(sizes, plan.kSizes);
      for (std::size_t b = 0; b < sizes.size(); ++b) EXPECT_EQ(plan.kBounds[b + 1] - plan.kBounds[b], sizes[b]);
      for (std::size_t n = 0; n < plan.map.size(); ++n) EXPECT_EQ(plan.map[n] != 0, plan.blockMask[n] != 0);
    }
  }
  std::filesystem::path path = std::filesystem::temp_directory_path() / fmt::format("plan_verify_{}.h5", getpid());
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

TEST_P(PlanVerify, MemoryTraces) {
  for (const int text : {0, 9}) {
    for (const bool padding : {false, true}) {
      HeadSpec spec;
      spec.layout = layoutOf(3, 6, 9, text);
      spec.family = text > 0 ? "hunyuanvideo" : "wan2.1";
      spec.paddingText = text > 0 ? 4 : 0;
      RunRequest request;
      request.methodId = GetParam();
      request.params = ParamSet::parse(methodById(GetParam()).params(), {});
      request.evaluate.includePadding = padding;
      verify(memoryTrace(spec, {2, 9}, {0, 2}, 3), request);
    }
  }
}

TEST_P(PlanVerify, GoldenTraces) {
  const auto folder = std::filesystem::path(SPARSIGHT_TEST_DATA) / "golden";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no reference data in " << folder << "; NOT run";
  for (const char* name : {"A_wan", "B_hunyuan_video"}) {
    const auto trace = openTrace(folder / fmt::format("trace_{}.h5", name));
    RunRequest request;
    request.methodId = GetParam();
    request.params = ParamSet::parse(methodById(GetParam()).params(), {});
    verify(*trace, request);
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, PlanVerify,
                         testing::Values("dense", "svg", "svg2", "svoo", "adaspa", "oracle_block", "oracle_token"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace sparsight

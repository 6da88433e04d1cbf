// SPDX-License-Identifier: Apache-2.0
// What a profile's budgets lead to, by lookup in response curves.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "sparsight/core/response.h"
#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;

HeadCurve curveOf(int step, int layer, int head, double slope, std::optional<double> error = 0.5) {
  HeadCurve curve;
  curve.id = {{step, "cond", layer, "self", 0}, head};
  curve.points = {{0, 0, 0, 0, error},
                  {0.5, 0.5, std::min(1.0, slope * 0.5), 0, error ? std::optional(*error / 2) : error},
                  {1, 1, 1, 1, error ? std::optional(0.0) : error}};
  return curve;
}

TEST(Response, MeansAreOverTheCellsThatCurvesKnow) {
  Profile profile(3, 2, 2, BudgetRole::KeptTarget);
  for (int s = 0; s < 3; ++s)
    for (int l = 0; l < 2; ++l)
      for (int h = 0; h < 2; ++h) profile.set({s, l, h}, 0.25);
  profile.set({0, 0, 0}, 0.5);
  profile.set({2, 1, 1}, std::nullopt);
  ResponseTable table;
  table.add({curveOf(0, 0, 0, 1.8), curveOf(0, 0, 1, 1.2, std::nullopt), curveOf(2, 1, 1, 1.0)});
  EXPECT_EQ(table.size(), 3U);
  EXPECT_EQ(table.coverage(profile), 3);
  const LayerPredictions all = table.predict(profile);
  EXPECT_EQ(all.total.cells, 11);
  EXPECT_EQ(all.total.covered, 2);  // the third has a curve and no value
  EXPECT_DOUBLE_EQ(all.total.kept, (0.5 + 0.25) / 2);
  EXPECT_DOUBLE_EQ(all.total.mass, (0.9 + 0.3) / 2);
  EXPECT_DOUBLE_EQ(*all.total.error, 0.25);  // of the one with values
  ASSERT_EQ(all.layers.size(), 2U);
  EXPECT_EQ(all.layers[0].covered, 2);
  EXPECT_EQ(all.layers[1].covered, 0);
  EXPECT_EQ(all.layers[1].cells, 5);
  EXPECT_FALSE(all.layers[1].error);

  const LayerPredictions one = table.predict(profile, 0, 1);
  EXPECT_EQ(one.total.cells, 2);
  EXPECT_EQ(one.total.covered, 1);
  EXPECT_DOUBLE_EQ(one.total.mass, 0.3);
  EXPECT_FALSE(one.total.error);
}

TEST(Response, LaterCurvesReplaceAndTheTableGrows) {
  ResponseTable table;
  table.add({curveOf(1, 0, 0, 1.0)});
  table.add({curveOf(4, 3, 2, 1.5), curveOf(1, 0, 0, 2.0)});
  EXPECT_EQ(table.size(), 2U);
  ASSERT_NE(table.find({1, 0, 0}), nullptr);
  EXPECT_DOUBLE_EQ(table.find({1, 0, 0})->at(0.5).mass, 1.0);
  ASSERT_NE(table.find({4, 3, 2}), nullptr);
  for (const CellId cell : {CellId{0, 0, 0}, CellId{4, 3, 3}, CellId{5, 0, 0}, CellId{-1, 0, 0}})
    EXPECT_EQ(table.find(cell), nullptr);
  // A smaller profile than the curves, and an empty one.
  EXPECT_EQ(table.predict(Profile(1, 1, 1, BudgetRole::KeptTarget)).total.cells, 0);
  EXPECT_EQ(table.predict(Profile()).layers.size(), 0U);
}

TEST(Response, PredictsWhatARunMeasures) {
  HeadSpec spec;
  spec.layout = layoutOf(4, 6, 7, 0);
  spec.spread = 3.0;
  const MemoryTrace trace = memoryTrace(spec, {2, 5}, {0, 2}, 2);
  Executor executor(2);
  const auto backend = createBackend("cpu", executor);
  RunRequest request;
  request.methodId = "oracle_block";
  request.params = ParamSet::parse(methodById("oracle_block").params(), {"block_size=8"});
  ResponseTable table;
  table.add(responseCurves(trace, request, 11, *backend, {}));
  EXPECT_EQ(table.size(), 8U);
  Profile profile(10, 4, 2, BudgetRole::KeptTarget);
  // At a measured setting the prediction is the measurement.
  request.params.set("kept", "0.3");
  const RunReport run = runMethod(trace, request, *backend, {});
  for (const HeadReport& head : run.heads) {
    profile.set({head.id.call.step, head.id.call.layer, head.id.head}, head.evaluation.keptFraction);
  }
  const RunSummary measured = summarise(run);
  const Prediction predicted = table.predict(profile).total;
  EXPECT_EQ(predicted.covered, 8);
  EXPECT_NEAR(predicted.kept, measured.keptFraction, 1e-12);
  EXPECT_NEAR(predicted.mass, measured.keptMass, 1e-12);
  EXPECT_NEAR(*predicted.error, *measured.outputRelError, 1e-12);
}

TEST(Response, CurvesAreKeptBesideTheTrace) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "response_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 5, 0);
  TraceInfo info = memoryInfo(spec, {2}, {0}, 2);
  info.path = folder / "t.h5";
  const MemoryTrace trace(info, [spec](const HeadId&) { return makeHead(spec); });
  Executor executor(1);
  const auto backend = createBackend("cpu", executor);
  RunRequest request;
  request.methodId = "oracle_block";
  const KeptCurves measured = keptCurves(trace, request, 5, *backend, {});
  EXPECT_FALSE(measured.fromFile);
  EXPECT_TRUE(measured.warnings.empty());
  const std::filesystem::path file = curvePath(trace, request, 5);
  ASSERT_TRUE(std::filesystem::exists(file));
  const KeptCurves again = keptCurves(trace, request, 5, *backend, {});
  EXPECT_TRUE(again.fromFile);
  ASSERT_EQ(again.curves.size(), measured.curves.size());
  EXPECT_DOUBLE_EQ(again.curves[1].points[3].mass, measured.curves[1].points[3].mass);
  // A spoilt file costs a warning and is written anew.
  std::ofstream(file) << "{";
  const KeptCurves mended = keptCurves(trace, request, 5, *backend, {});
  EXPECT_FALSE(mended.fromFile);
  EXPECT_EQ(mended.warnings.size(), 1U);
  EXPECT_EQ(readCurves(file).size(), 2U);
}

}  // namespace
}  // namespace sparsight

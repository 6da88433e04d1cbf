// SPDX-License-Identifier: Apache-2.0
// Our own small goldens in tests/golden: inputs, draws and the double-precision, pairwise reading of SVG for them, so
// that a bare clone proves conformance without the reference data set. SPARSIGHT_UPDATE_GOLDEN=1 writes them anew (read
// the diff); the test then compares with what it has just written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "sampling.h"
#include "tests/unit/core/svg_oracle.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace {
using namespace test;
namespace fs = std::filesystem;

struct GoldenCase {
  const char* name;
  SvgCase c;
  int height;
  double kept;
  unsigned seed;
};
// Frames of more than 128 tokens, so that the bands are neither empty nor full.
const std::vector<GoldenCase>& goldenCases() {
  static const std::vector<GoldenCase> cases{
      {"svg_wan_reference", {"wan", false, 4, 144, 0, 0, false}, 9, 0.3, 1},
      {"svg_hunyuan_reference", {"hunyuan", false, 4, 144, 9, 6, false}, 9, 0.5, 2},
      {"svg_cogvideox_reference", {"cogvideox", false, 4, 144, 9, 9, true}, 9, 0.5, 3},
      {"svg_wan_sparsevideo", {"wan", true, 4, 144, 0, 0, false}, 9, 0.3, 4},
      {"svg_hunyuan_sparsevideo", {"hunyuan", true, 4, 144, 9, 6, false}, 9, 0.5, 5},
      {"svg_cogvideox_sparsevideo", {"cogvideox", true, 4, 144, 9, 9, true}, 9, 0.3, 6},
  };
  return cases;
}

fs::path goldenPath(const GoldenCase& golden) {
  return fs::path(SPARSIGHT_SOURCE_DIR) / "tests" / "golden" / (std::string(golden.name) + ".h5");
}

std::vector<float> floatsOf(const MatrixView& view) {
  std::vector<float> all(at(view.rows * view.cols));
  for (Index row = 0; row < view.rows; ++row)
    rowToFloat(view, row, std::span(all).subspan(at(row * view.cols), at(view.cols)));
  return all;
}

void writeGolden(const GoldenCase& golden) {
  const SvgCase& c = golden.c;
  const HeadData head = makeHead(svgHeadSpec(c, golden.height, golden.seed));
  std::vector<Index> rows;
  SeededRandom random(golden.seed);
  // Text rows of CogVideoX have no temporal mask; the unit tests look at them, here the losses stay defined.
  for (int n = 0; n < 24; ++n) rows.push_back((c.frontText() ? c.C : 0) + random.below(c.V()));
  const SvgOracle oracle = svgOracle(c, head, rows, golden.kept);
  fs::create_directories(goldenPath(golden).parent_path());
  h5::File file = h5::File::create(goldenPath(golden));
  file.writeString("format", "sparsight-golden-svg");
  file.writeReal("kept", golden.kept);
  const auto table = [&](const char* name, const auto& values, std::vector<Index> shape) {
    using T = typename std::decay_t<decltype(values)>::value_type;
    h5::StorageOptions storage;
    storage.chunk = shape;
    storage.deflate = 9;
    storage.shuffle = true;
    file.writeDataset<T>(name, std::span<const T>(values), shape, storage);
  };
  const Index n = c.S();
  table("q", floatsOf(head.input.q), {n, 8});
  table("k", floatsOf(head.input.k), {n, 8});
  table("v", floatsOf(head.input.v), {n, 8});
  file.writeDataset<Index>("sampled_rows", rows);
  file.writeDataset<double>("mse", std::vector<double>{oracle.mse[0], oracle.mse[1]});
  file.writeDataset<std::uint8_t>("head_choice", std::vector<std::uint8_t>{oracle.temporal});
  table("kept_pairs", oracle.kept, {n, n});
  table("out", std::vector<float>(oracle.out.begin(), oracle.out.end()), {n, 8});
  file.close();
}

class Golden : public testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override {
    if (std::getenv("SPARSIGHT_UPDATE_GOLDEN") != nullptr) writeGolden(GetParam());
    ASSERT_TRUE(fs::exists(goldenPath(GetParam()))) << "run with SPARSIGHT_UPDATE_GOLDEN=1 to write it";
    EXPECT_LT(fs::file_size(goldenPath(GetParam())), 200000U);
  }
};

TEST_P(Golden, SvgReproducesIt) {
  const GoldenCase& golden = GetParam();
  const SvgCase& c = golden.c;
  const Index n = c.S();
  const h5::File file = h5::File::openRead(goldenPath(golden));
  // The stored inputs, not the generator's: the file stands for itself.
  HeadData head = makeHead(svgHeadSpec(c, golden.height, 99));
  const auto q = file.openDataset("q").read<float>(), k = file.openDataset("k").read<float>(),
             v = file.openDataset("v").read<float>();
  head.input.q = viewOf(q, n, 8);
  head.input.k = viewOf(k, n, 8);
  head.input.v = viewOf(v, n, 8);
  const Draws draws = readDraws(goldenPath(golden));
  Executor executor(2);
  const auto backend = createBackend("cpu", executor);
  const Plan plan = planOf(
      "svg", {"kept=" + std::to_string(golden.kept), c.sparsevideo ? "variant=sparsevideo" : "variant=reference"}, head,
      *backend, false, 0, &draws);

  const auto mse = file.openDataset("mse").read<double>();
  const bool temporal = file.openDataset("head_choice").read<std::uint8_t>()[0] != 0;
  ASSERT_TRUE(plan.mse);
  EXPECT_NEAR(static_cast<double>(plan.mse->at(0)), mse[0], 1e-4 * mse[0]);
  EXPECT_NEAR(static_cast<double>(plan.mse->at(1)), mse[1], 1e-4 * mse[1]);
  EXPECT_EQ(plan.headClass, temporal ? HeadClass::Temporal : HeadClass::Spatial);

  const auto kept = file.openDataset("kept_pairs").read<std::uint8_t>();
  for (Index p = 0; p < n; ++p) {
    EXPECT_EQ(plan.qOrder.empty() ? p : plan.qOrder[at(p)], svgTokenAt(c, temporal, p));
    std::vector<std::uint8_t> row(at(n), 0);
    for (const Interval& interval : plan.keptIntervals(p)) {
      for (Index key = interval.first; key < interval.last; ++key) row[at(key)] = 1;
    }
    ASSERT_TRUE(std::equal(row.begin(), row.end(), kept.begin() + p * n)) << "row position " << p;
  }

  const auto want = file.openDataset("out").read<float>();
  std::vector<Index> order = plan.kOrder;
  if (order.empty()) {
    for (Index i = 0; i < n; ++i) order.push_back(i);
  }
  const auto prepared = prepareInKeyOrder(head, true, order, *backend, {});
  std::vector<Index> group;
  for (Index p = 0; p < n; ++p) {
    group.push_back(std::upper_bound(plan.intervalRows.begin(), plan.intervalRows.end(), p) -
                    plan.intervalRows.begin() - 1);
  }
  const AttendResult got = backend->attend(*prepared, order, {plan.rowIntervalsPtr, plan.rowIntervals, group}, {});
  for (Index p = 0; p < n; ++p) {
    for (Index d = 0; d < 8; ++d) {
      const double w = static_cast<double>(want[at(order[at(p)] * 8 + d)]);
      EXPECT_NEAR(static_cast<double>(got.out[at(p * 8 + d)]), w, 1e-4 * std::max(1.0, std::abs(w)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Golden, testing::ValuesIn(goldenCases()),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace sparsight

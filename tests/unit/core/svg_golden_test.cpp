// SPDX-License-Identifier: Apache-2.0
// SVG against results of the public SparseVideo implementation (reference data set, absent in a bare clone).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <filesystem>

#include "svg_rules.h"
#include "tests/support/golden_backend.h"
#include "tests/unit/core/method_test_support.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace {
using namespace test;

class SvgGolden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::filesystem::path folder = goldenFolder();
    const GoldenParam golden(GetParam());
    const std::filesystem::path results = folder / fmt::format("svg1_{}.h5", golden.file);
    if (!std::filesystem::exists(results)) {
      GTEST_SKIP() << "no reference data in " << folder << "; golden case " << GetParam() << " NOT run";
    }
    std::string why;
    backend = goldenBackend(golden.device, executor, why);
    if (backend == nullptr) {
      if (std::getenv("SPARSIGHT_REQUIRE_GPU") != nullptr) FAIL() << "SPARSIGHT_REQUIRE_GPU is set, but " << why;
      GTEST_SKIP() << "golden case " << GetParam() << " NOT run on a GPU: " << why;
    }
    trace = openTrace(folder / fmt::format("trace_{}.h5", golden.file));
    file.emplace(h5::File::openRead(results));
    draws = readDraws(results);
    head0 = trace->load({trace->info().calls.front().id, 0});
    n = head0.layout.tokenCount;
  }
  ParamSet params(const std::vector<std::string>& more) {
    std::vector<std::string> all{"variant=sparsevideo"};
    all.insert(all.end(), more.begin(), more.end());
    return resolveParams(methodById("svg"), trace->info(), ParamSet::parse(methodById("svg").params(), all));
  }
  RunReport run(const std::vector<std::string>& more) {
    RunRequest request;
    request.methodId = "svg";
    request.params = ParamSet::parse(methodById("svg").params(), {"variant=sparsevideo"});
    for (const std::string& assignment : more) {
      const auto equals = assignment.find('=');
      request.params.set(assignment.substr(0, equals), assignment.substr(equals + 1));
    }
    request.evaluate.includePadding = true;
    request.draws = draws;
    return runMethod(*trace, request, *backend, {});
  }
  std::unique_ptr<Trace> trace;
  std::optional<h5::File> file;
  Draws draws;
  HeadData head0;
  Index n = 0;
  Executor executor{2};
  std::unique_ptr<Backend> backend;
};

TEST_P(SvgGolden, ClassesAndLosses) {
  const RunReport report = run({});
  const auto choice = file->openDataset("head_choice").read<std::int64_t>();
  const auto mse = file->openDataset("mse").read<float>();
  ASSERT_EQ(report.heads.size(), 2U);
  for (std::size_t h = 0; h < 2; ++h) {
    const Plan& plan = report.heads[h].plan;
    EXPECT_EQ(plan.headClass, choice[h] == 1 ? HeadClass::Temporal : HeadClass::Spatial);
    for (const std::size_t m : {0U, 1U}) {
      const double want = static_cast<double>(mse[m * 2 + h]);
      EXPECT_NEAR(static_cast<double>(plan.mse->at(m)), want, 1e-4 * want);
    }
  }
}

TEST_P(SvgGolden, ProfilingMasks) {
  const SvgGeometry geometry = svgGeometry(head0, params({}));
  for (const bool temporal : {false, true}) {
    const auto want = file->openDataset(temporal ? "mask_temporal" : "mask_spatial").read<std::uint8_t>();
    std::vector<Index> order = svgOrder(geometry, temporal);
    if (order.empty()) {
      for (Index i = 0; i < n; ++i) order.push_back(i);
    }
    for (Index p = 0; p < n; ++p) {
      std::vector<std::uint8_t> row(at(n), 0);
      for (const Interval& interval : svgProfileRow(geometry, temporal, p)) {
        for (Index k = interval.first; k < interval.last; ++k) row[at(order[at(k)])] = 1;
      }
      ASSERT_TRUE(std::equal(row.begin(), row.end(), want.begin() + order[at(p)] * n))
          << "row of token " << order[at(p)];
    }
  }
}

TEST_P(SvgGolden, LayoutTransformation) {
  const SvgGeometry geometry = svgGeometry(head0, params({}));
  const auto destination = file->openDataset("token_major").read<std::int64_t>();
  const std::vector<Index> order = svgOrder(geometry, true);
  for (std::size_t i = 0; i < destination.size(); ++i) EXPECT_EQ(order[at(destination[i])], static_cast<Index>(i));
  // placed_q_head1: q of head 1 in token-major order, exactly.
  const auto placed = file->openDataset("placed_q_head1").read<float>();
  const HeadData head1 = trace->load({trace->info().calls.front().id, 1});
  const OwnedMatrix moved = gatherRows(head1.input.q, order);
  std::vector<float> row(at(head1.input.q.cols));
  for (Index p = 0; p < n; ++p) {
    rowToFloat(moved.view, p, row);
    const auto want = placed.begin() + (n + p) * head1.input.q.cols;
    ASSERT_TRUE(std::equal(row.begin(), row.end(), want)) << p;
  }
}

TEST_P(SvgGolden, CommonMasksWidthsAndDensities) {
  const auto widths = file->openDataset("window_widths").read<double>();
  const auto densities = file->openDataset("density").read<double>();
  for (std::size_t i = 0; i < widths.size(); i += 2) {
    const std::string kept = fmt::format("{}", widths[i]);
    SCOPED_TRACE("kept " + kept);
    const SvgGeometry geometry = svgGeometry(head0, params({}));
    EXPECT_EQ(static_cast<double>(svgBandWidth(geometry, widths[i])), widths[i + 1]);
    const auto want = file->openDataset("common_mask_" + kept).read<std::uint8_t>();
    const RunReport report = run({"sparsity=" + kept});
    for (const HeadReport& head : report.heads) {
      EXPECT_NEAR(head.evaluation.keptFraction, densities[i + 1], 1e-6);
      for (Index p = 0; p < n; ++p) {
        std::vector<std::uint8_t> row(at(n), 0);
        for (const Interval& interval : head.plan.keptIntervals(p)) {
          for (Index k = interval.first; k < interval.last; ++k) row[at(k)] = 1;
        }
        ASSERT_TRUE(std::equal(row.begin(), row.end(), want.begin() + p * n)) << "row position " << p;
      }
    }
  }
}

TEST_P(SvgGolden, BlockCounts) {
  for (const char* kept : {"0.25", "0.7"}) {
    const auto partial = file->openDataset(std::string("kv_num_blocks_") + kept).read<std::int32_t>();
    const auto full = file->openDataset(std::string("full_kv_num_blocks_") + kept).read<std::int32_t>();
    const Plan plan = run({std::string("sparsity=") + kept}).heads.front().plan;
    ASSERT_EQ(plan.qBlocks(), static_cast<Index>(partial.size()));
    for (Index i = 0; i < plan.qBlocks(); ++i) {
      int wholeCount = 0, partialCount = 0;
      for (Index j = 0; j < plan.kBlocks(); ++j) {
        const std::uint8_t state = plan.blockMask[at(i * plan.kBlocks() + j)];
        // The runtime pads to 128 tokens with masked ones: a ragged block is never whole there.
        const bool ragged =
            plan.qBounds[at(i + 1)] - plan.qBounds[at(i)] < 128 || plan.kBounds[at(j + 1)] - plan.kBounds[at(j)] < 128;
        if (state == 1 && !ragged) ++wholeCount;
        if (state == 2 || (state == 1 && ragged)) ++partialCount;
        // Without a band (0 tokens) the runtime still lists the diagonal blocks, though no pair in them is kept.
        if (state == 0 && i == j && plan.facts.at("band_tokens") == 0) ++partialCount;
      }
      EXPECT_EQ(wholeCount, full[at(i)]) << kept << " block row " << i;
      EXPECT_EQ(partialCount, partial[at(i)]) << kept << " block row " << i;
    }
  }
}

TEST_P(SvgGolden, OutputsEndToEnd) {
  for (const char* kept : {"0.25", "0.7"}) {
    const auto want = file->openDataset(std::string("out_") + kept).read<float>();  // [1, N, H, D]
    const RunReport report = run({std::string("sparsity=") + kept});
    for (std::size_t h = 0; h < 2; ++h) {
      const HeadData data = trace->load(report.heads[h].id);
      const Plan& plan = report.heads[h].plan;
      std::vector<Index> keyOrder = plan.kOrder;
      if (keyOrder.empty()) {
        for (Index i = 0; i < n; ++i) keyOrder.push_back(i);
      }
      const auto prepared = prepareInKeyOrder(data, true, keyOrder, *backend, {});
      std::vector<Index> rows, group;
      for (Index p = 0; p < n; ++p) {
        rows.push_back(plan.qOrder.empty() ? p : plan.qOrder[at(p)]);
        group.push_back(static_cast<Index>(std::upper_bound(plan.intervalRows.begin(), plan.intervalRows.end(), p) -
                                           plan.intervalRows.begin() - 1));
      }
      const AttendResult got = backend->attend(*prepared, rows, {plan.rowIntervalsPtr, plan.rowIntervals, group}, {});
      double error = 0, norm = 0;
      const Index width = data.input.v.cols;
      for (std::size_t i = 0; i < rows.size(); ++i) {
        for (Index d = 0; d < width; ++d) {
          const double w = static_cast<double>(want[at((rows[i] * 2 + static_cast<Index>(h)) * width + d)]);
          const double g = static_cast<double>(got.out[i * at(width) + at(d)]);
          error += (w - g) * (w - g);
          norm += w * w;
          EXPECT_NEAR(g, w, 1e-4 * std::max(1.0, std::abs(w))) << "token " << rows[i];
        }
      }
      EXPECT_LT(std::sqrt(error / norm), 1e-4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SvgGolden,
                         testing::Values("A_wan", "A_hunyuan_video", "B_wan", "B_hunyuan_video", "G_wan",
                                         "G_hunyuan_video", "A_wan_on_emulated_cuda",
                                         "A_hunyuan_video_on_emulated_cuda", "B_wan_on_emulated_cuda",
                                         "B_hunyuan_video_on_emulated_cuda", "B_hunyuan_video_on_cuda"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace sparsight

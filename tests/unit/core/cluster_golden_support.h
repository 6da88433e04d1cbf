// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the golden tests of the clustering methods share: files, the run, and comparisons of labels, centroids, maps and
// outputs.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/golden_backend.h"
#include "tests/unit/core/method_test_support.h"
#include "trace/hdf5_file.h"

namespace sparsight::test {

class ClusterGolden : public testing::TestWithParam<const char*> {
 protected:
  void openCase(const char* method) {
    const std::filesystem::path folder = goldenFolder();
    const GoldenParam golden(GetParam());
    const std::filesystem::path results = folder / fmt::format("{}_{}.h5", method, golden.file);
    if (!std::filesystem::exists(results)) {
      GTEST_SKIP() << "no reference data in " << folder << "; golden case " << method << "_" << GetParam()
                   << " NOT run";
    }
    std::string why;
    backend = goldenBackend(golden.device, executor, why);
    if (backend == nullptr) {
      if (std::getenv("SPARSIGHT_REQUIRE_GPU") != nullptr) FAIL() << "SPARSIGHT_REQUIRE_GPU is set, but " << why;
      GTEST_SKIP() << "golden case " << method << "_" << GetParam() << " NOT run on a GPU: " << why;
    }
    methodId = method;
    trace = openTrace(folder / fmt::format("trace_{}.h5", golden.file));
    file.emplace(h5::File::openRead(results));
    const HeadData head = trace->load({trace->info().calls.front().id, 0});
    n = head.layout.tokenCount;
    videoTokens = head.layout.video()->length;
    dim = head.input.q.cols;
  }

  /// Initial centroids of both sides, [H][K].
  [[nodiscard]] Draws drawsOf(const std::string& prefix) const {
    Draws draws;
    for (const auto& [name, rows] :
         {std::pair{prefix + "init_q_idx", &draws.initQ}, std::pair{prefix + "init_k_idx", &draws.initK}}) {
      const h5::Dataset dataset = file->openDataset(name);
      const auto flat = dataset.read<Index>();
      const auto columns = static_cast<std::size_t>(dataset.info().shape[1]);
      for (std::size_t first = 0; first < flat.size(); first += columns) {
        rows->emplace_back(flat.begin() + static_cast<std::ptrdiff_t>(first),
                           flat.begin() + static_cast<std::ptrdiff_t>(first + columns));
      }
    }
    return draws;
  }

  [[nodiscard]] RunReport run(std::vector<std::string> params, const Draws& draws) {
    params.insert(params.begin(), "variant=sparsevideo");
    RunRequest request;
    request.methodId = methodId;
    request.params = ParamSet::parse(methodById(methodId).params(), params);
    request.evaluate.includePadding = true;
    request.draws = draws;
    RunReport report = runMethod(*trace, request, *backend, {});
    EXPECT_EQ(report.heads.size(), 2U);
    for (const HeadReport& head : report.heads) EXPECT_EQ(head.skippedReason, "");
    return report;
  }

  void expectClusters(const RunReport& report) {
    for (const auto& [side, name] : {std::pair{Side::Query, "q"}, std::pair{Side::Key, "k"}}) {
      const auto labels = file->openDataset(fmt::format("{}_labels", name)).read<std::int64_t>();
      const auto sizes = file->openDataset(fmt::format("{}_sizes", name)).read<std::int64_t>();
      const auto centroids = file->openDataset(fmt::format("{}_centroids", name)).read<float>();
      const std::size_t clusters = sizes.size() / 2;
      for (std::size_t h = 0; h < 2; ++h) {
        SCOPED_TRACE(fmt::format("{} head {}", name, h));
        const Plan& plan = report.heads[h].plan;
        const auto& gotLabels = side == Side::Query ? plan.qLabels : plan.kLabels;
        const auto& gotSizes = side == Side::Query ? plan.qSizes : plan.kSizes;
        const auto& gotCentroids = side == Side::Query ? plan.qCentroids : plan.kCentroids;
        ASSERT_GE(gotLabels.size(), static_cast<std::size_t>(videoTokens));
        for (Index i = 0; i < videoTokens; ++i) {
          ASSERT_EQ(gotLabels[at(i)], labels[h * at(videoTokens) + at(i)]) << "token " << i;
        }
        ASSERT_GE(gotSizes.size(), clusters);
        for (std::size_t c = 0; c < clusters; ++c) EXPECT_EQ(gotSizes[c], sizes[h * clusters + c]) << "cluster " << c;
        ASSERT_EQ(gotCentroids.size(), clusters * at(dim));
        for (std::size_t i = 0; i < gotCentroids.size(); ++i) {
          ASSERT_NEAR(gotCentroids[i], centroids[h * gotCentroids.size() + i], 1e-5F);
        }
      }
    }
  }

  /// Golden maps hold the video clusters, or the text blocks, too.
  void expectMap(const RunReport& report, const std::string& name) {
    SCOPED_TRACE(name);
    const h5::Dataset dataset = file->openDataset(name);
    const auto want = dataset.read<std::uint8_t>();
    const Index rows = dataset.info().shape[1];
    const Index columns = dataset.info().shape[2];
    for (std::size_t h = 0; h < 2; ++h) {
      const Plan& plan = report.heads[h].plan;
      ASSERT_LE(rows, plan.qBlocks());
      ASSERT_LE(columns, plan.kBlocks());
      for (Index i = 0; i < rows; ++i) {
        for (Index j = 0; j < columns; ++j) {
          ASSERT_EQ(plan.map[at(i * plan.kBlocks() + j)], want[h * at(rows * columns) + at(i * columns + j)])
              << "head " << h << " clusters " << i << "," << j;
        }
      }
    }
  }

  void expectSizes(const RunReport& report, const std::string& name, bool query) {
    const auto want = file->openDataset(name).read<std::int64_t>();
    for (std::size_t h = 0; h < 2; ++h) {
      const auto& got = query ? report.heads[h].plan.qSizes : report.heads[h].plan.kSizes;
      ASSERT_EQ(got.size() * 2, want.size());
      for (std::size_t c = 0; c < got.size(); ++c) EXPECT_EQ(got[c], want[h * got.size() + c]) << name << " " << c;
    }
  }

  /// Outputs [1, N, H, D] recomputed in double from the plan's own arrays.
  void expectOutputs(const RunReport& report, const std::string& name) {
    const auto want = file->openDataset(name).read<float>();
    for (std::size_t h = 0; h < 2; ++h) {
      const HeadData head = trace->load(report.heads[h].id);
      const Naive naive(head, true);
      const std::vector<std::uint8_t> kept = keptPairs(report.heads[h].plan, naive);
      const Index width = head.input.v.cols;
      std::vector<float> values(at(n * width));
      for (Index j = 0; j < n; ++j) rowToFloat(head.input.v, j, std::span(values).subspan(at(j * width), at(width)));
      double error = 0, norm = 0;
      for (Index i = 0; i < n; ++i) {
        std::vector<double> out(at(width), 0.0);
        double mass = 0;
        for (Index j = 0; j < n; ++j) {
          if (kept[at(i * n + j)] == 0) continue;
          const double p = naive.p[at(i * n + j)];
          mass += p;
          for (Index c = 0; c < width; ++c) out[at(c)] += p * static_cast<double>(values[at(j * width + c)]);
        }
        ASSERT_GT(mass, 0);
        for (Index c = 0; c < width; ++c) {
          const double w = static_cast<double>(want[at((i * 2 + static_cast<Index>(h)) * width + c)]);
          const double difference = out[at(c)] / mass - w;
          error += difference * difference;
          norm += w * w;
        }
      }
      EXPECT_LT(std::sqrt(error / norm), 1e-4) << "head " << h;
    }
  }

  std::string methodId;
  std::unique_ptr<Trace> trace;
  std::optional<h5::File> file;
  Index n = 0, videoTokens = 0, dim = 0;
  Executor executor{2};
  std::unique_ptr<Backend> backend;
};

inline const auto kGoldenCases =
    testing::Values("A_wan", "A_hunyuan_video", "B_wan", "B_hunyuan_video", "G_wan", "G_hunyuan_video",
                    "A_wan_on_emulated_cuda", "A_hunyuan_video_on_emulated_cuda", "B_wan_on_emulated_cuda",
                    "B_hunyuan_video_on_emulated_cuda", "B_hunyuan_video_on_cuda");
inline std::string goldenName(const testing::TestParamInfo<const char*>& tested) { return tested.param; }

}  // namespace sparsight::test

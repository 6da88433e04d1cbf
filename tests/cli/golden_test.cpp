// SPDX-License-Identifier: Apache-2.0
// The golden vectors through the program: sparsight-cli run --draws, read back from the plan file.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "sparsight/core/run.h"
#include "tests/cli/method_command.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace {
namespace fs = std::filesystem;
using test::Program;
using test::runProgram;

class Golden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    golden = fs::path(SPARSIGHT_TEST_DATA) / "golden";
    if (!fs::exists(golden)) GTEST_SKIP() << "no reference data in " << golden << "; " << GetParam() << " NOT run";
  }
  std::vector<PlanFileEntry> run(const std::string& method, const fs::path& draws,
                                 const std::vector<std::string>& params) {
    const fs::path plan = folder.path() / "plan.h5";
    std::vector<std::string> arguments{"run",       (golden / fmt::format("trace_{}.h5", GetParam())).string(),
                                       "--method",  method,
                                       "--draws",   draws.string(),
                                       "--plan",    plan.string(),
                                       "--padding", "include",
                                       "--quiet",   "--json",
                                       "--param",   "variant=sparsevideo"};
    for (const std::string& param : params) {
      arguments.push_back("--param");
      arguments.push_back(param);
    }
    const Program program = runProgram(arguments);
    EXPECT_EQ(program.exitCode, 0) << program.err;
    EXPECT_EQ(program.err, "");
    if (program.exitCode == 0) document = nlohmann::json::parse(program.out);
    return readPlanFile(plan);
  }
  static void expectPlan(const std::vector<PlanFileEntry>& entries, const h5::File& file) {
    ASSERT_EQ(entries.size(), 2U);
    const auto labels = file.openDataset("q_labels").read<std::int64_t>();
    const auto keyLabels = file.openDataset("k_labels").read<std::int64_t>();
    const auto centroids = file.openDataset("k_centroids").read<float>();
    const std::size_t tokens = labels.size() / 2;
    for (std::size_t h = 0; h < 2; ++h) {
      const Plan& plan = entries[h].plan;
      for (std::size_t i = 0; i < tokens; ++i) {
        ASSERT_EQ(plan.qLabels[i], labels[h * tokens + i]);
        ASSERT_EQ(plan.kLabels[i], keyLabels[h * tokens + i]);
      }
      ASSERT_EQ(plan.kCentroids.size(), centroids.size() / 2);
      for (std::size_t i = 0; i < plan.kCentroids.size(); ++i) {
        ASSERT_NEAR(plan.kCentroids[i], centroids[h * plan.kCentroids.size() + i], 1e-5F);
      }
    }
  }
  static void expectMap(const std::vector<PlanFileEntry>& entries, const h5::File& file, const std::string& name) {
    const h5::Dataset dataset = file.openDataset(name);
    const auto want = dataset.read<std::uint8_t>();
    const auto rows = static_cast<std::size_t>(dataset.info().shape[1]);
    const auto columns = static_cast<std::size_t>(dataset.info().shape[2]);
    for (std::size_t h = 0; h < 2; ++h) {
      const Plan& plan = entries.at(h).plan;
      const auto stride = static_cast<std::size_t>(plan.kBlocks());
      for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < columns; ++j) {
          ASSERT_EQ(plan.map[i * stride + j], want[(h * rows + i) * columns + j]) << name << " head " << h;
        }
      }
    }
  }
  fs::path golden;
  test::ScratchFolder folder;
  nlohmann::json document;
};

TEST_P(Golden, Svg2) {
  const fs::path path = golden / fmt::format("svg2_{}.h5", GetParam());
  const h5::File file = h5::File::openRead(path);
  const auto entries = run("svg2", path, {"kmeans_iter=5", "top_p_kmeans=0.5", "min_kc_ratio=0,0.6"});
  expectPlan(entries, file);
  expectMap(entries, file, "map_per_head_ratio");
  EXPECT_EQ(document.at("resolved").at("num_q_centroids"), 6);
  EXPECT_EQ(document.at("resolved").at("num_k_centroids"), 12);
  EXPECT_EQ(document.at("rows").at(0).at("facts").at("k_iterations"), 5);
}

TEST_P(Golden, Svoo) {
  const fs::path path = golden / fmt::format("svoo_{}.h5", GetParam());
  const h5::File file = h5::File::openRead(path);
  const auto ratios = file.openDataset("lookup_s2_l1").read<float>();
  const auto entries =
      run("svoo", path, {"kmeans_iter=2", "top_p_kmeans=0.5", fmt::format("min_kc_ratio={},{}", ratios[0], ratios[1])});
  expectPlan(entries, file);
  expectMap(entries, file, "e2e_map");
}

INSTANTIATE_TEST_SUITE_P(Cases, Golden,
                         testing::Values("A_wan", "A_hunyuan_video", "B_wan", "B_hunyuan_video", "G_wan",
                                         "G_hunyuan_video"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace sparsight

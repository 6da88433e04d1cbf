// SPDX-License-Identifier: Apache-2.0
// sparsight-cli stats, as a program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/cli/method_command.h"

namespace sparsight {
namespace {
using test::Program;
using test::runProgram;
using testing::HasSubstr;

class Stats : public testing::Test {
 protected:
  test::ScratchFolder folder;
};

TEST_F(Stats, ContractOfTheJsonDocument) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const Program program = runProgram({"stats", trace, "--json", "--quiet"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  const auto rows = nlohmann::json::parse(program.out).at("rows");
  ASSERT_EQ(rows.size(), 2U);
  for (const auto& row : rows) {
    for (const char* key : {"step", "layer", "head", "lse_mean", "entropy_bits", "exact_density", "top1_mass",
                            "sink_mass", "text_mass", "frame_locality", "temporal_locality", "evaluated_rows"}) {
      EXPECT_TRUE(row.contains(key)) << key;
    }
    EXPECT_TRUE(row.at("text_mass").is_null());  // no text in this trace
    EXPECT_GT(row.at("entropy_bits").get<double>(), 0);
    EXPECT_LT(row.at("entropy_bits").get<double>(), std::log2(240.0));
    EXPECT_EQ(row.at("evaluated_rows"), 240);
    EXPECT_FALSE(row.contains("exact_density_ci95"));
  }
}

TEST_F(Stats, MetricsRowsAndMassAreChosen) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const auto rowOf = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"stats", trace, "--json", "--quiet", "--head", "0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Program program = runProgram(arguments);
    EXPECT_EQ(program.exitCode, 0) << program.err;
    return nlohmann::json::parse(program.out).at("rows").at(0);
  };
  const auto all = rowOf({"--metric", "exact_density,top1_mass"});
  EXPECT_FALSE(all.contains("lse_mean"));
  const double half = rowOf({"--mass", "0.5"}).at("exact_density").get<double>();
  EXPECT_LT(half, all.at("exact_density").get<double>());
  const auto sampled = rowOf({"--rows", "60"});
  EXPECT_EQ(sampled.at("evaluated_rows"), 60);
  EXPECT_GT(sampled.at("exact_density_ci95").get<double>(), 0);
}

TEST_F(Stats, Csv) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const Program program = runProgram({"stats", trace, "--csv", "--metric", "lse_mean,text_mass", "--quiet"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  EXPECT_THAT(program.out,
              testing::StartsWith("step,branch,layer,head,lse_mean,text_mass,evaluated_rows\n1,cond,0,0,"));
  EXPECT_THAT(program.out, HasSubstr(",,240\n"));  // no text: an empty field
  EXPECT_EQ(std::count(program.out.begin(), program.out.end(), '\n'), 3);
}

TEST_F(Stats, Errors) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const Program metric = runProgram({"stats", trace, "--metric", "density"});
  EXPECT_EQ(metric.exitCode, 2);
  EXPECT_THAT(metric.err, testing::AllOf(HasSubstr("density"), HasSubstr("exact_density")));
  EXPECT_EQ(runProgram({"stats", trace, "--mass", "1.5"}).exitCode, 2);
  EXPECT_EQ(runProgram({"stats", trace, "--json", "--csv"}).exitCode, 2);
  EXPECT_EQ(runProgram({"stats", (folder.path() / "none.h5").string()}).exitCode, 3);
  EXPECT_EQ(runProgram({"stats", trace, "--step", "4"}).exitCode, 2);
}

}  // namespace
}  // namespace sparsight

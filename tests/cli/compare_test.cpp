// SPDX-License-Identifier: Apache-2.0
// sparsight-cli compare, curve and stability, as a program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/cli/method_command.h"

namespace sparsight {
namespace {
using testing::HasSubstr;
namespace fs = std::filesystem;
using test::Program;
using test::runProgram;

class Compare : public testing::Test {
 protected:
  test::ScratchFolder folder;
  std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
};

TEST_F(Compare, MethodsSideBySide) {
  const Program program = runProgram({"compare", trace, "--methods", "dense,svg,svg2,oracle_token", "--param",
                                      "svg.kept=0.5", "svg2.kmeans_iter=3", "--json", "--quiet"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  const auto document = nlohmann::json::parse(program.out);
  EXPECT_EQ(document.at("rows").size(), 8U);
  ASSERT_EQ(document.at("summary").size(), 4U);
  const auto& dense = document.at("summary").at(0);
  EXPECT_EQ(dense.at("method"), "dense");
  EXPECT_EQ(dense.at("kept_fraction"), 1.0);
  EXPECT_FALSE(dense.contains("asked"));
  for (const auto& entry : document.at("summary")) {
    double kept = 0;
    for (const auto& row : document.at("rows")) {
      if (row.at("method") == entry.at("method")) kept += row.at("kept_fraction").get<double>() / 2;
    }
    EXPECT_NEAR(entry.at("kept_fraction").get<double>(), kept, 1e-12);
    EXPECT_NEAR(entry.at("predicted_relative_time").get<double>(),
                (kept < 1 ? kept / 0.8 : 1.0) +
                    entry.at("planner_flops").get<double>() / entry.at("dense_attention_flops").get<double>(),
                1e-9);
  }
  EXPECT_EQ(document.at("summary").at(2).at("resolved").at("kmeans_iter_init"), "3");
}

TEST_F(Compare, AtAnEqualBudget) {
  const Program program =
      runProgram({"compare", "--methods", "svg,svg2,adaspa,oracle_block", trace, "--at-kept", "0.4", "--param",
                  "svg2.min_kc_ratio=0", "--param", "adaspa.block_size=16", "--json", "--quiet"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  const auto document = nlohmann::json::parse(program.out);
  EXPECT_EQ(document.at("asked"), 0.4);
  for (const auto& entry : document.at("summary")) {
    SCOPED_TRACE(entry.dump());
    EXPECT_EQ(entry.at("asked"), 0.4);
    EXPECT_EQ(entry.at("reached"), entry.at("kept_fraction"));
    EXPECT_GE(entry.at("quantum"), 0.0);
    EXPECT_TRUE(entry.at("knob_value").is_number());
    EXPECT_EQ(entry.at("flagged").get<bool>(), std::abs(entry.at("reached").get<double>() - 0.4) > 0.005);
  }
  for (const auto& row : document.at("rows")) EXPECT_EQ(row.at("reached"), row.at("kept_fraction"));
  // 240 tokens leave SVG two or three bands: it cannot come near, and says so.
  EXPECT_EQ(document.at("summary").at(0).at("knob"), "sparsity");
  EXPECT_TRUE(document.at("summary").at(0).at("flagged").get<bool>());
  EXPECT_THAT(document.at("warnings").dump(), HasSubstr("nearest reachable"));
}

TEST_F(Compare, TablesAndCsv) {
  const std::vector<std::string> base{"compare", trace, "--methods", "dense,oracle_block", "--quiet"};
  const auto with = [&](const char* flag) {
    auto arguments = base;
    if (*flag != '\0') arguments.emplace_back(flag);
    const Program program = runProgram(arguments);
    EXPECT_EQ(program.exitCode, 0) << program.err;
    return program.out;
  };
  EXPECT_THAT(with(""), testing::AllOf(HasSubstr("skipped"), HasSubstr("100.0 %"), HasSubstr("planner")));
  EXPECT_THAT(with("--markdown"), HasSubstr("| dense | 100.0 % |"));
  EXPECT_THAT(with("--csv"), testing::StartsWith("method,step,branch,layer,kind,call,head,"));
}

TEST_F(Compare, UsageErrors) {
  const auto refused = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"compare", trace};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Program program = runProgram(arguments);
    EXPECT_EQ(program.exitCode, 2) << program.err;
    EXPECT_EQ(program.out, "");
    return program.err;
  };
  EXPECT_THAT(refused({"--methods", "svg,nothing"}), HasSubstr("nothing"));
  EXPECT_THAT(refused({"--methods", "svg,svg2", "--param", "kept=0.4"}), HasSubstr("METHOD.name=value"));
  EXPECT_THAT(refused({"--methods", "svg", "--param", "adaspa.kept=0.4"}), HasSubstr("adaspa"));
  EXPECT_THAT(refused({"--methods", "svg2", "--param", "svg2.top_p_kmeans=1.5"}),
              testing::AllOf(HasSubstr("top_p_kmeans"), HasSubstr("0 to 1"), HasSubstr("1.5")));
  EXPECT_THAT(refused({"--methods", "svg", "--at-kept", "1.5"}), HasSubstr("--at-kept"));
  EXPECT_THAT(refused({"--methods", "svg", "--at-kept", "0.5", "--at-mass", "0.5"}), HasSubstr("excludes"));
}

TEST_F(Compare, CurvesAreKeptBesideTheTrace) {
  const std::vector<std::string> arguments{"curve", trace,     "--method",      "oracle_block", "--points",
                                           "5",     "--param", "block_size=16", "--json",       "--quiet"};
  const Program first = runProgram(arguments);
  ASSERT_EQ(first.exitCode, 0) << first.err;
  const auto document = nlohmann::json::parse(first.out);
  EXPECT_EQ(document.at("rows").size(), 10U);
  EXPECT_TRUE(document.at("cached").is_null());
  EXPECT_EQ(document.at("knob"), "kept");
  ASSERT_TRUE(fs::is_directory(trace + ".curves"));
  const Program second = runProgram(arguments);
  const auto again = nlohmann::json::parse(second.out);
  EXPECT_TRUE(again.at("cached").is_string());
  EXPECT_EQ(again.at("rows"), document.at("rows"));
  auto lookup = arguments;
  lookup.insert(lookup.end(), {"--at", "0.3"});
  const auto looked = nlohmann::json::parse(runProgram(lookup).out);
  EXPECT_EQ(looked.at("rows").size(), 2U);
  EXPECT_EQ(looked.at("rows").at(0).at("kept_fraction"), 0.3);
  // A damaged cache is said and made again.
  for (const auto& entry : fs::directory_iterator(trace + ".curves")) std::ofstream(entry.path()) << "{";
  const Program third = runProgram(arguments);
  EXPECT_EQ(third.exitCode, 0);
  EXPECT_THAT(third.err, HasSubstr("made again"));
  EXPECT_EQ(nlohmann::json::parse(third.out).at("rows"), document.at("rows"));
  EXPECT_EQ(runProgram({"curve", trace, "--method", "dense", "--quiet"}).exitCode, 3);
}

TEST_F(Compare, StabilityBetweenTraces) {
  const std::string other = test::writeSmallTrace(folder.path() / "other.h5");
  const Program program = runProgram({"stability", trace, other, "--method", "svg", "--json", "--quiet"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  const auto document = nlohmann::json::parse(program.out);
  ASSERT_EQ(document.at("rows").size(), 2U);
  for (const auto& row : document.at("rows")) {
    EXPECT_EQ(row.at("between"), "traces");
    EXPECT_EQ(row.at("jaccard"), 1.0);  // the same numbers under another name
    EXPECT_EQ(row.at("same_class"), true);
  }
  EXPECT_EQ(document.at("summary").at(0).at("pairs"), 2);
  const Program alone = runProgram({"stability", trace, "--method", "svg", "--quiet"});
  EXPECT_EQ(alone.exitCode, 2);
  EXPECT_THAT(alone.err, HasSubstr("nothing to compare"));
}

}  // namespace
}  // namespace sparsight

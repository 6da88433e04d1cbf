// SPDX-License-Identifier: Apache-2.0
// sparsight-cli run, as a program.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "sparsight/core/run.h"
#include "tests/cli/method_command.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace {
using testing::HasSubstr;
namespace fs = std::filesystem;
using test::Program;
using test::runProgram;

class Run : public testing::Test {
 protected:
  test::ScratchFolder folder;
};

TEST_F(Run, ContractOfTheJsonDocument) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const Program program = runProgram({"run", trace, "--method", "svg", "--param", "kept=0.4", "num_sampled_rows=8",
                                      "--json", "--seed", "3", "--threads", "1"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  const auto document = nlohmann::json::parse(program.out);
  const auto& resolved = document.at("resolved");
  EXPECT_EQ(resolved.at("sparsity"), 0.4);
  EXPECT_EQ(resolved.at("num_sampled_rows"), 8);
  EXPECT_EQ(resolved.at("model_rule"), "wan");
  EXPECT_EQ(resolved.at("variant"), "reference");
  EXPECT_EQ(resolved.at("dense_steps"), 2);
  EXPECT_EQ(resolved.at("warmup"), "off");
  EXPECT_TRUE(document.at("warnings").is_array());
  ASSERT_EQ(document.at("rows").size(), 2U);
  for (const auto& row : document.at("rows")) {
    for (const char* key : {"step",           "branch",          "layer",           "head",
                            "kept_fraction",  "kept_mass",       "kept_mass_p5",    "output_rel_error",
                            "output_cosine",  "starved_rows",    "head_class",      "mse",
                            "margin",         "planner_flops",   "attention_flops", "plan_ms",
                            "evaluate_ms",    "backend",         "fallbacks",       "evaluated_rows",
                            "would_be_dense", "reused_from_step"}) {
      EXPECT_TRUE(row.contains(key)) << key;
    }
    EXPECT_TRUE(row.at("blocks").at("kept_fraction").is_number());
    EXPECT_THAT(row.at("head_class").get<std::string>(), testing::AnyOf("spatial", "temporal"));
    EXPECT_EQ(row.at("mse").size(), 2U);
    EXPECT_EQ(row.at("evaluated_rows"), 240);
    EXPECT_EQ(row.at("would_be_dense"), true);
  }
  // The same seed gives the same numbers, another one other draws.
  const auto numbers = [&](const char* seed) {
    const Program again = runProgram({"run", trace, "--method", "svg", "--param", "kept=0.4", "--param",
                                      "num_sampled_rows=8", "--json", "--seed", seed, "--threads", "2", "--quiet"});
    return nlohmann::json::parse(again.out).at("rows").at(0).at("mse");
  };
  EXPECT_EQ(numbers("3"), document.at("rows").at(0).at("mse"));
  EXPECT_NE(numbers("4"), document.at("rows").at(0).at("mse"));
}

TEST_F(Run, PlanAndResultsFilesReadBack) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const std::string plan = (folder.path() / "plan.h5").string(), results = (folder.path() / "results.h5").string();
  const Program program = runProgram({"run", trace, "--method", "svg", "--param", "force_class=temporal", "--head", "1",
                                      "--plan", plan, "--results", results, "--json", "--quiet"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  EXPECT_EQ(program.err, "");
  const auto row = nlohmann::json::parse(program.out).at("rows").at(0);
  for (const std::string& file : {plan, results}) {
    const auto entries = readPlanFile(file);
    ASSERT_EQ(entries.size(), 1U) << file;
    EXPECT_EQ(entries[0].id.head, 1);
    EXPECT_EQ(entries[0].plan.headClass, HeadClass::Temporal);
    EXPECT_EQ(entries[0].evaluation.keptFraction, row.at("kept_fraction").get<double>());
    EXPECT_EQ(entries[0].evaluation.keptMass, row.at("kept_mass").get<double>());
    EXPECT_EQ(*entries[0].evaluation.outputRelError, row.at("output_rel_error").get<double>());
  }
}

TEST_F(Run, ResumeGoesOnFromTheResultsFile) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const std::string results = (folder.path() / "results.h5").string();
  const std::vector<std::string> base{"run",   trace,      "--method", "svg2",   "--results",
                                      results, "--resume", "--json",   "--quiet"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), base.begin(), base.end());
    return runProgram(more);
  };
  const Program one = with({"--head", "0"});
  ASSERT_EQ(one.exitCode, 0) << one.err;
  // The selection may grow: head 0 is taken from the file, its measuring time included.
  const Program both = with({});
  ASSERT_EQ(both.exitCode, 0) << both.err;
  const auto first = nlohmann::json::parse(one.out).at("rows").at(0),
             again = nlohmann::json::parse(both.out).at("rows").at(0);
  EXPECT_EQ(again.at("evaluate_ms"), first.at("evaluate_ms"));
  EXPECT_EQ(again.at("kept_mass"), first.at("kept_mass"));
  EXPECT_EQ(readPlanFile(results).size(), 2U);
  const Program other = with({"--seed", "5"});
  EXPECT_EQ(other.exitCode, 2);
  EXPECT_THAT(other.err, testing::AllOf(HasSubstr("seed 5"), HasSubstr("results.h5")));
  EXPECT_EQ(runProgram({"run", trace, "--method", "svg2", "--resume"}).exitCode, 2);
}

TEST_F(Run, TheTableSpeaksOfKeptAndSkipped) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const Program program = runProgram({"run", "--method", "dense", "--quiet", "--param", "first_times_fp=0.5", trace});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  EXPECT_THAT(program.out, testing::AllOf(HasSubstr("kept"), HasSubstr("skipped"), HasSubstr("100.0 %")));
}

TEST_F(Run, WarmupOn) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const Program program = runProgram({"run", trace, "--method", "svg", "--warmup", "on", "--json", "--quiet"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  const auto document = nlohmann::json::parse(program.out);
  for (const auto& row : document.at("rows")) EXPECT_EQ(row.at("kept_fraction"), 1.0);
}

TEST_F(Run, UsageErrorsExit2WithOneLine) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const auto refused = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments{"run", trace};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Program program = runProgram(arguments);
    EXPECT_EQ(program.exitCode, 2) << program.err;
    EXPECT_EQ(program.out, "");
    EXPECT_EQ(std::count(program.err.begin(), program.err.end(), '\n'), 1) << program.err;
    return program.err;
  };
  EXPECT_THAT(refused({"--method", "svg3"}), testing::AllOf(HasSubstr("svg3"), HasSubstr("oracle_token")));
  EXPECT_THAT(refused({"--method", "svg", "--param", "kept=2"}),
              testing::AllOf(HasSubstr("sparsity"), HasSubstr("0 to 1")));
  EXPECT_THAT(refused({"--method", "svg", "--param", "colour=red"}), HasSubstr("colour"));
  EXPECT_THAT(refused({"--method", "svg", "--param", "kept"}), HasSubstr("name=value"));
  EXPECT_THAT(refused({"--method", "svg", "--layer", "9"}), testing::AllOf(HasSubstr("--layer 9"), HasSubstr("0")));
  EXPECT_THAT(refused({"--method", "svg", "--step", "x"}), HasSubstr("0-3"));
  EXPECT_THAT(refused({"--method", "svg", "--rows", "0"}), HasSubstr("--rows"));
  refused({"--method", "svg", "--warmup", "maybe"});
  refused({});
}

TEST_F(Run, OutputsNeverReplaceWhatIsReadAndAreCheckedBeforeTheWork) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  const auto bytes = [&] {
    std::ifstream file(trace, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string before = bytes();
  const std::string link = (folder.path() / "link.h5").string();
  fs::create_symlink(trace, link);
  const std::string twice = (folder.path() / "twice.h5").string();
  for (const std::vector<std::string>& outputs : {std::vector<std::string>{"--plan", trace},
                                                  {"--results", trace},
                                                  {"--plan", link},
                                                  {"--plan", twice, "--results", twice}}) {
    std::vector<std::string> arguments{"run", trace, "--method", "dense"};
    arguments.insert(arguments.end(), outputs.begin(), outputs.end());
    const Program program = runProgram(arguments);
    EXPECT_EQ(program.exitCode, 2) << program.err;
    EXPECT_THAT(program.err, HasSubstr(outputs[outputs.size() - 2]));
    EXPECT_EQ(std::count(program.err.begin(), program.err.end(), '\n'), 1) << program.err;
    EXPECT_EQ(bytes(), before);
  }
  const Program map = runProgram({"map", trace, "--step", "1", "--layer", "0", "--head", "0", "--out", trace});
  EXPECT_EQ(map.exitCode, 2) << map.err;
  EXPECT_EQ(bytes(), before);
  EXPECT_FALSE(fs::exists(twice));

  // A slow run must not end with "the folder does not exist": nothing has been computed when this is said.
  const Program nowhere =
      runProgram({"run", trace, "--method", "dense", "--plan", (folder.path() / "no" / "plan.h5").string()});
  EXPECT_EQ(nowhere.exitCode, 3);
  EXPECT_THAT(nowhere.err,
              testing::AllOf(HasSubstr("--plan"), HasSubstr("create it"), testing::Not(HasSubstr("dense: "))));
}

TEST_F(Run, InputErrorsExit3) {
  const std::string trace = test::writeSmallTrace(folder.path() / "trace.h5");
  EXPECT_EQ(runProgram({"run", (folder.path() / "none.h5").string(), "--method", "svg"}).exitCode, 3);
  const Program draws = runProgram({"run", trace, "--method", "svg", "--draws", trace});
  EXPECT_EQ(draws.exitCode, 3);
  EXPECT_THAT(draws.err, HasSubstr("holds no draws"));
  const Program plan =
      runProgram({"run", trace, "--method", "svg", "--quiet", "--plan", (folder.path() / "no" / "p.h5").string()});
  EXPECT_EQ(plan.exitCode, 3);
  // No head can be planned: the reason is the error.
  const std::string withoutV = test::writeSmallTrace(folder.path() / "no_v.h5", false);
  const Program noV = runProgram({"run", withoutV, "--method", "svg", "--json", "--quiet"});
  EXPECT_EQ(noV.exitCode, 3);
  EXPECT_EQ(noV.out, "");
  EXPECT_THAT(noV.err, HasSubstr("values (V) were not captured"));
  const Program oracle = runProgram({"run", withoutV, "--method", "oracle_token", "--json", "--quiet"});
  EXPECT_EQ(oracle.exitCode, 0);
  EXPECT_TRUE(nlohmann::json::parse(oracle.out).at("rows").at(0).at("output_rel_error").is_null());
}

// The reference data set, through the program: draws in, plan file out.
class RunGolden : public testing::TestWithParam<const char*> {
 protected:
  test::ScratchFolder folder;
};

TEST_P(RunGolden, DrawsReproduceMasksClassesAndLosses) {
  const fs::path data = fs::path(SPARSIGHT_TEST_DATA) / "golden";
  const fs::path results = data / fmt::format("svg1_{}.h5", GetParam());
  if (!fs::exists(results))
    GTEST_SKIP() << "no reference data in " << data << "; golden case " << GetParam() << " NOT run";
  const h5::File golden = h5::File::openRead(results);
  const auto choice = golden.openDataset("head_choice").read<std::int64_t>();
  const auto mse = golden.openDataset("mse").read<float>();
  for (const char* kept : {"0.1", "0.25", "0.3", "0.7"}) {
    const std::string plan = (folder.path() / "plan.h5").string();
    const Program program =
        runProgram({"run", (data / fmt::format("trace_{}.h5", GetParam())).string(), "--method", "svg", "--param",
                    "variant=sparsevideo", std::string("sparsity=") + kept, "--draws", results.string(), "--plan", plan,
                    "--padding", "include", "--json", "--quiet"});
    ASSERT_EQ(program.exitCode, 0) << program.err;
    const auto want = golden.openDataset(std::string("common_mask_") + kept).read<std::uint8_t>();
    const auto rows = nlohmann::json::parse(program.out).at("rows");
    const auto entries = readPlanFile(plan);
    ASSERT_EQ(entries.size(), 2U);
    for (std::size_t h = 0; h < 2; ++h) {
      EXPECT_EQ(rows.at(h).at("head_class"), choice[h] == 1 ? "temporal" : "spatial");
      for (const std::size_t m : {0U, 1U}) {
        const double loss = static_cast<double>(mse[m * 2 + h]);
        EXPECT_NEAR(rows.at(h).at("mse").at(m).get<double>(), loss, 1e-4 * loss);
      }
      const Plan& stored = entries[h].plan;
      const auto n = static_cast<std::size_t>(stored.keyCount);
      for (std::size_t p = 0; p < n; ++p) {
        std::vector<std::uint8_t> row(n, 0);
        for (const Interval& interval : stored.keptIntervals(static_cast<Index>(p))) {
          for (Index k = interval.first; k < interval.last; ++k) row[static_cast<std::size_t>(k)] = 1;
        }
        ASSERT_TRUE(std::equal(row.begin(), row.end(), want.begin() + static_cast<std::ptrdiff_t>(p * n)))
            << kept << " row position " << p;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, RunGolden,
                         testing::Values("A_wan", "A_hunyuan_video", "B_wan", "B_hunyuan_video", "G_wan",
                                         "G_hunyuan_video"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace sparsight

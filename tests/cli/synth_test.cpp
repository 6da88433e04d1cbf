// SPDX-License-Identifier: Apache-2.0
// sparsight-cli synth, as a program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "sparsight/core/trace.h"
#include "tests/cli/method_command.h"
#include "tests/support/trace_builder.h"

namespace sparsight {
namespace {

using test::Program;
using test::runProgram;
using testing::HasSubstr;
using testing_support::TemporaryFolder;
namespace fs = std::filesystem;

class Synth : public testing::Test {
 protected:
  TemporaryFolder folder;
  std::string path(const std::string& name) const { return (folder / name).string(); }
};

TEST_F(Synth, EveryOptionReachesTheTrace) {
  const Program program = runProgram(
      {"synth", path("t.h5"), "--grid", "3,4,5",      "--text", "6",       "--text-first", "--layers", "2", "--heads",
       "3",     "--steps",    "2",      "--head-dim", "16",     "--dtype", "bfloat16",     "--seed",   "7", "--quiet"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  EXPECT_EQ(program.err, "");
  const auto json = nlohmann::json::parse(runProgram({"info", path("t.h5"), "--json"}).out);
  EXPECT_EQ(json.at("tokens").at("grid"), nlohmann::json({3, 4, 5}));
  EXPECT_EQ(json.at("tokens").at("text_start"), 0);
  EXPECT_EQ(json.at("tokens").at("video_start"), 6);
  ASSERT_EQ(json.at("captured").size(), 4U);
  EXPECT_EQ(json.at("captured").at(0).at("heads").size(), 3U);
  EXPECT_EQ(json.at("captured").at(0).at("dtype"), "bfloat16");
  EXPECT_EQ(json.at("captured").at(0).at("head_dim"), 16);
  EXPECT_EQ(json.at("run").at("seed"), 7);
  EXPECT_EQ(json.at("has_synthetic_truth"), true);
  const auto truth = openTrace(path("t.h5"))->truth();
  ASSERT_TRUE(truth.has_value());
  EXPECT_EQ(truth->classOf.size(), 12U);
}

TEST_F(Synth, UsageErrors) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"--grid", "3,4"},
                                                    {"--grid", "3,4,5,6"},
                                                    {"--grid", "a,b,c"},
                                                    {"--grid", "0,4,5"},
                                                    {"--dtype", "float64"},
                                                    {"--preset", "nope"},
                                                    {"--heads", "0"},
                                                    {"--head-dim", "4"},
                                                    {"--text", "-1"},
                                                    {"--grid", "4000,4000,4000"}}) {
    std::vector<std::string> all{"synth", path("t.h5"), "--quiet"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Program program = runProgram(all);
    EXPECT_EQ(program.exitCode, 2) << arguments[1] << program.err;
    EXPECT_EQ(std::count(program.err.begin(), program.err.end(), '\n'), 1) << program.err;
    EXPECT_FALSE(fs::exists(path("t.h5")));
  }
}

TEST_F(Synth, WhereItCannotWrite) {
  const std::vector<std::string> small{"--grid", "2,3,4", "--layers", "1", "--heads", "1", "--steps", "1", "--quiet"};
  const auto attempt = [&](const std::string& out) {
    std::vector<std::string> all{"synth", out};
    all.insert(all.end(), small.begin(), small.end());
    return runProgram(all);
  };
  EXPECT_EQ(attempt(path("no/such/t.h5")).exitCode, 3);
  EXPECT_THAT(attempt(path("no/such/t.h5")).err, HasSubstr("does not exist"));
  EXPECT_EQ(attempt(folder.path().string()).exitCode, 3);
  EXPECT_EQ(attempt("/dev/null").exitCode, 3);
}

TEST_F(Synth, AFullDiskIsOneLineAndLeavesNothing) {
  const fs::path disk = folder / "disk";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=8m") != 0) GTEST_SKIP() << "no right to mount a small disk";
  std::ofstream(disk / "t.h5") << "old";
  const Program program = runProgram({"synth", (disk / "t.h5").string(), "--quiet"});  // the demo needs 48 MB
  EXPECT_EQ(program.exitCode, 3);
  EXPECT_THAT(program.err, HasSubstr("disk is full"));
  EXPECT_EQ(std::count(program.err.begin(), program.err.end(), '\n'), 1) << program.err;
  EXPECT_EQ(fs::file_size(disk / "t.h5"), 3U);
  EXPECT_EQ(std::distance(fs::directory_iterator(disk), fs::directory_iterator()), 1);
  ::umount(disk.c_str());
}

}  // namespace
}  // namespace sparsight

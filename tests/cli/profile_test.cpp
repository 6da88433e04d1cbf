// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "sparsight/core/files.h"
#include "sparsight/core/profile.h"
#include "sparsight/core/synth.h"

namespace sparsight {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ProfileCli : public testing::Test {
 protected:
  struct Result {
    int code = -1;
    std::string out, err;
  };
  void SetUp() override {
    m_folder = std::filesystem::temp_directory_path() / fmt::format("sparsight-profile-cli-{}", ::getpid());
    std::filesystem::create_directories(m_folder);
  }
  void TearDown() override { std::filesystem::remove_all(m_folder); }

  Result run(const std::string& arguments) const {
    const auto err = m_folder / "stderr";
    const std::string command =
        fmt::format("cd '{}' && '{}' {} 2>'{}'", m_folder.string(), SPARSIGHT_CLI, arguments, err.string());
    Result result;
    FILE* pipe = ::popen(command.c_str(), "r");
    char buffer[4096];
    for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.out.append(buffer, n);
    const int status = ::pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    result.err = readWholeFile(err, 1 << 20);
    return result;
  }
  Result fails(const std::string& arguments, int code) const {
    Result result = run(arguments);
    EXPECT_EQ(result.code, code) << arguments << "\n" << result.err;
    EXPECT_EQ(result.out, "") << arguments;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << "one line: " << result.err;
    return result;
  }
  [[nodiscard]] std::string read(const std::string& name) const { return readWholeFile(m_folder / name, 1 << 24); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(m_folder / name, std::ios::binary) << text;
  }
  void trace(std::uint64_t seed) const {
    SynthSpec spec;
    spec.frames = 2;
    spec.height = 4;
    spec.width = 4;
    spec.textTokens = 4;
    spec.layers = 2;
    spec.heads = 3;
    spec.steps = 2;
    spec.headDim = 16;
    spec.seed = seed;
    const auto path = m_folder / fmt::format("t{}.h5", seed);
    Executor executor(1);
    if (!std::filesystem::exists(path)) writeSyntheticTrace(path, spec, executor, {});
  }
  std::filesystem::path m_folder;
};

TEST_F(ProfileCli, WritesJsonWithTheWholeGridAndListsTheHoles) {
  trace(0);
  const Result result = run("profile t0.h5 --out p.json --quiet");
  ASSERT_EQ(result.code, 0) << result.err;
  const Profile p = readProfile(m_folder / "p.json");
  EXPECT_EQ(p.layers(), 2);
  EXPECT_EQ(p.heads(), 3);
  EXPECT_EQ(summarise(p).count, 12);
  EXPECT_THAT(result.out, AllOf(HasSubstr("kept "), HasSubstr("(skipped "), HasSubstr("were not captured"),
                                HasSubstr("no head at step indices")));
  EXPECT_THAT(p.provenance.program, HasSubstr("sparsight-cli "));
  EXPECT_EQ(p.provenance.parameters.at("padding"), "include") << "as SVOO's own profiling";
  EXPECT_EQ(p.provenance.parameters.at("merge"), "max");
}

TEST_F(ProfileCli, TheCommandItPrintsMakesACompleteCsv) {
  trace(0);
  const Result result = run("profile t0.h5 --out p.json --quiet");
  const std::size_t at = result.out.find("sparsight-cli export ");
  ASSERT_NE(at, std::string::npos) << result.out;
  const std::size_t from = at + 14;
  const Result exported = run(result.out.substr(from, result.out.find('\n', from) - from));
  ASSERT_EQ(exported.code, 0) << exported.err;
  const Profile full = readProfile(m_folder / "p.full.csv");
  EXPECT_EQ(full.holeCount(), 0);
  EXPECT_EQ(full.steps(), readProfile(m_folder / "p.json").steps());
}

TEST_F(ProfileCli, WritesCsvWithTheCapturedRows) {
  trace(0);
  const Result result = run("profile t0.h5 --out p.csv --quiet");
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("left out of the CSV"));
  const std::string csv = read("p.csv");
  EXPECT_EQ(csv.rfind("Step,Layer,Head,Sparsity\r\n", 0), 0U);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 13);
}

TEST_F(ProfileCli, MergesTracesAndTakesSelectors) {
  trace(0);
  trace(1);
  ASSERT_EQ(run("profile t0.h5 --out a.json --quiet").code, 0);
  ASSERT_EQ(run("profile t1.h5 --out b.json --quiet").code, 0);
  ASSERT_EQ(run("profile t0.h5 t1.h5 --merge mean --layer 1 --out m.json --quiet").code, 0);
  const Profile a = readProfile(m_folder / "a.json"), b = readProfile(m_folder / "b.json"),
                m = readProfile(m_folder / "m.json");
  EXPECT_EQ(summariseLayer(m, 0).count, 0);
  EXPECT_EQ(summariseLayer(m, 1).count, 6);
  EXPECT_NEAR(summariseLayer(m, 1).mean, (summariseLayer(a, 1).mean + summariseLayer(b, 1).mean) / 2, 1e-4);
}

TEST_F(ProfileCli, PrintsOneJsonDocument) {
  trace(0);
  const Result result = run("profile t0.h5 --mass 0.8 --rows 16 --padding exclude --out p.json --json");
  ASSERT_EQ(result.code, 0) << result.err;
  const auto document = nlohmann::json::parse(result.out);
  EXPECT_EQ(document.at("values"), 12);
  EXPECT_EQ(document.at("parameters").at("mass"), "0.8");
  EXPECT_EQ(document.at("parameters").at("rows"), "16");
  EXPECT_EQ(document.at("parameters").at("padding"), "exclude");
  EXPECT_THAT(result.err, HasSubstr("profile: "));
}

TEST_F(ProfileCli, ResumesFromItsStateAndRemovesItAtTheEnd) {
  trace(0);
  ASSERT_EQ(run("profile t0.h5 --out a.json --quiet").code, 0);
  write("state.json", "{");
  EXPECT_THAT(fails("profile t0.h5 --out p.json --resume state.json --quiet", 3).err, HasSubstr("state.json"));
  std::filesystem::remove(m_folder / "state.json");
  ASSERT_EQ(run("profile t0.h5 --out p.json --resume state.json --quiet").code, 0);
  EXPECT_FALSE(std::filesystem::exists(m_folder / "state.json"));
  EXPECT_TRUE(readProfile(m_folder / "p.json") == readProfile(m_folder / "a.json"));
}

TEST_F(ProfileCli, AnswersMistakesWithOneLine) {
  trace(0);
  fails("profile t0.h5 --out p.txt --quiet", 2);
  fails("profile t0.h5 --quiet", 2);
  fails("profile --out p.json --quiet", 2);
  fails("profile t0.h5 --mass 0 --out p.json --quiet", 2);
  fails("profile t0.h5 --mass 1.1 --out p.json --quiet", 2);
  fails("profile t0.h5 --merge median --out p.json --quiet", 2);
  fails("profile t0.h5 --layer 9 --out p.json --quiet", 2);
  fails("profile t0.h5 t0.h5 --out p.json --quiet", 2);
  fails("profile missing.h5 --out p.json --quiet", 3);
  write("text.h5", "hello");
  fails("profile text.h5 --out p.json --quiet", 3);
  fails("profile t0.h5 --out no/such/folder/p.json --quiet", 3);
  EXPECT_FALSE(std::filesystem::exists(m_folder / "p.json"));
}

}  // namespace
}  // namespace sparsight

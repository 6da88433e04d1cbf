// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "sparsight/core/files.h"
#include "sparsight/core/profile.h"
#include "sparsight/core/trace.h"
#include "tests/support/trace_builder.h"

namespace sparsight {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::TemporaryFolder;

class ConvertCli : public testing::Test {
 protected:
  struct Result {
    int code = -1;
    std::string out, err;
  };
  Result run(const std::string& arguments) const {
    const auto err = m_folder / "stderr";
    const std::string command = fmt::format("cd '{}' && '{}' convert {} 2>'{}'", m_folder.path().string(),
                                            SPARSIGHT_CLI, arguments, err.string());
    Result result;
    FILE* pipe = ::popen(command.c_str(), "r");
    char buffer[4096];
    for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.out.append(buffer, n);
    const int status = ::pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    result.err = readWholeFile(err, 1 << 20);
    std::filesystem::remove(err);
    return result;
  }
  Result fails(const std::string& arguments, int code) const {
    Result result = run(arguments);
    EXPECT_EQ(result.code, code) << arguments << "\n" << result.err;
    EXPECT_EQ(result.out, "") << arguments;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << "one line: " << result.err;
    return result;
  }
  static std::string fixture(const char* name) {
    return std::string(SPARSIGHT_SOURCE_DIR "/tests/data/import/") + name;
  }
  [[nodiscard]] std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(m_folder.path()), {}));
  }
  TemporaryFolder m_folder;
};

TEST_F(ConvertCli, ConvertsAndSaysWhatItAssumed) {
  const Result result = run(fixture("plain.npz") + " a.h5 --grid 2,3,4");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("a.h5: 1 attention call of 2 heads, 24 tokens (2 x 3 x 4 video)"),
                                HasSubstr("assumed  branch cond")));
  EXPECT_EQ(openTrace(m_folder / "a.h5")->info().calls.size(), 1U);
  const Result json = run(fixture("svoo") + " b.h5 --grid 2x3x4 --quiet --json --branch cond");
  EXPECT_EQ(json.code, 0) << json.err;
  EXPECT_EQ(json.err, "");
  const auto document = nlohmann::json::parse(json.out);
  EXPECT_EQ(document.at("calls").size(), 2U);
  EXPECT_EQ(document.at("calls").at(0).at("branch"), "cond");
  EXPECT_EQ(document.at("grid"), nlohmann::json({2, 3, 4}));
  EXPECT_FALSE(document.at("assumed").empty());
}

TEST_F(ConvertCli, LooksWithoutWriting) {
  const Result result = run(fixture("stacked.h5") + " --axes SLHND --dry-run");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("stacked.h5: Q  [2, 3, 2, 24, 8] float16"), HasSubstr("Would write: 6 attention calls")));
  EXPECT_EQ(files(), 0U);
  EXPECT_THAT(fails(fixture("plain.npz"), 2).err, HasSubstr("--dry-run"));
}

TEST_F(ConvertCli, RefusesWithTheOptionThatMends) {
  EXPECT_THAT(fails(fixture("plain.npz") + " a.h5", 2).err, AllOf(HasSubstr("24 tokens"), HasSubstr("--grid 2,3,4")));
  fails(fixture("plain.npz") + " a.h5 --grid 2,3", 2);
  fails(fixture("plain.npz") + " a.h5 --grid 2,3,4 --map x=1", 2);
  fails(fixture("plain.npz") + " a.h5 --preset nonsense", 2);
  fails(fixture("plain.npz") + " a.h5 --timesteps 1,x", 2);
  fails(fixture("plain.npz") + " a.csv --grid 2,3,4", 2);
  fails(fixture("raw16.npz") + " a.h5 --grid 2,3,4", 2);
  fails("nowhere.npz a.h5", 3);
  fails(fixture("make_fixtures.py") + " a.h5", 3);
  EXPECT_THAT(fails(fixture("hostile_system.pt") + " a.h5 --grid 2,3,4", 3).err, HasSubstr("posix.system"));
  fails(fixture("legacy.pt") + " a.h5", 3);
  fails(fixture("plain.npz") + " nowhere/a.h5 --grid 2,3,4", 3);
  fails(fixture("plain.npz") + " a.h5 --grid 2,3,4 --memory-limit 0", 2);
  EXPECT_EQ(files(), 0U) << "nothing is left behind";
  std::filesystem::copy_file(fixture("plain.npz"), m_folder / "in.npz");
  fails("in.npz in.npz --grid 2,3,4", 2);
}

TEST_F(ConvertCli, SaysWhichRowsAndMasksItTook) {
  const Result result = run(fixture("sides.pt") + " a.h5 --grid 2,3,4");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("rows     1 of 1 calls"), HasSubstr("masks    of 1 of 1 calls")));
  EXPECT_THAT(fails(fixture("sides.pt") + " b.h5 --grid 2,3,4 --map rows=none", 3).err,
              AllOf(HasSubstr("8 queries and 24 keys"), HasSubstr("--map rows=NAME")));
  const Result mapped = run(fixture("sides.pt") + " b.h5 --grid 2,3,4 --map rows=q_rows --map mask=none --quiet");
  EXPECT_EQ(mapped.code, 0) << mapped.err;
  EXPECT_THAT(mapped.out, testing::Not(HasSubstr("masks")));
  fails(fixture("sides.pt") + " b.h5 --grid 2,3,4 --map rows=", 2);
}

TEST_F(ConvertCli, InfoShowsTheRecord) {
  ASSERT_EQ(run(fixture("plain.npz") + " a.h5 --grid 2,3,4").code, 0);
  FILE* pipe = ::popen(fmt::format("'{}' info '{}'; '{}' info --json '{}'", SPARSIGHT_CLI, (m_folder / "a.h5").string(),
                                   SPARSIGHT_CLI, (m_folder / "a.h5").string())
                           .c_str(),
                       "r");
  std::string out;
  char buffer[4096];
  for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  ::pclose(pipe);
  EXPECT_THAT(out, AllOf(HasSubstr("imported  from plain.npz (numpy)"), HasSubstr("assumed   branch cond"),
                         HasSubstr("\"import\"")));
}

TEST_F(ConvertCli, ProfilesGoIntoEachOther) {
  Profile p(5, 3, 2, BudgetRole::KeptFloor);
  for (int s = 0; s < 5; ++s) {
    for (int l = 0; l < 3; ++l) {
      for (int h = 0; h < 2; ++h) p.set({s, l, h}, (s * 6 + l * 2 + h) / 64.0);
    }
  }
  writeProfile(m_folder / "p.csv", p);
  EXPECT_EQ(run("p.csv p.json").code, 0);
  EXPECT_EQ(run("p.json q.csv").code, 0);
  EXPECT_TRUE(readWholeFile(m_folder / "q.csv", 1 << 20) == readWholeFile(m_folder / "p.csv", 1 << 20));
  std::ofstream(m_folder / "v.jsonl")
      << R"({"timestep": 900.0, "layer": 1, "avg_density": 0.5, "density": [[0.25, 0.75]]})"
         "\n";
  const Result log = run("v.jsonl log.json --steps 4 --layers 3 --json");
  EXPECT_EQ(log.code, 0) << log.err;
  EXPECT_EQ(nlohmann::json::parse(log.out).at("holes"), 22);
  EXPECT_EQ(readProfile(m_folder / "log.json").at({3, 1, 1}), 0.75);
}

TEST_F(ConvertCli, InterruptLeavesNothingBehind) {
  // Its first line of progress meets a full pipe, so that it cannot end before it is interrupted.
  int ends[2] = {};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  char fill[4096] = {};
  while (::write(ends[1], fill, sizeof fill) > 0) {
  }
  while (::write(ends[1], fill, 1) > 0) {
  }
  ASSERT_EQ(::fcntl(ends[1], F_SETFL, 0), 0);
  ASSERT_EQ(::fcntl(ends[0], F_SETFL, 0), 0);
  std::filesystem::copy_file(fixture("plain.npz"), m_folder / "in.npz");
  const std::string out = (m_folder / "out.h5").string(), source = (m_folder / "in.npz").string();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::dup2(ends[1], STDERR_FILENO) < 0 || ::freopen("/dev/null", "w", stdout) == nullptr) ::_exit(126);
    ::execl(SPARSIGHT_CLI, SPARSIGHT_CLI, "convert", source.c_str(), out.c_str(), "--grid", "2,3,4", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  // Once its temporary file is there, it is at work.
  int status = 0;
  while (files() < 2) {
    ASSERT_EQ(::waitpid(child, &status, WNOHANG), 0) << "it ended: " << status;
    ::usleep(1000);
  }
  ::kill(child, SIGINT);
  std::string said;
  for (ssize_t n = 0; (n = ::read(ends[0], fill, sizeof fill)) > 0;) said.append(fill, static_cast<std::size_t>(n));
  ::close(ends[0]);
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 130) << said.substr(said.find_first_not_of('\0'));
  EXPECT_EQ(files(), 1U) << "only the source is there";
}

}  // namespace
}  // namespace sparsight

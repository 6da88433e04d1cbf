// SPDX-License-Identifier: Apache-2.0
// --backend of the real program: explicit choice, environment, and a machine that has no device.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "sparsight/kernels/backend.h"

namespace sparsight {
namespace {

namespace fs = std::filesystem;

struct Finished {
  int code = -1;
  std::string out, err;
};

class BackendCli : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    s_folder = fs::temp_directory_path() / ("sparsight_backend_test_" + std::to_string(getpid()));
    fs::create_directories(s_folder);
    s_trace = s_folder / "trace.h5";
    const Finished made = run(
        "", "synth " + s_trace.string() + " --grid 2,4,4 --text 0 --layers 1 --heads 1 --steps 1 --head-dim 8 --quiet");
    ASSERT_EQ(made.code, 0) << made.err;
  }
  static void TearDownTestSuite() { fs::remove_all(s_folder); }

  static Finished run(const std::string& environment, const std::string& arguments) {
    const fs::path err = s_folder / "stderr";
    const fs::path out = s_folder / "stdout";
    // The environment of whoever runs the tests must not decide.
    const std::string command = "env -u SPARSIGHT_BACKEND " + environment + " '" SPARSIGHT_CLI "' " + arguments +
                                " >'" + out.string() + "' 2>'" + err.string() + "'";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, slurp(out), slurp(err)};
  }
  static std::string slurp(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  static std::string stats() { return "stats " + s_trace.string() + " --json --quiet"; }

  /// Why CUDA cannot run here; empty: it can.
  static std::string whyNoCuda() {
    std::string why = "this program was built without CUDA";
    for (const BackendEntry& entry : compiledBackends()) {
      if (entry.id == "cuda" && entry.probe(why)) return {};
    }
    return why;
  }
  static void expectOneLine(const std::string& text) {
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
    EXPECT_EQ(text.rfind("sparsight-cli: ", 0), 0U) << text;
  }

  static fs::path s_folder, s_trace;
};
fs::path BackendCli::s_folder;
fs::path BackendCli::s_trace;

TEST_F(BackendCli, CudaWithoutADeviceExitsFourWithOneLine) {
  const std::string why = whyNoCuda();
  if (why.empty()) GTEST_SKIP() << "a CUDA device is present";
  const Finished finished = run("", "--backend cuda " + stats());
  EXPECT_EQ(finished.code, 4);
  EXPECT_EQ(finished.out, "");
  expectOneLine(finished.err);
  EXPECT_NE(finished.err.find("backend cuda: " + why), std::string::npos) << finished.err;
  EXPECT_NE(finished.err.find("use --backend cpu or auto"), std::string::npos) << finished.err;
}

TEST_F(BackendCli, EnvironmentReplacesAutoOnly) {
  if (whyNoCuda().empty()) GTEST_SKIP() << "a CUDA device is present";
  const Finished asked = run("SPARSIGHT_BACKEND=cuda", stats());
  EXPECT_EQ(asked.code, 4);
  expectOneLine(asked.err);
  EXPECT_NE(asked.err.find("SPARSIGHT_BACKEND"), std::string::npos) << asked.err;
  const Finished explicitly = run("SPARSIGHT_BACKEND=cuda", "--backend cpu " + stats());
  EXPECT_EQ(explicitly.code, 0) << explicitly.err;
}

TEST_F(BackendCli, UnknownNamesAreUsageErrors) {
  EXPECT_EQ(run("", "--backend tpu " + stats()).code, 2);
  const Finished environment = run("SPARSIGHT_BACKEND=tpu", stats());
  EXPECT_EQ(environment.code, 2);
  expectOneLine(environment.err);
  EXPECT_NE(environment.err.find("tpu"), std::string::npos) << environment.err;
}

TEST_F(BackendCli, CudaAndCpuAgree) {
  if (const std::string why = whyNoCuda(); !why.empty()) {
    if (std::getenv("SPARSIGHT_REQUIRE_GPU") != nullptr) FAIL() << why;
    GTEST_SKIP() << why;
  }
  const Finished cuda = run("", "--backend cuda " + stats());
  const Finished cpu = run("", "--backend cpu " + stats());
  ASSERT_EQ(cuda.code, 0) << cuda.err;
  ASSERT_EQ(cpu.code, 0) << cpu.err;
  const auto a = nlohmann::json::parse(cuda.out).at("rows").at(0);
  const auto b = nlohmann::json::parse(cpu.out).at("rows").at(0);
  EXPECT_NEAR(a.at("lse_mean").get<double>(), b.at("lse_mean").get<double>(), 1e-4);
}

TEST_F(BackendCli, AutoAlwaysRuns) {
  const Finished finished = run("", stats());
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_FALSE(nlohmann::json::parse(finished.out).at("rows").empty());
}

}  // namespace
}  // namespace sparsight

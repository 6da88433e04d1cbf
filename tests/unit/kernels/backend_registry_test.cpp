// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "sparsight/kernels/backend.h"

namespace sparsight {
namespace {

class BackendRegistry : public testing::Test {
 protected:
  void SetUp() override { unsetenv("SPARSIGHT_BACKEND"); }
  void TearDown() override { unsetenv("SPARSIGHT_BACKEND"); }
  static bool cudaRuns() {
    std::string why;
    for (const BackendEntry& entry : compiledBackends()) {
      if (entry.id == "cuda") return entry.probe(why);
    }
    return false;
  }
  Executor m_executor{1};
};

TEST_F(BackendRegistry, CpuIsLastAndAlwaysRuns) {
  ASSERT_FALSE(compiledBackends().empty());
  const BackendEntry& last = compiledBackends().back();
  EXPECT_EQ(last.id, "cpu");
  std::string why;
  EXPECT_TRUE(last.probe(why));
  EXPECT_EQ(createBackend("cpu", m_executor)->info().id, "cpu");
}

TEST_F(BackendRegistry, AutoTakesTheFirstThatRunsAndTheEnvironmentOverridesIt) {
  EXPECT_EQ(createBackend("auto", m_executor)->info().id, cudaRuns() ? "cuda" : "cpu");
  setenv("SPARSIGHT_BACKEND", "cpu", 1);
  EXPECT_EQ(createBackend("auto", m_executor)->info().id, "cpu");
  setenv("SPARSIGHT_BACKEND", "abacus", 1);
  EXPECT_THROW(static_cast<void>(createBackend("auto", m_executor)), Error);
  EXPECT_EQ(createBackend("cpu", m_executor)->info().id, "cpu") << "an explicit choice wins over the environment";
}

TEST_F(BackendRegistry, AnAskedBackendThatCannotRunSaysWhy) {
  if (cudaRuns()) GTEST_SKIP() << "a CUDA device is present";
  try {
    static_cast<void>(createBackend("cuda", m_executor));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Device);
    const std::string message = error.what();
    EXPECT_NE(message.find("cuda"), std::string::npos);
    EXPECT_NE(message.find("--backend cpu"), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST_F(BackendRegistry, AnUnknownNameIsTheCallersMistake) {
  try {
    static_cast<void>(createBackend("tpu", m_executor));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::InvalidArgument);
    EXPECT_NE(std::string(error.what()).find("tpu"), std::string::npos);
  }
}

}  // namespace
}  // namespace sparsight

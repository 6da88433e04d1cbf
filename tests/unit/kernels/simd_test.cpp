// SPDX-License-Identifier: Apache-2.0
#include "cpu/simd.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>

#include "cpu/scratch.h"
#include "sparsight/kernels/error.h"

namespace sparsight::cpu {
namespace {

class SimdSets : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    m_simd = findSimdKernels(GetParam());
    if (m_simd == nullptr) GTEST_SKIP() << "this CPU has no " << GetParam();
  }
  const SimdKernels* m_simd = nullptr;
};
INSTANTIATE_TEST_SUITE_P(SimdSets, SimdSets, ::testing::Values("baseline", "avx2", "avx512", "avx512bf16"));

TEST_P(SimdSets, ExponentialIsGoodToAMillionth) {
  constexpr Index kCount = 40001;
  std::vector<float> x(kCount);
  std::vector<float> w(kCount);
  for (Index i = 0; i < kCount; ++i) x[static_cast<std::size_t>(i)] = -126.0F + 146.0F * static_cast<float>(i) / kCount;
  double sum = 0;
  double sumLog = 0;
  m_simd->rowExp(x.data(), kCount, 1.0F, 0.0F, w.data(), &sum, &sumLog);
  double worst = 0;
  double exactSum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double exact = std::exp2(static_cast<double>(x[i]));
    worst = std::max(worst, std::abs(static_cast<double>(w[i]) / exact - 1));
    exactSum += exact;
  }
  EXPECT_LT(worst, 3e-7);
  EXPECT_NEAR(sum / exactSum, 1.0, 1e-6);
}

TEST_P(SimdSets, ExponentialAtTheEdges) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<float> x{-kInf, -1e30F, -127.0F, 0.0F, 1.0F, std::nanf("")};
  std::vector<float> w(x.size());
  double sum = 0;
  double sumLog = 0;
  m_simd->rowExp(x.data(), 5, 1.0F, 0.0F, w.data(), &sum, &sumLog);
  EXPECT_EQ(w[0], 0.0F);
  EXPECT_EQ(w[1], 0.0F);
  EXPECT_EQ(w[2], 0.0F);
  EXPECT_EQ(w[3], 1.0F);
  EXPECT_EQ(w[4], 2.0F);
  EXPECT_EQ(sum, 3.0);
  EXPECT_EQ(sumLog, 2.0);
  m_simd->rowExp(x.data() + 5, 1, 1.0F, 0.0F, w.data(), &sum, &sumLog);
  EXPECT_TRUE(std::isnan(w[0])) << "a NaN must not be hidden";
}

TEST_P(SimdSets, EqualKeysHaveEqualScoresWhereverTheyStand) {
  constexpr Index kKeys = 29;
  const Index lanes = m_simd->lanes;
  for (const Index dim : {1, 10, 33}) {
    AlignedFloats panel(dim * lanes);
    for (Index i = 0; i < dim * lanes; ++i) panel.get()[i] = std::sin(static_cast<float>(i));
    std::vector<float> keys(static_cast<std::size_t>(kKeys * dim));
    for (std::size_t i = 0; i < keys.size(); ++i)
      keys[i] = std::cos(static_cast<float>(i % static_cast<std::size_t>(dim)));
    AlignedFloats scores(kKeys * lanes);
    AlignedFloats largest(lanes);
    std::fill_n(largest.get(), lanes, -1e30F);
    m_simd->scores(panel.get(), keys.data(), dim, kKeys, dim, scores.get(), largest.get());
    EXPECT_EQ(largest.get()[3], scores.get()[3]);
    for (Index n = 1; n < kKeys; ++n) {
      for (Index lane = 0; lane < lanes; ++lane) {
        ASSERT_EQ(scores.get()[n * lanes + lane], scores.get()[lane]) << "key " << n << ", lane " << lane;
      }
    }
    double exact = 0;
    for (Index i = 0; i < dim; ++i) {
      exact += static_cast<double>(panel.get()[i * lanes + 3]) * static_cast<double>(keys[static_cast<std::size_t>(i)]);
    }
    EXPECT_NEAR(static_cast<double>(scores.get()[3]), exact, 1e-5);
  }
}

TEST(Simd, TheEnvironmentChoosesAndUnknownNamesAreRefused) {
  setenv("SPARSIGHT_SIMD", "baseline", 1);
  EXPECT_EQ(simdKernels().name, "baseline");
  setenv("SPARSIGHT_SIMD", "mmx", 1);
  try {
    static_cast<void>(simdKernels());
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("SPARSIGHT_SIMD=mmx"), std::string::npos);
  }
  unsetenv("SPARSIGHT_SIMD");
  EXPECT_FALSE(simdKernels().name.empty());
}

}  // namespace
}  // namespace sparsight::cpu

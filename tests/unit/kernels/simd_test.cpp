// SPDX-License-Identifier: Apache-2.0
#include "cpu/simd.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

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

/// Columns of one map against several panels, folded as a pass does it, with scores in double beside them.
class SimdFold : public ::testing::Test {
 protected:
  static constexpr float kInf = std::numeric_limits<float>::infinity();
  static constexpr Index kPanels = 3;
  static constexpr float kScale = 0.3F;

  void SetUp() override {
    m_simd = findSimdKernels("avx512bf16");
    if (m_simd == nullptr) GTEST_SKIP() << "this CPU has no bfloat16 dot products";
  }
  static std::uint16_t bfloat(float x) { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16U); }
  static float number(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U); }

  void make(Index dim, std::vector<Index> widths, float spread) {
    m_dim = dim;
    m_widths = std::move(widths);
    m_keyCount = std::accumulate(m_widths.begin(), m_widths.end(), Index{0});
    m_keys.resize(static_cast<std::size_t>(m_keyCount * dim));
    for (std::size_t i = 0; i < m_keys.size(); ++i)
      m_keys[i] = bfloat(spread * std::sin(static_cast<float>(i * i % 977)));
    m_queries = AlignedFloats(kPanels * dim * m_simd->lanes);
    for (Index i = 0; i < kPanels * dim * m_simd->lanes; ++i) {
      queries()[i] = bfloat(std::cos(static_cast<float>(i * 7 % 1013)));
    }
    const auto cells = static_cast<std::size_t>(kPanels) * m_widths.size() * lanes();
    m_sums = AlignedFloats(static_cast<Index>(cells));
    m_tops = AlignedFloats(static_cast<Index>(cells));
    m_reference = AlignedFloats(kPanels * m_simd->lanes);
    m_limit = AlignedFloats(kPanels * m_simd->lanes);
    std::fill_n(m_reference.get(), kPanels * m_simd->lanes, 0.0F);
    std::fill_n(m_limit.get(), kPanels * m_simd->lanes, kInf);
  }
  [[nodiscard]] std::uint16_t* queries() const { return reinterpret_cast<std::uint16_t*>(m_queries.get()); }
  [[nodiscard]] std::size_t lanes() const { return static_cast<std::size_t>(m_simd->lanes); }
  [[nodiscard]] std::size_t cell(Index panel, std::size_t column) const {
    return (static_cast<std::size_t>(panel) * m_widths.size() + column) * lanes();
  }
  /// Panels hold pairs of numbers: [dim / 2, lanes, 2].
  [[nodiscard]] double score(Index panel, Index lane, Index key) const {
    double sum = 0;
    for (Index i = 0; i < m_dim; ++i) {
      const Index at = panel * m_dim * m_simd->lanes + ((i / 2) * m_simd->lanes + lane) * 2 + i % 2;
      sum += static_cast<double>(number(queries()[at])) *
             static_cast<double>(number(m_keys[static_cast<std::size_t>(key * m_dim + i)]));
    }
    return sum;
  }
  /// Lifts each lane's reference to its largest score whenever the kernel asks for it; returns how often it did.
  int fold() {
    const auto cells = static_cast<Index>(static_cast<std::size_t>(kPanels) * m_widths.size() * lanes());
    std::fill_n(m_sums.get(), cells, 0.0F);
    std::fill_n(m_tops.get(), cells, -kInf);
    int asked = 0;
    PendingScores pending;
    Index first = 0;
    for (std::size_t c = 0; c < m_widths.size(); ++c) {
      for (Index panel = 0; panel < kPanels; ++panel) {
        float* const reference = m_reference.get() + panel * m_simd->lanes;
        float* const limit = m_limit.get() + panel * m_simd->lanes;
        FoldColumn column;
        column.panel = queries() + panel * m_dim * m_simd->lanes;
        column.keys = m_keys.data() + first * m_dim;
        column.stride = m_dim;
        column.count = m_widths[c];
        column.dim = m_dim;
        column.scale = kScale;
        column.reference = reference;
        column.limit = limit;
        column.sums = m_sums.get() + cell(panel, c);
        column.top = m_tops.get() + cell(panel, c);
        column.ahead = reinterpret_cast<const std::byte*>(column.keys);
        column.aheadBytes = m_widths[c] * m_dim * 2;
        while (!m_simd->foldBf16(column, pending)) {
          ++asked;
          for (Index lane = 0; lane < m_simd->lanes; ++lane) {
            if (!(column.largest[lane] > limit[lane])) continue;
            const float lifted = kScale * column.largest[lane];
            const float factor = std::exp2(reference[lane] - lifted);
            for (std::size_t before = 0; before <= c; ++before) {
              m_sums.get()[cell(panel, before) + static_cast<std::size_t>(lane)] *= factor;
            }
            pending.rescale(lane, factor);
            reference[lane] = lifted;
            limit[lane] = column.largest[lane] + 2.0F / kScale;
          }
        }
      }
      first += m_widths[c];
    }
    m_simd->foldRest(pending);
    EXPECT_EQ(pending.count, 0);
    return asked;
  }
  void compare(double tolerance) const {
    Index first = 0;
    for (std::size_t c = 0; c < m_widths.size(); ++c) {
      for (Index panel = 0; panel < kPanels; ++panel) {
        for (Index lane = 0; lane < m_simd->lanes; ++lane) {
          double sum = 0;
          double top = -std::numeric_limits<double>::infinity();
          const auto reference = static_cast<double>(m_reference.get()[panel * m_simd->lanes + lane]);
          for (Index key = first; key < first + m_widths[c]; ++key) {
            const double exact = score(panel, lane, key);
            sum += std::exp2(static_cast<double>(kScale) * exact - reference);
            top = std::max(top, exact);
          }
          const std::size_t at = cell(panel, c) + static_cast<std::size_t>(lane);
          ASSERT_NEAR(static_cast<double>(m_sums.get()[at]) / sum, 1.0, tolerance)
              << "column " << c << ", panel " << panel << ", lane " << lane;
          ASSERT_NEAR(static_cast<double>(m_tops.get()[at]), top, 1e-4);
        }
      }
      first += m_widths[c];
    }
  }

  const SimdKernels* m_simd = nullptr;
  Index m_dim = 0, m_keyCount = 0;
  std::vector<Index> m_widths;
  std::vector<std::uint16_t> m_keys;
  AlignedFloats m_queries, m_sums, m_tops, m_reference, m_limit;
};

TEST_F(SimdFold, AgreeWithDoublesWhateverTheirWidth) {
  for (const Index dim : {2, 6, 16, 34, 64, 80, 128, 146}) {
    SCOPED_TRACE(dim);
    make(dim, {6, 7, 8, 9, 10, 11, 12, 13, 19, 20, 63, 64, 96, 6}, 1.0F);
    EXPECT_EQ(fold(), 0);
    compare(5e-6);
  }
}

TEST_F(SimdFold, FollowReferencesThatMove) {
  for (const Index dim : {34, 128}) {
    SCOPED_TRACE(dim);
    make(dim, {8, 23, 64, 6, 17, 64}, 4.0F);
    std::fill_n(m_limit.get(), kPanels * m_simd->lanes, -kInf);
    EXPECT_GE(fold(), 2 * static_cast<int>(kPanels));
    compare(2e-5);
  }
}

TEST_F(SimdFold, NoLaneDependsOnWhenOthersAskForAReference) {
  make(64, {8, 23, 64, 6, 17, 64}, 2.0F);
  fold();
  const auto cells = static_cast<std::size_t>(kPanels) * m_widths.size() * lanes();
  const std::vector<float> calm(m_sums.get(), m_sums.get() + cells);
  make(64, {8, 23, 64, 6, 17, 64}, 2.0F);
  for (Index lane = 1; lane < kPanels * m_simd->lanes; lane += 2) m_limit.get()[lane] = -kInf;
  EXPECT_GT(fold(), 0);
  for (std::size_t i = 0; i < cells; i += 2) ASSERT_EQ(m_sums.get()[i], calm[i]) << i;
}

TEST_F(SimdFold, EdgesOfTheExponential) {
  // Every key gives each lane the same score: 1 in every dimension against its own number.
  constexpr Index kDim = 2;
  make(kDim, {8}, 1.0F);
  std::fill(m_keys.begin(), m_keys.end(), bfloat(1.0F));
  for (Index lane = 0; lane < m_simd->lanes; ++lane) {
    queries()[lane * 2] = bfloat(0.0F);
    queries()[lane * 2 + 1] = bfloat(0.0F);
  }
  const std::vector<float> logs{-kInf, -1e30F, -200.0F, -151.0F, -125.0F, -122.5F, 0.0F, 20.0F, 120.0F, kInf};
  // The logarithm stands in the reference; an infinite one and a NaN in the query.
  for (std::size_t i = 0; i < logs.size(); ++i) {
    m_reference.get()[i] = std::isinf(logs[i]) ? 0.0F : -logs[i];
    if (std::isinf(logs[i])) queries()[i * 2] = bfloat(logs[i]);
  }
  const std::size_t nan = logs.size();
  queries()[nan * 2] = 0x7fc0;
  queries()[nan * 2 + 2] = 0xffc0;
  fold();
  const float* const sums = m_sums.get();
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(sums[i], 0.0F) << logs[i];
  for (std::size_t i = 5; i < 9; ++i) {
    EXPECT_NEAR(static_cast<double>(sums[i]) / (8 * std::exp2(static_cast<double>(logs[i]))), 1.0, 1e-6) << logs[i];
  }
  EXPECT_GT(sums[9], 0x1p126F) << "limited, not wrapped around";
  EXPECT_TRUE(std::isnan(sums[nan])) << "a NaN must not be hidden";
  EXPECT_TRUE(std::isnan(sums[nan + 1])) << "nor one with a sign";
  for (std::size_t i = nan + 2; i < lanes(); ++i) EXPECT_NEAR(static_cast<double>(sums[i]), 8.0, 1e-5);
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

// SPDX-License-Identifier: Apache-2.0
// Probabilities between clusters: the exponential, the definition, and the same bits wherever they are computed.
#include "cluster_scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <random>

#include "cpu/cpu_backend.h"
#include "cpu/simd.h"
#include "exact_exp.h"
#include "tests/support/emulated_cuda.h"

namespace sparsight {
namespace {

using ::testing::ElementsAre;

constexpr double kInf = std::numeric_limits<double>::infinity();

// Numbers of doubles from one to the other; both are at least 0.
std::int64_t ulps(double a, double b) {
  return std::abs(std::bit_cast<std::int64_t>(a) - std::bit_cast<std::int64_t>(b));
}

TEST(ClusterScoresExp, IsTheLibrarysWithinOneUlp) {
  std::mt19937_64 random(1);
  std::int64_t worst = 0;
  const auto look = [&](double x) {
    const std::int64_t off = ulps(exact::exp(x), std::exp(x));
    ASSERT_LE(off, 1) << x << ": " << exact::exp(x) << " and " << std::exp(x);
    worst = std::max(worst, off);
  };
  // All over, where softmax lives, near 0, around the multiples of ln 2 / 2 where the reduction changes, and where
  // results are subnormal.
  for (int i = 0; i < 300'000; ++i) {
    const double unit = std::ldexp(static_cast<double>(random() >> 11U), -53);
    look(-745.2 + 1455.0 * unit);
    look(-40 * unit);
    look(std::ldexp(unit - 0.5, -static_cast<int>(random() % 60)));
    const double step = static_cast<double>(static_cast<int>(random() % 4000) - 2000) * (std::numbers::ln2 / 2);
    if (step > -745 && step < 709) look(step + std::ldexp(unit - 0.5, -40));
    look(-708 - 37.2 * unit);
  }
  EXPECT_GT(worst, 0) << "otherwise this compares nothing";
  for (const double x : {0.0, -0.0, 1.0, -1.0, 709.78, 709.7827128933840, -708.3964185322641, -744.44, -745.13})
    look(x);
}
TEST(ClusterScoresExp, Limits) {
  EXPECT_EQ(exact::exp(0.0), 1.0);
  EXPECT_EQ(exact::exp(-kInf), 0.0);
  EXPECT_EQ(exact::exp(-745.14), 0.0);
  EXPECT_EQ(exact::exp(-1e300), 0.0);
  EXPECT_EQ(exact::exp(kInf), kInf);
  EXPECT_EQ(exact::exp(709.79), kInf);
  EXPECT_TRUE(std::isnan(exact::exp(std::numeric_limits<double>::quiet_NaN())));
  EXPECT_EQ(exact::exp(-745.13), std::numeric_limits<double>::denorm_min());
}

struct Problem {
  Index dim = 0;
  std::vector<float> queries, keys;
  std::vector<Index> weights;
  double scale = 1, topP = 1;
  [[nodiscard]] ClusterScoresRequest request() const { return {dim, queries, keys, weights, scale, topP}; }
};
Problem randomProblem(Index queries, Index keys, Index dim, bool weighted, double topP) {
  std::mt19937 random(static_cast<std::mt19937::result_type>(queries + 3 * keys + 7 * dim));
  std::normal_distribution<float> normal;
  Problem p;
  p.dim = dim;
  p.scale = 1 / std::sqrt(static_cast<double>(dim));
  p.topP = topP;
  for (Index i = 0; i < queries * dim; ++i) p.queries.push_back(2 * normal(random));
  for (Index i = 0; i < keys * dim; ++i) p.keys.push_back(normal(random));
  // A few clusters are empty and a few equal.
  for (Index j = 0; j < keys && weighted; ++j) p.weights.push_back(static_cast<Index>(random() % 7));
  for (Index j = 3; j < keys; j += 5) {
    std::copy_n(p.keys.begin() + (j - 1) * dim, dim, p.keys.begin() + j * dim);
  }
  return p;
}

void expectSame(const ClusterScores& got, const ClusterScores& want) {
  EXPECT_EQ(got.order, want.order);
  EXPECT_EQ(got.crossing, want.crossing);
  ASSERT_EQ(got.probabilities.size(), want.probabilities.size());
  for (std::size_t i = 0; i < got.probabilities.size(); ++i) {
    if (std::isnan(want.probabilities[i]) && std::isnan(got.probabilities[i])) continue;
    ASSERT_EQ(std::bit_cast<std::uint64_t>(got.probabilities[i]), std::bit_cast<std::uint64_t>(want.probabilities[i]))
        << i << ": " << got.probabilities[i] << " and " << want.probabilities[i];
  }
}

TEST(ClusterScores, SameBitsOnEveryBackendSetAndThreadCount) {
  resetEmulatedCuda();
  const auto oracle = createReferenceBackend();
  Executor one(1);
  Executor five(5);
  for (const auto& [queries, keys, dim] : {std::array<Index, 3>{1, 1, 1},
                                           {1, 7, 3},
                                           {5, 1, 64},
                                           {33, 65, 64},
                                           {37, 130, 80},
                                           {70, 200, 128},
                                           {9, 1030, 256},
                                           {3, 2500, 40},
                                           {0, 5, 8}}) {
    for (const bool weighted : {false, true}) {
      for (const double topP : {0.0, 0.5, 0.9, 1.0}) {
        SCOPED_TRACE(::testing::Message() << queries << " x " << keys << " x " << dim << ", top " << topP);
        const Problem problem = randomProblem(queries, keys, dim, weighted, topP);
        const ClusterScores want = oracle->scoreClusters(problem.request(), {});
        for (const char* name : {"baseline", "avx2", "avx512", "avx512bf16"}) {
          const cpu::SimdKernels* const simd = cpu::findSimdKernels(name);
          if (simd == nullptr) continue;
          expectSame(createCpuBackend(one, *simd)->scoreClusters(problem.request(), {}), want);
          expectSame(createCpuBackend(five, *simd)->scoreClusters(problem.request(), {}), want);
        }
        expectSame(createEmulatedCudaBackend(one)->scoreClusters(problem.request(), {}), want);
      }
    }
  }
  resetEmulatedCuda();
}

TEST(ClusterScores, AreTheSoftmaxOverTokensAndInOrder) {
  const Problem problem = randomProblem(40, 333, 96, true, 0.9);
  const ClusterScores scores = createReferenceBackend()->scoreClusters(problem.request(), {});
  for (std::size_t i = 0; i < 40; ++i) {
    std::vector<long double> row(333);
    long double top = -std::numeric_limits<long double>::infinity();
    for (std::size_t j = 0; j < row.size(); ++j) {
      for (std::size_t d = 0; d < 96; ++d) {
        row[j] +=
            static_cast<long double>(problem.queries[i * 96 + d]) * static_cast<long double>(problem.keys[j * 96 + d]);
      }
      row[j] *= static_cast<long double>(problem.scale);
      top = std::max(top, row[j]);
    }
    long double sum = 0;
    for (std::size_t j = 0; j < row.size(); ++j) {
      row[j] = static_cast<long double>(problem.weights[j]) * std::exp(row[j] - top);
      sum += row[j];
    }
    double before = 0;
    double upTo = 0;
    std::vector<bool> seen(row.size(), false);
    for (std::size_t n = 0; n < row.size(); ++n) {
      const auto j = static_cast<std::size_t>(scores.order[i * 333 + n]);
      const double p = scores.probabilities[i * 333 + j];
      EXPECT_NEAR(p, static_cast<double>(row[j] / sum), 1e-13 * p + 1e-300);
      ASSERT_FALSE(seen[j]);
      seen[j] = true;
      if (n > 0) {
        const auto last = static_cast<std::size_t>(scores.order[i * 333 + n - 1]);
        const double larger = scores.probabilities[i * 333 + last];
        EXPECT_TRUE(larger > p || (larger == p && last < j)) << n;
      }
      if (static_cast<Index>(n) < scores.crossing[i] - 1) before += p;
      if (static_cast<Index>(n) < scores.crossing[i]) upTo += p;
    }
    EXPECT_LE(before, 0.9);
    EXPECT_GT(upTo, 0.9);
  }
}

TEST(ClusterScores, TiesGoToTheLowestAndTheCrossingOneCounts) {
  Executor executor(2);
  const std::vector<float> queries{1, 0};
  const std::vector<float> keys{0, 0, 5, 0, 0, 7};  // the first dimension decides: clusters 0 and 2 are equal
  const auto run = [&](double topP, std::vector<Index> weights) {
    return createCpuBackend(executor)->scoreClusters({2, queries, keys, weights, 1.0, topP}, {});
  };
  EXPECT_THAT(run(0.0, {}).order, ElementsAre(1, 0, 2));
  EXPECT_THAT(run(0.0, {}).crossing, ElementsAre(1)) << "at least one";
  EXPECT_THAT(run(1.0, {}).crossing, ElementsAre(3));
  // Without tokens a cluster has no probability, however near it is.
  const ClusterScores empty = run(0.4, {3, 0, 3});
  EXPECT_THAT(empty.order, ElementsAre(0, 2, 1));
  EXPECT_THAT(empty.probabilities, ElementsAre(0.5, 0.0, 0.5));
  EXPECT_THAT(empty.crossing, ElementsAre(1));
  EXPECT_THAT(run(0.5, {3, 0, 3}).crossing, ElementsAre(2)) << "reaching p is not crossing it";
  const ClusterScores none = run(0.5, {0, 0, 0});
  EXPECT_THAT(none.probabilities, ElementsAre(0.0, 0.0, 0.0));
  EXPECT_THAT(none.order, ElementsAre(0, 1, 2));
  EXPECT_THAT(none.crossing, ElementsAre(3));
}

TEST(ClusterScores, WhatIsNoNumberComesLastEverywhere) {
  resetEmulatedCuda();
  Executor executor(2);
  Problem problem = randomProblem(3, 40, 8, false, 0.5);
  problem.queries[9] = std::numeric_limits<float>::quiet_NaN();
  problem.keys[100] = std::numeric_limits<float>::infinity();
  const ClusterScores want = createReferenceBackend()->scoreClusters(problem.request(), {});
  expectSame(createCpuBackend(executor)->scoreClusters(problem.request(), {}), want);
  expectSame(createEmulatedCudaBackend(executor)->scoreClusters(problem.request(), {}), want);
  resetEmulatedCuda();
}

TEST(ClusterScores, RefusesWhatDoesNotFit) {
  Executor executor(1);
  const auto backend = createCpuBackend(executor);
  const std::vector<float> some(12);
  const std::vector<Index> weights{1, 2, -1};
  for (const ClusterScoresRequest& request :
       {ClusterScoresRequest{0, some, some}, ClusterScoresRequest{5, some, some}, ClusterScoresRequest{4, some, {}},
        ClusterScoresRequest{4, some, some, weights}, ClusterScoresRequest{6, some, some, weights},
        ClusterScoresRequest{4, some, some, {}, kInf}, ClusterScoresRequest{4, some, some, {}, 1, std::nan("")}}) {
    EXPECT_THROW(static_cast<void>(backend->scoreClusters(request, {})), Error);
  }
  std::stop_source source;
  source.request_stop();
  EXPECT_THROW(static_cast<void>(backend->scoreClusters({4, some, some}, {source.get_token(), {}})), Cancelled);
}

}  // namespace
}  // namespace sparsight

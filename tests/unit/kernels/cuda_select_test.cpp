// SPDX-License-Identifier: Apache-2.0
// The selections in whole rows of scores, run block by block on the host, against sorting.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cuda/score_rows.h"

namespace sparsight::cuda {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

std::unique_ptr<SelectShared> dirtyShared() {
  auto shared = std::make_unique<SelectShared>();
  std::memset(static_cast<void*>(shared.get()), 0xFF, sizeof(SelectShared));
  return shared;
}

/// Rows of every kind of trouble: many ties, all equal, few levels, a wide range, masked keys, none valid.
std::vector<float> makeRow(std::mt19937& random, int keys, int kind) {
  std::vector<float> row(static_cast<std::size_t>(keys));
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> few(-3, 3);
  for (float& score : row) {
    switch (kind) {
      case 0:
        score = normal(random);
        break;
      case 1:
        score = static_cast<float>(few(random));
        break;
      case 2:
        score = 2.5F;
        break;
      case 3:
        score = std::ldexp(normal(random), few(random) * 8);
        break;
      case 4:
        score = few(random) < 0 ? kNone : static_cast<float>(few(random)) * 0.25F;
        break;
      default:
        score = kNone;
    }
    score += 0.0F;  // as the score kernel leaves them: no negative zero
  }
  return row;
}
RowPanel panelOf(const std::vector<float>& row) {
  return {row.data(), static_cast<std::int64_t>(row.size()), static_cast<std::int32_t>(row.size()), 0.7F,
          0.7 / 1.4426950408889634};
}
std::vector<std::size_t> byScore(const std::vector<float>& row) {
  std::vector<std::size_t> order;
  for (std::size_t key = 0; key < row.size(); ++key) {
    if (row[key] > kNone) order.push_back(key);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return row[a] > row[b]; });
  return order;
}

// 5,000 and 9,001 keys: the last tie lies in a stretch of several keys.
constexpr int kSizes[] = {1, 2, 255, 256, 257, 2047, 2048, 2049, 5000, 9001};

TEST(CudaSelect, TopCutKeepsWhatSortingKeeps) {
  std::mt19937 random(3);
  const auto shared = dirtyShared();
  for (const int keys : kSizes) {
    for (int kind = 0; kind <= 5; ++kind) {
      const std::vector<float> row = makeRow(random, keys, kind);
      const std::vector<std::size_t> order = byScore(row);
      for (const std::int64_t count : {0, 1, 2, keys / 7, keys / 2, keys - 1, keys, keys + 3}) {
        SCOPED_TRACE(::testing::Message() << keys << " keys of kind " << kind << ", keep " << count);
        float cut = 0;
        float threshold = 0;
        std::int32_t lastTie = 0;
        HostBlock<SelectState> block(0, 0);
        selectBody(block, *shared, TopCutParams{panelOf(row), &count, &cut, &lastTie, &threshold});
        const auto kept = std::min(order.size(), static_cast<std::size_t>(std::max<std::int64_t>(count, 0)));
        std::vector<bool> want(row.size(), false);
        for (std::size_t i = 0; i < kept; ++i) want[order[i]] = true;
        for (std::size_t key = 0; key < row.size(); ++key) {
          const bool got = row[key] > cut || (row[key] == cut && static_cast<std::int32_t>(key) <= lastTie);
          ASSERT_EQ(got, want[key]) << "key " << key;
        }
        if (kept == 0) {
          ASSERT_EQ(threshold, -kNone);
        } else {
          double sum = 0;
          for (const std::size_t key : order) {
            sum += std::exp2(static_cast<double>(row[key] - row[order[0]]) * static_cast<double>(0.7F));
          }
          const double p =
              std::exp2(static_cast<double>(row[order[kept - 1]] - row[order[0]]) * static_cast<double>(0.7F)) / sum;
          ASSERT_NEAR(static_cast<double>(threshold), p, 1e-30 + 1e-5 * p);
        }
      }
    }
  }
}

TEST(CudaSelect, KeysForMassAreThoseOfTheSortedFixedPointWeights) {
  std::mt19937 random(5);
  const auto shared = dirtyShared();
  for (const int keys : kSizes) {
    for (int kind = 0; kind <= 5; ++kind) {
      const std::vector<float> row = makeRow(random, keys, kind);
      const std::vector<std::size_t> order = byScore(row);
      const float scale = std::ldexp(1.0F, fixedBitsFor(keys));
      std::vector<Counter> weights;
      for (const std::size_t key : order) {
        weights.push_back(toFixed(exp2Of((row[key] - row[order[0]]) * 0.7F), scale));
      }
      const Counter total = std::accumulate(weights.begin(), weights.end(), Counter{0});
      for (const double mass : {0.0, 1e-9, 0.25, 0.5, 0.9, 0.999, 1.0}) {
        SCOPED_TRACE(::testing::Message() << keys << " keys of kind " << kind << ", mass " << mass);
        float lse = 0;
        float entropy = 0;
        float top1 = 0;
        std::int64_t count = -1;
        HostBlock<SelectState> block(0, 0);
        selectBody(block, *shared, RowStatsParams{panelOf(row), mass, &lse, &entropy, &top1, &count});
        Counter reached = 0;
        std::int64_t want = 0;
        for (const Counter weight : weights) {
          if (static_cast<double>(reached) >= mass * static_cast<double>(total)) break;
          reached += weight;
          ++want;
        }
        ASSERT_EQ(count, want);
        if (order.empty()) {
          ASSERT_EQ(lse, kNone);
          ASSERT_TRUE(std::isnan(entropy) && std::isnan(top1));
        } else {
          ASSERT_NEAR(static_cast<double>(top1), std::ldexp(1.0, fixedBitsFor(keys)) / static_cast<double>(total),
                      1e-6);
          ASSERT_GE(entropy, 0.0F);
          ASSERT_LE(static_cast<double>(entropy), std::log2(static_cast<double>(order.size())) + 1e-5);
        }
      }
    }
  }
}

TEST(CudaSelect, FixedPointHoldsEverySum) {
  for (const std::int64_t keys : {std::int64_t{1}, std::int64_t{2}, std::int64_t{1000}, std::int64_t{118800},
                                  std::int64_t{1} << 20, (std::int64_t{1} << 31) - 256}) {
    const int bits = fixedBitsFor(static_cast<std::int32_t>(keys));
    EXPECT_LE(bits, 45);
    EXPECT_GE(bits, 30);
    // All weights 1: below 2^62, so that neither the sum nor a comparison as double overflows.
    EXPECT_LE(std::ldexp(static_cast<double>(keys), bits), std::ldexp(1.0, 62));
  }
  EXPECT_EQ(fixedBitsFor(118800), 44);
}

TEST(CudaSelect, DigitsPutTheNumberTogetherAgain) {
  std::mt19937 random(7);
  for (int i = 0; i < 10000; ++i) {
    const std::uint32_t bits = static_cast<std::uint32_t>(random());
    std::uint32_t prefix = 0;
    for (int level = 0; level < kLevels; ++level) {
      ASSERT_TRUE(inPrefix(bits, prefix, level));
      ASSERT_LT(bucketOf(bits, level), static_cast<std::uint32_t>(kBuckets));
      prefix |= bucketOf(bits, level) << levelShift(level);
      if (level > 0) {
        ASSERT_FALSE(inPrefix(bits ^ (1U << levelShift(level - 1)), prefix, level));
      }
    }
    ASSERT_EQ(prefix, bits);
  }
  std::normal_distribution<float> normal;
  for (int i = 0; i < 10000; ++i) {
    const float a = normal(random) * std::ldexp(1.0F, static_cast<int>(random() % 60) - 30);
    const float b = normal(random) * std::ldexp(1.0F, static_cast<int>(random() % 60) - 30);
    ASSERT_EQ(orderedBits(a) < orderedBits(b), a < b);
    ASSERT_EQ(fromOrderedBits(orderedBits(a)), a);
  }
  EXPECT_EQ(orderedBits(-0.0F), orderedBits(0.0F));
}

}  // namespace
}  // namespace sparsight::cuda

// SPDX-License-Identifier: Apache-2.0
#include "cpu/select.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

namespace sparsight::cpu {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// By sorting.
TopCut sortedTop(std::vector<float> row, Index count) {
  std::erase(row, -kInf);
  count = std::min(count, static_cast<Index>(row.size()));
  if (count == 0) return {kInf, 0};
  std::sort(row.begin(), row.end(), std::greater<>());
  const float cut = row[static_cast<std::size_t>(count - 1)];
  const auto above = std::count_if(row.begin(), row.end(), [&](float x) { return x > cut; });
  return {cut, count - static_cast<Index>(above)};
}

Index sortedMass(std::vector<float> weights, double mass) {
  std::sort(weights.begin(), weights.end(), std::greater<>());
  double total = 0;
  for (const float w : weights) total += static_cast<double>(w);
  double reached = 0;
  Index count = 0;
  for (const float w : weights) {
    if (reached >= mass * total) break;
    reached += static_cast<double>(w);
    ++count;
  }
  return count;
}

TEST(Select, OrderedBitsAreMonotoneAndReversible) {
  const std::vector<float> ascending{-kInf, -1e30F, -2, -1.5F, -1e-40F, 0, 1e-45F, 1, 1.0000001F, 3e38F, kInf};
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    EXPECT_EQ(fromOrderedBits(orderedBits(ascending[i])), ascending[i]);
    if (i > 0) {
      EXPECT_LT(orderedBits(ascending[i - 1]), orderedBits(ascending[i]));
    }
  }
  EXPECT_EQ(orderedBits(-0.0F), orderedBits(0.0F));
}

TEST(Select, TopAgreesWithSorting) {
  std::mt19937 random(5);
  Selector selector;
  for (const int kind : {0, 1, 2, 3}) {
    for (const int size : {1, 2, 7, 300, 5000}) {
      std::vector<float> row(static_cast<std::size_t>(size));
      for (float& x : row) {
        const float u = std::uniform_real_distribution<float>(-8, 8)(random);
        x = kind == 0 ? u : (kind == 1 ? std::round(u) : (kind == 2 ? 1.0F + u * 1e-6F : 0.25F));
        if (kind == 1 && u < -4) x = -kInf;
      }
      for (const Index count : {Index{0}, Index{1}, Index{2}, Index{size / 3}, Index{size}, Index{size + 9}}) {
        const TopCut got = selector.top(row, count);
        const TopCut want = sortedTop(row, count);
        EXPECT_EQ(got.value, want.value) << "kind " << kind << ", size " << size << ", count " << count;
        EXPECT_EQ(got.ties, want.ties) << "kind " << kind << ", size " << size << ", count " << count;
      }
    }
  }
  EXPECT_EQ(selector.top(std::vector<float>{-kInf, -kInf}, 1).ties, 0);
}

TEST(Select, CountForMassAgreesWithSorting) {
  std::mt19937 random(6);
  Selector selector;
  for (const int kind : {0, 1, 2, 3}) {
    for (const int size : {1, 3, 200, 4000, 30000}) {
      std::vector<float> weights(static_cast<std::size_t>(size));
      for (float& w : weights) {
        const float u = std::uniform_real_distribution<float>(0, 30)(random);
        // Spread over many binades; a few binades; sixteen values only (real ties); nearly all zero.
        w = kind == 0 ? std::exp2(-u)
                      : (kind == 1 ? 1.0F / (1.0F + u) : (kind == 2 ? std::exp2(-std::round(u / 2)) : 0));
      }
      if (kind == 3) weights.front() = 1;
      for (const double mass : {0.0, 0.1, 0.5, 0.9, 0.95, 0.9999}) {
        EXPECT_EQ(selector.countForMass(weights, mass), sortedMass(weights, mass))
            << "kind " << kind << ", size " << size << ", mass " << mass;
      }
    }
  }
  EXPECT_EQ(selector.countForMass(std::vector<float>{0, 0, 0}, 0.5), 0) << "nothing to reach";
  EXPECT_EQ(selector.countForMass(std::vector<float>(3000, 1.0F), 1.0), 3000);
}

}  // namespace
}  // namespace sparsight::cpu

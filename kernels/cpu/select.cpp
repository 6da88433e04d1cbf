// SPDX-License-Identifier: Apache-2.0
#include "cpu/select.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

namespace sparsight::cpu {
namespace {

struct Level {
  unsigned shift, bits;
  [[nodiscard]] std::uint32_t bucket(std::uint32_t value) const noexcept {
    return (value >> shift) & ((1U << bits) - 1U);
  }
};
constexpr std::array<Level, 3> kTopLevels{{{21, 11}, {10, 11}, {0, 10}}};
// Weights are positive, so their bits are ordered as they are and the sign bit is 0. Weights up to 1 use 1,016 buckets
// of the first level: 16 KiB, half of L1.
constexpr std::array<Level, 3> kMassLevels{{{20, 11}, {9, 11}, {0, 9}}};
constexpr std::size_t kSortBelow = 256;

}  // namespace

Selector::Selector() : m_buckets(1U << 11U), m_counts(1U << 11U) {}

TopCut Selector::top(std::span<const float> row, Index count) {
  const std::uint32_t nothing = orderedBits(-std::numeric_limits<float>::infinity());
  m_members.clear();
  std::fill(m_counts.begin(), m_counts.end(), 0);
  Index finite = 0;
  for (const float x : row) {
    const std::uint32_t bits = orderedBits(x);
    if (bits <= nothing) continue;
    ++finite;
    ++m_counts[kTopLevels[0].bucket(bits)];
  }
  Index left = std::min(count, finite);
  if (left <= 0) return {std::numeric_limits<float>::infinity(), 0};

  for (std::size_t level = 0;; ++level) {
    if (level > 0) {
      std::fill(m_counts.begin(), m_counts.end(), 0);
      for (const std::uint32_t bits : m_members) ++m_counts[kTopLevels[level].bucket(bits)];
    }
    std::uint32_t bucket = (1U << kTopLevels[level].bits) - 1U;
    while (m_counts[bucket] < left) left -= m_counts[bucket--];
    m_next.clear();
    if (level == 0) {
      for (const float x : row) {
        const std::uint32_t bits = orderedBits(x);
        if (bits > nothing && kTopLevels[0].bucket(bits) == bucket) m_next.push_back(bits);
      }
    } else {
      for (const std::uint32_t bits : m_members) {
        if (kTopLevels[level].bucket(bits) == bucket) m_next.push_back(bits);
      }
    }
    m_members.swap(m_next);
    if (level + 1 == kTopLevels.size()) return {fromOrderedBits(m_members.front()), left};
    if (m_members.size() <= kSortBelow) {
      std::sort(m_members.begin(), m_members.end(), std::greater<>());
      const std::uint32_t cut = m_members[static_cast<std::size_t>(left - 1)];
      const auto firstEqual = std::find(m_members.begin(), m_members.end(), cut) - m_members.begin();
      return {fromOrderedBits(cut), left - static_cast<Index>(firstEqual)};
    }
  }
}

Index Selector::countForMass(std::span<const float> weights, double mass) {
  const auto fill = [&](const Level& level, auto&& values) {
    std::fill(m_buckets.begin(), m_buckets.begin() + (std::ptrdiff_t{1} << level.bits), Bucket{0, 0.0});
    for (const auto value : values) {
      const auto bits = std::bit_cast<std::uint32_t>(value);
      Bucket& bucket = m_buckets[level.bucket(bits)];
      ++bucket.count;
      bucket.sum += static_cast<double>(std::bit_cast<float>(bits));
    }
  };
  fill(kMassLevels[0], weights);
  double total = 0;
  for (std::size_t b = std::size_t{1} << kMassLevels[0].bits; b-- > 0;) total += m_buckets[b].sum;
  const double target = mass * total;

  double reached = 0;
  Index count = 0;
  for (std::size_t level = 0; level < kMassLevels.size(); ++level) {
    if (level > 0) fill(kMassLevels[level], m_members);
    // The bucket in which the sum arrives; rounding may leave it a last bit short, then the last bucket that adds to
    // it.
    std::uint32_t bucket = (1U << kMassLevels[level].bits) - 1U;
    for (; bucket > 0 && (m_buckets[bucket].count == 0 || reached + m_buckets[bucket].sum < target); --bucket) {
      reached += m_buckets[bucket].sum;
      count += m_buckets[bucket].count;
    }
    if (reached >= target) return count;
    m_next.clear();
    const auto collect = [&](auto&& values) {
      for (const auto value : values) {
        const auto bits = std::bit_cast<std::uint32_t>(value);
        if (kMassLevels[level].bucket(bits) == bucket) m_next.push_back(bits);
      }
    };
    if (level == 0) {
      collect(weights);
    } else {
      collect(m_members);
    }
    m_members.swap(m_next);
    if (m_members.size() <= kSortBelow) {
      std::sort(m_members.begin(), m_members.end(), std::greater<>());
      for (const std::uint32_t bits : m_members) {
        if (bits == 0 || reached >= target) break;
        reached += static_cast<double>(std::bit_cast<float>(bits));
        ++count;
      }
      return count;
    }
  }
  // More than a few equal weights: a closed form.
  const auto value = static_cast<double>(std::bit_cast<float>(m_members.front()));
  if (value <= 0) return count;
  const auto members = static_cast<Index>(m_members.size());
  Index more = std::clamp<Index>(static_cast<Index>(std::ceil((target - reached) / value)), 1, members);
  while (more > 1 && reached + static_cast<double>(more - 1) * value >= target) --more;
  while (more < members && reached + static_cast<double>(more) * value < target) ++more;
  return count + more;
}

}  // namespace sparsight::cpu

// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/content_hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <set>
#include <vector>

namespace sparsight {
namespace {

std::vector<std::byte> noise(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}
ContentHash hashOf(std::span<const std::byte> bytes) {
  ContentHasher hasher;
  hasher.add(bytes);
  return hasher.finish();
}

TEST(ContentHashTest, EveryByteAndTheLengthCount) {
  for (const std::size_t size : {0U, 1U, 7U, 63U, 64U, 65U, 200U, 1024U, 3000U}) {
    std::vector<std::byte> bytes = noise(size, 1);
    std::set<ContentHash> seen{hashOf(bytes)};
    for (std::size_t i = 0; i < size; ++i) {
      bytes[i] ^= std::byte{1};
      EXPECT_TRUE(seen.insert(hashOf(bytes)).second) << "byte " << i << " of " << size;
      bytes[i] ^= std::byte{1};
    }
    bytes.push_back(std::byte{0});
    EXPECT_TRUE(seen.insert(hashOf(bytes)).second) << "one more zero";
  }
}

TEST(ContentHashTest, BytesThatChangePlacesAreSeen) {
  // Whole stripes and whole lanes: sums that do not know where a term came from would miss them.
  const std::vector<std::byte> bytes = noise(4096, 2);
  for (const std::size_t unit : {8U, 64U, 1024U}) {
    for (std::size_t i = 0; i + 2 * unit <= bytes.size(); i += unit) {
      std::vector<std::byte> swapped = bytes;
      std::swap_ranges(swapped.begin() + static_cast<std::ptrdiff_t>(i),
                       swapped.begin() + static_cast<std::ptrdiff_t>(i + unit),
                       swapped.begin() + static_cast<std::ptrdiff_t>(i + unit));
      EXPECT_NE(hashOf(swapped), hashOf(bytes)) << unit << " at " << i;
    }
  }
}

TEST(ContentHashTest, BothHalvesAreSpread) {
  // Counting inputs: 20,000 hashes share no half, and every bit is set about half of the time.
  std::set<std::uint64_t> high, low;
  std::array<int, 128> ones{};
  constexpr int kCount = 20'000;
  for (int i = 0; i < kCount; ++i) {
    ContentHasher hasher;
    hasher.add(static_cast<std::uint64_t>(i));
    const ContentHash hash = hasher.finish();
    high.insert(hash.high);
    low.insert(hash.low);
    for (unsigned bit = 0; bit < 64; ++bit) {
      ones[bit] += static_cast<int>((hash.high >> bit) & 1U);
      ones[64 + bit] += static_cast<int>((hash.low >> bit) & 1U);
    }
  }
  EXPECT_EQ(high.size(), std::size_t{kCount});
  EXPECT_EQ(low.size(), std::size_t{kCount});
  for (const int count : ones) EXPECT_NEAR(count, kCount / 2, 6 * 71);  // six standard deviations
}

TEST(ContentHashTest, PiecesAreToldApart) {
  const std::vector<std::byte> bytes = noise(100, 3);
  std::set<ContentHash> seen;
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    ContentHasher hasher;
    hasher.add(std::span(bytes).first(cut));
    hasher.add(std::span(bytes).subspan(cut));
    EXPECT_TRUE(seen.insert(hasher.finish()).second) << cut;
  }
  EXPECT_TRUE(seen.insert(hashOf(bytes)).second) << "one piece is not two";
}

TEST(ContentHashTest, MatricesCountByShapeTypeAndRowsOnly) {
  std::vector<float> values(12 * 10);
  std::mt19937 random(4);
  for (float& v : values) v = static_cast<float>(random());
  const auto hash = [](const MatrixView& view) { return matrixHash(view); };
  MatrixView strided = viewOf(values, 12, 10);
  strided.cols = 7;
  std::vector<float> packed;
  for (Index r = 0; r < 12; ++r) packed.insert(packed.end(), values.begin() + r * 10, values.begin() + r * 10 + 7);
  EXPECT_EQ(hash(strided), hash(viewOf(packed, 12, 7))) << "what lies between the rows has no part";
  EXPECT_NE(hash(viewOf(packed, 12, 7)), hash(viewOf(packed, 7, 12)));
  MatrixView halves = viewOf(packed, 12, 7);
  halves.dtype = DType::F16;
  halves.cols = 14;
  EXPECT_NE(hash(halves), hash(viewOf(packed, 12, 7)));
  EXPECT_EQ(hash(strided).hex().size(), 32U);
  MatrixHasher pieces(DType::F32, 12, 7);
  for (Index first = 0; first < 12; first += 5) {
    const auto rows = static_cast<std::size_t>(std::min<Index>(5, 12 - first));
    pieces.add(std::as_bytes(std::span(packed).subspan(static_cast<std::size_t>(first) * 7, rows * 7)));
  }
  EXPECT_EQ(pieces.finish(), hash(strided)) << "a matrix that comes in pieces";
}

}  // namespace
}  // namespace sparsight

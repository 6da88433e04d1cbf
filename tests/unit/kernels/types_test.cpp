// SPDX-License-Identifier: Apache-2.0
#include "sparsight/kernels/types.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "sparsight/kernels/backend.h"

namespace sparsight {
namespace {

float convert(DType dtype, std::uint16_t bits) {
  float out = 0;
  const MatrixView view{reinterpret_cast<const std::byte*>(&bits), 1, 1, 2, dtype};
  rowToFloat(view, 0, std::span(&out, 1));
  return out;
}

/// binary16 by its definition, in double.
double halfByDefinition(std::uint16_t bits) {
  const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
  const int exponent = (bits >> 10U) & 0x1fU;
  const int mantissa = bits & 0x3ffU;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

TEST(Types, NamesAndSizes) {
  EXPECT_STREQ(dtypeName(DType::F32), "float32");
  EXPECT_STREQ(dtypeName(DType::F16), "float16");
  EXPECT_STREQ(dtypeName(DType::BF16), "bfloat16");
  EXPECT_EQ(itemSize(DType::F32), 4U);
  EXPECT_EQ(itemSize(DType::F16), 2U);
}

TEST(Types, EveryFiniteHalfConvertsExactly) {
  for (unsigned bits = 0; bits < 0x10000U; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    if ((half & 0x7c00U) == 0x7c00U) continue;
    const float got = convert(DType::F16, half);
    ASSERT_EQ(static_cast<double>(got), halfByDefinition(half)) << std::hex << bits;
    ASSERT_EQ(std::signbit(got), (half & 0x8000U) != 0) << std::hex << bits;
  }
}

TEST(Types, HalfInfinityAndNan) {
  EXPECT_EQ(convert(DType::F16, 0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_EQ(convert(DType::F16, 0xfc00), -std::numeric_limits<float>::infinity());
  for (const unsigned bits : {0x7c01U, 0x7e00U, 0x7fffU, 0xfe00U}) {
    EXPECT_TRUE(std::isnan(convert(DType::F16, static_cast<std::uint16_t>(bits)))) << std::hex << bits;
  }
}

TEST(Types, BfloatIsTheUpperHalfOfAFloat) {
  for (unsigned bits = 0; bits < 0x10000U; ++bits) {
    const float got = convert(DType::BF16, static_cast<std::uint16_t>(bits));
    ASSERT_EQ(std::bit_cast<std::uint32_t>(got), bits << 16U);
  }
}

TEST(Types, RowsMayBeStridedAndUnaligned) {
  std::array<std::byte, 64> bytes{};
  // Two rows of three halfs, 11 bytes apart, from an odd address.
  const std::array<std::uint16_t, 3> first{0x3c00, 0x4000, 0xc200};  // 1, 2, -3
  const std::array<std::uint16_t, 3> second{0x0001, 0x8000, 0x7bff};
  std::memcpy(bytes.data() + 1, first.data(), 6);
  std::memcpy(bytes.data() + 12, second.data(), 6);
  const MatrixView view{bytes.data() + 1, 2, 3, 11, DType::F16};
  std::array<float, 3> row{};
  rowToFloat(view, 0, row);
  EXPECT_EQ(row, (std::array<float, 3>{1.0F, 2.0F, -3.0F}));
  rowToFloat(view, 1, row);
  EXPECT_EQ(row, (std::array<float, 3>{0x1p-24F, -0.0F, 65504.0F}));
  EXPECT_THROW(rowToFloat(view, 2, row), Error);
  EXPECT_THROW(rowToFloat(view, 0, std::span(row).first(2)), Error);
}

TEST(Types, GatherRowsKeepsTheBits) {
  const std::vector<float> values{0, 1, 2, 3, 4, 5, 6, 7};
  const MatrixView in = viewOf(values, 4, 2);
  const std::vector<Index> order{3, 0, 3};
  const OwnedMatrix out = gatherRows(in, order);
  ASSERT_EQ(out.view.rows, 3);
  ASSERT_EQ(out.view.cols, 2);
  EXPECT_EQ(out.view.rowStrideBytes, 8);
  std::array<float, 2> row{};
  for (Index i = 0; i < 3; ++i) {
    rowToFloat(out.view, i, row);
    const auto from = static_cast<float>(2 * order[static_cast<std::size_t>(i)]);
    EXPECT_EQ(row, (std::array<float, 2>{from, from + 1}));
  }
  const std::vector<Index> outside{0, 4};
  EXPECT_THROW(static_cast<void>(gatherRows(in, outside)), Error);
}

}  // namespace
}  // namespace sparsight

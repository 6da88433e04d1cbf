// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/palette.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace sparsight {
namespace {

TEST(Palette, SequentialMapsRiseMonotonicallyInLightness) {
  for (const Palette palette : {Palette::Viridis, Palette::Magma, Palette::Inferno, Palette::Cividis, Palette::Grey}) {
    const auto table = paletteTable(palette);
    double highest = lightness(table.front());
    for (std::size_t i = 1; i < table.size(); ++i) {
      const double now = lightness(table[i]);
      // One step of 8-bit rounding in the green channel is 0.35 L*; a real dip is larger.
      EXPECT_GT(now, highest - 0.4) << paletteName(palette) << " dips at entry " << i;
      highest = std::max(highest, now);
    }
    for (std::size_t i = 32; i < table.size(); ++i) {
      EXPECT_GT(lightness(table[i]), lightness(table[i - 32])) << paletteName(palette) << " is flat at entry " << i;
    }
    EXPECT_GT(lightness(table.back()) - lightness(table.front()), 60.0) << paletteName(palette);
  }
}

TEST(Palette, DivergingMapsAreSymmetricAboutTheirCentre) {
  for (const Palette palette : {Palette::Diverging, Palette::DivergingDark}) {
    const auto table = paletteTable(palette);
    const double sign = palette == Palette::Diverging ? 1.0 : -1.0;
    for (std::size_t i = 0; i < table.size() / 2; ++i) {
      EXPECT_NEAR(lightness(table[i]), lightness(table[table.size() - 1 - i]), 3.0) << paletteName(palette) << i;
      if (i >= 32) {
        EXPECT_GT(sign * (lightness(table[i]) - lightness(table[i - 32])), 0.0) << paletteName(palette) << i;
      }
    }
  }
}

TEST(Palette, NamesRoundTrip) {
  for (const Palette palette : kAllPalettes) EXPECT_EQ(paletteByName(paletteName(palette)), palette);
  EXPECT_FALSE(paletteByName("jet").has_value());
}

TEST(Palette, EntriesFollowRangeAndScale) {
  const ValueRange log{1e-4, 1.0, ValueScale::Log};
  EXPECT_EQ(paletteEntry(1e-4, log), 0);
  EXPECT_EQ(paletteEntry(1.0, log), kPaletteEntries - 1);
  EXPECT_NEAR(paletteEntry(1e-2, log), kPaletteEntries / 2, 1);
  EXPECT_EQ(paletteEntry(1e-5, log), kEntryUnder);
  EXPECT_EQ(paletteEntry(2.0, log), kEntryOver);
  EXPECT_EQ(paletteEntry(0.0, log), kEntryZero);
  EXPECT_EQ(paletteEntry(std::numeric_limits<double>::quiet_NaN(), log), kEntryNoData);
  const ValueRange linear{0.0, 0.5, ValueScale::Linear};
  EXPECT_EQ(paletteEntry(0.0, linear), 0);
  EXPECT_NEAR(paletteEntry(0.25, linear), kPaletteEntries / 2, 1);
  EXPECT_EQ(paletteEntry(0.6, linear), kEntryOver);
  EXPECT_NEAR(linear.valueAt(0.5), 0.25, 1e-12);
  EXPECT_NEAR(log.valueAt(log.fraction(3e-3)), 3e-3, 1e-12);
}

TEST(Palette, CodesKeepValuesToATenthOfAPercent) {
  for (const float value : {1e-12F, 3.7e-9F, 1e-7F, 2.2e-5F, 0.013F, 0.5F, 1.0F}) {
    EXPECT_NEAR(decodeValue(encodeValue(value)) / static_cast<double>(value), 1.0, 5e-4) << value;
  }
  EXPECT_EQ(encodeValue(0.0F), kCodeZero);
  EXPECT_EQ(encodeValue(std::numeric_limits<float>::quiet_NaN()), kCodeNaN);
  EXPECT_TRUE(std::isnan(decodeValue(kCodeNaN)));
  EXPECT_EQ(encodeValue(1e-30F), kCodeFirst) << "tiny values stay distinct from zero";
  EXPECT_EQ(encodeValue(8.0F), kValueCodes - 1);
  for (float value = 1e-11F; value < 1.0F; value *= 1.01F) {
    EXPECT_LE(encodeValue(value), encodeValue(value * 1.01F));
  }
}

TEST(Palette, EntriesByCodeAreThoseOfEveryCode) {
  for (const ValueRange& range :
       {ValueRange{}, ValueRange{3e-5, 0.02, ValueScale::Log}, ValueRange{0.0, 0.3, ValueScale::Linear},
        ValueRange{0.1, 0.1001, ValueScale::Linear}, ValueRange{1e-12, 2.0, ValueScale::Log}}) {
    const auto entries = entriesByCode(range);
    ASSERT_EQ(entries.size(), static_cast<std::size_t>(kValueCodes));
    for (int code = 0; code < kValueCodes; ++code) {
      ASSERT_EQ(entries[static_cast<std::size_t>(code)], paletteEntry(decodeValue(static_cast<ValueCode>(code)), range))
          << code << " of " << range.minimum << ".." << range.maximum;
    }
  }
}

TEST(Palette, PixelsMapToTheCellUnderTheirCentre) {
  EXPECT_EQ(cellAtPixel(10, 10.0, 4.0), 0);
  EXPECT_EQ(cellAtPixel(13, 10.0, 4.0), 0);
  EXPECT_EQ(cellAtPixel(14, 10.0, 4.0), 1);
  EXPECT_EQ(cellAtPixel(9, 10.0, 4.0), -1);
  EXPECT_EQ(cellAtPixel(100, 0.25, 1.5), 66);
}

}  // namespace
}  // namespace sparsight

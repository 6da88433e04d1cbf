// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/tokens.h"

#include <gtest/gtest.h>

namespace sparsight {
namespace {

TokenLayout layout() {
  TokenLayout l;
  l.segments = {{SegmentKind::Register, 0, 2, 0, 0, 0},
                {SegmentKind::History, 2, 6, 1, 2, 3},
                {SegmentKind::Text, 8, 0, 0, 0, 0},
                {SegmentKind::Video, 8, 24, 2, 3, 4},
                {SegmentKind::Text, 32, 4, 0, 0, 0}};
  l.tokenCount = 36;
  return l;
}

TEST(Tokens, CellsOfEveryVideoTokenRoundTrip) {
  const TokenLayout l = layout();
  Index token = 8;
  for (int f = 0; f < 2; ++f) {
    for (int y = 0; y < 3; ++y) {
      for (int x = 0; x < 4; ++x, ++token) EXPECT_EQ(l.cellOf(token), (GridCell{f, y, x})) << token;
    }
  }
}

TEST(Tokens, SegmentsAtTheirEdges) {
  const TokenLayout l = layout();
  EXPECT_EQ(l.segmentOf(-1), nullptr);
  EXPECT_EQ(l.segmentOf(0)->kind, SegmentKind::Register);
  EXPECT_EQ(l.segmentOf(1)->kind, SegmentKind::Register);
  EXPECT_EQ(l.segmentOf(2)->kind, SegmentKind::History);
  EXPECT_EQ(l.segmentOf(8)->kind, SegmentKind::Video);  // not the empty text segment that starts there too
  EXPECT_EQ(l.segmentOf(31)->kind, SegmentKind::Video);
  EXPECT_EQ(l.segmentOf(32)->kind, SegmentKind::Text);
  EXPECT_EQ(l.segmentOf(36), nullptr);
  EXPECT_EQ(TokenLayout{}.segmentOf(0), nullptr);
}

TEST(Tokens, DescribesTokensForPeople) {
  const TokenLayout l = layout();
  EXPECT_EQ(l.describe(8 + 12 + 4 + 2), "f1 r1 c2");
  EXPECT_EQ(l.describe(33), "text 1");
  EXPECT_EQ(l.describe(1), "register 1");
  EXPECT_EQ(l.describe(7), "history f0 r1 c2");
  EXPECT_EQ(l.describe(99), "token 99");
}

TEST(Tokens, MainVideoIsTheLargestWithAGrid) {
  TokenLayout l;
  l.tokenCount = 30;
  l.segments = {
      {SegmentKind::Video, 0, 4, 1, 2, 2}, {SegmentKind::Video, 4, 18, 2, 3, 3}, {SegmentKind::Video, 22, 8, 2, 2, 2}};
  EXPECT_EQ(l.video()->start, 4);
  EXPECT_EQ(l.text(), nullptr);
  EXPECT_EQ(layout().text()->start, 32);  // the empty one does not count
}

}  // namespace
}  // namespace sparsight

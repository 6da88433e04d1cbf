// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/kernels/types.h"

namespace sparsight {

enum class SegmentKind : std::uint8_t {
  Video = 0,
  Text = 1,
  Image = 2,
  Audio = 3,
  History = 4,
  Register = 5,
  Other = 255
};
[[nodiscard]] std::string_view segmentKindName(SegmentKind kind) noexcept;

/// A run of tokens of one kind. Video-like segments carry a grid, frame-major: token = (frame * height + y) * width +
/// x.
struct Segment {
  SegmentKind kind = SegmentKind::Other;
  Index start = 0;
  Index length = 0;
  int frames = 0, height = 0, width = 0;  ///< tokens; 0 0 0 without a grid
};

/// Where a token lies in its video segment.
struct GridCell {
  int frame = 0, y = 0, x = 0;
  friend bool operator==(const GridCell&, const GridCell&) = default;
};

/// How the N tokens of a call are laid out. Segments are disjoint, ordered by start and cover [0, tokenCount).
struct TokenLayout {
  Index tokenCount = 0;
  std::vector<Segment> segments;

  /// The main video segment (the largest with a grid), or nullptr.
  [[nodiscard]] const Segment* video() const noexcept;
  /// The first text segment, or nullptr.
  [[nodiscard]] const Segment* text() const noexcept;
  [[nodiscard]] const Segment* segmentOf(Index token) const noexcept;
  [[nodiscard]] std::optional<GridCell> cellOf(Index token) const noexcept;  ///< nullopt: no grid there
  /// "f3 r10 c4" for video tokens, "text 12" otherwise.
  [[nodiscard]] std::string describe(Index token) const;
};

}  // namespace sparsight

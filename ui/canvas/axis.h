// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QString>
#include <functional>
#include <span>
#include <vector>

#include "sparsight/core/tokens.h"

namespace sparsight {

/// A run of map positions that belong together: a video frame, the text, a cluster.
struct AxisBand {
  Index first = 0, last = 0;
  QString label;          ///< "f3", "text", "c12"
  Index minorLength = 0;  ///< tokens of a row of the frame; 0: none
};
struct AxisSpec {
  std::vector<AxisBand> bands;
  /// Label of one position, for deep zoom: "r10 c4". May be empty.
  std::function<QString(Index position)> cellLabel;
};

/// Bands of consecutive positions in the same frame or segment. tokenAt: position -> model token. Orders that scatter
/// frames have no bands.
[[nodiscard]] AxisSpec layoutAxis(const TokenLayout& layout, Index count, const std::function<Index(Index)>& tokenAt);
/// Bands of a plan's blocks; zero-length ones are left out.
[[nodiscard]] AxisSpec blockAxis(std::span<const Index> bounds, const QString& prefix);

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "ui/canvas/axis.h"

#include <QCoreApplication>

namespace sparsight {
namespace {

// More bands than this are no longer structure one can see; a permuted order would give one band per token.
constexpr std::size_t kMaxBands = 4096;

QString segmentLabel(const Segment& segment) {
  const std::string_view name = segmentKindName(segment.kind);
  return QString::fromLatin1(name.data(), static_cast<qsizetype>(name.size()));
}

}  // namespace

AxisSpec layoutAxis(const TokenLayout& layout, Index count, const std::function<Index(Index)>& tokenAt) {
  AxisSpec spec;
  const Segment* currentSegment = nullptr;
  int currentFrame = -1;
  for (Index position = 0; position < count; ++position) {
    const Index token = tokenAt(position);
    const Segment* segment = layout.segmentOf(token);
    int frame = -1;
    if (segment != nullptr && segment->height > 0 && segment->width > 0) {
      frame = static_cast<int>((token - segment->start) / (Index{segment->height} * segment->width));
    }
    if (position > 0 && segment == currentSegment && frame == currentFrame) {
      spec.bands.back().last = position + 1;
      continue;
    }
    currentSegment = segment;
    currentFrame = frame;
    AxisBand band;
    band.first = position;
    band.last = position + 1;
    if (frame >= 0) {
      band.label = QStringLiteral("f%1").arg(frame);
      band.minorLength = segment->width;
    } else if (segment != nullptr) {
      band.label = segmentLabel(*segment);
    }
    spec.bands.push_back(std::move(band));
    if (spec.bands.size() > kMaxBands) {
      spec.bands.clear();
      break;
    }
  }
  spec.cellLabel = [layout, tokenAt](Index position) {
    const Index token = tokenAt(position);
    if (const auto cell = layout.cellOf(token)) return QStringLiteral("r%1 c%2").arg(cell->y).arg(cell->x);
    const Segment* segment = layout.segmentOf(token);
    return QString::number(segment != nullptr ? token - segment->start : token);
  };
  return spec;
}

AxisSpec blockAxis(std::span<const Index> bounds, const QString& prefix) {
  AxisSpec spec;
  for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
    if (bounds[i] == bounds[i + 1]) continue;
    spec.bands.push_back({bounds[i], bounds[i + 1], prefix + QString::number(i), 0});
  }
  return spec;
}

}  // namespace sparsight

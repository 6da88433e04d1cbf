// SPDX-License-Identifier: Apache-2.0
#include "ui/canvas/raster_painter.h"

#include <QPaintEvent>
#include <algorithm>
#include <cstring>

#include "ui/theme.h"

namespace sparsight {

const std::vector<QRgb>& RasterPainter::coloured(const TileDraw& draw, const ColorLut& lut) {
  const MapTile* key = draw.tile.get();
  auto found = m_tiles.find(key);
  if (found == m_tiles.end()) {
    m_uses.push_front(key);
    found = m_tiles.emplace(key, Coloured{draw.tile, nullptr, 0, {}, m_uses.begin()}).first;
    found->second.pixels.resize(draw.tile->codes.size());
    m_bytes += static_cast<Index>(draw.tile->codes.size() * sizeof(QRgb));
    while (m_bytes > m_limit && m_uses.size() > 1) {
      const auto oldest = m_tiles.find(m_uses.back());
      m_bytes -= static_cast<Index>(oldest->second.pixels.size() * sizeof(QRgb));
      m_tiles.erase(oldest);
      m_uses.pop_back();
    }
  } else {
    m_uses.splice(m_uses.begin(), m_uses, found->second.use);
  }
  Coloured& entry = found->second;
  if (entry.lutVersion != lut.version() || entry.kept != draw.kept) {
    entry.lutVersion = lut.version();
    entry.kept = draw.kept;
    const auto& codes = draw.tile->codes;
    const auto& full = lut.colors();
    if (draw.kept) {
      const auto& dim = lut.dimmed();
      for (std::size_t i = 0; i < codes.size(); ++i) {
        const unsigned share = (*draw.kept)[i];
        entry.pixels[i] = share == 255 ? full[codes[i]] : blendKept(full[codes[i]], dim[codes[i]], share);
      }
    } else {
      for (std::size_t i = 0; i < codes.size(); ++i) entry.pixels[i] = full[codes[i]];
    }
  }
  return entry.pixels;
}

void RasterPainter::paint(const MapScene& scene, QImage& target) {
  for (const TileDraw& draw : scene.draws) {
    const QRect area = draw.pixels & target.rect();
    if (area.isEmpty()) continue;
    const auto& pixels = coloured(draw, *scene.lut);
    const MapTile& tile = *draw.tile;
    const auto cellOf = [](int pixel, double origin, double size, int count) {
      return static_cast<int>(std::clamp<Index>(cellAtPixel(pixel, origin, size), 0, count - 1));
    };
    m_columns.resize(static_cast<std::size_t>(area.width()));
    for (int x = 0; x < area.width(); ++x) {
      m_columns[static_cast<std::size_t>(x)] = cellOf(area.left() + x, draw.originX, draw.cellWidth, tile.cellCols);
    }
    int previous = -1;
    const QRgb* previousLine = nullptr;
    for (int y = area.top(); y <= area.bottom(); ++y) {
      const int row = cellOf(y, draw.originY, draw.cellHeight, tile.cellRows);
      QRgb* line = reinterpret_cast<QRgb*>(target.scanLine(y)) + area.left();
      if (row == previous && !scene.hatch) {
        std::memcpy(line, previousLine, static_cast<std::size_t>(area.width()) * sizeof(QRgb));
      } else {
        const QRgb* source = pixels.data() + static_cast<std::ptrdiff_t>(row) * tile.cellCols;
        if (scene.hatch) {  // transparent cells leave the hatch as it is
          for (int x = 0; x < area.width(); ++x) {
            const QRgb color = source[m_columns[static_cast<std::size_t>(x)]];
            if (qAlpha(color) != 0) line[x] = color;
          }
        } else {
          for (int x = 0; x < area.width(); ++x) line[x] = source[m_columns[static_cast<std::size_t>(x)]];
        }
      }
      previous = row;
      previousLine = line;
    }
  }
}

RasterSurface::RasterSurface(SceneSource& source, QWidget* parent) : QWidget(parent), m_source(source) {
  setAttribute(Qt::WA_TransparentForMouseEvents);
  setAttribute(Qt::WA_OpaquePaintEvent);
}

void RasterSurface::paintEvent(QPaintEvent*) {
  const qreal ratio = devicePixelRatioF();
  const QSize pixels(qRound(width() * ratio), qRound(height() * ratio));
  if (pixels.isEmpty()) return;
  const MapScene scene = m_source.scene(pixels);
  if (m_frame.size() != pixels) {
    m_frame = QImage(pixels, QImage::Format_ARGB32_Premultiplied);
    m_frameVersion = 0;
  }
  m_frame.setDevicePixelRatio(ratio);
  if (scene.version != m_frameVersion) {
    m_frame.fill(scene.background);
    if (scene.hatch) {
      QPainter hatch(&m_frame);
      paintNoData(hatch, QRectF(rect()), Theme::current());
    }
    if (scene.lut) m_painter.paint(scene, m_frame);
    m_frameVersion = scene.version;
  }
  QPainter painter(this);
  // Every pixel is there: copied, not blended.
  painter.setCompositionMode(QPainter::CompositionMode_Source);
  painter.drawImage(QPointF(0, 0), m_frame);
  painter.setCompositionMode(QPainter::CompositionMode_SourceOver);
  m_source.paintDecorations(painter, size());
}

}  // namespace sparsight

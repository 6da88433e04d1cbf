// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QImage>
#include <QWidget>
#include <list>
#include <unordered_map>

#include "ui/canvas/map_surface.h"

namespace sparsight {

/// Colours each tile once per colour table and copies pixels from it. GUI thread.
class RasterPainter {
 public:
  /// Paints the tiles of a scene into a 32-bit premultiplied image of the scene's size; the rest stays as it is.
  void paint(const MapScene& scene, QImage& target);
  [[nodiscard]] Index cacheBytes() const noexcept { return m_bytes; }
  void setCacheLimit(Index bytes) { m_limit = bytes; }

 private:
  struct Coloured {
    std::shared_ptr<const MapTile> tile;  // keeps the key's address from being reused
    std::shared_ptr<const KeptMask> kept;
    std::uint64_t lutVersion = 0;
    std::vector<QRgb> pixels;
    std::list<const MapTile*>::iterator use;
  };
  const std::vector<QRgb>& coloured(const TileDraw& draw, const ColorLut& lut);

  std::unordered_map<const MapTile*, Coloured> m_tiles;
  std::list<const MapTile*> m_uses;  // most recent first
  Index m_bytes = 0, m_limit = Index{128} << 20;
  std::vector<int> m_columns;
};

class RasterSurface : public QWidget, public MapSurface {
 public:
  RasterSurface(SceneSource& source, QWidget* parent);
  [[nodiscard]] QWidget* widget() override { return this; }
  [[nodiscard]] QString description() const override { return QStringLiteral("raster"); }
  [[nodiscard]] Index cacheBytes() const override { return m_painter.cacheBytes(); }
  void setCacheLimit(Index bytes) override { m_painter.setCacheLimit(bytes); }

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  SceneSource& m_source;
  RasterPainter m_painter;
  QImage m_frame;
  std::uint64_t m_frameVersion = 0;
};

}  // namespace sparsight

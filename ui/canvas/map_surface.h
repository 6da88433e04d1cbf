// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QColor>
#include <QPainter>
#include <QRect>
#include <QSize>
#include <QString>
#include <QWidget>
#include <cstdint>
#include <memory>
#include <vector>

#include "sparsight/core/attention_map.h"
#include "sparsight/core/palette.h"
#include "ui/color_map.h"

namespace sparsight {

/// A tile ready to be painted: values and their codes. Immutable, made in a job.
struct MapTile {
  TileKey key;
  int cellRows = 0, cellCols = 0;
  bool approximate = false;
  std::vector<float> values;
  std::vector<ValueCode> codes;

  [[nodiscard]] Index bytes() const noexcept {
    return static_cast<Index>(values.size() * sizeof(float) + codes.size() * sizeof(ValueCode) + sizeof(MapTile));
  }
};
[[nodiscard]] std::shared_ptr<const MapTile> makeMapTile(const Tile& tile);

/// Kept share of every cell of a tile, 0..255.
using KeptMask = std::vector<std::uint8_t>;

/// One tile (or a part of a coarser one) in one frame, in device pixels of the surface.
struct TileDraw {
  std::shared_ptr<const MapTile> tile;
  std::shared_ptr<const KeptMask> kept;  ///< nullptr: nothing is dimmed
  QRect pixels;                          ///< painted region: whole pixels whose centre is inside
  double originX = 0, originY = 0;       ///< where the tile's cell (0, 0) starts
  double cellWidth = 1, cellHeight = 1;
};

/// Everything a painter needs for one frame.
struct MapScene {
  std::uint64_t version = 0;  ///< changes whenever something below does
  QSize pixels;               ///< of the surface
  std::vector<TileDraw> draws;
  std::shared_ptr<const ColorLut> lut;
  QColor background;   ///< where no tile is known yet
  bool hatch = false;  ///< show the no-data hatch under cells without a value
};

/// What the surface asks for when it paints.
class SceneSource {
 public:
  virtual ~SceneSource() = default;
  [[nodiscard]] virtual MapScene scene(const QSize& devicePixels) = 0;
  /// Lines, numbers, minimap, in device independent pixels of the surface.
  virtual void paintDecorations(QPainter& painter, const QSize& size) = 0;
};

/// The widget that shows the map: QImage or OpenGL behind one interface. Transparent to the mouse.
class MapSurface {
 public:
  virtual ~MapSurface() = default;
  [[nodiscard]] virtual QWidget* widget() = 0;
  /// "raster", or "OpenGL 4.6 (...)".
  [[nodiscard]] virtual QString description() const = 0;
  /// Bytes of coloured images or textures, and their limit.
  [[nodiscard]] virtual Index cacheBytes() const = 0;
  virtual void setCacheLimit(Index bytes) = 0;
};

enum class Renderer : std::uint8_t { Raster, OpenGl };
/// SPARSIGHT_RENDERER=raster|gl, else OpenGL where a hardware 3.3 context can be made. Software contexts (llvmpipe,
/// softpipe, SwiftShader) are far slower than the raster painter. The probe runs
/// once, the variable is read for every new canvas.
[[nodiscard]] Renderer chosenRenderer();
/// Whether an OpenGL 3.3 core context can be made at all, and its renderer string.
[[nodiscard]] bool canUseOpenGl(QString* description = nullptr);
/// Falls back to raster when the OpenGL surface cannot be made.
[[nodiscard]] std::unique_ptr<MapSurface> createMapSurface(Renderer renderer, SceneSource& source, QWidget* parent);

}  // namespace sparsight

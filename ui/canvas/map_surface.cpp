// SPDX-License-Identifier: Apache-2.0
#include "ui/canvas/map_surface.h"

#include <QGuiApplication>
#include <QOffscreenSurface>
#include <QOpenGLContext>
#include <QOpenGLFunctions>

#include "ui/canvas/gl_painter.h"
#include "ui/canvas/raster_painter.h"

namespace sparsight {
namespace {

struct GlProbe {
  bool usable = false, software = false;
  QString description;
};

const GlProbe& probe() {
  static const GlProbe result = [] {
    GlProbe out;
    const QString platform = QGuiApplication::platformName();
    // These platforms say that they have OpenGL and fail, or abort, when a context is made.
    if (platform == QLatin1String("offscreen") || platform == QLatin1String("minimal")) return out;
    QSurfaceFormat format;
    format.setVersion(3, 3);
    format.setProfile(QSurfaceFormat::CoreProfile);
    QOffscreenSurface surface;
    surface.setFormat(format);
    surface.create();
    QOpenGLContext context;
    context.setFormat(format);
    if (!surface.isValid() || !context.create() || !context.makeCurrent(&surface)) return out;
    const QSurfaceFormat got = context.format();
    if (got.majorVersion() * 10 + got.minorVersion() >= 33) {
      out.usable = true;
      const auto* text = context.functions()->glGetString(GL_RENDERER);
      out.description = QString::fromLatin1(reinterpret_cast<const char*>(text));
      for (const char* name : {"llvmpipe", "softpipe", "swiftshader", "software"}) {
        out.software = out.software || out.description.contains(QLatin1String(name), Qt::CaseInsensitive);
      }
    }
    context.doneCurrent();
    return out;
  }();
  return result;
}

}  // namespace

std::shared_ptr<const MapTile> makeMapTile(const Tile& tile) {
  auto out = std::make_shared<MapTile>();
  out->key = tile.key;
  out->cellRows = tile.cellRows;
  out->cellCols = tile.cellCols;
  out->approximate = tile.approximate;
  out->values = tile.cells;
  out->codes.resize(tile.cells.size());
  encodeValues(tile.cells, out->codes);
  return out;
}

bool canUseOpenGl(QString* description) {
  if (description != nullptr) *description = probe().description;
  return probe().usable;
}

Renderer chosenRenderer() {
  const QByteArray forced = qgetenv("SPARSIGHT_RENDERER");
  if (forced == "raster") return Renderer::Raster;
  if (forced == "gl") return probe().usable ? Renderer::OpenGl : Renderer::Raster;
  return probe().usable && !probe().software ? Renderer::OpenGl : Renderer::Raster;
}

std::unique_ptr<MapSurface> createMapSurface(Renderer renderer, SceneSource& source, QWidget* parent) {
  if (renderer == Renderer::OpenGl && canUseOpenGl()) return std::make_unique<GlSurface>(source, parent);
  return std::make_unique<RasterSurface>(source, parent);
}

}  // namespace sparsight

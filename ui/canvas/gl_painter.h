// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QOpenGLBuffer>
#include <QOpenGLFunctions_3_3_Core>
#include <QOpenGLShaderProgram>
#include <QOpenGLVertexArrayObject>
#include <QOpenGLWidget>
#include <list>
#include <unordered_map>

#include "ui/canvas/map_surface.h"

namespace sparsight {

/// OpenGL 3.3 core: value codes and kept shares are integer textures; palette, range, scale and overlay are done in the
/// fragment shader through the same colour table as the raster painter, so a change of them uploads one small table.
class GlSurface : public QOpenGLWidget, public MapSurface, private QOpenGLFunctions_3_3_Core {
 public:
  GlSurface(SceneSource& source, QWidget* parent);
  ~GlSurface() override;
  [[nodiscard]] QWidget* widget() override { return this; }
  [[nodiscard]] QString description() const override { return m_description; }
  [[nodiscard]] Index cacheBytes() const override { return m_bytes; }
  void setCacheLimit(Index bytes) override { m_limit = bytes; }

 protected:
  void initializeGL() override;
  void paintGL() override;

 private:
  struct Texture {
    std::shared_ptr<const void> owner;  // keeps the key's address from being reused
    GLuint id = 0;
    Index bytes = 0;
    std::list<const void*>::iterator use;
  };
  void release();
  void uploadLut(const ColorLut& lut);
  /// 0 when this frame's uploads are used up; `wanted` then says to come back.
  GLuint texture(const std::shared_ptr<const void>& owner, const void* content, int columns, int rows, bool shares,
                 int& uploads);
  void evict();

  SceneSource& m_source;
  QString m_description;
  QOpenGLShaderProgram m_program;
  QOpenGLVertexArrayObject m_vertexArray;
  QOpenGLBuffer m_corners;
  GLuint m_lut[2] = {0, 0};
  std::uint64_t m_lutVersion = 0;
  QMetaObject::Connection m_contextGone;
  bool m_ready = false;
  std::unordered_map<const void*, Texture> m_textures;
  std::list<const void*> m_uses;
  Index m_bytes = 0, m_limit = Index{256} << 20;
};

}  // namespace sparsight

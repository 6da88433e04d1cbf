// SPDX-License-Identifier: Apache-2.0
#include "ui/canvas/gl_painter.h"

#include <QFile>
#include <QOpenGLContext>
#include <algorithm>

#include "ui/theme.h"

namespace sparsight {
namespace {

// Uploads per frame: a burst of new tiles is spread over frames, so that panning never stutters.
constexpr int kUploadsPerFrame = 8;

QByteArray shader(const char* name) {
  QFile file(QStringLiteral(":/resources/shaders/") + QLatin1String(name));
  return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
}

}  // namespace

GlSurface::GlSurface(SceneSource& source, QWidget* parent)
    : QOpenGLWidget(parent), m_source(source), m_corners(QOpenGLBuffer::VertexBuffer) {
  QSurfaceFormat format;
  format.setVersion(3, 3);
  format.setProfile(QSurfaceFormat::CoreProfile);
  setFormat(format);
  setAttribute(Qt::WA_TransparentForMouseEvents);
}

GlSurface::~GlSurface() {
  // The base destroys the context after these members are gone: its last signal must not reach them.
  disconnect(m_contextGone);
  release();
}

void GlSurface::release() {
  if (context() == nullptr || !isValid()) return;
  makeCurrent();
  for (auto& [key, texture] : m_textures) glDeleteTextures(1, &texture.id);
  m_textures.clear();
  m_uses.clear();
  m_bytes = 0;
  if (m_lut[0] != 0) glDeleteTextures(2, m_lut);
  m_lut[0] = m_lut[1] = 0;
  m_lutVersion = 0;
  m_corners.destroy();
  m_vertexArray.destroy();
  m_program.removeAllShaders();
  m_ready = false;
  doneCurrent();
}

void GlSurface::initializeGL() {
  // Reparenting to another window makes a new context: everything of the old one goes first.
  disconnect(m_contextGone);
  m_contextGone = connect(context(), &QOpenGLContext::aboutToBeDestroyed, this, [this] { release(); });
  if (!initializeOpenGLFunctions()) return;
  m_description = QStringLiteral("OpenGL %1.%2 (%3)")
                      .arg(context()->format().majorVersion())
                      .arg(context()->format().minorVersion())
                      .arg(QString::fromLatin1(reinterpret_cast<const char*>(glGetString(GL_RENDERER))));
  m_ready = m_program.addShaderFromSourceCode(QOpenGLShader::Vertex, shader("map.vert")) &&
            m_program.addShaderFromSourceCode(QOpenGLShader::Fragment, shader("map.frag")) && m_program.link();
  if (!m_ready) {
    qWarning("OpenGL shaders: %s", qPrintable(m_program.log()));
    return;
  }
  m_vertexArray.create();
  const QOpenGLVertexArrayObject::Binder binder(&m_vertexArray);
  constexpr float corners[] = {0, 0, 1, 0, 0, 1, 1, 1};
  m_corners.create();
  m_corners.bind();
  m_corners.allocate(corners, sizeof corners);
  m_program.enableAttributeArray(0);
  m_program.setAttributeBuffer(0, GL_FLOAT, 0, 2);
  glGenTextures(2, m_lut);
}

void GlSurface::uploadLut(const ColorLut& lut) {
  if (m_lutVersion == lut.version()) return;
  const std::vector<QRgb>* tables[] = {&lut.colors(), &lut.dimmed()};
  for (int i = 0; i < 2; ++i) {
    glBindTexture(GL_TEXTURE_2D, m_lut[i]);
    glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
    glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
    // 0xAARRGGBB words whatever the byte order of the machine.
    glTexImage2D(GL_TEXTURE_2D, 0, GL_RGBA8, 256, 256, 0, GL_BGRA, GL_UNSIGNED_INT_8_8_8_8_REV, tables[i]->data());
  }
  m_lutVersion = lut.version();
}

GLuint GlSurface::texture(const std::shared_ptr<const void>& owner, const void* content, int columns, int rows,
                          bool shares, int& uploads) {
  const auto found = m_textures.find(owner.get());
  if (found != m_textures.end()) {
    m_uses.splice(m_uses.begin(), m_uses, found->second.use);
    return found->second.id;
  }
  if (uploads <= 0) return 0;
  --uploads;
  Texture entry;
  entry.owner = owner;
  entry.bytes = static_cast<Index>(columns) * rows * (shares ? 1 : 2);
  glGenTextures(1, &entry.id);
  glBindTexture(GL_TEXTURE_2D, entry.id);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
  glPixelStorei(GL_UNPACK_ALIGNMENT, 1);
  glTexImage2D(GL_TEXTURE_2D, 0, shares ? GL_R8UI : GL_R16UI, columns, rows, 0, GL_RED_INTEGER,
               shares ? GL_UNSIGNED_BYTE : GL_UNSIGNED_SHORT, content);
  glPixelStorei(GL_UNPACK_ALIGNMENT, 4);
  m_uses.push_front(owner.get());
  entry.use = m_uses.begin();
  m_bytes += entry.bytes;
  return m_textures.emplace(owner.get(), std::move(entry)).first->second.id;
}

void GlSurface::evict() {
  while (m_bytes > m_limit && m_uses.size() > 1) {
    const auto oldest = m_textures.find(m_uses.back());
    m_bytes -= oldest->second.bytes;
    glDeleteTextures(1, &oldest->second.id);
    m_textures.erase(oldest);
    m_uses.pop_back();
  }
}

void GlSurface::paintGL() {
  const qreal ratio = devicePixelRatioF();
  const QSize pixels(qRound(width() * ratio), qRound(height() * ratio));
  const MapScene scene = m_source.scene(pixels);
  QPainter painter(this);
  painter.fillRect(rect(), scene.background);
  if (scene.hatch) paintNoData(painter, QRectF(rect()), Theme::current());
  bool incomplete = false;
  if (m_ready && scene.lut && !scene.draws.empty()) {
    painter.beginNativePainting();
    glViewport(0, 0, pixels.width(), pixels.height());
    glDisable(GL_DEPTH_TEST);
    glDisable(GL_STENCIL_TEST);
    glDisable(GL_SCISSOR_TEST);
    glEnable(GL_BLEND);
    glBlendFunc(GL_ONE, GL_ONE_MINUS_SRC_ALPHA);
    uploadLut(*scene.lut);
    m_program.bind();
    const QOpenGLVertexArrayObject::Binder binder(&m_vertexArray);
    m_program.setUniformValue("surface",
                              QVector2D(static_cast<float>(pixels.width()), static_cast<float>(pixels.height())));
    m_program.setUniformValue("codes", 0);
    m_program.setUniformValue("colors", 1);
    m_program.setUniformValue("dimmed", 2);
    m_program.setUniformValue("kept", 3);
    glActiveTexture(GL_TEXTURE1);
    glBindTexture(GL_TEXTURE_2D, m_lut[0]);
    glActiveTexture(GL_TEXTURE2);
    glBindTexture(GL_TEXTURE_2D, m_lut[1]);
    int uploads = kUploadsPerFrame;
    for (const TileDraw& draw : scene.draws) {
      const QRect area = draw.pixels & QRect(QPoint(0, 0), pixels);
      if (area.isEmpty()) continue;
      const MapTile& tile = *draw.tile;
      glActiveTexture(GL_TEXTURE0);
      const GLuint codes = texture(draw.tile, tile.codes.data(), tile.cellCols, tile.cellRows, false, uploads);
      GLuint shares = 0;
      if (draw.kept && codes != 0) {
        shares = texture(draw.kept, draw.kept->data(), tile.cellCols, tile.cellRows, true, uploads);
      }
      // Scenes list coarser tiles first, so what is not uploaded yet shows its placeholder.
      incomplete = incomplete || codes == 0 || (draw.kept && shares == 0);
      if (codes == 0) continue;
      glActiveTexture(GL_TEXTURE0);
      glBindTexture(GL_TEXTURE_2D, codes);
      glActiveTexture(GL_TEXTURE3);
      glBindTexture(GL_TEXTURE_2D, shares);
      m_program.setUniformValue("overlay", shares != 0 ? 1 : 0);
      m_program.setUniformValue("area", QVector4D(static_cast<float>(area.left()), static_cast<float>(area.top()),
                                                  static_cast<float>(area.width()), static_cast<float>(area.height())));
      m_program.setUniformValue("origin",
                                QVector2D(static_cast<float>(draw.originX), static_cast<float>(draw.originY)));
      m_program.setUniformValue("cellSize",
                                QVector2D(static_cast<float>(draw.cellWidth), static_cast<float>(draw.cellHeight)));
      glUniform2i(m_program.uniformLocation("cells"), tile.cellCols, tile.cellRows);
      glDrawArrays(GL_TRIANGLE_STRIP, 0, 4);
    }
    m_program.release();
    glActiveTexture(GL_TEXTURE0);
    evict();
    painter.endNativePainting();
  }
  m_source.paintDecorations(painter, size());
  if (incomplete)
    QMetaObject::invokeMethod(
        this, [this] { update(); }, Qt::QueuedConnection);
}

}  // namespace sparsight

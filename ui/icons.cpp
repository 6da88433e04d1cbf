// SPDX-License-Identifier: Apache-2.0
#include "ui/icons.h"

#include <QFile>
#include <QIconEngine>
#include <QPainter>
#include <QPixmapCache>
#include <QSvgRenderer>
#include <cmath>

#include "ui/theme.h"

namespace sparsight {
namespace {

QByteArray svgSource(const QString& name) {
  QFile file(QStringLiteral(":/resources/icons/%1.svg").arg(name));
  return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
}

class TintedIconEngine : public QIconEngine {
 public:
  explicit TintedIconEngine(QString name) : m_name(std::move(name)) {}
  void paint(QPainter* painter, const QRect& rect, QIcon::Mode mode, QIcon::State state) override {
    const int size = std::min(rect.width(), rect.height());
    const QPixmap picture = draw(size, painter->device()->devicePixelRatioF(), mode, state);
    painter->drawPixmap(rect.x() + (rect.width() - size) / 2, rect.y() + (rect.height() - size) / 2, size, size,
                        picture);
  }
  QPixmap pixmap(const QSize& size, QIcon::Mode mode, QIcon::State state) override {
    return draw(std::min(size.width(), size.height()), 1.0, mode, state);
  }
  QPixmap scaledPixmap(const QSize& size, QIcon::Mode mode, QIcon::State state, qreal scale) override {
    // `size` is in device pixels here.
    QPixmap picture = draw(std::min(size.width(), size.height()), 1.0, mode, state);
    picture.setDevicePixelRatio(scale);
    return picture;
  }
  [[nodiscard]] QIconEngine* clone() const override { return new TintedIconEngine(m_name); }

 private:
  [[nodiscard]] QPixmap draw(int size, qreal ratio, QIcon::Mode mode, QIcon::State) const {
    const Theme& theme = Theme::current();
    const QColor color = mode == QIcon::Disabled   ? theme.disabled
                         : mode == QIcon::Selected ? theme.onAccent
                                                   : theme.text;
    return tintedPixmap(m_name, size, color, ratio);
  }
  QString m_name;
};

}  // namespace

QPixmap tintedPixmap(const QString& name, int size, const QColor& color, qreal devicePixelRatio) {
  const QString key =
      QStringLiteral("icon/%1/%2/%3/%4").arg(name).arg(size).arg(color.name(QColor::HexArgb)).arg(devicePixelRatio);
  QPixmap picture;
  if (QPixmapCache::find(key, &picture)) return picture;
  const int pixels = std::max(1, static_cast<int>(std::ceil(size * devicePixelRatio)));
  picture = QPixmap(pixels, pixels);
  picture.fill(Qt::transparent);
  QByteArray source = svgSource(name);
  source.replace("currentColor", color.name().toLatin1());
  QSvgRenderer renderer(source);
  if (renderer.isValid()) {
    QPainter painter(&picture);
    renderer.render(&painter);
  }
  picture.setDevicePixelRatio(devicePixelRatio);
  QPixmapCache::insert(key, picture);
  return picture;
}

QIcon themedIcon(const QString& name) {
  if (!QFile::exists(QStringLiteral(":/resources/icons/%1.svg").arg(name))) return {};
  return QIcon(new TintedIconEngine(name));
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
// Axes, strips, readout and what lies over the map.
#include <QEvent>
#include <QPaintEvent>
#include <QPainter>
#include <QPainterPath>
#include <algorithm>
#include <cmath>

#include "ui/canvas/tile_canvas.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kGridCell = 8, kNumberCell = 28, kBandLine = 24;

double lineAt(double position, double origin, double scale) { return (position - origin) * scale; }

/// Two significant figures, "100 %" at most: the right end of a strip.
QString percent(double fraction) {
  const double value = fraction * 100.0;
  return QStringLiteral("%1 %").arg(value, 0, 'f', value >= 9.95 ? 0 : value >= 0.995 ? 1 : 2);
}

QColor overMap(double alpha) {
  QColor color(Qt::white);
  color.setAlphaF(static_cast<float>(alpha));
  return color;
}

}  // namespace

void TileCanvas::resizeEvent(QResizeEvent* event) {
  QWidget::resizeEvent(event);
  layoutParts();
}

void TileCanvas::changeEvent(QEvent* event) {
  QWidget::changeEvent(event);
  if (event->type() == QEvent::PaletteChange || event->type() == QEvent::FontChange ||
      event->type() == QEvent::StyleChange) {
    layoutParts();
    if (!m_lut || m_lutDark != Theme::current().dark) updateLut();
    update();
  }
}

void TileCanvas::paintEvent(QPaintEvent* event) {
  const Theme& theme = Theme::current();
  QPainter painter(this);
  painter.fillRect(rect(), theme.window);
  if (!m_map) {
    const QRect area = rect().adjusted(Theme::kEdge, Theme::kEdge, -Theme::kEdge, -Theme::kEdge);
    painter.setFont(fonts::title());
    painter.setPen(theme.text);
    const int line = QFontMetrics(painter.font()).height();
    painter.drawText(QRect(area.left(), area.center().y() - line - 4, area.width(), line), Qt::AlignCenter,
                     m_messageTitle);
    painter.setFont(fonts::base());
    painter.setPen(theme.secondary);
    painter.drawText(QRect(area.left(), area.center().y() + 4, area.width(), area.height() / 2),
                     Qt::AlignHCenter | Qt::AlignTop | Qt::TextWordWrap, m_message);
    return;
  }
  painter.setRenderHint(QPainter::Antialiasing);
  // The readout changes with every move of the mouse, the rest does not.
  const QRect below(0, m_plot.bottom() + 1, width(), height() - m_plot.bottom());
  const QRect beside = m_stripArea.adjusted(-8, -m_stripArea.top(), 16, 4 + QFontMetrics(fonts::secondary()).height());
  if (!(QRegion(rect()) - below).intersected(event->region()).isEmpty()) paintAxes(painter);
  if (beside.intersects(event->region().boundingRect())) paintStrips(painter);
  if (below.intersects(event->region().boundingRect())) paintReadout(painter);
  painter.setPen(QPen(hasFocus() ? theme.accent : theme.line, 1));
  painter.setBrush(Qt::NoBrush);
  painter.drawRect(QRectF(m_plot).adjusted(-0.5, -0.5, 0.5, 0.5));
}

void TileCanvas::paintAxes(QPainter& painter) {
  const Theme& theme = Theme::current();
  painter.setFont(fonts::secondary());
  const QFontMetricsF metrics(painter.font());
  const double lineHeight = metrics.height();

  // One axis: labels centred in the visible part of each band, then finer ones where there is room.
  const auto axis = [&](const AxisSpec& spec, double first, double count, bool horizontal) {
    const double length = horizontal ? m_plot.width() : m_plot.height();
    const double scale = length / count;
    const auto draw = [&](double centre, const QString& label, const QColor& color) {
      const QStaticText& text = m_labels.of(label, painter.font());
      const double w = text.size().width();
      painter.setPen(color);
      const QPointF at = horizontal ? QPointF(m_plot.left() + centre - w / 2, m_plot.top() - lineHeight - 4)
                                    : QPointF(m_plot.left() - Theme::kPad - w, m_plot.top() + centre - lineHeight / 2);
      painter.drawStaticText(QPointF(std::round(at.x()), std::round(at.y())), text);
    };
    const auto extent = [&](const QString& text) { return horizontal ? metrics.horizontalAdvance(text) : lineHeight; };
    if (spec.bands.empty()) {
      // No structure: token positions at round numbers.
      const auto step =
          std::llround(std::pow(10.0, std::ceil(std::log10(std::max(1.0, (horizontal ? 64.0 : 28.0) / scale)))));
      const auto from = static_cast<qint64>(std::ceil(first / static_cast<double>(step)));
      for (qint64 t = from * step; static_cast<double>(t) < first + count; t += step) {
        draw((static_cast<double>(t) + 0.5 - first) * scale, formatCount(t), theme.secondary);
      }
      return;
    }
    // Tokens, where single ones are wide enough.
    const double cell = scale;
    if (spec.cellLabel &&
        cell >= (horizontal ? metrics.horizontalAdvance(QStringLiteral("r00 c00")) + 6 : lineHeight + 1)) {
      for (Index t = static_cast<Index>(first); static_cast<double>(t) < first + count; ++t) {
        const double centre = (static_cast<double>(t) + 0.5 - first) * scale;
        if (centre < 0 || centre > length) continue;
        const auto band = std::find_if(spec.bands.begin(), spec.bands.end(),
                                       [t](const AxisBand& b) { return t >= b.first && t < b.last; });
        QString text = spec.cellLabel(t);
        if (!horizontal && band != spec.bands.end()) text.prepend(band->label + QLatin1Char(' '));
        draw(centre, text, theme.secondary);
      }
      return;
    }
    double used = -1e9;
    for (const AxisBand& band : spec.bands) {
      const double a = std::max(0.0, lineAt(static_cast<double>(band.first), first, scale));
      const double b = std::min(length, lineAt(static_cast<double>(band.last), first, scale));
      if (b <= a) continue;
      // Rows of a frame, when one fills much of the view.
      const double minor = static_cast<double>(band.minorLength) * scale;
      const QString sample = band.label + QStringLiteral(" r00");
      if (band.minorLength > 1 && minor >= extent(sample) + 8) {
        const Index firstRow = std::max<Index>(
            0, static_cast<Index>((first - static_cast<double>(band.first)) / static_cast<double>(band.minorLength)));
        for (Index r = firstRow; band.first + r * band.minorLength < band.last; ++r) {
          const double p = lineAt(static_cast<double>(band.first + r * band.minorLength), first, scale);
          if (p > length) break;
          const double centre = (std::max(0.0, p) + std::min(length, p + minor)) / 2;
          const QString text = band.label + QStringLiteral(" r%1").arg(r);
          if (std::min(length, p + minor) - std::max(0.0, p) >= extent(text)) draw(centre, text, theme.secondary);
        }
        continue;
      }
      const double centre = (a + b) / 2, half = extent(band.label) / 2;
      if (centre - half < used + 4) continue;  // narrow bands: every n-th label
      if (b - a < extent(band.label) - 2 && spec.bands.size() < 3) continue;
      used = centre + half;
      draw(centre, band.label, theme.secondary);
    }
  };
  axis(m_keys, m_view.col0, m_view.cols, true);
  axis(m_queries, m_view.row0, m_view.rows, false);

  // Which axis is which, in the corner they share.
  if (m_compact) return;
  painter.setPen(theme.disabled);
  painter.drawText(
      QRectF(m_plot.left() - m_axisLeft, m_plot.top() - lineHeight - 4, m_axisLeft - Theme::kPad, lineHeight),
      Qt::AlignRight | Qt::AlignVCenter, tr("q \u2193  k \u2192"));
}

void TileCanvas::paintStrips(QPainter& painter) {
  if (m_strips.empty()) return;
  const Theme& theme = Theme::current();
  painter.setFont(fonts::secondary());
  const QFontMetricsF metrics(painter.font());
  constexpr int kWidth = 34, kGap = 8;
  int left = m_stripArea.left();
  for (const RowStrip& strip : m_strips) {
    const QRectF area(left, m_plot.top(), kWidth, m_plot.height());
    painter.fillRect(area, theme.dark ? theme.panel : theme.grid);
    float largest = 0;
    for (const float v : strip.values) {
      if (v > largest) largest = v;
    }
    painter.setPen(theme.secondary);
    painter.drawText(QRectF(left - 4, m_plot.top() - metrics.height() - 4, kWidth + 8, metrics.height()),
                     Qt::AlignCenter, strip.label);
    painter.drawText(QRectF(left - 8, m_plot.bottom() + 4, kWidth + 16, metrics.height()), Qt::AlignCenter,
                     largest > 0 ? percent(static_cast<double>(largest)) : tr("none"));
    if (largest > 0) {
      const double tokensPerPixel = m_view.rows / m_plot.height();
      painter.save();
      painter.setRenderHint(QPainter::Antialiasing, false);
      for (int y = 0; y < m_plot.height(); ++y) {
        const Index r0 = static_cast<Index>(m_view.row0 + y * tokensPerPixel);
        const Index r1 = std::max(r0 + 1, static_cast<Index>(m_view.row0 + (y + 1) * tokensPerPixel));
        double sum = 0;
        Index count = 0;
        for (Index r = r0; r < r1 && r < static_cast<Index>(strip.values.size()); ++r) {
          const float v = strip.values[static_cast<std::size_t>(r)];
          if (std::isnan(v)) continue;
          sum += static_cast<double>(v);
          ++count;
        }
        if (count == 0) continue;
        const double w = sum / static_cast<double>(count) / static_cast<double>(largest) * kWidth;
        painter.fillRect(QRectF(left, m_plot.top() + y, w, 1), strip.color);
      }
      painter.restore();
    }
    left += kWidth + kGap;
  }
}

void TileCanvas::paintReadout(QPainter& painter) {
  if (m_compact) return;
  const Theme& theme = Theme::current();
  painter.setFont(fonts::tabular());
  const QFontMetricsF metrics(painter.font());
  const double y = height() - metrics.height() - Theme::kUnit;
  const auto pieces = readoutPieces();
  const auto paintState = [&](double used) {
    const QString state = precisionText();
    painter.setFont(fonts::secondary());
    const double w = QFontMetricsF(painter.font()).horizontalAdvance(state);
    if (used + w + 2 * Theme::kEdge > width()) return;
    painter.setPen(theme.secondary);
    painter.drawText(QRectF(width() - w - Theme::kGroupGap, y, w + 1, metrics.height()),
                     Qt::AlignRight | Qt::AlignVCenter, state);
  };
  if (pieces.empty()) {
    painter.setFont(fonts::secondary());
    painter.setPen(theme.secondary);
    painter.drawText(QRectF(m_plot.left(), y, width() - m_plot.left(), metrics.height()),
                     Qt::AlignLeft | Qt::AlignVCenter,
                     QFontMetrics(painter.font())
                         .elidedText(tr("move over the map to read a token pair, right click picks it"), Qt::ElideRight,
                                     static_cast<int>(width() - m_plot.left() - Theme::kPad)));
    paintState(m_plot.left() + 420.0);
    return;
  }
  const double space = metrics.horizontalAdvance(QLatin1Char(' ')) + 2;
  double total = 0;
  for (const auto& [text, label] : pieces) total += metrics.horizontalAdvance(text) + space * (label ? 1 : 2);
  // Under the map where it fits, from the left edge where the map is small.
  double x = std::max<double>(Theme::kPad, std::min<double>(m_plot.left(), width() - total - Theme::kPad));
  for (const auto& [text, label] : pieces) {
    const double w = metrics.horizontalAdvance(text);
    if (x + w > width() - Theme::kUnit) break;
    painter.setPen(label ? theme.secondary : theme.text);
    painter.drawText(QRectF(x, y, w + 1, metrics.height()), Qt::AlignLeft | Qt::AlignVCenter, text);
    x += w + space * (label ? 1 : 2);
  }
  paintState(x);
}

// ---------------------------------------------------------------- over the map

namespace {
/// Fills on this thread. Of more than 95 lines of see-through colour Qt's raster engine makes tasks for a thread pool
/// and waits for each of them: on a machine at work that took longer than the filling, 40 % of a zoomed frame.
void fillHere(QPainter& painter, const QRect& rect, const QColor& color) {
  const int step = std::max(1, static_cast<int>(80 / painter.device()->devicePixelRatioF()));
  for (int y = rect.top(); y <= rect.bottom(); y += step)
    painter.fillRect(QRect(rect.left(), y, rect.width(), std::min(step, rect.bottom() + 1 - y)), color);
}
}  // namespace

void TileCanvas::paintDecorations(QPainter& painter, const QSize&) {
  if (!m_map) return;
  painter.setRenderHint(QPainter::Antialiasing, false);
  paintLines(painter);
  paintNumbers(painter);
  paintPicked(painter);
  painter.setRenderHint(QPainter::Antialiasing, true);
  if (m_drag == Drag::Box && m_moved) {
    const QRectF box = QRectF(m_pressed, m_last).normalized().translated(-m_plot.topLeft());
    QColor fill = Theme::current().accent;
    painter.setPen(QPen(fill, 1.5));
    fill.setAlphaF(0.15F);
    painter.setBrush(fill);
    painter.drawRect(box);
  }
  paintMinimap(painter);
  paintBadge(painter);
}

void TileCanvas::paintLines(QPainter& painter) {
  const double sx = m_plot.width() / m_view.cols, sy = m_plot.height() / m_view.rows;
  if (m_grid && std::min(sx, sy) >= kGridCell) {
    // Filled, not stroked: stroking ninety see-through lines took more than half of a frame.
    const QColor line = overMap(0.10);
    for (Index c = static_cast<Index>(std::ceil(m_view.col0)); static_cast<double>(c) < m_view.col0 + m_view.cols;
         ++c) {
      fillHere(painter, QRect(static_cast<int>(lineAt(static_cast<double>(c), m_view.col0, sx)), 0, 1, m_plot.height()),
               line);
    }
    for (Index r = static_cast<Index>(std::ceil(m_view.row0)); static_cast<double>(r) < m_view.row0 + m_view.rows;
         ++r) {
      painter.fillRect(QRect(0, static_cast<int>(lineAt(static_cast<double>(r), m_view.row0, sy)), m_plot.width(), 1),
                       line);
    }
  }
  const auto bandLines = [&](const AxisSpec& spec, double first, double count, double scale, bool horizontal) {
    for (std::size_t i = 1; i < spec.bands.size(); ++i) {
      const AxisBand& band = spec.bands[i];
      const double size =
          static_cast<double>(std::max(band.last - band.first, spec.bands[i - 1].last - spec.bands[i - 1].first));
      if (size * scale < kBandLine) continue;
      const double edge = static_cast<double>(band.first);
      if (edge <= first || edge >= first + count) continue;
      const int p = static_cast<int>(std::floor(lineAt(edge, first, scale)));
      fillHere(painter, horizontal ? QRect(p, 0, 1, m_plot.height()) : QRect(0, p, m_plot.width(), 1), overMap(0.30));
    }
  };
  bandLines(m_keys, m_view.col0, m_view.cols, sx, true);
  bandLines(m_queries, m_view.row0, m_view.rows, sy, false);
}

void TileCanvas::paintNumbers(QPainter& painter) {
  const double sx = m_plot.width() / m_view.cols, sy = m_plot.height() / m_view.rows;
  if (std::min(sx, sy) < kNumberCell || targetLevel() != 0) return;
  QFont font = fonts::secondary();
  const bool wide = sx >= 40;
  font.setPixelSize(std::clamp(static_cast<int>(std::min(sx / (wide ? 4.2 : 3.4), sy * 0.5)), 8, 13));
  painter.setFont(font);
  const auto shortNumber = [wide](double p) {
    if (p == 0) return QStringLiteral("0");
    if (p >= 0.001) return QString::number(p, 'f', p >= 0.0995 ? 2 : 3).mid(1);  // ".12", ".012"
    const int exponent = static_cast<int>(std::floor(std::log10(p)));
    const double mantissa = p / std::pow(10.0, exponent);
    return wide ? QStringLiteral("%1e%2").arg(mantissa, 0, 'f', 1).arg(exponent) : QStringLiteral("e%1").arg(exponent);
  };
  painter.setRenderHint(QPainter::TextAntialiasing);
  if (m_inkVersion != m_lut->version()) {
    m_inkVersion = m_lut->version();
    m_ink.assign(static_cast<std::size_t>(kValueCodes), 0);
  }
  const QColor inks[] = {QColor(0, 0, 0, 210), QColor(255, 255, 255, 220)};
  int pen = -1;
  TileKey at{-1, 0, 0, m_reduce};
  std::shared_ptr<const MapTile> tile;
  for (Index r = static_cast<Index>(m_view.row0);
       static_cast<double>(r) < m_view.row0 + m_view.rows && r < m_map->rows(); ++r) {
    for (Index c = static_cast<Index>(m_view.col0);
         static_cast<double>(c) < m_view.col0 + m_view.cols && c < m_map->cols(); ++c) {
      if (const TileKey key{0, c / kTileCells, r / kTileCells, m_reduce}; key != at) {
        at = key;
        tile = findTile(key);
      }
      if (!tile) continue;
      const auto cell = static_cast<std::size_t>((r % kTileCells) * tile->cellCols + c % kTileCells);
      const float value = tile->values[cell];
      if (std::isnan(value)) continue;
      std::uint8_t& ink = m_ink[tile->codes[cell]];
      if (ink == 0) {
        const QRgb back = m_lut->colors()[tile->codes[cell]];
        ink = lightness({static_cast<std::uint8_t>(qRed(back)), static_cast<std::uint8_t>(qGreen(back)),
                         static_cast<std::uint8_t>(qBlue(back))}) > 55
                  ? 1
                  : 2;
      }
      if (pen != ink) painter.setPen(inks[(pen = ink) - 1]);
      // Values that print alike share their text.
      const QStaticText& text = m_numbers.of(shortNumber(static_cast<double>(value)), font);
      const QPointF middle = cellRect(r, c).center() - QPointF(m_plot.topLeft());
      const QSizeF size = text.size();
      painter.drawStaticText(
          QPointF(std::round(middle.x() - size.width() / 2), std::round(middle.y() - size.height() / 2)), text);
    }
  }
}

void TileCanvas::paintPicked(QPainter& painter) {
  if (m_pickedRow < 0 || m_pickedCol < 0) return;
  const QRectF cell = cellRect(m_pickedRow, m_pickedCol).translated(-m_plot.topLeft());
  const QPointF centre = cell.center();
  const double gapX = std::max(6.0, cell.width() / 2 + 3), gapY = std::max(6.0, cell.height() / 2 + 3);
  // A cell far outside still sends its lines through the view, no further.
  const auto whole = [](double v, int limit) { return static_cast<int>(std::floor(std::clamp(v, -1.0, limit + 1.0))); };
  const int x = whole(centre.x(), m_plot.width()), y = whole(centre.y(), m_plot.height());
  const int left = whole(centre.x() - gapX, m_plot.width()), right = whole(centre.x() + gapX, m_plot.width());
  const int top = whole(centre.y() - gapY, m_plot.height()), bottom = whole(centre.y() + gapY, m_plot.height());
  const QColor cross = overMap(0.55);
  fillHere(painter, QRect(QPoint(0, y), QPoint(left, y)), cross);
  fillHere(painter, QRect(QPoint(right, y), QPoint(m_plot.width(), y)), cross);
  fillHere(painter, QRect(QPoint(x, 0), QPoint(x, top)), cross);
  fillHere(painter, QRect(QPoint(x, bottom), QPoint(x, m_plot.height())), cross);
  QRectF box = cell;
  if (box.width() < 7) box = QRectF(centre.x() - 3.5, box.top(), 7, box.height());
  if (box.height() < 7) box = QRectF(box.left(), centre.y() - 3.5, box.width(), 7);
  painter.setBrush(Qt::NoBrush);
  painter.setPen(QPen(QColor(0, 0, 0, 160), 3));
  painter.drawRect(box);
  painter.setPen(QPen(Theme::current().accent, 1.5));
  painter.drawRect(box);
}

QRect TileCanvas::minimapRect() const {
  if (!m_map || !m_minimap || !m_levels) return {};
  const double rows = static_cast<double>(m_map->rows()), cols = static_cast<double>(m_map->cols());
  // The whole map in view needs no overview over itself.
  if (m_view.rows >= rows * 0.999 && m_view.cols >= cols * 0.999) return {};
  const int shorter = std::min(m_plot.width(), m_plot.height());
  const int side = std::clamp(shorter / 5, std::min(120, shorter / 3), 240);
  const double scale = side / std::max(rows, cols);
  const QSize size(std::max(12, static_cast<int>(cols * scale)), std::max(12, static_cast<int>(rows * scale)));
  return {QPoint(m_plot.width() - size.width() - Theme::kPad, Theme::kPad), size};
}

void TileCanvas::paintMinimap(QPainter& painter) {
  const QRect area = minimapRect();
  if (area.isEmpty()) return;
  const qreal ratio = devicePixelRatioF();
  const QSize size(qRound(area.width() * ratio), qRound(area.height() * ratio));
  constexpr int kBorder = 4;  // around it, in points: a shadow and a thin frame, painted once
  const std::tuple<const void*, std::uint64_t, Reduce, QSize> key{m_levels.get(), m_lut->version(), m_reduce, size};
  if (key != m_minimapKey || m_minimapImage.isNull()) {
    m_minimapKey = key;
    QImage picture(size, QImage::Format_ARGB32_Premultiplied);
    picture.fill(Theme::current().noData);
    // Codes rise with the value, so the largest code of a pixel's cells is the code of its largest value.
    const int z = m_map->maxLevel();
    if (const auto tile = findTile({z, 0, 0, m_reduce})) {
      for (int y = 0; y < size.height(); ++y) {
        auto* line = reinterpret_cast<QRgb*>(picture.scanLine(y));
        const int r0 = y * tile->cellRows / size.height(),
                  r1 = std::max(r0 + 1, (y + 1) * tile->cellRows / size.height());
        for (int x = 0; x < size.width(); ++x) {
          const int c0 = x * tile->cellCols / size.width(),
                    c1 = std::max(c0 + 1, (x + 1) * tile->cellCols / size.width());
          ValueCode code = kCodeNaN;
          for (int r = r0; r < r1; ++r) {
            for (int c = c0; c < c1; ++c) {
              const auto cell = static_cast<std::size_t>(r) * static_cast<std::size_t>(tile->cellCols);
              code = std::max(code, tile->codes[cell + static_cast<std::size_t>(c)]);
            }
          }
          if (code != kCodeNaN) line[x] = m_lut->colors()[code];
        }
      }
    }
    picture.setDevicePixelRatio(ratio);
    const QRectF inner(QPointF(kBorder, kBorder), QSizeF(area.size()));
    m_minimapImage = QImage((QSizeF(area.size() + QSize(2 * kBorder, 2 * kBorder)) * ratio).toSize(),
                            QImage::Format_ARGB32_Premultiplied);
    m_minimapImage.setDevicePixelRatio(ratio);
    m_minimapImage.fill(Qt::transparent);
    QPainter once(&m_minimapImage);
    once.setRenderHint(QPainter::Antialiasing);
    once.setPen(Qt::NoPen);
    once.setBrush(QColor(0, 0, 0, 110));
    once.drawRoundedRect(inner.adjusted(-3, -3, 3, 3), 4, 4);
    once.drawImage(inner.topLeft(), picture);
    once.setBrush(Qt::NoBrush);
    once.setPen(QPen(QColor(255, 255, 255, 90), 1));
    once.drawRect(inner.adjusted(-0.5, -0.5, 0.5, 0.5));
  }
  painter.drawImage(QPointF(area.topLeft() - QPoint(kBorder, kBorder)), m_minimapImage);
  painter.setBrush(Qt::NoBrush);

  const double sx = area.width() / static_cast<double>(m_map->cols()),
               sy = area.height() / static_cast<double>(m_map->rows());
  QRectF view(area.left() + m_view.col0 * sx, area.top() + m_view.row0 * sy, m_view.cols * sx, m_view.rows * sy);
  constexpr double kSmall = 6.0;
  if (view.width() < kSmall || view.height() < kSmall) {
    const QPointF centre = view.center();
    painter.setPen(QPen(QColor(255, 255, 255, 150), 1));
    painter.drawLine(QPointF(area.left(), centre.y()), QPointF(area.right(), centre.y()));
    painter.drawLine(QPointF(centre.x(), area.top()), QPointF(centre.x(), area.bottom()));
    view = QRectF(centre.x() - std::max(kSmall, view.width()) / 2, centre.y() - std::max(kSmall, view.height()) / 2,
                  std::max(kSmall, view.width()), std::max(kSmall, view.height()));
  }
  painter.setPen(QPen(QColor(0, 0, 0, 160), 3));
  painter.drawRect(view);
  painter.setPen(QPen(QColor(Qt::white), 1.5));
  painter.drawRect(view);
}

void TileCanvas::paintBadge(QPainter& painter) {
  QString text;
  const Theme& theme = Theme::current();
  QColor color = theme.text;
  if (!m_error.isEmpty()) {
    text = m_error;
    color = theme.error;
  } else if (m_building || m_previewing) {
    const int percent = m_progress ? static_cast<int>(m_progress->load() * 100.0F) : 0;
    if (!m_levels) {
      text = percent > 0 ? tr("computing\u2026 %1 %").arg(percent) : tr("computing\u2026");
    } else if (m_levels->approximate) {
      text = tr("%1 \u00b7 exact %2 %").arg(precisionText()).arg(percent);
    }
  } else if (m_missing) {
    text = tr("refining\u2026");
  }
  if (text.isEmpty()) return;
  painter.setFont(fonts::secondary());
  const QFontMetricsF metrics(painter.font());
  const double room = m_plot.width() - 4 * Theme::kPad;
  text = metrics.elidedText(text, Qt::ElideRight, room);
  const QRectF box(Theme::kPad, Theme::kPad, metrics.horizontalAdvance(text) + 2 * Theme::kPad, metrics.height() + 6);
  QColor back = theme.panel;
  back.setAlphaF(0.88F);
  painter.setPen(Qt::NoPen);
  painter.setBrush(back);
  painter.drawRoundedRect(box, 4, 4);
  painter.setPen(color);
  painter.drawText(box, Qt::AlignCenter, text);
}

}  // namespace sparsight

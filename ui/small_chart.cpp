// SPDX-License-Identifier: Apache-2.0
#include "ui/small_chart.h"

#include <QPainter>
#include <QPainterPath>
#include <algorithm>
#include <cmath>

#include "ui/theme.h"

namespace sparsight {
namespace {

QColor colorOf(SmallCurve::Ink ink) {
  const Theme& theme = Theme::current();
  switch (ink) {
    case SmallCurve::Ink::First:
      return theme.slotA;
    case SmallCurve::Ink::Second:
      return theme.slotB;
    case SmallCurve::Ink::Accent:
      return theme.accent;
    case SmallCurve::Ink::Faint:
      break;
  }
  return theme.secondary;
}

int textHeight() { return QFontMetrics(fonts::secondary()).height(); }

}  // namespace

SmallCurve::SmallCurve(QWidget* parent) : QWidget(parent) {}

void SmallCurve::setPlot(const QString& title, const Axis& x, const Axis& y, const QVector<Line>& lines,
                         const QVector<Mark>& marks) {
  m_title = title;
  m_x = x;
  m_y = y;
  m_lines = lines;
  m_marks = marks;
  setAccessibleName(title);
  update();
}

QRectF SmallCurve::plot() const {
  const QFontMetrics metrics(fonts::secondary());
  const int left = std::max(metrics.horizontalAdvance(m_y.minLabel), metrics.horizontalAdvance(m_y.maxLabel));
  return QRectF(rect()).adjusted(Theme::kEdge + left + Theme::kUnit, 2.5 * textHeight() + Theme::kPad, -Theme::kEdge,
                                 -textHeight() - Theme::kPad);
}

QPointF SmallCurve::toPixel(QPointF value) const {
  const QRectF area = plot();
  const auto part = [](double v, const Axis& axis) {
    return axis.max > axis.min ? (v - axis.min) / (axis.max - axis.min) : 0.5;
  };
  return {area.left() + part(value.x(), m_x) * area.width(), area.bottom() - part(value.y(), m_y) * area.height()};
}

void SmallCurve::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const Theme& theme = Theme::current();
  painter.fillRect(rect(), theme.window);
  painter.setFont(fonts::secondary());
  const QFontMetrics metrics(painter.font());
  const QRectF area = plot();
  if (area.width() < 20 || area.height() < 12) return;
  painter.setPen(theme.secondary);
  const int across = width() - 2 * Theme::kEdge;
  painter.drawText(QRect(Theme::kEdge, Theme::kUnit, across, metrics.height()), Qt::AlignLeft | Qt::AlignVCenter,
                   metrics.elidedText(m_title, Qt::ElideRight, across));
  // Legend, each name in its ink.
  double x = Theme::kEdge;
  for (const Line& line : m_lines) {
    if (line.name.isEmpty()) continue;
    const double top = Theme::kUnit + metrics.height();
    painter.setPen(QPen(colorOf(line.ink), 2));
    painter.drawLine(QPointF(x, top + metrics.height() / 2.0), QPointF(x + 12, top + metrics.height() / 2.0));
    painter.setPen(theme.secondary);
    painter.drawText(QPointF(x + 16, top + metrics.ascent()), line.name);
    x += 16 + metrics.horizontalAdvance(line.name) + Theme::kGroupGap;
  }
  painter.setPen(theme.line);
  painter.drawLine(area.bottomLeft(), area.bottomRight());
  painter.drawLine(area.bottomLeft(), area.topLeft());
  painter.setPen(theme.secondary);
  const double labels = area.left() - Theme::kUnit;
  painter.drawText(QRectF(0, area.top() - metrics.height() / 2.0, labels, metrics.height()),
                   Qt::AlignRight | Qt::AlignVCenter, m_y.maxLabel);
  painter.drawText(QRectF(0, area.bottom() - metrics.height() / 2.0, labels, metrics.height()),
                   Qt::AlignRight | Qt::AlignVCenter, m_y.minLabel);
  const QRectF below(area.left(), area.bottom() + Theme::kUnit, area.width(), metrics.height());
  painter.drawText(below, Qt::AlignLeft | Qt::AlignVCenter, m_x.minLabel);
  painter.drawText(below, Qt::AlignRight | Qt::AlignVCenter, m_x.maxLabel);
  painter.drawText(below, Qt::AlignHCenter | Qt::AlignVCenter, m_x.name);
  painter.setRenderHint(QPainter::Antialiasing);
  for (const Mark& mark : m_marks) {
    const QPointF from = mark.level ? toPixel({m_x.min, mark.at}) : toPixel({mark.at, m_y.min});
    const QPointF to = mark.level ? toPixel({m_x.max, mark.at}) : toPixel({mark.at, m_y.max});
    painter.setPen(QPen(theme.secondary, 1, Qt::DashLine));
    painter.drawLine(from, to);
  }
  for (const Line& line : m_lines) {
    QPainterPath path;
    bool open = false;
    for (const QPointF& point : line.points) {
      if (!std::isfinite(point.y())) {
        open = false;
        continue;
      }
      const QPointF pixel = toPixel(point);
      if (open) {
        path.lineTo(pixel);
      } else {
        path.moveTo(pixel);
      }
      open = true;
    }
    painter.setBrush(Qt::NoBrush);
    painter.setPen(QPen(colorOf(line.ink), 2));
    painter.drawPath(path);
    if (!line.dots) continue;
    painter.setPen(Qt::NoPen);
    painter.setBrush(colorOf(line.ink));
    for (qsizetype i = 0; i < line.points.size(); ++i) {
      if (!std::isfinite(line.points[i].y())) continue;
      const double r = i + 1 == line.points.size() ? 4 : line.points.size() > 24 ? 0 : 2;
      painter.drawEllipse(toPixel(line.points[i]), r, r);
    }
  }
  // On top of the curves, with ground of their own.
  for (const Mark& mark : m_marks) {
    const QPointF to = mark.level ? toPixel({m_x.max, mark.at}) : toPixel({mark.at, m_y.max});
    const int wide = metrics.horizontalAdvance(mark.label);
    const bool flip = !mark.level && to.x() + wide + Theme::kUnit > width();
    // Half way up, where few curves are.
    const QRectF plate = mark.level ? QRectF(area.right() - wide, to.y() - metrics.height() - 1, wide, metrics.height())
                                    : QRectF(flip ? to.x() - wide - Theme::kUnit : to.x() + Theme::kUnit,
                                             area.center().y() - metrics.height() / 2.0, wide, metrics.height());
    painter.fillRect(plate, theme.window);
    painter.setPen(theme.text);
    painter.drawText(plate, Qt::AlignCenter, mark.label);
  }
}

SmallBars::SmallBars(QWidget* parent) : QWidget(parent) {}

void SmallBars::setBars(const QString& title, const QVector<Bar>& bars, std::optional<double> threshold,
                        const QVector<QString>& groupNames, bool asShares) {
  m_title = title;
  m_bars = bars;
  m_threshold = threshold;
  m_groupNames = groupNames;
  m_asShares = asShares;
  setAccessibleName(title);
  update();
}

void SmallBars::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const Theme& theme = Theme::current();
  painter.fillRect(rect(), theme.window);
  if (m_bars.isEmpty()) return;
  painter.setFont(fonts::secondary());
  const QFontMetrics metrics(painter.font());
  const int across = width() - 2 * Theme::kEdge;
  painter.setPen(theme.secondary);
  painter.drawText(QRect(Theme::kEdge, Theme::kPad, across, metrics.height()), Qt::AlignLeft | Qt::AlignVCenter,
                   metrics.elidedText(m_title, Qt::ElideRight, across));
  const auto inkOf = [&](int group) { return group < 0 ? theme.slotA : group > 0 ? theme.slotB : theme.secondary; };
  double x = Theme::kEdge;
  for (qsizetype g = 0; g < m_groupNames.size(); ++g) {
    if (m_groupNames[g].isEmpty()) continue;
    const double top = Theme::kPad + metrics.height() + Theme::kUnit;
    painter.fillRect(QRectF(x, top + 3, 8, metrics.height() - 6), inkOf(static_cast<int>(g) - 1));
    painter.drawText(QPointF(x + 12, top + metrics.ascent()), m_groupNames[g]);
    x += 12 + metrics.horizontalAdvance(m_groupNames[g]) + Theme::kGroupGap;
  }
  const QRectF area = QRectF(rect()).adjusted(Theme::kEdge, Theme::kPad + 3.0 * metrics.height() + 2 * Theme::kUnit,
                                              -Theme::kEdge, -metrics.height() - Theme::kPad - Theme::kUnit);
  double top = m_threshold.value_or(0);
  for (const Bar& bar : m_bars)
    if (std::isfinite(bar.value)) top = std::max(top, bar.value);
  if (m_asShares) top = 1.0;
  if (top <= 0) top = 1.0;
  const double step = std::min(area.width() / static_cast<double>(m_bars.size()), 140.0);
  const double start = area.left() + (area.width() - step * static_cast<double>(m_bars.size())) / 2;
  int widest = 0;
  for (const Bar& bar : m_bars) widest = std::max(widest, metrics.horizontalAdvance(bar.name));
  const int every = std::max(1, static_cast<int>(std::ceil((widest + 4) / step)));
  for (qsizetype i = 0; i < m_bars.size(); ++i) {
    const Bar& bar = m_bars[i];
    const double share = std::isfinite(bar.value) ? std::clamp(bar.value / top, 0.0, 1.0) : 0.0;
    const double gap = step > 8 ? step * 0.18 : 0;
    const QRectF box(start + step * static_cast<double>(i) + gap, area.bottom() - share * area.height(), step - 2 * gap,
                     share * area.height());
    const bool grouped =
        std::any_of(m_groupNames.begin(), m_groupNames.end(), [](const QString& s) { return !s.isEmpty(); });
    painter.fillRect(box, grouped      ? inkOf(bar.group)
                          : bar.marked ? theme.accent
                                       : mixed(theme.window, theme.secondary, 0.6));
    if (bar.marked) {
      painter.setPen(QPen(theme.text, 2));
      painter.drawRect(box.adjusted(-2, -2, 2, 0));
    }
    painter.setPen(bar.marked ? theme.text : theme.secondary);
    const QString value = m_asShares                 ? formatPercent(bar.value)
                          : std::isfinite(bar.value) ? formatNumber(bar.value)
                                                     : tr("undefined");
    if (bar.marked || metrics.horizontalAdvance(value) + 4 < step) {
      painter.drawText(QRectF(box.center().x() - 60, box.top() - metrics.height() - 3, 120, metrics.height()),
                       Qt::AlignHCenter | Qt::AlignVCenter, value);
    }
    if (bar.marked || i % every == 0) {
      painter.drawText(QRectF(box.center().x() - 60, area.bottom() + Theme::kUnit, 120, metrics.height()),
                       Qt::AlignHCenter | Qt::AlignVCenter, bar.name);
    }
  }
  painter.setPen(theme.line);
  painter.drawLine(area.bottomLeft(), area.bottomRight());
  if (!m_threshold) return;
  const double y = area.bottom() - *m_threshold / top * area.height();
  painter.setPen(QPen(theme.text, 1, Qt::DashLine));
  painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y));
  const QString name = tr("threshold %1").arg(m_asShares ? formatPercent(*m_threshold) : formatNumber(*m_threshold));
  painter.drawText(QRectF(area.left(), y - metrics.height() - 2, area.width(), metrics.height()),
                   Qt::AlignRight | Qt::AlignVCenter, name);
}

}  // namespace sparsight

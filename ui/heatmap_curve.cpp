// SPDX-License-Identifier: Apache-2.0
#include "ui/heatmap_curve.h"

#include <QMouseEvent>
#include <QPainter>
#include <algorithm>
#include <cmath>
#include <utility>

#include "ui/budget_edit.h"
#include "ui/theme.h"

namespace sparsight {

HeatCurve::HeatCurve(QWidget* parent) : ChartWidget(parent) { setMinimumHeight(84); }
HeatCurve::~HeatCurve() = default;

void HeatCurve::setCurve(const Curve& curve) {
  // Building a chart takes milliseconds, and most changes elsewhere leave it as it is.
  const auto same = [](const QVector<double>& a, const QVector<double>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); });
  };
  if (curve.title == m_values.title && curve.prefix == m_values.prefix && curve.top == m_values.top &&
      same(curve.mean, m_values.mean) && same(curve.min, m_values.min) && same(curve.max, m_values.max))
    return;
  m_values = curve;
  rebuildSoon();
}

void HeatCurve::setCurrent(int index) {
  if (index == m_current) return;
  m_current = index;
  updateOverlay();
}

void HeatCurve::applyTheme() {
  ChartWidget::applyTheme();
  rebuildSoon();
}

void HeatCurve::rebuildSoon() {
  if (std::exchange(m_rebuilds, true)) return;
  QMetaObject::invokeMethod(this, &HeatCurve::rebuild, Qt::QueuedConnection);
}

void HeatCurve::rebuild() {
  m_rebuilds = false;
  const Theme& theme = Theme::current();
  double top = m_values.top;
  Band band;
  band.color = theme.accent;
  Line line;
  line.color = theme.accent;
  line.width = 1.75;
  for (int i = 0; i < m_values.mean.size(); ++i) {
    band.x << i;
    line.points << QPointF(i, m_values.mean[i]);
    if (!std::isnan(m_values.max[i])) top = std::max(top, m_values.max[i]);
  }
  band.lower = m_values.min;
  band.upper = m_values.max;
  setAxes(indexAxis(static_cast<int>(m_values.mean.size()), m_values.prefix, std::max(3, width() / 56)),
          percentAxis(std::min(1.0, top * 1.18), height()));  // room above the curve for the title
  setSeries(band, {line});
}

void HeatCurve::resizeEvent(QResizeEvent* event) {
  ChartWidget::resizeEvent(event);
  rebuildSoon();
}

void HeatCurve::paintOverlay(QPainter& painter) {
  const Theme& theme = Theme::current();
  const QRectF area = plotArea();
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setFont(fonts::secondary());
  const QFontMetricsF metrics(fonts::secondary());
  QRectF title(area.left() + 6, area.top() + 1, 0, metrics.height() + 2);
  title.setWidth(std::min(metrics.horizontalAdvance(m_values.title) + 10, area.width() - 8));
  QColor plate = theme.panel;
  plate.setAlphaF(0.85F);
  painter.fillRect(title, plate);
  painter.setPen(theme.secondary);
  painter.drawText(title.adjusted(4, 0, -4, 0), Qt::AlignLeft | Qt::AlignVCenter,
                   metrics.elidedText(m_values.title, Qt::ElideRight, title.width() - 8));
  // A value between gaps has no line to be on: captured steps are often far apart.
  painter.setPen(Qt::NoPen);
  painter.setBrush(theme.accent);
  const auto missing = [this](int i) { return i < 0 || i >= m_values.mean.size() || std::isnan(m_values.mean[i]); };
  for (int i = 0; i < m_values.mean.size(); ++i) {
    if (missing(i) || !missing(i - 1) || !missing(i + 1)) continue;
    const QPointF point = toPixel({static_cast<double>(i), m_values.mean[i]});
    const double low = toPixel({static_cast<double>(i), m_values.min[i]}).y();
    const double high = toPixel({static_cast<double>(i), m_values.max[i]}).y();
    QColor bar = theme.accent;
    bar.setAlphaF(0.30F);
    painter.fillRect(QRectF(point.x() - 2, high, 4, low - high), bar);
    painter.drawEllipse(point, 3, 3);
  }
  if (m_current < 0 || m_current >= m_values.mean.size()) return;
  const double x = toPixel({static_cast<double>(m_current), 0}).x();
  QColor rule = theme.accent;
  rule.setAlphaF(0.4F);
  painter.setPen(QPen(rule, 1));
  painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()));
  const double value = m_values.mean[m_current];
  if (std::isnan(value)) return;
  const QPointF point = toPixel({static_cast<double>(m_current), value});
  painter.setPen(QPen(theme.panel, 1.5));
  painter.setBrush(theme.accent);
  painter.drawEllipse(point, 4, 4);
  const QString text =
      QStringLiteral("%1%2  %3 %").arg(m_values.prefix).arg(m_current).arg(budget::percentDigits(value));
  painter.setFont(fonts::title());
  const QFontMetricsF bold(fonts::title());
  QRectF label(0, 0, bold.horizontalAdvance(text) + 8, bold.height());
  label.moveCenter({point.x(), point.y() - 14});
  if (label.top() < area.top() + title.height()) label.moveTop(point.y() + 8);
  label.moveLeft(std::clamp(label.left(), area.left(), std::max(area.left(), area.right() - label.width())));
  painter.fillRect(label, plate);
  painter.setPen(theme.text);
  painter.drawText(label, Qt::AlignCenter, text);
}

void HeatCurve::pickAt(QPointF position) {
  if (m_values.mean.isEmpty()) return;
  Q_EMIT picked(
      std::clamp(static_cast<int>(std::lround(toValue(position).x())), 0, static_cast<int>(m_values.mean.size()) - 1));
}
void HeatCurve::mousePressEvent(QMouseEvent* event) {
  if (event->button() == Qt::LeftButton) pickAt(event->position());
}
void HeatCurve::mouseMoveEvent(QMouseEvent* event) {
  if (event->buttons().testFlag(Qt::LeftButton)) pickAt(event->position());
}

}  // namespace sparsight

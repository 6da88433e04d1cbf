// SPDX-License-Identifier: Apache-2.0
#include "ui/cluster_sizes.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <algorithm>
#include <numeric>

#include "ui/theme.h"

namespace sparsight {

ClusterSizes::ClusterSizes(QWidget* parent) : QWidget(parent) {
  setMouseTracking(true);
  setFocusPolicy(Qt::StrongFocus);
}

void ClusterSizes::setSizes(std::vector<Index> sizes, const QString& what) {
  m_sizes = std::move(sizes);
  m_what = what;
  m_order.resize(m_sizes.size());
  std::iota(m_order.begin(), m_order.end(), Index{0});
  const auto size = [this](Index c) { return m_sizes[static_cast<std::size_t>(c)]; };
  std::stable_sort(m_order.begin(), m_order.end(), [&](Index a, Index b) { return size(a) > size(b); });
  m_rank.resize(m_sizes.size());
  for (std::size_t i = 0; i < m_order.size(); ++i) m_rank[static_cast<std::size_t>(m_order[i])] = static_cast<Index>(i);
  if (m_current >= static_cast<Index>(m_sizes.size())) m_current = -1;
  setAccessibleName(summary());
  setToolTip(tr("Tokens per cluster, largest first; arrow keys walk through them"));
  update();
}

void ClusterSizes::setCurrent(Index cluster) {
  if (cluster >= static_cast<Index>(m_sizes.size())) cluster = -1;
  if (cluster == m_current) return;
  m_current = cluster;
  update();
}

QString ClusterSizes::summary() const {
  if (m_sizes.empty()) return {};
  std::vector<Index> filled;
  for (const Index size : m_sizes)
    if (size > 0) filled.push_back(size);
  std::sort(filled.begin(), filled.end());
  const Index empty = static_cast<Index>(m_sizes.size() - filled.size());
  QString text = tr("%1 %2").arg(formatCount(static_cast<qint64>(m_sizes.size())), m_what);
  if (!filled.empty()) {
    text += tr(": %1 to %2 tokens, median %3")
                .arg(formatCount(filled.front()), formatCount(filled.back()), formatCount(filled[filled.size() / 2]));
  }
  if (empty > 0) text += tr(", %1 empty").arg(formatCount(empty));
  return text;
}

QRectF ClusterSizes::plot() const {
  const int top = QFontMetrics(fonts::secondary()).height() + 2 * Theme::kUnit;
  return QRectF(rect()).adjusted(Theme::kPad, top, -Theme::kPad, -Theme::kPad);
}

QRectF ClusterSizes::barRect(Index cluster) const {
  if (cluster < 0 || cluster >= static_cast<Index>(m_sizes.size())) return {};
  const QRectF area = plot();
  const double step = area.width() / static_cast<double>(m_sizes.size());
  const auto largest = static_cast<double>(std::max<Index>(1, m_sizes[static_cast<std::size_t>(m_order.front())]));
  const double h = area.height() * static_cast<double>(m_sizes[static_cast<std::size_t>(cluster)]) / largest;
  const double x = area.left() + step * static_cast<double>(m_rank[static_cast<std::size_t>(cluster)]);
  return {x, area.bottom() - h, std::max(step - (step > 4 ? 1 : 0), 0.5), h};
}

Index ClusterSizes::clusterAt(const QPointF& position) const {
  const QRectF area = plot();
  if (m_sizes.empty() || position.x() < area.left() || position.x() >= area.right()) return -1;
  const auto rank =
      static_cast<Index>((position.x() - area.left()) / area.width() * static_cast<double>(m_sizes.size()));
  return m_order[static_cast<std::size_t>(std::clamp<Index>(rank, 0, static_cast<Index>(m_order.size()) - 1))];
}

void ClusterSizes::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const Theme& theme = Theme::current();
  painter.fillRect(rect(), theme.window);
  painter.setFont(fonts::secondary());
  const QFontMetrics metrics(painter.font());
  painter.setPen(theme.secondary);
  const QRect line(Theme::kPad, Theme::kUnit, width() - 2 * Theme::kPad, metrics.height());
  painter.drawText(line, Qt::AlignLeft | Qt::AlignVCenter, metrics.elidedText(summary(), Qt::ElideRight, line.width()));
  if (m_sizes.empty()) return;
  const QColor bar = mixed(theme.window, theme.slotA, 0.7);
  for (Index c = 0; c < static_cast<Index>(m_sizes.size()); ++c) {
    if (c != m_current) painter.fillRect(barRect(c), bar);
  }
  const QRectF area = plot();
  painter.fillRect(QRectF(area.left(), area.bottom(), area.width(), 1), theme.line);
  if (m_current >= 0) {
    QRectF current = barRect(m_current);
    const double grow = std::max(0.0, (3 - current.width()) / 2);
    current.adjust(-grow, 0, grow, 0);
    painter.fillRect(QRectF(current.left(), area.top(), current.width(), area.height()),
                     mixed(theme.window, theme.accent, 0.25));
    painter.fillRect(current, theme.accent);
  }
  if (hasFocus()) {
    painter.setPen(theme.accent);
    painter.drawRect(rect().adjusted(0, 0, -1, -1));
  }
}

void ClusterSizes::mouseMoveEvent(QMouseEvent* event) {
  const Index cluster = clusterAt(event->position());
  if (cluster >= 0 && cluster != m_current) Q_EMIT pointed(cluster);
}

void ClusterSizes::mousePressEvent(QMouseEvent* event) {
  setFocus(Qt::MouseFocusReason);
  const Index cluster = clusterAt(event->position());
  if (cluster >= 0) Q_EMIT pointed(cluster);
}

void ClusterSizes::keyPressEvent(QKeyEvent* event) {
  const int step = event->key() == Qt::Key_Right ? 1 : event->key() == Qt::Key_Left ? -1 : 0;
  if (step == 0 || m_order.empty()) return QWidget::keyPressEvent(event);
  const Index last = static_cast<Index>(m_order.size()) - 1;
  const Index rank = m_current < 0 ? (step > 0 ? 0 : last)
                                   : std::clamp<Index>(m_rank[static_cast<std::size_t>(m_current)] + step, 0, last);
  Q_EMIT pointed(m_order[static_cast<std::size_t>(rank)]);
}

}  // namespace sparsight

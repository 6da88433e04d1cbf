// SPDX-License-Identifier: Apache-2.0
#include "ui/heatmap_grid.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QPainterPath>
#include <algorithm>
#include <cmath>
#include <limits>

#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr double kBarWidth = 14, kBarGap = 16, kTopTitle = 20, kMaxCell = 56, kMinBar = 160, kGridFrom = 12,
                 kMaxAspect = 2.6;

}  // namespace

double HeatMatrix::at(int row, int column) const {
  if (row < 0 || row >= rows || column < 0 || column >= columns) return std::numeric_limits<double>::quiet_NaN();
  return values[static_cast<std::size_t>(row) * static_cast<std::size_t>(columns) + static_cast<std::size_t>(column)];
}

HeatGrid::HeatGrid(QWidget* parent) : QWidget(parent) {
  setMouseTracking(true);
  setFocusPolicy(Qt::StrongFocus);
  setAccessibleName(tr("Heat map"));
}
HeatGrid::~HeatGrid() = default;

void HeatGrid::setMatrix(HeatMatrix matrix) {
  m_matrix = std::move(matrix);
  if (m_row >= m_matrix.rows || m_column >= m_matrix.columns) m_row = m_column = -1;
  if (m_hoverRow >= m_matrix.rows || m_hoverColumn >= m_matrix.columns) m_hoverRow = m_hoverColumn = -1;
  layoutCells();
  rebuildImage();
  update();
}

void HeatGrid::setCurrent(int row, int column) {
  if (row == m_row && column == m_column) return;
  m_row = row;
  m_column = column;
  update();
}

void HeatGrid::applyTheme() {
  layoutCells();
  rebuildImage();
  update();
}

Palette HeatGrid::shownPalette() const {
  const bool dark = Theme::current().dark;
  if (m_matrix.diverging) return dark ? Palette::DivergingDark : Palette::Diverging;
  return dark ? Palette::Magma : Palette::Viridis;
}

void HeatGrid::layoutCells() {
  if (m_matrix.rows == 0 || m_matrix.columns == 0) {
    m_area = QRectF();
    return;
  }
  const QFontMetricsF metrics(fonts::secondary());
  const double left = metrics.horizontalAdvance(QStringLiteral("L000")) + 18;
  const double bottom = metrics.height() + 8;
  const double right = kBarGap + kBarWidth + metrics.horizontalAdvance(QStringLiteral("-100 %")) + 10;
  const double width = std::max(20.0, this->width() - left - right);
  const double height = std::max(20.0, this->height() - kTopTitle - bottom);
  const auto cell = [](double w, double h, int across, int down) { return std::min(w / across, h / down); };
  // Lying down only when it pays: standing, layers run down as in every table.
  m_transposed =
      cell(width, height, m_matrix.rows, m_matrix.columns) > 1.2 * cell(width, height, m_matrix.columns, m_matrix.rows);
  const int across = m_transposed ? m_matrix.rows : m_matrix.columns;
  const int down = m_transposed ? m_matrix.columns : m_matrix.rows;
  double w = std::min(width / across, kMaxCell * kMaxAspect), h = std::min(height / down, kMaxCell);
  w = std::min(w, h * kMaxAspect);
  h = std::min(h, w * kMaxAspect);
  // Whole device pixels where there are enough of them: equal cells and crisp edges.
  const double ratio = devicePixelRatioF();
  if (w * ratio >= 2) w = std::floor(w * ratio) / ratio;
  if (h * ratio >= 2) h = std::floor(h * ratio) / ratio;
  m_cellWidth = w;
  m_cellHeight = h;
  m_area = QRectF(std::round(left), kTopTitle, w * across, h * down);
  m_bar = QRectF(m_area.right() + kBarGap, m_area.top(), kBarWidth, std::max(kMinBar, m_area.height()));
  m_bar.setBottom(std::min(m_bar.bottom(), static_cast<double>(this->height()) - bottom));
}

void HeatGrid::rebuildImage() {
  if (m_area.isEmpty()) {
    m_image = QImage();
    return;
  }
  const int across = m_transposed ? m_matrix.rows : m_matrix.columns;
  const int down = m_transposed ? m_matrix.columns : m_matrix.rows;
  m_image = QImage(across, down, QImage::Format_ARGB32_Premultiplied);
  const auto table = paletteTable(shownPalette());
  for (int y = 0; y < down; ++y) {
    auto* line = reinterpret_cast<QRgb*>(m_image.scanLine(y));
    for (int x = 0; x < across; ++x) {
      const double value = m_transposed ? m_matrix.at(x, y) : m_matrix.at(y, x);
      if (std::isnan(value)) {
        line[x] = 0;  // the hatch below shows through
        continue;
      }
      const double t = std::clamp(m_matrix.range.fraction(value), 0.0, 1.0);
      const auto entry = static_cast<std::size_t>(std::min(t * kPaletteEntries, kPaletteEntries - 1.0));
      line[x] = qRgb(table[entry].r, table[entry].g, table[entry].b);
    }
  }
}

QRectF HeatGrid::cellRect(int row, int column) const {
  const int x = m_transposed ? row : column, y = m_transposed ? column : row;
  return {m_area.left() + x * m_cellWidth, m_area.top() + y * m_cellHeight, m_cellWidth, m_cellHeight};
}

bool HeatGrid::cellAt(QPointF position, int& row, int& column) const {
  if (m_area.isEmpty() || !m_area.contains(position)) return false;
  const int x = static_cast<int>((position.x() - m_area.left()) / m_cellWidth);
  const int y = static_cast<int>((position.y() - m_area.top()) / m_cellHeight);
  row = std::clamp(m_transposed ? x : y, 0, m_matrix.rows - 1);
  column = std::clamp(m_transposed ? y : x, 0, m_matrix.columns - 1);
  return true;
}

void HeatGrid::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const Theme& theme = Theme::current();
  if (m_area.isEmpty()) return;
  paintNoData(painter, m_area, theme);
  painter.setRenderHint(QPainter::SmoothPixmapTransform, false);
  painter.drawImage(m_area, m_image);
  if (std::min(m_cellWidth, m_cellHeight) >= kGridFrom) {
    QColor gap = theme.panel;
    gap.setAlphaF(0.7F);
    painter.setPen(QPen(gap, 1));
    for (int x = 1; x < m_image.width(); ++x) {
      const double at = m_area.left() + x * m_cellWidth;
      painter.drawLine(QPointF(at, m_area.top()), QPointF(at, m_area.bottom()));
    }
    for (int y = 1; y < m_image.height(); ++y) {
      const double at = m_area.top() + y * m_cellHeight;
      painter.drawLine(QPointF(m_area.left(), at), QPointF(m_area.right(), at));
    }
  }
  paintAxes(painter);
  paintColorBar(painter);
  painter.setRenderHint(QPainter::Antialiasing);
  const auto frame = [&](int row, int column, const QColor& color, double width) {
    const QRectF cell = cellRect(row, column).adjusted(-1, -1, 1, 1);
    // Two lines, so that it is seen on every colour of the map.
    painter.setBrush(Qt::NoBrush);
    painter.setPen(QPen(theme.dark ? QColor(0, 0, 0, 200) : QColor(255, 255, 255, 220), width + 2));
    painter.drawRect(cell);
    painter.setPen(QPen(color, width));
    painter.drawRect(cell);
  };
  if (m_hoverRow >= 0) frame(m_hoverRow, m_hoverColumn, theme.text, 1);
  if (m_row >= 0 && m_column >= 0) frame(m_row, m_column, theme.accent, hasFocus() ? 3 : 2);
}

void HeatGrid::paintAxes(QPainter& painter) const {
  const Theme& theme = Theme::current();
  painter.setFont(fonts::secondary());
  const QFontMetricsF metrics(fonts::secondary());
  const auto stepFor = [](double size, double wanted) {
    for (const int step : {1, 2, 5, 10, 20, 50}) {
      if (size * step >= wanted) return step;
    }
    return 100;
  };
  const int across = m_image.width(), down = m_image.height();
  const QString& xPrefix = m_transposed ? m_matrix.rowPrefix : m_matrix.columnPrefix;
  const QString& yPrefix = m_transposed ? m_matrix.columnPrefix : m_matrix.rowPrefix;
  const std::vector<bool>& xMarks = m_transposed ? m_matrix.markedRows : m_matrix.markedColumns;
  const std::vector<bool>& yMarks = m_transposed ? m_matrix.markedColumns : m_matrix.markedRows;
  const int xStep = stepFor(m_cellWidth, metrics.horizontalAdvance(xPrefix + QStringLiteral("00")) + 12);
  const int yStep = stepFor(m_cellHeight, metrics.height() + 2);
  painter.setPen(theme.secondary);
  for (int x = 0; x < across; x += xStep) {
    const double middle = m_area.left() + (x + 0.5) * m_cellWidth;
    painter.drawText(QRectF(middle - 40, m_area.bottom() + 6, 80, metrics.height()), Qt::AlignHCenter | Qt::AlignTop,
                     xPrefix + QString::number(x));
  }
  for (int y = 0; y < down; y += yStep) {
    const double middle = m_area.top() + (y + 0.5) * m_cellHeight;
    painter.drawText(QRectF(0, middle - 20, m_area.left() - 8, 40), Qt::AlignRight | Qt::AlignVCenter,
                     yPrefix + QString::number(y));
  }
  // Locked layers: a bar beside the cells, told apart from the ticks by shape.
  painter.setPen(Qt::NoPen);
  painter.setBrush(theme.warning);
  for (int x = 0; x < std::min(across, static_cast<int>(xMarks.size())); ++x) {
    if (xMarks[static_cast<std::size_t>(x)]) {
      painter.drawRect(
          QRectF(m_area.left() + x * m_cellWidth + 0.5, m_area.bottom() + 1, std::max(1.0, m_cellWidth - 1), 3));
    }
  }
  for (int y = 0; y < std::min(down, static_cast<int>(yMarks.size())); ++y) {
    if (yMarks[static_cast<std::size_t>(y)]) {
      painter.drawRect(
          QRectF(m_area.left() - 4, m_area.top() + y * m_cellHeight + 0.5, 3, std::max(1.0, m_cellHeight - 1)));
    }
  }
}

void HeatGrid::paintColorBar(QPainter& painter) const {
  const Theme& theme = Theme::current();
  painter.setFont(fonts::secondary());
  const QFontMetricsF metrics(fonts::secondary());
  const auto table = paletteTable(shownPalette());
  const int height = std::max(1, static_cast<int>(m_bar.height()));
  QImage strip(1, height, QImage::Format_RGB32);
  for (int y = 0; y < height; ++y) {
    const auto entry = static_cast<std::size_t>((height - 1 - y) * (kPaletteEntries - 1) / std::max(1, height - 1));
    strip.setPixel(0, y, qRgb(table[entry].r, table[entry].g, table[entry].b));
  }
  painter.drawImage(m_bar, strip);
  painter.setPen(QPen(theme.line, 1));
  painter.setBrush(Qt::NoBrush);
  painter.drawRect(m_bar.adjusted(-0.5, -0.5, 0.5, 0.5));
  painter.setPen(theme.secondary);
  const double titleWidth = metrics.horizontalAdvance(m_matrix.quantity);
  const double titleLeft = std::max(0.0, std::min(m_bar.left(), width() - titleWidth - 8));
  painter.drawText(QPointF(titleLeft, m_bar.top() - 8), m_matrix.quantity);
  const double ratio = m_bar.height() / metrics.height();
  const int wanted = ratio > 12 ? 4 : ratio > 6 ? 2 : 1;  // intervals
  for (int i = 0; i <= wanted; ++i) {
    const double t = static_cast<double>(i) / wanted;
    const double value = m_matrix.range.valueAt(t);
    QString text = m_matrix.percent ? formatPercent(value) : formatNumber(value);
    if (m_matrix.percent && std::abs(value * 100 - std::round(value * 100)) < 1e-6) {
      text = QStringLiteral("%1 %").arg(std::lround(value * 100));
    }
    if (m_matrix.diverging && value > 0) text.prepend(QLatin1Char('+'));
    const double y = m_bar.bottom() - t * m_bar.height();
    painter.drawLine(QPointF(m_bar.right() + 1, y), QPointF(m_bar.right() + 4, y));
    // The end labels stay inside the bar's height and clear of its title.
    const double top = std::clamp(y - metrics.height() / 2, m_bar.top() - 3, m_bar.bottom() - metrics.height() + 3);
    painter.drawText(QRectF(m_bar.right() + 8, top, 80, metrics.height()), Qt::AlignLeft | Qt::AlignVCenter, text);
  }
  const int row = m_hoverRow >= 0 ? m_hoverRow : m_row, column = m_hoverRow >= 0 ? m_hoverColumn : m_column;
  const double value = m_matrix.at(row, column);
  if (!std::isnan(value)) {
    const double y = m_bar.bottom() - std::clamp(m_matrix.range.fraction(value), 0.0, 1.0) * m_bar.height();
    painter.setRenderHint(QPainter::Antialiasing);
    QPainterPath pointer;
    pointer.moveTo(m_bar.left() - 2, y);
    pointer.lineTo(m_bar.left() - 9, y - 5);
    pointer.lineTo(m_bar.left() - 9, y + 5);
    pointer.closeSubpath();
    painter.fillPath(pointer, theme.text);
  }
}

void HeatGrid::resizeEvent(QResizeEvent* event) {
  QWidget::resizeEvent(event);
  layoutCells();
  rebuildImage();
}

void HeatGrid::hover(int row, int column) {
  if (row == m_hoverRow && column == m_hoverColumn) return;
  m_hoverRow = row;
  m_hoverColumn = column;
  update();
  Q_EMIT hovered(row, column);
}

void HeatGrid::mousePressEvent(QMouseEvent* event) {
  int row = -1, column = -1;
  if (event->button() == Qt::LeftButton && cellAt(event->position(), row, column)) {
    setCurrent(row, column);
    Q_EMIT picked(row, column);
  }
}

void HeatGrid::mouseMoveEvent(QMouseEvent* event) {
  int row = -1, column = -1;
  if (!cellAt(event->position(), row, column)) row = column = -1;
  hover(row, column);
  if (event->buttons().testFlag(Qt::LeftButton) && row >= 0 && (row != m_row || column != m_column)) {
    setCurrent(row, column);
    Q_EMIT picked(row, column);
  }
}

void HeatGrid::leaveEvent(QEvent* event) {
  QWidget::leaveEvent(event);
  hover(-1, -1);
}

bool HeatGrid::event(QEvent* event) {
  if (event->type() == QEvent::ShortcutOverride) {
    switch (static_cast<QKeyEvent*>(event)->key()) {
      case Qt::Key_Up:
      case Qt::Key_Down:
      case Qt::Key_Left:
      case Qt::Key_Right:
      case Qt::Key_Home:
      case Qt::Key_End:
        event->accept();
        break;
      default:
        break;
    }
  }
  return QWidget::event(event);
}

void HeatGrid::keyPressEvent(QKeyEvent* event) {
  if (m_matrix.rows == 0) {
    QWidget::keyPressEvent(event);
    return;
  }
  int x = std::max(0, m_transposed ? m_row : m_column), y = std::max(0, m_transposed ? m_column : m_row);
  const int across = m_image.width(), down = m_image.height();
  switch (event->key()) {
    case Qt::Key_Left:
      --x;
      break;
    case Qt::Key_Right:
      ++x;
      break;
    case Qt::Key_Up:
      --y;
      break;
    case Qt::Key_Down:
      ++y;
      break;
    case Qt::Key_Home:
      x = 0;
      if (event->modifiers().testFlag(Qt::ControlModifier)) y = 0;
      break;
    case Qt::Key_End:
      x = across - 1;
      if (event->modifiers().testFlag(Qt::ControlModifier)) y = down - 1;
      break;
    default:
      QWidget::keyPressEvent(event);
      return;
  }
  x = std::clamp(x, 0, across - 1);
  y = std::clamp(y, 0, down - 1);
  const int row = m_transposed ? x : y, column = m_transposed ? y : x;
  if (row == m_row && column == m_column) return;
  setCurrent(row, column);
  Q_EMIT picked(row, column);
}

void HeatGrid::focusInEvent(QFocusEvent* event) {
  QWidget::focusInEvent(event);
  update();
}
void HeatGrid::focusOutEvent(QFocusEvent* event) {
  QWidget::focusOutEvent(event);
  update();
}

}  // namespace sparsight

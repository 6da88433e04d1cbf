// SPDX-License-Identifier: Apache-2.0
#include "ui/heads_grid.h"

#include <QAccessible>
#include <QHelpEvent>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QScrollBar>
#include <QToolTip>
#include <algorithm>
#include <cmath>

#include "ui/theme.h"

namespace sparsight {
namespace {
constexpr int kSmallestCell = 13, kLargestCell = 52, kTextCell = 38, kMarginCell = 22;

QColor mix(const QColor& a, const QColor& b, double t) {
  const auto channel = [t](int from, int to) { return static_cast<int>(std::lround(from + (to - from) * t)); };
  return QColor(channel(a.red(), b.red()), channel(a.green(), b.green()), channel(a.blue(), b.blue()));
}
}  // namespace

HeadsGrid::HeadsGrid(QWidget* parent) : QAbstractScrollArea(parent) {
  setFrameShape(QFrame::NoFrame);
  setFocusPolicy(Qt::StrongFocus);
  viewport()->setMouseTracking(true);
  viewport()->setAutoFillBackground(false);
  setAccessibleName(tr("Heads, layers by heads"));
  setVerticalScrollBarPolicy(Qt::ScrollBarAsNeeded);
}

void HeadsGrid::setCells(std::vector<int> layers, std::vector<int> heads, std::vector<HeadCell> cells) {
  const bool sameShape = layers == m_layers && heads == m_heads;
  m_layers = std::move(layers);
  m_heads = std::move(heads);
  m_cells = std::move(cells);
  if (!sameShape) {
    updateGeometry();
    relayout();
  }
  updateAccessibility();
  viewport()->update();
}

void HeadsGrid::setShowsClasses(bool classes) {
  m_classes = classes;
  viewport()->update();
}

void HeadsGrid::setValueRange(double low, double high) {
  m_low = low;
  m_high = high;
  viewport()->update();
}

void HeadsGrid::setCurrent(int layer, int head) {
  if (layer == m_currentLayer && head == m_currentHead) return;
  m_currentLayer = layer;
  m_currentHead = head;
  ensureVisible(currentPlace());
  updateAccessibility();
  viewport()->update();
}

const HeadCell* HeadsGrid::cell(int layer, int head) const {
  const auto row = std::find(m_layers.begin(), m_layers.end(), layer);
  const auto column = std::find(m_heads.begin(), m_heads.end(), head);
  if (row == m_layers.end() || column == m_heads.end()) return nullptr;
  return &m_cells[static_cast<std::size_t>(row - m_layers.begin()) * m_heads.size() +
                  static_cast<std::size_t>(column - m_heads.begin())];
}

QRect HeadsGrid::cellRect(int layer, int head) const {
  const auto row = std::find(m_layers.begin(), m_layers.end(), layer);
  const auto column = std::find(m_heads.begin(), m_heads.end(), head);
  if (row == m_layers.end() || column == m_heads.end()) return {};
  return rectOf({static_cast<int>(row - m_layers.begin()), static_cast<int>(column - m_heads.begin())});
}

QColor HeadsGrid::valueColor(double unit) {
  const Theme& theme = Theme::current();
  // One hue, lightness alone tells the amount; never as light as the panel itself.
  return mix(mix(theme.panel, theme.accent, 0.10), theme.accent, std::clamp(unit, 0.0, 1.0));
}

int HeadsGrid::headerWidth() const {
  const int last = m_layers.empty() ? 0 : m_layers.back();
  return QFontMetrics(fonts::secondary()).horizontalAdvance(QString::number(std::max(last, 10))) + 8;
}
int HeadsGrid::headerHeight() const { return QFontMetrics(fonts::secondary()).height() + 4; }

int HeadsGrid::cellSizeFor(int width, int height) const {
  if (m_heads.empty()) return kSmallestCell;
  const int fit = (width - headerWidth() - 1) / static_cast<int>(m_heads.size());
  // Rows shrink cells too, as long as they stay comfortable: seeing all layers at once beats large cells.
  int fitRows = kLargestCell;
  if (!m_layers.empty() && height > 0)
    fitRows = std::max(18, (height - headerHeight() - 1) / static_cast<int>(m_layers.size()));
  return std::clamp(std::min(fit, fitRows), kSmallestCell, kLargestCell);
}

QSize HeadsGrid::sizeHint() const { return {232, idealHeight(232)}; }
QSize HeadsGrid::minimumSizeHint() const { return {120, 96}; }

int HeadsGrid::idealHeight(int width) const {
  return headerHeight() + static_cast<int>(m_layers.size()) * cellSizeFor(width, 0) + 2;
}

void HeadsGrid::relayout() {
  m_cell = cellSizeFor(viewport()->width(), viewport()->height());
  const int contentWidth = headerWidth() + m_cell * static_cast<int>(m_heads.size()) + 1;
  const int contentHeight = headerHeight() + m_cell * static_cast<int>(m_layers.size()) + 1;
  horizontalScrollBar()->setRange(0, std::max(0, contentWidth - viewport()->width()));
  horizontalScrollBar()->setPageStep(viewport()->width());
  horizontalScrollBar()->setSingleStep(m_cell);
  verticalScrollBar()->setRange(0, std::max(0, contentHeight - viewport()->height()));
  verticalScrollBar()->setPageStep(viewport()->height());
  verticalScrollBar()->setSingleStep(m_cell);
}

QRect HeadsGrid::rectOf(Place place) const {
  return {headerWidth() + place.column * m_cell - horizontalScrollBar()->value(),
          headerHeight() + place.row * m_cell - verticalScrollBar()->value(), m_cell, m_cell};
}

HeadsGrid::Place HeadsGrid::placeAt(const QPoint& point) const {
  if (point.x() < headerWidth() || point.y() < headerHeight()) return {};
  const int column = (point.x() - headerWidth() + horizontalScrollBar()->value()) / m_cell;
  const int row = (point.y() - headerHeight() + verticalScrollBar()->value()) / m_cell;
  if (column >= static_cast<int>(m_heads.size()) || row >= static_cast<int>(m_layers.size())) return {};
  return {row, column};
}

HeadsGrid::Place HeadsGrid::currentPlace() const {
  const auto row = std::find(m_layers.begin(), m_layers.end(), m_currentLayer);
  const auto column = std::find(m_heads.begin(), m_heads.end(), m_currentHead);
  if (row == m_layers.end() || column == m_heads.end()) return {};
  return {static_cast<int>(row - m_layers.begin()), static_cast<int>(column - m_heads.begin())};
}

void HeadsGrid::ensureVisible(Place place) {
  if (place.row < 0) return;
  const QRect rect = rectOf(place);
  const int left = headerWidth(), top = headerHeight();
  QScrollBar* h = horizontalScrollBar();
  QScrollBar* v = verticalScrollBar();
  if (rect.left() < left) h->setValue(h->value() + rect.left() - left);
  if (rect.right() >= viewport()->width()) h->setValue(h->value() + rect.right() + 1 - viewport()->width());
  if (rect.top() < top) v->setValue(v->value() + rect.top() - top);
  if (rect.bottom() >= viewport()->height()) v->setValue(v->value() + rect.bottom() + 1 - viewport()->height());
}

void HeadsGrid::moveTo(Place place) {
  if (place.row < 0 || m_heads.empty() || m_layers.empty()) return;
  place.row = std::clamp(place.row, 0, static_cast<int>(m_layers.size()) - 1);
  place.column = std::clamp(place.column, 0, static_cast<int>(m_heads.size()) - 1);
  const int layer = m_layers[static_cast<std::size_t>(place.row)];
  const int head = m_heads[static_cast<std::size_t>(place.column)];
  if (layer == m_currentLayer && head == m_currentHead) return;
  setCurrent(layer, head);
  Q_EMIT currentChanged(layer, head);
}

void HeadsGrid::paintCell(QPainter& painter, const QRect& rect, const HeadCell& cell) const {
  const Theme& theme = Theme::current();
  const QRectF inner = QRectF(rect).adjusted(1, 1, -1, -1);
  if (!cell.captured) {
    paintNoData(painter, inner, theme);
    return;
  }
  if (m_classes) {
    // Below a third of margin the vote is a coin toss: paler glyph, and from there on a bar says how sure it is.
    const double side = std::clamp(m_cell * 0.62, 8.0, 20.0);
    const bool bar = m_cell >= kMarginCell && cell.margin.has_value();
    QRectF box(inner.center().x() - side / 2, inner.center().y() - side / 2 - (bar ? 2 : 0), side, side);
    painter.setOpacity(!cell.classKnown ? 0.55
                       : cell.margin    ? 0.5 + 0.5 * std::clamp(*cell.margin / 0.35, 0.0, 1.0)
                                        : 1.0);
    paintClassGlyph(painter, box, cell.headClass, theme);
    painter.setOpacity(1.0);
    if (bar) {
      const QRectF track(inner.center().x() - side / 2, inner.bottom() - 4, side, 2);
      painter.fillRect(track, theme.grid);
      painter.fillRect(QRectF(track.left(), track.top(), track.width() * std::clamp(*cell.margin, 0.0, 1.0), 2),
                       theme.secondary);
    }
    return;
  }
  if (!cell.value) {
    painter.setPen(QPen(theme.line, 1));
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(inner.adjusted(0.5, 0.5, -0.5, -0.5));
    if (m_cell >= kTextCell) {
      painter.setPen(theme.disabled);
      painter.drawText(inner, Qt::AlignCenter, QStringLiteral("\u2013"));
    }
    return;
  }
  const double unit = m_high > m_low ? (*cell.value - m_low) / (m_high - m_low) : 0.5;
  const QColor fill = valueColor(unit);
  painter.fillRect(inner, fill);
  if (m_cell >= kTextCell) {
    painter.setPen(contrastRatio(theme.text, fill) >= contrastRatio(theme.onAccent, fill) ? theme.text
                                                                                          : theme.onAccent);
    painter.drawText(inner, Qt::AlignCenter, cell.valueText);
  }
}

void HeadsGrid::paintEvent(QPaintEvent*) {
  QPainter painter(viewport());
  const Theme& theme = Theme::current();
  painter.fillRect(viewport()->rect(), theme.panel);
  if (m_layers.empty() || m_heads.empty()) return;
  const int left = headerWidth(), top = headerHeight();
  const int firstRow = verticalScrollBar()->value() / m_cell;
  const int lastRow = std::min(static_cast<int>(m_layers.size()) - 1,
                               (verticalScrollBar()->value() + viewport()->height() - top) / m_cell);
  const int firstColumn = horizontalScrollBar()->value() / m_cell;
  const int lastColumn = std::min(static_cast<int>(m_heads.size()) - 1,
                                  (horizontalScrollBar()->value() + viewport()->width() - left) / m_cell);
  painter.setRenderHint(QPainter::Antialiasing);
  const QFont small = fonts::secondary();
  painter.setFont(small);
  painter.save();
  painter.setClipRect(left, top, viewport()->width() - left, viewport()->height() - top);
  for (int row = firstRow; row <= lastRow; ++row)
    for (int column = firstColumn; column <= lastColumn; ++column)
      paintCell(painter, rectOf({row, column}),
                m_cells[static_cast<std::size_t>(row) * m_heads.size() + static_cast<std::size_t>(column)]);
  painter.setRenderHint(QPainter::Antialiasing, false);
  if (m_hover.row >= 0 && m_hover.row < static_cast<int>(m_layers.size()) &&
      m_hover.column < static_cast<int>(m_heads.size())) {
    painter.setPen(QPen(theme.secondary, 1));
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(rectOf(m_hover).adjusted(0, 0, -1, -1));
  }
  const Place current = currentPlace();
  if (current.row >= 0) {
    QPen pen(theme.accent, 2);
    pen.setJoinStyle(Qt::MiterJoin);
    painter.setPen(pen);
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(rectOf(current).adjusted(1, 1, -1, -1));
    if (hasFocus()) {
      painter.setPen(QPen(theme.text, 1));
      painter.drawRect(rectOf(current).adjusted(-1, -1, 0, 0));
    }
  }
  painter.restore();

  // Sticky headers: numbers as dense as they fit, always the current ones.
  painter.setFont(small);
  const QFontMetrics metrics(small);
  const auto every = [&](int room) {
    for (const int step : {1, 2, 5, 10, 20, 50})
      if (step * m_cell >= room) return step;
    return 100;
  };
  const int rowStep = every(metrics.height() + 1);
  const int columnStep = every(metrics.horizontalAdvance(QStringLiteral("00")) + 4);
  painter.save();
  painter.setClipRect(0, top, left, viewport()->height() - top);
  for (int row = firstRow; row <= lastRow; ++row) {
    const bool isCurrent = row == current.row;
    const int nearCurrent = current.row < 0 ? rowStep : std::abs(row - current.row);
    if (!isCurrent && (row % rowStep != 0 || nearCurrent * m_cell < metrics.height())) continue;
    painter.setPen(isCurrent ? theme.text : theme.secondary);
    const QRect r = rectOf({row, 0});
    painter.drawText(QRect(0, r.top(), left - 5, r.height()), Qt::AlignRight | Qt::AlignVCenter,
                     QString::number(m_layers[static_cast<std::size_t>(row)]));
  }
  painter.restore();
  painter.setClipRect(left, 0, viewport()->width() - left, top);
  for (int column = firstColumn; column <= lastColumn; ++column) {
    const bool isCurrent = column == current.column;
    const int nearCurrent = current.column < 0 ? columnStep : std::abs(column - current.column);
    if (!isCurrent &&
        (column % columnStep != 0 || nearCurrent * m_cell < metrics.horizontalAdvance(QStringLiteral("00")) + 2))
      continue;
    painter.setPen(isCurrent ? theme.text : theme.secondary);
    const QRect r = rectOf({0, column});
    painter.drawText(QRect(r.left() - 8, 0, r.width() + 16, top - 2), Qt::AlignCenter,
                     QString::number(m_heads[static_cast<std::size_t>(column)]));
  }
}

void HeadsGrid::resizeEvent(QResizeEvent*) { relayout(); }

void HeadsGrid::mousePressEvent(QMouseEvent* event) {
  if (event->button() == Qt::LeftButton) moveTo(placeAt(event->position().toPoint()));
}

void HeadsGrid::mouseDoubleClickEvent(QMouseEvent* event) {
  const Place place = placeAt(event->position().toPoint());
  if (place.row >= 0) Q_EMIT activated(m_currentLayer, m_currentHead);
}

void HeadsGrid::mouseMoveEvent(QMouseEvent* event) {
  const Place place = placeAt(event->position().toPoint());
  if (event->buttons() & Qt::LeftButton) moveTo(place);
  if (place == m_hover) return;
  m_hover = place;
  viewport()->setCursor(place.row >= 0 ? Qt::PointingHandCursor : Qt::ArrowCursor);
  viewport()->update();
}

void HeadsGrid::leaveEvent(QEvent*) {
  m_hover = {};
  viewport()->update();
}

void HeadsGrid::keyPressEvent(QKeyEvent* event) {
  Place place = currentPlace();
  const bool control = event->modifiers() & Qt::ControlModifier;
  const int page = std::max(1, (viewport()->height() - headerHeight()) / m_cell - 1);
  switch (event->key()) {
    case Qt::Key_Left:
      --place.column;
      break;
    case Qt::Key_Right:
      ++place.column;
      break;
    case Qt::Key_Up:
      --place.row;
      break;
    case Qt::Key_Down:
      ++place.row;
      break;
    case Qt::Key_PageUp:
      place.row -= page;
      break;
    case Qt::Key_PageDown:
      place.row += page;
      break;
    case Qt::Key_Home:
      place.column = 0;
      if (control) place.row = 0;
      break;
    case Qt::Key_End:
      place.column = static_cast<int>(m_heads.size()) - 1;
      if (control) place.row = static_cast<int>(m_layers.size()) - 1;
      break;
    case Qt::Key_Return:
    case Qt::Key_Enter:
      Q_EMIT activated(m_currentLayer, m_currentHead);
      return;
    default:
      QAbstractScrollArea::keyPressEvent(event);
      return;
  }
  place.row = std::max(place.row, 0);
  moveTo(place);
}

bool HeadsGrid::viewportEvent(QEvent* event) {
  if (event->type() == QEvent::ToolTip) {
    const auto* help = static_cast<QHelpEvent*>(event);
    const Place place = placeAt(help->pos());
    if (place.row >= 0) {
      const HeadCell& hovered =
          m_cells[static_cast<std::size_t>(place.row) * m_heads.size() + static_cast<std::size_t>(place.column)];
      QToolTip::showText(help->globalPos(), hovered.accessible, viewport(), rectOf(place));
    } else {
      QToolTip::hideText();
    }
    return true;
  }
  return QAbstractScrollArea::viewportEvent(event);
}

void HeadsGrid::focusInEvent(QFocusEvent* event) {
  QAbstractScrollArea::focusInEvent(event);
  viewport()->update();
}
void HeadsGrid::focusOutEvent(QFocusEvent* event) {
  QAbstractScrollArea::focusOutEvent(event);
  viewport()->update();
}
void HeadsGrid::changeEvent(QEvent* event) {
  QAbstractScrollArea::changeEvent(event);
  if (event->type() == QEvent::FontChange || event->type() == QEvent::StyleChange) relayout();
}

void HeadsGrid::updateAccessibility() {
  const HeadCell* current = cell(m_currentLayer, m_currentHead);
  const QString text = current != nullptr ? current->accessible : QString();
  if (text == accessibleDescription()) return;
  setAccessibleDescription(text);
  QAccessibleEvent event(this, QAccessible::DescriptionChanged);
  QAccessible::updateAccessibility(&event);
}

}  // namespace sparsight

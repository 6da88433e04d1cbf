// SPDX-License-Identifier: Apache-2.0
// Mouse, keyboard and readout of TileCanvas.
#include <QApplication>
#include <QClipboard>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QNativeGestureEvent>
#include <QPointer>
#include <QWheelEvent>
#include <algorithm>
#include <cmath>

#include "ui/canvas/tile_canvas.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr double kNotch = 1.2, kFineNotch = 1.05;
constexpr int kMinBox = 20;       // smaller boxes are a slip of the hand
constexpr int kDragDistance = 4;  // below: a click

bool samePlace(const MapViewport& a, const MapViewport& b) {
  const double tolerance = 1e-6 * (b.rows + b.cols) + 1e-9;
  return std::abs(a.row0 - b.row0) < tolerance && std::abs(a.col0 - b.col0) < tolerance &&
         std::abs(a.rows - b.rows) < tolerance && std::abs(a.cols - b.cols) < tolerance;
}

}  // namespace

bool TileCanvas::event(QEvent* event) {
  if (event->type() == QEvent::NativeGesture) {
    auto* gesture = static_cast<QNativeGestureEvent*>(event);
    if (gesture->gestureType() == Qt::ZoomNativeGesture) {
      const double factor = std::clamp(1.0 + gesture->value(), 0.5, 2.0);
      zoomAt(gesture->position(), factor, factor);
      return true;
    }
  }
  return QWidget::event(event);
}

void TileCanvas::wheelEvent(QWheelEvent* event) {
  if (!m_map) return;
  // Qt turns Alt+wheel, and some platforms Shift+wheel, into a horizontal delta.
  const QPoint delta = event->angleDelta();
  const int amount = delta.y() != 0 ? delta.y() : delta.x();
  if (amount == 0) return;
  const Qt::KeyboardModifiers keys = event->modifiers();
  const double factor = std::pow(keys.testFlag(Qt::ControlModifier) ? kFineNotch : kNotch, amount / 120.0);
  const bool keysOnly = keys.testFlag(Qt::AltModifier), queriesOnly = keys.testFlag(Qt::ShiftModifier);
  zoomAt(event->position(), queriesOnly ? 1.0 : factor, keysOnly ? 1.0 : factor);
  hoverAt(event->position());
  event->accept();
}

void TileCanvas::mousePressEvent(QMouseEvent* event) {
  setFocus(Qt::MouseFocusReason);
  m_pressed = m_last = event->position();
  m_moved = false;
  m_drag = Drag::None;
  if (!m_map || !m_plot.contains(event->position().toPoint())) return;
  m_dragStart = m_view;
  if (event->button() == Qt::RightButton) {
    m_drag = Drag::Pick;
    pickAt(event->position());
  } else if (event->button() == Qt::LeftButton || event->button() == Qt::MiddleButton) {
    const QPointF inPlot = event->position() - QPointF(m_plot.topLeft());
    if (event->button() == Qt::LeftButton && minimapRect().contains(inPlot.toPoint())) {
      m_drag = Drag::Minimap;
      pushHistory(false);
      mouseMoveEvent(event);
    } else if (event->button() == Qt::LeftButton && event->modifiers().testFlag(Qt::ControlModifier)) {
      m_drag = Drag::Box;
    } else {
      m_drag = Drag::Pan;
    }
  }
}

void TileCanvas::mouseMoveEvent(QMouseEvent* event) {
  const QPointF p = event->position();
  if (!m_moved && (p - m_pressed).manhattanLength() >= kDragDistance) {
    m_moved = true;
    if (m_drag == Drag::Pan) setCursor(Qt::ClosedHandCursor);
  }
  m_last = p;
  switch (m_drag) {
    case Drag::Pan: {
      if (!m_moved) break;
      MapViewport next = m_dragStart;
      next.col0 -= (p.x() - m_pressed.x()) / m_plot.width() * m_view.cols;
      next.row0 -= (p.y() - m_pressed.y()) / m_plot.height() * m_view.rows;
      next.cols = m_view.cols;
      next.rows = m_view.rows;
      setViewport(next);
      return;
    }
    case Drag::Box:
      m_surface->widget()->update();
      return;
    case Drag::Pick:
      pickAt(p);
      return;
    case Drag::Minimap: {
      const QRectF map = minimapRect().translated(m_plot.topLeft());
      if (map.isEmpty()) return;
      MapViewport next = m_view;
      next.col0 = (p.x() - map.left()) / map.width() * static_cast<double>(m_map->cols()) - m_view.cols / 2;
      next.row0 = (p.y() - map.top()) / map.height() * static_cast<double>(m_map->rows()) - m_view.rows / 2;
      setViewport(next);
      return;
    }
    case Drag::None:
      break;
  }
  hoverAt(p);
}

void TileCanvas::mouseReleaseEvent(QMouseEvent* event) {
  const Drag drag = m_drag;
  m_drag = Drag::None;
  unsetCursor();
  if (!m_map) return;
  if (drag == Drag::Box) {
    const QRectF box = QRectF(m_pressed, event->position()).normalized().intersected(QRectF(m_plot));
    m_surface->widget()->update();
    if (box.width() < kMinBox || box.height() < kMinBox) return;
    const QPointF a = tokenAt(box.topLeft()), b = tokenAt(box.bottomRight());
    MapViewport next{a.y(), a.x(), b.y() - a.y(), b.x() - a.x()};
    if (m_aspect) {  // grow the shorter side: everything in the box stays visible
      const double scale = std::max(next.cols / m_plot.width(), next.rows / m_plot.height());
      next.col0 -= (scale * m_plot.width() - next.cols) / 2;
      next.row0 -= (scale * m_plot.height() - next.rows) / 2;
      next.cols = scale * m_plot.width();
      next.rows = scale * m_plot.height();
    }
    setViewport(next, true);
  } else if (drag == Drag::Pan) {
    if (!m_moved && event->button() == Qt::LeftButton) {
      pickAt(event->position());
    } else if (m_moved && !samePlace(m_dragStart, m_view)) {
      const MapViewport now = m_view;
      m_view = m_dragStart;
      pushHistory(false);
      m_view = now;
    }
  }
  hoverAt(event->position());
}

void TileCanvas::mouseDoubleClickEvent(QMouseEvent* event) {
  if (!m_map || event->button() != Qt::LeftButton || !m_plot.contains(event->position().toPoint())) return;
  const QPointF token = tokenAt(event->position());
  const MapViewport target = bandViewport(std::clamp<Index>(static_cast<Index>(token.y()), 0, m_map->rows() - 1),
                                          std::clamp<Index>(static_cast<Index>(token.x()), 0, m_map->cols() - 1));
  if (samePlace(target, m_view) && !m_back.empty()) {
    zoomBack();
  } else {
    setViewport(target, true);
  }
}

void TileCanvas::leaveEvent(QEvent*) {
  if (m_map) updateReadout(m_pickedRow, m_pickedCol);
}

void TileCanvas::keyPressEvent(QKeyEvent* event) {
  if (!m_map) return QWidget::keyPressEvent(event);
  const Qt::KeyboardModifiers keys = event->modifiers() & ~Qt::KeypadModifier;
  const bool plain = keys == Qt::NoModifier, shift = keys == Qt::ShiftModifier;
  const Index cell = Index{1} << targetLevel();
  const auto band = [](const AxisSpec& axis, Index position, int direction, Index fallback) {
    for (std::size_t i = 0; i < axis.bands.size(); ++i) {
      if (position < axis.bands[i].first || position >= axis.bands[i].last) continue;
      const auto next = static_cast<std::ptrdiff_t>(i) + direction;
      if (next < 0 || next >= static_cast<std::ptrdiff_t>(axis.bands.size())) return Index{0};
      return axis.bands[static_cast<std::size_t>(next)].first - axis.bands[i].first;
    }
    return direction * fallback;
  };
  const auto move = [&](int rows, int cols) {
    if (keys.testFlag(Qt::ControlModifier)) {
      movePicked(rows == 0 ? 0 : band(m_queries, m_pickedRow, rows, 64 * cell),
                 cols == 0 ? 0 : band(m_keys, m_pickedCol, cols, 64 * cell));
    } else {
      const Index step = cell * (keys.testFlag(Qt::ShiftModifier) ? 16 : 1);
      movePicked(rows * step, cols * step);
    }
  };
  ColorSettings colors = m_colors;
  switch (event->key()) {
    case Qt::Key_Left:
      if (keys == Qt::AltModifier) return zoomBack();
      return move(0, -1);
    case Qt::Key_Right:
      if (keys == Qt::AltModifier) return zoomForward();
      return move(0, 1);
    case Qt::Key_Up:
      return move(-1, 0);
    case Qt::Key_Down:
      return move(1, 0);
    case Qt::Key_PageUp:
      Q_EMIT navigate(0, -1, 0);
      return;
    case Qt::Key_PageDown:
      Q_EMIT navigate(0, 1, 0);
      return;
    case Qt::Key_BracketLeft:
      Q_EMIT navigate(0, 0, -1);
      return;
    case Qt::Key_BracketRight:
      Q_EMIT navigate(0, 0, 1);
      return;
    case Qt::Key_Comma:
      Q_EMIT navigate(-1, 0, 0);
      return;
    case Qt::Key_Period:
      Q_EMIT navigate(1, 0, 0);
      return;
    default:
      break;
  }
  if (keys == Qt::ControlModifier && event->key() == Qt::Key_C) {
    QApplication::clipboard()->setPixmap(grab());
    return;
  }
  if (keys == (Qt::ControlModifier | Qt::ShiftModifier) && event->key() == Qt::Key_C) {
    QApplication::clipboard()->setText(readoutText());
    return;
  }
  const QPointF centre = QRectF(m_plot).center();
  if (plain || shift) {
    switch (event->key()) {
      case Qt::Key_F:
      case Qt::Key_0:
      case Qt::Key_Home:
        return fitAll();
      case Qt::Key_1: {
        const QSize pixels = surfacePixels();
        const MapViewport old = m_view;
        setViewport({old.row0 + (old.rows - pixels.height()) / 2, old.col0 + (old.cols - pixels.width()) / 2,
                     static_cast<double>(pixels.height()), static_cast<double>(pixels.width())},
                    true);
        return;
      }
      case Qt::Key_Plus:
      case Qt::Key_Equal:
        return zoomAt(centre, kNotch, kNotch);
      case Qt::Key_Minus:
        return zoomAt(centre, 1 / kNotch, 1 / kNotch);
      case Qt::Key_M:
        return setMinimapShown(!m_minimap);
      case Qt::Key_G:
        return setGridShown(!m_grid);
      case Qt::Key_A:
        return setAspectLocked(!m_aspect);
      case Qt::Key_L:
        return setScale(colors.range.scale == ValueScale::Log ? ValueScale::Linear : ValueScale::Log);
      case Qt::Key_C: {
        const auto& all = sequentialPalettes();
        const auto now = std::find(all.begin(), all.end(), colors.palette);
        colors.palette = now == all.end() || std::next(now) == all.end() ? all.front() : *std::next(now);
        return setColors(colors);
      }
      case Qt::Key_R:
        return shift ? resetRange() : fitRange();
      default:
        break;
    }
  }
  QWidget::keyPressEvent(event);
}

// ---------------------------------------------------------------- readout

void TileCanvas::hoverAt(const QPointF& p) {
  if (!m_map) return;
  if (!m_plot.contains(p.toPoint())) {
    updateReadout(m_pickedRow, m_pickedCol);
    return;
  }
  const QPointF token = tokenAt(p);
  updateReadout(std::clamp<Index>(static_cast<Index>(std::floor(token.y())), 0, m_map->rows() - 1),
                std::clamp<Index>(static_cast<Index>(std::floor(token.x())), 0, m_map->cols() - 1));
}

void TileCanvas::updateReadout(Index row, Index col) {
  const bool sameCell = row == m_readout.row && col == m_readout.col;
  if (!sameCell) {
    m_readoutJob.cancel();
    m_readoutPending = false;
  }
  CanvasReadout next;
  next.row = row;
  next.col = col;
  if (m_map && row >= 0 && col >= 0) {
    if (const auto exact = m_map->readoutIfKnown(row, col)) {
      next.exact = true;
      next.valid = exact->valid;
      next.probability = exact->probability;
      next.logit = exact->logit;
      m_restTimer.stop();
    } else if (sameCell && m_readout.exact) {
      next = m_readout;
    } else {
      // The finest cell at hand, until the mouse rests.
      for (int z = 0; z <= m_map->maxLevel(); ++z) {
        const Index y = row >> z, x = col >> z;
        const auto tile = findTile({z, x / kTileCells, y / kTileCells, m_reduce});
        if (!tile) continue;
        const float value = tile->values[static_cast<std::size_t>((y % kTileCells) * tile->cellCols + x % kTileCells)];
        next.valid = !std::isnan(value);
        if (next.valid) next.probability = static_cast<double>(value);
        break;
      }
      m_restTimer.start();
    }
    if (m_overlay && next.valid) next.kept = m_overlay->kept(row, col, next.exact ? next.probability : std::nullopt);
  } else {
    m_restTimer.stop();
  }
  m_readout = next;
  m_bar->setMarkedValue(next.valid ? next.probability : std::nullopt);
  update(QRect(0, m_plot.bottom() + 1, width(), height() - m_plot.bottom()));
  const QString text = readoutText();
  setAccessibleDescription(text);
  Q_EMIT readoutChanged(text);
}

void TileCanvas::requestReadout() {
  if (!m_map || m_readout.row < 0 || m_readout.exact) return;
  const QPointer<TileCanvas> self(this);
  const auto map = m_map;
  const Index row = m_readout.row, col = m_readout.col;
  JobSpec spec;
  spec.name = "Readout";
  spec.lane = Lane::Tiles;
  spec.supersedeTag = m_tag + "/readout";
  spec.priority = 1000;
  m_readoutPending = true;
  m_readoutJob = m_jobs.submit<PairReadout>(
      spec,
      [map, row, col](JobContext& context) { return map->readout(row, col, context.backend(), context.control()); },
      [self, map, row, col](Outcome<PairReadout> outcome) {
        if (!self || self->m_map != map || self->m_readout.row != row || self->m_readout.col != col) return;
        self->m_readoutPending = false;
        if (std::holds_alternative<PairReadout>(outcome)) self->updateReadout(row, col);  // its row's LSE is known now
        self->checkSettled();
      });
}

void TileCanvas::pickAt(const QPointF& p) {
  const QPointF token = tokenAt(p);
  const Index row = std::clamp<Index>(static_cast<Index>(std::floor(token.y())), 0, m_map->rows() - 1);
  const Index col = std::clamp<Index>(static_cast<Index>(std::floor(token.x())), 0, m_map->cols() - 1);
  m_pickedRow = row;
  m_pickedCol = col;
  updateReadout(row, col);
  m_surface->widget()->update();
  Q_EMIT picked(row, col);
}

void TileCanvas::setPicked(Index row, Index col) {
  if (!m_map || row >= m_map->rows() || col >= m_map->cols()) return;
  if (row == m_pickedRow && col == m_pickedCol) return;
  m_pickedRow = row;
  m_pickedCol = col;
  if (row >= 0 && col >= 0) {
    updateReadout(row, col);
    MapViewport next = m_view;
    const auto reveal = [](double position, double first, double count) {
      const double margin = std::min(count / 8, 8.0);
      if (position < first + margin) return position - margin;
      if (position + 1 > first + count - margin) return position + 1 - count + margin;
      return first;
    };
    next.row0 = reveal(static_cast<double>(row), m_view.row0, m_view.rows);
    next.col0 = reveal(static_cast<double>(col), m_view.col0, m_view.cols);
    setViewport(next);
  }
  m_surface->widget()->update();
}

void TileCanvas::movePicked(Index rows, Index cols) {
  if (m_pickedRow < 0 || m_pickedCol < 0) {
    setPicked(static_cast<Index>(m_view.row0 + m_view.rows / 2), static_cast<Index>(m_view.col0 + m_view.cols / 2));
  } else {
    setPicked(std::clamp<Index>(m_pickedRow + rows, 0, m_map->rows() - 1),
              std::clamp<Index>(m_pickedCol + cols, 0, m_map->cols() - 1));
  }
  Q_EMIT picked(m_pickedRow, m_pickedCol);
}

std::vector<std::pair<QString, bool>> TileCanvas::readoutPieces() const {
  std::vector<std::pair<QString, bool>> out;  // text, is a label
  if (!m_map || m_readout.row < 0 || m_readout.col < 0) return out;
  const HeadData& head = m_map->head();
  const Index query = head.queryToken(m_map->queryRowAt(m_readout.row)), key = m_map->keyAt(m_readout.col);
  // Figure spaces keep every field as wide as its widest value, so that nothing jumps while the mouse moves.
  const QChar pad(0x2007);
  const auto widest = [&](Index count) { return formatCount(std::max<Index>(count, 1) - 1).size(); };
  const auto place = [&](Index token) {
    const QString text = QString::fromStdString(head.layout.describe(token));
    const Index last =
        head.layout.video() != nullptr ? head.layout.video()->start + head.layout.video()->length - 1 : 0;
    return QStringLiteral("(%1)").arg(text).leftJustified(QString::fromStdString(head.layout.describe(last)).size() + 2,
                                                          pad);
  };
  const Index tokens = std::max(head.layout.tokenCount, std::max(m_map->rows(), m_map->cols()));
  const auto field = [](const QString& text, qsizetype width) { return text.leftJustified(width, QChar(0x2007)); };
  out.emplace_back(tr("q"), true);
  out.emplace_back(formatCount(query).rightJustified(widest(tokens), pad), false);
  out.emplace_back(place(query), true);
  out.emplace_back(QStringLiteral("\u2192  k"), true);
  out.emplace_back(formatCount(key).rightJustified(widest(tokens), pad), false);
  out.emplace_back(place(key), true);
  out.emplace_back(QString(), true);
  if (!m_readout.valid) {
    out.emplace_back(tr("masked: no attention here"), false);
    return out;
  }
  out.emplace_back(tr("p"), true);
  out.emplace_back(field(m_readout.probability ? formatNumber(*m_readout.probability) : QStringLiteral("\u2013"), 8),
                   false);
  out.emplace_back(tr("logit"), true);
  out.emplace_back(
      field(m_readout.logit ? QString::number(*m_readout.logit, 'f', 2).replace(QLatin1Char('-'), QChar(0x2212))
                            : QStringLiteral("\u2013"),
            6),
      false);
  if (m_overlay) {
    out.emplace_back(tr("kept:"), true);
    out.emplace_back(!m_readout.kept ? QStringLiteral("\u2013") : (*m_readout.kept ? tr("yes") : tr("no")), false);
  }
  if (!m_readout.exact) out.emplace_back(tr("approx."), true);
  return out;
}

QString TileCanvas::readoutText() const {
  QStringList parts;
  for (const auto& [text, label] : readoutPieces()) {
    QString clean = text;
    clean.remove(QChar(0x2007));
    if (!clean.isEmpty()) parts << clean;
  }
  return parts.join(QLatin1Char(' '));
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "ui/budget_curve.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QPainterPath>
#include <algorithm>
#include <cmath>
#include <limits>

#include "ui/profile_document.h"
#include "ui/style.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr double kPointRadius = 4.5, kHitRadius = 11;
constexpr double kSmoothPixelsPerPass = 16;
constexpr int kMaxSmoothPasses = 12;
const double kNaN = std::numeric_limits<double>::quiet_NaN();

int nudgeMergeId(const std::vector<int>& layers, const BudgetScope& scope) {
  // FNV-1a: another selection or scope must not continue the burst.
  std::uint64_t hash = 1469598103934665603U;
  const auto mix = [&hash](int v) {
    hash = (hash ^ static_cast<std::uint64_t>(v + 2)) * std::uint64_t{1099511628211U};
  };
  for (const int layer : layers) mix(layer);
  mix(scope.step.value_or(-1));
  mix(scope.head.value_or(-1));
  return static_cast<int>(hash & 0xffffff) + 1;
}

}  // namespace

BudgetCurve::BudgetCurve(ProfileModel& model, QWidget* parent) : ChartWidget(parent), m_model(model) {
  setFocusPolicy(Qt::StrongFocus);
  setMouseTracking(true);
  setAccessibleName(tr("Budget curve"));
  setAccessibleDescription(tr("Kept fraction per layer. Arrow keys choose a layer and change its value."));
  m_editor = new QLineEdit(this);
  m_editor->setObjectName(QStringLiteral("budget.typeValue"));
  m_editor->setAccessibleName(tr("Kept percent"));
  m_editor->setFixedWidth(96);
  m_editor->hide();
  m_editor->installEventFilter(this);
  connect(&m_model, &QAbstractItemModel::dataChanged, this, [this] { rebuild(); });
  connect(&m_model, &QAbstractItemModel::modelReset, this, [this] {
    m_selected.clear();
    m_current = std::min(m_current, m_model.rowCount() - 1);
    m_hover = -1;
    m_drag = Drag::None;
    m_editor->hide();
    m_editedLayer = -1;
    m_readout.clear();
    // A chart takes milliseconds: one that is not looked at waits until it is.
    m_stale = !isVisible();
    if (!m_stale) rebuild();
    Q_EMIT selectionChanged();
  });
  rebuild();
}

BudgetCurve::~BudgetCurve() = default;

void BudgetCurve::setCurrentLayer(int layer) {
  layer = std::clamp(layer, -1, m_model.rowCount() - 1);
  if (layer == m_current) return;
  m_current = layer;
  updateOverlay();
}

void BudgetCurve::setSelectedLayers(const std::set<int>& layers) {
  if (layers == m_selected) return;
  m_selected = layers;
  updateOverlay();
  Q_EMIT selectionChanged();
}

void BudgetCurve::setBrush(bool on) {
  if (on == m_brush) return;
  m_brush = on;
  setCursor(on ? Qt::CrossCursor : Qt::ArrowCursor);
  updateOverlay();
  Q_EMIT brushChanged(on);
}

void BudgetCurve::setTarget(std::optional<double> target) {
  if (target == m_target) return;
  m_target = target;
  rebuild();
}

void BudgetCurve::applyTheme() {
  ChartWidget::applyTheme();
  rebuild();
}

QPointF BudgetCurve::pointOf(int layer) const {
  const auto& layers = m_model.layers();
  if (layer < 0 || layer >= static_cast<int>(layers.size())) return {};
  const ProfileSummary& summary = layers[static_cast<std::size_t>(layer)];
  return toPixel({static_cast<double>(layer), summary.count > 0 ? summary.mean : 0.0});
}

void BudgetCurve::showEvent(QShowEvent* event) {
  ChartWidget::showEvent(event);
  if (m_stale)
    QMetaObject::invokeMethod(
        this, [this] { rebuild(); }, Qt::QueuedConnection);
}

void BudgetCurve::rebuild() {
  m_stale = false;
  const Theme& theme = Theme::current();
  const auto& layers = m_model.layers();
  const auto& saved = m_model.savedLayers();
  Band band;
  band.color = theme.accent;
  Line mean, ghost;
  mean.color = theme.accent;
  ghost.color = theme.secondary;
  ghost.width = 1.25;
  ghost.dashed = true;
  double top = m_target.value_or(0) * 1.1;
  bool differs = false;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto x = static_cast<double>(i);
    const bool has = layers[i].count > 0, had = saved[i].count > 0;
    band.x << x;
    band.lower << (has ? layers[i].min : kNaN);
    band.upper << (has ? layers[i].max : kNaN);
    mean.points << QPointF(x, has ? layers[i].mean : kNaN);
    ghost.points << QPointF(x, had ? saved[i].mean : kNaN);
    differs = differs || (has && had && std::abs(layers[i].mean - saved[i].mean) > 5e-5);
    if (has) top = std::max(top, layers[i].max);
    if (had) top = std::max(top, saved[i].mean);
  }
  Axis y = percentAxis(top, height());
  // The scale must not shrink under a running drag, or the point would run away from the pointer.
  if (m_drag != Drag::None && y.max < yAxis().max) y = yAxis();
  setAxes(indexAxis(static_cast<int>(layers.size()), QStringLiteral("L"), std::max(4, width() / 64)), y);
  // The ghost says what changed: where nothing did it would only thicken the line.
  setSeries(band, differs ? QVector<Line>{ghost, mean} : QVector<Line>{mean});
  setAccessibleDescription(m_readout.isEmpty() ? tr("Kept fraction per layer, %1 layers").arg(layers.size())
                                               : m_readout);
}

void BudgetCurve::resizeEvent(QResizeEvent* event) {
  ChartWidget::resizeEvent(event);
  rebuild();
}

void BudgetCurve::paintOverlay(QPainter& painter) {
  const Theme& theme = Theme::current();
  const Profile& profile = m_model.document().current();
  const auto& layers = m_model.layers();
  if (layers.empty()) return;
  const QRectF area = plotArea();
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setFont(fonts::secondary());
  const QFontMetricsF metrics(fonts::secondary());

  // Named where they are drawn instead of in a legend.
  {
    const int steps = m_model.scope().step ? 1 : profile.steps(), heads = m_model.scope().head ? 1 : profile.heads();
    QString band;
    if (steps > 1 && heads > 1) band = tr("band: min\u2013max over %1 steps \u00d7 %2 heads").arg(steps).arg(heads);
    if (steps > 1 && heads == 1) band = tr("band: min\u2013max over %1 steps").arg(steps);
    if (steps == 1 && heads > 1) band = tr("band: min\u2013max over %1 heads").arg(heads);
    painter.setPen(theme.secondary);
    painter.drawText(area.adjusted(0, 2, -6, 0), Qt::AlignRight | Qt::AlignTop, band);
    double widest = 0.02;
    int ghost = -1;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const ProfileSummary& saved = m_model.savedLayers()[i];
      if (saved.count == 0 || layers[i].count == 0) continue;
      const double gap = std::abs(saved.mean - layers[i].mean);
      if (gap > widest) {
        widest = gap;
        ghost = static_cast<int>(i);
      }
    }
    if (ghost >= 0) {
      const double saved = m_model.savedLayers()[static_cast<std::size_t>(ghost)].mean;
      const QPointF at = toPixel({static_cast<double>(ghost), saved});
      const bool below = saved < layers[static_cast<std::size_t>(ghost)].mean;
      const double y = std::min(at.y() + (below ? metrics.ascent() + 2 : -4), area.bottom() - 2);
      painter.drawText(QPointF(at.x() - metrics.horizontalAdvance(tr("saved")) / 2, y), tr("saved"));
    }
  }
  if (m_target) {
    const double y = toPixel({0, *m_target}).y();
    painter.setPen(QPen(theme.warning, 1, Qt::DashLine));
    painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y));
    const QString text = tr("target %1 %").arg(budget::percentDigits(*m_target));
    QRectF label(0, 0, metrics.horizontalAdvance(text) + 8, metrics.height() + 2);
    // Where the curve is farthest from the line, so that neither hides the other.
    double best = -1;
    for (int i = 0; i <= 4; ++i) {
      const double left = area.left() + (area.width() - label.width()) * i / 4;
      double gap = area.height();
      for (std::size_t l = 0; l < layers.size(); ++l) {
        const QPointF point = pointOf(static_cast<int>(l));
        if (point.x() > left - 8 && point.x() < left + label.width() + 8)
          gap = std::min(gap, std::abs(point.y() - y + 6));
      }
      if (gap > best) {
        best = gap;
        label.moveTopLeft({left, y - label.height()});
      }
    }
    painter.setPen(theme.warning);
    painter.drawText(label, Qt::AlignCenter, text);
  }
  if (m_current >= 0 && m_current < static_cast<int>(layers.size())) {
    const double x = pointOf(m_current).x();
    QColor line = theme.accent;
    line.setAlphaF(0.35F);
    painter.setPen(QPen(line, 1));
    painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()));
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const int layer = static_cast<int>(i);
    const QPointF point = pointOf(layer);
    const bool locked = profile.layerLocked(layer), selected = m_selected.contains(layer);
    if (layers[i].count == 0) {  // nothing but holes: a cross on the axis
      painter.setPen(QPen(theme.secondary, 1.5));
      painter.drawLine(point + QPointF(-3, -3), point + QPointF(3, 3));
      painter.drawLine(point + QPointF(-3, 3), point + QPointF(3, -3));
      continue;
    }
    const double spacing = area.width() / static_cast<double>(layers.size());
    const double radius = std::clamp(spacing * 0.35, 2.5, kPointRadius) + (selected ? 1.0 : 0.0);
    if (layer == m_hover || layer == m_current) {
      QColor halo = theme.accent;
      halo.setAlphaF(layer == m_hover ? 0.30F : 0.20F);
      painter.setPen(Qt::NoPen);
      painter.setBrush(halo);
      painter.drawEllipse(point, radius + 5, radius + 5);
    }
    if (selected) {
      painter.setPen(QPen(theme.text, 1.5));
      painter.setBrush(Qt::NoBrush);
      painter.drawEllipse(point, radius + 2.5, radius + 2.5);
    }
    painter.setPen(QPen(locked ? theme.secondary : theme.panel, locked ? 2 : 1.5));
    painter.setBrush(locked ? theme.panel : theme.accent);
    painter.drawEllipse(point, radius, radius);
    if (locked) {  // hatched: told apart without colour
      painter.setPen(QPen(theme.secondary, 1));
      const double r = radius * 0.6;
      painter.drawLine(point + QPointF(-r, r), point + QPointF(r, -r));
    }
  }
  if (hasFocus() && m_current >= 0 && m_current < static_cast<int>(layers.size())) {
    painter.setPen(QPen(theme.accent, 2));
    painter.setBrush(Qt::NoBrush);
    painter.drawEllipse(pointOf(m_current), kPointRadius + 5, kPointRadius + 5);
  }
  if (m_drag == Drag::Marquee || m_drag == Drag::Smooth) {
    QColor fill = m_drag == Drag::Smooth ? theme.warning : theme.accent;
    const QColor border = fill;
    fill.setAlphaF(0.12F);
    QRectF box = QRectF(m_press, m_last).normalized();
    if (m_drag == Drag::Smooth) {
      box.setTop(area.top());
      box.setBottom(area.bottom());
    }
    painter.setPen(QPen(border, 1));
    painter.setBrush(fill);
    painter.drawRect(box.adjusted(0.5, 0.5, -0.5, -0.5));
  }

  const auto plate = [&](const QString& text, QPointF at, const QColor& color) {
    painter.setFont(fonts::title());
    const QFontMetricsF title(fonts::title());
    QRectF box(0, 0, title.horizontalAdvance(text) + 12, title.height() + 6);
    box.moveCenter(at);
    box.moveBottom(at.y() - 12);
    if (box.top() < 2) box.moveTop(at.y() + 14);
    box.moveLeft(std::clamp(box.left(), 2.0, std::max(2.0, width() - box.width() - 2)));
    QColor back = theme.raised;
    back.setAlphaF(0.92F);
    painter.setPen(QPen(theme.line, 1));
    painter.setBrush(back);
    painter.drawRoundedRect(box, 4, 4);
    painter.setPen(color);
    painter.drawText(box, Qt::AlignCenter, text);
  };
  if (m_editor->isVisible() && !m_editorNote.isEmpty()) {
    const QPointF below(m_editor->x() + m_editor->width() / 2.0, m_editor->geometry().bottom() + 40.0);
    plate(m_editorNote, below, m_editor->property("invalid").toBool() ? theme.error : theme.secondary);
  } else if (!m_readout.isEmpty() && !m_readoutAt.isNull()) {
    plate(m_readout, m_readoutAt, m_readoutIsError ? theme.error : theme.text);
  } else if (m_hover >= 0 && m_drag == Drag::None && !m_editor->isVisible()) {
    const ProfileSummary& summary = layers[static_cast<std::size_t>(m_hover)];
    QString text = summary.count == 0
                       ? tr("L%1  no values").arg(m_hover)
                       : tr("L%1  kept %2 % (skipped %3 %)")
                             .arg(m_hover)
                             .arg(budget::percentDigits(summary.mean), budget::percentDigits(1 - summary.mean));
    if (summary.count > 1) {
      text += tr("  min %1, max %2").arg(budget::percentDigits(summary.min), budget::percentDigits(summary.max));
    }
    if (profile.layerLocked(m_hover)) text += tr("  locked");
    plate(text, pointOf(m_hover), theme.text);
  }
}

int BudgetCurve::nearestLayer(double x) const {
  const int count = m_model.rowCount();
  if (count == 0) return -1;
  return std::clamp(static_cast<int>(std::lround(toValue({x, 0}).x())), 0, count - 1);
}

int BudgetCurve::layerAt(QPointF position) const {
  const int layer = nearestLayer(position.x());
  if (layer < 0) return -1;
  const QPointF d = pointOf(layer) - position;
  return std::abs(d.x()) <= kHitRadius && std::abs(d.y()) <= kHitRadius ? layer : -1;
}

std::vector<int> BudgetCurve::editedLayers() const {
  if (!m_selected.empty()) return {m_selected.begin(), m_selected.end()};
  if (m_current >= 0) return {m_current};
  return {};
}

void BudgetCurve::showReadout(const QString& text, bool isError, QPointF at) {
  m_readout = text;
  if (const QString leadsTo = isError || !m_consequence ? QString() : m_consequence(m_current); !leadsTo.isEmpty())
    m_readout += QStringLiteral(" | ") + leadsTo;
  m_readoutIsError = isError;
  m_readoutAt = at;
  setAccessibleDescription(m_readout);
  updateOverlay();
  Q_EMIT readout(m_readout, isError);
}

void BudgetCurve::mousePressEvent(QMouseEvent* event) {
  if (m_model.rowCount() == 0 || m_drag != Drag::None) return;
  if (m_editor->isVisible()) finishTyping(true);
  if (m_editor->isVisible()) return;  // an invalid text waits to be fixed
  m_press = m_last = event->position();
  m_moved = false;
  m_readout.clear();
  ProfileDocument& document = m_model.document();
  if (event->button() == Qt::RightButton) {
    m_drag = Drag::Smooth;
    document.beginGesture();
    updateOverlay();
    return;
  }
  if (event->button() != Qt::LeftButton) return;
  if (m_brush) {
    m_drag = Drag::Brush;
    m_brushed.clear();
    document.beginGesture();
    paintWithBrush(m_press, m_press);
    return;
  }
  m_pressedLayer = layerAt(m_press);
  if (m_pressedLayer < 0) {
    m_drag = Drag::Marquee;
    m_selectedBefore =
        event->modifiers().testFlag(Qt::ControlModifier) || event->modifiers().testFlag(Qt::ShiftModifier)
            ? m_selected
            : std::set<int>{};
    return;
  }
  // Ctrl decides on release: a click adds to the selection, a drag snaps.
  if (!m_selected.contains(m_pressedLayer) && !event->modifiers().testFlag(Qt::ControlModifier)) {
    setSelectedLayers({m_pressedLayer});
  }
  setCurrentLayer(m_pressedLayer);
  Q_EMIT layerPicked(m_pressedLayer);
  m_drag = Drag::Points;
  m_startMeans.clear();
  std::set<int> moving = m_selected;
  moving.insert(m_pressedLayer);
  for (const int layer : moving) {
    const ProfileSummary& summary = m_model.layers()[static_cast<std::size_t>(layer)];
    if (summary.count > 0) m_startMeans[layer] = summary.mean;
  }
  document.beginGesture();
}

void BudgetCurve::mouseMoveEvent(QMouseEvent* event) {
  const QPointF position = event->position();
  if (m_drag == Drag::None) {
    const int hover = layerAt(position);
    if (hover != m_hover || !m_readout.isEmpty()) {
      m_hover = hover;
      m_readout.clear();
      setCursor(m_brush ? Qt::CrossCursor : hover >= 0 ? Qt::SizeVerCursor : Qt::ArrowCursor);
      updateOverlay();
    }
    return;
  }
  if (!m_moved && (position - m_press).manhattanLength() < 3) return;
  m_moved = true;
  const QPointF previous = m_last;
  m_last = position;
  switch (m_drag) {
    case Drag::Points:
      dragPoints(position, event->modifiers());
      break;
    case Drag::Brush:
      paintWithBrush(previous, position);
      break;
    case Drag::Smooth:
      smooth(position);
      break;
    case Drag::Marquee: {
      const QRectF box = QRectF(m_press, position).normalized();
      std::set<int> inside = m_selectedBefore;
      for (int l = 0; l < m_model.rowCount(); ++l) {
        if (box.contains(pointOf(l))) inside.insert(l);
      }
      setSelectedLayers(inside);
      updateOverlay();
      break;
    }
    case Drag::None:
      break;
  }
}

void BudgetCurve::dragPoints(QPointF position, Qt::KeyboardModifiers modifiers) {
  ProfileDocument& document = m_model.document();
  const auto start = m_startMeans.find(m_pressedLayer);
  if (start == m_startMeans.end()) return;
  // Pixels are turned into percent by the scale as it was at the press; the axis may grow meanwhile.
  const double perPixel = (yAxis().max - yAxis().min) / std::max(1.0, plotArea().height());
  double delta = (m_press.y() - position.y()) * perPixel;
  if (modifiers.testFlag(Qt::ShiftModifier)) delta *= 0.1;
  // Round numbers for the point under the pointer: tenths of a percent, hundredths when fine, whole ones with Ctrl.
  const double grid = modifiers.testFlag(Qt::ControlModifier) ? 100 : modifiers.testFlag(Qt::ShiftModifier) ? 1e4 : 1e3;
  if (delta != 0) delta = std::round((start->second + delta) * grid) / grid - start->second;
  double middle = 0;
  for (const auto& [layer, mean] : m_startMeans) middle += mean;
  middle /= static_cast<double>(m_startMeans.size());
  const double lever = start->second - middle;
  const bool scale = modifiers.testFlag(Qt::AltModifier) && m_startMeans.size() > 1 && std::abs(lever) > 1e-9;
  std::map<int, double> targets;
  bool limited = false;
  for (const auto& [layer, mean] : m_startMeans) {
    const double wanted = scale ? middle + (mean - middle) * (lever + delta) / lever : mean + delta;
    limited = limited || wanted < 0 || wanted > 1;
    targets[layer] = std::clamp(wanted, 0.0, 1.0);
  }
  const budget::LayerEdit made =
      budget::setLayerMeans(document.gestureStart(), targets, m_model.scope(), m_model.spread());
  document.applyFromGestureStart(made.edit);
  if (made.edit.empty() && !made.lockedLayers.empty()) {
    showReadout(tr("%1 locked; L unlocks").arg(budget::layerNames(made.lockedLayers)), true, pointOf(m_pressedLayer));
    return;
  }
  QString text = QStringLiteral("L%1 kept %2 \u2192 %3 %")
                     .arg(m_pressedLayer)
                     .arg(budget::percentDigits(start->second), budget::percentDigits(targets[m_pressedLayer]));
  if (targets.size() > 1) text += tr("  \u00b7 %1 layers").arg(targets.size() - made.lockedLayers.size());
  if (limited) {
    text += tr("  \u00b7 stops at the limit");
  } else if (made.clampedCells > 0) {
    text += tr("  \u00b7 %1 cells at the limit").arg(made.clampedCells);
  }
  showReadout(text, false, pointOf(m_pressedLayer));
}

void BudgetCurve::paintWithBrush(QPointF from, QPointF to) {
  const int a = nearestLayer(from.x()), b = nearestLayer(to.x());
  if (a < 0 || b < 0) return;
  for (int layer = std::min(a, b); layer <= std::max(a, b); ++layer) {
    // Fast strokes skip layers: interpolate along the stroke.
    const double x = toPixel({static_cast<double>(layer), 0}).x();
    const double t = a == b ? 1 : std::clamp((x - from.x()) / (to.x() - from.x()), 0.0, 1.0);
    m_brushed[layer] = std::clamp(toValue({x, from.y() + t * (to.y() - from.y())}).y(), 0.0, 1.0);
  }
  ProfileDocument& document = m_model.document();
  std::vector<int> names;
  for (const auto& [layer, value] : m_brushed) names.push_back(layer);
  const budget::LayerEdit made =
      budget::setLayerMeans(document.gestureStart(), m_brushed, m_model.scope(), m_model.spread(),
                            tr("Paint kept of %1").arg(budget::layerNames(names)));
  document.applyFromGestureStart(made.edit);
  setCurrentLayer(b);
  showReadout(tr("L%1 painted to %2 %").arg(b).arg(budget::percentDigits(m_brushed[b])), false, pointOf(b));
}

void BudgetCurve::smooth(QPointF position) {
  const int a = nearestLayer(m_press.x()), b = nearestLayer(position.x());
  const int first = std::min(a, b), last = std::max(a, b);
  const int passes = std::clamp(1 + static_cast<int>(std::abs(position.y() - m_press.y()) / kSmoothPixelsPerPass), 1,
                                kMaxSmoothPasses);
  ProfileDocument& document = m_model.document();
  const auto targets = budget::smoothedMeans(document.gestureStart(), first, last, m_model.scope(), passes);
  std::vector<int> names;
  for (int l = first; l <= last; ++l) names.push_back(l);
  const QString label = tr("Smooth kept of %1").arg(budget::layerNames(names));
  document.applyFromGestureStart(
      budget::setLayerMeans(document.gestureStart(), targets, m_model.scope(), m_model.spread(), label).edit);
  showReadout(tr("%1, strength %2").arg(label).arg(passes), false, position);
}

void BudgetCurve::mouseReleaseEvent(QMouseEvent* event) {
  const Drag drag = m_drag;
  endDrag();
  if (drag == Drag::Points && !m_moved && event->modifiers().testFlag(Qt::ControlModifier)) {
    std::set<int> next = m_selected;
    if (next.erase(m_pressedLayer) == 0) next.insert(m_pressedLayer);
    setSelectedLayers(next);
  } else if (drag == Drag::Marquee && !m_moved) {
    setSelectedLayers(m_selectedBefore);
    const int layer = nearestLayer(m_press.x());
    if (m_selectedBefore.empty() && layer >= 0 && plotArea().contains(m_press)) {
      setCurrentLayer(layer);
      Q_EMIT layerPicked(layer);
    }
  }
}

void BudgetCurve::endDrag() {
  if (m_drag == Drag::None) return;
  m_drag = Drag::None;
  m_model.document().endGesture();
  rebuild();
}

void BudgetCurve::mouseDoubleClickEvent(QMouseEvent* event) {
  if (event->button() != Qt::LeftButton) return;
  const int layer = nearestLayer(event->position().x());
  if (layer < 0) return;
  setCurrentLayer(layer);
  typeValue();
}

void BudgetCurve::typeValue() {
  if (m_current < 0) return;
  if (m_model.document().current().layerLocked(m_current)) {
    showReadout(tr("L%1 is locked; L unlocks").arg(m_current), true, pointOf(m_current));
    return;
  }
  m_editedLayer = m_current;
  m_readout.clear();
  m_hover = -1;
  const QModelIndex at = m_model.index(m_editedLayer, ProfileModel::KeptColumn);
  m_editor->setText(m_model.data(at, Qt::EditRole).toString());
  setLook(m_editor, "invalid", false);
  m_editorNote = tr("Layer %1: kept %, or =prev, *1.1, +2. Enter takes it, Esc leaves it.").arg(m_editedLayer);
  QPointF at2 = pointOf(m_editedLayer) - QPointF(m_editor->width() / 2.0, m_editor->sizeHint().height() + 10.0);
  at2.setX(std::clamp(at2.x(), 4.0, std::max(4.0, width() - m_editor->width() - 4.0)));
  if (at2.y() < 2) at2.setY(pointOf(m_editedLayer).y() + 10);
  m_editor->move(at2.toPoint());
  m_editor->show();
  m_editor->raise();
  m_editor->selectAll();
  m_editor->setFocus();
  updateOverlay();
}

void BudgetCurve::finishTyping(bool accept) {
  if (!m_editor->isVisible()) return;
  const int layer = m_editedLayer;
  if (accept && layer >= 0 && layer < m_model.rowCount()) {
    const auto meanAt = [this](int l) -> std::optional<double> {
      const ProfileSummary& summary = m_model.layers()[static_cast<std::size_t>(l)];
      return summary.count > 0 ? std::optional<double>(summary.mean) : std::nullopt;
    };
    const auto typed =
        budget::parseTyped(m_editor->text(), meanAt(layer), layer > 0 ? meanAt(layer - 1) : std::nullopt);
    if (!typed.fraction) {
      setLook(m_editor, "invalid", true);
      m_editorNote = QStringLiteral("\u26a0 ") + typed.error;
      updateOverlay();
      Q_EMIT readout(QStringLiteral("L%1: %2").arg(layer).arg(typed.error), true);
      return;
    }
  }
  const QString text = m_editor->text();
  m_editedLayer = -1;  // before hide(): the focus-out it causes must find nothing to finish
  m_editor->hide();
  m_editorNote.clear();
  setFocus();
  if (accept && layer >= 0) m_model.setData(m_model.index(layer, ProfileModel::KeptColumn), text);
  updateOverlay();
}

bool BudgetCurve::eventFilter(QObject* watched, QEvent* event) {
  if (watched == m_editor && m_editedLayer >= 0) {
    if (event->type() == QEvent::KeyPress) {
      const int key = static_cast<QKeyEvent*>(event)->key();
      if (key == Qt::Key_Return || key == Qt::Key_Enter) {
        finishTyping(true);
        return true;
      }
      if (key == Qt::Key_Escape) {
        finishTyping(false);
        return true;
      }
    } else if (event->type() == QEvent::FocusOut &&
               static_cast<QFocusEvent*>(event)->reason() != Qt::ActiveWindowFocusReason &&
               static_cast<QFocusEvent*>(event)->reason() != Qt::PopupFocusReason) {
      finishTyping(true);
    }
  }
  return ChartWidget::eventFilter(watched, event);
}

void BudgetCurve::toggleLock() {
  const std::vector<int> layers = editedLayers();
  if (layers.empty()) return;
  const ProfileEdit edit = budget::toggleLocks(m_model.document().current(), layers);
  m_model.document().apply(edit);
  showReadout(QString::fromStdString(edit.label), false, pointOf(layers.front()));
}

void BudgetCurve::nudge(double delta, int mergeId) {
  const std::vector<int> layers = editedLayers();
  std::map<int, double> targets;
  bool limited = false;
  for (const int layer : layers) {
    const ProfileSummary& summary = m_model.layers()[static_cast<std::size_t>(layer)];
    if (summary.count == 0) continue;
    limited = limited || summary.mean + delta < 0 || summary.mean + delta > 1;
    targets[layer] = std::clamp(summary.mean + delta, 0.0, 1.0);
  }
  if (targets.empty()) return;
  const int shown = targets.contains(m_current) ? m_current : targets.begin()->first;
  const double before = m_model.layers()[static_cast<std::size_t>(shown)].mean;
  const budget::LayerEdit made =
      budget::setLayerMeans(m_model.document().current(), targets, m_model.scope(), m_model.spread());
  if (made.lockedLayers.size() == targets.size()) {
    showReadout(tr("%1 locked; L unlocks").arg(budget::layerNames(made.lockedLayers)), true, pointOf(shown));
    return;
  }
  m_model.document().apply(made.edit, mergeId);
  QString text = QStringLiteral("L%1 kept %2 \u2192 %3 %")
                     .arg(shown)
                     .arg(budget::percentDigits(before), budget::percentDigits(targets[shown]));
  if (targets.size() > 1) text += tr("  \u00b7 %1 layers").arg(targets.size() - made.lockedLayers.size());
  if (limited) text += tr("  \u00b7 stops at the limit");
  showReadout(text, false, pointOf(shown));
}

bool BudgetCurve::event(QEvent* event) {
  // Single letters and arrows belong to the focused curve, not to shortcuts of the window.
  if (event->type() == QEvent::ShortcutOverride) {
    const auto* key = static_cast<QKeyEvent*>(event);
    switch (key->key()) {
      case Qt::Key_L:
      case Qt::Key_B:
        if (key->modifiers() == Qt::NoModifier) event->accept();
        break;
      case Qt::Key_Up:
      case Qt::Key_Down:
      case Qt::Key_Left:
      case Qt::Key_Right:
      case Qt::Key_Home:
      case Qt::Key_End:
      case Qt::Key_Return:
      case Qt::Key_Enter:
      case Qt::Key_F2:
      case Qt::Key_Escape:
        event->accept();
        break;
      case Qt::Key_A:
        if (key->modifiers() == Qt::ControlModifier) event->accept();
        break;
      default:
        break;
    }
  }
  return ChartWidget::event(event);
}

void BudgetCurve::keyPressEvent(QKeyEvent* event) {
  const int count = m_model.rowCount();
  if (count == 0) {
    ChartWidget::keyPressEvent(event);
    return;
  }
  const Qt::KeyboardModifiers modifiers = event->modifiers();
  const auto step = [&](int sign) {
    const double size = modifiers.testFlag(Qt::ShiftModifier)     ? 0.05
                        : modifiers.testFlag(Qt::ControlModifier) ? 0.001
                                                                  : 0.01;
    nudge(sign * size, nudgeMergeId(editedLayers(), m_model.scope()));
  };
  const auto go = [&](int layer) {
    layer = std::clamp(layer, 0, count - 1);
    if (modifiers.testFlag(Qt::ShiftModifier)) {
      std::set<int> next = m_selected;
      if (m_current >= 0) next.insert(m_current);
      next.insert(layer);
      setSelectedLayers(next);
    } else {
      setSelectedLayers({layer});
    }
    setCurrentLayer(layer);
    m_readout.clear();
    Q_EMIT layerPicked(layer);
    updateOverlay();
  };
  switch (event->key()) {
    case Qt::Key_Up:
      step(1);
      break;
    case Qt::Key_Down:
      step(-1);
      break;
    case Qt::Key_Left:
      go(m_current < 0 ? 0 : m_current - 1);
      break;
    case Qt::Key_Right:
      go(m_current + 1);
      break;
    case Qt::Key_Home:
      go(0);
      break;
    case Qt::Key_End:
      go(count - 1);
      break;
    case Qt::Key_Return:
    case Qt::Key_Enter:
    case Qt::Key_F2:
      typeValue();
      break;
    case Qt::Key_L:
      if (modifiers == Qt::NoModifier) {
        toggleLock();
        break;
      }
      ChartWidget::keyPressEvent(event);
      break;
    case Qt::Key_B:
      if (modifiers == Qt::NoModifier) {
        setBrush(!m_brush);
        break;
      }
      ChartWidget::keyPressEvent(event);
      break;
    case Qt::Key_A:
      if (modifiers == Qt::ControlModifier) {
        std::set<int> all;
        for (int l = 0; l < count; ++l) all.insert(l);
        setSelectedLayers(all);
        break;
      }
      ChartWidget::keyPressEvent(event);
      break;
    case Qt::Key_Escape:
      if (m_drag != Drag::None) {
        m_drag = Drag::None;
        m_model.document().cancelGesture();
        m_readout.clear();
        rebuild();
      } else if (m_brush) {
        setBrush(false);
      } else {
        setSelectedLayers({});
      }
      break;
    default:
      ChartWidget::keyPressEvent(event);
  }
}

void BudgetCurve::leaveEvent(QEvent* event) {
  ChartWidget::leaveEvent(event);
  m_hover = -1;
  updateOverlay();
}

void BudgetCurve::focusInEvent(QFocusEvent* event) {
  ChartWidget::focusInEvent(event);
  if (m_current < 0 && m_model.rowCount() > 0) setCurrentLayer(0);
  updateOverlay();
}

void BudgetCurve::focusOutEvent(QFocusEvent* event) {
  ChartWidget::focusOutEvent(event);
  updateOverlay();
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "ui/canvas/color_bar.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QPainterPath>
#include <QToolTip>
#include <algorithm>
#include <cmath>

#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kBarLeft = 10, kBarWidth = 14, kHistogramWidth = 26, kLabelGap = 6;
constexpr double kHandleRadius = 5.0;

}  // namespace

ColorBar::ColorBar(QWidget* parent) : QWidget(parent) {
  setMouseTracking(true);
  setFocusPolicy(Qt::TabFocus);
  setAccessibleName(tr("Colour scale"));
  setAccessibleDescription(tr("Up and Down move a limit, Left and Right choose it, double-click or R resets"));
}

void ColorBar::setLut(std::shared_ptr<const ColorLut> lut) {
  m_lut = std::move(lut);
  updateDomain();
  update();
}

void ColorBar::setHistogram(std::shared_ptr<const CodeHistogram> histogram) {
  if (histogram == m_histogram) return;  // asked for on every move of the map; binning takes milliseconds
  m_histogram = std::move(histogram);
  updateDomain();
  update();
}

void ColorBar::setTitle(const QString& first, const QString& second) {
  if (first == m_title && second == m_subtitle) return;
  m_title = first;
  m_subtitle = second;
  setToolTip(
      tr("%1, %2\nDrag the limits; double-click takes the default ones, R fits them to this map").arg(first, second));
  update();
}

void ColorBar::setMarkedValue(std::optional<double> value) {
  if (value == m_marked) return;
  m_marked = value;
  update();
}

void ColorBar::setBarExtent(int top, int bottom) {
  if (top == m_top && bottom == m_bottom) return;
  m_top = top;
  m_bottom = bottom;
  rebinHistogram();
  update();
}

QRect ColorBar::barRect() const noexcept { return {kBarLeft, m_top, kBarWidth, std::max(1, m_bottom - m_top)}; }

QSize ColorBar::sizeHint() const { return {kBarLeft + kBarWidth + kHistogramWidth + kLabelGap + 40, 200}; }

double ColorBar::yOf(double value) const noexcept {
  const QRect bar = barRect();
  return bar.bottom() + 1 - std::clamp(m_domain.fraction(value), 0.0, 1.0) * bar.height();
}

double ColorBar::valueAtY(double y) const noexcept {
  const QRect bar = barRect();
  return m_domain.valueAt(std::clamp((bar.bottom() + 1 - y) / bar.height(), 0.0, 1.0));
}

void ColorBar::setTwin(ColorBar* other) {
  m_twin = other;
  updateDomain();
}

void ColorBar::updateDomain(bool tellTwin) {
  // A scale that moves under the hand would run away.
  const auto held = [this](const ColorBar& bar) {
    return bar.m_dragging != Handle::None && m_domain.scale == m_lut->settings().range.scale;
  };
  if (!m_lut || held(*this) || (m_twin && held(*m_twin))) return;
  ValueRange domain = ownDomain();
  if (m_twin && m_twin->m_lut && m_twin->m_lut->settings().range.scale == domain.scale) {
    const ValueRange other = m_twin->ownDomain();
    domain.minimum = std::min(domain.minimum, other.minimum);
    domain.maximum = std::max(domain.maximum, other.maximum);
  }
  m_domain = domain;
  rebinHistogram();
  update();
  if (tellTwin && m_twin) m_twin->updateDomain(false);
}

ValueRange ColorBar::ownDomain() const {
  const ValueRange range = m_lut->settings().range;
  ValueRange domain = range;
  if (range.scale == ValueScale::Log) {
    // Whole decades around the limits and the values, with room to move the limits outwards.
    double low = std::log10(range.minimum) - 0.5, high = std::log10(range.maximum) + 0.5;
    if (m_histogram) {
      double total = 0, seen = 0;
      for (int code = kCodeFirst; code < kValueCodes; ++code) total += (*m_histogram)[static_cast<std::size_t>(code)];
      for (int code = kCodeFirst; code < kValueCodes && total > 0; ++code) {
        const double before = seen;
        seen += (*m_histogram)[static_cast<std::size_t>(code)];
        const auto value = [code] { return std::log10(decodeValue(static_cast<ValueCode>(code))); };
        if (before < 0.001 * total && seen >= 0.001 * total) low = std::min(low, value());
        if (before < 0.999 * total && seen >= 0.999 * total) high = std::max(high, value());
      }
    }
    low = std::min(std::max(low, -12.0), std::log10(range.minimum));
    high = std::max(std::min(high, 0.0), std::log10(range.maximum));
    domain.minimum = std::pow(10.0, std::floor(low + 1e-9));
    domain.maximum = std::pow(10.0, std::ceil(high - 1e-9));
  } else {
    domain.minimum = std::min(0.0, range.minimum);
    double highest = range.maximum;
    if (m_histogram) {
      for (int code = kValueCodes - 1; code >= kCodeFirst; --code) {
        if ((*m_histogram)[static_cast<std::size_t>(code)] != 0) {
          highest = std::max(highest, decodeValue(static_cast<ValueCode>(code)));
          break;
        }
      }
    }
    domain.maximum = highest;
  }
  return domain;
}

void ColorBar::rebinHistogram() {
  const int height = barRect().height();
  m_bins.assign(static_cast<std::size_t>(std::max(1, height / 3)), 0.0F);
  if (!m_histogram) return;
  // Codes rise with the value: a bin is a range of them, and no value needs to be decoded.
  const auto codeAt = [this](std::size_t edge) {
    const double value = m_domain.valueAt(static_cast<double>(edge) / static_cast<double>(m_bins.size()));
    return std::max<int>(kCodeFirst, encodeValue(static_cast<float>(value)));
  };
  int code = codeAt(0);
  for (std::size_t bin = 0; bin < m_bins.size(); ++bin) {
    const int end = codeAt(bin + 1) + (bin + 1 == m_bins.size() ? 1 : 0);
    double count = 0;
    for (; code < end; ++code) count += (*m_histogram)[static_cast<std::size_t>(code)];
    m_bins[bin] = static_cast<float>(count);
  }
  // Square root: a few bright cells stay visible beside a mass of dark ones.
  float largest = 0;
  for (float& bin : m_bins) largest = std::max(largest, bin = std::sqrt(bin));
  if (largest > 0) {
    for (float& bin : m_bins) bin /= largest;
  }
}

std::vector<std::pair<double, QString>> ColorBar::ticks() const {
  std::vector<std::pair<double, QString>> out;
  if (m_domain.scale == ValueScale::Log) {
    const int first = static_cast<int>(std::lround(std::log10(m_domain.minimum)));
    const int last = static_cast<int>(std::lround(std::log10(m_domain.maximum)));
    for (int e = first; e <= last; ++e) out.emplace_back(std::pow(10.0, e), powerOfTen(e));
    return out;
  }
  const double span = m_domain.maximum - m_domain.minimum;
  if (!(span > 0)) return out;
  double step = std::pow(10.0, std::floor(std::log10(span / 3.0)));
  for (const double factor : {5.0, 2.0}) {
    if (span / (step * factor) >= 3.0) {
      step *= factor;
      break;
    }
  }
  // NOLINTNEXTLINE(clang-analyzer-security.FloatLoopCounter): ticks, a handful
  for (double v = std::ceil(m_domain.minimum / step) * step; v <= m_domain.maximum * (1 + 1e-9); v += step) {
    out.emplace_back(v, v < step * 0.5 ? QStringLiteral("0") : QString::number(v, 'g', 2));
  }
  return out;
}

void ColorBar::paintEvent(QPaintEvent*) {
  const Theme& theme = Theme::current();
  QPainter painter(this);
  painter.setRenderHint(QPainter::Antialiasing);
  const QRect bar = barRect();

  painter.setFont(fonts::secondary());
  const QFontMetrics metrics(painter.font());
  painter.setPen(theme.text);
  const int titleBottom = bar.top() - 10;
  painter.drawText(QRect(bar.left(), titleBottom - 2 * metrics.height(), width() - bar.left(), metrics.height()),
                   Qt::AlignLeft | Qt::AlignVCenter, m_title);
  painter.setPen(theme.secondary);
  painter.drawText(QRect(bar.left(), titleBottom - metrics.height(), width() - bar.left(), metrics.height()),
                   Qt::AlignLeft | Qt::AlignVCenter, m_subtitle);
  if (!m_lut) return;

  // The bar, one colour per device pixel row.
  const qreal ratio = devicePixelRatioF();
  const int rows = std::max(1, qRound(bar.height() * ratio));
  QImage gradient(1, rows, QImage::Format_ARGB32_Premultiplied);
  for (int y = 0; y < rows; ++y) {
    const double value = m_domain.valueAt((rows - y - 0.5) / rows);
    gradient.setPixel(0, y, m_lut->colors()[encodeValue(static_cast<float>(value))]);
  }
  QPainterPath outline;
  outline.addRoundedRect(QRectF(bar), 2, 2);
  painter.save();
  painter.setClipPath(outline);
  painter.drawImage(QRectF(bar), gradient, QRectF(gradient.rect()));
  painter.restore();
  painter.setPen(QPen(theme.line, 1));
  painter.setBrush(Qt::NoBrush);
  painter.drawRoundedRect(QRectF(bar).adjusted(-0.5, -0.5, 0.5, 0.5), 2, 2);

  // Histogram.
  painter.setPen(Qt::NoPen);
  QColor fill = theme.disabled;
  fill.setAlphaF(0.55F);
  const double step = static_cast<double>(bar.height()) / static_cast<double>(m_bins.size());
  for (std::size_t i = 0; i < m_bins.size(); ++i) {
    if (m_bins[i] <= 0) continue;
    const double y = bar.bottom() + 1 - (static_cast<double>(i) + 1) * step;
    painter.fillRect(
        QRectF(bar.right() + 4, y + 0.5, std::max(1.0, static_cast<double>(m_bins[i]) * kHistogramWidth), step - 1),
        fill);
  }

  // Ticks: as many labels as fit.
  const int labelLeft = bar.right() + 4 + kHistogramWidth + kLabelGap;
  double lastY = 1e9;
  for (const auto& [value, label] : ticks()) {
    const double y = yOf(value);
    painter.setPen(QPen(theme.secondary, 1));
    painter.drawLine(QPointF(labelLeft - 4, y), QPointF(labelLeft - 1, y));
    if (lastY - y < metrics.height() + 2) continue;
    lastY = y;
    const double top = std::clamp(y - metrics.height() / 2.0, 0.0, static_cast<double>(height() - metrics.height()));
    painter.drawText(QRectF(labelLeft + 2, top, width() - labelLeft - 2, metrics.height()),
                     Qt::AlignLeft | Qt::AlignVCenter, label);
  }

  if (m_marked && *m_marked > 0) {
    const double y = yOf(*m_marked);
    painter.setPen(QPen(theme.dark ? Qt::black : Qt::white, 3));
    painter.drawLine(QPointF(bar.left() - 1, y), QPointF(bar.right() + 2, y));
    painter.setPen(QPen(theme.accent, 1.5));
    painter.drawLine(QPointF(bar.left() - 5, y), QPointF(bar.right() + 6, y));
  }

  const ValueRange range = m_lut->settings().range;
  for (const auto& [handle, value] : {std::pair{Handle::Minimum, range.minimum}, {Handle::Maximum, range.maximum}}) {
    const bool active = handle == m_hover || handle == m_dragging || (hasFocus() && handle == m_focused);
    const QPointF centre(bar.center().x() + 0.5, yOf(value));
    painter.setPen(QPen(theme.panel, 1.5));
    painter.setBrush(theme.accent);
    painter.drawEllipse(centre, kHandleRadius + (active ? 1.5 : 0.0), kHandleRadius + (active ? 1.5 : 0.0));
    if (hasFocus() && handle == m_focused) {
      painter.setPen(QPen(theme.accent, 2));
      painter.setBrush(Qt::NoBrush);
      painter.drawEllipse(centre, kHandleRadius + 5, kHandleRadius + 5);
    }
  }
}

ColorBar::Handle ColorBar::handleAt(const QPointF& position) const {
  if (!m_lut) return Handle::None;
  const QRect bar = barRect();
  if (position.x() < bar.left() - 8 || position.x() > bar.right() + 8) return Handle::None;
  const ValueRange range = m_lut->settings().range;
  const double toMin = std::abs(position.y() - yOf(range.minimum)), toMax = std::abs(position.y() - yOf(range.maximum));
  if (std::min(toMin, toMax) > 12) return Handle::None;
  return toMin < toMax ? Handle::Minimum : Handle::Maximum;
}

void ColorBar::moveHandle(Handle handle, double value) {
  if (!m_lut || handle == Handle::None) return;
  ValueRange range = m_lut->settings().range;
  // The limits keep a distance of 1/50 of the bar: an empty range has no colours.
  const double t = m_domain.fraction(value);
  if (handle == Handle::Minimum) {
    range.minimum = m_domain.valueAt(std::clamp(t, 0.0, m_domain.fraction(range.maximum) - 0.02));
  } else {
    range.maximum = m_domain.valueAt(std::clamp(t, m_domain.fraction(range.minimum) + 0.02, 1.0));
  }
  Q_EMIT rangeDragged(range.minimum, range.maximum);
}

void ColorBar::mousePressEvent(QMouseEvent* event) {
  if (event->button() != Qt::LeftButton) return;
  m_dragging = handleAt(event->position());
  if (m_dragging != Handle::None) m_focused = m_dragging;
  update();
}

void ColorBar::mouseMoveEvent(QMouseEvent* event) {
  if (m_dragging != Handle::None) {
    moveHandle(m_dragging, valueAtY(event->position().y()));
    const ValueRange range = m_lut->settings().range;
    QToolTip::showText(event->globalPosition().toPoint(),
                       formatNumber(m_dragging == Handle::Minimum ? range.minimum : range.maximum), this);
    return;
  }
  const Handle hover = handleAt(event->position());
  if (hover != m_hover) {
    m_hover = hover;
    setCursor(hover == Handle::None ? Qt::ArrowCursor : Qt::SizeVerCursor);
    update();
  }
}

void ColorBar::mouseReleaseEvent(QMouseEvent*) {
  m_dragging = Handle::None;
  updateDomain();
  update();
}

void ColorBar::mouseDoubleClickEvent(QMouseEvent*) {
  m_dragging = Handle::None;
  Q_EMIT resetRequested();
}

void ColorBar::leaveEvent(QEvent*) {
  m_hover = Handle::None;
  update();
}

void ColorBar::keyPressEvent(QKeyEvent* event) {
  if (!m_lut) return QWidget::keyPressEvent(event);
  const ValueRange range = m_lut->settings().range;
  const double value = m_focused == Handle::Minimum ? range.minimum : range.maximum;
  const double step = event->modifiers().testFlag(Qt::ShiftModifier) ? 0.05 : 0.01;
  switch (event->key()) {
    case Qt::Key_Up:
      moveHandle(m_focused, m_domain.valueAt(m_domain.fraction(value) + step));
      break;
    case Qt::Key_Down:
      moveHandle(m_focused, m_domain.valueAt(m_domain.fraction(value) - step));
      break;
    case Qt::Key_Left:
      m_focused = Handle::Minimum;
      break;
    case Qt::Key_Right:
      m_focused = Handle::Maximum;
      break;
    default:
      return QWidget::keyPressEvent(event);
  }
  update();
}

void ColorBar::focusInEvent(QFocusEvent* event) {
  QWidget::focusInEvent(event);
  update();
}

void ColorBar::focusOutEvent(QFocusEvent* event) {
  QWidget::focusOutEvent(event);
  update();
}

}  // namespace sparsight

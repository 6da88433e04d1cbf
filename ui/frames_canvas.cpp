// SPDX-License-Identifier: Apache-2.0
#include "ui/frames_canvas.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <algorithm>
#include <cmath>
#include <span>

#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr qreal kGap = 12, kCaption = 18, kBar = 12, kBarCaption = 18, kMaxCell = 22;

int fontHeight() { return QFontMetrics(fonts::secondary()).height(); }

/// Video brightness without its colours: colour means probability here.
QImage muted(const QImage& picture) {
  return picture.convertToFormat(QImage::Format_Grayscale8).convertToFormat(QImage::Format_RGB32);
}

}  // namespace

std::vector<QImage> previewImages(const Trace& trace, std::stop_token stop) {
  constexpr int kWidest = 640;
  std::vector<QImage> pictures;
  const auto frames = trace.frames();
  if (!frames) return pictures;
  const auto [count, height, width, fps] = frames->info;
  const qsizetype stride = qsizetype{width} * 3;
  for (int f = 0; f < count; ++f) {
    if (stop.stop_requested()) throw Cancelled{};
    const QImage borrowed(frames->rgb.data() + f * stride * height, width, height, stride, QImage::Format_RGB888);
    pictures.push_back(muted(width > kWidest ? borrowed.scaledToWidth(kWidest, Qt::SmoothTransformation) : borrowed));
  }
  return pictures;
}

FramesCanvas::FramesCanvas(QWidget* parent) : QWidget(parent) {
  setMouseTracking(true);
  setFocusPolicy(Qt::StrongFocus);
  setAccessibleName(tr("Attention of one query token on the video's frames"));
}

void FramesCanvas::setLayoutOf(const TokenLayout& layout) {
  m_layout = layout;
  m_values.clear();
  m_painted.clear();
  m_kept.clear();
  stale();
  place();
}

void FramesCanvas::setPreview(std::vector<QImage> pictures) {
  m_preview = std::move(pictures);
  stale();  // on the video colours are translucent
}

void FramesCanvas::setValues(std::vector<float> values, std::vector<std::uint8_t> kept) {
  m_values = std::move(values);
  m_kept = std::move(kept);
  stale();
}

void FramesCanvas::setTokenColors(std::vector<QRgb> colors) {
  m_painted = std::move(colors);
  stale();
}

void FramesCanvas::setColors(const ColorSettings& colors) {
  if (m_colors == colors) return;
  m_colors = colors;
  m_lut.reset();
  m_alpha.clear();
  stale();
}

void FramesCanvas::setPreviewShown(bool shown) {
  m_previewShown = shown;
  stale();
}

void FramesCanvas::setMassShown(bool shown) {
  m_massShown = shown;
  m_still = {};
  update();
}

void FramesCanvas::setMarks(Index query, Index key) {
  m_query = query;
  m_key = key;
  update();
}

void FramesCanvas::setMessage(const QString& title, const QString& text) {
  m_title = title;
  m_message = text;
  update();
}

void FramesCanvas::stale() {
  m_stale = true;
  m_still = {};
  update();
}

// Once per paint, however many settings changed before it: 118,800 tokens take milliseconds.
void FramesCanvas::recolor() {
  m_stale = false;
  m_heat.clear();
  m_textHeat = {};
  m_frameMass.clear();
  m_textMass = 0;
  const Segment* video = m_layout.video();
  if (video == nullptr || (m_values.empty() && m_painted.empty())) return;
  if (!m_lut) m_lut.emplace(m_colors, Theme::current());
  const ColorLut& lut = *m_lut;
  const bool onVideo = m_previewShown && !m_preview.empty();
  // Faint tokens let the video through, strong ones cover it: both stay readable. By value code: a logarithm for each
  // token would take longer than everything else here.
  if (onVideo && m_alpha.empty() && m_painted.empty()) {
    const std::vector<std::uint16_t> entries = entriesByCode(m_colors.range);
    m_alpha.resize(entries.size());
    std::transform(entries.begin(), entries.end(), m_alpha.begin(), [](std::uint16_t entry) {
      const double fraction = entry == kEntryUnder || entry == kEntryZero
                                  ? 0.0
                                  : std::min(1.0, static_cast<double>(entry) / (kPaletteEntries - 1));
      return static_cast<std::uint8_t>(std::lround(40 + 200 * fraction));
    });
  }
  std::vector<ValueCode> codes(m_painted.empty() ? m_values.size() : 0);
  encodeValues(std::span(m_values).first(codes.size()), codes);
  const auto pixel = [&](Index token) {
    const auto i = static_cast<std::size_t>(token);
    if (!m_painted.empty()) {
      const QRgb color = i < m_painted.size() ? m_painted[i] : qRgba(0, 0, 0, 0);
      if (!onVideo || qAlpha(color) == 0) return qPremultiply(color);
      return qPremultiply(qRgba(qRed(color), qGreen(color), qBlue(color), qAlpha(color) * 3 / 4));
    }
    const float p = i < m_values.size() ? m_values[i] : std::numeric_limits<float>::quiet_NaN();
    if (std::isnan(p)) return qRgba(0, 0, 0, 0);
    const bool skipped = !m_kept.empty() && m_kept[i] == 0;
    const QRgb color = (skipped ? lut.dimmed() : lut.colors())[codes[i]];
    if (!onVideo) return color;
    const int alpha = skipped ? 70 : m_alpha[codes[i]];
    return qPremultiply(qRgba(qRed(color), qGreen(color), qBlue(color), alpha));
  };
  const auto massOf = [&](Index token) {
    const auto i = static_cast<std::size_t>(token);
    const float p = i < m_values.size() ? m_values[i] : 0.0F;
    return std::isnan(p) ? 0.0 : static_cast<double>(p);
  };
  Index token = video->start;
  for (int f = 0; f < video->frames; ++f) {
    QImage image(video->width, video->height, QImage::Format_ARGB32_Premultiplied);
    double mass = 0;
    for (int y = 0; y < video->height; ++y) {
      auto* line = reinterpret_cast<QRgb*>(image.scanLine(y));
      for (int x = 0; x < video->width; ++x, ++token) {
        line[x] = pixel(token);
        mass += massOf(token);
      }
    }
    m_heat.push_back(std::move(image));
    m_frameMass.push_back(mass);
  }
  if (const Segment* words = m_layout.text(); words != nullptr && words->length > 0) {
    m_textHeat = QImage(static_cast<int>(words->length), 1, QImage::Format_ARGB32_Premultiplied);
    auto* line = reinterpret_cast<QRgb*>(m_textHeat.scanLine(0));
    for (Index i = 0; i < words->length; ++i) {
      line[i] = pixel(words->start + i);
      m_textMass += massOf(words->start + i);
    }
  }
}

/// The number of columns that makes the frames largest.
void FramesCanvas::place() {
  m_still = {};
  const Segment* video = m_layout.video();
  if (video == nullptr || video->frames <= 0) return update();
  const bool text = m_layout.text() != nullptr;
  const qreal room = height() - 2 * Theme::kPad - (text ? kBar + kBarCaption + kGap : 0);
  const qreal across = width() - 2 * Theme::kEdge;
  double best = 0;
  for (int columns = 1; columns <= video->frames; ++columns) {
    const int rows = (video->frames + columns - 1) / columns;
    const qreal w = (across - kGap * (columns - 1)) / columns, h = room / rows - kCaption - kGap / 2;
    const double cell = std::min({w / video->width, h / video->height, kMaxCell});
    if (cell > best) {
      best = cell;
      m_columns = columns;
    }
  }
  if (best <= 0) best = 0.1;
  m_frame = {best * video->width, best * video->height};
  m_left = std::max<qreal>(Theme::kEdge, (width() - m_columns * m_frame.width() - (m_columns - 1) * kGap) / 2);
  m_top = Theme::kPad;
  m_textBar = {};
  if (text) {
    const int rows = (video->frames + m_columns - 1) / m_columns;
    const qreal top = m_top + rows * (m_frame.height() + kCaption + kGap / 2) + kGap / 2 + kBarCaption;
    m_textBar = {m_left, top, m_columns * m_frame.width() + (m_columns - 1) * kGap, kBar};
  }
  update();
}

QRectF FramesCanvas::frameRect(int frame) const {
  const int column = frame % m_columns, row = frame / m_columns;
  return {m_left + column * (m_frame.width() + kGap), m_top + kCaption + row * (m_frame.height() + kCaption + kGap / 2),
          m_frame.width(), m_frame.height()};
}

QRectF FramesCanvas::rectOf(Index token) const {
  const Segment* video = m_layout.video();
  if (video == nullptr || token < 0) return {};
  if (token >= video->start && token < video->start + video->length) {
    const auto cell = m_layout.cellOf(token);
    if (!cell) return {};
    const QRectF frame = frameRect(cell->frame);
    const qreal w = frame.width() / video->width, h = frame.height() / video->height;
    return {frame.left() + cell->x * w, frame.top() + cell->y * h, w, h};
  }
  const Segment* words = m_layout.text();
  if (words != nullptr && token >= words->start && token < words->start + words->length) {
    const qreal w = m_textBar.width() / static_cast<qreal>(words->length);
    return {m_textBar.left() + static_cast<qreal>(token - words->start) * w, m_textBar.top(), w, m_textBar.height()};
  }
  return {};
}

Index FramesCanvas::tokenAt(const QPointF& position) const {
  const Segment* video = m_layout.video();
  if (video == nullptr || !m_title.isEmpty()) return -1;
  for (int f = 0; f < video->frames; ++f) {
    const QRectF rect = frameRect(f);
    if (!rect.contains(position)) continue;
    const int x =
        std::min(static_cast<int>((position.x() - rect.left()) / rect.width() * video->width), video->width - 1);
    const int y =
        std::min(static_cast<int>((position.y() - rect.top()) / rect.height() * video->height), video->height - 1);
    return video->start + (Index{f} * video->height + y) * video->width + x;
  }
  const Segment* words = m_layout.text();
  if (words != nullptr && m_textBar.contains(position)) {
    const auto i =
        static_cast<Index>((position.x() - m_textBar.left()) / m_textBar.width() * static_cast<qreal>(words->length));
    return words->start + std::min(i, words->length - 1);
  }
  return -1;
}

void FramesCanvas::paintMark(QPainter& painter, Index token, const QColor& color, const QString& name) const {
  QRectF box = rectOf(token);
  if (box.isEmpty()) return;
  // Never smaller than what a finger finds.
  const qreal grow = std::max<qreal>(1, (9 - std::min(box.width(), box.height())) / 2);
  box.adjust(-grow, -grow, grow, grow);
  painter.setBrush(Qt::NoBrush);
  painter.setPen(QPen(Theme::current().dark ? QColor(0, 0, 0, 180) : QColor(255, 255, 255, 200), 4));
  painter.drawRoundedRect(box, 2, 2);
  painter.setPen(QPen(color, 2));
  painter.drawRoundedRect(box, 2, 2);
  painter.setFont(fonts::secondary());
  const QFontMetrics metrics(painter.font());
  const QSizeF size(metrics.horizontalAdvance(name) + 6, metrics.height());
  QRectF tag(QPointF(box.right() + 3, box.top() - size.height() / 2), size);
  if (tag.right() > width()) tag.moveRight(box.left() - 3);
  if (tag.top() < 0) tag.moveTop(0);
  painter.setPen(Qt::NoPen);
  painter.setBrush(color);
  painter.drawRoundedRect(tag, 2, 2);
  painter.setPen(contrastRatio(color, Qt::white) > contrastRatio(color, Qt::black) ? Qt::white : Qt::black);
  painter.drawText(tag, Qt::AlignCenter, name);
}

void FramesCanvas::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const Theme& theme = Theme::current();
  painter.fillRect(rect(), theme.window);
  if (!m_title.isEmpty()) {
    const QRect room = rect().adjusted(Theme::kEdge, 0, -Theme::kEdge, 0);
    painter.setFont(fonts::title());
    painter.setPen(theme.text);
    painter.drawText(room.adjusted(0, 0, 0, -room.height() / 2), Qt::AlignHCenter | Qt::AlignBottom, m_title);
    painter.setFont(fonts::base());
    painter.setPen(theme.secondary);
    painter.drawText(room.adjusted(0, room.height() / 2 + Theme::kUnit, 0, 0),
                     Qt::AlignHCenter | Qt::AlignTop | Qt::TextWordWrap, m_message);
    return;
  }
  if (m_layout.video() == nullptr) return;
  if (m_stale) recolor();
  const qreal ratio = devicePixelRatioF();
  const QSize pixels(qRound(width() * ratio), qRound(height() * ratio));
  if (m_still.size() != pixels) {
    m_still = QImage(pixels, QImage::Format_RGB32);
    m_still.setDevicePixelRatio(ratio);
    m_still.fill(theme.window);
    QPainter still(&m_still);
    paintFrames(still);
  }
  painter.drawImage(QPointF(0, 0), m_still);
  painter.setRenderHint(QPainter::Antialiasing);
  if (m_hover >= 0) {
    painter.setPen(QPen(theme.text, 1));
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(rectOf(m_hover));
  }
  if (m_key != m_query) paintMark(painter, m_key, theme.slotB, tr("k"));
  paintMark(painter, m_query, theme.slotA, tr("q"));
  if (m_focusRing && hasFocus()) {
    painter.setRenderHint(QPainter::Antialiasing, false);
    painter.setPen(QPen(theme.accent, 1));
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(rect().adjusted(0, 0, -1, -1));
  }
}

/// Everything but what follows the mouse and the picked pair.
void FramesCanvas::paintFrames(QPainter& painter) const {
  const Theme& theme = Theme::current();
  const Segment* video = m_layout.video();
  painter.setRenderHint(QPainter::Antialiasing);
  const bool onVideo = m_previewShown && !m_preview.empty();
  const int captionHeight = fontHeight();
  for (int f = 0; f < video->frames; ++f) {
    const QRectF rect = frameRect(f);
    painter.setRenderHint(QPainter::SmoothPixmapTransform, true);
    if (onVideo) {
      const auto last = static_cast<double>(m_preview.size() - 1);
      const double at = video->frames > 1 ? f * last / (video->frames - 1) : 0;
      painter.drawImage(rect, m_preview[static_cast<std::size_t>(std::lround(at))]);
      painter.fillRect(rect, QColor(0, 0, 0, 90));
    } else {
      painter.fillRect(rect, theme.panel);
    }
    painter.setRenderHint(QPainter::SmoothPixmapTransform, false);
    if (static_cast<std::size_t>(f) < m_heat.size()) painter.drawImage(rect, m_heat[static_cast<std::size_t>(f)]);
    painter.setPen(QPen(theme.line, 1));
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(rect);
    painter.setFont(fonts::secondary());
    const QRectF caption(rect.left(), rect.top() - captionHeight - 1, rect.width(), captionHeight);
    QString mass;
    if (m_massShown && static_cast<std::size_t>(f) < m_frameMass.size())
      mass = formatPercent(m_frameMass[static_cast<std::size_t>(f)]);
    const QFontMetrics metrics(painter.font());
    const QString name = tr("frame %1").arg(f), brief = QStringLiteral("f%1").arg(f);
    const qreal room = caption.width() - metrics.horizontalAdvance(mass) - 6;
    painter.setPen(theme.secondary);
    if (metrics.horizontalAdvance(name) <= room)
      painter.drawText(caption, Qt::AlignLeft | Qt::AlignVCenter, name);
    else if (metrics.horizontalAdvance(brief) <= room)
      painter.drawText(caption, Qt::AlignLeft | Qt::AlignVCenter, brief);
    painter.setPen(theme.text);
    painter.drawText(caption, Qt::AlignRight | Qt::AlignVCenter, mass);
  }
  if (const Segment* words = m_layout.text(); words != nullptr && !m_textBar.isEmpty()) {
    painter.fillRect(m_textBar, theme.panel);
    painter.setRenderHint(QPainter::SmoothPixmapTransform, false);
    if (!m_textHeat.isNull()) painter.drawImage(m_textBar, m_textHeat);
    painter.setPen(QPen(theme.line, 1));
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(m_textBar);
    painter.setFont(fonts::secondary());
    const QRectF caption(m_textBar.left(), m_textBar.top() - captionHeight - 1, m_textBar.width(), captionHeight);
    painter.setPen(theme.secondary);
    painter.drawText(caption, Qt::AlignLeft | Qt::AlignVCenter, tr("%1 text tokens").arg(formatCount(words->length)));
    painter.setPen(theme.text);
    if (m_massShown && !m_values.empty())
      painter.drawText(caption, Qt::AlignRight | Qt::AlignVCenter, formatPercent(m_textMass));
  }
}

void FramesCanvas::resizeEvent(QResizeEvent* event) {
  QWidget::resizeEvent(event);
  place();
}

void FramesCanvas::mouseMoveEvent(QMouseEvent* event) {
  const Index token = tokenAt(event->position());
  if (token == m_hover) return;
  m_hover = token;
  update();
  Q_EMIT hovered(token);
}

void FramesCanvas::mousePressEvent(QMouseEvent* event) {
  setFocus(Qt::MouseFocusReason);
  const Index token = tokenAt(event->position());
  if (token < 0) return;
  const bool key = event->button() == Qt::RightButton || (event->modifiers() & Qt::ShiftModifier);
  if (key)
    Q_EMIT keyPicked(token);
  else if (event->button() == Qt::LeftButton)
    Q_EMIT queryPicked(token);
}

// A ring for who came by keyboard; a click shows where it went anyway.
void FramesCanvas::focusInEvent(QFocusEvent* event) {
  m_focusRing = event->reason() == Qt::TabFocusReason || event->reason() == Qt::BacktabFocusReason ||
                event->reason() == Qt::ShortcutFocusReason;
  QWidget::focusInEvent(event);
}

void FramesCanvas::leaveEvent(QEvent*) {
  m_hover = -1;
  update();
  Q_EMIT hovered(-1);
}

void FramesCanvas::keyPressEvent(QKeyEvent* event) {
  const bool frames = event->modifiers() & Qt::ControlModifier;
  switch (event->key()) {
    case Qt::Key_Left:
      return frames ? Q_EMIT queryMoved(0, 0, -1) : Q_EMIT queryMoved(-1, 0, 0);
    case Qt::Key_Right:
      return frames ? Q_EMIT queryMoved(0, 0, 1) : Q_EMIT queryMoved(1, 0, 0);
    case Qt::Key_Up:
      return Q_EMIT queryMoved(0, -1, 0);
    case Qt::Key_Down:
      return Q_EMIT queryMoved(0, 1, 0);
    default:
      QWidget::keyPressEvent(event);
  }
}

void FramesCanvas::changeEvent(QEvent* event) {
  QWidget::changeEvent(event);
  if (event->type() != QEvent::PaletteChange && event->type() != QEvent::FontChange) return;
  m_lut.reset();
  m_still = {};
  stale();
}

}  // namespace sparsight

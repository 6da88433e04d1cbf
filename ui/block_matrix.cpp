// SPDX-License-Identifier: Apache-2.0
#include "ui/block_matrix.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <algorithm>
#include <cmath>
#include <limits>

#include "ui/color_map.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

QString text(const std::string& s) { return QString::fromStdString(s); }

}  // namespace

PooledBlocks poolBlocks(const BlockPicture& picture, Index most) {
  PooledBlocks out;
  out.rows = std::min(picture.rows, most);
  out.columns = std::min(picture.columns, most);
  if (out.rows == 0 || out.columns == 0) return out;
  out.values.assign(at(out.rows * out.columns), std::numeric_limits<float>::quiet_NaN());
  const bool chosen = !picture.kept.empty();
  std::vector<Index> count;
  if (chosen) {
    out.kept.assign(out.values.size(), 0.0F);
    count.assign(out.values.size(), 0);
  }
  for (Index i = 0; i < picture.rows; ++i) {
    const Index row = i * out.rows / picture.rows;
    for (Index j = 0; j < picture.columns; ++j) {
      const std::size_t to = at(row * out.columns + j * out.columns / picture.columns);
      const std::size_t from = at(i * picture.columns + j);
      const float value = picture.values[from];
      // NaN compares false: it never replaces a number and is replaced by any.
      if (!(value <= out.values[to]) && !std::isnan(value)) out.values[to] = value;
      if (!chosen) continue;
      out.kept[to] += picture.kept[from] != 0 ? 1.0F : 0.0F;
      ++count[to];
    }
  }
  for (std::size_t n = 0; n < out.kept.size(); ++n) {
    if (count[n] > 0) out.kept[n] /= static_cast<float>(count[n]);
  }
  if (!picture.logScale) return out;
  // Between the 2nd and the 98th per cent, four decades at most: one extreme block must not wash out the others.
  std::vector<float> sorted;
  for (const float value : out.values)
    if (value > 0) sorted.push_back(value);
  if (sorted.empty()) return out;
  std::sort(sorted.begin(), sorted.end());
  const auto quantile = [&](double q) {
    return static_cast<double>(sorted[static_cast<std::size_t>(q * static_cast<double>(sorted.size() - 1))]);
  };
  out.high = quantile(0.98);
  out.low = std::min(out.high * 0.5, std::max(out.high * 1e-4, quantile(0.02)));
  // The colour tables know probabilities; sums over a block can be larger.
  for (float& value : out.values) value = static_cast<float>(static_cast<double>(value) / out.high);
  out.low /= out.high;
  out.high = 1.0;
  return out;
}

BlockMatrix::BlockMatrix(QWidget* parent) : QWidget(parent) {
  setMouseTracking(true);
  setFocusPolicy(Qt::StrongFocus);
}

void BlockMatrix::setStage(std::shared_ptr<const Stage> stage, PooledBlocks pooled) {
  m_stage = std::move(stage);
  m_pooled = std::move(pooled);
  const BlockPicture* shown = picture();
  if (shown != nullptr) {
    setAccessibleName(tr("%1: %2 rows, one per %3, by %4 columns, one per %5")
                          .arg(text(shown->what), formatCount(shown->rows), text(shown->rowName),
                               formatCount(shown->columns), text(shown->columnName)));
    if (m_row >= shown->rows) m_row = -1;
  }
  recolor();
}

void BlockMatrix::setRow(Index row) {
  if (row == m_row) return;
  m_row = row;
  update();
}

void BlockMatrix::recolor() {
  m_image = {};
  if (m_pooled.values.empty()) return update();
  const Theme& theme = Theme::current();
  ColorSettings settings;
  settings.palette = defaultPalette(theme.dark);
  const BlockPicture* shown = picture();
  settings.range = {m_pooled.low, m_pooled.high,
                    shown != nullptr && !shown->logScale ? ValueScale::Linear : ValueScale::Log};
  const ColorLut lut(settings, theme);
  m_image = QImage(static_cast<int>(m_pooled.columns), static_cast<int>(m_pooled.rows), QImage::Format_RGB32);
  const QRgb none = theme.noData.rgb();
  for (Index i = 0; i < m_pooled.rows; ++i) {
    auto* line = reinterpret_cast<QRgb*>(m_image.scanLine(static_cast<int>(i)));
    for (Index j = 0; j < m_pooled.columns; ++j) {
      const std::size_t n = at(i * m_pooled.columns + j);
      const float value = m_pooled.values[n];
      if (std::isnan(value)) {
        line[j] = none;
        continue;
      }
      const ValueCode code = encodeValue(value);
      line[j] = m_pooled.kept.empty() ? lut.colors()[code]
                                      : blendKept(lut.colors()[code], lut.dimmed()[code],
                                                  static_cast<unsigned>(std::lround(m_pooled.kept[n] * 255.0F)));
    }
  }
  update();
}

QRectF BlockMatrix::plot() const {
  const int line = QFontMetrics(fonts::secondary()).height();
  return QRectF(rect()).adjusted(Theme::kPad + line + Theme::kUnit, Theme::kPad + line + Theme::kUnit, -Theme::kPad,
                                 -Theme::kPad);
}

QRectF BlockMatrix::rowRect(Index row) const {
  const BlockPicture* shown = picture();
  if (shown == nullptr || row < 0 || row >= shown->rows) return {};
  const QRectF area = plot();
  const double step = area.height() / static_cast<double>(shown->rows);
  return {area.left(), area.top() + step * static_cast<double>(row), area.width(), step};
}

QString BlockMatrix::readout(Index row, Index column) const {
  const BlockPicture* shown = picture();
  if (shown == nullptr || row < 0 || column < 0 || row >= shown->rows || column >= shown->columns) return {};
  const std::size_t n = at(row * shown->columns + column);
  const float value = shown->values[n];
  QString out = tr("%1 %2, %3 %4: %5")
                    .arg(text(shown->rowName))
                    .arg(row)
                    .arg(text(shown->columnName))
                    .arg(column)
                    .arg(std::isnan(value) ? tr("no valid pair") : formatNumber(static_cast<double>(value)));
  if (!shown->kept.empty()) out += shown->kept[n] != 0 ? tr(", kept") : tr(", skipped");
  return out;
}

void BlockMatrix::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const Theme& theme = Theme::current();
  painter.fillRect(rect(), theme.window);
  const BlockPicture* shown = picture();
  if (shown == nullptr || m_image.isNull()) return;
  const QRectF area = plot();
  painter.setFont(fonts::secondary());
  painter.setPen(theme.secondary);
  const QFontMetrics metrics(painter.font());
  const int line = metrics.height();
  painter.drawText(
      QRectF(area.left(), Theme::kPad, area.width(), line), Qt::AlignLeft | Qt::AlignVCenter,
      metrics.elidedText(
          tr("%1 %2s \u2192   %3").arg(formatCount(shown->columns), text(shown->columnName), text(shown->what)),
          Qt::ElideRight, static_cast<int>(area.width())));
  painter.save();
  painter.translate(Theme::kPad, area.bottom());
  painter.rotate(-90);
  painter.drawText(QRectF(0, 0, area.height(), line), Qt::AlignRight | Qt::AlignVCenter,
                   tr("\u2190 %1 %2s").arg(formatCount(shown->rows), text(shown->rowName)));
  painter.restore();
  painter.setRenderHint(QPainter::SmoothPixmapTransform,
                        m_image.width() > area.width() || m_image.height() > area.height());
  painter.drawImage(area, m_image);
  painter.setRenderHint(QPainter::SmoothPixmapTransform, false);
  if (m_row >= 0) {
    QRectF row = rowRect(m_row);
    const double grow = std::max(0.0, (4 - row.height()) / 2);
    row.adjust(-2, -grow, 2, grow);
    painter.setBrush(Qt::NoBrush);
    painter.setPen(QPen(theme.window, 4));
    painter.drawRect(row);
    painter.setPen(QPen(theme.accent, 2));
    painter.drawRect(row);
  }
  if (hasFocus()) {
    painter.setPen(theme.accent);
    painter.drawRect(rect().adjusted(0, 0, -1, -1));
  }
}

void BlockMatrix::mouseMoveEvent(QMouseEvent* event) {
  const BlockPicture* shown = picture();
  const QRectF area = plot();
  if (shown == nullptr || !area.contains(event->position())) {
    Q_EMIT readoutChanged({});
    return;
  }
  const auto cell = [](double from, double length, Index count) {
    return std::clamp<Index>(static_cast<Index>(from / length * static_cast<double>(count)), 0, count - 1);
  };
  Q_EMIT readoutChanged(readout(cell(event->position().y() - area.top(), area.height(), shown->rows),
                                cell(event->position().x() - area.left(), area.width(), shown->columns)));
}

void BlockMatrix::mousePressEvent(QMouseEvent* event) {
  setFocus(Qt::MouseFocusReason);
  const BlockPicture* shown = picture();
  const QRectF area = plot();
  if (shown == nullptr || !area.contains(event->position())) return;
  const auto row =
      static_cast<Index>((event->position().y() - area.top()) / area.height() * static_cast<double>(shown->rows));
  Q_EMIT rowPicked(std::clamp<Index>(row, 0, shown->rows - 1));
}

void BlockMatrix::leaveEvent(QEvent*) { Q_EMIT readoutChanged({}); }

void BlockMatrix::keyPressEvent(QKeyEvent* event) {
  const int step = event->key() == Qt::Key_Down ? 1 : event->key() == Qt::Key_Up ? -1 : 0;
  const BlockPicture* shown = picture();
  if (step == 0 || shown == nullptr) return QWidget::keyPressEvent(event);
  Q_EMIT rowPicked(std::clamp<Index>(m_row < 0 ? 0 : m_row + step, 0, shown->rows - 1));
}

void BlockMatrix::changeEvent(QEvent* event) {
  QWidget::changeEvent(event);
  if (event->type() == QEvent::PaletteChange || event->type() == QEvent::FontChange) recolor();
}

}  // namespace sparsight

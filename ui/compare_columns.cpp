// SPDX-License-Identifier: Apache-2.0
#include "ui/compare_columns.h"

#include <QEvent>
#include <QPainter>
#include <algorithm>

#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kGap = Theme::kGroupGap, kMaxRows = 3;
constexpr int kAxis = 36, kAxisTop = 24;  // about what axes take of a canvas
constexpr int kMinBar = 180, kMinMap = 120;
constexpr Index kTileLimit = Index{64} << 20;  // the first column's tiles serve all
constexpr Index kMaskLimit = Index{16} << 20;

}  // namespace

/// Title with class glyph, then two lines of numbers or a state.
class CompareColumns::Caption : public QWidget {
 public:
  explicit Caption(QWidget* parent) : QWidget(parent) {}
  void set(const CompareCaption& caption) {
    if (caption == m_caption) return;
    m_caption = caption;
    QStringList parts{caption.title, caption.detail, caption.kept, caption.numbers, caption.state};
    parts.removeAll(QString());
    setToolTip(parts.join(QLatin1Char('\n')));
    setAccessibleName(parts.join(QStringLiteral(", ")));
    update();
  }
  [[nodiscard]] const CompareCaption& caption() const noexcept { return m_caption; }
  [[nodiscard]] static int wantedHeight() {
    return QFontMetrics(fonts::title()).height() + 2 * QFontMetrics(fonts::secondary()).height() + 10;
  }
  [[nodiscard]] static int wantedWidth() {
    return QFontMetrics(fonts::secondary()).horizontalAdvance(QStringLiteral("kept 26.5 % (skipped 73.5 %)")) + 8;
  }

 protected:
  void paintEvent(QPaintEvent*) override {
    const Theme& theme = Theme::current();
    QPainter painter(this);
    painter.setRenderHint(QPainter::Antialiasing);
    const QFontMetrics bold(fonts::title()), small(fonts::secondary());
    int x = 0, y = 2;
    painter.setFont(fonts::title());
    painter.setPen(theme.text);
    const QString title = bold.elidedText(m_caption.title, Qt::ElideRight, width());
    painter.drawText(QRect(0, y, width(), bold.height()), Qt::AlignLeft | Qt::AlignVCenter, title);
    x = bold.horizontalAdvance(title) + Theme::kPad;
    if (m_caption.headClass != HeadClass::None && x + 14 < width()) {
      paintClassGlyph(painter, QRectF(x, y + (bold.height() - 10) / 2.0, 10, 10), m_caption.headClass, theme);
      x += 14;
    }
    painter.setFont(fonts::secondary());
    painter.setPen(theme.secondary);
    if (x + 20 < width()) {
      const QRect room(x, y, width() - x, bold.height());
      painter.drawText(room, Qt::AlignLeft | Qt::AlignVCenter,
                       small.elidedText(m_caption.detail, Qt::ElideRight, room.width()));
    }
    y += bold.height() + 2;
    if (m_caption.state.isEmpty()) {
      painter.setPen(theme.text);
      painter.drawText(QRect(0, y, width(), small.height()), Qt::AlignLeft | Qt::AlignVCenter,
                       small.elidedText(m_caption.kept, Qt::ElideRight, width()));
      y += small.height();
      painter.setPen(theme.secondary);
      painter.drawText(QRect(0, y, width(), small.height()), Qt::AlignLeft | Qt::AlignVCenter,
                       small.elidedText(m_caption.numbers, Qt::ElideRight, width()));
      return;
    }
    painter.setPen(m_caption.failed ? theme.warning : theme.secondary);
    if (m_caption.progress >= 0) {
      painter.drawText(QRect(0, y, width(), small.height()), Qt::AlignLeft | Qt::AlignVCenter, m_caption.state);
      const QRectF bar(0, y + small.height() + 4, std::min(width(), 160), 4);
      painter.setPen(Qt::NoPen);
      painter.setBrush(theme.line);
      painter.drawRoundedRect(bar, 2, 2);
      painter.setBrush(theme.accent);
      painter.drawRoundedRect(QRectF(bar.topLeft(), QSizeF(bar.width() * std::clamp(m_caption.progress, 0.02, 1.0), 4)),
                              2, 2);
      return;
    }
    // Two lines, the second elided.
    const QRect room(0, y, width(), 2 * small.height());
    QString first = m_caption.state, second;
    while (small.horizontalAdvance(first) > width() && first.contains(QLatin1Char(' '))) {
      second.prepend(first.mid(first.lastIndexOf(QLatin1Char(' '))));
      first.truncate(first.lastIndexOf(QLatin1Char(' ')));
    }
    painter.drawText(room, Qt::AlignLeft | Qt::AlignTop, first);
    painter.drawText(room.translated(0, small.height()), Qt::AlignLeft | Qt::AlignTop,
                     small.elidedText(second.trimmed(), Qt::ElideRight, width()));
  }

 private:
  CompareCaption m_caption;
};

CompareColumns::CompareColumns(JobQueue& jobs, QWidget* parent) : QWidget(parent), m_jobs(jobs) {
  addColumn();
  ColorBar& bar = lead().colorBar();
  bar.setParent(this);
  bar.hide();
}

void CompareColumns::addColumn() {
  Column column{new Caption(this), new TileCanvas(m_jobs, this), nullptr};
  TileCanvas* canvas = column.canvas;
  const int index = static_cast<int>(m_columns.size());
  canvas->setObjectName(QStringLiteral("compareMap%1").arg(index));
  canvas->setCompact(true);
  canvas->setMinimapShown(false);
  canvas->setMinimumSize(60, 60);
  canvas->setTileLimit(index == 0 ? kTileLimit : kMaskLimit);
  if (index > 0) {
    TileCanvas* first = m_columns.front().canvas;
    canvas->setTileSource(first);
    canvas->setReduce(first->reduce());
    canvas->setColors(first->colors());
    canvas->setGridShown(first->gridShown());
    canvas->setAspectLocked(first->aspectLocked());
  }
  connect(canvas, &TileCanvas::optionsChanged, this, [this, canvas] {
    if (m_linking) return;
    m_linking = true;
    for (const Column& other : m_columns) {
      if (other.canvas == canvas) continue;
      other.canvas->setAspectLocked(canvas->aspectLocked());
      other.canvas->setGridShown(canvas->gridShown());
      if (canvas->map()) other.canvas->setViewport(canvas->viewport());
    }
    m_linking = false;
    Q_EMIT viewportChanged();
  });
  connect(canvas, &TileCanvas::colorsChanged, this, [this, canvas] {
    for (const Column& other : m_columns) {
      if (other.canvas == canvas || other.canvas->colors() == canvas->colors()) continue;
      other.canvas->setColors(canvas->colors());
    }
  });
  connect(canvas, &TileCanvas::picked, this, [this, canvas](Index row, Index col) {
    for (const Column& other : m_columns)
      if (other.canvas != canvas) other.canvas->setPicked(row, col);
    Q_EMIT picked(row, col);
  });
  connect(canvas, &TileCanvas::navigate, this, &CompareColumns::navigate);
  connect(canvas, &TileCanvas::readoutChanged, this, [this, index] { Q_EMIT pointed(index); });
  if (index == 0) connect(canvas, &TileCanvas::levelsChanged, this, &CompareColumns::levelsChanged);
  m_columns.push_back(column);
}

void CompareColumns::setCount(int count) {
  while (static_cast<int>(m_columns.size()) < count) addColumn();
  m_count = count;
  for (int i = 0; i < static_cast<int>(m_columns.size()); ++i) setOverlay(i, nullptr);
  for (int i = 0; i < static_cast<int>(m_columns.size()); ++i) {
    const Column& column = m_columns[static_cast<std::size_t>(i)];
    column.caption->setVisible(i < count);
    column.canvas->setVisible(i < count);
  }
  arrange();
  setMap(m_map, m_queries, m_keys);
}

void CompareColumns::setCaption(int column, const CompareCaption& caption) {
  const Column& at = m_columns[static_cast<std::size_t>(column)];
  at.caption->set(caption);
  at.canvas->setAccessibleName(tr("Attention map, %1").arg(caption.title));
}

const CompareCaption& CompareColumns::caption(int column) const {
  return m_columns[static_cast<std::size_t>(column)].caption->caption();
}

void CompareColumns::setMap(const std::shared_ptr<AttentionMap>& map, const AxisSpec& queries, const AxisSpec& keys) {
  m_map = map;
  m_queries = queries;
  m_keys = keys;
  const MapViewport view = lead().viewport();
  const bool same = map && lead().map() && lead().map()->rows() == map->rows() && lead().map()->cols() == map->cols();
  m_linking = true;
  for (int i = 0; i < static_cast<int>(m_columns.size()); ++i) {
    TileCanvas* canvas = m_columns[static_cast<std::size_t>(i)].canvas;
    if (canvas->map() != map) setOverlay(i, nullptr);
    canvas->setMap(i < std::max(m_count, 1) ? map : nullptr, queries, keys);
    if (same && i < m_count) canvas->setViewport(view);  // a column that was away has its own place
  }
  m_linking = false;
  lead().colorBar().setVisible(map != nullptr && m_count > 0);
  arrange();
}

void CompareColumns::setOverlay(int column, std::shared_ptr<const PlanOverlay> overlay) {
  m_columns[static_cast<std::size_t>(column)].overlay = overlay;
  canvas(column).setOverlay(std::move(overlay));
}

std::optional<bool> CompareColumns::keeps(int column, Index row, Index col, std::optional<double> probability) const {
  const auto& overlay = m_columns[static_cast<std::size_t>(column)].overlay;
  return overlay ? overlay->kept(row, col, probability) : std::nullopt;
}

void CompareColumns::setReduce(Reduce reduce) {
  for (const Column& column : m_columns) column.canvas->setReduce(reduce);
}

void CompareColumns::setColors(const ColorSettings& colors) { lead().setColors(colors); }

void CompareColumns::setPicked(Index row, Index col) {
  m_linking = true;
  for (int i = 0; i < m_count; ++i) canvas(i).setPicked(row, col);
  m_linking = false;
}

bool CompareColumns::isSettled() const {
  for (int i = 0; i < m_count; ++i)
    if (!canvas(i).isSettled()) return false;
  return true;
}

void CompareColumns::resizeEvent(QResizeEvent* event) {
  QWidget::resizeEvent(event);
  arrange();
}

void CompareColumns::changeEvent(QEvent* event) {
  QWidget::changeEvent(event);
  if (event->type() == QEvent::StyleChange || event->type() == QEvent::FontChange) arrange();
}

void CompareColumns::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  painter.fillRect(rect(), Theme::current().window);
}

void CompareColumns::arrange() {
  if (m_count == 0) return;
  ColorBar& bar = lead().colorBar();
  const int barWidth =
      std::max(bar.sizeHint().width(),
               QFontMetrics(fonts::secondary()).horizontalAdvance(QStringLiteral("mean-pooled 256\u00d7256")) + 12);
  const int captionHeight = Caption::wantedHeight();
  const bool square = lead().aspectLocked() && m_map && m_map->rows() == m_map->cols();
  const int readable = Caption::wantedWidth() + kAxis;  // a caption fits above the map
  const int room = width() - 2 * Theme::kGroupGap - barWidth - kGap;
  const int fewest =
      (m_count + std::max(1, (room + kGap) / (readable + kGap)) - 1) / std::max(1, (room + kGap) / (readable + kGap));
  setMinimumHeight(fewest * (captionHeight + kMinMap + kAxisTop + kGap) + 2 * Theme::kPad);
  const int tall = height() - 2 * Theme::kPad;
  // The rows that give the largest map with captions that can be read.
  int rows = fewest, largest = -1;
  for (int r = fewest; r <= std::min(std::max(kMaxRows, fewest), m_count); ++r) {
    const int perRow = (m_count + r - 1) / r;
    const int w = (room - (perRow - 1) * kGap) / perRow, h = (tall - (r - 1) * kGap) / r - captionHeight;
    const int side = std::min(w - kAxis, h - kAxisTop);
    if (side > largest) {
      largest = side;
      rows = r;
    }
  }
  const int perRow = (m_count + rows - 1) / rows;
  // All of exactly one size: then all need the same tiles.
  const int h = std::max(60, (tall - (rows - 1) * kGap) / rows - captionHeight);
  int w = std::max(60, (room - (perRow - 1) * kGap) / perRow);
  if (square) w = std::min(w, std::max(readable, h - kAxisTop + kAxis));  // side by side, not far apart
  // In the middle where there is room around.
  const int cell = captionHeight + (square ? std::min(h, w - kAxis + kAxisTop) : h);
  const int top = Theme::kPad + std::max(0, (tall - rows * cell - (rows - 1) * kGap) / 2);
  const int left = Theme::kGroupGap + std::max(0, (room - perRow * w - (perRow - 1) * kGap) / 2);
  for (int i = 0; i < static_cast<int>(m_columns.size()); ++i) {
    const int at = std::min(i, m_count - 1);
    const int x = left + (at % perRow) * (w + kGap), y = top + (at / perRow) * (cell + kGap);
    m_columns[static_cast<std::size_t>(i)].canvas->setGeometry(x, y + captionHeight, w, cell - captionHeight);
  }
  // Text stands over the map, not over its axis.
  const QRect plot = lead().plotRect();
  const int inset = lead().map() ? plot.left() : 0;
  for (int i = 0; i < m_count; ++i) {
    const Column& column = m_columns[static_cast<std::size_t>(i)];
    column.caption->setGeometry(column.canvas->x() + inset, column.canvas->y() - captionHeight, w - inset + kGap - 4,
                                captionHeight);
  }
  const TileCanvas& last = canvas(perRow - 1);
  const int textEnd = last.x() + inset + std::max(plot.width(), Caption::wantedWidth());
  const int barLeft = std::min(textEnd + kGap + Theme::kUnit, width() - barWidth);
  // As tall as a map, at least as tall as its ticks are readable; its title lines stand above it.
  const int barHeight = std::max(plot.height(), std::min(kMinBar, tall - top - captionHeight - plot.top()));
  const int title = 2 * QFontMetrics(fonts::secondary()).height() + 8;
  const int barTop = lead().y() + plot.top() - title;
  bar.setGeometry(barLeft, barTop, barWidth, title + barHeight + Theme::kPad);
  bar.setBarExtent(title + 2, title + barHeight - 2);
}

}  // namespace sparsight

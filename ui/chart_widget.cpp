// SPDX-License-Identifier: Apache-2.0
#include "ui/chart_widget.h"

#include <QAreaSeries>
#include <QCategoryAxis>
#include <QChart>
#include <QChartView>
#include <QGraphicsLayout>
#include <QLineSeries>
#include <QResizeEvent>
#include <algorithm>
#include <cmath>

#include "ui/theme.h"

namespace sparsight {

struct ChartWidget::Impl {
  /// Draws the owner's overlay with the chart's own painter, and leaves the mouse to the owner.
  class PlotView : public QChartView {
   public:
    PlotView(ChartWidget& owner, QChart* chart) : QChartView(chart, &owner), m_owner(owner) {
      setAttribute(Qt::WA_TransparentForMouseEvents);
      setFocusPolicy(Qt::NoFocus);
      setRenderHint(QPainter::Antialiasing);
      setFrameShape(QFrame::NoFrame);
      setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
      setVerticalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
      setBackgroundBrush(Qt::NoBrush);
      viewport()->setAutoFillBackground(false);
      // The overlay reaches over the whole view, so partial updates would leave traces of it.
      setViewportUpdateMode(QGraphicsView::FullViewportUpdate);
    }

   protected:
    void drawForeground(QPainter* painter, const QRectF&) override {
      painter->save();
      painter->resetTransform();
      m_owner.paintOverlay(*painter);
      painter->restore();
    }

   private:
    ChartWidget& m_owner;
  };

  explicit Impl(ChartWidget& owner) : chart(new QChart), view(new PlotView(owner, chart)) {
    chart->legend()->hide();
    chart->setBackgroundVisible(false);
    chart->setBackgroundRoundness(0);
    chart->setMargins(QMargins(0, 8, 12, 0));
    chart->layout()->setContentsMargins(0, 0, 0, 0);
    chart->setAnimationOptions(QChart::NoAnimation);
    for (QCategoryAxis* axis : {x, y}) axis->setLabelsPosition(QCategoryAxis::AxisLabelsPositionOnValue);
    chart->addAxis(x, Qt::AlignBottom);
    chart->addAxis(y, Qt::AlignLeft);
  }

  void setTicks(QCategoryAxis* axis, const Axis& spec) {
    const QStringList old = axis->categoriesLabels();
    for (const QString& label : old) axis->remove(label);
    axis->setStartValue(spec.min - 1);
    for (const Tick& tick : spec.ticks) axis->append(tick.label, tick.value);
    axis->setRange(spec.min, spec.max);
  }
  void attach(QAbstractSeries* added) const {
    chart->addSeries(added);
    added->attachAxis(x);
    added->attachAxis(y);
  }
  void clear(QVector<QAbstractSeries*>& list) const {
    for (QAbstractSeries* old : list) {
      chart->removeSeries(old);
      delete old;
    }
    list.clear();
  }
  /// One line or area without gaps.
  struct Part {
    QVector<QPointF> line, lower;  // lower: of an area under `line`
    QPen pen;
    QColor fill;
    [[nodiscard]] bool isArea() const { return !lower.isEmpty(); }
  };
  [[nodiscard]] QVector<Part> parts() const {
    QVector<Part> out;
    for (int i = 0; i < band.x.size();) {
      Part part;
      int j = i;
      for (; j < band.x.size() && std::isfinite(band.lower[j]) && std::isfinite(band.upper[j]); ++j) {
        part.lower << QPointF(band.x[j], band.lower[j]);
        part.line << QPointF(band.x[j], band.upper[j]);
      }
      if (j - i >= 2) {
        part.fill = band.color;
        part.fill.setAlphaF(0.18F);
        part.pen = Qt::NoPen;
        out << part;
      }
      i = std::max(j, i + 1);
    }
    for (const Line& line : lines) {
      for (int i = 0; i < line.points.size();) {
        Part part;
        int j = i;
        for (; j < line.points.size() && std::isfinite(line.points[j].y()); ++j) part.line << line.points[j];
        part.pen = QPen(line.color, line.width);
        part.pen.setCosmetic(true);
        part.pen.setJoinStyle(Qt::RoundJoin);
        part.pen.setCapStyle(line.dashed ? Qt::FlatCap : Qt::RoundCap);
        if (line.dashed) part.pen.setDashPattern({4, 3});
        out << part;
        i = std::max(j, i + 1);
      }
    }
    return out;
  }
  /// Series that stay take the new points: making them anew takes the chart ten times as long, at every move of a drag.
  void rebuild() {
    const QVector<Part> next = parts();
    const bool alike = next.size() == shown.size() &&
                       std::equal(next.begin(), next.end(), shown.begin(), [](const Part& a, const Part& b) {
                         return a.isArea() == b.isArea() && a.pen == b.pen && a.fill == b.fill;
                       });
    if (!alike) {
      clear(series);
      for (const Part& part : next) {
        if (part.isArea()) {
          auto* upper = new QLineSeries;
          auto* lower = new QLineSeries;
          auto* area = new QAreaSeries(upper, lower);
          lower->setParent(area);
          upper->setParent(area);
          area->setBrush(part.fill);
          area->setPen(part.pen);
          series << area;
        } else {
          auto* line = new QLineSeries;
          line->setPen(part.pen);
          series << line;
        }
      }
    }
    for (qsizetype i = 0; i < next.size(); ++i) {
      if (alike && next[i].line == shown[i].line && next[i].lower == shown[i].lower) continue;
      if (auto* area = qobject_cast<QAreaSeries*>(series[i])) {
        area->upperSeries()->replace(next[i].line);
        area->lowerSeries()->replace(next[i].lower);
      } else if (auto* line = qobject_cast<QLineSeries*>(series[i])) {
        line->replace(next[i].line);
      }
      if (!alike) attach(series[i]);
    }
    shown = next;
  }

  QChart* chart;
  QCategoryAxis* x = new QCategoryAxis;
  QCategoryAxis* y = new QCategoryAxis;
  PlotView* view;
  Axis xSpec, ySpec;
  Band band;
  QVector<Line> lines;
  QVector<Part> shown;
  QVector<QAbstractSeries*> series;  // of `shown`
};

ChartWidget::ChartWidget(QWidget* parent) : QWidget(parent), m_impl(std::make_unique<Impl>(*this)) { applyTheme(); }
ChartWidget::~ChartWidget() = default;

void ChartWidget::setAxes(const Axis& x, const Axis& y) {
  // Every label that goes or comes lays the whole chart out.
  if (!(m_impl->xSpec == x)) m_impl->setTicks(m_impl->x, x);
  if (!(m_impl->ySpec == y)) m_impl->setTicks(m_impl->y, y);
  m_impl->xSpec = x;
  m_impl->ySpec = y;
  updateOverlay();
}

void ChartWidget::setBand(const Band& band) {
  m_impl->band = band;
  m_impl->rebuild();
}

void ChartWidget::setSeries(const Band& band, const QVector<Line>& lines) {
  m_impl->band = band;
  m_impl->lines = lines;
  m_impl->rebuild();
}

void ChartWidget::setLines(const QVector<Line>& lines) {
  m_impl->lines = lines;
  m_impl->rebuild();
}

void ChartWidget::applyTheme() {
  const Theme& theme = Theme::current();
  for (QCategoryAxis* axis : {m_impl->x, m_impl->y}) {
    axis->setLabelsColor(theme.secondary);
    axis->setLabelsFont(fonts::secondary());
    axis->setGridLineVisible(axis == m_impl->y);
    axis->setGridLinePen(QPen(theme.grid, 1));
    axis->setLinePen(Qt::NoPen);
    axis->setLineVisible(false);
  }
  updateOverlay();
}

const ChartWidget::Axis& ChartWidget::xAxis() const noexcept { return m_impl->xSpec; }
const ChartWidget::Axis& ChartWidget::yAxis() const noexcept { return m_impl->ySpec; }

QRectF ChartWidget::plotArea() const {
  return m_impl->chart->plotArea().translated(m_impl->view->mapToParent(QPoint(0, 0)));
}

QPointF ChartWidget::toPixel(QPointF value) const {
  const QRectF area = plotArea();
  const Axis &x = m_impl->xSpec, &y = m_impl->ySpec;
  return {area.left() + (value.x() - x.min) / (x.max - x.min) * area.width(),
          area.bottom() - (value.y() - y.min) / (y.max - y.min) * area.height()};
}

QPointF ChartWidget::toValue(QPointF pixel) const {
  const QRectF area = plotArea();
  const Axis &x = m_impl->xSpec, &y = m_impl->ySpec;
  if (area.width() <= 0 || area.height() <= 0) return {};
  return {x.min + (pixel.x() - area.left()) / area.width() * (x.max - x.min),
          y.min + (area.bottom() - pixel.y()) / area.height() * (y.max - y.min)};
}

ChartWidget::Axis ChartWidget::percentAxis(double max, int height) {
  Axis axis;
  const double top = std::clamp(max, 0.02, 1.0);
  // The labels need about 28 px each; the chart elides them to dots when they have less.
  const int intervals = std::clamp((height - 36) / 28, 1, 5);
  double step = 1;
  for (const double candidate : {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5}) {
    if (top / candidate <= intervals) {
      step = candidate;
      break;
    }
  }
  axis.max = std::min(1.0, std::ceil(top / step - 1e-9) * step);
  const int count = static_cast<int>(std::lround(axis.max / step));
  for (int i = 0; i <= count; ++i) {
    axis.ticks.push_back({i * step, QStringLiteral("%1 %").arg(i * step * 100, 0, 'g', 3)});
  }
  return axis;
}

ChartWidget::Axis ChartWidget::indexAxis(int count, const QString& prefix, int wanted) {
  Axis axis;
  axis.min = -0.5;
  axis.max = std::max(count, 1) - 0.5;
  int step = 1;
  for (const int candidate : {1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000}) {
    step = candidate;
    if (count / candidate <= wanted) break;
  }
  for (int i = 0; i < count; i += step) axis.ticks.push_back({static_cast<double>(i), prefix + QString::number(i)});
  return axis;
}

void ChartWidget::paintOverlay(QPainter&) {}

void ChartWidget::updateOverlay() { m_impl->view->viewport()->update(); }

void ChartWidget::resizeEvent(QResizeEvent* event) {
  QWidget::resizeEvent(event);
  m_impl->view->setGeometry(rect());
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QColor>
#include <QPointF>
#include <QRectF>
#include <QString>
#include <QVector>
#include <QWidget>
#include <memory>

namespace sparsight {

/// Curves over a number line with a band, in the theme's colours. The only place that knows the chart library:
/// everything else hands in values and draws what is special (handles, labels, selections) in paintOverlay.
class ChartWidget : public QWidget {
  Q_OBJECT
 public:
  struct Tick {
    double value = 0;
    QString label;
    friend bool operator==(const Tick&, const Tick&) = default;
  };
  struct Axis {
    double min = 0, max = 1;
    QVector<Tick> ticks;
    friend bool operator==(const Axis&, const Axis&) = default;
  };
  struct Line {
    QVector<QPointF> points;  ///< NaN in y breaks the line
    QColor color;
    double width = 2;  ///< px
    bool dashed = false;
  };
  struct Band {
    QVector<double> x, lower, upper;  ///< NaN breaks the band
    QColor color;                     ///< drawn at 18 % opacity
  };
  explicit ChartWidget(QWidget* parent = nullptr);
  ~ChartWidget() override;

  void setAxes(const Axis& x, const Axis& y);
  void setBand(const Band& band);
  void setLines(const QVector<Line>& lines);                     ///< first = bottom
  void setSeries(const Band& band, const QVector<Line>& lines);  ///< both at once, built once
  /// Colours and fonts of the current theme.
  void applyTheme();

  [[nodiscard]] const Axis& xAxis() const noexcept;
  [[nodiscard]] const Axis& yAxis() const noexcept;
  [[nodiscard]] QRectF plotArea() const;  ///< in widget pixels
  [[nodiscard]] QPointF toPixel(QPointF value) const;
  [[nodiscard]] QPointF toValue(QPointF pixel) const;

  /// Ticks 0, 20 %, ... for fractions up to max, as many as a chart of that many pixels has room for.
  [[nodiscard]] static Axis percentAxis(double max, int height);
  /// Ticks every 1, 2, 5, 10, ... with the prefix, about `wanted` of them; half a unit of margin at both ends.
  [[nodiscard]] static Axis indexAxis(int count, const QString& prefix, int wanted = 12);

  [[nodiscard]] QSize sizeHint() const override { return {480, 180}; }
  [[nodiscard]] QSize minimumSizeHint() const override { return {160, 76}; }

 protected:
  /// Above the curves, in widget pixels, unclipped.
  virtual void paintOverlay(QPainter& painter);
  void updateOverlay();
  void resizeEvent(QResizeEvent* event) override;

 private:
  struct Impl;
  friend struct Impl;
  std::unique_ptr<Impl> m_impl;
};

}  // namespace sparsight

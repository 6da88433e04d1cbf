// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ui/chart_widget.h"

namespace sparsight {

/// One curve with its min-max band, a title above the plot and a marker at the current position; a click picks a
/// position.
class HeatCurve : public ChartWidget {
  Q_OBJECT
 public:
  struct Curve {
    QVector<double> mean, min, max;  ///< NaN: nothing there
    QString title;
    QString prefix;  ///< of the x labels
    double top = 0;  ///< least upper end of the scale
  };
  explicit HeatCurve(QWidget* parent = nullptr);
  ~HeatCurve() override;

  void setCurve(const Curve& curve);
  void setCurrent(int index);
  void applyTheme();

 Q_SIGNALS:
  void picked(int index);

 protected:
  void paintOverlay(QPainter& painter) override;
  void resizeEvent(QResizeEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;

 private:
  /// Once, before the next picture: values, sizes and themes come several in one event.
  void rebuildSoon();
  void rebuild();
  void pickAt(QPointF position);
  Curve m_values;
  int m_current = -1;
  bool m_rebuilds = false;
};

}  // namespace sparsight

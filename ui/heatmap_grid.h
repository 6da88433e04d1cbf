// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QImage>
#include <QWidget>
#include <vector>

#include "sparsight/core/palette.h"

namespace sparsight {

/// Values of a heat map [rows, columns] with what they mean.
struct HeatMatrix {
  int rows = 0, columns = 0;
  std::vector<double> values;       ///< row-major; NaN: hole
  QString rowPrefix, columnPrefix;  ///< "L", "H": axis labels
  QString rowTitle, columnTitle;    ///< "layer", "head"
  QString quantity;                 ///< over the colour bar: "kept fraction"
  ValueRange range{0, 1, ValueScale::Linear};
  bool diverging = false;        ///< signed values about 0
  bool percent = true;           ///< ticks as percent (differences: points)
  std::vector<bool> markedRows;  ///< locked layers; may be empty
  std::vector<bool> markedColumns;

  [[nodiscard]] double at(int row, int column) const;
};

/// A small heat map with axes and colour bar: cells coloured once into an image, holes hatched, one current cell. Lies
/// down (rows to the right) when that makes the cells larger. Click or arrow keys choose a cell, Home/End the ends of a
/// row.
class HeatGrid : public QWidget {
  Q_OBJECT
 public:
  explicit HeatGrid(QWidget* parent = nullptr);
  ~HeatGrid() override;

  void setMatrix(HeatMatrix matrix);
  [[nodiscard]] const HeatMatrix& matrix() const noexcept { return m_matrix; }
  void setCurrent(int row, int column);  ///< -1, -1: none
  /// A whole row and column marked lightly, e.g. the current step of the other mode.
  [[nodiscard]] QRectF cellRect(int row, int column) const;
  [[nodiscard]] bool cellAt(QPointF position, int& row, int& column) const;
  [[nodiscard]] bool isTransposed() const noexcept { return m_transposed; }
  void applyTheme();

  [[nodiscard]] QSize sizeHint() const override { return {560, 320}; }
  [[nodiscard]] QSize minimumSizeHint() const override { return {220, 120}; }

 Q_SIGNALS:
  void hovered(int row, int column);  ///< -1, -1: left
  void picked(int row, int column);

 protected:
  bool event(QEvent* event) override;
  void paintEvent(QPaintEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void leaveEvent(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void focusInEvent(QFocusEvent* event) override;
  void focusOutEvent(QFocusEvent* event) override;

 private:
  void layoutCells();
  void rebuildImage();
  void paintAxes(QPainter& painter) const;
  void paintColorBar(QPainter& painter) const;
  [[nodiscard]] Palette shownPalette() const;
  void hover(int row, int column);

  HeatMatrix m_matrix;
  QImage m_image;  ///< one pixel a cell, as drawn
  QRectF m_area, m_bar;
  double m_cellWidth = 1, m_cellHeight = 1;
  bool m_transposed = false;
  int m_row = -1, m_column = -1, m_hoverRow = -1, m_hoverColumn = -1;
};

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QAbstractScrollArea>
#include <QPoint>
#include <QString>
#include <optional>
#include <vector>

#include "sparsight/core/plan.h"

namespace sparsight {

/// One cell of the head grid, as painted and read out.
struct HeadCell {
  bool captured = false;
  HeadClass headClass = HeadClass::None;
  bool classKnown = false;
  std::optional<double> margin;  ///< of the class, 0..1
  std::optional<double> value;   ///< of the shown quantity, NaN never
  QString valueText;             ///< "26.5"
  QString accessible;            ///< "Layer 12 head 3, temporal, kept 18.0 percent, error 0.021"
  bool failed = false;
};

/// Layers x heads: rows are layers, columns heads, with sticky headers. Cells fill the width between a smallest and a
/// largest size; a grid larger than the widget scrolls. One current cell, driven by mouse and keyboard.
class HeadsGrid : public QAbstractScrollArea {
  Q_OBJECT
 public:
  explicit HeadsGrid(QWidget* parent = nullptr);

  /// cells is row-major [layers.size(), heads.size()]; layers and heads are the numbers shown in the headers.
  void setCells(std::vector<int> layers, std::vector<int> heads, std::vector<HeadCell> cells);
  /// true: glyph by class; false: filled by value between low and high.
  void setShowsClasses(bool classes);
  void setValueRange(double low, double high);
  void setCurrent(int layer, int head);
  [[nodiscard]] int currentLayer() const noexcept { return m_currentLayer; }
  [[nodiscard]] int currentHead() const noexcept { return m_currentHead; }
  [[nodiscard]] const HeadCell* cell(int layer, int head) const;
  [[nodiscard]] int cellSize() const noexcept { return m_cell; }
  /// Rectangle of a cell in viewport coordinates; empty: no such cell.
  [[nodiscard]] QRect cellRect(int layer, int head) const;
  /// Fill of a value in [0, 1] of the range.
  [[nodiscard]] static QColor valueColor(double unit);
  [[nodiscard]] QSize sizeHint() const override;
  [[nodiscard]] QSize minimumSizeHint() const override;
  [[nodiscard]] bool hasHeightForWidth() const override { return false; }
  /// Height that shows all rows at this width, headers included.
  [[nodiscard]] int idealHeight(int width) const;

 Q_SIGNALS:
  void currentChanged(int layer, int head);  ///< by the user
  void activated(int layer, int head);       ///< Enter or double click

 protected:
  void paintEvent(QPaintEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseDoubleClickEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void leaveEvent(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  bool viewportEvent(QEvent* event) override;
  void focusInEvent(QFocusEvent* event) override;
  void focusOutEvent(QFocusEvent* event) override;
  void changeEvent(QEvent* event) override;

 private:
  struct Place {
    int row = -1, column = -1;
    friend bool operator==(const Place&, const Place&) = default;
  };
  [[nodiscard]] int cellSizeFor(int width, int height) const;
  [[nodiscard]] int headerWidth() const;
  [[nodiscard]] int headerHeight() const;
  [[nodiscard]] Place placeAt(const QPoint& point) const;
  [[nodiscard]] Place currentPlace() const;
  [[nodiscard]] QRect rectOf(Place place) const;
  void relayout();
  void moveTo(Place place);
  void ensureVisible(Place place);
  void paintCell(QPainter& painter, const QRect& rect, const HeadCell& cell) const;
  void updateAccessibility();

  std::vector<int> m_layers, m_heads;
  std::vector<HeadCell> m_cells;
  bool m_classes = true;
  double m_low = 0, m_high = 1;
  int m_currentLayer = -1, m_currentHead = -1;
  Place m_hover;
  int m_cell = 16;
};

}  // namespace sparsight

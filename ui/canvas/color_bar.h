// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QPointer>
#include <QWidget>
#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "ui/color_map.h"

namespace sparsight {

/// How often each value code occurs in a map.
using CodeHistogram = std::vector<std::uint32_t>;  // [kValueCodes]

/// The scale beside a map: title, ticks per decade, draggable limits, histogram, and the value under the cursor.
class ColorBar : public QWidget {
  Q_OBJECT
 public:
  explicit ColorBar(QWidget* parent = nullptr);

  void setLut(std::shared_ptr<const ColorLut> lut);
  void setHistogram(std::shared_ptr<const CodeHistogram> histogram);
  /// Another bar with the same limits: both then span the same values, so that they can be read against each other.
  void setTwin(ColorBar* other);
  /// Two lines: quantity and scale, pooling.
  void setTitle(const QString& first, const QString& second);
  void setMarkedValue(std::optional<double> value);
  /// Where the bar itself lies, in widget coordinates (aligned with the map beside it).
  void setBarExtent(int top, int bottom);
  [[nodiscard]] QRect barRect() const noexcept;
  /// Values the whole bar spans; limits move inside it.
  [[nodiscard]] ValueRange domain() const noexcept { return m_domain; }
  /// y of a value, and back.
  [[nodiscard]] double yOf(double value) const noexcept;
  [[nodiscard]] double valueAtY(double y) const noexcept;
  [[nodiscard]] QSize sizeHint() const override;

 Q_SIGNALS:
  void rangeDragged(double minimum, double maximum);
  void resetRequested();

 protected:
  void paintEvent(QPaintEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mouseReleaseEvent(QMouseEvent* event) override;
  void mouseDoubleClickEvent(QMouseEvent* event) override;
  void leaveEvent(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void focusInEvent(QFocusEvent* event) override;
  void focusOutEvent(QFocusEvent* event) override;

 private:
  enum class Handle : std::uint8_t { None, Minimum, Maximum };
  void updateDomain(bool tellTwin = true);
  [[nodiscard]] ValueRange ownDomain() const;
  void rebinHistogram();
  void moveHandle(Handle handle, double value);
  [[nodiscard]] Handle handleAt(const QPointF& position) const;
  [[nodiscard]] std::vector<std::pair<double, QString>> ticks() const;

  std::shared_ptr<const ColorLut> m_lut;
  std::shared_ptr<const CodeHistogram> m_histogram;
  QString m_title, m_subtitle;
  std::optional<double> m_marked;
  QPointer<ColorBar> m_twin;
  ValueRange m_domain;
  int m_top = 0, m_bottom = 0;
  Handle m_dragging = Handle::None, m_hover = Handle::None, m_focused = Handle::Maximum;
  std::vector<float> m_bins;  // 0..1 per pixel row of the bar
};

}  // namespace sparsight

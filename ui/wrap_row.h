// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QWidget>
#include <vector>

namespace sparsight {

/// Controls in one row that goes on in further rows where it is narrow: as wide as it is made, as high as that needs.
class WrapRow : public QWidget {
 public:
  explicit WrapRow(QWidget* parent = nullptr, const QMargins& margins = {});
  void addControl(QWidget* control);
  /// These stay together at the right edge, behind all others.
  void addAtEnd(QWidget* control);

 protected:
  void resizeEvent(QResizeEvent* event) override;
  void showEvent(QShowEvent* event) override;
  bool event(QEvent* event) override;
  /// Width that a control takes and the space behind it.
  [[nodiscard]] virtual int widthOf(const QWidget* control) const;
  [[nodiscard]] virtual int gapAfter(const QWidget* control) const;
  void arrange();

 private:
  QMargins m_margins;
  std::vector<QWidget*> m_controls, m_end;
};

}  // namespace sparsight

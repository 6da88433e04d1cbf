// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QWidget>

class QDockWidget;
class QToolButton;

namespace sparsight {

class SectionLabel;

/// A quiet dock title: small spaced caption; float and close appear under the pointer or with keyboard focus.
class DockTitle : public QWidget {
  Q_OBJECT
 public:
  explicit DockTitle(QDockWidget* dock);
  /// Without height: the dock stands behind a tab that already shows its name.
  void setCompact(bool compact);
  [[nodiscard]] QSize sizeHint() const override;
  [[nodiscard]] QSize minimumSizeHint() const override { return sizeHint(); }

 protected:
  void changeEvent(QEvent* event) override;
  void enterEvent(QEnterEvent* event) override;
  void leaveEvent(QEvent* event) override;

 private:
  void showButtons(bool show);
  QDockWidget* m_dock;
  SectionLabel* m_caption;
  QToolButton *m_float, *m_close;
  bool m_compact = false;
};

}  // namespace sparsight

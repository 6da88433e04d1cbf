// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QCoreApplication>
#include <QEvent>
#include <QLayout>
#include <QPointer>
#include <QResizeEvent>
#include <QWidget>
#include <initializer_list>
#include <utility>
#include <vector>

namespace sparsight {

/// While it lives the layouts of these widgets rest. Qt lays a visible window out anew, up to the window itself, for
/// each child that is shown; where a dozen are, this makes it once, in the next turn of the event loop and before
/// anything is painted.
class LayoutPause {
 public:
  LayoutPause(std::initializer_list<QWidget*> widgets) : LayoutPause(std::vector<QWidget*>(widgets)) {}
  explicit LayoutPause(const std::vector<QWidget*>& widgets) {
    for (QWidget* widget : widgets) {
      QLayout* layout = widget->layout();
      if (layout == nullptr || !layout->isEnabled()) continue;  // an outer pause goes on
      layout->setEnabled(false);
      m_layouts.emplace_back(layout);
    }
  }
  ~LayoutPause() { resume(); }
  /// As its end.
  void resume() {
    for (const QPointer<QLayout>& layout : std::exchange(m_layouts, {})) {
      if (!layout) continue;
      layout->setEnabled(true);
      QWidget* widget = layout->parentWidget();
      if (widget == nullptr) continue;
      // Its own request, and a new size, may have come, and gone, while it rested.
      // NOLINTNEXTLINE(bugprone-unhandled-exception-at-new): Qt does not go on without memory either
      QCoreApplication::postEvent(widget, new QEvent(QEvent::LayoutRequest));
      if (layout->geometry() == widget->contentsRect()) continue;
      if (widget->isVisible())
        // NOLINTNEXTLINE(bugprone-unhandled-exception-at-new): as above
        QCoreApplication::postEvent(widget, new QResizeEvent(widget->size(), widget->size()));
      else if (widget->testAttribute(Qt::WA_Resized))  // not what never had a size: its own comes with showing it
        widget->setAttribute(Qt::WA_PendingResizeEvent);
    }
  }
  LayoutPause(const LayoutPause&) = delete;
  LayoutPause& operator=(const LayoutPause&) = delete;

 private:
  std::vector<QPointer<QLayout>> m_layouts;
};

}  // namespace sparsight

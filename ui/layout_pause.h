// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QCoreApplication>
#include <QEvent>
#include <QLayout>
#include <QPointer>
#include <QWidget>
#include <initializer_list>
#include <vector>

namespace sparsight {

/// While it lives the layouts of these widgets rest. Qt lays a visible window out anew, up to the window itself, for
/// each child that is shown; where a dozen are, this makes it once, in the next turn of the event loop and before
/// anything is painted.
class LayoutPause {
 public:
  LayoutPause(std::initializer_list<QWidget*> widgets) {
    for (QWidget* widget : widgets) {
      QLayout* layout = widget->layout();
      if (layout == nullptr || !layout->isEnabled()) continue;  // an outer pause goes on
      layout->setEnabled(false);
      m_layouts.emplace_back(layout);
    }
  }
  ~LayoutPause() {
    for (const QPointer<QLayout>& layout : m_layouts) {
      if (!layout) continue;
      layout->setEnabled(true);
      // Its own request may have come, and gone, while it rested.
      if (QWidget* widget = layout->parentWidget())
        // NOLINTNEXTLINE(bugprone-unhandled-exception-at-new): Qt does not go on without memory either
        QCoreApplication::postEvent(widget, new QEvent(QEvent::LayoutRequest));
    }
  }
  LayoutPause(const LayoutPause&) = delete;
  LayoutPause& operator=(const LayoutPause&) = delete;

 private:
  std::vector<QPointer<QLayout>> m_layouts;
};

}  // namespace sparsight

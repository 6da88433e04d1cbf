// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QEvent>
#include <QScrollArea>
#include <QScrollBar>

namespace sparsight {

/// A column that scrolls up and down only, so it is never narrower than its content: nothing is cut off at the right.
/// QScrollArea by itself is content with any width.
class ColumnScroll : public QScrollArea {
 public:
  explicit ColumnScroll(QWidget* parent = nullptr) : QScrollArea(parent) {
    setWidgetResizable(true);
    setFrameShape(QFrame::NoFrame);
    setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  }
  [[nodiscard]] QSize minimumSizeHint() const override {
    const int least =
        widget() == nullptr ? 0 : widget()->minimumSizeHint().width() + verticalScrollBar()->sizeHint().width();
    return QScrollArea::minimumSizeHint().expandedTo({least, 0});
  }

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override {
    const bool handled = QScrollArea::eventFilter(watched, event);
    if (watched == widget() && event->type() == QEvent::LayoutRequest) updateGeometry();
    return handled;
  }
};

}  // namespace sparsight

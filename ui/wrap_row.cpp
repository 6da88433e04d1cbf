// SPDX-License-Identifier: Apache-2.0
#include "ui/wrap_row.h"

#include <QCoreApplication>
#include <QEvent>
#include <algorithm>

#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kLeastWidth = 40;

}  // namespace

WrapRow::WrapRow(QWidget* parent, const QMargins& margins) : QWidget(parent), m_margins(margins) {}

void WrapRow::addControl(QWidget* control) {
  control->setParent(this);
  m_controls.push_back(control);
  arrange();
}

void WrapRow::addAtEnd(QWidget* control) {
  control->setParent(this);
  m_end.push_back(control);
  arrange();
}

void WrapRow::resizeEvent(QResizeEvent* event) {
  QWidget::resizeEvent(event);
  arrange();
}

void WrapRow::showEvent(QShowEvent* event) {
  QWidget::showEvent(event);
  arrange();
}

bool WrapRow::event(QEvent* event) {
  if (event->type() == QEvent::LayoutRequest) {
    arrange();
  } else if (event->type() == QEvent::StyleChange || event->type() == QEvent::FontChange) {
    // Once, after the controls have theirs: each of them would be measured as often as there are controls.
    QCoreApplication::postEvent(this, new QEvent(QEvent::LayoutRequest));
  }
  return QWidget::event(event);
}

int WrapRow::widthOf(const QWidget* control) const {
  return std::clamp(control->sizeHint().width(), control->minimumWidth(), control->maximumWidth());
}

int WrapRow::gapAfter(const QWidget*) const { return Theme::kPad; }

void WrapRow::arrange() {
  const int height = fonts::px(Theme::kControl), left = m_margins.left(), right = width() - m_margins.right();
  int x = left, y = m_margins.top();
  const auto newRow = [&] {
    x = left;
    y += height + Theme::kUnit;
  };
  for (QWidget* control : m_controls) {
    if (control->isHidden()) continue;
    const int wanted = widthOf(control);
    if (x + wanted > right && x > left) newRow();
    control->setGeometry(x, y, std::min(wanted, std::max(kLeastWidth, right - x)), height);
    x += wanted + gapAfter(control);
  }
  int together = 0;
  for (const QWidget* control : m_end)
    if (!control->isHidden()) together += widthOf(control) + gapAfter(control);
  if (together > 0) {
    together -= Theme::kPad;
    if (x + together > right && x > left) newRow();
    x = std::max(left, right - together);
    for (QWidget* control : m_end) {
      if (control->isHidden()) continue;
      control->setGeometry(x, y, widthOf(control), height);
      x += widthOf(control) + gapAfter(control);
    }
  }
  // A hidden page has no width yet: many rows of its header must not be what the window makes room for.
  const int total = (isVisible() ? y : m_margins.top()) + height + m_margins.bottom();
  if (minimumHeight() != total) setFixedHeight(total);
}

}  // namespace sparsight

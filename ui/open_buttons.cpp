// SPDX-License-Identifier: Apache-2.0
#include "ui/open_buttons.h"

#include <QAction>
#include <QBoxLayout>
#include <QPushButton>

#include "ui/theme.h"

namespace sparsight {

OpenButtons::OpenButtons(Qt::Orientation orientation, QWidget* parent) : QWidget(parent) {
  auto* row = new QBoxLayout(orientation == Qt::Horizontal ? QBoxLayout::LeftToRight : QBoxLayout::TopToBottom, this);
  row->setContentsMargins(0, 0, 0, 0);
  row->setSpacing(Theme::kPad);
  const auto add = [&](const char* action, const QString& text, bool primary) {
    auto* button = new QPushButton(text, this);
    button->setObjectName(QLatin1String(action));
    button->setProperty("primary", primary);
    connect(button, &QPushButton::clicked, this, [this, name = QLatin1String(action)] {
      if (auto* found = window()->findChild<QAction*>(name)) found->trigger();
    });
    row->addWidget(button);
  };
  add("file.open", tr("Open a trace\u2026"), true);
  add("file.demo", tr("Open the demo"), false);
}

void OpenButtons::showEvent(QShowEvent* event) {
  QWidget::showEvent(event);
  for (auto* button : findChildren<QPushButton*>())
    button->setVisible(window()->findChild<QAction*>(button->objectName()) != nullptr);
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "ui/dock_title.h"

#include <QDockWidget>
#include <QEvent>
#include <QHBoxLayout>
#include <QToolButton>

#include "ui/icons.h"
#include "ui/section_label.h"
#include "ui/theme.h"

namespace sparsight {
namespace {
QToolButton* smallButton(const QString& icon, const QString& tip, QWidget* parent) {
  auto* button = new QToolButton(parent);
  button->setIcon(themedIcon(icon));
  button->setIconSize(QSize(12, 12));
  button->setToolTip(tip);
  button->setAccessibleName(tip);
  QSizePolicy policy = button->sizePolicy();
  policy.setRetainSizeWhenHidden(true);
  button->setSizePolicy(policy);
  button->hide();
  return button;
}
}  // namespace

DockTitle::DockTitle(QDockWidget* dock) : QWidget(dock), m_dock(dock) {
  setProperty("role", QStringLiteral("panel"));
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(Theme::kEdge, 4, 6, 0);
  row->setSpacing(0);
  m_caption = new SectionLabel(dock->windowTitle(), this);
  m_float = smallButton(QStringLiteral("float"), tr("Float or dock"), this);
  m_close = smallButton(QStringLiteral("close"), tr("Close panel (View menu brings it back)"), this);
  row->addWidget(m_caption, 1);
  row->addWidget(m_float);
  row->addWidget(m_close);
  connect(m_float, &QToolButton::clicked, dock, [dock] { dock->setFloating(!dock->isFloating()); });
  connect(m_close, &QToolButton::clicked, dock, &QDockWidget::close);
}

void DockTitle::setCompact(bool compact) {
  if (compact == m_compact) return;
  m_compact = compact;
  // A title bar of no height still needs the layout to forget its own minimum.
  m_caption->setVisible(!compact);
  if (compact) showButtons(false);
  setFixedHeight(compact ? 0 : sizeHint().height());
  updateGeometry();
}

QSize DockTitle::sizeHint() const {
  return {120, m_compact ? 0 : QFontMetrics(fonts::dockTitle()).height() + Theme::kPad + 8};
}

void DockTitle::changeEvent(QEvent* event) {
  QWidget::changeEvent(event);
  if (event->type() == QEvent::FontChange && !m_compact && minimumHeight() > 0) setFixedHeight(sizeHint().height());
}

void DockTitle::showButtons(bool show) {
  m_float->setVisible(show);
  m_close->setVisible(show && (m_dock->features() & QDockWidget::DockWidgetClosable));
}

void DockTitle::enterEvent(QEnterEvent* event) {
  QWidget::enterEvent(event);
  if (!m_compact) showButtons(true);
}
void DockTitle::leaveEvent(QEvent* event) {
  QWidget::leaveEvent(event);
  showButtons(false);
}

}  // namespace sparsight

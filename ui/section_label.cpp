// SPDX-License-Identifier: Apache-2.0
#include "ui/section_label.h"

#include <QPainter>
#include <utility>

#include "ui/style.h"
#include "ui/theme.h"

namespace sparsight {
WrapLabel::WrapLabel(QWidget* parent) : QLabel(parent) { setWordWrap(true); }
WrapLabel::WrapLabel(const QString& text, QWidget* parent) : QLabel(text, parent) { setWordWrap(true); }

int WrapLabel::heightForWidth(int width) const {
  Known now{text(), font(), contentsMargins(), margin(), indent(), textFormat(), wordWrap()};
  constexpr qsizetype kKept = 64;  // a splitter that is dragged asks for every width
  if (!(now == m_known) || m_heights.size() > kKept) {
    m_known = std::move(now);
    m_heights.clear();
  }
  const auto found = m_heights.constFind(width);
  if (found != m_heights.constEnd()) return *found;
  const int height = QLabel::heightForWidth(width);
  m_heights.insert(width, height);
  return height;
}

SectionLabel::SectionLabel(const QString& text, QWidget* parent) : QLabel(text, parent) {
  setForegroundRole(kSecondaryRole);
  fonts::give(this, FontRole::DockTitle);
}

NoteLabel::NoteLabel(QWidget* parent, bool wraps) : WrapLabel(parent) {
  setWordWrap(wraps);
  setTextFormat(Qt::PlainText);
  setForegroundRole(kSecondaryRole);
  fonts::give(this, FontRole::Note);
}

void NoteLabel::setRole(Role role) {
  setForegroundRole(role == Role::Warning ? kWarningRole : role == Role::Error ? QPalette::BrightText : kSecondaryRole);
}

ElidedLabel::ElidedLabel(QWidget* parent) : QWidget(parent) {
  setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Fixed);
}

void ElidedLabel::setText(const QString& text) {
  if (text == m_text) return;
  m_text = text;
  setAccessibleName(text);
  updateGeometry();
  update();
}

void ElidedLabel::setBold(bool bold) {
  m_bold = bold;
  updateGeometry();
  update();
}

void ElidedLabel::setAlignment(Qt::Alignment alignment) {
  m_alignment = alignment;
  update();
}

QFont ElidedLabel::textFont() const { return m_bold ? fonts::title() : fonts::base(); }

QSize ElidedLabel::sizeHint() const {
  const QFontMetrics metrics(textFont());
  return {metrics.horizontalAdvance(m_text) + 2, metrics.height() + 2};
}

QSize ElidedLabel::minimumSizeHint() const {
  const QFontMetrics metrics(textFont());
  return {metrics.horizontalAdvance(QStringLiteral("mm\u2026mm")), metrics.height() + 2};
}

void ElidedLabel::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  painter.setFont(textFont());
  painter.setPen(Theme::current().text);
  const QString shown = painter.fontMetrics().elidedText(m_text, Qt::ElideMiddle, width());
  painter.drawText(rect(), static_cast<int>(m_alignment), shown);
  setToolTip(shown == m_text ? QString() : m_text);
}

}  // namespace sparsight

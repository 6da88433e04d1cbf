// SPDX-License-Identifier: Apache-2.0
#include "ui/map_header.h"

#include <QEvent>
#include <QStylePainter>
#include <algorithm>

#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kArrow = 24;

}  // namespace

CaptionCombo::CaptionCombo(const QString& caption, QWidget* parent) : QComboBox(parent), m_caption(caption) {
  setAccessibleName(caption);
  setFocusPolicy(Qt::TabFocus);  // the keys of the map stay with the map
  setSizeAdjustPolicy(QComboBox::AdjustToContents);
}

QSize CaptionCombo::sizeHint() const {
  const QFontMetrics captions(fonts::secondary()), values(font());
  int widest = 0;
  for (int i = 0; i < count(); ++i) widest = std::max(widest, values.horizontalAdvance(itemText(i)));
  return {Theme::kPad + captions.horizontalAdvance(m_caption) + Theme::kPad + widest + kArrow,
          fonts::px(Theme::kControl)};
}

bool CaptionCombo::select(const QVariant& key) {
  const int index = findData(key);
  if (index < 0) return false;
  const QSignalBlocker quiet(this);
  setCurrentIndex(index);
  return true;
}

void CaptionCombo::paintEvent(QPaintEvent*) {
  QStylePainter painter(this);
  QStyleOptionComboBox option;
  initStyleOption(&option);
  painter.drawComplexControl(QStyle::CC_ComboBox, option);
  const Theme& theme = Theme::current();
  const QRect area = rect().adjusted(Theme::kPad, 0, -kArrow, 0);
  painter.setFont(fonts::secondary());
  painter.setPen(theme.secondary);
  painter.drawText(area, Qt::AlignLeft | Qt::AlignVCenter, m_caption);
  const int used = QFontMetrics(fonts::secondary()).horizontalAdvance(m_caption) + Theme::kPad;
  painter.setFont(font());
  painter.setPen(isEnabled() ? theme.text : theme.disabled);
  const QRect value = area.adjusted(used, 0, 4, 0);
  painter.drawText(value, Qt::AlignLeft | Qt::AlignVCenter,
                   QFontMetrics(font()).elidedText(currentText(), Qt::ElideRight, value.width()));
}

MapHeader::MapHeader(QWidget* parent)
    : WrapRow(parent, {Theme::kGroupGap, Theme::kPad, Theme::kPad, Theme::kUnit}), m_title(new QLabel(this)) {
  fonts::give(m_title, FontRole::Title);
  m_title->setAlignment(Qt::AlignLeft | Qt::AlignVCenter);
  addControl(m_title);
}

void MapHeader::setTitle(const QString& title) {
  if (m_title->text() == title) return;
  m_title->setText(title);
  arrange();
}

int MapHeader::widthOf(const QWidget* control) const {
  if (control != m_title) return WrapRow::widthOf(control);
  // Room for the widest title, so that the controls do not move while stepping through heads.
  return std::max(
      m_title->sizeHint().width(),
      QFontMetrics(fonts::title()).horizontalAdvance(QStringLiteral("L00 \u00b7 H00 \u00b7 step 00 \u00b7 uncond")));
}

int MapHeader::gapAfter(const QWidget* control) const {
  return control == m_title ? Theme::kGroupGap : WrapRow::gapAfter(control);
}

}  // namespace sparsight

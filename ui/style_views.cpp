// SPDX-License-Identifier: Apache-2.0
#include <QPainter>
#include <QStyleOption>
#include <QWidget>
#include <algorithm>

#include "ui/style.h"
#include "ui/style_parts.h"

namespace sparsight {

using namespace style;

namespace {

int mnemonicFlags(const Style& style, const QStyleOption& option, const QWidget* widget) {
  const bool underlined = style.styleHint(QStyle::SH_UnderlineShortcut, &option, widget, nullptr) != 0;
  return static_cast<int>(Qt::TextShowMnemonic | Qt::TextSingleLine | Qt::AlignVCenter) |
         (underlined ? 0 : static_cast<int>(Qt::TextHideMnemonic));
}

/// Where icons and checks stand, left of the texts of a menu.
int markColumn(const QStyleOptionMenuItem& item) {
  return std::max(item.maxIconWidth, item.menuHasCheckableItems ? 20 : 0);
}

}  // namespace

QSize style::menuItemSize(const QStyleOptionMenuItem& item, QSize contents) {
  if (item.menuItemType == QStyleOptionMenuItem::Separator) return {contents.width(), 1 + 2 * Theme::kUnit};
  const int gap = item.text.contains(QLatin1Char('\t')) ? kMenuLeft : 0;
  return {contents.width() + gap + markColumn(item) + kMenuLeft + kMenuRight, contents.height() + 2 * kMenuPadding};
}

QSize style::headerSize(const QStyleOptionHeader& header) {
  constexpr int kMargin = 2;
  const QSize text = header.fontMetrics.size(0, header.text);
  return {text.width() + 2 * (kMargin + Theme::kPad), text.height() + 2 * (kMargin + Theme::kUnit) + 1};
}

void Style::drawMenuItem(const QStyleOptionMenuItem& item, QPainter& painter, const QWidget* widget) const {
  const Theme& theme = Theme::current();
  const QRect r = item.rect;
  const auto placed = [&](const QRect& rect) { return visualRect(item.direction, r, rect); };
  if (item.menuItemType == QStyleOptionMenuItem::Separator) {
    painter.fillRect(r.adjusted(Theme::kPad, Theme::kUnit, -Theme::kPad, -Theme::kUnit), theme.line);
    return;
  }
  const bool enabled = item.state.testFlag(State_Enabled), active = enabled && item.state.testFlag(State_Selected);
  if (active) drawBox(painter, r, theme.accent, {}, 0, Theme::kUnit);
  const QColor ink = active ? theme.onAccent : enabled ? theme.text : theme.disabled;
  if (!item.icon.isNull()) {
    item.icon.paint(&painter, placed({r.x() + Theme::kUnit, r.y() + (r.height() - 16) / 2, 16, 16}), Qt::AlignCenter,
                    !enabled ? QIcon::Disabled
                    : active ? QIcon::Selected
                             : QIcon::Normal,
                    item.checked ? QIcon::On : QIcon::Off);
  } else if (item.checkType != QStyleOptionMenuItem::NotCheckable && item.checked) {
    drawIcon(painter, placed({r.x() + 6, r.y() + (r.height() - 14) / 2, 14, 14}), "check", 14,
             active    ? theme.onAccent
             : enabled ? theme.secondary
                       : theme.disabled);
  }
  const int tab = static_cast<int>(item.text.indexOf(QLatin1Char('\t')));
  const QRect text = r.adjusted(kMenuLeft + markColumn(item), 0, -kMenuRight, 0);
  const int flags = mnemonicFlags(*this, item, widget) | static_cast<int>(Qt::TextDontClip);
  const int leading = static_cast<int>(item.direction == Qt::RightToLeft ? Qt::AlignRight : Qt::AlignLeft);
  painter.setPen(ink);
  painter.drawText(placed(text), flags | leading, tab < 0 ? item.text : item.text.left(tab));
  // The width of all shortcuts was added to that of the items.
  const int keys = item.reservedShortcutWidth;
  if (tab >= 0)
    painter.drawText(placed({text.right() + 1 - keys, r.y(), keys, r.height()}), flags | leading,
                     item.text.mid(tab + 1));
  if (item.menuItemType == QStyleOptionMenuItem::SubMenu)
    drawIcon(painter, placed({r.right() - 18, r.y(), 16, r.height()}),
             item.direction == Qt::RightToLeft ? "back" : "forward", 12,
             active    ? theme.onAccent
             : enabled ? theme.secondary
                       : theme.disabled);
}

void Style::drawMenuBarItem(const QStyleOptionMenuItem& item, QPainter& painter, const QWidget* widget) const {
  const Theme& theme = Theme::current();
  const bool enabled = item.state.testFlag(State_Enabled);
  if (enabled && (item.state & (State_Selected | State_Sunken)))
    drawBox(painter, item.rect, theme.hover, {}, 0, Theme::kUnit);
  painter.setPen(enabled ? theme.text : theme.disabled);
  painter.drawText(item.rect, mnemonicFlags(*this, item, widget) | static_cast<int>(Qt::AlignHCenter), item.text);
}

void Style::drawHeader(const QStyleOptionHeader& header, QPainter& painter, const QWidget* widget) const {
  QStyleOptionHeader part(header);
  drawControl(CE_HeaderSection, &part, &painter, widget);
  part.rect = subElementRect(SE_HeaderLabel, &header, widget);
  if (header.sortIndicator != QStyleOptionHeader::None) {
    QStyleOptionHeader arrow(header);
    arrow.rect = visualRect(header.direction, header.rect,
                            QRect(part.rect.right() + 1 - 12, part.rect.y(), 12, part.rect.height()));
    drawPrimitive(PE_IndicatorHeaderArrow, &arrow, &painter, widget);
    part.rect.setRight(part.rect.right() - 16);
  }
  drawControl(CE_HeaderLabel, &part, &painter, widget);
}

void Style::drawHeaderLabel(const QStyleOptionHeader& header, QPainter& painter) const {
  painter.save();
  QFont font = fonts::secondary();
  if (header.state.testFlag(State_On)) font.setWeight(QFont::Bold);
  painter.setFont(font);
  const Theme& theme = Theme::current();
  painter.setPen(header.state.testFlag(State_Enabled) ? theme.secondary : theme.disabled);
  painter.drawText(header.rect, static_cast<int>(header.textAlignment | Qt::TextSingleLine),
                   QFontMetrics(font).elidedText(header.text, Qt::ElideRight, header.rect.width()));
  painter.restore();
}

void Style::drawTab(const QStyleOptionTab& tab, QPainter& painter, const QWidget*) const {
  if (!tab.state.testFlag(State_Selected)) return;
  const QRect r = tab.rect.adjusted(kTabLeft, 0, -kTabRight, 0);
  painter.fillRect(QRect(r.x(), r.bottom() + 1 - kTabLine, r.width(), kTabLine), Theme::current().accent);
}

void Style::drawTabLabel(const QStyleOptionTab& tab, QPainter& painter, const QWidget* widget) const {
  const Theme& theme = Theme::current();
  const bool enabled = tab.state.testFlag(State_Enabled), selected = tab.state.testFlag(State_Selected);
  const bool hovered = enabled && tab.state.testFlag(State_MouseOver);
  painter.save();
  if (selected) painter.setFont(semibold(painter.font()));
  painter.setPen(!enabled                                         ? theme.disabled
                 : selected && tab.state.testFlag(State_HasFocus) ? theme.accent
                 : selected || hovered                            ? theme.text
                                                                  : theme.secondary);
  QRect room = tab.rect.adjusted(kTabLeft, kTabTop, -kTabRight, -kTabBottom - kTabLine);
  if (!tab.icon.isNull()) {
    tab.icon.paint(&painter, QRect(room.x() + kTabPadding, room.center().y() - tab.iconSize.height() / 2,
                                   tab.iconSize.width(), tab.iconSize.height()));
    room.setLeft(room.left() + tab.iconSize.width() + Theme::kUnit);
  }
  painter.drawText(room, mnemonicFlags(*this, tab, widget) | static_cast<int>(Qt::AlignHCenter), tab.text);
  painter.restore();
}

void Style::drawScrollBar(const QStyleOptionSlider& bar, QPainter& painter, const QWidget* widget) const {
  const Theme& theme = Theme::current();
  const QRect handle = subControlRect(CC_ScrollBar, &bar, SC_ScrollBarSlider, widget).adjusted(2, 2, -2, -2);
  const bool held = bar.state.testFlag(State_Enabled) && bar.activeSubControls.testFlag(SC_ScrollBarSlider) &&
                    (bar.state & (State_MouseOver | State_Sunken));
  drawBox(painter, handle, held ? theme.secondary : theme.scroll, {}, 0, 3);
}

}  // namespace sparsight

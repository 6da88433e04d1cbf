// SPDX-License-Identifier: Apache-2.0
#include "ui/style.h"

#include <QAbstractButton>
#include <QAbstractItemView>
#include <QAbstractScrollArea>
#include <QAbstractSpinBox>
#include <QComboBox>
#include <QCoreApplication>
#include <QEvent>
#include <QGuiApplication>
#include <QLabel>
#include <QLineEdit>
#include <QMenuBar>
#include <QProgressBar>
#include <QScrollBar>
#include <QStatusBar>
#include <QStyleOption>
#include <QTabBar>
#include <QTextBrowser>
#include <algorithm>

#include "ui/style_parts.h"

namespace sparsight {

using namespace style;

namespace {

void applyRole(QWidget* widget) {
  const QString role = widget->property("role").toString();
  if (auto* label = qobject_cast<QLabel*>(widget)) {
    const bool quiet =
        role == QLatin1String("secondary") || (role.isEmpty() && qobject_cast<QStatusBar*>(widget->parentWidget()));
    if (quiet || !role.isEmpty() || label->property(kHasRole).toBool()) {
      label->setForegroundRole(quiet                              ? kSecondaryRole
                               : role == QLatin1String("warning") ? kWarningRole
                               : role == QLatin1String("error")   ? QPalette::BrightText
                                                                  : QPalette::NoRole);
      label->setProperty(kHasRole, true);
    }
    return;
  }
  if (role == QLatin1String("line")) widget->setFixedHeight(1);
  if (role == QLatin1String("line") || role == QLatin1String("bar") || role == QLatin1String("popup")) {
    widget->setAttribute(Qt::WA_StyledBackground);
  } else if (role == QLatin1String("panel") || role == QLatin1String("window")) {
    widget->setBackgroundRole(role == QLatin1String("panel") ? QPalette::Base : QPalette::Window);
    widget->setAutoFillBackground(true);
  }
}

/// Views in a raised surface: the list of a combo box, of the command palette.
bool isRaised(const QWidget* view) {
  for (const QWidget* above = view->parentWidget(); above != nullptr; above = above->parentWidget()) {
    if (isComboPopup(above) || above->property("role").toString() == QLatin1String("popup")) return true;
    if (above->isWindow()) break;
  }
  return false;
}

bool reactsToHover(const QWidget* widget) {
  return qobject_cast<const QAbstractButton*>(widget) != nullptr || qobject_cast<const QLineEdit*>(widget) != nullptr ||
         qobject_cast<const QAbstractSpinBox*>(widget) != nullptr ||
         qobject_cast<const QComboBox*>(widget) != nullptr || qobject_cast<const QAbstractSlider*>(widget) != nullptr ||
         qobject_cast<const QTabBar*>(widget) != nullptr;
}

}  // namespace

Style::Style() : QProxyStyle(QStringLiteral("Fusion")) {}

void Style::polish(QWidget* widget) {
  QProxyStyle::polish(widget);
  if (reactsToHover(widget)) widget->setAttribute(Qt::WA_Hover);
  if (qobject_cast<QScrollBar*>(widget) != nullptr) widget->setAttribute(Qt::WA_OpaquePaintEvent, false);
  applyRole(widget);
  if (auto* bar = qobject_cast<QProgressBar*>(widget)) {
    bar->setFixedHeight(kBarHeight);
  } else if (auto* tabs = qobject_cast<QTabBar*>(widget)) {
    tabs->setDrawBase(false);
  } else if (auto* menu = qobject_cast<QMenuBar*>(widget)) {
    menu->setAutoFillBackground(false);
  } else if (auto* area = qobject_cast<QAbstractScrollArea*>(widget)) {
    if (isTextField(area) || (qobject_cast<QAbstractItemView*>(area) != nullptr && isRaised(area)))
      area->viewport()->setBackgroundRole(kRaisedRole);
    // The width of its frame was asked before it was known what it is.
    if (area->frameShape() != QFrame::NoFrame) area->setFrameStyle(area->frameStyle());
  }
}

int Style::styleHint(StyleHint hint, const QStyleOption* option, const QWidget* widget, QStyleHintReturn* data) const {
  switch (hint) {
    case SH_UnderlineShortcut:
      return QGuiApplication::keyboardModifiers().testFlag(Qt::AltModifier) ? 1 : 0;
    case SH_DialogButtonBox_ButtonsHaveIcons:
    case SH_ComboBox_Popup:
    case SH_EtchDisabledText:
    case SH_DitherDisabledText:
      return 0;
    case SH_ComboBox_PopupFrameStyle:
      return static_cast<int>(QFrame::StyledPanel) | static_cast<int>(QFrame::Plain);
    case SH_Table_GridLineColor:
      return static_cast<int>(Theme::current().grid.rgba());
    default:
      return QProxyStyle::styleHint(hint, option, widget, data);
  }
}

int Style::pixelMetric(PixelMetric metric, const QStyleOption* option, const QWidget* widget) const {
  switch (metric) {
    case PM_DefaultFrameWidth:
      if (isComboPopup(widget)) return 1 + Theme::kUnit;
      if (isTextField(widget)) return 1 + Theme::kPad;
      if (qobject_cast<const QAbstractScrollArea*>(widget) != nullptr) return 0;
      return 1;
    case PM_ButtonMargin:
    case PM_ButtonShiftHorizontal:
    case PM_ButtonShiftVertical:
    case PM_ButtonDefaultIndicator:
    case PM_MenuButtonIndicator:
    case PM_MenuBarPanelWidth:
    case PM_MenuBarHMargin:
    case PM_MenuBarVMargin:
    case PM_MenuBarItemSpacing:
    case PM_ScrollView_ScrollBarSpacing:
    case PM_TabBarTabHSpace:
    case PM_TabBarTabVSpace:
    case PM_TabBarTabShiftHorizontal:
    case PM_TabBarTabShiftVertical:
    case PM_TabBarBaseOverlap:
    case PM_TabBarBaseHeight:
    case PM_DockWidgetFrameWidth:
      return 0;
    case PM_IndicatorWidth:
    case PM_IndicatorHeight:
      return qobject_cast<const QAbstractItemView*>(widget) != nullptr ? kItemIndicator : kIndicator;
    case PM_ExclusiveIndicatorWidth:
    case PM_ExclusiveIndicatorHeight:
      return kIndicator;
    case PM_CheckBoxLabelSpacing:
    case PM_RadioButtonLabelSpacing:
      return Theme::kPad;
    case PM_MenuPanelWidth:
    case PM_SplitterWidth:
    case PM_DockWidgetSeparatorExtent:
      return 1;
    case PM_MenuHMargin:
    case PM_MenuVMargin:
      return Theme::kUnit;
    case PM_ToolTipLabelFrameWidth:
      return 1 + Theme::kPad;
    case PM_ScrollBarExtent:
      return 10;
    case PM_ScrollBarSliderMin:
      return 32;
    case PM_TabBarScrollButtonWidth:
      return 20;
    case PM_SliderThickness:
      return kRow;
    case PM_SliderControlThickness:
    case PM_SliderLength:
      return kHandle;
    default:
      return QProxyStyle::pixelMetric(metric, option, widget);
  }
}

QSize Style::sizeFromContents(ContentsType type, const QStyleOption* option, const QSize& contents,
                              const QWidget* widget) const {
  switch (type) {
    case CT_PushButton:
      if (const auto* button = qstyleoption_cast<const QStyleOptionButton*>(option)) {
        const PushLook look = pushLook(widget, State_Enabled);
        int width = contents.width();
        // A tab of a layout is as wide when it is the current one.
        if (look.bold || isSet(widget, "layoutTab")) {
          const QFont plain = widget != nullptr ? widget->font() : fonts::base();
          width += QFontMetrics(semibold(plain)).horizontalAdvance(button->text) -
                   QFontMetrics(plain).horizontalAdvance(button->text);
        }
        return {width + 2 * (1 + look.padding), std::max(contents.height(), look.height) + 2};
      }
      break;
    case CT_ToolButton:
      if (isSet(widget, "framed"))
        return {contents.width() + 3 + 2 * (1 + kButtonPadding),
                std::max(contents.height() + 2, fonts::px(Theme::kControl - 2)) + 2};
      return contents + QSize(3 + 2 * 4, 3 + 2 * 4);
    case CT_LineEdit:
      // In a spin box, an editable combo box: they have the frame.
      if (widget != nullptr && isPartOfField(widget)) return contents;
      if (widget != nullptr && isCellEditor(widget)) return contents + QSize(2 * (1 + Theme::kUnit), 2);
      return {contents.width() + 2 * (1 + Theme::kPad),
              std::max(contents.height(), fonts::px(Theme::kControl - 2)) + 2};
    case CT_SpinBox: {
      const auto* box = qstyleoption_cast<const QStyleOptionSpinBox*>(option);
      const int buttons = box != nullptr && box->buttonSymbols == QAbstractSpinBox::NoButtons ? 0 : kSpinButton;
      if (widget != nullptr && isCellEditor(widget)) return contents + QSize(buttons + 2 * (1 + Theme::kUnit), 2);
      return {contents.width() + buttons + 2 * (1 + Theme::kPad),
              std::max(contents.height(), fonts::px(Theme::kControl - 2)) + 2};
    }
    case CT_ComboBox:
      return {contents.width() + kComboButton + 2 + 2 * 1 + Theme::kPad + kComboButton,
              std::max(contents.height(), fonts::px(Theme::kControl - 2)) + 2};
    case CT_CheckBox:
    case CT_RadioButton:
      return {contents.width() + kIndicator + Theme::kPad, std::max(contents.height(), kRow)};
    case CT_Slider:
      return contents;
    case CT_ProgressBar:
      return {contents.width(), kBarHeight};
    case CT_Menu:
    case CT_MenuBar:
      return contents;
    case CT_MenuBarItem:
      return contents + QSize(2 * kMenuBarPadding, 2 * kMenuPadding);
    case CT_MenuItem:
      if (const auto* item = qstyleoption_cast<const QStyleOptionMenuItem*>(option))
        return menuItemSize(*item, contents);
      break;
    case CT_HeaderSection:
      if (const auto* header = qstyleoption_cast<const QStyleOptionHeader*>(option)) return headerSize(*header);
      break;
    case CT_TabBarTab:
      return contents + QSize(kTabLeft + kTabRight + 2 * kTabPadding, kTabTop + kTabBottom + kTabLine);
    case CT_ItemViewItem: {
      QSize size = QProxyStyle::sizeFromContents(type, option, contents, widget);
      const bool popup = widget != nullptr && isComboPopup(widget->window());
      size.setHeight(std::max(size.height(), fonts::px(popup ? Theme::kControl - 2 : kItemHeight)));
      return size + QSize(2 * Theme::kPad, 0);
    }
    default:
      break;
  }
  return QProxyStyle::sizeFromContents(type, option, contents, widget);
}

QRect Style::subElementRect(SubElement element, const QStyleOption* option, const QWidget* widget) const {
  const QRect r = option->rect;
  switch (element) {
    case SE_PushButtonContents:
    case SE_PushButtonFocusRect: {
      const int side = 1 + pushLook(widget, option->state).padding;
      return r.adjusted(side, 1, -side, -1);
    }
    case SE_LineEditContents:
      if (widget != nullptr && isPartOfField(widget)) return r;
      return r.adjusted(1 + Theme::kPad, 1, -1 - Theme::kPad, -1);
    case SE_CheckBoxIndicator:
    case SE_RadioButtonIndicator:
      return visualRect(option->direction, r,
                        QRect(r.x(), r.y() + (r.height() - kIndicator) / 2, kIndicator, kIndicator));
    case SE_CheckBoxContents:
    case SE_RadioButtonContents:
      return visualRect(option->direction, r, r.adjusted(kIndicator + Theme::kPad, 0, 0, 0));
    case SE_CheckBoxFocusRect:
    case SE_CheckBoxClickRect:
    case SE_RadioButtonFocusRect:
    case SE_RadioButtonClickRect:
    case SE_ProgressBarGroove:
    case SE_ProgressBarContents:
      return r;
    case SE_ItemViewItemText:
    case SE_ItemViewItemDecoration:
    case SE_ItemViewItemCheckIndicator:
    case SE_ItemViewItemFocusRect:
      if (const auto* item = qstyleoption_cast<const QStyleOptionViewItem*>(option)) {
        // In a table the texts begin where those of its header do: the base style has a margin of its own.
        const bool popup = isComboPopup(widget != nullptr ? widget->window() : nullptr);
        const int side = popup ? Theme::kPad : Theme::kPad - kItemMargin;
        QStyleOptionViewItem inner(*item);
        inner.rect.adjust(side, 0, -side, 0);
        return QProxyStyle::subElementRect(element, &inner, widget);
      }
      break;
    case SE_HeaderLabel:
      return r.adjusted(Theme::kPad, Theme::kUnit, -Theme::kPad, -Theme::kUnit - 1);
    case SE_ShapedFrameContents:
      if (qobject_cast<const QTextBrowser*>(widget) != nullptr)
        return r.adjusted(Theme::kPad, Theme::kPad, -Theme::kPad, -Theme::kPad);
      break;
    case SE_TabWidgetTabContents:
      return QProxyStyle::subElementRect(SE_TabWidgetTabPane, option, widget).adjusted(0, 1, 0, 0);
    default:
      break;
  }
  return QProxyStyle::subElementRect(element, option, widget);
}

void setLook(QWidget* widget, const char* property, bool on) {
  if (isSet(widget, property) == on) return;
  widget->setProperty(property, on);
  // Forgets the size that it had, and paints it.
  QEvent changed(QEvent::StyleChange);
  QCoreApplication::sendEvent(widget, &changed);
}

void setRole(QWidget* widget, const QString& role) {
  if (widget->property("role").toString() == role) return;
  widget->setProperty("role", role);
  applyRole(widget);
  widget->update();
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include <QAbstractSpinBox>
#include <QPainter>
#include <QStyleOption>
#include <QWidget>
#include <algorithm>

#include "ui/style.h"
#include "ui/style_parts.h"

namespace sparsight {

using namespace style;

namespace {

using State = QStyle::State;

/// Fill, outline and width of the outline of line edits, spin boxes and combo boxes.
struct FieldLook {
  QColor fill, line, text;
  int border = 1;
};
FieldLook fieldLook(const QWidget* widget, State state) {
  const Theme& theme = Theme::current();
  const bool enabled = state.testFlag(QStyle::State_Enabled);
  FieldLook look;
  if (enabled) look.fill = theme.field;
  look.text = enabled ? theme.text : theme.disabled;
  look.line = enabled && state.testFlag(QStyle::State_MouseOver) ? theme.hoverLine : theme.line;
  if (enabled && state.testFlag(QStyle::State_HasFocus)) {
    look.line = theme.accent;
    look.border = 2;
  }
  if (isSet(widget, "invalid")) {
    look.line = theme.error;
    look.border = 2;
  }
  return look;
}

void drawField(QPainter& painter, const QRect& rect, const FieldLook& look, double radius = Theme::kRadius) {
  drawBox(painter, rect, look.fill, look.line, look.border, radius);
}

/// Icon, then text, in the middle of `room`.
void drawCentred(QPainter& painter, const QRect& room, const QIcon& icon, QSize iconSize, const QString& text,
                 const QColor& color, State state, int flags, bool leftAligned) {
  const bool pictured = !icon.isNull();
  const int gap = pictured && !text.isEmpty() ? 4 : 0;  // as QPushButton counts it
  const int width = painter.fontMetrics().size(Qt::TextShowMnemonic, text).width();
  int x = room.x();
  if (!leftAligned) x += std::max(0, (room.width() - width - gap - (pictured ? iconSize.width() : 0)) / 2);
  if (pictured) {
    const QIcon::Mode mode = state.testFlag(QStyle::State_Enabled) ? QIcon::Normal : QIcon::Disabled;
    icon.paint(&painter,
               QRect(x, room.y() + (room.height() - iconSize.height()) / 2, iconSize.width(), iconSize.height()),
               Qt::AlignCenter, mode, state.testFlag(QStyle::State_On) ? QIcon::On : QIcon::Off);
    x += iconSize.width() + gap / 2;
  }
  if (text.isEmpty()) return;
  painter.setPen(color);
  painter.drawText(QRect(QPoint(x, room.y()), QPoint(room.right(), room.bottom())),
                   flags | static_cast<int>(Qt::AlignVCenter | Qt::AlignLeft), text);
}

void drawCheck(QPainter& painter, const QRect& rect, State state) {
  const Theme& theme = Theme::current();
  const bool enabled = state.testFlag(QStyle::State_Enabled);
  const bool on = state.testFlag(QStyle::State_On), some = state.testFlag(QStyle::State_NoChange);
  const QColor mark = enabled ? theme.accent : theme.disabled;
  const bool focused = enabled && state.testFlag(QStyle::State_HasFocus);
  const QColor line = on || some || focused || (enabled && state.testFlag(QStyle::State_MouseOver)) ? mark
                      : enabled                                                                     ? theme.controlLine
                                                                                                    : theme.line;
  drawBox(painter, rect, on || some ? mark : enabled ? theme.field : QColor(), line, focused ? 2 : 1, Theme::kUnit);
  if (on) drawIcon(painter, rect, "check-on", 16, enabled ? theme.onAccent : theme.panel);
  if (some) painter.fillRect(rect.center().x() - 3, rect.center().y(), 8, 2, enabled ? theme.onAccent : theme.panel);
}

void drawRadio(QPainter& painter, const QRect& rect, State state) {
  const Theme& theme = Theme::current();
  const bool enabled = state.testFlag(QStyle::State_Enabled), on = state.testFlag(QStyle::State_On);
  const double radius = rect.width() / 2.0;
  const QColor mark = enabled ? theme.accent : theme.disabled;
  if (on) return drawBox(painter, rect, enabled ? theme.onAccent : theme.panel, mark, 5, radius);
  const bool lit = enabled && (state & (QStyle::State_MouseOver | QStyle::State_HasFocus));
  const bool focused = enabled && state.testFlag(QStyle::State_HasFocus);
  drawBox(painter, rect, enabled ? theme.field : QColor(),
          lit       ? mark
          : enabled ? theme.controlLine
                    : theme.line,
          focused ? 2 : 1, radius);
}

void drawLineEdit(const QStyleOptionFrame& frame, QPainter& painter, const QWidget* widget) {
  if (widget != nullptr && isPartOfField(widget)) return;  // it has the frame
  const bool cell = widget != nullptr && isCellEditor(widget);
  drawField(painter, frame.rect, fieldLook(widget, frame.state), cell ? 0 : Theme::kRadius);
}

void drawShapedFrame(const QStyleOptionFrame& frame, QPainter& painter, const QWidget* widget) {
  const Theme& theme = Theme::current();
  if (isTextField(widget))
    return drawField(painter, frame.rect, fieldLook(widget, frame.state & ~QStyle::State_MouseOver));
  if (isComboPopup(widget)) return drawBox(painter, frame.rect, theme.raised, theme.line, 1, 0);
  // Views lie on panels: they have no frame of their own.
  if (widget != nullptr && widget->inherits("QAbstractScrollArea")) return;
  switch (frame.frameShape) {
    case QFrame::NoFrame:
      return;
    case QFrame::HLine:
      return painter.fillRect(QRect(frame.rect.x(), frame.rect.center().y(), frame.rect.width(), 1), theme.line);
    case QFrame::VLine:
      return painter.fillRect(QRect(frame.rect.center().x(), frame.rect.y(), 1, frame.rect.height()), theme.line);
    default:
      return drawBox(painter, frame.rect, {}, theme.line, 1, 0);
  }
}

/// A surface that is not that of its window.
void drawSurface(const QStyleOption& option, QPainter& painter, const QWidget* widget) {
  if (widget == nullptr) return;
  const Theme& theme = Theme::current();
  const QString role = widget->property("role").toString();
  if (role == QLatin1String("popup")) {
    drawBox(painter, option.rect, theme.raised, theme.line, 1, 0);
  } else if (role == QLatin1String("bar")) {
    painter.fillRect(option.rect, theme.panel);
    painter.fillRect(QRect(option.rect.x(), option.rect.bottom(), option.rect.width(), 1), theme.line);
  } else if (role == QLatin1String("line")) {
    painter.fillRect(option.rect, theme.line);
  }
}

void drawProgress(const QStyleOptionProgressBar& bar, QPainter& painter) {
  const QRect r = bar.rect;
  const double span = static_cast<double>(bar.maximum) - bar.minimum;
  // Without an end it shows half: what is being done says so beside it.
  const double part = span > 0 ? (static_cast<double>(bar.progress) - bar.minimum) / span : 0.5;
  const int width = static_cast<int>(std::clamp(part, 0.0, 1.0) * r.width());
  if (width > 0) drawBox(painter, QRect(r.x(), r.y(), width, r.height()), Theme::current().accent, {}, 0, 2);
}

void drawArrow(const QStyleOption& option, QPainter& painter, const char* name, int size) {
  const Theme& theme = Theme::current();
  drawIcon(painter, option.rect, name, size,
           option.state.testFlag(QStyle::State_Enabled) ? theme.secondary : theme.disabled);
}

}  // namespace

void Style::drawPrimitive(PrimitiveElement element, const QStyleOption* option, QPainter* painter,
                          const QWidget* widget) const {
  const Theme& theme = Theme::current();
  const QRect r = option->rect;
  switch (element) {
    case PE_PanelButtonCommand: {
      const PushLook look = pushLook(widget, option->state);
      return drawBox(*painter, r, look.fill, look.line, look.border, Theme::kRadius);
    }
    case PE_PanelLineEdit:
      if (const auto* frame = qstyleoption_cast<const QStyleOptionFrame*>(option))
        return drawLineEdit(*frame, *painter, widget);
      break;
    case PE_Frame:
      if (const auto* frame = qstyleoption_cast<const QStyleOptionFrame*>(option))
        return drawShapedFrame(*frame, *painter, widget);
      break;
    case PE_IndicatorCheckBox:
    case PE_IndicatorItemViewItemCheck:
      return drawCheck(*painter, r, option->state);
    case PE_IndicatorRadioButton:
      return drawRadio(*painter, r, option->state);
    case PE_IndicatorArrowDown:
    case PE_IndicatorSpinDown:
      return drawArrow(*option, *painter, "chevron-down", element == PE_IndicatorArrowDown ? 12 : 10);
    case PE_IndicatorArrowUp:
    case PE_IndicatorSpinUp:
      return drawArrow(*option, *painter, "chevron-up", element == PE_IndicatorArrowUp ? 12 : 10);
    case PE_IndicatorHeaderArrow:
      if (const auto* header = qstyleoption_cast<const QStyleOptionHeader*>(option))
        return drawArrow(*option, *painter,
                         header->sortIndicator == QStyleOptionHeader::SortUp ? "chevron-up" : "chevron-down", 10);
      break;
    case PE_IndicatorArrowRight:
      return drawArrow(*option, *painter, "forward", 12);
    case PE_IndicatorArrowLeft:
      return drawArrow(*option, *painter, "back", 12);
    case PE_IndicatorMenuCheckMark:
      return drawIcon(*painter, r, "check", 14, theme.secondary);
    case PE_Widget:
      return drawSurface(*option, *painter, widget);
    case PE_PanelMenu:
    case PE_PanelTipLabel:
      return drawBox(*painter, r, theme.raised, theme.line, 1, 0);
    case PE_PanelStatusBar:
      painter->fillRect(r, theme.panel);
      return painter->fillRect(QRect(r.x(), r.y(), r.width(), 1), theme.line);
    case PE_IndicatorDockWidgetResizeHandle:
      return painter->fillRect(r, option->state.testFlag(State_MouseOver) && option->state.testFlag(State_Enabled)
                                      ? theme.accent
                                      : theme.line);
    case PE_FrameTabWidget:
      return painter->fillRect(QRect(r.x(), r.y(), r.width(), 1), theme.line);
    case PE_PanelItemViewItem:
    case PE_PanelItemViewRow:
      if (const auto* item = qstyleoption_cast<const QStyleOptionViewItem*>(option)) {
        const bool selected = item->state.testFlag(State_Selected);
        const bool alternate =
            element == PE_PanelItemViewRow && item->features.testFlag(QStyleOptionViewItem::Alternate);
        const bool whole =
            element == PE_PanelItemViewItem || styleHint(SH_ItemView_ShowDecorationSelected, option, widget, nullptr);
        if (item->backgroundBrush.style() != Qt::NoBrush && element == PE_PanelItemViewItem)
          painter->fillRect(r, item->backgroundBrush);
        if (alternate) painter->fillRect(r, theme.alternate);
        if (selected && widget != nullptr && isComboPopup(widget->window()))
          drawBox(*painter, r, theme.accent, {}, 0, Theme::kUnit);
        else if (selected && whole)
          painter->fillRect(r, theme.selection);
        return;
      }
      break;
    case PE_FrameFocusRect:
      // Everything else shows by its own outline that it has the focus.
      if (widget != nullptr && widget->inherits("QAbstractItemView")) drawBox(*painter, r, {}, theme.accent, 1, 0);
      return;
    case PE_FrameDefaultButton:
    case PE_FrameMenu:
    case PE_PanelMenuBar:
    case PE_FrameStatusBarItem:
    case PE_FrameDockWidget:
    case PE_PanelScrollAreaCorner:
    case PE_FrameTabBarBase:
      return;
    default:
      break;
  }
  QProxyStyle::drawPrimitive(element, option, painter, widget);
}

void Style::drawControl(ControlElement element, const QStyleOption* option, QPainter* painter,
                        const QWidget* widget) const {
  const Theme& theme = Theme::current();
  const QRect r = option->rect;
  switch (element) {
    case CE_PushButton:
    case CE_PushButtonBevel:
    case CE_PushButtonLabel:
      if (const auto* button = qstyleoption_cast<const QStyleOptionButton*>(option)) {
        if (element != CE_PushButtonLabel) drawPrimitive(PE_PanelButtonCommand, option, painter, widget);
        if (element != CE_PushButtonBevel) drawPushLabel(*button, *painter, widget);
        return;
      }
      break;
    case CE_CheckBox:
    case CE_RadioButton:
      if (const auto* button = qstyleoption_cast<const QStyleOptionButton*>(option)) {
        const bool box = element == CE_CheckBox;
        QStyleOptionButton part(*button);
        part.rect = subElementRect(box ? SE_CheckBoxIndicator : SE_RadioButtonIndicator, option, widget);
        drawPrimitive(box ? PE_IndicatorCheckBox : PE_IndicatorRadioButton, &part, painter, widget);
        part.rect = subElementRect(box ? SE_CheckBoxContents : SE_RadioButtonContents, option, widget);
        return drawControl(box ? CE_CheckBoxLabel : CE_RadioButtonLabel, &part, painter, widget);
      }
      break;
    case CE_CheckBoxLabel:
    case CE_RadioButtonLabel:
      if (const auto* button = qstyleoption_cast<const QStyleOptionButton*>(option)) {
        const bool enabled = button->state.testFlag(State_Enabled);
        const int flags =
            static_cast<int>(Qt::TextShowMnemonic) |
            (styleHint(SH_UnderlineShortcut, option, widget, nullptr) != 0 ? 0
                                                                           : static_cast<int>(Qt::TextHideMnemonic));
        return drawCentred(*painter, r, button->icon, button->iconSize, button->text,
                           !enabled                                 ? theme.disabled
                           : button->state.testFlag(State_HasFocus) ? theme.accent
                                                                    : theme.text,
                           button->state, flags, true);
      }
      break;
    case CE_ComboBoxLabel:
      if (const auto* box = qstyleoption_cast<const QStyleOptionComboBox*>(option))
        return drawComboLabel(*box, *painter, widget);
      break;
    case CE_ShapedFrame:
      if (const auto* frame = qstyleoption_cast<const QStyleOptionFrame*>(option))
        return drawShapedFrame(*frame, *painter, widget);
      break;
    case CE_ProgressBarGroove:
      return drawBox(*painter, r, theme.line, {}, 0, 2);
    case CE_ProgressBarContents:
      if (const auto* bar = qstyleoption_cast<const QStyleOptionProgressBar*>(option))
        return drawProgress(*bar, *painter);
      break;
    case CE_Splitter:
      return painter->fillRect(r, theme.line);
    case CE_MenuItem:
      if (const auto* item = qstyleoption_cast<const QStyleOptionMenuItem*>(option))
        return drawMenuItem(*item, *painter, widget);
      break;
    case CE_MenuBarItem:
      if (const auto* item = qstyleoption_cast<const QStyleOptionMenuItem*>(option))
        return drawMenuBarItem(*item, *painter, widget);
      break;
    case CE_MenuEmptyArea:
    case CE_MenuBarEmptyArea:
      return;
    case CE_Header:
      if (const auto* header = qstyleoption_cast<const QStyleOptionHeader*>(option))
        return drawHeader(*header, *painter, widget);
      break;
    case CE_HeaderSection:
      painter->fillRect(r, theme.panel);
      return painter->fillRect(QRect(r.x(), r.bottom(), r.width(), 1), theme.line);
    case CE_HeaderEmptyArea:
      return painter->fillRect(r, theme.panel);
    case CE_HeaderLabel:
      if (const auto* header = qstyleoption_cast<const QStyleOptionHeader*>(option))
        return drawHeaderLabel(*header, *painter);
      break;
    case CE_TabBarTabShape:
      if (const auto* tab = qstyleoption_cast<const QStyleOptionTab*>(option)) return drawTab(*tab, *painter, widget);
      break;
    case CE_TabBarTabLabel:
      if (const auto* tab = qstyleoption_cast<const QStyleOptionTab*>(option))
        return drawTabLabel(*tab, *painter, widget);
      break;
    case CE_ItemViewItem:
      if (const auto* item = qstyleoption_cast<const QStyleOptionViewItem*>(option)) {
        if (!item->state.testFlag(State_Selected) || isComboPopup(widget != nullptr ? widget->window() : nullptr))
          break;
        QStyleOptionViewItem copy(*item);
        copy.palette.setColor(QPalette::HighlightedText, theme.text);
        if (!copy.icon.isNull()) {
          // An icon of a selected row is else tinted for a row that is filled with the accent.
          const QPixmap picture = copy.icon.pixmap(copy.decorationSize, painter->device()->devicePixelRatioF());
          copy.icon = QIcon(picture);
          copy.icon.addPixmap(picture, QIcon::Selected);
        }
        return QProxyStyle::drawControl(element, &copy, painter, widget);
      }
      break;
    default:
      break;
  }
  QProxyStyle::drawControl(element, option, painter, widget);
}

void Style::drawComplexControl(ComplexControl control, const QStyleOptionComplex* option, QPainter* painter,
                               const QWidget* widget) const {
  switch (control) {
    case CC_ToolButton:
      if (const auto* button = qstyleoption_cast<const QStyleOptionToolButton*>(option))
        return drawToolButton(*button, *painter, widget);
      break;
    case CC_SpinBox:
      if (const auto* box = qstyleoption_cast<const QStyleOptionSpinBox*>(option))
        return drawSpinBox(*box, *painter, widget);
      break;
    case CC_ComboBox:
      if (const auto* box = qstyleoption_cast<const QStyleOptionComboBox*>(option))
        return drawComboBox(*box, *painter, widget);
      break;
    case CC_Slider:
      if (const auto* slider = qstyleoption_cast<const QStyleOptionSlider*>(option)) {
        if (slider->orientation != Qt::Horizontal) break;
        return drawSlider(*slider, *painter, widget);
      }
      break;
    case CC_ScrollBar:
      if (const auto* bar = qstyleoption_cast<const QStyleOptionSlider*>(option))
        return drawScrollBar(*bar, *painter, widget);
      break;
    default:
      break;
  }
  QProxyStyle::drawComplexControl(control, option, painter, widget);
}

void Style::drawPushLabel(const QStyleOptionButton& button, QPainter& painter, const QWidget* widget) const {
  const PushLook look = pushLook(widget, button.state);
  painter.save();
  if (look.bold) painter.setFont(semibold(painter.font()));
  const int flags =
      static_cast<int>(Qt::TextShowMnemonic | Qt::TextSingleLine) |
      (styleHint(SH_UnderlineShortcut, &button, widget, nullptr) != 0 ? 0 : static_cast<int>(Qt::TextHideMnemonic));
  const QRect room = subElementRect(SE_PushButtonContents, &button, widget);
  // A narrow button's text is cut on both sides alike.
  const int spare = room.width() - painter.fontMetrics().size(Qt::TextShowMnemonic, button.text).width();
  if (button.icon.isNull()) {
    painter.setPen(look.text);
    painter.drawText(spare < 0 ? room.adjusted(spare / 2, 0, -spare / 2, 0) : room,
                     flags | static_cast<int>(Qt::AlignCenter), button.text);
  } else {
    drawCentred(painter, room, button.icon, button.iconSize, button.text, look.text, button.state, flags, false);
  }
  painter.restore();
}

void Style::drawToolButton(const QStyleOptionToolButton& button, QPainter& painter, const QWidget* widget) const {
  const Theme& theme = Theme::current();
  const bool enabled = button.state.testFlag(State_Enabled), framed = isSet(widget, "framed");
  const bool hovered = enabled && button.state.testFlag(State_MouseOver);
  QColor fill, line;
  if (framed && enabled) fill = theme.raised;
  if (framed) line = hovered ? theme.hoverLine : theme.line;
  if (hovered) fill = theme.hover;
  if (enabled && (button.state & (State_Sunken | State_On))) fill = theme.pressed;
  int border = 1;
  if (enabled && button.state.testFlag(State_HasFocus)) {
    line = theme.accent;
    border = 2;
  }
  drawBox(painter, button.rect, fill, line, border, framed ? Theme::kRadius : Theme::kUnit);

  QStyleOptionToolButton label(button);
  const int side = 1 + (framed ? kButtonPadding : 3), end = framed ? 1 : 1 + 3;
  label.rect = button.rect.adjusted(side, end, -side, -end);
  label.state &= ~(State_Sunken | State_On);  // nothing moves when it is pressed
  QProxyStyle::drawControl(CE_ToolButtonLabel, &label, &painter, widget);
}

void Style::drawSpinBox(const QStyleOptionSpinBox& box, QPainter& painter, const QWidget* widget) const {
  const Theme& theme = Theme::current();
  const bool cell = widget != nullptr && isCellEditor(widget);
  const FieldLook look = fieldLook(widget, box.state);
  drawField(painter, box.rect, look, cell ? 0 : Theme::kRadius);
  if (box.buttonSymbols == QAbstractSpinBox::NoButtons) return;
  for (const SubControl part : {SC_SpinBoxUp, SC_SpinBoxDown}) {
    QStyleOption arrow(box);
    arrow.rect = subControlRect(CC_SpinBox, &box, part, widget);
    const bool can = box.stepEnabled.testFlag(part == SC_SpinBoxUp ? QAbstractSpinBox::StepUpEnabled
                                                                   : QAbstractSpinBox::StepDownEnabled);
    if (!can) arrow.state &= ~State_Enabled;
    if (arrow.state.testFlag(State_Enabled) && box.state.testFlag(State_MouseOver) &&
        box.activeSubControls.testFlag(part)) {
      drawBox(painter, arrow.rect.adjusted(1, 1, -1, -1),
              box.state.testFlag(State_Sunken) ? theme.pressed : theme.hover, {}, 0, Theme::kUnit);
    }
    drawPrimitive(part == SC_SpinBoxUp ? PE_IndicatorSpinUp : PE_IndicatorSpinDown, &arrow, &painter, widget);
  }
}

void Style::drawComboBox(const QStyleOptionComboBox& box, QPainter& painter, const QWidget* widget) const {
  drawField(painter, box.rect, fieldLook(widget, box.state));
  QStyleOption arrow(box);
  arrow.rect = subControlRect(CC_ComboBox, &box, SC_ComboBoxArrow, widget);
  drawPrimitive(PE_IndicatorArrowDown, &arrow, &painter, widget);
}

void Style::drawComboLabel(const QStyleOptionComboBox& box, QPainter& painter, const QWidget* widget) const {
  if (box.editable) return;
  QRect room = subControlRect(CC_ComboBox, &box, SC_ComboBoxEditField, widget);
  if (!box.currentIcon.isNull()) {
    const QRect icon(room.x(), room.y() + (room.height() - box.iconSize.height()) / 2, box.iconSize.width(),
                     box.iconSize.height());
    box.currentIcon.paint(&painter, icon, Qt::AlignCenter,
                          box.state.testFlag(State_Enabled) ? QIcon::Normal : QIcon::Disabled);
    room.setLeft(icon.right() + 7);
  }
  painter.setPen(fieldLook(widget, box.state).text);
  painter.drawText(room, static_cast<int>(Qt::AlignLeft | Qt::AlignVCenter | Qt::TextSingleLine),
                   painter.fontMetrics().elidedText(box.currentText, Qt::ElideRight, room.width()));
}

void Style::drawSlider(const QStyleOptionSlider& slider, QPainter& painter, const QWidget* widget) const {
  const Theme& theme = Theme::current();
  const bool enabled = slider.state.testFlag(State_Enabled);
  const QRect groove = subControlRect(CC_Slider, &slider, SC_SliderGroove, widget);
  const QRect handle = subControlRect(CC_Slider, &slider, SC_SliderHandle, widget);
  drawBox(painter, groove, theme.line, {}, 0, 2);
  QRect done = groove, held = handle;
  if (slider.upsideDown)
    done.setLeft(handle.center().x());
  else
    done.setRight(handle.center().x());
  if (enabled) drawBox(painter, done, theme.accent, {}, 0, 2);
  const bool hovered =
      enabled && slider.state.testFlag(State_MouseOver) && slider.activeSubControls.testFlag(SC_SliderHandle);
  const bool focused = enabled && slider.state.testFlag(State_HasFocus);
  drawBox(painter, held,
          !enabled  ? theme.disabled
          : hovered ? theme.accentHover
                    : theme.accent,
          focused ? theme.text : QColor(), 2, kHandle / 2.0);
}

QRect Style::subControlRect(ComplexControl control, const QStyleOptionComplex* option, SubControl part,
                            const QWidget* widget) const {
  const QRect r = option->rect;
  const auto placed = [&](const QRect& rect) { return visualRect(option->direction, r, rect); };
  switch (control) {
    case CC_SpinBox:
      if (const auto* box = qstyleoption_cast<const QStyleOptionSpinBox*>(option)) {
        const int buttons = box->buttonSymbols == QAbstractSpinBox::NoButtons ? 0 : kSpinButton;
        const int side = 1 + (widget != nullptr && isCellEditor(widget) ? Theme::kUnit : Theme::kPad);
        const int half = r.height() / 2;
        if (part == SC_SpinBoxFrame) return r;
        if (part == SC_SpinBoxEditField) return placed(r.adjusted(side, 1, -side - buttons, -1));
        if (buttons == 0) return {};
        if (part == SC_SpinBoxUp) return placed({r.right() - buttons, r.y() + 1, buttons, half - 1});
        if (part == SC_SpinBoxDown) return placed({r.right() - buttons, r.bottom() + 1 - half, buttons, half - 1});
      }
      break;
    case CC_ComboBox:
      if (part == SC_ComboBoxFrame) return r;
      if (part == SC_ComboBoxEditField) return placed(r.adjusted(1 + Theme::kPad, 1, -1 - kComboButton, -1));
      if (part == SC_ComboBoxArrow) return placed({r.right() + 1 - kComboButton, r.y(), kComboButton, r.height()});
      if (part == SC_ComboBoxListBoxPopup) return r;
      break;
    case CC_ToolButton:
      if (part == SC_ToolButton) return r;
      break;
    case CC_Slider:
      if (const auto* slider = qstyleoption_cast<const QStyleOptionSlider*>(option)) {
        if (slider->orientation != Qt::Horizontal) break;
        if (part == SC_SliderGroove) return {r.x(), r.y() + (r.height() - 4) / 2, r.width(), 4};
        if (part == SC_SliderHandle) {
          const int at = sliderPositionFromValue(slider->minimum, slider->maximum, slider->sliderPosition,
                                                 r.width() - kHandle, slider->upsideDown);
          return {r.x() + at, r.y() + (r.height() - kHandle) / 2, kHandle, kHandle};
        }
      }
      break;
    case CC_ScrollBar:
      if (const auto* bar = qstyleoption_cast<const QStyleOptionSlider*>(option)) {
        const bool wide = bar->orientation == Qt::Horizontal;
        const int length = wide ? r.width() : r.height();
        const qint64 range = static_cast<qint64>(bar->maximum) - bar->minimum;
        int handle = length;
        if (range > 0) handle = static_cast<int>(static_cast<qint64>(bar->pageStep) * length / (range + bar->pageStep));
        const int least = pixelMetric(PM_ScrollBarSliderMin, bar, widget);
        handle = std::min(length, std::max(handle, least));
        const int at =
            sliderPositionFromValue(bar->minimum, bar->maximum, bar->sliderPosition, length - handle, bar->upsideDown);
        const auto between = [&](int from, int to) {
          return wide ? QRect(r.x() + from, r.y(), to - from, r.height())
                      : QRect(r.x(), r.y() + from, r.width(), to - from);
        };
        switch (part) {
          case SC_ScrollBarGroove:
            return r;
          case SC_ScrollBarSlider:
            return between(at, at + handle);
          case SC_ScrollBarSubPage:
            return between(0, at);
          case SC_ScrollBarAddPage:
            return between(at + handle, length);
          default:
            return {};
        }
      }
      break;
    default:
      break;
  }
  return QProxyStyle::subControlRect(control, option, part, widget);
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "ui/style_parts.h"

#include <QAbstractSpinBox>
#include <QComboBox>
#include <QPainter>
#include <QTextBrowser>
#include <QWidget>

#include "ui/icons.h"
#include "ui/theme.h"

namespace sparsight::style {

bool isSet(const QWidget* widget, const char* property) {
  return widget != nullptr && widget->property(property).toBool();
}

QFont semibold(QFont font) {
  font.setWeight(QFont::DemiBold);
  return font;
}

bool isTextField(const QWidget* widget) {
  return widget != nullptr && (widget->inherits("QPlainTextEdit") ||
                               (widget->inherits("QTextEdit") && qobject_cast<const QTextBrowser*>(widget) == nullptr));
}

bool isComboPopup(const QWidget* widget) { return widget != nullptr && widget->inherits("QComboBoxPrivateContainer"); }

bool isPartOfField(const QWidget* widget) {
  const QWidget* parent = widget->parentWidget();
  return qobject_cast<const QAbstractSpinBox*>(parent) != nullptr || qobject_cast<const QComboBox*>(parent) != nullptr;
}

bool isCellEditor(const QWidget* widget) {
  // A view's viewport is the parent of its editors.
  const QWidget* above = widget->parentWidget();
  return above != nullptr && above->parentWidget() != nullptr && above->parentWidget()->inherits("QAbstractItemView");
}

void drawBox(QPainter& painter, const QRectF& rect, const QColor& fill, const QColor& line, int border, double radius) {
  const bool outlined = line.isValid() && border > 0;
  if (!fill.isValid() && !outlined) return;
  painter.save();
  painter.setRenderHint(QPainter::Antialiasing);
  const double half = outlined ? border / 2.0 : 0;
  painter.setPen(outlined ? QPen(line, border) : QPen(Qt::NoPen));
  painter.setBrush(fill.isValid() ? QBrush(fill) : QBrush(Qt::NoBrush));
  const QRectF inner = rect.adjusted(half, half, -half, -half);
  if (radius > half)
    painter.drawRoundedRect(inner, radius - half, radius - half);
  else
    painter.drawRect(inner);
  painter.restore();
}

void drawIcon(QPainter& painter, const QRect& rect, const char* name, int size, const QColor& color) {
  const QPixmap picture = tintedPixmap(QLatin1String(name), size, color, painter.device()->devicePixelRatioF());
  painter.drawPixmap(rect.x() + (rect.width() - size) / 2, rect.y() + (rect.height() - size) / 2, picture);
}

PushLook pushLook(const QWidget* widget, QStyle::State state) {
  const Theme& theme = Theme::current();
  const bool enabled = state.testFlag(QStyle::State_Enabled);
  const bool hovered = enabled && state.testFlag(QStyle::State_MouseOver);
  const bool pressed = enabled && state.testFlag(QStyle::State_Sunken);
  const bool focused = enabled && state.testFlag(QStyle::State_HasFocus);
  const bool primary = isSet(widget, "primary"), tab = isSet(widget, "layoutTab");
  const bool bare = isSet(widget, "flat") || isSet(widget, "link");
  PushLook look;
  look.height = fonts::px(isSet(widget, "tall") ? 32 : isSet(widget, "row") ? 42 : Theme::kControl - 2);
  look.padding = bare || isSet(widget, "dense") ? kLinkPadding
                 : tab || isSet(widget, "tall") ? kTabButtonPadding
                                                : kButtonPadding;
  look.bold = primary;
  if (primary) {
    look.fill = !enabled ? theme.line : hovered ? theme.accentHover : theme.accent;
    look.line = look.fill;
    look.text = enabled ? theme.onAccent : theme.secondary;
  } else if (tab || bare) {
    if (hovered) look.fill = theme.hover;
    if (pressed) look.fill = theme.pressed;
    look.text = !enabled ? theme.disabled : bare ? theme.accent : hovered ? theme.text : theme.secondary;
  } else {
    look.fill = pressed ? theme.pressed : hovered ? theme.hover : theme.raised;
    if (!enabled) look.fill = QColor();
    look.line = hovered ? theme.hoverLine : theme.line;
    look.text = enabled ? theme.text : theme.disabled;
  }
  if (focused) {
    look.border = 2;
    look.line = primary ? theme.text : theme.accent;
  }
  return look;
}

}  // namespace sparsight::style

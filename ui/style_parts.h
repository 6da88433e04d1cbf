// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QColor>
#include <QFont>
#include <QPalette>
#include <QRect>
#include <QSize>
#include <QStyle>

class QPainter;
class QStyleOptionHeader;
class QStyleOptionMenuItem;
class QWidget;

/// What the files of Style share: measures in points, and what a widget is.
namespace sparsight::style {

constexpr int kButtonPadding = 12, kTabButtonPadding = 16, kLinkPadding = 4;
constexpr int kSpinButton = 18, kComboButton = 22;
constexpr int kIndicator = 18, kItemIndicator = 16, kRow = 24, kHandle = 14, kBarHeight = 4;
constexpr int kItemHeight = 20, kItemMargin = 3;
constexpr int kMenuPadding = 6, kMenuBarPadding = 9, kMenuLeft = 12, kMenuRight = 28;
constexpr int kTabLeft = 4, kTabRight = 12, kTabPadding = 4, kTabTop = 7, kTabBottom = 6, kTabLine = 2;
constexpr const char* kHasRole = "_sparsight_role";
/// The palette's colour of raised surfaces, and of fields.
constexpr QPalette::ColorRole kRaisedRole = QPalette::Button;

/// How a push button looks in a state. Heights are of the contents, inside the border.
struct PushLook {
  QColor fill, line, text;
  int border = 1, padding = kButtonPadding, height = 0;
  bool bold = false;
};
[[nodiscard]] PushLook pushLook(const QWidget* widget, QStyle::State state);

/// A surface with an outline inside its rectangle; a colour that is not valid is not painted.
void drawBox(QPainter& painter, const QRectF& rect, const QColor& fill, const QColor& line, int border, double radius);
/// An icon of the resources in the middle of `rect`.
void drawIcon(QPainter& painter, const QRect& rect, const char* name, int size, const QColor& color);

[[nodiscard]] bool isSet(const QWidget* widget, const char* property);
[[nodiscard]] QFont semibold(QFont font);
/// A text of several lines that has a frame (a page of the help has none).
[[nodiscard]] bool isTextField(const QWidget* widget);
/// The window in which a combo box shows its list.
[[nodiscard]] bool isComboPopup(const QWidget* widget);
/// The line edit of a spin box, of an editable combo box.
[[nodiscard]] bool isPartOfField(const QWidget* widget);
/// An editor in a cell of a table.
[[nodiscard]] bool isCellEditor(const QWidget* widget);

[[nodiscard]] QSize menuItemSize(const QStyleOptionMenuItem& item, QSize contents);
[[nodiscard]] QSize headerSize(const QStyleOptionHeader& header);

}  // namespace sparsight::style

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QPalette>
#include <QProxyStyle>

#include "ui/theme.h"

class QStyleOptionButton;
class QStyleOptionComboBox;
class QStyleOptionHeader;
class QStyleOptionMenuItem;
class QStyleOptionSlider;
class QStyleOptionSpinBox;
class QStyleOptionTab;
class QStyleOptionToolButton;
class QStyleOptionViewItem;

namespace sparsight {

/// Roles of the application's palette that hold the colours of quiet texts and of warnings (and BrightText that of
/// errors): a label takes its text from there, so a theme reaches it with the palette. Nothing else is painted in them.
constexpr QPalette::ColorRole kSecondaryRole = QPalette::Midlight, kWarningRole = QPalette::LinkVisited;

/// The look of every control, over Fusion: drawn from Theme::current() when it is drawn, so that a theme is changed by
/// a repaint. A widget says what it is by dynamic properties, set before it is shown or by setLook:
///   QPushButton  primary, tall, row, layoutTab, flat, link, dense (little room at its sides)
///   QToolButton  framed
///   fields       invalid
///   QLabel       role = secondary | warning | error
///   QFrame       role = line
///   QWidget      role = panel | window | bar (a panel with a line below) | popup: its surface
class Style : public QProxyStyle {
  Q_OBJECT
 public:
  Style();

  using QProxyStyle::polish;
  void polish(QWidget* widget) override;
  int styleHint(StyleHint hint, const QStyleOption* option, const QWidget* widget,
                QStyleHintReturn* data) const override;
  int pixelMetric(PixelMetric metric, const QStyleOption* option, const QWidget* widget) const override;
  QSize sizeFromContents(ContentsType type, const QStyleOption* option, const QSize& contents,
                         const QWidget* widget) const override;
  QRect subElementRect(SubElement element, const QStyleOption* option, const QWidget* widget) const override;
  QRect subControlRect(ComplexControl control, const QStyleOptionComplex* option, SubControl part,
                       const QWidget* widget) const override;
  void drawPrimitive(PrimitiveElement element, const QStyleOption* option, QPainter* painter,
                     const QWidget* widget) const override;
  void drawControl(ControlElement element, const QStyleOption* option, QPainter* painter,
                   const QWidget* widget) const override;
  void drawComplexControl(ComplexControl control, const QStyleOptionComplex* option, QPainter* painter,
                          const QWidget* widget) const override;

 private:
  // style_controls.cpp
  void drawPushLabel(const QStyleOptionButton& button, QPainter& painter, const QWidget* widget) const;
  void drawToolButton(const QStyleOptionToolButton& button, QPainter& painter, const QWidget* widget) const;
  void drawSpinBox(const QStyleOptionSpinBox& box, QPainter& painter, const QWidget* widget) const;
  void drawComboBox(const QStyleOptionComboBox& box, QPainter& painter, const QWidget* widget) const;
  void drawComboLabel(const QStyleOptionComboBox& box, QPainter& painter, const QWidget* widget) const;
  void drawSlider(const QStyleOptionSlider& slider, QPainter& painter, const QWidget* widget) const;
  // style_views.cpp
  void drawMenuItem(const QStyleOptionMenuItem& item, QPainter& painter, const QWidget* widget) const;
  void drawMenuBarItem(const QStyleOptionMenuItem& item, QPainter& painter, const QWidget* widget) const;
  void drawHeader(const QStyleOptionHeader& header, QPainter& painter, const QWidget* widget) const;
  void drawHeaderLabel(const QStyleOptionHeader& header, QPainter& painter) const;
  void drawTab(const QStyleOptionTab& tab, QPainter& painter, const QWidget* widget) const;
  void drawTabLabel(const QStyleOptionTab& tab, QPainter& painter, const QWidget* widget) const;
  void drawScrollBar(const QStyleOptionSlider& bar, QPainter& painter, const QWidget* widget) const;
};

/// Sets a property that the look depends on, of a widget that may be shown already.
void setLook(QWidget* widget, const char* property, bool on);
/// The same for `role`.
void setRole(QWidget* widget, const QString& role);

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QColor>
#include <QFont>
#include <QPainter>
#include <QPointer>
#include <QString>
#include <cstdint>
#include <vector>

#include "sparsight/core/plan.h"

namespace sparsight {

/// The one place for colour, type and spacing tokens: widgets, canvas, charts and exports use these and nothing else.
struct Theme {
  bool dark = true;
  QColor window, panel, raised, line, grid, text, secondary, disabled, accent, onAccent;
  QColor slotA, slotB, ok, warning, error, noDataHatch, noData;
  QColor classSpatial, classTemporal, classClustered, classSink, classDiffuse;
  /// Mixed from the tokens above: fields; pressed and hovered surfaces; outlines of hovered fields, of check boxes; ...
  QColor field, hover, pressed, hoverLine, controlLine, scroll, alternate, selection, accentHover;

  [[nodiscard]] static const Theme& light();
  [[nodiscard]] static const Theme& darkTheme();
  [[nodiscard]] static const Theme& current();
  /// Installs the style (once), palette and fonts on the application and in all parts. Everything is drawn from
  /// current(): a change of theme is a repaint, and nothing else.
  static void apply(bool dark);
  /// As apply, but returns the parts that still have what they had: a window hands it to them, by applyTo, in turns of
  /// the event loop.
  [[nodiscard]] static std::vector<QPointer<QWidget>> announce(bool dark);
  static void applyTo(QWidget& part);
  /// Palette and font come to this widget, and what is in it, by applyTo and not from what it lies in: Qt changes
  /// everything that inherits from the application in one turn of the event loop.
  static void makePart(QWidget* widget);

  [[nodiscard]] QColor classColor(HeadClass c) const;
  static constexpr int kUnit = 4, kPad = 8, kGroupGap = 12, kEdge = 16, kControl = 28, kControlCompact = 24,
                       kRadius = 6;
};

enum class FontRole : std::uint8_t { Base = 1, Secondary, Note, Title, Heading, Headline, DockTitle, Tabular, Code };

namespace fonts {
[[nodiscard]] QFont base();       ///< 13 px
[[nodiscard]] QFont secondary();  ///< 11 px
[[nodiscard]] QFont title();      ///< 13 px semibold
[[nodiscard]] QFont dockTitle();  ///< 11 px, spaced
[[nodiscard]] QFont tabular();    ///< 13 px, equal-width figures
/// The fonts above; Note: 12 px, Heading and Headline: 16 and 26 px semibold, Code: 11 px of the system's fixed family.
[[nodiscard]] QFont of(FontRole role);
/// Gives `widget` the font of the role, and anew with every applyTo of what it lies in: a font that is set does not
/// follow the size of the interface.
void give(QWidget* widget, FontRole role);
/// Factor on every size above (0.8 to 2): the interface scale of the View menu. Takes effect with the next
/// Theme::apply.
void setScale(double factor);
[[nodiscard]] double scale();
/// `size` at the interface scale, at least 8: heights of controls follow the text in them.
[[nodiscard]] int px(double size);
}  // namespace fonts

/// Draws the class glyph (square, diamond, hexagon, bar, ring; outline only for None) centred in `box`.
void paintClassGlyph(QPainter& painter, const QRectF& box, HeadClass c, const Theme& theme);
/// The hatch that means "no data": holes, heads that were not captured.
void paintNoData(QPainter& painter, const QRectF& box, const Theme& theme);
/// Relative luminance contrast of two opaque colours as WCAG 2 defines it, 1..21.
[[nodiscard]] double contrastRatio(const QColor& a, const QColor& b);

/// `amount` of `over` on `under`, 0..1; opaque.
[[nodiscard]] QColor mixed(const QColor& under, const QColor& over, double amount);

/// 3 significant digits, scientific under 1e-3; "26.5 %" for fractions; thin-space thousands.
[[nodiscard]] QString formatNumber(double value);
[[nodiscard]] QString formatPercent(double fraction);
[[nodiscard]] QString formatCount(qint64 value);
/// "1.4 GB", "18 kB" (powers of 1000).
[[nodiscard]] QString formatBytes(qint64 bytes);
/// "0.4 s", "12 s", "3:05 min", "1:02 h".
[[nodiscard]] QString formatDuration(double seconds);
/// 1 -> "1st", 22 -> "22nd".
[[nodiscard]] QString ordinal(int n);

}  // namespace sparsight

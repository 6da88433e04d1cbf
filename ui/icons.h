// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QColor>
#include <QIcon>
#include <QPixmap>
#include <QString>

namespace sparsight {

/// A line icon of resources/icons by name ("open"), tinted by the current theme's text colour when it is painted, so
/// that it follows a change of theme by itself. An unknown name gives an empty icon.
[[nodiscard]] QIcon themedIcon(const QString& name);
/// One picture of an icon, `size` device independent pixels, in a given colour.
[[nodiscard]] QPixmap tintedPixmap(const QString& name, int size, const QColor& color, qreal devicePixelRatio);

}  // namespace sparsight

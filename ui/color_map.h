// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QColor>
#include <QString>
#include <cstdint>
#include <memory>
#include <vector>

#include "sparsight/core/palette.h"
#include "sparsight/kernels/types.h"

namespace sparsight {

struct Theme;

/// How a map is coloured: palette, range, scale.
struct ColorSettings {
  Palette palette = Palette::Viridis;
  ValueRange range;
  friend bool operator==(const ColorSettings&, const ColorSettings&) = default;
};

/// One colour for every value code, and its dimmed twin for what a method skips. Both painters look colours up here and
/// nowhere else, so that a change of palette, range or scale is one new table and no tile is touched.
class ColorLut {
 public:
  ColorLut(const ColorSettings& settings, const Theme& theme);
  /// The same table for all who show these colours: making one takes milliseconds. GUI thread only.
  [[nodiscard]] static std::shared_ptr<const ColorLut> shared(const ColorSettings& settings, const Theme& theme);

  /// Number that differs for every table: painters compare it to know whether their copy is current.
  [[nodiscard]] std::uint64_t version() const noexcept { return m_version; }
  [[nodiscard]] const ColorSettings& settings() const noexcept { return m_settings; }
  /// ARGB32 premultiplied by code; transparent for NaN, where the hatch shows through.
  [[nodiscard]] const std::vector<QRgb>& colors() const noexcept { return m_colors; }
  /// The same without hue and with most of the contrast to the background taken away.
  [[nodiscard]] const std::vector<QRgb>& dimmed() const noexcept { return m_dimmed; }
  [[nodiscard]] QColor colorOf(double value) const {
    return QColor::fromRgba(m_colors[encodeValue(static_cast<float>(value))]);
  }

 private:
  /// `entries`: of settings.range, by code.
  ColorLut(const ColorSettings& settings, const Theme& theme, const std::vector<std::uint16_t>& entries);
  std::uint64_t m_version;
  ColorSettings m_settings;
  std::vector<QRgb> m_colors, m_dimmed;
};

/// Blend of a kept and a dimmed colour by kept share 0..255, as both painters do it (integer arithmetic).
[[nodiscard]] inline QRgb blendKept(QRgb full, QRgb dim, unsigned share) noexcept {
  const auto channel = [share](unsigned a, unsigned b) { return (a * share + b * (255U - share) + 127U) / 255U; };
  return qRgba(static_cast<int>(channel(static_cast<unsigned>(qRed(full)), static_cast<unsigned>(qRed(dim)))),
               static_cast<int>(channel(static_cast<unsigned>(qGreen(full)), static_cast<unsigned>(qGreen(dim)))),
               static_cast<int>(channel(static_cast<unsigned>(qBlue(full)), static_cast<unsigned>(qBlue(dim)))),
               qAlpha(full));
}

/// "Viridis", for combo boxes.
[[nodiscard]] QString paletteTitle(Palette palette);
/// Palettes for probabilities, in the order of the combo box and of the key C.
[[nodiscard]] const std::vector<Palette>& sequentialPalettes();
/// Magma on dark, viridis on light.
[[nodiscard]] Palette defaultPalette(bool dark);
/// Colours that tell neighbouring cluster numbers apart; there are more clusters than colours.
[[nodiscard]] QRgb clusterColor(Index cluster, bool dark);
/// "10⁻³", "1": a power of ten as the colour bar writes it.
[[nodiscard]] QString powerOfTen(int exponent);

}  // namespace sparsight

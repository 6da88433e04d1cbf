// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "sparsight/kernels/types.h"

namespace sparsight {

/// The colour maps of every picture: canvas, heat maps, exports and `sparsight-cli map`. All sequential ones rise
/// monotonically in CIELAB lightness; the diverging ones are symmetric in lightness about their neutral centre.
/// Viridis, magma, inferno: van der Walt and Smith 2015 (polynomial fits by Zucker, public domain); cividis: Nunez,
/// Anderton and Renslow 2018.
enum class Palette : std::uint8_t { Viridis, Magma, Inferno, Cividis, Grey, Diverging, DivergingDark };
inline constexpr std::array kAllPalettes{Palette::Viridis, Palette::Magma,     Palette::Inferno,      Palette::Cividis,
                                         Palette::Grey,    Palette::Diverging, Palette::DivergingDark};
/// "viridis", ...: stable, used in files and options.
[[nodiscard]] std::string_view paletteName(Palette palette) noexcept;
[[nodiscard]] std::optional<Palette> paletteByName(std::string_view name) noexcept;

struct Rgb {
  std::uint8_t r = 0, g = 0, b = 0;
  friend bool operator==(const Rgb&, const Rgb&) = default;
};
inline constexpr int kPaletteEntries = 1024;
/// Entry i is the colour at (i + 0.5) / 1024.
[[nodiscard]] std::span<const Rgb, kPaletteEntries> paletteTable(Palette palette);
/// CIELAB L* (D65) of an sRGB colour, 0..100.
[[nodiscard]] double lightness(Rgb colour) noexcept;

enum class ValueScale : std::uint8_t { Log, Linear };
/// How values become colours. On the log scale minimum must be positive.
struct ValueRange {
  double minimum = 1e-7, maximum = 1.0;
  ValueScale scale = ValueScale::Log;
  friend bool operator==(const ValueRange&, const ValueRange&) = default;

  /// Position of a value in the range: 0 at minimum, 1 at maximum, not clamped; -infinity for zero on the log scale.
  [[nodiscard]] double fraction(double value) const noexcept;
  [[nodiscard]] double valueAt(double fraction) const noexcept;
};

/// What one value becomes: an entry of the table or one of the special colours behind it.
inline constexpr int kEntryUnder = kPaletteEntries;       ///< below the minimum
inline constexpr int kEntryOver = kPaletteEntries + 1;    ///< above the maximum
inline constexpr int kEntryZero = kPaletteEntries + 2;    ///< exactly zero on the log scale
inline constexpr int kEntryNoData = kPaletteEntries + 3;  ///< NaN: no valid pair, masked
[[nodiscard]] int paletteEntry(double value, const ValueRange& range) noexcept;
/// The table followed by the special colours (no data is up to the painter: `noData`).
[[nodiscard]] std::vector<Rgb> extendedTable(Palette palette, Rgb noData);

/// Probabilities as 16-bit codes, so that a new colour map, range or scale recolours a picture by table lookup alone:
/// 0 = NaN, 1 = exactly zero, 2..65535 = log2(p) from -40 to +1 in equal steps (0.04 % of the value).
using ValueCode = std::uint16_t;
inline constexpr int kValueCodes = 65536;
inline constexpr ValueCode kCodeNaN = 0, kCodeZero = 1, kCodeFirst = 2;
inline constexpr double kCodeLog2Min = -40.0, kCodeLog2Max = 1.0;
[[nodiscard]] ValueCode encodeValue(float value) noexcept;
[[nodiscard]] double decodeValue(ValueCode code) noexcept;
/// paletteEntry of every code: one table per change of range, in a fraction of a millisecond.
[[nodiscard]] std::vector<std::uint16_t> entriesByCode(const ValueRange& range);
void encodeValues(std::span<const float> values, std::span<ValueCode> codes) noexcept;

/// The one function from a pixel to a cell that every painter uses: cell under the centre of pixel `pixel`, when cell 0
/// starts at `origin` (pixels) and a cell is `cellSize` pixels. Not clamped.
[[nodiscard]] Index cellAtPixel(int pixel, double origin, double cellSize) noexcept;

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "ui/color_map.h"

#include <QCoreApplication>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <list>
#include <utility>

#include "ui/theme.h"

namespace sparsight {
namespace {

QRgb opaque(Rgb c) { return qRgb(c.r, c.g, c.b); }

/// Skipped: the colour's own grey, pulled most of the way to the background. What remains is enough to see that there
/// was mass, and cannot be taken for a kept colour in either theme.
QRgb dimmedColor(QRgb color, const Theme& theme) {
  constexpr int kGreyPercent = 30;
  const int grey = qGray(color);
  const QColor back = theme.noData;
  const auto mix = [grey](int background) { return (grey * kGreyPercent + background * (100 - kGreyPercent)) / 100; };
  return qRgb(mix(back.red()), mix(back.green()), mix(back.blue()));
}

}  // namespace

ColorLut::ColorLut(const ColorSettings& settings, const Theme& theme)
    : ColorLut(settings, theme, entriesByCode(settings.range)) {}

ColorLut::ColorLut(const ColorSettings& settings, const Theme& theme, const std::vector<std::uint16_t>& entries)
    : m_settings(settings) {
  static std::atomic<std::uint64_t> counter{0};
  m_version = ++counter;
  const QColor none = theme.noData;
  const auto byte = [](int v) { return static_cast<std::uint8_t>(v); };
  const auto table = extendedTable(settings.palette, {byte(none.red()), byte(none.green()), byte(none.blue())});
  m_colors.resize(kValueCodes);
  m_dimmed.resize(kValueCodes);
  std::vector<QRgb> full(table.size()), dim(table.size());
  for (std::size_t entry = 0; entry < table.size(); ++entry) {
    full[entry] = opaque(table[entry]);
    dim[entry] = dimmedColor(full[entry], theme);
  }
  full[kEntryNoData] = dim[kEntryNoData] = qRgba(0, 0, 0, 0);
  for (std::size_t code = 0; code < entries.size(); ++code) {
    m_colors[code] = full[entries[code]];
    m_dimmed[code] = dim[entries[code]];
  }
}

std::shared_ptr<const ColorLut> ColorLut::shared(const ColorSettings& settings, const Theme& theme) {
  static std::vector<std::pair<bool, std::weak_ptr<const ColorLut>>> known;  // GUI thread only
  std::erase_if(known, [](const auto& entry) { return entry.second.expired(); });
  for (const auto& [dark, table] : known) {
    auto found = table.lock();
    if (dark == theme.dark && found->settings() == settings) return found;
  }
  // Which entry a value has is most of the work, and the same in both themes and in all palettes. Newest first.
  static std::list<std::pair<ValueRange, std::vector<std::uint16_t>>> entries;
  const auto same =
      std::find_if(entries.begin(), entries.end(), [&](const auto& each) { return each.first == settings.range; });
  if (same == entries.end())
    entries.emplace_front(settings.range, entriesByCode(settings.range));
  else
    entries.splice(entries.begin(), entries, same);
  constexpr std::size_t kRanges = 8;  // of 128 KiB
  if (entries.size() > kRanges) entries.pop_back();
  std::shared_ptr<const ColorLut> made(new ColorLut(settings, theme, entries.front().second));
  known.emplace_back(theme.dark, made);
  return made;
}

QString paletteTitle(Palette palette) {
  switch (palette) {
    case Palette::Viridis:
      return QStringLiteral("Viridis");
    case Palette::Magma:
      return QStringLiteral("Magma");
    case Palette::Inferno:
      return QStringLiteral("Inferno");
    case Palette::Cividis:
      return QStringLiteral("Cividis");
    case Palette::Grey:
      return QCoreApplication::translate("Palette", "Grey");
    case Palette::Diverging:
    case Palette::DivergingDark:
      return QCoreApplication::translate("Palette", "Diverging");
  }
  return {};
}

const std::vector<Palette>& sequentialPalettes() {
  static const std::vector<Palette> all{Palette::Viridis, Palette::Magma, Palette::Inferno, Palette::Cividis,
                                        Palette::Grey};
  return all;
}

Palette defaultPalette(bool dark) { return dark ? Palette::Magma : Palette::Viridis; }

QRgb clusterColor(Index cluster, bool dark) {
  // The golden angle: any few numbers in a row lie far apart on the circle; three levels set equal hues apart.
  const double hue = std::fmod(static_cast<double>(cluster) * 0.6180339887498949, 1.0);
  const auto level = static_cast<double>(cluster % 3);
  return dark ? QColor::fromHsvF(static_cast<float>(hue), static_cast<float>(0.45 + 0.15 * level),
                                 static_cast<float>(0.95 - 0.12 * level))
                    .rgb()
              : QColor::fromHsvF(static_cast<float>(hue), static_cast<float>(0.5 + 0.15 * level),
                                 static_cast<float>(0.88 - 0.14 * level))
                    .rgb();
}

QString powerOfTen(int exponent) {
  if (exponent == 0) return QStringLiteral("1");
  static const QString digits = QStringLiteral("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079");
  QString out = QStringLiteral("10");
  if (exponent < 0) out += QChar(0x207b);
  const QString plain = QString::number(std::abs(exponent));
  for (const QChar c : plain) out += digits.at(c.digitValue());
  return out;
}

}  // namespace sparsight

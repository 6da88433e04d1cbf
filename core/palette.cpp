// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/palette.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sparsight {
namespace {

using Vec3 = std::array<double, 3>;
using Table = std::array<Rgb, kPaletteEntries>;

std::uint8_t toByte(double value) {
  return static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0, 1.0) * 255.0));
}
double toLinear(double c) { return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4); }
double toGamma(double c) { return c <= 0.0031308 ? 12.92 * c : 1.055 * std::pow(c, 1.0 / 2.4) - 0.055; }

// CIE 1976 L*a*b* under D65, 2 degree observer (IEC 61966-2-1 matrices).
constexpr Vec3 kWhite{0.95047, 1.0, 1.08883};
double labF(double t) { return t > 216.0 / 24389.0 ? std::cbrt(t) : (24389.0 / 27.0 * t + 16.0) / 116.0; }
double labInverseF(double f) {
  const double cube = f * f * f;
  return cube > 216.0 / 24389.0 ? cube : (116.0 * f - 16.0) * 27.0 / 24389.0;
}
Vec3 srgbToLab(const Vec3& c) {
  const double r = toLinear(c[0]), g = toLinear(c[1]), b = toLinear(c[2]);
  const double fx = labF((0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / kWhite[0]);
  const double fy = labF((0.2126729 * r + 0.7151522 * g + 0.0721750 * b) / kWhite[1]);
  const double fz = labF((0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / kWhite[2]);
  return {116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz)};
}
Vec3 labToSrgb(const Vec3& lab) {
  const double fy = (lab[0] + 16.0) / 116.0;
  const double x = kWhite[0] * labInverseF(fy + lab[1] / 500.0);
  const double y = kWhite[1] * labInverseF(fy);
  const double z = kWhite[2] * labInverseF(fy - lab[2] / 200.0);
  return {toGamma(3.2404542 * x - 1.5371385 * y - 0.4985314 * z),
          toGamma(-0.9692660 * x + 1.8760108 * y + 0.0415560 * z),
          toGamma(0.0556434 * x - 0.2040259 * y + 1.0572252 * z)};
}

using Poly = std::array<Vec3, 7>;
constexpr Poly kViridis{{{0.2777273272234177, 0.005407344544966578, 0.3340998053353061},
                         {0.1050930431085774, 1.404613529898575, 1.384590162594685},
                         {-0.3308618287255563, 0.214847559468213, 0.09509516302823659},
                         {-4.634230498983486, -5.799100973351585, -19.33244095627987},
                         {6.228269936347081, 14.17993336680509, 56.69055260068105},
                         {4.776384997670288, -13.74514537774601, -65.35303263337234},
                         {-5.435455855934631, 4.645852612178535, 26.3124352495832}}};
constexpr Poly kMagma{{{-0.002136485053939582, -0.000749655052795221, -0.005386127855323933},
                       {0.2516605407371642, 0.6775232436837668, 2.494026599312351},
                       {8.353717279216625, -3.577719514958484, 0.3144679030132573},
                       {-27.66873308576866, 14.26473078096533, -13.64921318813922},
                       {52.17613981234068, -27.94360607168351, 12.94416944238394},
                       {-50.76852536473588, 29.04658282127291, 4.23415299384598},
                       {18.65570506591883, -11.48977351997711, -5.601961508734096}}};
constexpr Poly kInferno{{{0.0002189403691192265, 0.001651004631001012, -0.01948089843709184},
                         {0.1065134194856116, 0.5639564367884091, 3.932712388889277},
                         {11.60249308247187, -3.972853965665698, -15.9423941062914},
                         {-41.70399613139459, 17.43639888205313, 44.35414519872813},
                         {77.162935699427, -33.40235894210092, -81.80730925738993},
                         {-71.31942824499214, 32.62606426397723, 73.20951985803202},
                         {25.13112622477341, -12.24266895238567, -23.07032500287172}}};
constexpr std::array<Rgb, 10> kCividis{{{0x00, 0x20, 0x4d},
                                        {0x00, 0x33, 0x6f},
                                        {0x39, 0x48, 0x6b},
                                        {0x57, 0x5c, 0x6d},
                                        {0x70, 0x71, 0x73},
                                        {0x8a, 0x87, 0x79},
                                        {0xa6, 0x9d, 0x75},
                                        {0xc4, 0xb5, 0x6c},
                                        {0xe4, 0xcf, 0x5b},
                                        {0xff, 0xea, 0x46}}};

Vec3 evaluate(const Poly& poly, double t) {
  Vec3 c = poly[6];
  for (std::size_t i = 6; i-- > 0;) {
    for (std::size_t k = 0; k < 3; ++k) c[k] = c[k] * t + poly[i][k];
  }
  return c;
}
Vec3 lerp(const Vec3& a, const Vec3& b, double t) {
  return {a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t};
}
Vec3 cividisAt(double t) {
  const double x = t * (kCividis.size() - 1);
  const auto i = std::min(static_cast<std::size_t>(x), kCividis.size() - 2);
  const auto lab = [](Rgb c) { return srgbToLab({c.r / 255.0, c.g / 255.0, c.b / 255.0}); };
  return labToSrgb(lerp(lab(kCividis[i]), lab(kCividis[i + 1]), x - static_cast<double>(i)));
}
// Blue and vermillion of equal lightness (safe for the common colour deficiencies), neutral in the middle.
Vec3 divergingAt(double t, bool dark) {
  const Vec3 low = dark ? Vec3{72.0, -8.0, -38.0} : Vec3{38.0, 2.0, -48.0};
  const Vec3 high = dark ? Vec3{72.0, 30.0, 45.0} : Vec3{38.0, 50.0, 42.0};
  const Vec3 centre = dark ? Vec3{20.0, 0.0, 0.0} : Vec3{95.0, 0.0, 0.0};
  return labToSrgb(t < 0.5 ? lerp(low, centre, t * 2.0) : lerp(centre, high, t * 2.0 - 1.0));
}

Vec3 colourAt(Palette palette, double t) {
  switch (palette) {
    case Palette::Viridis:
      return evaluate(kViridis, t);
    case Palette::Magma:
      return evaluate(kMagma, t);
    case Palette::Inferno:
      return evaluate(kInferno, t);
    case Palette::Cividis:
      return cividisAt(t);
    case Palette::Grey:
      return labToSrgb({4.0 + 94.0 * t, 0.0, 0.0});
    case Palette::Diverging:
      return divergingAt(t, false);
    case Palette::DivergingDark:
      return divergingAt(t, true);
  }
  return {};
}

Table makeTable(Palette palette) {
  Table table;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const Vec3 c = colourAt(palette, (static_cast<double>(i) + 0.5) / kPaletteEntries);
    table[i] = {toByte(c[0]), toByte(c[1]), toByte(c[2])};
  }
  return table;
}

Rgb mix(Rgb a, Rgb b, double t) {
  const auto channel = [t](std::uint8_t x, std::uint8_t y) { return toByte((x + (y - x) * t) / 255.0); };
  return {channel(a.r, b.r), channel(a.g, b.g), channel(a.b, b.b)};
}

constexpr double kCodeStep = (kCodeLog2Max - kCodeLog2Min) / (kValueCodes - 1 - kCodeFirst);

}  // namespace

std::string_view paletteName(Palette palette) noexcept {
  switch (palette) {
    case Palette::Viridis:
      return "viridis";
    case Palette::Magma:
      return "magma";
    case Palette::Inferno:
      return "inferno";
    case Palette::Cividis:
      return "cividis";
    case Palette::Grey:
      return "grey";
    case Palette::Diverging:
      return "diverging";
    case Palette::DivergingDark:
      return "diverging-dark";
  }
  return "viridis";
}

std::optional<Palette> paletteByName(std::string_view name) noexcept {
  for (const Palette palette : kAllPalettes) {
    if (paletteName(palette) == name) return palette;
  }
  return std::nullopt;
}

std::span<const Rgb, kPaletteEntries> paletteTable(Palette palette) {
  static const auto tables = [] {
    std::array<Table, kAllPalettes.size()> all;
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = makeTable(kAllPalettes[i]);
    return all;
  }();
  return tables[static_cast<std::size_t>(palette)];
}

double lightness(Rgb colour) noexcept { return srgbToLab({colour.r / 255.0, colour.g / 255.0, colour.b / 255.0})[0]; }

double ValueRange::fraction(double value) const noexcept {
  if (scale == ValueScale::Linear) return (value - minimum) / (maximum - minimum);
  if (value <= 0.0) return -std::numeric_limits<double>::infinity();
  return std::log2(value / minimum) / std::log2(maximum / minimum);
}

double ValueRange::valueAt(double fraction) const noexcept {
  if (scale == ValueScale::Linear) return minimum + fraction * (maximum - minimum);
  return minimum * std::exp2(fraction * std::log2(maximum / minimum));
}

int paletteEntry(double value, const ValueRange& range) noexcept {
  if (std::isnan(value)) return kEntryNoData;
  if (range.scale == ValueScale::Log && value == 0.0) return kEntryZero;
  // Half a code step of tolerance: a value that equals a limit must not turn into under or over by rounding.
  const double t = range.fraction(value);
  constexpr double kTolerance = 1e-3;
  if (t < -kTolerance) return kEntryUnder;
  if (t > 1.0 + kTolerance) return kEntryOver;
  return std::clamp(static_cast<int>(t * kPaletteEntries), 0, kPaletteEntries - 1);
}

std::vector<Rgb> extendedTable(Palette palette, Rgb noData) {
  const auto table = paletteTable(palette);
  std::vector<Rgb> out(table.begin(), table.end());
  const Rgb lowest = table.front(), highest = table.back();
  out.push_back(mix(lowest, {0, 0, 0}, 0.35));
  out.push_back(mix(highest, {255, 255, 255}, 0.5));
  out.push_back(mix(noData, {128, 128, 128}, 0.12));
  out.push_back(noData);
  return out;
}

ValueCode encodeValue(float value) noexcept {
  if (std::isnan(value)) return kCodeNaN;
  if (value <= 0.0F) return kCodeZero;
  const double code = (std::log2(static_cast<double>(value)) - kCodeLog2Min) / kCodeStep + 0.5;
  return static_cast<ValueCode>(kCodeFirst + std::clamp(static_cast<int>(code), 0, kValueCodes - 1 - kCodeFirst));
}

double decodeValue(ValueCode code) noexcept {
  if (code == kCodeNaN) return std::numeric_limits<double>::quiet_NaN();
  if (code == kCodeZero) return 0.0;
  return std::exp2(kCodeLog2Min + (code - kCodeFirst) * kCodeStep);
}

std::vector<std::uint16_t> entriesByCode(const ValueRange& range) {
  std::vector<std::uint16_t> out(kValueCodes);
  for (const ValueCode code : {kCodeNaN, kCodeZero}) {
    out[code] = static_cast<std::uint16_t>(paletteEntry(decodeValue(code), range));
  }
  // Entries rise with the code except that "under" and "over" lie outside the table: rank them for the search.
  const auto rankOf = [&range](int code) {
    const int entry = paletteEntry(decodeValue(static_cast<ValueCode>(code)), range);
    return entry == kEntryUnder ? -1 : entry == kEntryOver ? kPaletteEntries : entry;
  };
  for (int first = kCodeFirst; first < kValueCodes;) {
    const int rank = rankOf(first);
    int same = first, step = 1;  // same: the last code known to share the entry; galloping, then bisection
    while (same + step < kValueCodes && rankOf(same + step) == rank) {
      same += step;
      step *= 2;
    }
    for (; step > 0; step /= 2) {
      if (same + step < kValueCodes && rankOf(same + step) == rank) same += step;
    }
    const int entry = rank < 0 ? kEntryUnder : rank == kPaletteEntries ? kEntryOver : rank;
    std::fill(out.begin() + first, out.begin() + same + 1, static_cast<std::uint16_t>(entry));
    first = same + 1;
  }
  return out;
}

void encodeValues(std::span<const float> values, std::span<ValueCode> codes) noexcept {
  for (std::size_t i = 0; i < values.size(); ++i) codes[i] = encodeValue(values[i]);
}

Index cellAtPixel(int pixel, double origin, double cellSize) noexcept {
  return static_cast<Index>(std::floor((pixel + 0.5 - origin) / cellSize));
}

}  // namespace sparsight

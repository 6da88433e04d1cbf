// SPDX-License-Identifier: Apache-2.0
#include "ui/theme.h"

#include <QApplication>
#include <QFontDatabase>
#include <QFontMetricsF>
#include <QPalette>
#include <QPixmapCache>
#include <QToolTip>
#include <QWidget>
#include <algorithm>
#include <array>
#include <cmath>

#include "ui/style.h"

namespace sparsight {
namespace {

constexpr const char* kFontRole = "fontRole";
constexpr const char* kPart = "themePart";

bool g_dark = true, g_styled = false;
double g_scale = 1.0;

/// The tokens that are mixed from others.
Theme completed(Theme t) {
  t.field = t.dark ? t.raised : t.panel;
  t.hover = mixed(t.raised, t.text, t.dark ? 0.08 : 0.06);
  t.pressed = mixed(t.raised, t.text, t.dark ? 0.15 : 0.12);
  t.hoverLine = mixed(t.line, t.text, 0.25);
  t.controlLine = mixed(t.line, t.text, 0.45);
  t.scroll = mixed(t.panel, t.text, 0.25);
  t.alternate = mixed(t.panel, t.text, 0.025);
  t.selection = mixed(t.panel, t.accent, 0.28);
  t.accentHover = mixed(t.accent, t.dark ? QColor(Qt::white) : QColor(Qt::black), 0.12);
  return t;
}

Theme makeLight() {
  Theme t;
  t.dark = false;
  t.window = QColor(0xF4, 0xF5, 0xF7);
  t.panel = QColor(0xFF, 0xFF, 0xFF);
  t.raised = QColor(0xFF, 0xFF, 0xFF);
  t.line = QColor(0xD9, 0xDC, 0xE1);
  t.grid = QColor(0xE8, 0xEA, 0xEE);
  t.text = QColor(0x1B, 0x1F, 0x24);
  t.secondary = QColor(0x5A, 0x62, 0x70);
  t.disabled = QColor(0x9A, 0xA1, 0xAC);
  t.accent = QColor(0x0B, 0x66, 0xC3);
  t.onAccent = QColor(0xFF, 0xFF, 0xFF);
  t.slotA = QColor(0x00, 0x72, 0xB2);
  t.slotB = QColor(0xD5, 0x5E, 0x00);
  t.ok = QColor(0x1E, 0x7F, 0x4F);
  t.warning = QColor(0x8A, 0x5A, 0x00);
  t.error = QColor(0xB3, 0x26, 0x1E);
  t.noDataHatch = QColor(0xC9, 0xCD, 0xD4);
  t.noData = QColor(0xEC, 0xEE, 0xF1);
  t.classSpatial = QColor(0x33, 0x22, 0x88);
  t.classTemporal = QColor(0xB8, 0x45, 0x5A);
  t.classClustered = QColor(0x11, 0x77, 0x33);
  t.classSink = QColor(0xAA, 0x44, 0x99);
  t.classDiffuse = QColor(0x6B, 0x72, 0x80);
  return completed(t);
}

Theme makeDark() {
  Theme t;
  t.dark = true;
  t.window = QColor(0x16, 0x18, 0x1D);
  t.panel = QColor(0x1E, 0x21, 0x27);
  t.raised = QColor(0x26, 0x2A, 0x32);
  t.line = QColor(0x34, 0x39, 0x43);
  t.grid = QColor(0x2A, 0x2E, 0x36);
  t.text = QColor(0xE8, 0xEA, 0xED);
  t.secondary = QColor(0xA3, 0xAB, 0xB8);
  t.disabled = QColor(0x66, 0x6D, 0x79);
  t.accent = QColor(0x5A, 0xA9, 0xF5);
  t.onAccent = QColor(0x0B, 0x13, 0x20);
  t.slotA = QColor(0x56, 0xB4, 0xE9);
  t.slotB = QColor(0xE6, 0x9F, 0x00);
  t.ok = QColor(0x58, 0xC7, 0x8F);
  t.warning = QColor(0xF2, 0xB8, 0x4B);
  t.error = QColor(0xFF, 0x8A, 0x80);
  t.noDataHatch = QColor(0x3C, 0x42, 0x4D);
  t.noData = QColor(0x22, 0x26, 0x2D);
  t.classSpatial = QColor(0x8E, 0xA2, 0xFF);
  t.classTemporal = QColor(0xEE, 0x88, 0x99);
  t.classClustered = QColor(0x5C, 0xC9, 0x8A);
  t.classSink = QColor(0xD9, 0x8C, 0xC6);
  t.classDiffuse = QColor(0xA3, 0xAB, 0xB8);
  return completed(t);
}

QString sansFamily() {
  static const QString family = [] {
    const QStringList known = QFontDatabase::families();
    const QString inter = QStringLiteral("Inter");
    return known.contains(inter) ? inter : QFontDatabase::systemFont(QFontDatabase::GeneralFont).family();
  }();
  return family;
}

bool hasEqualFigures(const QString& family) {
  QFont font(family);
  font.setPixelSize(26);
  const QFontMetricsF metrics(font);
  const qreal zero = metrics.horizontalAdvance(QLatin1Char('0'));
  for (char digit = '1'; digit <= '9'; ++digit)
    if (std::abs(metrics.horizontalAdvance(QLatin1Char(digit)) - zero) > 0.3) return false;
  return true;
}

/// Qt 6.4 cannot switch on a font's tabular figures, so take a sans whose figures are equal anyway.
QString tabularFamily() {
  static const QString family = [] {
    QStringList candidates{sansFamily(), QStringLiteral("Noto Sans"), QStringLiteral("Liberation Sans"),
                           QStringLiteral("Roboto"), QStringLiteral("DejaVu Sans")};
    const QStringList known = QFontDatabase::families();
    for (const QString& candidate : candidates)
      if (known.contains(candidate) && hasEqualFigures(candidate)) return candidate;
    return QFontDatabase::systemFont(QFontDatabase::FixedFont).family();
  }();
  return family;
}

QFont sans(double size) {
  QFont font(sansFamily());
  font.setPixelSize(fonts::px(size));
  font.setStyleStrategy(QFont::PreferAntialias);
  font.setHintingPreference(QFont::PreferNoHinting);
  return font;
}

QPalette paletteOf(const Theme& t) {
  QPalette p;
  p.setColor(QPalette::Window, t.window);
  p.setColor(QPalette::WindowText, t.text);
  p.setColor(QPalette::Base, t.panel);
  p.setColor(QPalette::AlternateBase, t.alternate);
  p.setColor(QPalette::ToolTipBase, t.raised);
  p.setColor(QPalette::ToolTipText, t.text);
  p.setColor(QPalette::PlaceholderText, mixed(t.field, t.text, 0.5));
  p.setColor(QPalette::Text, t.text);
  p.setColor(QPalette::Button, t.raised);
  p.setColor(QPalette::ButtonText, t.text);
  p.setColor(QPalette::BrightText, t.error);
  p.setColor(QPalette::Highlight, t.accent);
  p.setColor(QPalette::HighlightedText, t.onAccent);
  p.setColor(QPalette::Link, t.accent);
  p.setColor(kSecondaryRole, t.secondary);
  p.setColor(kWarningRole, t.warning);
  p.setColor(QPalette::Light, t.raised);
  p.setColor(QPalette::Mid, t.line);
  p.setColor(QPalette::Dark, t.line);
  p.setColor(QPalette::Shadow, t.dark ? QColor(0, 0, 0) : t.line);
  for (const QPalette::ColorRole role :
       {QPalette::WindowText, QPalette::Text, QPalette::ButtonText, QPalette::PlaceholderText})
    p.setColor(QPalette::Disabled, role, t.disabled);
  p.setColor(QPalette::Disabled, QPalette::Highlight, t.line);
  p.setColor(QPalette::Disabled, QPalette::HighlightedText, t.secondary);
  return p;
}

/// The widget and what is in it, but for other windows and parts, which have their own turn.
template <typename Visit>
void visit(QWidget& widget, const Visit& each) {
  each(widget);
  for (QObject* child : widget.children())
    if (auto* inner = qobject_cast<QWidget*>(child))
      if (!inner->isWindow() && !inner->property(kPart).toBool()) visit(*inner, each);
}

double linearChannel(double c) { return c <= 0.03928 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4); }
double luminance(const QColor& c) {
  return 0.2126 * linearChannel(static_cast<double>(c.redF())) +
         0.7152 * linearChannel(static_cast<double>(c.greenF())) +
         0.0722 * linearChannel(static_cast<double>(c.blueF()));
}

}  // namespace

const Theme& Theme::light() {
  static const Theme theme = makeLight();
  return theme;
}
const Theme& Theme::darkTheme() {
  static const Theme theme = makeDark();
  return theme;
}
const Theme& Theme::current() { return g_dark ? darkTheme() : light(); }

void Theme::apply(bool dark) {
  for (const QPointer<QWidget>& part : announce(dark)) applyTo(*part);
}

std::vector<QPointer<QWidget>> Theme::announce(bool dark) {
  g_dark = dark;
  const Theme& theme = current();
  QPixmapCache::clear();
  if (!g_styled) QApplication::setStyle(new Style);
  g_styled = true;
  const QPalette palette = paletteOf(theme);
  QApplication::setPalette(palette);
  QToolTip::setPalette(palette);
  if (QApplication::font() != fonts::base()) {
    QApplication::setFont(fonts::base());
    QToolTip::setFont(fonts::base());
  }
  std::vector<QPointer<QWidget>> parts;
  for (QWidget* widget : QApplication::allWidgets())
    if (widget->isWindow() || widget->property(kPart).toBool()) parts.emplace_back(widget);
  return parts;
}

void Theme::applyTo(QWidget& part) {
  if (part.property(kPart).toBool()) {
    part.setPalette(QApplication::palette());
    part.setFont(fonts::base());
  }
  visit(part, [](QWidget& each) {
    if (const int role = each.property(kFontRole).toInt(); role > 0)
      each.setFont(fonts::of(static_cast<FontRole>(role)));
  });
}

void Theme::makePart(QWidget* widget) {
  widget->setProperty(kPart, true);
  applyTo(*widget);
}

QColor Theme::classColor(HeadClass c) const {
  switch (c) {
    case HeadClass::Spatial:
      return classSpatial;
    case HeadClass::Temporal:
      return classTemporal;
    case HeadClass::Clustered:
      return classClustered;
    case HeadClass::Sink:
      return classSink;
    case HeadClass::Diffuse:
      return classDiffuse;
    case HeadClass::None:
      break;
  }
  return secondary;
}

namespace {
/// Made once for a scale: painting asks for them all the time, and looking a family up takes a while.
struct Fonts {
  QFont base, secondary, title, dockTitle, tabular;
};
const Fonts& fontsNow() {
  static double madeFor = 0;
  static Fonts all;
  if (madeFor == g_scale) return all;
  madeFor = g_scale;
  all.base = all.title = sans(13);
  all.secondary = all.dockTitle = sans(11);
  all.title.setWeight(QFont::DemiBold);
  all.dockTitle.setWeight(QFont::DemiBold);
  all.dockTitle.setCapitalization(QFont::AllUppercase);
  all.dockTitle.setLetterSpacing(QFont::PercentageSpacing, 104);
  all.tabular = all.base;
  if (tabularFamily() == all.base.family()) return all;
  // Another family beside the text: as high as its digits, whatever that family calls 13 px.
  const QFontMetricsF text(all.base);
  all.tabular.setFamily(tabularFamily());
  const qreal height = QFontMetricsF(all.tabular).tightBoundingRect(QStringLiteral("0")).height();
  const qreal wanted = text.tightBoundingRect(QStringLiteral("0")).height();
  if (height > 0)
    all.tabular.setPixelSize(std::max(8, static_cast<int>(std::lround(all.base.pixelSize() * wanted / height))));
  return all;
}
}  // namespace

namespace fonts {
QFont base() { return fontsNow().base; }
QFont secondary() { return fontsNow().secondary; }
QFont title() { return fontsNow().title; }
QFont dockTitle() { return fontsNow().dockTitle; }
QFont tabular() { return fontsNow().tabular; }
void setScale(double factor) { g_scale = std::clamp(factor, 0.8, 2.0); }
double scale() { return g_scale; }
QFont of(FontRole role) {
  const Fonts& all = fontsNow();
  QFont font =
      role == FontRole::Title || role == FontRole::Heading || role == FontRole::Headline ? all.title : all.base;
  switch (role) {
    case FontRole::Base:
    case FontRole::Title:
      break;
    case FontRole::Secondary:
      return all.secondary;
    case FontRole::DockTitle:
      return all.dockTitle;
    case FontRole::Tabular:
      return all.tabular;
    case FontRole::Note:
      font = all.secondary;
      font.setPixelSize((all.base.pixelSize() + all.secondary.pixelSize()) / 2);
      break;
    case FontRole::Heading:
      font.setPixelSize(font.pixelSize() * 5 / 4);
      break;
    case FontRole::Headline:
      font.setPixelSize(font.pixelSize() * 2);
      break;
    case FontRole::Code:
      font = QFontDatabase::systemFont(QFontDatabase::FixedFont);
      font.setPixelSize(all.secondary.pixelSize());
      break;
  }
  return font;
}
void give(QWidget* widget, FontRole role) {
  widget->setProperty(kFontRole, static_cast<int>(role));
  widget->setFont(of(role));
}
int px(double size) { return std::max(8, static_cast<int>(std::lround(size * g_scale))); }
}  // namespace fonts

void paintClassGlyph(QPainter& painter, const QRectF& box, HeadClass c, const Theme& theme) {
  painter.save();
  painter.setRenderHint(QPainter::Antialiasing);
  const double side = std::min(box.width(), box.height());
  const QPointF centre = box.center();
  const QColor color = theme.classColor(c);
  const double stroke = std::max(1.2, side * 0.14);
  painter.setPen(Qt::NoPen);
  painter.setBrush(color);
  switch (c) {
    case HeadClass::Spatial: {
      const double r = side * 0.40;
      painter.drawRoundedRect(QRectF(centre.x() - r, centre.y() - r, 2 * r, 2 * r), side * 0.06, side * 0.06);
      break;
    }
    case HeadClass::Temporal: {
      const double r = side * 0.5;
      const std::array<QPointF, 4> points{centre + QPointF(0, -r), centre + QPointF(r, 0), centre + QPointF(0, r),
                                          centre + QPointF(-r, 0)};
      painter.drawPolygon(points.data(), static_cast<int>(points.size()));
      break;
    }
    case HeadClass::Clustered: {
      const double r = side * 0.47;
      std::array<QPointF, 6> points;
      for (std::size_t i = 0; i < points.size(); ++i) {
        const double angle = 1.0471975511965976 * static_cast<double>(i);
        points[i] = centre + QPointF(r * std::cos(angle), r * std::sin(angle));
      }
      painter.drawPolygon(points.data(), static_cast<int>(points.size()));
      break;
    }
    case HeadClass::Sink: {
      const double w = side * 0.3, h = side * 0.94;
      painter.drawRoundedRect(QRectF(centre.x() - w / 2, centre.y() - h / 2, w, h), w * 0.25, w * 0.25);
      break;
    }
    case HeadClass::Diffuse: {
      const double r = side * 0.40 - stroke / 2 + side * 0.04;
      painter.setBrush(Qt::NoBrush);
      painter.setPen(QPen(color, stroke));
      painter.drawEllipse(centre, r, r);
      break;
    }
    case HeadClass::None: {
      const double r = side * 0.36;
      painter.setBrush(Qt::NoBrush);
      painter.setPen(QPen(color, std::max(1.0, side * 0.08), Qt::DotLine));
      painter.drawRoundedRect(QRectF(centre.x() - r, centre.y() - r, 2 * r, 2 * r), side * 0.06, side * 0.06);
      break;
    }
  }
  painter.restore();
}

void paintNoData(QPainter& painter, const QRectF& box, const Theme& theme) {
  painter.save();
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setClipRect(box, Qt::IntersectClip);
  painter.fillRect(box, theme.noData);
  painter.setPen(QPen(theme.noDataHatch, 1.0));
  // Drawn in absolute coordinates so that the hatch runs on through neighbouring cells.
  constexpr double kStep = 6;
  const double first = std::floor((box.left() + box.top()) / kStep) * kStep;
  // NOLINTNEXTLINE(clang-analyzer-security.FloatLoopCounter): hatch lines
  for (double d = first; d < box.right() + box.bottom(); d += kStep)
    painter.drawLine(QPointF(d - box.top(), box.top()), QPointF(d - box.bottom(), box.bottom()));
  painter.restore();
}

QColor mixed(const QColor& under, const QColor& over, double amount) {
  const auto channel = [amount](int from, int to) {
    return static_cast<int>(std::lround(from + (to - from) * amount));
  };
  return QColor(channel(under.red(), over.red()), channel(under.green(), over.green()),
                channel(under.blue(), over.blue()));
}

double contrastRatio(const QColor& a, const QColor& b) {
  const double la = luminance(a), lb = luminance(b);
  return (std::max(la, lb) + 0.05) / (std::min(la, lb) + 0.05);
}

QString formatNumber(double value) {
  if (std::isnan(value)) return QStringLiteral("\u2013");
  if (std::isinf(value)) return value > 0 ? QStringLiteral("\u221E") : QStringLiteral("\u2212\u221E");
  if (value == 0.0) return QStringLiteral("0");
  const double magnitude = std::abs(value);
  QString text;
  if (magnitude < 1e-3 || magnitude >= 1e7) {
    text = QString::number(magnitude, 'e', 2);
    text.replace(QStringLiteral("e-0"), QStringLiteral("e-")).replace(QStringLiteral("e+0"), QStringLiteral("e"));
    text.replace(QStringLiteral("e+"), QStringLiteral("e"));
  } else {
    // Digits before the point after rounding to three figures: 9.996 is "10.0", not "10.00".
    const int exponent = static_cast<int>(std::floor(std::log10(magnitude * (1 + 0.5e-3) + 1e-300)));
    const int decimals = std::clamp(2 - exponent, 0, 6);
    text = decimals == 0 ? formatCount(static_cast<qint64>(std::llround(magnitude)))
                         : QString::number(magnitude, 'f', decimals);
    if (decimals > 0 &&
        std::round(std::pow(10.0, decimals) * magnitude) / std::pow(10.0, decimals) >= std::pow(10.0, exponent + 1))
      text = QString::number(magnitude, 'f', std::max(0, decimals - 1));
  }
  return value < 0 ? QStringLiteral("\u2212") + text : text;
}

QString formatPercent(double fraction) {
  if (std::isnan(fraction)) return QStringLiteral("\u2013");
  const double percent = fraction * 100;
  const double magnitude = std::abs(percent);
  // A small kept fraction must not read as nothing at all.
  const int decimals = magnitude == 0.0 || magnitude >= 0.095 ? 1 : magnitude >= 0.0095 ? 2 : 3;
  QString text = QString::number(magnitude, 'f', decimals);
  if (percent < 0 && text.toDouble() > 0) text.prepend(QChar(0x2212));
  return text + QStringLiteral(" %");
}

QString formatCount(qint64 value) {
  QString digits = QString::number(value < 0 ? -value : value);
  for (qsizetype i = digits.size() - 3; i > 0; i -= 3) digits.insert(i, QChar(0x202F));
  return value < 0 ? QStringLiteral("\u2212") + digits : digits;
}

QString formatBytes(qint64 bytes) {
  static constexpr std::array<const char*, 5> kUnits{"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  const int decimals = unit == 0 || value >= 9.95 ? 0 : 1;
  return QString::number(value, 'f', decimals) + QLatin1Char(' ') + QLatin1String(kUnits[unit]);
}

QString formatDuration(double seconds) {
  if (!(seconds >= 0)) return QStringLiteral("\u2013");
  if (seconds < 9.95) return QString::number(seconds, 'f', 1) + QStringLiteral(" s");
  const auto whole = static_cast<qint64>(std::llround(seconds));
  if (whole < 60) return QString::number(whole) + QStringLiteral(" s");
  if (whole < 3600) return QStringLiteral("%1:%2 min").arg(whole / 60).arg(whole % 60, 2, 10, QLatin1Char('0'));
  return QStringLiteral("%1:%2 h").arg(whole / 3600).arg(whole / 60 % 60, 2, 10, QLatin1Char('0'));
}

QString ordinal(int n) {
  const int lastTwo = n % 100, last = n % 10;
  const char* suffix = "th";
  if (lastTwo < 11 || lastTwo > 13) suffix = last == 1 ? "st" : last == 2 ? "nd" : last == 3 ? "rd" : "th";
  return QString::number(n) + QLatin1String(suffix);
}

}  // namespace sparsight

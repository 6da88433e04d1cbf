// SPDX-License-Identifier: Apache-2.0
#include "ui/theme.h"

#include <QApplication>
#include <QFontDatabase>
#include <QFontMetricsF>
#include <QPalette>
#include <QPixmapCache>
#include <QProxyStyle>
#include <QStyle>
#include <QToolTip>
#include <algorithm>
#include <array>
#include <cmath>

namespace sparsight {
namespace {

/// Fusion, with mnemonics underlined only while Alt is down and no pictures on dialog buttons.
class Style : public QProxyStyle {
 public:
  Style() : QProxyStyle(QStringLiteral("Fusion")) {}
  int styleHint(StyleHint hint, const QStyleOption* option, const QWidget* widget,
                QStyleHintReturn* data) const override {
    if (hint == SH_UnderlineShortcut) return QGuiApplication::keyboardModifiers().testFlag(Qt::AltModifier) ? 1 : 0;
    if (hint == SH_DialogButtonBox_ButtonsHaveIcons) return 0;
    return QProxyStyle::styleHint(hint, option, widget, data);
  }
};

bool g_dark = true, g_styled = false;
double g_scale = 1.0;

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
  return t;
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
  return t;
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

int px(double size) { return std::max(8, static_cast<int>(std::lround(size * g_scale))); }

QFont sans(double size) {
  QFont font(sansFamily());
  font.setPixelSize(px(size));
  font.setStyleStrategy(QFont::PreferAntialias);
  font.setHintingPreference(QFont::PreferNoHinting);
  return font;
}

QPalette paletteOf(const Theme& t) {
  QPalette p;
  p.setColor(QPalette::Window, t.window);
  p.setColor(QPalette::WindowText, t.text);
  p.setColor(QPalette::Base, t.panel);
  p.setColor(QPalette::AlternateBase, t.dark ? t.raised : t.window);
  p.setColor(QPalette::ToolTipBase, t.raised);
  p.setColor(QPalette::ToolTipText, t.text);
  p.setColor(QPalette::PlaceholderText, t.secondary);
  p.setColor(QPalette::Text, t.text);
  p.setColor(QPalette::Button, t.raised);
  p.setColor(QPalette::ButtonText, t.text);
  p.setColor(QPalette::BrightText, t.error);
  p.setColor(QPalette::Highlight, t.accent);
  p.setColor(QPalette::HighlightedText, t.onAccent);
  p.setColor(QPalette::Link, t.accent);
  p.setColor(QPalette::LinkVisited, t.accent);
  p.setColor(QPalette::Light, t.raised);
  p.setColor(QPalette::Midlight, t.line);
  p.setColor(QPalette::Mid, t.line);
  p.setColor(QPalette::Dark, t.line);
  p.setColor(QPalette::Shadow, t.dark ? QColor(0, 0, 0) : t.line);
  for (const QPalette::ColorRole role : {QPalette::WindowText, QPalette::Text, QPalette::ButtonText})
    p.setColor(QPalette::Disabled, role, t.disabled);
  p.setColor(QPalette::Disabled, QPalette::Highlight, t.line);
  p.setColor(QPalette::Disabled, QPalette::HighlightedText, t.secondary);
  return p;
}

/// @name -> token. Kept as one text so that the look can be read in one place.
constexpr const char* kStyleSheet = R"(
QWidget { outline: 0; }
QMainWindow, QDialog { background: @window; }
QToolTip { background: @raised; color: @text; border: 1px solid @line; padding: 6px 8px; }

QWidget#topBar { background: @panel; border-bottom: 1px solid @line; }
QDialog#commandPalette { background: @raised; border: 1px solid @line; }
QDialog#commandPalette QListWidget { background: @raised; }
QMenuBar { background: transparent; border: 0; spacing: 0; }
QMenuBar::item { background: transparent; padding: 6px 9px; border-radius: 4px; }
QMenuBar::item:selected { background: @hover; }
QMenu { background: @raised; border: 1px solid @line; padding: 4px; }
QMenu::item { padding: 6px 28px 6px 12px; border-radius: 4px; }
QMenu::icon { padding-left: 8px; }
QMenu::item:selected { background: @accent; color: @onAccent; }
QMenu::item:disabled { color: @disabled; background: transparent; }
QMenu::separator { height: 1px; background: @line; margin: 4px 8px; }
QMenu::indicator { width: 14px; height: 14px; margin-left: 6px; }
QMenu::indicator:checked { image: url(:/resources/icons/check-@variant.svg); }

QPushButton, QToolButton[framed="true"] {
  background: @raised; color: @text; border: 1px solid @line; border-radius: 6px; padding: 0 12px;
  min-height: @control; }
QPushButton:hover, QToolButton[framed="true"]:hover { background: @hover; border-color: @hoverLine; }
QPushButton:pressed, QToolButton[framed="true"]:pressed { background: @pressed; }
QPushButton:focus, QToolButton[framed="true"]:focus { border: 2px solid @accent; padding: 0 11px; min-height: @controlFocus; }
QPushButton:disabled, QToolButton[framed="true"]:disabled { color: @disabled; background: transparent; }
QPushButton[tall="true"] { min-height: @tall; padding: 0 16px; }
QPushButton[tall="true"]:focus { min-height: @tallFocus; padding: 0 15px; }
QPushButton[row="true"] { min-height: @row; border-radius: 6px; }
QPushButton[row="true"]:focus { min-height: @rowFocus; border: 2px solid @accent; }
QPushButton[layoutTab="true"] { background: transparent; border-color: transparent; color: @secondary; padding: 0 16px; }
QPushButton[layoutTab="true"]:hover { background: @hover; color: @text; }
QPushButton[layoutTab="true"]:focus { border: 2px solid @accent; padding: 0 15px; }
QPushButton[primary="true"] { background: @accent; color: @onAccent; border-color: @accent; font-weight: 600; }
QPushButton[primary="true"]:hover { background: @accentHover; border-color: @accentHover; }
QPushButton[primary="true"][layoutTab="true"] { background: @accent; color: @onAccent; }
QPushButton[primary="true"]:focus { border: 2px solid @text; }
QPushButton[primary="true"]:disabled { background: @line; color: @secondary; border-color: @line; }
QPushButton::menu-indicator { image: none; width: 0; }
QPushButton[flat="true"], QPushButton[link="true"] { background: transparent; border-color: transparent; color: @accent; padding: 0 4px; }
QPushButton[flat="true"]:hover, QPushButton[link="true"]:hover { background: @hover; }
QPushButton[link="true"]:focus { border: 2px solid @accent; padding: 0 3px; }

QToolButton { background: transparent; border: 1px solid transparent; border-radius: 4px; padding: 3px; color: @text; }
QToolButton:hover { background: @hover; }
QToolButton:pressed, QToolButton:checked { background: @pressed; }
QToolButton:focus { border: 2px solid @accent; padding: 2px; }
QToolButton::menu-indicator { image: none; }

QLineEdit, QAbstractSpinBox, QComboBox, QPlainTextEdit, QTextEdit, QTextBrowser {
  background: @field; color: @text; border: 1px solid @line; border-radius: 6px; padding: 0 8px;
  selection-background-color: @accent; selection-color: @onAccent; }
QLineEdit, QAbstractSpinBox, QComboBox { min-height: @control; }
QAbstractItemView QLineEdit, QAbstractItemView QAbstractSpinBox { min-height: 0; border-radius: 0; padding: 0 4px; }
QLineEdit:hover, QAbstractSpinBox:hover, QComboBox:hover { border-color: @hoverLine; }
QLineEdit:focus, QAbstractSpinBox:focus, QComboBox:focus, QPlainTextEdit:focus {
  border: 2px solid @accent; padding: 0 7px; }
QLineEdit:focus, QAbstractSpinBox:focus, QComboBox:focus { min-height: @controlFocus; }
QLineEdit:disabled, QAbstractSpinBox:disabled, QComboBox:disabled { color: @disabled; background: transparent; }
QLineEdit[invalid="true"], QAbstractSpinBox[invalid="true"], QComboBox[invalid="true"] { border: 2px solid @error; padding: 0 7px; min-height: @controlFocus; }
QPlainTextEdit, QTextEdit, QTextBrowser { padding: 8px; }
QTextBrowser { border: 0; border-radius: 0; background: @panel; }
QComboBox { padding-right: 22px; combobox-popup: 0; }
QComboBox:focus { padding-right: 21px; }
QComboBox::drop-down { border: 0; width: 22px; subcontrol-position: center right; }
QComboBox::down-arrow { image: url(:/resources/icons/chevron-down-@variant.svg); width: 12px; height: 12px; }
QComboBox QAbstractItemView { background: @raised; border: 1px solid @line; padding: 4px; outline: 0;
  selection-background-color: @accent; selection-color: @onAccent; }
QComboBox QAbstractItemView::item { min-height: @control; padding: 0 8px; border-radius: 4px; }
QAbstractSpinBox::up-button, QAbstractSpinBox::down-button { width: 18px; border: 0; background: transparent; }
QAbstractSpinBox::up-button:hover, QAbstractSpinBox::down-button:hover { background: @hover; }
QAbstractSpinBox::up-arrow { image: url(:/resources/icons/chevron-up-@variant.svg); width: 10px; height: 10px; }
QAbstractSpinBox::down-arrow { image: url(:/resources/icons/chevron-down-@variant.svg); width: 10px; height: 10px; }

QCheckBox, QRadioButton { spacing: 8px; min-height: 24px; background: transparent; }
QCheckBox::indicator, QRadioButton::indicator { width: 16px; height: 16px; border: 1px solid @control3; background: @field; }
QCheckBox::indicator { border-radius: 4px; }
QRadioButton::indicator { border-radius: 9px; }
QCheckBox::indicator:hover, QRadioButton::indicator:hover { border-color: @accent; }
QCheckBox::indicator:checked { background: @accent; border-color: @accent; image: url(:/resources/icons/check-on-@variant.svg); }
QRadioButton::indicator:checked { background: @onAccent; border: 5px solid @accent; width: 8px; height: 8px; border-radius: 9px; }
QCheckBox:focus, QRadioButton:focus { color: @accent; }
QCheckBox::indicator:focus { border: 2px solid @accent; }

QSlider { min-height: 24px; background: transparent; }
QSlider::groove:horizontal { height: 4px; background: @line; border-radius: 2px; }
QSlider::sub-page:horizontal { background: @accent; border-radius: 2px; }
QSlider::add-page:horizontal { background: @line; border-radius: 2px; }
QSlider::handle:horizontal { width: 14px; height: 14px; margin: -5px 0; border-radius: 7px; background: @accent; border: 0; }
QSlider::handle:horizontal:hover { background: @accentHover; }
QSlider::handle:horizontal:focus { border: 2px solid @text; width: 10px; height: 10px; }
QSlider:disabled { color: @disabled; }
QSlider::handle:horizontal:disabled { background: @disabled; }
QSlider::sub-page:horizontal:disabled { background: @line; }

QProgressBar { background: @line; border: 0; border-radius: 2px; min-height: 4px; max-height: 4px; }
QProgressBar::chunk { background: @accent; border-radius: 2px; }

QAbstractItemView { background: @panel; alternate-background-color: @alternate; border: 0; gridline-color: @grid;
  selection-background-color: @selection; selection-color: @text; }
QAbstractItemView::item { padding: 0 8px; }
QAbstractItemView:focus { border: 0; }
QHeaderView { background: @panel; border: 0; }
QHeaderView::section { background: @panel; color: @secondary; border: 0; border-bottom: 1px solid @line; padding: 4px 8px; font-size: @small; }
QTableCornerButton::section { background: @panel; border: 0; }
QScrollArea, QScrollArea > QWidget > QWidget { background: transparent; border: 0; }

QScrollBar { background: transparent; border: 0; }
QScrollBar:vertical { width: 10px; }
QScrollBar:horizontal { height: 10px; }
QScrollBar::handle { background: @scroll; border-radius: 3px; border: 0; margin: 2px; }
QScrollBar::handle:vertical { min-height: 28px; }
QScrollBar::handle:horizontal { min-width: 28px; }
QScrollBar::handle:hover { background: @secondary; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }

QTabWidget::pane { border: 0; border-top: 1px solid @line; }
QTabBar { background: transparent; qproperty-drawBase: 0; }
QTabBar::tab { background: transparent; color: @secondary; padding: 7px 4px 6px 4px; margin: 0 12px 0 4px;
  border: 0; border-bottom: 2px solid transparent; }
QTabBar::tab:hover { color: @text; }
QTabBar::tab:selected { color: @text; font-weight: 600; border-bottom: 2px solid @accent; }
QTabBar::tab:focus { color: @accent; }
QTabBar::scroller { width: 20px; }

QMainWindow::separator { background: @line; width: 1px; height: 1px; }
QMainWindow::separator:hover { background: @accent; }
QDockWidget { border: 0; titlebar-close-icon: none; }
QDockWidget > QWidget { background: @panel; }
QSplitter::handle { background: @line; }
QSplitter::handle:horizontal { width: 1px; }
QSplitter::handle:vertical { height: 1px; }
QStatusBar { background: @panel; border-top: 1px solid @line; color: @secondary; }
QStatusBar::item { border: 0; }
QStatusBar QLabel { color: @secondary; }
QGroupBox { border: 0; margin-top: 20px; font-weight: 600; }
QGroupBox::title { subcontrol-origin: margin; left: 0; color: @secondary; }
QLabel { background: transparent; }
QLabel[role="secondary"] { color: @secondary; }
QLabel[role="warning"] { color: @warning; }
QLabel[role="error"] { color: @error; }
QLabel[role="ok"] { color: @ok; }
QFrame[role="line"] { background: @line; border: 0; max-height: 1px; min-height: 1px; }
QFrame[role="card"] { background: @panel; border: 1px solid @line; border-radius: 6px; }
QWidget[role="panel"] { background: @panel; }
QWidget[role="window"] { background: @window; }
)";

QString styleSheetOf(const Theme& t) {
  const auto scaled = [](int size) -> QString { return QString::number(px(size)) + QStringLiteral("px"); };
  // Longest names first: a name may begin with another one.
  std::vector<std::pair<QString, QString>> tokens{
      {QStringLiteral("@window"), t.window.name()},
      {QStringLiteral("@panel"), t.panel.name()},
      {QStringLiteral("@raised"), t.raised.name()},
      {QStringLiteral("@line"), t.line.name()},
      {QStringLiteral("@grid"), t.grid.name()},
      {QStringLiteral("@text"), t.text.name()},
      {QStringLiteral("@secondary"), t.secondary.name()},
      {QStringLiteral("@disabled"), t.disabled.name()},
      {QStringLiteral("@accent"), t.accent.name()},
      {QStringLiteral("@onAccent"), t.onAccent.name()},
      {QStringLiteral("@accentHover"), mixed(t.accent, t.dark ? QColor(Qt::white) : QColor(Qt::black), 0.12).name()},
      {QStringLiteral("@ok"), t.ok.name()},
      {QStringLiteral("@warning"), t.warning.name()},
      {QStringLiteral("@error"), t.error.name()},
      {QStringLiteral("@field"), (t.dark ? t.raised : t.panel).name()},
      {QStringLiteral("@hover"), mixed(t.raised, t.text, t.dark ? 0.08 : 0.06).name()},
      {QStringLiteral("@pressed"), mixed(t.raised, t.text, t.dark ? 0.15 : 0.12).name()},
      {QStringLiteral("@hoverLine"), mixed(t.line, t.text, 0.25).name()},
      {QStringLiteral("@control3"), mixed(t.line, t.text, 0.45).name()},
      {QStringLiteral("@scroll"), mixed(t.panel, t.text, 0.25).name()},
      {QStringLiteral("@alternate"), mixed(t.panel, t.text, 0.025).name()},
      {QStringLiteral("@selection"), mixed(t.panel, t.accent, 0.28).name()},
      {QStringLiteral("@variant"), t.dark ? QStringLiteral("dark") : QStringLiteral("light")},
      {QStringLiteral("@small"), scaled(11)},
      {QStringLiteral("@tallFocus"), scaled(30)},
      {QStringLiteral("@tall"), scaled(32)},
      {QStringLiteral("@rowFocus"), scaled(40)},
      {QStringLiteral("@row"), scaled(42)},
      {QStringLiteral("@controlFocus"), scaled(Theme::kControl - 4)},
      {QStringLiteral("@control"), scaled(Theme::kControl - 2)},
  };
  std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  QString sheet = QString::fromLatin1(kStyleSheet);
  for (const auto& [name, value] : tokens) sheet.replace(name, value);
  return sheet;
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
  g_dark = dark;
  const Theme& theme = current();
  QPixmapCache::clear();
  if (!g_styled) QApplication::setStyle(new Style);
  g_styled = true;
  QApplication::setPalette(paletteOf(theme));
  QApplication::setFont(fonts::base());
  QToolTip::setPalette(paletteOf(theme));
  QToolTip::setFont(fonts::base());
  qApp->setStyleSheet(styleSheetOf(theme));
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

// SPDX-License-Identifier: Apache-2.0
#include <QApplication>
#include <QImage>
#include <QLabel>
#include <QPushButton>
#include <QTest>
#include <QVBoxLayout>
#include <array>
#include <limits>
#include <vector>

#include "ui/icons.h"
#include "ui/layout_pause.h"
#include "ui/section_label.h"
#include "ui/theme.h"

using namespace sparsight;

namespace {
constexpr std::array kClasses{HeadClass::Spatial, HeadClass::Temporal, HeadClass::Clustered, HeadClass::Sink,
                              HeadClass::Diffuse};
QImage glyph(HeadClass c, const Theme& theme, int side = 16) {
  QImage image(side, side, QImage::Format_ARGB32_Premultiplied);
  image.fill(theme.panel);
  QPainter painter(&image);
  paintClassGlyph(painter, QRectF(2, 2, side - 4, side - 4), c, theme);
  return image;
}
}  // namespace

class TstTheme : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void textAndGraphicsReachTheirContrast() {
    for (const Theme* theme : {&Theme::light(), &Theme::darkTheme()}) {
      for (const QColor& surface : {theme->window, theme->panel, theme->raised}) {
        for (const HeadClass c : kClasses) QVERIFY(contrastRatio(theme->classColor(c), surface) >= 3.0);
        QVERIFY(contrastRatio(theme->text, surface) >= 7.0);
        QVERIFY(contrastRatio(theme->secondary, surface) >= 4.5);
        for (const QColor& signal : {theme->ok, theme->warning, theme->error, theme->accent})
          QVERIFY(contrastRatio(signal, surface) >= 4.5);
        for (const QColor& slot : {theme->slotA, theme->slotB}) QVERIFY(contrastRatio(slot, surface) >= 3.0);
      }
      QVERIFY(contrastRatio(theme->onAccent, theme->accent) >= 4.5);
    }
    QCOMPARE(contrastRatio(Qt::white, Qt::black), 21.0);
  }

  void classesNeverShareTheSlotColours() {
    for (const Theme* theme : {&Theme::light(), &Theme::darkTheme()})
      for (const HeadClass c : kClasses) {
        QVERIFY(theme->classColor(c) != theme->slotA);
        QVERIFY(theme->classColor(c) != theme->slotB);
      }
  }

  void glyphsDifferByShapeAlone() {
    // The same colour for all: a reader without colour vision must still tell them apart.
    Theme grey = Theme::light();
    grey.classSpatial = grey.classTemporal = grey.classClustered = grey.classSink = grey.classDiffuse = grey.secondary =
        QColor(80, 80, 80);
    std::vector<QImage> images;
    for (const HeadClass c : kClasses) images.push_back(glyph(c, grey));
    images.push_back(glyph(HeadClass::None, grey));
    for (std::size_t a = 0; a < images.size(); ++a)
      for (std::size_t b = a + 1; b < images.size(); ++b) {
        int different = 0;
        for (int y = 0; y < 16; ++y)
          for (int x = 0; x < 16; ++x)
            if (std::abs(qGray(images[a].pixel(x, y)) - qGray(images[b].pixel(x, y))) > 60) ++different;
        QVERIFY2(different >= 12, qPrintable(QStringLiteral("glyphs %1 and %2").arg(a).arg(b)));
      }
  }

  void applyInstallsPaletteAndFont() {
    Theme::apply(false);
    QVERIFY(!Theme::current().dark);
    QCOMPARE(QApplication::palette().color(QPalette::Window), Theme::light().window);
    Theme::apply(true);
    QVERIFY(Theme::current().dark);
    QCOMPARE(QApplication::palette().color(QPalette::Base), Theme::darkTheme().panel);
    QCOMPARE(QApplication::font().pixelSize(), 13);
    fonts::setScale(1.5);
    Theme::apply(true);
    QCOMPARE(QApplication::font().pixelSize(), 20);
    fonts::setScale(1.0);
    Theme::apply(true);
  }

  void tabularFiguresAreEquallyWide() {
    const QFontMetricsF metrics(fonts::tabular());
    for (char digit = '1'; digit <= '9'; ++digit)
      QVERIFY(std::abs(metrics.horizontalAdvance(QLatin1Char(digit)) - metrics.horizontalAdvance(QLatin1Char('0'))) <
              0.5);
  }

  void controlsHaveTheSpecifiedHeight() {
    Theme::apply(false);
    QPushButton button(QStringLiteral("Run"));
    button.ensurePolished();
    QCOMPARE(button.sizeHint().height(), Theme::kControl);
  }

  void numbersAsTheyAreShown_data() {
    QTest::addColumn<QString>("shown");
    QTest::addColumn<QString>("expected");
    const QString minus(QChar(0x2212)), thin(QChar(0x202F));
    QTest::newRow("third") << formatNumber(0.9434) << QStringLiteral("0.943");
    QTest::newRow("small") << formatNumber(0.0314) << QStringLiteral("0.0314");
    QTest::newRow("padded") << formatNumber(0.031) << QStringLiteral("0.0310");
    QTest::newRow("scientific") << formatNumber(3.2e-5) << QStringLiteral("3.20e-5");
    QTest::newRow("limit") << formatNumber(0.001) << QStringLiteral("0.00100");
    QTest::newRow("rounds up") << formatNumber(9.996) << QStringLiteral("10.0");
    QTest::newRow("rounds up 2") << formatNumber(0.99996) << QStringLiteral("1.00");
    QTest::newRow("below") << formatNumber(9.994) << QStringLiteral("9.99");
    QTest::newRow("negative") << formatNumber(-1.42) << minus + QStringLiteral("1.42");
    QTest::newRow("hundreds") << formatNumber(212.4) << QStringLiteral("212");
    QTest::newRow("thousands") << formatNumber(32760) << QStringLiteral("32") + thin + QStringLiteral("760");
    QTest::newRow("large") << formatNumber(1.5e12) << QStringLiteral("1.50e12");
    QTest::newRow("zero") << formatNumber(0) << QStringLiteral("0");
    QTest::newRow("nan") << formatNumber(std::numeric_limits<double>::quiet_NaN()) << QString(QChar(0x2013));
    QTest::newRow("percent") << formatPercent(0.265) << QStringLiteral("26.5 %");
    QTest::newRow("percent 1") << formatPercent(1) << QStringLiteral("100.0 %");
    QTest::newRow("percent small") << formatPercent(0.0004) << QStringLiteral("0.04 %");
    QTest::newRow("percent 0") << formatPercent(0) << QStringLiteral("0.0 %");
    QTest::newRow("count") << formatCount(1234567)
                           << QStringLiteral("1") + thin + QStringLiteral("234") + thin + QStringLiteral("567");
    QTest::newRow("count short") << formatCount(999) << QStringLiteral("999");
    QTest::newRow("count negative") << formatCount(-1000) << minus + QStringLiteral("1") + thin + QStringLiteral("000");
    QTest::newRow("bytes") << formatBytes(1'400'000'000) << QStringLiteral("1.4 GB");
    QTest::newRow("bytes 2") << formatBytes(999'900) << QStringLiteral("1.0 MB");
    QTest::newRow("bytes 3") << formatBytes(18'000) << QStringLiteral("18 kB");
    QTest::newRow("seconds") << formatDuration(0.42) << QStringLiteral("0.4 s");
    QTest::newRow("minutes") << formatDuration(185) << QStringLiteral("3:05 min");
    QTest::newRow("hours") << formatDuration(3725) << QStringLiteral("1:02 h");
    QTest::newRow("1st") << ordinal(1) << QStringLiteral("1st");
    QTest::newRow("11th") << ordinal(11) << QStringLiteral("11th");
    QTest::newRow("22nd") << ordinal(22) << QStringLiteral("22nd");
    QTest::newRow("113th") << ordinal(113) << QStringLiteral("113th");
  }
  void numbersAsTheyAreShown() {
    QFETCH(QString, shown);
    QFETCH(QString, expected);
    QCOMPARE(shown, expected);
  }

  void aRememberedHeightIsTheLabelsHeight() {
    QWidget window;
    WrapLabel label(&window);
    QLabel plain(&window);
    plain.setWordWrap(true);
    const auto agree = [&] {
      for (int round = 0; round < 2; ++round)
        for (const int width : {60, 120, 121, 400, 60})
          QCOMPARE(label.heightForWidth(width), plain.heightForWidth(width));
    };
    for (const QString& text : {QString(), QStringLiteral("one"),
                                QStringLiteral("several words that have to stand on more lines than one")}) {
      label.setText(text);
      plain.setText(text);
      agree();
    }
    const int before = label.heightForWidth(60);
    QFont large = label.font();
    large.setPixelSize(40);
    label.setFont(large);
    plain.setFont(large);
    agree();
    QVERIFY(label.heightForWidth(60) > before);
    label.setContentsMargins(9, 9, 9, 9);
    plain.setContentsMargins(9, 9, 9, 9);
    agree();
    label.setWordWrap(false);
    plain.setWordWrap(false);
    agree();
  }

  void aPausedLayoutIsMadeOnceAfterwards() {
    QWidget window;
    auto* column = new QVBoxLayout(&window);
    std::vector<QLabel*> rows;
    for (int i = 0; i < 5; ++i) {
      rows.push_back(new QLabel(QString::number(i)));
      column->addWidget(rows.back());
      rows.back()->hide();
    }
    window.resize(200, 400);
    window.show();
    QVERIFY(QTest::qWaitForWindowExposed(&window));
    {
      const LayoutPause outer({&window});
      for (QLabel* row : rows) {
        const LayoutPause inner({&window});
        row->show();
      }
      QVERIFY(!column->isEnabled());
    }
    QVERIFY(column->isEnabled());
    QTRY_VERIFY(rows[4]->y() > rows[3]->y() && rows[3]->y() > rows[2]->y() && rows[1]->y() > rows[0]->y());
  }

  void iconsFollowTheTheme() {
    const auto ink = [](const QPixmap& pixmap) {
      const QImage image = pixmap.toImage();
      for (int y = 0; y < image.height(); ++y)
        for (int x = 0; x < image.width(); ++x)
          if (qAlpha(image.pixel(x, y)) > 250) return QColor(image.pixel(x, y)).lightness();
      return -1;
    };
    const QIcon icon = themedIcon(QStringLiteral("open"));
    QVERIFY(!icon.isNull());
    Theme::apply(true);
    QVERIFY(ink(icon.pixmap(32, 32)) > 180);
    Theme::apply(false);
    const int dark = ink(icon.pixmap(32, 32));
    QVERIFY(dark >= 0 && dark < 80);
    QVERIFY(themedIcon(QStringLiteral("no-such-icon")).isNull());
  }
};

QTEST_MAIN(TstTheme)
#include "tst_theme.moc"

// SPDX-License-Identifier: Apache-2.0
#include <QAbstractTextDocumentLayout>
#include <QFile>
#include <QLineEdit>
#include <QScrollBar>
#include <QTest>
#include <QTextBlock>
#include <QTextBrowser>
#include <QTextList>
#include <QToolButton>

#include "tests/gui/gui_fixture.h"
#include "ui/help_panel.h"
#include "ui/theme.h"

using namespace sparsight;
using namespace sparsight::test;

class TstHelpPanel : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;
  std::unique_ptr<HelpPanel> m_panel;

  QTextBrowser& browser() { return *m_panel->findChild<QTextBrowser*>(QStringLiteral("helpBrowser")); }
  bool settled() {
    return eventually([&] { return m_panel->isSettled(); });
  }
  /// Where that heading stands below the top of what is visible, in pixels.
  int headingTop(const QString& anchor) {
    for (QTextBlock block = browser().document()->begin(); block.isValid(); block = block.next())
      if (block.blockFormat().headingLevel() > 0 && headingAnchor(block.text()) == anchor)
        return browser().cursorRect(QTextCursor(block)).top();
    return -100'000;
  }
  bool isAtTop(const QString& anchor) { return std::abs(headingTop(anchor) - 4) <= 2; }
  QToolButton* button(const QString& name) {
    for (auto* each : m_panel->findChildren<QToolButton*>())
      if (each->accessibleName().startsWith(name)) return each;
    return nullptr;
  }

 private Q_SLOTS:
  void initTestCase() { Theme::apply(true); }
  void init() {
    m_panel = std::make_unique<HelpPanel>();
    m_panel->resize(420, 640);
    m_panel->show();
    QVERIFY(QTest::qWaitForWindowExposed(m_panel.get()));
  }
  void cleanup() { m_panel.reset(); }

  void aHeadingGoesToTheTop() {
    m_panel->showPage(QStringLiteral("views.md#heads"));
    QCOMPARE(m_panel->currentPage(), QStringLiteral("views.md#heads"));
    QVERIFY(settled());
    QVERIFY2(isAtTop(QStringLiteral("heads")), qPrintable(QString::number(headingTop(QStringLiteral("heads")))));
    QVERIFY(browser().viewport()->updatesEnabled());
    // Another one of the same page, nearly at its end.
    m_panel->showPage(QStringLiteral("views.md#budget-editor"));
    QVERIFY(settled());
    QVERIFY(isAtTop(QStringLiteral("budget-editor")) ||
            browser().verticalScrollBar()->value() == browser().verticalScrollBar()->maximum());
    QVERIFY(headingTop(QStringLiteral("budget-editor")) >= 0);
    QVERIFY(headingTop(QStringLiteral("budget-editor")) < browser().viewport()->height());
    m_panel->showPage(QStringLiteral("views.md"));
    QVERIFY(settled());
    QCOMPARE(browser().verticalScrollBar()->value(), 0);
  }

  void theHeadingStaysWhileTheWidthChanges() {
    m_panel->showPage(QStringLiteral("views.md#heads"));
    QVERIFY(settled());
    m_panel->resize(620, 640);
    QVERIFY(eventually([&] { return m_panel->isSettled() && isAtTop(QStringLiteral("heads")); }));
    // Until somebody scrolls.
    browser().verticalScrollBar()->triggerAction(QAbstractSlider::SliderPageStepAdd);
    QVERIFY(!isAtTop(QStringLiteral("heads")));
    m_panel->resize(480, 640);
    QTest::qWait(100);
    QVERIFY(settled());
    QVERIFY(!isAtTop(QStringLiteral("heads")));
  }

  void theWidthMayChangeBeforeThePageIsThere() {
    m_panel->showPage(QStringLiteral("views.md#heads"));
    for (int width = 430; width < 700; width += 10) {
      m_panel->resize(width, 640);
      QCoreApplication::processEvents();
    }
    QVERIFY(settled());
    QVERIFY(isAtTop(QStringLiteral("heads")));
  }

  void theWholePageIsThere() {
    m_panel->showPage(QStringLiteral("cuda.md"));
    QVERIFY(settled());
    const QRectF last = browser().document()->documentLayout()->blockBoundingRect(browser().document()->lastBlock());
    browser().verticalScrollBar()->setValue(browser().verticalScrollBar()->maximum());
    QVERIFY(last.bottom() <= browser().verticalScrollBar()->maximum() + browser().viewport()->height() + 1);
    QVERIFY(last.bottom() > browser().verticalScrollBar()->maximum());
    QCOMPARE(browser().document()->thread(), QThread::currentThread());
  }

  void thePageThatWasAskedForLastStays() {
    m_panel->showPage(QStringLiteral("views.md"));
    QCoreApplication::processEvents();  // it is on its way
    m_panel->showPage(QStringLiteral("numbers.md"));
    QVERIFY(settled());
    QTest::qWait(50);
    QVERIFY(m_panel->pageText().startsWith(QStringLiteral("What the numbers mean")));
    QCOMPARE(m_panel->currentPage(), QStringLiteral("numbers.md"));
  }

  void linksLeadOnAndBackAgain() {
    QVERIFY(!button(QStringLiteral("Back"))->isEnabled());
    m_panel->showPage(QStringLiteral("index.md"));
    QVERIFY(settled());
    const QString index = m_panel->pageText();
    Q_EMIT browser().anchorClicked(QUrl(QStringLiteral("views.md#heads")));
    QVERIFY(settled());
    QCOMPARE(m_panel->currentPage(), QStringLiteral("views.md#heads"));
    QVERIFY(m_panel->pageText() != index);
    button(QStringLiteral("Back"))->click();
    QVERIFY(settled());
    QCOMPARE(m_panel->pageText(), index);
    QVERIFY(!button(QStringLiteral("Back"))->isEnabled());
    button(QStringLiteral("Forward"))->click();
    QVERIFY(settled());
    QVERIFY(isAtTop(QStringLiteral("heads")));
    // Within the page.
    Q_EMIT browser().anchorClicked(QUrl(QStringLiteral("#jobs")));
    QVERIFY(settled());
    QCOMPARE(m_panel->currentPage(), QStringLiteral("views.md#jobs"));
  }

  void theLastItemBeforeAHeadingIsStillAnItem() {
    m_panel->showPage(QStringLiteral("index.md"));
    QVERIFY(settled());
    int headings = 0, items = 0, wantedHeadings = 0, wantedItems = 0;
    for (QTextBlock block = browser().document()->begin(); block.isValid(); block = block.next()) {
      headings += block.blockFormat().headingLevel() > 0 ? 1 : 0;
      items += block.textList() != nullptr ? 1 : 0;
    }
    QFile file(QStringLiteral(":/resources/docs/index.md"));
    QVERIFY(file.open(QIODevice::ReadOnly));
    for (const QString& line : QString::fromUtf8(file.readAll()).split(QLatin1Char('\n'))) {
      wantedHeadings += line.startsWith(QLatin1Char('#')) ? 1 : 0;
      wantedItems += line.startsWith(QLatin1String("- ")) ? 1 : 0;
    }
    QCOMPARE(headings, wantedHeadings);
    QCOMPARE(items, wantedItems);
  }

  void anUnknownPageIsTheIndex() {
    m_panel->showPage(QStringLiteral("index.md"));
    QVERIFY(settled());
    const QString index = m_panel->pageText();
    m_panel->showPage(QStringLiteral("numbers.md"));
    QVERIFY(settled());
    m_panel->showPage(QStringLiteral("no-such-page.md"));
    QVERIFY(settled());
    QCOMPARE(m_panel->pageText(), index);
  }

  void aWordIsFoundOnThePage() {
    m_panel->showPage(QStringLiteral("views.md#heads"));
    QVERIFY(settled());
    auto* search = m_panel->findChild<QLineEdit*>(QStringLiteral("helpSearch"));
    search->setText(QStringLiteral("minimap"));
    QCOMPARE(browser().textCursor().selectedText().toLower(), QStringLiteral("minimap"));
    QVERIFY(!isAtTop(QStringLiteral("heads")));
    QVERIFY(browser().viewport()->rect().intersects(browser().cursorRect()));
    m_panel->resize(520, 640);  // what was found does not give way to the heading
    QTest::qWait(100);
    QVERIFY(settled());
    QCOMPARE(browser().textCursor().selectedText().toLower(), QStringLiteral("minimap"));
  }

  void aThemeColoursThePageAnew() {
    m_panel->showPage(QStringLiteral("views.md"));
    QVERIFY(settled());
    const auto headingColor = [&] {
      return browser().document()->begin().begin().fragment().charFormat().foreground().color();
    };
    QCOMPARE(headingColor(), Theme::darkTheme().text);
    Theme::apply(false);
    QVERIFY(eventually([&] { return m_panel->isSettled() && headingColor() == Theme::light().text; }));
    Theme::apply(true);
    QVERIFY(eventually([&] { return m_panel->isSettled() && headingColor() == Theme::darkTheme().text; }));
  }

  void itMayGoWhileAPageIsOnItsWay() {
    for (int turns = 0; turns < 8; ++turns) {
      m_panel->showPage(QStringLiteral("views.md#heads"));
      for (int i = 0; i < turns; ++i) QCoreApplication::processEvents();
      m_panel = std::make_unique<HelpPanel>();
      m_panel->resize(420, 640);
      m_panel->show();
    }
    QTest::qWait(50);
  }
};

QTEST_MAIN(TstHelpPanel)
#include "tst_help_panel.moc"

// SPDX-License-Identifier: Apache-2.0
#include <QAction>
#include <QClipboard>
#include <QDialog>
#include <QDialogButtonBox>
#include <QDockWidget>
#include <QDropEvent>
#include <QFile>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QMenuBar>
#include <QMessageBox>
#include <QMimeData>
#include <QPushButton>
#include <QRegularExpression>
#include <QSettings>
#include <QSignalSpy>
#include <QTest>
#include <QTextBrowser>
#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "tests/gui/gui_fixture.h"
#include "ui/banner.h"
#include "ui/command_palette.h"
#include "ui/dialogs/goto_dialog.h"
#include "ui/dialogs/synth_dialog.h"
#include "ui/help_panel.h"
#include "ui/main_window.h"
#include "ui/session.h"
#include "ui/theme.h"

using namespace sparsight;
using namespace sparsight::test;

namespace {
Settings quietSettings() {
  Settings settings;
  settings.theme = Settings::ThemeChoice::Dark;
  return settings;
}
}  // namespace

class TstMainWindow : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;
  QString m_trace;
  std::unique_ptr<Session> m_session;
  std::unique_ptr<MainWindow> m_window;

  void openTrace() {
    m_window->openFiles({m_trace});
    // Views are told over several turns of the event loop; then the window is laid out.
    auto* start = m_window->findChild<QWidget*>(QStringLiteral("startPage"));
    QVERIFY(
        eventually([&] { return m_session->trace() != nullptr && m_window->viewsAreTold() && !start->isVisible(); }));
    QTest::qWait(30);
  }
  QDockWidget* dock(const QString& id) { return m_window->findChild<QDockWidget*>(QStringLiteral("dock.") + id); }

 private Q_SLOTS:
  void initTestCase() {
    qRegisterMetaType<ChangeFlags>();
    Theme::apply(true);
    m_trace = writeSmallTrace(m_home.file(QStringLiteral("small.h5")));
  }
  void init() {
    QSettings().clear();
    m_session = std::make_unique<Session>();
    m_window = std::make_unique<MainWindow>(*m_session, quietSettings());
    m_window->resize(1400, 900);
    m_window->show();
    QVERIFY(QTest::qWaitForWindowExposed(m_window.get()));
  }
  void cleanup() {
    m_window.reset();
    m_session.reset();
  }

  void anEmptyWindowIsTheStartPage() {
    auto* start = m_window->findChild<QWidget*>(QStringLiteral("startPage"));
    QVERIFY(start != nullptr && start->isVisible());
    for (const char* button : {"startDemo", "startOpen", "startSynth"})
      QVERIFY(m_window->findChild<QPushButton*>(QLatin1String(button))->isVisible());
    QVERIFY(!dock(QStringLiteral("heads"))->isVisible());
    openTrace();
    QVERIFY(!start->isVisible());
    QVERIFY(dock(QStringLiteral("heads"))->isVisible());
    QVERIFY(dock(QStringLiteral("method"))->isVisible());
    QVERIFY(m_window->windowTitle().contains(QStringLiteral("small.h5")));
    m_session->closeTrace();
    QVERIFY(eventually([&] { return start->isVisible(); }));
    QVERIFY(m_window->findChild<QPushButton*>(QStringLiteral("recentFile")) != nullptr);
  }

  void everyViewOpensWithAndWithoutATrace() {
    for (const ViewInfo* info : allViews()) QVERIFY2(m_window->view(QLatin1String(info->id)) != nullptr, info->id);
    openTrace();
    for (const ViewInfo* info : allViews()) {
      m_window->showView(QLatin1String(info->id));
      QVERIFY2(eventually([&] { return m_window->view(QLatin1String(info->id))->isVisible(); }, 3000), info->id);
    }
  }

  void layoutsAreRememberedOnePerTask() {
    openTrace();
    QCOMPARE(m_window->layoutPreset(), QStringLiteral("diagnose"));
    dock(QStringLiteral("method"))->hide();
    QTest::mouseClick(m_window->findChild<QPushButton*>(QStringLiteral("tab.teach")), Qt::LeftButton);
    QCOMPARE(m_window->layoutPreset(), QStringLiteral("teach"));
    QTest::qWait(20);
    QVERIFY(dock(QStringLiteral("help"))->isVisible());
    QVERIFY(!dock(QStringLiteral("heads"))->isVisible());
    QVERIFY(eventually([&] { return m_window->help().pageText().contains(QStringLiteral("First")); }));
    m_window->actionByName(QStringLiteral("layout.tune"))->trigger();
    QTest::qWait(20);
    QVERIFY(dock(QStringLiteral("budget"))->isVisible());
    QVERIFY(!dock(QStringLiteral("help"))->isVisible());
    m_window->actionByName(QStringLiteral("layout.diagnose"))->trigger();
    QTest::qWait(20);
    QVERIFY(dock(QStringLiteral("heads"))->isVisible());
    QVERIFY(!dock(QStringLiteral("method"))->isVisible());  // as it was left
    m_window->resetLayout();
    QTest::qWait(20);
    QVERIFY(dock(QStringLiteral("method"))->isVisible());
  }

  void noLayoutPutsOneThingOverAnother() {
    const auto overlap = [this]() -> QString {
      const QRect inside = m_window->rect();
      std::vector<std::pair<QString, QRect>> parts{{QStringLiteral("centre"), m_window->centralWidget()->geometry()}};
      for (const QDockWidget* each : m_window->findChildren<QDockWidget*>())
        // Behind another tab a dock lies above the window.
        if (each->isVisible() && each->geometry().bottom() > 0)
          parts.emplace_back(each->objectName(), each->geometry());
      if (parts.size() < 2) return QStringLiteral("no dock");
      for (std::size_t i = 0; i < parts.size(); ++i) {
        if (!inside.contains(parts[i].second)) return parts[i].first;
        for (std::size_t j = 0; j < i; ++j)
          if (parts[i].second.intersects(parts[j].second)) return parts[i].first + QLatin1Char(' ') + parts[j].first;
      }
      return {};
    };
    // Docks move to their place for a moment.
    const auto apart = [&overlap](const QString& when) {
      const bool settled = eventually([&] { return overlap().isEmpty(); }, 3000);
      QVERIFY2(settled, qPrintable(when + overlap()));
    };
    const QStringList layouts{QStringLiteral("compare"), QStringLiteral("tune"), QStringLiteral("teach"),
                              QStringLiteral("diagnose")};
    // The one that a trace is opened into, first and with what was stored of it, and those that are switched to.
    for (const QString& name : layouts + layouts) {
      m_window->setLayoutPreset(name);
      openTrace();
      apart(QStringLiteral("opened: ") + name + QLatin1Char(' '));
      m_session->closeTrace();
      QVERIFY(eventually([&] { return m_window->findChild<QWidget*>(QStringLiteral("startPage"))->isVisible(); }));
    }
    openTrace();
    for (const QString& name : layouts + layouts) {
      m_window->actionByName(QStringLiteral("layout.%1").arg(name))->trigger();
      QVERIFY(eventually([&] { return m_window->viewsAreTold(); }));
      QTest::qWait(30);
      apart(QStringLiteral("switched: ") + name + QLatin1Char(' '));
    }
  }

  void aFailedOpenIsSaidInPlace() {
    openTrace();
    const auto before = m_session->trace();
    m_window->openFiles({m_home.file(QStringLiteral("missing.h5"))});
    QVERIFY(eventually([&] { return m_window->banners().count() == 1; }));
    QVERIFY(m_window->banners().topText().contains(QStringLiteral("missing.h5")));
    QVERIFY(QApplication::activeModalWidget() == nullptr);
    QCOMPARE(m_session->trace(), before);
    m_window->openFiles({m_home.file(QStringLiteral("missing.h5"))});  // again: not doubled
    QTest::qWait(150);
    QCOMPARE(m_window->banners().count(), 1);
    QTest::keyClick(m_window.get(), Qt::Key_Escape);
    QVERIFY(!m_window->banners().isVisible());
  }

  void actionsHaveNamesAndUniqueKeys() {
    std::set<QString> names, keys;
    QVERIFY(m_window->allActions().size() > 30);
    for (const QAction* action : m_window->allActions()) {
      QVERIFY2(names.insert(action->objectName()).second, qPrintable(action->objectName()));
      QVERIFY(!action->text().isEmpty());
      for (const QKeySequence& key : action->shortcuts())
        QVERIFY2(keys.insert(key.toString()).second,
                 qPrintable(action->objectName() + QLatin1Char(' ') + key.toString()));
    }
    for (const QMenu* menu : m_window->findChildren<QMenu*>())
      for (const QAction* action : menu->actions())
        if (!action->isSeparator() && action->menu() == nullptr && menu->parentWidget() != nullptr &&
            qobject_cast<QMenuBar*>(menu->parentWidget()) != nullptr)
          QVERIFY2(!action->objectName().isEmpty(), qPrintable(action->text()));
  }

  void thePaletteFindsAndRuns() {
    openTrace();
    QVERIFY(CommandPalette::score(QStringLiteral("rs"), QStringLiteral("Method: Run on step")) >
            CommandPalette::score(QStringLiteral("rs"), QStringLiteral("File: Close trace")));
    QVERIFY(CommandPalette::score(QStringLiteral("xyz"), QStringLiteral("Run on step")) < 0);
    m_window->actionByName(QStringLiteral("go.palette"))->trigger();
    auto* palette = m_window->findChild<CommandPalette*>(QStringLiteral("commandPalette"));
    QVERIFY(palette != nullptr);
    auto* line = palette->findChild<QLineEdit*>();
    QTest::keyClicks(line, QStringLiteral("layout teach"));
    QTest::keyClick(line, Qt::Key_Return);
    QVERIFY(eventually([&] { return m_window->layoutPreset() == QStringLiteral("teach"); }, 3000));
  }

  void goToUnderstandsItsGrammar_data() {
    QTest::addColumn<QString>("text");
    QTest::addColumn<int>("step");
    QTest::addColumn<int>("layer");
    QTest::addColumn<int>("head");
    QTest::addColumn<qint64>("query");
    QTest::addColumn<qint64>("key");
    const int n = -1;
    QTest::newRow("layer head") << QStringLiteral("L1 H2") << n << 1 << 2 << qint64{-1} << qint64{-1};
    QTest::newRow("words") << QStringLiteral("layer 1, head=0") << n << 1 << 0 << qint64{-1} << qint64{-1};
    QTest::newRow("tokens") << QStringLiteral("q=12 k=88") << n << n << n << qint64{12} << qint64{88};
    QTest::newRow("place") << QStringLiteral("frame 3 row 1 col 4") << n << n << n << qint64{3 * 24 + 1 * 6 + 4}
                           << qint64{-1};
    QTest::newRow("places") << QStringLiteral("f1 r2 c3 -> f0 r1 c2") << n << n << n << qint64{24 + 12 + 3}
                            << qint64{8};
    QTest::newRow("key place") << QStringLiteral("k f0 r0 c1") << n << n << n << qint64{-1} << qint64{1};
    QTest::newRow("all") << QStringLiteral("l0h1 q5") << n << 0 << 1 << qint64{5} << qint64{-1};
  }
  void goToUnderstandsItsGrammar() {
    openTrace();
    QFETCH(QString, text);
    QString error;
    const auto target = parseGoto(text, *m_session, &error);
    QVERIFY2(target.has_value(), qPrintable(error));
    QTEST(target->step.value_or(-1), "step");
    QTEST(target->layer.value_or(-1), "layer");
    QTEST(target->head.value_or(-1), "head");
    QTEST(static_cast<qint64>(target->query.value_or(-1)), "query");
    QTEST(static_cast<qint64>(target->key.value_or(-1)), "key");
  }

  void goToRefusesWhatIsNotThere() {
    openTrace();
    for (const char* text :
         {"", "L9", "H99", "S1000", "q=104", "frame 4 row 0 col 0", "x5", "L", "q=99999999999999999999", "L1 banana"}) {
      QString error;
      QVERIFY2(!parseGoto(QLatin1String(text), *m_session, &error).has_value(), text);
      QVERIFY2(!error.isEmpty(), text);
    }
    m_window->actionByName(QStringLiteral("go.to"))->trigger();
    QDialog* dialog = nullptr;
    QVERIFY(eventually([&] {
      dialog = m_window->findChild<QDialog*>(QStringLiteral("gotoDialog"));
      return dialog != nullptr && dialog->isVisible();
    }));
    auto* line = dialog->findChild<QLineEdit*>(QStringLiteral("gotoLine"));
    line->setText(QStringLiteral("L7"));
    QTest::keyClick(line, Qt::Key_Return);
    QVERIFY(dialog->isVisible());  // stays until it can go
    line->setText(QStringLiteral("L0 H2 q=7"));
    QTest::keyClick(line, Qt::Key_Return);
    QVERIFY(!dialog->isVisible());
    QCOMPARE(m_session->selection().layer, 0);
    QCOMPARE(m_session->selection().head, 2);
    QCOMPARE(m_session->pair().query, Index{7});
    QCOMPARE(m_session->pair().key, Index{7});
  }

  void aDroppedFileOpens() {
    QMimeData data;
    data.setUrls({QUrl::fromLocalFile(m_trace)});
    QDragEnterEvent enter(QPoint(500, 500), Qt::CopyAction, &data, Qt::LeftButton, {});
    QApplication::sendEvent(m_window.get(), &enter);
    QVERIFY(enter.isAccepted());
    QDropEvent drop(QPointF(500, 500), Qt::CopyAction, &data, Qt::LeftButton, {});
    QApplication::sendEvent(m_window.get(), &drop);
    QVERIFY(eventually([&] { return m_session->trace() != nullptr; }));
  }

  void theSessionComesBackAndAMissingFileIsNoTragedy() {
    openTrace();
    m_session->setSelection({m_session->selection().step, m_session->selection().branch, 1, 2});
    m_window->view(QStringLiteral("heads"))->restoreState({{QStringLiteral("mode"), QStringLiteral("density")}});
    QJsonObject state = m_window->saveSession();
    m_window.reset();
    m_session = std::make_unique<Session>();
    m_window = std::make_unique<MainWindow>(*m_session, quietSettings());
    m_window->restoreSession(state);
    QVERIFY(eventually([&] { return m_session->trace() != nullptr; }));
    QVERIFY(eventually([&] { return m_session->selection().head == 2; }));
    QCOMPARE(m_session->selection().layer, 1);
    QVERIFY(eventually([&] {
      return m_window->view(QStringLiteral("heads"))->saveState().value(QStringLiteral("mode")).toString() ==
             QStringLiteral("density");
    }));
    QJsonObject files = state[QStringLiteral("files")].toObject();
    QJsonObject entry = files[QStringLiteral("trace")].toObject();
    entry[QStringLiteral("path")] = m_home.file(QStringLiteral("gone.h5"));
    files[QStringLiteral("trace")] = entry;
    state[QStringLiteral("files")] = files;
    m_window->restoreSession(state);
    QVERIFY(m_window->banners().topText().contains(QStringLiteral("gone.h5")));
  }

  void quittingWithAJobRunningAsks() {
    openTrace();
    std::atomic<bool> stop{false};
    JobSpec spec;
    spec.name = "long";
    spec.userVisible = true;
    JobHandle handle = m_session->jobs().submit<int>(
        spec,
        [&stop](JobContext& context) {
          while (!stop && !context.stop().stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
          context.checkpoint();
          return 1;
        },
        [](Outcome<int>) {});
    QTest::qWait(30);
    m_window->close();
    auto* question = m_window->findChild<QMessageBox*>(QStringLiteral("quitQuestion"));
    QVERIFY(question != nullptr && question->isVisible());
    QVERIFY(m_window->isVisible());
    question->reject();
    QVERIFY(m_window->isVisible());
    m_window->close();
    question = nullptr;
    for (auto* box : m_window->findChildren<QMessageBox*>(QStringLiteral("quitQuestion")))
      if (box->isVisible()) question = box;
    QVERIFY(question != nullptr);
    for (QAbstractButton* button : question->buttons())
      if (button->text() == QStringLiteral("Quit when done")) button->click();
    QVERIFY(m_window->isVisible());
    stop = true;
    QVERIFY(eventually([&] { return !m_window->isVisible(); }, 5000));
  }

  void quittingWithNothingRunningCloses() {
    openTrace();
    m_window->setSessionFile(m_home.file(QStringLiteral("session.json")));
    m_window->actionByName(QStringLiteral("file.quit"))->trigger();
    QVERIFY(eventually([&] { return !m_window->isVisible(); }, 5000));
    QVERIFY(QFile::exists(m_home.file(QStringLiteral("session.json"))));
  }

  void themeAndScaleChange() {
    openTrace();
    m_window->actionByName(QStringLiteral("theme.light"))->trigger();
    QVERIFY(!Theme::current().dark);
    QTRY_VERIFY(m_window->grab().toImage().pixelColor(3, 3).lightness() > 200);
    QCOMPARE(Settings::load().theme, Settings::ThemeChoice::Light);
    m_window->actionByName(QStringLiteral("view.larger"))->trigger();
    QVERIFY(QApplication::font().pixelSize() > 13);
    m_window->actionByName(QStringLiteral("view.normal"))->trigger();
    QCOMPARE(QApplication::font().pixelSize(), 13);
    m_window->actionByName(QStringLiteral("theme.dark"))->trigger();
    QVERIFY(Theme::current().dark);
  }

  void helpOpensAtTheFocusedView() {
    openTrace();
    for (const ViewInfo* info : allViews()) {
      const QString page = QString::fromLatin1(info->helpPage);
      QFile file(QStringLiteral(":/resources/docs/") + page.section(QLatin1Char('#'), 0, 0));
      QVERIFY2(file.open(QIODevice::ReadOnly), info->helpPage);
      const QString anchor = page.section(QLatin1Char('#'), 1);
      bool found = anchor.isEmpty();
      for (const QString& line : QString::fromUtf8(file.readAll()).split(QLatin1Char('\n')))
        if (line.startsWith(QLatin1Char('#')) && headingAnchor(line.section(QLatin1Char(' '), 1)) == anchor)
          found = true;
      QVERIFY2(found, info->helpPage);
    }
    m_window->activateWindow();
    m_window->showView(QStringLiteral("heads"));
    QVERIFY(eventually([&] { return dock(QStringLiteral("heads"))->isVisible(); }));
    QTest::qWait(50);
    m_window->actionByName(QStringLiteral("help.view"))->trigger();
    QVERIFY(dock(QStringLiteral("help"))->isVisible());
    QCOMPARE(m_window->help().currentPage(), QString::fromLatin1(viewById(QStringLiteral("heads"))->helpPage));
  }

  void helpLinksLeadToPagesThatExist() {
    const QDir docs(QStringLiteral(":/resources/docs"));
    static const QRegularExpression link(QStringLiteral("\\]\\(([^)#:]+\\.md)(#[^)]*)?\\)"));
    QStringList pages = docs.entryList({QStringLiteral("*.md")});
    QVERIFY(!pages.isEmpty());
    for (const QString& page : pages) {
      QFile file(docs.filePath(page));
      QVERIFY(file.open(QIODevice::ReadOnly));
      auto matches = link.globalMatch(QString::fromUtf8(file.readAll()));
      while (matches.hasNext()) {
        const QString target = matches.next().captured(1);
        QVERIFY2(QFile::exists(docs.filePath(target)), qPrintable(page + QStringLiteral(" -> ") + target));
      }
    }
  }

  void synthDialogSaysTheSizeBeforeItWrites() {
    SynthDialog dialog;
    dialog.findChild<QLineEdit*>(QStringLiteral("synth.path"))->setText(m_home.file(QStringLiteral("new.h5")));
    const SynthSpec demo;
    QCOMPARE(SynthDialog::tensorBytes(demo), (9.0 * 16 * 24 + 48) * 3 * 32 * 2 * 4 * 6 * 3);
    auto* generate = dialog.findChild<QDialogButtonBox*>()->button(QDialogButtonBox::Ok);
    QVERIFY(generate->isEnabled());
    dialog.findChild<QLineEdit*>(QStringLiteral("synth.path"))->setText(QStringLiteral("/no/such/folder/x.h5"));
    QVERIFY(!generate->isEnabled());
  }
};

QTEST_MAIN(TstMainWindow)
#include "tst_main_window.moc"

// SPDX-License-Identifier: Apache-2.0
// How dialogs come: in turns of the event loop, whole, once, with what is so when they come.
#include <QAction>
#include <QDialog>
#include <QDialogButtonBox>
#include <QElapsedTimer>
#include <QLabel>
#include <QPointer>
#include <QPushButton>
#include <QSpinBox>
#include <QTest>
#include <QTimer>

#include "tests/gui/gui_fixture.h"
#include "ui/dialogs/open_in_turns.h"
#include "ui/main_window.h"
#include "ui/session.h"
#include "ui/theme.h"

using namespace sparsight;
using namespace sparsight::test;

class TstDialogs : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;
  std::unique_ptr<Session> m_session;
  std::unique_ptr<MainWindow> m_window;

  QDialog* shown(const char* name) {
    QDialog* found = nullptr;
    const bool ok = eventually(
        [&] {
          found = m_window->findChild<QDialog*>(QLatin1String(name));
          return found != nullptr && found->isVisible();
        },
        5000);
    return ok ? found : nullptr;
  }
  bool gone(const char* name) {
    return eventually([&] { return m_window->findChild<QDialog*>(QLatin1String(name)) == nullptr; }, 5000);
  }
  void trigger(const char* action) { m_window->actionByName(QLatin1String(action))->trigger(); }

 private Q_SLOTS:
  void initTestCase() { Theme::apply(true); }
  void init() {
    m_session = std::make_unique<Session>();
    m_window = std::make_unique<MainWindow>(*m_session, Settings());
    m_window->resize(1400, 900);
    m_window->show();
    QVERIFY(QTest::qWaitForWindowExposed(m_window.get()));
  }
  void cleanup() {
    m_window.reset();
    m_session.reset();
  }

  void eachOpensOnceAndDeletesItself_data() {
    QTest::addColumn<QByteArray>("action");
    QTest::addColumn<QByteArray>("name");
    QTest::addColumn<bool>("blocks");
    QTest::newRow("settings") << QByteArray("file.settings") << QByteArray("settingsDialog") << true;
    QTest::newRow("go to") << QByteArray("go.to") << QByteArray("gotoDialog") << true;
    QTest::newRow("generate") << QByteArray("file.generate") << QByteArray("synthDialog") << true;
    QTest::newRow("about") << QByteArray("help.about") << QByteArray("aboutDialog") << true;
    QTest::newRow("keys") << QByteArray("help.keys") << QByteArray("shortcutSheet") << false;
  }
  void eachOpensOnceAndDeletesItself() {
    QFETCH(const QByteArray, action);
    QFETCH(const QByteArray, name);
    QFETCH(const bool, blocks);
    trigger(action);
    trigger(action);  // a key that repeats
    QDialog* dialog = shown(name);
    QVERIFY(dialog != nullptr);
    QTest::qWait(50);
    QCOMPARE(m_window->findChildren<QDialog*>(QLatin1String(name)).size(), 1);
    QCOMPARE(dialog->windowModality(), blocks ? Qt::WindowModal : Qt::NonModal);
    // Whole: nothing is cut, everything in it has its place.
    QVERIFY(dialog->width() >= dialog->minimumSizeHint().width());
    QVERIFY(dialog->height() >= dialog->minimumSizeHint().height());
    for (const QWidget* part : dialog->findChildren<QWidget*>())
      if (part->isVisible() && part->window() == dialog && part->parentWidget() == dialog)
        QVERIFY2(dialog->rect().contains(part->geometry()), part->metaObject()->className());
    dialog->close();
    QVERIFY(gone(name));
    trigger(action);
    QVERIFY(shown(name) != nullptr);
  }

  void oneThatComesAgainShowsWhatIsSoNow() {
    trigger("file.settings");
    QDialog* dialog = shown("settingsDialog");
    QVERIFY(dialog != nullptr);
    auto* scale = dialog->findChild<QSpinBox*>(QStringLiteral("settings.scale"));
    QCOMPARE(scale->value(), 100);
    scale->setValue(110);
    dialog->findChild<QDialogButtonBox*>()->button(QDialogButtonBox::Ok)->click();
    QVERIFY(gone("settingsDialog"));
    trigger("file.settings");
    dialog = shown("settingsDialog");
    QVERIFY(dialog != nullptr);
    scale = dialog->findChild<QSpinBox*>(QStringLiteral("settings.scale"));
    QCOMPARE(scale->value(), 110);
    scale->setValue(150);
    dialog->reject();
    QVERIFY(gone("settingsDialog"));
    trigger("file.settings");
    QCOMPARE(shown("settingsDialog")->findChild<QSpinBox*>(QStringLiteral("settings.scale"))->value(), 110);
    trigger("view.normal");
  }

  void nothingIsSeenBeforeItIsWhole() {
    int shows = 0;
    struct Watch : QObject {
      int* shows;
      explicit Watch(int* n) : shows(n) {}
      bool eventFilter(QObject* watched, QEvent* event) override {
        const auto* widget = qobject_cast<QWidget*>(watched);
        if (widget != nullptr && widget->isWindow() && event->type() == QEvent::Show) {
          ++*shows;
          for (const QWidget* part : widget->findChildren<QWidget*>())
            if (!part->testAttribute(Qt::WA_WState_Polished)) *shows += 1000;
        }
        return false;
      }
    } watch(&shows);
    qApp->installEventFilter(&watch);
    trigger("file.settings");
    QCOMPARE(shows, 0);  // not in the handler of the click
    QVERIFY(shown("settingsDialog") != nullptr);
    QCOMPARE(shows, 1);
    qApp->removeEventFilter(&watch);
  }

  void theWindowMayCloseMeanwhile() {
    for (int turns = 0; turns < 12; ++turns) {
      trigger("file.settings");
      for (int i = 0; i < turns; ++i) QCoreApplication::processEvents();
      cleanup();
      init();
    }
  }

  void oneThatIsEndedBeforeItIsSeenDoesNotComeUp() {
    QPointer<QDialog> made;
    openInTurns(m_window.get(), QStringLiteral("ended"), [&] {
      made = new QDialog(m_window.get());
      QTimer::singleShot(0, made.data(), &QDialog::reject);  // before the turns that style and show it
      QElapsedTimer turn;
      turn.start();
      while (turn.elapsed() < 3) {  // a turn of its own
      }
      return made.data();
    });
    QVERIFY(eventually([&] { return !made.isNull(); }, 5000));
    QVERIFY(!made->isVisible());
    QVERIFY(eventually([&] { return made.isNull(); }, 5000));
  }

  void thereMayBeNothingToOpen() {
    int asked = 0;
    const auto open = [&] {
      openInTurns(m_window.get(), QStringLiteral("none"), [&]() -> QDialog* {
        ++asked;
        return nullptr;
      });
    };
    open();
    open();
    QVERIFY(eventually([&] { return asked == 1; }));
    QTest::qWait(20);
    QCOMPARE(asked, 1);
    open();  // the first try has come to its end
    QVERIFY(eventually([&] { return asked == 2; }));
  }

  void severalMayBeOnTheirWay() {
    for (const char* name : {"one", "two"})
      openInTurns(
          m_window.get(), QLatin1String(name),
          [&, name] {
            auto* dialog = new QDialog(m_window.get());
            dialog->setObjectName(QLatin1String(name));
            return dialog;
          },
          Blocks::Nothing);
    QVERIFY(shown("one") != nullptr);
    QVERIFY(shown("two") != nullptr);
  }

  void aboutNamesVersionAndLicence() {
    trigger("help.about");
    QDialog* dialog = shown("aboutDialog");
    QVERIFY(dialog != nullptr);
    QString all;
    for (const QLabel* label : dialog->findChildren<QLabel*>()) all += label->text() + QLatin1Char('\n');
    for (const char* part : {"Sparsight ", "Apache-2.0", "GPL-3", "Computes on", "Qt 6"})
      QVERIFY2(all.contains(QLatin1String(part)), part);
    QTest::keyClick(dialog, Qt::Key_Escape);
    QVERIFY(gone("aboutDialog"));
  }
};

QTEST_MAIN(TstDialogs)
#include "tst_dialogs.moc"

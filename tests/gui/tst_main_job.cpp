// SPDX-License-Identifier: Apache-2.0
// The main job with mouse and keyboard: start page, demo, a head, SVG, an edited budget, undo, an exported file.
#include <QAction>
#include <QComboBox>
#include <QDialog>
#include <QDockWidget>
#include <QFile>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QSettings>
#include <QTableView>
#include <QTest>

#include "sparsight/core/profile.h"
#include "tests/gui/gui_fixture.h"
#include "ui/banner.h"
#include "ui/heads_grid.h"
#include "ui/main_window.h"
#include "ui/profile_model.h"
#include "ui/session.h"
#include "ui/theme.h"

using namespace sparsight;
using namespace sparsight::test;

class TstMainJob : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;

  static constexpr int kLongMs = 120'000;

 private Q_SLOTS:
  void fromTheStartPageToAnExportedFile() {
    Theme::apply(true);
    Session session;
    Settings settings;
    settings.theme = Settings::ThemeChoice::Dark;
    MainWindow window(session, settings);
    window.resize(1600, 1000);
    window.show();
    QVERIFY(QTest::qWaitForWindowExposed(&window));
    QApplication::setActiveWindow(&window);  // a bare X server has no window manager that would

    // The demo, with progress on the start page.
    auto* demo = window.findChild<QPushButton*>(QStringLiteral("startDemo"));
    QVERIFY(demo->isVisible());
    QTest::mouseClick(demo, Qt::LeftButton);
    QVERIFY(session.isOpening());
    QVERIFY(eventually([&] { return session.trace() != nullptr; }, kLongMs));
    QVERIFY2(window.banners().count() == 0, qPrintable(window.banners().topText()));
    QVERIFY(eventually([&] { return !session.profile().isEmpty(); }, kLongMs));

    // A head by mouse, its neighbour by keyboard.
    auto* grid = window.findChild<HeadsGrid*>(QStringLiteral("headsGrid"));
    QVERIFY(eventually([&] { return grid->isVisible() && !grid->cellRect(1, 2).isEmpty(); }));
    QTest::mouseClick(grid->viewport(), Qt::LeftButton, {}, grid->cellRect(1, 2).center());
    QCOMPARE(session.selection().layer, 1);
    QCOMPARE(session.selection().head, 2);
    QTest::keyClick(grid, Qt::Key_Right);
    QCOMPARE(session.selection().head, 3);

    // SVG on it, by keyboard; the numbers and the overlay follow.
    auto* methods = window.findChild<QComboBox*>(QStringLiteral("methodCombo"));
    methods->setCurrentIndex(methods->findData(QStringLiteral("svg")));
    QTest::keyClick(&window, Qt::Key_R, Qt::ControlModifier);
    QVERIFY(eventually([&] { return session.selectedResult() != nullptr; }, kLongMs));
    QLabel* kept = nullptr;
    QVERIFY(eventually([&] {
      kept = window.findChild<QLabel*>(QStringLiteral("result.kept"));
      return kept != nullptr && kept->isVisible();
    }));
    QCOMPARE(kept->text(), formatPercent(session.selectedResult()->evaluation.keptFraction));
    View* map = window.view(QStringLiteral("map"));
    QVERIFY(eventually([&] { return map->isSettled(); }, kLongMs));

    // A budget typed into the table; the window says that it is unsaved.
    window.showView(QStringLiteral("budget"));
    const Profile before = session.profile().current();
    auto* table = window.findChild<QTableView*>(QStringLiteral("budget.table"));
    QVERIFY(eventually([&] { return table != nullptr && table->isVisible(); }));
    const QModelIndex cell = table->model()->index(1, ProfileModel::KeptColumn);
    QTest::mouseClick(table->viewport(), Qt::LeftButton, {}, table->visualRect(cell).center());
    QCOMPARE(table->currentIndex(), cell);
    QTest::keyClick(table, Qt::Key_F2);
    auto* editor = table->findChild<QLineEdit*>();
    QVERIFY(editor != nullptr);
    editor->selectAll();
    QTest::keyClicks(editor, QStringLiteral("33"));
    QTest::keyClick(editor, Qt::Key_Return);
    QVERIFY(eventually([&] { return session.profile().isModified(); }));
    QVERIFY(!(session.profile().current() == before));
    QVERIFY(std::abs(summariseLayer(session.profile().current(), 1).mean - 0.33) < 0.005);
    QVERIFY(eventually([&] { return window.windowTitle().contains(QLatin1Char('*')); }));

    // Undo to the bit, redo.
    const Profile edited = session.profile().current();
    QTest::keyClick(&window, Qt::Key_Z, Qt::ControlModifier);
    QCOMPARE(session.profile().current() == before, true);
    QTest::keyClick(&window, Qt::Key_Z, Qt::ControlModifier | Qt::ShiftModifier);
    QCOMPARE(session.profile().current() == edited, true);

    // Export as SVOO's CSV; the file holds exactly what is on the screen.
    const QString path = m_home.file(QStringLiteral("budget.csv"));
    QTest::keyClick(&window, Qt::Key_E, Qt::ControlModifier);
    QDialog* dialog = nullptr;
    QVERIFY(eventually([&] {
      dialog = window.findChild<QDialog*>(QStringLiteral("exportDialog"));
      return dialog != nullptr && dialog->isVisible();
    }));
    dialog->findChild<QComboBox*>(QStringLiteral("export.format"))->setCurrentIndex(0);
    auto* where = dialog->findChild<QLineEdit*>(QStringLiteral("export.path"));
    where->setFocus();
    where->selectAll();
    QTest::keyClicks(where, path);
    auto* go = dialog->findChild<QPushButton*>(QStringLiteral("export.go"));
    QVERIFY(eventually([&] { return go->isEnabled(); }));
    QTest::mouseClick(go, Qt::LeftButton);
    QVERIFY(eventually([&] { return QFile::exists(path); }));
    const CsvImport written = readSvooCsv(path.toStdString());
    const Profile& shown = session.profile().current();
    QCOMPARE(written.profile.steps(), shown.steps());
    for (int step = 0; step < shown.steps(); ++step)
      for (int layer = 0; layer < shown.layers(); ++layer)
        for (int head = 0; head < shown.heads(); ++head)
          QCOMPARE(written.profile.at({step, layer, head}), shown.at({step, layer, head}));
    QVERIFY2(window.banners().count() == 0, qPrintable(window.banners().topText()));
  }
};

QTEST_MAIN(TstMainJob)
#include "tst_main_job.moc"

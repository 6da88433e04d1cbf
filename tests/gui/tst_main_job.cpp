// SPDX-License-Identifier: Apache-2.0
// The main job with mouse and keyboard alone: start page, demo, a head and its map, SVG on it and on the step, heat
// maps, an edited budget (typed, dragged, locked, pasted), undo, an exported file.
#include <QAction>
#include <QClipboard>
#include <QComboBox>
#include <QDialog>
#include <QDockWidget>
#include <QFile>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QSettings>
#include <QTabBar>
#include <QTableView>
#include <QTest>
#include <QWheelEvent>

#include "sparsight/core/profile.h"
#include "tests/gui/gui_fixture.h"
#include "ui/banner.h"
#include "ui/budget_curve.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/heads_grid.h"
#include "ui/main_window.h"
#include "ui/profile_model.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view_host.h"

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

    // Its map: a look at a pair, closer with the wheel, the pair pinned with the right button.
    View* map = window.view(QStringLiteral("map"));
    QVERIFY(eventually([&] { return map->isSettled(); }, kLongMs));
    auto* canvas = map->findChild<TileCanvas*>();
    const QPoint spot = canvas->plotRect().center() + QPoint(-30, 40);
    const double tokens = canvas->viewport().cols;
    for (int notch = 0; notch < 4; ++notch) {
      QWheelEvent turn(spot, canvas->mapToGlobal(spot), {}, QPoint(0, 120), Qt::NoButton, Qt::NoModifier,
                       Qt::NoScrollPhase, false);
      QApplication::sendEvent(canvas, &turn);
    }
    QVERIFY(canvas->viewport().cols < tokens / 2);
    QTest::mouseClick(canvas, Qt::RightButton, {}, spot);
    QVERIFY(eventually([&] { return session.pair().query >= 0; }));
    const QPointF under = canvas->tokenAt(spot);
    QCOMPARE(session.pair().query, static_cast<Index>(under.y()));
    QCOMPARE(session.pair().key, static_cast<Index>(under.x()));
    QTest::keyClick(canvas, Qt::Key_F);
    QCOMPARE(canvas->viewport().cols, tokens);

    // SVG on it, by keyboard; the numbers and the overlay follow.
    auto* methods = window.findChild<QComboBox*>(QStringLiteral("methodCombo"));
    methods->setFocus();
    QTest::keyClick(methods, Qt::Key_Home);
    for (int i = 0; i < methods->count() && methods->currentData().toString() != QStringLiteral("svg"); ++i)
      QTest::keyClick(methods, Qt::Key_Down);
    QCOMPARE(methods->currentData().toString(), QStringLiteral("svg"));
    QTest::keyClick(&window, Qt::Key_R, Qt::ControlModifier);
    QVERIFY(eventually([&] { return session.selectedResult() != nullptr; }, kLongMs));
    QLabel* kept = nullptr;
    QVERIFY(eventually([&] {
      kept = window.findChild<QLabel*>(QStringLiteral("result.kept"));
      return kept != nullptr && kept->isVisible();
    }));
    QCOMPARE(kept->text(), formatPercent(session.selectedResult()->evaluation.keptFraction));
    QVERIFY(eventually([&] { return map->isSettled(); }, kLongMs));

    // The step's heads, by mouse: every cell of the grid has a class then, and the heat maps show the kept share.
    QTest::mouseClick(window.findChild<QPushButton*>(QStringLiteral("runStep")), Qt::LeftButton);
    QVERIFY(eventually(
        [&] {
          for (const int layer : session.selectableLayers())
            for (const int head : session.selectableHeads()) {
              const auto id = session.headAt(session.selection().step, session.selection().branch, layer, head);
              const HeadResult result = id ? session.runs().find(QStringLiteral("svg"), *id) : nullptr;
              if (!result || result->plan.headClass == HeadClass::None) return false;
            }
          return true;
        },
        kLongMs));
    auto* tabs = window.findChild<QTabBar*>(QStringLiteral("centreTabs"));
    const auto clickTab = [tabs](const QString& id) {
      for (int i = 0; i < tabs->count(); ++i)
        if (tabs->tabData(i).toString() == id) QTest::mouseClick(tabs, Qt::LeftButton, {}, tabs->tabRect(i).center());
    };
    clickTab(QStringLiteral("heatmap"));
    View* heat = window.view(QStringLiteral("heatmap"));
    QVERIFY(eventually([&] { return heat->isVisible() && heat->isSettled(); }));
    QVERIFY(countColors(heat->grab().toImage()) > 60);
    clickTab(QStringLiteral("map"));
    QVERIFY(eventually([&] { return map->isVisible(); }));

    // A budget typed into the table; the window says that it is unsaved.
    QTest::keySequence(&window, window.actionByName(QStringLiteral("view.show.budget"))->shortcut());
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

    // A layer dragged in the curve, another locked: neither typing nor a spreadsheet's column changes that one.
    auto* curve = window.findChild<BudgetCurve*>(QStringLiteral("budget.curve"));
    const QPoint point = curve->pointOf(2).toPoint();
    const double mean = summariseLayer(edited, 2).mean;
    QTest::mousePress(curve, Qt::LeftButton, {}, point);
    QTest::mouseMove(curve, point - QPoint(0, 6));
    QTest::mouseMove(curve, point - QPoint(0, 12));
    QTest::mouseRelease(curve, Qt::LeftButton, {}, point - QPoint(0, 12));
    QVERIFY(summariseLayer(session.profile().current(), 2).mean > mean);
    QVERIFY2(session.profile().undoStack().undoText().contains(QStringLiteral("L2")),
             qPrintable(session.profile().undoStack().undoText()));
    QTest::mouseClick(curve, Qt::LeftButton, {}, curve->pointOf(3).toPoint());
    QTest::keyClick(curve, Qt::Key_L);
    QVERIFY(session.profile().current().layerLocked(3));
    const Profile locked = session.profile().current();
    QApplication::clipboard()->setText(QStringLiteral("40\n41\n42\n43\n"));
    const QModelIndex first = table->model()->index(0, ProfileModel::KeptColumn);
    QTest::mouseClick(table->viewport(), Qt::LeftButton, {}, table->visualRect(first).center());
    QTest::keyClick(table, Qt::Key_V, Qt::ControlModifier);
    QVERIFY(eventually([&] { return std::abs(summariseLayer(session.profile().current(), 0).mean - 0.40) < 0.005; }));
    QVERIFY(std::abs(summariseLayer(session.profile().current(), 2).mean - 0.42) < 0.005);
    QCOMPARE(summariseLayer(session.profile().current(), 3).mean, summariseLayer(locked, 3).mean);

    // Export as SVOO's CSV; the file holds exactly what is on the screen.
    const QString path = m_home.file(QStringLiteral("budget.csv"));
    QTest::keyClick(&window, Qt::Key_E, Qt::ControlModifier);
    QDialog* dialog = nullptr;
    QVERIFY(eventually([&] {
      dialog = window.findChild<QDialog*>(QStringLiteral("exportDialog"));
      return dialog != nullptr && dialog->isVisible();
    }));
    QTest::keyClick(dialog->findChild<QComboBox*>(QStringLiteral("export.format")), Qt::Key_Home);
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

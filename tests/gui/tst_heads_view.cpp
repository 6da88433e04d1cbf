// SPDX-License-Identifier: Apache-2.0
#include <QSignalSpy>
#include <QTest>

#include "tests/gui/gui_fixture.h"
#include "ui/heads_grid.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view_host.h"

using namespace sparsight;
using namespace sparsight::test;

namespace {
std::vector<int> upTo(int count) {
  std::vector<int> values;
  for (int i = 0; i < count; ++i) values.push_back(i);
  return values;
}
std::vector<HeadCell> cellsFor(int layers, int heads) {
  std::vector<HeadCell> cells(static_cast<std::size_t>(layers * heads));
  for (std::size_t i = 0; i < cells.size(); ++i) {
    cells[i].captured = i % 7 != 3;
    cells[i].headClass = static_cast<HeadClass>(i % 6);
    cells[i].classKnown = true;
    cells[i].margin = 0.5;
    cells[i].accessible = QStringLiteral("cell %1").arg(i);
  }
  return cells;
}
}  // namespace

class TstHeadsView : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;
  QString m_trace;

 private Q_SLOTS:
  void initTestCase() {
    qRegisterMetaType<ChangeFlags>();
    Theme::apply(true);
    m_trace = writeSmallTrace(m_home.file(QStringLiteral("small.h5")));
  }

  void cellsAdaptToTheRoom() {
    HeadsGrid grid;
    grid.resize(232, 400);
    grid.setCells(upTo(4), upTo(6), cellsFor(4, 6));
    grid.show();
    QVERIFY(QTest::qWaitForWindowExposed(&grid));
    QVERIFY(grid.cellSize() >= 28);
    QVERIFY(grid.cellRect(0, 5).right() < grid.viewport()->width());
    grid.setCells(upTo(40), upTo(40), cellsFor(40, 40));
    QVERIFY(grid.cellSize() >= 13);  // legible: it scrolls instead of shrinking further
    grid.resize(900, 1000);
    QVERIFY(grid.cellRect(39, 39).right() <= grid.viewport()->width());
  }

  void mouseAndKeyboardMoveTheCurrentCell() {
    HeadsGrid grid;
    grid.resize(300, 300);
    grid.setCells(upTo(4), upTo(6), cellsFor(4, 6));
    grid.show();
    QVERIFY(QTest::qWaitForWindowExposed(&grid));
    QSignalSpy moved(&grid, &HeadsGrid::currentChanged);
    QTest::mouseClick(grid.viewport(), Qt::LeftButton, {}, grid.cellRect(2, 3).center());
    QCOMPARE(moved.size(), 1);
    QCOMPARE(moved[0][0].toInt(), 2);
    QCOMPARE(moved[0][1].toInt(), 3);
    QTest::keyClick(&grid, Qt::Key_Right);
    QTest::keyClick(&grid, Qt::Key_Up);
    QCOMPARE(grid.currentLayer(), 1);
    QCOMPARE(grid.currentHead(), 4);
    QTest::keyClick(&grid, Qt::Key_Home);
    QCOMPARE(grid.currentHead(), 0);
    QTest::keyClick(&grid, Qt::Key_End, Qt::ControlModifier);
    QCOMPARE(grid.currentLayer(), 3);
    QCOMPARE(grid.currentHead(), 5);
    QTest::keyClick(&grid, Qt::Key_Down);  // stays at the edge
    QCOMPARE(grid.currentLayer(), 3);
    QSignalSpy activated(&grid, &HeadsGrid::activated);
    QTest::keyClick(&grid, Qt::Key_Return);
    QCOMPARE(activated.size(), 1);
    QCOMPARE(grid.accessibleDescription(), QStringLiteral("cell 23"));
  }

  void theCurrentCellIsScrolledIntoView() {
    HeadsGrid grid;
    grid.resize(200, 200);
    grid.setCells(upTo(40), upTo(40), cellsFor(40, 40));
    grid.show();
    QVERIFY(QTest::qWaitForWindowExposed(&grid));
    grid.setCurrent(35, 38);
    QVERIFY(grid.viewport()->rect().contains(grid.cellRect(35, 38)));
    grid.setCurrent(0, 0);
    QVERIFY(grid.viewport()->rect().contains(grid.cellRect(0, 0)));
  }

  void heldBackCellsAreHatchedOthersShowTheirClass() {
    HeadsGrid grid;
    grid.resize(300, 260);
    auto cells = cellsFor(1, 2);
    cells[0].captured = false;
    cells[1].captured = true;
    cells[1].headClass = HeadClass::Temporal;
    grid.setCells(upTo(1), upTo(2), cells);
    grid.show();
    QVERIFY(QTest::qWaitForWindowExposed(&grid));
    const QImage picture = grid.viewport()->grab().toImage();
    const auto contains = [&](const QRect& rect, const QColor& color) {
      for (int y = rect.top() + 2; y < rect.bottom() - 2; ++y)
        for (int x = rect.left() + 2; x < rect.right() - 2; ++x) {
          const QColor pixel = picture.pixelColor(x, y);
          if (std::abs(pixel.red() - color.red()) < 6 && std::abs(pixel.green() - color.green()) < 6 &&
              std::abs(pixel.blue() - color.blue()) < 6)
            return true;
        }
      return false;
    };
    QVERIFY(contains(grid.cellRect(0, 0), Theme::current().noData));
    QVERIFY(!contains(grid.cellRect(0, 0), Theme::current().classTemporal));
    QVERIFY(contains(grid.cellRect(0, 1), Theme::current().classTemporal));
  }

  void theViewFillsInClassesAndSelectsEverywhere() {
    Session session;
    ViewHost host(session, *viewById(QStringLiteral("heads")), QSize(260, 500));
    host.show();
    QVERIFY(QTest::qWaitForWindowExposed(&host));
    auto* grid = host.findChild<HeadsGrid*>(QStringLiteral("headsGrid"));
    QVERIFY(grid != nullptr);
    QVERIFY(!grid->isVisible());  // without a trace: a sentence instead
    session.openFile(m_trace);
    QVERIFY(eventually([&] { return grid->isVisible(); }));
    QVERIFY(waitUntilSettled({&host.view()}, session, 60'000));
    for (int layer = 0; layer < 2; ++layer)
      for (int head = 0; head < 3; ++head) {
        const HeadCell* cell = grid->cell(layer, head);
        QVERIFY(cell != nullptr && cell->captured);
        QVERIFY2(cell->classKnown, qPrintable(cell->accessible));
        QVERIFY(cell->accessible.startsWith(QStringLiteral("Layer %1 head %2, ").arg(layer).arg(head)));
        QVERIFY(cell->accessible.contains(QStringLiteral("exact density")));
      }
    QTest::mouseClick(grid->viewport(), Qt::LeftButton, {}, grid->cellRect(0, 2).center());
    QCOMPARE(session.selection().layer, 0);
    QCOMPARE(session.selection().head, 2);
    Selection other = session.selection();
    other.layer = 1;
    session.setSelection(other);
    QVERIFY(eventually([&] { return grid->currentLayer() == 1; }));
  }

  void valuesComeFromTheRuns() {
    Session session;
    ViewHost host(session, *viewById(QStringLiteral("heads")), QSize(260, 500));
    host.show();
    auto* grid = host.findChild<HeadsGrid*>(QStringLiteral("headsGrid"));
    session.openFile(m_trace);
    QVERIFY(eventually([&] { return session.trace() != nullptr; }));
    host.view().restoreState({{QStringLiteral("mode"), QStringLiteral("kept")}});
    QVERIFY(waitUntilSettled({&host.view()}, session, 60'000));
    QVERIFY(!grid->cell(0, 0)->value.has_value());
    RunRequest request;
    request.methodId = "dense";
    session.setOverlayMethod(QStringLiteral("dense"));
    session.runMethod(request, QStringLiteral("dense"));
    QVERIFY(eventually([&] { return grid->cell(0, 0)->value.has_value() && grid->cell(1, 2)->value.has_value(); }));
    QCOMPARE(*grid->cell(0, 0)->value, 1.0);
    QCOMPARE(grid->cell(0, 0)->valueText, QStringLiteral("100.0"));
    QVERIFY(grid->cell(0, 0)->accessible.contains(QStringLiteral("kept 100.0 percent")));
    QCOMPARE(host.view().saveState().value(QStringLiteral("mode")).toString(), QStringLiteral("kept"));
  }
};

QTEST_MAIN(TstHeadsView)
#include "tst_heads_view.moc"

// SPDX-License-Identifier: Apache-2.0
// How long single events keep the window from reacting while it is used. Prints numbers and asserts none: machines
// differ. Bigger inputs: SPARSIGHT_TIMES_TRACE, SPARSIGHT_TIMES_PROFILE.
#include <QMouseEvent>
#include <QPushButton>
#include <QTest>
#include <QWheelEvent>
#include <cstdio>

#include "tests/gui/event_clock.h"
#include "tests/gui/gui_fixture.h"
#include "ui/banner.h"
#include "ui/budget_curve.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/main_window.h"
#include "ui/session.h"
#include "ui/theme.h"

using namespace sparsight;
using namespace sparsight::test;

class TstEventTimes : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;

  static EventClock& clock() { return *static_cast<EventClock*>(qApp); }
  static void report(const char* phase) {
    std::printf("%-28s %5d events, longest paint %.1f ms; longest other", phase, clock().events(),
                clock().longestPaint());
    for (const EventClock::Entry& entry : clock().longest())
      std::printf("  %.1f ms %s;", entry.ms, qPrintable(entry.what));
    std::printf("\n");
    std::fflush(stdout);
    clock().restart();
  }
  static void wheel(QWidget& widget, QPointF at, int notches) {
    QWheelEvent event(at, widget.mapToGlobal(at), {}, QPoint(0, 120 * notches), Qt::NoButton, Qt::NoModifier,
                      Qt::NoScrollPhase, false);
    QApplication::sendEvent(&widget, &event);
  }

 private Q_SLOTS:
  void useTheWindow() {
    Session session;
    MainWindow window(session, Settings());
    window.resize(1600, 1000);
    window.show();
    QVERIFY(QTest::qWaitForWindowExposed(&window));
    QApplication::setActiveWindow(&window);
    QTest::qWait(300);
    const auto settled = [&] {
      return eventually([&] { return session.jobs().idle() && window.view(QStringLiteral("map"))->isSettled(); },
                        300'000);
    };
    report("start");

    const QString trace = qEnvironmentVariable("SPARSIGHT_TIMES_TRACE");
    if (trace.isEmpty())
      session.openDemo();
    else
      window.openFiles({trace});
    auto* canvas = window.view(QStringLiteral("map"))->findChild<TileCanvas*>();
    QVERIFY(eventually([&] { return session.trace() != nullptr && canvas->isVisible() && canvas->map() != nullptr; },
                       120'000));
    QVERIFY(settled());
    report("open a trace");

    const QPointF centre = canvas->plotRect().center();
    const MapViewport whole = canvas->viewport();
    for (int i = 0; i < 30; ++i) {
      wheel(*canvas, centre, 1);
      QTest::qWait(8);
    }
    QVERIFY(canvas->viewport().cols < whole.cols / 10);
    report("zoom in, 30 notches");
    for (int i = 0; i < 24; ++i) {
      wheel(*canvas, centre, -1);
      QTest::qWait(8);
    }
    report("zoom out");
    const double before = canvas->viewport().col0;
    QTest::mousePress(canvas, Qt::LeftButton, {}, centre.toPoint());
    for (int i = 1; i <= 60; ++i) {
      QTest::mouseMove(canvas, centre.toPoint() + QPoint(3 * i, 2 * i));
      QTest::qWait(5);
    }
    QTest::mouseRelease(canvas, Qt::LeftButton, {}, centre.toPoint() + QPoint(180, 120));
    QVERIFY(canvas->viewport().col0 != before);
    report("pan, 60 moves");
    for (int i = 0; i < 60; ++i) {
      QTest::mouseMove(canvas, centre.toPoint() + QPoint(2 * i - 60, 40 - i));
      QTest::qWait(5);
    }
    report("hover, 60 moves");

    for (int i = 0; i < 8; ++i) {
      session.moveSelection(0, i % 2 == 0 ? 1 : -1, 1);
      QTest::qWait(60);
      QVERIFY(settled());
    }
    report("8 other heads");
    QTest::mouseClick(window.findChild<QPushButton*>(QStringLiteral("runStep")), Qt::LeftButton);
    QVERIFY(eventually([&] { return session.lastReport(session.overlayMethod()) != nullptr; }, 300'000));
    QVERIFY(settled());
    report("SVG on the step");

    const QString profile = qEnvironmentVariable("SPARSIGHT_TIMES_PROFILE");
    if (!profile.isEmpty()) {
      window.openFiles({profile});
      QVERIFY(eventually([&] { return session.profile().filePath() == profile; }));
    }
    QVERIFY(eventually([&] { return !session.profile().isEmpty(); }, 120'000));
    QVERIFY(settled());
    QTest::qWait(200);
    report("open a profile");
    window.showView(QStringLiteral("budget"));
    auto* curve = window.findChild<BudgetCurve*>();
    const QPoint point = curve->pointOf(2).toPoint();
    QTest::mousePress(curve, Qt::LeftButton, {}, point);
    for (int i = 1; i <= 40; ++i) {
      QTest::mouseMove(curve, point - QPoint(0, i));
      QTest::qWait(5);
    }
    QTest::mouseRelease(curve, Qt::LeftButton, {}, point - QPoint(0, 40));
    QVERIFY(session.profile().isModified());
    QTest::qWait(200);
    report("drag a budget point");
    QTest::keyClick(&window, Qt::Key_Z, Qt::ControlModifier);
    QVERIFY(!session.profile().isModified());
    QTest::qWait(100);
    report("undo");
    window.setLayoutPreset(QStringLiteral("compare"));
    QTest::qWait(300);
    QVERIFY(settled());
    QTest::mouseClick(window.findChild<QPushButton*>(QStringLiteral("compareRun")), Qt::LeftButton);
    QVERIFY(eventually([&] { return window.view(QStringLiteral("compare"))->isSettled(); }, 300'000));
    QVERIFY(settled());
    report("compare 5 methods");
    auto* column = window.findChild<TileCanvas*>(QStringLiteral("compareMap2"));
    for (int i = 0; i < 20; ++i) {
      wheel(*column, QRectF(column->plotRect()).center(), 1);
      QTest::qWait(8);
    }
    QVERIFY(settled());
    report("zoom in 5 maps, 20 notches");
    window.setLayoutPreset(QStringLiteral("tune"));
    QTest::qWait(300);
    report("layout Tune");
    for (int i = 0; i < 6; ++i) {
      session.moveSelection(i % 2 == 0 ? 1 : -1, 0, 0);
      QTest::qWait(60);
    }
    report("6 other steps, heat maps");
    window.setTheme(Settings::ThemeChoice::Light);
    QTest::qWait(300);
    report("other theme");
    QVERIFY2(window.banners().count() == 0, qPrintable(window.banners().topText()));
  }
};

int main(int argc, char** argv) {
  EventClock app(argc, argv);
  Theme::apply(true);
  TstEventTimes test;
  return QTest::qExec(&test, argc, argv);
}
#include "tst_event_times.moc"

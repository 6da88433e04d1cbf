// SPDX-License-Identifier: Apache-2.0
#include <QAction>
#include <QFile>
#include <QLabel>
#include <QPushButton>
#include <QScrollArea>
#include <QSettings>
#include <QTest>

#include "tests/gui/gui_fixture.h"
#include "ui/main_window.h"
#include "ui/theme.h"
#include "ui/view.h"
#include "ui/wrap_row.h"

using namespace sparsight;
using namespace sparsight::test;

/// A 2560 x 1440 screen at 200 % has 1280 x 720 points; a window that needs more hangs over its edge.
class TstSmallScreen : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;

 private Q_SLOTS:
  void initTestCase() {
    qRegisterMetaType<ChangeFlags>();
    Theme::apply(false);
  }

  void everyLayoutFitsWithATraceAProfileAndAResult() {
    QSettings().clear();
    const QString trace = writeSmallTrace(m_home.file(QStringLiteral("small.h5")));
    const QString csv = m_home.file(QStringLiteral("a_profile_with_a_rather_long_name.csv"));
    QFile file(csv);
    QVERIFY(file.open(QIODevice::WriteOnly));
    file.write("Step,Layer,Head,Sparsity\n");
    for (int step = 1; step <= 2; ++step)
      for (int layer = 0; layer < 2; ++layer)
        for (int head = 0; head < 3; ++head)
          file.write(QStringLiteral("%1,%2,%3,0.25\n").arg(step).arg(layer).arg(head).toLatin1());
    file.close();

    Session session;
    MainWindow window(session, Settings());
    const QSize screen(1280, 720);
    window.resize(screen);
    window.show();
    QVERIFY(QTest::qWaitForWindowExposed(&window));
    window.openFiles({trace});
    QVERIFY(eventually([&] { return session.trace() != nullptr && window.viewsAreTold(); }));
    window.openFiles({csv});
    QVERIFY(eventually([&] { return !session.profile().isEmpty() && window.viewsAreTold(); }));
    window.actionByName(QStringLiteral("method.runHead"))->trigger();
    auto* mass = window.view(QStringLiteral("method"))->findChild<QLabel*>(QStringLiteral("result.mass"));
    QVERIFY(eventually([&] {
      mass = window.view(QStringLiteral("method"))->findChild<QLabel*>(QStringLiteral("result.mass"));
      return mass != nullptr && !mass->text().isEmpty();
    }));

    for (const char* preset : {"diagnose", "tune", "compare", "teach", "diagnose"}) {
      window.setLayoutPreset(QLatin1String(preset));
      for (const ViewInfo* info : allViews()) {
        if (info->area != DockArea::Centre) continue;
        window.showView(QLatin1String(info->id));
        const QString where = QStringLiteral("%1, %2").arg(QLatin1String(preset), QLatin1String(info->id));
        QVERIFY(eventually([&] { return window.view(QLatin1String(info->id))->isVisible(); }));
        QTest::qWait(0);
        QCoreApplication::sendPostedEvents(nullptr, QEvent::LayoutRequest);
        const QSize least = window.minimumSizeHint();
        QVERIFY2(least.width() <= screen.width() && least.height() <= screen.height(),
                 qPrintable(QStringLiteral("%1 needs %2 x %3").arg(where).arg(least.width()).arg(least.height())));
        QVERIFY2(
            window.size() == screen,
            qPrintable(
                QStringLiteral("%1: the window grew to %2 x %3").arg(where).arg(window.width()).arg(window.height())));
      }
    }
    // What scrolls up and down only is as wide as its content.
    int columns = 0;
    for (const auto* scroll : window.findChildren<QScrollArea*>()) {
      if (!scroll->isVisible() || scroll->horizontalScrollBarPolicy() != Qt::ScrollBarAlwaysOff) continue;
      ++columns;
      QVERIFY2(scroll->widget()->width() <= scroll->viewport()->width(),
               qPrintable(QStringLiteral("%1 points of content in %2")
                              .arg(scroll->widget()->width())
                              .arg(scroll->viewport()->width())));
    }
    QVERIFY(columns > 0);
  }

  void aRowWrapsAndKeepsItsEndTogether() {
    WrapRow row;
    std::vector<QPushButton*> all;
    for (const char* text : {"first", "second", "third"}) {
      all.push_back(new QPushButton(QLatin1String(text)));
      row.addControl(all.back());
    }
    for (const char* text : {"fourth", "fifth"}) {
      all.push_back(new QPushButton(QLatin1String(text)));
      row.addAtEnd(all.back());
    }
    int needed = 0;
    for (const QPushButton* button : all) needed += button->sizeHint().width() + Theme::kPad;
    row.resize(needed + 100, row.height());
    row.show();
    QVERIFY(QTest::qWaitForWindowExposed(&row));
    const auto inside = [&] {
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i]->isHidden()) continue;
        if (!row.rect().contains(all[i]->geometry())) return false;
        for (std::size_t j = 0; j < i; ++j)
          if (!all[j]->isHidden() && all[i]->geometry().intersects(all[j]->geometry())) return false;
      }
      return true;
    };
    QVERIFY(inside());
    const int oneRow = row.height();
    QCOMPARE(all[4]->y(), all[0]->y());
    QCOMPARE(all[4]->geometry().right(), row.rect().right());

    row.resize(needed - Theme::kPad - 10, row.height());
    QVERIFY(eventually([&] { return row.height() > oneRow; }));
    QVERIFY(inside());
    QCOMPARE(all[2]->y(), all[0]->y());
    QVERIFY(all[3]->y() > all[0]->y());
    QCOMPARE(all[3]->y(), all[4]->y());

    all[2]->hide();  // what is left fits into one row again
    QVERIFY(eventually([&] { return row.height() == oneRow; }));
    QVERIFY(inside());
    row.hide();
    row.resize(50, oneRow);
    QCOMPARE(row.minimumHeight(), oneRow);
  }
};

QTEST_MAIN(TstSmallScreen)
#include "tst_small_screen.moc"

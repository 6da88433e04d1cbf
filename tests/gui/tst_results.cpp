// SPDX-License-Identifier: Apache-2.0
// Results and plan files in the window: opened again they are what was run; what the window ran is saved as the command
// line saves it.
#include <QFile>
#include <QJsonArray>
#include <QJsonObject>
#include <QLabel>
#include <QPushButton>
#include <QSignalSpy>
#include <QTest>

#include "tests/gui/gui_fixture.h"
#include "ui/banner.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/main_window.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view_host.h"

using namespace sparsight;
using namespace sparsight::test;

class TstResults : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;
  QString m_trace, m_results, m_plan;
  RunReport m_report;
  RunRequest m_request;

  void openTrace(Session& session) {
    session.openFile(m_trace);
    QVERIFY(eventually([&] { return session.trace() != nullptr; }));
  }
  HeadReport ran(const HeadId& id) {
    for (const HeadReport& head : m_report.heads)
      if (head.id == id) return head;
    return {};
  }

 private Q_SLOTS:
  void initTestCase() {
    qRegisterMetaType<ChangeFlags>();
    Theme::apply(false);
    m_trace = writeSmallTrace(m_home.file(QStringLiteral("small.h5")));
    m_results = m_home.file(QStringLiteral("results.h5"));
    m_plan = m_home.file(QStringLiteral("plan.h5"));
    Executor executor(1);
    const auto backend = createBackend("cpu", executor);
    const auto trace = sparsight::openTrace(m_trace.toStdString());
    m_request.methodId = "svg2";
    m_request.params = ParamSet::parse(methodById("svg2").params(), {"top_p_kmeans=0.7"});
    m_request.seed = 4;
    m_report = runMethod(*trace, m_request, *backend, {});
    writeResultsFile(m_results.toStdString(), *trace, m_report, m_request);
    writePlanFile(m_plan.toStdString(), *trace, m_report, m_request);
  }

  void numbersAreThereAndThePlanIsMadeAgain() {
    Session session;
    ViewHost host(session, *viewById(QStringLiteral("map")), QSize(1000, 700));
    host.show();
    openTrace(session);
    QSignalSpy opened(&session, &Session::resultsOpened);
    session.openFile(m_results);
    QVERIFY(eventually([&] { return !opened.isEmpty(); }));
    QCOMPARE(opened[0][1].toStringList(), QStringList{QStringLiteral("svg2")});
    QCOMPARE(opened[0][2].toInt(), static_cast<int>(m_report.heads.size()));
    QCOMPARE(session.overlayMethod(), QStringLiteral("svg2"));
    for (const HeadReport& head : m_report.heads) {
      const HeadResult result = session.runs().find(QStringLiteral("svg2"), head.id);
      QVERIFY(result != nullptr);
      QCOMPARE(result->evaluation.keptFraction, head.evaluation.keptFraction);
      QCOMPARE(result->evaluation.outputRelError, head.evaluation.outputRelError);
    }
    QVERIFY(session.selectedResult() == nullptr);
    QCOMPARE(session.selectedPlanGap(), Session::PlanGap::NotInFile);
    auto* why = host.findChild<QLabel*>(QStringLiteral("planGap"));
    auto* again = host.findChild<QPushButton*>(QStringLiteral("runAgain"));
    QVERIFY(eventually([&] { return again->isVisible(); }));
    QVERIFY(why->text().contains(QStringLiteral("no plans")));
    again->setFocus();
    QTest::keyClick(again, Qt::Key_Space);
    QVERIFY(eventually([&] { return session.selectedResult() != nullptr; }));
    // The same plan as then: its parameters, its seed and the steps before it.
    const HeadReport then = ran(*session.selectedHead());
    QCOMPARE(session.selectedResult()->plan.blockMask, then.plan.blockMask);
    QCOMPARE(session.selectedResult()->plan.qOrder, then.plan.qOrder);
    QCOMPARE(session.selectedResult()->evaluation.keptMass, then.evaluation.keptMass);
    QVERIFY(eventually([&] { return !why->isVisible(); }));
    QVERIFY(session.givenParams(QStringLiteral("svg2")).values().empty());
  }

  void plansComeFromTheFileWhenTheyAreLookedAt() {
    Session session;
    openTrace(session);
    session.openFile(m_plan);
    QVERIFY(eventually([&] { return session.selectedResult() != nullptr; }));
    for (int head = 0; head < 3; ++head) {
      Selection next = session.selection();
      next.head = head;
      session.setSelection(next);
      QVERIFY(eventually([&] { return session.selectedResult() != nullptr; }));
      QCOMPARE(session.selectedResult()->plan.kOrder, ran(*session.selectedHead()).plan.kOrder);
      QCOMPARE(session.selectedResult()->plan.blockMask, ran(*session.selectedHead()).plan.blockMask);
    }
    // A file that is gone is said once; the numbers stay and the plan can be made again.
    const QString moved = m_home.file(QStringLiteral("moved.h5"));
    QVERIFY(QFile::rename(m_plan, moved));
    QSignalSpy errors(&session, &Session::errorOccurred);
    session.moveSelection(0, -1, 0);
    session.moveSelection(0, session.selection().layer == 0 ? 0 : -1, 0);
    Selection other = session.selection();
    other.layer =
        other.layer == 0 && session.runs().hasPlan(QStringLiteral("svg2"), *session.selectedHead()) ? 1 : other.layer;
    session.setSelection(other);
    QVERIFY(eventually([&] { return !errors.isEmpty(); }));
    QVERIFY(session.selectedPlanGap() != Session::PlanGap::None);
    QTest::qWait(50);
    QCOMPARE(errors.size(), 1);
    QVERIFY(QFile::rename(moved, m_plan));
    session.runSelectedAgain();
    QVERIFY(eventually([&] { return session.selectedResult() != nullptr; }));
  }

  void resultsWaitForTheTraceOpenedWithThem() {
    for (const QStringList& order : {QStringList{m_trace, m_plan}, QStringList{m_plan, m_trace}}) {
      Session session;
      QSignalSpy wanted(&session, &Session::traceWanted);
      session.openFile(order[0]);
      session.openFile(order[1], true);
      QVERIFY(eventually([&] { return session.selectedResult() != nullptr; }));
      QVERIFY(wanted.isEmpty());
    }
  }

  void resultsOfAnotherTraceAreNotMixedIn() {
    SynthSpec other = smallSpec();
    other.seed = 9;
    const QString path = writeSmallTrace(m_home.file(QStringLiteral("other.h5")), other);
    Session session;
    QSignalSpy wanted(&session, &Session::traceWanted);
    session.openFile(path);
    QVERIFY(eventually([&] { return session.trace() != nullptr; }));
    session.openFile(m_results);
    QVERIFY(eventually([&] { return !wanted.isEmpty(); }));
    QCOMPARE(wanted[0][1].toString(), m_trace);
    QVERIFY(wanted[0][2].toString().contains(QStringLiteral("other.h5")));
    QVERIFY(session.runs().methods().isEmpty());
    // Moved with its results: found beside them.
    QVERIFY(QDir().mkpath(m_home.file(QStringLiteral("there"))));
    const QString moved = m_home.file(QStringLiteral("there/small.h5")),
                  results = m_home.file(QStringLiteral("there/r.h5"));
    QVERIFY(QFile::copy(m_results, results));
    QVERIFY(QFile::rename(m_trace, moved));
    wanted.clear();
    session.openFile(results);
    QVERIFY(eventually([&] { return !wanted.isEmpty(); }));
    QCOMPARE(wanted[0][1].toString(), moved);
    QVERIFY(QFile::rename(moved, m_trace));
    QFile::rename(m_trace, moved);
    wanted.clear();
    session.openFile(m_results);  // nowhere
    QVERIFY(eventually([&] { return !wanted.isEmpty(); }));
    QVERIFY(wanted[0][1].toString().isEmpty());
    QVERIFY(QFile::rename(moved, m_trace));
  }

  void theWindowOffersTheTraceAndShowsBoth() {
    Session session;
    MainWindow window(session, Settings());
    window.show();
    window.openFiles({m_results});
    QVERIFY(eventually([&] { return window.banners().count() == 1; }));
    QVERIFY(window.banners().topText().contains(QStringLiteral("results.h5")));
    QPushButton* offer = nullptr;
    for (QPushButton* button : window.banners().findChildren<QPushButton*>())
      if (button->text().contains(QStringLiteral("small.h5"))) offer = button;
    QVERIFY(offer != nullptr);
    QTest::mouseClick(offer, Qt::LeftButton);
    QVERIFY(eventually([&] { return session.runs().methods() == QStringList{QStringLiteral("svg2")}; }));
    QVERIFY(session.trace() != nullptr);
    QAction* save = window.actionByName(QStringLiteral("results.save"));
    QVERIFY(save != nullptr);
    QVERIFY(eventually([&] { return save->isEnabled(); }));
  }

  void aSessionBringsOpenedResultsBack() {
    QJsonObject state;
    {
      Session session;
      MainWindow window(session, Settings());
      openTrace(session);
      session.openFile(m_results);
      QVERIFY(eventually([&] { return session.runs().methods().contains(QStringLiteral("svg2")); }));
      state = window.saveSession();
    }
    Session session;
    MainWindow window(session, Settings());
    window.restoreSession(state);
    QVERIFY(eventually([&] { return session.runs().methods().contains(QStringLiteral("svg2")); }));
    QCOMPARE(session.runs().all(QStringLiteral("svg2")).size(), m_report.heads.size());
    QVERIFY(session.trace() != nullptr);
    const QJsonObject files = window.saveSession().value(QStringLiteral("files")).toObject();
    const QJsonArray results = files.value(QStringLiteral("results")).toArray();
    QCOMPARE(results.size(), 1);
    QCOMPARE(results.at(0).toObject().value(QStringLiteral("path")).toString(), m_results);
  }

  void whatTheWindowRanIsSavedAsTheCommandLineSavesIt() {
    Session session;
    openTrace(session);
    RunRequest request = m_request;
    session.setOverlayMethod(QStringLiteral("svg2"));
    session.runMethod(request, QStringLiteral("test"));
    QVERIFY(eventually([&] { return session.lastReport(QStringLiteral("svg2")) != nullptr; }));
    QSignalSpy saved(&session, &Session::saved);
    QSignalSpy errors(&session, &Session::errorOccurred);
    const QString results = m_home.file(QStringLiteral("out.h5")), plan = m_home.file(QStringLiteral("out_plan.h5"));
    session.saveRuns(QStringLiteral("svg2"), results, false);
    session.saveRuns(QStringLiteral("svg2"), plan, true);
    QVERIFY(eventually([&] { return saved.size() == 2; }));
    QCOMPARE(saved[0][1].toInt(), static_cast<int>(m_report.heads.size()));
    QCOMPARE(saved[0][2].toInt(), 0);
    const auto trace = sparsight::openTrace(m_trace.toStdString());
    const auto earlier = readEarlierResults(results.toStdString(), *trace, m_request);  // a run goes on from it
    QCOMPARE(earlier.size(), m_report.heads.size());
    for (const HeadReport& head : m_report.heads) {
      QCOMPARE(earlier.at(head.id).evaluation.keptMass, head.evaluation.keptMass);
      QCOMPARE(earlier.at(head.id).plan.paramsJson, head.plan.paramsJson);
      QCOMPARE(readPlanOf(plan.toStdString(), head.id).plan.blockMask, head.plan.blockMask);
    }
    // Another setting on one head: a file holds one run, and says what is not in it.
    request.seed = 5;
    request.selection.layers = request.selection.heads = Selector::parse("0");
    request.selection.steps.ranges = {{session.selection().step, session.selection().step}};
    session.runMethod(request, QStringLiteral("test"));
    QVERIFY(eventually([&] { return session.jobs().idle(); }));
    QTest::qWait(20);
    session.saveRuns(QStringLiteral("svg2"), results, false);
    QVERIFY(eventually([&] { return saved.size() == 3; }));
    QCOMPARE(saved[2][1].toInt(), 1);
    QCOMPARE(saved[2][2].toInt(), static_cast<int>(m_report.heads.size()) - 1);
    // The trace itself is never overwritten, and what cannot be written leaves nothing behind.
    QVERIFY(errors.isEmpty());
    session.saveRuns(QStringLiteral("svg2"), m_trace, false);
    QVERIFY(eventually([&] { return errors.size() == 1; }));
    QCOMPARE(sniffFormat(m_trace.toStdString()), std::string("trace"));
    session.saveRuns(QStringLiteral("svg2"), m_home.file(QStringLiteral("no/such/folder.h5")), false);
    QVERIFY(eventually([&] { return errors.size() == 2; }));
    session.saveRuns(QStringLiteral("svg"), results, false);
    QCOMPARE(errors.size(), 3);
  }

  void aDroppedPlanSaysSoAndComesBack() {
    Session session;
    ViewHost host(session, *viewById(QStringLiteral("map")), QSize(1000, 700));
    host.show();
    openTrace(session);
    auto stripped = std::make_shared<HeadReport>(ran(*session.selectedHead()));
    stripped->plan = withoutArrays(stripped->plan);
    session.addResult(stripped, QStringLiteral("svg2"));
    session.setOverlayMethod(QStringLiteral("svg2"));
    auto* again = host.findChild<QPushButton*>(QStringLiteral("runAgain"));
    QVERIFY(eventually([&] { return again->isVisible(); }));
    QCOMPARE(session.selectedPlanGap(), Session::PlanGap::Dropped);
    QVERIFY(
        host.findChild<QLabel*>(QStringLiteral("planGap"))->text().contains(QStringLiteral("dropped to save memory")));
    QTest::mouseClick(again, Qt::LeftButton);
    QVERIFY(eventually([&] { return session.selectedResult() != nullptr; }));
    QVERIFY(eventually([&] { return !again->isVisible(); }));
    // A head the method could not plan says why instead.
    auto skipped = std::make_shared<HeadReport>();
    skipped->id = *session.selectedHead();
    skipped->skippedReason = "values (V) were not captured";
    session.addResult(skipped, QStringLiteral("svg2"));
    auto* why = host.findChild<QLabel*>(QStringLiteral("planGap"));
    QVERIFY(eventually([&] { return why->isVisible() && why->text().contains(QStringLiteral("(V)")); }));
    QVERIFY(!again->isVisible());
  }
};

QTEST_MAIN(TstResults)
#include "tst_results.moc"

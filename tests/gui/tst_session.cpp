// SPDX-License-Identifier: Apache-2.0
#include <QFile>
#include <QSignalSpy>
#include <QTest>
#include <atomic>
#include <thread>

#include "tests/gui/gui_fixture.h"
#include "ui/session.h"

using namespace sparsight;
using namespace sparsight::test;

namespace {
HeadResult resultWithPlan(int layer, int head, std::size_t words) {
  auto report = std::make_shared<HeadReport>();
  report->id.call.layer = layer;
  report->id.head = head;
  report->plan.scores.assign(words, 1.0F);
  report->evaluation.keptFraction = 0.25;
  return report;
}
}  // namespace

class TstSession : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;
  QString m_trace;

  void open(Session& session) {
    session.openFile(m_trace);
    QVERIFY(eventually([&] { return session.trace() != nullptr; }));
  }

 private Q_SLOTS:
  void aProfileAloneStartsWhereItHasValues() {
    Session session;
    Profile measured(6, 2, 3, BudgetRole::KeptFloor);
    measured.set({4, 1, 2}, 0.25);
    session.profile().open(measured, QString());
    QCOMPARE(session.selection().step, 4);
    Selection next = session.selection();
    next.step = 1;  // looking at a hole stays possible
    session.setSelection(next);
    QCOMPARE(session.selection().step, 1);
  }

  void initTestCase() {
    qRegisterMetaType<ChangeFlags>();
    m_trace = writeSmallTrace(m_home.file(QStringLiteral("small.h5")));
  }

  void opensATraceAndSelectsACapturedHead() {
    Session session;
    QSignalSpy opened(&session, &Session::fileOpened);
    QSignalSpy changed(&session, &Session::changed);
    open(session);
    QCOMPARE(opened.size(), 1);
    QVERIFY(session.selectedHead().has_value());
    QVERIFY(!session.isOpening());
    QVERIFY(eventually([&] { return !changed.isEmpty(); }));
    ChangeFlags all;
    for (const auto& call : changed) all |= call[0].value<ChangeFlags>();
    QVERIFY(all.testFlag(Change::Trace));
    QVERIFY(all.testFlag(Change::Selection));
  }

  void changesOfOneTurnArriveAsOne() {
    Session session;
    open(session);
    QTest::qWait(20);
    QSignalSpy changed(&session, &Session::changed);
    session.setPair({3, 5});
    Selection next = session.selection();
    next.head = next.head == 0 ? 1 : 0;
    session.setSelection(next);
    session.setOverlayMethod(QStringLiteral("svg"));
    QCOMPARE(changed.size(), 0);
    QVERIFY(eventually([&] { return !changed.isEmpty(); }));
    QCOMPARE(changed.size(), 1);
    const auto flags = changed[0][0].value<ChangeFlags>();
    QCOMPARE(flags, ChangeFlags(Change::Pair) | Change::Selection | Change::Runs);
    session.setPair({3, 5});  // nothing new
    QTest::qWait(20);
    QCOMPARE(changed.size(), 1);
  }

  void selectionMovesToWhatThereIs() {
    Session session;
    open(session);
    session.setSelection({99, "no such branch", 99, -7});
    const std::vector<int> steps = session.selectableSteps();
    QCOMPARE(session.selection().step, steps.back());
    QCOMPARE(session.selection().layer, 1);
    QCOMPARE(session.selection().head, 0);
    QVERIFY(session.selectedHead().has_value());
    session.moveSelection(0, -5, 1);
    QCOMPARE(session.selection().layer, 0);
    QCOMPARE(session.selection().head, 1);
  }

  void aBadFileIsReportedAndTheOpenOneStays() {
    Session session;
    open(session);
    const auto before = session.trace();
    const QString bad = m_home.file(QStringLiteral("text.h5"));
    QFile file(bad);
    QVERIFY(file.open(QIODevice::WriteOnly));
    file.write("this is no HDF5 file\n");
    file.close();
    QSignalSpy errors(&session, &Session::errorOccurred);
    for (const QString& path : {bad, m_home.file(QStringLiteral("missing.h5")), QStringLiteral("/")}) {
      errors.clear();
      session.openFile(path);
      QVERIFY(eventually([&] { return !errors.isEmpty(); }));
      QVERIFY(!errors[0][1].toString().contains(QLatin1Char('\n')));
      QVERIFY(errors[0][1].toString().size() > 20);
    }
    QCOMPARE(session.trace(), before);
    QVERIFY(!session.isOpening());
  }

  void ofSeveralFilesABadOneCostsOnlyItself() {
    Session session;
    QSignalSpy errors(&session, &Session::errorOccurred);
    session.openFile(m_trace);
    session.openFile(m_home.file(QStringLiteral("missing.h5")), true);
    QVERIFY(eventually([&] { return session.trace() != nullptr && !errors.isEmpty(); }));
    QVERIFY(!session.isOpening());
  }

  void aNewerOpenReplacesAnOlderOne() {
    Session session;
    QSignalSpy opened(&session, &Session::fileOpened);
    session.openFile(m_home.file(QStringLiteral("missing.h5")));
    session.openFile(m_trace);
    QVERIFY(eventually([&] { return session.trace() != nullptr; }));
    QVERIFY(eventually([&] { return !session.isOpening(); }));
    QCOMPARE(opened.size(), 1);
  }

  void resultsArriveHeadByHead() {
    Session session;
    open(session);
    QSignalSpy changed(&session, &Session::changed);
    RunRequest request;
    request.methodId = "svg";
    request.selection.steps.ranges = {{session.selection().step, session.selection().step}};
    session.setOverlayMethod(QStringLiteral("svg"));
    session.runMethod(request, QStringLiteral("Run SVG on a step"));
    QVERIFY(eventually([&] { return session.lastReport(QStringLiteral("svg")) != nullptr; }));
    for (int layer = 0; layer < 2; ++layer)
      for (int head = 0; head < 3; ++head) {
        const auto id = session.headAt(session.selection().step, session.selection().branch, layer, head);
        QVERIFY(id.has_value());
        const HeadResult result = session.runs().find(QStringLiteral("svg"), *id);
        QVERIFY(result != nullptr);
        QVERIFY2(result->skippedReason.empty(), result->skippedReason.c_str());
        QVERIFY(result->evaluation.keptFraction > 0 && result->evaluation.keptFraction <= 1);
      }
    QVERIFY(session.selectedResult() != nullptr);
    QVERIFY(!session.lastReport(QStringLiteral("svg"))->resolved.empty());
    // The job is listed for people and is done.
    const auto jobs = session.jobs().status();
    QVERIFY(std::any_of(jobs.begin(), jobs.end(), [](const JobStatus& s) {
      return s.spec.name == "Run SVG on a step" && s.state == JobState::Done;
    }));
  }

  void anUnknownMethodIsAnErrorNotACrash() {
    Session session;
    open(session);
    QSignalSpy errors(&session, &Session::errorOccurred);
    RunRequest request;
    request.methodId = "no_such_method";
    session.runMethod(request, QStringLiteral("Run nothing"));
    QVERIFY(eventually([&] { return !errors.isEmpty(); }));
    QVERIFY(errors[0][1].toString().contains(QStringLiteral("no_such_method")));
  }

  void anotherTraceForgetsTheResultsOfTheOld() {
    Session session;
    open(session);
    RunRequest request;
    request.methodId = "dense";
    session.runMethod(request, QStringLiteral("Run dense"));
    QVERIFY(eventually([&] { return !session.runs().methods().isEmpty(); }));
    session.closeTrace();
    QVERIFY(session.trace() == nullptr);
    QVERIFY(session.runs().methods().isEmpty());
    QVERIFY(!session.selectedHead().has_value());
    QTest::qWait(100);  // late results of the old trace must not come back
    QVERIFY(session.runs().methods().isEmpty());
  }

  void memoryIsGivenBackByAJobHoweverLongItIsHeld() {
    Session session;
    std::atomic<int> freed{0}, freedHere{0};
    const auto object = [&, gui = std::this_thread::get_id()] {
      return std::shared_ptr<int>(new int(1), [&freed, &freedHere, gui](const int* p) {
        delete p;
        ++freed;
        if (std::this_thread::get_id() == gui) ++freedHere;
      });
    };
    session.discard(object());
    QVERIFY(eventually([&] { return freed == 1; }));
    std::shared_ptr<int> held = object();
    session.discard(held);
    session.discard(object());
    QVERIFY(eventually([&] { return freed == 2; }));  // one that is held keeps no other
    QTest::qWait(250);
    QCOMPARE(freed.load(), 2);
    held.reset();
    QCOMPARE(freed.load(), 2);
    QVERIFY(eventually([&] { return freed == 3; }));
    QCOMPARE(freedHere.load(), 0);
  }

  void aClosedTraceIsGone() {
    Session session;
    open(session);
    RunRequest request;
    request.methodId = "dense";
    session.runMethod(request, QStringLiteral("Run dense"));
    QVERIFY(eventually([&] { return session.lastReport(QStringLiteral("dense")) != nullptr; }));
    const std::weak_ptr<const Trace> trace = session.trace();
    const std::weak_ptr<const RunReport> report = session.lastReport(QStringLiteral("dense"));
    session.closeTrace();
    QVERIFY(session.lastReport(QStringLiteral("dense")) == nullptr);
    QVERIFY(eventually([&] { return trace.expired() && report.expired(); }));
    open(session);  // and it opens again
    QVERIFY(session.runs().methods().isEmpty());
  }

  void dyingWithAJobRunningIsQuiet() {
    for (int round = 0; round < 5; ++round) {
      Session session;
      open(session);
      RunRequest request;
      request.methodId = "svg";
      session.runMethod(request, QStringLiteral("Run SVG"));
      if (round % 2 == 1) QTest::qWait(2);
    }
  }

  void theStoreDropsOldPlansAndKeepsNumbers() {
    RunStore store;
    store.setPlanLimit(64 * 1024);
    const QString method = QStringLiteral("m");
    for (int head = 0; head < 8; ++head) store.put(resultWithPlan(0, head, 5000), method);  // 20 kB each
    QVERIFY(store.planBytes() <= 64 * 1024);
    HeadId first, last;
    last.head = 7;
    QVERIFY(!store.hasPlan(method, first));
    QVERIFY(store.hasPlan(method, last));
    QVERIFY(store.find(method, first)->plan.scores.empty());
    QCOMPARE(store.find(method, first)->evaluation.keptFraction, 0.25);
    store.put(resultWithPlan(0, 0, 5000), method);  // run again: its plan is back
    QVERIFY(store.hasPlan(method, first));
    store.put(resultWithPlan(3, 3, 1000000), method);  // larger than the limit alone: kept, it is the newest
    HeadId big;
    big.call.layer = big.head = 3;
    QVERIFY(store.hasPlan(method, big));
    QCOMPARE(store.methods(), QStringList{method});
    store.clear();
    QCOMPARE(store.planBytes(), Index{0});
  }
};

QTEST_MAIN(TstSession)
#include "tst_session.moc"

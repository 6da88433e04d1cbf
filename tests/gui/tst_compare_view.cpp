// SPDX-License-Identifier: Apache-2.0
// The compare view: its numbers are those of compare's core path and of the command line it copies, its maps move
// together, and what it runs stays apart from the session's own results.
#include <QAction>
#include <QCheckBox>
#include <QClipboard>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QGuiApplication>
#include <QJsonArray>
#include <QJsonDocument>
#include <QJsonObject>
#include <QLabel>
#include <QMenu>
#include <QProcess>
#include <QPushButton>
#include <QSignalSpy>
#include <QTest>
#include <QToolButton>
#include <QWheelEvent>

#include "sparsight/core/compare.h"
#include "tests/gui/gui_fixture.h"
#include "tests/support/trace_builder.h"
#include "ui/compare_columns.h"
#include "ui/compare_table.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view_host.h"

using namespace sparsight;
using namespace sparsight::test;

namespace {

using Table = QMap<QString, QMap<QString, QString>>;  // method -> column -> cell

Table parsed(const QString& tsv) {
  Table table;
  const QStringList lines = tsv.split(QLatin1Char('\n'), Qt::SkipEmptyParts);
  const QStringList names = lines.value(0).split(QLatin1Char('\t'));
  for (const QString& line : lines.mid(1)) {
    const QStringList cells = line.split(QLatin1Char('\t'));
    for (int i = 0; i < names.size(); ++i) table[cells.front()][names[i]] = cells.value(i);
  }
  return table;
}

}  // namespace

class TstCompareView : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;
  QString m_trace;
  std::unique_ptr<Session> m_session;
  std::unique_ptr<ViewHost> m_host;

  CompareColumns& columns() { return *m_host->findChild<CompareColumns*>(); }
  CompareTable& table() { return *m_host->findChild<CompareTable*>(); }
  QPushButton& runButton() { return *m_host->findChild<QPushButton*>(QStringLiteral("compareRun")); }
  QComboBox& combo(const char* name) { return *m_host->findChild<QComboBox*>(QLatin1String(name)); }
  void choose(const char* name, const char* data) {
    const int index = combo(name).findData(QLatin1String(data));
    QVERIFY(index >= 0);
    combo(name).setFocus();
    QTest::keyClick(&combo(name), Qt::Key_Home);
    for (int i = 0; i < index; ++i) QTest::keyClick(&combo(name), Qt::Key_Down);
    QCOMPARE(combo(name).currentIndex(), index);
  }
  void open(const QString& trace) {
    m_session->openFile(trace);
    QVERIFY(eventually([&] { return m_session->selectedHead().has_value(); }));
    QVERIFY(eventually([&] { return columns().count() > 0 && columns().lead().map() != nullptr; }));
  }
  void methods(const QStringList& ids) {
    m_host->view().restoreState({{QStringLiteral("methods"), QJsonArray::fromStringList(ids)}});
  }
  void compareAndWait() {
    QTest::mouseClick(&runButton(), Qt::LeftButton);
    QVERIFY(eventually([&] { return m_host->view().isSettled(); }));
  }
  Table shown() { return parsed(table().tsv()); }
  RunRequest request(const QString& method, CompareScope scope, const std::vector<std::string>& params = {}) {
    RunRequest r;
    r.methodId = method.toStdString();
    r.params = ParamSet::parse(methodById(r.methodId).params(), params);
    r.selection = CompareQuestion{scope, m_session->selection(), std::nullopt, false}.heads();
    return r;
  }
  static void expectSum(const QMap<QString, QString>& row, const RunSummary& sum) {
    const auto is = [&](const char* name, double expected) {
      QCOMPARE(row.value(QLatin1String(name)), QString::number(expected, 'g', 12));
    };
    QCOMPARE(row.value(QStringLiteral("heads")).toULongLong(), static_cast<qulonglong>(sum.heads));
    is("kept_fraction", sum.keptFraction);
    is("kept_mass", sum.keptMass);
    is("kept_mass_p5", sum.keptMassP5);
    is("output_rel_error", *sum.outputRelError);
    is("output_cosine", *sum.outputCosine);
    is("planner_flops", sum.plannerFlops);
    is("attention_flops", sum.attentionFlops);
    is("planner_share", sum.plannerShare());
    is("predicted_relative_time", sum.relativeTime(kSparseEfficiency));
    QCOMPARE(row.value(QStringLiteral("starved_rows")).toLongLong(), static_cast<qlonglong>(sum.starvedRows));
  }

 private Q_SLOTS:
  void initTestCase() {
    qRegisterMetaType<ChangeFlags>();
    Theme::apply(true);
    m_trace = writeSmallTrace(m_home.file(QStringLiteral("small.h5")));
  }
  void init() {
    m_session = std::make_unique<Session>();
    m_host = std::make_unique<ViewHost>(*m_session, *viewById(QStringLiteral("compare")), QSize(1300, 900));
    m_host->show();
    m_host->activateWindow();  // shortcuts are the active window's
    QVERIFY(QTest::qWaitForWindowActive(m_host.get()));
  }
  void cleanup() {
    m_host.reset();
    m_session.reset();
  }

  void ownSettingsAreAPlainRunOfEachScope() {
    open(m_trace);
    methods({QStringLiteral("dense"), QStringLiteral("svg"), QStringLiteral("oracle_block")});
    QCOMPARE(columns().count(), 3);
    Executor executor(2);
    const auto backend = createBackend("cpu", executor);
    const std::pair<const char*, CompareScope> scopes[] = {
        {"head", CompareScope::Head}, {"layer", CompareScope::Layer}, {"step", CompareScope::Step}};
    for (const auto& [name, scope] : scopes) {
      choose("compareScope", name);
      compareAndWait();
      const Table rows = shown();
      QCOMPARE(rows.size(), 3);
      for (const QString& method : {QStringLiteral("dense"), QStringLiteral("svg"), QStringLiteral("oracle_block")}) {
        const RunReport report = runMethod(*m_session->trace(), request(method, scope), *backend, {});
        expectSum(rows[method], summarise(report));
      }
      QCOMPARE(rows[QStringLiteral("svg")][QStringLiteral("heads")].toInt(), scope == CompareScope::Head    ? 1
                                                                             : scope == CompareScope::Layer ? 3
                                                                                                            : 6);
      QVERIFY(rows[QStringLiteral("svg")][QStringLiteral("knob")].isEmpty());
    }
    // The columns: everything kept needs no overlay, the others have theirs, the caption says both sides.
    QVERIFY(!columns().keeps(0, 0, 0, std::nullopt).has_value());
    QVERIFY(columns().keeps(1, 0, 0, std::nullopt).has_value());
    const RunReport svg =
        runMethod(*m_session->trace(), request(QStringLiteral("svg"), CompareScope::Head), *backend, {});
    const double kept = svg.heads.front().evaluation.keptFraction;
    QCOMPARE(columns().caption(1).kept,
             QStringLiteral("kept %1 (skipped %2)").arg(formatPercent(kept), formatPercent(1 - kept)));
    QCOMPARE(columns().caption(1).headClass, svg.heads.front().plan.headClass);
    QCOMPARE(table().item(0, 0)->text(), QStringLiteral("Dense"));
    // A comparison is not a run of the user's.
    QVERIFY(m_session->runs().methods().isEmpty());
    QVERIFY(m_session->overlayMethod().isEmpty());
  }

  void denseWarmUpIsThatOfARun() {
    open(m_trace);
    methods({QStringLiteral("svg"), QStringLiteral("svg2")});
    Selection first = m_session->selection();  // the rules keep the first layers and steps dense
    first.step = m_session->selectableSteps().front();
    first.layer = m_session->selectableLayers().front();
    m_session->setSelection(first);
    QVERIFY(eventually([&] { return m_host->view().isSettled(); }));
    compareAndWait();
    const Table without = shown();
    auto* warmup = m_host->findChild<QCheckBox*>(QStringLiteral("compareWarmup"));
    QVERIFY(warmup != nullptr && !warmup->isChecked());
    warmup->click();
    QVERIFY(shown().isEmpty());  // another question: nothing is known yet
    compareAndWait();
    Executor executor(2);
    const auto backend = createBackend("cpu", executor);
    for (const QString& method : {QStringLiteral("svg"), QStringLiteral("svg2")}) {
      RunRequest dense = request(method, CompareScope::Head);
      dense.warmup = true;
      const RunReport report = runMethod(*m_session->trace(), dense, *backend, {});
      expectSum(shown()[method], summarise(report));
      QCOMPARE(shown()[method][QStringLiteral("kept_fraction")], QStringLiteral("1"));
      QVERIFY(without[method][QStringLiteral("kept_fraction")] != QStringLiteral("1"));
    }
    m_host->view().findChild<QAction*>(QStringLiteral("compare.copyCli"))->trigger();
    QVERIFY(QGuiApplication::clipboard()->text().contains(QStringLiteral(" --warmup on")));
    warmup->click();
    QCOMPARE(shown(), without);  // the first answers are kept
  }

  void equalBudgetsAreSolvedAsTheCoreDoes() {
    open(m_trace);
    methods({QStringLiteral("svg"), QStringLiteral("adaspa"), QStringLiteral("oracle_token")});
    choose("compareScope", "layer");
    Executor executor(2);
    const auto backend = createBackend("cpu", executor);
    auto* value = m_host->findChild<QDoubleSpinBox*>(QStringLiteral("compareValue"));
    QVERIFY(!value->isVisible());
    const std::tuple<const char*, Budget, const char*, double> budgets[] = {
        {"kept", Budget::Kept, "40", 0.4}, {"mass", Budget::Mass, "80", 0.8}, {"error", Budget::Error, "0.2", 0.2}};
    for (const auto& [name, budget, typed, target] : budgets) {
      choose("compareAt", name);
      QVERIFY(value->isVisible());
      value->setFocus();
      value->selectAll();
      QTest::keyClicks(value, QString::fromLatin1(typed));
      QTest::keyClick(value, Qt::Key_Return);
      QTest::keyClick(value, Qt::Key_Return, Qt::ControlModifier);  // compares
      QVERIFY(eventually([&] { return m_host->view().isSettled() && shown().size() == 3; }));
      const Table rows = shown();
      for (const QString& method : {QStringLiteral("svg"), QStringLiteral("adaspa"), QStringLiteral("oracle_token")}) {
        const Solution solution =
            solveBudget(*m_session->trace(), request(method, CompareScope::Layer), {budget, target}, *backend, {});
        expectSum(rows[method], summarise(solution.report));
        QCOMPARE(rows[method][QStringLiteral("asked")].toDouble(), target);
        QCOMPARE(rows[method][QStringLiteral("reached")], QString::number(solution.reached, 'g', 12));
        QCOMPARE(rows[method][QStringLiteral("quantum")], QString::number(solution.quantum, 'g', 12));
        QCOMPARE(rows[method][QStringLiteral("knob")], QString::fromStdString(solution.knob));
        QCOMPARE(rows[method][QStringLiteral("knob_value")], QString::number(solution.knobValue, 'g', 12));
        QCOMPARE(rows[method][QStringLiteral("flagged")] == QStringLiteral("true"), solution.flagged);
      }
    }
    QVERIFY(m_session->runs().methods().isEmpty());
  }

  void theCopiedCommandLineGivesTheSameNumbers() {
    open(m_trace);
    // Parameters of the method's last run are those compared.
    RunRequest run = request(QStringLiteral("svg"), CompareScope::Head, {"kept=0.6"});
    m_session->runMethod(run, QStringLiteral("test"));
    QVERIFY(eventually([&] { return m_session->lastReport(QStringLiteral("svg")) != nullptr; }));
    methods({QStringLiteral("svg"), QStringLiteral("oracle_block")});
    choose("compareScope", "layer");
    for (const char* at : {"own", "kept"}) {
      choose("compareAt", at);
      compareAndWait();
      const Table rows = shown();
      QTest::keyClick(&columns().lead(), Qt::Key_C, Qt::ControlModifier | Qt::AltModifier);
      QString line = QGuiApplication::clipboard()->text();
      QVERIFY2(line.startsWith(QStringLiteral("sparsight-cli compare ")), qPrintable(line));
      QCOMPARE(line.contains(QStringLiteral("--at-kept 0.25")), QLatin1String(at) == QLatin1String("kept"));
      // The knob is solved for, so it is not given.
      QCOMPARE(line.contains(QStringLiteral("svg.sparsity=0.6")), QLatin1String(at) == QLatin1String("own"));
      line.replace(0, 13, QStringLiteral(SPARSIGHT_CLI));
      QProcess shell;
      shell.start(QStringLiteral("/bin/sh"), {QStringLiteral("-c"), line + QStringLiteral(" --json --quiet")});
      QVERIFY(shell.waitForFinished(120'000));
      QVERIFY2(shell.exitCode() == 0, shell.readAllStandardError().constData());
      const QJsonArray summary =
          QJsonDocument::fromJson(shell.readAllStandardOutput()).object()[QStringLiteral("summary")].toArray();
      QCOMPARE(summary.size(), 2);
      for (const auto& entry : summary) {
        const QJsonObject theirs = entry.toObject();
        const QMap<QString, QString> ours = rows[theirs[QStringLiteral("method")].toString()];
        for (const char* name :
             {"kept_fraction", "kept_mass", "kept_mass_p5", "output_rel_error", "output_cosine", "planner_flops",
              "attention_flops", "dense_attention_flops", "predicted_relative_time"})
          QCOMPARE(ours.value(QLatin1String(name)), QString::number(theirs[QLatin1String(name)].toDouble(), 'g', 12));
        if (QLatin1String(at) == QLatin1String("kept"))
          QCOMPARE(ours[QStringLiteral("knob_value")],
                   QString::number(theirs[QStringLiteral("knob_value")].toDouble(), 'g', 12));
      }
    }
    // The user's own run is still there, unchanged.
    const HeadResult own = m_session->runs().find(QStringLiteral("svg"), *m_session->selectedHead());
    QVERIFY(own != nullptr && own->plan.paramsJson.find("\"sparsity\":0.6") != std::string::npos);
  }

  void mapsMoveTogether() {
    open(m_trace);
    methods({QStringLiteral("svg"), QStringLiteral("oracle_block"), QStringLiteral("oracle_token")});
    compareAndWait();
    TileCanvas& first = columns().canvas(0);
    TileCanvas& last = columns().canvas(2);
    QCOMPARE(first.size(), last.size());
    QVERIFY(first.map() == last.map());
    const MapViewport before = last.viewport();
    const QPointF centre = QRectF(last.plotRect()).center();
    QWheelEvent wheel(centre, last.mapToGlobal(centre), {}, QPoint(0, 480), Qt::NoButton, Qt::NoModifier,
                      Qt::NoScrollPhase, false);
    QCoreApplication::sendEvent(&last, &wheel);
    QVERIFY(last.viewport() != before);
    for (int i = 0; i < 3; ++i) QCOMPARE(columns().canvas(i).viewport(), last.viewport());
    QVERIFY(eventually([&] { return columns().isSettled(); }));  // finer tiles come to all
    for (int i = 0; i < 3; ++i) QVERIFY(!columns().canvas(i).currentScene().draws.empty());
    // Drag in the first.
    const QPoint from = first.plotRect().center();
    QTest::mousePress(&first, Qt::LeftButton, {}, from);
    QTest::mouseMove(&first, from + QPoint(10, 6));
    QTest::mouseMove(&first, from + QPoint(30, 20));
    QTest::mouseRelease(&first, Qt::LeftButton, {}, from + QPoint(30, 20));
    for (int i = 0; i < 3; ++i) QCOMPARE(columns().canvas(i).viewport(), first.viewport());
    // Keys: linear scale, fit.
    last.setFocus();
    QTest::keyClick(&last, Qt::Key_L);
    for (int i = 0; i < 3; ++i) {
      QCOMPARE(columns().canvas(i).colors().range.scale, ValueScale::Linear);
      QCOMPARE(columns().canvas(i).colors(), last.colors());
    }
    QTest::keyClick(&last, Qt::Key_F);
    for (int i = 0; i < 3; ++i) QCOMPARE(columns().canvas(i).viewport(), before);
    // Picking is shared with the session, and the line below says who keeps the pair.
    const QPoint at = columns().canvas(1).plotRect().center();
    QTest::mouseClick(&columns().canvas(1), Qt::RightButton, {}, at);
    QVERIFY(m_session->pair().query >= 0);
    for (int i = 0; i < 3; ++i) {
      QCOMPARE(columns().canvas(i).readout().row, columns().canvas(1).readout().row);
      QCOMPARE(columns().canvas(i).readout().col, columns().canvas(1).readout().col);
    }
    const QString line = m_host->findChild<QLabel*>(QStringLiteral("compareReadout"))->text();
    QVERIFY2(line.contains(QStringLiteral("kept by")) || line.contains(QStringLiteral("skipped by")), qPrintable(line));
    QTest::keyClick(&last, Qt::Key_BracketRight);
    QCOMPARE(m_session->selection().head, 1);
  }

  void aNewerRequestReplacesTheOlderAndCancelStops() {
    SynthSpec spec = smallSpec();
    spec.frames = 8;
    spec.height = 12;
    spec.width = 20;
    spec.heads = 6;
    open(writeSmallTrace(m_home.file(QStringLiteral("larger.h5")), spec));
    methods({QStringLiteral("svg2"), QStringLiteral("svoo")});
    choose("compareScope", "step");
    choose("compareAt", "kept");
    QTest::mouseClick(&runButton(), Qt::LeftButton);
    QVERIFY(eventually(
        [&] { return !columns().caption(0).state.isEmpty() && runButton().text() == QStringLiteral("Cancel"); }));
    // Jobs are listed with their names.
    const auto jobs = m_session->jobs().status();
    QVERIFY(std::any_of(jobs.begin(), jobs.end(),
                        [](const JobStatus& s) { return s.spec.name.starts_with("Compare: SVG2 on step"); }));
    QTest::mouseClick(&runButton(), Qt::LeftButton);
    QVERIFY(eventually([&] { return m_session->jobs().idle(); }));
    QCOMPARE(columns().caption(0).state, QStringLiteral("not compared yet"));
    QVERIFY(shown().isEmpty());
    // Again, and at once another head alone: only that one is answered.
    QTest::mouseClick(&runButton(), Qt::LeftButton);
    choose("compareScope", "head");
    choose("compareAt", "own");
    QTest::keyClick(&columns().lead(), Qt::Key_Return, Qt::ControlModifier);
    QVERIFY(eventually([&] { return m_host->view().isSettled(); }));
    QCOMPARE(shown().size(), 2);
    QCOMPARE(shown()[QStringLiteral("svg2")][QStringLiteral("heads")].toInt(), 1);
    choose("compareScope", "step");
    choose("compareAt", "kept");
    QVERIFY(shown().isEmpty());
  }

  void followingComparesByItselfAndAnswersStay() {
    open(m_trace);
    methods({QStringLiteral("oracle_block")});
    auto* follow = m_host->findChild<QCheckBox*>(QStringLiteral("compareFollow"));
    follow->setFocus();
    QTest::keyClick(follow, Qt::Key_Space);
    QVERIFY(eventually([&] { return shown().size() == 1 && m_host->view().isSettled(); }));
    const Table first = shown();
    m_session->moveSelection(0, 0, 1);
    QVERIFY(eventually([&] { return shown().size() == 1 && shown() != first && m_host->view().isSettled(); }));
    QTest::keyClick(follow, Qt::Key_Space);
    m_session->moveSelection(0, 0, -1);  // known: there at once, without a run
    QVERIFY(eventually([&] { return shown() == first; }));
    m_session->moveSelection(0, -1, 0);
    m_session->moveSelection(0, 1, 1);
    m_session->moveSelection(0, 0, 1);
    QVERIFY(eventually([&] { return shown().isEmpty(); }));
    QCOMPARE(columns().caption(0).state, QStringLiteral("not compared yet"));
  }

  void aHeadThatAMethodCannotHandleSaysWhy() {
    const QString path = m_home.file(QStringLiteral("no_values.h5"));
    testing_support::TraceSpec spec;
    spec.frames = 4;
    spec.height = 6;
    spec.width = 8;
    spec.text = 0;
    testing_support::buildTrace(path.toStdString(), spec);
    {
      testing_support::Hdf5Editor editor(path.toStdString());
      editor.remove(testing_support::firstCall(spec) + "/v");
    }
    open(path);
    methods({QStringLiteral("svg"), QStringLiteral("oracle_block")});
    compareAndWait();
    QVERIFY(columns().caption(0).failed);
    QVERIFY2(columns().caption(0).state.contains(QStringLiteral("(V)")), qPrintable(columns().caption(0).state));
    QVERIFY(!columns().caption(1).failed);
    QVERIFY(table().item(0, 1)->text().contains(QStringLiteral("(V)")));
    // At an equal error nothing can be solved, and both say so.
    choose("compareAt", "error");
    compareAndWait();
    QVERIFY(columns().caption(1).failed);
    QVERIFY(shown().isEmpty());
  }

  void methodsAreChosenByMouseAndStateIsKept() {
    open(m_trace);
    auto* button = m_host->findChild<QToolButton*>(QStringLiteral("compareMethods"));
    QCOMPARE(columns().count(), 5);
    QMenu* menu = button->menu();
    menu->popup(button->mapToGlobal(QPoint(0, button->height())));
    QVERIFY(QTest::qWaitForWindowExposed(menu));
    QAction* svoo = nullptr;
    for (QAction* action : menu->actions())
      if (action->data().toString() == QStringLiteral("svoo")) svoo = action;
    QVERIFY(svoo != nullptr && svoo->isChecked());
    QTest::mouseClick(menu, Qt::LeftButton, {}, menu->actionGeometry(svoo).center());
    QVERIFY(!svoo->isChecked());
    QVERIFY(menu->isVisible());  // more can be set
    QCOMPARE(columns().count(), 4);
    menu->setActiveAction(svoo);
    QTest::keyClick(menu, Qt::Key_Space);
    QCOMPARE(columns().count(), 5);
    QTest::keyClick(menu, Qt::Key_Escape);
    methods({QStringLiteral("dense"), QStringLiteral("adaspa")});
    choose("compareScope", "layer");
    choose("compareAt", "mass");
    const QJsonObject saved = m_host->view().saveState();
    cleanup();
    init();
    m_host->view().restoreState(saved);
    QCOMPARE(m_host->view().saveState(), saved);
    open(m_trace);
    QCOMPARE(columns().caption(0).title, QStringLiteral("Dense"));
    QCOMPARE(columns().caption(1).title, QStringLiteral("AdaSpa"));
    m_host->view().restoreState({{QStringLiteral("methods"), QStringLiteral("nonsense")}, {QStringLiteral("at"), 7}});
    m_session->closeTrace();
    QVERIFY(eventually([&] { return !table().isVisible(); }));
  }
};

QTEST_MAIN(TstCompareView)
#include "tst_compare_view.moc"

// SPDX-License-Identifier: Apache-2.0
// Response curves in the budget editor: measured by a job and kept beside the trace, read from there again, and every
// edit shows by lookup what it leads to.
#include <QComboBox>
#include <QLabel>
#include <QMenu>
#include <QMouseEvent>
#include <QTest>
#include <QToolButton>
#include <filesystem>

#include "sparsight/core/response.h"
#include "tests/gui/budget_support.h"
#include "ui/budget_curve.h"
#include "ui/budget_table.h"
#include "ui/response_strip.h"
#include "ui/small_chart.h"

using namespace sparsight;
using namespace sparsight::test;

class TstResponse : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;

  struct Open {
    QTemporaryDir folder;
    Session session;
    std::unique_ptr<View> view;
    ResponseStrip* strip = nullptr;
    BudgetCurve* curve = nullptr;
    SmallCurve* plot = nullptr;

    bool start(bool withTrace = true) {
      if (withTrace && !openSmallTrace(session, folder)) return false;
      const Selection at = session.selection();
      Profile profile = makeProfile(std::max(1, at.step + 1), 4, 3);
      profile.role = BudgetRole::KeptTarget;
      session.profile().open(profile, QString());
      view = makeView(session, "budget");
      view->resize(1200, 420);
      view->show();
      strip = view->findChild<ResponseStrip*>(QStringLiteral("budget.response"));
      curve = view->findChild<BudgetCurve*>(QStringLiteral("budget.curve"));
      plot = view->findChild<SmallCurve*>(QStringLiteral("budget.responsePlot"));
      return strip != nullptr && curve != nullptr && plot != nullptr && QTest::qWaitForWindowExposed(view.get()) &&
             settled();
    }
    bool settled() {
      return QTest::qWaitFor([&] { return session.jobs().idle() && strip->isSettled(); }, 60'000);
    }
    void choose(const char* method) {
      auto* combo = view->findChild<QComboBox*>(QStringLiteral("response.method"));
      combo->setCurrentIndex(combo->findData(QLatin1String(method)));
    }
    /// By the menu, as a user does it.
    void measure(ResponseStrip::Scope scope) const {
      auto* button = view->findChild<QToolButton*>(QStringLiteral("response.measure"));
      for (QAction* action : button->menu()->actions())
        if (action->objectName().endsWith(QString::number(static_cast<int>(scope)))) action->trigger();
    }
    [[nodiscard]] QString message() const { return view->findChild<QLabel*>(QStringLiteral("budget.message"))->text(); }
  };

 private Q_SLOTS:
  void initTestCase() {
    qRegisterMetaType<ChangeFlags>();
    Theme::apply(true);
  }

  void measuresKeepsAndReadsAgain() {
    Open open;
    QVERIFY(open.start());
    QVERIFY(open.strip->isVisible());
    QVERIFY(!open.plot->isVisible());
    QVERIFY(open.strip->text().contains(QStringLiteral("No response curves")));
    open.choose("oracle_block");
    QVERIFY(open.settled());
    open.measure(ResponseStrip::Scope::Step);
    QVERIFY(open.settled());
    const Selection at = open.session.selection();
    QCOMPARE(open.strip->table().size(), std::size_t{6});  // 2 layers x 3 heads
    QVERIFY(open.strip->table().find({at.step, at.layer, at.head}) != nullptr);
    QVERIFY(open.plot->isVisible());
    QVERIFY(open.strip->text().contains(QStringLiteral("curves for 6 of")));

    // The file is the one that the command line would look for.
    RunRequest request;
    request.methodId = "oracle_block";
    request.selection.steps = Selector::parse(std::to_string(at.step));
    const std::filesystem::path file = curvePath(*open.session.trace(), request, kCurvePoints);
    QVERIFY2(std::filesystem::exists(file), file.c_str());
    QCOMPARE(readCurves(file).size(), std::size_t{6});

    // Another method has none; back again they are read from the file.
    open.choose("svg2");
    QVERIFY(open.settled());
    QCOMPARE(open.strip->table().size(), std::size_t{0});
    QVERIFY(!open.plot->isVisible());
    open.choose("oracle_block");
    QVERIFY(open.settled());
    QCOMPARE(open.strip->table().size(), std::size_t{6});
  }

  void editsShowWhatTheyLeadTo() {
    Open open;
    QVERIFY(open.start());
    open.choose("oracle_block");
    QVERIFY(open.settled());
    open.measure(ResponseStrip::Scope::All);
    QVERIFY(open.settled());
    const ResponseTable& table = open.strip->table();
    QCOMPARE(table.size(), std::size_t{12});  // 2 steps x 2 layers x 3 heads
    const auto layerNow = [&](int layer) {
      return table.predict(open.session.profile().current()).layers[static_cast<std::size_t>(layer)];
    };
    const auto said = [](const Prediction& a, const Prediction& b) {
      const auto n = [](double v) { return QString::number(v, 'f', 3); };
      return QStringLiteral("mass %1 \u2192 %2 | err %3 \u2192 %4").arg(n(a.mass), n(b.mass), n(*a.error), n(*b.error));
    };
    // Keyboard: one edit after another, each against the one before.
    open.curve->setCurrentLayer(1);
    open.curve->setFocus();
    for (int n = 0; n < 3; ++n) {
      const Prediction before = layerNow(1);
      QTest::keyClick(open.curve, Qt::Key_Up, Qt::ShiftModifier);
      const Prediction after = layerNow(1);
      QVERIFY(after.mass > before.mass);
      QVERIFY2(open.message().contains(said(before, after)), qPrintable(open.message()));
      QVERIFY(open.message().startsWith(QStringLiteral("L1 kept")));
      QVERIFY(open.settled());
    }
    // A drag: against where it began, however many moves it takes.
    const Prediction start = layerNow(1);
    const QPoint from = open.curve->pointOf(1).toPoint();
    QTest::mousePress(open.curve, Qt::LeftButton, {}, from);
    for (int dy : {-4, -9, -15, -20}) {
      const QPoint at = from + QPoint(0, dy);
      QMouseEvent move(QEvent::MouseMove, at, open.curve->mapToGlobal(at), Qt::NoButton, Qt::LeftButton, {});
      QCoreApplication::sendEvent(open.curve, &move);
      QCoreApplication::processEvents();  // the session tells its views in between
    }
    QVERIFY2(open.message().contains(said(start, layerNow(1))), qPrintable(open.message()));
    QTest::mouseRelease(open.curve, Qt::LeftButton, {}, from + QPoint(0, -20));
    QVERIFY(open.settled());
    // The next one begins where the drag ended.
    const Prediction dragged = layerNow(1);
    QTest::keyClick(open.curve, Qt::Key_Down, Qt::ShiftModifier);
    QVERIFY2(open.message().contains(said(dragged, layerNow(1))), qPrintable(open.message()));
    QVERIFY(open.settled());
    // Undo moves the line and the marked budget with it.
    const QString line = open.strip->text();
    const double marked = open.plot->marks().front().at;
    open.session.profile().undoStack().undo();
    QVERIFY(open.settled());
    QVERIFY(open.strip->text() != line || open.plot->marks().front().at != marked);
    // Typing in the table, too.
    auto* table2 = open.view->findChild<BudgetTable*>();
    const Prediction typed = layerNow(1);
    table2->model()->setData(table2->model()->index(1, ProfileModel::KeptColumn), QStringLiteral("55"));
    QVERIFY2(open.message().contains(said(typed, layerNow(1))), qPrintable(open.message()));
    // Layers without a curve say nothing that is not known.
    QVERIFY(open.settled());
    table2->model()->setData(table2->model()->index(3, ProfileModel::KeptColumn), QStringLiteral("33"));
    QVERIFY(open.message().startsWith(QStringLiteral("L3 kept")));
    QVERIFY(!open.message().contains(QStringLiteral("mass")));
    QVERIFY(open.strip->text().contains(QStringLiteral("curves for 12 of")));
  }

  void plotMarksTheSelectedHeadsBudget() {
    Open open;
    QVERIFY(open.start());
    open.choose("oracle_block");
    open.measure(ResponseStrip::Scope::Layer);
    QVERIFY(open.settled());
    QVERIFY(open.plot->isVisible());
    const Selection at = open.session.selection();
    const HeadCurve* own = open.strip->table().find({at.step, at.layer, at.head});
    QVERIFY(own != nullptr);
    QCOMPARE(open.plot->lines().size(), 2);
    QCOMPARE(static_cast<std::size_t>(open.plot->lines()[0].points.size()), own->points.size());
    QCOMPARE(open.plot->lines()[0].points[5].y(), own->points[5].mass);
    QCOMPARE(open.plot->marks().front().at, *open.session.profile().current().at({at.step, at.layer, at.head}));
    // A head without a curve has no plot; the button hides it anywhere.
    Selection other = at;
    other.layer = at.layer == 0 ? 1 : 0;
    open.session.setSelection(other);
    QVERIFY(QTest::qWaitFor([&] { return !open.plot->isVisible(); }));
    open.session.setSelection(at);
    QVERIFY(QTest::qWaitFor([&] { return open.plot->isVisible(); }));
    open.view->findChild<QToolButton*>(QStringLiteral("budget.plot"))->click();
    QVERIFY(!open.plot->isVisible());
    const QJsonObject state = open.view->saveState();
    QCOMPARE(state[QLatin1String("curves")].toString(), QStringLiteral("oracle_block"));
    QCOMPARE(state[QLatin1String("response")].toBool(true), false);
  }

  void massesAndProfilesAloneAreNotLookedUp() {
    Open open;
    QVERIFY(open.start());
    open.choose("oracle_block");
    open.measure(ResponseStrip::Scope::Head);
    QVERIFY(open.settled());
    Profile masses = open.session.profile().current();
    masses.role = BudgetRole::TopMass;
    open.session.profile().open(masses, QString());
    QVERIFY(open.settled());
    QVERIFY(QTest::qWaitFor([&] { return open.strip->text().contains(QStringLiteral("holds masses")); }));
    QVERIFY(!open.plot->isVisible());

    Open alone;
    QVERIFY(alone.start(false));
    QVERIFY(!alone.strip->isVisible());
  }

  void measuringCanBeCancelled() {
    Open open;
    QVERIFY(open.start());
    open.choose("svg2");
    QVERIFY(open.settled());
    open.measure(ResponseStrip::Scope::All);
    QVERIFY(!open.view->findChild<QToolButton*>(QStringLiteral("response.measure"))->isEnabled());
    for (const JobStatus& job : open.session.jobs().status()) open.session.jobs().cancel(job.id);
    QVERIFY(open.settled());
    QVERIFY(open.view->findChild<QToolButton*>(QStringLiteral("response.measure"))->isEnabled());
  }
};

QTEST_MAIN(TstResponse)
#include "tst_response.moc"

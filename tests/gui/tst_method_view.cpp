// SPDX-License-Identifier: Apache-2.0
#include <QCheckBox>
#include <QComboBox>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QTest>

#include "sparsight/core/method.h"
#include "tests/gui/gui_fixture.h"
#include "ui/method_form.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view_host.h"

using namespace sparsight;
using namespace sparsight::test;

class TstMethodView : public QObject {
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

  void everyParameterOfEveryMethodHasAnEditorWithItsMeaning() {
    for (const Method* method : allMethods()) {
      MethodForm form;
      form.setMethod(*method, nullptr);
      for (const ParamSpec& spec : method->params()) {
        auto* editor = form.findChild<QWidget*>(QStringLiteral("param.") + QString::fromStdString(spec.name));
        QVERIFY2(editor != nullptr, spec.name.c_str());
        QVERIFY(editor->toolTip().contains(QString::fromStdString(spec.meaning).toHtmlEscaped()));
        QVERIFY(!editor->accessibleName().isEmpty());
      }
      QVERIFY(form.isValid());
      QVERIFY(form.assignments().isEmpty());
    }
  }

  void aChangeIsAnAssignmentAndResetTakesItBack() {
    MethodForm form;
    form.setMethod(methodById("svg"), nullptr);
    auto* kept = form.findChild<QLineEdit*>(QStringLiteral("param.sparsity"));
    QVERIFY(kept != nullptr);
    const QString before = kept->text();
    kept->selectAll();
    QTest::keyClicks(kept, QStringLiteral("0.45"));
    QCOMPARE(form.assignments(), QStringList{QStringLiteral("sparsity=0.45")});
    QCOMPARE(form.params().real("sparsity"), 0.45);
    form.resetAll();
    QCOMPARE(kept->text(), before);
    QVERIFY(form.assignments().isEmpty());
  }

  void aBadValueSaysWhyAndIsKept() {
    MethodForm form;
    form.setMethod(methodById("svg"), nullptr);
    form.show();
    auto* kept = form.findChild<QLineEdit*>(QStringLiteral("param.sparsity"));
    auto* error = form.findChild<QLabel*>(QStringLiteral("error.sparsity"));
    for (const QString& bad :
         {QStringLiteral("7"), QStringLiteral("-0.1"), QStringLiteral("many"), QStringLiteral("nan")}) {
      kept->setText(bad);
      QVERIFY2(!form.isValid(), qPrintable(bad));
      QVERIFY(error->isVisible());
      QVERIFY2(error->text().contains(QStringLiteral("sparsity")), qPrintable(error->text()));
      QCOMPARE(kept->text(), bad);
    }
    kept->setText(QStringLiteral("0.2"));
    QVERIFY(form.isValid());
    QVERIFY(!error->isVisible());
  }

  void runsOnTheHeadAndShowsTheNumbers() {
    Session session;
    ViewHost host(session, *viewById(QStringLiteral("method")), QSize(300, 900));
    host.show();
    QVERIFY(QTest::qWaitForWindowExposed(&host));
    auto* run = host.findChild<QPushButton*>(QStringLiteral("runHead"));
    QVERIFY(!run->isEnabled());
    session.openFile(m_trace);
    QVERIFY(eventually([&] { return run->isEnabled(); }));
    auto* combo = host.findChild<QComboBox*>(QStringLiteral("methodCombo"));
    combo->setCurrentIndex(combo->findData(QStringLiteral("svg")));
    QVERIFY(!host.findChild<QLabel*>(QStringLiteral("warmupText"))->text().isEmpty());
    QTest::mouseClick(run, Qt::LeftButton);
    QCOMPARE(session.overlayMethod(), QStringLiteral("svg"));
    QLabel* kept = nullptr;
    QVERIFY(eventually([&] {
      kept = host.findChild<QLabel*>(QStringLiteral("result.kept"));
      return kept != nullptr && kept->isVisible();
    }));
    const HeadResult result = session.runs().find(QStringLiteral("svg"), *session.selectedHead());
    QVERIFY(result != nullptr);
    QCOMPARE(kept->text(), formatPercent(result->evaluation.keptFraction));
    QCOMPARE(host.findChild<QLabel*>(QStringLiteral("result.skipped"))->text(),
             formatPercent(1 - result->evaluation.keptFraction));
    QVERIFY(host.findChild<QLabel*>(QStringLiteral("result.mass"))
                ->text()
                .startsWith(formatNumber(result->evaluation.keptMass)));
    QVERIFY(!host.findChild<QLabel*>(QStringLiteral("result.class"))->text().isEmpty());
    QVERIFY(
        host.findChild<QLabel*>(QStringLiteral("evaluatedRows"))->text().startsWith(QStringLiteral("exact on all ")));
    // Nowhere the bare word.
    for (const QLabel* label : host.findChildren<QLabel*>())
      if (!label->objectName().startsWith(QStringLiteral("error.")) && label->buddy() == nullptr)
        QVERIFY2(!label->text().contains(QStringLiteral("sparsity"), Qt::CaseInsensitive), qPrintable(label->text()));
  }

  void aStepRunSumsUp() {
    Session session;
    ViewHost host(session, *viewById(QStringLiteral("method")), QSize(300, 900));
    host.show();
    session.openFile(m_trace);
    auto* run = host.findChild<QPushButton*>(QStringLiteral("runStep"));
    QVERIFY(eventually([&] { return run->isEnabled(); }));
    auto* combo = host.findChild<QComboBox*>(QStringLiteral("methodCombo"));
    combo->setCurrentIndex(combo->findData(QStringLiteral("dense")));
    QTest::mouseClick(run, Qt::LeftButton);
    auto* summary = host.findChild<QLabel*>(QStringLiteral("stepSummary"));
    QVERIFY(eventually([&] { return summary->text().startsWith(QStringLiteral("6 heads")); }));
    QVERIFY2(summary->text().contains(QStringLiteral("mean kept 100.0 % (skipped 0.0 %)")),
             qPrintable(summary->text()));
  }

  void stateComesBack() {
    Session session;
    ViewHost first(session, *viewById(QStringLiteral("method")), QSize(300, 600));
    auto* combo = first.findChild<QComboBox*>(QStringLiteral("methodCombo"));
    combo->setCurrentIndex(combo->findData(QStringLiteral("oracle_block")));
    first.findChild<QLineEdit*>(QStringLiteral("param.kept"))->setText(QStringLiteral("0.4"));
    first.findChild<QCheckBox*>(QStringLiteral("warmup"))->setChecked(true);
    ViewHost second(session, *viewById(QStringLiteral("method")), QSize(300, 600));
    second.view().restoreState(first.view().saveState());
    QCOMPARE(second.view().saveState(), first.view().saveState());
    QCOMPARE(second.findChild<QLineEdit*>(QStringLiteral("param.kept"))->text(), QStringLiteral("0.4"));
  }
};

QTEST_MAIN(TstMethodView)
#include "tst_method_view.moc"

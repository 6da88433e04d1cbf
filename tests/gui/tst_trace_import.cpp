// SPDX-License-Identifier: Apache-2.0
#include <QAction>
#include <QCheckBox>
#include <QComboBox>
#include <QDropEvent>
#include <QFile>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QMimeData>
#include <QPushButton>
#include <QSignalSpy>
#include <QSpinBox>
#include <QToolButton>
#include <QTreeWidget>

#include "sparsight/core/trace.h"
#include "tests/gui/gui_fixture.h"
#include "ui/dialogs/profile_facts_dialog.h"
#include "ui/dialogs/trace_import_dialog.h"
#include "ui/main_window.h"
#include "ui/session.h"
#include "ui/settings.h"

using namespace sparsight;
using sparsight::test::eventually;

class TestTraceImport : public QObject {
  Q_OBJECT
  test::PrivateHome m_home;
  QTemporaryDir m_dir;
  QWidget m_parent;
  std::unique_ptr<Session> m_session;

  static QString fixture(const char* name) {
    return QStringLiteral(SPARSIGHT_SOURCE_DIR "/tests/data/import/") + QLatin1String(name);
  }
  template <class T>
  static T* child(QWidget& parent, const char* name) {
    return parent.findChild<T*>(QLatin1String(name));
  }
  static QPushButton* go(TraceImportDialog& dialog) { return child<QPushButton>(dialog, "import.go"); }
  static QString state(TraceImportDialog& dialog) { return child<QLabel>(dialog, "import.state")->text(); }
  static void type(TraceImportDialog& dialog, int frames, int rows, int columns) {
    child<QSpinBox>(dialog, "import.frames")->setValue(frames);
    child<QSpinBox>(dialog, "import.rows")->setValue(rows);
    child<QSpinBox>(dialog, "import.columns")->setValue(columns);
    QVERIFY(eventually([&] { return dialog.isSettled(); }));
  }

 private Q_SLOTS:
  void initTestCase() {
    qRegisterMetaType<ChangeFlags>();
    m_parent.show();
  }
  void init() {
    JobQueueOptions options;
    options.threads = 1;
    m_session = std::make_unique<Session>(options);
  }

  void asksForTheGridAndThenImports() {
    TraceImportDialog dialog(*m_session, {fixture("plain.npz")}, &m_parent);
    QVERIFY(eventually([&] { return dialog.survey() != nullptr && dialog.isSettled(); }));
    auto* found = child<QTreeWidget>(dialog, "import.found");
    QCOMPARE(found->topLevelItemCount(), 3);
    QVERIFY(found->topLevelItem(0)->text(3).startsWith(QLatin1Char('q')));
    QVERIFY(!go(dialog)->isEnabled());
    QVERIFY2(state(dialog).contains(QStringLiteral("24 tokens")), qPrintable(state(dialog)));
    QVERIFY2(!state(dialog).contains(QStringLiteral("--")), "no options of the command line");
    // A proposal fills the fields; what it leads to is what is planned.
    auto* proposals = child<QComboBox>(dialog, "import.proposals");
    const int wanted = proposals->findText(QStringLiteral("2 x 3 x 4"));
    QVERIFY(wanted > 0);
    proposals->setCurrentIndex(wanted);
    Q_EMIT proposals->activated(wanted);
    QVERIFY(eventually([&] { return dialog.isSettled(); }));
    QCOMPARE(child<QSpinBox>(dialog, "import.rows")->value(), 3);
    QVERIFY2(go(dialog)->isEnabled() || dialog.path().isEmpty() || state(dialog).contains(QStringLiteral("Replace")),
             qPrintable(state(dialog)));
    auto* assumed = child<QListWidget>(dialog, "import.assumed");
    QVERIFY(assumed->count() > 3);
    for (int i = 0; i < assumed->count(); ++i) QVERIFY(!assumed->item(i)->text().contains(QStringLiteral("--")));
    dialog.setPath(m_dir.filePath(QStringLiteral("nowhere/a.h5")));
    QVERIFY(eventually([&] { return dialog.isSettled(); }));
    QVERIFY(!go(dialog)->isEnabled());
    dialog.setPath(m_dir.filePath(QStringLiteral("a.h5")));
    QVERIFY(eventually([&] { return dialog.isSettled(); }));
    QVERIFY2(go(dialog)->isEnabled(), qPrintable(state(dialog)));
    go(dialog)->click();
    QVERIFY(eventually([&] { return m_session->trace() != nullptr; }));
    QCOMPARE(m_session->trace()->info().layout.tokenCount, Index{24});
    QVERIFY(importRecord(m_session->trace()->info()).has_value());
  }

  void refusesAGridThatDoesNotFit() {
    TraceImportDialog dialog(*m_session, {fixture("plain.npz")}, &m_parent);
    QVERIFY(eventually([&] { return dialog.survey() != nullptr && dialog.isSettled(); }));
    type(dialog, 2, 3, 5);
    QVERIFY(!go(dialog)->isEnabled());
    QVERIFY2(state(dialog).contains(QStringLiteral("has 30")), qPrintable(state(dialog)));
    child<QLineEdit>(dialog, "import.scale")->setText(QStringLiteral("x"));
    type(dialog, 2, 3, 4);
    QVERIFY(!go(dialog)->isEnabled());
    child<QLineEdit>(dialog, "import.scale")->clear();
    child<QSpinBox>(dialog, "import.text")->setValue(3);
    QVERIFY(eventually([&] { return dialog.isSettled(); }));
    QVERIFY(!go(dialog)->isEnabled());
  }

  void asksBeforeItReplaces() {
    const QString path = m_dir.filePath(QStringLiteral("there.h5"));
    QFile file(path);
    QVERIFY(file.open(QIODevice::WriteOnly));
    file.write("mine");
    file.close();
    TraceImportDialog dialog(*m_session, {fixture("keys.safetensors")}, &m_parent);
    dialog.setPath(path);
    QVERIFY(eventually([&] { return dialog.survey() != nullptr && dialog.isSettled(); }));
    QVERIFY2(!go(dialog)->isEnabled(), "the grid is in the file, but so is something of mine");
    child<QCheckBox>(dialog, "import.replace")->setChecked(true);
    QVERIFY(go(dialog)->isEnabled());
  }

  void foreignHdf5IsMapped() {
    TraceImportDialog dialog(*m_session, {fixture("stacked.h5")}, &m_parent);
    dialog.setPath(m_dir.filePath(QStringLiteral("stacked.h5")));
    QVERIFY(eventually([&] { return dialog.survey() != nullptr && dialog.isSettled(); }));
    QVERIFY2(child<QToolButton>(dialog, "import.more")->isChecked(), "five axes need a word");
    QVERIFY(!go(dialog)->isEnabled());
    child<QLineEdit>(dialog, "import.axes")->setText(QStringLiteral("slhnd"));
    child<QLineEdit>(dialog, "import.pattern0")->setText(QStringLiteral("Q"));
    child<QLineEdit>(dialog, "import.pattern1")->setText(QStringLiteral("K"));
    QVERIFY(eventually([&] { return dialog.isSettled(); }));
    QVERIFY2(go(dialog)->isEnabled(), qPrintable(state(dialog)));
    QCOMPARE(dialog.plan()->calls.size(), std::size_t{6});
    // The list follows: values are no longer asked for, Q is.
    auto* found = child<QTreeWidget>(dialog, "import.found");
    for (int i = 0; i < found->topLevelItemCount(); ++i) {
      const QString name = found->topLevelItem(i)->text(0);
      const bool used = name == QLatin1String("Q") || name == QLatin1String("K");
      QCOMPARE(found->topLevelItem(i)->text(3) != QLatin1String("not used"), used);
    }
    QVERIFY(!dialog.plan()->calls.front().header.valueDim);
  }

  void aHostileFileIsRefusedByName() {
    TraceImportDialog dialog(*m_session, {fixture("hostile_system.pt")}, &m_parent);
    auto* facts = child<QLabel>(dialog, "import.facts");
    QVERIFY(eventually([&] { return facts->text().contains(QStringLiteral("posix.system")); }));
    QVERIFY(!go(dialog)->isEnabled());
  }

  void whatIsOpenedOrDroppedAsksForTheImport() {
    MainWindow window(*m_session, Settings());
    window.show();
    window.openFiles({fixture("svoo")});
    TraceImportDialog* dialog = nullptr;
    QVERIFY(eventually([&] { return (dialog = window.findChild<TraceImportDialog*>()) != nullptr; }));
    dialog->reject();
    QVERIFY(eventually([&] { return window.findChild<TraceImportDialog*>() == nullptr; }));
    QMimeData data;
    data.setUrls({QUrl::fromLocalFile(fixture("plain.npz"))});
    QDragEnterEvent enter(QPoint(500, 500), Qt::CopyAction, &data, Qt::LeftButton, {});
    QApplication::sendEvent(&window, &enter);
    QVERIFY(enter.isAccepted());
    QDropEvent drop(QPointF(500, 500), Qt::CopyAction, &data, Qt::LeftButton, {});
    QApplication::sendEvent(&window, &drop);
    QVERIFY(eventually([&] { return window.findChild<TraceImportDialog*>() != nullptr; }));
    window.findChild<TraceImportDialog*>()->reject();
    QVERIFY(eventually([&] { return window.findChild<TraceImportDialog*>() == nullptr; }));
    // Files that belong together are one import.
    window.openFiles({fixture("npy/q_layer2.npy"), fixture("npy/k_layer2.npy"), fixture("npy/v_layer2.npy")});
    QVERIFY(eventually([&] { return (dialog = window.findChild<TraceImportDialog*>()) != nullptr; }));
    QVERIFY(eventually([&] { return dialog->survey() != nullptr && dialog->isSettled(); }));
    QCOMPARE(window.findChildren<TraceImportDialog*>().size(), 1);
    QCOMPARE(dialog->survey()->tensors.size(), std::size_t{3});
    dialog->reject();
  }

  void whatALogDoesNotSayIsAsked() {
    const QString path = m_dir.filePath(QStringLiteral("asked.jsonl"));
    QFile file(path);
    QVERIFY(file.open(QIODevice::WriteOnly));
    file.write("{\"timestep\": 900.0, \"layer\": 1, \"avg_density\": 0.5, \"density\": [[0.25, 0.75]]}\n");
    file.close();
    MainWindow window(*m_session, Settings());
    window.show();
    window.openFiles({path});
    ProfileFactsDialog* dialog = nullptr;
    QVERIFY(eventually([&] { return (dialog = window.findChild<ProfileFactsDialog*>()) != nullptr; }));
    QVERIFY(eventually([&] { return dialog->isSettled(); }));
    QVERIFY(dialog->read() != nullptr);
    QVERIFY2(m_session->profile().isEmpty(), "nothing is taken for granted unseen");
    auto* assumed = child<QListWidget>(*dialog, "facts.assumed");
    auto* open = child<QPushButton>(*dialog, "facts.open");
    const auto all = [&] {
      QString text;
      for (int i = 0; i < assumed->count(); ++i) text += assumed->item(i)->text() + QLatin1Char('\n');
      return text;
    };
    QVERIFY2(all().contains(QStringLiteral("the whole run")), qPrintable(all()));
    QVERIFY2(!all().contains(QStringLiteral("--")), qPrintable(all()));
    child<QSpinBox>(*dialog, "facts.steps")->setValue(4);
    child<QSpinBox>(*dialog, "facts.layers")->setValue(1);
    QVERIFY(eventually([&] { return dialog->isSettled(); }));
    QVERIFY2(!open->isEnabled(), "layer 1 is the second one");
    QVERIFY(!child<QLabel>(*dialog, "facts.state")->text().contains(QStringLiteral("--")));
    child<QSpinBox>(*dialog, "facts.layers")->setValue(3);
    QVERIFY(eventually([&] { return dialog->isSettled(); }));
    auto* timesteps = child<QLineEdit>(*dialog, "facts.timesteps");
    timesteps->setText(QStringLiteral("1000, x"));
    QVERIFY(!open->isEnabled());
    timesteps->setText(QStringLiteral("1000, 900, 500, 100"));
    QVERIFY(eventually([&] { return dialog->isSettled(); }));
    QVERIFY2(open->isEnabled(), qPrintable(child<QLabel>(*dialog, "facts.state")->text()));
    open->click();
    QVERIFY(eventually([&] { return !m_session->profile().isEmpty(); }));
    QCOMPARE(m_session->profile().current().steps(), 4);
    QCOMPARE(m_session->profile().current().layers(), 3);
    QCOMPARE(m_session->profile().current().at({1, 1, 1}), 0.75);
    QVERIFY2(m_session->profile().filePath().isEmpty(), "never saved back into the log");
  }

  void aScriptWithoutAModelIsAsked() {
    const QString path = m_dir.filePath(QStringLiteral("own.sh"));
    QFile file(path);
    QVERIFY(file.open(QIODevice::WriteOnly));
    file.write("#!/bin/sh\npython x.py --pattern SVG --sparsity 0.3\n");
    file.close();
    MainWindow window(*m_session, Settings());
    window.show();
    window.openFiles({path});
    ProfileFactsDialog* dialog = nullptr;
    QVERIFY(eventually([&] { return (dialog = window.findChild<ProfileFactsDialog*>()) != nullptr; }));
    QVERIFY(eventually([&] { return dialog->isSettled(); }));
    QVERIFY(dialog->read() == nullptr);
    const QString state = child<QLabel>(*dialog, "facts.state")->text();
    QVERIFY2(state.contains(QStringLiteral("Layers")) && !state.contains(QStringLiteral("--")), qPrintable(state));
    for (const char* name : {"facts.steps", "facts.layers", "facts.heads"}) child<QSpinBox>(*dialog, name)->setValue(2);
    QVERIFY(eventually([&] { return dialog->isSettled() && dialog->read() != nullptr; }));
    dialog->reject();
    QVERIFY(eventually([&] { return window.findChild<ProfileFactsDialog*>() == nullptr; }));
    QVERIFY(m_session->profile().isEmpty());
  }

  void rowsAndCrossAttentionAreExplainedWithoutOptions() {
    TraceImportDialog dialog(*m_session, {fixture("sides.pt")}, &m_parent);
    dialog.setPath(m_dir.filePath(QStringLiteral("sides.h5")));
    QVERIFY(eventually([&] { return dialog.survey() != nullptr && dialog.isSettled(); }));
    type(dialog, 2, 3, 4);
    QVERIFY2(go(dialog)->isEnabled(), qPrintable(state(dialog)));
    auto* found = child<QTreeWidget>(dialog, "import.found");
    QStringList read;
    for (int i = 0; i < found->topLevelItemCount(); ++i) read << found->topLevelItem(i)->text(3);
    QVERIFY2(read.contains(QStringLiteral("query rows")) && read.contains(QStringLiteral("mask")),
             qPrintable(read.join(QLatin1Char(';'))));
    QVERIFY(dialog.plan()->calls.front().rows && dialog.plan()->calls.front().mask);
    // Other keys: the rows' tokens are not said any more.
    child<QLineEdit>(dialog, "import.pattern0")->setText(QStringLiteral("q"));
    child<QLineEdit>(dialog, "import.pattern1")->setText(QStringLiteral("attn_mask"));
    QVERIFY(eventually([&] { return dialog.isSettled(); }));
    QVERIFY(!go(dialog)->isEnabled());
    QVERIFY2(!state(dialog).contains(QStringLiteral("--")), qPrintable(state(dialog)));
  }

  void theDensityLogBecomesAProfile() {
    const QString path = m_dir.filePath(QStringLiteral("v.jsonl"));
    QFile file(path);
    QVERIFY(file.open(QIODevice::WriteOnly));
    file.write("{\"timestep\": 900.0, \"layer\": 1, \"avg_density\": 0.5, \"density\": [[0.25, 0.75]]}\n");
    file.close();
    m_session->openFile(path);
    QVERIFY(eventually([&] { return !m_session->profile().isEmpty(); }));
    QCOMPARE(m_session->profile().current().at({0, 1, 1}), 0.75);
  }
};

QTEST_MAIN(TestTraceImport)
#include "tst_trace_import.moc"

// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/export_dialog.h"

#include <QAction>
#include <QCheckBox>
#include <QComboBox>
#include <QFile>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QMessageBox>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QRadioButton>
#include <QSignalSpy>
#include <QToolButton>

#include "tests/gui/budget_support.h"
#include "ui/budget_edit.h"
#include "ui/dialogs/import_dialog.h"
#include "ui/method_form.h"
#include "ui/profile_actions.h"
#include "ui/session.h"

using namespace sparsight;
using sparsight::test::makeProfile;

namespace {

QByteArray bytesOf(const QString& path) {
  QFile file(path);
  return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
}
void writeBytes(const QString& path, const QByteArray& bytes) {
  QFile file(path);
  QVERIFY(file.open(QIODevice::WriteOnly));
  QCOMPARE(file.write(bytes), bytes.size());
}

}  // namespace

class TestExportDialog : public QObject {
  Q_OBJECT
  std::unique_ptr<Session> m_session;
  QWidget m_window;
  QTemporaryDir m_dir;

  [[nodiscard]] QString file(const char* name) const { return m_dir.filePath(QLatin1String(name)); }
  template <class T>
  static T* child(QWidget& parent, const char* name) {
    return parent.findChild<T*>(QLatin1String(name));
  }

 private Q_SLOTS:
  void initTestCase() { m_window.show(); }
  void init() {
    JobQueueOptions options;
    options.threads = 1;
    m_session = std::make_unique<Session>(options);
  }
  void cleanup() {
    qDeleteAll(m_window.findChildren<QDialog*>());
    m_session.reset();
  }

  void csvIsByteIdenticalToWhatTheFormatSays() {
    m_session->profile().open(makeProfile(4, 5, 3), {});
    ExportDialog dialog(*m_session, &m_window);
    dialog.show();
    dialog.setTarget(QStringLiteral("svoo-csv"));
    dialog.setPath(file("own.csv"));
    QTRY_VERIFY(dialog.isSettled());
    const QString preview = child<QPlainTextEdit>(dialog, "export.preview")->toPlainText();
    QVERIFY(preview.startsWith(QStringLiteral("Step,Layer,Head,Sparsity\n1,0,0,")));
    sparsight::test::shot(dialog, "export_csv");
    QSignalSpy done(&dialog, &ExportDialog::exported);
    QTest::mouseClick(child<QPushButton>(dialog, "export.go"), Qt::LeftButton);
    QTRY_COMPARE(done.count(), 1);
    const std::string expected = formatSvooCsv(m_session->profile().current());
    QCOMPARE(bytesOf(file("own.csv")), QByteArray::fromStdString(expected));
    QVERIFY(!dialog.isVisible());
  }

  void uneditedPublishedProfilesComeBackByteForByte() {
    for (const char* name : {"sparsity_wan_1.3B_t2v.csv", "sparsity_hunyuan10_13B_i2v.csv"}) {
      const QString path = sparsight::test::realProfile(name);
      if (path.isEmpty()) QSKIP("no published profiles here: the data folder is absent");
      QSignalSpy opened(m_session.get(), &Session::fileOpened);
      profile_actions::openFile(*m_session, &m_window, path);
      QTRY_COMPARE(opened.count(), 1);
      // An edit and its undo leave no trace.
      m_session->profile().apply(
          budget::setLayerMeans(m_session->profile().current(), {{3, 0.5}}, {}, SpreadMode::Shift).edit);
      m_session->profile().undoStack().undo();
      ExportDialog dialog(*m_session, &m_window);
      dialog.show();
      dialog.setTarget(QStringLiteral("svoo-csv"));
      dialog.setPath(file("real.csv"));
      QTRY_VERIFY(dialog.isSettled());
      if (auto* replace = child<QCheckBox>(dialog, "export.replace"); replace->isVisible()) replace->setChecked(true);
      QSignalSpy done(&dialog, &ExportDialog::exported);
      QTest::mouseClick(child<QPushButton>(dialog, "export.go"), Qt::LeftButton);
      QTRY_COMPARE(done.count(), 1);
      QVERIFY2(bytesOf(file("real.csv")) == bytesOf(path), name);
    }
  }

  void holesNeedADecision() {
    Profile profile = makeProfile(3, 4, 3);
    profile.set({1, 2, 0}, std::nullopt);
    profile.set({1, 2, 1}, std::nullopt);
    m_session->profile().open(profile, {});
    ExportDialog dialog(*m_session, &m_window);
    dialog.show();
    dialog.setTarget(QStringLiteral("svoo-csv"));
    dialog.setFill(FillPolicy::Refuse);
    dialog.setPath(file("holes.csv"));
    QTRY_VERIFY(dialog.isSettled());
    QVERIFY(!child<QPushButton>(dialog, "export.go")->isEnabled());
    QVERIFY(child<QLabel>(dialog, "export.holes")->text().startsWith(QStringLiteral("2 of ")));
    QVERIFY(child<QListWidget>(dialog, "export.checks")->item(0)->text().contains(QStringLiteral("2")));
    sparsight::test::shot(dialog, "export_holes");
    dialog.setFill(FillPolicy::Value, 0.5);
    QTRY_VERIFY(dialog.isSettled() && child<QPushButton>(dialog, "export.go")->isEnabled());
    QSignalSpy done(&dialog, &ExportDialog::exported);
    QTest::mouseClick(child<QPushButton>(dialog, "export.go"), Qt::LeftButton);
    QTRY_COMPARE(done.count(), 1);
    QVERIFY(bytesOf(file("holes.csv")).contains("2,2,0,0.5\r\n"));
    QVERIFY(!m_session->profile().current().at({1, 2, 0}).has_value());  // the open profile keeps its holes
  }

  void aRuntimesFilesLieTogether() {
    m_session->profile().open(makeProfile(50, 30, 12), {});
    ExportDialog dialog(*m_session, &m_window);
    dialog.show();
    dialog.setTarget(QStringLiteral("sparsevideo"));
    dialog.setPath(file("video.json"));
    auto* model = child<QComboBox>(dialog, "export.model");
    QVERIFY(model->isVisible());
    const int wan = model->findData(QStringLiteral("wan21-t2v-1.3b"));
    QVERIFY(wan > 0);
    QCOMPARE(model->findData(QStringLiteral("wan21-t2v-14b")), -1);  // another grid
    model->setCurrentIndex(wan);
    QTRY_VERIFY(dialog.isSettled());
    sparsight::test::shot(dialog, "export_sparsevideo");
    auto* more = child<QToolButton>(dialog, "export.more");
    QTest::mouseClick(more, Qt::LeftButton);
    auto* params = child<MethodForm>(dialog, "export.params");
    QTRY_VERIFY(params->isVisible());
    params->setAssignments({QStringLiteral("method=svg2")});
    QTRY_VERIFY(dialog.isSettled());
    sparsight::test::shot(dialog, "export_params");
    QVERIFY(child<QPlainTextEdit>(dialog, "export.preview")->toPlainText().contains(QStringLiteral("num_inference")));
    // Somebody's file of a companion's name is not replaced unasked.
    writeBytes(file("video.profile.json"), "mine");
    dialog.setPath(file("video2.json"));
    dialog.setPath(file("video.json"));
    QTRY_VERIFY(dialog.isSettled());
    auto* go = child<QPushButton>(dialog, "export.go");
    QVERIFY(!go->isEnabled());
    auto* replace = child<QCheckBox>(dialog, "export.replace");
    QVERIFY(replace->text().contains(QStringLiteral("video.profile.json")));
    QFile::remove(file("video.profile.json"));
    dialog.setPath(file("video2.json"));
    QTRY_VERIFY(dialog.isSettled() && go->isEnabled());
    QSignalSpy done(&dialog, &ExportDialog::exported);
    QTest::mouseClick(go, Qt::LeftButton);
    QTRY_COMPARE(done.count(), 1);
    QVERIFY(bytesOf(file("video2.json")).contains("\"min_kc_ratio\""));
    QVERIFY(QFile::exists(file("video2.profile.json")));
    QVERIFY(bytesOf(file("sparsight_sparsevideo.py")).contains("def apply_budget("));
  }

  void jsonKeepsHolesLocksAndNotes() {
    Profile profile = makeProfile(2, 3, 2);
    profile.set({1, 2, 0}, std::nullopt);
    profile.setLayerLocked(1, true);
    profile.setLayerNote(2, "sink");
    m_session->profile().open(profile, {});
    ExportDialog dialog(*m_session, &m_window);
    dialog.show();
    dialog.setTarget(QStringLiteral("json"));
    dialog.setPath(file("all.json"));
    QTRY_VERIFY(dialog.isSettled());
    QSignalSpy done(&dialog, &ExportDialog::exported);
    QTest::mouseClick(child<QPushButton>(dialog, "export.go"), Qt::LeftButton);
    QTRY_COMPARE(done.count(), 1);
    const Profile back = readProfile(file("all.json").toStdString());
    QVERIFY(!back.at({1, 2, 0}).has_value());
    QVERIFY(back.layerLocked(1));
    QCOMPARE(back.layerNote(2), std::string("sink"));
    QCOMPARE(back.at({0, 0, 1}), profile.at({0, 0, 1}));
  }

  void existingFilesAreAskedAbout() {
    m_session->profile().open(makeProfile(2, 3, 2), {});
    writeBytes(file("there.csv"), "precious");
    ExportDialog dialog(*m_session, &m_window);
    dialog.show();
    dialog.setTarget(QStringLiteral("svoo-csv"));
    dialog.setPath(file("there.csv"));
    QTRY_VERIFY(dialog.isSettled());
    auto* go = child<QPushButton>(dialog, "export.go");
    QVERIFY(!go->isEnabled());
    QTest::keyClick(&dialog, Qt::Key_Return);
    QCOMPARE(bytesOf(file("there.csv")), QByteArray("precious"));
    child<QCheckBox>(dialog, "export.replace")->setChecked(true);
    QVERIFY(go->isEnabled());
    QSignalSpy done(&dialog, &ExportDialog::exported);
    QTest::mouseClick(go, Qt::LeftButton);
    QTRY_COMPARE(done.count(), 1);
    QVERIFY(bytesOf(file("there.csv")).startsWith("Step,Layer,Head,Sparsity\r\n"));
  }

  void aFileThatCameMeanwhileIsNotReplaced() {
    m_session->profile().open(makeProfile(2, 3, 2), {});
    ExportDialog dialog(*m_session, &m_window);
    dialog.show();
    dialog.setTarget(QStringLiteral("svoo-csv"));
    dialog.setPath(file("meanwhile.csv"));
    auto* go = child<QPushButton>(dialog, "export.go");
    QTRY_VERIFY(dialog.isSettled() && go->isEnabled());
    writeBytes(file("meanwhile.csv"), "precious");
    QTest::mouseClick(go, Qt::LeftButton);
    QTRY_VERIFY(dialog.isSettled());
    QCOMPARE(bytesOf(file("meanwhile.csv")), QByteArray("precious"));
    QTRY_VERIFY(child<QCheckBox>(dialog, "export.replace")->isVisible());
    QVERIFY(dialog.isVisible() && !go->isEnabled());
  }

  void impossiblePathsAreExplained() {
    m_session->profile().open(makeProfile(2, 3, 2), {});
    ExportDialog dialog(*m_session, &m_window);
    dialog.show();
    QTRY_VERIFY(dialog.isSettled());
    auto* go = child<QPushButton>(dialog, "export.go");
    auto* state = child<QLabel>(dialog, "export.state");
    dialog.setPath(file("no/such/folder/p.csv"));
    QTRY_VERIFY(!go->isEnabled() && state->text().contains(QStringLiteral("does not exist")));
    dialog.setPath(m_dir.path());
    QTRY_VERIFY(!go->isEnabled() && state->text().contains(QStringLiteral("is a folder")));
    dialog.setPath(QString());
    QVERIFY(!go->isEnabled());
  }

  void theLastChoiceIsRemembered() {
    m_session->profile().open(makeProfile(2, 3, 2), {});
    {
      ExportDialog dialog(*m_session, &m_window);
      dialog.show();
      dialog.setTarget(QStringLiteral("json"));
      dialog.setPath(file("remember.json"));
      QTRY_VERIFY(dialog.isSettled());
      QSignalSpy done(&dialog, &ExportDialog::exported);
      QTest::mouseClick(child<QPushButton>(dialog, "export.go"), Qt::LeftButton);
      QTRY_COMPARE(done.count(), 1);
    }
    ExportDialog dialog(*m_session, &m_window);
    QVERIFY(dialog.target().id() == "json");
    QVERIFY(dialog.path().startsWith(m_dir.path()));
    QVERIFY(dialog.path().endsWith(QStringLiteral(".json")));
  }

  void saveWritesBackByteForByte() {
    const QByteArray original = QByteArray::fromStdString(formatSvooCsv(makeProfile(3, 4, 2)));
    writeBytes(file("save.csv"), original);
    QSignalSpy opened(m_session.get(), &Session::fileOpened);
    profile_actions::openFile(*m_session, &m_window, file("save.csv"));
    QTRY_COMPARE(opened.count(), 1);
    m_session->profile().markUnsaved();
    bool saved = false;
    profile_actions::save(*m_session, &m_window, [&saved](bool ok) { saved = ok; });
    QTRY_VERIFY(saved);
    QVERIFY(!m_session->profile().isModified());
    QCOMPARE(bytesOf(file("save.csv")), original);
  }

  void savingLocksIntoACsvIsAskedAbout() {
    writeBytes(file("locks.csv"), QByteArray::fromStdString(formatSvooCsv(makeProfile(3, 4, 2))));
    QSignalSpy opened(m_session.get(), &Session::fileOpened);
    profile_actions::openFile(*m_session, &m_window, file("locks.csv"));
    QTRY_COMPARE(opened.count(), 1);
    m_session->profile().apply(budget::toggleLocks(m_session->profile().current(), {1}));
    bool called = false, saved = true;
    profile_actions::save(*m_session, &m_window, [&](bool ok) { called = true, saved = ok; });
    auto* box = m_window.findChild<QMessageBox*>(QStringLiteral("saveCsvQuestion"));
    QVERIFY(box != nullptr);
    QVERIFY(box->text().contains(QStringLiteral("1 locks")));
    QTest::keyClick(box, Qt::Key_Escape);
    QTRY_VERIFY(called);
    QVERIFY(!saved);
    QVERIFY(m_session->profile().isModified());
  }

  void unsavedEditsAreAskedAbout() {
    m_session->profile().open(makeProfile(3, 4, 2), file("asked.json"));
    m_session->profile().apply(
        budget::setLayerMeans(m_session->profile().current(), {{1, 0.5}}, {}, SpreadMode::Shift).edit);
    int proceeded = 0;
    profile_actions::confirmDiscard(*m_session, &m_window, [&proceeded] { ++proceeded; });
    auto* box = m_window.findChild<QMessageBox*>(QStringLiteral("unsavedProfileQuestion"));
    QVERIFY(box != nullptr);
    QVERIFY(box->informativeText().contains(QStringLiteral("Set kept of L1 to 50 %")));
    QCOMPARE(proceeded, 0);
    box->button(QMessageBox::Save)->click();
    QTRY_COMPARE(proceeded, 1);
    QVERIFY(!m_session->profile().isModified());
    QVERIFY(readProfile(file("asked.json").toStdString()).layers() == 4);
  }

  void importShowsBothReadings() {
    Profile kept = makeProfile(3, 4, 2);
    QByteArray text("Step,Layer,Head,Sparsity\r\n");
    for (int s = 0; s < 3; ++s) {
      for (int l = 0; l < 4; ++l) {
        for (int h = 0; h < 2; ++h) {
          text += QByteArray::number(s + 1) + ',' + QByteArray::number(l) + ',' + QByteArray::number(h) + ',' +
                  QByteArray::number(std::round((1 - *kept.at({s, l, h})) * 1e4) / 1e4) + "\r\n";
        }
      }
    }
    writeBytes(file("foreign.csv"), text);
    profile_actions::openFile(*m_session, &m_window, file("foreign.csv"));
    // Values average above one half: nothing is opened before the question is answered.
    QTRY_VERIFY(m_window.findChild<ImportDialog*>() != nullptr);
    auto* dialog = m_window.findChild<ImportDialog*>();
    QVERIFY(m_session->profile().isEmpty());
    QVERIFY(dialog->convention() == ValueConvention::Skipped);
    sparsight::test::shot(*dialog, "import");
    dialog->accept();
    QTRY_VERIFY(!m_session->profile().isEmpty());
    for (int l = 0; l < 4; ++l)
      QVERIFY(std::abs(*m_session->profile().current().at({1, l, 1}) - *kept.at({1, l, 1})) < 1e-9);
    // The converted numbers must not be saved over the foreign file.
    QVERIFY(m_session->profile().filePath().isEmpty());
    QVERIFY(m_session->profile().isModified());
  }

  void importOfAMalformedFileSaysWhere() {
    writeBytes(file("broken.csv"), "Step,Layer,Head,Sparsity\r\n1,0,0,0.5\r\n1,0,x,0.5\r\n");
    profile_actions::importFile(*m_session, &m_window, file("broken.csv"));
    QTRY_VERIFY(m_window.findChild<ImportDialog*>() != nullptr);
    auto* dialog = m_window.findChild<ImportDialog*>();
    auto* issues = child<QListWidget>(*dialog, "import.issues");
    QCOMPARE(issues->count(), 1);
    QVERIFY2(issues->item(0)->text().contains(QStringLiteral("3")), qPrintable(issues->item(0)->text()));
    QSignalSpy errors(m_session.get(), &Session::errorOccurred);
    profile_actions::openFile(*m_session, &m_window, file("broken.csv"));
    QTRY_COMPARE(errors.count(), 1);
    QVERIFY(m_session->profile().isEmpty());
  }

  void actionsFollowTheState() {
    ProfileActions actions(*m_session, &m_window);
    QVERIFY(!actions.save->isEnabled() && !actions.exportProfile->isEnabled() && !actions.newProfile->isEnabled());
    QVERIFY(!actions.undo->isEnabled());
    m_session->profile().open(makeProfile(2, 3, 2), file("a.json"));
    QVERIFY(actions.exportProfile->isEnabled() && !actions.save->isEnabled());
    m_session->profile().apply(
        budget::setLayerMeans(m_session->profile().current(), {{1, 0.5}}, {}, SpreadMode::Shift).edit);
    QVERIFY(actions.save->isEnabled() && actions.undo->isEnabled());
    QVERIFY(actions.undo->text().contains(QStringLiteral("Set kept of L1 to 50 %")));
    actions.undo->trigger();
    QVERIFY(!actions.save->isEnabled() && actions.redo->isEnabled());
  }
};

SPARSIGHT_GUI_TEST_MAIN(TestExportDialog)
#include "tst_export_dialog.moc"

// SPDX-License-Identifier: Apache-2.0
#include "ui/profile_document.h"

#include <QFile>
#include <QSignalSpy>
#include <filesystem>

#include "sparsight/core/files.h"
#include "tests/gui/budget_support.h"
#include "ui/budget_edit.h"

using namespace sparsight;
using sparsight::test::makeProfile;

namespace {

ProfileEdit setMean(const Profile& profile, int layer, double value) {
  return budget::setLayerMeans(profile, {{layer, value}}, {}, SpreadMode::Shift).edit;
}
std::size_t journalFiles() {
  std::size_t count = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(userStateDir(), error)) {
    if (entry.is_regular_file()) ++count;
  }
  return count;
}

}  // namespace

class TestProfileDocument : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void opensAndCloses() {
    ProfileDocument document;
    QVERIFY(document.isEmpty());
    QSignalSpy changed(&document, &ProfileDocument::profileChanged);
    document.open(makeProfile(3, 5, 4), QStringLiteral("/tmp/some/p.csv"));
    QVERIFY(!document.isEmpty());
    QVERIFY(!document.isModified());
    QCOMPARE(document.displayName(), QStringLiteral("p.csv"));
    QVERIFY(document.current() == document.saved());
    QCOMPARE(changed.count(), 1);
    document.close();
    QVERIFY(document.isEmpty());
    QCOMPARE(changed.count(), 2);
  }

  void undoRestoresBitEqual() {
    ProfileDocument document;
    const Profile original = makeProfile(3, 5, 4);
    document.open(original, QStringLiteral("/tmp/p.csv"));
    std::vector<Profile> states{original};
    for (int i = 0; i < 5; ++i) {
      document.apply(setMean(document.current(), i, 0.3 + 0.1 * i));
      states.push_back(document.current());
    }
    QCOMPARE(document.undoStack().count(), 5);
    QVERIFY(document.isModified());
    for (std::size_t i = 5; i-- > 0;) {
      document.undoStack().undo();
      QVERIFY(document.current() == states[i]);
    }
    QVERIFY(!document.isModified());
    for (std::size_t i = 1; i <= 5; ++i) {
      document.undoStack().redo();
      QVERIFY(document.current() == states[i]);
    }
    QVERIFY(document.saved() == original);
  }

  void namesOfEdits() {
    ProfileDocument document;
    document.open(makeProfile(2, 20, 3), {});
    std::map<int, double> targets;
    for (int l = 12; l <= 18; ++l) targets[l] = 0.24;
    document.apply(budget::setLayerMeans(document.current(), targets, {}, SpreadMode::SetAll).edit);
    QCOMPARE(document.undoStack().undoText(), QStringLiteral("Set kept of L12-L18 to 24 %"));
    QCOMPARE(document.unsavedEdit(), QStringLiteral("Set kept of L12-L18 to 24 %"));
  }

  void gestureIsOneEntry() {
    ProfileDocument document;
    const Profile original = makeProfile(2, 6, 3);
    document.open(original, {});
    document.beginGesture();
    for (int i = 1; i <= 10; ++i) document.applyFromGestureStart(setMean(document.gestureStart(), 2, 0.02 * i));
    document.endGesture();
    QCOMPARE(document.undoStack().count(), 1);
    QVERIFY(std::abs(budget::summarise(document.current(), 2, {}).mean - 0.2) < 1e-3);
    document.undoStack().undo();
    QVERIFY(document.current() == original);

    // Two drags of the same layer are two entries.
    for (int drag = 0; drag < 2; ++drag) {
      document.beginGesture();
      document.applyFromGestureStart(setMean(document.gestureStart(), 2, 0.4 + 0.1 * drag));
      document.endGesture();
    }
    QCOMPARE(document.undoStack().count(), 2);
  }

  void gestureClampedOnTheWayComesBack() {
    ProfileDocument document;
    const Profile original = makeProfile(2, 6, 3);
    document.open(original, {});
    const double mean = budget::summarise(original, 3, {}).mean;
    document.beginGesture();
    document.applyFromGestureStart(setMean(document.gestureStart(), 3, 0.0));  // every head at the limit
    document.applyFromGestureStart(setMean(document.gestureStart(), 3, mean));
    document.endGesture();
    QVERIFY(document.current() == original);
    QCOMPARE(document.undoStack().count(), 0);
    QVERIFY(!document.isModified());
  }

  void gestureAppliedWithMergeId() {
    ProfileDocument document;
    document.open(makeProfile(2, 6, 3), {});
    document.beginGesture();
    for (int i = 1; i <= 4; ++i) document.apply(setMean(document.current(), 1, 0.1 * i), 7);
    document.endGesture();
    QCOMPARE(document.undoStack().count(), 1);
    // Another id, then none, inside one gesture: separate entries.
    document.beginGesture();
    document.apply(setMean(document.current(), 1, 0.5), 7);
    document.apply(setMean(document.current(), 2, 0.5), 8);
    document.apply(setMean(document.current(), 3, 0.5));
    document.apply(setMean(document.current(), 4, 0.5));
    document.endGesture();
    QCOMPARE(document.undoStack().count(), 5);
  }

  void cancelledGestureLeavesNothing() {
    ProfileDocument document;
    const Profile original = makeProfile(2, 6, 3);
    document.open(original, {});
    document.beginGesture();
    document.applyFromGestureStart(setMean(document.gestureStart(), 1, 0.9));
    QVERIFY(document.current() != original);
    document.cancelGesture();
    QVERIFY(document.current() == original);
    QVERIFY(!document.undoStack().canUndo());
    QVERIFY(!document.inGesture());
  }

  void burstsMerge() {
    ProfileDocument document;
    document.open(makeProfile(2, 6, 3), {});
    const Profile original = document.current();
    for (int i = 1; i <= 5; ++i) document.apply(setMean(document.current(), 1, 0.2 + 0.01 * i), 42);
    QCOMPARE(document.undoStack().count(), 1);
    document.apply(setMean(document.current(), 2, 0.5), 43);
    QCOMPARE(document.undoStack().count(), 2);
    QTest::qWait(ProfileDocument::kBurstMs + 150);
    document.apply(setMean(document.current(), 2, 0.6), 43);
    QCOMPARE(document.undoStack().count(), 3);
    while (document.undoStack().canUndo()) document.undoStack().undo();
    QVERIFY(document.current() == original);
  }

  void savingEndsABurst() {
    ProfileDocument document;
    document.open(makeProfile(2, 6, 3), {});
    document.apply(setMean(document.current(), 1, 0.2), 42);
    document.markSaved(QStringLiteral("/tmp/q.json"));
    QVERIFY(!document.isModified());
    document.apply(setMean(document.current(), 1, 0.3), 42);
    QCOMPARE(document.undoStack().count(), 2);
    QVERIFY(document.isModified());
    document.undoStack().undo();
    QVERIFY(!document.isModified());
    QCOMPARE(document.filePath(), QStringLiteral("/tmp/q.json"));
  }

  void editsDuringASaveStayUnsaved() {
    ProfileDocument document;
    document.open(makeProfile(2, 6, 3), {});
    document.apply(setMean(document.current(), 1, 0.2));
    const Profile written = document.current();
    document.apply(setMean(document.current(), 2, 0.4));
    document.markSaved(QStringLiteral("/tmp/q.json"), written);
    QVERIFY(document.isModified());
    QVERIFY(document.saved() == written);
  }

  void noOpIsNoEntry() {
    ProfileDocument document;
    document.open(makeProfile(2, 6, 3), {});
    ProfileEdit edit;
    edit.label = "nothing";
    const auto value = document.current().at({0, 0, 0});
    edit.cells.push_back({{0, 0, 0}, value, value});
    document.apply(edit);
    QCOMPARE(document.undoStack().count(), 0);
  }

  void undoLimit() {
    ProfileDocument document;
    document.open(makeProfile(1, 2, 2), {});
    QCOMPARE(document.undoStack().undoLimit(), 500);
    for (int i = 0; i < 520; ++i) document.apply(setMean(document.current(), i % 2, (i % 97) / 97.0));
    QVERIFY(document.undoStack().count() <= 500);
  }

  void journalExistsWhileUnsaved() {
    {
      ProfileDocument document;
      QSignalSpy failed(&document, &ProfileDocument::journalFailed);
      document.open(makeProfile(2, 6, 3), QStringLiteral("/tmp/journalled.json"));
      QCOMPARE(journalFiles(), std::size_t{0});
      document.apply(setMean(document.current(), 1, 0.2));
      document.beginGesture();
      document.applyFromGestureStart(setMean(document.gestureStart(), 2, 0.7));
      document.endGesture();
      QTRY_VERIFY(journalFiles() > 0);
      document.undoStack().undo();
      document.undoStack().undo();  // back to the file: nothing to recover
      QTRY_COMPARE(journalFiles(), std::size_t{0});
      document.undoStack().redo();
      QTRY_VERIFY(journalFiles() > 0);
      document.markSaved(QStringLiteral("/tmp/journalled.json"));
      QTRY_COMPARE(journalFiles(), std::size_t{0});
      document.apply(setMean(document.current(), 1, 0.9));
      QTRY_VERIFY(journalFiles() > 0);
      QCOMPARE(failed.count(), 0);
    }
    QCOMPARE(journalFiles(), std::size_t{0});  // discarded in order
  }

  void journalFailureIsToldOnce() {
    // A file stands where the journals' folder should be.
    const QByteArray before = qgetenv("XDG_STATE_HOME");
    QTemporaryDir blocked;
    qputenv("XDG_STATE_HOME", blocked.path().toLocal8Bit());
    QFile file(QString::fromStdString((userStateDir() / "journals").string()));
    QVERIFY(file.open(QIODevice::WriteOnly));
    ProfileDocument document;
    QSignalSpy failed(&document, &ProfileDocument::journalFailed);
    document.open(makeProfile(1, 3, 2), {});
    document.apply(setMean(document.current(), 0, 0.5));
    document.apply(setMean(document.current(), 1, 0.5));
    QTRY_COMPARE(failed.count(), 1);
    QVERIFY(!failed.first().first().toString().isEmpty());
    qputenv("XDG_STATE_HOME", before);
  }

  void recoveredEditsAreOneUndoableStep() {
    ProfileDocument document;
    const Profile base = makeProfile(2, 4, 3);
    Profile current = base;
    current.set({1, 2, 1}, 0.5);
    current.setLayerLocked(3, true);
    document.openRecovered(base, current, QStringLiteral("/tmp/r.json"));
    QVERIFY(document.current() == current);
    QVERIFY(document.isModified());
    QVERIFY(document.saved() == base);
    document.undoStack().undo();
    QVERIFY(document.current() == base);
  }
};

SPARSIGHT_GUI_TEST_MAIN(TestProfileDocument)
#include "tst_profile_document.moc"

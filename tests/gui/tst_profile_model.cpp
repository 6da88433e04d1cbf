// SPDX-License-Identifier: Apache-2.0
#include "ui/profile_model.h"

#include <QAbstractItemModelTester>
#include <QSignalSpy>

#include "sparsight/kernels/error.h"
#include "tests/gui/budget_support.h"
#include "ui/profile_document.h"

using namespace sparsight;
using sparsight::test::makeProfile;

class TestProfileModel : public QObject {
  Q_OBJECT
  using M = ProfileModel;

 private Q_SLOTS:
  void standsTheModelTester() {
    ProfileDocument document;
    ProfileModel model(document);
    QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::Fatal);
    QCOMPARE(model.rowCount(), 0);
    document.open(makeProfile(3, 7, 4), {});
    QCOMPARE(model.rowCount(), 7);
    QVERIFY(model.setData(model.index(2, M::KeptColumn), QStringLiteral("24")));
    QVERIFY(model.setData(model.index(2, M::KeptColumn), QStringLiteral("rubbish")));
    document.undoStack().undo();
    document.open(makeProfile(2, 30, 4), {});
    QCOMPARE(model.rowCount(), 30);
    document.close();
    QCOMPARE(model.rowCount(), 0);
  }

  void typedFormsAreRead_data() {
    QTest::addColumn<QString>("text");
    QTest::addColumn<double>("expected");  // NaN: refused
    const double no = std::nan("");
    QTest::newRow("percent") << "24" << 0.24;
    QTest::newRow("sign") << "24.5 %" << 0.245;
    QTest::newRow("comma") << "24,5" << 0.245;
    QTest::newRow("zero") << "0" << 0.0;
    QTest::newRow("all") << "100" << 1.0;
    QTest::newRow("prev") << "=prev" << 0.4;
    QTest::newRow("prev caps") << " =PREV " << 0.4;
    QTest::newRow("times") << "*1.1" << 0.22;
    QTest::newRow("equals times") << "=*1.5" << 0.3;
    QTest::newRow("divide") << "/2" << 0.1;
    QTest::newRow("plus points") << "+2" << 0.22;
    QTest::newRow("minus points") << "-2" << 0.18;
    QTest::newRow("minus sign") << QStringLiteral("\u22122") << 0.18;
    QTest::newRow("equals number") << "=30" << 0.3;
    QTest::newRow("exponent") << "1e1" << 0.1;
    QTest::newRow("over") << "130" << no;
    QTest::newRow("times over") << "*10" << no;
    QTest::newRow("below") << "-50" << no;
    QTest::newRow("by zero") << "/0" << no;
    QTest::newRow("thousands") << "1.000,5" << no;
    QTest::newRow("words") << "half" << no;
    QTest::newRow("empty") << "" << no;
    QTest::newRow("nan") << "nan" << no;
    QTest::newRow("inf") << "inf" << no;
    QTest::newRow("lone operator") << "*" << no;
    QTest::newRow("lone point") << "." << no;
    QTest::newRow("two numbers") << "1 2" << no;
  }
  void typedFormsAreRead() {
    QFETCH(QString, text);
    QFETCH(double, expected);
    const auto typed = budget::parseTyped(text, 0.2, 0.4);
    if (std::isnan(expected)) {
      QVERIFY(!typed.fraction.has_value());
      QVERIFY(!typed.error.isEmpty());
    } else {
      QVERIFY2(typed.fraction.has_value(), qPrintable(typed.error));
      QVERIFY(std::abs(*typed.fraction - expected) < 1e-12);
    }
    if (text.contains(QLatin1Char(',')) && typed.fraction)
      QVERIFY(typed.note.contains(QStringLiteral("decimal comma")));
  }

  void spreadsMeetTheMean_data() {
    QTest::addColumn<int>("mode");
    QTest::newRow("shift") << 0;
    QTest::newRow("scale") << 1;
    QTest::newRow("equal") << 2;
  }
  void spreadsMeetTheMean() {
    QFETCH(int, mode);
    const Profile profile = makeProfile(4, 6, 8);
    for (const double target : {0.0, 0.003, 0.08, 0.3, 0.77, 1.0}) {
      const auto made = budget::setLayerMeans(profile, {{2, target}}, {}, static_cast<SpreadMode>(mode));
      Profile edited = profile;
      made.edit.apply(edited);
      const ProfileSummary summary = budget::summarise(edited, 2, {});
      QVERIFY2(std::abs(summary.mean - target) <= 5.1e-5, qPrintable(QString::number(summary.mean)));
      QVERIFY(summary.min >= 0 && summary.max <= 1);
      made.edit.inverse().apply(edited);
      QVERIFY(edited == profile);
    }
    QVERIFY_THROWS_EXCEPTION(Error, (void)budget::setLayerMeans(profile, {{2, 1.2}}, {}, SpreadMode::Shift));
    QVERIFY_THROWS_EXCEPTION(Error, (void)budget::setLayerMeans(profile, {{2, std::nan("")}}, {}, SpreadMode::Shift));
  }

  void shiftKeepsHeadsApart() {
    const Profile profile = makeProfile(1, 3, 4);
    const double before = budget::summarise(profile, 1, {}).mean;
    const auto made = budget::setLayerMeans(profile, {{1, before + 0.05}}, {}, SpreadMode::Shift);
    QCOMPARE(made.clampedCells, Index{0});
    Profile edited = profile;
    made.edit.apply(edited);
    for (int h = 0; h < 4; ++h) QVERIFY(std::abs(*edited.at({0, 1, h}) - *profile.at({0, 1, h}) - 0.05) < 1e-4);
  }

  void scopeEditsOnlyItsCells() {
    ProfileDocument document;
    ProfileModel model(document);
    const Profile original = makeProfile(3, 4, 5);
    document.open(original, {});
    model.setScope({1, 2});
    QVERIFY(model.setData(model.index(3, M::KeptColumn), QStringLiteral("77")));
    for (int s = 0; s < 3; ++s) {
      for (int l = 0; l < 4; ++l) {
        for (int h = 0; h < 5; ++h) {
          const bool edited = s == 1 && l == 3 && h == 2;
          const double expected = edited ? 0.77 : *original.at({s, l, h});
          QCOMPARE(*document.current().at({s, l, h}), expected);
        }
      }
    }
  }

  void invalidTextStaysUntilFixed() {
    ProfileDocument document;
    ProfileModel model(document);
    const Profile original = makeProfile(3, 4, 5);
    document.open(original, {});
    QSignalSpy said(&model, &ProfileModel::message);
    const QModelIndex at = model.index(1, M::KeptColumn);
    QVERIFY(model.setData(at, QStringLiteral("130")));
    QVERIFY(document.current() == original);  // refused, not clamped
    QCOMPARE(at.data(Qt::DisplayRole).toString(), QStringLiteral("130"));
    QVERIFY(at.data(M::InvalidReasonRole).toString().contains(QStringLiteral("0 to 100 %")));
    QCOMPARE(said.last().at(1).toBool(), true);
    QCOMPARE(model.invalidCount(), 1);
    QVERIFY(model.setData(at, QStringLiteral("30")));
    QCOMPARE(model.invalidCount(), 0);
    QCOMPARE(at.data(Qt::DisplayRole).toString(), QStringLiteral("30.0"));
    model.setData(at, QStringLiteral("x"));
    model.discardInvalid(at);
    QCOMPARE(at.data(Qt::DisplayRole).toString(), QStringLiteral("30.0"));
  }

  void confirmingTheShownTextIsNoEdit() {
    ProfileDocument document;
    ProfileModel model(document);
    document.open(makeProfile(3, 4, 5), {});
    const QModelIndex at = model.index(1, M::KeptColumn);
    model.setData(at, at.data(Qt::EditRole));
    QCOMPARE(document.undoStack().count(), 0);
  }

  void locksAndNotes() {
    ProfileDocument document;
    ProfileModel model(document);
    document.open(makeProfile(2, 4, 3), {});
    const Profile original = document.current();
    QVERIFY(model.setData(model.index(2, M::LockColumn), true));
    QVERIFY(document.current().layerLocked(2));
    QVERIFY(!model.flags(model.index(2, M::KeptColumn)).testFlag(Qt::ItemIsEditable));
    QVERIFY(!model.setData(model.index(2, M::KeptColumn), QStringLiteral("50")));
    QVERIFY(model.setData(model.index(1, M::NoteColumn), QStringLiteral("keep\thigh")));
    QCOMPARE(document.current().layerNote(1), std::string("keep high"));
    QCOMPARE(document.undoStack().count(), 2);
    document.undoStack().undo();
    document.undoStack().undo();
    QVERIFY(document.current() == original);
  }

  void pasteIsOneEntry() {
    ProfileDocument document;
    ProfileModel model(document);
    document.open(makeProfile(2, 8, 3), {});
    const Profile original = document.current();
    document.apply(budget::toggleLocks(document.current(), {3}));
    QSignalSpy said(&model, &ProfileModel::message);
    QVERIFY(model.pasteTsv(model.index(2, M::KeptColumn), QStringLiteral("10\r\n20,5\r\n30 %\r\n=prev\r\n*2\r\n")));
    QCOMPARE(document.undoStack().count(), 2);
    const auto mean = [&](int l) { return budget::summarise(document.current(), l, {}).mean; };
    QVERIFY(std::abs(mean(2) - 0.10) < 1e-4);
    QVERIFY(std::abs(mean(3) - budget::summarise(original, 3, {}).mean) < 1e-12);  // locked
    QVERIFY(std::abs(mean(4) - 0.30) < 1e-4);
    QVERIFY(std::abs(mean(5) - 0.30) < 1e-4);
    QVERIFY(std::abs(mean(6) - 2 * budget::summarise(original, 6, {}).mean) < 1e-4);
    const QString text = said.last().first().toString();
    QVERIFY2(text.contains(QStringLiteral("locked")), qPrintable(text));
    document.undoStack().undo();
    document.undoStack().undo();
    QVERIFY(document.current() == original);
  }

  void pasteOfFractionsIsSaid() {
    ProfileDocument document;
    ProfileModel model(document);
    document.open(makeProfile(2, 4, 3), {});
    QSignalSpy said(&model, &ProfileModel::message);
    model.pasteTsv(model.index(0, M::KeptColumn), QStringLiteral("0.5\n0,25\n1\n"));
    QVERIFY(std::abs(budget::summarise(document.current(), 0, {}).mean - 0.5) < 1e-4);
    QVERIFY(std::abs(budget::summarise(document.current(), 1, {}).mean - 0.25) < 1e-4);
    QVERIFY(std::abs(budget::summarise(document.current(), 2, {}).mean - 1.0) < 1e-4);
    QVERIFY(said.last().first().toString().contains(QStringLiteral("fractions")));
  }

  void pasteKeepsBadCellsVisible() {
    ProfileDocument document;
    ProfileModel model(document);
    document.open(makeProfile(2, 4, 3), {});
    QSignalSpy said(&model, &ProfileModel::message);
    model.pasteTsv(model.index(0, M::KeptColumn), QStringLiteral("30\n300\nabc\n40\n50\n60"));
    QCOMPARE(model.invalidCount(), 2);
    QCOMPARE(model.index(1, M::KeptColumn).data().toString(), QStringLiteral("300"));
    const QString text = said.last().first().toString();
    QVERIFY2(text.contains(QStringLiteral("2 cells not taken")), qPrintable(text));
    QVERIFY2(text.contains(QStringLiteral("2 rows beyond")), qPrintable(text));
    QVERIFY(std::abs(budget::summarise(document.current(), 3, {}).mean - 0.4) < 1e-4);
    document.open(makeProfile(2, 4, 3), {});
    QCOMPARE(model.invalidCount(), 0);
  }

  void copyAndPasteRoundTrip() {
    ProfileDocument document;
    ProfileModel model(document);
    document.open(makeProfile(1, 6, 1), {});
    document.apply(budget::toggleLocks(document.current(), {5}));
    const Profile original = document.current();
    QModelIndexList all;
    for (int r = 0; r < 5; ++r) {
      for (int c = 0; c < M::ColumnCount; ++c) all << model.index(r, c);
    }
    const QString text = model.copyTsv(all);
    QCOMPARE(text.count(QLatin1Char('\n')), 5);
    QVERIFY(text.startsWith(QStringLiteral("L0\t")));
    // Whole rows go back where they came from; nothing changes.
    QVERIFY(model.pasteTsv(model.index(0, 0), text));
    QVERIFY(document.current() == original);
    QCOMPARE(model.invalidCount(), 0);
  }

  void fillsDown() {
    ProfileDocument document;
    ProfileModel model(document);
    document.open(makeProfile(2, 6, 3), {});
    const double source = budget::summarise(document.current(), 1, {}).mean;
    QModelIndexList rows;
    for (int r = 1; r < 5; ++r) rows << model.index(r, M::KeptColumn);
    QVERIFY(model.fillDown(rows));
    QCOMPARE(document.undoStack().count(), 1);
    for (int r = 1; r < 5; ++r) QVERIFY(std::abs(budget::summarise(document.current(), r, {}).mean - source) < 1e-4);
    QVERIFY(!model.fillDown({model.index(0, M::KeptColumn)}));
  }

  void holesStayHoles() {
    Profile profile = makeProfile(2, 3, 3);
    for (int h = 0; h < 3; ++h) {
      profile.set({0, 1, h}, std::nullopt);
      for (int s = 0; s < 2; ++s) profile.set({s, 2, h}, std::nullopt);
    }
    ProfileDocument document;
    ProfileModel model(document);
    document.open(profile, {});
    QVERIFY(!model.index(2, M::KeptColumn).data(M::FractionRole).isValid());
    model.setData(model.index(1, M::KeptColumn), QStringLiteral("50"));
    QVERIFY(!document.current().at({0, 1, 0}).has_value());
    QVERIFY(std::abs(budget::summarise(document.current(), 1, {}).mean - 0.5) < 1e-4);
    // A layer of holes has nothing to move: typing fills it.
    model.setData(model.index(2, M::KeptColumn), QStringLiteral("50"));
    QCOMPARE(budget::summarise(document.current(), 2, {}).count, Index{6});
  }

  void layerNamesAreShort() {
    QCOMPARE(budget::layerNames({12}), QStringLiteral("L12"));
    QCOMPARE(budget::layerNames({14, 12, 13}), QStringLiteral("L12-L14"));
    QCOMPARE(budget::layerNames({1, 3, 4, 9}), QStringLiteral("L1, L3-L4, L9"));
    QVERIFY(budget::layerNames({0, 2, 4, 6, 8, 10}).contains(QStringLiteral("6 layers")));
  }
};

SPARSIGHT_GUI_TEST_MAIN(TestProfileModel)
#include "tst_profile_model.moc"

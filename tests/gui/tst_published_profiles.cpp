// SPDX-License-Identifier: Apache-2.0
// Published budget profiles through the window: opened with Ctrl+O, shown, saved and exported again byte for byte.
#include <QApplication>
#include <QDir>
#include <QFile>
#include <QFileDialog>
#include <QFileInfo>
#include <QLineEdit>
#include <QPushButton>
#include <QTableView>
#include <QTest>

#include "sparsight/core/profile.h"
#include "tests/gui/gui_fixture.h"
#include "ui/banner.h"
#include "ui/main_window.h"
#include "ui/profile_model.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view_host.h"

using namespace sparsight;
using namespace sparsight::test;

class TstPublishedProfiles : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;

  static QByteArray contents(const QString& path) {
    QFile file(path);
    return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
  }

  /// Presses the keys that ask for a file, and chooses `path` in the dialog that comes.
  static bool chooseFile(MainWindow& window, Qt::Key key, Qt::KeyboardModifiers modifiers, const QString& path) {
    QApplication::setActiveWindow(&window);  // a bare X server has no window manager that would
    QTest::keyClick(&window, key, modifiers);
    QFileDialog* dialog = nullptr;
    const bool asked = eventually(
        [&] {
          for (auto* candidate : window.findChildren<QFileDialog*>())
            if (candidate->isVisible()) dialog = candidate;
          return dialog != nullptr;
        },
        5000);
    if (!asked) return false;
    dialog->selectFile(path);
    return QMetaObject::invokeMethod(dialog, "accept") &&
           eventually([&] { return QApplication::activeModalWidget() == nullptr; }, 5000);
  }

 private Q_SLOTS:
  void initTestCase() { QCoreApplication::setAttribute(Qt::AA_DontUseNativeDialogs); }

  void opensShowsAndSavesByteIdentical_data() {
    QTest::addColumn<QString>("path");
    QTest::newRow("small, committed") << QStringLiteral(SPARSIGHT_SOURCE_DIR "/tests/golden/svoo_profile.csv");
    for (const char* name :
         {"sparsity_hunyuan10_13B_i2v", "sparsity_hunyuan10_13B_t2v", "sparsity_wan22_A14B_i2v",
          "sparsity_wan22_A14B_t2v", "sparsity_wan_1.3B_t2v", "sparsity_wan_14B_i2v", "sparsity_wan_14B_t2v"})
      QTest::newRow(name) << QStringLiteral(SPARSIGHT_TEST_DATA "/profiles/%1.csv").arg(QLatin1String(name));
  }

  void opensShowsAndSavesByteIdentical() {
    QFETCH(QString, path);
    if (!QFile::exists(path)) QSKIP(qPrintable(QStringLiteral("%1 is not here").arg(path)));
    path = QFileInfo(path).canonicalFilePath();
    const QByteArray original = contents(path);
    QVERIFY(original.size() > 100);
    const Profile expected = readSvooCsv(path.toStdString()).profile;

    Session session;
    MainWindow window(session, Settings());
    window.resize(1600, 1000);
    window.show();
    QVERIFY(QTest::qWaitForWindowExposed(&window));
    QApplication::setActiveWindow(&window);

    QVERIFY(chooseFile(window, Qt::Key_O, Qt::ControlModifier, path));
    QVERIFY(eventually([&] { return session.profile().filePath() == path; }, 20'000));
    QVERIFY2(window.banners().count() == 0, qPrintable(window.banners().topText()));
    QVERIFY(session.profile().current() == expected);
    QVERIFY(!session.profile().isModified());

    // Shown: heat map in front, with more than axes; a row per layer in the table, the mean that the file has.
    View* heat = window.view(QStringLiteral("heatmap"));
    QVERIFY(eventually([&] { return heat->isVisible() && heat->isSettled() && session.jobs().idle(); }));
    QVERIFY(countColors(heat->grab().toImage()) > 60);
    auto* table = window.findChild<QTableView*>(QStringLiteral("budget.table"));
    QVERIFY(eventually([&] { return table->isVisible(); }));
    QCOMPARE(table->model()->rowCount(), expected.layers());
    const int last = expected.layers() - 1;
    const double shown =
        table->model()->index(last, ProfileModel::KeptColumn).data().toString().remove(QLatin1Char('%')).toDouble();
    QVERIFY2(std::abs(shown / 100 - summariseLayer(expected, last).mean) < 6e-4, qPrintable(QString::number(shown)));

    const QString saved = m_home.file(QFileInfo(path).completeBaseName() + QStringLiteral("-saved.csv"));
    QVERIFY(chooseFile(window, Qt::Key_S, Qt::ControlModifier | Qt::ShiftModifier, saved));
    QVERIFY(eventually([&] { return session.profile().filePath() == saved; }, 20'000));
    QVERIFY(contents(saved) == original);
    QApplication::setActiveWindow(&window);

    // Ctrl+E, as the file that a runtime loads.
    const QString exported = m_home.file(QFileInfo(path).completeBaseName() + QStringLiteral("-exported.csv"));
    QTest::keyClick(&window, Qt::Key_E, Qt::ControlModifier);
    QDialog* dialog = nullptr;
    QVERIFY(eventually([&] {
      dialog = window.findChild<QDialog*>(QStringLiteral("exportDialog"));
      return dialog != nullptr && dialog->isVisible();
    }));
    auto* where = dialog->findChild<QLineEdit*>(QStringLiteral("export.path"));
    where->selectAll();
    QTest::keyClicks(where, exported);
    auto* go = dialog->findChild<QPushButton*>(QStringLiteral("export.go"));
    QVERIFY(eventually([&] { return go->isEnabled(); }));
    QTest::mouseClick(go, Qt::LeftButton);
    QVERIFY(eventually([&] { return QFile::exists(exported); }));
    QVERIFY(eventually([&] { return session.jobs().idle(); }));
    QVERIFY(contents(exported) == original);

    QApplication::setActiveWindow(&window);

    // An edit and its undo leave no trace in the file either.
    window.showView(QStringLiteral("budget"));
    const QModelIndex cell = table->model()->index(0, ProfileModel::KeptColumn);
    QTest::mouseClick(table->viewport(), Qt::LeftButton, {}, table->visualRect(cell).center());
    QTest::keyClick(table, Qt::Key_F2);
    auto* editor = table->findChild<QLineEdit*>();
    QVERIFY(editor != nullptr);
    editor->selectAll();
    QTest::keyClicks(editor, QStringLiteral("*0.9"));
    QTest::keyClick(editor, Qt::Key_Return);
    QVERIFY(eventually([&] { return session.profile().isModified(); }));
    QTest::keyClick(&window, Qt::Key_S, Qt::ControlModifier);
    QVERIFY(eventually([&] { return !session.profile().isModified(); }));
    QVERIFY(contents(saved) != original);
    QTest::keyClick(&window, Qt::Key_Z, Qt::ControlModifier);
    QVERIFY(session.profile().current() == expected);
    QTest::keyClick(&window, Qt::Key_S, Qt::ControlModifier);
    QVERIFY(eventually([&] { return !session.profile().isModified() && session.jobs().idle(); }));
    QVERIFY(contents(saved) == original);
    QVERIFY2(window.banners().count() == 0, qPrintable(window.banners().topText()));
  }
};

QTEST_MAIN(TstPublishedProfiles)
#include "tst_published_profiles.moc"

// SPDX-License-Identifier: Apache-2.0
#include <QComboBox>
#include <QLabel>
#include <QSignalSpy>
#include <QSlider>
#include <QToolButton>
#include <filesystem>

#include "sparsight/core/files.h"
#include "tests/gui/budget_support.h"
#include "ui/budget_edit.h"
#include "ui/heatmap_curve.h"
#include "ui/heatmap_grid.h"
#include "ui/session.h"

using namespace sparsight;
using sparsight::test::makeProfile;

class TestHeatmap : public QObject {
  Q_OBJECT
  std::unique_ptr<Session> m_session;
  std::unique_ptr<View> m_view;
  HeatGrid* m_grid = nullptr;

  template <class T>
  T* child(const char* name) {
    return m_view->findChild<T*>(QLatin1String(name));
  }
  void select(int step, int layer, int head) {
    Selection next = m_session->selection();
    next.step = step;
    next.layer = layer;
    next.head = head;
    m_session->setSelection(next);
    QCoreApplication::processEvents();
  }
  [[nodiscard]] QPoint cell(int row, int column) const { return m_grid->cellRect(row, column).center().toPoint(); }

 private Q_SLOTS:
  void init() {
    JobQueueOptions options;
    options.threads = 1;
    m_session = std::make_unique<Session>(options);
    m_view = sparsight::test::makeView(*m_session, "heatmap");
    QVERIFY(m_view != nullptr);
    m_view->resize(1100, 560);
    m_view->show();
    QVERIFY(QTest::qWaitForWindowExposed(m_view.get()));
    m_grid = child<HeatGrid>("heatmap.grid");
    m_session->profile().open(makeProfile(12, 20, 16), {});
    select(10, 12, 3);
  }
  void cleanup() {
    m_view.reset();
    m_session.reset();
  }

  void showsTheStep() {
    const HeatMatrix& matrix = m_grid->matrix();
    QCOMPARE(matrix.rows, 20);
    QCOMPARE(matrix.columns, 16);
    for (int l = 0; l < 20; ++l) {
      for (int h = 0; h < 16; ++h) QCOMPARE(matrix.at(l, h), *m_session->profile().current().at({10, l, h}));
    }
    QCOMPARE(matrix.quantity, QStringLiteral("kept fraction"));
    QCOMPARE(child<QSlider>("heatmap.steps")->value(), 10);
    QVERIFY(child<QLabel>("heatmap.step")->text().contains(QStringLiteral("step index 10 (11th of 12)")));
  }

  void readoutNamesTheCell() {
    QTest::mouseMove(m_grid, cell(7, 5));
    QMouseEvent move(QEvent::MouseMove, cell(7, 5), m_grid->mapToGlobal(cell(7, 5)), Qt::NoButton, Qt::NoButton, {});
    QCoreApplication::sendEvent(m_grid, &move);
    const double value = *m_session->profile().current().at({10, 7, 5});
    QCOMPARE(child<QLabel>("heatmap.readout")->text(),
             QStringLiteral("step index 10 (11th), layer 7, head 5: kept %1 % (skipped %2 %)")
                 .arg(budget::percentDigits(value), budget::percentDigits(1 - value)));
  }

  void clickAndKeysSelectEverywhere() {
    QTest::mouseClick(m_grid, Qt::LeftButton, {}, cell(4, 9));
    QCOMPARE(m_session->selection().layer, 4);
    QCOMPARE(m_session->selection().head, 9);
    QTest::keyClick(m_grid, m_grid->isTransposed() ? Qt::Key_Right : Qt::Key_Down);
    QCOMPARE(m_session->selection().layer, 5);
    QTest::keyClick(m_grid, m_grid->isTransposed() ? Qt::Key_Up : Qt::Key_Left);
    QCOMPARE(m_session->selection().head, 8);
    QTest::keyClick(m_grid, Qt::Key_Home, Qt::ControlModifier);
    QCOMPARE(m_session->selection().layer, 0);
    QCOMPARE(m_session->selection().head, 0);
    QTest::keyClick(m_view.get(), Qt::Key_Period);
    QCOMPARE(m_session->selection().step, 11);
  }

  void sliderAndPlayMoveTheStep() {
    auto* slider = child<QSlider>("heatmap.steps");
    slider->setValue(4);
    QCOMPARE(m_session->selection().step, 4);
    QCoreApplication::processEvents();
    QCOMPARE(m_grid->matrix().at(3, 3), *m_session->profile().current().at({4, 3, 3}));
    auto* play = child<QToolButton>("heatmap.play");
    play->setChecked(true);
    QTRY_VERIFY(m_session->selection().step != 4);
    play->setChecked(false);
  }

  void overviewIsTheMeanOverHeads() {
    child<QComboBox>("heatmap.mode")->setCurrentIndex(1);
    const HeatMatrix& matrix = m_grid->matrix();
    QCOMPARE(matrix.rows, 20);
    QCOMPARE(matrix.columns, 12);
    double mean = 0;
    for (int h = 0; h < 16; ++h) mean += *m_session->profile().current().at({5, 7, h});
    QVERIFY(std::abs(matrix.at(7, 5) - mean / 16) < 1e-12);
    QTest::mouseClick(m_grid, Qt::LeftButton, {}, cell(7, 5));
    QCOMPARE(m_session->selection().step, 5);
    QCOMPARE(m_session->selection().layer, 7);
  }

  void holesAreHatchedAndLocksMarked() {
    Profile profile = makeProfile(2, 6, 6);
    profile.set({0, 2, 3}, std::nullopt);
    profile.setLayerLocked(4, true);
    m_session->profile().open(profile, {});
    select(0, 0, 0);
    QVERIFY(std::isnan(m_grid->matrix().at(2, 3)));
    QVERIFY(m_grid->matrix().markedRows[4]);
    QTest::mouseMove(m_grid, QPoint(1, 1));
    // The hatch is two tones of the no-data colours, not one of the map's.
    const QImage image = m_grid->grab().toImage();
    const QRectF box = m_grid->cellRect(2, 3).adjusted(2, 2, -2, -2);
    const double ratio = image.devicePixelRatio();
    QSet<QRgb> colors;
    for (int y = 0; y < static_cast<int>(box.height() * ratio); ++y) {
      for (int x = 0; x < static_cast<int>(box.width() * ratio); ++x) {
        colors.insert(image.pixel(static_cast<int>(box.left() * ratio) + x, static_cast<int>(box.top() * ratio) + y));
      }
    }
    QVERIFY(colors.size() > 1);
    QVERIFY(colors.contains(Theme::current().noData.rgb()));
    QVERIFY(child<QLabel>("heatmap.summary")->text().contains(QStringLiteral("1 holes")));
  }

  void differenceIsSymmetric() {
    const Profile mine = m_session->profile().current();
    Profile other = mine;
    other.set({10, 2, 2}, std::min(1.0, *mine.at({10, 2, 2}) + 0.10));
    other.set({10, 3, 3}, 0.0);
    QTemporaryDir dir;
    const QString path = dir.filePath(QStringLiteral("other.json"));
    writeProfile(path.toStdString(), other);
    QJsonObject state;
    state[QStringLiteral("difference")] = path;
    m_view->restoreState(state);
    QVERIFY(!m_view->isSettled());
    QTRY_VERIFY(m_view->isSettled());
    const HeatMatrix& matrix = m_grid->matrix();
    QVERIFY(matrix.diverging);
    QCOMPARE(matrix.range.minimum, -matrix.range.maximum);
    QVERIFY(std::abs(matrix.at(2, 2) + 0.10) < 1e-9);
    QCOMPARE(matrix.at(3, 3), *mine.at({10, 3, 3}));
    QCOMPARE(matrix.at(5, 5), 0.0);
    QVERIFY(child<QLabel>("heatmap.summary")->text().startsWith(QStringLiteral("2 cells differ")));
    sparsight::test::shot(*m_view, "heatmap_difference");
  }

  void badSecondFileIsTold() {
    QTemporaryDir dir;
    const QString path = dir.filePath(QStringLiteral("bad.csv"));
    writeFileAtomically(path.toStdString(), std::string_view("hello\n"));
    QSignalSpy errors(m_session.get(), &Session::errorOccurred);
    QJsonObject state;
    state[QStringLiteral("difference")] = path;
    m_view->restoreState(state);
    QTRY_COMPARE(errors.count(), 1);
    QVERIFY(m_view->isSettled());
    QVERIFY(!m_grid->matrix().diverging);
  }

  void editsArriveAtOnce() {
    m_session->profile().apply(
        budget::setLayerMeans(m_session->profile().current(), {{12, 0.9}}, {}, SpreadMode::SetAll).edit);
    QCoreApplication::processEvents();
    QCOMPARE(m_grid->matrix().at(12, 3), 0.9);
  }

  void publishedProfilesLookRight() {
    for (const char* name : {"sparsity_hunyuan10_13B_t2v.csv", "sparsity_wan22_A14B_t2v.csv"}) {
      const QString path = sparsight::test::realProfile(name);
      if (path.isEmpty()) QSKIP("no published profiles here: the data folder is absent");
      m_session->profile().open(readProfile(path.toStdString()), path);
      select(10, 12, 3);
      QVERIFY(m_grid->matrix().rows == 60 || m_grid->matrix().rows == 40);
      const QByteArray id(m_grid->matrix().rows == 60 ? "heatmap_hunyuan" : "heatmap_wan");
      sparsight::test::shot(*m_view, id.constData());
      child<QComboBox>("heatmap.mode")->setCurrentIndex(1);
      sparsight::test::shot(*m_view, QByteArray(id + "_overview").constData());
      child<QComboBox>("heatmap.mode")->setCurrentIndex(0);
    }
    m_view->resize(1150, 230);  // as in a bottom dock
    child<QComboBox>("heatmap.scale")->setCurrentIndex(1);
    sparsight::test::shot(*m_view, "heatmap_low");
  }

  void worksWithoutAProfile() {
    m_session->profile().close();
    QCoreApplication::processEvents();
    QTRY_VERIFY(!m_grid->isVisible());
  }
};

SPARSIGHT_GUI_TEST_MAIN(TestHeatmap)
#include "tst_heatmap.moc"

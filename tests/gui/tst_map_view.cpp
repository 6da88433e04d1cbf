// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>
#include <QApplication>
#include <QComboBox>
#include <QImage>
#include <QSignalSpy>
#include <QTemporaryDir>
#include <QTest>

#include <filesystem>

#include "sparsight/core/map_cache.h"
#include "sparsight/core/run.h"
#include "sparsight/core/synth.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {

class TestMapView : public QObject {
  Q_OBJECT

 private:
  std::filesystem::path m_trace;
  std::unique_ptr<Session> m_session;
  std::unique_ptr<View> m_view;

  TileCanvas& canvas() { return *m_view->findChild<TileCanvas*>(); }
  QComboBox& combo(const char* name) {
    for (QComboBox* box : m_view->findChildren<QComboBox*>()) {
      if (box->accessibleName() == QLatin1String(name)) return *box;
    }
    qFatal("no combo box %s", name);
  }
  void waitSettled() {
    QVERIFY(QTest::qWaitFor([this] { return m_view->isSettled(); }, 60000));
  }

 private Q_SLOTS:
  void initTestCase() {
    Theme::apply(true);
    m_trace = std::filesystem::temp_directory_path() / ("sparsight-map-view-" + std::to_string(::getpid()) + ".h5");
    SynthSpec spec;
    spec.frames = 4;
    spec.height = 8;
    spec.width = 10;
    spec.textTokens = 24;
    spec.layers = 2;
    spec.heads = 3;
    spec.steps = 2;
    spec.headDim = 16;
    Executor executor(2);
    writeSyntheticTrace(m_trace, spec, executor, Control{});
  }
  void cleanupTestCase() { std::filesystem::remove(m_trace); }

  void init() {
    JobQueueOptions options;
    options.backendId = "cpu";
    options.threads = 1;
    m_session = std::make_unique<Session>(options);
    m_view.reset(viewById(u"map")->create(*m_session, nullptr));
    connect(m_session.get(), &Session::changed, m_view.get(),
            [this](ChangeFlags changes) { m_view->sessionChanged(changes); });
    m_view->resize(1000, 760);
    m_view->show();
    QVERIFY(QTest::qWaitForWindowExposed(m_view.get()));
  }
  void cleanup() {
    m_view.reset();
    m_session.reset();
  }

  void open() {
    m_session->openFile(QString::fromStdString(m_trace.string()));
    QVERIFY(QTest::qWaitFor([this] { return m_session->trace() != nullptr; }, 30000));
    QVERIFY(QTest::qWaitFor([this] { return canvas().map() != nullptr; }, 30000));
    waitSettled();
  }

  void saysWhatIsMissingWithoutATrace() {
    QVERIFY(m_view->isSettled());
    QVERIFY(!canvas().map());
    const QImage empty = m_view->grab().toImage();
    open();
    QVERIFY(m_view->grab().toImage() != empty);
  }

  void followsTheSelectionAndComesBackAtOnce() {
    open();
    const auto first = canvas().map();
    QCOMPARE(first->head().id.head, m_session->selection().head);
    canvas().setFocus();
    QTest::keyClick(&canvas(), Qt::Key_BracketRight);
    QVERIFY(QTest::qWaitFor([&] { return canvas().map() && canvas().map() != first; }, 30000));
    QCOMPARE(canvas().map()->head().id.head, m_session->selection().head);
    QCOMPARE(m_session->selection().head, 1);
    waitSettled();
    QTest::keyClick(&canvas(), Qt::Key_BracketLeft);
    QTest::qWait(20);
    QCOMPARE(canvas().map(), first);
    QVERIFY(!canvas().isApproximate());
    QTest::keyClick(&canvas(), Qt::Key_PageDown);
    QTest::keyClick(&canvas(), Qt::Key_Period);
    QVERIFY(QTest::qWaitFor([&] { return canvas().map() && canvas().map()->head().id.call.layer == 1; }, 30000));
    waitSettled();
    QCOMPARE(canvas().map()->head().id.call.step, m_session->selection().step);
  }

  void colourLimitsAreFittedOnceAndThenStay() {
    open();
    const ValueRange fitted = canvas().colors().range;
    QVERIFY(fitted != ValueRange{});
    canvas().setFocus();
    QTest::keyClick(&canvas(), Qt::Key_BracketRight);
    QTest::qWait(50);
    waitSettled();
    QCOMPARE(canvas().colors().range, fitted);
  }

  void controlsAndKeysAgree() {
    open();
    canvas().setFocus();
    combo("pooling").setCurrentIndex(1);
    QCOMPARE(canvas().reduce(), Reduce::Mean);
    QTest::keyClick(&canvas(), Qt::Key_L);
    QCOMPARE(combo("scale").currentData().toString(), QStringLiteral("linear"));
    combo("scale").setCurrentIndex(0);
    QCOMPARE(canvas().colors().range.scale, ValueScale::Log);
    QTest::keyClick(&canvas(), Qt::Key_C);
    QCOMPARE(combo("colours").currentData().toString().toStdString(),
             std::string(paletteName(canvas().colors().palette)));
    waitSettled();
  }

  void stateRoundTrips() {
    open();
    combo("pooling").setCurrentIndex(1);
    canvas().setViewport({100, 50, 60, 60});
    canvas().setMinimapShown(false);
    ColorSettings colors = canvas().colors();
    colors.palette = Palette::Cividis;
    colors.range.minimum = 1e-5;
    colors.range.maximum = 0.25;
    canvas().setColors(colors);
    waitSettled();
    const QJsonObject saved = m_view->saveState();
    cleanup();
    init();
    m_view->restoreState(saved);
    open();
    QCOMPARE(canvas().reduce(), Reduce::Mean);
    QCOMPARE(canvas().colors(), colors);
    QCOMPARE(canvas().viewport(), (MapViewport{100, 50, 60, 60}));
    QVERIFY(!canvas().minimapShown());
    QCOMPARE(m_view->saveState(), saved);
    m_view->restoreState(QJsonObject{{QStringLiteral("unknown"), 1}, {QStringLiteral("minimum"), QStringLiteral("x")}});
    QCOMPARE(canvas().colors(), colors);
  }

  void resultBringsOverlayOrderAndStrips() {
    open();
    const HeadId id = *m_session->selectedHead();
    const Index n = canvas().map()->rows();
    auto report = std::make_shared<HeadReport>();
    report->id = id;
    report->plan = densePlan(n, n);
    report->plan.methodId = "svg";
    report->plan.qBounds = report->plan.kBounds = {0, n / 2, n};
    report->plan.blockMask = {1, 0, 0, 1};
    for (Index i = 0; i < n; ++i) report->plan.qOrder.push_back(n - 1 - i);
    report->plan.kOrder = report->plan.qOrder;
    m_session->addResult(report, QStringLiteral("svg"));
    m_session->setOverlayMethod(QStringLiteral("svg"));
    QTest::qWait(50);
    waitSettled();
    QCOMPARE(combo("overlay").count(), 2);
    QCOMPARE(combo("overlay").currentIndex(), 1);
    QVERIFY(!canvas().currentScene().draws.empty());
    QVERIFY(canvas().currentScene().draws.back().kept != nullptr);
    canvas().setPicked(2, 3);
    QCOMPARE(canvas().readout().kept, std::optional<bool>(true));
    canvas().setPicked(2, n - 3);
    QCOMPARE(canvas().readout().kept, std::optional<bool>(false));

    const auto model = canvas().map();
    combo("order").setCurrentIndex(1);
    QVERIFY(QTest::qWaitFor([&] { return canvas().map() && canvas().map() != model; }, 30000));
    waitSettled();
    QCOMPARE(canvas().map()->keyAt(0), n - 1);
    QCOMPARE(m_session->pair().key, -1);
    combo("overlay").setCurrentIndex(0);
    waitSettled();
    QVERIFY(canvas().currentScene().draws.back().kept == nullptr);
    combo("order").setCurrentIndex(0);
    QVERIFY(QTest::qWaitFor([&] { return canvas().map() == model; }, 30000));
  }

  void pickedPairIsShared() {
    open();
    canvas().setViewport({0, 0, 60, 60});
    waitSettled();
    QTest::mouseClick(&canvas(), Qt::RightButton, Qt::NoModifier, canvas().cellRect(20, 30).center().toPoint());
    QCOMPARE(m_session->pair(), (PickedPair{20, 30}));
    m_session->setPair({40, 41});
    QTRY_COMPARE(canvas().readout().row, Index{40});
    QCOMPARE(canvas().readout().col, Index{41});
  }

  void closingWhileComputingIsSafe() {
    m_session->openFile(QString::fromStdString(m_trace.string()));
    QVERIFY(QTest::qWaitFor([this] { return m_session->trace() != nullptr; }, 30000));
    m_view.reset();
    m_session.reset();
  }

  void aHeadComesBackFromDiskAndItsNeighboursAreMadeReady() {
    const QTemporaryDir folder;
    const auto cache =
        std::make_shared<MapCache>(folder.filePath(QStringLiteral("maps")).toStdString(), Index{1} << 26);
    for (const bool again : {false, true}) {
      m_view.reset();
      JobQueueOptions options;
      options.backendId = "cpu";
      options.threads = 1;
      m_session = std::make_unique<Session>(std::move(options));
      m_session->setMapCache(cache);
      m_view.reset(viewById(u"map")->create(*m_session, nullptr));
      connect(m_session.get(), &Session::changed, m_view.get(),
              [this](ChangeFlags what) { m_view->sessionChanged(what); });
      m_view->resize(1000, 700);
      m_view->show();
      m_session->openFile(QString::fromStdString(m_trace.string()));
      QVERIFY(QTest::qWaitFor([this] { return canvas().map() != nullptr; }, 60000));
      waitSettled();
      QCOMPARE(canvas().map()->fromCache(), again);
      const QString status = m_view->statusParts().join(QLatin1Char(';'));
      QCOMPARE(status.contains(QStringLiteral("from disk")), again);
      QVERIFY2(status.contains(QStringLiteral("heads ")), qPrintable(status));
      // Its queries and keys come after the picture, by themselves.
      QVERIFY(QTest::qWaitFor([this] { return canvas().map()->readoutIfKnown(1, 2).has_value(); }, 60000));
      // The neighbours come without being looked at: then they show at once, from memory.
      QVERIFY(QTest::qWaitFor(
          [&] { return cache->bytes() > 0 && m_view->statusParts().join(QLatin1Char(';')) != status; }, 60000));
      QVERIFY(QTest::qWaitFor([this] { return m_session->jobs().idle(); }, 60000));
      QTest::qWait(1500);
      QVERIFY(QTest::qWaitFor([this] { return m_session->jobs().idle(); }, 60000));
      const auto before = canvas().map();
      m_session->moveSelection(0, 0, 1);
      QTest::qWait(0);
      QVERIFY(QTest::qWaitFor([&] { return canvas().map() != before && canvas().map() != nullptr; }, 60000));
      QVERIFY2(canvas().map()->exact(), "made ready before it was looked at");
      waitSettled();
    }
    // What was kept can vanish at any time.
    std::filesystem::remove_all(cache->folder());
    m_session->moveSelection(0, 1, 0);
    QTest::qWait(0);
    waitSettled();
    QVERIFY(canvas().map() != nullptr && canvas().map()->exact());
  }
};

}  // namespace sparsight

using sparsight::TestMapView;
QTEST_MAIN(TestMapView)
#include "tst_map_view.moc"

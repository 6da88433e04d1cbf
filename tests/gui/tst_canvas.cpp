// SPDX-License-Identifier: Apache-2.0
#include <QApplication>
#include <QClipboard>
#include <QImage>
#include <QSignalSpy>
#include <QTest>
#include <QWheelEvent>
#include <cmath>
#include <numeric>
#include <random>

#include "ui/canvas/raster_painter.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/job_bridge.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// A head of `frames` frames of h x w tokens and a text segment, whose queries look at their own frame.
struct Head {
  std::vector<float> q, k;
  std::vector<std::uint8_t> keyValid;
  HeadData data;

  Head(int frames, int height, int width, int text, bool padding = false) {
    const Index video = Index{frames} * height * width, n = video + text;
    constexpr Index kDim = 16;
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    std::vector<float> frameVector(at(frames * kDim));
    for (float& x : frameVector) x = normal(random) * 1.6F;
    q.resize(at(n * kDim));
    k.resize(at(n * kDim));
    for (Index t = 0; t < n; ++t) {
      const Index frame = t < video ? t / (Index{height} * width) : -1;
      for (Index d = 0; d < kDim; ++d) {
        const float base = frame < 0 ? 0.0F : frameVector[at(frame * kDim + d)];
        q[at(t * kDim + d)] = base + normal(random) * 0.7F;
        k[at(t * kDim + d)] = base + normal(random) * 0.7F;
      }
    }
    data.input.q = viewOf(q, n, kDim);
    data.input.k = viewOf(k, n, kDim);
    data.input.scale = 0.5;
    data.layout.tokenCount = n;
    data.layout.segments.push_back({SegmentKind::Video, 0, video, frames, height, width});
    if (text > 0) data.layout.segments.push_back({SegmentKind::Text, video, text, 0, 0, 0});
    if (padding) {
      keyValid.assign(at(n), 1);
      std::fill(keyValid.end() - text / 2, keyValid.end(), std::uint8_t{0});
      data.input.keyValid = data.input.queryValid = keyValid;
    }
  }
  [[nodiscard]] std::shared_ptr<AttentionMap> map() const { return std::make_shared<AttentionMap>(data); }
  [[nodiscard]] AxisSpec axis() const {
    return layoutAxis(data.layout, data.layout.tokenCount, [](Index i) { return i; });
  }
};

/// Frame-diagonal blocks, as a spatial head's method keeps them.
std::shared_ptr<const Plan> diagonalPlan(Index tokens, Index block) {
  auto plan = std::make_shared<Plan>();
  plan->queryCount = plan->keyCount = tokens;
  for (Index edge = 0; edge < tokens; edge += block) plan->qBounds.push_back(edge);
  plan->qBounds.push_back(tokens);
  plan->kBounds = plan->qBounds;
  const Index blocks = plan->qBlocks();
  plan->blockMask.assign(at(blocks * blocks), 0);
  for (Index b = 0; b < blocks; ++b) plan->blockMask[at(b * blocks + b)] = 1;
  return plan;
}

void wheel(QWidget& widget, const QPointF& position, int notches, Qt::KeyboardModifiers keys = Qt::NoModifier) {
  const QPoint delta(0, notches * 120);
  QWheelEvent event(position, widget.mapToGlobal(position), QPoint(), delta, Qt::NoButton, keys, Qt::NoScrollPhase,
                    false);
  QApplication::sendEvent(&widget, &event);
}

int difference(QRgb a, QRgb b) {
  return std::max({std::abs(qRed(a) - qRed(b)), std::abs(qGreen(a) - qGreen(b)), std::abs(qBlue(a) - qBlue(b))});
}

}  // namespace

class TestCanvas : public QObject {
  Q_OBJECT

 private:
  std::unique_ptr<JobBridge> m_bridge;
  std::unique_ptr<JobQueue> m_jobs;

  std::unique_ptr<TileCanvas> makeCanvas(Renderer renderer = Renderer::Raster, QSize size = QSize(900, 700)) {
    auto canvas = std::make_unique<TileCanvas>(*m_jobs, nullptr, renderer);
    canvas->resize(size);
    canvas->show();
    if (!QTest::qWaitForWindowExposed(canvas.get())) qWarning("window not exposed");
    canvas->activateWindow();
    canvas->setFocus();
    return canvas;
  }
  static void show(TileCanvas& canvas, const Head& head) {
    canvas.setMap(head.map(), head.axis(), head.axis());
    QVERIFY(QTest::qWaitFor([&] { return canvas.isSettled(); }, 30000));
  }

 private Q_SLOTS:
  void initTestCase() {
    Theme::apply(true);
    m_bridge = std::make_unique<JobBridge>();
    JobQueueOptions options;
    options.threads = 1;
    options.backendId = "cpu";
    m_jobs = std::make_unique<JobQueue>(m_bridge->dispatcher(), options);
  }
  void cleanupTestCase() { m_jobs.reset(); }

  void showsWholeMapThenSettles() {
    const Head head(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    QSignalSpy settled(canvas.get(), &TileCanvas::settled);
    show(*canvas, head);
    QTRY_VERIFY(settled.count() >= 1);
    QVERIFY(!canvas->isApproximate());
    QCOMPARE(canvas->viewport().cols, 520.0);
    QVERIFY(!canvas->currentScene().draws.empty());
    // Square map, square cells.
    QVERIFY(std::abs(canvas->plotRect().width() - canvas->plotRect().height()) <= 1);
  }

  void pixelsAreTheColoursOfTheirCells() {
    const Head head(6, 8, 10, 40, true);
    for (const bool overlay : {false, true}) {
      const auto canvas = makeCanvas();
      canvas->setMinimapShown(false);
      canvas->setGridShown(false);
      show(*canvas, head);
      canvas->setMap(canvas->map(), {}, {});  // no axes: no lines over the cells
      const auto plan = diagonalPlan(520, 80);
      const auto kept = std::make_shared<const PlanOverlay>(plan, *canvas->map());
      if (overlay) canvas->setOverlay(kept);
      canvas->setViewport({100, 60, 40, 40});
      QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
      QCOMPARE(canvas->targetLevel(), 0);
      const QImage image = canvas->grab().toImage();
      const ColorLut lut(canvas->colors(), Theme::current());
      const auto backend = createReferenceBackend();
      int checked = 0;
      for (Index row = 102; row < 138; row += 5) {
        for (Index col = 62; col < 98; col += 5) {
          const double p = canvas->map()->readout(row, col, *backend, Control{}).probability;
          const ValueCode code = encodeValue(static_cast<float>(p));
          const bool dim = overlay && row / 80 != col / 80;
          QRgb want = dim ? lut.dimmed()[code] : lut.colors()[code];
          // Near the border of the cell: the number stands in the middle of wide cells.
          const QRectF cell = canvas->cellRect(row, col);
          const QRgb got =
              image.pixel((QPointF(cell.left() + 2.5, cell.top() + 2.5) * image.devicePixelRatio()).toPoint());
          QVERIFY2(
              difference(got, want) <= 2,
              qPrintable(
                  QStringLiteral("row %1 key %2: got %3 want %4").arg(row).arg(col).arg(got, 0, 16).arg(want, 0, 16)));
          ++checked;
        }
      }
      QVERIFY(checked > 50);
    }
  }

  void openGlAndRasterAgree() {
    if (!canUseOpenGl()) QSKIP("no OpenGL 3.3 context can be made here");
    const Head head(6, 8, 10, 40, true);
    const auto map = head.map();
    QImage images[2];
    std::vector<TileDraw> draws;
    for (const Renderer renderer : {Renderer::Raster, Renderer::OpenGl}) {
      const auto canvas = makeCanvas(renderer);
      canvas->setMinimapShown(false);
      canvas->setGridShown(false);
      canvas->setMap(map, {}, {});
      QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
      canvas->setOverlay(std::make_shared<const PlanOverlay>(diagonalPlan(520, 80), *map));
      canvas->setViewport({3.3, 7.7, 301.5, 301.5});
      QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
      if (renderer == Renderer::OpenGl) QVERIFY(canvas->rendererDescription().startsWith(QStringLiteral("OpenGL")));
      QTest::qWait(100);  // frames that upload the last textures
      images[renderer == Renderer::OpenGl ? 1 : 0] =
          canvas->grab(canvas->plotRect()).toImage().convertToFormat(QImage::Format_ARGB32);
      draws = canvas->currentScene().draws;
    }
    QCOMPARE(images[0].size(), images[1].size());
    QVERIFY(!draws.empty());
    const TileDraw& draw = draws.back();
    int compared = 0, wrong = 0;
    for (int y = 0; y < images[0].height(); ++y) {
      for (int x = 0; x < images[0].width(); ++x) {
        // Inside cells: half a pixel from their edges, where the sampling positions may round differently.
        const auto inside = [](int pixel, double origin, double size) {
          const double f = (pixel + 0.5 - origin) / size;
          const double toEdge = std::min(f - std::floor(f), std::ceil(f) - f) * size;
          return toEdge > 0.05;
        };
        if (!inside(x, draw.originX, draw.cellWidth) || !inside(y, draw.originY, draw.cellHeight)) continue;
        ++compared;
        if (difference(images[0].pixel(x, y), images[1].pixel(x, y)) > 2) ++wrong;
      }
    }
    QVERIFY2(compared > images[0].width() * images[0].height() / 2, qPrintable(QString::number(compared)));
    QCOMPARE(wrong, 0);
  }

  void zoomKeepsThePointUnderTheCursor() {
    const Head head(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    show(*canvas, head);
    const QPointF p = QPointF(canvas->plotRect().topLeft()) +
                      QPointF(canvas->plotRect().width() * 0.31, canvas->plotRect().height() * 0.62);
    const QPointF before = canvas->tokenAt(p);
    wheel(*canvas, p, 3);
    QVERIFY(canvas->viewport().cols < 520.0 / 1.7);
    const QPointF after = canvas->tokenAt(p);
    QVERIFY2(std::hypot(after.x() - before.x(), after.y() - before.y()) < 1e-6, "zoom moved the point");
    const double cols = canvas->viewport().cols, rows = canvas->viewport().rows;
    wheel(*canvas, p, 1, Qt::ControlModifier);
    QVERIFY(std::abs(canvas->viewport().cols * 1.05 - cols) < 1e-6);
    wheel(*canvas, p, 2, Qt::AltModifier);
    QVERIFY(std::abs(canvas->viewport().rows * 1.05 - rows) < 1e-6);
    QVERIFY(canvas->viewport().cols < cols / 1.4);
    const double narrow = canvas->viewport().cols;
    wheel(*canvas, p, 2, Qt::ShiftModifier);
    QCOMPARE(canvas->viewport().cols, narrow);
    QVERIFY(canvas->viewport().rows < rows / 1.4);
    for (int i = 0; i < 60; ++i) wheel(*canvas, p, -2);
    QCOMPARE(canvas->viewport().cols, 520.0);  // never beyond the map
    QCOMPARE(canvas->viewport().row0, 0.0);
  }

  void dragPansAndHistoryGoesBackAndForward() {
    const Head head(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    show(*canvas, head);
    canvas->setViewport({100, 100, 100, 100}, true);
    const QPoint centre = canvas->plotRect().center();
    const QPointF grabbed = canvas->tokenAt(centre);
    QTest::mousePress(canvas.get(), Qt::LeftButton, Qt::NoModifier, centre);
    QTest::mouseMove(canvas.get(), centre + QPoint(20, 10));
    QTest::mouseMove(canvas.get(), centre + QPoint(60, -40));
    QTest::mouseRelease(canvas.get(), Qt::LeftButton, Qt::NoModifier, centre + QPoint(60, -40));
    const QPointF now = canvas->tokenAt(centre + QPoint(60, -40));
    QVERIFY(std::hypot(now.x() - grabbed.x(), now.y() - grabbed.y()) < 1e-6);
    QTest::keyClick(canvas.get(), Qt::Key_Left, Qt::AltModifier);
    QCOMPARE(canvas->viewport(), (MapViewport{100, 100, 100, 100}));
    QTest::keyClick(canvas.get(), Qt::Key_Left, Qt::AltModifier);
    QCOMPARE(canvas->viewport().cols, 520.0);
    QTest::keyClick(canvas.get(), Qt::Key_Right, Qt::AltModifier);
    QCOMPARE(canvas->viewport(), (MapViewport{100, 100, 100, 100}));
    QTest::keyClick(canvas.get(), Qt::Key_Home);
    QCOMPARE(canvas->viewport().cols, 520.0);
  }

  void rubberBandAndDoubleClick() {
    const Head head(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    show(*canvas, head);
    const QPoint a = canvas->plotRect().topLeft() + QPoint(100, 100);
    const auto box = [&](const QPoint& to) {
      QTest::mousePress(canvas.get(), Qt::LeftButton, Qt::ControlModifier, a);
      QTest::mouseMove(canvas.get(), (a + to) / 2);
      QTest::mouseMove(canvas.get(), to);
      QTest::mouseRelease(canvas.get(), Qt::LeftButton, Qt::ControlModifier, to);
    };
    box(a + QPoint(12, 12));
    QCOMPARE(canvas->viewport().cols, 520.0);  // too small: ignored
    const QPointF first = canvas->tokenAt(a), last = canvas->tokenAt(a + QPoint(150, 150));
    box(a + QPoint(150, 150));
    QVERIFY(std::abs(canvas->viewport().col0 - first.x()) < 1e-6);
    QVERIFY(std::abs(canvas->viewport().cols - (last.x() - first.x())) < 1e-6);
    QTest::keyClick(canvas.get(), Qt::Key_F);
    QCOMPARE(canvas->viewport().cols, 520.0);
    // Frame 2 x frame 1.
    const QPoint inBand = canvas->cellRect(2 * 80 + 40, 80 + 40).center().toPoint();
    QTest::mouseDClick(canvas.get(), Qt::LeftButton, Qt::NoModifier, inBand);
    QCOMPARE(canvas->viewport(), (MapViewport{160, 80, 80, 80}));
    QTest::mouseDClick(canvas.get(), Qt::LeftButton, Qt::NoModifier, canvas->plotRect().center());
    QCOMPARE(canvas->viewport().cols, 520.0);  // again: back
  }

  void keysDriveTheView() {
    const Head head(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    show(*canvas, head);
    QSignalSpy navigate(canvas.get(), &TileCanvas::navigate), picked(canvas.get(), &TileCanvas::picked);
    QTest::keyClick(canvas.get(), Qt::Key_PageDown);
    QTest::keyClick(canvas.get(), Qt::Key_BracketLeft);
    QTest::keyClick(canvas.get(), Qt::Key_Period);
    QCOMPARE(navigate.count(), 3);
    QCOMPARE(navigate.at(0), (QVariantList{0, 1, 0}));
    QCOMPARE(navigate.at(1), (QVariantList{0, 0, -1}));
    QCOMPARE(navigate.at(2), (QVariantList{1, 0, 0}));

    const ColorSettings before = canvas->colors();
    QTest::keyClick(canvas.get(), Qt::Key_C);
    QVERIFY(canvas->colors().palette != before.palette);
    QTest::keyClick(canvas.get(), Qt::Key_L);
    QCOMPARE(canvas->colors().range.scale, ValueScale::Linear);
    QTest::keyClick(canvas.get(), Qt::Key_L);
    QCOMPARE(canvas->colors().range.scale, ValueScale::Log);
    QTest::keyClick(canvas.get(), Qt::Key_R, Qt::ShiftModifier);
    QCOMPARE(canvas->colors().range.minimum, 1e-7);
    QCOMPARE(canvas->colors().range.maximum, 1.0);
    ColorSettings odd = canvas->colors();
    odd.range.minimum = 0.123;
    canvas->setColors(odd);
    QTest::keyClick(canvas.get(), Qt::Key_R);
    QVERIFY(canvas->colors().range.minimum < 0.123);
    QTest::keyClick(canvas.get(), Qt::Key_M);
    QVERIFY(!canvas->minimapShown());
    QTest::keyClick(canvas.get(), Qt::Key_G);
    QVERIFY(!canvas->gridShown());
    QTest::keyClick(canvas.get(), Qt::Key_A);
    QVERIFY(!canvas->aspectLocked());
    QTest::keyClick(canvas.get(), Qt::Key_1);
    QCOMPARE(canvas->targetLevel(), 0);

    canvas->fitAll();
    canvas->setPicked(100, 200);
    const Index cell = Index{1} << canvas->targetLevel();
    QTest::keyClick(canvas.get(), Qt::Key_Right);
    QTest::keyClick(canvas.get(), Qt::Key_Down, Qt::ShiftModifier);
    QCOMPARE(picked.last(),
             (QVariantList{QVariant::fromValue<Index>(100 + 16 * cell), QVariant::fromValue<Index>(200 + cell)}));
    QTest::keyClick(canvas.get(), Qt::Key_Up, Qt::ControlModifier);  // a frame up
    QCOMPARE(picked.last().at(0).value<Index>(), 100 + 16 * cell - 80);
    QTest::keyClick(canvas.get(), Qt::Key_C, Qt::ControlModifier | Qt::ShiftModifier);
    QVERIFY(QApplication::clipboard()->text().startsWith(QStringLiteral("q ")));
  }

  void readoutIsExactAndSaysWhatIsKept() {
    const Head head(6, 8, 10, 40, true);
    const auto canvas = makeCanvas();
    show(*canvas, head);
    canvas->setOverlay(std::make_shared<const PlanOverlay>(diagonalPlan(520, 80), *canvas->map()));
    const auto backend = createReferenceBackend();
    QSignalSpy text(canvas.get(), &TileCanvas::readoutChanged);
    for (const auto& [row, col] : {std::pair<Index, Index>{90, 100}, {200, 10}, {333, 333}}) {
      QTest::mouseMove(canvas.get(), canvas->cellRect(row, col).center().toPoint());
      // The readout of the place before may be exact, too.
      QTRY_VERIFY(canvas->readout().exact && std::abs(canvas->readout().row - row) <= 1 &&
                  std::abs(canvas->readout().col - col) <= 1);
      const CanvasReadout& got = canvas->readout();
      const PairReadout want = canvas->map()->readout(got.row, got.col, *backend, Control{});
      QVERIFY(std::abs(*got.probability - want.probability) <= 1e-5 * want.probability);
      QVERIFY(std::abs(*got.logit - want.logit) < 1e-6);
      QCOMPARE(*got.kept, got.row / 80 == got.col / 80);
    }
    QVERIFY(text.count() >= 3);
    QVERIFY(canvas->readoutText().contains(QStringLiteral("(f4 r")));
    QVERIFY(canvas->readoutText().contains(QStringLiteral("kept: yes")));
    // A padding key.
    canvas->setPicked(10, 515);
    QVERIFY(!canvas->readout().valid);
    QVERIFY(canvas->readoutText().contains(QStringLiteral("masked")));
    QTest::mousePress(canvas.get(), Qt::RightButton, Qt::NoModifier, canvas->cellRect(40, 60).center().toPoint());
    QTest::mouseRelease(canvas.get(), Qt::RightButton, Qt::NoModifier, canvas->cellRect(40, 60).center().toPoint());
    QVERIFY(std::abs(static_cast<double>(canvas->readout().row) - 40.0) <= 1.0);
  }

  void readoutBeforeTheExactPassComesFromItsRowAlone() {
    const Head head(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    // The lane is kept busy, so that the exact pass waits behind.
    std::atomic<bool> release{false};
    JobSpec block;
    block.lane = Lane::Compute;
    canvas->setMap(head.map(), head.axis(), head.axis());
    QVERIFY(canvas->isApproximate());
    canvas->setPicked(77, 99);
    QTRY_VERIFY(canvas->readout().exact);
    const auto backend = createReferenceBackend();
    const double want = head.map()->readout(77, 99, *backend, Control{}).probability;
    QVERIFY(std::abs(*canvas->readout().probability - want) <= 1e-5 * want);
  }

  void coarserTilesStandInUntilFineOnesCome() {
    const Head head(12, 10, 12, 60);
    const auto canvas = makeCanvas();
    show(*canvas, head);
    canvas->setMap(canvas->map(), {}, {});
    canvas->setGridShown(false);
    canvas->setMinimapShown(false);
    // Into the deep: fine tiles are requested, and this very frame must already be filled.
    canvas->setViewport({700, 700, 60, 60});
    const MapScene scene = canvas->currentScene();
    QVERIFY(!canvas->isSettled());
    QCOMPARE(canvas->targetLevel(), 0);
    QVERIFY(!scene.draws.empty());
    QVERIFY(scene.draws.front().tile->key.level > 0);
    QImage frame(scene.pixels, QImage::Format_ARGB32_Premultiplied);
    frame.fill(Qt::white);
    RasterPainter().paint(scene, frame);
    for (int y = 0; y < frame.height(); y += 3) {
      for (int x = 0; x < frame.width(); x += 3) QVERIFY(frame.pixel(x, y) != QColor(Qt::white).rgba());
    }
    const QImage grabbed = canvas->grab(canvas->plotRect()).toImage();
    for (int y = 1; y < grabbed.height() - 1; y += 7) {
      for (int x = 1; x < grabbed.width() - 1; x += 7) QVERIFY(grabbed.pixel(x, y) != QColor(Qt::white).rgba());
    }
    QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
    QCOMPARE(canvas->currentScene().draws.back().tile->key.level, 0);
  }

  void neverWhiteWhileLoading() {
    const Head head(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    canvas->setMap(head.map(), head.axis(), head.axis());
    const QImage image = canvas->grab(canvas->plotRect()).toImage();
    for (int y = 20; y < image.height(); y += 11) {
      for (int x = image.width() / 2; x < image.width(); x += 11)
        QVERIFY(image.pixel(x, y) != QColor(Qt::white).rgba());
    }
  }

  void rangeHandlesAndScale() {
    const Head head(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    show(*canvas, head);
    canvas->resetRange();
    ColorBar& bar = canvas->colorBar();
    QSignalSpy changed(canvas.get(), &TileCanvas::colorsChanged);
    const QPoint from(bar.barRect().center().x(), static_cast<int>(bar.yOf(1e-7)) - 1);
    const QPoint to(from.x(), static_cast<int>(bar.yOf(1e-4)));
    QTest::mousePress(&bar, Qt::LeftButton, Qt::NoModifier, from);
    QTest::mouseMove(&bar, to);
    QTest::mouseRelease(&bar, Qt::LeftButton, Qt::NoModifier, to);
    QVERIFY(changed.count() >= 1);
    QVERIFY(std::abs(std::log10(canvas->colors().range.minimum) + 4.0) < 0.1);
    QCOMPARE(canvas->colors().range.maximum, 1.0);
    QTest::mouseDClick(&bar, Qt::LeftButton, Qt::NoModifier, bar.barRect().center());
    QCOMPARE(canvas->colors().range.minimum, 1e-7);
  }

  void poolingAndPaletteChangeThePictureWithoutNewValues() {
    const Head head(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    show(*canvas, head);
    const auto draws = canvas->currentScene().draws;
    ColorSettings colors = canvas->colors();
    colors.palette = Palette::Grey;
    canvas->setColors(colors);
    QCOMPARE(canvas->currentScene().draws.size(), draws.size());
    QVERIFY(canvas->currentScene().draws.front().tile == draws.front().tile);
    canvas->setReduce(Reduce::Mean);
    QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
    QCOMPARE(canvas->currentScene().draws.front().tile->key.reduce, Reduce::Mean);
  }

  void switchingBackShowsTheMapAtOnce() {
    const Head one(6, 8, 10, 40), two(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    const auto first = one.map(), second = two.map();
    canvas->setMap(first, one.axis(), one.axis());
    QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
    canvas->setMap(second, two.axis(), two.axis());
    QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
    canvas->setMap(first, one.axis(), one.axis());
    QVERIFY(!canvas->isApproximate());
    QVERIFY(!canvas->currentScene().draws.empty());
    QCOMPARE(canvas->currentScene().draws.front().tile->approximate, false);
  }

  void previewComesFirstAndIsNotMadeTwice() {
    const Head head(14, 28, 30, 0);  // large enough for a preview
    const auto canvas = makeCanvas();
    QStringList said;
    connect(canvas.get(), &TileCanvas::levelsChanged, canvas.get(), [&] { said << canvas->precisionText(); });
    canvas->setMap(head.map(), head.axis(), head.axis());
    QVERIFY(!canvas->hasPicture());
    QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
    QCOMPARE(said.size(), 2);
    QVERIFY2(said[0].startsWith(QStringLiteral("approximate, up to ")), qPrintable(said[0]));
    QCOMPARE(said[1], QStringLiteral("exact"));

    // Of fewer rows, so that its own error is another: the text tells whether they were sampled again.
    const QString sampledAnew = said[0];
    said.clear();
    const auto ahead = head.map();
    ahead->preview(*createReferenceBackend(), Control{}, 1);
    QVERIFY(ahead->previewInfo().has_value());
    const QString own = formatPercent(ahead->previewInfo()->misplacedMass);
    QVERIFY(!sampledAnew.contains(own));
    canvas->setMap(ahead, head.axis(), head.axis());
    QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
    QCOMPARE(said.size(), 2);
    QVERIFY2(said[0].contains(own), qPrintable(said[0]));
    QCOMPARE(said[1], QStringLiteral("exact"));
  }

  void anotherMapDuringThePreviewIsTheOneThatIsBuilt() {
    const Head one(14, 28, 30, 0), two(6, 8, 10, 40);
    const auto canvas = makeCanvas();
    const auto first = one.map(), second = two.map();
    canvas->setMap(first, one.axis(), one.axis());
    canvas->setMap(second, two.axis(), two.axis());
    QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled() && m_jobs->idle(); }, 30000));
    QCOMPARE(canvas->map(), second);
    QVERIFY(second->exact());
    QVERIFY(!first->exact());
    // And back before its own preview is over.
    canvas->setMap(first, one.axis(), one.axis());
    canvas->setMap(second, two.axis(), two.axis());
    canvas->setMap(first, one.axis(), one.axis());
    QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
    QVERIFY(first->exact());
  }

  void tileCacheStaysWithinItsLimit() {
    const Head head(20, 10, 14, 0);
    const auto canvas = makeCanvas();
    canvas->setTileLimit(1);  // raised to the smallest legal limit
    show(*canvas, head);
    for (Index i = 0; i < 10; ++i) {
      canvas->setViewport({static_cast<double>(i * 250), static_cast<double>(i * 250), 250, 250});
      QVERIFY(QTest::qWaitFor([&] { return canvas->isSettled(); }, 30000));
      QVERIFY(canvas->tileBytes() <= canvas->tileLimit());
    }
  }

  void overlayFollowsOrdersAndKinds() {
    // The same plan seen in model order and in its own order: each kept pair must be kept in both.
    const Head head(4, 4, 5, 20);
    const Index n = 100;
    std::vector<Index> order(at(n));
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 random(2);
    std::shuffle(order.begin(), order.end(), random);
    auto plan = std::make_shared<Plan>(*diagonalPlan(n, 25));
    plan->qOrder = plan->kOrder = order;
    const AttentionMap model(head.data), computed(head.data, order, order);
    const PlanOverlay inModel(plan, model), inOrder(plan, computed);
    const TileKey key{0, 0, 0, Reduce::Max};
    const std::vector<float> values(at(n * n), 0.5F);
    const auto a = inModel.mask(key, 100, 100, values), b = inOrder.mask(key, 100, 100, values);
    for (Index r = 0; r < n; ++r) {
      for (Index c = 0; c < n; ++c) {
        const bool want = r / 25 == c / 25;
        QCOMPARE(b[at(r * n + c)], want ? std::uint8_t{255} : std::uint8_t{0});
        QCOMPARE(a[at(order[at(r)] * n + order[at(c)])], want ? std::uint8_t{255} : std::uint8_t{0});
        QCOMPARE(inModel.kept(order[at(r)], order[at(c)], {}), std::optional<bool>(want));
        QCOMPARE(isKept(*plan, order[at(r)], order[at(c)]), std::optional<bool>(want));
      }
    }
    // Mean pooling shows shares: a 50-token cell of the diagonal is half kept.
    TileKey coarse{1, 0, 0, Reduce::Mean};
    const auto shares = inOrder.mask(coarse, 50, 50, values);
    QCOMPARE(shares[at(0)], std::uint8_t{255});
    QCOMPARE(shares[at(12 * 50 + 12)], std::uint8_t{128});  // rows 24, 25 x keys 24, 25: two of four pairs
    const auto rowKept = inModel.rowKept();
    for (const float v : rowKept) QCOMPARE(v, 0.25F);
  }
};

}  // namespace sparsight

using sparsight::TestCanvas;
QTEST_MAIN(TestCanvas)
#include "tst_canvas.moc"

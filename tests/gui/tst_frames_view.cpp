// SPDX-License-Identifier: Apache-2.0
// The row of a query on the video's frames: its values, its marks, mouse and keys, a method's kept keys.
#include <QLabel>
#include <QTest>
#include <cmath>

#include "sparsight/core/attention_map.h"
#include "sparsight/core/plan.h"
#include "tests/gui/gui_fixture.h"
#include "ui/frames_canvas.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view_host.h"

using namespace sparsight;
using namespace sparsight::test;

class TstFramesView : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;
  QString m_trace;

  static double total(const FramesCanvas& canvas) {
    double sum = 0;
    for (const float p : canvas.values()) sum += std::isnan(p) ? 0.0 : static_cast<double>(p);
    return sum;
  }

 private Q_SLOTS:
  void initTestCase() {
    qRegisterMetaType<ChangeFlags>();
    Theme::apply(true);
    m_trace = writeSmallTrace(m_home.file(QStringLiteral("small.h5")));
  }

  void showsTheExactRowOfTheQuery() {
    Session session;
    ViewHost host(session, *viewById(QStringLiteral("frames")), QSize(900, 600));
    host.show();
    QVERIFY(QTest::qWaitForWindowExposed(&host));
    auto* canvas = host.findChild<FramesCanvas*>();
    QVERIFY(canvas->values().empty());
    session.openFile(m_trace);
    QVERIFY(eventually([&] { return !canvas->values().empty(); }));
    QVERIFY2(std::abs(total(*canvas) - 1.0) < 1e-4, qPrintable(QString::number(total(*canvas))));

    // A click picks the query under the cursor, and the row is that query's.
    const HeadData head = session.trace()->load(*session.selectedHead());
    const Segment* video = head.layout.video();
    QVERIFY(video != nullptr);
    const Index token = video->start + video->length / 3;
    const std::vector<float> before = canvas->values();
    QTest::mouseClick(canvas, Qt::LeftButton, {}, canvas->rectOf(token).center().toPoint());
    QCOMPARE(session.pair().query, token);
    QVERIFY(eventually([&] { return canvas->values() != before; }));
    Executor executor(1);
    const auto backend = createBackend("cpu", executor);
    const std::vector<float> expected = mapRegion(head, {token, token + 1, 0, head.input.k.rows, 1, head.input.k.rows},
                                                  Reduce::Max, {}, {}, *backend, {});
    QCOMPARE(canvas->values().size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) QCOMPARE(canvas->values()[i], expected[i]);

    // Right click: the key; the readout names both.
    QTest::mouseClick(canvas, Qt::RightButton, {}, canvas->rectOf(token + 1).center().toPoint());
    QCOMPARE(session.pair().key, token + 1);
    QCOMPARE(session.pair().query, token);
    auto* readout = host.findChild<QLabel*>(QStringLiteral("framesReadout"));
    QVERIFY(eventually([&] {
      return readout->text().contains(QString::fromStdString(head.layout.describe(token))) &&
             readout->text().contains(QString::fromStdString(head.layout.describe(token + 1)));
    }));

    // Keys: one column right, one row down, one frame on.
    QTest::keyClick(canvas, Qt::Key_Right);
    QCOMPARE(session.pair().query, token + 1);
    QTest::keyClick(canvas, Qt::Key_Down);
    QCOMPARE(session.pair().query, token + 1 + video->width);
    QTest::keyClick(canvas, Qt::Key_Right, Qt::ControlModifier);
    QCOMPARE(session.pair().query, token + 1 + video->width + Index{video->height} * video->width);
  }

  void everyTokenIsWhereItIsPainted() {
    FramesCanvas canvas;
    canvas.resize(700, 500);
    TokenLayout layout;
    layout.tokenCount = 5 * 6 * 7 + 9;
    layout.segments = {{SegmentKind::Text, 0, 9, 0, 0, 0}, {SegmentKind::Video, 9, 5 * 6 * 7, 5, 6, 7}};
    canvas.setLayoutOf(layout);
    canvas.show();
    QVERIFY(QTest::qWaitForWindowExposed(&canvas));
    for (Index token = 0; token < layout.tokenCount; ++token) {
      QVERIFY(!canvas.rectOf(token).isEmpty());
      QVERIFY(QRectF(canvas.rect()).contains(canvas.rectOf(token)));
      QCOMPARE(canvas.tokenAt(canvas.rectOf(token).center()), token);
    }
  }

  void aMethodsKeptKeysAreThoseOfItsPlan() {
    for (const char* method : {"svg", "oracle_token", "oracle_block"}) {
      Session session;
      ViewHost host(session, *viewById(QStringLiteral("frames")), QSize(900, 600));
      host.show();
      session.openFile(m_trace);
      auto* canvas = host.findChild<FramesCanvas*>();
      QVERIFY(eventually([&] { return !canvas->values().empty(); }));
      RunRequest request;
      request.methodId = method;
      const Selection& at = session.selection();
      request.selection.steps = Selector::parse(std::to_string(at.step));
      request.selection.layers = Selector::parse(std::to_string(at.layer));
      request.selection.heads = Selector::parse(std::to_string(at.head));
      session.setOverlayMethod(QString::fromLatin1(method));
      session.runMethod(request, QStringLiteral("test"));
      QVERIFY2(eventually([&] { return !canvas->kept().empty(); }), method);
      const HeadResult result = session.selectedResult();
      QVERIFY(result != nullptr);
      const HeadData head = session.trace()->load(*session.selectedHead());
      const Segment* video = head.layout.video();
      const Index query = video->start + (Index{video->frames / 2} * video->height + video->height / 2) * video->width +
                          video->width / 2;
      Index kept = 0;
      for (Index key = 0; key < head.input.k.rows; ++key) {
        const bool shown = canvas->kept()[static_cast<std::size_t>(key)] != 0;
        kept += shown ? 1 : 0;
        if (const auto truth = isKept(result->plan, query, key)) QCOMPARE(shown, *truth);
      }
      QVERIFY(kept > 0 && kept < head.input.k.rows);
      if (!result->plan.rowCount.empty()) QCOMPARE(kept, result->plan.rowCount[static_cast<std::size_t>(query)]);
    }
  }
};

QTEST_MAIN(TstFramesView)
#include "tst_frames_view.moc"

// SPDX-License-Identifier: Apache-2.0
// The permutation view after SVG2: sizes are the plan's, pointing at a token or a bar shows that cluster's tokens.
#include <QComboBox>
#include <QLabel>
#include <QTest>
#include <cmath>

#include "sparsight/core/plan.h"
#include "tests/gui/gui_fixture.h"
#include "ui/canvas/color_bar.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/cluster_sizes.h"
#include "ui/frames_canvas.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view_host.h"

using namespace sparsight;
using namespace sparsight::test;

class TstPermutation : public QObject {
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

  void clustersAreThoseOfThePlan() {
    Session session;
    ViewHost host(session, *viewById(QStringLiteral("permutation")), QSize(1200, 900));
    host.show();
    session.openFile(m_trace);
    QVERIFY(eventually([&] { return session.selectedHead().has_value(); }));
    auto* sizes = host.findChild<ClusterSizes*>(QStringLiteral("clusterSizes"));
    auto* frames = host.findChild<FramesCanvas*>();
    auto* computed = host.findChild<TileCanvas*>(QStringLiteral("computedOrder"));
    QVERIFY(!sizes->isVisible());  // nothing ran yet

    RunRequest request;
    request.methodId = "svg2";
    const Selection& at = session.selection();
    request.selection.steps = Selector::parse(std::to_string(at.step));
    request.selection.layers = Selector::parse(std::to_string(at.layer));
    request.selection.heads = Selector::parse(std::to_string(at.head));
    session.setOverlayMethod(QStringLiteral("svg2"));
    session.runMethod(request, QStringLiteral("test"));
    QVERIFY(eventually([&] { return sizes->isVisible() && computed->map() != nullptr; }));
    // Scales that can be read against each other.
    auto* model = host.findChild<TileCanvas*>(QStringLiteral("modelOrder"));
    QVERIFY(eventually([&] { return host.view().isSettled(); }));
    QVERIFY(model->colorBar().domain() == computed->colorBar().domain());
    const HeadResult result = session.selectedResult();
    QVERIFY(result != nullptr);
    const Plan& plan = result->plan;
    QVERIFY(sizes->summary().startsWith(QString::number(plan.qBlocks())));

    // Pointing at a token shows its cluster: exactly the tokens with its label.
    const HeadData head = session.trace()->load(*session.selectedHead());
    const Segment* video = head.layout.video();
    const auto shownMembers = [&] {
      std::vector<Index> members;
      for (std::size_t i = 0; i < frames->values().size(); ++i)
        if (frames->values()[i] == 1.0F) members.push_back(static_cast<Index>(i));
      return members;
    };
    const auto labelled = [&](const std::vector<std::int32_t>& labels, Index cluster) {
      std::vector<Index> members;
      for (std::size_t i = 0; i < labels.size(); ++i)
        if (labels[i] == cluster) members.push_back(static_cast<Index>(i));
      return members;
    };
    for (const Index token : {video->start, video->start + video->length / 2, video->start + video->length - 1}) {
      QTest::mouseClick(frames, Qt::LeftButton, {}, frames->rectOf(token).center().toPoint());
      const auto label = plan.qLabels[static_cast<std::size_t>(token)];
      QCOMPARE(sizes->current(), Index{label});
      QCOMPARE(shownMembers(), labelled(plan.qLabels, label));
    }
    // The largest cluster is the first bar; arrow keys walk on.
    QTest::mouseClick(sizes, Qt::LeftButton, {}, QPoint(Theme::kPad, sizes->height() - Theme::kPad - 2));
    const Index largest = sizes->current();
    for (Index b = 0; b < plan.qBlocks(); ++b) {
      const auto size = [&](Index block) {
        return plan.qBounds[static_cast<std::size_t>(block) + 1] - plan.qBounds[static_cast<std::size_t>(block)];
      };
      QVERIFY(size(b) <= size(largest));
    }
    QTest::keyClick(sizes, Qt::Key_Right);
    QVERIFY(sizes->current() != largest);

    auto* side = host.findChild<QComboBox*>();
    side->setCurrentIndex(side->findData(QStringLiteral("keys")));
    QVERIFY(sizes->summary().startsWith(QString::number(plan.kBlocks())));
    const Index token = video->start + video->length / 3;
    QTest::mouseClick(frames, Qt::LeftButton, {}, frames->rectOf(token).center().toPoint());
    QCOMPARE(shownMembers(), labelled(plan.kLabels, plan.kLabels[static_cast<std::size_t>(token)]));
  }

  void saysWhyThereIsNothingToShow() {
    Session session;
    ViewHost host(session, *viewById(QStringLiteral("permutation")), QSize(900, 700));
    host.show();
    session.openFile(m_trace);
    RunRequest request;
    request.methodId = "oracle_block";
    request.selection.heads = Selector::parse("0");
    session.setOverlayMethod(QStringLiteral("oracle_block"));
    QVERIFY(eventually([&] { return session.selectedHead().has_value(); }));
    session.runMethod(request, QStringLiteral("test"));
    QVERIFY(eventually([&] { return session.jobs().idle(); }));
    QVERIFY(!host.findChild<ClusterSizes*>()->isVisible());
  }
};

QTEST_MAIN(TstPermutation)
#include "tst_permutation.moc"

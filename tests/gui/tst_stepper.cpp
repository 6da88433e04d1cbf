// SPDX-License-Identifier: Apache-2.0
// The step-by-step view: buttons, keys and slider walk through the stages that core reports; the last one is the plan
// of a run; clusters that are picked stay picked over the iterations; methods without stages say so.
#include <QComboBox>
#include <QLabel>
#include <QPushButton>
#include <QSlider>
#include <QTest>
#include <QToolButton>

#include "sparsight/core/stages.h"
#include "tests/gui/gui_fixture.h"
#include "ui/block_matrix.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/cluster_sizes.h"
#include "ui/frames_canvas.h"
#include "ui/small_chart.h"
#include "ui/stage_panel.h"
#include "ui/theme.h"
#include "ui/view_host.h"

using namespace sparsight;
using namespace sparsight::test;

namespace {

/// A view over the small trace, and its parts by name.
struct Open {
  Session session;
  ViewHost host{session, *viewById(QStringLiteral("stepper")), QSize(1200, 800)};

  explicit Open(const QString& trace) {
    host.show();
    if (!trace.isEmpty()) session.openFile(trace);
  }
  template <class T>
  T* part(const char* name) const {
    return host.findChild<T*>(QLatin1String(name));
  }
  [[nodiscard]] QSlider* slider() const { return part<QSlider>("stepperSlider"); }
  [[nodiscard]] QString title() const { return part<QLabel>("stageTitle")->text(); }
  [[nodiscard]] bool done() {
    return session.selectedHead().has_value() && slider()->isVisible() && host.view().isSettled();
  }
  /// Value of a number on show; empty: not there.
  [[nodiscard]] QString fact(const QString& name) const {
    for (const QString& line : host.findChild<StagePanel*>()->numbersText().split(QLatin1Char('\n')))
      if (line.section(QLatin1Char('\t'), 0, 0) == name) return line.section(QLatin1Char('\t'), 1);
    return {};
  }
  void choose(const char* combo, const char* value) {
    auto* box = part<QComboBox>(combo);
    box->setCurrentIndex(box->findData(QLatin1String(value)));
  }
  [[nodiscard]] HeadReport explained(const char* method, std::vector<Stage>& stages, bool earlier = false) {
    ExplainRequest request;
    request.methodId = method;
    request.head = *session.selectedHead();
    request.earlierSteps = earlier;
    Executor executor(1);
    const auto backend = createBackend("cpu", executor);
    return explainHead(*session.trace(), request, *backend, {},
                       [&](Stage stage) { stages.push_back(std::move(stage)); });
  }
};

}  // namespace

class TstStepper : public QObject {
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

  void walksByButtonsKeysAndSlider() {
    Open open(m_trace);
    QVERIFY(eventually([&] { return open.done(); }));
    std::vector<Stage> stages;
    static_cast<void>(open.explained("svg2", stages));
    const int last = static_cast<int>(stages.size()) - 1;
    QCOMPARE(open.slider()->maximum(), last);
    const auto titleAt = [&](int i) { return QString::fromStdString(stages[static_cast<std::size_t>(i)].title); };
    QCOMPARE(open.title(), titleAt(0));
    QVERIFY(open.part<TileCanvas>("stepperMap")->isVisible());

    auto* next = open.part<QPushButton>("stepperNext");
    auto* back = open.part<QPushButton>("stepperBack");
    QVERIFY(!back->isEnabled());
    QTest::mouseClick(next, Qt::LeftButton);
    QCOMPARE(open.title(), titleAt(1));
    QTest::mouseClick(back, Qt::LeftButton);
    QCOMPARE(open.title(), titleAt(0));
    QTest::keyClick(open.slider(), Qt::Key_Right);
    QTest::keyClick(open.slider(), Qt::Key_Right);
    QCOMPARE(open.title(), titleAt(2));
    QTest::keyClick(open.slider(), Qt::Key_Left);
    QCOMPARE(open.title(), titleAt(1));
    // The same keys from anywhere in the view that does not take them.
    QTest::keyClick(&open.host.view(), Qt::Key_End);
    QCOMPARE(open.title(), titleAt(last));
    QVERIFY(!next->isEnabled());
    QTest::keyClick(&open.host.view(), Qt::Key_Home);
    QCOMPARE(open.title(), titleAt(0));
    QTest::keyClick(&open.host.view(), Qt::Key_Right);
    QCOMPARE(open.title(), titleAt(1));
    open.slider()->setValue(3);
    QCOMPARE(open.title(), titleAt(3));
    // Chapters: PageDown goes where the next one begins.
    QTest::keyClick(open.slider(), Qt::Key_Home);
    QTest::keyClick(open.slider(), Qt::Key_PageDown);
    QTest::keyClick(open.slider(), Qt::Key_PageDown);
    int chapter = 0, changes = 0;
    while (changes < 2) {
      ++chapter;
      if (stages[static_cast<std::size_t>(chapter)].chapter != stages[static_cast<std::size_t>(chapter) - 1].chapter)
        ++changes;
    }
    QCOMPARE(open.slider()->value(), chapter);
    QTest::keyClick(open.slider(), Qt::Key_PageUp);
    QVERIFY(open.slider()->value() < chapter);
  }

  void everyMethodEndsWithItsPlan() {
    Open open(m_trace);
    QVERIFY(eventually([&] { return open.done(); }));
    for (const char* method : {"svg", "svg2", "svoo", "adaspa"}) {
      open.choose("stepperMethod", method);
      QVERIFY2(eventually([&] { return open.done(); }), method);
      std::vector<Stage> stages;
      const HeadReport report = open.explained(method, stages);
      QCOMPARE(open.slider()->maximum(), static_cast<int>(stages.size()) - 1);
      for (int i = 0; i <= open.slider()->maximum(); ++i) {
        const Stage& stage = stages[static_cast<std::size_t>(i)];
        open.slider()->setValue(i);
        QCOMPARE(open.title(), QString::fromStdString(stage.title));
        QCOMPARE(open.part<BlockMatrix>("stepperBlocks")->isVisible(), stage.blocks.has_value());
        QCOMPARE(open.part<SmallBars>("stepperBars")->isVisible(), stage.bars.has_value());
        QCOMPARE(open.part<SmallCurve>("stepperCurve")->isVisible(), stage.series.has_value());
        QCOMPARE(open.part<FramesCanvas>("stepperFrames")->isVisible(), !stage.tokens.empty());
        QCOMPARE(open.part<TileCanvas>("stepperMap")->isVisible(), stage.map);
      }
      // Equal to a run of the method.
      RunRequest request;
      request.methodId = method;
      const HeadId id = *open.session.selectedHead();
      request.selection.steps.ranges = {{id.call.step, id.call.step}};
      request.selection.layers.ranges = {{id.call.layer, id.call.layer}};
      request.selection.heads.ranges = {{id.head, id.head}};
      Executor executor(1);
      const auto backend = createBackend("cpu", executor);
      const HeadReport run = runMethod(*open.session.trace(), request, *backend, {}).heads.front();
      QCOMPARE(report.plan.blockMask, run.plan.blockMask);
      QCOMPARE(open.fact(QStringLiteral("kept (skipped)")),
               QStringLiteral("%1 (%2)").arg(formatPercent(run.evaluation.keptFraction),
                                             formatPercent(1 - run.evaluation.keptFraction)));
      QVERIFY(!open.fact(QStringLiteral("kept mass, measured")).isEmpty());
      const auto map = open.part<TileCanvas>("stepperMap")->map();
      QCOMPARE(std::vector<Index>(map->qOrder().begin(), map->qOrder().end()), run.plan.qOrder);
    }
  }

  void aPickedClusterIsFollowedOverTheIterations() {
    Open open(m_trace);
    QVERIFY(eventually([&] { return open.done(); }));
    std::vector<Stage> stages;
    static_cast<void>(open.explained("svg2", stages));
    std::vector<int> rounds;
    for (std::size_t i = 0; i < stages.size(); ++i)
      if (stages[i].chapter == "k-means of the queries") rounds.push_back(static_cast<int>(i));
    QVERIFY(rounds.size() >= 2);
    auto* frames = open.part<FramesCanvas>("stepperFrames");
    auto* sizes = open.part<ClusterSizes>("stepperSizes");
    open.slider()->setValue(rounds[0]);
    QCoreApplication::processEvents();  // the pictures take their places
    const Segment* video = open.session.trace()->info().find(open.session.selectedHead()->call)->layout.video();
    const Index token = video->start + video->length / 2;
    QTest::mouseClick(frames, Qt::LeftButton, {}, frames->rectOf(token).center().toPoint());
    const auto labelsAt = [&](int stage) -> const std::vector<std::int32_t>& {
      return stages[static_cast<std::size_t>(stage)].tokens.front().labels;
    };
    const std::int32_t cluster = labelsAt(rounds[0])[static_cast<std::size_t>(token)];
    for (const int round : rounds) {
      open.slider()->setValue(round);
      QCOMPARE(sizes->current(), Index{cluster});
      // Its members, and no others, have the colour of the picked one.
      const QRgb bright = Theme::current().slotB.rgb();
      for (std::size_t i = 0; i < labelsAt(round).size(); ++i)
        QCOMPARE(frames->tokenColors()[i] == bright, labelsAt(round)[i] == cluster);
    }
    // Esc shows all clusters again; arrow keys in the sizes walk through them.
    QTest::keyClick(&open.host.view(), Qt::Key_Escape);
    QCOMPARE(sizes->current(), Index{-1});
    QTest::keyClick(sizes, Qt::Key_Right);
    QVERIFY(sizes->current() >= 0);
  }

  void aRowTellsHowItsChoiceCameAbout() {
    Open open(m_trace);
    QVERIFY(eventually([&] { return open.done(); }));
    std::vector<Stage> stages;
    static_cast<void>(open.explained("svg2", stages));
    int at = 0;
    while (stages[static_cast<std::size_t>(at)].chapter != "top-p") ++at;
    open.slider()->setValue(at);
    QCoreApplication::processEvents();
    const BlockPicture& picture = *stages[static_cast<std::size_t>(at)].blocks;
    auto* blocks = open.part<BlockMatrix>("stepperBlocks");
    QTest::mouseClick(blocks, Qt::LeftButton, {}, blocks->rowRect(2).center().toPoint());
    QCOMPARE(blocks->row(), Index{2});
    const auto first = picture.kept.begin() + 2 * picture.columns;
    const auto kept = std::count(first, first + picture.columns, std::uint8_t{1});
    auto* curve = open.part<SmallCurve>("stepperRowCurve");
    QVERIFY(curve->isVisible());
    QCOMPARE(curve->marks().front().at, static_cast<double>(kept));
    // Sorted and cumulated: it rises and ends at everything.
    const auto& points = curve->lines().front().points;
    QCOMPARE(points.size(), static_cast<qsizetype>(picture.columns) + 1);
    for (qsizetype i = 1; i < points.size(); ++i) QVERIFY(points[i].y() >= points[i - 1].y());
    QVERIFY(std::abs(points.back().y() - 1.0) < 1e-6);
    QTest::keyClick(blocks, Qt::Key_Down);
    QCOMPARE(blocks->row(), Index{3});
  }

  void earlierStepsChangeWhereItStarts() {
    Open open(m_trace);
    QVERIFY(eventually([&] { return open.done(); }));
    Selection at = open.session.selection();
    at.step = open.session.trace()->info().steps().back();
    open.session.setSelection(at);
    QVERIFY(eventually([&] { return open.done() && open.title().contains(QString::number(at.step)); }));
    open.slider()->setValue(1);
    QVERIFY(open.fact(QStringLiteral("starts from")).contains(QStringLiteral("no earlier step")));
    open.choose("stepperStart", "earlier");
    QVERIFY(eventually(
        [&] { return open.done() && open.fact(QStringLiteral("starts from")).startsWith(QStringLiteral("step ")); }));
  }

  void aRunsParametersAreWalkedThrough() {
    Open open(m_trace);
    QVERIFY(eventually([&] { return open.done(); }));
    QVERIFY(open.part<QLabel>("stageFootnote")->text().contains(QStringLiteral("defaults")));
    RunRequest request;
    request.methodId = "svg2";
    request.params = ParamSet::parse(methodById("svg2").params(), {"num_q_centroids=3", "kmeans_iter_init=2"});
    const Selection& at = open.session.selection();
    request.selection.steps.ranges = {{at.step, at.step}};
    request.selection.layers.ranges = {{at.layer, at.layer}};
    request.selection.heads.ranges = {{at.head, at.head}};
    open.session.setOverlayMethod(QStringLiteral("svg2"));
    open.session.runMethod(request, QStringLiteral("test"));
    QVERIFY(eventually([&] {
      return open.done() && open.part<QLabel>("stageFootnote")->text().contains(QStringLiteral("your run"));
    }));
    open.slider()->setValue(1);
    QCOMPARE(open.fact(QStringLiteral("centroids")), QStringLiteral("3"));
  }

  void playsToTheEnd() {
    Open open(m_trace);
    QVERIFY(eventually([&] { return open.done(); }));
    open.slider()->setValue(open.slider()->maximum() - 1);
    auto* play = open.part<QToolButton>("stepperPlay");
    QTest::keyClick(open.slider(), Qt::Key_Space);
    QVERIFY(play->isChecked());
    QVERIFY(eventually([&] { return !play->isChecked(); }));
    QCOMPARE(open.slider()->value(), open.slider()->maximum());
  }

  void saysWhyThereIsNothingToWalkThrough() {
    {
      Open empty{QString()};
      QVERIFY(empty.part<QLabel>("stepperMessage")->isVisible());
    }
    Open open(m_trace);
    QVERIFY(eventually([&] { return open.done(); }));
    for (const char* method : {"dense", "oracle_block", "oracle_token"}) {
      open.choose("stepperMethod", method);
      QVERIFY(open.part<QLabel>("stepperMessage")->isVisible());
      QVERIFY(open.part<QLabel>("stepperWhy")->text().contains(QStringLiteral("SVG2")));
    }
    open.choose("stepperMethod", "svg");
    QVERIFY(eventually([&] { return open.done(); }));
  }

  void keepsItsPlaceAndState() {
    Open open(m_trace);
    QVERIFY(eventually([&] { return open.done(); }));
    open.choose("stepperMethod", "svoo");
    QVERIFY(eventually([&] { return open.done(); }));
    open.slider()->setValue(3);
    const QJsonObject state = open.host.view().saveState();
    // Another head: the walk stays at its stage.
    open.session.moveSelection(0, 0, 1);
    QVERIFY(eventually([&] { return open.done() && open.slider()->value() == 3; }));

    Open second(m_trace);
    second.host.view().restoreState(state);
    QVERIFY(eventually([&] { return second.done(); }));
    QCOMPARE(second.slider()->value(), 3);
    QVERIFY(second.title().startsWith(QStringLiteral("Round 1")));
  }

  void stopsAndGoesOnWithWhatIsThere() {
    SynthSpec large = smallSpec();
    large.frames = 8;
    large.height = 34;
    large.width = 32;  // above what starts by itself
    large.layers = 1;
    large.heads = 1;
    large.steps = 1;
    Open open(writeSmallTrace(m_home.file(QStringLiteral("large.h5")), large));
    auto* begin = open.part<QPushButton>("stepperBegin");
    QVERIFY(eventually([&] { return begin->isVisible(); }));
    QVERIFY(open.part<QLabel>("stepperWhy")->text().contains(QStringLiteral("when you ask")));
    QTest::mouseClick(begin, Qt::LeftButton);
    QVERIFY(eventually([&] { return open.slider()->isVisible(); }));
    auto* stop = open.part<QPushButton>("stepperStop");
    QVERIFY(stop->isVisible());
    QTest::mouseClick(stop, Qt::LeftButton);
    QVERIFY(!stop->isVisible());
    QVERIFY(eventually([&] { return open.session.jobs().idle(); }));
    QVERIFY(open.slider()->isVisible());
    QVERIFY(!open.title().isEmpty());
    QVERIFY(open.part<QLabel>("stepperCount")->text().contains(QStringLiteral("stopped")));
  }
};

QTEST_MAIN(TstStepper)
#include "tst_stepper.moc"

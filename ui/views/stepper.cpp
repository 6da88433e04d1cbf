// SPDX-License-Identifier: Apache-2.0
// How a method decides about one head, one stage at a time: the stages come from the method itself (core/stages.h) and
// are drawn by what they hold.
#include <QJsonDocument>
#include <QJsonObject>
#include <QKeyEvent>
#include <QPointer>
#include <QPushButton>
#include <QSplitter>
#include <QStackedWidget>
#include <QTimer>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>

#include "sparsight/core/attention_map.h"
#include "sparsight/core/stages.h"
#include "ui/block_matrix.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/cluster_sizes.h"
#include "ui/column_scroll.h"
#include "ui/frames_canvas.h"
#include "ui/icons.h"
#include "ui/map_header.h"
#include "ui/open_buttons.h"
#include "ui/preview_loader.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/small_chart.h"
#include "ui/stage_panel.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {
namespace {

QString text(std::string_view s) { return QString::fromUtf8(s.data(), static_cast<qsizetype>(s.size())); }

/// Above this many tokens the walk starts on demand: it takes seconds to minutes.
constexpr Index kStartsByItself = 8192;

/// A stage with what can be made ready for painting off the GUI thread.
struct ShownStage {
  std::shared_ptr<const Stage> stage;
  PooledBlocks blocks;
  std::shared_ptr<AttentionMap> map;
  std::shared_ptr<const PlanOverlay> overlay;
  AxisSpec queries, keys;
};
using StageHandle = std::shared_ptr<const ShownStage>;

/// Stages on their way from the job to the view.
struct Mailbox {
  std::mutex mutex;
  std::vector<StageHandle> arrived;
  std::atomic<float> progress{0.0F};
};

StageHandle prepared(Stage stage, const HeadData& head) {
  auto shown = std::make_shared<ShownStage>();
  if (stage.blocks) shown->blocks = poolBlocks(*stage.blocks);
  auto shared = std::make_shared<const Stage>(std::move(stage));
  if (shared->map) {
    if (shared->plan) {
      const Plan& plan = *shared->plan;
      shown->map = std::make_shared<AttentionMap>(head, plan.qOrder, plan.kOrder);
      shown->overlay = std::make_shared<const PlanOverlay>(shared->plan, *shown->map);
    } else {
      shown->map = std::make_shared<AttentionMap>(head);
    }
    if (shared->plan && !shared->plan->qLabels.empty()) {
      shown->queries = blockAxis(shared->plan->qBounds, QStringLiteral("q"));
      shown->keys = blockAxis(shared->plan->kBounds, QStringLiteral("k"));
    } else if (!shared->plan || shared->plan->kOrder.empty()) {
      shown->queries = layoutAxis(head.layout, shown->map->rows(),
                                  [&](Index i) { return head.queryToken(shown->map->queryRowAt(i)); });
      shown->keys = layoutAxis(head.layout, shown->map->cols(), [](Index i) { return i; });
    }
  }
  shown->stage = std::move(shared);
  return shown;
}

/// The parameters of a finished run, as they were resolved.
ParamSet paramsOf(const Method& method, const std::string& json) {
  const QJsonObject object = QJsonDocument::fromJson(QByteArray::fromStdString(json)).object();
  std::vector<std::string> assignments;
  for (const ParamSpec& spec : method.params()) {
    const QJsonValue value = object.value(QString::fromStdString(spec.name));
    if (value.isUndefined()) continue;
    assignments.push_back(spec.name + "=" + value.toVariant().toString().toStdString());
  }
  return ParamSet::parse(method.params(), assignments);
}

class StepperView : public View {
  Q_OBJECT
 public:
  StepperView(Session& session, QWidget* parent)
      : View(session, parent),
        m_map(new TileCanvas(session.jobs(), this)),
        m_blocks(new BlockMatrix(this)),
        m_frames(new FramesCanvas(this)),
        m_curve(new SmallCurve(this)),
        m_rowCurve(new SmallCurve(this)),
        m_sizes(new ClusterSizes(this)),
        m_bars(new SmallBars(this)),
        m_panel(new StagePanel) {
    buildHeader();
    auto* pictures = new QWidget(this);
    auto* pictureColumn = new QVBoxLayout(pictures);
    pictureColumn->setContentsMargins(0, 0, 0, 0);
    pictureColumn->setSpacing(0);
    auto* framesBox = new QWidget(this);
    auto* framesColumn = new QVBoxLayout(framesBox);
    framesColumn->setContentsMargins(0, 0, 0, 0);
    framesColumn->setSpacing(0);
    m_framesCaption = new NoteLabel(framesBox, false);
    m_framesCaption->setContentsMargins(Theme::kEdge, 2, Theme::kEdge, 2);
    framesColumn->addWidget(m_framesCaption);
    framesColumn->addWidget(m_frames, 1);
    m_framesBox = framesBox;
    auto* large = new QSplitter(Qt::Horizontal);
    large->addWidget(m_map);
    large->addWidget(m_bars);
    large->addWidget(m_blocks);
    large->addWidget(framesBox);
    large->setChildrenCollapsible(false);
    large->setSizes({600, 600, 600, 600});
    auto* below = new QSplitter(Qt::Horizontal);
    below->addWidget(m_curve);
    below->addWidget(m_rowCurve);
    below->addWidget(m_sizes);
    below->setChildrenCollapsible(false);
    m_below = below;
    auto* both = new QSplitter(Qt::Vertical);
    both->addWidget(large);
    both->addWidget(below);
    both->setSizes({600, 190});
    // A stage shows two or three of these: room is not kept for all.
    for (QWidget* later : {static_cast<QWidget*>(m_bars), static_cast<QWidget*>(m_blocks), framesBox, m_below})
      later->hide();
    both->setStretchFactor(0, 1);
    both->setChildrenCollapsible(false);
    m_readout = new NoteLabel(this, false);
    m_readout->setObjectName(QStringLiteral("stepperReadout"));
    m_readout->setContentsMargins(Theme::kEdge, 2, Theme::kEdge, 2);
    pictureColumn->addWidget(both, 1);
    pictureColumn->addWidget(m_readout);

    auto* scroll = new ColumnScroll;
    scroll->setMinimumWidth(230);
    scroll->setWidget(m_panel);
    scroll->setFocusPolicy(Qt::NoFocus);
    auto* body = new QSplitter(Qt::Horizontal);
    body->addWidget(pictures);
    body->addWidget(scroll);
    body->setSizes({700, 320});
    body->setStretchFactor(0, 1);
    body->setChildrenCollapsible(false);

    auto* page = new QWidget;
    auto* pageColumn = new QVBoxLayout(page);
    pageColumn->setContentsMargins(0, 0, 0, 0);
    pageColumn->setSpacing(0);
    pageColumn->addWidget(body, 1);
    pageColumn->addWidget(navigation());

    m_stack = new QStackedWidget(this);
    m_stack->addWidget(messagePage());
    m_stack->addWidget(page);
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(0, 0, 0, Theme::kUnit);
    column->setSpacing(0);
    column->addWidget(m_header);
    column->addWidget(m_stack, 1);
    setFocusProxy(m_slider);

    m_map->setMinimapShown(false);
    m_map->setObjectName(QStringLiteral("stepperMap"));
    m_blocks->setObjectName(QStringLiteral("stepperBlocks"));
    m_frames->setObjectName(QStringLiteral("stepperFrames"));
    m_preview = new PreviewLoader(session, *m_frames, "stepper/preview");
    m_curve->setObjectName(QStringLiteral("stepperCurve"));
    m_rowCurve->setObjectName(QStringLiteral("stepperRowCurve"));
    m_sizes->setObjectName(QStringLiteral("stepperSizes"));
    m_bars->setObjectName(QStringLiteral("stepperBars"));
    m_frames->setMassShown(false);
    m_mailTimer.setInterval(40);
    connect(&m_mailTimer, &QTimer::timeout, this, [this] { takeMail(); });
    m_playTimer.setSingleShot(true);
    connect(&m_playTimer, &QTimer::timeout, this, [this] { playOn(); });
    connect(m_map, &TileCanvas::levelsChanged, this, [this] {
      if (m_fitPending) m_map->fitRange();
      if (!m_map->isApproximate()) m_fitPending = false;
    });
    connect(m_map, &TileCanvas::navigate, this,
            [this](int steps, int layers, int heads) { this->session().moveSelection(steps, layers, heads); });
    connect(m_blocks, &BlockMatrix::readoutChanged, m_readout, &QLabel::setText);
    connect(m_blocks, &BlockMatrix::rowPicked, this, [this](Index row) { pickRow(row); });
    connect(m_sizes, &ClusterSizes::pointed, this, [this](Index cluster) { pickCluster(cluster); });
    connect(m_frames, &FramesCanvas::hovered, this, [this](Index token) { describe(token); });
    connect(m_frames, &FramesCanvas::queryPicked, this, [this](Index token) { pickToken(token, true); });
    connect(m_frames, &FramesCanvas::queryMoved, this, [this](int columns, int rows, int frames) {
      const Segment* video = m_layout.video();
      const auto cell = m_layout.cellOf(std::max<Index>(m_token, video != nullptr ? video->start : 0));
      if (video == nullptr || !cell) return;
      const int f = std::clamp(cell->frame + frames, 0, video->frames - 1);
      const int y = std::clamp(cell->y + rows, 0, video->height - 1);
      const int x = std::clamp(cell->x + columns, 0, video->width - 1);
      pickToken(video->start + (Index{f} * video->height + y) * video->width + x, false);
    });
    refresh();
  }

  void sessionChanged(ChangeFlags changes) override {
    if (changes & Change::Trace) {
      stop();
    }
    if (changes & Change::Runs) followMethod();
    if (changes & (ChangeFlags(Change::Trace) | Change::Selection | Change::Runs)) refresh();
    if ((changes & Change::Theme) && !m_stages.empty()) showTokens();
  }
  [[nodiscard]] bool isSettled() const override {
    if (m_running || m_preview->isLoading()) return false;
    return m_stack->currentIndex() == 0 || m_index < 0 || !current().map || m_map->isSettled();
  }
  [[nodiscard]] QString hint() const override {
    return tr("Left, Right: one stage \u00b7 PageUp, PageDown: one chapter \u00b7 Space: play");
  }
  [[nodiscard]] QStringList statusParts() const override {
    if (m_stages.empty()) return {};
    Index bytes = 0;
    for (const StageHandle& stage : m_stages) bytes += stage->stage->bytes();
    return {tr("stages %1").arg(formatBytes(bytes))};
  }
  [[nodiscard]] QJsonObject saveState() const override {
    return {{QStringLiteral("method"), m_method->currentData().toString()},
            {QStringLiteral("start"), m_start->currentData().toString()},
            {QStringLiteral("stage"), std::max(0, m_index)},
            {QStringLiteral("cluster"), static_cast<double>(m_cluster)}};
  }
  void restoreState(const QJsonObject& state) override {
    if (state.contains(QStringLiteral("method"))) {
      if (m_method->select(state.value(QStringLiteral("method")).toString())) m_methodChosen = true;
    }
    if (state.contains(QStringLiteral("start"))) m_start->select(state.value(QStringLiteral("start")).toString());
    if (state.contains(QStringLiteral("stage"))) m_wanted = state.value(QStringLiteral("stage")).toInt();
    if (state.contains(QStringLiteral("cluster")))
      m_cluster = static_cast<Index>(state.value(QStringLiteral("cluster")).toDouble(-1));
    if (m_wanted >= 0 && m_wanted < static_cast<int>(m_stages.size())) show(std::exchange(m_wanted, -1));
    refresh();
  }

 protected:
  void showEvent(QShowEvent* event) override {
    View::showEvent(event);
    refresh();
  }
  void keyPressEvent(QKeyEvent* event) override {
    if (m_stages.empty()) return View::keyPressEvent(event);
    switch (event->key()) {
      case Qt::Key_Left:
        return go(m_index - 1);
      case Qt::Key_Right:
        return go(m_index + 1);
      case Qt::Key_Home:
        return go(0);
      case Qt::Key_End:
        return go(m_slider->maximum());
      case Qt::Key_PageUp:
        return go(m_slider->previousChapter());
      case Qt::Key_PageDown:
        return go(m_slider->nextChapter());
      case Qt::Key_Space:
        return m_play->toggle();
      case Qt::Key_Escape:
        if (m_cluster < 0) break;
        return pickCluster(-1);
      default:
        break;
    }
    View::keyPressEvent(event);
  }

 private:
  [[nodiscard]] const ShownStage& current() const { return *m_stages[static_cast<std::size_t>(m_index)]; }

  // --- Parts ----------------------------------------------------------------------------------------------------

  void buildHeader() {
    m_header = new MapHeader(this);
    m_method = new CaptionCombo(tr("method"), m_header);
    m_method->setObjectName(QStringLiteral("stepperMethod"));
    for (const Method* method : allMethods()) {
      m_method->addItem(text(method->title()), text(method->id()));
      m_method->setItemData(m_method->count() - 1, text(method->summary()), Qt::ToolTipRole);
    }
    m_method->select(QStringLiteral("svg2"));
    m_start = new CaptionCombo(tr("start"), m_header);
    m_start->setObjectName(QStringLiteral("stepperStart"));
    m_start->addItem(tr("this step alone"), QStringLiteral("alone"));
    m_start->addItem(tr("earlier steps first"), QStringLiteral("earlier"));
    m_start->setToolTip(
        tr("Whether the captured steps before this one are walked first, so that what the method carries over "
           "(centroids, LSE, masks) is there"));
    m_header->addControl(m_method);
    m_header->addControl(m_start);
    connect(m_method, &QComboBox::currentIndexChanged, this, [this] {
      m_methodChosen = true;
      refresh();
    });
    connect(m_start, &QComboBox::currentIndexChanged, this, [this] { refresh(); });
  }

  QWidget* messagePage() {
    auto* page = new QWidget;
    auto* column = new QVBoxLayout(page);
    column->setContentsMargins(Theme::kEdge, Theme::kPad, Theme::kEdge, Theme::kPad);
    column->setSpacing(Theme::kPad);
    m_messageTitle = new QLabel(page);
    m_messageTitle->setObjectName(QStringLiteral("stepperMessage"));
    fonts::give(m_messageTitle, FontRole::Title);
    m_messageText = new NoteLabel(page);
    m_messageText->setObjectName(QStringLiteral("stepperWhy"));
    m_begin = new QPushButton(page);
    m_begin->setObjectName(QStringLiteral("stepperBegin"));
    m_begin->setProperty("primary", true);
    m_open = new OpenButtons(Qt::Horizontal, page);
    for (QLabel* label : {m_messageTitle, static_cast<QLabel*>(m_messageText)}) {
      label->setAlignment(Qt::AlignHCenter);
      label->setWordWrap(true);
    }
    column->addStretch(2);
    column->addWidget(m_messageTitle);
    column->addWidget(m_messageText);
    column->addWidget(m_begin, 0, Qt::AlignHCenter);
    column->addWidget(m_open, 0, Qt::AlignHCenter);
    column->addStretch(3);
    connect(m_begin, &QPushButton::clicked, this, [this] { start(); });
    return page;
  }

  QWidget* navigation() {
    auto* bar = new QWidget;
    auto* row = new QHBoxLayout(bar);
    row->setContentsMargins(Theme::kEdge, Theme::kUnit, Theme::kEdge, Theme::kUnit);
    row->setSpacing(Theme::kPad);
    m_back = new QPushButton(tr("Back"), bar);
    m_back->setObjectName(QStringLiteral("stepperBack"));
    m_back->setToolTip(tr("One stage back (Left)"));
    m_next = new QPushButton(tr("Next"), bar);
    m_next->setObjectName(QStringLiteral("stepperNext"));
    m_next->setToolTip(tr("One stage on (Right)"));
    m_next->setProperty("primary", true);
    m_play = new QToolButton(bar);
    m_play->setObjectName(QStringLiteral("stepperPlay"));
    m_play->setCheckable(true);
    m_play->setAutoRaise(true);
    m_slider = new StageSlider(bar);
    m_slider->setObjectName(QStringLiteral("stepperSlider"));
    m_slider->setAccessibleName(tr("Stage"));
    m_slider->setToolTip(tr("Stages; ticks where a chapter begins (PageUp, PageDown)"));
    m_count = new QLabel(bar);
    m_count->setObjectName(QStringLiteral("stepperCount"));
    fonts::give(m_count, FontRole::Tabular);
    m_cancel = new QPushButton(tr("Stop"), bar);
    m_cancel->setObjectName(QStringLiteral("stepperStop"));
    m_cancel->setToolTip(tr("Compute no further stage; those that are there stay"));
    row->addWidget(m_back);
    row->addWidget(m_play);
    row->addWidget(m_slider, 1);
    row->addWidget(m_count);
    row->addWidget(m_cancel);
    row->addWidget(m_next);
    connect(m_back, &QPushButton::clicked, this, [this] { go(m_index - 1); });
    connect(m_next, &QPushButton::clicked, this, [this] { go(m_index + 1); });
    connect(m_slider, &QSlider::valueChanged, this, [this](int value) { show(value); });
    connect(m_play, &QToolButton::toggled, this, [this](bool on) { setPlaying(on); });
    connect(m_cancel, &QPushButton::clicked, this, [this] {
      m_job.cancel();
      m_running = false;
      m_stopped = true;
      takeMail();
    });
    setPlaying(false);
    return bar;
  }

  // --- What is walked through -------------------------------------------------------------------------------------

  [[nodiscard]] const Method& method() const { return methodById(m_method->currentData().toString().toStdString()); }

  /// The method that was run last is the one of interest, until one is chosen here.
  void followMethod() {
    if (m_methodChosen || session().overlayMethod().isEmpty()) return;
    for (const Method* m : allMethods())
      if (m->hasStages() && text(m->id()) == session().overlayMethod()) m_method->select(text(m->id()));
  }

  void message(const QString& title, const QString& why, const QString& button = {}, bool canOpen = false) {
    stop();
    m_stages.clear();
    m_index = -1;
    m_messageTitle->setText(title);
    m_messageText->setText(why);
    m_begin->setText(button);
    m_begin->setVisible(!button.isEmpty());
    m_open->setVisible(canOpen);
    m_stack->setCurrentIndex(0);
  }

  void stop() {
    m_job.cancel();
    m_running = false;
    m_mailTimer.stop();
    m_mail.reset();
    m_key.clear();
    if (m_play->isChecked()) m_play->setChecked(false);
  }

  void refresh() {
    const auto& trace = session().trace();
    m_header->setVisible(trace != nullptr);
    if (!trace) {
      return message(tr("No trace is open"),
                     tr("Here you see how a method decides about one head: every stage, its formula and its numbers."),
                     {}, true);
    }
    const Selection& at = session().selection();
    m_header->setTitle(tr("L%1 \u00b7 H%2 \u00b7 step %3").arg(at.layer).arg(at.head).arg(at.step));
    const std::optional<HeadId> id = session().selectedHead();
    if (!id) return message(tr("This head was not captured"), tr("Choose another in the heads view."));
    if (!method().hasStages()) {
      QStringList others;
      for (const Method* m : allMethods())
        if (m->hasStages()) others << text(m->title());
      return message(tr("%1 decides nothing step by step").arg(text(method().title())),
                     tr("%1 Choose one of %2 above.").arg(text(method().summary()), others.join(QStringLiteral(", "))));
    }
    if (!isVisible()) return;
    ExplainRequest request;
    request.methodId = method().id();
    request.head = *id;
    request.earlierSteps = m_start->currentData().toString() == QStringLiteral("earlier");
    QString whose = tr("Parameters: the defaults for this trace.");
    if (const HeadResult run = session().runs().find(text(method().id()), *id);
        run && !run->plan.paramsJson.empty() && run->skippedReason.empty()) {
      try {
        request.params = paramsOf(method(), run->plan.paramsJson);
        whose = tr("Parameters: those of your run on this head.");
      } catch (const Error&) {
        // A run of a plan file with other parameters: the defaults do.
      }
    }
    QString key = QStringLiteral("%1/%2/%3/%4/%5/%6/%7")
                      .arg(text(request.methodId))
                      .arg(id->call.step)
                      .arg(QString::fromStdString(id->call.branch))
                      .arg(id->call.layer)
                      .arg(id->head)
                      .arg(request.earlierSteps)
                      .arg(reinterpret_cast<quintptr>(trace.get()));
    for (const auto& [name, value] : request.params.values()) key += text(name) + QLatin1Char('=') + text(value);
    if (key == m_key) return;
    m_asked = key;
    const CallInfo* call = trace->info().find(id->call);
    const Index tokens = call != nullptr ? call->nK : 0;
    m_request = std::move(request);
    m_panel->setFootnote(whose);
    if (tokens > kStartsByItself) {
      message(
          tr("%1, step by step").arg(text(method().title())),
          tr("This head has %1 tokens, so walking through it takes a while: it starts when you ask for it, and can be "
             "stopped.")
              .arg(formatCount(tokens)),
          tr("Walk through this head"));
      return;
    }
    start();
  }

  void start() {
    const auto& trace = session().trace();
    if (!trace) return;
    const int stay = m_index >= 0 ? m_index : m_wanted;
    stop();
    m_key = m_asked;
    m_stages.clear();
    m_index = -1;
    m_wanted = stay;
    m_stopped = false;
    m_fitPending = true;
    m_running = true;
    m_mail = std::make_shared<Mailbox>();
    m_mailTimer.start();
    updateNavigation();
    m_preview->show(session().trace());
    const CallInfo* call = trace->info().find(m_request.head.call);
    const bool heavy = call != nullptr && call->nK > kStartsByItself;
    JobSpec spec;
    spec.name = tr("Walk through %1 on layer %2 head %3, step %4")
                    .arg(text(method().title()))
                    .arg(m_request.head.call.layer)
                    .arg(m_request.head.head)
                    .arg(m_request.head.call.step)
                    .toStdString();
    spec.lane = heavy ? Lane::Compute : Lane::Tiles;
    spec.supersedeTag = "stepper";
    spec.priority = 700;
    spec.userVisible = heavy;
    using Done = std::shared_ptr<HeadReport>;
    const QPointer<StepperView> self(this);
    m_job = session().jobs().submit<Done>(
        spec,
        [trace, request = m_request, mail = m_mail](JobContext& context) {
          Control control = context.control();
          control.progress = [mail, report = control.progress](double fraction) {
            mail->progress.store(static_cast<float>(fraction));
            if (report) report(fraction);
          };
          const HeadData head = trace->load(request.head, context.stop());
          return std::make_shared<HeadReport>(
              explainHead(*trace, request, context.backend(), control, [&](Stage stage) {
                StageHandle shown = prepared(std::move(stage), head);
                const std::lock_guard lock(mail->mutex);
                mail->arrived.push_back(std::move(shown));
              }));
        },
        [self, mail = m_mail](Outcome<Done> outcome) {
          if (!self || self->m_mail != mail) return;
          self->m_running = false;
          if (std::holds_alternative<Cancelled>(outcome)) self->m_stopped = true;  // in the jobs view
          self->takeMail();
          if (self->m_stopped && self->m_stages.empty()) {
            self->message(self->tr("Stopped before the first stage"), {}, self->tr("Walk through this head"));
            self->m_key = self->m_asked;
          }
          if (const auto* error = std::get_if<Error>(&outcome)) {
            self->message(self->tr("%1 cannot be walked through here").arg(text(self->method().title())),
                          QString::fromUtf8(error->what()), self->tr("Try again"));
            self->m_key = self->m_asked;  // not again at every change of something else
          }
        });
    if (m_stages.empty()) {
      m_messageTitle->setText(tr("Reading the head..."));
      m_messageText->clear();
      m_begin->hide();
      m_open->hide();
    }
  }

  void takeMail() {
    if (m_mail) {
      std::vector<StageHandle> fresh;
      {
        const std::lock_guard lock(m_mail->mutex);
        fresh.swap(m_mail->arrived);
      }
      m_stages.insert(m_stages.end(), fresh.begin(), fresh.end());
    }
    if (!m_running) m_mailTimer.stop();
    if (m_stages.empty()) return;
    m_stack->setCurrentIndex(1);
    std::vector<int> starts;
    for (std::size_t i = 0; i < m_stages.size(); ++i) {
      if (i == 0 || m_stages[i]->stage->chapter != m_stages[i - 1]->stage->chapter)
        starts.push_back(static_cast<int>(i));
    }
    m_slider->setChapters(std::move(starts));
    const int last = static_cast<int>(m_stages.size()) - 1;
    {
      const QSignalBlocker quiet(m_slider);
      m_slider->setRange(0, last);
    }
    if (m_wanted >= 0 && (m_wanted <= last || !m_running)) {
      show(std::min(std::exchange(m_wanted, -1), last));
    } else if (m_index < 0) {
      show(0);
    }
    updateNavigation();
  }

  // --- Going --------------------------------------------------------------------------------------------------------

  void go(int index) {
    m_wanted = -1;
    if (!m_stages.empty()) show(std::clamp(index, 0, static_cast<int>(m_stages.size()) - 1));
  }

  void setPlaying(bool on) {
    m_play->setIcon(themedIcon(on ? QStringLiteral("pause") : QStringLiteral("play")));
    m_play->setToolTip(on ? tr("Pause (Space)") : tr("Play the stages (Space)"));
    m_play->setAccessibleName(m_play->toolTip());
    if (!on) return m_playTimer.stop();
    if (m_index + 1 >= static_cast<int>(m_stages.size()) && !m_running) go(0);
    playNext();
  }
  /// Iterations of the same kind go by quickly, a new thought takes time to read.
  void playNext() {
    const std::size_t next = static_cast<std::size_t>(m_index) + 1;
    const bool same = m_index > 0 && next < m_stages.size() &&
                      m_stages[next]->stage->chapter == current().stage->chapter &&
                      m_stages[next - 2]->stage->chapter == current().stage->chapter;
    m_playTimer.start(same ? 400 : 3500);
  }
  void playOn() {
    if (!m_play->isChecked()) return;
    if (m_index + 1 < static_cast<int>(m_stages.size())) {
      go(m_index + 1);
    } else if (!m_running) {
      return m_play->setChecked(false);
    }
    playNext();
  }

  void updateNavigation() {
    const int count = static_cast<int>(m_stages.size());
    m_back->setEnabled(m_index > 0);
    m_next->setEnabled(m_index + 1 < count);
    m_cancel->setVisible(m_running);
    QString what = tr("Stage %1 of %2").arg(m_index + 1).arg(count);
    if (m_running) {
      const int percent = static_cast<int>(m_mail ? m_mail->progress.load() * 100 : 0);
      what += tr(", more to come (%1 %)").arg(percent);
    } else if (m_stopped) {
      what += tr(", stopped");
    }
    m_count->setText(what);
  }

  // --- Pictures -----------------------------------------------------------------------------------------------------

  void show(int index) {
    if (index < 0 || index >= static_cast<int>(m_stages.size())) return;
    const bool other = index != m_index;
    m_index = index;
    {
      const QSignalBlocker quiet(m_slider);
      m_slider->setValue(index);
    }
    if (!other) return;
    const ShownStage& shown = current();
    const Stage& stage = *shown.stage;
    m_panel->setStage(stage);
    m_readout->clear();
    m_map->setVisible(shown.map != nullptr);
    m_blocks->setVisible(stage.blocks.has_value());
    m_bars->setVisible(stage.bars.has_value());
    m_framesBox->setVisible(!stage.tokens.empty() && knowsLayout());
    m_curve->setVisible(stage.series.has_value());
    const bool recall = stage.numbers.has_value() && !stage.last;
    m_rowCurve->setVisible(recall || (stage.blocks.has_value() && stage.blocks->rowsAreShares));
    m_sizes->setVisible(!stage.tokens.empty() && !stage.tokens.front().sizes.empty());
    m_below->setVisible(stage.series.has_value() || m_rowCurve->isVisibleTo(m_below) || m_sizes->isVisibleTo(m_below));
    if (shown.map) {
      m_map->setMap(shown.map, shown.queries, shown.keys);
      m_map->setOverlay(shown.overlay);
    }
    if (stage.blocks) m_blocks->setStage(shown.stage, shown.blocks);
    if (stage.bars) showBars(*stage.bars);
    if (stage.series) showSeries(*stage.series);
    if (!stage.tokens.empty() && !stage.tokens.front().sizes.empty()) {
      m_sizes->setSizes(stage.tokens.front().sizes, text(stage.tokens.front().what));
      if (m_cluster >= static_cast<Index>(stage.tokens.front().sizes.size())) m_cluster = -1;
    }
    showTokens();
    showRow();
    if (recall) showRecall();
    updateNavigation();
  }

  bool knowsLayout() {
    const auto& trace = session().trace();
    const CallInfo* call = trace ? trace->info().find(m_request.head.call) : nullptr;
    if (call == nullptr) return false;
    if (call->layout.tokenCount != m_layout.tokenCount || m_layoutOf != m_request.head.call) {
      m_layout = call->layout;
      m_layoutOf = m_request.head.call;
      m_frames->setLayoutOf(m_layout);
    }
    return m_layout.video() != nullptr;
  }

  void showBars(const StageBars& bars) {
    QVector<SmallBars::Bar> out;
    bool shares = true;
    for (const StageBars::Bar& bar : bars.bars) {
      out.push_back({text(bar.name), bar.value, bar.group, bar.marked});
      shares = shares && bar.value <= 1.0 + 1e-9;
    }
    m_bars->setBars(text(bars.what), out, bars.threshold,
                    {text(bars.groupNames[0]), text(bars.groupNames[1]), text(bars.groupNames[2])},
                    bars.threshold.has_value() && shares);
  }

  void showSeries(const StageSeries& series) {
    // The axes are those of the whole series, so that the curve grows and nothing jumps.
    const Stage& stage = *current().stage;
    double low = std::numeric_limits<double>::infinity(), high = -low;
    std::size_t longest = 0;
    for (const StageHandle& other : m_stages) {
      if (other->stage->chapter != stage.chapter || !other->stage->series || other->stage->series->what != series.what)
        continue;
      longest = std::max(longest, other->stage->series->values.size());
      for (const double value : other->stage->series->values) {
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
    const double margin = high > low ? 0 : std::max(std::abs(high) * 0.05, 1e-6);
    SmallCurve::Line line;
    line.dots = true;
    for (std::size_t i = 0; i < series.values.size(); ++i)
      line.points.push_back({static_cast<double>(i + 1), series.values[i]});
    const double end = std::max(2.0, static_cast<double>(longest));
    m_curve->setPlot(text(series.what), {1, end, QStringLiteral("1"), QString::number(end), tr("iteration")},
                     {low - margin, high + margin, formatNumber(low), formatNumber(high), {}}, {line});
  }

  /// The kept share of a row against how many of its columns: how concentrated it is, and where the choice stops.
  void showRow() {
    const Stage& stage = *current().stage;
    if (!stage.blocks) return;
    const BlockPicture& picture = *stage.blocks;
    Index row = m_row;
    if (m_cluster >= 0 && rowsAreClusters(stage)) row = m_cluster;
    if (row < 0 || row >= picture.rows) row = picture.rows / 2;
    m_blocks->setRow(row);
    if (!picture.rowsAreShares) return;
    const auto first = picture.values.begin() + row * picture.columns;
    std::vector<std::pair<float, bool>> cells;
    Index kept = 0;
    double sum = 0;
    for (Index j = 0; j < picture.columns; ++j) {
      const float value = *(first + j);
      const bool keep = !picture.kept.empty() && picture.kept[static_cast<std::size_t>(row * picture.columns + j)] != 0;
      cells.emplace_back(std::isnan(value) ? 0.0F : value, keep);
      sum += static_cast<double>(cells.back().first);
      kept += keep ? 1 : 0;
    }
    std::stable_sort(cells.begin(), cells.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    SmallCurve::Line line;
    line.points.push_back({0, 0});
    double total = 0, keptMass = 0;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      total += static_cast<double>(cells[i].first);
      if (cells[i].second) keptMass += static_cast<double>(cells[i].first);
      line.points.push_back({static_cast<double>(i + 1), sum > 0 ? total / sum : 0});
    }
    QVector<SmallCurve::Mark> marks;
    QString title =
        tr("%1 %2: its %3s, most probable first").arg(text(picture.rowName)).arg(row).arg(text(picture.columnName));
    if (!picture.kept.empty()) {
      marks.push_back({static_cast<double>(kept), tr("kept %1").arg(formatCount(kept)), false});
      title = tr("%1 %2 keeps %3 of %4 %5s: %6 of its mass")
                  .arg(text(picture.rowName))
                  .arg(row)
                  .arg(formatCount(kept), formatCount(picture.columns), text(picture.columnName),
                       formatPercent(sum > 0 ? keptMass / sum : 0));
    }
    if (picture.target) marks.push_back({*picture.target, tr("top-p %1").arg(formatPercent(*picture.target)), true});
    m_rowCurve->setPlot(title,
                        {0, static_cast<double>(picture.columns), QStringLiteral("0"), formatCount(picture.columns),
                         text(picture.columnName) + QStringLiteral("s")},
                        {0, 1.02, QStringLiteral("0"), QStringLiteral("100 %"), {}}, {line}, marks);
  }

  /// What a plan made at each stage so far would keep of the mass: whether going on pays.
  void showRecall() {
    SmallCurve::Line line;
    line.dots = true;
    double low = 1, high = 0;
    int total = 0;
    for (std::size_t i = 0; i < m_stages.size(); ++i) {
      const Stage& other = *m_stages[i]->stage;
      if (other.chapter != current().stage->chapter) continue;
      ++total;
      if (!other.numbers) continue;
      low = std::min(low, other.numbers->keptMass);
      high = std::max(high, other.numbers->keptMass);
      if (static_cast<int>(i) <= m_index) line.points.push_back({static_cast<double>(total), other.numbers->keptMass});
    }
    const auto shown = [](double share) { return QStringLiteral("%1 %").arg(share * 100, 0, 'f', 2); };
    const double margin = high > low ? 0 : 0.01;
    const double end = std::max(2.0, static_cast<double>(total));
    m_rowCurve->setPlot(tr("kept mass of a plan made after each half"),
                        {1, end, QStringLiteral("1"), QString::number(end), tr("half round")},
                        {low - margin, high + margin, shown(low), shown(high), {}}, {line});
  }

  static bool rowsAreClusters(const Stage& stage) {
    return stage.blocks && !stage.tokens.empty() &&
           static_cast<Index>(stage.tokens.front().sizes.size()) == stage.blocks->rows;
  }

  void showTokens() {
    if (m_index < 0) return;
    const Stage& stage = *current().stage;
    if (stage.tokens.empty() || !knowsLayout()) return;
    const Theme& theme = Theme::current();
    const TokenPicture& picture = stage.tokens.front();
    std::vector<QRgb> colors(static_cast<std::size_t>(m_layout.tokenCount), qRgba(0, 0, 0, 0));
    QString caption = text(picture.what);
    const auto tinted = [](QRgb color, int alpha) { return qRgba(qRed(color), qGreen(color), qBlue(color), alpha); };
    m_sizes->setCurrent(m_cluster);
    if (!picture.values.empty()) {
      for (std::size_t i = 0; i < colors.size(); ++i)
        if (picture.values[i] > 0)
          colors[i] = tinted(theme.slotB.rgb(), 70 + static_cast<int>(picture.values[i] * 185));
    } else if (m_cluster < 0) {
      for (std::size_t i = 0; i < colors.size(); ++i)
        if (picture.labels[i] >= 0) colors[i] = clusterColor(picture.labels[i], theme.dark);
      caption += tr(": click one to follow it");
    } else {
      const bool looks = rowsAreClusters(stage) && !stage.blocks->kept.empty() && stage.tokens.size() > 1;
      Index members = 0, seen = 0;
      for (std::size_t i = 0; i < colors.size(); ++i) {
        const std::int32_t own = picture.labels[i];
        if (looks && stage.tokens[1].labels[i] >= 0 &&
            stage.blocks
                    ->kept[static_cast<std::size_t>(m_cluster * stage.blocks->columns + stage.tokens[1].labels[i])] !=
                0) {
          colors[i] = tinted(theme.slotA.rgb(), 140);
          ++seen;
        }
        if (own == m_cluster) {
          colors[i] = theme.slotB.rgb();
          ++members;
        } else if (!looks && own >= 0) {
          colors[i] = tinted(clusterColor(own, theme.dark), 50);
        }
      }
      caption = looks ? tr("query cluster %1: %2 tokens (bright), keeps keys at %3 tokens")
                            .arg(m_cluster)
                            .arg(formatCount(members), formatCount(seen))
                      : tr("%1, cluster %2: %3 tokens (Esc: all)")
                            .arg(text(picture.what))
                            .arg(m_cluster)
                            .arg(formatCount(members));
    }
    m_framesCaption->setText(caption);
    m_frames->setMarks(!picture.marked.empty() ? picture.marked.front() : picture.labels.empty() ? -1 : m_token, -1);
    m_frames->setTokenColors(std::move(colors));
    m_frames->setAccessibleName(caption);
  }

  void pickCluster(Index cluster) {
    if (cluster == m_cluster) return;
    m_cluster = cluster;
    showTokens();
    showRow();
  }
  void pickRow(Index row) {
    m_row = row;
    if (m_index >= 0 && rowsAreClusters(*current().stage)) m_cluster = row;
    showTokens();
    showRow();
  }
  /// A click on the shown cluster shows all again.
  void pickToken(Index token, bool toggles) {
    if (m_index < 0 || token < 0) return;
    m_token = token;
    const Stage& stage = *current().stage;
    if (!stage.tokens.empty() && !stage.tokens.front().labels.empty()) {
      const Index cluster = stage.tokens.front().labels[static_cast<std::size_t>(token)];
      m_cluster = toggles && cluster == m_cluster ? -1 : cluster;
    }
    showTokens();
    showRow();
    describe(token);
  }

  void describe(Index token) {
    if (m_index < 0) return;
    const Stage& stage = *current().stage;
    if (token < 0 || stage.tokens.empty()) return m_readout->clear();
    const TokenPicture& picture = stage.tokens.front();
    const auto i = static_cast<std::size_t>(token);
    QString what = QString::fromStdString(m_layout.describe(token));
    if (!picture.labels.empty() && picture.labels[i] >= 0) {
      what += tr(": cluster %1 of %2 tokens")
                  .arg(picture.labels[i])
                  .arg(formatCount(picture.sizes[static_cast<std::size_t>(picture.labels[i])]));
    } else if (!picture.labels.empty()) {
      what += tr(": not clustered");
    }
    m_readout->setText(what);
  }

  MapHeader* m_header = nullptr;
  CaptionCombo *m_method = nullptr, *m_start = nullptr;
  QStackedWidget* m_stack = nullptr;
  QLabel* m_messageTitle = nullptr;
  NoteLabel *m_messageText = nullptr, *m_framesCaption = nullptr, *m_readout = nullptr;
  QPushButton *m_begin = nullptr, *m_back = nullptr, *m_next = nullptr, *m_cancel = nullptr;
  OpenButtons* m_open = nullptr;
  QToolButton* m_play = nullptr;
  StageSlider* m_slider = nullptr;
  QLabel* m_count = nullptr;
  QWidget *m_framesBox = nullptr, *m_below = nullptr;
  TileCanvas* m_map;
  BlockMatrix* m_blocks;
  FramesCanvas* m_frames;
  SmallCurve *m_curve, *m_rowCurve;
  ClusterSizes* m_sizes;
  SmallBars* m_bars;
  StagePanel* m_panel;
  QTimer m_mailTimer, m_playTimer;

  ExplainRequest m_request;
  QString m_key, m_asked;  // what is walked through or was refused (empty: nothing), what it should be
  std::shared_ptr<Mailbox> m_mail;
  std::vector<StageHandle> m_stages;
  int m_index = -1, m_wanted = -1;
  Index m_cluster = -1, m_row = -1, m_token = -1;
  TokenLayout m_layout;
  CallId m_layoutOf;
  PreviewLoader* m_preview = nullptr;
  bool m_running = false, m_stopped = false, m_fitPending = true, m_methodChosen = false;
  JobHandle m_job;  // last: jobs end before what they use
};

}  // namespace

const ViewInfo& stepper_info() {
  static const ViewInfo info{
      "stepper",
      QT_TRANSLATE_NOOP("View", "Step by step"),
      DockArea::Centre,
      5,
      "stepper",
      "views.md#step-by-step",
      [](Session& session, QWidget* parent) -> View* { return new StepperView(session, parent); },
      true};
  return info;
}

}  // namespace sparsight

#include "stepper.moc"

// SPDX-License-Identifier: Apache-2.0
// Methods side by side on the same head: what each keeps, at which cost, at its own setting or at an equal budget.
#include <QAction>
#include <QCheckBox>
#include <QClipboard>
#include <QDoubleSpinBox>
#include <QGuiApplication>
#include <QJsonArray>
#include <QJsonObject>
#include <QKeyEvent>
#include <QMenu>
#include <QPointer>
#include <QPushButton>
#include <QScrollArea>
#include <QSplitter>
#include <QTimer>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <utility>

#include "sparsight/core/attention_map.h"
#include "ui/compare_columns.h"
#include "ui/compare_runs.h"
#include "ui/compare_table.h"
#include "ui/icons.h"
#include "ui/map_header.h"
#include "ui/open_buttons.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {
namespace {

constexpr int kFollowMs = 250;  // the selection rests
const char* const kDefaults[] = {"svg", "svg2", "svoo", "adaspa", "oracle_block"};

QString text(std::string_view s) { return QString::fromUtf8(s.data(), static_cast<qsizetype>(s.size())); }

QString titleOf(const QString& id) {
  const std::string wanted = id.toStdString();
  for (const Method* method : allMethods())
    if (method->id() == wanted) return text(method->title());
  return id;
}

struct LoadedHead {
  HeadId id;
  std::shared_ptr<AttentionMap> map;
  AxisSpec queries, keys;
};

/// A menu whose check marks are set one after the other without closing it.
class CheckMenu : public QMenu {
 public:
  using QMenu::QMenu;

 protected:
  void mouseReleaseEvent(QMouseEvent* event) override {
    QAction* action = actionAt(event->position().toPoint());
    if (action != nullptr && action->isCheckable() && action->isEnabled())
      action->trigger();
    else
      QMenu::mouseReleaseEvent(event);
  }
  void keyPressEvent(QKeyEvent* event) override {
    QAction* action = activeAction();
    if (event->key() == Qt::Key_Space && action != nullptr && action->isCheckable())
      action->trigger();
    else
      QMenu::keyPressEvent(event);
  }
};

class CompareView : public View {
  Q_OBJECT
 public:
  CompareView(Session& session, QWidget* parent)
      : View(session, parent), m_runs(new CompareRuns(session, this)), m_columns(new CompareColumns(session.jobs())) {
    buildHeader();
    m_readout = new NoteLabel(this, false);
    m_readout->setObjectName(QStringLiteral("compareReadout"));
    m_readout->setContentsMargins(Theme::kEdge, 2, Theme::kEdge, 2);
    m_readout->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
    m_readout->setText(tr("Point at a map: who keeps the pair. Right click picks it."));
    m_table = new CompareTable;
    m_about = new NoteLabel(nullptr, false);
    m_about->setObjectName(QStringLiteral("compareAbout"));
    m_about->setContentsMargins(Theme::kEdge, Theme::kUnit, Theme::kEdge, Theme::kUnit);
    m_about->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
    auto* upper = new QWidget;
    auto* upperColumn = new QVBoxLayout(upper);
    upperColumn->setContentsMargins(0, 0, 0, 0);
    upperColumn->setSpacing(0);
    auto* scroll = new QScrollArea;
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    scroll->setFocusPolicy(Qt::NoFocus);
    scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    scroll->setWidget(m_columns);
    upperColumn->addWidget(scroll, 1);
    upperColumn->addWidget(m_readout);
    auto* lower = new QWidget;
    lower->setProperty("role", QStringLiteral("panel"));
    auto* lowerColumn = new QVBoxLayout(lower);
    lowerColumn->setContentsMargins(0, 0, 0, 0);
    lowerColumn->setSpacing(0);
    lowerColumn->addWidget(m_about);
    lowerColumn->addWidget(m_table, 1);
    m_body = new QSplitter(Qt::Vertical);
    m_body->addWidget(upper);
    m_body->addWidget(lower);
    m_body->setStretchFactor(0, 1);
    m_body->setStretchFactor(1, 0);
    m_body->setChildrenCollapsible(false);
    m_empty = new TileCanvas(session.jobs(), this);  // paints messages as the map does
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, 0);
    layout->setSpacing(0);
    layout->addWidget(m_header);
    layout->addWidget(m_body, 1);
    layout->addWidget(m_empty, 1);
    m_open = new OpenButtons(Qt::Horizontal, this);
    m_open->hide();
    setFocusProxy(&m_columns->lead());

    connect(m_runs, &CompareRuns::changed, this, &CompareView::showAnswers);
    connect(&session, &Session::jobsChanged, this, [this] {
      if (m_runs->isBusy()) showAnswers();
    });
    connect(m_columns, &CompareColumns::picked, this, [this](Index row, Index col) {
      if (!m_shown) return;
      const AttentionMap& map = *m_shown->map;
      this->session().setPair({map.head().queryToken(map.queryRowAt(row)), map.keyAt(col)});
    });
    connect(m_columns, &CompareColumns::navigate, this,
            [this](int steps, int layers, int heads) { this->session().moveSelection(steps, layers, heads); });
    connect(m_columns, &CompareColumns::pointed, this, &CompareView::showReadout);
    connect(m_columns, &CompareColumns::levelsChanged, this, [this] {
      if (m_fitPending) m_columns->lead().fitRange();
      if (!m_columns->isApproximate()) m_fitPending = false;
    });
    m_follow.setSingleShot(true);
    m_follow.setInterval(kFollowMs);
    connect(&m_follow, &QTimer::timeout, this, &CompareView::compare);
    ColorSettings colors = m_columns->lead().colors();
    colors.palette = defaultPalette(Theme::current().dark);
    m_columns->setColors(colors);
    updateControls();
    refresh();
  }

  void sessionChanged(ChangeFlags changes) override {
    if (changes & Change::Trace) {
      m_job.cancel();
      m_loading = false;
      m_shown.reset();
      m_overlayJobs.clear();
      m_fitPending = true;
      m_runs->clear();
    }
    if (changes & Change::Theme) {
      ColorSettings colors = m_columns->lead().colors();
      colors.palette = defaultPalette(Theme::current().dark);
      m_columns->setColors(colors);
      m_table->restyle();
    }
    // Runs: the parameters of a method's last run are what it is compared with.
    if (changes & (ChangeFlags(Change::Trace) | Change::Selection | Change::Runs)) refresh();
    if (changes & Change::Pair) showPair();
  }

  [[nodiscard]] bool isSettled() const override {
    return !m_loading && !m_runs->isBusy() && !m_follow.isActive() && m_overlayJobs.empty() &&
           (!m_shown || m_columns->isSettled());
  }
  [[nodiscard]] QString hint() const override {
    return tr("Ctrl+Enter compares \u00b7 Ctrl+Shift+T copies the table \u00b7 maps move together");
  }

  [[nodiscard]] QJsonObject saveState() const override {
    QJsonObject state{{QStringLiteral("methods"), QJsonArray::fromStringList(methods())},
                      {QStringLiteral("scope"), m_scope->currentData().toString()},
                      {QStringLiteral("at"), m_at->currentData().toString()},
                      {QStringLiteral("pooling"), m_pooling->currentData().toString()},
                      {QStringLiteral("warmup"), m_warmup->isChecked()},
                      {QStringLiteral("follow"), m_followCheck->isChecked()}};
    if (budget()) state.insert(QStringLiteral("value"), m_value->value());
    return state;
  }
  void restoreState(const QJsonObject& state) override {
    const QJsonValue chosen = state.value(QStringLiteral("methods"));
    QStringList ids = chosen.isString() ? chosen.toString().split(QLatin1Char(','), Qt::SkipEmptyParts) : QStringList();
    for (const auto& id : chosen.toArray()) ids << id.toString();
    if (!ids.isEmpty()) setMethods(ids);
    m_scope->select(state.value(QStringLiteral("scope")).toString());
    if (m_at->select(state.value(QStringLiteral("at")).toString())) updateControls();
    if (state.contains(QStringLiteral("value"))) {
      const QSignalBlocker quiet(m_value);
      m_value->setValue(state.value(QStringLiteral("value")).toDouble(m_value->value()));
    }
    const int pooling = m_pooling->findData(state.value(QStringLiteral("pooling")).toString());
    if (pooling >= 0) m_pooling->setCurrentIndex(pooling);
    m_warmup->setChecked(state.value(QStringLiteral("warmup")).toBool(m_warmup->isChecked()));
    m_followCheck->setChecked(state.value(QStringLiteral("follow")).toBool(m_followCheck->isChecked()));
    refresh();
  }

 protected:
  void showEvent(QShowEvent* event) override {
    View::showEvent(event);
    refresh();
  }
  void resizeEvent(QResizeEvent* event) override {
    View::resizeEvent(event);
    placeOpen();
  }

 private:
  // --- header -------------------------------------------------------------------------------------------------------

  void buildHeader() {
    m_header = new MapHeader(this);
    m_methodsButton = new QToolButton(m_header);
    m_methodsButton->setObjectName(QStringLiteral("compareMethods"));
    m_methodsButton->setProperty("framed", true);
    m_methodsButton->setPopupMode(QToolButton::InstantPopup);
    m_methodsButton->setFocusPolicy(Qt::TabFocus);
    m_methodsButton->setToolTip(tr("The methods to compare, each a column"));
    m_methodsMenu = new CheckMenu(m_methodsButton);
    m_methodsMenu->setToolTipsVisible(true);
    for (const Method* method : allMethods()) {
      QAction* action = m_methodsMenu->addAction(text(method->title()));
      action->setData(text(method->id()));
      action->setCheckable(true);
      action->setToolTip(text(method->summary()));
      connect(action, &QAction::toggled, this, [this] {
        updateControls();
        refresh();
      });
    }
    m_methodsButton->setMenu(m_methodsMenu);
    m_scope = new CaptionCombo(tr("on"), m_header);
    m_scope->setObjectName(QStringLiteral("compareScope"));
    m_scope->addItem(tr("this head"), QStringLiteral("head"));
    m_scope->addItem(tr("this layer"), QStringLiteral("layer"));
    m_scope->addItem(tr("this step"), QStringLiteral("step"));
    m_scope->setToolTip(tr("The heads that the table counts; the maps show the selected head"));
    m_at = new CaptionCombo(tr("at"), m_header);
    m_at->setObjectName(QStringLiteral("compareAt"));
    m_at->addItem(tr("own settings"), QStringLiteral("own"));
    m_at->addItem(tr("equal kept"), QStringLiteral("kept"));
    m_at->addItem(tr("equal kept mass"), QStringLiteral("mass"));
    m_at->addItem(tr("equal output error"), QStringLiteral("error"));
    m_at->setToolTip(
        tr("Own settings: as last run in the method view, else the family's defaults. Equal: each method's knob is "
           "moved until the mean over the heads is nearest to the number"));
    m_value = new QDoubleSpinBox(m_header);
    m_value->setObjectName(QStringLiteral("compareValue"));
    m_value->setAccessibleName(tr("Budget"));
    m_value->setKeyboardTracking(false);
    m_pooling = new CaptionCombo(tr("pooling"), m_header);
    m_pooling->addItem(tr("max"), QStringLiteral("max"));
    m_pooling->addItem(tr("mean"), QStringLiteral("mean"));
    m_compare = new QPushButton(tr("Compare"), m_header);
    m_compare->setObjectName(QStringLiteral("compareRun"));
    m_compare->setProperty("primary", true);
    m_compare->setFocusPolicy(Qt::TabFocus);
    m_warmup = new QCheckBox(tr("dense warm-up"), m_header);
    m_warmup->setObjectName(QStringLiteral("compareWarmup"));
    m_warmup->setToolTip(tr(
        "On: the first steps and layers stay dense, as each method's published rule says. Off: every head is treated "
        "as sparse"));
    m_followCheck = new QCheckBox(tr("follow"), m_header);
    m_followCheck->setObjectName(QStringLiteral("compareFollow"));
    m_followCheck->setToolTip(tr("Compare again by itself when the selection or a setting changes"));
    m_more = new QToolButton(m_header);
    m_more->setObjectName(QStringLiteral("compareMore"));
    m_more->setIcon(themedIcon(QStringLiteral("copy")));
    m_more->setPopupMode(QToolButton::InstantPopup);
    m_more->setFocusPolicy(Qt::TabFocus);
    m_more->setAccessibleName(tr("Copy"));
    m_more->setToolTip(tr("Copy the table or the command line"));
    for (QWidget* control :
         {static_cast<QWidget*>(m_methodsButton), static_cast<QWidget*>(m_scope), static_cast<QWidget*>(m_at),
          static_cast<QWidget*>(m_value), static_cast<QWidget*>(m_warmup), static_cast<QWidget*>(m_compare),
          static_cast<QWidget*>(m_followCheck), static_cast<QWidget*>(m_pooling), static_cast<QWidget*>(m_more)})
      m_header->addControl(control);

    const auto action = [this](const char* name, const QString& label, const QKeySequence& key, auto slot) {
      auto* made = new QAction(label, this);
      made->setObjectName(QLatin1String(name));
      made->setShortcut(key);
      made->setShortcutContext(Qt::WidgetWithChildrenShortcut);
      connect(made, &QAction::triggered, this, slot);
      addAction(made);
      return made;
    };
    auto* more = new QMenu(m_more);
    more->addAction(action("compare.copyTable", tr("Copy table"), QKeySequence(QStringLiteral("Ctrl+Shift+T")),
                           [this] { QGuiApplication::clipboard()->setText(m_table->tsv()); }));
    more->addAction(action("compare.copyCli", tr("Copy CLI line"), QKeySequence(QStringLiteral("Ctrl+Alt+C")),
                           [this] { QGuiApplication::clipboard()->setText(m_runs->commandLine(methods())); }));
    m_more->setMenu(more);
    action("compare.run", tr("Compare"), QKeySequence(QStringLiteral("Ctrl+Return")), [this] { compare(); });

    for (const char* id : kDefaults)
      for (QAction* entry : m_methodsMenu->actions())
        if (entry->data().toString() == QLatin1String(id)) {
          const QSignalBlocker quiet(entry);
          entry->setChecked(true);
        }
    setBudget(Budget::Kept);
    connect(m_scope, &QComboBox::currentIndexChanged, this, &CompareView::refresh);
    connect(m_at, &QComboBox::currentIndexChanged, this, [this] {
      if (const std::optional<Budget> budget = this->budget()) setBudget(*budget);
      updateControls();
      refresh();
    });
    connect(m_value, &QDoubleSpinBox::valueChanged, this, &CompareView::refresh);
    connect(m_pooling, &QComboBox::currentIndexChanged, this, [this] {
      m_columns->setReduce(m_pooling->currentData().toString() == QStringLiteral("mean") ? Reduce::Mean : Reduce::Max);
    });
    connect(m_compare, &QPushButton::clicked, this, [this] { m_runs->isBusy() ? m_runs->cancel() : compare(); });
    connect(m_warmup, &QCheckBox::toggled, this, &CompareView::refresh);
    connect(m_followCheck, &QCheckBox::toggled, this, &CompareView::refresh);
  }

  [[nodiscard]] QStringList methods() const {
    QStringList ids;
    // dense first: what nothing was taken from. Then the usual order, then the rest.
    const auto checked = [this](const QString& id) {
      for (const QAction* action : m_methodsMenu->actions())
        if (action->data().toString() == id) return action->isChecked();
      return false;
    };
    if (checked(QStringLiteral("dense"))) ids << QStringLiteral("dense");
    for (const char* id : kDefaults)
      if (checked(QLatin1String(id))) ids << QLatin1String(id);
    for (const QAction* action : m_methodsMenu->actions())
      if (action->isChecked() && !ids.contains(action->data().toString())) ids << action->data().toString();
    return ids;
  }
  void setMethods(const QStringList& ids) {
    for (QAction* action : m_methodsMenu->actions()) {
      const QSignalBlocker quiet(action);
      action->setChecked(ids.contains(action->data().toString()));
    }
    updateControls();
  }

  [[nodiscard]] std::optional<Budget> budget() const {
    const QString at = m_at->currentData().toString();
    if (at == QStringLiteral("kept")) return Budget::Kept;
    if (at == QStringLiteral("mass")) return Budget::Mass;
    if (at == QStringLiteral("error")) return Budget::Error;
    return std::nullopt;
  }
  /// Range, unit and a usual value; the value of a budget chosen before comes back.
  void setBudget(Budget budget) {
    const QSignalBlocker quiet(m_value);
    m_lastValue[static_cast<std::size_t>(m_unit)] = m_value->value();
    const bool first = m_lastValue[static_cast<std::size_t>(budget)] <= 0;
    m_unit = budget;
    const bool error = budget == Budget::Error;
    m_value->setSuffix(error ? QString() : QStringLiteral(" %"));
    m_value->setDecimals(error ? 3 : 1);
    m_value->setRange(error ? 0.001 : 0.1, error ? 10.0 : 100.0);
    m_value->setSingleStep(error ? 0.01 : 5.0);
    constexpr double kUsual[] = {25.0, 90.0, 0.1};
    m_value->setValue(first ? kUsual[static_cast<std::size_t>(budget)] : m_lastValue[static_cast<std::size_t>(budget)]);
  }

  void updateControls() {
    const qsizetype count = methods().size();
    m_methodsButton->setText(count == 1 ? tr("1 method \u25be") : tr("%1 methods \u25be").arg(count));
    m_value->setVisible(budget().has_value());
    if (const std::optional<Budget> now = budget(); now && *now != m_unit) setBudget(*now);
    QEvent relayout(QEvent::LayoutRequest);
    QCoreApplication::sendEvent(m_header, &relayout);
  }

  [[nodiscard]] CompareQuestion question() const {
    CompareQuestion q;
    const QString scope = m_scope->currentData().toString();
    q.scope = scope == QStringLiteral("step")    ? CompareScope::Step
              : scope == QStringLiteral("layer") ? CompareScope::Layer
                                                 : CompareScope::Head;
    q.at = session().selection();
    q.warmup = m_warmup->isChecked();
    if (const std::optional<Budget> at = budget())
      q.target = BudgetTarget{*at, at == Budget::Error ? m_value->value() : m_value->value() / 100.0};
    return q;
  }

  // --- the head -----------------------------------------------------------------------------------------------------

  void message(const QString& title, const QString& why) {
    m_job.cancel();
    m_loading = false;
    m_shown.reset();
    m_overlayJobs.clear();
    m_columns->setMap(nullptr, {}, {});
    m_body->hide();
    m_empty->setMessage(title, why);
    m_empty->show();
    m_open->setVisible(!session().trace());
    placeOpen();
  }
  void placeOpen() {
    m_open->adjustSize();
    const QRect room = m_empty->geometry();
    m_open->move(room.center().x() - m_open->width() / 2, room.center().y() + m_open->height() + Theme::kGroupGap);
    m_open->raise();
  }

  void refresh() {
    const auto& trace = session().trace();
    m_header->setVisible(trace != nullptr);
    m_runs->setQuestion(question());
    if (!trace) {
      return message(tr("No trace is open"),
                     tr("Here methods stand side by side: what each keeps of a head, and at which cost."));
    }
    const Selection& selection = session().selection();
    QString title = tr("L%1 \u00b7 H%2 \u00b7 step %3").arg(selection.layer).arg(selection.head).arg(selection.step);
    if (!selection.branch.empty()) title += QStringLiteral(" \u00b7 ") + text(selection.branch);
    m_header->setTitle(title);
    const std::optional<HeadId> id = session().selectedHead();
    if (!id) return message(tr("This head was not captured"), tr("Choose another in the heads view."));
    if (methods().isEmpty()) return message(tr("Nothing to compare"), tr("Choose one or more methods above."));
    if (!isVisible() && m_columns->count() == 0) return;  // made when they are looked at first
    m_open->hide();
    m_empty->hide();
    m_body->show();
    if (const int count = static_cast<int>(methods().size()); count != m_columns->count()) {
      m_overlayOf.clear();
      m_overlayJobs.clear();
      m_columns->setCount(count);
    }
    if (m_followCheck->isChecked() && isVisible() && needsRun())
      m_follow.start();
    else
      m_follow.stop();
    showAnswers();
    if (!isVisible() || (m_shown && m_shown->id == *id)) return;
    load(trace, *id);
  }

  [[nodiscard]] bool needsRun() const {
    const QStringList ids = methods();
    return std::any_of(ids.begin(), ids.end(),
                       [this](const QString& id) { return m_runs->state(id) == CompareRuns::State::Unknown; });
  }

  void compare() {
    if (!session().selectedHead() || methods().isEmpty()) return;
    m_value->interpretText();
    m_follow.stop();
    m_runs->setQuestion(question());
    m_runs->start(methods());
  }

  void load(const std::shared_ptr<const Trace>& trace, const HeadId& id) {
    if (m_loading && m_loadingId == id) return;
    m_loading = true;
    m_loadingId = id;
    JobSpec spec;
    spec.name = "Read layer " + std::to_string(id.call.layer) + " head " + std::to_string(id.head) + ", step " +
                std::to_string(id.call.step);
    spec.lane = Lane::Io;
    spec.supersedeTag = "compare-view/load";
    spec.priority = 90;
    using Result = std::shared_ptr<LoadedHead>;
    const QPointer<CompareView> self(this);
    m_job = session().jobs().submit<Result>(
        spec,
        [trace, id, cache = session().mapCache()](JobContext& context) {
          auto loaded = std::make_shared<LoadedHead>();
          loaded->id = id;
          loaded->map = openMap(trace, id, {}, {}, cache, context.control());
          const TokenLayout& layout = loaded->map->head().layout;
          loaded->queries = layoutAxis(layout, loaded->map->rows(),
                                       [map = loaded->map](Index i) { return map->head().queryToken(i); });
          loaded->keys = layoutAxis(layout, loaded->map->cols(), [](Index i) { return i; });
          return loaded;
        },
        [self, id](Outcome<Result> outcome) {
          if (!self || std::holds_alternative<Cancelled>(outcome) || self->m_loadingId != id) return;
          self->m_loading = false;
          if (const auto* error = std::get_if<Error>(&outcome))
            return self->message(tr("This head cannot be shown"), text(error->what()));
          self->m_shown = std::move(std::get<Result>(outcome));
          self->m_overlayOf.clear();
          self->m_overlayJobs.clear();
          self->m_columns->setMap(self->m_shown->map, self->m_shown->queries, self->m_shown->keys);
          self->showAnswers();
          self->showPair();
        });
  }

  // --- answers ------------------------------------------------------------------------------------------------------

  void showAnswers() {
    m_compare->setText(m_runs->isBusy() ? tr("Cancel") : tr("Compare"));
    m_compare->setToolTip(m_runs->isBusy() ? tr("Stop comparing") : tr("Run what is not known yet (Ctrl+Enter)"));
    m_compare->setEnabled(session().selectedHead().has_value());
    const QStringList ids = methods();
    if (m_columns->count() != static_cast<int>(ids.size())) return;
    std::vector<CompareRow> rows;
    std::size_t heads = 0;
    for (int column = 0; column < static_cast<int>(ids.size()); ++column) {
      CompareRow row{ids[column], titleOf(ids[column]), nullptr, {}, false};
      const CompareCaption caption = captionOf(ids[column], row);
      m_columns->setCaption(column, caption);
      if (row.answer) heads = std::max(heads, row.answer->sum.heads);
      rows.push_back(std::move(row));
      showOverlay(column, ids[column]);
    }
    const CompareQuestion asked = m_runs->question();
    QString about = tr("On %1").arg(asked.where());
    if (heads > 1)
      about += tr(": means over %1 heads, sums of FLOP and rows").arg(formatCount(static_cast<qint64>(heads)));
    if (asked.warmup) about += tr(" \u00b7 with dense warm-up");
    if (asked.target) {
      const QString name = asked.target->budget == Budget::Kept ? tr("kept %1").arg(formatPercent(asked.target->value))
                           : asked.target->budget == Budget::Mass
                               ? tr("kept mass %1").arg(formatPercent(asked.target->value))
                               : tr("output error %1").arg(formatNumber(asked.target->value));
      about += tr(" \u00b7 each method's knob set to the value nearest to %1").arg(name);
    }
    m_about->setText(about);
    m_table->setRows(std::move(rows), asked.target);
  }

  /// The caption of a column and, into `row`, what the table says.
  [[nodiscard]] CompareCaption captionOf(const QString& id, CompareRow& row) const {
    CompareCaption caption;
    caption.title = titleOf(id);
    switch (m_runs->state(id)) {
      case CompareRuns::State::Unknown:
        caption.state = row.state = tr("not compared yet");
        return caption;
      case CompareRuns::State::Waiting:
        caption.state = row.state = tr("waiting");
        return caption;
      case CompareRuns::State::Running: {
        const double done = m_runs->progress(id);
        row.state = tr("running");
        caption.state = tr("running, %1 %").arg(static_cast<int>(done * 100));
        caption.progress = done;
        return caption;
      }
      case CompareRuns::State::Answered:
        break;
    }
    row.answer = m_runs->answer(id);
    if (!row.answer->error.empty()) {
      caption.state = row.state = text(row.answer->error);
      caption.failed = row.failed = true;
      return caption;
    }
    const std::optional<HeadId> head = session().selectedHead();
    const auto found = head ? row.answer->heads.find(*head) : row.answer->heads.end();
    if (row.answer->sum.heads == 0 && !row.answer->heads.empty()) {
      row.state = text(row.answer->heads.begin()->second->skippedReason);
      row.failed = true;
    }
    if (found == row.answer->heads.end()) {
      caption.state = tr("this head is not among them");
      return caption;
    }
    const HeadReport& report = *found->second;
    if (!report.skippedReason.empty()) {
      caption.state = text(report.skippedReason);
      caption.failed = true;
      return caption;
    }
    const Evaluation& e = report.evaluation;
    caption.headClass = report.plan.headClass;
    if (report.plan.headClass != HeadClass::None) {
      caption.detail = text(headClassName(report.plan.headClass));
      if (report.plan.margin) caption.detail += tr(", margin %1").arg(*report.plan.margin, 0, 'f', 2);
    } else if (const auto level = report.plan.facts.find("level"); level != report.plan.facts.end()) {
      caption.detail = tr("level %1").arg(static_cast<int>(level->second));
    }
    caption.kept = tr("kept %1 (skipped %2)").arg(formatPercent(e.keptFraction), formatPercent(1.0 - e.keptFraction));
    caption.numbers = tr("mass %1").arg(formatNumber(e.keptMass));
    if (e.outputRelError) caption.numbers += tr(" \u00b7 error %1").arg(formatNumber(*e.outputRelError));
    if (report.plan.qBounds.empty()) caption.numbers += tr(" \u00b7 plan dropped");
    return caption;
  }

  void showOverlay(int column, const QString& id) {
    const auto at = static_cast<std::size_t>(column);
    if (m_overlayOf.size() <= at) m_overlayOf.resize(at + 1);
    const CompareAnswerPtr answer = m_runs->state(id) == CompareRuns::State::Answered ? m_runs->answer(id) : nullptr;
    HeadResult wanted;
    if (answer && m_shown && session().selectedHead() == m_shown->id) {
      const auto found = answer->heads.find(m_shown->id);
      // Everything kept needs no overlay, and a plan without arrays has none.
      if (found != answer->heads.end() && found->second->skippedReason.empty() &&
          !found->second->plan.qBounds.empty() && found->second->evaluation.keptFraction < 1.0)
        wanted = found->second;
    }
    if (m_overlayOf[at] == wanted) return;
    m_overlayOf[at] = wanted;
    m_overlayJobs.erase(column);
    m_columns->setOverlay(column, nullptr);
    if (!wanted) return;
    JobSpec spec;
    spec.name = "Kept pairs";
    spec.lane = Lane::Tiles;
    spec.priority = 650;
    using Overlay = std::shared_ptr<const PlanOverlay>;
    const QPointer<CompareView> self(this);
    m_overlayJobs[column] = session().jobs().submit<Overlay>(
        spec,
        [map = m_shown->map, wanted](JobContext& context) -> Overlay {
          context.checkpoint();
          return std::make_shared<const PlanOverlay>(std::shared_ptr<const Plan>(wanted, &wanted->plan), *map);
        },
        [self, column, at, wanted, map = m_shown->map](Outcome<Overlay> outcome) {
          if (!self || !self->m_shown || self->m_shown->map != map || self->m_overlayOf.size() <= at ||
              self->m_overlayOf[at] != wanted)
            return;
          if (auto* overlay = std::get_if<Overlay>(&outcome)) self->m_columns->setOverlay(column, std::move(*overlay));
          if (const auto job = self->m_overlayJobs.find(column); job != self->m_overlayJobs.end()) {
            job->second.release();
            self->m_overlayJobs.erase(job);
          }
        });
  }

  void showPair() {
    const PickedPair pair = session().pair();
    if (!m_shown || pair.query < 0 || pair.key < 0 || pair.key >= m_shown->map->cols()) return;
    Index row = pair.query;
    const auto& stored = m_shown->map->head().qRows;
    if (!stored.empty()) {
      const auto found = std::lower_bound(stored.begin(), stored.end(), pair.query);
      if (found == stored.end() || *found != pair.query) return;
      row = found - stored.begin();
    }
    if (row < m_shown->map->rows()) m_columns->setPicked(row, pair.key);
  }

  /// The pair under the cursor, and who keeps it.
  void showReadout(int column) {
    if (!m_shown || column >= m_columns->count()) return;
    const CanvasReadout& at = m_columns->canvas(column).readout();
    if (at.row < 0 || at.col < 0)
      return m_readout->setText(tr("Point at a map: who keeps the pair. Right click picks it."));
    const AttentionMap& map = *m_shown->map;
    const TokenLayout& layout = map.head().layout;
    const Index query = map.head().queryToken(map.queryRowAt(at.row)), key = map.keyAt(at.col);
    QString line =
        tr("q %1 (%2) \u2192 k %3 (%4)")
            .arg(formatCount(query), text(layout.describe(query)), formatCount(key), text(layout.describe(key)));
    if (!at.valid) return m_readout->setText(line + tr("  masked: no attention here"));
    line += tr("   p %1").arg(at.probability ? formatNumber(*at.probability) : QStringLiteral("\u2013"));
    QStringList keep, skip;
    const QStringList ids = methods();
    for (int i = 0; i < m_columns->count() && i < ids.size(); ++i) {
      const auto place = static_cast<std::size_t>(i);
      if (place >= m_overlayOf.size() || !m_overlayOf[place]) continue;
      const std::optional<bool> kept = m_columns->keeps(i, at.row, at.col, at.exact ? at.probability : std::nullopt);
      if (kept) (*kept ? keep : skip) << titleOf(ids[i]);
    }
    if (!keep.isEmpty()) line += tr("   kept by %1").arg(keep.join(QStringLiteral(", ")));
    if (!skip.isEmpty()) line += tr("   skipped by %1").arg(skip.join(QStringLiteral(", ")));
    m_readout->setText(line);
  }

  CompareRuns* m_runs;
  CompareColumns* m_columns;
  CompareTable* m_table = nullptr;
  MapHeader* m_header = nullptr;
  QToolButton *m_methodsButton = nullptr, *m_more = nullptr;
  QMenu* m_methodsMenu = nullptr;
  CaptionCombo *m_scope = nullptr, *m_at = nullptr, *m_pooling = nullptr;
  QDoubleSpinBox* m_value = nullptr;
  QPushButton* m_compare = nullptr;
  QCheckBox *m_warmup = nullptr, *m_followCheck = nullptr;
  NoteLabel *m_readout = nullptr, *m_about = nullptr;
  QSplitter* m_body = nullptr;
  TileCanvas* m_empty = nullptr;
  OpenButtons* m_open = nullptr;
  QTimer m_follow;
  Budget m_unit = Budget::Kept;
  double m_lastValue[3] = {0, 0, 0};  // by budget
  std::shared_ptr<LoadedHead> m_shown;
  std::vector<HeadResult> m_overlayOf;  // by column
  HeadId m_loadingId;
  bool m_loading = false, m_fitPending = true;
  std::map<int, JobHandle> m_overlayJobs;
  JobHandle m_job;  // last: jobs end before what they use
};

}  // namespace

const ViewInfo& compare_info() {
  static const ViewInfo info{
      "compare",
      QT_TRANSLATE_NOOP("View", "Compare"),
      DockArea::Centre,
      4,
      "compare",
      "views.md#compare",
      [](Session& session, QWidget* parent) -> View* { return new CompareView(session, parent); },
      true};
  return info;
}

}  // namespace sparsight

#include "compare.moc"

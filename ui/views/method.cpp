// SPDX-License-Identifier: Apache-2.0
// Choose a method, set its parameters, run it on the shared compute core, read the numbers beside what they mean.
#include <QCheckBox>
#include <QComboBox>
#include <QGridLayout>
#include <QJsonArray>
#include <QJsonObject>
#include <QLabel>
#include <QPushButton>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>
#include <limits>

#include "sparsight/core/method.h"
#include "ui/column_scroll.h"
#include "ui/icons.h"
#include "ui/layout_pause.h"
#include "ui/method_form.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {
namespace {

QString qs(std::string_view s) { return QString::fromUtf8(s.data(), static_cast<qsizetype>(s.size())); }

/// The published meaning of each number, as in the help page.
struct Meaning {
  const char* key;
  const char* title;
  const char* definition;
};
constexpr Meaning kKept{
    "kept", QT_TRANSLATE_NOOP("MethodView", "kept"),
    QT_TRANSLATE_NOOP("MethodView", "Kept (query, key) pairs / all valid pairs, counted exactly, without padding.")};
constexpr Meaning kSkipped{
    "skipped", QT_TRANSLATE_NOOP("MethodView", "skipped"),
    QT_TRANSLATE_NOOP("MethodView", "The rest: pairs that are not computed. kept + skipped = 100 %.")};
constexpr Meaning kBlocks{
    "blocks", QT_TRANSLATE_NOOP("MethodView", "kept by blocks"),
    QT_TRANSLATE_NOOP("MethodView",
                      "Token area of the blocks that are not skipped / all: what a block kernel computes.")};
constexpr Meaning kMass{"mass", QT_TRANSLATE_NOOP("MethodView", "kept mass"),
                        QT_TRANSLATE_NOOP("MethodView",
                                          "Mean over rows of the sum of exact softmax probabilities over kept keys "
                                          "(recall). A proxy: the output error is closer to quality.")};
constexpr Meaning kP5{
    "p5", QT_TRANSLATE_NOOP("MethodView", "5th percentile row"),
    QT_TRANSLATE_NOOP("MethodView", "Kept mass that 95 % of the rows exceed: how the worst rows fare.")};
constexpr Meaning kError{
    "error", QT_TRANSLATE_NOOP("MethodView", "output error"),
    QT_TRANSLATE_NOOP(
        "MethodView",
        "||O_sparse - O_dense|| / ||O_dense|| (Frobenius) over the rows, O_sparse renormalised over kept keys.")};
constexpr Meaning kCosine{
    "cosine", QT_TRANSLATE_NOOP("MethodView", "output cosine"),
    QT_TRANSLATE_NOOP("MethodView", "Mean over rows of the cosine between sparse and dense output.")};
constexpr Meaning kStarved{"starved", QT_TRANSLATE_NOOP("MethodView", "rows without a key"),
                           QT_TRANSLATE_NOOP("MethodView", "Rows that keep no key at all: their output is 0.")};
constexpr Meaning kPlanner{
    "planner", QT_TRANSLATE_NOOP("MethodView", "planner cost"),
    QT_TRANSLATE_NOOP("MethodView", "Floating point operations of the planning itself as a share of dense attention.")};
constexpr Meaning kClass{
    "class", QT_TRANSLATE_NOOP("MethodView", "class"),
    QT_TRANSLATE_NOOP(
        "MethodView",
        "SVG's vote: the candidate mask with the smaller mean squared output error on the sampled rows.")};
constexpr Meaning kMargin{
    "margin", QT_TRANSLATE_NOOP("MethodView", "margin"),
    QT_TRANSLATE_NOOP("MethodView", "|a - b| / (a + b) of the two losses: 0 is a coin toss, 1 is certain.")};

/// Rows "name ... value" with thin lines; definitions below the names on demand.
class NumberTable : public QWidget {
 public:
  explicit NumberTable(QWidget* parent = nullptr) : QWidget(parent), m_layout(new QGridLayout(this)) {
    m_layout->setContentsMargins(0, 0, 0, 0);
    m_layout->setHorizontalSpacing(Theme::kPad);
    m_layout->setVerticalSpacing(0);
    m_layout->setColumnStretch(0, 1);
  }
  void setExplains(bool explains) {
    m_explains = explains;
    for (const Row& row : m_rows) row.definition->setVisible(explains && !row.name->isHidden());
  }
  /// An empty value hides the row.
  void set(const Meaning& meaning, const QString& value, HeadClass glyph = HeadClass::None) {
    Row& row = rowOf(meaning);
    const bool visible = !value.isEmpty();
    row.value->setText(value);
    fonts::give(row.value, FontRole::Title);
    const Theme& theme = Theme::current();
    if (glyph != HeadClass::None) {
      const qreal ratio = devicePixelRatioF();
      QPixmap picture(static_cast<int>(12 * ratio), static_cast<int>(12 * ratio));
      picture.setDevicePixelRatio(ratio);
      picture.fill(Qt::transparent);
      QPainter painter(&picture);
      paintClassGlyph(painter, QRectF(1, 1, 10, 10), glyph, theme);
      row.glyph->setPixmap(picture);
    }
    row.glyph->setVisible(visible && glyph != HeadClass::None);
    for (QWidget* widget :
         {static_cast<QWidget*>(row.name), static_cast<QWidget*>(row.value), static_cast<QWidget*>(row.line)})
      widget->setVisible(visible);
    row.definition->setVisible(visible && m_explains);
  }

 private:
  struct Row {
    QString key;
    QLabel *name, *glyph, *value;
    NoteLabel* definition;
    QFrame* line;
  };
  Row& rowOf(const Meaning& meaning) {
    const QString key = QLatin1String(meaning.key);
    for (Row& row : m_rows)
      if (row.key == key) return row;
    Row row{key,
            new QLabel(QObject::tr(meaning.title), this),
            new QLabel(this),
            new QLabel(this),
            new NoteLabel(this),
            new QFrame(this)};
    row.definition->setText(QObject::tr(meaning.definition));
    row.name->setToolTip(QObject::tr(meaning.definition));
    row.value->setToolTip(QObject::tr(meaning.definition));
    row.value->setObjectName(QStringLiteral("result.%1").arg(key));
    row.value->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
    row.value->setTextInteractionFlags(Qt::TextSelectableByMouse);
    row.line->setProperty("role", QStringLiteral("line"));
    row.name->setMinimumHeight(26);
    const int at = static_cast<int>(m_rows.size()) * 3;
    m_layout->addWidget(row.name, at, 0);
    auto* values = new QHBoxLayout;
    values->setSpacing(6);
    values->addStretch(1);
    values->addWidget(row.glyph);
    values->addWidget(row.value);
    m_layout->addLayout(values, at, 1);
    m_layout->addWidget(row.definition, at + 1, 0, 1, 2);
    m_layout->addWidget(row.line, at + 2, 0, 1, 2);
    m_rows.push_back(row);
    return m_rows.back();
  }
  QGridLayout* m_layout;
  std::vector<Row> m_rows;
  bool m_explains = false;
};

class MethodView : public View {
  Q_OBJECT
 public:
  MethodView(Session& session, QWidget* parent) : View(session, parent) {
    auto* outer = new QVBoxLayout(this);
    outer->setContentsMargins(0, 0, 0, 0);
    auto* scroll = new ColumnScroll;
    outer->addWidget(scroll);
    m_content = new QWidget;
    scroll->setWidget(m_content);
    auto* column = new QVBoxLayout(m_content);
    column->setContentsMargins(Theme::kEdge, 2, Theme::kEdge, Theme::kEdge);
    column->setSpacing(Theme::kPad);

    m_combo = new QComboBox;
    m_combo->setObjectName(QStringLiteral("methodCombo"));
    m_combo->setAccessibleName(tr("Method"));
    m_combo->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    m_combo->setMinimumContentsLength(12);
    for (const Method* method : allMethods()) {
      m_combo->addItem(qs(method->title()), qs(method->id()));
      m_combo->setItemData(m_combo->count() - 1, qs(method->summary()), Qt::ToolTipRole);
    }
    m_summary = new NoteLabel;
    m_form = new MethodForm;
    for (const Method* method : allMethods()) m_form->prepare(method->params());
    m_warmup = new QCheckBox(tr("Apply dense warm-up"));
    m_warmup->setObjectName(QStringLiteral("warmup"));
    m_warmup->setToolTip(tr(
        "On: the first steps and layers stay dense, as in the published runs. Off: every selected head is treated as "
        "sparse and the result says what would have been dense."));
    m_warmupText = new NoteLabel;
    m_warmupText->setObjectName(QStringLiteral("warmupText"));
    auto* runRow = new QHBoxLayout;
    runRow->setSpacing(6);
    const auto addButton = [&](const char* name, const QString& label, const QString& tip, bool primary) {
      auto* button = new QPushButton(label);
      button->setObjectName(QLatin1String(name));
      button->setToolTip(tip);
      button->setMinimumWidth(30);
      button->setProperty("dense", true);
      if (primary) button->setProperty("primary", true);
      runRow->addWidget(button, 1);
      return button;
    };
    m_runHead = addButton("runHead", tr("Head"), tr("Run on the selected head (Ctrl+R)"), true);
    m_runLayer = addButton("runLayer", tr("Layer"), tr("Run on all heads of the selected layer and step"), false);
    m_runStep = addButton("runStep", tr("Step"), tr("Run on all heads of the selected step"), false);
    m_runAll = addButton("runAll", tr("All"), tr("Run on every captured head of the branch, steps in order"), false);
    m_problem = new NoteLabel;
    m_problem->setRole(NoteLabel::Role::Error);

    column->addWidget(m_combo);
    column->addWidget(m_summary);
    column->addSpacing(Theme::kUnit);
    column->addWidget(m_form);
    column->addWidget(m_warmup);
    column->addWidget(m_warmupText);
    column->addSpacing(Theme::kUnit);
    column->addWidget(new SectionLabel(tr("Run on")));
    column->addLayout(runRow);
    column->addWidget(m_problem);
    column->addSpacing(Theme::kPad);
    auto* resultHeader = new QHBoxLayout;
    resultHeader->addWidget(new SectionLabel(tr("Result")), 1);
    m_explain = new QPushButton(tr("Explain"));
    m_explain->setObjectName(QStringLiteral("explain"));
    m_explain->setProperty("link", true);
    m_explain->setCheckable(true);
    m_explain->setToolTip(tr("Show what each number means"));
    resultHeader->addWidget(m_explain);
    column->addLayout(resultHeader);
    m_of = new NoteLabel;
    column->addWidget(m_of);
    m_table = new NumberTable;
    column->addWidget(m_table);
    m_rows = new NoteLabel;
    m_rows->setObjectName(QStringLiteral("evaluatedRows"));
    column->addWidget(m_rows);
    m_notes = new NoteLabel;
    m_notes->setRole(NoteLabel::Role::Warning);
    column->addWidget(m_notes);
    m_step = new NoteLabel;
    m_step->setObjectName(QStringLiteral("stepSummary"));
    column->addWidget(m_step);
    column->addStretch(1);

    connect(m_combo, &QComboBox::currentIndexChanged, this, [this] { methodChosen(); });
    connect(m_form, &MethodForm::changed, this, [this] { formChanged(); });
    connect(m_warmup, &QCheckBox::toggled, this, [this] { formChanged(); });
    connect(m_explain, &QPushButton::toggled, this, [this](bool on) { m_table->setExplains(on); });
    connect(m_runHead, &QPushButton::clicked, this, [this] { run(Scope::Head); });
    connect(m_runLayer, &QPushButton::clicked, this, [this] { run(Scope::Layer); });
    connect(m_runStep, &QPushButton::clicked, this, [this] { run(Scope::Step); });
    connect(m_runAll, &QPushButton::clicked, this, [this] { run(Scope::All); });

    const int svg = m_combo->findData(QStringLiteral("svg"));
    m_combo->setCurrentIndex(svg >= 0 ? svg : 0);
    methodChosen();
  }

  void sessionChanged(ChangeFlags changes) override {
    if (changes & Change::Trace) {
      methodChosen();
      return;
    }
    if (changes & Change::Runs) {
      const int index = m_combo->findData(session().overlayMethod());
      if (index >= 0 && index != m_combo->currentIndex()) m_combo->setCurrentIndex(index);
    }
    refresh();
  }

  [[nodiscard]] QString hint() const override { return tr("Ctrl+R run on head \u00B7 Explain shows the definitions"); }

  [[nodiscard]] QJsonObject saveState() const override {
    return {{QStringLiteral("method"), m_combo->currentData().toString()},
            {QStringLiteral("params"), QJsonArray::fromStringList(m_form->assignments())},
            {QStringLiteral("warmup"), m_warmup->isChecked()},
            {QStringLiteral("explain"), m_explain->isChecked()}};
  }
  void restoreState(const QJsonObject& state) override {
    const int index = m_combo->findData(state.value(QStringLiteral("method")).toString());
    if (index >= 0) m_combo->setCurrentIndex(index);
    QStringList assignments;
    for (const auto& value : state.value(QStringLiteral("params")).toArray()) assignments << value.toString();
    m_form->setAssignments(assignments);
    m_warmup->setChecked(state.value(QStringLiteral("warmup")).toBool(m_warmup->isChecked()));
    m_explain->setChecked(state.value(QStringLiteral("explain")).toBool(m_explain->isChecked()));
  }

 private:
  enum class Scope { Head, Layer, Step, All };

  [[nodiscard]] const Method* method() const {
    const std::string id = m_combo->currentData().toString().toStdString();
    for (const Method* candidate : allMethods())
      if (candidate->id() == id) return candidate;
    return nullptr;
  }

  void methodChosen() {
    const Method* chosen = method();
    if (chosen == nullptr) return;
    const QStringList kept = m_form->isModified() && m_shownMethod == chosen ? m_form->assignments() : QStringList();
    m_shownMethod = chosen;
    m_form->setMethod(*chosen, session().trace() ? &session().trace()->info() : nullptr);
    m_form->setAssignments(kept);
    m_summary->setText(qs(chosen->summary()));
    formChanged();
    if (!session().runs().methods().isEmpty() && session().runs().methods().contains(qs(chosen->id())))
      session().setOverlayMethod(qs(chosen->id()));
  }

  void formChanged() {
    QString gate;
    const Method* chosen = method();
    if (chosen != nullptr && session().trace() && m_form->isValid()) {
      try {
        const WarmupGate warmup = chosen->warmup(session().trace()->info(), m_form->params());
        gate = QString::fromStdString(warmup.text);
        if (!gate.isEmpty() && !m_warmup->isChecked()) gate.prepend(tr("would be: "));
      } catch (const Error& error) {
        gate = QString::fromUtf8(error.what());
      }
    }
    m_warmupText->setText(gate);
    m_warmupText->setVisible(!gate.isEmpty());
    refresh();
  }

  void run(Scope scope) {
    const Method* chosen = method();
    if (chosen == nullptr || !session().trace()) return;
    if (!m_form->isValid()) {
      m_form->focusFirstError();
      return;
    }
    const Selection& at = session().selection();
    RunRequest request;
    request.methodId = std::string(chosen->id());
    request.warmup = m_warmup->isChecked();
    request.selection.branch = at.branch;
    const auto only = [](int value) {
      Selector selector;
      selector.ranges = {{value, value}};
      return selector;
    };
    QString where;
    switch (scope) {
      case Scope::Head:
        request.selection.heads = only(at.head);
        [[fallthrough]];
      case Scope::Layer:
        request.selection.layers = only(at.layer);
        [[fallthrough]];
      case Scope::Step:
        request.selection.steps = only(at.step);
        break;
      case Scope::All:
        break;
    }
    switch (scope) {
      case Scope::Head:
        where = tr("layer %1 head %2, step %3").arg(at.layer).arg(at.head).arg(at.step);
        break;
      case Scope::Layer:
        where = tr("layer %1, step %2").arg(at.layer).arg(at.step);
        break;
      case Scope::Step:
        where = tr("step %1").arg(at.step);
        break;
      case Scope::All:
        where = tr("all captured heads");
        break;
    }
    try {
      // Only what the user changed: the family's defaults are merged by the run itself.
      std::vector<std::string> assignments;
      for (const QString& assignment : m_form->assignments()) assignments.push_back(assignment.toStdString());
      request.params = ParamSet::parse(chosen->params(), assignments);
    } catch (const Error& error) {
      m_problem->setText(QString::fromUtf8(error.what()));
      m_problem->show();
      return;
    }
    m_problem->hide();
    session().setOverlayMethod(qs(chosen->id()));
    session().runMethod(std::move(request), tr("Run %1 on %2").arg(qs(chosen->title()), where));
  }

  void refresh() {
    const LayoutPause once({m_content, m_table});
    const Session& s = session();
    const Method* chosen = method();
    const bool hasTrace = s.trace() != nullptr;
    const std::optional<HeadId> head = s.selectedHead();
    const bool valid = m_form->isValid();
    m_runHead->setEnabled(hasTrace && head.has_value() && valid);
    m_runLayer->setEnabled(hasTrace && valid);
    m_runStep->setEnabled(hasTrace && valid);
    m_runAll->setEnabled(hasTrace && valid);
    m_problem->setVisible(!hasTrace);
    m_problem->setRole(hasTrace ? NoteLabel::Role::Error : NoteLabel::Role::Secondary);
    if (!hasTrace) m_problem->setText(tr("Open a trace to run a method on its heads."));

    const QString id = chosen == nullptr ? QString() : qs(chosen->id());
    const HeadResult result = head && chosen != nullptr ? s.runs().find(id, *head) : nullptr;
    m_table->setVisible(result != nullptr && result->skippedReason.empty());
    m_rows->setVisible(m_table->isVisibleTo(this));
    m_explain->setVisible(m_table->isVisibleTo(this));
    m_notes->hide();
    if (!result) {
      m_of->setText(!hasTrace ? tr("Numbers appear here after a run.")
                    : head    ? tr("Not run on layer %1 head %2 at step %3 yet.")
                                 .arg(head->call.layer)
                                 .arg(head->head)
                                 .arg(head->call.step)
                           : tr("The selected head was not captured."));
    } else {
      m_of->setText(tr("L%1 \u00B7 H%2 \u00B7 step %3%4")
                        .arg(head->call.layer)
                        .arg(head->head)
                        .arg(head->call.step)
                        .arg(result->wouldBeDense ? tr(" \u00B7 dense under warm-up") : QString()));
      if (!result->skippedReason.empty()) {
        m_notes->setText(tr("Not planned: %1").arg(QString::fromStdString(result->skippedReason)));
        m_notes->show();
      } else {
        showNumbers(*result);
      }
    }
    showStepSummary(id);
  }

  void showNumbers(const HeadReport& report) {
    const Evaluation& e = report.evaluation;
    const Plan& plan = report.plan;
    m_table->set(kKept, formatPercent(e.keptFraction));
    m_table->set(kSkipped, formatPercent(1 - e.keptFraction));
    m_table->set(kBlocks, std::abs(e.blocksKeptFraction - e.keptFraction) > 5e-4 ? formatPercent(e.blocksKeptFraction)
                                                                                 : QString());
    m_table->set(kMass, withInterval(formatNumber(e.keptMass), e.keptMassCi95));
    m_table->set(kP5, formatNumber(e.keptMassP5));
    m_table->set(kError, e.outputRelError ? withInterval(formatNumber(*e.outputRelError), e.outputRelErrorCi95)
                                          : tr("no V captured"));
    m_table->set(kCosine, e.outputCosine ? QString::number(*e.outputCosine, 'f', 4) : QString());
    m_table->set(kStarved, e.starvedRows > 0 ? formatCount(e.starvedRows) : QString());
    m_table->set(kPlanner, plannerCost(report));
    const QString className = plan.headClass == HeadClass::None ? QString() : qs(headClassName(plan.headClass));
    m_table->set(kClass, className, plan.headClass);
    m_table->set(kMargin, plan.margin ? QString::number(*plan.margin, 'f', 2) : QString());
    const bool sampled = e.evaluatedRows < e.totalRows;
    m_rows->setRole(sampled ? NoteLabel::Role::Warning : NoteLabel::Role::Secondary);
    QString rows = sampled ? tr("exact on %1 of %2 rows").arg(formatCount(e.evaluatedRows), formatCount(e.totalRows))
                           : tr("exact on all %1 rows").arg(formatCount(e.totalRows));
    if (sampled && e.keptMassCi95) rows += QStringLiteral(" \u00B1 ") + formatNumber(*e.keptMassCi95);
    rows += QStringLiteral(" \u00B7 %1").arg(QString::fromStdString(e.backend));
    m_rows->setText(rows);
    QStringList notes;
    for (const auto* list : {&plan.warnings, &e.warnings})
      for (const std::string& warning : *list) notes << QString::fromStdString(warning);
    for (const std::string& fallback : e.fallbacks)
      notes << tr("ran elsewhere: %1").arg(QString::fromStdString(fallback));
    if (plan.reusedFromStep) notes << tr("plan reused from step %1").arg(*plan.reusedFromStep);
    m_notes->setText(notes.join(QLatin1Char('\n')));
    m_notes->setVisible(!notes.isEmpty());
  }

  static QString withInterval(const QString& value, const std::optional<double>& halfWidth) {
    return halfWidth ? value + QStringLiteral(" \u00B1 ") + formatNumber(*halfWidth) : value;
  }

  [[nodiscard]] QString plannerCost(const HeadReport& report) const {
    const CallInfo* call = session().trace() ? session().trace()->info().find(report.id.call) : nullptr;
    if (call == nullptr || report.plan.plannerFlops <= 0) return {};
    const int valueDim = call->valueDim > 0 ? static_cast<int>(call->valueDim) : static_cast<int>(call->headDim);
    const double dense = 2.0 * static_cast<double>(call->nQ) * static_cast<double>(call->nK) *
                         (static_cast<double>(call->headDim) + valueDim);
    return dense > 0 ? tr("%1 of dense").arg(formatPercent(report.plan.plannerFlops / dense)) : QString();
  }

  /// Means over the step's heads that were run: what a layer or step run is for.
  void showStepSummary(const QString& id) {
    Session& s = session();
    m_step->clear();
    if (!s.trace() || id.isEmpty()) return;
    const Selection& at = s.selection();
    double kept = 0, mass = 0, worst = -1;
    HeadId worstHead;
    int count = 0, dense = 0;
    for (const int layer : s.trace()->info().layers())
      for (const int head : s.trace()->info().heads()) {
        const std::optional<HeadId> headId = s.headAt(at.step, at.branch, layer, head);
        const HeadResult result = headId ? s.runs().find(id, *headId) : nullptr;
        if (!result || !result->skippedReason.empty()) continue;
        ++count;
        if (result->wouldBeDense) ++dense;
        kept += result->evaluation.keptFraction;
        mass += result->evaluation.keptMass;
        const double error = result->evaluation.outputRelError.value_or(-1);
        if (error > worst) {
          worst = error;
          worstHead = *headId;
        }
      }
    if (count < 2) return;
    QString summary =
        tr("%1 heads of step %2: mean kept %3 (skipped %4), mean kept mass %5")
            .arg(count)
            .arg(at.step)
            .arg(formatPercent(kept / count), formatPercent(1 - kept / count), formatNumber(mass / count));
    if (worst >= 0)
      summary +=
          tr(", largest error %1 at L%2 H%3").arg(formatNumber(worst)).arg(worstHead.call.layer).arg(worstHead.head);
    if (dense > 0) summary += tr(", %1 dense under warm-up").arg(dense);
    m_step->setText(summary);
  }

  QWidget* m_content = nullptr;
  QComboBox* m_combo;
  NoteLabel* m_summary;
  MethodForm* m_form;
  QCheckBox* m_warmup;
  NoteLabel* m_warmupText;
  QPushButton *m_runHead, *m_runLayer, *m_runStep, *m_runAll, *m_explain;
  NoteLabel *m_problem, *m_of, *m_rows, *m_notes, *m_step;
  NumberTable* m_table;
  const Method* m_shownMethod = nullptr;
};

}  // namespace

const ViewInfo& method_info() {
  static const ViewInfo info{"method",
                             QT_TRANSLATE_NOOP("View", "Method"),
                             DockArea::Right,
                             0,
                             "method",
                             "views.md#method",
                             [](Session& session, QWidget* parent) -> View* { return new MethodView(session, parent); },
                             true};
  return info;
}

}  // namespace sparsight

#include "method.moc"

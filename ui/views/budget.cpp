// SPDX-License-Identifier: Apache-2.0
#include <QComboBox>
#include <QCoreApplication>
#include <QDoubleSpinBox>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QSplitter>
#include <QStackedWidget>
#include <QTimer>
#include <QToolButton>
#include <QUndoView>
#include <QVBoxLayout>

#include "ui/budget_curve.h"
#include "ui/budget_empty.h"
#include "ui/budget_table.h"
#include "ui/dialogs/import_dialog.h"
#include "ui/icons.h"
#include "ui/profile_actions.h"
#include "ui/profile_model.h"
#include "ui/response_strip.h"
#include "ui/session.h"
#include "ui/small_chart.h"
#include "ui/style.h"
#include "ui/theme.h"
#include "ui/view.h"
#include "ui/wrap_row.h"

namespace sparsight {
namespace {

/// Elided in the middle, with the whole text as tooltip.
class ElidedLabel : public QLabel {
 public:
  using QLabel::QLabel;
  void setFull(const QString& text) {
    if (text == m_full) return;
    m_full = text;
    setToolTip(text);
    updateGeometry();
    apply();
  }
  [[nodiscard]] QSize sizeHint() const override {
    return {fontMetrics().horizontalAdvance(m_full) + 4, QLabel::sizeHint().height()};
  }
  [[nodiscard]] QSize minimumSizeHint() const override { return {0, QLabel::minimumSizeHint().height()}; }

 protected:
  void resizeEvent(QResizeEvent* event) override {
    QLabel::resizeEvent(event);
    apply();
  }

 private:
  void apply() { setText(fontMetrics().elidedText(m_full, Qt::ElideMiddle, width())); }
  QString m_full;
};

class BudgetView : public View {
  Q_DECLARE_TR_FUNCTIONS(BudgetView)
 public:
  BudgetView(Session& shared, QWidget* parent);
  ~BudgetView() override = default;

  void sessionChanged(ChangeFlags changes) override;
  [[nodiscard]] QJsonObject saveState() const override;
  void restoreState(const QJsonObject& state) override;
  [[nodiscard]] bool isSettled() const override { return m_response->isSettled() && !m_turnPage.isActive(); }
  [[nodiscard]] QString hint() const override {
    return tr("drag points \u00b7 Up/Down 1 % \u00b7 L lock \u00b7 B brush \u00b7 Ctrl+Z undo");
  }

 private:
  void buildHeader(QVBoxLayout* layout, QWidget* page);
  void connectAll();
  void applyScope();
  [[nodiscard]] int wantedPage() const { return session().profile().isEmpty() ? 0 : 1; }
  void refreshHeader();
  void showMessage(const QString& text, bool isError);
  void pick(int layer);
  void showResponse();

  ProfileModel m_model;
  QStackedWidget* m_stack = nullptr;
  NoProfilePage* m_empty = nullptr;
  BudgetCurve* m_curve = nullptr;
  BudgetTable* m_table = nullptr;
  QUndoView* m_history = nullptr;
  QSplitter* m_split = nullptr;
  ResponseStrip* m_response = nullptr;
  SmallCurve* m_plot = nullptr;
  QComboBox *m_steps = nullptr, *m_heads = nullptr, *m_spread = nullptr;
  QToolButton *m_brush = nullptr, *m_lock = nullptr, *m_undo = nullptr, *m_redo = nullptr, *m_historyButton = nullptr;
  QToolButton* m_plotButton = nullptr;
  QToolButton* m_readings = nullptr;
  QLabel* m_mean = nullptr;
  ElidedLabel* m_unsaved = nullptr;
  QDoubleSpinBox* m_target = nullptr;
  QLabel* m_message = nullptr;
  QWidget* m_doubt = nullptr;
  QLabel* m_doubtText = nullptr;
  QTimer m_turnPage;
  bool m_syncing = false;
};

BudgetView::BudgetView(Session& shared, QWidget* parent) : View(shared, parent), m_model(shared.profile()) {
  auto* outer = new QVBoxLayout(this);
  outer->setContentsMargins(0, 0, 0, 0);
  m_stack = new QStackedWidget(this);
  outer->addWidget(m_stack);
  m_empty = new NoProfilePage(shared, tr("Budgets: how much each layer may keep"), this);
  m_stack->addWidget(m_empty);
  auto* page = new QWidget(this);
  m_stack->addWidget(page);
  auto* layout = new QVBoxLayout(page);
  layout->setContentsMargins(Theme::kGroupGap, Theme::kPad, Theme::kGroupGap, Theme::kUnit);
  layout->setSpacing(Theme::kUnit);
  buildHeader(layout, page);

  m_split = new QSplitter(Qt::Horizontal, page);
  m_split->setObjectName(QStringLiteral("budget.split"));
  m_split->setChildrenCollapsible(false);
  m_curve = new BudgetCurve(m_model, m_split);
  m_curve->setObjectName(QStringLiteral("budget.curve"));
  m_table = new BudgetTable(m_model, m_split);
  m_history = new QUndoView(&shared.profile().undoStack(), m_split);
  m_history->setObjectName(QStringLiteral("budget.historyList"));
  m_history->setEmptyLabel(tr("as opened"));
  m_history->setCleanIcon(themedIcon(QStringLiteral("save")));
  m_history->setIconSize(QSize(16, 16));
  m_history->setSpacing(2);
  m_history->hide();
  m_plot = new SmallCurve(m_split);
  m_plot->setObjectName(QStringLiteral("budget.responsePlot"));
  m_plot->hide();
  m_split->setStretchFactor(0, 4);
  m_split->setStretchFactor(1, 3);
  m_split->setStretchFactor(2, 2);
  m_split->setStretchFactor(3, 2);
  m_split->setSizes({620, 460, 220, 260});
  m_table->setMinimumWidth(200);
  m_history->setMinimumWidth(140);
  layout->addWidget(m_split, 1);
  m_response = new ResponseStrip(shared, m_model, page);
  m_response->setObjectName(QStringLiteral("budget.response"));
  layout->addWidget(m_response);

  m_message = new QLabel(page);
  m_message->setObjectName(QStringLiteral("budget.message"));
  fonts::give(m_message, FontRole::Secondary);
  setRole(m_message, QStringLiteral("secondary"));
  m_message->setTextInteractionFlags(Qt::TextSelectableByMouse);
  m_message->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
  auto* footer = new QHBoxLayout;
  footer->setSpacing(Theme::kGroupGap);
  footer->addWidget(m_message, 1);
  m_unsaved = new ElidedLabel(page);
  m_unsaved->setObjectName(QStringLiteral("budget.unsaved"));
  fonts::give(m_unsaved, FontRole::Secondary);
  setRole(m_unsaved, QStringLiteral("secondary"));
  m_unsaved->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
  m_unsaved->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
  footer->addWidget(m_unsaved, 1);
  layout->addLayout(footer);
  connectAll();
  m_turnPage.setSingleShot(true);
  connect(&m_turnPage, &QTimer::timeout, this, [this] { m_stack->setCurrentIndex(wantedPage()); });
  BudgetView::sessionChanged(Change::Trace | Change::Selection | Change::Profile | Change::Theme);
}

void BudgetView::buildHeader(QVBoxLayout* layout, QWidget* page) {
  auto* header = new WrapRow(page);
  const auto combo = [&](const QStringList& items, const char* name, const QString& tip) {
    auto* made = new QComboBox(page);
    made->addItems(items);
    made->setObjectName(QLatin1String(name));
    made->setToolTip(tip);
    made->setAccessibleName(tip);
    made->setSizeAdjustPolicy(QComboBox::AdjustToContents);
    header->addControl(made);
    return made;
  };
  m_steps = combo({tr("All steps"), tr("This step")}, "budget.steps", tr("Steps that are shown and edited"));
  m_heads = combo({tr("All heads"), tr("This head")}, "budget.heads", tr("Heads that are shown and edited"));
  m_spread = combo({tr("Shift together"), tr("Scale together"), tr("Set all equal")}, "budget.spread",
                   tr("How a new layer mean is spread over its heads and steps"));
  const auto tool = [&](const QString& icon, const char* name, const QString& text, const QString& tip) {
    auto* made = new QToolButton(page);
    made->setObjectName(QLatin1String(name));
    if (icon.isEmpty()) {
      made->setText(text);
      made->setCheckable(true);
    } else {
      made->setIcon(themedIcon(icon));
    }
    made->setAccessibleName(text);
    made->setToolTip(tip);
    header->addControl(made);
    return made;
  };
  m_brush = tool({}, "budget.brush", tr("Brush"), tr("Paint values over layers (B)"));
  m_lock = tool(QStringLiteral("lock"), "budget.lock", tr("Lock"), tr("Lock or unlock the selected layers (L)"));
  m_undo = tool(QStringLiteral("undo"), "budget.undo", tr("Undo"), tr("Undo (Ctrl+Z)"));
  m_redo = tool(QStringLiteral("redo"), "budget.redo", tr("Redo"), tr("Redo (Ctrl+Shift+Z)"));
  m_historyButton = tool({}, "budget.history", tr("History"), tr("List of edits; click one to go there"));
  m_plotButton =
      tool({}, "budget.plot", tr("Response"), tr("The selected head's response curve: what a kept fraction leads to"));
  m_plotButton->setChecked(true);
  m_mean = new QLabel(page);
  m_mean->setObjectName(QStringLiteral("budget.mean"));
  fonts::give(m_mean, FontRole::Title);
  header->addAtEnd(m_mean);
  auto* targetLabel = new QLabel(tr("target"), page);
  setRole(targetLabel, QStringLiteral("secondary"));
  header->addAtEnd(targetLabel);
  m_target = new QDoubleSpinBox(page);
  m_target->setObjectName(QStringLiteral("budget.target"));
  m_target->setAccessibleName(tr("Target mean kept"));
  m_target->setToolTip(tr("Mean kept to stay under; a line in the curve, nothing is changed by it"));
  m_target->setRange(0, 100);
  m_target->setDecimals(1);
  m_target->setSuffix(QStringLiteral(" %"));
  m_target->setSpecialValueText(tr("none"));
  m_target->setButtonSymbols(QAbstractSpinBox::NoButtons);
  m_target->setAlignment(Qt::AlignRight);
  m_target->setFixedWidth(80);
  header->addAtEnd(m_target);
  layout->addWidget(header);

  m_doubt = new QWidget(page);
  auto* doubtLayout = new QHBoxLayout(m_doubt);
  doubtLayout->setContentsMargins(0, 0, 0, 0);
  m_doubtText = new QLabel(m_doubt);
  setRole(m_doubtText, QStringLiteral("warning"));
  doubtLayout->addWidget(m_doubtText, 1);
  m_readings = new QToolButton(m_doubt);
  m_readings->setObjectName(QStringLiteral("budget.readings"));
  m_readings->setProperty("framed", true);
  m_readings->setText(tr("Show both readings..."));
  doubtLayout->addWidget(m_readings);
  layout->addWidget(m_doubt);
}

void BudgetView::connectAll() {
  QUndoStack& stack = session().profile().undoStack();
  for (QComboBox* scope : {m_steps, m_heads}) {
    connect(scope, &QComboBox::currentIndexChanged, this, [this] { applyScope(); });
  }
  connect(m_spread, &QComboBox::currentIndexChanged, this,
          [this](int index) { m_model.setSpread(static_cast<SpreadMode>(index)); });
  connect(m_brush, &QToolButton::toggled, m_curve, &BudgetCurve::setBrush);
  connect(m_curve, &BudgetCurve::brushChanged, m_brush, &QToolButton::setChecked);
  connect(m_lock, &QToolButton::clicked, m_curve, &BudgetCurve::toggleLock);
  connect(m_undo, &QToolButton::clicked, &stack, &QUndoStack::undo);
  connect(m_redo, &QToolButton::clicked, &stack, &QUndoStack::redo);
  connect(&stack, &QUndoStack::indexChanged, this, [this] { refreshHeader(); });
  connect(&stack, &QUndoStack::cleanChanged, this, [this] { refreshHeader(); });
  connect(m_historyButton, &QToolButton::toggled, m_history, &QWidget::setVisible);
  connect(m_plotButton, &QToolButton::toggled, this, [this] { showResponse(); });
  connect(m_response, &ResponseStrip::changed, this, [this] { showResponse(); });
  m_curve->setConsequence([this](int layer) { return m_response->consequence(layer); });
  connect(m_target, &QDoubleSpinBox::valueChanged, this, [this](double percent) {
    m_curve->setTarget(percent > 0 ? std::optional<double>(percent / 100) : std::nullopt);
    refreshHeader();
  });
  connect(m_readings, &QToolButton::clicked, this,
          [this] { profile_actions::importFile(session(), window(), session().profile().filePath()); });
  connect(m_curve, &BudgetCurve::readout, this, [this](const QString& text, bool bad) { showMessage(text, bad); });
  connect(&m_model, &ProfileModel::message, this, [this](const QString& text, bool bad) {
    const QString leadsTo = bad ? QString() : m_response->consequence(m_table->currentIndex().row());
    showMessage(leadsTo.isEmpty() ? text : text + QStringLiteral(" | ") + leadsTo, bad);
  });
  connect(&m_model, &QAbstractItemModel::dataChanged, this, [this] { refreshHeader(); });
  connect(&m_model, &QAbstractItemModel::modelReset, this, [this] { refreshHeader(); });
  connect(&session().profile(), &ProfileDocument::profileReplaced, this, [this] { showMessage({}, false); });
  connect(m_curve, &BudgetCurve::layerPicked, this, [this](int layer) { pick(layer); });
  connect(m_curve, &BudgetCurve::selectionChanged, this, [this] {
    if (m_syncing) return;
    m_syncing = true;
    m_table->selectLayers(m_curve->selectedLayers(), m_curve->currentLayer());
    m_syncing = false;
  });
  connect(m_table, &BudgetTable::layersSelected, this, [this] {
    if (m_syncing) return;
    m_syncing = true;
    m_curve->setSelectedLayers(m_table->selectedLayers());
    if (m_table->currentIndex().isValid()) {
      m_curve->setCurrentLayer(m_table->currentIndex().row());
      pick(m_table->currentIndex().row());
    }
    m_syncing = false;
  });
}

void BudgetView::showResponse() {
  // Hidden where there is nothing to plot: a profile alone, a head without a curve.
  m_plot->setVisible(m_plotButton->isChecked() && m_response->plot(*m_plot));
}

void BudgetView::pick(int layer) {
  Selection next = session().selection();
  next.layer = layer;
  session().setSelection(next);
}

void BudgetView::sessionChanged(ChangeFlags changes) {
  if (changes.testFlag(Change::Theme)) {
    m_curve->applyTheme();
    m_table->fitColumns();
    m_table->viewport()->update();
  }
  if (changes.testFlag(Change::Trace)) m_empty->refresh();
  if (changes & (Change::Trace | Change::Profile)) {
    refreshHeader();
  }
  m_response->sessionChanged(changes);
  if (changes & (Change::Selection | Change::Profile)) {
    applyScope();
    const int layer = session().selection().layer;
    if (layer >= 0 && layer < m_model.rowCount()) m_curve->setCurrentLayer(layer);
  }
  if (changes & (Change::Trace | Change::Profile)) {
    // Laying a page out for the first time takes as long as all that it shows: a turn of its own.
    if (m_stack->isVisible() && m_stack->currentIndex() != wantedPage())
      m_turnPage.start(0);
    else
      m_stack->setCurrentIndex(wantedPage());
  }
}

void BudgetView::applyScope() {
  const Profile& profile = session().profile().current();
  const Selection& selection = session().selection();
  const auto within = [](int value, int count) { return value >= 0 && value < count; };
  const bool step = within(selection.step, profile.steps()), head = within(selection.head, profile.heads());
  // "This step" says which one, in both ways of counting.
  m_steps->setItemText(
      1, step ? tr("Step index %1 (%2)").arg(selection.step).arg(ordinal(selection.step + 1)) : tr("This step"));
  m_heads->setItemText(1, head ? tr("Head %1").arg(selection.head) : tr("This head"));
  BudgetScope scope;
  if (m_steps->currentIndex() == 1 && step) scope.step = selection.step;
  if (m_heads->currentIndex() == 1 && head) scope.head = selection.head;
  m_model.setScope(scope);
  m_response->scopeChanged();
  refreshHeader();
}

void BudgetView::refreshHeader() {
  ProfileDocument& document = session().profile();
  if (document.isEmpty()) return;
  const ProfileSummary total = m_model.total();
  const double target = m_target->value() / 100;
  const bool beyond = target > 0 && total.count > 0 && total.mean > target + 5e-5;
  QString text = total.count > 0 ? tr("mean kept %1 %").arg(budget::percentDigits(total.mean)) : tr("no values");
  if (total.holes > 0) text += tr(" \u00b7 %1 holes").arg(formatCount(total.holes));
  m_mean->setText(text);
  m_mean->setToolTip(
      QString(tr("Mean over %1 values: kept %2 % (skipped %3 %)"))
          .arg(formatCount(total.count), budget::percentDigits(total.mean), budget::percentDigits(1 - total.mean)) +
      (beyond ? tr(", above the target") : QString()));
  setRole(m_mean, beyond ? QStringLiteral("error") : QString());
  const QString edit = document.unsavedEdit();
  m_unsaved->setFull(!document.isModified() ? document.displayName()
                     : edit.isEmpty()       ? tr("%1, unsaved").arg(document.displayName())
                                            : tr("unsaved: %1").arg(edit));
  QUndoStack& stack = document.undoStack();
  m_undo->setEnabled(stack.canUndo());
  m_undo->setToolTip(stack.canUndo() ? tr("Undo: %1 (Ctrl+Z)").arg(stack.undoText()) : tr("Nothing to undo"));
  m_redo->setEnabled(stack.canRedo());
  m_redo->setToolTip(stack.canRedo() ? tr("Redo: %1 (Ctrl+Shift+Z)").arg(stack.redoText()) : tr("Nothing to redo"));
  const bool doubt = !document.isModified() &&
                     document.filePath().endsWith(QLatin1String(".csv"), Qt::CaseInsensitive) &&
                     looksSkipped(document.current());
  m_doubt->setVisible(doubt);
  if (doubt) {
    m_doubtText->setText(
        tr("These values average %1 % kept. If the file holds skipped fractions, they are upside down.")
            .arg(budget::percentDigits(summarise(document.current()).mean)));
  }
}

void BudgetView::showMessage(const QString& text, bool isError) {
  m_message->setText(isError ? QString(QStringLiteral("\u26a0 ") + text) : text);
  m_message->setToolTip(text);
  setRole(m_message, isError ? QStringLiteral("error") : QStringLiteral("secondary"));
}

QJsonObject BudgetView::saveState() const {
  QJsonObject state;
  state[QLatin1String("steps")] = m_steps->currentIndex() == 1 ? QStringLiteral("this") : QStringLiteral("all");
  state[QLatin1String("heads")] = m_heads->currentIndex() == 1 ? QStringLiteral("this") : QStringLiteral("all");
  static constexpr const char* kSpread[] = {"shift", "scale", "equal"};
  state[QLatin1String("spread")] = QLatin1String(kSpread[std::clamp(m_spread->currentIndex(), 0, 2)]);
  state[QLatin1String("target")] = m_target->value() / 100;
  state[QLatin1String("history")] = m_historyButton->isChecked();
  state[QLatin1String("response")] = m_plotButton->isChecked();
  state[QLatin1String("curves")] = m_response->method();
  return state;
}

void BudgetView::restoreState(const QJsonObject& state) {
  const auto text = [&](const char* key) { return state[QLatin1String(key)].toString(); };
  if (!text("steps").isEmpty()) m_steps->setCurrentIndex(text("steps") == QLatin1String("this") ? 1 : 0);
  if (!text("heads").isEmpty()) m_heads->setCurrentIndex(text("heads") == QLatin1String("this") ? 1 : 0);
  if (!text("spread").isEmpty()) {
    m_spread->setCurrentIndex(text("spread") == QLatin1String("scale")   ? 1
                              : text("spread") == QLatin1String("equal") ? 2
                                                                         : 0);
  }
  if (const auto v = state[QLatin1String("target")]; v.isDouble()) m_target->setValue(v.toDouble() * 100);
  if (const auto v = state[QLatin1String("history")]; v.isBool()) m_historyButton->setChecked(v.toBool());
  if (const auto v = state[QLatin1String("response")]; v.isBool()) m_plotButton->setChecked(v.toBool());
  if (!text("curves").isEmpty()) m_response->setMethod(text("curves"));
}

}  // namespace

const ViewInfo& budget_info() {
  static const ViewInfo info{
      "budget",
      QT_TRANSLATE_NOOP("View", "Budget"),
      DockArea::Bottom,
      0,
      "budget",
      "views.md#budget-editor",
      [](Session& session, QWidget* parent) -> View* { return new BudgetView(session, parent); }};
  return info;
}

}  // namespace sparsight

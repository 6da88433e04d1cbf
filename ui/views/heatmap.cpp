// SPDX-License-Identifier: Apache-2.0
#include <QComboBox>
#include <QCoreApplication>
#include <QFileInfo>
#include <QHBoxLayout>
#include <QKeyEvent>
#include <QLabel>
#include <QSlider>
#include <QSplitter>
#include <QStackedWidget>
#include <QTimer>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "sparsight/kernels/error.h"
#include "ui/budget_edit.h"
#include "ui/budget_empty.h"
#include "ui/dialogs/file_dialogs.h"
#include "ui/heatmap_curve.h"
#include "ui/heatmap_grid.h"
#include "ui/icons.h"
#include "ui/session.h"
#include "ui/style.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {
namespace {

const double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kPlayMs = 250;  // 4 frames a second

/// What is coloured: the profile, or one number of a method's results.
enum class Quantity { Profile, Kept, Mass, Error };
struct Source {
  Quantity quantity = Quantity::Profile;
  QString method;
};

class HeatmapView : public View {
  Q_DECLARE_TR_FUNCTIONS(HeatmapView)
 public:
  HeatmapView(Session& shared, QWidget* parent);
  ~HeatmapView() override = default;

  void sessionChanged(ChangeFlags changes) override;
  [[nodiscard]] bool isSettled() const override { return !m_loading && !m_catchUp.isActive(); }
  [[nodiscard]] QJsonObject saveState() const override;
  void restoreState(const QJsonObject& state) override;
  [[nodiscard]] QString hint() const override {
    return tr("click or arrows choose a cell \u00b7 , . step \u00b7 Space plays on the slider");
  }

 protected:
  void keyPressEvent(QKeyEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;
  void showEvent(QShowEvent* event) override;

 private:
  enum Mode { StepMode = 0, OverviewMode = 1 };
  void build();
  void refreshSources();
  void refreshAll(bool stepOnly = false);
  void refreshGrid();
  void refreshCurves(bool stepOnly);
  void refreshReadout();
  void refreshSteps();
  void chooseOther();
  void setStep(int step);
  [[nodiscard]] Source source() const;
  [[nodiscard]] Mode mode() const { return m_mode->currentIndex() == 1 ? OverviewMode : StepMode; }
  [[nodiscard]] bool differs() const { return m_other != nullptr && source().quantity == Quantity::Profile; }
  /// Value of the chosen source; NaN: none.
  [[nodiscard]] double valueAt(const CellId& cell) const;
  [[nodiscard]] double resultAt(const Source& from, const CellId& cell) const;
  void extent(int& steps, int& layers, int& heads) const;
  [[nodiscard]] HeatMatrix makeMatrix() const;
  [[nodiscard]] QString describe(int step, int layer, int head) const;

  QStackedWidget* m_stack = nullptr;
  NoProfilePage* m_empty = nullptr;
  QComboBox *m_mode = nullptr, *m_source = nullptr, *m_scale = nullptr;
  QToolButton *m_compare = nullptr, *m_clear = nullptr, *m_play = nullptr;
  QLabel *m_summary = nullptr, *m_stepLabel = nullptr, *m_readout = nullptr, *m_otherLabel = nullptr;
  QSlider* m_slider = nullptr;
  HeatGrid* m_grid = nullptr;
  QSplitter* m_split = nullptr;
  QWidget* m_curves = nullptr;
  HeatCurve *m_layerCurve = nullptr, *m_stepCurve = nullptr;
  QTimer m_timer;
  std::vector<Source> m_sources;
  std::vector<int> m_steps;
  std::shared_ptr<const Profile> m_other;
  QString m_otherName, m_otherPath;
  JobHandle m_loadJob;
  bool m_loading = false, m_refreshing = false;
  ChangeFlags m_missed;
  QTimer m_catchUp;  ///< a turn after it is shown
  int m_hoverRow = -1, m_hoverColumn = -1;
};

HeatmapView::HeatmapView(Session& shared, QWidget* parent) : View(shared, parent) {
  m_refreshing = true;  // filling the boxes is no choice of the user
  build();
  m_refreshing = false;
  m_catchUp.setSingleShot(true);
  connect(&m_catchUp, &QTimer::timeout, this, [this] {
    setUpdatesEnabled(true);
    if (isVisible()) sessionChanged(std::exchange(m_missed, {}));
  });
  HeatmapView::sessionChanged(Change::Trace | Change::Selection | Change::Profile | Change::Runs | Change::Theme);
}

void HeatmapView::build() {
  auto* outer = new QVBoxLayout(this);
  outer->setContentsMargins(0, 0, 0, 0);
  m_stack = new QStackedWidget(this);
  outer->addWidget(m_stack);
  m_empty = new NoProfilePage(session(), tr("Heat maps: step \u00d7 layer \u00d7 head, at a glance"), this);
  m_stack->addWidget(m_empty);
  auto* page = new QWidget(this);
  m_stack->addWidget(page);
  auto* layout = new QVBoxLayout(page);
  layout->setContentsMargins(Theme::kGroupGap, Theme::kPad, Theme::kGroupGap, Theme::kPad);
  layout->setSpacing(Theme::kPad);

  auto* header = new QHBoxLayout;
  header->setSpacing(Theme::kPad);
  const auto combo = [&](const char* name, const QString& tip) {
    auto* made = new QComboBox(page);
    made->setObjectName(QLatin1String(name));
    made->setToolTip(tip);
    made->setAccessibleName(tip);
    made->setSizeAdjustPolicy(QComboBox::AdjustToContents);
    header->addWidget(made);
    connect(made, &QComboBox::currentIndexChanged, this, [this] {
      if (!m_refreshing) refreshAll();
    });
    return made;
  };
  m_mode = combo("heatmap.mode", tr("Which two axes are shown"));
  m_mode->addItems({tr("Layers \u00d7 heads"), tr("Layers \u00d7 steps (mean)")});
  m_source = combo("heatmap.source", tr("What is coloured"));
  m_scale = combo("heatmap.scale", tr("Colour scale"));
  m_scale->addItems({tr("linear"), tr("log")});
  m_compare = new QToolButton(page);
  m_compare->setObjectName(QStringLiteral("heatmap.compare"));
  m_compare->setText(tr("Difference with..."));
  m_compare->setToolTip(tr("Open a second profile and show this one minus that one"));
  header->addWidget(m_compare);
  m_otherLabel = new QLabel(page);
  setRole(m_otherLabel, QStringLiteral("secondary"));
  header->addWidget(m_otherLabel);
  m_clear = new QToolButton(page);
  m_clear->setIcon(themedIcon(QStringLiteral("close")));
  m_clear->setToolTip(tr("Show the profile itself again"));
  m_clear->setAccessibleName(tr("End the comparison"));
  header->addWidget(m_clear);
  header->addStretch(1);
  m_summary = new QLabel(page);
  m_summary->setObjectName(QStringLiteral("heatmap.summary"));
  fonts::give(m_summary, FontRole::Title);
  header->addWidget(m_summary);
  layout->addLayout(header);

  m_split = new QSplitter(Qt::Horizontal, page);
  m_split->setChildrenCollapsible(false);
  m_grid = new HeatGrid(m_split);
  m_grid->setObjectName(QStringLiteral("heatmap.grid"));
  m_curves = new QWidget(m_split);
  auto* curves = new QVBoxLayout(m_curves);
  curves->setContentsMargins(Theme::kGroupGap, 0, 0, 0);
  curves->setSpacing(Theme::kPad);
  m_layerCurve = new HeatCurve(m_curves);
  m_layerCurve->setObjectName(QStringLiteral("heatmap.layerCurve"));
  m_stepCurve = new HeatCurve(m_curves);
  m_stepCurve->setObjectName(QStringLiteral("heatmap.stepCurve"));
  curves->addWidget(m_layerCurve, 1);
  curves->addWidget(m_stepCurve, 1);
  m_split->setStretchFactor(0, 3);
  m_split->setStretchFactor(1, 2);
  m_split->setSizes({640, 420});
  layout->addWidget(m_split, 1);

  auto* steps = new QHBoxLayout;
  steps->setSpacing(Theme::kPad);
  m_play = new QToolButton(page);
  m_play->setObjectName(QStringLiteral("heatmap.play"));
  m_play->setCheckable(true);
  m_play->setIcon(themedIcon(QStringLiteral("play")));
  m_play->setToolTip(tr("Play the steps, 4 a second"));
  m_play->setAccessibleName(tr("Play"));
  steps->addWidget(m_play);
  m_slider = new QSlider(Qt::Horizontal, page);
  m_slider->setObjectName(QStringLiteral("heatmap.steps"));
  m_slider->setAccessibleName(tr("Denoising step"));
  m_slider->setPageStep(5);
  m_slider->setMaximumWidth(420);
  m_slider->installEventFilter(this);
  steps->addWidget(m_slider, 1);
  m_stepLabel = new QLabel(page);
  m_stepLabel->setObjectName(QStringLiteral("heatmap.step"));
  m_stepLabel->setMinimumWidth(170);
  steps->addWidget(m_stepLabel);
  m_readout = new QLabel(page);
  m_readout->setObjectName(QStringLiteral("heatmap.readout"));
  m_readout->setTextInteractionFlags(Qt::TextSelectableByMouse);
  m_readout->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
  m_readout->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
  steps->addWidget(m_readout, 3);
  layout->addLayout(steps);

  m_timer.setInterval(kPlayMs);
  connect(&m_timer, &QTimer::timeout, this, [this] {
    if (!m_steps.empty()) m_slider->setValue(m_slider->value() < m_slider->maximum() ? m_slider->value() + 1 : 0);
  });
  connect(m_play, &QToolButton::toggled, this, [this](bool on) {
    m_play->setIcon(themedIcon(on ? QStringLiteral("pause") : QStringLiteral("play")));
    m_play->setToolTip(on ? tr("Pause") : tr("Play the steps, 4 a second"));
    on ? m_timer.start() : m_timer.stop();
  });
  connect(m_slider, &QSlider::valueChanged, this, [this](int at) {
    if (!m_refreshing && at >= 0 && at < static_cast<int>(m_steps.size()))
      setStep(m_steps[static_cast<std::size_t>(at)]);
  });
  connect(m_grid, &HeatGrid::hovered, this, [this](int row, int column) {
    m_hoverRow = row;
    m_hoverColumn = column;
    refreshReadout();
  });
  connect(m_grid, &HeatGrid::picked, this, [this](int row, int column) {
    Selection next = session().selection();
    next.layer = row;
    (mode() == StepMode ? next.head : next.step) = column;
    session().setSelection(next);
  });
  connect(m_layerCurve, &HeatCurve::picked, this, [this](int layer) {
    Selection next = session().selection();
    next.layer = layer;
    session().setSelection(next);
  });
  connect(m_stepCurve, &HeatCurve::picked, this, [this](int step) { setStep(step); });
  connect(m_compare, &QToolButton::clicked, this, [this] { chooseOther(); });
  connect(m_clear, &QToolButton::clicked, this, [this] {
    m_other.reset();
    refreshAll();
  });
}

void HeatmapView::setStep(int step) {
  Selection next = session().selection();
  next.step = step;
  session().setSelection(next);
}

void HeatmapView::keyPressEvent(QKeyEvent* event) {
  if (event->key() == Qt::Key_Comma || event->key() == Qt::Key_Period) {
    session().moveSelection(event->key() == Qt::Key_Period ? 1 : -1, 0, 0);
  } else if (event->key() == Qt::Key_Space) {
    m_play->toggle();
  } else {
    View::keyPressEvent(event);
  }
}

void HeatmapView::resizeEvent(QResizeEvent* event) {
  View::resizeEvent(event);
  // The map comes first: without room for both the curves go.
  m_curves->setVisible(width() >= 720 && height() >= 180);
  m_stepCurve->setVisible(height() >= 320);
}

Source HeatmapView::source() const {
  const int at = m_source->currentIndex();
  return at >= 0 && at < static_cast<int>(m_sources.size()) ? m_sources[static_cast<std::size_t>(at)] : Source{};
}

void HeatmapView::refreshSources() {
  const Source before = source();
  m_refreshing = true;
  m_source->clear();
  m_sources.clear();
  const auto add = [this](const QString& text, Quantity quantity, const QString& method) {
    m_source->addItem(text);
    m_sources.push_back({quantity, method});
  };
  if (!session().profile().isEmpty()) add(tr("Profile values"), Quantity::Profile, {});
  const QStringList methods = session().runs().methods();
  for (const QString& method : methods) {
    QString title = method;
    for (const Method* known : allMethods()) {
      if (method == QLatin1String(known->id().data(), static_cast<qsizetype>(known->id().size()))) {
        title = QString::fromUtf8(known->title().data(), static_cast<qsizetype>(known->title().size()));
      }
    }
    add(tr("%1: kept fraction").arg(title), Quantity::Kept, method);
    add(tr("%1: kept mass").arg(title), Quantity::Mass, method);
    add(tr("%1: output error").arg(title), Quantity::Error, method);
  }
  for (std::size_t i = 0; i < m_sources.size(); ++i) {
    if (m_sources[i].quantity == before.quantity && m_sources[i].method == before.method) {
      m_source->setCurrentIndex(static_cast<int>(i));
    }
  }
  m_refreshing = false;
}

void HeatmapView::sessionChanged(ChangeFlags changes) {
  if (changes.testFlag(Change::Theme)) {
    m_grid->applyTheme();
    m_layerCurve->applyTheme();
    m_stepCurve->applyTheme();
  }
  if (changes.testFlag(Change::Trace)) m_empty->refresh();
  if (!isVisible() && window()->isVisible()) {  // behind another tab: caught up with when it is shown
    m_missed |= changes;
    return;
  }
  if (changes & (Change::Trace | Change::Profile | Change::Runs)) {
    refreshSources();
    refreshAll();
  } else if (changes.testFlag(Change::Selection)) {
    refreshAll(true);
  }
}

void HeatmapView::showEvent(QShowEvent* event) {
  View::showEvent(event);
  if (!m_missed || m_catchUp.isActive()) return;
  setUpdatesEnabled(false);  // what it showed last is not to be seen
  m_catchUp.start(0);
}

void HeatmapView::extent(int& steps, int& layers, int& heads) const {
  const Profile& profile = session().profile().current();
  if (source().quantity == Quantity::Profile) {
    steps = profile.steps();
    layers = profile.layers();
    heads = profile.heads();
    return;
  }
  // The whole model, as the head grid shows it: what was not captured is a hole.
  const auto size = [](const std::vector<int>& values, int stated) {
    return std::max(values.empty() ? 0 : values.back() + 1, stated);
  };
  const auto& trace = session().trace();
  steps = size(session().selectableSteps(), trace ? trace->info().run.numInferenceSteps : 0);
  layers = size(session().selectableLayers(), trace ? trace->info().model.numLayers : 0);
  heads = size(session().selectableHeads(), trace ? trace->info().model.numHeads : 0);
}

double HeatmapView::resultAt(const Source& from, const CellId& cell) const {
  const auto id = session().headAt(cell.step, session().selection().branch, cell.layer, cell.head);
  if (!id) return kNaN;
  const HeadResult result = session().runs().find(from.method, *id);
  if (!result || !result->skippedReason.empty()) return kNaN;
  switch (from.quantity) {
    case Quantity::Kept:
      return result->evaluation.keptFraction;
    case Quantity::Mass:
      return result->evaluation.keptMass;
    case Quantity::Error:
      return result->evaluation.outputRelError.value_or(kNaN);
    case Quantity::Profile:
      break;
  }
  return kNaN;
}

double HeatmapView::valueAt(const CellId& cell) const {
  const Source from = source();
  if (from.quantity != Quantity::Profile) return resultAt(from, cell);
  const auto value = session().profile().current().at(cell);
  if (!value) return kNaN;
  if (!m_other) return *value;
  const auto other = m_other->at(cell);
  return other ? *value - *other : kNaN;
}

HeatMatrix HeatmapView::makeMatrix() const {
  HeatMatrix matrix;
  int steps = 0, layers = 0, heads = 0;
  extent(steps, layers, heads);
  matrix.rows = layers;
  matrix.columns = mode() == StepMode ? heads : steps;
  matrix.rowPrefix = QStringLiteral("L");
  matrix.columnPrefix = mode() == StepMode ? QStringLiteral("H") : QStringLiteral("S");
  matrix.values.reserve(static_cast<std::size_t>(matrix.rows) * static_cast<std::size_t>(std::max(0, matrix.columns)));
  const int step = session().selection().step;
  double top = 0;
  std::vector<double> magnitudes;
  for (int layer = 0; layer < layers; ++layer) {
    for (int column = 0; column < matrix.columns; ++column) {
      double value = 0;
      if (mode() == StepMode) {
        value = valueAt({step, layer, column});
      } else {
        int count = 0;
        for (int head = 0; head < heads; ++head) {
          const double v = valueAt({column, layer, head});
          if (!std::isnan(v)) value += v, ++count;
        }
        value = count > 0 ? value / count : kNaN;
      }
      matrix.values.push_back(value);
      if (!std::isnan(value)) {
        top = std::max(top, std::abs(value));
        magnitudes.push_back(std::abs(value));
      }
    }
  }
  const Source from = source();
  switch (from.quantity) {
    case Quantity::Profile:
      matrix.quantity =
          session().profile().current().role == BudgetRole::TopMass ? tr("top mass") : tr("kept fraction");
      break;
    case Quantity::Kept:
      matrix.quantity = tr("kept fraction");
      break;
    case Quantity::Mass:
      matrix.quantity = tr("kept mass");
      break;
    case Quantity::Error:
      matrix.quantity = tr("output error");
      break;
  }
  if (differs()) {
    matrix.quantity = tr("difference, points");
    matrix.diverging = true;
    // Symmetric about 0 and robust: one outlier must not fade all the rest.
    double limit = top;
    if (!magnitudes.empty()) {
      const auto at =
          magnitudes.begin() + static_cast<std::ptrdiff_t>(static_cast<double>(magnitudes.size() - 1) * 0.99);
      std::nth_element(magnitudes.begin(), at, magnitudes.end());
      limit = *at > 0 ? *at : top;
    }
    limit = std::max(limit, 1e-4);
    matrix.range = {-limit, limit, ValueScale::Linear};
  } else {
    // One scale for all steps of a profile: playing them must not change what a colour means.
    if (from.quantity == Quantity::Profile && mode() == StepMode) top = summarise(session().profile().current()).max;
    const double step10 = top > 0.5 ? 0.1 : top > 0.1 ? 0.05 : 0.01;
    const double upper =
        from.quantity == Quantity::Mass ? 1.0 : std::max(0.01, std::ceil(top / step10 - 1e-9) * step10);
    matrix.range = {0, from.quantity == Quantity::Error ? upper : std::min(1.0, upper), ValueScale::Linear};
    if (m_scale->currentIndex() == 1) matrix.range = {1e-3, matrix.range.maximum, ValueScale::Log};
  }
  if (from.quantity == Quantity::Profile) {
    const Profile& profile = session().profile().current();
    for (int layer = 0; layer < layers; ++layer) matrix.markedRows.push_back(profile.layerLocked(layer));
  }
  return matrix;
}

void HeatmapView::refreshAll(bool stepOnly) {
  const bool any = !m_sources.empty();
  m_stack->setCurrentIndex(any ? 1 : 0);
  if (!any) {
    m_play->setChecked(false);
    return;
  }
  m_compare->setVisible(source().quantity == Quantity::Profile);
  m_otherLabel->setVisible(differs());
  m_otherLabel->setText(m_otherName);
  m_clear->setVisible(differs());
  m_scale->setEnabled(!differs());
  refreshSteps();
  refreshGrid();
  refreshCurves(stepOnly);
  refreshReadout();
}

void HeatmapView::refreshSteps() {
  int steps = 0, layers = 0, heads = 0;
  extent(steps, layers, heads);
  m_steps.clear();
  if (source().quantity == Quantity::Profile) {
    for (int s = 0; s < steps; ++s) m_steps.push_back(s);
  } else {
    m_steps = session().selectableSteps();
  }
  const int step = session().selection().step;
  m_refreshing = true;
  m_slider->setRange(0, std::max(0, static_cast<int>(m_steps.size()) - 1));
  const auto at = std::lower_bound(m_steps.begin(), m_steps.end(), step);
  if (at != m_steps.end()) m_slider->setValue(static_cast<int>(at - m_steps.begin()));
  m_refreshing = false;
  m_slider->setEnabled(m_steps.size() > 1);
  m_play->setEnabled(m_steps.size() > 1);
  if (session().trace()) steps = std::max(steps, session().trace()->info().run.numInferenceSteps);
  m_stepLabel->setText(step >= 0 ? tr("step index %1 (%2 of %3)").arg(step).arg(ordinal(step + 1)).arg(steps)
                                 : QString());
}

void HeatmapView::refreshGrid() {
  m_grid->setMatrix(makeMatrix());
  const Selection& at = session().selection();
  m_grid->setCurrent(at.layer < m_grid->matrix().rows ? at.layer : -1,
                     mode() == StepMode ? (at.head < m_grid->matrix().columns ? at.head : -1)
                                        : (at.step < m_grid->matrix().columns ? at.step : -1));
  m_grid->setAccessibleDescription(describe(at.step, at.layer, mode() == StepMode ? at.head : -1));
}

void HeatmapView::refreshCurves(bool stepOnly) {
  int steps = 0, layers = 0, heads = 0;
  extent(steps, layers, heads);
  const int step = session().selection().step;
  // Differences are signed; the curves show the profile itself.
  const auto value = [&](const CellId& cell) {
    const Source from = source();
    if (from.quantity != Quantity::Profile) return resultAt(from, cell);
    return session().profile().current().at(cell).value_or(kNaN);
  };
  const auto gather = [&](auto&& visit) {
    double sum = 0, low = kNaN, high = kNaN;
    int count = 0;
    visit([&](double v) {
      if (std::isnan(v)) return;
      sum += v;
      low = count == 0 ? v : std::min(low, v);
      high = count == 0 ? v : std::max(high, v);
      ++count;
    });
    return std::array<double, 3>{count > 0 ? sum / count : kNaN, low, high};
  };
  const auto push = [](HeatCurve::Curve& curve, const std::array<double, 3>& triple) {
    curve.mean << triple[0];
    curve.min << triple[1];
    curve.max << triple[2];
  };
  HeatCurve::Curve byLayer, byStep;
  byLayer.prefix = QStringLiteral("L");
  byLayer.title = mode() == StepMode ? tr("by layer at this step: mean, min\u2013max over heads")
                                     : tr("by layer: mean, min\u2013max over steps and heads");
  for (int l = 0; l < layers; ++l) {
    push(byLayer, gather([&](auto&& take) {
           const int first = mode() == StepMode ? step : 0, last = mode() == StepMode ? step : steps - 1;
           for (int s = first; s <= last; ++s) {
             for (int h = 0; h < heads; ++h) take(value({s, l, h}));
           }
         }));
  }
  m_layerCurve->setCurve(byLayer);
  m_layerCurve->setCurrent(session().selection().layer);
  m_stepCurve->setCurrent(step);
  if (stepOnly) return;  // another cell of the same values: the rest stays

  byStep.prefix = QStringLiteral("S");
  byStep.title = tr("by step: mean over layers and heads, min\u2013max of layer means");
  for (int s = 0; s < steps; ++s) {
    double sum = 0, low = kNaN, high = kNaN;
    int count = 0;
    for (int l = 0; l < layers; ++l) {
      const auto layer = gather([&](auto&& take) {
        for (int h = 0; h < heads; ++h) take(value({s, l, h}));
      });
      if (std::isnan(layer[0])) continue;
      sum += layer[0];
      low = count == 0 ? layer[0] : std::min(low, layer[0]);
      high = count == 0 ? layer[0] : std::max(high, layer[0]);
      ++count;
    }
    push(byStep, {count > 0 ? sum / count : kNaN, low, high});
  }
  m_stepCurve->setCurve(byStep);

  if (differs()) {
    const ProfileDiff diff = diffProfiles(session().profile().current(), *m_other);
    m_summary->setText(tr("%1 cells differ, mean %2 points, r %3")
                           .arg(formatCount(diff.changed + diff.onlyA + diff.onlyB), formatNumber(diff.meanAbs * 100),
                                formatNumber(diff.pearson)));
  } else if (source().quantity == Quantity::Profile) {
    const ProfileSummary all = summarise(session().profile().current());
    QString text = tr("mean kept %1 %").arg(budget::percentDigits(all.mean));
    if (all.holes > 0) text += tr(" \u00b7 %1 holes").arg(formatCount(all.holes));
    m_summary->setText(text);
  } else {
    qsizetype heads2 = 0;
    for (const double v : m_grid->matrix().values) heads2 += std::isnan(v) ? 0 : 1;
    m_summary->setText(tr("%1 heads at this step").arg(heads2));
  }
}

QString HeatmapView::describe(int step, int layer, int head) const {
  if (step < 0 || layer < 0) return {};
  QString where =
      head >= 0 ? tr("step index %1 (%2), layer %3, head %4: ").arg(step).arg(ordinal(step + 1)).arg(layer).arg(head)
                : tr("step index %1 (%2), layer %3, mean over heads: ").arg(step).arg(ordinal(step + 1)).arg(layer);
  double value = 0;
  if (head >= 0) {
    value = valueAt({step, layer, head});
  } else {
    value = m_grid->matrix().at(layer, step);
  }
  if (std::isnan(value)) return where + (source().quantity == Quantity::Profile ? tr("no value") : tr("no result yet"));
  if (differs()) {
    QString text =
        where + tr("%1 points").arg((value > 0 ? QStringLiteral("+") : QString()) + formatNumber(value * 100));
    if (head >= 0) {
      text += tr(" (%1 % here, %2 % there)")
                  .arg(budget::percentDigits(*session().profile().current().at({step, layer, head})),
                       budget::percentDigits(*m_other->at({step, layer, head})));
    }
    return text;
  }
  switch (source().quantity) {
    case Quantity::Profile:
    case Quantity::Kept:
      return where + tr("kept %1 % (skipped %2 %)").arg(budget::percentDigits(value), budget::percentDigits(1 - value));
    case Quantity::Mass:
      return where + tr("kept mass %1").arg(formatNumber(value));
    case Quantity::Error:
      return where + tr("output error %1").arg(formatNumber(value));
  }
  return where;
}

void HeatmapView::refreshReadout() {
  const Selection& at = session().selection();
  int layer = at.layer, step = at.step, head = at.head;
  if (m_hoverRow >= 0) {
    layer = m_hoverRow;
    (mode() == StepMode ? head : step) = m_hoverColumn;
  }
  m_readout->setText(describe(step, layer, mode() == StepMode ? head : -1));
}

void HeatmapView::chooseOther() {
  askForFile(this, tr("Difference with..."), QFileInfo(session().profile().filePath()).absolutePath(),
             tr("Profiles (*.csv *.json);;All files (*)"), [this](const QString& path) {
               QJsonObject state;
               state[QLatin1String("difference")] = path;
               restoreState(state);
             });
}

QJsonObject HeatmapView::saveState() const {
  QJsonObject state;
  state[QLatin1String("mode")] = mode() == StepMode ? QStringLiteral("step") : QStringLiteral("overview");
  state[QLatin1String("scale")] = m_scale->currentIndex() == 1 ? QStringLiteral("log") : QStringLiteral("linear");
  const Source from = source();
  static constexpr const char* kNames[] = {"profile", "kept", "mass", "error"};
  state[QLatin1String("source")] = QLatin1String(kNames[static_cast<int>(from.quantity)]);
  state[QLatin1String("method")] = from.method;
  if (m_other) state[QLatin1String("difference")] = m_otherPath;
  return state;
}

void HeatmapView::restoreState(const QJsonObject& state) {
  const auto text = [&](const char* key) { return state[QLatin1String(key)].toString(); };
  if (!text("mode").isEmpty()) m_mode->setCurrentIndex(text("mode") == QLatin1String("overview") ? 1 : 0);
  if (!text("scale").isEmpty()) m_scale->setCurrentIndex(text("scale") == QLatin1String("log") ? 1 : 0);
  if (!text("source").isEmpty()) {
    static const QStringList kNames{QStringLiteral("profile"), QStringLiteral("kept"), QStringLiteral("mass"),
                                    QStringLiteral("error")};
    for (std::size_t i = 0; i < m_sources.size(); ++i) {
      if (kNames.value(static_cast<int>(m_sources[i].quantity)) == text("source") &&
          m_sources[i].method == text("method")) {
        m_source->setCurrentIndex(static_cast<int>(i));
      }
    }
  }
  const QString path = text("difference");
  if (path.isEmpty() || !QFileInfo(path).isFile()) return;
  JobSpec spec;
  spec.name = "Open the profile to compare with";
  spec.lane = Lane::Io;
  spec.supersedeTag = "heatmap.other";
  m_loading = true;
  m_loadJob = session().jobs().submit<std::shared_ptr<const Profile>>(
      spec,
      [path](JobContext&) {
        return std::make_shared<const Profile>(readProfile(std::filesystem::path(path.toStdString())));
      },
      [this, path](Outcome<std::shared_ptr<const Profile>> outcome) {
        if (std::holds_alternative<Cancelled>(outcome)) return;
        m_loading = false;
        if (const auto* failed = std::get_if<Error>(&outcome)) {
          Q_EMIT session().errorOccurred(tr("No difference can be shown"), QString::fromStdString(failed->what()));
          return;
        }
        m_other = std::get<std::shared_ptr<const Profile>>(outcome);
        m_otherName = QFileInfo(path).fileName();
        m_otherPath = path;
        m_otherLabel->setToolTip(path);
        refreshAll();
      });
}

}  // namespace

const ViewInfo& heatmap_info() {
  static const ViewInfo info{
      "heatmap",
      QT_TRANSLATE_NOOP("View", "Heat maps"),
      DockArea::Centre,
      2,
      "heatmap",
      "views.md#heat-maps",
      [](Session& session, QWidget* parent) -> View* { return new HeatmapView(session, parent); }};
  return info;
}

}  // namespace sparsight

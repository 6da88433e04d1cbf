// SPDX-License-Identifier: Apache-2.0
// What is open: model, token grid, what was captured, warnings; and the denoising step of the shared selection.
#include <QComboBox>
#include <QLabel>
#include <QMenu>
#include <QPushButton>
#include <QSlider>
#include <QTimer>
#include <QToolButton>
#include <QVBoxLayout>
#include <QWheelEvent>
#include <QWidgetAction>
#include <algorithm>

#include "sparsight/core/importer.h"
#include "ui/icons.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {
namespace {

constexpr int kPlayIntervalMs = 250;  // 4 steps a second

/// One wheel notch is one captured step, not three pages.
class StepSlider : public QSlider {
 public:
  using QSlider::QSlider;

 protected:
  void wheelEvent(QWheelEvent* event) override {
    setValue(value() + (event->angleDelta().y() > 0 ? 1 : -1));
    event->accept();
  }
};

QString modelTitle(const TraceInfo& info) {
  const QString repo = QString::fromStdString(info.model.repoId);
  if (!repo.isEmpty()) return repo.section(QLatin1Char('/'), -1);
  if (!info.model.className.empty()) return QString::fromStdString(info.model.className);
  if (!info.model.family.empty()) return QString::fromStdString(info.model.family);
  return QString::fromStdString(info.path.filename().string());
}

QString gridText(const TokenLayout& layout) {
  const QChar times(0x00D7);
  QString text;
  if (const Segment* video = layout.video()) {
    text = QStringLiteral("%1 %4 %2 %4 %3").arg(video->frames).arg(video->height).arg(video->width).arg(times);
    Index other = layout.tokenCount - video->length;
    if (const Segment* words = layout.text()) {
      text += QStringLiteral(" + %1 text").arg(formatCount(words->length));
      other -= words->length;
    }
    if (other > 0) text += QStringLiteral(" + %1 other").arg(formatCount(other));
    return text + QStringLiteral(" = %1 tokens").arg(formatCount(layout.tokenCount));
  }
  return QStringLiteral("%1 tokens, no video grid").arg(formatCount(layout.tokenCount));
}

QString countOf(std::size_t captured, int all) {
  const auto n = static_cast<int>(captured);
  return all > n ? QStringLiteral("%1 of %2").arg(n).arg(all) : QString::number(n);
}

class TraceView : public View {
  Q_OBJECT
 public:
  TraceView(Session& session, QWidget* parent) : View(session, parent) {
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(Theme::kEdge, 2, Theme::kEdge, Theme::kGroupGap);
    column->setSpacing(2);
    m_title = new ElidedLabel;
    m_title->setBold(true);
    m_grid = new NoteLabel;
    m_captured = new NoteLabel;
    m_profile = new NoteLabel;
    m_warnings = new QToolButton;
    m_warnings->setObjectName(QStringLiteral("traceWarnings"));
    m_warnings->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    m_warnings->setPopupMode(QToolButton::InstantPopup);
    m_warnings->setAutoRaise(true);
    m_stepCaption = new SectionLabel(tr("Denoising step"));
    m_slider = new StepSlider(Qt::Horizontal);
    m_slider->setObjectName(QStringLiteral("stepSlider"));
    m_slider->setAccessibleName(tr("Denoising step"));
    m_slider->setPageStep(1);
    m_play = new QToolButton;
    m_play->setObjectName(QStringLiteral("stepPlay"));
    m_play->setIcon(themedIcon(QStringLiteral("play")));
    m_play->setToolTip(tr("Play through the captured steps (Space)"));
    m_play->setAccessibleName(tr("Play through the captured steps"));
    m_play->setCheckable(true);
    m_stepText = new NoteLabel;
    m_stepText->setObjectName(QStringLiteral("stepText"));
    m_branchRow = new QWidget;
    auto* branchLayout = new QHBoxLayout(m_branchRow);
    branchLayout->setContentsMargins(0, 6, 0, 0);
    auto* branchLabel = new QLabel(tr("Guidance branch"));
    m_branch = new QComboBox;
    m_branch->setObjectName(QStringLiteral("branchCombo"));
    branchLabel->setBuddy(m_branch);
    branchLayout->addWidget(branchLabel);
    branchLayout->addWidget(m_branch, 1);
    auto* sliderRow = new QHBoxLayout;
    sliderRow->setSpacing(4);
    sliderRow->addWidget(m_slider, 1);
    sliderRow->addWidget(m_play);

    column->addWidget(m_title);
    column->addWidget(m_grid);
    column->addWidget(m_captured);
    column->addWidget(m_profile);
    column->addWidget(m_warnings, 0, Qt::AlignLeft);
    column->addSpacing(Theme::kGroupGap);
    column->addWidget(m_stepCaption);
    column->addLayout(sliderRow);
    column->addWidget(m_stepText);
    column->addWidget(m_branchRow);

    m_playTimer.setInterval(kPlayIntervalMs);
    connect(&m_playTimer, &QTimer::timeout, this,
            [this] { m_slider->setValue(m_slider->value() == m_slider->maximum() ? 0 : m_slider->value() + 1); });
    connect(m_play, &QToolButton::toggled, this, [this](bool on) {
      m_play->setIcon(themedIcon(on ? QStringLiteral("pause") : QStringLiteral("play")));
      on ? m_playTimer.start() : m_playTimer.stop();
    });
    connect(m_slider, &QSlider::valueChanged, this, [this](int index) {
      if (m_updating || index < 0 || index >= static_cast<int>(m_steps.size())) return;
      Selection next = this->session().selection();
      next.step = m_steps[static_cast<std::size_t>(index)];
      this->session().setSelection(next);
    });
    connect(m_branch, &QComboBox::currentIndexChanged, this, [this] {
      if (m_updating) return;
      Selection next = this->session().selection();
      next.branch = m_branch->currentText().toStdString();
      this->session().setSelection(next);
    });
    refresh();
  }

  void sessionChanged(ChangeFlags changes) override {
    if (changes & (ChangeFlags(Change::Trace) | Change::Selection | Change::Profile))
      refresh();
    else if (changes & Change::Theme)
      fitHeight();
  }
  [[nodiscard]] QString hint() const override { return tr(", and . step \u00B7 Space play"); }

 protected:
  void resizeEvent(QResizeEvent* event) override {
    View::resizeEvent(event);
    if (event->oldSize().width() != event->size().width()) fitHeight();
  }
  void keyPressEvent(QKeyEvent* event) override {
    if (event->key() == Qt::Key_Space && m_slider->isEnabled()) {
      m_play->toggle();
      return;
    }
    View::keyPressEvent(event);
  }

 private:
  void refresh() {
    m_updating = true;
    Session& s = session();
    const bool hasProfile = !s.profile().isEmpty();
    if (s.trace()) {
      const TraceInfo& info = s.trace()->info();
      m_title->setText(modelTitle(info));
      m_grid->setText(gridText(info.layout));
      m_captured->setText(tr("steps %1 \u00B7 layers %2 \u00B7 heads %3")
                              .arg(countOf(info.steps().size(), info.run.numInferenceSteps),
                                   countOf(info.layers().size(), info.model.numLayers),
                                   countOf(info.heads().size(), info.model.numHeads)));
      showWarnings(info);
    } else {
      m_title->setText(hasProfile ? tr("No trace") : tr("Nothing open"));
      m_grid->setText(hasProfile
                          ? tr("A profile alone: budgets can be edited and exported; maps and results need a trace.")
                          : tr("Open a trace to see its heads."));
      m_captured->clear();
      m_warnings->hide();
    }
    m_captured->setVisible(!m_captured->text().isEmpty());
    if (hasProfile) {
      const Profile& profile = s.profile().current();
      m_profile->setText(tr("%1: %2\u00A0\u00D7\u00A0%3\u00A0\u00D7\u00A0%4")
                             .arg(s.profile().displayName())
                             .arg(profile.steps())
                             .arg(profile.layers())
                             .arg(profile.heads()));
    }
    m_profile->setVisible(hasProfile);

    m_steps = s.selectableSteps();
    const auto at = std::find(m_steps.begin(), m_steps.end(), s.selection().step);
    const bool any = !m_steps.empty();
    m_slider->setEnabled(m_steps.size() > 1);
    m_play->setEnabled(m_steps.size() > 1);
    if (m_steps.size() < 2) m_play->setChecked(false);
    m_slider->setRange(0, any ? static_cast<int>(m_steps.size()) - 1 : 0);
    m_slider->setValue(at == m_steps.end() ? 0 : static_cast<int>(at - m_steps.begin()));
    m_stepText->setText(any ? stepText(s.selection().step) : tr("none"));

    std::vector<std::string> branches;
    if (s.trace()) branches = s.trace()->info().branches();
    m_branch->clear();
    for (const std::string& branch : branches) m_branch->addItem(QString::fromStdString(branch));
    m_branch->setCurrentText(QString::fromStdString(s.selection().branch));
    m_branchRow->setVisible(branches.size() > 1);
    m_updating = false;
    fitHeight();
  }

  /// As tall as its text at this width: the rest of the column belongs to the heads.
  void fitHeight() {
    layout()->activate();
    const int wanted =
        layout()->hasHeightForWidth() ? layout()->totalHeightForWidth(width()) : layout()->totalSizeHint().height();
    if (wanted != height() || minimumHeight() != wanted) setFixedHeight(wanted);
  }

  QString stepText(int step) {
    int count = session().profile().isEmpty() ? 0 : session().profile().current().steps();
    QString text;
    double timestep = -1;
    bool captured = true;
    if (session().trace()) {
      const TraceInfo& info = session().trace()->info();
      count = std::max(count, info.run.numInferenceSteps);
      if (step >= 0 && static_cast<std::size_t>(step) < info.run.timesteps.size())
        timestep = info.run.timesteps[static_cast<std::size_t>(step)];
      for (const CallInfo& call : info.calls)
        if (call.id.step == step && timestep < 0) timestep = call.timestep;
      const std::vector<int> steps = info.steps();
      captured = std::binary_search(steps.begin(), steps.end(), step);
    }
    text = count > 0 ? tr("index %1 (%2 of %3").arg(step).arg(ordinal(step + 1)).arg(count)
                     : tr("index %1 (%2").arg(step).arg(ordinal(step + 1));
    if (timestep > 0) text += tr(", t = %1").arg(QString::number(timestep, 'f', timestep >= 2 ? 0 : 3));
    text += QLatin1Char(')');
    if (!captured) text += tr(", not captured");
    return text;
  }

  // Warnings of the reader, and what a conversion took for granted: both are what numbers may rest on.
  void showWarnings(const TraceInfo& info) {
    const auto record = importRecord(info);
    m_warnings->setVisible(!info.warnings.empty() || record.has_value());
    if (m_warnings->isHidden()) return;
    const auto counted = [](std::size_t n, const QString& one) {
      return QStringLiteral("%1 %2%3").arg(n).arg(one, n == 1 ? QString() : QStringLiteral("s"));
    };
    QStringList lines;
    QString text;
    if (!info.warnings.empty()) {
      text = counted(info.warnings.size(), tr("warning"));
      for (const std::string& warning : info.warnings)
        lines += QStringLiteral("\u2022 ") + QString::fromStdString(warning);
    }
    if (record) {
      text +=
          (text.isEmpty() ? tr("Imported, ") : tr("; imported, ")) + counted(record->assumed.size(), tr("assumption"));
      lines += tr("Imported from %1. Taken for granted:").arg(QString::fromStdString(record->source));
      for (const auto* each : {&record->assumed, &record->warnings})
        for (const std::string& line : *each) lines += QStringLiteral("\u2022 ") + QString::fromStdString(line);
    }
    const bool warn = !info.warnings.empty();
    m_warnings->setIcon(
        QIcon(tintedPixmap(warn ? QStringLiteral("warning") : QStringLiteral("info"), 16,
                           warn ? Theme::current().warning : Theme::current().secondary, devicePixelRatioF())));
    m_warnings->setText(text);
    auto* menu = new QMenu(m_warnings);
    auto* list = new NoteLabel;
    list->setText(lines.join(QLatin1Char('\n')));
    list->setMargin(8);
    list->setFixedWidth(420);
    list->setTextInteractionFlags(Qt::TextSelectableByMouse);
    auto* action = new QWidgetAction(menu);
    action->setDefaultWidget(list);
    menu->addAction(action);
    if (QMenu* old = m_warnings->menu()) old->deleteLater();
    m_warnings->setMenu(menu);
  }

  ElidedLabel* m_title;
  NoteLabel *m_grid, *m_captured, *m_profile, *m_stepText;
  QToolButton *m_warnings, *m_play;
  SectionLabel* m_stepCaption;
  StepSlider* m_slider;
  QWidget* m_branchRow;
  QComboBox* m_branch;
  QTimer m_playTimer;
  std::vector<int> m_steps;
  bool m_updating = false;
};

}  // namespace

const ViewInfo& trace_info() {
  static const ViewInfo info{"trace",
                             QT_TRANSLATE_NOOP("View", "Trace"),
                             DockArea::Left,
                             0,
                             "trace",
                             "views.md#trace",
                             [](Session& session, QWidget* parent) -> View* { return new TraceView(session, parent); }};
  return info;
}

}  // namespace sparsight

#include "trace.moc"

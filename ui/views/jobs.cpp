// SPDX-License-Identifier: Apache-2.0
// What the program is computing: name, stage, per cent, elapsed, time left, cancel; failures keep their reason.
#include <QClipboard>
#include <QGuiApplication>
#include <QLabel>
#include <QProgressBar>
#include <QPushButton>
#include <QScrollArea>
#include <QTimer>
#include <QVBoxLayout>
#include <map>

#include "ui/icons.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {
namespace {

bool isFinished(JobState state) {
  return state == JobState::Done || state == JobState::Failed || state == JobState::Cancelled;
}

/// One job: two lines of text, a thin bar, the one button that fits its state.
class JobRow : public QWidget {
  Q_OBJECT
 public:
  explicit JobRow(std::uint64_t id, QWidget* parent = nullptr) : QWidget(parent), m_id(id) {
    auto* row = new QHBoxLayout(this);
    row->setContentsMargins(Theme::kEdge, 6, Theme::kEdge, 6);
    row->setSpacing(Theme::kGroupGap);
    auto* column = new QVBoxLayout;
    column->setSpacing(4);
    auto* head = new QHBoxLayout;
    m_name = new ElidedLabel;
    m_percent = new QLabel;
    m_percent->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
    m_percent->setMinimumWidth(QFontMetrics(fonts::base()).horizontalAdvance(QStringLiteral("100 %")));
    head->addWidget(m_name, 1);
    head->addWidget(m_percent);
    m_bar = new QProgressBar;
    m_bar->setTextVisible(false);
    m_bar->setRange(0, 1000);
    m_detail = new NoteLabel;
    column->addLayout(head);
    column->addWidget(m_bar);
    column->addWidget(m_detail);
    row->addLayout(column, 1);
    m_button = new QPushButton;
    m_button->setMinimumWidth(108);
    row->addWidget(m_button, 0, Qt::AlignVCenter);
    connect(m_button, &QPushButton::clicked, this, [this] {
      if (m_failed)
        QGuiApplication::clipboard()->setText(m_details);
      else
        Q_EMIT cancelRequested(m_id);
    });
  }

  void present(const JobStatus& status) {
    const QString name = QString::fromStdString(status.spec.name);
    m_name->setText(name);
    m_failed = status.state == JobState::Failed;
    m_details =
        tr("%1: %2 (after %3)").arg(name, QString::fromStdString(status.error), formatDuration(status.elapsedSeconds));
    const bool running = status.state == JobState::Running || status.state == JobState::Cancelling;
    m_bar->setVisible(running);
    m_bar->setValue(static_cast<int>(status.fraction * 1000));
    m_percent->setText(running ? QStringLiteral("%1 %").arg(static_cast<int>(status.fraction * 100)) : QString());
    QStringList parts;
    const QString stage = QString::fromStdString(status.stage);
    switch (status.state) {
      case JobState::Queued:
        parts << tr("waiting");
        break;
      case JobState::Running:
        if (!stage.isEmpty()) parts << stage;
        parts << tr("%1 elapsed").arg(formatDuration(status.elapsedSeconds));
        if (status.etaSeconds >= 0) parts << tr("about %1 left").arg(formatDuration(status.etaSeconds));
        break;
      case JobState::Cancelling:
        parts << tr("cancelling\u2026");
        break;
      case JobState::Done:
        parts << tr("done in %1").arg(formatDuration(status.elapsedSeconds));
        break;
      case JobState::Cancelled:
        parts << tr("cancelled after %1").arg(formatDuration(status.elapsedSeconds));
        break;
      case JobState::Failed:
        parts << QString::fromStdString(status.error);
        break;
    }
    m_detail->setText(parts.join(QStringLiteral(" \u00B7 ")));
    m_detail->setRole(m_failed ? NoteLabel::Role::Error : NoteLabel::Role::Secondary);
    m_button->setVisible(m_failed || !isFinished(status.state));
    m_button->setEnabled(status.state != JobState::Cancelling);
    m_button->setText(m_failed ? tr("Copy details") : tr("Cancel"));
    m_button->setAccessibleName(m_failed ? tr("Copy details of %1").arg(name) : tr("Cancel %1").arg(name));
    setAccessibleName(QStringLiteral("%1, %2").arg(name, m_detail->text()));
  }

 Q_SIGNALS:
  void cancelRequested(quint64 id);

 private:
  std::uint64_t m_id;
  ElidedLabel* m_name;
  QLabel* m_percent;
  QProgressBar* m_bar;
  NoteLabel* m_detail;
  QPushButton* m_button;
  bool m_failed = false;
  QString m_details;
};

class JobsView : public View {
  Q_OBJECT
 public:
  JobsView(Session& session, QWidget* parent) : View(session, parent) {
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(0, 4, 0, 0);
    column->setSpacing(0);
    auto* header = new QHBoxLayout;
    header->setContentsMargins(Theme::kEdge, 0, Theme::kEdge, 4);
    m_summary = new NoteLabel(nullptr, false);
    m_clear = new QPushButton(tr("Clear finished"));
    m_clear->setObjectName(QStringLiteral("clearFinished"));
    m_clear->setProperty("link", true);
    header->addWidget(m_summary, 1);
    header->addWidget(m_clear);
    column->addLayout(header);
    auto* scroll = new QScrollArea;
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    auto* content = new QWidget;
    m_rowsLayout = new QVBoxLayout(content);
    m_rowsLayout->setContentsMargins(0, 0, 0, 0);
    m_rowsLayout->setSpacing(0);
    m_rowsLayout->addStretch(1);
    scroll->setWidget(content);
    column->addWidget(scroll, 1);
    m_empty = new NoteLabel;
    m_empty->setAlignment(Qt::AlignCenter);
    m_empty->setText(
        tr("Nothing is running. Method runs, profiling, generation and export appear here with their progress."));
    m_empty->setContentsMargins(24, 8, 24, 24);
    column->addWidget(m_empty, 1);
    m_scroll = scroll;
    connect(m_clear, &QPushButton::clicked, this, [this] {
      this->session().jobs().clearFinished();
      refresh();
    });
    connect(&session, &Session::jobsChanged, this, &JobsView::refresh);
    // The queue reports what jobs report; elapsed time runs on in between.
    m_clock.setInterval(500);
    connect(&m_clock, &QTimer::timeout, this, &JobsView::refresh);
    refresh();
  }

  void sessionChanged(ChangeFlags) override {}
  [[nodiscard]] QString hint() const override { return tr("Tab to Cancel \u00B7 failed jobs keep their reason"); }

 private:
  void refresh() {
    const std::vector<JobStatus> all = session().jobs().status();
    int running = 0, finished = 0;
    std::map<std::uint64_t, JobRow*> kept;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const JobStatus& status = all[i];
      isFinished(status.state) ? ++finished : ++running;
      JobRow*& row = kept[status.id];
      const auto known = m_rows.find(status.id);
      if (known != m_rows.end()) {
        row = known->second;
        m_rows.erase(known);
      } else {
        row = new JobRow(status.id);
        connect(row, &JobRow::cancelRequested, this, [this](quint64 id) {
          session().jobs().cancel(id);
          refresh();
        });
      }
      if (m_rowsLayout->indexOf(row) != static_cast<int>(i)) m_rowsLayout->insertWidget(static_cast<int>(i), row);
      row->present(status);
    }
    for (const auto& [id, row] : m_rows) row->deleteLater();
    m_rows = std::move(kept);
    m_scroll->setVisible(!all.empty());
    m_empty->setVisible(all.empty());
    m_clear->setVisible(finished > 0);
    m_summary->setText(running > 0    ? tr("%1 running or waiting").arg(running)
                       : finished > 0 ? tr("%1 finished").arg(finished)
                                      : QString());
    running > 0 ? (m_clock.isActive() ? void() : m_clock.start()) : m_clock.stop();
  }

  NoteLabel *m_summary, *m_empty;
  QPushButton* m_clear;
  QScrollArea* m_scroll;
  QVBoxLayout* m_rowsLayout;
  std::map<std::uint64_t, JobRow*> m_rows;
  QTimer m_clock;
};

}  // namespace

const ViewInfo& jobs_info() {
  static const ViewInfo info{"jobs",
                             QT_TRANSLATE_NOOP("View", "Jobs"),
                             DockArea::Bottom,
                             90,
                             "jobs",
                             "views.md#jobs",
                             [](Session& session, QWidget* parent) -> View* { return new JobsView(session, parent); }};
  return info;
}

}  // namespace sparsight

#include "jobs.moc"

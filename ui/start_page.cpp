// SPDX-License-Identifier: Apache-2.0
#include "ui/start_page.h"

#include <QDateTime>
#include <QDir>
#include <QEvent>
#include <QFileInfo>
#include <QGridLayout>
#include <QLabel>
#include <QLocale>
#include <QPainter>
#include <QProgressBar>
#include <QPushButton>
#include <QVBoxLayout>

#include "ui/icons.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/settings.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

QString whatIs(const QString& path) {
  const QString suffix = QFileInfo(path).suffix().toLower();
  if (suffix == QStringLiteral("csv") || suffix == QStringLiteral("json")) return QObject::tr("profile");
  return QObject::tr("trace");
}

QString when(const QDateTime& time) {
  const qint64 days = time.date().daysTo(QDate::currentDate());
  if (days == 0) return QObject::tr("today %1").arg(time.toString(QStringLiteral("HH:mm")));
  if (days == 1) return QObject::tr("yesterday");
  return time.toString(QStringLiteral("yyyy-MM-dd"));
}

/// One recent file: name, folder, kind, size and date, as one wide button.
class RecentRow : public QPushButton {
 public:
  RecentRow(const QString& path, QWidget* parent) : QPushButton(parent), m_path(path) {
    setFlat(true);
    setProperty("flat", true);
    setProperty("row", true);
    const QFileInfo info(path);
    m_exists = info.exists();
    m_details = m_exists ? QStringLiteral("%1 \u00B7 %2 \u00B7 %3")
                               .arg(whatIs(path), formatBytes(info.size()), when(info.lastModified()))
                         : QObject::tr("missing");
    setEnabled(m_exists);
    setAccessibleName(QStringLiteral("%1, %2").arg(info.fileName(), m_details));
    setToolTip(path);
    setCursor(Qt::PointingHandCursor);
  }

 protected:
  void paintEvent(QPaintEvent* event) override {
    QPushButton::paintEvent(event);
    QPainter painter(this);
    const Theme& theme = Theme::current();
    const QFileInfo info(m_path);
    const QRect inner = rect().adjusted(Theme::kPad, 4, -Theme::kPad, -4);
    painter.drawPixmap(
        inner.left(), inner.center().y() - 8,
        tintedPixmap(whatIs(m_path) == QObject::tr("profile") ? QStringLiteral("csv") : QStringLiteral("trace"), 16,
                     m_exists ? theme.accent : theme.disabled, devicePixelRatioF()));
    const QFont details = fonts::secondary();
    const int detailsWidth = QFontMetrics(details).horizontalAdvance(m_details) + 4;
    const QRect text = inner.adjusted(28, 0, -detailsWidth - 12, 0);
    painter.setFont(fonts::base());
    painter.setPen(m_exists ? theme.text : theme.disabled);
    painter.drawText(QRect(text.left(), text.top(), text.width(), text.height() / 2), Qt::AlignLeft | Qt::AlignVCenter,
                     painter.fontMetrics().elidedText(info.fileName(), Qt::ElideMiddle, text.width()));
    painter.setFont(fonts::secondary());
    painter.setPen(m_exists ? theme.secondary : theme.disabled);
    QString folder = info.absolutePath();
    if (folder.startsWith(QDir::homePath())) folder.replace(0, QDir::homePath().size(), QStringLiteral("~"));
    painter.drawText(QRect(text.left(), text.center().y() + 1, text.width(), text.height() / 2),
                     Qt::AlignLeft | Qt::AlignVCenter,
                     painter.fontMetrics().elidedText(folder, Qt::ElideMiddle, text.width()));
    painter.setFont(details);
    painter.drawText(inner, Qt::AlignRight | Qt::AlignVCenter, m_details);
  }

 private:
  QString m_path, m_details;
  bool m_exists = false;
};

}  // namespace

StartPage::StartPage(Session& session, QWidget* parent) : QWidget(parent), m_session(session) {
  setObjectName(QStringLiteral("startPage"));
  setFocusPolicy(Qt::StrongFocus);
  auto* outer = new QGridLayout(this);
  outer->setRowStretch(0, 2);
  outer->setRowStretch(2, 3);
  outer->setColumnStretch(0, 1);
  outer->setColumnStretch(2, 1);
  m_card = new QWidget;
  m_card->setFixedWidth(640);
  outer->addWidget(m_card, 1, 1);
  auto* column = new QVBoxLayout(m_card);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(Theme::kPad);

  m_title = new QLabel(QStringLiteral("Sparsight"));
  auto* subtitle = new NoteLabel;
  subtitle->setText(
      tr("See what the heads of a video diffusion transformer attend to, run sparse methods on them, tune their "
         "budgets."));
  column->addWidget(m_title);
  column->addWidget(subtitle);
  column->addSpacing(Theme::kEdge);

  auto* buttons = new QHBoxLayout;
  buttons->setSpacing(Theme::kPad);
  m_demo = new QPushButton(tr("Open the demo"));
  m_demo->setObjectName(QStringLiteral("startDemo"));
  m_demo->setProperty("primary", true);
  m_demo->setToolTip(
      tr("A synthetic trace of 3 504 tokens whose heads have a known type; made on first use in a few seconds"));
  m_open = new QPushButton(tr("Open\u2026"));
  m_open->setObjectName(QStringLiteral("startOpen"));
  m_open->setToolTip(tr("A captured trace (.h5) or a budget profile (.csv, .json) (Ctrl+O)"));
  m_synth = new QPushButton(tr("Generate synthetic trace\u2026"));
  m_synth->setObjectName(QStringLiteral("startSynth"));
  for (QPushButton* button : {m_demo, m_open, m_synth}) {
    button->setProperty("tall", true);
    buttons->addWidget(button);
  }
  buttons->addStretch(1);
  column->addLayout(buttons);

  m_progressBox = new QWidget;
  auto* progress = new QVBoxLayout(m_progressBox);
  progress->setContentsMargins(0, Theme::kPad, 0, 0);
  progress->setSpacing(4);
  auto* progressRow = new QHBoxLayout;
  m_progressText = new NoteLabel(nullptr, false);
  m_cancel = new QPushButton(tr("Cancel"));
  m_cancel->setObjectName(QStringLiteral("startCancel"));
  progressRow->addWidget(m_progressText, 1);
  progressRow->addWidget(m_cancel);
  m_bar = new QProgressBar;
  m_bar->setTextVisible(false);
  m_bar->setRange(0, 1000);
  progress->addLayout(progressRow);
  progress->addWidget(m_bar);
  column->addWidget(m_progressBox);
  m_progressBox->hide();

  column->addSpacing(Theme::kEdge);
  m_recentBox = new QWidget;
  auto* recentColumn = new QVBoxLayout(m_recentBox);
  recentColumn->setContentsMargins(0, 0, 0, 0);
  recentColumn->setSpacing(4);
  recentColumn->addWidget(new SectionLabel(tr("Recent files")));
  m_recent = new QVBoxLayout;
  m_recent->setSpacing(2);
  recentColumn->addLayout(m_recent);
  column->addWidget(m_recentBox);
  column->addSpacing(Theme::kPad);
  m_drop = new QLabel(tr("or drop a trace (.h5), a profile (.csv, .json), or tensors of other programs here"));
  m_drop->setAlignment(Qt::AlignCenter);
  m_drop->setMinimumHeight(88);
  m_drop->setProperty("role", QStringLiteral("secondary"));
  column->addWidget(m_drop);

  connect(m_demo, &QPushButton::clicked, this, &StartPage::demoRequested);
  connect(m_open, &QPushButton::clicked, this, &StartPage::openRequested);
  connect(m_synth, &QPushButton::clicked, this, &StartPage::synthRequested);
  connect(m_cancel, &QPushButton::clicked, this, [this] { m_session.cancelOpening(); });
  connect(&session, &Session::opening, this, &StartPage::refreshProgress);
  connect(&session, &Session::jobsChanged, this, &StartPage::refreshProgress);
  setFocusProxy(m_demo);
  fonts::give(m_title, FontRole::Headline);
  refreshRecent();
}

void StartPage::refreshRecent() {
  while (QLayoutItem* item = m_recent->takeAt(0)) {
    if (QWidget* widget = item->widget()) widget->deleteLater();
    delete item;
  }
  const QStringList files = recentFiles();
  for (const QString& path : files.mid(0, 6)) {
    auto* row = new RecentRow(path, this);
    row->setObjectName(QStringLiteral("recentFile"));
    connect(row, &QPushButton::clicked, this, [this, path] { Q_EMIT fileRequested(path); });
    m_recent->addWidget(row);
  }
  m_recentBox->setVisible(!files.isEmpty());
}

void StartPage::setDropHighlighted(bool on) {
  m_highlight = on;
  update();
}

void StartPage::refreshProgress() {
  const bool opening = m_session.isOpening();
  m_progressBox->setVisible(opening);
  for (QPushButton* button : {m_demo, m_open, m_synth}) button->setEnabled(!opening);
  if (!opening) return;
  double fraction = 0;
  QString text = tr("Opening\u2026");
  for (const JobStatus& status : m_session.jobs().status())
    if (status.state == JobState::Running && status.spec.supersedeTag == "open") {
      fraction = status.fraction;
      text = QString::fromStdString(status.spec.name);
      if (!status.stage.empty()) text += QStringLiteral(": %1").arg(QString::fromStdString(status.stage));
      if (fraction > 0) text += QStringLiteral(", %1 %").arg(static_cast<int>(fraction * 100));
    }
  m_progressText->setText(text);
  m_bar->setValue(static_cast<int>(fraction * 1000));
}

void StartPage::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const Theme& theme = Theme::current();
  painter.fillRect(rect(), theme.window);
  painter.setRenderHint(QPainter::Antialiasing);
  const QRect zone = QRect(m_drop->mapTo(this, QPoint(0, 0)), m_drop->size());
  QPen pen(m_highlight ? theme.accent : theme.disabled, m_highlight ? 2 : 1, Qt::DashLine);
  painter.setPen(pen);
  painter.setBrush(m_highlight ? theme.raised : QColor(Qt::transparent));
  painter.drawRoundedRect(QRectF(zone).adjusted(1, 1, -1, -1), Theme::kRadius, Theme::kRadius);
}

}  // namespace sparsight

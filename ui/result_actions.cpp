// SPDX-License-Identifier: Apache-2.0
#include "ui/result_actions.h"

#include <QFileDialog>
#include <QFileInfo>
#include <QStatusBar>

#include "ui/banner.h"
#include "ui/dialogs/file_dialogs.h"
#include "ui/icons.h"
#include "ui/main_window.h"
#include "ui/session.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kMessageMs = 8000;

QString titleOf(const QString& id) {
  const std::string wanted = id.toStdString();
  for (const Method* method : allMethods())
    if (method->id() == wanted) return QString::fromStdString(std::string(method->title()));
  return id;
}

}  // namespace

ResultActions::ResultActions(Session& session, MainWindow& window)
    : QObject(&window), m_session(session), m_window(window) {
  const auto make = [this](const char* name, const QString& label, const QString& tip) {
    auto* action = new QAction(label, this);
    action->setObjectName(QLatin1String(name));
    action->setToolTip(tip);
    return action;
  };
  saveResults = make("results.save", tr("Save results\u2026"),
                     tr("The numbers of the method on show, for every head it ran on; as sparsight-cli run --results"));
  savePlan = make("results.savePlan", tr("Save plan\u2026"),
                  tr("Orders, masks and exact intervals of the method on show; as sparsight-cli run --plan"));
  saveResults->setIcon(themedIcon(QStringLiteral("save")));
  connect(saveResults, &QAction::triggered, this, [this] { ask(false); });
  connect(savePlan, &QAction::triggered, this, [this] { ask(true); });
  connect(&session, &Session::changed, this, [this](ChangeFlags changes) {
    if (changes & (ChangeFlags(Change::Runs) | Change::Trace)) refresh();
  });
  connect(&session, &Session::traceWanted, this, [this](const QString& path, const QString& trace, const QString& why) {
    BannerStack::Buttons buttons;
    if (!trace.isEmpty()) {
      buttons.emplace_back(tr("Open %1").arg(QFileInfo(trace).fileName()), [this, path, trace] {
        m_window.openFiles({trace, path});
      });
    }
    m_window.banners().post(BannerStack::Kind::Warning, tr("%1 is not shown").arg(QFileInfo(path).fileName()), why,
                            std::move(buttons));
  });
  connect(&session, &Session::resultsOpened, this,
          [this](const QString& path, const QStringList& methods, int heads, bool complete) {
            QStringList titles;
            for (const QString& method : methods) titles << titleOf(method);
            const QString name = QFileInfo(path).fileName();
            if (heads == 0) {
              m_window.banners().post(BannerStack::Kind::Info, tr("%1 holds no heads").arg(name),
                                      tr("The run it was written by did not finish any."));
              return;
            }
            QString message = (heads == 1 ? tr("%1: 1 head of %2") : tr("%1: %3 heads of %2"))
                                  .arg(name, titles.join(QStringLiteral(", ")));
            if (heads != 1) message = message.arg(formatCount(heads));
            if (!complete) message += tr(" (of an interrupted run)");
            m_window.statusBar()->showMessage(message, kMessageMs);
          });
  connect(&session, &Session::saved, this, [this](const QString& path, int heads, int leftOut) {
    const QString name = QFileInfo(path).fileName();
    const QString message =
        heads == 1 ? tr("1 head saved to %1").arg(name) : tr("%1 heads saved to %2").arg(formatCount(heads), name);
    if (leftOut == 0) {
      m_window.statusBar()->showMessage(message, kMessageMs);
      return;
    }
    m_window.banners().post(BannerStack::Kind::Info, message,
                            tr("%1 more are not in it: they were run with other settings, or their plan was dropped to "
                               "save memory. A file holds one run.")
                                .arg(formatCount(leftOut)));
  });
  refresh();
}

void ResultActions::refresh() {
  const QString& method = m_session.overlayMethod();
  const bool any = m_session.trace() != nullptr && !method.isEmpty() && m_session.runs().methods().contains(method);
  saveResults->setEnabled(any);
  savePlan->setEnabled(any);
}

void ResultActions::ask(bool plans) {
  const QString method = m_session.overlayMethod();
  if (!m_session.trace() || method.isEmpty()) return;
  const QFileInfo trace(QString::fromStdString(m_session.trace()->info().path.string()));
  const QString name =
      QStringLiteral("/%1-%2-%3.h5")
          .arg(trace.completeBaseName(), method, plans ? QStringLiteral("plan") : QStringLiteral("results"));
  const QString title = (plans ? tr("Save the plan of %1") : tr("Save the results of %1")).arg(titleOf(method));
  QFileDialog* dialog = askWhereToSave(&m_window, title, trace.absolutePath() + name, tr("HDF5 files (*.h5)"), true,
                                       [this, method, plans](const QString& path) {
                                         const bool named = !QFileInfo(path).suffix().isEmpty();
                                         m_session.saveRuns(method, named ? path : path + QStringLiteral(".h5"), plans);
                                       });
  dialog->setObjectName(QStringLiteral("saveResultsDialog"));
}

}  // namespace sparsight

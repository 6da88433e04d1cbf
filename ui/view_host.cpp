// SPDX-License-Identifier: Apache-2.0
#include "ui/view_host.h"

#include <QCoreApplication>
#include <QElapsedTimer>
#include <QEventLoop>
#include <QLabel>
#include <QSet>
#include <QTimer>
#include <QVBoxLayout>
#include <algorithm>

#include "ui/session.h"
#include "ui/theme.h"

namespace sparsight {

ViewHost::ViewHost(Session& session, const ViewInfo& info, const QSize& size) : m_session(session) {
  setProperty("role", QStringLiteral("panel"));
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  m_titleBar = new QWidget;
  auto* row = new QVBoxLayout(m_titleBar);
  row->setContentsMargins(Theme::kEdge, Theme::kGroupGap, Theme::kEdge, Theme::kPad);
  m_title = new QLabel;
  fonts::give(m_title, FontRole::Title);
  m_title->setTextFormat(Qt::PlainText);
  row->addWidget(m_title);
  column->addWidget(m_titleBar);
  m_titleBar->hide();
  m_view = info.create(session, this);
  column->addWidget(m_view, 1);
  resize(size);
  connect(&session, &Session::changed, this, [this](ChangeFlags changes) { m_view->sessionChanged(changes); });
}

void ViewHost::setTitle(const QString& title) {
  m_title->setText(title);
  m_titleBar->setVisible(!title.isEmpty());
}

bool waitFor(const std::function<bool()>& done, int timeoutMs) {
  QElapsedTimer clock;
  clock.start();
  QEventLoop loop;
  QTimer tick;  // wakes the loop: a job may end without an event
  tick.start(10);
  while (!done()) {
    if (clock.elapsed() > timeoutMs) return false;
    loop.processEvents(QEventLoop::AllEvents | QEventLoop::WaitForMoreEvents);
  }
  return true;
}

bool waitUntilSettled(const std::vector<View*>& views, Session& session, int timeoutMs) {
  constexpr int kQuietRounds = 8;  // a timer of the view may start the next job just after one ended
  int quiet = 0;
  return waitFor(
      [&] {
        const bool settled =
            std::all_of(views.begin(), views.end(), [](const View* v) { return !v->isVisible() || v->isSettled(); });
        quiet = settled && session.jobs().idle() ? quiet + 1 : 0;
        return quiet >= kQuietRounds;
      },
      timeoutMs);
}

int countColors(const QImage& image, int limit) {
  const QImage pixels = image.convertToFormat(QImage::Format_RGB32);
  QSet<QRgb> seen;
  for (int y = 0; y < pixels.height(); ++y) {
    const auto* line = reinterpret_cast<const QRgb*>(pixels.constScanLine(y));
    for (int x = 0; x < pixels.width(); ++x) {
      seen.insert(line[x]);
      if (seen.size() >= limit) return limit;
    }
  }
  return static_cast<int>(seen.size());
}

}  // namespace sparsight

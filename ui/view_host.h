// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QImage>
#include <QObject>
#include <QString>
#include <functional>
#include <memory>
#include <vector>

#include "ui/view.h"

class QVBoxLayout;

class QLabel;

namespace sparsight {

/// One view without a main window, for pictures and the self-test: forwards the session's changes to it, adds a title
/// line.
class ViewHost : public QWidget {
  Q_OBJECT
 public:
  ViewHost(Session& session, const ViewInfo& info, const QSize& size);
  [[nodiscard]] View& view() noexcept { return *m_view; }
  /// Empty: no title line.
  void setTitle(const QString& title);

 private:
  Session& m_session;
  QWidget* m_titleBar;
  QLabel* m_title;
  View* m_view;
};

/// Runs the event loop until `done` holds or the time is over; returns whether it holds.
[[nodiscard]] bool waitFor(const std::function<bool()>& done, int timeoutMs);
/// Waits until every visible one of `views` says it is settled and no job is left, several times in a row.
[[nodiscard]] bool waitUntilSettled(const std::vector<View*>& views, Session& session, int timeoutMs);
/// Number of different colours in a picture, counted up to `limit`: a view that painted nothing has one or two.
[[nodiscard]] int countColors(const QImage& image, int limit = 4096);

}  // namespace sparsight

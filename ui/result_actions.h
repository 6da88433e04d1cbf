// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QAction>
#include <QObject>

namespace sparsight {

class MainWindow;
class Session;

/// Results of method runs as files: saving what the window has run, and what it says when a file was opened or does
/// not belong to the open trace.
class ResultActions : public QObject {
  Q_OBJECT
 public:
  /// Both must outlive this object.
  ResultActions(Session& session, MainWindow& window);

  QAction* saveResults = nullptr;  ///< "Save results...": the numbers of the method on show
  QAction* savePlan = nullptr;     ///< "Save plan...": with orders, masks and intervals

 private:
  void refresh();
  void ask(bool plans);
  Session& m_session;
  MainWindow& m_window;
};

}  // namespace sparsight

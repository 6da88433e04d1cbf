// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QObject>
#include <QString>
#include <QStringList>
#include <functional>

class QAction;
class QWidget;

namespace sparsight {

class Session;

/// What the File and Edit menus do with profiles, as named QActions (objectName = "profile.save" and so on) so that
/// menus, the command palette and tests share one list. Files are read and written on the Io lane; errors arrive by
/// Session::errorOccurred, questions are asked over `window`.
class ProfileActions : public QObject {
  Q_OBJECT
 public:
  /// Both must outlive this object; `window` may be nullptr (no questions can then be asked on top of it).
  explicit ProfileActions(Session& session, QWidget* window, QObject* parent = nullptr);
  ~ProfileActions() override;

  QAction* newProfile = nullptr;     ///< "New profile from this trace..."; needs a trace
  QAction* open = nullptr;           ///< "Open profile..."
  QAction* importProfile = nullptr;  ///< "Import profile...": asks which convention the file uses, shows both readings
  QAction* save = nullptr;           ///< Ctrl+S
  QAction* saveAs = nullptr;         ///< Ctrl+Shift+S
  QAction* exportProfile = nullptr;  ///< Ctrl+E
  QAction* profileTrace = nullptr;   ///< "Profile this trace (SVOO)": offline profiling as a visible job
  QAction* closeProfile = nullptr;
  QAction* undo = nullptr;  ///< Ctrl+Z, "Undo Set kept of L12-L18 to 24 %"
  QAction* redo = nullptr;  ///< Ctrl+Shift+Z, Ctrl+Y

  /// Asks Save / Discard / Cancel when there are unsaved edits; calls `proceed` when it may go on (after the save, if
  /// any).
  void confirmDiscard(std::function<void()> proceed);

 private:
  void refresh();
  Session& m_session;
  QWidget* m_window;
};

/// The same as plain functions, for buttons in views. All return at once.
namespace profile_actions {
void createFromTrace(Session& session, QWidget* window);
void openDialog(Session& session, QWidget* window);
/// Reads a CSV or JSON profile and opens it. A CSV whose numbers look like skipped fractions (mean above 0.5) goes
/// through the import dialog first.
void openFile(Session& session, QWidget* window, const QString& path);
/// The import dialog on a file, or on one that is asked for when `path` is empty.
void importFile(Session& session, QWidget* window, const QString& path = {});
/// done(true) after the file was written.
void save(Session& session, QWidget* window, std::function<void(bool)> done = {});
void saveAs(Session& session, QWidget* window, std::function<void(bool)> done = {});
void exportDialog(Session& session, QWidget* window);
/// Offline profiling of the open trace; the result becomes the open profile, unsaved.
void profileTrace(Session& session, QWidget* window);
/// Calls `proceed` now or after Save / Discard.
void confirmDiscard(Session& session, QWidget* window, std::function<void()> proceed);
}  // namespace profile_actions

}  // namespace sparsight

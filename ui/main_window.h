// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QJsonObject>
#include <QMainWindow>
#include <QPointer>
#include <QStringList>
#include <QTimer>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "sparsight/core/profile.h"
#include "ui/settings.h"
#include "ui/view.h"

class QActionGroup;
class QDockWidget;
class QLabel;
class QMenu;
class QPushButton;
class QStackedWidget;
class QTabBar;
class QToolButton;

namespace sparsight {

class BannerStack;
class DockTitle;
class ElidedLabel;
class HelpPanel;
class LayoutPause;
class ProfileActions;
class ResultActions;
class Session;
class StartPage;

/// The workbench: views from the view table as docks around the centre, layout presets, menus, status bar, banners,
/// start page. One per program.
class MainWindow : public QMainWindow {
  Q_OBJECT
 public:
  MainWindow(Session& session, const Settings& settings, QWidget* parent = nullptr);
  ~MainWindow() override;

  [[nodiscard]] View* view(const QString& id) const;
  [[nodiscard]] BannerStack& banners() noexcept { return *m_banners; }
  [[nodiscard]] HelpPanel& help() noexcept { return *m_help; }
  /// Every named action: menus, palette, shortcut sheet and tests share this list.
  [[nodiscard]] QList<QAction*> allActions() const;
  [[nodiscard]] QAction* actionByName(const QString& name) const;
  [[nodiscard]] const Settings& settings() const noexcept { return m_settings; }

  /// "diagnose", "tune", "compare" or "teach"; what was changed in a layout is remembered for it.
  void setLayoutPreset(const QString& name);
  [[nodiscard]] QString layoutPreset() const { return m_preset; }
  void resetLayout();
  /// Opens (unhides, raises) a view and gives it the focus.
  void showView(const QString& id);
  void openFiles(const QStringList& paths);
  void setTheme(Settings::ThemeChoice choice);
  /// What the status bar's timer does a few times a second.
  void refreshStatus() { updateStatus(); }

  /// Files, selection, layout and view states, as JSON.
  [[nodiscard]] QJsonObject saveSession() const;
  void restoreSession(const QJsonObject& session);
  /// Reads a session file by a job and restores it. `selection` (as setPendingSelection), where not empty, wins over
  /// the file's. A file that is not there is no session; one that cannot be read is told in a banner.
  void restoreSessionFile(const QString& path, const QJsonObject& selection = {});
  [[nodiscard]] static QString defaultSessionFile();
  /// Where this window writes its session on exit; empty: nowhere.
  void setSessionFile(const QString& path) { m_sessionFile = path; }
  /// Looks for edits that a crash left behind and offers them.
  void offerRecovery();
  /// Whether all views have what changed last; false for some turns of the event loop after a change.
  [[nodiscard]] bool viewsAreTold() const noexcept {
    return m_untold.empty() && m_oldParts.empty() && !m_tellTimer.isActive();
  }
  /// Applied once the next trace is open.
  void setPendingSelection(const QJsonObject& selection) { m_pendingSelection = selection; }

 protected:
  void closeEvent(QCloseEvent* event) override;
  void dragEnterEvent(QDragEnterEvent* event) override;
  void dragLeaveEvent(QDragLeaveEvent* event) override;
  void dropEvent(QDropEvent* event) override;
  void changeEvent(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  void buildCentre();
  void buildDocks();
  void buildActions();
  void buildMenus();
  void buildTopBar();
  void buildStatusBar();
  QAction* add(QMenu* menu, const QString& name, const QString& group, const QString& text,
               const QKeySequence& key = {}, const QString& icon = {});
  void arrange(const QString& preset);
  void storeLayout();
  void sessionChanged(ChangeFlags changes);
  /// Hands on what changed, view after view, what is looked at first; for some milliseconds, then in the next turn of
  /// the event loop, so that input and painting come between.
  void tellViews();
  [[nodiscard]] View* nextToTell() const;
  void makeReady(View& view);
  void updateEmptyState();
  /// As setLayoutPreset, in several turns of the event loop.
  void switchLayout(const QString& name);
  /// The docks of the layout, its stored state, what is between them in place of the start page, the window around
  /// them, what is in them, then painting: one of these at a time, each a turn of the event loop. False: it is done.
  bool layOutStep();
  void endLayOut();
  void paintAgain();
  void choose(QAction& layout);
  void arrangeDocks();
  void restoreDocks();
  void showCentre();
  void showLayoutTabs(bool on);
  void updateTitle();
  void updateDockTitles();
  void updateStatus();
  void updateRecentMenu();
  void focusMoved(QWidget* now);
  void showHelp(const QString& page);
  void showPalette();
  void chooseFile();
  /// Asks for a file or a folder, then importTensors.
  void chooseImport(bool folder);
  /// The import dialog for a file or folder of tensors, or for several files of one folder.
  void importTensors(const QStringList& paths);
  void generate();
  void openDemo();
  void editSettings();
  void applySettings(const Settings& settings);
  /// Another theme or size: in turns of the event loop, and not seen before all of the window has it.
  void restyle(bool dark);
  void offerRecovered(const EditJournal::Recovered& found);
  void quit();
  [[nodiscard]] int runningJobs() const;
  [[nodiscard]] bool nothingOpen() const;
  [[nodiscard]] View* focusedView() const;

  Session& m_session;
  Settings m_settings;
  std::map<QString, View*> m_views;
  std::map<QString, QDockWidget*> m_docks;
  std::map<QDockWidget*, DockTitle*> m_titles;
  BannerStack* m_banners = nullptr;
  QStackedWidget *m_pages = nullptr, *m_centre = nullptr;
  QTabBar* m_centreTabs = nullptr;
  std::vector<QPushButton*> m_layoutTabs;
  std::unique_ptr<LayoutPause> m_opening;     ///< while layOutStep is not done
  std::unique_ptr<LayoutPause> m_contents;    ///< while the docks around them are laid out
  std::unique_ptr<LayoutPause> m_restyling;   ///< while not all of the window has the theme and size
  std::vector<QPointer<QWidget>> m_oldParts;  ///< that have not got it yet
  enum class LayOut : std::uint8_t { Restore, Centre, Window, Contents, Paint };
  LayOut m_layOut = LayOut::Restore;  ///< what layOutStep does next
  StartPage* m_start = nullptr;
  HelpPanel* m_help = nullptr;
  std::unique_ptr<ProfileActions> m_profileActions;
  ResultActions* m_resultActions = nullptr;
  QMenu *m_recentMenu = nullptr, *m_viewMenu = nullptr;
  QMenuBar* m_menuBar = nullptr;
  QActionGroup* m_presetGroup = nullptr;
  ElidedLabel* m_fileLabel = nullptr;
  QLabel *m_backendLabel = nullptr, *m_partsLabel = nullptr, *m_unsavedLabel = nullptr, *m_hintLabel = nullptr;
  QString m_preset = QStringLiteral("diagnose"), m_sessionFile;
  std::map<QString, QByteArray> m_layouts;  ///< by preset, as the user left them
  View* m_lastView = nullptr;
  QTimer m_statusTimer, m_tellTimer;
  std::map<View*, ChangeFlags> m_untold;
  std::vector<View*> m_unready;  ///< told behind the start page
  ChangeFlags m_telling;
  bool m_empty = true, m_closing = false, m_quitWhenIdle = false, m_arranging = false, m_arranged = false;
  QJsonObject m_pendingSelection, m_pendingViews;
};

}  // namespace sparsight

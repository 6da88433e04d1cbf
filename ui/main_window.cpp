// SPDX-License-Identifier: Apache-2.0
#include "ui/main_window.h"

#include <QAction>
#include <QActionGroup>
#include <QApplication>
#include <QCloseEvent>
#include <QDir>
#include <QDockWidget>
#include <QDragEnterEvent>
#include <QElapsedTimer>
#include <QFileDialog>
#include <QFileInfo>
#include <QGridLayout>
#include <QJsonArray>
#include <QJsonDocument>
#include <QLabel>
#include <QLineEdit>
#include <QMenu>
#include <QMenuBar>
#include <QMessageBox>
#include <QMimeData>
#include <QPushButton>
#include <QSettings>
#include <QSpinBox>
#include <QStackedWidget>
#include <QStatusBar>
#include <QTabBar>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <filesystem>
#include <functional>

#include "sparsight/core/files.h"
#include "ui/banner.h"
#include "ui/command_palette.h"
#include "ui/dialogs/about_dialog.h"
#include "ui/dialogs/goto_dialog.h"
#include "ui/dialogs/open_in_turns.h"
#include "ui/dialogs/settings_dialog.h"
#include "ui/dialogs/synth_dialog.h"
#include "ui/dialogs/trace_import_dialog.h"
#include "ui/dock_title.h"
#include "ui/help_panel.h"
#include "ui/help_shortcuts.h"
#include "ui/icons.h"
#include "ui/layout_pause.h"
#include "ui/profile_actions.h"
#include "ui/result_actions.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/start_page.h"
#include "ui/style.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kLayoutVersion = 3;
constexpr int kStatusIntervalMs = 300;
constexpr int kLeftWidth = 252, kRightWidth = 272;

QString qs(const std::string& s) { return QString::fromStdString(s); }

QString layoutKey(const QString& preset) { return QStringLiteral("layout/%1").arg(preset); }

Qt::DockWidgetArea areaOf(DockArea area) {
  switch (area) {
    case DockArea::Left:
      return Qt::LeftDockWidgetArea;
    case DockArea::Right:
      return Qt::RightDockWidgetArea;
    case DockArea::Bottom:
      return Qt::BottomDockWidgetArea;
    case DockArea::Centre:
      break;
  }
  return Qt::BottomDockWidgetArea;
}

std::vector<const ViewInfo*> viewsIn(DockArea area) {
  std::vector<const ViewInfo*> list;
  for (const ViewInfo* info : allViews())
    if (info->area == area) list.push_back(info);
  std::stable_sort(list.begin(), list.end(), [](const ViewInfo* a, const ViewInfo* b) { return a->order < b->order; });
  return list;
}

QString viewTitle(const ViewInfo& info) { return QCoreApplication::translate("View", info.title); }

}  // namespace

MainWindow::MainWindow(Session& session, const Settings& settings, QWidget* parent)
    : QMainWindow(parent), m_session(session), m_settings(settings) {
  m_settings.publish();
  setObjectName(QStringLiteral("mainWindow"));
  setAcceptDrops(true);
  setDockNestingEnabled(true);
  setTabPosition(Qt::AllDockWidgetAreas, QTabWidget::North);
  setCorner(Qt::BottomLeftCorner, Qt::LeftDockWidgetArea);
  setCorner(Qt::BottomRightCorner, Qt::RightDockWidgetArea);
  setCorner(Qt::TopLeftCorner, Qt::LeftDockWidgetArea);
  setCorner(Qt::TopRightCorner, Qt::RightDockWidgetArea);
  setDocumentMode(true);
  m_profileActions = std::make_unique<ProfileActions>(session, this);
  m_session.openProfile = [this](const QString& path) { profile_actions::openFile(m_session, this, path); };

  buildCentre();
  buildDocks();
  buildActions();
  buildTopBar();
  buildStatusBar();
  resize(1600, 1000);
  QSettings store;
  m_preset = store.value(QStringLiteral("layout/preset"), m_preset).toString();
  for (const QAction* action : m_presetGroup->actions()) {
    const QString name = action->data().toString();
    if (const QByteArray state = store.value(layoutKey(name)).toByteArray(); !state.isEmpty()) m_layouts[name] = state;
  }
  if (const QByteArray geometry = store.value(QStringLiteral("window/geometry")).toByteArray(); !geometry.isEmpty())
    restoreGeometry(geometry);
  setLayoutPreset(m_preset);

  connect(&m_session, &Session::changed, this, &MainWindow::sessionChanged);
  connect(&m_session, &Session::importWanted, this, [this](const QString& path) { importTensors({path}); });
  connect(&m_session, &Session::errorOccurred, this, [this](const QString& title, const QString& message) {
    m_banners->post(BannerStack::Kind::Error, title, message);
  });
  connect(&m_session, &Session::fileOpened, this, [this](const QString& path) {
    // Settings are a file too, and writing one takes tens of milliseconds.
    JobSpec spec;
    spec.name = "Remember the file";
    spec.lane = Lane::Io;
    m_session.jobs()
        .submit<bool>(
            std::move(spec),
            [path](JobContext&) {
              addRecentFile(path);
              return true;
            },
            [guard = QPointer<MainWindow>(this)](const Outcome<bool>&) {
              if (guard == nullptr) return;
              guard->updateRecentMenu();
              if (guard->m_empty) guard->m_start->refreshRecent();
            })
        .release();
  });
  connect(&m_session, &Session::opening, this, [this](const QString& path) {
    if (m_session.isOpening() && !nothingOpen())
      statusBar()->showMessage(path.isEmpty() ? tr("Opening the demo\u2026")
                                              : tr("Opening %1\u2026").arg(QFileInfo(path).fileName()));
    else
      statusBar()->clearMessage();
  });
  connect(&m_session, &Session::jobsChanged, this, [this] {
    updateStatus();
    if (m_quitWhenIdle && runningJobs() == 0) {
      m_quitWhenIdle = false;
      close();
    }
  });
  connect(&m_session.profile(), &ProfileDocument::modifiedChanged, this, &MainWindow::updateTitle);
  connect(&m_session.profile(), &ProfileDocument::journalFailed, this, [this](const QString& reason) {
    m_banners->post(BannerStack::Kind::Warning, tr("Unsaved edits would not survive a crash"), reason);
  });
  connect(qApp, &QApplication::focusChanged, this, [this](QWidget*, QWidget* now) { focusMoved(now); });
  m_tellTimer.setSingleShot(true);
  connect(&m_tellTimer, &QTimer::timeout, this, &MainWindow::tellViews);
  m_statusTimer.setInterval(kStatusIntervalMs);
  connect(&m_statusTimer, &QTimer::timeout, this, &MainWindow::updateStatus);
  m_statusTimer.start();
  m_empty = !nothingOpen();
  updateEmptyState();
  updateTitle();
  updateStatus();
  focusMoved(nullptr);
}

MainWindow::~MainWindow() {
  m_session.openProfile = nullptr;
  // Children die after this: a dialog that hides then moves the focus, and what reacts to it is gone already.
  disconnect(qApp, nullptr, this, nullptr);
  disconnect(&m_session, nullptr, this, nullptr);
  disconnect(&m_session.profile(), nullptr, this, nullptr);
}

// --- building -----------------------------------------------------------------------------------------------------

void MainWindow::buildCentre() {
  auto* centre = new QWidget;
  centre->setProperty("role", QStringLiteral("window"));
  auto* column = new QVBoxLayout(centre);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  m_banners = new BannerStack;
  column->addWidget(m_banners);
  m_pages = new QStackedWidget;
  column->addWidget(m_pages, 1);
  m_start = new StartPage(m_session);
  connect(m_start, &StartPage::openRequested, this, &MainWindow::chooseFile);
  connect(m_start, &StartPage::demoRequested, this, &MainWindow::openDemo);
  connect(m_start, &StartPage::synthRequested, this, &MainWindow::generate);
  connect(m_start, &StartPage::fileRequested, this, [this](const QString& path) { openFiles({path}); });
  m_pages->addWidget(m_start);
  Theme::makePart(m_start);

  auto* work = new QWidget;
  auto* workColumn = new QVBoxLayout(work);
  workColumn->setContentsMargins(0, 0, 0, 0);
  workColumn->setSpacing(0);
  m_centreTabs = new QTabBar;
  m_centreTabs->setObjectName(QStringLiteral("centreTabs"));
  m_centreTabs->setDrawBase(false);
  m_centreTabs->setExpanding(false);
  m_centreTabs->setFocusPolicy(Qt::TabFocus);
  m_centre = new QStackedWidget;
  workColumn->addWidget(m_centreTabs);
  workColumn->addWidget(m_centre, 1);
  for (const ViewInfo* info : viewsIn(DockArea::Centre)) {
    View* created = info->create(m_session, m_centre);
    created->setObjectName(QStringLiteral("view.%1").arg(QLatin1String(info->id)));
    m_views[QLatin1String(info->id)] = created;
    m_centre->addWidget(created);
    m_centreTabs->addTab(viewTitle(*info));
    m_centreTabs->setTabData(m_centreTabs->count() - 1, QLatin1String(info->id));
  }
  m_centreTabs->setVisible(m_centreTabs->count() > 1);
  connect(m_centreTabs, &QTabBar::currentChanged, m_centre, &QStackedWidget::setCurrentIndex);
  m_pages->addWidget(work);
  setCentralWidget(centre);
}

void MainWindow::buildDocks() {
  const auto makeDock = [this](const QString& id, const QString& title, QWidget* content) {
    auto* dock = new QDockWidget(title, this);
    dock->setObjectName(QStringLiteral("dock.%1").arg(id));
    dock->setWidget(content);
    auto* bar = new DockTitle(dock);
    dock->setTitleBarWidget(bar);
    m_titles[dock] = bar;
    m_docks[id] = dock;
    connect(dock, &QDockWidget::visibilityChanged, this,
            [this] { QTimer::singleShot(0, this, &MainWindow::updateDockTitles); });
    connect(dock, &QDockWidget::dockLocationChanged, this,
            [this] { QTimer::singleShot(0, this, &MainWindow::updateDockTitles); });
    connect(dock, &QDockWidget::topLevelChanged, this,
            [this] { QTimer::singleShot(0, this, &MainWindow::updateDockTitles); });
    return dock;
  };
  for (const DockArea area : {DockArea::Left, DockArea::Right, DockArea::Bottom})
    for (const ViewInfo* info : viewsIn(area)) {
      const QString id = QLatin1String(info->id);
      View* created = info->create(m_session, nullptr);
      created->setObjectName(QStringLiteral("view.%1").arg(id));
      m_views[id] = created;
      QDockWidget* dock = makeDock(id, viewTitle(*info), created);
      addDockWidget(areaOf(area), dock);
    }
  m_help = new HelpPanel;
  Theme::makePart(m_help);
  QDockWidget* help = makeDock(QStringLiteral("help"), tr("Help"), m_help);
  addDockWidget(Qt::RightDockWidgetArea, help);
  help->hide();
}

QAction* MainWindow::add(QMenu* menu, const QString& name, const QString& group, const QString& text,
                         const QKeySequence& key, const QString& icon) {
  auto* action = new QAction(text, this);
  action->setObjectName(name);
  action->setProperty("group", group);
  if (!key.isEmpty()) action->setShortcut(key);
  if (!icon.isEmpty()) action->setIcon(themedIcon(icon));
  addAction(action);
  if (menu != nullptr) menu->addAction(action);
  return action;
}

void MainWindow::buildActions() {
  m_menuBar = new QMenuBar;
  m_menuBar->setNativeMenuBar(false);
  const auto adopt = [this](QMenu* menu, QAction* action, const QString& group) {
    if (action == nullptr) return;
    action->setProperty("group", group);
    addAction(action);
    menu->addAction(action);
  };

  QMenu* file = m_menuBar->addMenu(tr("&File"));
  const QString fileGroup = tr("File");
  connect(
      add(file, QStringLiteral("file.open"), fileGroup, tr("&Open\u2026"), QKeySequence::Open, QStringLiteral("open")),
      &QAction::triggered, this, &MainWindow::chooseFile);
  m_recentMenu = file->addMenu(tr("Open &recent"));
  connect(add(file, QStringLiteral("file.demo"), fileGroup, tr("Open the &demo"), {}, QStringLiteral("demo")),
          &QAction::triggered, this, &MainWindow::openDemo);
  connect(
      add(file, QStringLiteral("file.import"), fileGroup, tr("&Import tensors\u2026"), {}, QStringLiteral("import")),
      &QAction::triggered, this, [this] { chooseImport(false); });
  connect(add(file, QStringLiteral("file.importFolder"), fileGroup, tr("Import a &folder of tensors\u2026"), {},
              QStringLiteral("import")),
          &QAction::triggered, this, [this] { chooseImport(true); });
  connect(add(file, QStringLiteral("file.generate"), fileGroup, tr("&Generate synthetic trace\u2026"), {},
              QStringLiteral("synth")),
          &QAction::triggered, this, &MainWindow::generate);
  QAction* closeTrace = add(file, QStringLiteral("file.closeTrace"), fileGroup, tr("Close trace"));
  connect(closeTrace, &QAction::triggered, this, [this] { m_session.closeTrace(); });
  connect(file, &QMenu::aboutToShow, closeTrace,
          [this, closeTrace] { closeTrace->setEnabled(m_session.trace() != nullptr); });
  file->addSeparator();
  for (QAction* action : {m_profileActions->newProfile, m_profileActions->open, m_profileActions->importProfile,
                          m_profileActions->save, m_profileActions->saveAs, m_profileActions->exportProfile,
                          m_profileActions->profileTrace, m_profileActions->closeProfile})
    adopt(file, action, tr("Profile"));
  file->addSeparator();
  m_resultActions = new ResultActions(m_session, *this);
  for (QAction* action : {m_resultActions->saveResults, m_resultActions->savePlan}) adopt(file, action, tr("Results"));
  file->addSeparator();
  connect(add(file, QStringLiteral("file.settings"), fileGroup, tr("Se&ttings\u2026"),
              QKeySequence(QStringLiteral("Ctrl+,")), QStringLiteral("settings")),
          &QAction::triggered, this, &MainWindow::editSettings);
  connect(add(file, QStringLiteral("file.quit"), fileGroup, tr("&Quit"), QKeySequence(QStringLiteral("Ctrl+Q"))),
          &QAction::triggered, this, &QWidget::close);

  QMenu* edit = m_menuBar->addMenu(tr("&Edit"));
  adopt(edit, m_profileActions->undo, tr("Edit"));
  adopt(edit, m_profileActions->redo, tr("Edit"));

  QMenu* go = m_menuBar->addMenu(tr("&Go"));
  const QString goGroup = tr("Go");
  connect(add(go, QStringLiteral("go.to"), goGroup, tr("&Go to\u2026"), QKeySequence(QStringLiteral("Ctrl+G")),
              QStringLiteral("goto")),
          &QAction::triggered, this,
          [this] { openInTurns(this, QStringLiteral("goto"), [this] { return new GotoDialog(m_session, this); }); });
  go->addSeparator();
  const auto move = [&](const char* name, const QString& text, const char* key, int steps, int layers, int heads) {
    connect(add(go, QLatin1String(name), goGroup, text, QKeySequence(QLatin1String(key))), &QAction::triggered, this,
            [this, steps, layers, heads] { m_session.moveSelection(steps, layers, heads); });
  };
  move("go.previousLayer", tr("Previous layer"), "Alt+Up", 0, -1, 0);
  move("go.nextLayer", tr("Next layer"), "Alt+Down", 0, 1, 0);
  move("go.previousHead", tr("Previous head"), "Ctrl+[", 0, 0, -1);
  move("go.nextHead", tr("Next head"), "Ctrl+]", 0, 0, 1);
  move("go.previousStep", tr("Previous denoising step"), "Ctrl+<", -1, 0, 0);
  move("go.nextStep", tr("Next denoising step"), "Ctrl+>", 1, 0, 0);
  go->addSeparator();
  connect(add(go, QStringLiteral("go.palette"), goGroup, tr("Command &palette\u2026"),
              QKeySequence(QStringLiteral("Ctrl+Shift+P")), QStringLiteral("search")),
          &QAction::triggered, this, &MainWindow::showPalette);

  m_viewMenu = m_menuBar->addMenu(tr("&View"));
  const QString viewGroup = tr("View");
  int number = 1;
  const auto addShow = [&](const QString& id, const QString& title, const QString& icon) {
    QAction* action = add(m_viewMenu, QStringLiteral("view.show.%1").arg(id), viewGroup, title, {}, icon);
    if (number <= 9) action->setShortcut(QKeySequence(QStringLiteral("Alt+%1").arg(number++)));
    connect(action, &QAction::triggered, this, [this, id] { showView(id); });
  };
  for (const DockArea area : {DockArea::Centre, DockArea::Left, DockArea::Right, DockArea::Bottom})
    for (const ViewInfo* info : viewsIn(area))
      addShow(QLatin1String(info->id), viewTitle(*info), QLatin1String(info->icon));
  m_viewMenu->addSeparator();
  QMenu* layouts = m_viewMenu->addMenu(tr("&Layout"));
  m_presetGroup = new QActionGroup(this);
  const auto preset = [&](const char* name, const QString& title, const QString& tip) {
    QAction* action = add(layouts, QStringLiteral("layout.%1").arg(QLatin1String(name)), tr("Layout"), title);
    action->setCheckable(true);
    action->setData(QLatin1String(name));
    action->setToolTip(tip);
    m_presetGroup->addAction(action);
    connect(action, &QAction::triggered, this, [this, name = QString::fromLatin1(name)] { switchLayout(name); });
  };
  preset("diagnose", tr("Diagnose"), tr("Map in the middle, heads left, method right, budget and jobs below"));
  preset("tune", tr("Tune"), tr("Budget editor and heat maps large, map small"));
  preset("compare", tr("Compare"), tr("Methods side by side and their numbers, heads left, everything else away"));
  preset("teach", tr("Teach"), tr("Map large, help beside it, everything else away"));
  layouts->addSeparator();
  connect(add(layouts, QStringLiteral("layout.reset"), tr("Layout"), tr("Reset this layout")), &QAction::triggered,
          this, &MainWindow::resetLayout);
  QMenu* theme = m_viewMenu->addMenu(tr("&Theme"));
  auto* themes = new QActionGroup(this);
  const std::pair<Settings::ThemeChoice, QString> choices[] = {{Settings::ThemeChoice::System, tr("As the desktop")},
                                                               {Settings::ThemeChoice::Light, tr("Light")},
                                                               {Settings::ThemeChoice::Dark, tr("Dark")}};
  const char* names[] = {"theme.system", "theme.light", "theme.dark"};
  int index = 0;
  for (const auto& [choice, title] : choices) {
    QAction* action = add(theme, QLatin1String(names[index++]), tr("Theme"), title);
    action->setCheckable(true);
    action->setChecked(choice == m_settings.theme);
    themes->addAction(action);
    connect(action, &QAction::triggered, this, [this, choice = choice] { setTheme(choice); });
  }
  m_viewMenu->addSeparator();
  const auto rescale = [this](int percent) {
    Settings next = m_settings;
    next.uiScalePercent = std::clamp(percent, 80, 200);
    applySettings(next);
  };
  connect(add(m_viewMenu, QStringLiteral("view.larger"), viewGroup, tr("Larger interface"), QKeySequence::ZoomIn),
          &QAction::triggered, this, [this, rescale] { rescale(m_settings.uiScalePercent + 10); });
  connect(add(m_viewMenu, QStringLiteral("view.smaller"), viewGroup, tr("Smaller interface"), QKeySequence::ZoomOut),
          &QAction::triggered, this, [this, rescale] { rescale(m_settings.uiScalePercent - 10); });
  connect(add(m_viewMenu, QStringLiteral("view.normal"), viewGroup, tr("Normal size"),
              QKeySequence(QStringLiteral("Ctrl+0"))),
          &QAction::triggered, this, [rescale] { rescale(100); });
  QAction* full = add(m_viewMenu, QStringLiteral("view.fullScreen"), viewGroup, tr("Full screen"),
                      QKeySequence(QStringLiteral("F11")));
  full->setCheckable(true);
  connect(full, &QAction::triggered, this, [this](bool on) { on ? showFullScreen() : showNormal(); });

  QMenu* method = m_menuBar->addMenu(tr("&Method"));
  const auto runs = [&](const char* name, const char* button, const QString& text, const QKeySequence& key) {
    QAction* action = add(method, QLatin1String(name), tr("Method"), text, key);
    connect(action, &QAction::triggered, this, [this, button] {
      if (View* methodView = view(QStringLiteral("method")))
        if (auto* push = methodView->findChild<QPushButton*>(QLatin1String(button))) push->click();
    });
  };
  runs("method.runHead", "runHead", tr("Run on &head"), QKeySequence(QStringLiteral("Ctrl+R")));
  runs("method.runLayer", "runLayer", tr("Run on &layer"), QKeySequence(QStringLiteral("Ctrl+Shift+R")));
  runs("method.runStep", "runStep", tr("Run on &step"), {});
  runs("method.runAll", "runAll", tr("Run on &all captured heads"), {});
  method->addSeparator();
  connect(add(method, QStringLiteral("method.noOverlay"), tr("Method"), tr("Hide the overlay")), &QAction::triggered,
          this, [this] { m_session.setOverlayMethod(QString()); });

  QMenu* help = m_menuBar->addMenu(tr("&Help"));
  const QString helpGroup = tr("Help");
  connect(add(help, QStringLiteral("help.view"), helpGroup, tr("Help for the focused view"), QKeySequence::HelpContents,
              QStringLiteral("help")),
          &QAction::triggered, this, [this] {
            const View* focused = focusedView() != nullptr ? focusedView() : m_lastView;
            for (const auto& [id, candidate] : m_views)
              if (candidate == focused) return showHelp(QLatin1String(viewById(id)->helpPage));
            showHelp(QStringLiteral("index.md"));
          });
  connect(add(help, QStringLiteral("help.contents"), helpGroup, tr("Contents")), &QAction::triggered, this,
          [this] { showHelp(QStringLiteral("index.md")); });
  connect(add(help, QStringLiteral("help.numbers"), helpGroup, tr("What the numbers mean")), &QAction::triggered, this,
          [this] { showHelp(QStringLiteral("numbers.md")); });
  connect(add(help, QStringLiteral("help.keys"), helpGroup, tr("&Keys"), QKeySequence(QStringLiteral("?"))),
          &QAction::triggered, this, [this] {
            openInTurns(
                this, QStringLiteral("keys"), [this] { return new ShortcutSheet(allActions(), this); },
                Blocks::Nothing);
          });
  help->addSeparator();
  connect(add(help, QStringLiteral("help.about"), helpGroup, tr("About Sparsight")), &QAction::triggered, this, [this] {
    openInTurns(this, QStringLiteral("about"),
                [this] { return new AboutDialog(m_session.backend().value_or(BackendInfo{}), this); });
  });
  // A text field wants its own "?": the key is ours only elsewhere.
  actionByName(QStringLiteral("help.keys"))->setShortcutContext(Qt::WindowShortcut);
  updateRecentMenu();
}

void MainWindow::buildTopBar() {
  auto* bar = new QWidget;
  bar->setObjectName(QStringLiteral("topBar"));
  bar->setProperty("role", QStringLiteral("bar"));
  Theme::makePart(bar);
  auto* grid = new QGridLayout(bar);
  grid->setContentsMargins(Theme::kUnit + 2, 3, Theme::kEdge, 3);
  grid->setColumnStretch(0, 1);
  grid->setColumnStretch(2, 1);
  m_menuBar->setSizePolicy(QSizePolicy::Minimum, QSizePolicy::Preferred);
  grid->addWidget(m_menuBar, 0, 0, Qt::AlignLeft | Qt::AlignVCenter);
  auto* tabs = new QHBoxLayout;
  tabs->setSpacing(Theme::kUnit);
  for (QAction* action : m_presetGroup->actions()) {
    auto* tab = new QPushButton(action->text());
    tab->setObjectName(QStringLiteral("tab.%1").arg(action->data().toString()));
    tab->setCheckable(true);
    tab->setToolTip(action->toolTip());
    tab->setProperty("layoutTab", true);
    tab->setFocusPolicy(Qt::TabFocus);
    connect(tab, &QPushButton::clicked, action, &QAction::trigger);
    connect(action, &QAction::toggled, tab, [tab](bool on) {
      tab->setChecked(on);
      setLook(tab, "primary", on);
    });
    tabs->addWidget(tab);
    m_layoutTabs.push_back(tab);
  }
  grid->addLayout(tabs, 0, 1, Qt::AlignCenter);
  auto* right = new QHBoxLayout;
  right->setSpacing(Theme::kPad);
  m_fileLabel = new ElidedLabel;
  m_fileLabel->setObjectName(QStringLiteral("fileLabel"));
  m_fileLabel->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
  m_fileLabel->setMaximumWidth(420);
  auto* palette = new QToolButton;
  palette->setProperty("framed", true);
  palette->setText(QStringLiteral("Ctrl+Shift+P"));
  fonts::give(palette, FontRole::Secondary);
  palette->setToolTip(tr("Command palette: every action by name"));
  palette->setAccessibleName(tr("Command palette"));
  palette->setFocusPolicy(Qt::TabFocus);
  connect(palette, &QToolButton::clicked, this, &MainWindow::showPalette);
  right->addStretch(1);
  right->addWidget(m_fileLabel);
  right->addWidget(palette);
  grid->addLayout(right, 0, 2);
  setMenuWidget(bar);
}

void MainWindow::buildStatusBar() {
  QStatusBar* bar = statusBar();
  bar->setSizeGripEnabled(false);
  Theme::makePart(bar);
  bar->setContentsMargins(Theme::kEdge - 6, 0, Theme::kEdge - 6, 0);
  const auto label = [bar](const char* name) {
    auto* l = new QLabel;
    l->setObjectName(QLatin1String(name));
    l->setContentsMargins(0, 3, Theme::kEdge, 3);
    bar->addWidget(l);
    return l;
  };
  m_backendLabel = label("status.backend");
  m_partsLabel = label("status.parts");
  m_unsavedLabel = label("status.unsaved");
  m_hintLabel = new QLabel;
  m_hintLabel->setObjectName(QStringLiteral("status.hint"));
  m_hintLabel->setContentsMargins(Theme::kEdge, 3, 0, 3);
  bar->addPermanentWidget(m_hintLabel);
}

// --- layout -------------------------------------------------------------------------------------------------------

void MainWindow::arrange(const QString& preset) {
  for (const auto& [id, dock] : m_docks) {
    if (dock->isFloating()) dock->setFloating(false);
    removeDockWidget(dock);
  }
  const auto dockOf = [this](const char* id) -> QDockWidget* {
    const auto it = m_docks.find(QLatin1String(id));
    return it == m_docks.end() ? nullptr : it->second;
  };
  // Docks take a size only once the layout knows them; a stored layout that is restored meanwhile wins.
  const bool stored = m_layouts.contains(preset);
  const auto later = [this, stored](const std::function<void()>& resize) {
    if (!stored) QTimer::singleShot(0, this, resize);
  };
  QDockWidget* help = dockOf("help");
  const auto place = [this](DockArea area, bool tabbed) {
    QDockWidget* first = nullptr;
    for (const ViewInfo* info : viewsIn(area)) {
      QDockWidget* dock = m_docks[QLatin1String(info->id)];
      addDockWidget(areaOf(area), dock);
      if (first != nullptr && tabbed) tabifyDockWidget(first, dock);
      if (first == nullptr) first = dock;
      dock->show();
    }
    return first;
  };
  QDockWidget* left = place(DockArea::Left, false);
  QDockWidget* right = place(DockArea::Right, false);
  addDockWidget(Qt::RightDockWidgetArea, help);
  QDockWidget* bottom = place(DockArea::Bottom, true);
  help->hide();
  if (preset == QStringLiteral("teach")) {
    for (const auto& [id, dock] : m_docks) dock->hide();
    help->show();
    later([this, help] { resizeDocks({help}, {420}, Qt::Horizontal); });
    if (m_help->currentPage().isEmpty()) m_help->showPage(QStringLiteral("first-steps.md"));
    return;
  }
  if (preset == QStringLiteral("compare")) {
    // Columns need the width, the table the height.
    for (const DockArea area : {DockArea::Right, DockArea::Bottom})
      for (const ViewInfo* info : viewsIn(area)) m_docks[QLatin1String(info->id)]->hide();
  } else if (preset == QStringLiteral("tune")) {
    // Heat maps beside the curve; the method's numbers give way.
    QDockWidget* heat = dockOf("heatmap");
    QDockWidget* budget = dockOf("budget");
    if (heat != nullptr && budget != nullptr) {
      splitDockWidget(budget, heat, Qt::Horizontal);
      heat->show();
    }
    if (right != nullptr) right->hide();
    if (budget != nullptr) budget->raise();
    later([this, bottom, heat, budget] {
      if (bottom != nullptr) resizeDocks({bottom}, {std::max(300, height() * 44 / 100)}, Qt::Vertical);
      if (heat != nullptr && budget != nullptr) resizeDocks({budget, heat}, {600, 400}, Qt::Horizontal);
    });
  } else if (bottom != nullptr) {
    if (QDockWidget* budget = dockOf("budget")) budget->raise();
    later([this, bottom] { resizeDocks({bottom}, {std::max(200, height() * 24 / 100)}, Qt::Vertical); });
  }
  later([this, left, right] {
    const auto scaled = [](int width) { return static_cast<int>(width * fonts::scale()); };
    if (left != nullptr) resizeDocks({left}, {scaled(kLeftWidth)}, Qt::Horizontal);
    if (right != nullptr && !right->isHidden()) resizeDocks({right}, {scaled(kRightWidth)}, Qt::Horizontal);
  });
}

void MainWindow::setLayoutPreset(const QString& name) {
  QAction* chosen = nullptr;
  for (QAction* action : m_presetGroup->actions())
    if (action->data().toString() == name) chosen = action;
  if (chosen == nullptr) return setLayoutPreset(QStringLiteral("diagnose"));
  while (m_opening && layOutStep()) {
  }
  choose(*chosen);
  if (m_empty) return;  // applied when the start page goes
  {
    const LayoutPause once({this});
    arrangeDocks();
    restoreDocks();
  }
  showCentre();
}

void MainWindow::switchLayout(const QString& name) {
  if (m_empty || m_arranging) return setLayoutPreset(name);
  while (m_opening && layOutStep()) {
  }
  choose(*actionByName(QStringLiteral("layout.%1").arg(name)));
  if (layOutStep()) m_tellTimer.start(0);
}

void MainWindow::choose(QAction& layout) {
  if (!m_empty && !m_arranging && m_arranged) storeLayout();
  const QString name = layout.data().toString();
  if (name != m_preset) rememberLater(m_session.jobs(), QStringLiteral("layout/preset"), name);
  m_preset = name;
  layout.setChecked(true);
}

/// Docks that move one after the other would be laid out, and animated, as often: under a LayoutPause.
void MainWindow::arrangeDocks() {
  const bool outer = std::exchange(m_arranging, true);
  m_arranged = true;
  const DockOptions options = dockOptions();
  setDockOptions(options & ~DockOptions(AnimatedDocks));
  arrange(m_preset);
  setDockOptions(options);
  m_arranging = outer;
}

void MainWindow::restoreDocks() {
  const auto stored = m_layouts.find(m_preset);
  if (stored == m_layouts.end()) return;
  const bool outer = std::exchange(m_arranging, true);
  const DockOptions options = dockOptions();
  setDockOptions(options & ~DockOptions(AnimatedDocks));
  restoreState(stored->second, kLayoutVersion);
  setDockOptions(options);
  m_arranging = outer;
}

void MainWindow::showCentre() {
  const QString front = m_preset == QStringLiteral("tune")      ? QStringLiteral("heatmap")
                        : m_preset == QStringLiteral("compare") ? m_preset
                                                                : QStringLiteral("map");
  for (int i = 0; i < m_centreTabs->count(); ++i)
    if (m_centreTabs->tabData(i).toString() == front) m_centreTabs->setCurrentIndex(i);
  // The focus may have been in a panel that is hidden now.
  if (m_centre->currentWidget() != nullptr) m_centre->currentWidget()->setFocus(Qt::OtherFocusReason);
  updateDockTitles();
}

void MainWindow::storeLayout() {
  QByteArray state = saveState(kLayoutVersion);
  if (state == m_layouts[m_preset]) return;
  rememberLater(m_session.jobs(), layoutKey(m_preset), state);
  m_layouts[m_preset] = std::move(state);
}

void MainWindow::resetLayout() {
  m_layouts.erase(m_preset);
  rememberLater(m_session.jobs(), layoutKey(m_preset), {});
  m_arranging = true;
  setLayoutPreset(m_preset);
  m_arranging = false;
}

void MainWindow::updateDockTitles() {
  for (const auto& [dock, title] : m_titles) {
    bool tabbed = false;
    for (const QDockWidget* other : tabifiedDockWidgets(dock)) tabbed = tabbed || !other->isHidden();
    title->setCompact(tabbed && !dock->isFloating());
  }
}

void MainWindow::updateEmptyState() {
  const bool empty = nothingOpen();
  if (empty == m_empty) return;
  if (!empty) {
    while (layOutStep()) {
    }
    return;
  }
  const bool interrupted = m_opening != nullptr;
  endLayOut();
  if (interrupted && !m_restyling) paintAgain();  // closed again before it was shown
  if (m_arranged) storeLayout();
  m_empty = true;
  const LayoutPause once({this});
  for (const auto& [id, dock] : m_docks) dock->hide();
  m_pages->setCurrentIndex(0);
  m_start->setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Preferred);
  m_start->refreshRecent();
  showLayoutTabs(false);
  m_start->setFocus();
}

bool MainWindow::layOutStep() {
  if (!m_opening) {
    // Nothing is laid out or painted until all is there.
    m_opening = std::make_unique<LayoutPause>(std::initializer_list<QWidget*>{this});
    std::vector<QWidget*> contents;
    for (const auto& [id, dock] : m_docks) contents.push_back(dock->widget());
    m_contents = std::make_unique<LayoutPause>(contents);
    // Rows that wrap need much height until they have their width: the window must not grow for it.
    layout()->setSizeConstraint(QLayout::SetNoConstraint);
    setUpdatesEnabled(false);
    m_empty = false;
    m_layOut = LayOut::Restore;
    // A page that is not shown needs no room.
    m_start->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Ignored);
    arrangeDocks();
    return true;
  }
  if (m_layOut == LayOut::Restore) {
    m_layOut = LayOut::Centre;
    if (m_layouts.contains(m_preset)) {
      restoreDocks();
      return true;
    }
  }
  if (m_layOut == LayOut::Centre) {
    m_layOut = LayOut::Window;  // after what views do when they are shown
    m_pages->setCurrentIndex(1);
    showLayoutTabs(true);
    showCentre();
    return true;
  }
  if (m_layOut == LayOut::Window) {
    m_layOut = LayOut::Contents;
    m_opening->resume();
    return true;
  }
  if (m_layOut == LayOut::Contents) {
    m_layOut = LayOut::Paint;
    m_contents.reset();
    return true;
  }
  endLayOut();
  if (!m_restyling) paintAgain();
  return false;
}

/// What was to be painted before: Qt drops the request while updates are off, and makes no other for what it still
/// holds to be on its way.
void MainWindow::paintAgain() {
  setUpdatesEnabled(true);
  // NOLINTNEXTLINE(bugprone-unhandled-exception-at-new): Qt does not go on without memory either
  QCoreApplication::postEvent(this, new QEvent(QEvent::UpdateRequest), Qt::LowEventPriority);
}

void MainWindow::endLayOut() {
  m_contents.reset();
  m_opening.reset();
  layout()->setSizeConstraint(QLayout::SetDefaultConstraint);
}

/// Layouts arrange views; the start page has none.
void MainWindow::showLayoutTabs(bool on) {
  const LayoutPause once({this, menuWidget()});
  for (QPushButton* tab : m_layoutTabs) tab->setVisible(on);
}

void MainWindow::showView(const QString& id) {
  View* wanted = view(id);
  if (wanted == nullptr || m_empty) return;
  for (int i = 0; i < m_centreTabs->count(); ++i)
    if (m_centreTabs->tabData(i).toString() == id) m_centreTabs->setCurrentIndex(i);
  if (const auto it = m_docks.find(id); it != m_docks.end()) {
    it->second->show();
    it->second->raise();
  }
  wanted->setFocus(Qt::ShortcutFocusReason);
}

// --- state --------------------------------------------------------------------------------------------------------

View* MainWindow::view(const QString& id) const {
  const auto it = m_views.find(id);
  return it == m_views.end() ? nullptr : it->second;
}

QList<QAction*> MainWindow::allActions() const {
  QList<QAction*> list;
  for (QAction* action : actions())
    if (!action->objectName().isEmpty()) list << action;
  return list;
}

QAction* MainWindow::actionByName(const QString& name) const {
  for (QAction* action : actions())
    if (action->objectName() == name) return action;
  return nullptr;
}

bool MainWindow::nothingOpen() const { return !m_session.trace() && m_session.profile().isEmpty(); }

View* MainWindow::focusedView() const {
  for (QWidget* widget = QApplication::focusWidget(); widget != nullptr; widget = widget->parentWidget())
    if (auto* found = qobject_cast<View*>(widget)) return found;
  return nullptr;
}

void MainWindow::focusMoved(QWidget* now) {
  // A text field keeps its "?".
  const bool typing = qobject_cast<QLineEdit*>(now) != nullptr || qobject_cast<QAbstractSpinBox*>(now) != nullptr ||
                      (now != nullptr && now->inherits("QPlainTextEdit"));
  if (QAction* keys = actionByName(QStringLiteral("help.keys")))
    keys->setShortcut(typing ? QKeySequence() : QKeySequence(QStringLiteral("?")));
  if (View* focused = focusedView()) m_lastView = focused;
  const QString own = m_lastView != nullptr && !m_empty ? m_lastView->hint() : QString();
  m_hintLabel->setText(own.isEmpty() ? tr("F1 help \u00B7 ? all keys") : own + tr(" \u00B7 ? all keys"));
}

void MainWindow::sessionChanged(ChangeFlags changes) {
  if (nothingOpen()) updateEmptyState();
  if (changes & (ChangeFlags(Change::Trace) | Change::Profile)) updateTitle();
  if (changes & Change::Trace && m_session.trace()) {
    if (!m_pendingSelection.isEmpty()) {
      const QJsonObject wanted = std::exchange(m_pendingSelection, {});
      Selection next = m_session.selection();
      if (wanted.contains(QStringLiteral("step"))) next.step = wanted[QStringLiteral("step")].toInt();
      if (wanted.contains(QStringLiteral("layer"))) next.layer = wanted[QStringLiteral("layer")].toInt();
      if (wanted.contains(QStringLiteral("head"))) next.head = wanted[QStringLiteral("head")].toInt();
      if (wanted.contains(QStringLiteral("branch")))
        next.branch = wanted[QStringLiteral("branch")].toString().toStdString();
      m_session.setSelection(next);
    }
  }
  if (changes & Change::Theme) focusMoved(QApplication::focusWidget());
  for (const auto& [id, each] : m_views) m_untold[each] |= changes;
  m_telling |= changes;
  tellViews();
}

View* MainWindow::nextToTell() const {
  View* next = nullptr;
  int best = -1;
  for (const auto& [each, changes] : m_untold) {
    // Behind the start page nothing is visible yet; the view in front of the centre comes first there, too.
    const int rank = each == m_centre->currentWidget() ? 2 : each->isVisible() ? 1 : 0;
    if (rank > best) {
      best = rank;
      next = each;
    }
  }
  return next;
}

/// Behind the start page, so that showing all views at once finds styles and sizes as they will be.
void MainWindow::makeReady(View& view) {
  for (QWidget* part : view.findChildren<QWidget*>()) part->ensurePolished();
  view.ensurePolished();
  const auto dock = m_docks.find(view.objectName().section(QLatin1Char('.'), 1));
  if (dock == m_docks.end() || view.layout() == nullptr) return;
  const auto scaled = [](int width) { return static_cast<int>(width * fonts::scale()); };
  switch (dockWidgetArea(dock->second)) {
    case Qt::LeftDockWidgetArea:
      view.resize(scaled(kLeftWidth), height() * 3 / 4);
      break;
    case Qt::RightDockWidgetArea:
      view.resize(scaled(kRightWidth), height() * 3 / 4);
      break;
    default:
      view.resize(width() - scaled(kLeftWidth + kRightWidth), height() / 4);
  }
  view.layout()->activate();
}

void MainWindow::tellViews() {
  constexpr int kTellMs = 1;
  QElapsedTimer clock;
  clock.start();
  const bool opening = m_empty && !nothingOpen();
  bool anything = false;
  for (;; anything = true) {
    if (anything && (opening || clock.elapsed() >= kTellMs)) return m_tellTimer.start(0);
    if (!m_oldParts.empty()) {
      if (QWidget* part = m_oldParts.back()) Theme::applyTo(*part);
      m_oldParts.pop_back();
    } else if (!m_unready.empty()) {
      makeReady(*m_unready.back());
      m_unready.pop_back();
    } else if (View* next = nextToTell()) {
      next->sessionChanged(m_untold.extract(next).mapped());
      if (opening) m_unready.push_back(next);
    } else {
      break;
    }
  }
  // Only now: laying out views that know what they show is done once, hidden ones change without any layout.
  if ((opening || m_opening) && (anything || layOutStep())) return m_tellTimer.start(0);
  if (m_restyling) {
    if (anything) return m_tellTimer.start(0);  // after what the parts have asked of the event loop
    m_restyling.reset();
    paintAgain();
  }
  const ChangeFlags changes = std::exchange(m_telling, {});
  updateEmptyState();
  if (changes & (ChangeFlags(Change::Trace) | Change::Profile) && !m_session.trace() &&
      !m_session.profile().isEmpty()) {
    // Without a trace the map has nothing to show; the heat maps have.
    for (int i = 0; i < m_centreTabs->count(); ++i)
      if (m_centreTabs->tabData(i).toString() == QStringLiteral("heatmap")) m_centreTabs->setCurrentIndex(i);
  }
  if (changes & (ChangeFlags(Change::Trace) | Change::Profile) && !m_pendingViews.isEmpty()) {
    const QJsonObject states = std::exchange(m_pendingViews, {});
    for (auto it = states.begin(); it != states.end(); ++it)
      if (View* restored = view(it.key())) restored->restoreState(it.value().toObject());
  }
  updateStatus();
}

void MainWindow::updateTitle() {
  QStringList parts;
  if (m_session.trace()) parts << qs(m_session.trace()->info().path.filename().string());
  const bool modified = m_session.profile().isModified();
  if (!m_session.profile().isEmpty())
    parts << m_session.profile().displayName() + (modified ? QStringLiteral(" *") : QString());
  const QString files = parts.join(QStringLiteral(" \u00B7 "));
  setWindowTitle(files.isEmpty() ? QStringLiteral("Sparsight") : QStringLiteral("Sparsight \u2013 %1").arg(files));
  m_fileLabel->setText(files);
}

void MainWindow::updateStatus() {
  if (m_backendLabel->text().isEmpty() && m_session.backend()) {
    const BackendInfo& info = *m_session.backend();
    const int threads = m_session.jobs().executor().threads();
    m_backendLabel->setText(
        QStringLiteral("%1 \u00B7 %2")
            .arg(info.id == "cuda" ? QStringLiteral("CUDA %1").arg(qs(info.deviceName)) : QStringLiteral("CPU"),
                 threads == 1 ? tr("1 thread") : tr("%1 threads").arg(threads)));
    m_backendLabel->setToolTip(qs(info.deviceName + (info.detail.empty() ? "" : ", " + info.detail)));
  }
  QStringList parts;
  if (!m_empty) {
    for (const ViewInfo* info : viewsIn(DockArea::Centre))
      if (const View* centre = view(QLatin1String(info->id)); centre != nullptr && centre->isVisible())
        parts << centre->statusParts();
    if (m_lastView != nullptr && m_lastView->isVisible() && m_centre->indexOf(m_lastView) < 0)
      parts << m_lastView->statusParts();
  }
  const int running = runningJobs();
  if (running > 0) parts << (running == 1 ? tr("1 job") : tr("%1 jobs").arg(running));
  if (const QString text = parts.join(QStringLiteral("     ")); text != m_partsLabel->text()) {
    m_partsLabel->setText(text);
    // Now: a longer text must not be cut until the next turn of the event loop, nor in a picture taken before it.
    if (QLayout* row = statusBar()->layout()) row->activate();
  }
  const QString unsaved = m_session.profile().isModified() ? m_session.profile().unsavedEdit() : QString();
  m_unsavedLabel->setText(unsaved.isEmpty() ? QString() : tr("unsaved: %1").arg(unsaved));
  if (auto it = m_docks.find(QStringLiteral("jobs")); it != m_docks.end()) {
    const QString title = running > 0 ? tr("Jobs (%1)").arg(running) : tr("Jobs");
    if (it->second->windowTitle() != title) it->second->setWindowTitle(title);
  }
}

int MainWindow::runningJobs() const { return m_session.jobs().unfinished(); }

void MainWindow::updateRecentMenu() {
  m_recentMenu->clear();
  const QStringList files = recentFiles();
  for (const QString& path : files) {
    const QFileInfo info(path);
    QAction* action = m_recentMenu->addAction(
        QStringLiteral("%1    %2").arg(info.fileName(), QDir::toNativeSeparators(info.absolutePath())));
    connect(action, &QAction::triggered, this, [this, path] { openFiles({path}); });
  }
  m_recentMenu->setEnabled(!files.isEmpty());
  if (files.isEmpty()) return;
  m_recentMenu->addSeparator();
  connect(m_recentMenu->addAction(tr("Clear this list")), &QAction::triggered, this, [this] {
    clearRecentFiles();
    updateRecentMenu();
    m_start->refreshRecent();
  });
}

// --- actions ------------------------------------------------------------------------------------------------------

void MainWindow::openFiles(const QStringList& paths) {
  // q.npy, k.npy and v.npy are one thing to import, not three.
  const auto isTensors = [](const QString& path) {
    static const QStringList kSuffixes{QStringLiteral("npy"), QStringLiteral("npz"), QStringLiteral("pt"),
                                       QStringLiteral("pth"), QStringLiteral("safetensors")};
    return kSuffixes.contains(QFileInfo(path).suffix().toLower());
  };
  const auto sameFolder = [&](const QString& path) {
    return QFileInfo(path).absolutePath() == QFileInfo(paths.front()).absolutePath();
  };
  if (paths.size() > 1 && std::all_of(paths.begin(), paths.end(), isTensors) &&
      std::all_of(paths.begin(), paths.end(), sameFolder)) {
    importTensors(paths);
    return;
  }
  bool later = false;
  for (const QString& path : paths) {
    const QFileInfo info(path);
    const QString suffix = info.suffix().toLower();
    if (suffix == QStringLiteral("csv") || suffix == QStringLiteral("json"))
      profile_actions::openFile(m_session, this, info.absoluteFilePath());
    else
      m_session.openFile(info.absoluteFilePath(), std::exchange(later, true));
  }
}

void MainWindow::chooseFile() {
  QSettings store;
  auto* dialog = new QFileDialog(
      this, tr("Open"), store.value(QStringLiteral("open/directory"), QDir::homePath()).toString(),
      tr("Traces, results, profiles and tensors (*.h5 *.hdf5 *.csv *.json *.safetensors *.npz *.npy *.pt);;All "
         "files (*)"));
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setFileMode(QFileDialog::ExistingFiles);
  connect(dialog, &QFileDialog::filesSelected, this, [this](const QStringList& files) {
    if (files.isEmpty()) return;
    rememberLater(m_session.jobs(), QStringLiteral("open/directory"), QFileInfo(files.front()).absolutePath());
    openFiles(files);
  });
  dialog->open();
}

void MainWindow::chooseImport(bool folder) {
  QString suffixes;
  for (const Importer* importer : allImporters()) {
    if (importer->isProfile()) continue;
    suffixes += QString::fromUtf8(importer->suffixes().data(), static_cast<qsizetype>(importer->suffixes().size())) +
                QLatin1Char(' ');
  }
  QSettings store;
  auto* dialog = new QFileDialog(this, folder ? tr("Import a folder of tensors") : tr("Import tensors"),
                                 store.value(QStringLiteral("open/directory"), QDir::homePath()).toString(),
                                 tr("Tensors (%1);;All files (*)").arg(suffixes.trimmed()));
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setFileMode(folder ? QFileDialog::Directory : QFileDialog::ExistingFiles);
  if (folder) dialog->setOption(QFileDialog::ShowDirsOnly);
  connect(dialog, &QFileDialog::filesSelected, this, [this](const QStringList& files) {
    if (files.isEmpty()) return;
    rememberLater(m_session.jobs(), QStringLiteral("open/directory"), QFileInfo(files.front()).absolutePath());
    importTensors(files);
  });
  dialog->open();
}

void MainWindow::importTensors(const QStringList& paths) {
  openInTurns(this, QStringLiteral("import.") + paths.join(QLatin1Char('\n')),
              [this, paths] { return new TraceImportDialog(m_session, paths, this); });
}

void MainWindow::openDemo() { m_session.openDemo(); }

void MainWindow::generate() {
  openInTurns(this, QStringLiteral("generate"), [this] {
    auto* dialog = new SynthDialog(this);
    connect(dialog, &QDialog::accepted, this,
            [this, dialog] { m_session.generateTrace(dialog->spec(), dialog->path()); });
    return dialog;
  });
}

void MainWindow::showPalette() {
  QList<QAction*> list = allActions();
  auto* palette = new CommandPalette(list, this);
  palette->move(mapToGlobal(QPoint((width() - palette->width()) / 2, 48)));
  palette->show();
}

void MainWindow::showHelp(const QString& page) {
  QDockWidget* dock = m_docks[QStringLiteral("help")];
  if (dock->isHidden()) {
    const LayoutPause once({this});
    dock->show();
    // A tab beside what is on the right: half a column is too little for a page, and the page widens the column.
    QDockWidget* method = m_docks[QStringLiteral("method")];
    if (method != nullptr && !method->isHidden() && !method->isFloating() && !dock->isFloating() &&
        dockWidgetArea(method) == dockWidgetArea(dock))
      tabifyDockWidget(method, dock);
    QTimer::singleShot(0, dock, [this, dock] {
      resizeDocks({dock}, {400}, Qt::Horizontal);
      dock->raise();  // a tab takes it once the layout knows it
    });
  }
  dock->raise();
  m_help->showPage(page);
  m_help->setFocus();
}

void MainWindow::editSettings() {
  openInTurns(this, QStringLiteral("settings"), [this] {
    auto* dialog = new SettingsDialog(m_settings, this);
    connect(dialog, &QDialog::accepted, this, [this, dialog] { applySettings(dialog->settings()); });
    return dialog;
  });
}

void MainWindow::setTheme(Settings::ThemeChoice choice) {
  Settings next = m_settings;
  next.theme = choice;
  applySettings(next);
}

void MainWindow::applySettings(const Settings& settings) {
  const Settings before = m_settings;
  m_settings = settings;
  m_settings.publish();
  JobSpec spec;
  spec.name = "Remember the settings";
  spec.lane = Lane::Io;
  spec.supersedeTag = spec.name;
  m_session.jobs()
      .submit<bool>(
          std::move(spec),
          [settings](JobContext&) {
            settings.save();
            return true;
          },
          [](const Outcome<bool>&) {})
      .release();
  const bool dark = wantsDark(settings.theme);
  if (dark != Theme::current().dark || settings.uiScalePercent != before.uiScalePercent) {
    fonts::setScale(settings.uiScalePercent / 100.0);
    restyle(dark);
  }
  for (const auto& [name, choice] : {std::pair(QStringLiteral("theme.system"), Settings::ThemeChoice::System),
                                     std::pair(QStringLiteral("theme.light"), Settings::ThemeChoice::Light),
                                     std::pair(QStringLiteral("theme.dark"), Settings::ThemeChoice::Dark)})
    actionByName(name)->setChecked(choice == settings.theme);
  if (settings.diskMapsMiB != before.diskMapsMiB)
    m_session.setMapCacheLimit(static_cast<Index>(settings.diskMapsMiB) << 20);
  m_session.notifySettingsChanged(ChangeFlags(Change::Settings) | Change::Theme);
}

/// Handed to the parts by tellViews, before what they show changes.
void MainWindow::restyle(bool dark) {
  if (!m_restyling) {
    m_restyling = std::make_unique<LayoutPause>(std::initializer_list<QWidget*>{this});
    setUpdatesEnabled(false);
  }
  m_oldParts = Theme::announce(dark);
  m_tellTimer.start(0);
}

// --- session file and recovery ------------------------------------------------------------------------------------

QString MainWindow::defaultSessionFile() { return qs((userStateDir() / "session.json").string()); }

QJsonObject MainWindow::saveSession() const {
  const auto fileEntry = [](const QString& path) {
    const QFileInfo info(path);
    return QJsonObject{{QStringLiteral("path"), info.absoluteFilePath()},
                       {QStringLiteral("size"), info.size()},
                       {QStringLiteral("modified"), info.lastModified().toUTC().toString(Qt::ISODate)}};
  };
  QJsonObject files;
  if (m_session.trace()) files[QStringLiteral("trace")] = fileEntry(qs(m_session.trace()->info().path.string()));
  if (!m_session.profile().isEmpty() && !m_session.profile().filePath().isEmpty())
    files[QStringLiteral("profile")] = fileEntry(m_session.profile().filePath());
  QStringList opened;
  for (const QString& method : m_session.runs().methods())
    for (const HeadResult& result : m_session.runs().all(method)) {
      const RunOriginPtr origin = m_session.runs().originOf(method, result->id);
      if (!origin || origin->file.empty()) continue;
      if (const QString path = qs(origin->file.string()); !opened.contains(path)) opened << path;
    }
  QJsonArray results;
  for (const QString& path : opened) results << fileEntry(path);
  if (!results.isEmpty()) files[QStringLiteral("results")] = results;
  const Selection& at = m_session.selection();
  QJsonObject views;
  for (const auto& [id, each] : m_views)
    if (const QJsonObject state = each->saveState(); !state.isEmpty()) views[id] = state;
  return {{QStringLiteral("format"), QStringLiteral("sparsight-session")},
          {QStringLiteral("version"), 1},
          {QStringLiteral("files"), files},
          {QStringLiteral("selection"), QJsonObject{{QStringLiteral("step"), at.step},
                                                    {QStringLiteral("layer"), at.layer},
                                                    {QStringLiteral("head"), at.head},
                                                    {QStringLiteral("branch"), qs(at.branch)}}},
          {QStringLiteral("overlay"), m_session.overlayMethod()},
          {QStringLiteral("layout"), m_preset},
          {QStringLiteral("views"), views}};
}

void MainWindow::restoreSession(const QJsonObject& state) {
  if (state[QStringLiteral("format")].toString() != QStringLiteral("sparsight-session")) return;
  setLayoutPreset(state[QStringLiteral("layout")].toString(m_preset));
  m_pendingSelection = state[QStringLiteral("selection")].toObject();
  m_pendingViews = state[QStringLiteral("views")].toObject();
  const QJsonObject files = state[QStringLiteral("files")].toObject();
  std::vector<std::pair<QString, QJsonObject>> wanted;
  for (const QString& kind : {QStringLiteral("trace"), QStringLiteral("profile")})
    wanted.emplace_back(kind, files[kind].toObject());
  for (const auto& results : files[QStringLiteral("results")].toArray())
    wanted.emplace_back(QStringLiteral("results"), results.toObject());
  for (const auto& [kind, entry] : wanted) {
    const QString path = entry[QStringLiteral("path")].toString();
    if (path.isEmpty()) continue;
    const QFileInfo info(path);
    if (!info.exists()) {
      m_banners->post(BannerStack::Kind::Warning, tr("%1 of the last session is missing").arg(info.fileName()),
                      tr("It was in %1. Everything else was restored.").arg(info.absolutePath()),
                      {{tr("Locate\u2026"), [this] { chooseFile(); }}});
      continue;
    }
    if (kind == QStringLiteral("trace") && entry[QStringLiteral("size")].toInteger() != info.size())
      m_banners->post(BannerStack::Kind::Info, tr("%1 has changed since the last session").arg(info.fileName()), {});
    if (kind == QStringLiteral("results"))
      m_session.openFile(path, true);  // once the trace is there
    else
      openFiles({path});
  }
}

void MainWindow::restoreSessionFile(const QString& path, const QJsonObject& selection) {
  constexpr std::uint64_t kMaxSessionBytes = std::uint64_t{16} << 20;
  JobSpec spec;
  spec.name = "Read the last session";
  spec.lane = Lane::Io;
  m_session.jobs()
      .submit<QJsonObject>(
          std::move(spec),
          [file = std::filesystem::path(path.toStdString())](JobContext&) -> QJsonObject {
            if (!std::filesystem::exists(file)) return {};
            QJsonParseError problem;
            const QJsonDocument json =
                QJsonDocument::fromJson(QByteArray::fromStdString(readWholeFile(file, kMaxSessionBytes)), &problem);
            if (!json.isObject())
              throw Error(ErrorCode::Format, file.string() + " is not a session file: at byte " +
                                                 std::to_string(problem.offset) + ", " +
                                                 problem.errorString().toStdString());
            return json.object();
          },
          [guard = QPointer<MainWindow>(this), selection](Outcome<QJsonObject> outcome) {
            if (guard == nullptr) return;
            if (const Error* error = std::get_if<Error>(&outcome))
              guard->m_banners->post(BannerStack::Kind::Warning, tr("The last session was not restored"),
                                     QString::fromUtf8(error->what()));
            // Something opened meanwhile is what the user wants.
            const QJsonObject* state = std::get_if<QJsonObject>(&outcome);
            if (state == nullptr || !guard->nothingOpen()) return;
            guard->restoreSession(*state);
            if (!selection.isEmpty()) guard->setPendingSelection(selection);
          })
      .release();
}

void MainWindow::offerRecovery() {
  JobSpec spec;
  spec.name = "Look for edits left by a crash";
  spec.lane = Lane::Io;
  using Found = std::vector<EditJournal::Recovered>;
  JobHandle handle = m_session.jobs().submit<Found>(
      std::move(spec), [](JobContext&) { return EditJournal::findLeftovers(); },
      [guard = QPointer<MainWindow>(this)](Outcome<Found> outcome) {
        if (guard == nullptr) return;
        if (const Found* found = std::get_if<Found>(&outcome))
          for (const EditJournal::Recovered& journal : *found) guard->offerRecovered(journal);
      });
  handle.release();
}

void MainWindow::offerRecovered(const EditJournal::Recovered& found) {
  const auto discard = [file = found.file] {
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
  };
  if (found.edits <= 0) return discard();
  const ProfileDiff diff = diffProfiles(found.current, found.base);
  const QFileInfo key(qs(found.key));
  const bool isFile = key.isAbsolute();
  const QString name = isFile ? key.fileName() : tr("an unsaved profile");
  const ProfileSummary before = summarise(found.base), after = summarise(found.current);
  QString message = found.edits == 1 ? tr("1 edit") : tr("%1 edits").arg(found.edits);
  message += tr(" that changed %1 cells; mean kept %2 \u2192 %3")
                 .arg(formatCount(diff.changed), formatPercent(before.mean), formatPercent(after.mean));
  if (diff.maxAbs > 0) message += tr(", largest change %1 points").arg(QString::number(diff.maxAbs * 100, 'f', 1));
  m_banners->post(BannerStack::Kind::Warning, tr("Unsaved edits of %1 were found after a crash").arg(name), message,
                  {{tr("Restore"),
                    [this, found, discard, isFile] {
                      m_profileActions->confirmDiscard([this, found, discard, isFile] {
                        m_session.profile().openRecovered(found.base, found.current,
                                                          isFile ? qs(found.key) : QString());
                        discard();
                      });
                    }},
                   {tr("Discard"), discard}});
}

// --- events -------------------------------------------------------------------------------------------------------

void MainWindow::closeEvent(QCloseEvent* event) {
  if (m_closing) {
    QMainWindow::closeEvent(event);
    return;
  }
  event->ignore();
  const int running = runningJobs();
  if (running == 0) {
    quit();
    return;
  }
  auto* box =
      new QMessageBox(QMessageBox::Question, tr("Quit Sparsight"),
                      running == 1 ? tr("A job is still running.") : tr("%1 jobs are still running.").arg(running),
                      QMessageBox::NoButton, this);
  box->setObjectName(QStringLiteral("quitQuestion"));
  box->setAttribute(Qt::WA_DeleteOnClose);
  QPushButton* wait = box->addButton(tr("Quit when done"), QMessageBox::AcceptRole);
  QPushButton* cancel = box->addButton(tr("Cancel jobs and quit"), QMessageBox::DestructiveRole);
  box->addButton(tr("Stay"), QMessageBox::RejectRole);
  connect(wait, &QPushButton::clicked, this, [this] {
    m_quitWhenIdle = runningJobs() > 0;
    if (!m_quitWhenIdle) close();
  });
  connect(cancel, &QPushButton::clicked, this, &MainWindow::quit);
  box->open();
}

void MainWindow::quit() {
  m_profileActions->confirmDiscard([this] {
    m_closing = true;
    if (!m_empty) storeLayout();
    QSettings store;
    store.setValue(QStringLiteral("window/geometry"), saveGeometry());
    // Jobs that would have remembered these may not come any more.
    store.setValue(QStringLiteral("layout/preset"), m_preset);
    for (const auto& [preset, state] : m_layouts) store.setValue(layoutKey(preset), state);
    m_settings.save();
    if (!m_sessionFile.isEmpty()) {
      try {
        writeFileAtomically(m_sessionFile.toStdString(), QJsonDocument(saveSession()).toJson().toStdString());
      } catch (const Error& error) {
        // Quitting goes on: a session that could not be remembered is no reason to stay.
        qWarning("%s", error.what());
      }
    }
    // Not from here: this may run inside the close event, and Qt ignores a close within a close.
    QMetaObject::invokeMethod(this, &QWidget::close, Qt::QueuedConnection);
  });
}

void MainWindow::dragEnterEvent(QDragEnterEvent* event) {
  const QList<QUrl> urls = event->mimeData()->urls();
  if (std::none_of(urls.begin(), urls.end(), [](const QUrl& url) { return url.isLocalFile(); })) return;
  event->acceptProposedAction();
  m_start->setDropHighlighted(true);
}

void MainWindow::dragLeaveEvent(QDragLeaveEvent*) { m_start->setDropHighlighted(false); }

void MainWindow::dropEvent(QDropEvent* event) {
  m_start->setDropHighlighted(false);
  QStringList files;
  for (const QUrl& url : event->mimeData()->urls())
    if (url.isLocalFile()) files << url.toLocalFile();
  event->acceptProposedAction();
  openFiles(files);
}

void MainWindow::changeEvent(QEvent* event) {
  QMainWindow::changeEvent(event);
  if (event->type() == QEvent::WindowStateChange)
    if (QAction* full = actionByName(QStringLiteral("view.fullScreen"))) full->setChecked(isFullScreen());
}

void MainWindow::keyPressEvent(QKeyEvent* event) {
  if (event->key() == Qt::Key_Escape && m_banners->count() > 0) {
    QCoreApplication::sendEvent(m_banners, event);
    return;
  }
  QMainWindow::keyPressEvent(event);
}

}  // namespace sparsight

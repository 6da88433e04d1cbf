// SPDX-License-Identifier: Apache-2.0
#include "ui/profile_actions.h"

#include <QAction>
#include <QCoreApplication>
#include <QDir>
#include <QFileDialog>
#include <QFileInfo>
#include <QMessageBox>
#include <QPointer>
#include <QPushButton>
#include <QSettings>
#include <algorithm>

#include "sparsight/core/files.h"
#include "sparsight/core/importer.h"
#include "sparsight/core/profiling.h"
#include "sparsight/kernels/error.h"
#include "ui/dialogs/export_dialog.h"
#include "ui/dialogs/file_dialogs.h"
#include "ui/dialogs/import_dialog.h"
#include "ui/dialogs/open_in_turns.h"
#include "ui/dialogs/profile_facts_dialog.h"
#include "ui/icons.h"
#include "ui/session.h"
#include "ui/settings.h"

namespace sparsight {
namespace {

constexpr std::uint64_t kMaxProfileBytes = std::uint64_t{512} << 20;
constexpr double kNewProfileKept = 0.25;
constexpr char kDirKey[] = "profile/directory";

QString tr(const char* text) { return QCoreApplication::translate("ProfileActions", text); }

/// What reading a profile file gives; made on the Io lane.
struct Loaded {
  std::optional<Profile> json;
  std::shared_ptr<const CsvReadings> csv;
  bool foreign = false;  ///< of another program: never saved back
  bool asks = false;     ///< of which something is missing, or would be taken for granted
  QStringList remarks;
};

QString startDirectory(Session& session) {
  const QString open = session.profile().filePath();
  if (!open.isEmpty()) return QFileInfo(open).absolutePath();
  const QString last = QSettings().value(QLatin1String(kDirKey)).toString();
  return QFileInfo(last).isDir() ? last : QDir::homePath();
}

void rememberDirectory(Session& session, const QString& path) {
  rememberLater(session.jobs(), QLatin1String(kDirKey), QFileInfo(path).absolutePath());
}

QString remarks(const std::vector<CsvIssue>& issues) {
  QStringList lines;
  for (std::size_t i = 0; i < std::min<std::size_t>(issues.size(), 3); ++i) {
    QString line = QString::fromStdString(issues[i].message);
    if (issues[i].line > 0) line = tr("line %1: ").arg(issues[i].line) + line;
    lines << line;
  }
  if (issues.size() > 3) lines << tr("and %1 more").arg(issues.size() - 3);
  return lines.join(QStringLiteral("; "));
}

void replaceProfile(Session& session, QWidget* window, Profile profile, const QString& path, bool unsaved) {
  profile_actions::confirmDiscard(session, window, [&session, profile = std::move(profile), path, unsaved] {
    session.profile().open(profile, path);
    if (unsaved) session.profile().markUnsaved();
    if (!path.isEmpty()) Q_EMIT session.fileOpened(path);
  });
}

void askConvention(Session& session, QWidget* window, const QString& path, std::shared_ptr<const CsvReadings> csv) {
  openInTurns(window, QStringLiteral("convention.") + path, [&session, window, path, csv = std::move(csv)] {
    const Profile* open = session.profile().isEmpty() ? nullptr : &session.profile().current();
    auto* dialog = new ImportDialog(path, csv, open, window);
    QObject::connect(dialog, &QDialog::accepted, window, [&session, window, dialog, path] {
      // The other convention must not be written back into the foreign file by a plain Save.
      const bool converted = dialog->convention() == ValueConvention::Skipped;
      replaceProfile(session, window, dialog->profile(), converted ? QString() : path, converted);
    });
    return dialog;
  });
}

void askFacts(Session& session, QWidget* window, const QString& path) {
  openInTurns(window, QStringLiteral("facts.") + path, [&session, window, path] {
    auto* dialog = new ProfileFactsDialog(session, path, window);
    QObject::connect(dialog, &QDialog::accepted, window, [&session, window, dialog] {
      replaceProfile(session, window, dialog->read()->profile, QString(), true);
    });
    return dialog;
  });
}

void load(Session& session, QWidget* window, const QString& path, bool alwaysAsk) {
  JobSpec spec;
  spec.name = "Open profile " + QFileInfo(path).fileName().toStdString();
  spec.lane = Lane::Io;
  spec.supersedeTag = "profile.open";
  QPointer<QWidget> guard(window);
  session.jobs()
      .submit<std::shared_ptr<const Loaded>>(
          spec,
          [path, asking = window != nullptr](JobContext&) {
            const std::filesystem::path file(path.toStdString());
            auto out = std::make_shared<Loaded>();
            if (const Importer* importer = importerFor(file); importer != nullptr && importer->isProfile()) {
              out->foreign = true;
              try {
                ProfileImport read = importer->readProfile(file, {});
                out->asks = !read.assumed.empty();
                out->json = std::move(read.profile);
                for (const auto* lines : {&read.assumed, &read.warnings}) {
                  for (const std::string& line : *lines) out->remarks << QString::fromStdString(line);
                }
              } catch (const Error& error) {
                if (error.code() != ErrorCode::InvalidArgument || !asking) throw;
                out->asks = true;
              }
              return std::shared_ptr<const Loaded>(out);
            }
            const std::string text = readWholeFile(file, kMaxProfileBytes);
            const std::size_t first = text.find_first_not_of(" \t\r\n");
            if (first != std::string::npos && text[first] == '{') {
              out->json = parseProfileJson(text, file.filename().string());
            } else {
              out->csv = std::make_shared<const CsvReadings>(readBothWays(text, file.filename().string()));
            }
            return std::shared_ptr<const Loaded>(out);
          },
          [&session, guard, path, alwaysAsk](Outcome<std::shared_ptr<const Loaded>> outcome) {
            if (const auto* failed = std::get_if<Error>(&outcome)) {
              Q_EMIT session.errorOccurred(tr("The profile was not opened"), QString::fromStdString(failed->what()));
              return;
            }
            if (std::holds_alternative<Cancelled>(outcome)) return;
            const auto loaded = std::get<std::shared_ptr<const Loaded>>(outcome);
            rememberDirectory(session, path);
            if (loaded->asks && guard != nullptr) {
              askFacts(session, guard, path);
              return;
            }
            if (!loaded->json && !loaded->csv) return;  // the window that would ask is gone
            if (loaded->json) {
              // What was read from another program's file must not be written back into it by a plain Save.
              replaceProfile(session, guard, *loaded->json, loaded->foreign ? QString() : path, loaded->foreign);
              if (!loaded->remarks.isEmpty())
                Q_EMIT session.errorOccurred(tr("Imported with remarks"), loaded->remarks.join(QStringLiteral("; ")));
              return;
            }
            const CsvReadings& csv = *loaded->csv;
            if (!csv.kept && !alwaysAsk) {
              Q_EMIT session.errorOccurred(tr("The profile was not opened"), csv.error);
              return;
            }
            if (guard != nullptr && (alwaysAsk || looksSkipped(csv.kept->profile))) {
              askConvention(session, guard, path, loaded->csv);
              return;
            }
            replaceProfile(session, guard, csv.kept->profile, path, false);
            if (!csv.kept->issues.empty()) {
              Q_EMIT session.errorOccurred(tr("Opened with remarks"), remarks(csv.kept->issues));
            }
          })
      .release();
}

void writeTo(Session& session, const QString& path, std::function<void(bool)> done) {
  auto written = std::make_shared<const Profile>(session.profile().current());
  JobSpec spec;
  spec.name = "Save " + QFileInfo(path).fileName().toStdString();
  spec.lane = Lane::Io;
  session.jobs()
      .submit<bool>(
          spec,
          [written, path](JobContext&) {
            writeProfile(std::filesystem::path(path.toStdString()), *written);
            return true;
          },
          [&session, written, path, done = std::move(done)](Outcome<bool> outcome) {
            const bool ok = std::holds_alternative<bool>(outcome);
            if (const auto* failed = std::get_if<Error>(&outcome)) {
              Q_EMIT session.errorOccurred(tr("The profile was not saved"), QString::fromStdString(failed->what()));
            }
            if (ok) {
              session.profile().markSaved(path, *written);
              rememberDirectory(session, path);
              Q_EMIT session.fileOpened(path);
            }
            if (done) done(ok);
          })
      .release();
}

/// What a CSV would lose; empty: nothing.
QString lostInCsv(const Profile& profile) {
  int locks = 0, notes = 0;
  for (int l = 0; l < profile.layers(); ++l) {
    locks += profile.layerLocked(l) ? 1 : 0;
    notes += profile.layerNote(l).empty() ? 0 : 1;
  }
  QStringList lost;
  if (locks > 0) lost << tr("%1 locks").arg(locks);
  if (notes > 0) lost << tr("%1 notes").arg(notes);
  return lost.join(tr(" and "));
}

void saveChecked(Session& session, QWidget* window, const QString& path, std::function<void(bool)> done) {
  const Profile& profile = session.profile().current();
  const bool csv = QFileInfo(path).suffix().compare(QLatin1String("csv"), Qt::CaseInsensitive) == 0;
  const Index holes = profile.holeCount();
  const QString lost = lostInCsv(profile);
  if (!csv || (holes == 0 && lost.isEmpty()) || window == nullptr) {
    writeTo(session, path, std::move(done));
    return;
  }
  auto* box = new QMessageBox(QMessageBox::Warning, tr("Save profile"),
                              holes > 0 ? tr("A CSV cannot hold the %1 missing values of this profile.").arg(holes)
                                        : tr("A CSV holds the values only: %1 would not be in the file.").arg(lost),
                              QMessageBox::Cancel, window);
  box->setObjectName(QStringLiteral("saveCsvQuestion"));
  box->setAttribute(Qt::WA_DeleteOnClose);
  box->setInformativeText(tr("JSON keeps everything; both can be opened again."));
  auto* json = box->addButton(tr("Save as JSON..."), QMessageBox::AcceptRole);
  auto* other = holes > 0 ? box->addButton(tr("Export with filling..."), QMessageBox::ActionRole)
                          : box->addButton(tr("Save CSV anyway"), QMessageBox::DestructiveRole);
  QObject::connect(box, &QMessageBox::finished, window, [&session, window, box, json, other, path, holes, done] {
    if (box->clickedButton() == json) {
      profile_actions::saveAs(session, window, done);
    } else if (box->clickedButton() == other && holes == 0) {
      writeTo(session, path, done);
    } else {
      if (box->clickedButton() == other) profile_actions::exportDialog(session, window);
      if (done) done(false);
    }
  });
  box->open();
}

}  // namespace

namespace profile_actions {

void createFromTrace(Session& session, QWidget* window) {
  if (!session.trace()) {
    Q_EMIT session.errorOccurred(tr("No trace is open"),
                                 tr("A new profile takes its steps, layers and heads from a trace."));
    return;
  }
  const TraceInfo& info = session.trace()->info();
  const auto extent = [](int stated, const std::vector<int>& seen) {
    return std::max({stated, seen.empty() ? 0 : seen.back() + 1, 1});
  };
  Profile profile(extent(info.run.numInferenceSteps, info.steps()), extent(info.model.numLayers, info.layers()),
                  extent(info.model.numHeads, info.heads()), BudgetRole::KeptTarget);
  for (int s = 0; s < profile.steps(); ++s) {
    for (int l = 0; l < profile.layers(); ++l) {
      for (int h = 0; h < profile.heads(); ++h) profile.set({s, l, h}, kNewProfileKept);
    }
  }
  profile.provenance.source = "new";
  profile.provenance.program = "Sparsight " SPARSIGHT_VERSION;
  if (!info.uuid.empty()) profile.provenance.traceIds.push_back(info.uuid);
  profile.provenance.model = info.model.repoId.empty() ? info.model.family : info.model.repoId;
  replaceProfile(session, window, std::move(profile), QString(), false);
}

void openDialog(Session& session, QWidget* window) {
  askForFile(window, tr("Open profile"), startDirectory(session), tr("Profiles (*.csv *.json);;All files (*)"),
             [&session, window](const QString& path) { openFile(session, window, path); });
}

void openFile(Session& session, QWidget* window, const QString& path) { load(session, window, path, false); }

void importFile(Session& session, QWidget* window, const QString& path) {
  if (!path.isEmpty()) return load(session, window, path, true);
  askForFile(window, tr("Import profile"), startDirectory(session),
             tr("Profiles and budgets (*.csv *.json *.jsonl *.sh *.txt);;All files (*)"),
             [&session, window](const QString& chosen) { load(session, window, chosen, true); });
}

void save(Session& session, QWidget* window, std::function<void(bool)> done) {
  if (session.profile().isEmpty()) {
    if (done) done(true);
    return;
  }
  const QString path = session.profile().filePath();
  if (path.isEmpty()) {
    saveAs(session, window, std::move(done));
  } else {
    saveChecked(session, window, path, std::move(done));
  }
}

void saveAs(Session& session, QWidget* window, std::function<void(bool)> done) {
  if (session.profile().isEmpty()) {
    if (done) done(true);
    return;
  }
  const QString now = session.profile().filePath();
  const QString base = now.isEmpty() ? QStringLiteral("profile") : QFileInfo(now).completeBaseName();
  const QString json = tr("Sparsight profile (*.json)"), csv = tr("SVOO CSV (*.csv)");
  const QString filter = now.endsWith(QLatin1String(".csv"), Qt::CaseInsensitive) ? csv : json;
  auto* dialog =
      new QFileDialog(window, tr("Save profile"), startDirectory(session), json + QStringLiteral(";;") + csv);
  dialog->setObjectName(QStringLiteral("saveProfileDialog"));
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setAcceptMode(QFileDialog::AcceptSave);
  dialog->setFileMode(QFileDialog::AnyFile);
  dialog->selectNameFilter(filter);
  dialog->selectFile(base + (filter == csv ? QStringLiteral(".csv") : QStringLiteral(".json")));
  QObject::connect(dialog, &QDialog::finished, dialog,
                   [&session, window, dialog, csv, done = std::move(done)](int result) {
                     const QStringList chosen = dialog->selectedFiles();
                     if (result != QDialog::Accepted || chosen.isEmpty()) {
                       if (done) done(false);
                       return;
                     }
                     QString path = chosen.front();
                     if (QFileInfo(path).suffix().isEmpty())
                       path += dialog->selectedNameFilter() == csv ? QStringLiteral(".csv") : QStringLiteral(".json");
                     saveChecked(session, window, path, done);
                   });
  dialog->open();
}

void exportDialog(Session& session, QWidget* window) {
  openInTurns(window, QStringLiteral("export"), [&session, window]() -> QDialog* {
    return session.profile().isEmpty() ? nullptr : new ExportDialog(session, window);
  });
}

void profileTrace(Session& session, QWidget* window) {
  if (!session.trace()) {
    Q_EMIT session.errorOccurred(tr("No trace is open"), tr("Offline profiling measures the heads of an open trace."));
    return;
  }
  ProfilingRequest request;
  request.traces = {session.trace()->info().path};
  if (const std::string& uuid = session.trace()->info().uuid; !uuid.empty()) {
    request.resumeFile = userCacheDir() / ("profiling-" + uuid + ".json");
  }
  JobSpec spec;
  spec.name = "Profile " + request.traces.front().filename().string() + " (SVOO)";
  spec.lane = Lane::Compute;
  spec.supersedeTag = "profile.measure";
  spec.userVisible = true;
  QPointer<QWidget> guard(window);
  session.jobs()
      .submit<std::shared_ptr<const Profile>>(
          spec,
          [request](JobContext& context) {
            return std::make_shared<const Profile>(profileTraces(request, context.backend(), context.control()));
          },
          [&session, guard](Outcome<std::shared_ptr<const Profile>> outcome) {
            if (const auto* failed = std::get_if<Error>(&outcome)) {
              Q_EMIT session.errorOccurred(tr("Profiling did not finish"), QString::fromStdString(failed->what()));
            } else if (const auto* profile = std::get_if<std::shared_ptr<const Profile>>(&outcome)) {
              replaceProfile(session, guard, **profile, QString(), true);
            }
          })
      .release();
}

void confirmDiscard(Session& session, QWidget* window, std::function<void()> proceed) {
  if (!session.profile().isModified() || window == nullptr) {
    proceed();
    return;
  }
  auto* box = new QMessageBox(QMessageBox::Question, tr("Unsaved profile"),
                              tr("Save the changes to %1?").arg(session.profile().displayName()),
                              QMessageBox::Save | QMessageBox::Discard | QMessageBox::Cancel, window);
  box->setObjectName(QStringLiteral("unsavedProfileQuestion"));
  box->setAttribute(Qt::WA_DeleteOnClose);
  if (const QString edit = session.profile().unsavedEdit(); !edit.isEmpty()) {
    box->setInformativeText(tr("Newest change: %1").arg(edit));
  }
  QObject::connect(box, &QMessageBox::finished, window, [&session, window, proceed = std::move(proceed)](int result) {
    if (result == QMessageBox::Discard) {
      proceed();
    } else if (result == QMessageBox::Save) {
      save(session, window, [proceed](bool ok) {
        if (ok) proceed();
      });
    }
  });
  box->open();
}

}  // namespace profile_actions

ProfileActions::ProfileActions(Session& session, QWidget* window, QObject* parent)
    : QObject(parent), m_session(session), m_window(window) {
  const auto make = [this](const QString& text, const char* name, const QString& icon, const QKeySequence& key,
                           const QString& tip, auto slot) {
    auto* action = new QAction(themedIcon(icon), text, this);
    action->setObjectName(QLatin1String(name));
    if (!key.isEmpty()) action->setShortcut(key);
    action->setToolTip(tip);
    action->setStatusTip(tip);
    connect(action, &QAction::triggered, this, [this, slot] { slot(m_session, m_window); });
    return action;
  };
  const auto key = [](const char* text) { return QKeySequence(QLatin1String(text)); };
  newProfile =
      make(tr("New profile from this trace"), "profile.new", QStringLiteral("budget"), {},
           tr("Every step, layer and head of the trace's model at 25 % kept"), &profile_actions::createFromTrace);
  open = make(tr("Open profile..."), "profile.open", QStringLiteral("open"), {},
              tr("An SVOO CSV or a Sparsight profile"), &profile_actions::openDialog);
  importProfile = make(tr("Import profile..."), "profile.import", QStringLiteral("import"), {},
                       tr("Shows what a foreign file's numbers mean under both conventions"),
                       [](Session& s, QWidget* w) { profile_actions::importFile(s, w); });
  save = make(tr("Save profile"), "profile.save", QStringLiteral("save"), key("Ctrl+S"),
              tr("JSON or CSV, by the file's name"), [](Session& s, QWidget* w) { profile_actions::save(s, w); });
  saveAs = make(tr("Save profile as..."), "profile.saveAs", QStringLiteral("save"), key("Ctrl+Shift+S"),
                tr("JSON keeps locks, notes and holes; CSV is what SVOO loads"),
                [](Session& s, QWidget* w) { profile_actions::saveAs(s, w); });
  exportProfile = make(tr("Export profile..."), "profile.export", QStringLiteral("export"), key("Ctrl+E"),
                       tr("What a runtime loads, with preview and checks"), &profile_actions::exportDialog);
  profileTrace = make(tr("Profile this trace (SVOO)"), "profile.measure", QStringLiteral("method"), {},
                      tr("Measures the exact density of every captured head; the result becomes the open profile"),
                      &profile_actions::profileTrace);
  closeProfile =
      make(tr("Close profile"), "profile.close", QStringLiteral("close"), {}, tr("Closes the open profile"),
           [](Session& s, QWidget* w) { profile_actions::confirmDiscard(s, w, [&s] { s.profile().close(); }); });
  QUndoStack& stack = session.profile().undoStack();
  undo = stack.createUndoAction(this, tr("Undo"));
  undo->setObjectName(QStringLiteral("profile.undo"));
  undo->setIcon(themedIcon(QStringLiteral("undo")));
  undo->setShortcut(key("Ctrl+Z"));
  redo = stack.createRedoAction(this, tr("Redo"));
  redo->setObjectName(QStringLiteral("profile.redo"));
  redo->setIcon(themedIcon(QStringLiteral("redo")));
  redo->setShortcuts({key("Ctrl+Shift+Z"), key("Ctrl+Y")});
  connect(&session.profile(), &ProfileDocument::profileChanged, this, [this] { refresh(); });
  connect(&session.profile(), &ProfileDocument::modifiedChanged, this, [this] { refresh(); });
  connect(&session, &Session::changed, this, [this](ChangeFlags changes) {
    if (changes.testFlag(Change::Trace)) refresh();
  });
  refresh();
}

ProfileActions::~ProfileActions() = default;

void ProfileActions::confirmDiscard(std::function<void()> proceed) {
  profile_actions::confirmDiscard(m_session, m_window, std::move(proceed));
}

void ProfileActions::refresh() {
  const ProfileDocument& document = m_session.profile();
  const bool has = !document.isEmpty(), trace = m_session.trace() != nullptr;
  newProfile->setEnabled(trace);
  profileTrace->setEnabled(trace);
  save->setEnabled(has && (document.isModified() || document.filePath().isEmpty()));
  for (QAction* action : {saveAs, exportProfile, closeProfile}) action->setEnabled(has);
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "ui/profile_document.h"

#include <QElapsedTimer>
#include <QFileInfo>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "sparsight/kernels/error.h"
#include "ui/profile_commands.h"

namespace sparsight {
namespace {

constexpr int kGestureMergeId = 1 << 30;

/// Runs journal operations one after another on its own thread: an fsync may take longer than a frame.
class JournalThread {
 public:
  explicit JournalThread(std::function<void(std::string)> onError) : m_onError(std::move(onError)) {}
  ~JournalThread() {
    {
      const std::lock_guard lock(m_mutex);
      m_stop = true;
    }
    m_wake.notify_one();
    if (m_thread.joinable()) m_thread.join();
  }
  JournalThread(const JournalThread&) = delete;
  JournalThread& operator=(const JournalThread&) = delete;

  void start(std::string key, Profile base) {
    post([key = std::move(key), base = std::move(base)](std::unique_ptr<EditJournal>& journal) {
      journal = std::make_unique<EditJournal>(key);
      journal->begin(base);
    });
  }
  void append(ProfileEdit edit) {
    post([edit = std::move(edit)](std::unique_ptr<EditJournal>& journal) {
      if (journal) journal->append(edit);
    });
  }
  void clear() {
    {
      // Saved or discarded: what is not written yet need not be.
      const std::lock_guard lock(m_mutex);
      m_tasks.clear();
    }
    post([](std::unique_ptr<EditJournal>& journal) {
      if (journal) journal->clear();
      journal.reset();
    });
  }

 private:
  using Task = std::function<void(std::unique_ptr<EditJournal>&)>;
  void post(Task task) {
    {
      const std::lock_guard lock(m_mutex);
      m_tasks.push_back(std::move(task));
    }
    if (!m_thread.joinable()) m_thread = std::thread([this] { run(); });
    m_wake.notify_one();
  }
  void run() {
    std::unique_ptr<EditJournal> journal;
    for (;;) {
      Task task;
      {
        std::unique_lock lock(m_mutex);
        m_wake.wait(lock, [this] { return m_stop || !m_tasks.empty(); });
        if (m_tasks.empty()) return;
        task = std::move(m_tasks.front());
        m_tasks.pop_front();
      }
      try {
        task(journal);
      } catch (const std::exception& error) {
        // Without a journal the edits still live in the window; say it once and go on.
        journal.reset();
        m_onError(error.what());
      }
    }
  }

  std::function<void(std::string)> m_onError;
  std::mutex m_mutex;
  std::condition_variable m_wake;
  std::deque<Task> m_tasks;
  bool m_stop = false;
  std::thread m_thread;
};

/// What turns `before` into `after`, both on the same grid.
ProfileEdit difference(const Profile& before, const Profile& after, std::string label) {
  ProfileEdit edit;
  edit.label = std::move(label);
  for (int s = 0; s < before.steps(); ++s) {
    for (int l = 0; l < before.layers(); ++l) {
      for (int h = 0; h < before.heads(); ++h) {
        const CellId cell{s, l, h};
        const auto was = before.at(cell), is = after.at(cell);
        if (was != is) edit.cells.push_back({cell, was, is});
      }
    }
  }
  for (int l = 0; l < before.layers(); ++l) {
    ProfileEdit::LayerMeta meta{l, before.layerLocked(l), after.layerLocked(l), before.layerNote(l),
                                after.layerNote(l)};
    edit.layers.push_back(std::move(meta));
  }
  return withoutNoOps(std::move(edit));
}

}  // namespace

struct ProfileDocument::Impl {
  explicit Impl(ProfileDocument& document)
      : owner(document), journal([this](std::string reason) {
          QMetaObject::invokeMethod(
              &owner,
              [this, text = QString::fromStdString(reason)] {
                if (!std::exchange(journalErrorTold, true)) Q_EMIT owner.journalFailed(text);
              },
              Qt::QueuedConnection);
        }) {
    clock.start();
    stack.setUndoLimit(kUndoLimit);
  }

  [[nodiscard]] EditCommand* gestureCommand() const {
    if (!gesture || stack.index() == 0) return nullptr;
    auto* top = dynamic_cast<EditCommand*>(const_cast<QUndoCommand*>(stack.command(stack.index() - 1)));
    return top != nullptr && top->gesture() == gestureSerial && stack.index() == stack.count() ? top : nullptr;
  }
  void record(const Profile& before, const ProfileEdit& edit) {
    if (!journalActive) {
      journalActive = true;
      journal.start(journalKey(), before);
    }
    journal.append(edit);
  }
  void clearJournal() {
    if (std::exchange(journalActive, false)) journal.clear();
  }
  [[nodiscard]] std::string journalKey() const {
    return path.isEmpty() ? "untitled-" + std::to_string(untitled) : path.toStdString();
  }
  /// The way of undo, redo and plain edits.
  void applyEdit(const ProfileEdit& edit) {
    if (!gesture) {
      record(current, edit);
    } else {
      gestureTouched = true;
    }
    edit.apply(current);
    Q_EMIT owner.profileChanged();
  }
  EditCommand::Apply applier() {
    return [this](const ProfileEdit& edit) { applyEdit(edit); };
  }
  void replace(Profile profile, const QString& newPath) {
    clearJournal();
    gesture = false;
    current = std::move(profile);
    saved = current;
    isOpen = true;
    path = newPath;
    if (path.isEmpty()) ++untitled;
    title.clear();
    stack.clear();
    stack.setClean();
  }

  ProfileDocument& owner;
  Profile current, saved, gestureBase;
  bool isOpen = false;
  QString path;
  int untitled = 0;
  QString title;
  QUndoStack stack;
  QElapsedTimer clock;
  bool gesture = false, gestureTouched = false;
  int gestureSerial = 0;
  bool journalActive = false, journalErrorTold = false;
  JournalThread journal;
};

ProfileDocument::ProfileDocument(QObject* parent) : QObject(parent), m_impl(std::make_unique<Impl>(*this)) {
  connect(&m_impl->stack, &QUndoStack::cleanChanged, this, [this](bool clean) {
    if (clean) m_impl->clearJournal();
    Q_EMIT modifiedChanged(!clean);
  });
}

ProfileDocument::~ProfileDocument() {
  // An orderly end: whoever closes the window has saved or discarded.
  m_impl->clearJournal();
  m_impl->stack.disconnect(this);
}

bool ProfileDocument::isEmpty() const noexcept { return !m_impl->isOpen; }
const Profile& ProfileDocument::current() const noexcept { return m_impl->current; }
const Profile& ProfileDocument::saved() const noexcept { return m_impl->saved; }
QString ProfileDocument::filePath() const { return m_impl->path; }

QString ProfileDocument::displayName() const {
  if (isEmpty()) return {};
  if (!m_impl->path.isEmpty()) return QFileInfo(m_impl->path).fileName();
  if (!m_impl->title.isEmpty()) return m_impl->title;
  return m_impl->untitled > 1 ? tr("Untitled profile %1").arg(m_impl->untitled) : tr("Untitled profile");
}

bool ProfileDocument::isModified() const { return m_impl->isOpen && !m_impl->stack.isClean(); }
QUndoStack& ProfileDocument::undoStack() noexcept { return m_impl->stack; }

QString ProfileDocument::unsavedEdit() const {
  if (!isModified()) return {};
  const int index = m_impl->stack.index();
  return index > 0 ? m_impl->stack.text(index - 1) : QString();
}

void ProfileDocument::open(Profile profile, const QString& path, const QString& title) {
  m_impl->replace(std::move(profile), path);
  m_impl->title = title;
  Q_EMIT modifiedChanged(false);
  Q_EMIT profileReplaced();
  Q_EMIT profileChanged();
}

void ProfileDocument::openRecovered(Profile base, const Profile& current, const QString& path) {
  const ProfileEdit edit = difference(base, current, tr("Recovered edits").toStdString());
  m_impl->replace(std::move(base), path);
  Q_EMIT modifiedChanged(false);
  Q_EMIT profileReplaced();
  Q_EMIT profileChanged();
  apply(edit);
}

void ProfileDocument::close() {
  if (isEmpty()) return;
  m_impl->replace(Profile(), QString());
  m_impl->isOpen = false;
  Q_EMIT modifiedChanged(false);
  Q_EMIT profileReplaced();
  Q_EMIT profileChanged();
}

void ProfileDocument::apply(const ProfileEdit& edit, int mergeId) {
  const ProfileEdit effective = withoutNoOps(edit);
  if (isEmpty() || effective.empty()) return;
  EditCommand::Options options;
  options.mergeId = mergeId;
  options.gesture = m_impl->gesture ? m_impl->gestureSerial : 0;
  options.timeMs = m_impl->clock.elapsed();
  options.burstMs = kBurstMs;
  m_impl->stack.push(new EditCommand(m_impl->applier(), effective, options));
}

void ProfileDocument::beginGesture() {
  if (isEmpty()) return;
  endGesture();
  m_impl->gesture = true;
  m_impl->gestureTouched = false;
  ++m_impl->gestureSerial;
  m_impl->gestureBase = m_impl->current;
}

void ProfileDocument::endGesture() {
  if (!m_impl->gesture) return;
  m_impl->gesture = false;
  // A drag is journalled once, as the difference it made, not at every mouse move.
  if (m_impl->gestureTouched && isModified()) {
    const ProfileEdit edit = difference(m_impl->gestureBase, m_impl->current, m_impl->stack.undoText().toStdString());
    if (!edit.empty()) m_impl->record(m_impl->gestureBase, edit);
  }
  m_impl->gestureBase = Profile();
}

bool ProfileDocument::inGesture() const noexcept { return m_impl->gesture; }

const Profile& ProfileDocument::gestureStart() const noexcept {
  return m_impl->gesture ? m_impl->gestureBase : m_impl->current;
}

void ProfileDocument::applyFromGestureStart(const ProfileEdit& edit) {
  if (!m_impl->gesture) {
    apply(edit);
    return;
  }
  const ProfileEdit effective = withoutNoOps(edit);
  const EditCommand* previous = m_impl->gestureCommand();
  if (previous == nullptr && effective.empty()) return;
  if (previous != nullptr) previous->edit().inverse().apply(m_impl->current);
  effective.apply(m_impl->current);
  m_impl->gestureTouched = true;
  EditCommand::Options options;
  options.mergeId = kGestureMergeId;
  options.gesture = m_impl->gestureSerial;
  options.replaces = true;
  options.applied = true;
  m_impl->stack.push(new EditCommand(m_impl->applier(), effective, options));
  Q_EMIT profileChanged();
}

void ProfileDocument::cancelGesture() {
  applyFromGestureStart({});
  endGesture();
}

void ProfileDocument::markUnsaved() {
  if (isEmpty() || isModified()) return;
  m_impl->stack.resetClean();
}

void ProfileDocument::markSaved(const QString& path) { markSaved(path, m_impl->current); }

void ProfileDocument::markSaved(const QString& path, const Profile& written) {
  if (isEmpty()) return;
  m_impl->path = path;
  m_impl->saved = written;
  if (written == m_impl->current) {
    m_impl->clearJournal();
    m_impl->stack.setClean();
  } else {
    m_impl->stack.resetClean();
  }
  Q_EMIT modifiedChanged(isModified());
  Q_EMIT profileChanged();
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QObject>
#include <QString>
#include <QUndoStack>
#include <memory>

#include "sparsight/core/profile.h"

namespace sparsight {

/// The open profile with its undo stack, file name, saved state and crash journal. GUI thread only; reading and writing
/// profiles is done by the caller's jobs, which hand values in. The crash journal is written by a thread of the
/// document.
class ProfileDocument : public QObject {
  Q_OBJECT
 public:
  explicit ProfileDocument(QObject* parent = nullptr);
  ~ProfileDocument() override;

  [[nodiscard]] bool isEmpty() const noexcept;  ///< no profile open
  [[nodiscard]] const Profile& current() const noexcept;
  [[nodiscard]] const Profile& saved() const noexcept;  ///< ghost line: as last saved or opened
  [[nodiscard]] QString filePath() const;
  [[nodiscard]] QString displayName() const;
  [[nodiscard]] bool isModified() const;
  [[nodiscard]] QUndoStack& undoStack() noexcept;
  /// Name of the newest edit that is not in the file; empty when there is none.
  [[nodiscard]] QString unsavedEdit() const;

  /// Replaces everything, clears undo. `title` names a profile that no file holds yet.
  void open(Profile profile, const QString& path, const QString& title = {});
  /// Like open(base), with the difference to `current` as one undoable edit: a journal found after a crash. Both
  /// need the same grid.
  void openRecovered(Profile base, const Profile& current, const QString& path);
  void close();
  /// Pushes an edit; edits with the same mergeId (>= 0) between beginGesture and endGesture become one undo entry, and
  /// so do edits with the same mergeId outside of gestures that are at most kBurstMs apart (keyboard bursts).
  void apply(const ProfileEdit& edit, int mergeId = -1);
  void beginGesture();
  void endGesture();
  /// For drags: `edit` is made from gestureStart() and replaces what this gesture did so far, so that values clamped on
  /// the way come back when the pointer does. An empty edit takes the gesture's undo entry away again.
  void applyFromGestureStart(const ProfileEdit& edit);
  [[nodiscard]] bool inGesture() const noexcept;
  [[nodiscard]] const Profile& gestureStart() const noexcept;  ///< current() outside of a gesture
  /// Takes the whole gesture back (Esc).
  void cancelGesture();
  /// What is shown is in no file: isModified() is true until it is saved (a profile that took minutes to compute).
  void markUnsaved();
  void markSaved(const QString& path);
  /// A job wrote `written` while edits may have gone on: clean only if nothing changed since.
  void markSaved(const QString& path, const Profile& written);

  static constexpr int kBurstMs = 800;
  static constexpr int kUndoLimit = 500;

 Q_SIGNALS:
  void profileReplaced();  ///< another profile, or none; profileChanged follows
  void profileChanged();   ///< values, locks, notes or another profile
  void modifiedChanged(bool modified);
  void journalFailed(const QString& reason);  ///< once per document: unsaved edits would not survive a crash

 private:
  struct Impl;
  std::unique_ptr<Impl> m_impl;
};

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QObject>
#include <QString>
#include <QUndoStack>
#include <memory>

#include "sparsight/core/profile.h"

namespace sparsight {

/// The open profile with its undo stack, file name, saved state and crash journal. GUI thread only; reading and writing
/// files is done by the caller's jobs, which hand values in.
class ProfileDocument : public QObject {
  Q_OBJECT
 public:
  explicit ProfileDocument(QObject* parent = nullptr);
  ~ProfileDocument() override;

  [[nodiscard]] bool isEmpty() const noexcept;                 ///< no profile open
  [[nodiscard]] const Profile& current() const noexcept;
  [[nodiscard]] const Profile& saved() const noexcept;         ///< ghost line: as last saved or opened
  [[nodiscard]] QString filePath() const;
  [[nodiscard]] QString displayName() const;
  [[nodiscard]] bool isModified() const;
  [[nodiscard]] QUndoStack& undoStack() noexcept;

  void open(Profile profile, const QString& path);             ///< replaces everything, clears undo
  void close();
  /// Pushes an edit; edits with the same mergeId (>= 0) between beginGesture and endGesture become one undo entry.
  void apply(const ProfileEdit& edit, int mergeId = -1);
  void beginGesture();
  void endGesture();
  void markSaved(const QString& path);

 signals:
  void profileChanged();      ///< values, locks, notes or another profile
  void modifiedChanged(bool modified);

 private:
  struct Impl;
  std::unique_ptr<Impl> m_impl;
};

}  // namespace sparsight

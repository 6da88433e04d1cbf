// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QDialog>
#include <memory>

#include "sparsight/core/importer.h"
#include "sparsight/core/job.h"

class QLineEdit;
class QListWidget;
class QPushButton;
class QSpinBox;

namespace sparsight {

class NoteLabel;
class Session;

/// Asks for what another program's budget does not say: the length of the run, layers and heads of the model, the
/// schedule of a log that names timesteps. Shows what comes out and what is taken for granted. Reading is a job.
class ProfileFactsDialog : public QDialog {
  Q_OBJECT
 public:
  ProfileFactsDialog(Session& session, const QString& path, QWidget* parent);
  ~ProfileFactsDialog() override;

  [[nodiscard]] ProfileImportOptions options() const;
  /// As the fields say it now; nullptr while it is read or something is missing.
  [[nodiscard]] std::shared_ptr<const ProfileImport> read() const noexcept { return m_read; }
  [[nodiscard]] bool isSettled() const noexcept { return !m_reading; }

 private:
  void refresh();
  void show(const ProfileImport& read);

  Session& m_session;
  QString m_path;
  std::shared_ptr<const ProfileImport> m_read;
  JobHandle m_job;
  bool m_reading = false;
  QSpinBox *m_steps = nullptr, *m_layers = nullptr, *m_heads = nullptr;
  QLineEdit* m_timesteps = nullptr;
  QListWidget* m_assumed = nullptr;
  NoteLabel* m_state = nullptr;
  QPushButton* m_open = nullptr;
};

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QDialog>
#include <memory>
#include <string>

#include "sparsight/core/exporter.h"
#include "sparsight/core/job.h"

class QCheckBox;
class QComboBox;
class QDoubleSpinBox;
class QFormLayout;
class QLabel;
class QLineEdit;
class QListWidget;
class QPlainTextEdit;
class QPushButton;
class QScrollArea;
class QToolButton;

namespace sparsight {

class MethodForm;
class NoteLabel;
class Session;

/// Exports the open profile to any target that core has: model and parameters of the target, preview of the first
/// lines, checks, what to do with holes, path. What is previewed is what is written; formatting and writing run on the
/// Io lane. Remembers the last choice.
class ExportDialog : public QDialog {
  Q_OBJECT
 public:
  ExportDialog(Session& session, QWidget* parent);
  ~ExportDialog() override;

  /// By the exporter's id.
  void setTarget(const QString& id);
  [[nodiscard]] const Exporter& target() const;
  void setPath(const QString& path);
  [[nodiscard]] QString path() const;
  void setFill(FillPolicy policy, double value = 0);
  /// True when the preview is up to date and nothing is being written.
  [[nodiscard]] bool isSettled() const;

 Q_SIGNALS:
  void exported(const QString& path);

 private:
  /// What lies where the files would go; looked up by the job that prepares them.
  struct Place {
    bool isFile = false, isFolder = false, hasFolder = true;
    QString folder;     ///< that would hold the file
    QString companion;  ///< a file beside it that exists already
  };
  struct Prepared {
    ExportOutput output;
    QString error;
    Place place;
  };
  void showTarget();
  void refreshPreview();
  void refreshChecks();
  void refreshButton();
  void write();
  void browse();
  [[nodiscard]] QString suffix() const;
  [[nodiscard]] std::string model() const;

  Session& m_session;
  QComboBox *m_format = nullptr, *m_model = nullptr, *m_fill = nullptr;
  MethodForm* m_params = nullptr;
  QToolButton* m_more = nullptr;
  QScrollArea* m_paramsArea = nullptr;
  QDoubleSpinBox* m_fillValue = nullptr;
  NoteLabel* m_summary = nullptr;
  QFormLayout* m_form = nullptr;
  const Exporter* m_shownTarget = nullptr;
  QLabel *m_holes = nullptr, *m_size = nullptr, *m_load = nullptr, *m_state = nullptr;
  QPlainTextEdit* m_preview = nullptr;
  QListWidget* m_checks = nullptr;
  QLineEdit* m_path = nullptr;
  QCheckBox* m_replace = nullptr;
  QPushButton* m_export = nullptr;
  std::shared_ptr<const Prepared> m_prepared;
  JobHandle m_previewJob, m_writeJob;
  QString m_proposedFolder, m_usualFolder;  ///< of the last time, looked at by the first preview; where it is gone
  bool m_preparing = false, m_writing = false;
};

}  // namespace sparsight

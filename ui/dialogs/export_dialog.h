// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QDialog>
#include <memory>
#include <string>

#include "sparsight/core/job.h"
#include "sparsight/core/profile.h"

class QCheckBox;
class QComboBox;
class QDoubleSpinBox;
class QLabel;
class QLineEdit;
class QListWidget;
class QPlainTextEdit;
class QPushButton;

namespace sparsight {

class Session;

/// Exports the open profile as SVOO CSV or JSON: preview of the first lines, checks, what to do with holes, path. What
/// is previewed is what is written; formatting and writing run on the Io lane. Remembers the last choice.
class ExportDialog : public QDialog {
  Q_OBJECT
 public:
  enum class Format { SvooCsv, Json };
  ExportDialog(Session& session, QWidget* parent);
  ~ExportDialog() override;

  void setFormat(Format format);
  [[nodiscard]] Format format() const;
  void setPath(const QString& path);
  [[nodiscard]] QString path() const;
  void setFill(FillPolicy policy, double value = 0);
  /// True when the preview is up to date and nothing is being written.
  [[nodiscard]] bool isSettled() const;

 Q_SIGNALS:
  void exported(const QString& path);

 private:
  struct Prepared {
    std::string content;
    QString error;
  };
  void refreshPreview();
  void refreshChecks();
  void refreshButton();
  [[nodiscard]] QString loadLine() const;
  void write();
  void browse();
  [[nodiscard]] QString suffix() const;

  Session& m_session;
  QComboBox *m_format = nullptr, *m_fill = nullptr;
  QDoubleSpinBox* m_fillValue = nullptr;
  QLabel *m_holes = nullptr, *m_size = nullptr, *m_load = nullptr, *m_state = nullptr;
  QPlainTextEdit* m_preview = nullptr;
  QListWidget* m_checks = nullptr;
  QLineEdit* m_path = nullptr;
  QCheckBox* m_replace = nullptr;
  QPushButton* m_export = nullptr;
  std::shared_ptr<const Prepared> m_prepared;
  JobHandle m_previewJob, m_writeJob;
  bool m_preparing = false, m_writing = false;
};

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QDialog>
#include <QString>
#include <QStringList>
#include <array>
#include <memory>
#include <vector>

#include "sparsight/core/importer.h"
#include "sparsight/core/job.h"

class QCheckBox;
class QComboBox;
class QFormLayout;
class QLabel;
class QLineEdit;
class QListWidget;
class QPushButton;
class QSpinBox;
class QToolButton;
class QTreeWidget;
class QTreeWidgetItem;
class QWidget;

namespace sparsight {

class ElidedLabel;
class NoteLabel;
class Session;

/// Shows what a file or folder of tensors holds, asks for what it does not say, shows what will be taken for granted,
/// and where the trace goes. Looking and planning are jobs on the Io lane; the conversion itself is the session's.
class TraceImportDialog : public QDialog {
  Q_OBJECT
 public:
  /// Several files lie in one folder.
  TraceImportDialog(Session& session, const QStringList& sources, QWidget* parent);
  ~TraceImportDialog() override;

  [[nodiscard]] QString path() const;
  void setPath(const QString& path);
  /// As the fields say it.
  [[nodiscard]] ImportOptions options() const;
  /// False while it is looking or planning.
  [[nodiscard]] bool isSettled() const { return !m_looking && !m_planning; }
  [[nodiscard]] const std::shared_ptr<const Survey>& survey() const noexcept { return m_survey; }
  /// What will be done; nullptr while something is missing.
  [[nodiscard]] std::shared_ptr<const ImportPlan> plan() const;

 private:
  struct Drafted {
    ImportDraft draft;
    bool exists = false, folderMissing = false;
  };
  void build();
  void look();
  void showFound();
  void showPlace(QTreeWidgetItem* item, const TensorPlace& place) const;
  void refresh();
  void showDraft();
  void takeProposal(int index);
  void browse();
  void accept() override;

  Session& m_session;
  QString m_source;
  QStringList m_only;
  std::shared_ptr<const Survey> m_survey;
  std::shared_ptr<const Drafted> m_drafted;
  JobHandle m_lookJob, m_planJob;
  bool m_looking = false, m_planning = false, m_filling = false;

  ElidedLabel* m_title = nullptr;
  NoteLabel *m_facts = nullptr, *m_state = nullptr;
  QTreeWidget* m_found = nullptr;
  QFormLayout* m_form = nullptr;
  QComboBox *m_preset = nullptr, *m_proposals = nullptr, *m_branch = nullptr, *m_raw16 = nullptr;
  std::array<QSpinBox*, 3> m_grid{};
  QSpinBox *m_text = nullptr, *m_step = nullptr, *m_layer = nullptr, *m_steps = nullptr, *m_doubleBlocks = nullptr;
  QCheckBox *m_textFirst = nullptr, *m_cross = nullptr, *m_replace = nullptr;
  QLineEdit *m_scale = nullptr, *m_axes = nullptr, *m_path = nullptr;
  std::array<QLineEdit*, 3> m_patterns{};
  QToolButton* m_more = nullptr;
  QWidget *m_body = nullptr, *m_moreArea = nullptr;
  QListWidget* m_assumed = nullptr;
  QPushButton* m_go = nullptr;
};

}  // namespace sparsight

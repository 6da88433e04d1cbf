// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QTableView>
#include <set>

#include "ui/profile_model.h"

namespace sparsight {

/// The table of a ProfileModel: F2 or typing edits, Ctrl+C / Ctrl+V as TSV, Ctrl+D fills down, Space toggles a lock,
/// Esc takes back a text that could not be read. Such a cell has a red frame, an icon and the reason as text.
class BudgetTable : public QTableView {
  Q_OBJECT
 public:
  explicit BudgetTable(ProfileModel& model, QWidget* parent = nullptr);
  ~BudgetTable() override;

  /// Widths for the header's and the digits' present fonts.
  void fitColumns();
  void copy();
  void paste();
  void fillDown();
  [[nodiscard]] std::set<int> selectedLayers() const;
  void selectLayers(const std::set<int>& layers, int current);

 Q_SIGNALS:
  void layersSelected();

 protected:
  bool event(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void selectionChanged(const QItemSelection& selected, const QItemSelection& deselected) override;

 private:
  ProfileModel& m_model;
};

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QAbstractTableModel>
#include <QModelIndexList>
#include <map>
#include <utility>
#include <vector>

#include "ui/budget_edit.h"

namespace sparsight {

class ProfileDocument;

/// One row per layer of the open profile, over a scope of steps and heads. The budget curve and the table show the same
/// model; all changes go through the document and so into its undo list.
class ProfileModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Column : int { LayerColumn, KeptColumn, MinColumn, MaxColumn, SavedColumn, LockColumn, NoteColumn, ColumnCount };
  enum Role : int {
    FractionRole = Qt::UserRole + 1,  ///< double, or invalid for a layer without values
    InvalidTextRole,                  ///< what was typed and could not be taken, else invalid
    InvalidReasonRole,
    LockedRole,
  };
  explicit ProfileModel(ProfileDocument& document, QObject* parent = nullptr);
  ~ProfileModel() override;

  [[nodiscard]] const BudgetScope& scope() const noexcept { return m_scope; }
  void setScope(const BudgetScope& scope);
  [[nodiscard]] SpreadMode spread() const noexcept { return m_spread; }
  void setSpread(SpreadMode mode) { m_spread = mode; }
  [[nodiscard]] ProfileDocument& document() const noexcept { return m_document; }

  /// Summaries over the scope, one per layer; what every cell of the table and every point of the curve shows.
  [[nodiscard]] const std::vector<ProfileSummary>& layers() const noexcept { return m_layers; }
  [[nodiscard]] const std::vector<ProfileSummary>& savedLayers() const noexcept { return m_savedLayers; }
  [[nodiscard]] ProfileSummary total() const;

  [[nodiscard]] int rowCount(const QModelIndex& parent = {}) const override;
  [[nodiscard]] int columnCount(const QModelIndex& parent = {}) const override;
  [[nodiscard]] QVariant data(const QModelIndex& index, int role) const override;
  [[nodiscard]] QVariant headerData(int section, Qt::Orientation orientation, int role) const override;
  [[nodiscard]] Qt::ItemFlags flags(const QModelIndex& index) const override;
  /// A text that cannot be taken stays in the cell, marked invalid, until it is fixed or reset; the profile keeps its
  /// value.
  bool setData(const QModelIndex& index, const QVariant& value, int role = Qt::EditRole) override;
  void discardInvalid(const QModelIndex& index);
  [[nodiscard]] int invalidCount() const noexcept { return static_cast<int>(m_invalid.size()); }

  /// Tab separated, as spreadsheets take it: the rectangle around `indexes`, other cells empty.
  [[nodiscard]] QString copyTsv(const QModelIndexList& indexes) const;
  /// One undo entry for the whole paste. Values without % that are all at most 1 are read as fractions, which is said.
  bool pasteTsv(const QModelIndex& topLeft, const QString& text);
  /// Copies the first selected row's value to the rows below it, per column.
  bool fillDown(const QModelIndexList& indexes);

 Q_SIGNALS:
  /// One line for the user: how an input was read, or why it was not taken.
  void message(const QString& text, bool isError);

 private:
  void refresh(bool force);
  void setInvalid(int row, int column, const QString& text, const QString& reason);
  bool setKept(int row, const QString& text);

  ProfileDocument& m_document;
  BudgetScope m_scope;
  SpreadMode m_spread = SpreadMode::Shift;
  std::vector<ProfileSummary> m_layers, m_savedLayers;
  std::map<std::pair<int, int>, std::pair<QString, QString>> m_invalid;
};

}  // namespace sparsight

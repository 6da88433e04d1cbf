// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QTableWidget>
#include <vector>

#include "ui/compare_runs.h"

namespace sparsight {

/// A row of the comparison table: a method and what is known of it.
struct CompareRow {
  QString method, title;
  CompareAnswerPtr answer;  ///< nullptr: nothing yet
  QString state;            ///< instead of numbers: "waiting", why it failed
  bool failed = false;
  friend bool operator==(const CompareRow&, const CompareRow&) = default;
};

/// The methods of a comparison as a table of means and sums over the heads that were asked for.
class CompareTable : public QTableWidget {
  Q_OBJECT
 public:
  explicit CompareTable(QWidget* parent = nullptr);
  void setRows(std::vector<CompareRow> rows, const std::optional<BudgetTarget>& target);
  /// Tab-separated, one line per answered method, with the names and full precision of `sparsight-cli compare --json`.
  [[nodiscard]] QString tsv() const;
  [[nodiscard]] QSize sizeHint() const override;
  /// Colours of the current theme.
  void restyle();

 protected:
  void keyPressEvent(QKeyEvent* event) override;

 private:
  enum Column {
    Method,
    Setting,
    Reached,
    Off,
    Step,
    Kept,
    Skipped,
    Mass,
    MassP5,
    Error,
    Cosine,
    Starved,
    Time,
    Planner,
    PlannerShare,
    Attention,
    kColumns
  };
  void fill();
  std::vector<CompareRow> m_rows;
  std::optional<BudgetTarget> m_target;
};

/// "1.23 G" floating point operations.
[[nodiscard]] QString formatFlops(double flops);

}  // namespace sparsight

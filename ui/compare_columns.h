// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QWidget>
#include <memory>
#include <optional>
#include <vector>

#include "sparsight/core/plan.h"
#include "ui/canvas/tile_canvas.h"

namespace sparsight {

/// What stands above a method's map.
struct CompareCaption {
  QString title;
  HeadClass headClass = HeadClass::None;
  QString detail;  ///< beside the title: class with margin, level
  QString kept;    ///< "kept 26.5 % (skipped 73.5 %)"
  QString numbers;
  QString state;  ///< instead of the numbers: "waiting", why there are none
  bool failed = false;
  double progress = -1;  ///< 0..1: a bar; below: none
  friend bool operator==(const CompareCaption&, const CompareCaption&) = default;
};

/// Maps of one head side by side, one per method, with captions and one scale. All show the same crop with the same
/// colours: what is done to one is done to all. Wraps into rows where that makes the maps larger.
class CompareColumns : public QWidget {
  Q_OBJECT
 public:
  CompareColumns(JobQueue& jobs, QWidget* parent = nullptr);

  void setCount(int count);
  [[nodiscard]] int count() const noexcept { return m_count; }
  void setCaption(int column, const CompareCaption& caption);
  [[nodiscard]] const CompareCaption& caption(int column) const;
  [[nodiscard]] TileCanvas& canvas(int column) { return *m_columns[static_cast<std::size_t>(column)].canvas; }
  [[nodiscard]] const TileCanvas& canvas(int column) const {
    return *m_columns[static_cast<std::size_t>(column)].canvas;
  }
  /// nullptr: nothing to show.
  void setMap(const std::shared_ptr<AttentionMap>& map, const AxisSpec& queries, const AxisSpec& keys);
  void setOverlay(int column, std::shared_ptr<const PlanOverlay> overlay);
  /// Whether a column's plan keeps a pair; nullopt: no overlay, or the plan needs the probability.
  [[nodiscard]] std::optional<bool> keeps(int column, Index row, Index col, std::optional<double> probability) const;
  void setReduce(Reduce reduce);
  void setColors(const ColorSettings& colors);
  void setPicked(Index row, Index col);
  [[nodiscard]] bool isSettled() const;
  [[nodiscard]] bool isApproximate() const { return m_columns.front().canvas->isApproximate(); }
  [[nodiscard]] TileCanvas& lead() { return *m_columns.front().canvas; }

 Q_SIGNALS:
  void pointed(int column);  ///< the readout of a column changed
  void picked(sparsight::Index row, sparsight::Index col);
  void navigate(int steps, int layers, int heads);
  void levelsChanged();
  void viewportChanged();

 protected:
  void resizeEvent(QResizeEvent* event) override;
  void changeEvent(QEvent* event) override;
  void paintEvent(QPaintEvent* event) override;

 private:
  class Caption;
  struct Column {
    Caption* caption;
    TileCanvas* canvas;
    std::shared_ptr<const PlanOverlay> overlay;
  };
  void addColumn();
  void arrange();
  JobQueue& m_jobs;
  std::vector<Column> m_columns;  // the first is the one that computes
  int m_count = 0;
  bool m_linking = false;
  std::shared_ptr<AttentionMap> m_map;
  AxisSpec m_queries, m_keys;
};

}  // namespace sparsight

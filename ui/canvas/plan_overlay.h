// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "sparsight/core/attention_map.h"
#include "sparsight/core/plan.h"

namespace sparsight {

/// What a plan keeps, as a map in a given token order shows it. Heavy members are for job lanes; thread-safe.
class PlanOverlay {
 public:
  /// The orders are the map's; plan and map must be of the same head (throws Error{InvalidArgument} otherwise).
  PlanOverlay(std::shared_ptr<const Plan> plan, const AttentionMap& map);

  [[nodiscard]] const Plan& plan() const noexcept { return *m_plan; }
  /// Kept share of every cell, 0..255. For max-pooled tiles a cell is kept if any of its pairs is: needles stay
  /// visible. Exact where map and plan share the order or a cell has at most 256 pairs, otherwise from 256 pairs of the
  /// cell. Plans by row threshold keep a cell whose value reaches the smallest threshold of its rows.
  [[nodiscard]] std::vector<std::uint8_t> mask(const TileKey& key, int cellRows, int cellCols,
                                               std::span<const float> values) const;
  /// One pair by map position. Row-threshold plans need the pair's probability, else nullopt.
  [[nodiscard]] std::optional<bool> kept(Index rowPosition, Index colPosition, std::optional<double> probability) const;
  /// Kept keys / keys of every map row.
  [[nodiscard]] std::vector<float> rowKept() const;

 private:
  [[nodiscard]] bool keptInPlan(Index planRow, Index planCol) const noexcept;
  /// Rows [row, result) keep the same keys as `row`.
  [[nodiscard]] Index runEnd(Index planRow) const noexcept;

  std::shared_ptr<const Plan> m_plan;
  Index m_rows = 0, m_cols = 0;
  bool m_sameOrder = false;
  std::vector<Index> m_planRow, m_planCol;           // map position -> plan position; empty when the orders agree
  std::vector<Index> m_modelRow;                     // map position -> stored row; empty: model order
  std::vector<std::int32_t> m_rowBlock, m_colBlock;  // plan position -> block
  std::vector<std::int32_t> m_rowGroup;              // plan position -> interval group
};

}  // namespace sparsight

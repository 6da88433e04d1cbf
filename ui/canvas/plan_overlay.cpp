// SPDX-License-Identifier: Apache-2.0
#include "ui/canvas/plan_overlay.h"

#include <algorithm>
#include <cmath>

#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

std::vector<std::int32_t> blockOfPosition(const std::vector<Index>& bounds, Index size) {
  std::vector<std::int32_t> out(at(size), -1);
  for (std::size_t b = 0; b + 1 < bounds.size(); ++b) {
    for (Index i = std::max<Index>(0, bounds[b]); i < std::min(size, bounds[b + 1]); ++i) {
      out[at(i)] = static_cast<std::int32_t>(b);
    }
  }
  return out;
}

bool sameOrder(std::span<const Index> a, std::span<const Index> b) {
  const auto identity = [](std::span<const Index> order) {
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (order[i] != static_cast<Index>(i)) return false;
    }
    return true;
  };
  if (a.empty()) return identity(b);
  if (b.empty()) return identity(a);
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

/// Map position -> position in the plan's order.
std::vector<Index> positions(std::span<const Index> mapOrder, const std::vector<Index>& planOrder, Index size) {
  std::vector<Index> planPosition(at(size)), out(at(size));
  for (Index i = 0; i < size; ++i) planPosition[at(planOrder.empty() ? i : planOrder[at(i)])] = i;
  for (Index i = 0; i < size; ++i) out[at(i)] = planPosition[at(mapOrder.empty() ? i : mapOrder[at(i)])];
  return out;
}

std::uint8_t shareOf(double kept, double total, Reduce reduce) {
  if (kept <= 0) return 0;
  if (reduce == Reduce::Max || kept >= total) return 255;
  return static_cast<std::uint8_t>(std::clamp(std::lround(kept / total * 255.0), 1L, 254L));
}

constexpr Index kSamplesPerSide = 16;

}  // namespace

PlanOverlay::PlanOverlay(std::shared_ptr<const Plan> plan, const AttentionMap& map)
    : m_plan(std::move(plan)), m_rows(map.rows()), m_cols(map.cols()) {
  if (m_plan->queryCount != m_rows || m_plan->keyCount != m_cols) {
    throw Error(ErrorCode::InvalidArgument,
                "the result is of a head with another number of tokens; run the method again");
  }
  m_sameOrder = sameOrder(map.qOrder(), m_plan->qOrder) && sameOrder(map.kOrder(), m_plan->kOrder);
  if (!m_sameOrder) {
    m_planRow = positions(map.qOrder(), m_plan->qOrder, m_rows);
    m_planCol = positions(map.kOrder(), m_plan->kOrder, m_cols);
  }
  m_modelRow.assign(map.qOrder().begin(), map.qOrder().end());
  m_rowBlock = blockOfPosition(m_plan->qBounds, m_rows);
  m_colBlock = blockOfPosition(m_plan->kBounds, m_cols);
  if (!m_plan->intervalRows.empty()) m_rowGroup = blockOfPosition(m_plan->intervalRows, m_rows);
}

bool PlanOverlay::keptInPlan(Index planRow, Index planCol) const noexcept {
  const Plan& plan = *m_plan;
  const std::int32_t rowBlock = m_rowBlock[at(planRow)], colBlock = m_colBlock[at(planCol)];
  const bool blocks = !plan.blockMask.empty() && rowBlock >= 0 && colBlock >= 0;
  if (blocks) {
    const std::uint8_t state = plan.blockMask[at(rowBlock * plan.kBlocks() + colBlock)];
    if (state == static_cast<std::uint8_t>(BlockState::Skipped)) return false;
    if (state == static_cast<std::uint8_t>(BlockState::Whole) || m_rowGroup.empty()) return true;
  }
  if (m_rowGroup.empty()) return false;
  const std::int32_t group = m_rowGroup[at(planRow)];
  if (group < 0) return false;
  const auto first = plan.rowIntervals.begin() + plan.rowIntervalsPtr[at(group)];
  const auto last = plan.rowIntervals.begin() + plan.rowIntervalsPtr[at(group) + 1];
  const auto next = std::upper_bound(first, last, planCol, [](Index c, const Interval& i) { return c < i.first; });
  return next != first && planCol < std::prev(next)->last;
}

Index PlanOverlay::runEnd(Index planRow) const noexcept {
  const Plan& plan = *m_plan;
  if (!m_rowGroup.empty()) {
    const std::int32_t group = m_rowGroup[at(planRow)];
    return group < 0 ? planRow + 1 : plan.intervalRows[at(group) + 1];
  }
  const std::int32_t block = m_rowBlock[at(planRow)];
  return block < 0 ? planRow + 1 : plan.qBounds[at(block) + 1];
}

std::vector<std::uint8_t> PlanOverlay::mask(const TileKey& key, int tileRows, int tileCols,
                                            std::span<const float> values) const {
  const Plan& plan = *m_plan;
  const int z = key.level;
  const Index side = Index{1} << z;
  const Index row0 = (key.tileY * kTileCells) << z, col0 = (key.tileX * kTileCells) << z;
  std::vector<std::uint8_t> out(at(Index{tileRows} * tileCols), 0);
  std::vector<double> sums(at(tileCols));
  for (Index cell = 0; cell < tileRows; ++cell) {
    const Index r0 = row0 + cell * side, r1 = std::min(m_rows, r0 + side);
    std::uint8_t* line = out.data() + cell * tileCols;
    const auto cellCols = [&](Index c) { return std::pair{col0 + c * side, std::min(m_cols, col0 + (c + 1) * side)}; };

    if (!plan.rowCount.empty()) {
      float threshold = INFINITY;
      for (Index r = r0; r < r1; ++r) {
        const Index row = m_modelRow.empty() ? r : m_modelRow[at(r)];
        if (plan.rowCount[at(row)] > 0) threshold = std::min(threshold, plan.rowThreshold[at(row)]);
      }
      for (Index c = 0; c < tileCols; ++c) {
        // Stored thresholds and tile values are both float32 of the same quantity, computed by different sums.
        line[c] = values[at(cell * tileCols + c)] >= threshold * (1.0F - 1e-5F) ? 255 : 0;
      }
      continue;
    }
    if (m_sameOrder) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (Index r = r0; r < r1;) {
        const Index end = std::min(r1, runEnd(r));
        for (const Interval& kept : plan.keptIntervals(r)) {
          const Index first = std::max(kept.first, col0);
          const Index last = std::min({kept.last, m_cols, col0 + Index{tileCols} * side});
          for (Index c = first; c < last;) {
            const Index index = (c - col0) >> z;
            const Index stop = std::min(last, col0 + (index + 1) * side);
            sums[at(index)] += static_cast<double>((stop - c) * (end - r));
            c = stop;
          }
        }
        r = end;
      }
      for (Index c = 0; c < tileCols; ++c) {
        const auto [c0, c1] = cellCols(c);
        line[c] = shareOf(sums[at(c)], static_cast<double>((r1 - r0) * (c1 - c0)), key.reduce);
      }
      continue;
    }
    for (Index c = 0; c < tileCols; ++c) {
      const auto [c0, c1] = cellCols(c);
      const Index ny = std::min(kSamplesPerSide, r1 - r0), nx = std::min(kSamplesPerSide, c1 - c0);
      Index hits = 0;
      for (Index y = 0; y < ny; ++y) {
        const Index planRow = m_planRow[at(r0 + (2 * y + 1) * (r1 - r0) / (2 * ny))];
        for (Index x = 0; x < nx; ++x) {
          hits += keptInPlan(planRow, m_planCol[at(c0 + (2 * x + 1) * (c1 - c0) / (2 * nx))]) ? 1 : 0;
        }
      }
      line[c] = shareOf(static_cast<double>(hits), static_cast<double>(nx * ny), key.reduce);
    }
  }
  return out;
}

std::optional<bool> PlanOverlay::kept(Index rowPosition, Index colPosition, std::optional<double> probability) const {
  const Plan& plan = *m_plan;
  if (!plan.rowCount.empty()) {
    if (!probability) return std::nullopt;
    const Index row = m_modelRow.empty() ? rowPosition : m_modelRow[at(rowPosition)];
    return plan.rowCount[at(row)] > 0 && *probability >= static_cast<double>(plan.rowThreshold[at(row)]) * (1.0 - 1e-5);
  }
  return m_sameOrder ? keptInPlan(rowPosition, colPosition)
                     : keptInPlan(m_planRow[at(rowPosition)], m_planCol[at(colPosition)]);
}

std::vector<float> PlanOverlay::rowKept() const {
  const Plan& plan = *m_plan;
  std::vector<float> inPlan(at(m_rows));
  if (!plan.rowCount.empty()) {
    for (Index r = 0; r < m_rows; ++r) {
      const Index row = m_modelRow.empty() ? r : m_modelRow[at(r)];
      inPlan[at(r)] = static_cast<float>(plan.rowCount[at(row)]) / static_cast<float>(m_cols);
    }
    return inPlan;
  }
  for (Index r = 0; r < m_rows;) {
    const Index end = std::max(r + 1, std::min(m_rows, runEnd(r)));
    Index kept = 0;
    for (const Interval& interval : plan.keptIntervals(r)) kept += interval.last - interval.first;
    std::fill(inPlan.begin() + r, inPlan.begin() + end, static_cast<float>(kept) / static_cast<float>(m_cols));
    r = end;
  }
  if (m_sameOrder) return inPlan;
  std::vector<float> out(at(m_rows));
  for (Index r = 0; r < m_rows; ++r) out[at(r)] = inPlan[at(m_planRow[at(r)])];
  return out;
}

}  // namespace sparsight

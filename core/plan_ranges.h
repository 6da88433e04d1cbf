// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "sparsight/core/plan.h"

namespace sparsight {

/// The kept key ranges of a plan by group of row positions: its exact intervals, or its whole blocks merged. Borrows
/// from the plan. Throws Error{InvalidArgument} for plans by row count.
class KeptRanges {
 public:
  explicit KeptRanges(const Plan& plan);
  KeptRanges(const KeptRanges&) = delete;
  KeptRanges& operator=(const KeptRanges&) = delete;

  [[nodiscard]] Index groups() const noexcept { return static_cast<Index>(m_edges.size()) - 1; }
  [[nodiscard]] std::span<const Index> edges() const noexcept { return m_edges; }  ///< [G + 1] row positions
  [[nodiscard]] std::span<const Index> ptr() const noexcept { return m_ptr; }      ///< [G + 1]
  [[nodiscard]] std::span<const Interval> intervals() const noexcept { return m_intervals; }
  [[nodiscard]] Index groupOf(Index position) const noexcept;

 private:
  std::span<const Index> m_edges, m_ptr;
  std::span<const Interval> m_intervals;
  std::vector<Index> m_ownPtr;
  std::vector<Interval> m_ownIntervals;
};

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "plan_ranges.h"

namespace sparsight {
namespace {

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }
[[nodiscard]] Index sizeOf(const auto& container) noexcept { return static_cast<Index>(container.size()); }

[[noreturn]] void broken(const std::string& rule) { throw Error(ErrorCode::InvalidArgument, "plan: " + rule); }

void checkOrder(const std::vector<Index>& order, Index count, const char* name) {
  if (order.empty()) return;
  if (sizeOf(order) != count) broken(fmt::format("{} has {} entries for {} positions", name, order.size(), count));
  std::vector<bool> seen(order.size(), false);
  for (const Index token : order) {
    if (token < 0 || token >= count || seen[at(token)]) {
      broken(fmt::format("{} is no permutation: entry {} is out of range or twice there", name, token));
    }
    seen[at(token)] = true;
  }
}

void checkEdges(const std::vector<Index>& edges, Index count, const char* name) {
  if (edges.size() < 2) broken(fmt::format("{} needs at least two edges", name));
  if (edges.front() != 0 || edges.back() != count) {
    broken(fmt::format("{} runs from {} to {}, not from 0 to {}", name, edges.front(), edges.back(), count));
  }
  if (!std::is_sorted(edges.begin(), edges.end())) broken(fmt::format("{} decreases", name));
}

void checkSize(Index size, Index expected, const char* name) {
  if (size != 0 && size != expected) broken(fmt::format("{} has {} entries, expected {}", name, size, expected));
}

// State of every block from exact intervals. Per block row, whole blocks inside an interval are counted by a difference
// array, so the cost is intervals + blocks, not pairs.
[[nodiscard]] std::vector<std::uint8_t> blockStates(const Plan& plan) {
  const Index bq = plan.qBlocks();
  const Index bk = plan.kBlocks();
  std::vector<std::uint8_t> states(at(bq) * at(bk), static_cast<std::uint8_t>(BlockState::Skipped));
  const auto blockOfKey = [&](Index key) {
    return static_cast<Index>(std::upper_bound(plan.kBounds.begin(), plan.kBounds.end(), key) - plan.kBounds.begin()) -
           1;
  };
  std::vector<Index> kept(at(bk)), inner(at(bk) + 1);
  Index group = 0;
  const Index groups = sizeOf(plan.intervalRows) - 1;
  for (Index i = 0; i < bq; ++i) {
    const Index row0 = plan.qBounds[at(i)];
    const Index row1 = plan.qBounds[at(i + 1)];
    if (row0 == row1) continue;
    std::fill(kept.begin(), kept.end(), 0);
    std::fill(inner.begin(), inner.end(), 0);
    while (group > 0 && plan.intervalRows[at(group)] > row0) --group;
    for (; group < groups && plan.intervalRows[at(group)] < row1; ++group) {
      const Index rows =
          std::min(row1, plan.intervalRows[at(group + 1)]) - std::max(row0, plan.intervalRows[at(group)]);
      if (rows <= 0) continue;
      for (Index n = plan.rowIntervalsPtr[at(group)]; n < plan.rowIntervalsPtr[at(group + 1)]; ++n) {
        const Interval& interval = plan.rowIntervals[at(n)];
        const Index first = blockOfKey(interval.first);
        const Index last = blockOfKey(interval.last - 1);
        if (first == last) {
          kept[at(first)] += rows * (interval.last - interval.first);
          continue;
        }
        kept[at(first)] += rows * (plan.kBounds[at(first + 1)] - interval.first);
        kept[at(last)] += rows * (interval.last - plan.kBounds[at(last)]);
        inner[at(first + 1)] += rows;
        inner[at(last)] -= rows;
      }
    }
    Index covering = 0;
    for (Index j = 0; j < bk; ++j) {
      covering += inner[at(j)];
      const Index keys = plan.kBounds[at(j + 1)] - plan.kBounds[at(j)];
      const Index area = (row1 - row0) * keys;
      const Index count = kept[at(j)] + covering * keys;
      if (area == 0 || count == 0) continue;
      states[at(i) * at(bk) + at(j)] =
          static_cast<std::uint8_t>(count == area ? BlockState::Whole : BlockState::Partial);
    }
  }
  return states;
}

[[nodiscard]] bool zeroArea(const Plan& plan, Index i, Index j) {
  return plan.qBounds[at(i)] == plan.qBounds[at(i + 1)] || plan.kBounds[at(j)] == plan.kBounds[at(j + 1)];
}

}  // namespace

std::string_view headClassName(HeadClass c) noexcept {
  switch (c) {
    case HeadClass::None:
      return "";
    case HeadClass::Spatial:
      return "spatial";
    case HeadClass::Temporal:
      return "temporal";
    case HeadClass::Clustered:
      return "clustered";
    case HeadClass::Sink:
      return "sink";
    case HeadClass::Diffuse:
      return "diffuse";
  }
  return "";
}

void Plan::validate() const {
  if (queryCount < 0 || keyCount < 0) broken(fmt::format("{} queries and {} keys", queryCount, keyCount));
  checkOrder(qOrder, queryCount, "q_order");
  checkOrder(kOrder, keyCount, "k_order");
  checkEdges(qBounds, queryCount, "q_bounds");
  checkEdges(kBounds, keyCount, "k_bounds");
  const Index blocks = qBlocks() * kBlocks();
  if (sizeOf(blockMask) != blocks) {
    broken(fmt::format("block_mask has {} entries for {} x {} blocks", blockMask.size(), qBlocks(), kBlocks()));
  }
  bool partial = false;
  for (const std::uint8_t state : blockMask) {
    if (state > static_cast<std::uint8_t>(BlockState::Partial)) {
      broken(fmt::format("block_mask holds {}; only 0 (skipped), 1 (whole) and 2 (partial) have a meaning", state));
    }
    partial = partial || state == static_cast<std::uint8_t>(BlockState::Partial);
  }

  if (!rowCount.empty() || !rowThreshold.empty()) {
    if (sizeOf(rowCount) != queryCount || sizeOf(rowThreshold) != queryCount) {
      broken(fmt::format("row_count has {} and row_threshold {} entries for {} queries", rowCount.size(),
                         rowThreshold.size(), queryCount));
    }
    if (!intervalRows.empty() || !rowIntervals.empty() || !rowIntervalsPtr.empty()) {
      broken("row_count and row_intervals exclude each other");
    }
    for (std::size_t row = 0; row < rowCount.size(); ++row) {
      if (rowCount[row] < 0 || rowCount[row] > keyCount) {
        broken(fmt::format("row_count of row {} is {}, outside 0..{}", row, rowCount[row], keyCount));
      }
    }
  } else if (!intervalRows.empty()) {
    checkEdges(intervalRows, queryCount, "interval_rows");
    if (rowIntervalsPtr.size() != intervalRows.size()) {
      broken(fmt::format("row_intervals_ptr has {} entries for {} edges", rowIntervalsPtr.size(), intervalRows.size()));
    }
    if (rowIntervalsPtr.front() != 0 || rowIntervalsPtr.back() != sizeOf(rowIntervals) ||
        !std::is_sorted(rowIntervalsPtr.begin(), rowIntervalsPtr.end())) {
      broken("row_intervals_ptr must rise from 0 to the number of intervals");
    }
    for (std::size_t group = 0; group + 1 < rowIntervalsPtr.size(); ++group) {
      Index end = 0;
      for (Index n = rowIntervalsPtr[group]; n < rowIntervalsPtr[group + 1]; ++n) {
        const Interval& interval = rowIntervals[at(n)];
        if (interval.first < end || interval.first >= interval.last || interval.last > keyCount) {
          broken(fmt::format("row_intervals of group {} are not sorted, disjoint, non-empty ranges of 0..{}: [{}, {})",
                             group, keyCount, interval.first, interval.last));
        }
        end = interval.last;
      }
    }
    const std::vector<std::uint8_t> states = blockStates(*this);
    for (Index i = 0; i < qBlocks(); ++i) {
      for (Index j = 0; j < kBlocks(); ++j) {
        const std::size_t n = at(i) * at(kBlocks()) + at(j);
        if (states[n] != blockMask[n] && !zeroArea(*this, i, j)) {
          broken(fmt::format("block_mask says {} for block ({}, {}), its intervals say {}", blockMask[n], i, j,
                             states[n]));
        }
      }
    }
  } else {
    if (!rowIntervalsPtr.empty() || !rowIntervals.empty()) broken("row_intervals without interval_rows");
    if (partial) broken("block_mask has partial blocks (2), but no intervals say what they keep");
  }

  // With a subset of query rows the labels still name every model token, so only keys fix their number.
  checkSize(sizeOf(kLabels), keyCount, "k_labels");
  if (!qLabels.empty() && sizeOf(qLabels) < queryCount) {
    broken(fmt::format("q_labels has {} entries for {} queries", qLabels.size(), queryCount));
  }
  checkSize(sizeOf(scores), blocks, "scores");
  checkSize(sizeOf(map), blocks, "map");
  checkSize(sizeOf(lse), queryCount, "lse");
}

std::vector<Interval> Plan::keptIntervals(Index rowPosition) const {
  if (rowPosition < 0 || rowPosition >= queryCount) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("plan: row position {} is outside 0..{}", rowPosition, queryCount - 1));
  }
  const KeptRanges ranges(*this);
  const Index group = ranges.groupOf(rowPosition);
  const auto begin = ranges.intervals().begin();
  return {begin + ranges.ptr()[at(group)], begin + ranges.ptr()[at(group + 1)]};
}

void Plan::deriveBlockMask() {
  const std::vector<std::uint8_t> before = std::move(blockMask);
  blockMask = blockStates(*this);
  if (before.size() != blockMask.size()) return;
  for (Index i = 0; i < qBlocks(); ++i) {
    for (Index j = 0; j < kBlocks(); ++j) {
      const std::size_t n = at(i) * at(kBlocks()) + at(j);
      if (zeroArea(*this, i, j)) blockMask[n] = before[n];
    }
  }
}

namespace {
template <class T>
[[nodiscard]] Index bytesOf(const std::vector<T>& v) {
  return static_cast<Index>(v.capacity() * sizeof(T));
}

}  // namespace

Index planBytes(const Plan& p) {
  return bytesOf(p.qOrder) + bytesOf(p.kOrder) + bytesOf(p.qBounds) + bytesOf(p.kBounds) + bytesOf(p.blockMask) +
         bytesOf(p.intervalRows) + bytesOf(p.rowIntervalsPtr) + bytesOf(p.rowIntervals) + bytesOf(p.rowThreshold) +
         bytesOf(p.rowCount) + bytesOf(p.qLabels) + bytesOf(p.kLabels) + bytesOf(p.qCentroids) + bytesOf(p.kCentroids) +
         bytesOf(p.qSizes) + bytesOf(p.kSizes) + bytesOf(p.scores) + bytesOf(p.map) + bytesOf(p.lse) +
         bytesOf(p.levels) + bytesOf(p.recall) + static_cast<Index>(sizeof(Plan));
}

Plan withoutArrays(const Plan& plan) {
  Plan slim;
  slim.methodId = plan.methodId;
  slim.paramsJson = plan.paramsJson;
  slim.queryCount = plan.queryCount;
  slim.keyCount = plan.keyCount;
  slim.headClass = plan.headClass;
  slim.mse = plan.mse;
  slim.margin = plan.margin;
  slim.plannerFlops = plan.plannerFlops;
  slim.wouldBeDense = plan.wouldBeDense;
  slim.reusedFromStep = plan.reusedFromStep;
  slim.facts = plan.facts;
  slim.warnings = plan.warnings;
  return slim;
}

Plan densePlan(Index queryCount, Index keyCount) {
  Plan plan;
  plan.methodId = "dense";
  plan.queryCount = queryCount;
  plan.keyCount = keyCount;
  plan.qBounds = {0, queryCount};
  plan.kBounds = {0, keyCount};
  plan.blockMask = {static_cast<std::uint8_t>(BlockState::Whole)};
  return plan;
}

std::optional<bool> isKept(const Plan& plan, Index row, Index key) {
  if (row < 0 || row >= plan.queryCount || key < 0 || key >= plan.keyCount) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("plan: pair ({}, {}) is outside {} x {}", row, key, plan.queryCount, plan.keyCount));
  }
  if (!plan.rowCount.empty()) return std::nullopt;
  const auto positionOf = [](const std::vector<Index>& order, Index token) {
    if (order.empty()) return token;
    return static_cast<Index>(std::find(order.begin(), order.end(), token) - order.begin());
  };
  const Index position = positionOf(plan.qOrder, row);
  const Index column = positionOf(plan.kOrder, key);
  const auto blockOf = [](const std::vector<Index>& edges, Index value) {
    return static_cast<Index>(std::upper_bound(edges.begin(), edges.end(), value) - edges.begin()) - 1;
  };
  if (plan.intervalRows.empty()) {
    return plan.blockMask[at(blockOf(plan.qBounds, position)) * at(plan.kBlocks()) +
                          at(blockOf(plan.kBounds, column))] != 0;
  }
  const Index group = blockOf(plan.intervalRows, position);
  const auto first = plan.rowIntervals.begin() + plan.rowIntervalsPtr[at(group)];
  const auto last = plan.rowIntervals.begin() + plan.rowIntervalsPtr[at(group + 1)];
  const auto after = std::upper_bound(first, last, column,
                                      [](Index value, const Interval& interval) { return value < interval.first; });
  return after != first && column < std::prev(after)->last;
}

// ---------------------------------------------------------------------------------------------------------------------

KeptRanges::KeptRanges(const Plan& plan) {
  if (!plan.rowCount.empty()) {
    throw Error(ErrorCode::InvalidArgument, "plan: rows kept by count have no intervals; they depend on probabilities");
  }
  if (!plan.intervalRows.empty()) {
    m_edges = plan.intervalRows;
    m_ptr = plan.rowIntervalsPtr;
    m_intervals = plan.rowIntervals;
    return;
  }
  m_edges = plan.qBounds;
  m_ownPtr.reserve(plan.qBounds.size());
  m_ownPtr.push_back(0);
  for (Index i = 0; i < plan.qBlocks(); ++i) {
    const auto start = static_cast<std::ptrdiff_t>(m_ownIntervals.size());
    for (Index j = 0; j < plan.kBlocks(); ++j) {
      if (plan.blockMask[at(i) * at(plan.kBlocks()) + at(j)] == 0) continue;
      const Interval keys{plan.kBounds[at(j)], plan.kBounds[at(j + 1)]};
      if (keys.first == keys.last) continue;
      if (static_cast<std::ptrdiff_t>(m_ownIntervals.size()) > start && m_ownIntervals.back().last == keys.first) {
        m_ownIntervals.back().last = keys.last;
      } else {
        m_ownIntervals.push_back(keys);
      }
    }
    m_ownPtr.push_back(sizeOf(m_ownIntervals));
  }
  m_ptr = m_ownPtr;
  m_intervals = m_ownIntervals;
}

Index KeptRanges::groupOf(Index position) const noexcept {
  return static_cast<Index>(std::upper_bound(m_edges.begin(), m_edges.end(), position) - m_edges.begin()) - 1;
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "cpu/attend_pass.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "checks.h"
#include "cpu/lazy_softmax.h"

namespace sparsight::cpu {
namespace {

constexpr Index kTileKeys = 96;
constexpr Index kFewRows = 2048;  // up to it two panels share a tile, so that many threads find work
constexpr Index kMaxPanels = 8;   // panels that share a tile: keys and values come from beyond L2 once per 8 panels

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// Kept intervals of the groups in compact key positions (padding keys are outside everything).
struct Groups {
  std::vector<Index> ptr;
  std::vector<Interval> intervals;
  [[nodiscard]] std::span<const Interval> of(Index group) const {
    return std::span(intervals).subspan(at(ptr[at(group)]), at(ptr[at(group + 1)] - ptr[at(group)]));
  }
};

Groups compactGroups(const CpuHead& head, const RowKeep& keep) {
  Groups groups;
  groups.ptr.push_back(0);
  if (detail::keepsAll(keep)) {
    if (head.keyCount() > 0) groups.intervals.push_back({0, head.keyCount()});
    groups.ptr.push_back(static_cast<Index>(groups.intervals.size()));
    return groups;
  }
  groups.ptr.reserve(keep.ptr.size());
  groups.intervals.reserve(keep.intervals.size());
  for (std::size_t g = 0; g + 1 < keep.ptr.size(); ++g) {
    for (Index i = keep.ptr[g]; i < keep.ptr[g + 1]; ++i) {
      const Interval& interval = keep.intervals[at(i)];
      const Interval packed{head.compact(interval.first), head.compact(interval.last)};
      if (packed.first == packed.last) continue;
      // Touching intervals become one: longer runs need no gathering.
      if (static_cast<Index>(groups.intervals.size()) > groups.ptr.back() &&
          groups.intervals.back().last == packed.first) {
        groups.intervals.back().last = packed.last;
      } else {
        groups.intervals.push_back(packed);
      }
    }
    groups.ptr.push_back(static_cast<Index>(groups.intervals.size()));
  }
  return groups;
}

/// Rows that are worked on together: [first, last) of the sorted list.
struct Block {
  Index first, last;
};

struct Work {
  Work(const CpuHead& head, const CpuHead::Values& values, Index panels) {
    const Index lanes = head.simd().lanes;
    queries = AlignedFloats(panels * head.panelFloats());
    scores = AlignedFloats(kTileKeys * lanes);
    out = AlignedFloats(panels * lanes * values.stride);
    keys = AlignedFloats(head.tileFloats(kTileKeys));
    valueRows = AlignedFloats(kTileKeys * values.stride);
    row.resize(at(head.dim()));
    positions.reserve(at(kTileKeys));
  }
  std::array<LazyReference, kMaxPanels> references;
  alignas(kAlignment) std::array<std::array<float, kMaxLanes>, kMaxPanels> sums;
  AlignedFloats queries;    // panel by panel
  AlignedFloats scores;     // [kTileKeys, lanes]
  AlignedFloats out;        // [panels, lanes, value stride]
  AlignedFloats keys;       // of a tile, where they cannot be used in place
  AlignedFloats valueRows;  // gathered values of a tile
  std::vector<float> row;
  std::vector<Index> queryRows;    // rows of the block, panel by panel
  std::vector<Index> blockGroups;  // distinct groups of the block
  std::vector<Index> slot;         // [rows] place of its group in blockGroups
  std::vector<Interval> merged;
  std::vector<Index> positions;       // compact positions of a tile's keys
  std::vector<std::size_t> cursor;    // per distinct group: its next interval
  std::vector<std::uint8_t> kept;     // [distinct groups, kTileKeys]
  std::vector<std::uint8_t> keptAll;  // per distinct group: 0 none, 1 some, 2 all keys of the tile
};

/// Keys and values of a tile, in place where they lie side by side, else gathered.
struct TileData {
  KeyTile keys;
  const float* values;
  Index count;
};

class Runner {
 public:
  Runner(const CpuHead& head, std::span<const Index> rows, const RowKeep& keep, const Executor& executor,
         const Control& control)
      : m_head(head),
        m_simd(head.simd()),
        m_lanes(m_simd.lanes),
        m_panels(static_cast<Index>(rows.size()) > kFewRows ? kMaxPanels : 2),
        m_rows(rows),
        m_executor(executor),
        m_control(control),
        m_values(head.values(executor, control)),
        m_groups(compactGroups(head, keep)) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (detail::isPaddingRow(head.input(), rows[i])) continue;
      m_order.push_back(static_cast<Index>(i));
    }
    m_groupOf.assign(rows.size(), 0);
    if (!detail::keepsAll(keep)) {
      if (keep.group.empty()) {
        std::iota(m_groupOf.begin(), m_groupOf.end(), Index{0});
      } else {
        m_groupOf.assign(keep.group.begin(), keep.group.end());
        std::stable_sort(m_order.begin(), m_order.end(),
                         [&](Index a, Index b) { return m_groupOf[at(a)] < m_groupOf[at(b)]; });
      }
    }
    cutBlocks();
  }

  AttendResult run() {
    AttendResult result = emptyAttendResult(m_head.input(), m_rows.size());
    ScratchPool<Work> pool([this] { return std::make_unique<Work>(m_head, m_values, m_panels); });
    LoopProgress progress(m_control, static_cast<Index>(m_blocks.size()));
    m_executor.parallelFor(static_cast<Index>(m_blocks.size()), 1, m_control, [&](Index block, Index) {
      const auto lease = pool.take();
      runBlock(*lease, m_blocks[at(block)], result);
      progress.add(1);
    });
    return result;
  }

 private:
  /// Blocks of up to m_panels panels. Large groups get blocks of their own; small ones share a block, whose tiles are
  /// then masked per row.
  void cutBlocks() {
    const auto count = static_cast<Index>(m_order.size());
    const auto group = [&](Index i) { return m_groupOf[at(m_order[at(i)])]; };
    Index first = 0;
    for (Index run = 0; run < count;) {
      Index end = run + 1;
      while (end < count && group(end) == group(run)) ++end;
      if (end - run >= m_lanes) {
        if (run > first) m_blocks.push_back({first, run});
        for (first = run; first < end; first += m_panels * m_lanes) {
          m_blocks.push_back({first, std::min(end, first + m_panels * m_lanes)});
        }
        first = end;
      } else if (end - first > m_panels * m_lanes) {
        m_blocks.push_back({first, run});
        first = run;
      }
      run = end;
    }
    if (count > first) m_blocks.push_back({first, count});
  }

  void runBlock(Work& work, const Block& block, AttendResult& result) const {
    const Index count = block.last - block.first;
    const Index panels = (count + m_lanes - 1) / m_lanes;
    begin(work, block, panels);
    const std::span<const Interval> keep = keptOf(work);
    std::size_t interval = 0;
    Index next = keep.empty() ? 0 : keep.front().first;
    while (interval < keep.size()) {
      m_control.checkpoint();
      const TileData tile = nextTile(work, keep, interval, next);
      if (work.blockGroups.size() > 1) markKept(work, tile.count);
      for (Index p = 0; p < panels; ++p) {
        const Index first = p * m_lanes;
        foldTile(work, p, tile, std::span(work.queryRows).subspan(at(first), at(std::min(m_lanes, count - first))));
      }
    }
    for (Index i = 0; i < count; ++i) finishRow(work, i, m_order[at(block.first + i)], keep, result);
  }

  void begin(Work& work, const Block& block, Index panels) const {
    work.queryRows.clear();
    work.blockGroups.clear();
    work.slot.clear();
    for (Index i = block.first; i < block.last; ++i) {
      const Index listed = m_order[at(i)];
      work.queryRows.push_back(m_rows[at(listed)]);
      const Index group = m_groupOf[at(listed)];
      if (work.blockGroups.empty() || work.blockGroups.back() != group) work.blockGroups.push_back(group);
      work.slot.push_back(static_cast<Index>(work.blockGroups.size()) - 1);
    }
    for (Index p = 0; p < panels; ++p) {
      const Index first = p * m_lanes;
      const Index used = std::min(m_lanes, static_cast<Index>(work.queryRows.size()) - first);
      m_head.packPanel(std::span(work.queryRows).subspan(at(first), at(used)),
                       work.queries.get() + p * m_head.panelFloats(), work.row.data());
      work.references[at(p)].reset(m_lanes);
      work.sums[at(p)].fill(0.0F);
    }
    std::fill(work.out.get(), work.out.get() + panels * m_lanes * m_values.stride, 0.0F);
  }

  /// Union of the kept intervals of the block's groups.
  std::span<const Interval> keptOf(Work& work) const {
    if (work.blockGroups.size() == 1) return m_groups.of(work.blockGroups.front());
    work.cursor.assign(work.blockGroups.size(), 0);
    work.kept.resize(work.blockGroups.size() * at(kTileKeys));
    work.keptAll.resize(work.blockGroups.size());
    std::vector<Interval>& merged = work.merged;
    merged.clear();
    for (const Index group : work.blockGroups) {
      const std::span<const Interval> own = m_groups.of(group);
      merged.insert(merged.end(), own.begin(), own.end());
    }
    std::sort(merged.begin(), merged.end(), [](const Interval& a, const Interval& b) { return a.first < b.first; });
    std::size_t used = 0;
    for (const Interval& next : merged) {
      if (used > 0 && next.first <= merged[used - 1].last) {
        merged[used - 1].last = std::max(merged[used - 1].last, next.last);
      } else {
        merged[used++] = next;
      }
    }
    merged.resize(used);
    return merged;
  }

  /// The next up to kTileKeys kept keys; advances (interval, next). Long runs are used in place. Short ones are
  /// gathered side by side, so that the cost goes with the kept keys however they are scattered.
  TileData nextTile(Work& work, std::span<const Interval> keep, std::size_t& interval, Index& next) const {
    work.positions.clear();
    const auto advance = [&](Index by) {
      next += by;
      if (next == keep[interval].last && ++interval < keep.size()) next = keep[interval].first;
    };
    const Index run = std::min(kTileKeys, keep[interval].last - next);
    const bool last = interval + 1 == keep.size();
    if (run >= kTileKeys / 2 || last) {
      for (Index i = 0; i < run; ++i) work.positions.push_back(next + i);
      const TileData tile{m_head.keys(next, run, work.keys.get()),
                          m_values.data == nullptr ? nullptr : m_values.row(next), run};
      advance(run);
      return tile;
    }
    while (interval < keep.size() && static_cast<Index>(work.positions.size()) < kTileKeys) {
      const auto filled = static_cast<Index>(work.positions.size());
      const Index take = std::min(kTileKeys - filled, keep[interval].last - next);
      for (Index i = 0; i < take; ++i) work.positions.push_back(next + i);
      if (m_values.data != nullptr) {
        const float* const from = m_values.row(next);
        std::copy(from, from + take * m_values.stride, work.valueRows.get() + filled * m_values.stride);
      }
      advance(take);
    }
    return {m_head.keys(work.positions, work.keys.get()), work.valueRows.get(),
            static_cast<Index>(work.positions.size())};
  }

  /// Which of the tile's keys each group of the block keeps.
  void markKept(Work& work, Index count) const {
    for (std::size_t slot = 0; slot < work.blockGroups.size(); ++slot) {
      const std::span<const Interval> own = m_groups.of(work.blockGroups[slot]);
      std::uint8_t* const kept = work.kept.data() + slot * at(kTileKeys);
      std::size_t& cursor = work.cursor[slot];
      Index total = 0;
      for (Index n = 0; n < count; ++n) {
        const Index position = work.positions[at(n)];
        while (cursor < own.size() && own[cursor].last <= position) ++cursor;
        kept[n] = cursor < own.size() && own[cursor].first <= position ? 1 : 0;
        total += kept[n];
      }
      work.keptAll[slot] = total == 0 ? 0 : (total == count ? 2 : 1);
    }
  }

  void foldTile(Work& work, Index p, const TileData& tile, std::span<const Index> rows) const {
    const bool shared = work.blockGroups.size() > 1;
    const Index* const slot = work.slot.data() + p * m_lanes;
    if (shared) {
      const bool any = std::any_of(slot, slot + rows.size(), [&](Index s) { return work.keptAll[at(s)] != 0; });
      if (!any) return;
    }
    float* const scores = work.scores.get();
    alignas(kAlignment) std::array<float, kMaxLanes> largest;
    largest.fill(kMinusInfinity);
    m_head.scores(work.queries.get() + p * m_head.panelFloats(), tile.keys, tile.count, scores, largest.data());
    if (shared) {
      for (std::size_t lane = 0; lane < rows.size(); ++lane) {
        if (work.keptAll[at(slot[lane])] == 2) continue;
        const std::uint8_t* const kept = work.kept.data() + slot[lane] * kTileKeys;
        for (Index n = 0; n < tile.count; ++n) {
          if (kept[n] == 0) scores[n * m_lanes + static_cast<Index>(lane)] = kMinusInfinity;
        }
      }
    }
    m_head.applyDenseMask(rows, 0, work.positions, tile.count, scores);
    if (shared || m_head.masked()) {
      largest.fill(kMinusInfinity);
      m_simd.tileMax(scores, tile.count, largest.data());
    }
    float* const sums = work.sums[at(p)].data();
    float* const out = work.out.get() + p * m_lanes * m_values.stride;
    LazyReference& reference = work.references[at(p)];
    reference.lift(largest.data(), m_head.factor(), m_lanes, [&](Index lane, float factor) {
      sums[lane] *= factor;
      float* const row = out + lane * m_values.stride;
      for (Index c = 0; c < m_values.columns; ++c) row[c] *= factor;
    });
    m_simd.tileExp(scores, tile.count, m_head.factor(), reference.applied, sums);
    if (m_values.data != nullptr) {
      m_simd.accumulate(scores, tile.count, tile.values, m_values.stride, m_values.columns, out, m_values.stride);
    }
  }

  void finishRow(const Work& work, Index i, Index listed, std::span<const Interval> keep, AttendResult& result) const {
    const Index p = i / m_lanes;
    const auto lane = at(i % m_lanes);
    const std::span<const Interval> own =
        work.blockGroups.size() == 1 ? keep : m_groups.of(work.blockGroups[at(work.slot[at(i)])]);
    Index count = 0;
    for (const Interval& interval : own) {
      count += m_head.validPairs(work.queryRows[at(i)], interval.first, interval.last);
    }
    result.count[at(listed)] = count;
    result.lse[at(listed)] = kMinusInfinity;
    if (work.references[at(p)].value[lane] == kMinusInfinity) return;
    const auto sum = static_cast<double>(work.sums[at(p)][lane]);
    result.lse[at(listed)] =
        static_cast<float>((static_cast<double>(work.references[at(p)].applied[lane]) + std::log2(sum)) * kLn2);
    if (m_values.data == nullptr) return;
    const auto scale = static_cast<float>(1.0 / sum);
    const float* const from = work.out.get() + i * m_values.stride;
    const Index dv = m_head.input().v.cols;
    for (Index c = 0; c < dv; ++c) result.out[at(listed * dv + c)] = from[c] * scale;
  }

  const CpuHead& m_head;
  const SimdKernels& m_simd;
  const Index m_lanes;
  const Index m_panels;
  const std::span<const Index> m_rows;
  const Executor& m_executor;
  const Control& m_control;
  const CpuHead::Values m_values;
  const Groups m_groups;
  std::vector<Index> m_order;    // listed rows that are no padding, rows of a group side by side
  std::vector<Index> m_groupOf;  // [listed rows]
  std::vector<Block> m_blocks;
};

}  // namespace

AttendResult emptyAttendResult(const AttentionIn& in, std::size_t rows) {
  AttendResult result;
  if (in.v.data != nullptr) result.out.assign(rows * at(in.v.cols), 0.0F);
  result.lse.assign(rows, std::numeric_limits<float>::quiet_NaN());
  result.count.assign(rows, 0);
  return result;
}

AttendResult attendIntervals(const CpuHead& head, std::span<const Index> rows, const RowKeep& keep,
                             const Executor& executor, const Control& control) {
  return Runner(head, rows, keep, executor, control).run();
}

}  // namespace sparsight::cpu

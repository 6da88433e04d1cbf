// SPDX-License-Identifier: Apache-2.0
#include "cpu/map_pass.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "cpu/lazy_softmax.h"

namespace sparsight::cpu {
namespace {

constexpr Index kTileKeys = 96;       // a multiple of every key unroll; at most 48 KiB of keys at head_dim 128
constexpr Index kMaxPanels = 8;       // panels that share a key tile: keys come from beyond L2 once per 8 panels
constexpr Index kFoldPanels = 4;      // folded: their partial sums (512 columns: 512 KiB) stay in L2 beside the keys
constexpr Index kFewRows = 2048;      // up to it two panels share a tile, so that many threads find work
constexpr Index kManyColumns = 2048;  // beyond it the per-column partial sums of one panel are large enough
constexpr Index kMaxUnits = 256;
constexpr Index kStagingBytes = Index{32} << 20;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// One row of cells while it is summed up.
struct CellRow {
  Index mapRow = -1;
  Index rows = 0;
  std::vector<double> sum;
  std::vector<float> top;
  std::vector<Index> pairs;  // only with a dense mask

  void begin(Index row, Index columns, bool countPairs) {
    mapRow = row;
    rows = 0;
    sum.assign(at(columns), 0.0);
    top.assign(at(columns), 0.0F);
    if (countPairs) pairs.assign(at(columns), 0);
  }
  void add(const CellRow& other) {
    rows += other.rows;
    for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += other.sum[c];
    for (std::size_t c = 0; c < top.size(); ++c) top[c] = std::max(top[c], other.top[c]);
    for (std::size_t c = 0; c < pairs.size(); ++c) pairs[c] += other.pairs[c];
  }
};

/// The part of a column inside a key tile, or a run of columns of one key each.
struct Segment {
  Index column, offset, count;
  bool eachKey;  ///< keys belong to columns column, column + 1, ...
  [[nodiscard]] Index lastColumn() const noexcept { return eachKey ? column + count - 1 : column; }
};

struct Panel {
  LazyReference reference;
  alignas(kAlignment) std::array<float, kMaxLanes> limit{};  // of raw scores, as LazyReference::limits says
  AlignedFloats queries;
  AlignedFloats sum;  // [C, lanes] partial sums relative to the reference
  AlignedFloats top;  // [C, lanes] largest raw scores
  std::span<const Index> rows;
  Index firstRow = 0;
};

struct Work {
  Work(const MapPass& pass, Index panelCount, Index columns) {
    const Index lanes = pass.head.simd().lanes;
    for (Index i = 0; i < panelCount; ++i) {
      panels[at(i)].queries = AlignedFloats(pass.head.panelFloats());
      panels[at(i)].sum = AlignedFloats(columns * lanes);
      if (pass.max != nullptr) panels[at(i)].top = AlignedFloats(columns * lanes);
    }
    scores = AlignedFloats(kTileKeys * lanes);
    keys = AlignedFloats(pass.head.tileFloats(kTileKeys));
    row.resize(at(pass.head.dim()));
  }
  std::array<Panel, kMaxPanels> panels;
  AlignedFloats scores;  // [kTileKeys, lanes]
  AlignedFloats keys;    // of a tile, where they cannot be used in place
  std::vector<float> row;
  std::vector<Segment> segments;
  PendingScores pending;
  alignas(kAlignment) std::array<float, kMaxLanes> unusedTop{};  // in place of maxima that nobody wants
};

class Runner {
 public:
  explicit Runner(const MapPass& pass)
      : m_pass(pass),
        m_head(pass.head),
        m_simd(pass.head.simd()),
        m_lanes(m_simd.lanes),
        m_columns(static_cast<Index>(pass.colEdges.size()) - 1),
        m_folds(m_simd.foldBf16 != nullptr && m_head.bfloats() && !m_head.masked() && wantSums() &&
                narrowestColumn() >= kFoldFewestKeys),
        m_panels(panelsFor(static_cast<Index>(pass.rows.size()), m_columns, m_folds)) {}

  void run() {
    const auto rowCount = static_cast<Index>(m_pass.rows.size());
    const Index blockRows = m_panels * m_lanes;
    const Index blocks = (rowCount + blockRows - 1) / blockRows;
    // The cut into units depends on the shape alone, never on the threads: so do all sums.
    const Index rowBytes = m_columns * static_cast<Index>(sizeof(double) + sizeof(float));
    const Index units = std::max<Index>(1, std::min({blocks, kMaxUnits, kStagingBytes / (2 * rowBytes)}));
    m_staged.resize(at(units * 2));
    ScratchPool<Work> pool([this] { return std::make_unique<Work>(m_pass, m_panels, m_columns); });
    LoopProgress progress(m_pass.control, blocks);
    m_pass.executor.parallelFor(units, 1, m_pass.control, [&](Index unit, Index) {
      const auto lease = pool.take();
      CellRow current;
      for (Index block = unit * blocks / units; block < (unit + 1) * blocks / units; ++block) {
        runBlock(*lease, block * blockRows, std::min(rowCount, (block + 1) * blockRows), unit, current);
        progress.add(1);
      }
      if (current.mapRow >= 0) m_staged[at(unit * 2 + 1)] = std::move(current);
    });
    // Map rows that several units share are joined in the order of the rows.
    CellRow pending;
    for (CellRow& part : m_staged) {
      if (part.mapRow < 0) continue;
      if (part.mapRow == pending.mapRow) {
        pending.add(part);
        continue;
      }
      write(pending);
      pending = std::move(part);
    }
    write(pending);
  }

 private:
  /// By the shape and the kind of CPU, never by the threads.
  static Index panelsFor(Index rows, Index columns, bool folds) {
    if (columns > kManyColumns) return 1;
    if (rows <= kFewRows) return 2;
    return folds ? kFoldPanels : kMaxPanels;
  }
  [[nodiscard]] bool wantMap() const { return m_pass.mean != nullptr || m_pass.max != nullptr; }
  [[nodiscard]] bool lseGiven() const { return !m_pass.givenLse.empty(); }
  [[nodiscard]] bool wantSums() const { return !lseGiven() || m_pass.mean != nullptr; }
  /// Of the columns that have keys.
  [[nodiscard]] Index narrowestColumn() const {
    Index least = std::numeric_limits<Index>::max();
    for (std::size_t c = 1; c < m_pass.colEdges.size(); ++c) {
      const Index width = m_pass.colEdges[c] - m_pass.colEdges[c - 1];
      if (width > 0) least = std::min(least, width);
    }
    return least;
  }

  void runBlock(Work& work, Index first, Index last, Index unit, CellRow& current) {
    const Index used = (last - first + m_lanes - 1) / m_lanes;
    for (Index i = 0; i < used; ++i) {
      Panel& panel = work.panels[at(i)];
      panel.firstRow = first + i * m_lanes;
      panel.rows = std::span(m_pass.rows).subspan(at(panel.firstRow), at(std::min(m_lanes, last - panel.firstRow)));
      begin(panel, work.row.data());
    }
    const Index keyLast = m_pass.colEdges.back();
    Index column = 0;
    work.pending.count = 0;
    for (Index key = m_pass.colEdges.front(); key < keyLast;) {
      m_pass.control.checkpoint();
      const Index count = tileCount(key, column);
      column = cutSegments(key, count, column, work.segments);
      const KeyTile keys = m_head.keys(key, count, work.keys.get());
      for (Index i = 0; i < used; ++i) {
        // Each panel brings a share of the next tile near.
        const Index soon = key + count + i * count / used;
        const Index then = key + count + (i + 1) * count / used;
        const std::span<const std::byte> ahead = m_folds ? m_head.keyBytes(soon, then) : std::span<const std::byte>();
        if (ahead.empty()) m_head.prefetch(soon, then);
        if (m_folds) {
          foldColumns(work.panels[at(i)], work, keys, ahead);
        } else {
          foldTile(work.panels[at(i)], work, keys, key, count);
        }
      }
      key += count;
    }
    if (m_folds) m_simd.foldRest(work.pending);
    for (Index i = 0; i < used; ++i) finish(work.panels[at(i)], unit, current);
  }

  void begin(Panel& panel, float* row) const {
    m_head.packPanel(panel.rows, panel.queries.get(), row);
    panel.reference.reset(m_lanes);
    if (lseGiven()) {
      for (std::size_t lane = 0; lane < panel.rows.size(); ++lane) {
        const float lse = m_pass.givenLse[at(panel.rows[lane])];
        // A row that does not count gets sums of 0.
        panel.reference.applied[lane] = std::isfinite(lse) ? static_cast<float>(static_cast<double>(lse) * kLog2E)
                                                           : std::numeric_limits<float>::max();
      }
    }
    if (lseGiven()) {
      panel.limit.fill(std::numeric_limits<float>::infinity());
    } else {
      panel.reference.limits(m_head.factor(), m_lanes, panel.limit.data());
    }
    std::fill(panel.sum.get(), panel.sum.get() + m_columns * m_lanes, 0.0F);
    if (panel.top.get() != nullptr) {
      std::fill(panel.top.get(), panel.top.get() + m_columns * m_lanes, kMinusInfinity);
    }
  }

  /// Keys of the tile that begins at `key`, in `column` or an empty one before it. Where columns are folded it ends
  /// with one, or takes an equal part of a wide one, so that no column is left with a few keys.
  [[nodiscard]] Index tileCount(Index key, Index column) const {
    const Index most = std::min(kTileKeys, m_pass.colEdges.back() - key);
    if (!m_folds) return most;
    while (m_pass.colEdges[at(column + 1)] <= key) ++column;
    const Index left = m_pass.colEdges[at(column + 1)] - key;
    if (left > kTileKeys) {
      const Index parts = (left + kTileKeys - 1) / kTileKeys;
      return (left + parts - 1) / parts;
    }
    Index count = left;
    for (; column < m_columns && m_pass.colEdges[at(column + 1)] - key <= most; ++column) {
      count = m_pass.colEdges[at(column + 1)] - key;
    }
    return count;
  }

  /// Columns of the tile, starting the search at the column where the last tile ended.
  Index cutSegments(Index key, Index count, Index column, std::vector<Segment>& segments) const {
    segments.clear();
    for (Index end = key; end < key + count;) {
      while (m_pass.colEdges[at(column + 1)] <= end) ++column;
      const Index next = std::min(m_pass.colEdges[at(column + 1)], key + count);
      const bool single = m_pass.colEdges[at(column + 1)] - m_pass.colEdges[at(column)] == 1;
      if (single && !segments.empty() && segments.back().eachKey && segments.back().lastColumn() + 1 == column) {
        ++segments.back().count;
      } else {
        segments.push_back({column, end - key, next - end, single});
      }
      end = next;
    }
    return column;
  }

  /// The whole tile where the CPU has SimdKernels::foldBf16 and columns are wide enough for it.
  void foldColumns(Panel& panel, Work& work, const KeyTile& keys, std::span<const std::byte> ahead) const {
    prefetchCells(panel, work.segments);
    const auto* const first = static_cast<const std::uint16_t*>(keys.data);
    const auto segments = static_cast<Index>(work.segments.size());
    const auto aheadBytes = static_cast<Index>(ahead.size());
    for (Index i = 0; i < segments; ++i) {
      const Segment& s = work.segments[at(i)];
      FoldColumn column;
      column.panel = reinterpret_cast<const std::uint16_t*>(panel.queries.get());
      column.keys = first + s.offset * keys.stride;
      column.stride = keys.stride;
      column.count = s.count;
      column.dim = m_head.evenDim();
      column.scale = m_head.factor();
      column.reference = panel.reference.applied;
      column.limit = panel.limit.data();
      column.sums = panel.sum.get() + s.column * m_lanes;
      column.top = panel.top.get() != nullptr ? panel.top.get() + s.column * m_lanes : work.unusedTop.data();
      column.ahead =
          ahead.empty() ? reinterpret_cast<const std::byte*>(column.keys) : ahead.data() + i * aheadBytes / segments;
      column.aheadBytes = aheadBytes / segments;
      while (!m_simd.foldBf16(column, work.pending)) {
        panel.reference.lift(column.largest, m_head.factor(), m_lanes, [&](Index lane, float factor) {
          for (Index c = 0; c <= s.column; ++c) panel.sum.get()[c * m_lanes + lane] *= factor;
          work.pending.rescale(lane, factor);
        });
        panel.reference.limits(m_head.factor(), m_lanes, panel.limit.data());
      }
    }
  }

  void foldTile(Panel& panel, Work& work, const KeyTile& keys, Index key, Index count) const {
    float* const scores = work.scores.get();
    prefetchCells(panel, work.segments);
    alignas(kAlignment) std::array<float, kMaxLanes> largest;
    largest.fill(kMinusInfinity);
    m_head.scores(panel.queries.get(), keys, count, scores, largest.data());
    if (m_head.masked()) {
      m_head.applyDenseMask(panel.rows, key, {}, count, scores);
      largest.fill(kMinusInfinity);
      m_simd.tileMax(scores, count, largest.data());
    }
    if (!lseGiven()) {
      const Index columns = work.segments.back().lastColumn() + 1;
      panel.reference.lift(largest.data(), m_head.factor(), m_lanes, [&](Index lane, float factor) {
        for (Index c = 0; c < columns; ++c) panel.sum.get()[c * m_lanes + lane] *= factor;
      });
    }
    for (const Segment& s : work.segments) foldSegment(panel, s, scores + s.offset * m_lanes);
  }

  /// The partial sums of all panels do not fit into L2: those of this tile arrive while its scores are computed.
  void prefetchCells(const Panel& panel, const std::vector<Segment>& segments) const {
    constexpr Index kLineFloats = static_cast<Index>(kAlignment / sizeof(float));
    for (const Segment& s : segments) {
      if (s.eachKey) continue;
      for (Index i = s.column * m_lanes; i < (s.column + 1) * m_lanes; i += kLineFloats) {
        __builtin_prefetch(panel.sum.get() + i, 1);
        if (m_pass.max != nullptr) __builtin_prefetch(panel.top.get() + i, 1);
      }
    }
  }

  void foldSegment(Panel& panel, const Segment& s, const float* scores) const {
    const float factor = m_head.factor();
    const float* const reference = panel.reference.applied;
    float* const sum = panel.sum.get() + s.column * m_lanes;
    if (m_pass.max == nullptr) {
      (s.eachKey ? m_simd.tileExpEach : m_simd.tileExpSum)(scores, s.count, factor, reference, sum);
      return;
    }
    float* const top = panel.top.get() + s.column * m_lanes;
    if (s.eachKey) {
      std::copy_n(scores, s.count * m_lanes, top);  // the scores of such columns are their maxima
      if (wantSums()) m_simd.tileExpEach(scores, s.count, factor, reference, sum);
    } else if (wantSums()) {
      m_simd.tileExpSumMax(scores, s.count, factor, reference, sum, top);
    } else {
      m_simd.tileMax(scores, s.count, top);
    }
  }

  /// What turns a lane's partial sums and maxima into probabilities.
  struct Lanes {
    alignas(kAlignment) std::array<float, kMaxLanes> sumNorm{};    // 2^(reference - lse); 0: the row does not count
    alignas(kAlignment) std::array<float, kMaxLanes> reference{};  // log2 lse
    alignas(kAlignment) std::array<float, kMaxLanes> topNorm{};    // what rounding took from it
    std::array<bool, kMaxLanes> counts{};
  };

  void finish(Panel& panel, Index unit, CellRow& current) {
    Lanes lanes;
    lanes.reference.fill(std::numeric_limits<float>::max());  // a row that does not count gets maxima of 0
    std::array<double, kMaxLanes> totals{};
    if (!lseGiven()) {
      for (Index c = 0; c < m_columns; ++c) {
        for (Index lane = 0; lane < m_lanes; ++lane) {
          totals[at(lane)] += static_cast<double>(panel.sum.get()[c * m_lanes + lane]);
        }
      }
    }
    for (std::size_t lane = 0; lane < panel.rows.size(); ++lane) {
      const Index row = panel.rows[lane];
      double lse2 = 0;
      if (lseGiven()) {
        const float lse = m_pass.givenLse[at(row)];
        lanes.counts[lane] = std::isfinite(lse);  // -inf: no valid key, NaN: padding
        if (!lanes.counts[lane]) continue;
        lse2 = static_cast<double>(lse) * kLog2E;
        lanes.sumNorm[lane] = static_cast<float>(std::exp2(static_cast<double>(panel.reference.applied[lane]) - lse2));
      } else {
        lanes.counts[lane] = true;
        if (panel.reference.value[lane] == kMinusInfinity) {
          m_pass.lse[row] = kMinusInfinity;
          continue;
        }
        const double total = totals[lane];
        lse2 = static_cast<double>(panel.reference.applied[lane]) + std::log2(total);
        lanes.sumNorm[lane] = static_cast<float>(1.0 / total);
        m_pass.lse[row] = static_cast<float>(lse2 * kLn2);
      }
      lanes.reference[lane] = static_cast<float>(lse2);
      lanes.topNorm[lane] = static_cast<float>(std::exp2(static_cast<double>(lanes.reference[lane]) - lse2));
    }
    if (!wantMap()) return;
    if (m_pass.max != nullptr) {
      // All maxima become probabilities in one go. The sums of the kernel are of no use here.
      alignas(kAlignment) std::array<float, kMaxLanes> unused{};
      m_simd.tileExp(panel.top.get(), m_columns, m_head.factor(), lanes.reference.data(), unused.data());
    }
    const auto laneCount = static_cast<Index>(panel.rows.size());
    if (!m_head.masked() && everyRowAlone(panel.firstRow, laneCount)) {
      writeRows(panel, lanes);
      return;
    }
    for (Index lane = 0; lane < laneCount;) {
      const Index mapRow = m_pass.mapRow[at(panel.firstRow + lane)];
      Index end = lane + 1;
      while (end < laneCount && m_pass.mapRow[at(panel.firstRow + end)] == mapRow) ++end;
      if (mapRow != current.mapRow) {
        close(current, unit);
        current.begin(mapRow, m_columns, m_head.masked());
      }
      addLanes(panel, lane, end, lanes, current);
      lane = end;
    }
  }

  /// Whether each of these rows is a map row by itself (a map of single tokens).
  [[nodiscard]] bool everyRowAlone(Index first, Index count) const {
    const auto all = static_cast<Index>(m_pass.mapRow.size());
    for (Index i = std::max<Index>(first, 1); i < std::min(all, first + count + 1); ++i) {
      if (m_pass.mapRow[at(i)] == m_pass.mapRow[at(i - 1)]) return false;
    }
    return true;
  }

  /// Cells of such rows need no summing: transposed in small squares straight into the map.
  void writeRows(const Panel& panel, const Lanes& lanes) const {
    constexpr Index kSquare = 16;
    for (Index c0 = 0; c0 < m_columns; c0 += kSquare) {
      const Index c1 = std::min(m_columns, c0 + kSquare);
      for (std::size_t lane = 0; lane < panel.rows.size(); ++lane) {
        if (!lanes.counts[lane]) continue;
        const Index row = m_pass.mapRow[at(panel.firstRow) + lane] * m_columns;
        for (Index c = c0; c < c1; ++c) {
          const Index width = m_pass.colEdges[at(c + 1)] - m_pass.colEdges[at(c)];
          if (width == 0) continue;
          const Index from = c * m_lanes + static_cast<Index>(lane);
          if (m_pass.mean != nullptr) {
            m_pass.mean[row + c] = panel.sum.get()[from] * lanes.sumNorm[lane] / static_cast<float>(width);
          }
          if (m_pass.max != nullptr) m_pass.max[row + c] = panel.top.get()[from] * lanes.topNorm[lane];
        }
      }
    }
  }

  void addLanes(const Panel& panel, Index first, Index last, const Lanes& lanes, CellRow& cells) const {
    for (Index lane = first; lane < last; ++lane) {
      if (!lanes.counts[at(lane)]) continue;
      ++cells.rows;
      if (!m_head.masked()) continue;
      for (Index c = 0; c < m_columns; ++c) {
        cells.pairs[at(c)] +=
            m_head.validPairs(panel.rows[at(lane)], m_pass.colEdges[at(c)], m_pass.colEdges[at(c + 1)]);
      }
    }
    // A lane that does not count has a norm of 0 (and finite sums), as have those of other map rows here.
    alignas(kAlignment) std::array<float, kMaxLanes> norm{};
    const auto only = [&](const std::array<float, kMaxLanes>& from) {
      std::copy(from.begin() + first, from.begin() + last, norm.begin() + first);
      return norm.data();
    };
    if (m_pass.mean != nullptr) m_simd.addLanes(panel.sum.get(), m_columns, only(lanes.sumNorm), cells.sum.data());
    if (m_pass.max != nullptr) m_simd.maxLanes(panel.top.get(), m_columns, only(lanes.topNorm), cells.top.data());
  }

  /// A unit's first map row may have begun in the unit before: it waits. Later ones are complete when the next begins.
  void close(CellRow& current, Index unit) {
    if (current.mapRow < 0) return;
    CellRow& first = m_staged[at(unit * 2)];
    if (first.mapRow < 0) {
      first = std::move(current);
      current = {};
    } else {
      write(current);
    }
  }

  void write(const CellRow& cells) const {
    if (cells.mapRow < 0) return;
    for (Index c = 0; c < m_columns; ++c) {
      const Index width = m_pass.colEdges[at(c + 1)] - m_pass.colEdges[at(c)];
      const Index pairs = m_head.masked() ? cells.pairs[at(c)] : cells.rows * width;
      if (pairs == 0) continue;
      const Index cell = cells.mapRow * m_columns + c;
      if (m_pass.mean != nullptr) m_pass.mean[cell] = static_cast<float>(cells.sum[at(c)] / static_cast<double>(pairs));
      if (m_pass.max != nullptr) m_pass.max[cell] = cells.top[at(c)];
    }
  }

  const MapPass& m_pass;
  const CpuHead& m_head;
  const SimdKernels& m_simd;
  const Index m_lanes;
  const Index m_columns;
  const bool m_folds;  ///< foldColumns, else foldTile
  const Index m_panels;
  std::vector<CellRow> m_staged;
};

}  // namespace

void MapPass::run() const {
  if (!rows.empty()) Runner(*this).run();
}

}  // namespace sparsight::cpu

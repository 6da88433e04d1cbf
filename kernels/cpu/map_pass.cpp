// SPDX-License-Identifier: Apache-2.0
#include "cpu/map_pass.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "cpu/lazy_softmax.h"

namespace sparsight::cpu {
namespace {

constexpr Index kTileKeys = 96;       // a multiple of every key unroll; 48 KiB of keys at head_dim 128 stay in L2
constexpr Index kMaxPanels = 4;       // panels that share a key tile
constexpr Index kManyColumns = 2048;  // beyond it the per-column partial sums of one panel are large enough
constexpr Index kMaxUnits = 256;
constexpr Index kStagingBytes = Index{32} << 20;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// One row of cells while it is summed up, in log2 units for the maximum.
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
    top.assign(at(columns), kMinusInfinity);
    if (countPairs) pairs.assign(at(columns), 0);
  }
  void add(const CellRow& other) {
    rows += other.rows;
    for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += other.sum[c];
    for (std::size_t c = 0; c < top.size(); ++c) top[c] = std::max(top[c], other.top[c]);
    for (std::size_t c = 0; c < pairs.size(); ++c) pairs[c] += other.pairs[c];
  }
};

/// The part of a column inside a key tile.
struct Segment {
  Index column, offset, count;
};

struct Panel {
  LazyReference reference;
  AlignedFloats queries;  // [dim, lanes]
  AlignedFloats sum;      // [C, lanes] partial sums relative to the reference
  AlignedFloats top;      // [C, lanes] largest raw scores
  std::span<const Index> rows;
  Index firstRow = 0;
};

struct Work {
  Work(const MapPass& pass, Index panelCount, Index columns) {
    const Index lanes = pass.head.simd().lanes;
    for (Index i = 0; i < panelCount; ++i) {
      panels[at(i)].queries = AlignedFloats(pass.head.dim() * lanes);
      panels[at(i)].sum = AlignedFloats(columns * lanes);
      if (pass.max != nullptr) panels[at(i)].top = AlignedFloats(columns * lanes);
    }
    scores = AlignedFloats(kTileKeys * lanes);
    row.resize(at(pass.head.dim()));
  }
  std::array<Panel, kMaxPanels> panels;
  AlignedFloats scores;  // [kTileKeys, lanes]
  std::vector<float> row;
  std::vector<Segment> segments;
};

class Runner {
 public:
  explicit Runner(const MapPass& pass)
      : m_pass(pass),
        m_head(pass.head),
        m_simd(pass.head.simd()),
        m_lanes(m_simd.lanes),
        m_columns(static_cast<Index>(pass.colEdges.size()) - 1),
        m_panels(m_columns > kManyColumns ? 1 : kMaxPanels) {}

  void run() {
    const auto rowCount = static_cast<Index>(m_pass.rows.size());
    const Index blockRows = m_panels * m_lanes;
    const Index blocks = (rowCount + blockRows - 1) / blockRows;
    // The cut into units depends on the shape alone, never on the threads: so do all sums.
    const Index rowBytes = m_columns * static_cast<Index>(sizeof(double) + sizeof(float));
    const Index units = std::max<Index>(1, std::min({blocks, kMaxUnits, kStagingBytes / (2 * rowBytes)}));
    m_staged.resize(at(units * 2));
    ScratchPool<Work> pool([this] { return std::make_unique<Work>(m_pass, m_panels, m_columns); });
    std::atomic<Index> done{0};
    m_pass.executor.parallelFor(units, 1, m_pass.control, [&](Index unit, Index) {
      const auto lease = pool.take();
      CellRow current;
      for (Index block = unit * blocks / units; block < (unit + 1) * blocks / units; ++block) {
        runBlock(*lease, block * blockRows, std::min(rowCount, (block + 1) * blockRows), unit, current);
        m_pass.control.report(static_cast<double>(++done) / static_cast<double>(blocks));
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
  [[nodiscard]] bool wantMap() const { return m_pass.mean != nullptr || m_pass.max != nullptr; }
  [[nodiscard]] bool lseGiven() const { return !m_pass.givenLse.empty(); }
  [[nodiscard]] bool wantSums() const { return !lseGiven() || m_pass.mean != nullptr; }

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
    for (Index key = m_pass.colEdges.front(); key < keyLast; key += kTileKeys) {
      m_pass.control.checkpoint();
      const Index count = std::min(kTileKeys, keyLast - key);
      column = cutSegments(key, count, column, work.segments);
      for (Index i = 0; i < used; ++i) foldTile(work.panels[at(i)], work, key, count);
    }
    for (Index i = 0; i < used; ++i) finish(work.panels[at(i)], unit, current);
  }

  void begin(Panel& panel, float* row) const {
    m_head.packPanel(panel.rows, panel.queries.get(), row);
    panel.reference.reset(m_lanes);
    if (lseGiven()) {
      for (std::size_t lane = 0; lane < panel.rows.size(); ++lane) {
        const float lse = m_pass.givenLse[at(panel.rows[lane])];
        if (std::isfinite(lse)) panel.reference.applied[lane] = static_cast<float>(static_cast<double>(lse) * kLog2E);
      }
    }
    std::fill(panel.sum.get(), panel.sum.get() + m_columns * m_lanes, 0.0F);
    if (panel.top.get() != nullptr) {
      std::fill(panel.top.get(), panel.top.get() + m_columns * m_lanes, kMinusInfinity);
    }
  }

  /// Columns of the tile, starting the search at the column where the last tile ended.
  Index cutSegments(Index key, Index count, Index column, std::vector<Segment>& segments) const {
    segments.clear();
    for (Index end = key; end < key + count;) {
      while (m_pass.colEdges[at(column + 1)] <= end) ++column;
      const Index next = std::min(m_pass.colEdges[at(column + 1)], key + count);
      segments.push_back({column, end - key, next - end});
      end = next;
    }
    return column;
  }

  void foldTile(Panel& panel, Work& work, Index key, Index count) const {
    float* const scores = work.scores.get();
    m_simd.scores(panel.queries.get(), m_head.key(key), m_head.keyStride(), count, m_head.dim(), scores);
    m_head.applyDenseMask(panel.rows, key, {}, count, scores);
    alignas(kAlignment) std::array<float, kMaxLanes> largest;
    largest.fill(kMinusInfinity);
    if (m_pass.max != nullptr) {
      for (const Segment& s : work.segments) {
        float* const top = panel.top.get() + s.column * m_lanes;
        m_simd.tileMax(scores + s.offset * m_lanes, s.count, top);
        for (Index lane = 0; lane < m_lanes; ++lane) largest[at(lane)] = std::max(largest[at(lane)], top[lane]);
      }
    } else if (!lseGiven()) {
      m_simd.tileMax(scores, count, largest.data());
    }
    if (!lseGiven()) {
      const Index columns = work.segments.back().column + 1;
      panel.reference.lift(largest.data(), m_head.factor(), m_lanes, [&](Index lane, float factor) {
        for (Index c = 0; c < columns; ++c) panel.sum.get()[c * m_lanes + lane] *= factor;
      });
    }
    if (!wantSums()) return;
    for (const Segment& s : work.segments) {
      m_simd.tileExpSum(scores + s.offset * m_lanes, s.count, m_head.factor(), panel.reference.applied,
                        panel.sum.get() + s.column * m_lanes);
    }
  }

  void finish(const Panel& panel, Index unit, CellRow& current) {
    alignas(kAlignment) std::array<float, kMaxLanes> norm{};  // 2^(reference - lse)
    std::array<double, kMaxLanes> lse2{};
    std::array<bool, kMaxLanes> counts{};
    for (std::size_t lane = 0; lane < panel.rows.size(); ++lane) {
      const Index row = panel.rows[lane];
      if (lseGiven()) {
        const float lse = m_pass.givenLse[at(row)];
        counts[lane] = std::isfinite(lse);  // -inf: no valid key, NaN: padding
        if (!counts[lane]) continue;
        lse2[lane] = static_cast<double>(lse) * kLog2E;
        norm[lane] = static_cast<float>(std::exp2(static_cast<double>(panel.reference.applied[lane]) - lse2[lane]));
        continue;
      }
      counts[lane] = true;
      double total = 0;
      for (Index c = 0; c < m_columns; ++c) {
        total += static_cast<double>(panel.sum.get()[at(c * m_lanes) + lane]);
      }
      if (panel.reference.value[lane] == kMinusInfinity) {
        m_pass.lse[row] = kMinusInfinity;
        continue;
      }
      lse2[lane] = static_cast<double>(panel.reference.applied[lane]) + std::log2(total);
      norm[lane] = static_cast<float>(1.0 / total);
      m_pass.lse[row] = static_cast<float>(lse2[lane] * kLn2);
    }
    if (!wantMap()) return;
    const auto laneCount = static_cast<Index>(panel.rows.size());
    for (Index lane = 0; lane < laneCount;) {
      const Index mapRow = m_pass.mapRow[at(panel.firstRow + lane)];
      Index end = lane + 1;
      while (end < laneCount && m_pass.mapRow[at(panel.firstRow + end)] == mapRow) ++end;
      if (mapRow != current.mapRow) {
        close(current, unit);
        current.begin(mapRow, m_columns, m_head.masked());
      }
      addLanes(panel, lane, end, norm, lse2, counts, current);
      lane = end;
    }
  }

  void addLanes(const Panel& panel, Index first, Index last, const std::array<float, kMaxLanes>& norm,
                const std::array<double, kMaxLanes>& lse2, const std::array<bool, kMaxLanes>& counts,
                CellRow& cells) const {
    for (Index lane = first; lane < last; ++lane) {
      if (!counts[at(lane)]) continue;
      ++cells.rows;
      if (m_head.masked()) {
        for (Index c = 0; c < m_columns; ++c) {
          cells.pairs[at(c)] +=
              m_head.validPairs(panel.rows[at(lane)], m_pass.colEdges[at(c)], m_pass.colEdges[at(c + 1)]);
        }
      }
    }
    if (m_pass.mean != nullptr) {
      for (Index c = 0; c < m_columns; ++c) {
        const float* const sum = panel.sum.get() + c * m_lanes;
        float total = 0;
        for (Index lane = first; lane < last; ++lane) {
          if (counts[at(lane)]) total += sum[lane] * norm[at(lane)];
        }
        cells.sum[at(c)] += static_cast<double>(total);
      }
    }
    if (m_pass.max != nullptr) {
      const auto factor = static_cast<double>(m_head.factor());
      for (Index c = 0; c < m_columns; ++c) {
        const float* const top = panel.top.get() + c * m_lanes;
        float best = cells.top[at(c)];
        for (Index lane = first; lane < last; ++lane) {
          if (!counts[at(lane)]) continue;
          best = std::max(best, static_cast<float>(factor * static_cast<double>(top[lane]) - lse2[at(lane)]));
        }
        cells.top[at(c)] = best;
      }
    }
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
      if (m_pass.max != nullptr) m_pass.max[cell] = std::exp2(cells.top[at(c)]);
    }
  }

  const MapPass& m_pass;
  const CpuHead& m_head;
  const SimdKernels& m_simd;
  const Index m_lanes;
  const Index m_columns;
  const Index m_panels;
  std::vector<CellRow> m_staged;
};

}  // namespace

void MapPass::run() const {
  if (!rows.empty()) Runner(*this).run();
}

}  // namespace sparsight::cpu

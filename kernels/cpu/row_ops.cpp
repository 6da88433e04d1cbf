// SPDX-License-Identifier: Apache-2.0
#include "cpu/row_ops.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "checks.h"
#include "cpu/attend_pass.h"
#include "cpu/lazy_softmax.h"
#include "cpu/select.h"

namespace sparsight::cpu {
namespace {

constexpr Index kTileKeys = 96;
constexpr Index kMaxPanels = 8;                 // panels that share a key tile,
constexpr Index kScoreBytes = Index{16} << 20;  // as far as their rows of scores fit into this

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// Rows of scores of a few panels; the members below `base` are those of one panel at a time.
struct RowWork {
  RowWork(const CpuHead& head, Index panels)
      : queries(panels * head.panelFloats()),
        keyTile(head.tileFloats(kTileKeys)),
        tile(kTileKeys * head.simd().lanes),
        stride(rowStride(head)),
        scores(panels * head.simd().lanes * stride),
        weights(stride),
        row(at(head.dim())) {}

  /// 16 floats more per row: rows a power of two apart would share L1 sets while a tile is spread over them.
  static Index rowStride(const CpuHead& head) { return (head.keyCount() + 15) / 16 * 16 + 16; }
  /// As many panels as are useful and as fit.
  static Index panelsFor(const CpuHead& head) {
    const Index panelBytes = head.simd().lanes * rowStride(head) * static_cast<Index>(sizeof(float));
    return std::clamp<Index>(kScoreBytes / panelBytes, 1, kMaxPanels);
  }
  [[nodiscard]] std::span<const float> rowScores(Index lane, Index keys) const {
    return {base + lane * stride, at(keys)};
  }

  AlignedFloats queries, keyTile, tile;
  Index stride;
  AlignedFloats scores, weights;
  std::vector<float> row;
  std::vector<Index> queryRows;  // of all panels
  Selector selector;
  AlignedFloats out;                     // attendTop: [lanes, value stride]
  std::vector<std::uint64_t> histogram;  // globalTop

  const float* base = nullptr;  // scores of the panel at hand
  std::vector<Index> listed;    // its places in the list of rows
};

/// Calls body(work) for every panel of rows that are no padding, with the scores of its rows in place.
class PanelLoop {
 public:
  PanelLoop(const CpuHead& head, std::span<const Index> rows, const Executor& executor, const Control& control)
      : m_head(head), m_executor(executor), m_control(control), m_rows(rows) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!detail::isPaddingRow(head.input(), rows[i])) m_listed.push_back(static_cast<Index>(i));
    }
  }

  /// `share` of the whole operation's progress, from `done`.
  template <class Body>
  void run(ScratchPool<RowWork>& pool, double done, double share, const Body& body) const {
    const Index lanes = m_head.simd().lanes;
    const auto count = static_cast<Index>(m_listed.size());
    // Rows are independent of each other, so short lists may be cut finer to keep all threads at work.
    const Index panelsEach = count / (lanes * 4 * m_executor.threads());
    const Index pieceRows = std::clamp<Index>(panelsEach, 1, RowWork::panelsFor(m_head)) * lanes;
    LoopProgress progress(m_control, count, done, share);
    m_executor.parallelFor(count, pieceRows, m_control, [&](Index first, Index last) {
      const auto lease = pool.take();
      RowWork& work = *lease;
      score(work, first, last);
      for (Index row = first; row < last; row += lanes) {
        work.listed.assign(m_listed.begin() + row, m_listed.begin() + std::min(last, row + lanes));
        work.base = work.scores.get() + (row - first) * work.stride;
        body(work);
      }
      progress.add(last - first);
    });
  }
  [[nodiscard]] std::unique_ptr<RowWork> makeWork() const {
    return std::make_unique<RowWork>(m_head, RowWork::panelsFor(m_head));
  }

 private:
  void score(RowWork& work, Index first, Index last) const {
    const SimdKernels& simd = m_head.simd();
    const Index lanes = simd.lanes;
    work.queryRows.clear();
    for (Index i = first; i < last; ++i) work.queryRows.push_back(m_rows[at(m_listed[at(i)])]);
    const auto panelRows = [&](Index row) {
      return std::span(work.queryRows).subspan(at(row), at(std::min(lanes, last - first - row)));
    };
    for (Index row = 0; row < last - first; row += lanes) {
      m_head.packPanel(panelRows(row), work.queries.get() + row / lanes * m_head.panelFloats(), work.row.data());
    }
    for (Index key = 0; key < m_head.keyCount(); key += kTileKeys) {
      m_control.checkpoint();
      const Index count = std::min(kTileKeys, m_head.keyCount() - key);
      const KeyTile keys = m_head.keys(key, count, work.keyTile.get());
      alignas(kAlignment) std::array<float, kMaxLanes> unused{};
      for (Index row = 0; row < last - first; row += lanes) {
        m_head.scores(work.queries.get() + row / lanes * m_head.panelFloats(), keys, count, work.tile.get(),
                      unused.data());
        m_head.applyDenseMask(panelRows(row), key, {}, count, work.tile.get());
        simd.toRows(work.tile.get(), count, work.scores.get() + row * work.stride + key, work.stride);
      }
    }
  }

  const CpuHead& m_head;
  const Executor& m_executor;
  const Control& m_control;
  const std::span<const Index> m_rows;
  std::vector<Index> m_listed;
};

/// Softmax of one row relative to its largest score.
struct RowSoftmax {
  float top = kMinusInfinity;  ///< largest score; -inf: no valid key
  double top2 = 0;             ///< its log2 logit
  double sum = 0;              ///< of 2^t, t = log2 logit - top2
  double sumLog = 0;           ///< of 2^t t
  [[nodiscard]] bool empty() const noexcept { return top == kMinusInfinity; }
  [[nodiscard]] double lse2() const noexcept { return top2 + std::log2(sum); }
};

RowSoftmax softmax(const CpuHead& head, std::span<const float> scores, float* weights) {
  RowSoftmax row;
  const auto count = static_cast<Index>(scores.size());
  row.top = head.simd().rowMax(scores.data(), count);
  if (row.empty()) return row;
  row.top2 = static_cast<double>(head.factor()) * static_cast<double>(row.top);
  head.simd().rowExp(scores.data(), count, head.factor(), row.top, weights, &row.sum, &row.sumLog);
  return row;
}

}  // namespace

AttendResult attendTopRows(const CpuHead& head, std::span<const Index> rows, std::span<const Index> counts,
                           const Executor& executor, const Control& control) {
  const SimdKernels& simd = head.simd();
  const Index lanes = simd.lanes;
  const Index keys = head.keyCount();
  const CpuHead::Values values = head.values(executor, control);
  const Index dv = head.input().v.cols;
  AttendResult result = emptyAttendResult(head.input(), rows.size());
  result.threshold.assign(rows.size(), std::numeric_limits<float>::infinity());

  const PanelLoop loop(head, rows, executor, control);
  ScratchPool<RowWork> pool([&] {
    auto work = loop.makeWork();
    work->out = AlignedFloats(lanes * values.stride);
    return work;
  });
  loop.run(pool, 0, 1, [&](RowWork& work) {
    std::array<TopCut, kMaxLanes> cuts{};
    std::array<Index, kMaxLanes> tiesLeft{};
    alignas(kAlignment) std::array<float, kMaxLanes> reference{};
    alignas(kAlignment) std::array<float, kMaxLanes> sums{};
    for (std::size_t lane = 0; lane < work.listed.size(); ++lane) {
      const std::span<const float> scores = work.rowScores(static_cast<Index>(lane), keys);
      const auto listed = at(work.listed[lane]);
      result.lse[listed] = kMinusInfinity;
      cuts[lane] = work.selector.top(scores, counts[listed]);
      tiesLeft[lane] = cuts[lane].ties;
      if (cuts[lane].ties == 0) continue;
      const RowSoftmax row = softmax(head, scores, work.weights.get());
      reference[lane] = static_cast<float>(row.top2);
      const double cut2 = static_cast<double>(head.factor()) * static_cast<double>(cuts[lane].value);
      result.threshold[listed] = static_cast<float>(std::exp2(cut2 - row.lse2()));
    }
    if (values.data != nullptr) std::fill(work.out.get(), work.out.get() + lanes * values.stride, 0.0F);
    for (Index key = 0; key < keys; key += kTileKeys) {
      control.checkpoint();
      const Index count = std::min(kTileKeys, keys - key);
      std::fill(work.tile.get(), work.tile.get() + count * lanes, kMinusInfinity);
      bool any = false;
      for (std::size_t lane = 0; lane < work.listed.size(); ++lane) {
        if (cuts[lane].ties == 0) continue;
        const float* const scores = work.base + static_cast<Index>(lane) * work.stride + key;
        Index kept = 0;
        for (Index n = 0; n < count; ++n) {
          const float score = scores[n] + 0.0F;
          const bool keep = score > cuts[lane].value || (score == cuts[lane].value && tiesLeft[lane]-- > 0);
          if (!keep) continue;
          work.tile.get()[n * lanes + static_cast<Index>(lane)] = score;
          ++kept;
        }
        any = any || kept > 0;
        result.count[at(work.listed[lane])] += kept;
      }
      if (!any) continue;
      simd.tileExp(work.tile.get(), count, head.factor(), reference.data(), sums.data());
      if (values.data != nullptr) {
        simd.accumulate(work.tile.get(), count, values.row(key), values.stride, values.columns, work.out.get(),
                        values.stride);
      }
    }
    for (std::size_t lane = 0; lane < work.listed.size(); ++lane) {
      if (cuts[lane].ties == 0) continue;
      const Index listed = work.listed[lane];
      const auto sum = static_cast<double>(sums[lane]);
      result.lse[at(listed)] = static_cast<float>((static_cast<double>(reference[lane]) + std::log2(sum)) * kLn2);
      if (values.data == nullptr) continue;
      const auto scale = static_cast<float>(1.0 / sum);
      const float* const from = work.out.get() + static_cast<Index>(lane) * values.stride;
      for (Index c = 0; c < dv; ++c) result.out[at(listed * dv + c)] = from[c] * scale;
    }
  });
  return result;
}

RowStats rowStatistics(const CpuHead& head, std::span<const Index> rows, double mass, const Executor& executor,
                       const Control& control) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  RowStats stats;
  stats.lse.assign(rows.size(), kNan);
  stats.entropyBits.assign(rows.size(), kNan);
  stats.top1.assign(rows.size(), kNan);
  stats.keysForMass.assign(rows.size(), 0);
  const PanelLoop loop(head, rows, executor, control);
  ScratchPool<RowWork> pool([&] { return loop.makeWork(); });
  loop.run(pool, 0, 1, [&](RowWork& work) {
    for (std::size_t lane = 0; lane < work.listed.size(); ++lane) {
      control.checkpoint();
      const auto listed = at(work.listed[lane]);
      const RowSoftmax row =
          softmax(head, work.rowScores(static_cast<Index>(lane), head.keyCount()), work.weights.get());
      stats.lse[listed] = kMinusInfinity;
      if (row.empty()) continue;
      stats.lse[listed] = static_cast<float>(row.lse2() * kLn2);
      // Relative to the largest logit: no cancellation however large the logits are. Rounding may end a hair below 0.
      stats.entropyBits[listed] = static_cast<float>(std::max(0.0, std::log2(row.sum) - row.sumLog / row.sum));
      stats.top1[listed] = static_cast<float>(1.0 / row.sum);
      stats.keysForMass[listed] = work.selector.countForMass({work.weights.get(), at(head.keyCount())}, mass);
    }
  });
  return stats;
}

GlobalTop globalTopRows(const CpuHead& head, std::span<const Index> rows, Index total, const Executor& executor,
                        const Control& control) {
  constexpr unsigned kHalfBits = 16;
  constexpr std::size_t kBuckets = std::size_t{1} << kHalfBits;
  constexpr std::uint32_t kLowMask = (1U << kHalfBits) - 1U;

  GlobalTop top;
  top.threshold = std::numeric_limits<float>::infinity();
  top.count.assign(rows.size(), 0);
  std::vector<float> largest(rows.size(), 0.0F);
  std::vector<float> log2Sum(rows.size(), 0.0F);

  const PanelLoop loop(head, rows, executor, control);
  ScratchPool<RowWork> pool([&] {
    auto work = loop.makeWork();
    work->histogram.assign(kBuckets, 0);
    return work;
  });
  /// Log2 probability of a score, as an integer in the same order. All passes compute the same bits. Relative to the
  /// row's largest logit first: rows of equal distributions are then real ties, whatever the size of their logits.
  const auto bitsOf = [&](float score, std::size_t listed) {
    return orderedBits(head.factor() * (score - largest[listed]) - log2Sum[listed]);
  };
  /// Visits every valid pair: visit(work, listed row, bits).
  const auto everyPair = [&](double done, const auto& visit) {
    loop.run(pool, done, 0.25, [&](RowWork& work) {
      for (std::size_t lane = 0; lane < work.listed.size(); ++lane) {
        control.checkpoint();
        const auto listed = at(work.listed[lane]);
        for (const float score : work.rowScores(static_cast<Index>(lane), head.keyCount())) {
          if (score > kMinusInfinity) visit(work, listed, bitsOf(score, listed));
        }
      }
    });
  };
  /// Sums the pieces' histograms (integers: any order gives the same) and finds the bucket that holds the last kept
  /// pair; `left` becomes the number to keep inside it. False: fewer pairs than `left` in all.
  const auto findBucket = [&](Index& left, std::uint32_t& bucket) {
    std::vector<std::uint64_t> sum(kBuckets, 0);
    for (const auto& work : pool.all()) {
      for (std::size_t b = 0; b < kBuckets; ++b) sum[b] += work->histogram[b];
      std::fill(work->histogram.begin(), work->histogram.end(), 0);
    }
    for (std::size_t b = kBuckets; b-- > 0;) {
      const auto here = static_cast<Index>(sum[b]);
      if (here >= left) {
        bucket = static_cast<std::uint32_t>(b);
        return true;
      }
      left -= here;
    }
    return false;
  };

  Index pairs = 0;
  {
    std::atomic<Index> valid{0};
    loop.run(pool, 0, 0.25, [&](RowWork& work) {
      for (std::size_t lane = 0; lane < work.listed.size(); ++lane) {
        const std::span<const float> scores = work.rowScores(static_cast<Index>(lane), head.keyCount());
        const RowSoftmax row = softmax(head, scores, work.weights.get());
        if (row.empty()) continue;
        largest[at(work.listed[lane])] = row.top;
        log2Sum[at(work.listed[lane])] = static_cast<float>(std::log2(row.sum));
        valid += static_cast<Index>(
            std::count_if(scores.begin(), scores.end(), [](float score) { return score > kMinusInfinity; }));
      }
    });
    pairs = valid;
  }
  Index left = std::min(total, pairs);
  if (left == 0) return top;

  std::uint32_t high = 0;
  everyPair(0.25, [&](RowWork& work, std::size_t, std::uint32_t bits) { ++work.histogram[bits >> kHalfBits]; });
  if (!findBucket(left, high)) throw Error(ErrorCode::Internal, "global selection: the pairs changed between passes");
  std::uint32_t low = 0;
  everyPair(0.5, [&](RowWork& work, std::size_t, std::uint32_t bits) {
    if (bits >> kHalfBits == high) ++work.histogram[bits & kLowMask];
  });
  if (!findBucket(left, low)) throw Error(ErrorCode::Internal, "global selection: the pairs changed between passes");

  const std::uint32_t cut = (high << kHalfBits) | low;
  std::vector<Index> equal(rows.size(), 0);
  everyPair(0.75, [&](RowWork&, std::size_t listed, std::uint32_t bits) {
    if (bits > cut) ++top.count[listed];
    if (bits == cut) ++equal[listed];
  });
  for (std::size_t i = 0; i < rows.size() && left > 0; ++i) {
    const Index taken = std::min(left, equal[i]);
    top.count[i] += taken;
    left -= taken;
  }
  top.threshold = std::exp2(fromOrderedBits(cut));
  return top;
}

}  // namespace sparsight::cpu

// SPDX-License-Identifier: Apache-2.0
// What is selected from whole rows of scores: row statistics and the largest probabilities of a head.
#include <algorithm>

#include "cuda/backend_impl.h"

namespace sparsight::cuda {

RowPanel CudaBackend::makeScores(const CudaHead& head, Index n, const char* what) {
  const AttentionIn& in = head.input();
  constexpr Index kMostKeyBlocks = 65535;
  constexpr Index kFewestKeys = 8 * kTileKeys;
  ScoreRowsParams params{};
  params.in = head.operands();
  params.validity = validityOf(head);
  params.rows = m_scratch.rows.as<const std::int32_t>();
  params.rowCount = static_cast<std::int32_t>(n);
  params.keyCount = static_cast<std::int32_t>(in.k.rows);
  params.keysPerBlock =
      static_cast<std::int32_t>(std::max(kFewestKeys, scoreStride((in.k.rows + kMostKeyBlocks - 1) / kMostKeyBlocks)));
  params.sign = rankingSign(in.scale);
  params.scores = m_scratch.scores.as<float>();
  params.stride = scoreStride(in.k.rows);
  check(launchScoreRows(head.dtype, m_path, params, m_stream.get()), what);
  return {params.scores, params.stride, params.keyCount, static_cast<float>(std::abs(in.scale) * kLog2E),
          std::abs(in.scale)};
}

RowStats CudaBackend::rowStats(const PreparedHead& prepared, std::span<const Index> rows, double mass,
                               const Control& control) {
  const CudaHead& head = cast(prepared);
  const AttentionIn& in = head.input();
  detail::checkRows(in, rows);
  detail::checkMass(mass);
  start();
  static_cast<void>(arrived(prepared, control));
  return withSmallerBatches(Op::RowStats, [&](const LaunchLimits& limits) {
    const Drain drain(m_stream);
    RowStats stats;
    stats.lse.assign(rows.size(), kNan);
    stats.entropyBits.assign(rows.size(), kNan);
    stats.top1.assign(rows.size(), kNan);
    stats.keysForMass.assign(rows.size(), 0);
    RowList list = listRows(in, rows);
    if (in.k.rows == 0) {
      for (const Index i : list.listed) stats.lse[at(i)] = -kInfinity;
      return stats;
    }
    list.perLaunch =
        std::min(rowsPerLaunch(
                     limits, list.count(), static_cast<double>(in.k.rows) * static_cast<double>(head.depth),
                     scoreStride(in.k.rows) * static_cast<Index>(sizeof(float)) + 64 + (head.masked() ? in.k.rows : 0)),
                 std::max<Index>(list.count(), 1));
    reserve<float>(m_scratch.scores, list.perLaunch * scoreStride(in.k.rows), "rows of scores");
    // Results of all rows stay on the device until the end, so that no launch waits for a copy.
    const Index count = list.count();
    reserve<float>(m_scratch.outLse, count, "row statistics");
    reserve<float>(m_scratch.entropy, count, "row statistics");
    reserve<float>(m_scratch.top1, count, "row statistics");
    reserve<std::int64_t>(m_scratch.outCount, count, "row statistics");
    beginTiming();
    forScorePanels(head, list, "row_stats", 0, 1, control, [&](Index first, Index n, const RowPanel& panel) {
      check(launchSelect(
                RowStatsParams{panel, mass, m_scratch.outLse.as<float>() + first, m_scratch.entropy.as<float>() + first,
                               m_scratch.top1.as<float>() + first, m_scratch.outCount.as<std::int64_t>() + first},
                n, m_stream.get()),
            "row_stats");
    });
    endTiming();
    std::vector<float> lse(at(count));
    std::vector<float> entropy(at(count));
    std::vector<float> top1(at(count));
    std::vector<std::int64_t> keys(at(count));
    download(lse, m_scratch.outLse.as<void>(), "read the row statistics");
    download(entropy, m_scratch.entropy.as<void>(), "read the row statistics");
    download(top1, m_scratch.top1.as<void>(), "read the row statistics");
    download(keys, m_scratch.outCount.as<void>(), "read the row statistics");
    m_stream.wait("row_stats");
    for (Index i = 0; i < count; ++i) {
      const auto to = at(list.listed[at(i)]);
      stats.lse[to] = lse[at(i)];
      stats.entropyBits[to] = entropy[at(i)];
      stats.top1[to] = top1[at(i)];
      stats.keysForMass[to] = keys[at(i)];
    }
    return stats;
  });
}

GlobalTop CudaBackend::globalTop(const PreparedHead& prepared, std::span<const Index> rows, Index total,
                                 const Control& control) {
  const CudaHead& head = cast(prepared);
  const AttentionIn& in = head.input();
  detail::checkRows(in, rows);
  detail::checkTotal(total);
  start();
  static_cast<void>(arrived(prepared, control));
  return withSmallerBatches(Op::GlobalTop, [&](const LaunchLimits& limits) {
    const Drain drain(m_stream);
    GlobalTop top;
    top.threshold = kInfinity;
    top.count.assign(rows.size(), 0);
    RowList list = listRows(in, rows);
    const Index count = list.count();
    if (in.k.rows == 0 || count == 0) return top;
    list.perLaunch =
        std::min(rowsPerLaunch(
                     limits, count, static_cast<double>(in.k.rows) * static_cast<double>(head.depth),
                     scoreStride(in.k.rows) * static_cast<Index>(sizeof(float)) + 64 + (head.masked() ? in.k.rows : 0)),
                 count);
    reserve<float>(m_scratch.scores, list.perLaunch * scoreStride(in.k.rows), "rows of scores");
    reserve<float>(m_scratch.rowMax, count, "global selection");
    reserve<float>(m_scratch.rowLog2Sum, count, "global selection");
    reserve<Counter>(m_scratch.rowPairs, count, "global selection");
    reserve<Counter>(m_scratch.rowAbove, count, "global selection");
    reserve<Counter>(m_scratch.rowEqual, count, "global selection");
    reserve<Counter>(m_scratch.histogram, kBuckets, "global selection");

    GlobalParams params{};
    params.rowMax = m_scratch.rowMax.as<float>();
    params.rowLog2Sum = m_scratch.rowLog2Sum.as<float>();
    params.rowPairs = m_scratch.rowPairs.as<Counter>();
    params.rowAbove = m_scratch.rowAbove.as<Counter>();
    params.rowEqual = m_scratch.rowEqual.as<Counter>();
    params.histogram = m_scratch.histogram.as<Counter>();

    // Where the scores of all rows fit, they are made once; otherwise each of the four passes makes them again, panel
    // by panel, with the same bits.
    const bool once = list.perLaunch >= count;
    RowPanel whole{};
    const auto everyPanel = [&](int pass, const auto& visit) {
      const double done = 0.25 * pass;
      if (once && pass > 0) {
        control.checkpoint();
        visit(Index{0}, count, whole);
        control.report(done + 0.25);
        return;
      }
      forScorePanels(head, list, "global_top", done, 0.25, control, [&](Index first, Index n, const RowPanel& panel) {
        whole = panel;
        visit(first, n, panel);
      });
    };
    Index left = total;
    std::vector<Counter> histogram(kBuckets);
    std::vector<Counter> pairs(at(count));
    beginTiming();
    for (int level = 0; level < kLevels; ++level) {
      clear(m_scratch.histogram, bytesOf(histogram), "clear a histogram");
      everyPanel(level, [&](Index first, Index n, const RowPanel& panel) {
        params.panel = panel;
        params.firstListed = static_cast<std::int32_t>(first);
        params.level = level;
        if (level == 0) check(launchSelect(GlobalRowsParams{params}, n, m_stream.get()), "global_top: rows");
        check(launchSelect(params, n, m_stream.get()), "global_top: histogram");
      });
      download(histogram, m_scratch.histogram.as<void>(), "read a histogram");
      if (level == 0) download(pairs, m_scratch.rowPairs.as<void>(), "read the pair counts");
      m_stream.wait("global_top");
      if (level == 0) {
        Counter valid = 0;
        for (const Counter n : pairs) valid += n;
        left = std::min(total, static_cast<Index>(valid));
        if (left == 0) return top;
      }
      int bucket = kBuckets - 1;
      while (bucket > 0 && static_cast<Index>(histogram[at(bucket)]) < left) {
        left -= static_cast<Index>(histogram[at(bucket--)]);
      }
      params.prefix |= static_cast<std::uint32_t>(bucket) << levelShift(level);
    }
    everyPanel(kLevels, [&](Index first, Index n, const RowPanel& panel) {
      params.panel = panel;
      params.firstListed = static_cast<std::int32_t>(first);
      params.level = kLevels;
      check(launchSelect(params, n, m_stream.get()), "global_top: counts");
    });
    endTiming();
    std::vector<Counter> above(at(count));
    std::vector<Counter> equal(at(count));
    download(above, m_scratch.rowAbove.as<void>(), "read the counts");
    download(equal, m_scratch.rowEqual.as<void>(), "read the counts");
    m_stream.wait("global_top");
    // Ties go to the lowest row in list order, then to the lowest key.
    for (Index i = 0; i < count; ++i) {
      const Index taken = std::min(left, static_cast<Index>(equal[at(i)]));
      top.count[at(list.listed[at(i)])] = static_cast<Index>(above[at(i)]) + taken;
      left -= taken;
    }
    top.threshold = std::exp2(fromOrderedBits(params.prefix));
    return top;
  });
}

}  // namespace sparsight::cuda

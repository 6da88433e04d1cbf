// SPDX-License-Identifier: Apache-2.0
// Attention of listed rows: over all keys, over intervals, over each row's most probable keys.
#include <fmt/format.h>

#include <algorithm>

#include "cuda/backend_impl.h"

namespace sparsight::cuda {
namespace {

void checkValues(const CudaHead& head) {
  if (head.hasValues() && head.input().v.cols > kLargestValueDim) {
    throw Error(ErrorCode::Unsupported, fmt::format("cuda: values of dimension {} are above {}; use the CPU",
                                                    head.input().v.cols, kLargestValueDim));
  }
}

}  // namespace

AttendResult CudaBackend::emptyAttend(const CudaHead& head, std::size_t rows) {
  AttendResult result;
  if (head.hasValues()) result.out.assign(rows * at(head.input().v.cols), 0.0F);
  result.lse.assign(rows, kNan);
  result.count.assign(rows, 0);
  return result;
}

CudaBackend::RowList CudaBackend::listRows(const AttentionIn& in, std::span<const Index> rows) {
  RowList list;
  list.rows = rows;
  for (Index i = 0; i < static_cast<Index>(rows.size()); ++i) {
    if (!detail::isPaddingRow(in, rows[at(i)])) list.listed.push_back(i);
  }
  return list;
}

void CudaBackend::uploadRows(const CudaHead& head, const RowList& list, Index first, Index n, const Control& control) {
  const AttentionIn& in = head.input();
  std::vector<std::int32_t> rows(at(n));
  if (head.masked()) m_scratch.maskRows.reserve(m_budget, n * in.k.rows, "rows of the dense mask");
  for (Index i = 0; i < n; ++i) {
    const Index row = list.rows[at(list.listed[at(first + i)])];
    rows[at(i)] = static_cast<std::int32_t>(row);
    if (head.masked()) {
      uploadMask(head, m_scratch.maskRows.as<std::byte>() + i * in.k.rows, row, 1, 0, in.k.rows, control);
    }
  }
  uploadTable(m_scratch.rows, rows, control, "upload the row list");
}

Validity CudaBackend::validityOf(const CudaHead& head) const {
  return {head.keyFlags(), head.masked() ? m_scratch.maskRows.as<const std::uint8_t>() : nullptr, head.input().k.rows,
          0};
}

bool CudaBackend::attendsOnHopper(const CudaHead& head) const {
  const Index valueCols = head.valueCols();
  return valueCols > 0 && head.input().scale != 0 &&
         takesHopper(head.dtype, m_path, std::max<Index>(head.depth, valueCols));
}

void CudaBackend::clearPaddingValues(const CudaHead& head) {
  const AttentionIn& in = head.input();
  if (in.keyValid.empty() || !attendsOnHopper(head)) return;
  // A padding key may hold anything, and tensor cores multiply it with 0: 0 x NaN is NaN.
  const Index rowBytes = head.valueCols() * static_cast<Index>(itemSize(head.dtype));
  check(launchClearValues({head.v.as<void>(), head.keyFlags(), static_cast<std::int32_t>(in.k.rows),
                           static_cast<std::int32_t>(rowBytes / 16)},
                          m_stream.get()),
        "clear the values of padding keys");
}

void CudaBackend::reserveAttend(const CudaHead& head, Index perLaunch) {
  reserve<float>(m_scratch.out, perLaunch * head.valueCols(), "attention output");
  reserve<float>(m_scratch.outLse, perLaunch, "attention output");
  reserve<std::int64_t>(m_scratch.outCount, perLaunch, "attention output");
}

void CudaBackend::attendPanel(const CudaHead& head, const RowList& list, Index first, Index n, const AttendParams& keep,
                              AttendResult& result) {
  const AttentionIn& in = head.input();
  const Index valueCols = head.valueCols();
  const Index valueDim = head.hasValues() ? in.v.cols : 0;
  AttendParams params = keep;
  params.in = head.operands();
  params.validity = validityOf(head);
  params.v = head.v.as<const void>();
  params.vCols = static_cast<std::int32_t>(valueCols);
  params.keyCount = static_cast<std::int32_t>(in.k.rows);
  params.rows = m_scratch.rows.as<const std::int32_t>();
  params.rowCount = static_cast<std::int32_t>(n);
  params.sign = in.scale < 0 ? -1.0F : 1.0F;
  params.cutSign = rankingSign(in.scale);
  params.exponentScale = static_cast<float>(std::abs(in.scale) * kLog2E);
  params.absScale = std::abs(in.scale);
  params.out = m_scratch.out.as<float>();
  params.lse = m_scratch.outLse.as<float>();
  params.count = m_scratch.outCount.as<std::int64_t>();
  check(attendsOnHopper(head) && params.cut == nullptr
            ? launchHopperAttend(head.dtype, params, m_stream.get())
            : launchAttend(head.dtype, m_path, valueDim, params, m_stream.get()),
        "attend");
  endTiming();

  std::vector<float> out(at(n * valueCols));
  std::vector<float> lse(at(n));
  std::vector<std::int64_t> kept(at(n));
  download(out, m_scratch.out.as<void>(), "read the attention output");
  download(lse, m_scratch.outLse.as<void>(), "read the attention output");
  download(kept, m_scratch.outCount.as<void>(), "read the attention output");
  m_stream.wait("attend");
  for (Index i = 0; i < n; ++i) {
    const Index to = list.listed[at(first + i)];
    result.lse[at(to)] = lse[at(i)];
    result.count[at(to)] = kept[at(i)];
    if (valueDim > 0) std::copy_n(out.begin() + i * valueCols, valueDim, result.out.begin() + to * valueDim);
  }
}

AttendResult CudaBackend::attend(const PreparedHead& prepared, std::span<const Index> rows, const RowKeep& keep,
                                 const Control& control) {
  const CudaHead& head = cast(prepared);
  const AttentionIn& in = head.input();
  detail::checkRows(in, rows);
  detail::checkKeep(in, rows, keep);
  checkValues(head);
  start();
  static_cast<void>(arrived(prepared, control));
  const bool keepsAll = detail::keepsAll(keep);
  std::vector<std::int32_t> edges;
  edges.reserve(keep.intervals.size() * 2);
  for (const Interval& interval : keep.intervals) {
    edges.push_back(static_cast<std::int32_t>(interval.first));
    edges.push_back(static_cast<std::int32_t>(interval.last));
  }
  return withSmallerBatches(Op::Attend, [&](const LaunchLimits& limits) {
    const Drain drain(m_stream);
    AttendResult result = emptyAttend(head, rows.size());
    RowList list = listRows(in, rows);
    if (in.k.rows == 0) {
      for (const Index i : list.listed) result.lse[at(i)] = -kInfinity;
      return result;
    }
    static_cast<void>(arrivedWithValues(prepared, control));
    clearPaddingValues(head);
    const Index valueCols = head.valueCols();
    list.perLaunch = rowsPerLaunch(
        limits, list.count(), static_cast<double>(in.k.rows) * static_cast<double>(head.depth + valueCols),
        valueCols * static_cast<Index>(sizeof(float)) + 64 + (head.masked() ? in.k.rows : 0));
    // A Hopper block's tiles start where its rows' intervals do: whole blocks, so that a launch's size changes nothing.
    if (attendsOnHopper(head)) list.perLaunch = hopperBlocksOf(list.perLaunch) * hopper::kBlockRows;
    list.perLaunch = std::min(list.perLaunch, std::max<Index>(list.count(), 1));
    reserveAttend(head, list.perLaunch);
    if (!keepsAll) uploadTable(m_scratch.intervals, edges, control, "upload the kept intervals");
    beginTiming();
    for (Index first = 0; first < list.count(); first += list.perLaunch) {
      control.checkpoint();
      const Index n = std::min(list.perLaunch, list.count() - first);
      uploadRows(head, list, first, n, control);
      AttendParams params{};
      if (!keepsAll) {
        std::vector<std::int64_t> keepFirst(at(n));
        std::vector<std::int64_t> keepLast(at(n));
        for (Index i = 0; i < n; ++i) {
          const Index place = list.listed[at(first + i)];
          const Index group = keep.group.empty() ? place : keep.group[at(place)];
          keepFirst[at(i)] = keep.ptr[at(group)];
          keepLast[at(i)] = keep.ptr[at(group + 1)];
        }
        uploadTable(m_scratch.keepFirst, keepFirst, control, "upload the kept intervals");
        uploadTable(m_scratch.keepLast, keepLast, control, "upload the kept intervals");
        params.keepFirst = m_scratch.keepFirst.as<const std::int64_t>();
        params.keepLast = m_scratch.keepLast.as<const std::int64_t>();
        params.intervals = m_scratch.intervals.as<const std::int32_t>();
      }
      attendPanel(head, list, first, n, params, result);
      control.report(static_cast<double>(first + n) / static_cast<double>(list.count()));
    }
    return result;
  });
}

AttendResult CudaBackend::attendTop(const PreparedHead& prepared, std::span<const Index> rows,
                                    std::span<const Index> counts, const Control& control) {
  const CudaHead& head = cast(prepared);
  const AttentionIn& in = head.input();
  detail::checkRows(in, rows);
  detail::checkCounts(rows, counts);
  checkValues(head);
  start();
  static_cast<void>(arrived(prepared, control));
  return withSmallerBatches(Op::AttendTop, [&](const LaunchLimits& limits) {
    const Drain drain(m_stream);
    AttendResult result = emptyAttend(head, rows.size());
    result.threshold.assign(rows.size(), kInfinity);
    RowList list = listRows(in, rows);
    if (in.k.rows == 0) {
      for (const Index i : list.listed) result.lse[at(i)] = -kInfinity;
      return result;
    }
    static_cast<void>(arrivedWithValues(prepared, control));
    const Index valueCols = head.valueCols();
    // Scores are made twice: to find the cuts, and to attend.
    list.perLaunch =
        std::min(rowsPerLaunch(limits, list.count(),
                               static_cast<double>(in.k.rows) * static_cast<double>(2 * head.depth + valueCols),
                               (scoreStride(in.k.rows) + valueCols) * static_cast<Index>(sizeof(float)) + 64 +
                                   (head.masked() ? in.k.rows : 0)),
                 std::max<Index>(list.count(), 1));
    reserveAttend(head, list.perLaunch);
    reserve<float>(m_scratch.scores, list.perLaunch * scoreStride(in.k.rows), "rows of scores");
    reserve<std::int64_t>(m_scratch.counts, list.perLaunch, "cuts");
    reserve<float>(m_scratch.cut, list.perLaunch, "cuts");
    reserve<std::int32_t>(m_scratch.lastTie, list.perLaunch, "cuts");
    reserve<float>(m_scratch.threshold, list.perLaunch, "cuts");
    beginTiming();
    forScorePanels(head, list, "attend_top", 0, 1, control, [&](Index first, Index n, const RowPanel& panel) {
      std::vector<std::int64_t> wanted(at(n));
      for (Index i = 0; i < n; ++i) wanted[at(i)] = counts[at(list.listed[at(first + i)])];
      uploadTable(m_scratch.counts, wanted, control, "upload the counts");
      check(launchSelect(TopCutParams{panel, m_scratch.counts.as<const std::int64_t>(), m_scratch.cut.as<float>(),
                                      m_scratch.lastTie.as<std::int32_t>(), m_scratch.threshold.as<float>()},
                         n, m_stream.get()),
            "attend_top: cuts");
      AttendParams params{};
      params.cut = m_scratch.cut.as<const float>();
      params.lastTie = m_scratch.lastTie.as<const std::int32_t>();
      attendPanel(head, list, first, n, params, result);
      std::vector<float> threshold(at(n));
      download(threshold, m_scratch.threshold.as<void>(), "read the thresholds");
      m_stream.wait("attend_top");
      for (Index i = 0; i < n; ++i) result.threshold[at(list.listed[at(first + i)])] = threshold[at(i)];
    });
    return result;
  });
}

}  // namespace sparsight::cuda

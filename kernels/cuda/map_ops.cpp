// SPDX-License-Identifier: Apache-2.0
// Row LSE, pooled maps and tiles of a map.
#include <fmt/format.h>

#include <algorithm>

#include "cuda/backend_impl.h"

namespace sparsight::cuda {
namespace {

std::vector<float> meanOf(const Pooled& pooled) {
  std::vector<float> out(pooled.sum.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = pooled.count[i] > 0 ? static_cast<float>(pooled.sum[i] / static_cast<double>(pooled.count[i])) : kNan;
  }
  return out;
}
std::vector<float> maxOf(const Pooled& pooled) {
  std::vector<float> out(pooled.max);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (pooled.count[i] == 0) out[i] = kNan;
  }
  return out;
}

}  // namespace

LseMapResult CudaBackend::lseMap(const PreparedHead& prepared, const LseMapRequest& request, const Control& control) {
  const CudaHead& head = cast(prepared);
  const AttentionIn& in = head.input();
  detail::checkRequest(in, request);
  start();
  static_cast<void>(arrived(prepared, control));
  const bool wantCells = !request.rowBounds.empty();
  const std::array<Index, 2> wholeColumns{0, in.k.rows};
  const Pooled pooled = withSmallerBatches(Op::LseMap, [&](const LaunchLimits& limits) {
    return pool(limits, head, {0, in.q.rows}, wantCells ? request.rowBounds : std::span<const Index>(),
                wantCells ? request.colBounds : std::span<const Index>(wholeColumns), request.rowLse, control);
  });
  LseMapResult result;
  result.lse.assign(pooled.lse.begin(), pooled.lse.end());
  if (!request.rowLse.empty()) result.lse.assign(request.rowLse.begin(), request.rowLse.end());
  if (wantCells && request.wantMean) result.mean = meanOf(pooled);
  if (wantCells && request.wantMax) result.max = maxOf(pooled);
  return result;
}

std::vector<float> CudaBackend::tile(const PreparedHead& prepared, std::span<const float> rowLse, const TileRect& rect,
                                     Reduce reduce, const Control& control) {
  const CudaHead& head = cast(prepared);
  detail::checkTile(head.input(), rowLse, rect);
  start();
  static_cast<void>(arrived(prepared, control));
  const std::vector<Index> rowBounds = detail::cellBounds(rect.row0, rect.row1, rect.cellRows);
  const std::vector<Index> colBounds = detail::cellBounds(rect.col0, rect.col1, rect.cellCols);
  const Pooled pooled = withSmallerBatches(Op::Tile, [&](const LaunchLimits& limits) {
    return pool(limits, head, {rect.row0, rect.row1}, rowBounds, colBounds, rowLse, control);
  });
  return reduce == Reduce::Mean ? meanOf(pooled) : maxOf(pooled);
}

Pooled CudaBackend::pool(const LaunchLimits& limits, const CudaHead& head, Interval region,
                         std::span<const Index> rowBounds, std::span<const Index> colBounds,
                         std::span<const float> givenLse, const Control& control) {
  const AttentionIn& in = head.input();
  const Drain drain(m_stream);
  const bool wantCells = !rowBounds.empty();
  const Index rows = region.last - region.first;
  const Index cellRows = wantCells ? static_cast<Index>(rowBounds.size()) - 1 : 0;
  const Index cellCols = wantCells ? static_cast<Index>(colBounds.size()) - 1 : 0;
  const Index cells = cellRows * cellCols;
  if (cellCols / kCellCols >= 65535) {
    throw Error(ErrorCode::Unsupported, fmt::format("cuda: a map of {} columns; use the CPU", cellCols));
  }
  Pooled pooled;
  if (givenLse.empty()) pooled.lse.resize(at(rows));
  pooled.sum.assign(at(cells), 0.0);
  pooled.max.assign(at(cells), 0.0F);
  pooled.count.assign(at(cells), 0);
  const bool masked = head.masked();
  const Index regionKeys = colBounds.back() - colBounds.front();
  const Index maskBytes = masked ? regionKeys : 0;
  const ColumnPlan plan = planColumns(limits, colBounds, rows, head.depth, masked ? 12 : 8, maskBytes);
  if (rows == 0 || plan.subs() == 0) {
    for (Index row = 0; row < rows && givenLse.empty(); ++row) {
      pooled.lse[at(row)] = detail::isPaddingRow(in, region.first + row) ? std::nan("") : -HUGE_VAL;
    }
    return pooled;
  }

  std::vector<std::int32_t> subValid(at(plan.subs()));
  for (std::size_t s = 0; s < subValid.size(); ++s) {
    const Index first = plan.subBounds[s];
    const Index last = plan.subBounds[s + 1];
    subValid[s] = static_cast<std::int32_t>(
        in.keyValid.empty() ? last - first
                            : last - first - std::count(in.keyValid.begin() + first, in.keyValid.begin() + last, 0));
  }
  uploadTable(m_scratch.subBounds, plan.subBounds, control, "upload the key partition");
  uploadTable(m_scratch.subPtr, plan.subPtr, control, "upload the key partition");
  uploadTable(m_scratch.splitPtr, plan.splitPtr, control, "upload the key partition");
  uploadTable(m_scratch.subValid, subValid, control, "upload the key partition");
  uploadTable(m_scratch.rowBounds, std::vector<std::int32_t>(rowBounds.begin(), rowBounds.end()), control,
              "upload the row partition");
  const Index panel = std::min(plan.panelRows, rows);
  const Index pairs = panel * plan.subs();
  m_scratch.partMax.reserve(m_budget, pairs * static_cast<Index>(sizeof(float)), "row maxima");
  m_scratch.partSum.reserve(m_budget, pairs * static_cast<Index>(sizeof(float)), "row sums");
  if (masked) {
    m_scratch.partCount.reserve(m_budget, pairs * static_cast<Index>(sizeof(std::int32_t)), "pair counts");
    m_scratch.maskRows.reserve(m_budget, panel * maskBytes, "rows of the dense mask");
  }
  m_scratch.lse.reserve(m_budget, in.q.rows * static_cast<Index>(sizeof(double)), "row LSE");
  if (!givenLse.empty()) {
    const std::vector<double> wide(givenLse.begin() + region.first, givenLse.begin() + region.last);
    m_staging.upload(m_scratch.lse.as<double>() + region.first, wide.data(), bytesOf(wide), control,
                     "upload the row LSE");
  }
  if (wantCells) {
    m_scratch.cellSum.reserve(m_budget, bytesOf(pooled.sum), "cell sums");
    m_scratch.cellMax.reserve(m_budget, bytesOf(pooled.max), "cell maxima");
    m_scratch.cellCount.reserve(m_budget, bytesOf(pooled.count), "cell counts");
    clear(m_scratch.cellSum, bytesOf(pooled.sum), "clear the cells");
    clear(m_scratch.cellMax, bytesOf(pooled.max), "clear the cells");
    clear(m_scratch.cellCount, bytesOf(pooled.count), "clear the cells");
  }

  const float exponentScale = static_cast<float>(std::abs(in.scale) * kLog2E);
  beginTiming();
  Index launch = 0;
  for (Index row0 = region.first; row0 < region.last; row0 += panel, ++launch) {
    control.checkpoint();
    const Index rowEnd = std::min(row0 + panel, region.last);
    if (masked) {
      uploadMask(head, m_scratch.maskRows.as<void>(), row0, rowEnd - row0, colBounds.front(), maskBytes, control);
    }
    PartialsParams partials{};
    partials.in = head.operands();
    partials.validity = {head.keyFlags(), masked ? m_scratch.maskRows.as<const std::uint8_t>() : nullptr, maskBytes,
                         static_cast<std::int32_t>(colBounds.front())};
    partials.row0 = static_cast<std::int32_t>(row0);
    partials.rowEnd = static_cast<std::int32_t>(rowEnd);
    partials.keyRows = static_cast<std::int32_t>(in.k.rows);
    partials.subBounds = m_scratch.subBounds.as<const std::int32_t>();
    partials.splitPtr = m_scratch.splitPtr.as<const std::int32_t>();
    partials.subCount = static_cast<std::int32_t>(plan.subs());
    partials.sign = in.scale < 0 ? -1.0F : 1.0F;
    partials.exponentScale = exponentScale;
    partials.partMax = m_scratch.partMax.as<float>();
    partials.partSum = m_scratch.partSum.as<float>();
    partials.partCount = masked ? m_scratch.partCount.as<std::int32_t>() : nullptr;
    check(takesHopper(head.dtype, m_path, head.depth)
              ? launchHopperPartials(head.dtype, partials, plan.splits(), m_stream.get())
              : launchPartials(head.dtype, m_path, partials, plan.splits(), m_stream.get()),
          "lse_map: scores");

    const PartialsView view{
        partials.partMax,  partials.partSum, partials.partCount, m_scratch.subValid.as<const std::int32_t>(),
        partials.subCount, partials.row0,    partials.rowEnd,    std::abs(in.scale)};
    if (givenLse.empty()) {
      check(launchRowLse({view, head.queryFlags(), exponentScale, m_scratch.lse.as<double>()}, m_stream.get()),
            "lse_map: row LSE");
    }
    if (wantCells) {
      const BlockRange blocks = blocksOfRows(rowBounds, row0, rowEnd);
      CellsParams params{};
      params.parts = view;
      params.queryValid = head.queryFlags();
      params.lse = m_scratch.lse.as<const double>();
      params.rowBounds = m_scratch.rowBounds.as<const std::int32_t>();
      params.subPtr = m_scratch.subPtr.as<const std::int32_t>();
      params.firstRowBlock = static_cast<std::int32_t>(blocks.first);
      params.cols = static_cast<std::int32_t>(cellCols);
      params.firstRow = static_cast<std::int32_t>(region.first);
      params.cellSum = m_scratch.cellSum.as<double>();
      params.cellMax = m_scratch.cellMax.as<float>();
      params.cellCount = m_scratch.cellCount.as<std::int64_t>();
      check(launchCells(params, blocks.last - blocks.first, m_stream.get()), "lse_map: cells");
    }
    paceLaunches(launch, "lse_map");
    control.report(static_cast<double>(rowEnd - region.first) / static_cast<double>(rows));
  }
  endTiming();
  if (givenLse.empty()) download(pooled.lse, m_scratch.lse.as<double>() + region.first, "read the row LSE");
  if (wantCells) {
    download(pooled.sum, m_scratch.cellSum.as<void>(), "read the cells");
    download(pooled.max, m_scratch.cellMax.as<void>(), "read the cells");
    download(pooled.count, m_scratch.cellCount.as<void>(), "read the cells");
  }
  m_stream.wait("lse_map");
  return pooled;
}

}  // namespace sparsight::cuda

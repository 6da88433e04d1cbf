// SPDX-License-Identifier: Apache-2.0
#include "cpu/cpu_backend.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <limits>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "checks.h"
#include "cpu/attend_pass.h"
#include "cpu/cluster_pass.h"
#include "cpu/cluster_scores_pass.h"
#include "cpu/cpu_head.h"
#include "cpu/map_pass.h"
#include "cpu/row_ops.h"
#include "select_largest.h"

namespace sparsight {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// The processor's own name, or "CPU".
std::string processorName() {
#if defined(__x86_64__)
  unsigned highest = 0;
  std::array<unsigned, 4> r{};
  if (__get_cpuid(0x80000000U, &highest, &r[1], &r[2], &r[3]) != 0 && highest >= 0x80000004U) {
    std::string name;
    for (unsigned leaf = 0x80000002U; leaf <= 0x80000004U; ++leaf) {
      if (__get_cpuid(leaf, r.data(), &r[1], &r[2], &r[3]) == 0) break;
      std::array<char, sizeof r> text{};
      std::memcpy(text.data(), r.data(), sizeof r);
      name.append(text.data(), strnlen(text.data(), text.size()));
    }
    const auto first = name.find_first_not_of(' ');
    const auto last = name.find_last_not_of(' ');
    if (first != std::string::npos) return name.substr(first, last - first + 1);
  }
#endif
  return "CPU";
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(Executor& executor, const cpu::SimdKernels& simd) : m_executor(executor), m_simd(simd) {}

  [[nodiscard]] BackendInfo info() const override {
    const long pages = sysconf(_SC_AVPHYS_PAGES);
    const long pageBytes = sysconf(_SC_PAGESIZE);
    const Index freeBytes = pages > 0 && pageBytes > 0 ? Index{pages} * pageBytes : 0;
    const int threads = m_executor.threads();
    return {"cpu", processorName(), fmt::format("{}, {} thread{}", m_simd.name, threads, threads == 1 ? "" : "s"),
            freeBytes};
  }

  [[nodiscard]] bool supports(Op, DType, Index headDim) const noexcept override { return headDim > 0; }

  std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in, std::shared_ptr<const void> keepAlive,
                                              const Control& control) override {
    detail::checkInput(in);
    control.checkpoint();
    return std::make_shared<cpu::CpuHead>(in, std::move(keepAlive), m_simd);
  }

  LseMapResult lseMap(const PreparedHead& prepared, const LseMapRequest& request, const Control& control) override {
    const cpu::CpuHead& head = cast(prepared);
    const AttentionIn& in = head.input();
    detail::checkRequest(in, request);
    LseMapResult result;
    result.lse.assign(static_cast<std::size_t>(in.q.rows), kNan);
    const bool map = !request.rowBounds.empty() && (request.wantMean || request.wantMax);
    cpu::MapPass pass{head, m_executor, control, {}, {}, {}, 0, request.rowLse, nullptr};
    if (request.rowLse.empty()) {
      pass.lse = result.lse.data();
    } else {
      result.lse.assign(request.rowLse.begin(), request.rowLse.end());
      if (!map) return result;
    }
    listRows(in, 0, in.q.rows, map ? request.rowBounds : std::span<const Index>{}, pass);
    if (map) {
      for (const Index edge : request.colBounds) pass.colEdges.push_back(head.compact(edge));
    } else {
      pass.colEdges = {0, head.keyCount()};
    }
    if (!request.rowBounds.empty()) {
      const std::size_t cells = (request.rowBounds.size() - 1) * (request.colBounds.size() - 1);
      if (request.wantMean) {
        result.mean.assign(cells, kNan);
        pass.mean = result.mean.data();
      }
      if (request.wantMax) {
        result.max.assign(cells, kNan);
        pass.max = result.max.data();
      }
    }
    pass.run();
    return result;
  }

  std::vector<float> tile(const PreparedHead& prepared, std::span<const float> rowLse, const TileRect& rect,
                          Reduce reduce, const Control& control) override {
    const cpu::CpuHead& head = cast(prepared);
    detail::checkTile(head.input(), rowLse, rect);
    std::vector<float> out(static_cast<std::size_t>(rect.cellRows * rect.cellCols), kNan);
    cpu::MapPass pass{head, m_executor, control, {}, {}, {}, 0, rowLse};
    listRows(head.input(), rect.row0, rect.row1, detail::cellBounds(rect.row0, rect.row1, rect.cellRows), pass);
    for (const Index edge : detail::cellBounds(rect.col0, rect.col1, rect.cellCols)) {
      pass.colEdges.push_back(head.compact(edge));
    }
    (reduce == Reduce::Mean ? pass.mean : pass.max) = out.data();
    pass.run();
    return out;
  }

  AttendResult attend(const PreparedHead& prepared, std::span<const Index> rows, const RowKeep& keep,
                      const Control& control) override {
    const cpu::CpuHead& head = cast(prepared);
    detail::checkRows(head.input(), rows);
    detail::checkKeep(head.input(), rows, keep);
    return cpu::attendIntervals(head, rows, keep, m_executor, control);
  }

  AttendResult attendTop(const PreparedHead& prepared, std::span<const Index> rows, std::span<const Index> counts,
                         const Control& control) override {
    const cpu::CpuHead& head = cast(prepared);
    detail::checkRows(head.input(), rows);
    detail::checkCounts(rows, counts);
    return cpu::attendTopRows(head, rows, counts, m_executor, control);
  }

  RowStats rowStats(const PreparedHead& prepared, std::span<const Index> rows, double mass,
                    const Control& control) override {
    const cpu::CpuHead& head = cast(prepared);
    detail::checkRows(head.input(), rows);
    detail::checkMass(mass);
    return cpu::rowStatistics(head, rows, mass, m_executor, control);
  }

  GlobalTop globalTop(const PreparedHead& prepared, std::span<const Index> rows, Index total,
                      const Control& control) override {
    const cpu::CpuHead& head = cast(prepared);
    detail::checkRows(head.input(), rows);
    detail::checkTotal(total);
    return cpu::globalTopRows(head, rows, total, m_executor, control);
  }
  ClusterResult cluster(const PreparedHead& prepared, const ClusterRequest& request, const Control& control) override {
    const cpu::CpuHead& head = cast(prepared);
    detail::checkCluster(head.input(), request);
    return cpu::clusterPoints(head, request, m_executor, control);
  }
  ClusterScores scoreClusters(const ClusterScoresRequest& request, const Control& control) override {
    detail::checkClusterScores(request);
    return cpu::scoreClusters(request, m_simd, m_executor, control);
  }
  std::vector<std::uint8_t> selectLargest(const SelectRequest& request, const Control& control) override {
    constexpr Index kGrain = 16;
    detail::checkSelect(request);
    std::vector<std::uint8_t> kept(request.values.size());
    m_executor.parallelFor(static_cast<Index>(request.counts.size()), kGrain, control, [&](Index first, Index last) {
      detail::RowSelector selector(request);
      for (Index row = first; row < last; ++row) {
        selector.select(static_cast<std::size_t>(row),
                        std::span(kept).subspan(static_cast<std::size_t>(row * request.columns),
                                                static_cast<std::size_t>(request.columns)));
      }
    });
    return kept;
  }

 private:
  static const cpu::CpuHead& cast(const PreparedHead& head) {
    const auto* const mine = dynamic_cast<const cpu::CpuHead*>(&head);
    if (mine == nullptr) throw Error(ErrorCode::InvalidArgument, "the head was prepared by another backend");
    return *mine;
  }

  /// Rows of [first, last) that are no padding, each with its map row.
  static void listRows(const AttentionIn& in, Index first, Index last, std::span<const Index> rowBounds,
                       cpu::MapPass& pass) {
    pass.mapRows = rowBounds.empty() ? 0 : static_cast<Index>(rowBounds.size()) - 1;
    std::size_t mapRow = 0;
    for (Index row = first; row < last; ++row) {
      if (detail::isPaddingRow(in, row)) continue;
      pass.rows.push_back(row);
      if (rowBounds.empty()) continue;
      while (rowBounds[mapRow + 1] <= row) ++mapRow;
      pass.mapRow.push_back(static_cast<Index>(mapRow));
    }
  }

  Executor& m_executor;
  const cpu::SimdKernels& m_simd;
};

}  // namespace

std::unique_ptr<Backend> createCpuBackend(Executor& executor) { return createCpuBackend(executor, cpu::simdKernels()); }

std::unique_ptr<Backend> createCpuBackend(Executor& executor, const cpu::SimdKernels& simd) {
  return std::make_unique<CpuBackend>(executor, simd);
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace sparsight {

std::string_view opName(Op op) noexcept {
  switch (op) {
    case Op::LseMap:
      return "lse_map";
    case Op::Tile:
      return "tile";
    case Op::Attend:
      return "attend";
    case Op::AttendTop:
      return "attend_top";
    case Op::RowStats:
      return "row_stats";
    case Op::GlobalTop:
      return "global_top";
    case Op::Cluster:
      return "cluster";
    case Op::PermuteKeys:
      return "permute_keys";
    case Op::ScoreClusters:
      return "score_clusters";
    case Op::SelectLargest:
      return "select_largest";
  }
  return "unknown";
}

namespace detail {
namespace {

constexpr std::size_t kMostClusters = std::size_t{1} << 30U;

[[noreturn]] void reject(const std::string& message) { throw Error(ErrorCode::InvalidArgument, message); }

void checkNotNegative(std::span<const Index> numbers, const char* what) {
  for (const Index number : numbers) {
    if (number < 0) reject(fmt::format("{} of {} is negative", what, number));
  }
}

void checkMatrix(const MatrixView& m, const char* name) {
  if (m.rows < 0 || m.cols <= 0)
    reject(fmt::format("{}: shape {} x {} is not a matrix of tokens", name, m.rows, m.cols));
  if (m.rows > 0 && m.data == nullptr) reject(fmt::format("{}: {} rows without data", name, m.rows));
  const Index rowBytes = m.cols * static_cast<Index>(itemSize(m.dtype));
  if (m.rows > 1 && m.rowStrideBytes < rowBytes) {
    reject(fmt::format("{}: rows of {} bytes overlap at a stride of {}", name, rowBytes, m.rowStrideBytes));
  }
}

void checkFlags(std::span<const std::uint8_t> flags, Index wanted, const char* name) {
  if (!flags.empty() && static_cast<Index>(flags.size()) != wanted) {
    reject(fmt::format("{} has {} entries, expected {}", name, flags.size(), wanted));
  }
}

}  // namespace

void checkInput(const AttentionIn& in) {
  checkMatrix(in.q, "queries");
  checkMatrix(in.k, "keys");
  if (in.q.cols != in.k.cols) reject(fmt::format("head_dim differs: queries {}, keys {}", in.q.cols, in.k.cols));
  if (in.v.data != nullptr) {
    checkMatrix(in.v, "values");
    if (in.v.rows != in.k.rows) reject(fmt::format("{} values for {} keys", in.v.rows, in.k.rows));
  }
  if (!std::isfinite(in.scale)) reject("the softmax scale is not a finite number");
  checkFlags(in.keyValid, in.k.rows, "key validity");
  checkFlags(in.queryValid, in.q.rows, "query validity");
  checkFlags(in.denseMask, in.q.rows * in.k.rows, "dense mask");
}

void checkBounds(std::span<const Index> bounds, Index size, const char* what) {
  if (bounds.empty()) return;
  if (bounds.size() < 2 || bounds.front() != 0 || bounds.back() != size) {
    reject(fmt::format("{} must start at 0 and end at {}", what, size));
  }
  for (std::size_t i = 1; i < bounds.size(); ++i) {
    if (bounds[i] < bounds[i - 1]) reject(fmt::format("{} decrease at edge {}", what, i));
  }
}

void checkRequest(const AttentionIn& in, const LseMapRequest& request) {
  if (request.rowBounds.empty() != request.colBounds.empty()) reject("a pooled map needs both row and column bounds");
  checkBounds(request.rowBounds, in.q.rows, "row bounds");
  checkBounds(request.colBounds, in.k.rows, "column bounds");
  if (!request.rowLse.empty() && static_cast<Index>(request.rowLse.size()) != in.q.rows) {
    reject(fmt::format("{} row LSE values for {} queries", request.rowLse.size(), in.q.rows));
  }
}

void checkTile(const AttentionIn& in, std::span<const float> rowLse, const TileRect& rect) {
  if (static_cast<Index>(rowLse.size()) != in.q.rows) {
    reject(fmt::format("{} row LSE values for {} queries", rowLse.size(), in.q.rows));
  }
  if (rect.row0 < 0 || rect.row0 >= rect.row1 || rect.row1 > in.q.rows || rect.col0 < 0 || rect.col0 >= rect.col1 ||
      rect.col1 > in.k.rows || rect.cellRows < 1 || rect.cellCols < 1) {
    reject(fmt::format("region rows [{}, {}), keys [{}, {}) in {} x {} cells does not fit a {} x {} map", rect.row0,
                       rect.row1, rect.col0, rect.col1, rect.cellRows, rect.cellCols, in.q.rows, in.k.rows));
  }
}

void checkRows(const AttentionIn& in, std::span<const Index> rows) {
  for (const Index row : rows) {
    if (row < 0 || row >= in.q.rows) reject(fmt::format("query row {} is outside 0..{}", row, in.q.rows - 1));
  }
}

void checkKeep(const AttentionIn& in, std::span<const Index> rows, const RowKeep& keep) {
  if (keepsAll(keep)) return;
  if (keep.ptr.empty() || keep.ptr.front() != 0 || keep.ptr.back() != static_cast<Index>(keep.intervals.size())) {
    reject("kept intervals: the pointers must start at 0 and end at the number of intervals");
  }
  for (std::size_t g = 1; g < keep.ptr.size(); ++g) {
    if (keep.ptr[g] < keep.ptr[g - 1]) reject(fmt::format("kept intervals: the pointers decrease at group {}", g - 1));
    Index end = 0;
    for (Index i = keep.ptr[g - 1]; i < keep.ptr[g]; ++i) {
      const Interval interval = keep.intervals[static_cast<std::size_t>(i)];
      if (interval.first < end || interval.first >= interval.last || interval.last > in.k.rows) {
        reject(fmt::format("kept intervals of group {}: [{}, {}) is empty, out of order or beyond {} keys", g - 1,
                           interval.first, interval.last, in.k.rows));
      }
      end = interval.last;
    }
  }
  const auto groups = static_cast<Index>(keep.ptr.size()) - 1;
  if (keep.group.empty()) {
    if (groups != static_cast<Index>(rows.size())) {
      reject(fmt::format("kept intervals: {} groups for {} rows", groups, rows.size()));
    }
    return;
  }
  if (keep.group.size() != rows.size()) {
    reject(fmt::format("kept intervals: {} group numbers for {} rows", keep.group.size(), rows.size()));
  }
  for (const Index g : keep.group) {
    if (g < 0 || g >= groups) reject(fmt::format("kept intervals: group {} is outside 0..{}", g, groups - 1));
  }
}

void checkCounts(std::span<const Index> rows, std::span<const Index> counts) {
  if (rows.size() != counts.size()) reject(fmt::format("{} key counts for {} rows", counts.size(), rows.size()));
  checkNotNegative(counts, "a key count");
}

void checkMass(double mass) {
  if (!(mass >= 0.0 && mass <= 1.0)) reject(fmt::format("a probability mass of {} is outside 0..1", mass));
}

void checkTotal(Index total) {
  if (total < 0) reject(fmt::format("a total of {} pairs is negative", total));
}

void checkCluster(const AttentionIn& in, const ClusterRequest& request) {
  const MatrixView& points = request.side == Side::Query ? in.q : in.k;
  if (request.first < 0 || request.count < 1 || request.first > points.rows - request.count) {
    reject(
        fmt::format("points [{}, {}) do not fit {} tokens", request.first, request.first + request.count, points.rows));
  }
  const auto dim = static_cast<std::size_t>(points.cols);
  if (request.centroids.empty() || request.centroids.size() % dim != 0 || request.basis.size() % dim != 0) {
    reject(fmt::format("{} centroid and {} basis numbers do not make rows of {}", request.centroids.size(),
                       request.basis.size(), dim));
  }
  if (!request.basis.empty() && request.distance != Distance::Cosine) reject("a basis needs the cosine distance");
}

void checkClusterScores(const ClusterScoresRequest& request) {
  const auto dim = static_cast<std::size_t>(std::max<Index>(request.dim, 1));
  if (request.dim < 1 || request.keys.empty() || request.queries.size() % dim != 0 || request.keys.size() % dim != 0 ||
      request.queries.size() / dim > kMostClusters || request.keys.size() / dim > kMostClusters) {
    reject(fmt::format("{} and {} centroid numbers do not make rows of {}", request.queries.size(), request.keys.size(),
                       request.dim));
  }
  if (!request.weights.empty() && request.weights.size() != request.keys.size() / dim) {
    reject(fmt::format("{} weights for {} key clusters", request.weights.size(), request.keys.size() / dim));
  }
  checkNotNegative(request.weights, "a cluster weight");
  if (!std::isfinite(request.scale) || std::isnan(request.topP)) reject("scale or top-p is not a number");
}

void checkSelect(const SelectRequest& request) {
  const auto columns = static_cast<std::size_t>(std::max<Index>(request.columns, 1));
  if (request.columns < 1 || request.values.size() != request.counts.size() * columns ||
      (!request.excluded.empty() && request.excluded.size() != columns)) {
    reject(fmt::format("{} values and {} exclusions do not make {} rows of {}", request.values.size(),
                       request.excluded.size(), request.counts.size(), request.columns));
  }
  checkNotNegative(request.counts, "a number of values to keep");
}

void checkOrder(const AttentionIn& in, std::span<const Index> order) {
  if (static_cast<Index>(order.size()) != in.k.rows) {
    reject(fmt::format("key order: {} entries for {} keys", order.size(), in.k.rows));
  }
  std::vector<bool> seen(order.size(), false);
  for (const Index key : order) {
    if (key < 0 || key >= in.k.rows || seen[static_cast<std::size_t>(key)]) {
      reject(fmt::format("key order: {} is outside 0..{} or twice there", key, in.k.rows - 1));
    }
    seen[static_cast<std::size_t>(key)] = true;
  }
}

std::vector<Index> cellBounds(Index first, Index last, Index cells) {
  std::vector<Index> bounds(static_cast<std::size_t>(cells) + 1);
  const Index extent = last - first;
  // floor(i extent / cells) without the product, which could overflow.
  const Index whole = extent / cells;
  const Index rest = extent % cells;
  for (Index i = 0; i <= cells; ++i) bounds[static_cast<std::size_t>(i)] = first + i * whole + i * rest / cells;
  return bounds;
}

}  // namespace detail
}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "sparsight/kernels/backend.h"

/// Argument checks that every backend makes before it touches memory; all throw Error{InvalidArgument}.
namespace sparsight::detail {

/// Shapes of q, k, v, masks and dtypes agree; scale is finite.
void checkInput(const AttentionIn& in);
/// Edges of a partition of [0, size): non-decreasing, first 0, last size; empty is allowed. `what` names it.
void checkBounds(std::span<const Index> bounds, Index size, const char* what);
void checkRequest(const AttentionIn& in, const LseMapRequest& request);
void checkTile(const AttentionIn& in, std::span<const float> rowLse, const TileRect& rect);
void checkRows(const AttentionIn& in, std::span<const Index> rows);
void checkKeep(const AttentionIn& in, std::span<const Index> rows, const RowKeep& keep);
void checkCounts(std::span<const Index> rows, std::span<const Index> counts);
void checkMass(double mass);
void checkTotal(Index total);
void checkCluster(const AttentionIn& in, const ClusterRequest& request);
void checkClusterScores(const ClusterScoresRequest& request);
void checkSelect(const SelectRequest& request);
/// A permutation of the keys.
void checkOrder(const AttentionIn& in, std::span<const Index> order);

/// The whole-attention form of RowKeep.
[[nodiscard]] inline bool keepsAll(const RowKeep& keep) noexcept { return keep.ptr.empty() && keep.intervals.empty(); }
[[nodiscard]] inline bool isPaddingRow(const AttentionIn& in, Index row) noexcept {
  return !in.queryValid.empty() && in.queryValid[static_cast<std::size_t>(row)] == 0;
}
/// Edges of `cells` cells over [first, last): cell i covers [first + floor(i n / cells), first + floor((i + 1) n /
/// cells)).
[[nodiscard]] std::vector<Index> cellBounds(Index first, Index last, Index cells);

}  // namespace sparsight::detail

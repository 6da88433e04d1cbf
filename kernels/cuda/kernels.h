// SPDX-License-Identifier: Apache-2.0
#pragma once

// Launchers; each returns cudaGetLastError() of its launch. Everything runs on `stream`. Path::Mma needs compute
// capability 8.0; launchHopper...() exactly 9.0, and a program that has them.

#include <cuda_runtime_api.h>

#include "cuda/attend.h"
#include "cuda/centroid_scores.h"
#include "cuda/cluster.h"
#include "cuda/dispatch.h"
#include "cuda/hopper_layout.h"
#include "cuda/permute.h"
#include "cuda/pooled_map.h"
#include "cuda/score_rows.h"
#include "cuda/select_largest.h"

namespace sparsight::cuda {

/// Blocks of 64 rows.
constexpr Index tilesOf(Index rows) { return (rows + kTileRows - 1) / kTileRows; }
/// Blocks that take `each` of `count`.
constexpr Index shares(Index count, Index each) { return (count + each - 1) / each; }
/// Blocks of a launch along the keys.
constexpr Index keyBlocksOf(const ScoreRowsParams& params) {
  return (static_cast<Index>(params.keyCount) + params.keysPerBlock - 1) / params.keysPerBlock;
}

/// True when this program has the kernels for compute capability 9.0: 90 or 90a among its architectures.
[[nodiscard]] bool hopperBuilt() noexcept;
/// Blocks of a Hopper launch along the rows.
constexpr Index hopperBlocksOf(Index rows) { return (rows + hopper::kBlockRows - 1) / hopper::kBlockRows; }
/// As launchPartials, for heads that takesHopper().
cudaError_t launchHopperPartials(DType dtype, const PartialsParams& params, Index splits, cudaStream_t stream);
/// As launchAttend with values, for heads that takesHopper(), without a cut and with a scale that is not 0. Values of
/// keys that are not valid must be finite: they are multiplied with 0 (see launchClearValues).
cudaError_t launchHopperAttend(DType dtype, const AttendParams& params, cudaStream_t stream);

cudaError_t launchPartials(DType dtype, Path path, const PartialsParams& params, Index splits, cudaStream_t stream);
cudaError_t launchRowLse(const RowLseParams& params, cudaStream_t stream);
cudaError_t launchCells(const CellsParams& params, Index rowBlocks, cudaStream_t stream);
cudaError_t launchClearValues(const ClearValuesParams& params, cudaStream_t stream);
/// valueWidth: columns of V, 0 without; at most 256.
cudaError_t launchAttend(DType dtype, Path path, Index valueWidth, const AttendParams& params, cudaStream_t stream);

cudaError_t launchScoreRows(DType dtype, Path path, const ScoreRowsParams& params, cudaStream_t stream);
/// One of the selections of score_rows.h: RowStatsParams, TopCutParams, GlobalRowsParams, GlobalParams.
template <class Params>
cudaError_t launchSelect(const Params& params, Index rows, cudaStream_t stream);

// Clustering: the first `tasks` of a batch, each with at most `rows` points, clusters or elements.
cudaError_t launchSpread(const Batch<SpreadParams>& batch, Index tasks, Index elements, cudaStream_t stream);
cudaError_t launchSquares(DType dtype, const Batch<SquaresParams>& batch, Index tasks, Index rows, cudaStream_t stream);
/// k: float32 rows, split in three where splitsFloats() says so; one block makes all scores of a row.
cudaError_t launchProfiles(DType dtype, Path path, const Batch<ScoreRowsParams>& batch, Index tasks, Index rows,
                           cudaStream_t stream);
/// k: as for launchProfiles.
cudaError_t launchAssign(DType dtype, Path path, const Batch<AssignParams>& batch, Index tasks, Index rows,
                         cudaStream_t stream);
/// The counting sort; in this order.
cudaError_t launchCount(const Batch<SortParams>& batch, Index tasks, Index points, cudaStream_t stream);
cudaError_t launchSegments(const Batch<SortParams>& batch, Index tasks, Index clusters, cudaStream_t stream);
cudaError_t launchFirstMembers(const Batch<SortParams>& batch, Index tasks, cudaStream_t stream);
cudaError_t launchMembers(const Batch<SortParams>& batch, Index tasks, Index points, cudaStream_t stream);
cudaError_t launchMeans(DType dtype, const Batch<MeansParams>& batch, Index tasks, Index clusters, cudaStream_t stream);

/// Scores between centroids, softmax and order; in this order.
cudaError_t launchCentroidDots(const CentroidScoresParams& params, cudaStream_t stream);
cudaError_t launchCentroidSoftmax(const CentroidScoresParams& params, cudaStream_t stream);
cudaError_t launchCentroidOrder(const CentroidScoresParams& params, cudaStream_t stream);

cudaError_t launchSelectLargest(const SelectLargestParams& params, Index rows, cudaStream_t stream);

/// Blocks of a gather.
constexpr Index gatherBlocksOf(const GatherParams& params) {
  return shares(params.rowCount, gatherRowsOf(params.rowUnits));
}
cudaError_t launchGather(const GatherParams& params, cudaStream_t stream);

/// One thread writes 1 to *out: proves that this program has code for the device.
cudaError_t launchTrial(std::int32_t* out, cudaStream_t stream);

}  // namespace sparsight::cuda

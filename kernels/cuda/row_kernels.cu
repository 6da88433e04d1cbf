// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

template <class Tile>
__global__ void __launch_bounds__(kThreads, 3) scoreRowsKernel(const ScoreRowsParams p) {
  __shared__ typename Tile::Shared shared;
  DeviceBlock<ScoreRowsState<Tile>> block;
  scoreRowsBody<Tile>(block, shared, p, block.y());
}

// One block for each row of a panel.
template <class Params>
__global__ void __launch_bounds__(kThreads) selectKernel(const Params p) {
  __shared__ SelectShared shared;
  DeviceBlock<SelectState> block;
  selectBody(block, shared, p);
}

dim3 gridOf(const ScoreRowsParams& params) {
  return {static_cast<unsigned>(tilesOf(params.rowCount)), static_cast<unsigned>(keyBlocksOf(params))};
}

}  // namespace

cudaError_t launchScoreRows(DType dtype, Path path, const ScoreRowsParams& params, cudaStream_t stream) {
  return forHead(dtype, path, [&]<class T, class Tile>() {
    scoreRowsKernel<Tile><<<gridOf(params), kThreads, 0, stream>>>(params);
    return cudaGetLastError();
  });
}

template <class Params>
cudaError_t launchSelect(const Params& params, Index rows, cudaStream_t stream) {
  selectKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}
template cudaError_t launchSelect(const RowStatsParams&, Index, cudaStream_t);
template cudaError_t launchSelect(const TopCutParams&, Index, cudaStream_t);
template cudaError_t launchSelect(const GlobalRowsParams&, Index, cudaStream_t);
template cudaError_t launchSelect(const GlobalParams&, Index, cudaStream_t);

}  // namespace sparsight::cuda

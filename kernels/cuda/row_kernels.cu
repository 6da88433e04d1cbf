// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

template <class Tile>
__global__ void __launch_bounds__(kThreads, 3) scoreRowsKernel(const ScoreRowsParams p) {
  __shared__ typename Tile::Shared shared;
  DeviceBlock<ScoreRowsState<Tile>> block;
  scoreRowsBody<Tile>(block, shared, p);
}

__global__ void __launch_bounds__(kThreads) rowStatsKernel(const RowStatsParams p) {
  __shared__ SelectShared shared;
  DeviceBlock<SelectState> block;
  rowStatsBody(block, shared, p);
}

__global__ void __launch_bounds__(kThreads) topCutKernel(const TopCutParams p) {
  __shared__ SelectShared shared;
  DeviceBlock<SelectState> block;
  topCutBody(block, shared, p);
}

__global__ void __launch_bounds__(kThreads) globalRowsKernel(const GlobalParams p) {
  __shared__ SelectShared shared;
  DeviceBlock<SelectState> block;
  globalRowsBody(block, shared, p);
}

__global__ void __launch_bounds__(kThreads) globalPassKernel(const GlobalParams p) {
  __shared__ SelectShared shared;
  DeviceBlock<SelectState> block;
  globalPassBody(block, shared, p);
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

cudaError_t launchFloatScoreRows(DType dtype, Path path, const ScoreRowsParams& params, cudaStream_t stream) {
  return forFloatRows(dtype, path, [&]<class Tile>() {
    scoreRowsKernel<Tile><<<gridOf(params), kThreads, 0, stream>>>(params);
    return cudaGetLastError();
  });
}

cudaError_t launchRowStats(const RowStatsParams& params, Index rows, cudaStream_t stream) {
  rowStatsKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launchTopCut(const TopCutParams& params, Index rows, cudaStream_t stream) {
  topCutKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launchGlobalRows(const GlobalParams& params, Index rows, cudaStream_t stream) {
  globalRowsKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launchGlobalPass(const GlobalParams& params, Index rows, cudaStream_t stream) {
  globalPassKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace sparsight::cuda

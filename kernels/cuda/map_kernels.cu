// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

// Three blocks for each multiprocessor: with the default the compiler aims at four and spills.
template <class Tile>
__global__ void __launch_bounds__(kThreads, 3) partialsKernel(const PartialsParams p) {
  __shared__ typename Tile::Shared shared;
  DeviceBlock<PartialsState<Tile>> block;
  partialsBody<Tile>(block, shared, p);
}

__global__ void __launch_bounds__(kThreads) rowLseKernel(const RowLseParams p) {
  DeviceBlock<RowLseState> block;
  rowLseBody(block, p);
}

__global__ void __launch_bounds__(kThreads) cellsKernel(const CellsParams p) {
  __shared__ CellsShared shared;
  DeviceBlock<CellsState> block;
  cellsBody(block, shared, p);
}

__global__ void trialKernel(std::int32_t* out) { *out = 1; }

}  // namespace

bool hopperBuilt() noexcept {
#ifdef SPARSIGHT_HAVE_HOPPER
  return true;
#else
  return false;
#endif
}

#ifndef SPARSIGHT_HAVE_HOPPER
// Never reached: the path is chosen only where hopperBuilt().
cudaError_t launchHopperPartials(DType, const PartialsParams&, Index, cudaStream_t) { return cudaErrorNotSupported; }
cudaError_t launchHopperAttend(DType, const AttendParams&, cudaStream_t) { return cudaErrorNotSupported; }
#endif

cudaError_t launchPartials(DType dtype, Path path, const PartialsParams& params, Index splits, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(tilesOf(params.rowEnd - params.row0)), static_cast<unsigned>(splits));
  return forHead(dtype, path, [&]<class T, class Tile>() {
    partialsKernel<Tile><<<grid, kThreads, 0, stream>>>(params);
    return cudaGetLastError();
  });
}

cudaError_t launchRowLse(const RowLseParams& params, cudaStream_t stream) {
  const Index rows = params.parts.rowEnd - params.parts.row0;
  rowLseKernel<<<static_cast<unsigned>(tilesOf(rows)), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launchCells(const CellsParams& params, Index rowBlocks, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(rowBlocks), static_cast<unsigned>((params.cols + kCellCols - 1) / kCellCols));
  cellsKernel<<<grid, kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launchTrial(std::int32_t* out, cudaStream_t stream) {
  trialKernel<<<1, 1, 0, stream>>>(out);
  return cudaGetLastError();
}

}  // namespace sparsight::cuda

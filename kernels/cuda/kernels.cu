// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

// Three blocks for each multiprocessor: with the default the compiler aims at four and spills.
template <class T>
__global__ void __launch_bounds__(kThreads, 3) partialsKernel(const PartialsParams p) {
  __shared__ ScoreShared shared;
  DeviceBlock<PartialsState> block;
  partialsBody<T>(block, shared, p);
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

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) attendKernel(const AttendParams p) {
  __shared__ AttendShared<kWidth> shared;
  DeviceBlock<AttendState<kWidth>> block;
  attendBody<T, kWidth>(block, shared, p);
}

__global__ void trialKernel(std::int32_t* out) { *out = 1; }

unsigned tilesOf(Index rows) { return static_cast<unsigned>((rows + kTileRows - 1) / kTileRows); }

template <class T>
void startAttend(Index valueWidth, const AttendParams& params, cudaStream_t stream) {
  const dim3 grid(tilesOf(params.rowCount));
  if (valueWidth == 0) {
    attendKernel<T, 0><<<grid, kThreads, 0, stream>>>(params);
  } else if (valueWidth <= 64) {
    attendKernel<T, 64><<<grid, kThreads, 0, stream>>>(params);
  } else if (valueWidth <= 128) {
    attendKernel<T, 128><<<grid, kThreads, 0, stream>>>(params);
  } else {
    attendKernel<T, 256><<<grid, kThreads, 0, stream>>>(params);
  }
}

}  // namespace

cudaError_t launchPartials(DType dtype, const PartialsParams& params, Index splits, cudaStream_t stream) {
  const dim3 grid(tilesOf(params.rowEnd - params.row0), static_cast<unsigned>(splits));
  switch (dtype) {
    case DType::F32:
      partialsKernel<float><<<grid, kThreads, 0, stream>>>(params);
      break;
    case DType::F16:
      partialsKernel<HalfBits><<<grid, kThreads, 0, stream>>>(params);
      break;
    case DType::BF16:
      partialsKernel<Bf16Bits><<<grid, kThreads, 0, stream>>>(params);
      break;
  }
  return cudaGetLastError();
}

cudaError_t launchRowLse(const RowLseParams& params, cudaStream_t stream) {
  rowLseKernel<<<tilesOf(params.parts.rowEnd - params.parts.row0), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launchCells(const CellsParams& params, Index rowBlocks, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(rowBlocks), static_cast<unsigned>((params.cols + kCellCols - 1) / kCellCols));
  cellsKernel<<<grid, kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launchAttend(DType dtype, Index valueWidth, const AttendParams& params, cudaStream_t stream) {
  switch (dtype) {
    case DType::F32:
      startAttend<float>(valueWidth, params, stream);
      break;
    case DType::F16:
      startAttend<HalfBits>(valueWidth, params, stream);
      break;
    case DType::BF16:
      startAttend<Bf16Bits>(valueWidth, params, stream);
      break;
  }
  return cudaGetLastError();
}

cudaError_t launchTrial(std::int32_t* out, cudaStream_t stream) {
  trialKernel<<<1, 1, 0, stream>>>(out);
  return cudaGetLastError();
}

}  // namespace sparsight::cuda

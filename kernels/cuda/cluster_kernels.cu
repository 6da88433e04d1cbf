// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) squaresKernel(const SquaresParams p) {
  DeviceBlock<SquaresState> block;
  squaresBody<T>(block, p);
}

template <class Tile>
__global__ void __launch_bounds__(kThreads, 3) assignKernel(const AssignParams p) {
  __shared__ typename Tile::Shared shared;
  DeviceBlock<AssignState<Tile>> block;
  assignBody<Tile>(block, shared, p);
}

template <class T>
__global__ void __launch_bounds__(kThreads) meansKernel(const MeansParams p) {
  DeviceBlock<MeansState> block;
  meansBody<T>(block, p);
}

}  // namespace

cudaError_t launchSquares(DType dtype, const SquaresParams& params, cudaStream_t stream) {
  return forType(dtype, [&]<class T>() {
    squaresKernel<T><<<static_cast<unsigned>(tilesOf(params.rowCount)), kThreads, 0, stream>>>(params);
    return cudaGetLastError();
  });
}

cudaError_t launchAssign(DType dtype, Path path, const AssignParams& params, cudaStream_t stream) {
  return forFloatRows(dtype, path, [&]<class Tile>() {
    assignKernel<Tile><<<static_cast<unsigned>(tilesOf(params.rowCount)), kThreads, 0, stream>>>(params);
    return cudaGetLastError();
  });
}

cudaError_t launchMeans(DType dtype, const MeansParams& params, Index clusters, cudaStream_t stream) {
  return forType(dtype, [&]<class T>() {
    meansKernel<T><<<static_cast<unsigned>(clusters), kThreads, 0, stream>>>(params);
    return cudaGetLastError();
  });
}

}  // namespace sparsight::cuda

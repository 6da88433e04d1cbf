// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) centroidDotsKernel(const CentroidScoresParams p) {
  __shared__ CentroidDotsShared shared;
  DeviceBlock<CentroidDotsState> block;
  centroidDotsBody(block, shared, p);
}

__global__ void __launch_bounds__(kThreads) centroidSoftmaxKernel(const CentroidScoresParams p) {
  __shared__ CentroidRowShared shared;
  DeviceBlock<CentroidRowState> block;
  centroidSoftmaxBody(block, shared, p);
}

__global__ void __launch_bounds__(kThreads) centroidOrderKernel(const CentroidScoresParams p) {
  __shared__ CentroidOrderShared shared;
  DeviceBlock<CentroidOrderState> block;
  centroidOrderBody(block, shared, p);
}

}  // namespace

cudaError_t launchCentroidDots(const CentroidScoresParams& params, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(shares(params.rowCount, kCentroidTile)),
                  static_cast<unsigned>(shares(params.keyCount, kCentroidTile)));
  centroidDotsKernel<<<grid, kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launchCentroidSoftmax(const CentroidScoresParams& params, cudaStream_t stream) {
  centroidSoftmaxKernel<<<static_cast<unsigned>(params.rowCount), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launchCentroidOrder(const CentroidScoresParams& params, cudaStream_t stream) {
  centroidOrderKernel<<<static_cast<unsigned>(params.rowCount), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace sparsight::cuda

// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) selectLargestKernel(const SelectLargestParams p) {
  __shared__ SelectLargestShared shared;
  DeviceBlock<SelectLargestState> block;
  selectLargestBody(block, shared, p);
}

}  // namespace

cudaError_t launchSelectLargest(const SelectLargestParams& params, Index rows, cudaStream_t stream) {
  selectLargestKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace sparsight::cuda

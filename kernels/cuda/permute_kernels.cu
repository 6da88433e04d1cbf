// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) gatherKernel(const GatherParams p) {
  DeviceBlock<GatherState> block;
  gatherBody(block, p);
}

}  // namespace

cudaError_t launchGather(const GatherParams& params, cudaStream_t stream) {
  gatherKernel<<<static_cast<unsigned>(gatherBlocksOf(params)), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace sparsight::cuda

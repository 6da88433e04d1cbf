// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

template <class T, class Tile, int kWidth>
__global__ void __launch_bounds__(kThreads) attendKernel(const AttendParams p) {
  __shared__ AttendShared<Tile, kWidth> shared;
  DeviceBlock<AttendState<Tile, kWidth>> block;
  attendBody<T, Tile, kWidth>(block, shared, p);
}

__global__ void __launch_bounds__(kThreads) clearValuesKernel(const ClearValuesParams p) {
  DeviceBlock<ClearValuesState> block;
  clearValuesBody(block, p);
}

}  // namespace

cudaError_t launchClearValues(const ClearValuesParams& params, cudaStream_t stream) {
  clearValuesKernel<<<static_cast<unsigned>(tilesOf(params.rowCount)), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launchAttend(DType dtype, Path path, Index valueWidth, const AttendParams& params, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(tilesOf(params.rowCount));
  return forHead(dtype, path, [&]<class T, class Tile>() {
    return forWidth(valueWidth, [&]<int kWidth>() {
      attendKernel<T, Tile, kWidth><<<blocks, kThreads, 0, stream>>>(params);
      return cudaGetLastError();
    });
  });
}

}  // namespace sparsight::cuda

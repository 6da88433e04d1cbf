// SPDX-License-Identifier: Apache-2.0
#include "cuda/hopper_map.h"
#include "cuda/sm90a/hopper_launch.h"

namespace sparsight::cuda {
namespace {

using namespace hopper;

template <class T, int kBoxes>
__global__ void __launch_bounds__(kBlockThreads, 1)
    hopperPartialsKernel(const __grid_constant__ CUtensorMap keys, const PartialsParams p) {
  extern __shared__ unsigned char raw[];
  const Memory memory = openBlock<MapLayout<kBoxes>>(raw);
  const int role = groupOfWarp();
  if (role == 0) {
    giveRegisters();
    DeviceGroup<FeedState, 0> group(memory.base, memory.bytes);
    feedMap<kBoxes>(group, p, keys);
  } else {
    takeRegisters();
    DeviceGroup<MapState, 1> group(memory.base, memory.bytes);
    computeMap<T, kBoxes>(group, role - 1, p);
  }
}

}  // namespace

cudaError_t launchHopperPartials(DType dtype, const PartialsParams& params, Index splits, cudaStream_t stream) {
  CUtensorMap keys;
  if (const cudaError_t encoded = encodeMap(keys, dtype, params.in.k, params.keyRows, params.in.depth);
      encoded != cudaSuccess) {
    return encoded;
  }
  const dim3 grid(static_cast<unsigned>(hopperBlocksOf(params.rowEnd - params.row0)), static_cast<unsigned>(splits));
  return forHopper(dtype, params.in.depth, [&]<class T, int kBoxes>() {
    constexpr std::uint32_t kBytes = kDynamicBytes<MapLayout<kBoxes>>;
    const cudaError_t allowed =
        cudaFuncSetAttribute(hopperPartialsKernel<T, kBoxes>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (allowed != cudaSuccess) return allowed;
    hopperPartialsKernel<T, kBoxes><<<grid, kBlockThreads, kBytes, stream>>>(keys, params);
    return cudaGetLastError();
  });
}

}  // namespace sparsight::cuda

// SPDX-License-Identifier: Apache-2.0
#include "cuda/hopper_attend.h"
#include "cuda/sm90a/hopper_launch.h"

namespace sparsight::cuda {
namespace {

using namespace hopper;

template <class T, int kBoxes>
__global__ void __launch_bounds__(kBlockThreads, 1)
    hopperAttendKernel(const __grid_constant__ CUtensorMap keys, const __grid_constant__ CUtensorMap values,
                       const AttendParams p) {
  extern __shared__ unsigned char raw[];
  const Memory memory = openBlock<AttendLayout<kBoxes>>(raw);
  const int role = groupOfWarp();
  if (role == 0) {
    giveRegisters();
    DeviceGroup<FeedState, 0> group(memory.base, memory.bytes);
    feedAttend<kBoxes>(group, p, keys, values);
  } else {
    takeRegisters();
    DeviceGroup<AttendGroupState<kBoxes>, 1> group(memory.base, memory.bytes);
    computeAttend<T, kBoxes>(group, role - 1, p);
  }
}

}  // namespace

cudaError_t launchHopperAttend(DType dtype, const AttendParams& params, cudaStream_t stream) {
  CUtensorMap keys;
  CUtensorMap values;
  cudaError_t encoded = encodeMap(keys, dtype, params.in.k, params.keyCount, params.in.depth);
  if (encoded == cudaSuccess) encoded = encodeMap(values, dtype, params.v, params.keyCount, params.vCols);
  if (encoded != cudaSuccess) return encoded;
  const auto blocks = static_cast<unsigned>(hopperBlocksOf(params.rowCount));
  return forHopper(dtype, std::max(params.in.depth, params.vCols), [&]<class T, int kBoxes>() {
    constexpr std::uint32_t kBytes = kDynamicBytes<AttendLayout<kBoxes>>;
    const cudaError_t allowed =
        cudaFuncSetAttribute(hopperAttendKernel<T, kBoxes>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (allowed != cudaSuccess) return allowed;
    hopperAttendKernel<T, kBoxes><<<blocks, kBlockThreads, kBytes, stream>>>(keys, values, params);
    return cudaGetLastError();
  });
}

}  // namespace sparsight::cuda

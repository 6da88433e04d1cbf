// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the two Hopper files share on the host side: tensor maps, and the frame of a kernel.

#include <cuda_runtime_api.h>

#include "cuda/kernels.h"
#include "cuda/sm90a/hopper_group.h"

namespace sparsight::cuda::hopper {

/// A map of a row-major matrix of 16-bit elements, copied in boxes of 64 columns x kKeys rows. The encoder is the
/// driver's: asked for by name, so that no driver library is linked.
inline cudaError_t encodeMap(CUtensorMap& map, DType dtype, const void* data, Index rows, Index cols) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                              const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t asked =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
  if (asked != cudaSuccess) return asked;
  if (found != cudaDriverEntryPointSuccess || entry == nullptr) return cudaErrorNotSupported;
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(cols) * 2};
  const cuuint32_t box[2] = {kBoxCols, kKeys};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult encoded = reinterpret_cast<Encode>(entry)(
      &map, dtype == DType::F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
      const_cast<void*>(data), dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return encoded == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/// start<T, kBoxes>() for a head of 16-bit elements whose rows have at most `width` columns.
template <class Start>
cudaError_t forHopper(DType dtype, Index width, const Start& start) {
  if (dtype == DType::F16) {
    return width <= kBoxCols ? start.template operator()<HalfBits, 1>() : start.template operator()<HalfBits, 2>();
  }
  return width <= kBoxCols ? start.template operator()<Bf16Bits, 1>() : start.template operator()<Bf16Bits, 2>();
}

/// Shared memory of a block: its address in the shared window at a multiple of kAtomBytes, and the same as a pointer.
struct Memory {
  std::uint32_t base;
  unsigned char* bytes;
};
template <class Place>
__device__ __forceinline__ Memory openBlock(unsigned char* raw) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(raw));
  const std::uint32_t skip = (kAtomBytes - at % kAtomBytes) % kAtomBytes;
  if (threadIdx.x == 0) {
    initBarriers<Place>([&](std::uint32_t offset, std::uint32_t arrivals) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at + skip + offset), "r"(arrivals) : "memory");
    });
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  return {at + skip, raw + skip};
}

/// The group of the running warp, as a value that the compiler knows to be the same in all of its lanes.
__device__ __forceinline__ int groupOfWarp() {
  return __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
}

// The feeding group gives its registers to the computing ones: 56 x 128 + 224 x 256 of 65,536.
__device__ __forceinline__ void giveRegisters() { asm volatile("setmaxnreg.dec.sync.aligned.u32 56;"); }
__device__ __forceinline__ void takeRegisters() { asm volatile("setmaxnreg.inc.sync.aligned.u32 224;"); }

}  // namespace sparsight::cuda::hopper

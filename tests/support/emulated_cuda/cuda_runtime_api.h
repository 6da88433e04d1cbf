// SPDX-License-Identifier: Apache-2.0
#pragma once

// The part of the CUDA runtime that the CUDA backend calls, on the host: memory is host memory, streams are done at
// once. It lets the backend's own source run in tests without a GPU, toolkit or driver, and lets a test inject
// failures.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

// NOLINTBEGIN: names and values are the CUDA runtime's.
#define CUDART_VERSION 13000
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorDevicesUnavailable = 46,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidKernelImage = 200,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorECCUncorrectable = 214,
  cudaErrorNvlinkUncorrectable = 220,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorLaunchTimeout = 702,
  cudaErrorContextIsDestroyed = 709,
  cudaErrorAssert = 710,
  cudaErrorHardwareStackError = 714,
  cudaErrorIllegalInstruction = 715,
  cudaErrorMisalignedAddress = 716,
  cudaErrorInvalidAddressSpace = 717,
  cudaErrorInvalidPc = 718,
  cudaErrorLaunchFailure = 719,
  cudaErrorContained = 721,
  cudaErrorUnknown = 999,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDefault = 0;
inline constexpr unsigned cudaEventDisableTiming = 2;
struct CUstream_st {};
struct CUevent_st {};
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;
struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};
// NOLINTEND

namespace sparsight::emulated {

/// What the emulated machine is like; tests change it.
struct Machine {
  int driverVersion = 13000;  ///< 0: no driver
  int devices = 1;
  int major = 9, minor = 0;
  std::size_t freeBytes = std::size_t{1} << 30U;
  int launchesUntilFailure = -1;  ///< that many launches succeed, then `launchError` is returned; -1: never
  cudaError_t launchError = cudaErrorIllegalAddress;
  /// The failing launch itself succeeds, as on a device: the error comes from whatever waits for it.
  bool failsLate = false;
  std::size_t largestAllocation = ~std::size_t{0};  ///< a larger one fails: others took or split the memory
  int allocationsUntilFailure = -1;                 ///< that many succeed, then one fails; -1: never
  bool lost = false;                                ///< a sticky error happened: every call fails
  std::size_t allocatedBytes = 0, peakBytes = 0;
  int launches = 0, failedAllocations = 0;
  std::map<void*, std::size_t> allocations;
  bool hopperBuilt = true;       ///< the program has the kernels for compute capability 9.0
  bool survivesReset = true;     ///< a reset brings a lost device back
  bool hopperWrong = false;      ///< its map kernel gives wrong sums
  std::uint64_t hopperSeed = 0;  ///< order in which warpgroups run (see EmulatedBlock)
};
Machine& machine();

inline cudaError_t status() { return machine().lost ? machine().launchError : cudaSuccess; }
/// What a launcher returns before it runs its body.
inline cudaError_t beginLaunch() {
  Machine& m = machine();
  if (m.lost) return m.launchError;
  ++m.launches;
  if (m.launchesUntilFailure < 0 || m.launchesUntilFailure-- > 0) return cudaSuccess;
  m.launchesUntilFailure = -1;
  // Errors of a kernel that ran end the context; one that could not be started leaves it usable.
  m.lost = m.launchError != cudaErrorLaunchOutOfResources && m.launchError != cudaErrorNoKernelImageForDevice &&
           m.launchError != cudaErrorMemoryAllocation;
  return m.failsLate ? cudaSuccess : m.launchError;
}

}  // namespace sparsight::emulated

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated failure"; }
inline const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchOutOfResources:
      return "cudaErrorLaunchOutOfResources";
    case cudaErrorECCUncorrectable:
      return "cudaErrorECCUncorrectable";
    case cudaErrorUnknown:
      return "cudaErrorUnknown";
    default:
      return "cudaErrorOther";
  }
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  const auto& m = sparsight::emulated::machine();
  *count = 0;
  if (m.driverVersion < CUDART_VERSION) return cudaErrorInsufficientDriver;
  if (m.devices == 0) return cudaErrorNoDevice;
  *count = m.devices;
  return sparsight::emulated::status();
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = sparsight::emulated::machine().driverVersion;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return sparsight::emulated::status(); }
inline cudaError_t cudaDeviceReset() {
  auto& m = sparsight::emulated::machine();
  if (m.survivesReset && m.allocations.empty()) m.lost = false;
  return sparsight::emulated::status();
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* device, int) {
  const auto& m = sparsight::emulated::machine();
  *device = {"Emulated GPU", m.freeBytes, m.major, m.minor, 2};
  return sparsight::emulated::status();
}
inline cudaError_t cudaMemGetInfo(std::size_t* freeBytes, std::size_t* totalBytes) {
  const auto& m = sparsight::emulated::machine();
  *freeBytes = m.freeBytes - m.allocatedBytes;
  *totalBytes = m.freeBytes;
  return sparsight::emulated::status();
}
inline cudaError_t cudaMalloc(void** out, std::size_t bytes) {
  auto& m = sparsight::emulated::machine();
  if (m.lost) return m.launchError;
  if (bytes > m.freeBytes - m.allocatedBytes || bytes > m.largestAllocation || m.allocationsUntilFailure == 0) {
    m.allocationsUntilFailure = -1;
    ++m.failedAllocations;
    return cudaErrorMemoryAllocation;
  }
  if (m.allocationsUntilFailure > 0) --m.allocationsUntilFailure;
  *out = std::malloc(bytes);
  std::memset(*out, 0xFF, bytes);  // NaN: nothing may be read before it is written
  m.allocations[*out] = bytes;
  m.allocatedBytes += bytes;
  m.peakBytes = m.allocatedBytes > m.peakBytes ? m.allocatedBytes : m.peakBytes;
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* data) {
  auto& m = sparsight::emulated::machine();
  m.allocatedBytes -= m.allocations.at(data);
  m.allocations.erase(data);
  std::free(data);
  return sparsight::emulated::status();
}
inline cudaError_t cudaMallocHost(void** out, std::size_t bytes) {
  *out = std::malloc(bytes);
  return sparsight::emulated::status();
}
inline cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (sparsight::emulated::machine().lost) return sparsight::emulated::status();
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  if (sparsight::emulated::machine().lost) return sparsight::emulated::status();
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return sparsight::emulated::status();
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return sparsight::emulated::status(); }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return sparsight::emulated::status();
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return sparsight::emulated::status(); }
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1.5F;
  return sparsight::emulated::status();
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return sparsight::emulated::status(); }

// SPDX-License-Identifier: Apache-2.0
#pragma once

// The part of the CUDA runtime that the CUDA backend calls, on the host: memory is host memory, streams are done at
// once. It lets the backend's own source run in tests without a GPU, toolkit or driver, and lets a test inject
// failures.

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

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
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDefault = 0;
inline constexpr unsigned cudaEventDisableTiming = 2;
struct CUstream_st;
struct CUevent_st;
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;
struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};
// NOLINTEND

namespace sparsight::emulated {

/// How the threads of a block take turns: all through one stretch between barriers after another (quick), or each as
/// far as it can go before the next one starts, from the first, the last or any (thread_block.h).
enum class ThreadOrder : std::uint8_t { Together, Forward, Reversed, Random };

/// A barrier in a kernel's source; line 0: none.
struct Barrier {
  std::string file;
  unsigned line = 0;
  friend auto operator<=>(const Barrier&, const Barrier&) = default;
};

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
  std::size_t copiedBytes = 0;  ///< to the device
  int launches = 0, failedAllocations = 0;
  std::map<void*, std::size_t> allocations;
  bool hopperBuilt = true;       ///< the program has the kernels for compute capability 9.0
  bool survivesReset = true;     ///< a reset brings a lost device back
  bool hopperWrong = false;      ///< its map kernel gives wrong sums
  std::uint64_t hopperSeed = 0;  ///< order in which warpgroups run (see EmulatedBlock)
  /// Copies to the device wait for somebody who waits for them, as they may on a real one: a page-locked buffer that is
  /// written again too early, or a kernel that does not wait for another stream, then shows as wrong data.
  bool copiesLater = false;
  ThreadOrder threadOrder = ThreadOrder::Together;
  std::set<Barrier> barriers;    ///< that threads have met, unless they ran together
  Barrier leftOut;               ///< no thread stops at this one
  std::vector<std::string> log;  ///< copies to the device, waits and launches by stream, in the order of their calls
};
Machine& machine();
/// Every call holds it: backends call from several threads.
inline std::recursive_mutex& machineLock() {
  static std::recursive_mutex mutex;
  return mutex;
}
using Lock = std::lock_guard<std::recursive_mutex>;

inline cudaError_t status() {
  const Lock lock(machineLock());
  return machine().lost ? machine().launchError : cudaSuccess;
}

}  // namespace sparsight::emulated

struct CUstream_st {
  int number = 0;
  std::size_t done = 0;  ///< calls of `waiting` that were made
  std::deque<std::function<void()>> waiting;
  void runUntil(std::size_t count) {
    while (done < count && !waiting.empty()) {
      const auto next = std::move(waiting.front());
      waiting.pop_front();
      ++done;
      next();
    }
  }
  [[nodiscard]] std::size_t end() const { return done + waiting.size(); }
};
struct CUevent_st {
  std::shared_ptr<CUstream_st> stream;  // which may be destroyed before it
  std::size_t end = 0;
};

namespace sparsight::emulated {

inline std::vector<std::shared_ptr<CUstream_st>>& streams() {
  static std::vector<std::shared_ptr<CUstream_st>> all;
  return all;
}
inline auto placeOf(cudaStream_t stream) {
  return std::find_if(streams().begin(), streams().end(), [&](const auto& known) { return known.get() == stream; });
}
inline void note(const char* what, cudaStream_t stream) {
  machine().log.push_back(std::string(what) + " " + std::to_string(stream->number));
}
inline void finish(cudaStream_t stream) { stream->runUntil(stream->end()); }
inline void finishAll() {
  for (const auto& stream : streams()) finish(stream.get());
}
/// What a launcher returns before it runs its body.
inline cudaError_t beginLaunch(cudaStream_t stream) {
  const Lock lock(machineLock());
  Machine& m = machine();
  note("launch", stream);
  finish(stream);
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
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
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
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  const auto& m = sparsight::emulated::machine();
  *device = {"Emulated GPU", m.freeBytes, m.major, m.minor, 2};
  return sparsight::emulated::status();
}
inline cudaError_t cudaMemGetInfo(std::size_t* freeBytes, std::size_t* totalBytes) {
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  const auto& m = sparsight::emulated::machine();
  *freeBytes = m.freeBytes - m.allocatedBytes;
  *totalBytes = m.freeBytes;
  return sparsight::emulated::status();
}
inline cudaError_t cudaMalloc(void** out, std::size_t bytes) {
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
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
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  auto& m = sparsight::emulated::machine();
  sparsight::emulated::finishAll();  // as the real one waits for the device
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
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t stream) {
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  auto& m = sparsight::emulated::machine();
  if (m.lost) return m.launchError;
  if (kind == cudaMemcpyHostToDevice) sparsight::emulated::note("copy", stream);
  if (kind == cudaMemcpyHostToDevice) m.copiedBytes += bytes;
  if (kind == cudaMemcpyHostToDevice && m.copiesLater) {
    stream->waiting.emplace_back([=] { std::memcpy(to, from, bytes); });
    return cudaSuccess;
  }
  sparsight::emulated::finish(stream);
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  if (sparsight::emulated::machine().lost) return sparsight::emulated::status();
  sparsight::emulated::finish(stream);
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  static int number = 0;
  sparsight::emulated::streams().push_back(std::make_shared<CUstream_st>());
  *stream = sparsight::emulated::streams().back().get();
  (*stream)->number = number++;
  return sparsight::emulated::status();
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  sparsight::emulated::finish(stream);
  sparsight::emulated::streams().erase(sparsight::emulated::placeOf(stream));
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  sparsight::emulated::finish(stream);
  return sparsight::emulated::status();
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  sparsight::emulated::note("wait", stream);
  if (event->stream != nullptr) {
    stream->waiting.emplace_back([other = event->stream, end = event->end] { other->runUntil(end); });
  }
  return sparsight::emulated::status();
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return sparsight::emulated::status();
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  event->stream = *sparsight::emulated::placeOf(stream);
  event->end = stream->end();
  return sparsight::emulated::status();
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1.5F;
  return sparsight::emulated::status();
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const sparsight::emulated::Lock lock(sparsight::emulated::machineLock());
  if (event->stream != nullptr) event->stream->runUntil(event->end);
  return sparsight::emulated::status();
}

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "sparsight/kernels/error.h"
#include "sparsight/kernels/executor.h"
#include "sparsight/kernels/types.h"

namespace sparsight::cuda {

/// Throws for any result but success: Error{OutOfMemory} when memory ran out (the device stays usable), Error{Device}
/// otherwise. `what` says what was being done. A sticky error (the context is lost for this process) is remembered.
void check(cudaError_t status, const char* what);

/// Why the device was lost in this process; empty: it was not.
[[nodiscard]] std::string lostDeviceReason();

/// Accounts device memory against a budget. Plain device allocations only, never managed memory: a map that does not
/// fit must fail at once and run elsewhere instead of paging. Thread-safe; outlives the buffers that point to it.
class DeviceBudget {
 public:
  explicit DeviceBudget(Index limitBytes) noexcept : m_limitBytes(limitBytes) {}
  [[nodiscard]] Index limitBytes() const noexcept { return m_limitBytes; }
  [[nodiscard]] Index usedBytes() const noexcept { return m_usedBytes.load(); }
  /// Throws Error{OutOfMemory} when the budget does not hold it.
  void take(Index bytes, const char* what);
  void give(Index bytes) noexcept { m_usedBytes.fetch_sub(bytes); }

 private:
  Index m_limitBytes;
  std::atomic<Index> m_usedBytes{0};
};

/// An owned device allocation. Empty after default construction or for 0 bytes.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(std::shared_ptr<DeviceBudget> budget, Index sizeBytes, const char* what);
  ~DeviceBuffer() { release(); }
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    DeviceBuffer moved(std::move(other));
    swap(moved);
    return *this;
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  [[nodiscard]] Index sizeBytes() const noexcept { return m_sizeBytes; }
  template <class T>
  [[nodiscard]] T* as() const noexcept {
    return static_cast<T*>(m_data);
  }
  /// At least this large afterwards; contents are lost when it grows.
  void reserve(const std::shared_ptr<DeviceBudget>& budget, Index sizeBytes, const char* what);
  void release() noexcept;

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(m_budget, other.m_budget);
    std::swap(m_data, other.m_data);
    std::swap(m_sizeBytes, other.m_sizeBytes);
  }

  std::shared_ptr<DeviceBudget> m_budget;
  void* m_data = nullptr;
  Index m_sizeBytes = 0;
};

/// A stream; destroyed after its work is done.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  [[nodiscard]] cudaStream_t get() const noexcept { return m_stream; }
  /// Waits for everything on the stream and reports what failed there.
  void wait(const char* what) const;

 private:
  cudaStream_t m_stream = nullptr;
};

/// Two page-locked buffers used in turn: one is filled by the CPU while the other travels.
class Staging {
 public:
  explicit Staging(const Stream& stream);
  ~Staging() { release(); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Copies `rows` host rows of rowBytes (strideBytes apart) to device rows of dstRowBytes each; the rest of a device
  /// row is zeroed. Ordered on the stream; the source may be reused on return.
  void uploadRows(void* dst, Index dstRowBytes, const std::byte* src, Index rows, Index rowBytes, Index strideBytes,
                  const Control& control, const char* what);
  /// Copies a contiguous host array.
  void upload(void* dst, const void* src, Index bytes, const Control& control, const char* what);

 private:
  struct Slot {
    std::byte* data = nullptr;
    cudaEvent_t done = nullptr;
  };
  Slot& nextSlot(const char* what);
  void release() noexcept;

  cudaStream_t m_stream;
  Slot m_slots[2];
  int m_next = 0;
};

}  // namespace sparsight::cuda

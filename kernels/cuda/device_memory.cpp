// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>

namespace sparsight::cuda {
namespace {

constexpr Index kStagingBytes = Index{8} << 20;

// The runtime has one context per process and device; once it is lost, every backend of the process lost it.
struct LostDevice {
  std::mutex mutex;
  std::string reason;
};
LostDevice& lostDevice() {
  static LostDevice lost;
  return lost;
}

// Errors after which every further call of the process fails the same way.
bool isSticky(cudaError_t status) noexcept {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorContextIsDestroyed:
      return true;
    default:
      return false;
  }
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  // Clears the thread's last error, so that a later launch check does not report this one again.
  static_cast<void>(cudaGetLastError());
  const std::string message =
      fmt::format("cuda: {}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
  if (status == cudaErrorMemoryAllocation)
    throw Error(ErrorCode::OutOfMemory, message + "; use a smaller region or the CPU");
  if (isSticky(status)) {
    LostDevice& lost = lostDevice();
    const std::lock_guard lock(lost.mutex);
    if (lost.reason.empty()) lost.reason = message;
  }
  throw Error(ErrorCode::Device, message);
}

std::string lostDeviceReason() {
  LostDevice& lost = lostDevice();
  const std::lock_guard lock(lost.mutex);
  return lost.reason;
}

void DeviceBudget::take(Index bytes, const char* what) {
  Index used = m_usedBytes.load();
  do {
    if (bytes > m_limitBytes - used) {
      throw Error(ErrorCode::OutOfMemory,
                  fmt::format("cuda: {}: {} MiB do not fit into the memory budget ({} of {} MiB used); use a smaller "
                              "region or the CPU",
                              what, bytes >> 20, used >> 20, m_limitBytes >> 20));
    }
  } while (!m_usedBytes.compare_exchange_weak(used, used + bytes));
}

DeviceBuffer::DeviceBuffer(std::shared_ptr<DeviceBudget> budget, Index sizeBytes, const char* what) {
  if (sizeBytes <= 0) return;
  budget->take(sizeBytes, what);
  const cudaError_t status = cudaMalloc(&m_data, static_cast<std::size_t>(sizeBytes));
  if (status != cudaSuccess) {
    m_data = nullptr;
    budget->give(sizeBytes);
    check(status, what);
  }
  m_budget = std::move(budget);
  m_sizeBytes = sizeBytes;
}

void DeviceBuffer::reserve(const std::shared_ptr<DeviceBudget>& budget, Index sizeBytes, const char* what) {
  if (sizeBytes <= m_sizeBytes) return;
  release();  // first: both at once may not fit
  *this = DeviceBuffer(budget, sizeBytes, what);
}

void DeviceBuffer::release() noexcept {
  if (m_data != nullptr) {
    // A lost device or an unloading runtime has freed it already; there is nobody to tell.
    if (cudaFree(m_data) != cudaSuccess) static_cast<void>(cudaGetLastError());
    m_budget->give(m_sizeBytes);
  }
  m_data = nullptr;
  m_sizeBytes = 0;
  m_budget.reset();
}

Stream::Stream() { check(cudaStreamCreateWithFlags(&m_stream, cudaStreamNonBlocking), "create a stream"); }

Stream::~Stream() {
  if (m_stream == nullptr) return;
  static_cast<void>(cudaStreamSynchronize(m_stream));
  static_cast<void>(cudaStreamDestroy(m_stream));
  static_cast<void>(cudaGetLastError());
}

void Stream::wait(const char* what) const { check(cudaStreamSynchronize(m_stream), what); }

Staging::Staging(const Stream& stream) : m_stream(stream.get()) {
  try {
    for (Slot& slot : m_slots) {
      void* data = nullptr;
      check(cudaMallocHost(&data, static_cast<std::size_t>(kStagingBytes)), "allocate page-locked memory");
      slot.data = static_cast<std::byte*>(data);
      check(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming), "create an event");
    }
  } catch (...) {
    release();
    throw;
  }
}

void Staging::release() noexcept {
  for (Slot& slot : m_slots) {
    if (slot.done != nullptr) {
      static_cast<void>(cudaEventSynchronize(slot.done));
      static_cast<void>(cudaEventDestroy(slot.done));
    }
    if (slot.data != nullptr) static_cast<void>(cudaFreeHost(slot.data));
    slot = {};
  }
  static_cast<void>(cudaGetLastError());
}

Staging::Slot& Staging::nextSlot(const char* what) {
  Slot& slot = m_slots[m_next];
  m_next = 1 - m_next;
  check(cudaEventSynchronize(slot.done), what);  // an event never recorded counts as done
  return slot;
}

void Staging::uploadRows(void* dst, Index dstRowBytes, const std::byte* src, Index rows, Index rowBytes,
                         Index strideBytes, const Control& control, const char* what) {
  const Index perSlot = std::max<Index>(1, kStagingBytes / dstRowBytes);
  if (dstRowBytes > kStagingBytes) {
    // One row (of a dense mask) beyond the staging buffer: row by row, without padding.
    for (Index r = 0; r < rows; ++r) {
      upload(static_cast<std::byte*>(dst) + r * dstRowBytes, src + r * strideBytes, rowBytes, control, what);
    }
    return;
  }
  for (Index first = 0; first < rows; first += perSlot) {
    control.checkpoint();
    const Index count = std::min(perSlot, rows - first);
    Slot& slot = nextSlot(what);
    for (Index r = 0; r < count; ++r) {
      std::byte* out = slot.data + r * dstRowBytes;
      std::memcpy(out, src + (first + r) * strideBytes, static_cast<std::size_t>(rowBytes));
      std::memset(out + rowBytes, 0, static_cast<std::size_t>(dstRowBytes - rowBytes));
    }
    check(cudaMemcpyAsync(static_cast<std::byte*>(dst) + first * dstRowBytes, slot.data,
                          static_cast<std::size_t>(count * dstRowBytes), cudaMemcpyHostToDevice, m_stream),
          what);
    check(cudaEventRecord(slot.done, m_stream), what);
  }
}

void Staging::upload(void* dst, const void* src, Index bytes, const Control& control, const char* what) {
  for (Index first = 0; first < bytes; first += kStagingBytes) {
    control.checkpoint();
    const Index count = std::min(kStagingBytes, bytes - first);
    Slot& slot = nextSlot(what);
    std::memcpy(slot.data, static_cast<const std::byte*>(src) + first, static_cast<std::size_t>(count));
    check(cudaMemcpyAsync(static_cast<std::byte*>(dst) + first, slot.data, static_cast<std::size_t>(count),
                          cudaMemcpyHostToDevice, m_stream),
          what);
    check(cudaEventRecord(slot.done, m_stream), what);
  }
}

}  // namespace sparsight::cuda

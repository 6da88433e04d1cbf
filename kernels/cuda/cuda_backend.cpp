// SPDX-License-Identifier: Apache-2.0
#include "cuda/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "convert.h"
#include "cuda/backend_impl.h"
#include "cuda/hopper_check.h"

namespace sparsight {
namespace cuda {
namespace {

std::string versionText(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

// Why the device cannot be used; empty: it can.
std::string whyUnusable() {
  if (std::string lost = lostDeviceReason(); !lost.empty()) {
    return fmt::format("the device failed earlier in this process ({}); restart the program", lost);
  }
  int devices = 0;
  const cudaError_t counted = cudaGetDeviceCount(&devices);
  static_cast<void>(cudaGetLastError());
  int driver = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  static_cast<void>(cudaGetLastError());
  if (counted == cudaErrorInsufficientDriver && driver == 0) {
    return "no NVIDIA driver was found on this machine";
  }
  if (counted == cudaErrorInsufficientDriver) {
    return fmt::format("the NVIDIA driver is too old: it supports CUDA {}, this program needs {}; update the driver",
                       versionText(driver), versionText(CUDART_VERSION));
  }
  if (counted == cudaErrorNoDevice || (counted == cudaSuccess && devices == 0)) {
    return "the NVIDIA driver reports no device (is CUDA_VISIBLE_DEVICES set?)";
  }
  if (counted != cudaSuccess) {
    return fmt::format("the CUDA runtime did not start: {} ({})", cudaGetErrorString(counted),
                       cudaGetErrorName(counted));
  }
  cudaDeviceProp device{};
  check(cudaGetDeviceProperties(&device, kDevice), "read the device's properties");
  if (device.major * 10 + device.minor < kOldestCapability) {
    return fmt::format("{} has compute capability {}.{}; 7.5 (Turing) or newer is needed", device.name, device.major,
                       device.minor);
  }
  check(cudaSetDevice(kDevice), "select the device");
  const auto budget = std::make_shared<DeviceBudget>(Index{1} << 20);
  const DeviceBuffer out(budget, sizeof(std::int32_t), "trial kernel");
  const Stream stream;
  check(cudaMemsetAsync(out.as<void>(), 0, sizeof(std::int32_t), stream.get()), "trial kernel");
  const cudaError_t launched = launchTrial(out.as<std::int32_t>(), stream.get());
  if (launched == cudaErrorNoKernelImageForDevice || launched == cudaErrorUnsupportedPtxVersion ||
      launched == cudaErrorInvalidKernelImage) {
    return fmt::format(
        "this program has no code for {} (compute capability {}.{}); build with "
        "-DSPARSIGHT_CUDA_ARCHITECTURES={}{}-real",
        device.name, device.major, device.minor, device.major, device.minor);
  }
  check(launched, "trial kernel");
  std::int32_t value = 0;
  check(cudaMemcpyAsync(&value, out.as<void>(), sizeof value, cudaMemcpyDeviceToHost, stream.get()), "trial kernel");
  stream.wait("trial kernel");
  if (value != 1) return fmt::format("{} ran a trial kernel without effect", device.name);
  return {};
}

cudaDeviceProp deviceProperties() {
  check(cudaSetDevice(kDevice), "select the device");
  cudaDeviceProp device{};
  check(cudaGetDeviceProperties(&device, kDevice), "read the device's properties");
  return device;
}

std::string pathText(const PathChoice& choice) {
  if (choice.path == Path::Portable) return "portable kernels";
  if (choice.path == Path::Hopper) return "tensor cores with Hopper kernels";
  if (choice.hopperOff.empty()) return "tensor cores";
  return fmt::format("tensor cores (Hopper kernels {}{})", hopperBuilt() ? "off: " : "", choice.hopperOff);
}

// One budget for all backends of the process: each lane has its own backend on the same device.
std::shared_ptr<DeviceBudget> sharedBudget() {
  static std::mutex mutex;
  static std::weak_ptr<DeviceBudget> shared;
  const std::lock_guard lock(mutex);
  if (auto budget = shared.lock()) return budget;
  std::size_t freeBytes = 0;
  std::size_t totalBytes = 0;
  check(cudaMemGetInfo(&freeBytes, &totalBytes), "ask for free device memory");
  auto budget =
      std::make_shared<DeviceBudget>(budgetOf(std::getenv("SPARSIGHT_CUDA_MEMORY"), static_cast<Index>(freeBytes)));
  shared = budget;
  return budget;
}

// Rows as they lie on the device: of one type, padded with zeros.
void copyMatrix(Staging& staging, const DeviceBuffer& buffer, const MatrixView& m, DType dtype, const Control& control,
                const char* what) {
  const Index rowBytes = paddedCols(m.cols) * static_cast<Index>(itemSize(dtype));
  if (m.dtype == dtype) {
    staging.uploadRows(buffer.as<void>(), rowBytes, m.data, m.rows, m.cols * static_cast<Index>(itemSize(dtype)),
                       m.rowStrideBytes, control, what);
    return;
  }
  constexpr Index kRows = 1024;
  std::vector<float> rows(at(std::min(kRows, m.rows) * m.cols));
  for (Index first = 0; first < m.rows; first += kRows) {
    const Index count = std::min(kRows, m.rows - first);
    for (Index r = 0; r < count; ++r) detail::convertRow(m, first + r, rows.data() + r * m.cols);
    const Index wideBytes = m.cols * static_cast<Index>(sizeof(float));
    staging.uploadRows(buffer.as<std::byte>() + first * rowBytes, rowBytes,
                       reinterpret_cast<const std::byte*>(rows.data()), count, wideBytes, wideBytes, control, what);
  }
}

}  // namespace

PathChoice choosePath(const char* wanted, int capability, std::string (*whyNotHopper)()) {
  const std::string_view name = wanted == nullptr ? std::string_view() : std::string_view(wanted);
  const auto refuse = [&](const std::string& why) {
    return Error(ErrorCode::InvalidArgument,
                 fmt::format("backend cuda: SPARSIGHT_CUDA_PATH={} {}; use auto", name, why));
  };
  const std::string has = fmt::format("the device has {}.{}", capability / 10, capability % 10);
  if (name == "portable") return {Path::Portable, {}};
  if (name.empty() || name == "auto") {
    if (capability < kMmaCapability) return {Path::Portable, {}};
    if (capability != kHopperCapability) return {Path::Mma, {}};
    std::string why = whyNotHopper();
    return {why.empty() ? Path::Hopper : Path::Mma, std::move(why)};
  }
  if (name == "mma") {
    if (capability < kMmaCapability) throw refuse("needs compute capability 8.0, " + has);
    return {Path::Mma, {}};
  }
  if (name == "hopper") {
    if (capability != kHopperCapability) throw refuse("needs compute capability 9.0, " + has);
    if (const std::string why = whyNotHopper(); !why.empty()) throw refuse("cannot be used (" + why + ")");
    return {Path::Hopper, {}};
  }
  throw Error(ErrorCode::InvalidArgument,
              fmt::format("SPARSIGHT_CUDA_PATH={} is unknown; use auto, portable, mma or hopper", name));
}

Index budgetOf(const char* wanted, Index freeBytes) {
  if (wanted == nullptr || *wanted == '\0') return freeBytes / 5 * 4;
  const char* const end = wanted + std::strlen(wanted);
  Index value = 0;
  const auto [rest, error] = std::from_chars(wanted, end, value);
  const bool percent = rest + 1 == end && *rest == '%';
  const bool mebibytes = rest == end;
  if (error != std::errc() || !(percent || mebibytes) || value < 1 || (percent && value > 100) ||
      value > (std::numeric_limits<Index>::max() >> 20)) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("SPARSIGHT_CUDA_MEMORY={} is neither a share such as 60% nor a number of MiB", wanted));
  }
  return percent ? freeBytes / 100 * value : std::min(freeBytes, value << 20);
}

CudaBackend::CudaBackend(const LaunchLimits& limits)
    : m_limits(limits),
      m_device(deviceProperties()),
      m_choice(choosePath(std::getenv("SPARSIGHT_CUDA_PATH"), m_device.major * 10 + m_device.minor, &whyNotHopper)),
      m_path(m_choice.path),
      m_budget(sharedBudget()),
      m_staging(m_stream) {
  // A program without the kernels is as it was built; kernels that fail are worth a line in every report.
  if (!m_choice.hopperOff.empty() && hopperBuilt()) {
    m_notes.push_back(fmt::format("cuda: Hopper kernels off ({})", m_choice.hopperOff));
  }
  try {
    for (cudaEvent_t& event : m_inFlight) {
      check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "create an event");
    }
    for (cudaEvent_t* event : {&m_timer.first, &m_timer.last}) {
      check(cudaEventCreateWithFlags(event, cudaEventDefault), "create an event");
    }
  } catch (...) {
    for (cudaEvent_t event : {m_inFlight[0], m_inFlight[1], m_timer.first, m_timer.last}) {
      if (event != nullptr) static_cast<void>(cudaEventDestroy(event));
    }
    throw;
  }
}

CudaBackend::~CudaBackend() {
  // Kernels of a stopped operation may still use the scratch buffers.
  static_cast<void>(cudaStreamSynchronize(m_stream.get()));
  for (cudaEvent_t event : {m_inFlight[0], m_inFlight[1], m_timer.first, m_timer.last}) {
    static_cast<void>(cudaEventDestroy(event));
  }
  static_cast<void>(cudaGetLastError());
}

BackendInfo CudaBackend::info() const {
  BackendInfo info;
  info.id = "cuda";
  info.deviceName = m_device.name;
  int driver = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  info.detail = fmt::format("compute capability {}.{}, {}, {} multiprocessors, {} MiB, driver for CUDA {}",
                            m_device.major, m_device.minor, pathText(m_choice), m_device.multiProcessorCount,
                            m_device.totalGlobalMem >> 20U, versionText(driver));
  info.freeBytes = m_budget->limitBytes() - m_budget->usedBytes();
  return info;
}

bool CudaBackend::supports(Op, DType, Index headDim) const noexcept {
  return headDim >= 1 && headDim <= kLargestHeadDim;
}

CudaHead::CudaHead(const AttentionIn& in, std::shared_ptr<const void> keepAlive)
    : PreparedHead(in, std::move(keepAlive)) {
  if (in.q.rows > kMostTokens || in.k.rows > kMostTokens) {
    throw Error(ErrorCode::Unsupported, fmt::format("cuda: {} queries and {} keys; at most {} tokens are supported",
                                                    in.q.rows, in.k.rows, kMostTokens));
  }
  if (in.q.cols > kLargestHeadDim) {
    throw Error(ErrorCode::Unsupported,
                fmt::format("cuda: head_dim {} is above {}; use the CPU", in.q.cols, kLargestHeadDim));
  }
  const bool sameTypes = in.q.dtype == in.k.dtype && (in.v.data == nullptr || in.v.dtype == in.q.dtype);
  dtype = sameTypes ? in.q.dtype : DType::F32;
  depth = paddedCols(in.q.cols);
}

CudaHead::CudaHead(const std::shared_ptr<const detail::KeyOrder>& keyOrder)
    : PreparedHead(keyOrder->input, keyOrder), order(keyOrder.get()) {
  dtype = source().dtype;
  depth = source().depth;
}

void CudaHead::reserve(const std::shared_ptr<DeviceBudget>& budget, bool withValues) {
  const auto matrix = [&](DeviceBuffer& buffer, const MatrixView& m, const char* what) {
    buffer.reserve(budget, m.rows * paddedCols(m.cols) * static_cast<Index>(itemSize(dtype)), what);
  };
  if (order == nullptr) {
    matrix(q, input().q, "upload the queries");
    queryValid.reserve(budget, static_cast<Index>(input().queryValid.size()), "upload the query validity");
  }
  matrix(k, input().k, "upload the keys");
  keyValid.reserve(budget, static_cast<Index>(input().keyValid.size()), "upload the key validity");
  if (withValues && hasValues()) matrix(v, input().v, "upload the values");
}

void CudaHead::copy(Staging& staging, const Control& control) const {
  copyMatrix(staging, q, input().q, dtype, control, "upload the queries");
  copyMatrix(staging, k, input().k, dtype, control, "upload the keys");
  const auto flags = [&](const DeviceBuffer& buffer, std::span<const std::uint8_t> from, const char* what) {
    if (!from.empty()) staging.upload(buffer.as<void>(), from.data(), buffer.sizeBytes(), control, what);
  };
  flags(keyValid, input().keyValid, "upload the key validity");
  flags(queryValid, input().queryValid, "upload the query validity");
  if (v.sizeBytes() > 0) copyValues(staging, control);
}

void CudaHead::copyValues(Staging& staging, const Control& control) const {
  copyMatrix(staging, v, input().v, dtype, control, "upload the values");
}

std::shared_ptr<const PreparedHead> CudaBackend::prepare(const AttentionIn& in, std::shared_ptr<const void> keepAlive,
                                                         const Control& control) {
  detail::checkInput(in);
  start();
  auto head = std::make_shared<CudaHead>(in, std::move(keepAlive));
  uploadNow(*head, false, control);
  m_stream.wait("upload a head");
  return head;
}

std::shared_ptr<const PreparedHead> CudaBackend::prepareAhead(const AttentionIn& in,
                                                              std::shared_ptr<const void> keepAlive) {
  detail::checkInput(in);
  start();
  auto head = std::make_shared<CudaHead>(in, std::move(keepAlive));
  try {
    head->reserve(m_budget, true);
    head->upload = m_uploader.start(
        [target = head.get()](Staging& staging, const Control& control) { target->copy(staging, control); });
  } catch (const Error& e) {
    // The present head comes first: its scratch is not given up for the next, which will have its turn.
    if (e.code() != ErrorCode::OutOfMemory) throw;
    head->q.release();
    head->k.release();
    head->keyValid.release();
    head->queryValid.release();
    head->v.release();
    head->missing = true;
  }
  return head;
}

Index CudaBackend::headsAtOnce(Index headBytes) const noexcept {
  // A third of the budget: as much again is scratch, and other lanes have heads, too.
  return std::clamp<Index>(m_budget->limitBytes() / 3 / std::max<Index>(headBytes, 1), 1, kMostTasks);
}

void CudaBackend::uploadNow(CudaHead& head, bool withValues, const Control& control) {
  // Scratch of earlier, larger operations gives way to a head.
  for (const bool again : {false, true}) {
    try {
      const Drain drain(m_stream);
      head.reserve(m_budget, withValues);
      head.copy(m_staging, control);
      return;
    } catch (const Error& e) {
      if (again || e.code() != ErrorCode::OutOfMemory) throw;
    }
    m_scratch = {};
  }
}

const CudaHead& CudaBackend::cast(const PreparedHead& head) {
  const auto* const mine = dynamic_cast<const CudaHead*>(&head);
  if (mine == nullptr) throw Error(ErrorCode::InvalidArgument, "the head was prepared by another backend");
  return *mine;
}

const CudaHead& CudaBackend::arrived(const PreparedHead& prepared, const Control& control) {
  // Only how far its upload has come changes, and only by this backend's thread.
  auto& head = const_cast<CudaHead&>(cast(prepared));  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  if (head.upload) {
    try {
      head.upload->arriveBefore(m_stream, control);
    } catch (const Error& e) {
      if (e.code() != ErrorCode::OutOfMemory) throw;
      head.missing = true;  // no page-locked memory for a second way
    }
    head.upload.reset();
  }
  if (head.missing) {
    uploadNow(head, false, control);
    head.missing = false;
  }
  return head;
}

const CudaHead& CudaBackend::arrivedWithValues(const PreparedHead& prepared, const Control& control) {
  auto& head = const_cast<CudaHead&>(arrived(prepared, control));  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  if (!head.hasValues() || head.v.sizeBytes() > 0) return head;
  if (head.order != nullptr) static_cast<void>(arrivedWithValues(head.source(), control));
  try {
    head.reserve(m_budget, true);
    if (head.order != nullptr) {
      moveValues(head, control);
    } else {
      head.copyValues(m_staging, control);
    }
  } catch (...) {
    static_cast<void>(cudaStreamSynchronize(m_stream.get()));
    head.v.release();
    throw;
  }
  return head;
}

void CudaBackend::start() {
  if (const std::string lost = lostDeviceReason(); !lost.empty()) throw Error(ErrorCode::Device, lost);
  check(cudaSetDevice(kDevice), "select the device");
  m_timer.running = false;
  m_timer.seconds = 0;
}

void CudaBackend::beginTiming() {
  check(cudaEventRecord(m_timer.first, m_stream.get()), "record an event");
  m_timer.running = false;
}
void CudaBackend::endTiming() {
  check(cudaEventRecord(m_timer.last, m_stream.get()), "record an event");
  m_timer.running = true;
}
void CudaBackend::readTimer() {
  if (!m_timer.running) return;
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, m_timer.first, m_timer.last), "read an event");
  m_timer.seconds += static_cast<double>(milliseconds) * 1e-3;  // an operation may run in several batches
  m_timer.running = false;
}

void CudaBackend::noteSmallerBatch(Op op, Index bytes) {
  const auto text = [](Index size) {
    return size >= Index{1} << 20 ? fmt::format("{} MiB", size >> 20) : fmt::format("{} KiB", size >> 10);
  };
  std::string line = fmt::format("{}: in batches of {} instead of {} (out of device memory)", opName(op), text(bytes),
                                 text(m_limits.scratchBytes));
  if (std::find(m_notes.begin(), m_notes.end(), line) == m_notes.end()) m_notes.push_back(std::move(line));
}

void CudaBackend::paceLaunches(Index launch, const char* what) {
  check(cudaEventRecord(m_inFlight[at(launch % 2)], m_stream.get()), what);
  if (launch > 0) check(cudaEventSynchronize(m_inFlight[at((launch - 1) % 2)]), what);
}

}  // namespace cuda

bool probeCuda(std::string& why) noexcept {
  try {
    why = cuda::whyUnusable();
  } catch (const std::exception& e) {
    why = e.what();
  }
  return why.empty();
}

std::unique_ptr<Backend> createCudaBackend(Executor&) {
  std::string why;
  if (!probeCuda(why)) throw Error(ErrorCode::Device, "backend cuda: " + why);
  return std::make_unique<cuda::CudaBackend>();
}

double cudaDeviceSeconds(const Backend& backend) noexcept {
  const auto* const mine = dynamic_cast<const cuda::CudaBackend*>(&backend);
  return mine == nullptr ? 0.0 : mine->deviceSeconds();
}

double cudaCopySeconds(Index bytes) {
  using namespace cuda;
  constexpr int kRuns = 9;
  check(cudaSetDevice(kDevice), "select the device");
  const auto budget = std::make_shared<DeviceBudget>(std::numeric_limits<Index>::max());
  const Stream stream;
  const DeviceBuffer from(budget, bytes, "copy");
  const DeviceBuffer to(budget, bytes, "copy");
  check(cudaMemsetAsync(from.as<void>(), 0, at(bytes), stream.get()), "copy");
  std::array<cudaEvent_t, 2> edges{};
  std::vector<double> seconds;
  try {
    for (cudaEvent_t& edge : edges) check(cudaEventCreateWithFlags(&edge, cudaEventDefault), "create an event");
    for (int run = 0; run <= kRuns; ++run) {
      check(cudaEventRecord(edges[0], stream.get()), "copy");
      check(cudaMemcpyAsync(to.as<void>(), from.as<void>(), at(bytes), cudaMemcpyDeviceToDevice, stream.get()), "copy");
      check(cudaEventRecord(edges[1], stream.get()), "copy");
      stream.wait("copy");
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, edges[0], edges[1]), "read an event");
      if (run > 0) seconds.push_back(static_cast<double>(milliseconds) * 1e-3);  // the first one warms up
    }
  } catch (...) {
    for (cudaEvent_t edge : edges) {
      if (edge != nullptr) static_cast<void>(cudaEventDestroy(edge));
    }
    throw;
  }
  for (cudaEvent_t edge : edges) static_cast<void>(cudaEventDestroy(edge));
  std::nth_element(seconds.begin(), seconds.begin() + kRuns / 2, seconds.end());
  return seconds[kRuns / 2];
}

}  // namespace sparsight

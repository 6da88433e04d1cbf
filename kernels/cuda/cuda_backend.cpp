// SPDX-License-Identifier: Apache-2.0
#include "cuda/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>

#include "checks.h"
#include "convert.h"
#include "cuda/device_memory.h"
#include "cuda/kernels.h"
#include "cuda/work_plan.h"

namespace sparsight {
namespace cuda {
namespace {

constexpr int kDevice = 0;
constexpr int kOldestCapability = 75;
constexpr Index kLargestHeadDim = 256;
constexpr Index kLargestValueDim = 256;
/// Positions are 32-bit on the device, with room for one tile behind the last.
constexpr Index kMostTokens = (Index{1} << 31) - 256;
constexpr double kLog2E = 1.4426950408889634074;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::size_t at(Index i) { return static_cast<std::size_t>(i); }
template <class T>
Index bytesOf(const std::vector<T>& values) {
  return static_cast<Index>(values.size() * sizeof(T));
}

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

// One budget for all backends of the process: each lane has its own backend on the same device.
std::shared_ptr<DeviceBudget> sharedBudget() {
  static std::mutex mutex;
  static std::weak_ptr<DeviceBudget> shared;
  const std::lock_guard lock(mutex);
  if (auto budget = shared.lock()) return budget;
  std::size_t freeBytes = 0;
  std::size_t totalBytes = 0;
  check(cudaMemGetInfo(&freeBytes, &totalBytes), "ask for free device memory");
  auto budget = std::make_shared<DeviceBudget>(static_cast<Index>(freeBytes / 5 * 4));
  shared = budget;
  return budget;
}

class CudaHead final : public PreparedHead {
 public:
  CudaHead(const AttentionIn& in, std::shared_ptr<const void> keepAlive) : PreparedHead(in, std::move(keepAlive)) {}

  [[nodiscard]] Index bytes() const noexcept override {
    return q.sizeBytes() + k.sizeBytes() + v.sizeBytes() + keyValid.sizeBytes() + queryValid.sizeBytes();
  }
  [[nodiscard]] const std::uint8_t* keyFlags() const { return keyValid.as<const std::uint8_t>(); }
  [[nodiscard]] const std::uint8_t* queryFlags() const { return queryValid.as<const std::uint8_t>(); }
  [[nodiscard]] Operands operands() const { return {q.as<const void>(), k.as<const void>(), depth}; }

  DType dtype = DType::F32;  ///< on the device: the tensors' own, float32 where they differ
  std::int32_t depth = 0;    ///< padded head dimension
  DeviceBuffer q, k;
  DeviceBuffer keyValid, queryValid;
  mutable DeviceBuffer v;  ///< uploaded when an operation first needs it
};

/// What the pooled pass leaves: sums over cells, and the LSE of the rows of the region when it was not given.
struct Pooled {
  std::vector<double> lse;
  std::vector<double> sum;
  std::vector<float> max;
  std::vector<std::int64_t> count;
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const LaunchLimits& limits = {})
      : m_limits(limits), m_budget(sharedBudget()), m_staging(m_stream) {
    check(cudaGetDeviceProperties(&m_device, kDevice), "read the device's properties");
    for (cudaEvent_t& event : m_inFlight) {
      check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "create an event");
    }
  }
  ~CudaBackend() override {
    // Kernels of a stopped operation may still use the scratch buffers.
    static_cast<void>(cudaStreamSynchronize(m_stream.get()));
    for (cudaEvent_t event : m_inFlight) {
      if (event != nullptr) static_cast<void>(cudaEventDestroy(event));
    }
    static_cast<void>(cudaGetLastError());
  }
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  [[nodiscard]] BackendInfo info() const override {
    BackendInfo info;
    info.id = "cuda";
    info.deviceName = m_device.name;
    int driver = 0;
    static_cast<void>(cudaDriverGetVersion(&driver));
    info.detail =
        fmt::format("compute capability {}.{}, {} multiprocessors, {} MiB, driver for CUDA {}", m_device.major,
                    m_device.minor, m_device.multiProcessorCount, m_device.totalGlobalMem >> 20U, versionText(driver));
    info.freeBytes = m_budget->limitBytes() - m_budget->usedBytes();
    return info;
  }

  [[nodiscard]] bool supports(Op op, DType, Index headDim) const noexcept override {
    const bool written = op == Op::LseMap || op == Op::Tile || op == Op::Attend;
    return written && headDim >= 1 && headDim <= kLargestHeadDim;
  }

  std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in, std::shared_ptr<const void> keepAlive,
                                              const Control& control) override {
    detail::checkInput(in);
    start();
    if (in.q.rows > kMostTokens || in.k.rows > kMostTokens) {
      throw Error(ErrorCode::Unsupported, fmt::format("cuda: {} queries and {} keys; at most {} tokens are supported",
                                                      in.q.rows, in.k.rows, kMostTokens));
    }
    if (in.q.cols > kLargestHeadDim) {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("cuda: head_dim {} is above {}; use the CPU", in.q.cols, kLargestHeadDim));
    }
    auto head = std::make_shared<CudaHead>(in, std::move(keepAlive));
    const Drain drain(m_stream);
    const bool sameTypes = in.q.dtype == in.k.dtype && (in.v.data == nullptr || in.v.dtype == in.q.dtype);
    head->dtype = sameTypes ? in.q.dtype : DType::F32;
    head->depth = paddedCols(in.q.cols);
    head->q = uploadMatrix(in.q, head->dtype, control, "upload the queries");
    head->k = uploadMatrix(in.k, head->dtype, control, "upload the keys");
    head->keyValid = uploadFlags(in.keyValid, control, "upload the key validity");
    head->queryValid = uploadFlags(in.queryValid, control, "upload the query validity");
    m_stream.wait("upload a head");
    return head;
  }

  LseMapResult lseMap(const PreparedHead& prepared, const LseMapRequest& request, const Control& control) override {
    const CudaHead& head = cast(prepared);
    const AttentionIn& in = head.input();
    detail::checkRequest(in, request);
    start();
    const bool wantCells = !request.rowBounds.empty();
    const std::array<Index, 2> wholeColumns{0, in.k.rows};
    Pooled pooled = pool(head, {0, in.q.rows}, wantCells ? request.rowBounds : std::span<const Index>(),
                         wantCells ? request.colBounds : std::span<const Index>(wholeColumns), request.rowLse, control);
    LseMapResult result;
    result.lse.assign(pooled.lse.begin(), pooled.lse.end());
    if (!request.rowLse.empty()) result.lse.assign(request.rowLse.begin(), request.rowLse.end());
    if (wantCells && request.wantMean) result.mean = meanOf(pooled);
    if (wantCells && request.wantMax) result.max = maxOf(pooled);
    return result;
  }

  std::vector<float> tile(const PreparedHead& prepared, std::span<const float> rowLse, const TileRect& rect,
                          Reduce reduce, const Control& control) override {
    const CudaHead& head = cast(prepared);
    detail::checkTile(head.input(), rowLse, rect);
    start();
    const std::vector<Index> rowBounds = detail::cellBounds(rect.row0, rect.row1, rect.cellRows);
    const std::vector<Index> colBounds = detail::cellBounds(rect.col0, rect.col1, rect.cellCols);
    const Pooled pooled = pool(head, {rect.row0, rect.row1}, rowBounds, colBounds, rowLse, control);
    return reduce == Reduce::Mean ? meanOf(pooled) : maxOf(pooled);
  }

  AttendResult attend(const PreparedHead& prepared, std::span<const Index> rows, const RowKeep& keep,
                      const Control& control) override;

  AttendResult attendTop(const PreparedHead&, std::span<const Index>, std::span<const Index>, const Control&) override {
    unsupported(Op::AttendTop);
  }
  RowStats rowStats(const PreparedHead&, std::span<const Index>, double, const Control&) override {
    unsupported(Op::RowStats);
  }
  GlobalTop globalTop(const PreparedHead&, std::span<const Index>, Index, const Control&) override {
    unsupported(Op::GlobalTop);
  }
  ClusterResult cluster(const PreparedHead&, const ClusterRequest&, const Control&) override {
    unsupported(Op::Cluster);
  }

 private:
  [[noreturn]] static void unsupported(Op op) {
    throw Error(ErrorCode::Unsupported, fmt::format("cuda: {} is not in this backend; use the CPU", opName(op)));
  }

  static const CudaHead& cast(const PreparedHead& head) {
    const auto* const mine = dynamic_cast<const CudaHead*>(&head);
    if (mine == nullptr) throw Error(ErrorCode::InvalidArgument, "the head was prepared by another backend");
    return *mine;
  }

  // Every operation may come from another thread than the last, and the current device is a thread's.
  void start() const {
    if (const std::string lost = lostDeviceReason(); !lost.empty()) throw Error(ErrorCode::Device, lost);
    check(cudaSetDevice(kDevice), "select the device");
  }

  [[nodiscard]] DeviceBuffer uploadMatrix(const MatrixView& m, DType dtype, const Control& control, const char* what) {
    const Index rowBytes = paddedCols(m.cols) * static_cast<Index>(itemSize(dtype));
    DeviceBuffer buffer(m_budget, m.rows * rowBytes, what);
    if (m.dtype == dtype) {
      m_staging.uploadRows(buffer.as<void>(), rowBytes, m.data, m.rows, m.cols * static_cast<Index>(itemSize(dtype)),
                           m.rowStrideBytes, control, what);
      return buffer;
    }
    constexpr Index kRows = 1024;
    std::vector<float> rows(at(std::min(kRows, m.rows) * m.cols));
    for (Index first = 0; first < m.rows; first += kRows) {
      const Index count = std::min(kRows, m.rows - first);
      for (Index r = 0; r < count; ++r) detail::convertRow(m, first + r, rows.data() + r * m.cols);
      const Index wideBytes = m.cols * static_cast<Index>(sizeof(float));
      m_staging.uploadRows(buffer.as<std::byte>() + first * rowBytes, rowBytes,
                           reinterpret_cast<const std::byte*>(rows.data()), count, wideBytes, wideBytes, control, what);
    }
    return buffer;
  }

  [[nodiscard]] DeviceBuffer uploadFlags(std::span<const std::uint8_t> flags, const Control& control,
                                         const char* what) {
    DeviceBuffer buffer(m_budget, static_cast<Index>(flags.size()), what);
    if (!flags.empty()) m_staging.upload(buffer.as<void>(), flags.data(), buffer.sizeBytes(), control, what);
    return buffer;
  }

  template <class T>
  void uploadTable(DeviceBuffer& buffer, const std::vector<T>& values, const Control& control, const char* what) {
    buffer.reserve(m_budget, bytesOf(values), what);
    if (!values.empty()) m_staging.upload(buffer.as<void>(), values.data(), bytesOf(values), control, what);
  }

  template <class T>
  void download(std::vector<T>& out, const void* from, const char* what) {
    if (out.empty()) return;
    check(cudaMemcpyAsync(out.data(), from, out.size() * sizeof(T), cudaMemcpyDeviceToHost, m_stream.get()), what);
  }

  // An operation that ends early (stopped, failed) leaves nothing running that reads a head its owner may now free.
  class Drain {
   public:
    explicit Drain(const Stream& stream) : m_drained(stream.get()) {}
    ~Drain() { static_cast<void>(cudaStreamSynchronize(m_drained)); }
    Drain(const Drain&) = delete;
    Drain& operator=(const Drain&) = delete;

   private:
    cudaStream_t m_drained;
  };

  // At most two launches in flight: the GPU never idles, and a stop waits for little.
  void paceLaunches(Index launch, const char* what) {
    check(cudaEventRecord(m_inFlight[at(launch % 2)], m_stream.get()), what);
    if (launch > 0) check(cudaEventSynchronize(m_inFlight[at((launch - 1) % 2)]), what);
  }

  /// Pools rows [region.first, region.last) over the given partitions; empty rowBounds: LSE only. givenLse: [Nq],
  /// empty: computed. Every row of the region lies in rowBounds.
  Pooled pool(const CudaHead& head, Interval region, std::span<const Index> rowBounds, std::span<const Index> colBounds,
              std::span<const float> givenLse, const Control& control);

  static std::vector<float> meanOf(const Pooled& pooled) {
    std::vector<float> out(pooled.sum.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = pooled.count[i] > 0 ? static_cast<float>(pooled.sum[i] / static_cast<double>(pooled.count[i])) : kNan;
    }
    return out;
  }
  static std::vector<float> maxOf(const Pooled& pooled) {
    std::vector<float> out(pooled.max);
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (pooled.count[i] == 0) out[i] = kNan;
    }
    return out;
  }

  LaunchLimits m_limits;
  std::shared_ptr<DeviceBudget> m_budget;
  Stream m_stream;
  Staging m_staging;
  cudaDeviceProp m_device{};
  std::array<cudaEvent_t, 2> m_inFlight{};
  // Scratch that stays between operations and only grows.
  DeviceBuffer m_partMax, m_partSum, m_partCount, m_maskRows;
  DeviceBuffer m_lse, m_cellSum, m_cellMax, m_cellCount;
  DeviceBuffer m_subBounds, m_subPtr, m_splitPtr, m_subValid, m_rowBounds;
  DeviceBuffer m_rows, m_keepFirst, m_keepLast, m_intervals, m_out, m_outLse, m_outCount;
};

Pooled CudaBackend::pool(const CudaHead& head, Interval region, std::span<const Index> rowBounds,
                         std::span<const Index> colBounds, std::span<const float> givenLse, const Control& control) {
  const AttentionIn& in = head.input();
  const Drain drain(m_stream);
  const bool wantCells = !rowBounds.empty();
  const Index rows = region.last - region.first;
  const Index cellRows = wantCells ? static_cast<Index>(rowBounds.size()) - 1 : 0;
  const Index cellCols = wantCells ? static_cast<Index>(colBounds.size()) - 1 : 0;
  const Index cells = cellRows * cellCols;
  if (cellCols / kCellCols >= 65535) {
    throw Error(ErrorCode::Unsupported, fmt::format("cuda: a map of {} columns; use the CPU", cellCols));
  }
  Pooled pooled;
  if (givenLse.empty()) pooled.lse.resize(at(rows));
  pooled.sum.assign(at(cells), 0.0);
  pooled.max.assign(at(cells), 0.0F);
  pooled.count.assign(at(cells), 0);
  const bool masked = !in.denseMask.empty();
  const Index regionKeys = colBounds.back() - colBounds.front();
  const Index maskBytes = masked ? regionKeys : 0;
  const ColumnPlan plan = planColumns(m_limits, colBounds, rows, head.depth, masked ? 12 : 8, maskBytes);
  if (rows == 0 || plan.subs() == 0) {
    for (Index row = 0; row < rows && givenLse.empty(); ++row) {
      pooled.lse[at(row)] = detail::isPaddingRow(in, region.first + row) ? std::nan("") : -HUGE_VAL;
    }
    return pooled;
  }

  std::vector<std::int32_t> subValid(at(plan.subs()));
  for (std::size_t s = 0; s < subValid.size(); ++s) {
    const Index first = plan.subBounds[s];
    const Index last = plan.subBounds[s + 1];
    subValid[s] = static_cast<std::int32_t>(
        in.keyValid.empty() ? last - first
                            : last - first - std::count(in.keyValid.begin() + first, in.keyValid.begin() + last, 0));
  }
  uploadTable(m_subBounds, plan.subBounds, control, "upload the key partition");
  uploadTable(m_subPtr, plan.subPtr, control, "upload the key partition");
  uploadTable(m_splitPtr, plan.splitPtr, control, "upload the key partition");
  uploadTable(m_subValid, subValid, control, "upload the key partition");
  uploadTable(m_rowBounds, std::vector<std::int32_t>(rowBounds.begin(), rowBounds.end()), control,
              "upload the row partition");
  const Index panel = std::min(plan.panelRows, rows);
  const Index pairs = panel * plan.subs();
  m_partMax.reserve(m_budget, pairs * static_cast<Index>(sizeof(float)), "row maxima");
  m_partSum.reserve(m_budget, pairs * static_cast<Index>(sizeof(float)), "row sums");
  if (masked) {
    m_partCount.reserve(m_budget, pairs * static_cast<Index>(sizeof(std::int32_t)), "pair counts");
    m_maskRows.reserve(m_budget, panel * maskBytes, "rows of the dense mask");
  }
  m_lse.reserve(m_budget, in.q.rows * static_cast<Index>(sizeof(double)), "row LSE");
  if (!givenLse.empty()) {
    const std::vector<double> wide(givenLse.begin() + region.first, givenLse.begin() + region.last);
    m_staging.upload(m_lse.as<double>() + region.first, wide.data(), bytesOf(wide), control, "upload the row LSE");
  }
  if (wantCells) {
    m_cellSum.reserve(m_budget, bytesOf(pooled.sum), "cell sums");
    m_cellMax.reserve(m_budget, bytesOf(pooled.max), "cell maxima");
    m_cellCount.reserve(m_budget, bytesOf(pooled.count), "cell counts");
    check(cudaMemsetAsync(m_cellSum.as<void>(), 0, at(bytesOf(pooled.sum)), m_stream.get()), "clear the cells");
    check(cudaMemsetAsync(m_cellMax.as<void>(), 0, at(bytesOf(pooled.max)), m_stream.get()), "clear the cells");
    check(cudaMemsetAsync(m_cellCount.as<void>(), 0, at(bytesOf(pooled.count)), m_stream.get()), "clear the cells");
  }

  const float exponentScale = static_cast<float>(std::abs(in.scale) * kLog2E);
  Index launch = 0;
  for (Index row0 = region.first; row0 < region.last; row0 += panel, ++launch) {
    control.checkpoint();
    const Index rowEnd = std::min(row0 + panel, region.last);
    if (masked) {
      m_staging.uploadRows(
          m_maskRows.as<void>(), maskBytes,
          reinterpret_cast<const std::byte*>(in.denseMask.data()) + row0 * in.k.rows + colBounds.front(), rowEnd - row0,
          maskBytes, in.k.rows, control, "upload rows of the dense mask");
    }
    PartialsParams partials{};
    partials.in = head.operands();
    partials.validity = {head.keyFlags(), masked ? m_maskRows.as<const std::uint8_t>() : nullptr, maskBytes,
                         static_cast<std::int32_t>(colBounds.front())};
    partials.row0 = static_cast<std::int32_t>(row0);
    partials.rowEnd = static_cast<std::int32_t>(rowEnd);
    partials.subBounds = m_subBounds.as<const std::int32_t>();
    partials.splitPtr = m_splitPtr.as<const std::int32_t>();
    partials.subCount = static_cast<std::int32_t>(plan.subs());
    partials.sign = in.scale < 0 ? -1.0F : 1.0F;
    partials.exponentScale = exponentScale;
    partials.partMax = m_partMax.as<float>();
    partials.partSum = m_partSum.as<float>();
    partials.partCount = masked ? m_partCount.as<std::int32_t>() : nullptr;
    check(launchPartials(head.dtype, partials, plan.splits(), m_stream.get()), "lse_map: scores");

    const PartialsView view{
        partials.partMax,  partials.partSum, partials.partCount, m_subValid.as<const std::int32_t>(),
        partials.subCount, partials.row0,    partials.rowEnd,    std::abs(in.scale)};
    if (givenLse.empty()) {
      check(launchRowLse({view, head.queryFlags(), exponentScale, m_lse.as<double>()}, m_stream.get()),
            "lse_map: row LSE");
    }
    if (wantCells) {
      const BlockRange blocks = blocksOfRows(rowBounds, row0, rowEnd);
      CellsParams params{};
      params.parts = view;
      params.queryValid = head.queryFlags();
      params.lse = m_lse.as<const double>();
      params.rowBounds = m_rowBounds.as<const std::int32_t>();
      params.subPtr = m_subPtr.as<const std::int32_t>();
      params.firstRowBlock = static_cast<std::int32_t>(blocks.first);
      params.cols = static_cast<std::int32_t>(cellCols);
      params.cellSum = m_cellSum.as<double>();
      params.cellMax = m_cellMax.as<float>();
      params.cellCount = m_cellCount.as<std::int64_t>();
      check(launchCells(params, blocks.last - blocks.first, m_stream.get()), "lse_map: cells");
    }
    paceLaunches(launch, "lse_map");
    control.report(static_cast<double>(rowEnd - region.first) / static_cast<double>(rows));
  }
  if (givenLse.empty()) download(pooled.lse, m_lse.as<double>() + region.first, "read the row LSE");
  if (wantCells) {
    download(pooled.sum, m_cellSum.as<void>(), "read the cells");
    download(pooled.max, m_cellMax.as<void>(), "read the cells");
    download(pooled.count, m_cellCount.as<void>(), "read the cells");
  }
  m_stream.wait("lse_map");
  return pooled;
}

AttendResult CudaBackend::attend(const PreparedHead& prepared, std::span<const Index> rows, const RowKeep& keep,
                                 const Control& control) {
  const CudaHead& head = cast(prepared);
  const AttentionIn& in = head.input();
  detail::checkRows(in, rows);
  detail::checkKeep(in, rows, keep);
  start();
  const Drain drain(m_stream);
  const bool hasValues = in.v.data != nullptr;
  const Index valueDim = hasValues ? in.v.cols : 0;
  if (valueDim > kLargestValueDim) {
    throw Error(ErrorCode::Unsupported,
                fmt::format("cuda: values of dimension {} are above {}; use the CPU", valueDim, kLargestValueDim));
  }
  AttendResult result;
  result.out.assign(rows.size() * at(valueDim), 0.0F);
  result.lse.assign(rows.size(), kNan);
  result.count.assign(rows.size(), 0);
  // Padding rows keep what was just assigned; the device sees the others.
  std::vector<Index> listed;
  for (Index i = 0; i < static_cast<Index>(rows.size()); ++i) {
    if (!detail::isPaddingRow(in, rows[at(i)])) listed.push_back(i);
  }
  if (in.k.rows == 0) {
    for (const Index i : listed) result.lse[at(i)] = -std::numeric_limits<float>::infinity();
    return result;
  }
  if (hasValues && head.v.sizeBytes() == 0) head.v = uploadMatrix(in.v, head.dtype, control, "upload the values");
  const bool keepsAll = detail::keepsAll(keep);
  if (!keepsAll) {
    std::vector<std::int32_t> edges;
    edges.reserve(keep.intervals.size() * 2);
    for (const Interval& interval : keep.intervals) {
      edges.push_back(static_cast<std::int32_t>(interval.first));
      edges.push_back(static_cast<std::int32_t>(interval.last));
    }
    uploadTable(m_intervals, edges, control, "upload the kept intervals");
  }
  const bool masked = !in.denseMask.empty();
  const Index valueCols = hasValues ? paddedCols(valueDim) : 0;
  const auto count = static_cast<Index>(listed.size());
  const Index perLaunch = std::min(
      rowsPerLaunch(m_limits, count, static_cast<double>(in.k.rows) * static_cast<double>(head.depth + valueCols),
                    valueCols * static_cast<Index>(sizeof(float)) + 64 + (masked ? in.k.rows : 0)),
      std::max<Index>(count, 1));
  m_out.reserve(m_budget, perLaunch * valueCols * static_cast<Index>(sizeof(float)), "attention output");
  m_outLse.reserve(m_budget, perLaunch * static_cast<Index>(sizeof(float)), "attention output");
  m_outCount.reserve(m_budget, perLaunch * static_cast<Index>(sizeof(std::int64_t)), "attention output");
  if (masked) m_maskRows.reserve(m_budget, perLaunch * in.k.rows, "rows of the dense mask");

  for (Index first = 0; first < count; first += perLaunch) {
    control.checkpoint();
    const Index n = std::min(perLaunch, count - first);
    std::vector<std::int32_t> launchRows(at(n));
    std::vector<std::int64_t> keepFirst(at(keepsAll ? 0 : n));
    std::vector<std::int64_t> keepLast(keepFirst.size());
    for (Index i = 0; i < n; ++i) {
      const Index at0 = listed[at(first + i)];
      launchRows[at(i)] = static_cast<std::int32_t>(rows[at(at0)]);
      if (!keepsAll) {
        const Index group = keep.group.empty() ? at0 : keep.group[at(at0)];
        keepFirst[at(i)] = keep.ptr[at(group)];
        keepLast[at(i)] = keep.ptr[at(group + 1)];
      }
      if (masked) {
        m_staging.upload(m_maskRows.as<std::byte>() + i * in.k.rows, in.denseMask.data() + rows[at(at0)] * in.k.rows,
                         in.k.rows, control, "upload rows of the dense mask");
      }
    }
    uploadTable(m_rows, launchRows, control, "upload the row list");
    uploadTable(m_keepFirst, keepFirst, control, "upload the kept intervals");
    uploadTable(m_keepLast, keepLast, control, "upload the kept intervals");
    AttendParams params{};
    params.in = head.operands();
    params.validity = {head.keyFlags(), masked ? m_maskRows.as<const std::uint8_t>() : nullptr, in.k.rows, 0};
    params.v = head.v.as<const void>();
    params.vCols = static_cast<std::int32_t>(valueCols);
    params.keyCount = static_cast<std::int32_t>(in.k.rows);
    params.rows = m_rows.as<const std::int32_t>();
    params.rowCount = static_cast<std::int32_t>(n);
    params.keepFirst = keepsAll ? nullptr : m_keepFirst.as<const std::int64_t>();
    params.keepLast = keepsAll ? nullptr : m_keepLast.as<const std::int64_t>();
    params.intervals = keepsAll ? nullptr : m_intervals.as<const std::int32_t>();
    params.sign = in.scale < 0 ? -1.0F : 1.0F;
    params.exponentScale = static_cast<float>(std::abs(in.scale) * kLog2E);
    params.absScale = std::abs(in.scale);
    params.out = m_out.as<float>();
    params.lse = m_outLse.as<float>();
    params.count = m_outCount.as<std::int64_t>();
    check(launchAttend(head.dtype, valueDim, params, m_stream.get()), "attend");

    std::vector<float> out(at(n * valueCols));
    std::vector<float> lse(at(n));
    std::vector<std::int64_t> kept(at(n));
    download(out, m_out.as<void>(), "read the attention output");
    download(lse, m_outLse.as<void>(), "read the attention output");
    download(kept, m_outCount.as<void>(), "read the attention output");
    m_stream.wait("attend");
    for (Index i = 0; i < n; ++i) {
      const Index to = listed[at(first + i)];
      result.lse[at(to)] = lse[at(i)];
      result.count[at(to)] = kept[at(i)];
      if (hasValues) std::copy_n(out.begin() + i * valueCols, valueDim, result.out.begin() + to * valueDim);
    }
    control.report(static_cast<double>(first + n) / static_cast<double>(count));
  }
  return result;
}

}  // namespace
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

}  // namespace sparsight

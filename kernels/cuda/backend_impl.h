// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checks.h"
#include "cuda/device_memory.h"
#include "cuda/kernels.h"
#include "cuda/uploader.h"
#include "cuda/work_plan.h"
#include "key_order.h"
#include "sparsight/kernels/backend.h"

namespace sparsight::cuda {

inline constexpr int kDevice = 0;
inline constexpr int kOldestCapability = 75;
inline constexpr int kMmaCapability = 80;
inline constexpr int kHopperCapability = 90;
inline constexpr Index kLargestHeadDim = 256;
inline constexpr Index kLargestValueDim = 256;
/// Positions are 32-bit on the device, with room for one tile behind the last.
inline constexpr Index kMostTokens = (Index{1} << 31) - 256;
inline constexpr double kLog2E = 1.4426950408889634074;
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
/// A batch below this is not worth another try.
inline constexpr Index kLeastScratchBytes = Index{64} << 10;

inline std::size_t at(Index i) { return static_cast<std::size_t>(i); }
/// What q.k is multiplied with so that the order of scores is that of logits; 0: all logits are equal.
inline float rankingSign(double scale) { return scale < 0 ? -1.0F : scale > 0 ? 1.0F : 0.0F; }
template <class T>
Index bytesOf(const std::vector<T>& values) {
  return static_cast<Index>(values.size() * sizeof(T));
}

/// The path of a backend, and why it is not Path::Hopper on a device of compute capability 9.0 (empty elsewhere, and
/// where the path was forced).
struct PathChoice {
  Path path = Path::Portable;
  std::string hopperOff;
};
/// SPARSIGHT_CUDA_PATH: "" or "auto" is the best the device has, "portable", "mma" or "hopper" forces one.
/// whyNotHopper: empty or the reason, asked only where the capability is 9.0. Throws Error{InvalidArgument} for another
/// word, and when the device lacks what is forced: nobody who forces a path wants the CPU instead.
[[nodiscard]] PathChoice choosePath(const char* wanted, int capability, std::string (*whyNotHopper)());
/// Share of the free device memory that the backends of the process may use: SPARSIGHT_CUDA_MEMORY as "60%" or in MiB,
/// e.g. "4096"; "" is 80 %. Throws Error{InvalidArgument}.
[[nodiscard]] Index budgetOf(const char* wanted, Index freeBytes);

class CudaHead final : public PreparedHead {
 public:
  CudaHead(const AttentionIn& in, std::shared_ptr<const void> keepAlive);
  /// The keys of another CudaHead in another order; CudaBackend fills k and v from it.
  explicit CudaHead(const std::shared_ptr<const detail::KeyOrder>& keyOrder);
  ~CudaHead() override {
    if (upload) upload->cancel();
  }
  CudaHead(const CudaHead&) = delete;
  CudaHead& operator=(const CudaHead&) = delete;

  [[nodiscard]] Index bytes() const noexcept override {
    return q.sizeBytes() + k.sizeBytes() + v.sizeBytes() + keyValid.sizeBytes() + queryValid.sizeBytes();
  }
  [[nodiscard]] const std::uint8_t* keyFlags() const { return keyValid.as<const std::uint8_t>(); }
  [[nodiscard]] const std::uint8_t* queryFlags() const { return source().queryValid.as<const std::uint8_t>(); }
  [[nodiscard]] Operands operands() const { return {queries().as<const void>(), k.as<const void>(), depth, 1}; }
  /// The head that holds the tensors on the host and the queries on the device: itself, unless its keys were moved.
  [[nodiscard]] const CudaHead& source() const {
    return order == nullptr ? *this : static_cast<const CudaHead&>(*order->source);
  }
  [[nodiscard]] const DeviceBuffer& queries() const { return source().q; }
  [[nodiscard]] bool masked() const { return !source().input().denseMask.empty(); }
  [[nodiscard]] bool hasValues() const { return order == nullptr ? input().v.data != nullptr : order->hasValues(); }
  /// Columns of V on the device, 0 without.
  [[nodiscard]] Index valueCols() const { return hasValues() ? paddedCols(input().v.cols) : 0; }

  /// Space for q, k and the flags, with V for that, too.
  void reserve(const std::shared_ptr<DeviceBudget>& budget, bool withValues);
  /// Fills it; V where there is space for it.
  void copy(Staging& staging, const Control& control) const;
  void copyValues(Staging& staging, const Control& control) const;

  const detail::KeyOrder* order = nullptr;  ///< null: the keys stand as they came
  DType dtype = DType::F32;                 ///< on the device: the tensors' own, float32 where they differ
  std::int32_t depth = 0;                   ///< padded head dimension
  DeviceBuffer q, k;
  DeviceBuffer keyValid, queryValid;
  DeviceBuffer v;  ///< empty until an operation first needs it
  /// Set while the copies may be under way; afterwards `missing` says whether they must be made again.
  std::shared_ptr<Uploader::Upload> upload;
  bool missing = false;  ///< nothing lies on the device yet
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
  explicit CudaBackend(const LaunchLimits& limits = {});
  ~CudaBackend() override;
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  [[nodiscard]] BackendInfo info() const override;
  [[nodiscard]] bool supports(Op op, DType dtype, Index headDim) const noexcept override;
  [[nodiscard]] std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in,
                                                            std::shared_ptr<const void> keepAlive,
                                                            const Control& control) override;
  [[nodiscard]] std::shared_ptr<const PreparedHead> prepareAhead(const AttentionIn& in,
                                                                 std::shared_ptr<const void> keepAlive) override;
  [[nodiscard]] std::shared_ptr<const PreparedHead> permuteKeys(const PreparedHead& prepared,
                                                                const PermuteRequest& request,
                                                                const Control& control) override;
  [[nodiscard]] Index headsAtOnce(Index headBytes) const noexcept override;
  [[nodiscard]] LseMapResult lseMap(const PreparedHead& prepared, const LseMapRequest& request,
                                    const Control& control) override;
  [[nodiscard]] std::vector<float> tile(const PreparedHead& prepared, std::span<const float> rowLse,
                                        const TileRect& rect, Reduce reduce, const Control& control) override;
  [[nodiscard]] AttendResult attend(const PreparedHead& prepared, std::span<const Index> rows, const RowKeep& keep,
                                    const Control& control) override;
  [[nodiscard]] AttendResult attendTop(const PreparedHead& prepared, std::span<const Index> rows,
                                       std::span<const Index> counts, const Control& control) override;
  [[nodiscard]] RowStats rowStats(const PreparedHead& prepared, std::span<const Index> rows, double mass,
                                  const Control& control) override;
  [[nodiscard]] GlobalTop globalTop(const PreparedHead& prepared, std::span<const Index> rows, Index total,
                                    const Control& control) override;
  [[nodiscard]] ClusterResult cluster(const PreparedHead& prepared, const ClusterRequest& request,
                                      const Control& control) override;
  [[nodiscard]] std::vector<ClusterResult> clusterAll(std::span<const ClusterTask> tasks,
                                                      const Control& control) override;
  [[nodiscard]] ClusterScores scoreClusters(const ClusterScoresRequest& request, const Control& control) override;
  [[nodiscard]] std::vector<std::uint8_t> selectLargest(const SelectRequest& request, const Control& control) override;
  [[nodiscard]] std::vector<std::string> takeFallbacks() override { return std::exchange(m_notes, {}); }

  [[nodiscard]] Path path() const noexcept { return m_path; }
  /// From the first to the last kernel of the last operation, by the device's clock; 0: none ran.
  [[nodiscard]] double deviceSeconds() const noexcept { return m_timer.seconds; }

 private:
  /// Device buffers that stay between operations and only grow.
  struct Scratch {
    DeviceBuffer partMax, partSum, partCount, maskRows;
    DeviceBuffer lse, cellSum, cellMax, cellCount;
    DeviceBuffer subBounds, subPtr, splitPtr, subValid, rowBounds;
    DeviceBuffer rows, keepFirst, keepLast, intervals, out, outLse, outCount;
    DeviceBuffer scores, counts, cut, lastTie, threshold;
    DeviceBuffer entropy, top1, rowMax, rowLog2Sum, rowPairs, rowAbove, rowEqual, histogram;
    DeviceBuffer centres, centreProfiles, centreSquares, basis, basisRows, parts, profiles, pointSquares;
    DeviceBuffer labels, nearest, segments, members, memberFirst, means;
    DeviceBuffer keyOrder, queryCentres, weights, probabilities, ranking, crossing, kept, excluded;
  };
  struct Timer {
    cudaEvent_t first = nullptr, last = nullptr;
    bool running = false;
    double seconds = 0;
  };
  /// Rows of an operation that are no padding, and how they are cut into panels.
  struct RowList {
    std::span<const Index> rows;
    std::vector<Index> listed;  ///< places in `rows`
    Index perLaunch = 0;
    [[nodiscard]] Index count() const { return static_cast<Index>(listed.size()); }
  };
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

  static const CudaHead& cast(const PreparedHead& head);
  /// The head as operations use it: its data is on the device before anything that they launch.
  const CudaHead& arrived(const PreparedHead& head, const Control& control);
  /// The same with V.
  const CudaHead& arrivedWithValues(const PreparedHead& head, const Control& control);
  /// Puts the keys of `head` in order on the device, and its values: both that lie there already (the first time), or
  /// the values alone (later).
  void moveKeys(CudaHead& head, const Control& control);
  void moveValues(CudaHead& head, const Control& control);
  /// Rows of `from` in the order of scratch keyOrder.
  void gatherRows(const DeviceBuffer& from, const DeviceBuffer& to, Index rows, Index rowBytes, const Control& control,
                  double done, double share);
  void uploadOrder(const CudaHead& head, const Control& control);
  /// Rows of the dense mask, keys [key0, key0 + keys) as the head orders them, side by side on the device.
  void uploadMask(const CudaHead& head, void* to, Index row0, Index rows, Index key0, Index keys,
                  const Control& control);
  /// Makes room for a head by giving up scratch, and copies it.
  void uploadNow(CudaHead& head, bool withValues, const Control& control);
  // Every operation may come from another thread than the last, and the current device is a thread's.
  void start();
  void beginTiming();
  void endTiming();
  void readTimer();

  /// Runs an operation with its limits; where device memory runs out, again with half the batch.
  template <class Call>
  auto withSmallerBatches(Op op, const Call& call) {
    for (LaunchLimits limits = m_limits;;) {
      try {
        auto result = call(limits);
        if (limits.scratchBytes < m_limits.scratchBytes) noteSmallerBatch(op, limits.scratchBytes);
        readTimer();
        return result;
      } catch (const Error& e) {
        if (e.code() != ErrorCode::OutOfMemory || limits.scratchBytes / 2 < kLeastScratchBytes) throw;
      }
      m_scratch = {};  // other buffers than the one that did not fit may have grown for earlier calls
      limits.scratchBytes /= 2;
    }
  }
  void noteSmallerBatch(Op op, Index bytes);

  template <class T>
  void uploadTable(DeviceBuffer& buffer, const std::vector<T>& values, const Control& control, const char* what) {
    buffer.reserve(m_budget, bytesOf(values), what);
    if (!values.empty()) m_staging.upload(buffer.as<void>(), values.data(), bytesOf(values), control, what);
  }
  template <class T>
  void download(std::vector<T>& out, const void* from, const char* what) {
    downloadTo(out.data(), static_cast<const T*>(from), static_cast<Index>(out.size()), what);
  }
  template <class T>
  void downloadTo(T* out, const T* from, Index count, const char* what) {
    if (count == 0) return;
    check(cudaMemcpyAsync(out, from, at(count) * sizeof(T), cudaMemcpyDeviceToHost, m_stream.get()), what);
  }
  template <class T>
  void reserve(DeviceBuffer& buffer, Index count, const char* what) {
    buffer.reserve(m_budget, count * static_cast<Index>(sizeof(T)), what);
  }
  void clear(const DeviceBuffer& buffer, Index bytes, const char* what) {
    if (bytes > 0) check(cudaMemsetAsync(buffer.as<void>(), 0, at(bytes), m_stream.get()), what);
  }
  // At most two launches in flight: the GPU never idles, and a stop waits for little.
  void paceLaunches(Index launch, const char* what);

  /// Pools rows [region.first, region.last) over the given partitions; empty rowBounds: LSE only. givenLse: [Nq],
  /// empty: computed. Every row of the region lies in rowBounds.
  [[nodiscard]] Pooled pool(const LaunchLimits& limits, const CudaHead& head, Interval region,
                            std::span<const Index> rowBounds, std::span<const Index> colBounds,
                            std::span<const float> givenLse, const Control& control);

  [[nodiscard]] static RowList listRows(const AttentionIn& in, std::span<const Index> rows);
  /// Puts n listed rows from `first` and their rows of the dense mask on the device.
  void uploadRows(const CudaHead& head, const RowList& list, Index first, Index n, const Control& control);
  [[nodiscard]] Validity validityOf(const CudaHead& head) const;
  /// Scores of the n rows that uploadRows() put there, and where they lie.
  [[nodiscard]] RowPanel makeScores(const CudaHead& head, Index n, const char* what);
  [[nodiscard]] static Index scoreStride(Index keys) { return (keys + kTileKeys - 1) / kTileKeys * kTileKeys; }
  /// Calls body(first, n, panel) for every panel of scores, with progress from `done` to done + share.
  template <class Body>
  void forScorePanels(const CudaHead& head, const RowList& list, const char* what, double done, double share,
                      const Control& control, const Body& body);

  struct ClusterWork;
  /// One round of all these heads, which go together.
  void clusterBatch(const LaunchLimits& limits, std::span<ClusterWork> works, const Control& control);

  /// One launch of attention over the rows that uploadRows() put there, results to the host.
  void attendPanel(const CudaHead& head, const RowList& list, Index first, Index n, const AttendParams& keep,
                   AttendResult& result);
  [[nodiscard]] static AttendResult emptyAttend(const CudaHead& head, std::size_t rows);
  void reserveAttend(const CudaHead& head, Index perLaunch);
  /// True when attention over intervals of this head runs on Hopper kernels.
  [[nodiscard]] bool attendsOnHopper(const CudaHead& head) const;
  /// What padding keys have for values becomes zeros on the device, where Hopper kernels would read it.
  void clearPaddingValues(const CudaHead& head);

  LaunchLimits m_limits;
  // First: the check of the Hopper kernels may reset the device.
  cudaDeviceProp m_device{};
  PathChoice m_choice;
  Path m_path = Path::Portable;
  std::shared_ptr<DeviceBudget> m_budget;
  Stream m_stream;
  Staging m_staging;
  std::array<cudaEvent_t, 2> m_inFlight{};
  Timer m_timer;
  Scratch m_scratch;
  std::vector<std::string> m_notes;
  Uploader m_uploader;
};

template <class Body>
void CudaBackend::forScorePanels(const CudaHead& head, const RowList& list, const char* what, double done, double share,
                                 const Control& control, const Body& body) {
  Index launch = 0;
  for (Index first = 0; first < list.count(); first += list.perLaunch, ++launch) {
    control.checkpoint();
    const Index n = std::min(list.perLaunch, list.count() - first);
    uploadRows(head, list, first, n, control);
    body(first, n, makeScores(head, n, what));
    paceLaunches(launch, what);
    control.report(done + share * static_cast<double>(first + n) / static_cast<double>(list.count()));
  }
}

}  // namespace sparsight::cuda

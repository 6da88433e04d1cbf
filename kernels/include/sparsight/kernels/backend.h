// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/kernels/error.h"
#include "sparsight/kernels/executor.h"
#include "sparsight/kernels/types.h"

namespace sparsight {

/// One head's tensors, borrowed. Scores are scale * q k^T; softmax is over the valid keys of a row.
struct AttentionIn {
  MatrixView q;  ///< [Nq, D]
  MatrixView k;  ///< [Nk, D]
  MatrixView v;  ///< [Nk, Dv]; data == nullptr: not captured
  double scale = 1.0;
  std::span<const std::uint8_t> keyValid;    ///< [Nk], 0 = padding; empty = all valid
  std::span<const std::uint8_t> queryValid;  ///< [Nq], 0 = padding row; empty = all valid
  std::span<const std::uint8_t> denseMask;   ///< [Nq * Nk] row-major, 0 = masked; empty = none
};

/// A head made ready for one backend (packed, converted or uploaded once, used by many operations).
/// Immutable, and always owned by a shared pointer. A CPU head may be used from several threads; a CUDA head only by
/// its backend's thread.
class PreparedHead : public std::enable_shared_from_this<PreparedHead> {
 public:
  PreparedHead(const PreparedHead&) = delete;
  PreparedHead& operator=(const PreparedHead&) = delete;
  virtual ~PreparedHead() = default;
  /// What the head was prepared from, every tensor in the order that operations see. See holdsTensors().
  [[nodiscard]] const AttentionIn& input() const noexcept { return m_input; }
  /// False for a head of Backend::permuteKeys that was put into order on a device: input() then has the scale, the
  /// queries, all shapes and all flags in the new order, but no data of k and v and no dense mask. Nothing on the host
  /// has these in the new order, and nobody shall read them in the old one.
  [[nodiscard]] bool holdsTensors() const noexcept { return m_input.k.rows == 0 || m_input.k.data != nullptr; }
  [[nodiscard]] virtual Index bytes() const noexcept = 0;  ///< memory beyond the input

 protected:
  PreparedHead(const AttentionIn& input, std::shared_ptr<const void> keepAlive)
      : m_input(input), m_keepAlive(std::move(keepAlive)) {}

 private:
  AttentionIn m_input;
  std::shared_ptr<const void> m_keepAlive;
};

enum class Reduce : std::uint8_t { Mean, Max };

/// Pooled exact probabilities over a partition of rows and columns (edges non-decreasing, first 0, last Nq / Nk;
/// empty spans: LSE only). Zero-length blocks are legal.
struct LseMapRequest {
  std::span<const Index> rowBounds;
  std::span<const Index> colBounds;
  bool wantMean = true;
  bool wantMax = true;
  std::span<const float> rowLse = {};  ///< [Nq]; not empty: p = exp(scale q.k - it), not the row's own LSE
};
struct LseMapResult {
  std::vector<float> lse;   ///< [Nq] natural-log row LSE; -inf: no valid key; NaN: padding row; as given if it was
  std::vector<float> mean;  ///< [R, C] mean p over valid pairs; NaN: no valid pair
  std::vector<float> max;   ///< [R, C] max p over valid pairs; NaN: no valid pair
};

/// A region of the N x N map. Cell i of R rows in H cells covers [floor(i R / H), floor((i + 1) R / H)) of the region.
struct TileRect {
  Index row0 = 0, row1 = 0;  ///< query rows [row0, row1)
  Index col0 = 0, col1 = 0;  ///< keys [col0, col1)
  Index cellRows = 0, cellCols = 0;
};

/// The kept keys of listed query rows: row i of the list keeps intervals[ptr[g] .. ptr[g+1]) with g = group[i].
/// Intervals are sorted, disjoint, non-empty, in key positions of AttentionIn::k. group empty: row i has group i.
struct RowKeep {
  std::span<const Index> ptr;
  std::span<const Interval> intervals;
  std::span<const Index> group;
};

/// Attention of the listed rows over their kept and valid keys, renormalised over them.
struct AttendResult {
  std::vector<float> out;        ///< [n, Dv]; zeros for a row without a kept key; empty without V
  std::vector<float> lse;        ///< [n] natural log over the kept keys; -inf: none; NaN: padding row
  std::vector<Index> count;      ///< [n] kept and valid keys
  std::vector<float> threshold;  ///< [n] only attendTop: smallest kept probability (full softmax); +inf: none kept
};

/// Row statistics of the exact softmax. A row without a valid key has LSE -inf and a padding row NaN; both have entropy
/// and top1 NaN and 0 keys.
struct RowStats {
  std::vector<float> lse;          ///< [n]
  std::vector<float> entropyBits;  ///< [n]
  std::vector<float> top1;         ///< [n] largest p
  std::vector<Index> keysForMass;  ///< [n] smallest number of keys whose mass reaches `mass` x the row's total
};

/// The `total` largest probabilities over all listed rows (ties: lowest row in list order, then lowest key).
struct GlobalTop {
  float threshold = 0;       ///< smallest kept probability; +inf: none kept
  std::vector<Index> count;  ///< [n] how many of each row are kept
};

enum class Side : std::uint8_t { Query, Key };
enum class Distance : std::uint8_t { Euclid, Cosine, Dot };

/// One round of Lloyd's iteration: every point goes to its nearest centroid, then the members' means are taken.
struct ClusterRequest {
  Side side = Side::Key;
  Index first = 0, count = 0;        ///< the points: rows [first, first + count) of q or k, padding or not
  std::span<const float> centroids;  ///< [K, D], K >= 1
  Distance distance = Distance::Euclid;
  /// [M, D]; not empty: points and centroids are compared by the cosine of their profiles x basis^T (`distance` must be
  /// Cosine): SVOO's co-clustering.
  std::span<const float> basis = {};
};
struct ClusterResult {
  std::vector<std::int32_t> labels;  ///< [count]; ties go to the lowest centroid
  std::vector<float> nearest;        ///< [count] squared distance, at least 0 (Euclid), else the similarity
  std::vector<Index> sizes;          ///< [K]
  std::vector<float> means;          ///< [K, D] of the members; a centroid without members stays as it was
};

/// The keys of a head in another order.
struct PermuteRequest {
  std::span<const Index> order;  ///< [Nk] a permutation: key i of the result is key order[i] of the head
  bool withValues = true;        ///< false: the result has no V, for operations that need none
};

/// One head's part of Backend::clusterAll.
struct ClusterTask {
  const PreparedHead* head = nullptr;
  ClusterRequest request;
};

/// Which key clusters each query cluster attends to, by their centroids (SVG2's and SVOO's identify_dynamic_map).
struct ClusterScoresRequest {
  Index dim = 0;                        ///< at least 1
  std::span<const float> queries;       ///< [Kq, dim] centroids
  std::span<const float> keys;          ///< [Kk, dim] centroids, Kk >= 1
  std::span<const Index> weights = {};  ///< [Kk] tokens of each key cluster; empty: 1 each
  double scale = 1.0;
  double topP = 1.0;
};
/// P[i, j] = weight[j] exp(scale q_i.k_j - the row's largest) over the row's sum of these (over 1e-12 at least).
struct ClusterScores {
  std::vector<double> probabilities;  ///< [Kq, Kk]
  std::vector<std::int32_t> order;    ///< [Kq, Kk] key clusters by falling P; ties: lowest number first
  std::vector<Index> crossing;  ///< [Kq] how many of them, in this order, until their sum is above topP, at least 1
};

/// The largest values of each row of a map (AdaSpa's choice of blocks).
struct SelectRequest {
  Index columns = 0;                            ///< at least 1
  std::span<const double> values;               ///< [rows, columns], none negative
  std::span<const Index> counts;                ///< [rows] how many to keep; more than there are: all
  std::span<const std::uint8_t> excluded = {};  ///< [columns] 1: never kept; empty: none
};

enum class Op : std::uint8_t {
  LseMap,
  Tile,
  Attend,
  AttendTop,
  RowStats,
  GlobalTop,
  Cluster,
  PermuteKeys,
  ScoreClusters,
  SelectLargest
};
[[nodiscard]] std::string_view opName(Op op) noexcept;

struct BackendInfo {
  std::string id;          ///< "cpu" or "cuda"
  std::string deviceName;  ///< for the status bar, e.g. "AMD EPYC ... AVX2" or "NVIDIA H200"
  std::string detail;      ///< instruction set or compute capability, threads, memory
  Index freeBytes = 0;     ///< 0 = unknown
};

/// The few operations that every method is composed of. Synchronous; thread-confined unless stated otherwise.
/// Every operation throws Cancelled on stop (polled at least every 50 ms), Error{Device} on a device fault,
/// Error{InvalidArgument} on shapes that do not fit. Results do not depend on the thread count.
class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual BackendInfo info() const = 0;
  [[nodiscard]] virtual bool supports(Op op, DType dtype, Index headDim) const noexcept = 0;

  /// Packs or uploads a head. keepAlive owns what `in` points to.
  [[nodiscard]] virtual std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in,
                                                                    std::shared_ptr<const void> keepAlive,
                                                                    const Control& control) = 0;
  /// As prepare(), but does not wait: the upload goes on beside operations on other heads, the first operation on this
  /// one waits for it and throws what stopped it. Where nothing is uploaded it is prepare().
  [[nodiscard]] virtual std::shared_ptr<const PreparedHead> prepareAhead(const AttentionIn& in,
                                                                         std::shared_ptr<const void> keepAlive);
  /// The head with its keys, their values, their validity and the columns of the dense mask in another order: every
  /// operation gives on it, bit for bit, what it gives on a head prepared from gathered tensors. It keeps `head` alive.
  /// Here the tensors are gathered and prepared; on a device they are moved where they lie.
  /// Throws Error{InvalidArgument} for an order that is no permutation of the keys.
  [[nodiscard]] virtual std::shared_ptr<const PreparedHead> permuteKeys(const PreparedHead& head,
                                                                        const PermuteRequest& request,
                                                                        const Control& control);
  /// How many heads of `headBytes` (their tensors) are worth having at once: 1 where neither prepareAhead nor
  /// clusterAll gains anything.
  [[nodiscard]] virtual Index headsAtOnce(Index) const noexcept { return 1; }
  [[nodiscard]] virtual LseMapResult lseMap(const PreparedHead& head, const LseMapRequest& request,
                                            const Control& control) = 0;
  /// Pooled p = exp(scale q.k - lse[row]) of a region, float32 [cellRows, cellCols]; NaN: no valid pair in the cell.
  /// `rowLse` is [Nq] as from lseMap.
  [[nodiscard]] virtual std::vector<float> tile(const PreparedHead& head, std::span<const float> rowLse,
                                                const TileRect& rect, Reduce reduce, const Control& control) = 0;
  /// keep without intervals and ptr empty: all valid keys (dense attention).
  [[nodiscard]] virtual AttendResult attend(const PreparedHead& head, std::span<const Index> rows, const RowKeep& keep,
                                            const Control& control) = 0;
  /// Keeps the counts[i] most probable valid keys of rows[i]; ties go to the lowest key.
  [[nodiscard]] virtual AttendResult attendTop(const PreparedHead& head, std::span<const Index> rows,
                                               std::span<const Index> counts, const Control& control) = 0;
  [[nodiscard]] virtual RowStats rowStats(const PreparedHead& head, std::span<const Index> rows, double mass,
                                          const Control& control) = 0;
  [[nodiscard]] virtual GlobalTop globalTop(const PreparedHead& head, std::span<const Index> rows, Index total,
                                            const Control& control) = 0;

  /// Sums in double, in the order of the points. Norms that profiles and cosines are divided by are
  /// sqrt(|x|^2 + 1e-8), as in SVOO's l2norm.
  [[nodiscard]] virtual ClusterResult cluster(const PreparedHead& head, const ClusterRequest& request,
                                              const Control& control) = 0;

  /// cluster() of every task, with the same bits: on a GPU the heads share launches, as one alone is over before the
  /// next is started. Here they follow one another.
  [[nodiscard]] virtual std::vector<ClusterResult> clusterAll(std::span<const ClusterTask> tasks,
                                                              const Control& control);

  /// In double with one order of every sum and one exponential: the bits are the same on every backend and for every
  /// thread count, so that plans are, too. Needs no head.
  [[nodiscard]] virtual ClusterScores scoreClusters(const ClusterScoresRequest& request, const Control& control);

  /// 1 where a value is among the largest of its row, [rows, columns]; ties go to the lowest column. Exact: the same on
  /// every backend and for every thread count. Needs no head.
  [[nodiscard]] virtual std::vector<std::uint8_t> selectLargest(const SelectRequest& request, const Control& control);

  /// Operations that did not run where asked since the last call, e.g. "attend: cuda -> cpu (unsupported)".
  [[nodiscard]] virtual std::vector<std::string> takeFallbacks() { return {}; }
};

struct BackendEntry {
  std::string_view id;
  bool (*probe)(std::string& why) noexcept;  ///< false: cannot run here; `why` says it in one line
  std::unique_ptr<Backend> (*create)(Executor& executor);
};
/// Compiled-in backends in order of preference; the CPU is always last.
[[nodiscard]] std::span<const BackendEntry> compiledBackends();

/// id = "auto", "cpu" or "cuda" (SPARSIGHT_BACKEND overrides auto). A CUDA backend comes wrapped: operations that it
/// lacks, and jobs that a device error broke, run on the CPU and are named by takeFallbacks().
/// Throws Error{Device} when an explicitly asked backend cannot run, saying why.
[[nodiscard]] std::unique_ptr<Backend> createBackend(std::string_view id, Executor& executor);

/// The double-precision oracle, scalar and readable; for tests, goldens and --verify. Ignores speed.
[[nodiscard]] std::unique_ptr<Backend> createReferenceBackend();

/// Owned float-exact copy of rows in a new order: out.row(i) = in.row(order[i]). Same dtype, contiguous.
struct OwnedMatrix {
  std::vector<std::byte> storage;
  MatrixView view;
};
[[nodiscard]] OwnedMatrix gatherRows(const MatrixView& in, std::span<const Index> order);

}  // namespace sparsight

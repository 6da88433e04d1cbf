// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sparsight/kernels/backend.h"

namespace sparsight {

/// A device backend backed by the CPU, so that every operation has a result and none changes places in silence:
/// - an operation that the primary does not support, or whose shape it refuses as unsupported, runs on the CPU;
/// - Error{OutOfMemory} of the primary: that call runs on the CPU, the next one tries the primary again;
/// - Error{Device}: the primary is retired for good and the call is run again on the CPU.
/// Each case is named by takeFallbacks(). Cancelled and every other error pass through: they would recur on the CPU.
///
/// Heads are prepared for a side when an operation first runs there. They may be used with any FallbackBackend (each
/// lane has its own) and from several threads; the backend itself is confined to one thread at a time.
class FallbackBackend final : public Backend {
 public:
  FallbackBackend(std::unique_ptr<Backend> primary, std::unique_ptr<Backend> cpu);
  ~FallbackBackend() override;

  /// The primary's, until it is retired; then the CPU's, with the reason.
  [[nodiscard]] BackendInfo info() const override;
  [[nodiscard]] bool supports(Op op, DType dtype, Index headDim) const noexcept override;
  [[nodiscard]] std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in,
                                                            std::shared_ptr<const void> keepAlive,
                                                            const Control& control) override;
  /// On its way to the primary at once; what fails there is left to the first operation.
  [[nodiscard]] std::shared_ptr<const PreparedHead> prepareAhead(const AttentionIn& in,
                                                                 std::shared_ptr<const void> keepAlive) override;
  /// On the primary at once. What fails there is named, and left to the first operation: on the CPU the tensors are
  /// gathered when one runs there, once.
  [[nodiscard]] std::shared_ptr<const PreparedHead> permuteKeys(const PreparedHead& head, const PermuteRequest& request,
                                                                const Control& control) override;
  [[nodiscard]] Index headsAtOnce(Index headBytes) const noexcept override {
    return m_primary ? m_primary->headsAtOnce(headBytes) : m_cpu->headsAtOnce(headBytes);
  }
  [[nodiscard]] LseMapResult lseMap(const PreparedHead& head, const LseMapRequest& request,
                                    const Control& control) override;
  [[nodiscard]] std::vector<float> tile(const PreparedHead& head, std::span<const float> rowLse, const TileRect& rect,
                                        Reduce reduce, const Control& control) override;
  [[nodiscard]] AttendResult attend(const PreparedHead& head, std::span<const Index> rows, const RowKeep& keep,
                                    const Control& control) override;
  [[nodiscard]] AttendResult attendTop(const PreparedHead& head, std::span<const Index> rows,
                                       std::span<const Index> counts, const Control& control) override;
  [[nodiscard]] RowStats rowStats(const PreparedHead& head, std::span<const Index> rows, double mass,
                                  const Control& control) override;
  [[nodiscard]] GlobalTop globalTop(const PreparedHead& head, std::span<const Index> rows, Index total,
                                    const Control& control) override;
  [[nodiscard]] ClusterResult cluster(const PreparedHead& head, const ClusterRequest& request,
                                      const Control& control) override;
  /// Together on the primary; what stops that (its memory, a fault) leaves the tasks to cluster(), one by one.
  [[nodiscard]] std::vector<ClusterResult> clusterAll(std::span<const ClusterTask> tasks,
                                                      const Control& control) override;
  [[nodiscard]] ClusterScores scoreClusters(const ClusterScoresRequest& request, const Control& control) override;
  [[nodiscard]] std::vector<std::uint8_t> selectLargest(const SelectRequest& request, const Control& control) override;
  /// Distinct lines in the order of their first occurrence.
  [[nodiscard]] std::vector<std::string> takeFallbacks() override;

 private:
  class Head;
  /// Runs `call` on the primary; false: it is the CPU's turn, and why is noted. q: type and width of what it is about;
  /// head: its memory there is given back on a fault; may be null.
  template <class Call>
  bool ranOnPrimary(Op op, const MatrixView& q, const Head* head, const Call& call);
  /// An operation without a head, of rows of `width` numbers.
  template <class Call>
  auto runWithoutHead(Op op, Index width, const Call& call);
  template <class Call>
  auto run(Op op, const PreparedHead& prepared, const Control& control, const Call& call);
  [[nodiscard]] static const Head& cast(const PreparedHead& prepared);
  void note(Op op, const std::string& why);
  void retire(const std::string& why);
  void takeNotes();

  std::unique_ptr<Backend> m_primary;  ///< null once retired
  std::unique_ptr<Backend> m_cpu;
  std::string m_primaryId;
  std::string m_retiredWhy;
  std::uint64_t m_serial;  ///< tells the primaries of different wrappers apart in a head
  std::vector<std::string> m_fallbacks;
};

}  // namespace sparsight

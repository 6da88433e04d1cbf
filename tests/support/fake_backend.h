// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sparsight/kernels/backend.h"

namespace sparsight {

/// A backend with the oracle's results that misbehaves as told: throws, is slow, lacks operations.
class FakeBackend final : public Backend {
 public:
  /// Shared with the test, which outlives the backend it hands over.
  struct Script {
    std::string id = "fake";
    std::set<Op> unsupported;
    std::optional<ErrorCode> failNext;     ///< thrown once by the next operation
    std::optional<ErrorCode> failPrepare;  ///< thrown once by the next prepare
    bool cancelNext = false;               ///< the next operation throws Cancelled
    std::chrono::milliseconds delay{0};    ///< of every operation, in steps of 1 ms that poll for a stop
    int prepared = 0, calls = 0, liveHeads = 0;
    bool alive = false;
  };
  explicit FakeBackend(Script& script);
  ~FakeBackend() override;

  [[nodiscard]] BackendInfo info() const override;
  [[nodiscard]] bool supports(Op op, DType dtype, Index headDim) const noexcept override;
  [[nodiscard]] std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in,
                                                            std::shared_ptr<const void> keepAlive,
                                                            const Control& control) override;
  [[nodiscard]] std::shared_ptr<const PreparedHead> permuteKeys(const PreparedHead& head, const PermuteRequest& request,
                                                                const Control& control) override;
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
  [[nodiscard]] ClusterScores scoreClusters(const ClusterScoresRequest& request, const Control& control) override;
  [[nodiscard]] std::vector<std::uint8_t> selectLargest(const SelectRequest& request, const Control& control) override;

 private:
  class Head;
  void misbehave(const Control& control);
  const PreparedHead& begin(const PreparedHead& head, const Control& control);

  Script& m_script;
  std::unique_ptr<Backend> m_oracle;
};

}  // namespace sparsight

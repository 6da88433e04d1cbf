// SPDX-License-Identifier: Apache-2.0
#include "cpu/cpu_backend.h"

namespace sparsight {
namespace {

/// The oracle's arithmetic under the CPU's name.
class CpuBackend final : public Backend {
 public:
  [[nodiscard]] BackendInfo info() const override { return {"cpu", "CPU", "scalar, double precision", 0}; }
  [[nodiscard]] bool supports(Op op, DType dtype, Index headDim) const noexcept override {
    return m_inner->supports(op, dtype, headDim);
  }
  std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in, std::shared_ptr<const void> keepAlive,
                                              const Control& control) override {
    return m_inner->prepare(in, std::move(keepAlive), control);
  }
  LseMapResult lseMap(const PreparedHead& head, const LseMapRequest& request, const Control& control) override {
    return m_inner->lseMap(head, request, control);
  }
  std::vector<float> tile(const PreparedHead& head, std::span<const float> rowLse, const TileRect& rect, Reduce reduce,
                          const Control& control) override {
    return m_inner->tile(head, rowLse, rect, reduce, control);
  }
  AttendResult attend(const PreparedHead& head, std::span<const Index> rows, const RowKeep& keep,
                      const Control& control) override {
    return m_inner->attend(head, rows, keep, control);
  }
  AttendResult attendTop(const PreparedHead& head, std::span<const Index> rows, std::span<const Index> counts,
                         const Control& control) override {
    return m_inner->attendTop(head, rows, counts, control);
  }
  RowStats rowStats(const PreparedHead& head, std::span<const Index> rows, double mass,
                    const Control& control) override {
    return m_inner->rowStats(head, rows, mass, control);
  }
  GlobalTop globalTop(const PreparedHead& head, std::span<const Index> rows, Index total,
                      const Control& control) override {
    return m_inner->globalTop(head, rows, total, control);
  }

 private:
  std::unique_ptr<Backend> m_inner = createReferenceBackend();
};

}  // namespace

std::unique_ptr<Backend> createCpuBackend(Executor&) { return std::make_unique<CpuBackend>(); }

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_backend.h"

#include <thread>
#include <utility>

namespace sparsight {

class FakeBackend::Head final : public PreparedHead {
 public:
  Head(const AttentionIn& in, std::shared_ptr<const void> keepAlive, std::shared_ptr<const PreparedHead> oracle,
       Script& script)
      : PreparedHead(in, std::move(keepAlive)), m_oracle(std::move(oracle)), m_script(script) {
    ++m_script.liveHeads;
  }
  ~Head() override { --m_script.liveHeads; }
  [[nodiscard]] Index bytes() const noexcept override { return 1000; }
  [[nodiscard]] const PreparedHead& oracle() const { return *m_oracle; }

 private:
  std::shared_ptr<const PreparedHead> m_oracle;
  Script& m_script;
};

FakeBackend::FakeBackend(Script& script) : m_script(script), m_oracle(createReferenceBackend()) {
  m_script.alive = true;
}
FakeBackend::~FakeBackend() { m_script.alive = false; }

BackendInfo FakeBackend::info() const { return {m_script.id, "Fake device", "for tests", 0}; }

bool FakeBackend::supports(Op op, DType, Index) const noexcept { return m_script.unsupported.count(op) == 0; }

std::shared_ptr<const PreparedHead> FakeBackend::prepare(const AttentionIn& in, std::shared_ptr<const void> keepAlive,
                                                         const Control& control) {
  ++m_script.prepared;
  if (m_script.failPrepare) throw Error(*std::exchange(m_script.failPrepare, std::nullopt), "fake prepare failure");
  return std::make_shared<Head>(in, std::move(keepAlive), m_oracle->prepare(in, nullptr, control), m_script);
}

void FakeBackend::misbehave(const Control& control) {
  ++m_script.calls;
  if (std::exchange(m_script.cancelNext, false)) throw Cancelled{};
  if (m_script.failNext) throw Error(*std::exchange(m_script.failNext, std::nullopt), "fake failure");
  for (auto waited = std::chrono::milliseconds(0); waited < m_script.delay; waited += std::chrono::milliseconds(1)) {
    control.checkpoint();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

const PreparedHead& FakeBackend::begin(const PreparedHead& head, const Control& control) {
  misbehave(control);
  const auto* const mine = dynamic_cast<const Head*>(&head);
  if (mine == nullptr) throw Error(ErrorCode::InvalidArgument, "the head was prepared by another backend");
  return mine->oracle();
}

std::shared_ptr<const PreparedHead> FakeBackend::permuteKeys(const PreparedHead& head, const PermuteRequest& request,
                                                             const Control& control) {
  static_cast<void>(begin(head, control));
  return Backend::permuteKeys(head, request, control);
}
LseMapResult FakeBackend::lseMap(const PreparedHead& head, const LseMapRequest& request, const Control& control) {
  return m_oracle->lseMap(begin(head, control), request, control);
}
std::vector<float> FakeBackend::tile(const PreparedHead& head, std::span<const float> rowLse, const TileRect& rect,
                                     Reduce reduce, const Control& control) {
  return m_oracle->tile(begin(head, control), rowLse, rect, reduce, control);
}
AttendResult FakeBackend::attend(const PreparedHead& head, std::span<const Index> rows, const RowKeep& keep,
                                 const Control& control) {
  return m_oracle->attend(begin(head, control), rows, keep, control);
}
AttendResult FakeBackend::attendTop(const PreparedHead& head, std::span<const Index> rows,
                                    std::span<const Index> counts, const Control& control) {
  return m_oracle->attendTop(begin(head, control), rows, counts, control);
}
RowStats FakeBackend::rowStats(const PreparedHead& head, std::span<const Index> rows, double mass,
                               const Control& control) {
  return m_oracle->rowStats(begin(head, control), rows, mass, control);
}
GlobalTop FakeBackend::globalTop(const PreparedHead& head, std::span<const Index> rows, Index total,
                                 const Control& control) {
  return m_oracle->globalTop(begin(head, control), rows, total, control);
}
ClusterResult FakeBackend::cluster(const PreparedHead& head, const ClusterRequest& request, const Control& control) {
  return m_oracle->cluster(begin(head, control), request, control);
}
ClusterScores FakeBackend::scoreClusters(const ClusterScoresRequest& request, const Control& control) {
  misbehave(control);
  return m_oracle->scoreClusters(request, control);
}
std::vector<std::uint8_t> FakeBackend::selectLargest(const SelectRequest& request, const Control& control) {
  misbehave(control);
  return m_oracle->selectLargest(request, control);
}

}  // namespace sparsight

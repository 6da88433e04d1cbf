// SPDX-License-Identifier: Apache-2.0
#include "fallback_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

#include "checks.h"
#include "key_order.h"

namespace sparsight {
namespace {

std::uint64_t nextSerial() {
  static std::atomic<std::uint64_t> serial{0};
  return ++serial;
}

}  // namespace

// Holds the head of every side that has used it. A primary's head belongs to that one backend instance, so there is one
// per wrapper; the CPU's is shared by all.
class FallbackBackend::Head final : public PreparedHead {
 public:
  Head(const AttentionIn& in, std::shared_ptr<const void> keepAlive) : PreparedHead(in, std::move(keepAlive)) {}
  explicit Head(const std::shared_ptr<const detail::KeyOrder>& order)
      : PreparedHead(order->input, order), m_order(order.get()) {}

  /// Null: the keys stand as they came.
  [[nodiscard]] const detail::KeyOrder* order() const noexcept { return m_order; }

  [[nodiscard]] Index bytes() const noexcept override {
    const std::lock_guard lock(m_mutex);
    Index bytes = m_cpu ? m_cpu->bytes() : 0;
    for (const auto& [serial, head] : m_primary) bytes += head->bytes();
    return bytes;
  }

  // The lock is held while preparing: a second thread that wants the same head waits instead of preparing it twice.
  std::shared_ptr<const PreparedHead> onCpu(Backend& backend, const Control& control) const {
    const std::lock_guard lock(m_mutex);
    if (!m_cpu) m_cpu = m_order != nullptr ? gathered(backend, control) : backend.prepare(input(), nullptr, control);
    return m_cpu;
  }
  std::shared_ptr<const PreparedHead> onPrimary(std::uint64_t serial, Backend& backend, const Control& control) const {
    const std::lock_guard lock(m_mutex);
    std::shared_ptr<const PreparedHead>& head = m_primary[serial];
    try {
      if (!head)
        head = m_order != nullptr ? moved(serial, backend, control) : backend.prepare(input(), nullptr, control);
    } catch (...) {
      m_primary.erase(serial);
      throw;
    }
    return head;
  }
  void aheadOnPrimary(std::uint64_t serial, Backend& backend) {
    const std::lock_guard lock(m_mutex);
    try {
      m_primary[serial] = backend.prepareAhead(input(), nullptr);
    } catch (const Error&) {
      m_primary.erase(serial);
    }
  }
  void dropPrimary(std::uint64_t serial) const {
    const std::lock_guard lock(m_mutex);
    m_primary.erase(serial);
  }
  /// What this head's memory on the device hangs on, too: for a device that is no longer used.
  void dropPrimaryWithSource(std::uint64_t serial) const {
    dropPrimary(serial);
    if (m_order != nullptr) static_cast<const Head&>(*m_order->source).dropPrimary(serial);
  }

 private:
  [[nodiscard]] std::shared_ptr<const PreparedHead> gathered(Backend& backend, const Control& control) const {
    return detail::prepareGathered(backend, m_order->source->input(), {m_order->order, m_order->withValues}, nullptr,
                                   control);
  }
  // Locks the source while this head is locked; never the other way round.
  [[nodiscard]] std::shared_ptr<const PreparedHead> moved(std::uint64_t serial, Backend& backend,
                                                          const Control& control) const {
    if (!backend.supports(Op::PermuteKeys, input().q.dtype, input().q.cols)) return gathered(backend, control);
    const auto source = static_cast<const Head&>(*m_order->source).onPrimary(serial, backend, control);
    return backend.permuteKeys(*source, {m_order->order, m_order->withValues}, control);
  }

  const detail::KeyOrder* m_order = nullptr;  // the base keeps it
  mutable std::mutex m_mutex;
  mutable std::shared_ptr<const PreparedHead> m_cpu;
  mutable std::map<std::uint64_t, std::shared_ptr<const PreparedHead>> m_primary;
};

FallbackBackend::FallbackBackend(std::unique_ptr<Backend> primary, std::unique_ptr<Backend> cpu)
    : m_primary(std::move(primary)), m_cpu(std::move(cpu)), m_primaryId(m_primary->info().id), m_serial(nextSerial()) {}

FallbackBackend::~FallbackBackend() = default;

BackendInfo FallbackBackend::info() const {
  if (m_primary) return m_primary->info();
  BackendInfo info = m_cpu->info();
  info.detail = fmt::format("{}; {} retired: {}", info.detail, m_primaryId, m_retiredWhy);
  return info;
}

bool FallbackBackend::supports(Op op, DType dtype, Index headDim) const noexcept {
  return (m_primary && m_primary->supports(op, dtype, headDim)) || m_cpu->supports(op, dtype, headDim);
}

std::shared_ptr<const PreparedHead> FallbackBackend::prepare(const AttentionIn& in,
                                                             std::shared_ptr<const void> keepAlive,
                                                             const Control& control) {
  detail::checkInput(in);
  control.checkpoint();
  return std::make_shared<Head>(in, std::move(keepAlive));
}

std::shared_ptr<const PreparedHead> FallbackBackend::prepareAhead(const AttentionIn& in,
                                                                  std::shared_ptr<const void> keepAlive) {
  detail::checkInput(in);
  auto head = std::make_shared<Head>(in, std::move(keepAlive));
  if (m_primary && m_primary->headsAtOnce(1) > 1) head->aheadOnPrimary(m_serial, *m_primary);
  return head;
}

std::shared_ptr<const PreparedHead> FallbackBackend::permuteKeys(const PreparedHead& prepared,
                                                                 const PermuteRequest& request,
                                                                 const Control& control) {
  const Head& source = cast(prepared);
  auto head = std::make_shared<Head>(detail::orderKeys(source, source.order(), request));
  control.checkpoint();
  static_cast<void>(ranOnPrimary(Op::PermuteKeys, head->input().q, head.get(), [&](Backend& primary) {
    static_cast<void>(head->onPrimary(m_serial, primary, control));
  }));
  return head;
}

void FallbackBackend::note(Op op, const std::string& why) {
  std::string line = fmt::format("{}: {} -> cpu ({})", opName(op), m_primaryId, why);
  if (std::find(m_fallbacks.begin(), m_fallbacks.end(), line) == m_fallbacks.end()) {
    m_fallbacks.push_back(std::move(line));
  }
}

void FallbackBackend::retire(const std::string& why) {
  m_retiredWhy = why;
  takeNotes();
  m_primary.reset();
}

const FallbackBackend::Head& FallbackBackend::cast(const PreparedHead& prepared) {
  const auto* const head = dynamic_cast<const Head*>(&prepared);
  if (head == nullptr) throw Error(ErrorCode::InvalidArgument, "the head was prepared by another backend");
  return *head;
}

template <class Call>
bool FallbackBackend::ranOnPrimary(Op op, const MatrixView& q, const Head* head, const Call& call) {
  if (!m_primary) {
    note(op, fmt::format("{} retired: {}", m_primaryId, m_retiredWhy));
  } else if (!m_primary->supports(op, q.dtype, q.cols)) {
    note(op, "unsupported");
  } else {
    try {
      call(*m_primary);
      return true;
    } catch (const Error& e) {
      if (e.code() == ErrorCode::Device) {
        note(op, fmt::format("device error: {}", e.what()));
        if (head != nullptr) head->dropPrimaryWithSource(m_serial);
        retire(e.what());
      } else if (e.code() == ErrorCode::OutOfMemory) {
        note(op, fmt::format("out of device memory: {}", e.what()));
        // What is free after this is for the next call.
        if (head != nullptr) head->dropPrimary(m_serial);
      } else if (e.code() == ErrorCode::Unsupported) {
        note(op, fmt::format("unsupported: {}", e.what()));
      } else {
        throw;
      }
    }
  }
  return false;
}

template <class Call>
auto FallbackBackend::run(Op op, const PreparedHead& prepared, const Control& control, const Call& call) {
  const Head& head = cast(prepared);
  std::optional<std::invoke_result_t<const Call&, Backend&, const PreparedHead&>> result;
  if (ranOnPrimary(op, head.input().q, &head,
                   [&](Backend& primary) { result = call(primary, *head.onPrimary(m_serial, primary, control)); })) {
    return std::move(*result);
  }
  return call(*m_cpu, *head.onCpu(*m_cpu, control));
}

LseMapResult FallbackBackend::lseMap(const PreparedHead& head, const LseMapRequest& request, const Control& control) {
  return run(Op::LseMap, head, control,
             [&](Backend& backend, const PreparedHead& side) { return backend.lseMap(side, request, control); });
}

std::vector<float> FallbackBackend::tile(const PreparedHead& head, std::span<const float> rowLse, const TileRect& rect,
                                         Reduce reduce, const Control& control) {
  return run(Op::Tile, head, control, [&](Backend& backend, const PreparedHead& side) {
    return backend.tile(side, rowLse, rect, reduce, control);
  });
}

AttendResult FallbackBackend::attend(const PreparedHead& head, std::span<const Index> rows, const RowKeep& keep,
                                     const Control& control) {
  return run(Op::Attend, head, control,
             [&](Backend& backend, const PreparedHead& side) { return backend.attend(side, rows, keep, control); });
}

AttendResult FallbackBackend::attendTop(const PreparedHead& head, std::span<const Index> rows,
                                        std::span<const Index> counts, const Control& control) {
  return run(Op::AttendTop, head, control, [&](Backend& backend, const PreparedHead& side) {
    return backend.attendTop(side, rows, counts, control);
  });
}

RowStats FallbackBackend::rowStats(const PreparedHead& head, std::span<const Index> rows, double mass,
                                   const Control& control) {
  return run(Op::RowStats, head, control,
             [&](Backend& backend, const PreparedHead& side) { return backend.rowStats(side, rows, mass, control); });
}

GlobalTop FallbackBackend::globalTop(const PreparedHead& head, std::span<const Index> rows, Index total,
                                     const Control& control) {
  return run(Op::GlobalTop, head, control,
             [&](Backend& backend, const PreparedHead& side) { return backend.globalTop(side, rows, total, control); });
}

ClusterResult FallbackBackend::cluster(const PreparedHead& head, const ClusterRequest& request,
                                       const Control& control) {
  return run(Op::Cluster, head, control,
             [&](Backend& backend, const PreparedHead& side) { return backend.cluster(side, request, control); });
}

std::vector<ClusterResult> FallbackBackend::clusterAll(std::span<const ClusterTask> tasks, const Control& control) {
  const auto goesOver = [&](const ClusterTask& task) {
    const MatrixView& q = cast(*task.head).input().q;
    return m_primary->supports(Op::Cluster, q.dtype, q.cols);
  };
  if (tasks.size() > 1 && m_primary && std::all_of(tasks.begin(), tasks.end(), goesOver)) {
    try {
      std::vector<std::shared_ptr<const PreparedHead>> heads;
      std::vector<ClusterTask> own(tasks.begin(), tasks.end());
      for (ClusterTask& task : own) {
        heads.push_back(cast(*task.head).onPrimary(m_serial, *m_primary, control));
        task.head = heads.back().get();
      }
      return m_primary->clusterAll(own, control);
    } catch (const Error& e) {
      if (e.code() == ErrorCode::Device) {
        note(Op::Cluster, fmt::format("device error: {}", e.what()));
        for (const ClusterTask& task : tasks) cast(*task.head).dropPrimaryWithSource(m_serial);
        retire(e.what());
      } else if (e.code() == ErrorCode::OutOfMemory) {
        for (const ClusterTask& task : tasks) cast(*task.head).dropPrimary(m_serial);
      } else if (e.code() != ErrorCode::Unsupported) {
        throw;
      }
    }
  }
  return Backend::clusterAll(tasks, control);
}

template <class Call>
auto FallbackBackend::runWithoutHead(Op op, Index width, const Call& call) {
  MatrixView rows;
  rows.cols = width;
  std::invoke_result_t<const Call&, Backend&> result;
  if (ranOnPrimary(op, rows, nullptr, [&](Backend& primary) { result = call(primary); })) return result;
  return call(*m_cpu);
}

ClusterScores FallbackBackend::scoreClusters(const ClusterScoresRequest& request, const Control& control) {
  return runWithoutHead(Op::ScoreClusters, request.dim,
                        [&](Backend& backend) { return backend.scoreClusters(request, control); });
}

std::vector<std::uint8_t> FallbackBackend::selectLargest(const SelectRequest& request, const Control& control) {
  return runWithoutHead(Op::SelectLargest, 1,
                        [&](Backend& backend) { return backend.selectLargest(request, control); });
}

void FallbackBackend::takeNotes() {
  if (!m_primary) return;
  for (std::string& note : m_primary->takeFallbacks()) m_fallbacks.push_back(std::move(note));
}

std::vector<std::string> FallbackBackend::takeFallbacks() {
  takeNotes();
  return std::exchange(m_fallbacks, {});
}

}  // namespace sparsight

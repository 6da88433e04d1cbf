// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/head_feed.h"

#include <algorithm>
#include <utility>

#include "sparsight/core/method.h"

namespace sparsight {
namespace {

// Tensors of this many bytes at most are held at once in the machine's own memory.
constexpr Index kMostBytes = Index{2} << 30;

}  // namespace

HeadFeed::HeadFeed(const Trace& trace, Backend& backend, std::vector<HeadId> order, bool includePadding,
                   std::stop_token stop)
    : m_trace(trace),
      m_backend(backend),
      m_order(std::move(order)),
      m_includePadding(includePadding),
      m_stop(std::move(stop)) {}

void HeadFeed::startLoading(std::size_t place) {
  if (place >= m_order.size() || m_slots.contains(place)) return;
  m_slots[place].loading =
      std::async(std::launch::async, [this, id = m_order[place]] { return m_trace.load(id, m_stop); });
}

HeadFeed::Slot& HeadFeed::bring(std::size_t place, bool ahead) {
  Slot& slot = m_slots[place];
  if (slot.head || slot.error) return slot;
  try {
    HeadData data = slot.loading.valid() ? slot.loading.get() : m_trace.load(m_order[place], m_stop);
    const AttentionIn in = effectiveInput(data, m_includePadding);
    auto prepared =
        ahead ? m_backend.prepareAhead(in, data.keepAlive) : m_backend.prepare(in, data.keepAlive, Control{m_stop, {}});
    slot.head = Head{std::move(data), std::move(prepared)};
  } catch (...) {
    slot.error = std::current_exception();
  }
  return slot;
}

const HeadFeed::Head& HeadFeed::at(std::size_t place) {
  Slot& slot = bring(place, false);
  if (slot.head && m_backend.headsAtOnce(slot.head->data.bytes) > 1) {
    if (place + 1 < m_order.size()) bring(place + 1, true);
    startLoading(place + 2);
  }
  if (slot.error) std::rethrow_exception(slot.error);
  return *slot.head;
}

void HeadFeed::release(std::size_t place) { m_slots.erase(m_slots.begin(), m_slots.lower_bound(place)); }

std::size_t HeadFeed::together(std::size_t place, std::size_t last) {
  const Slot& slot = bring(place, false);
  if (!slot.head) return 1;
  const Index bytes = std::max<Index>(1, slot.head->data.bytes);
  const Index most = std::min(m_backend.headsAtOnce(bytes), kMostBytes / bytes);
  return std::clamp<std::size_t>(static_cast<std::size_t>(std::max<Index>(most, 1)), 1, last - place);
}

}  // namespace sparsight

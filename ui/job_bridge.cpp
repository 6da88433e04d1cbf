// SPDX-License-Identifier: Apache-2.0
#include "ui/job_bridge.h"

#include <mutex>
#include <utility>

namespace sparsight {

/// QPointer may not be read while another thread deletes its object; a lock around the posting may.
struct JobBridge::Gate {
  std::mutex mutex;
  JobBridge* receiver = nullptr;
};

JobBridge::JobBridge(QObject* parent) : QObject(parent), m_gate(std::make_shared<Gate>()) { m_gate->receiver = this; }

JobBridge::~JobBridge() {
  const std::lock_guard lock(m_gate->mutex);
  m_gate->receiver = nullptr;
}

Dispatcher JobBridge::dispatcher() const {
  return [gate = m_gate](std::function<void()> closure) {
    const std::lock_guard lock(gate->mutex);
    if (gate->receiver != nullptr) QMetaObject::invokeMethod(gate->receiver, std::move(closure), Qt::QueuedConnection);
  };
}

}  // namespace sparsight

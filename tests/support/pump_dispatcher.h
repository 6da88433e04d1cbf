// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "sparsight/core/job.h"

namespace sparsight::test {

/// The owner's event loop of a thread test: closures wait until the test pumps them, so that what arrives when is
/// decided by the test. Outlives any queue it is given to (closures share the state).
class PumpDispatcher {
 public:
  [[nodiscard]] Dispatcher dispatcher() const {
    return [state = m_state](std::function<void()> closure) {
      {
        const std::lock_guard lock(state->mutex);
        state->closures.push_back(std::move(closure));
      }
      state->arrived.notify_all();
    };
  }
  [[nodiscard]] std::size_t pending() const {
    const std::lock_guard lock(m_state->mutex);
    return m_state->closures.size();
  }
  /// Runs what has arrived, on the calling thread; returns how many.
  std::size_t pump() {
    std::size_t count = 0;
    for (;; ++count) {
      std::function<void()> closure;
      {
        const std::lock_guard lock(m_state->mutex);
        if (m_state->closures.empty()) return count;
        closure = std::move(m_state->closures.front());
        m_state->closures.pop_front();
      }
      closure();
    }
  }
  /// Pumps until `ready` holds; false after `limit` (a hang, not a measurement: choose it generously).
  template <class Ready>
  bool pumpUntil(const Ready& ready, std::chrono::milliseconds limit = std::chrono::seconds(60)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    for (;;) {
      pump();
      if (ready()) return true;
      if (std::chrono::steady_clock::now() > end) return false;
      std::unique_lock lock(m_state->mutex);
      m_state->arrived.wait_for(lock, std::chrono::milliseconds(5), [&] { return !m_state->closures.empty(); });
    }
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable arrived;
    std::deque<std::function<void()>> closures;
  };
  std::shared_ptr<State> m_state = std::make_shared<State>();
};

}  // namespace sparsight::test

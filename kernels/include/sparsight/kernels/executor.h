// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>

#include "sparsight/kernels/types.h"

namespace sparsight {

/// What a long operation gets from its caller: a way to be stopped and a way to say how far it is.
struct Control {
  std::stop_token stop;
  /// May be empty. 0..1, never falling; from any thread, but one call at a time.
  std::function<void(double fraction)> progress;

  /// Throws Cancelled when stop was requested.
  void checkpoint() const;
  void report(double fraction) const {
    if (progress) progress(fraction);
  }
};

/// Reports the finished items of a parallel loop as a Control's progress wants it: one call at a time, never falling.
class LoopProgress {
 public:
  /// The loop takes the part [from, from + share] of what `control` counts. Does not own it.
  LoopProgress(const Control& control, Index total, double from = 0, double share = 1)
      : m_control(control), m_total(total), m_from(from), m_share(share) {}
  /// From any thread.
  void add(Index items) {
    if (!m_control.progress) return;
    const std::lock_guard lock(m_mutex);
    m_done += items;
    m_control.progress(m_from + m_share * static_cast<double>(m_done) / static_cast<double>(m_total));
  }

 private:
  const Control& m_control;
  std::mutex m_mutex;
  Index m_done = 0, m_total;
  double m_from, m_share;
};

/// Asks the system to run other threads before the calling one, as far as `nice` says (0 to 19, as nice(1) counts): for
/// threads that compute beside a window. Nothing where that cannot be asked for.
void lowerThreadPriority(int nice) noexcept;

/// Parallel loops over blocks of work, on a oneTBB arena of a fixed number of threads. Safe to use from several
/// threads.
class Executor {
 public:
  /// threads <= 0: all cores. nice: of the threads it starts (lowerThreadPriority).
  explicit Executor(int threads = 0, int nice = 0);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  [[nodiscard]] int threads() const noexcept;

  /// Calls body(first, last) for pieces of [0, count) of about `grain` items, in any order, from several threads.
  /// The first exception of a body is rethrown here; remaining pieces are skipped. Stop is polled before each piece
  /// (throws Cancelled). Results must not depend on the piece-to-thread assignment.
  void parallelFor(Index count, Index grain, const Control& control,
                   const std::function<void(Index first, Index last)>& body) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> m_impl;
};

}  // namespace sparsight

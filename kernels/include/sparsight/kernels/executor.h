// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <stop_token>

#include "sparsight/kernels/types.h"

namespace sparsight {

/// What a long operation gets from its caller: a way to be stopped and a way to say how far it is.
struct Control {
  std::stop_token stop;
  std::function<void(double fraction)> progress;  ///< may be empty; called from any thread, 0..1

  /// Throws Cancelled when stop was requested.
  void checkpoint() const;
  void report(double fraction) const {
    if (progress) progress(fraction);
  }
};

/// Parallel loops over blocks of work, on a oneTBB arena of a fixed number of threads. Safe to use from several
/// threads.
class Executor {
 public:
  /// threads <= 0: all cores.
  explicit Executor(int threads = 0);
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

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/backend.h"

namespace sparsight {

/// The heads of a walk, in its order, loaded and prepared. Where the backend uploads, the next head is on its way to
/// the device while the present one is worked on, and the one after that is being read.
class HeadFeed {
 public:
  struct Head {
    HeadData data;
    std::shared_ptr<const PreparedHead> prepared;
  };

  /// trace and backend must outlive it; all of it belongs to the backend's thread.
  HeadFeed(const Trace& trace, Backend& backend, std::vector<HeadId> order, bool includePadding, std::stop_token stop);

  /// The head at a place of the order, kept until release(). Throws what loading or preparing it threw, every time.
  const Head& at(std::size_t place);
  /// Gives up every head before this place.
  void release(std::size_t place);
  /// Heads from `place` on that may be held at once, those behind `last` not counted; at least 1.
  [[nodiscard]] std::size_t together(std::size_t place, std::size_t last);

 private:
  struct Slot {
    std::future<HeadData> loading;
    std::optional<Head> head;
    std::exception_ptr error;
  };
  void startLoading(std::size_t place);
  /// Loaded and prepared, or with its error; ahead: without waiting for the upload.
  Slot& bring(std::size_t place, bool ahead);

  const Trace& m_trace;
  Backend& m_backend;
  std::vector<HeadId> m_order;
  bool m_includePadding;
  std::stop_token m_stop;
  std::map<std::size_t, Slot> m_slots;
};

}  // namespace sparsight

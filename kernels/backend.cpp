// SPDX-License-Identifier: Apache-2.0
// What a backend need not do itself.
#include "sparsight/kernels/backend.h"

#include <utility>

#include "checks.h"
#include "key_order.h"

namespace sparsight {

std::shared_ptr<const PreparedHead> Backend::prepareAhead(const AttentionIn& in,
                                                          std::shared_ptr<const void> keepAlive) {
  return prepare(in, std::move(keepAlive), {});
}

std::shared_ptr<const PreparedHead> Backend::permuteKeys(const PreparedHead& head, const PermuteRequest& request,
                                                         const Control& control) {
  detail::checkOrder(head.input(), request.order);
  if (!head.holdsTensors()) {
    throw Error(ErrorCode::InvalidArgument, "the keys of this head lie in order on another backend's device only");
  }
  return detail::prepareGathered(*this, head.input(), request, head.shared_from_this(), control);
}

std::vector<ClusterResult> Backend::clusterAll(std::span<const ClusterTask> tasks, const Control& control) {
  std::vector<ClusterResult> results;
  results.reserve(tasks.size());
  for (const ClusterTask& task : tasks) {
    const Control part{
        control.stop, [&](double fraction) {
          control.report((static_cast<double>(results.size()) + fraction) / static_cast<double>(tasks.size()));
        }};
    results.push_back(cluster(*task.head, task.request, part));
  }
  return results;
}

}  // namespace sparsight

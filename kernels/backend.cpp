// SPDX-License-Identifier: Apache-2.0
// What a backend need not do itself.
#include "sparsight/kernels/backend.h"

#include <utility>

namespace sparsight {

std::shared_ptr<const PreparedHead> Backend::prepareAhead(const AttentionIn& in,
                                                          std::shared_ptr<const void> keepAlive) {
  return prepare(in, std::move(keepAlive), {});
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

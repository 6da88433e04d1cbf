// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/cpu_head.h"

namespace sparsight::cpu {

/// Backend::cluster.
[[nodiscard]] ClusterResult clusterPoints(const CpuHead& head, const ClusterRequest& request, const Executor& executor,
                                          const Control& control);

}  // namespace sparsight::cpu

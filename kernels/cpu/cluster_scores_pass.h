// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/simd.h"
#include "sparsight/kernels/backend.h"

namespace sparsight::cpu {

/// Backend::scoreClusters of a checked request, rows over the executor's threads.
[[nodiscard]] ClusterScores scoreClusters(const ClusterScoresRequest& request, const SimdKernels& simd,
                                          const Executor& executor, const Control& control);

}  // namespace sparsight::cpu

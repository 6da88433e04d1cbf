// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/cpu_head.h"

namespace sparsight::cpu {

/// Attention of the listed rows over kept key intervals: work goes with the kept keys, not with all keys.
[[nodiscard]] AttendResult attendIntervals(const CpuHead& head, std::span<const Index> rows, const RowKeep& keep,
                                           const Executor& executor, const Control& control);

/// A result of the right shape for padding rows: zeros, LSE NaN, no key.
[[nodiscard]] AttendResult emptyAttendResult(const AttentionIn& in, std::size_t rows);

}  // namespace sparsight::cpu

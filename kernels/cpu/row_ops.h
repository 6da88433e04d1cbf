// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/cpu_head.h"

/// Operations that need a whole row of scores at once: selection and order statistics. They hold the rows of a few
/// panels per thread: 16 MiB, or one panel's where that is more (16 to 32 rows x keys floats).
namespace sparsight::cpu {

[[nodiscard]] AttendResult attendTopRows(const CpuHead& head, std::span<const Index> rows,
                                         std::span<const Index> counts, const Executor& executor,
                                         const Control& control);
[[nodiscard]] RowStats rowStatistics(const CpuHead& head, std::span<const Index> rows, double mass,
                                     const Executor& executor, const Control& control);
[[nodiscard]] GlobalTop globalTopRows(const CpuHead& head, std::span<const Index> rows, Index total,
                                      const Executor& executor, const Control& control);

}  // namespace sparsight::cpu

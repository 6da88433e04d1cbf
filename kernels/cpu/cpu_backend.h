// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "cpu/simd.h"
#include "sparsight/kernels/backend.h"

namespace sparsight {

/// Multi-threaded, vectorised float32 backend. The executor must outlive it.
[[nodiscard]] std::unique_ptr<Backend> createCpuBackend(Executor& executor);
/// The same on a given instruction set, which this CPU must have.
[[nodiscard]] std::unique_ptr<Backend> createCpuBackend(Executor& executor, const cpu::SimdKernels& simd);

}  // namespace sparsight

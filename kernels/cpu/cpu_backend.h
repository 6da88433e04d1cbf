// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "sparsight/kernels/backend.h"

namespace sparsight {

/// Multi-threaded, vectorised float32 backend. The executor must outlive it.
[[nodiscard]] std::unique_ptr<Backend> createCpuBackend(Executor& executor);

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "sparsight/kernels/backend.h"

namespace sparsight {

/// True when the first visible device runs this program's kernels (a one-thread trial was launched). Otherwise `why`
/// says in one line what is missing: driver, driver version, device, compute capability, code for the device.
[[nodiscard]] bool probeCuda(std::string& why) noexcept;

/// The bare CUDA backend on the first visible device (CUDA_VISIBLE_DEVICES chooses): lse_map, tile and attend;
/// supports() is false for the rest. Throws Error{Device} when no device can be used, saying why. Confined to one
/// thread at a time.
[[nodiscard]] std::unique_ptr<Backend> createCudaBackend(Executor& executor);

}  // namespace sparsight

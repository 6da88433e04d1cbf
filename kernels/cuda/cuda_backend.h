// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "sparsight/kernels/backend.h"

namespace sparsight {

/// True when the first visible device runs this program's kernels (a one-thread trial was launched). Otherwise `why`
/// says in one line what is missing: driver, driver version, device, compute capability, code for the device.
[[nodiscard]] bool probeCuda(std::string& why) noexcept;

/// The bare CUDA backend on the first visible device (CUDA_VISIBLE_DEVICES chooses), for head dimensions up to 256.
/// Throws Error{Device} when no device can be used, saying why, and Error{InvalidArgument} for a setting that means
/// nothing (SPARSIGHT_CUDA_PATH, SPARSIGHT_CUDA_MEMORY). Confined to one thread at a time. Its takeFallbacks() names
/// operations that ran in smaller batches because device memory ran out.
[[nodiscard]] std::unique_ptr<Backend> createCudaBackend(Executor& executor);

/// From the first to the last kernel of a bare CUDA backend's last operation, in seconds by the device's clock (copies
/// of results and of later batches' inputs in between included); 0 for another backend. For benchmarks.
[[nodiscard]] double cudaDeviceSeconds(const Backend& backend) noexcept;

/// Seconds that the device takes to copy `bytes` from one place of its memory to another, by its clock; the median of a
/// few. What moving rows in another order is measured against. For benchmarks; throws like an operation.
[[nodiscard]] double cudaCopySeconds(Index bytes);

}  // namespace sparsight

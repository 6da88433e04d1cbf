// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "sparsight/kernels/backend.h"
#include "tests/support/emulated_cuda/cuda_runtime_api.h"

namespace sparsight {

/// The CUDA backend's own source, host code and kernel bodies alike, on the emulated machine: every operation of it can
/// be compared with the oracle where no GPU is at hand. What it cannot show: races between threads, and timing.
[[nodiscard]] std::unique_ptr<Backend> createEmulatedCudaBackend(Executor& executor);
/// The same with small launches, so that a small head takes many of them.
[[nodiscard]] std::unique_ptr<Backend> createEmulatedCudaBackend(double launchWork, Index scratchBytes);
[[nodiscard]] bool probeEmulatedCuda(std::string& why) noexcept;

/// Puts the emulated machine back into its first state, the process-wide memory of a lost device included. The check of
/// the Hopper kernels has then passed.
void resetEmulatedCuda();
/// The next backend on a device of compute capability 9.0 checks the Hopper kernels again.
void forgetHopperCheck();

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

// Launchers of the portable kernels; each returns cudaGetLastError() of its launch. Everything runs on `stream`.

#include <cuda_runtime_api.h>

#include "cuda/attend.h"
#include "cuda/pooled_map.h"

namespace sparsight::cuda {

cudaError_t launchPartials(DType dtype, const PartialsParams& params, Index splits, cudaStream_t stream);
cudaError_t launchRowLse(const RowLseParams& params, cudaStream_t stream);
cudaError_t launchCells(const CellsParams& params, Index rowBlocks, cudaStream_t stream);
/// valueWidth: columns of V, 0 without; at most 256.
cudaError_t launchAttend(DType dtype, Index valueWidth, const AttendParams& params, cudaStream_t stream);
/// One thread writes 1 to *out: proves that this program has code for the device.
cudaError_t launchTrial(std::int32_t* out, cudaStream_t stream);

}  // namespace sparsight::cuda

// SPDX-License-Identifier: Apache-2.0
#include "tests/support/emulated_cuda.h"

#include <fmt/format.h>

// The backend's sources once more, in a namespace of their own so that a program with the real backend links.
#define cuda emulated_cuda
#define probeCuda probeEmulatedCuda
#define createCudaBackend createEmulatedCudaBackend
#include "cuda/device_memory.cpp"
// The order matters: the second file uses the first one's header.
#include "cuda/cuda_backend.cpp"

namespace sparsight {

emulated::Machine& emulated::machine() {
  static Machine machine;
  return machine;
}

std::unique_ptr<Backend> createEmulatedCudaBackend(double launchWork, Index scratchBytes) {
  return std::make_unique<cuda::CudaBackend>(cuda::LaunchLimits{launchWork, scratchBytes});
}

void resetEmulatedCuda() {
  auto allocations = std::move(emulated::machine().allocations);
  const std::size_t allocated = emulated::machine().allocatedBytes;
  emulated::machine() = {};
  // Buffers that a test still holds stay theirs.
  emulated::machine().allocations = std::move(allocations);
  emulated::machine().allocatedBytes = allocated;
  const std::lock_guard lock(cuda::lostDevice().mutex);
  cuda::lostDevice().reason.clear();
}

namespace cuda {
namespace {

template <class State, class Body>
cudaError_t runGrid(Index x, Index y, const Body& body) {
  if (const cudaError_t status = emulated::beginLaunch(); status != cudaSuccess) return status;
  for (int by = 0; by < static_cast<int>(y); ++by) {
    for (int bx = 0; bx < static_cast<int>(x); ++bx) {
      HostBlock<State> block(bx, by);
      body(block);
    }
  }
  return cudaSuccess;
}
Index tilesOf(Index rows) { return (rows + kTileRows - 1) / kTileRows; }

// Shared memory is not cleared between blocks of a real launch either.
template <class Shared>
std::unique_ptr<Shared> dirtyShared() {
  auto shared = std::make_unique<Shared>();
  std::memset(static_cast<void*>(shared.get()), 0xFF, sizeof(Shared));
  return shared;
}

template <class T>
cudaError_t runPartials(const PartialsParams& params, Index splits) {
  const auto shared = dirtyShared<ScoreShared>();
  return runGrid<PartialsState>(tilesOf(params.rowEnd - params.row0), splits,
                                [&](auto& block) { partialsBody<T>(block, *shared, params); });
}

template <class T, int kWidth>
cudaError_t runAttend(const AttendParams& params) {
  const auto shared = dirtyShared<AttendShared<kWidth>>();
  return runGrid<AttendState<kWidth>>(tilesOf(params.rowCount), 1,
                                      [&](auto& block) { attendBody<T, kWidth>(block, *shared, params); });
}

template <class T>
cudaError_t chooseAttend(Index valueWidth, const AttendParams& params) {
  if (valueWidth == 0) return runAttend<T, 0>(params);
  if (valueWidth <= 64) return runAttend<T, 64>(params);
  if (valueWidth <= 128) return runAttend<T, 128>(params);
  return runAttend<T, 256>(params);
}

}  // namespace

cudaError_t launchPartials(DType dtype, const PartialsParams& params, Index splits, cudaStream_t) {
  switch (dtype) {
    case DType::F32:
      return runPartials<float>(params, splits);
    case DType::F16:
      return runPartials<HalfBits>(params, splits);
    case DType::BF16:
      return runPartials<Bf16Bits>(params, splits);
  }
  return cudaErrorInvalidValue;
}

cudaError_t launchRowLse(const RowLseParams& params, cudaStream_t) {
  return runGrid<RowLseState>(tilesOf(params.parts.rowEnd - params.parts.row0), 1,
                              [&](auto& block) { rowLseBody(block, params); });
}

cudaError_t launchCells(const CellsParams& params, Index rowBlocks, cudaStream_t) {
  const auto shared = dirtyShared<CellsShared>();
  return runGrid<CellsState>(rowBlocks, (params.cols + kCellCols - 1) / kCellCols,
                             [&](auto& block) { cellsBody(block, *shared, params); });
}

cudaError_t launchAttend(DType dtype, Index valueWidth, const AttendParams& params, cudaStream_t) {
  switch (dtype) {
    case DType::F32:
      return chooseAttend<float>(valueWidth, params);
    case DType::F16:
      return chooseAttend<HalfBits>(valueWidth, params);
    case DType::BF16:
      return chooseAttend<Bf16Bits>(valueWidth, params);
  }
  return cudaErrorInvalidValue;
}

cudaError_t launchTrial(std::int32_t* out, cudaStream_t) {
  const cudaError_t status = emulated::beginLaunch();
  if (status == cudaSuccess) *out = 1;
  return status;
}

}  // namespace cuda
}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "tests/support/emulated_cuda.h"

#include <fmt/format.h>

#include <algorithm>

// The backend's sources once more, in a namespace of their own so that a program with the real backend links.
#define cuda emulated_cuda
#define probeCuda probeEmulatedCuda
#define createCudaBackend createEmulatedCudaBackend
#define cudaDeviceSeconds emulatedCudaDeviceSeconds
#define cudaCopySeconds emulatedCudaCopySeconds
#include "cuda/device_memory.cpp"
// The order matters: the others use the first one's header.
#include "cuda/attend_ops.cpp"
#include "cuda/centroid_ops.cpp"
#include "cuda/cluster_ops.cpp"
#include "cuda/cuda_backend.cpp"
#include "cuda/hopper_attend.h"
#include "cuda/hopper_check.cpp"
#include "cuda/hopper_map.h"
#include "cuda/map_ops.cpp"
#include "cuda/permute_ops.cpp"
#include "cuda/row_ops.cpp"
#include "cuda/select_ops.cpp"
#include "cuda/uploader.cpp"
#include "tests/support/emulated_cuda/thread_block.h"
#include "tests/support/emulated_hopper.h"

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
  {
    const std::lock_guard lock(cuda::lostDevice().mutex);
    cuda::lostDevice().reason.clear();
  }
  // Found out once, on the machine as it is now: no test depends on whether it was the first to make a backend.
  if (const std::lock_guard lock(cuda::hopperVerdict().mutex); cuda::hopperVerdict().why == std::string()) return;
  forgetHopperCheck();
  static_cast<void>(cuda::whyNotHopper());
  emulated::machine().launches = 0;
  emulated::machine().peakBytes = allocated;
}

void forgetHopperCheck() {
  const std::lock_guard lock(cuda::hopperVerdict().mutex);
  cuda::hopperVerdict().why.reset();
}

namespace cuda {
namespace {

template <class State, class Body>
cudaError_t runGrid(cudaStream_t stream, Index x, Index y, const Body& body) {
  if (const cudaError_t status = emulated::beginLaunch(stream); status != cudaSuccess) return status;
  for (int by = 0; by < static_cast<int>(y); ++by) {
    for (int bx = 0; bx < static_cast<int>(x); ++bx) {
      if (const auto order = emulated::machine().threadOrder; order != emulated::ThreadOrder::Together) {
        ThreadScheduler scheduler(order, static_cast<std::uint64_t>(emulated::machine().launches + bx));
        scheduler.run([&](int thread) {
          ThreadBlock<State> block(scheduler, thread, bx, by);
          body(block);
        });
        continue;
      }
      HostBlock<State> block(bx, by);
      body(block);
    }
  }
  return cudaSuccess;
}
// Shared memory is not cleared between blocks of a real launch either.
template <class Shared>
std::unique_ptr<Shared> dirtyShared() {
  auto shared = std::make_unique<Shared>();
  std::memset(static_cast<void*>(shared.get()), 0xFF, sizeof(Shared));
  return shared;
}

/// A grid of blocks with shared memory of type Shared and threads of type State.
template <class State, class Shared, class Body>
cudaError_t runShared(cudaStream_t stream, Index x, Index y, const Body& body) {
  const auto shared = dirtyShared<Shared>();
  return runGrid<State>(stream, x, y, [&](auto& block) { body(block, *shared); });
}

}  // namespace

cudaError_t launchPartials(DType dtype, Path path, const PartialsParams& params, Index splits, cudaStream_t stream) {
  return forHead(dtype, path, [&]<class T, class Tile>() {
    return runShared<PartialsState<Tile>, typename Tile::Shared>(
        stream, tilesOf(params.rowEnd - params.row0), splits,
        [&](auto& block, auto& shared) { partialsBody<Tile>(block, shared, params); });
  });
}

bool hopperBuilt() noexcept { return emulated::machine().hopperBuilt; }

namespace {

using namespace hopper;

/// start<T, kBoxes>() as the device's launcher chooses them.
template <class Start>
cudaError_t forEmulatedHopper(DType dtype, Index width, const Start& start) {
  if (dtype == DType::F16) {
    return width <= kBoxCols ? start.template operator()<HalfBits, 1>() : start.template operator()<HalfBits, 2>();
  }
  return width <= kBoxCols ? start.template operator()<Bf16Bits, 1>() : start.template operator()<Bf16Bits, 2>();
}

/// Blocks of a Hopper kernel: feed(group), compute(group, consumer).
template <class Place, class State, class Feed, class Compute>
cudaError_t runHopper(cudaStream_t stream, Index x, Index y, const Feed& feed, const Compute& compute) {
  if (const cudaError_t status = emulated::beginLaunch(stream); status != cudaSuccess) return status;
  for (int by = 0; by < static_cast<int>(y); ++by) {
    for (int bx = 0; bx < static_cast<int>(x); ++bx) {
      std::uint64_t& seed = emulated::machine().hopperSeed;
      EmulatedBlock block(bx, by, Place::kBytes, seed == 0 ? 0 : seed++);
      initBarriers<Place>([&](std::uint32_t offset, std::uint32_t arrivals) { block.initBarrier(offset, arrivals); });
      const auto computing = [&](int role) {
        HostGroup<State> group(block, role);
        compute(group, role - 1);
        group.finish();
      };
      block.run({[&](int role) {
                   HostGroup<FeedState> group(block, role);
                   feed(group);
                 },
                 computing, computing});
    }
  }
  return cudaSuccess;
}

EmulatedMap mapOf(const void* data, Index rows, Index cols) {
  return {static_cast<const std::uint16_t*>(data), rows, cols};
}

}  // namespace

cudaError_t launchHopperPartials(DType dtype, const PartialsParams& params, Index splits, cudaStream_t stream) {
  return forEmulatedHopper(dtype, params.in.depth, [&]<class T, int kBoxes>() {
    const cudaError_t status = runHopper<MapLayout<kBoxes>, MapState>(
        stream, hopperBlocksOf(params.rowEnd - params.row0), splits,
        [&](auto& group) { feedMap<kBoxes>(group, params, mapOf(params.in.k, params.keyRows, params.in.depth)); },
        [&](auto& group, int consumer) { computeMap<T, kBoxes>(group, consumer, params); });
    if (emulated::machine().hopperWrong) params.partSum[params.subCount + 1] *= 1.01F;
    return status;
  });
}

cudaError_t launchHopperAttend(DType dtype, const AttendParams& params, cudaStream_t stream) {
  return forEmulatedHopper(dtype, std::max(params.in.depth, params.vCols), [&]<class T, int kBoxes>() {
    return runHopper<AttendLayout<kBoxes>, AttendGroupState<kBoxes>>(
        stream, hopperBlocksOf(params.rowCount), 1,
        [&](auto& group) {
          feedAttend<kBoxes>(group, params, mapOf(params.in.k, params.keyCount, params.in.depth),
                             mapOf(params.v, params.keyCount, params.vCols));
        },
        [&](auto& group, int consumer) { computeAttend<T, kBoxes>(group, consumer, params); });
  });
}

cudaError_t launchRowLse(const RowLseParams& params, cudaStream_t stream) {
  return runGrid<RowLseState>(stream, tilesOf(params.parts.rowEnd - params.parts.row0), 1,
                              [&](auto& block) { rowLseBody(block, params); });
}

cudaError_t launchCells(const CellsParams& params, Index rowBlocks, cudaStream_t stream) {
  return runShared<CellsState, CellsShared>(stream, rowBlocks, (params.cols + kCellCols - 1) / kCellCols,
                                            [&](auto& block, auto& shared) { cellsBody(block, shared, params); });
}

cudaError_t launchClearValues(const ClearValuesParams& params, cudaStream_t stream) {
  return runGrid<ClearValuesState>(stream, tilesOf(params.rowCount), 1,
                                   [&](auto& block) { clearValuesBody(block, params); });
}

cudaError_t launchAttend(DType dtype, Path path, Index valueWidth, const AttendParams& params, cudaStream_t stream) {
  return forHead(dtype, path, [&]<class T, class Tile>() {
    return forWidth(valueWidth, [&]<int kWidth>() {
      return runShared<AttendState<Tile, kWidth>, AttendShared<Tile, kWidth>>(
          stream, tilesOf(params.rowCount), 1,
          [&](auto& block, auto& shared) { attendBody<T, Tile, kWidth>(block, shared, params); });
    });
  });
}

cudaError_t launchScoreRows(DType dtype, Path path, const ScoreRowsParams& params, cudaStream_t stream) {
  return forHead(dtype, path, [&]<class T, class Tile>() {
    return runShared<ScoreRowsState<Tile>, typename Tile::Shared>(
        stream, tilesOf(params.rowCount), keyBlocksOf(params),
        [&](auto& block, auto& shared) { scoreRowsBody<Tile>(block, shared, params, block.y()); });
  });
}

template <class Params>
cudaError_t launchSelect(const Params& params, Index rows, cudaStream_t stream) {
  return runShared<SelectState, SelectShared>(stream, rows, 1,
                                              [&](auto& block, auto& shared) { selectBody(block, shared, params); });
}
template cudaError_t launchSelect(const RowStatsParams&, Index, cudaStream_t);
template cudaError_t launchSelect(const TopCutParams&, Index, cudaStream_t);
template cudaError_t launchSelect(const GlobalRowsParams&, Index, cudaStream_t);
template cudaError_t launchSelect(const GlobalParams&, Index, cudaStream_t);

cudaError_t launchSpread(const Batch<SpreadParams>& batch, Index tasks, Index elements, cudaStream_t stream) {
  return runGrid<SpreadState>(stream, shares(elements, kThreads), tasks,
                              [&](auto& block) { spreadBody(block, batch.tasks[block.y()]); });
}

cudaError_t launchSquares(DType dtype, const Batch<SquaresParams>& batch, Index tasks, Index rows,
                          cudaStream_t stream) {
  return forType(dtype, [&]<class T>() {
    return runGrid<SquaresState>(stream, tilesOf(rows), tasks,
                                 [&](auto& block) { squaresBody<T>(block, batch.tasks[block.y()]); });
  });
}

cudaError_t launchProfiles(DType dtype, Path path, const Batch<ScoreRowsParams>& batch, Index tasks, Index rows,
                           cudaStream_t stream) {
  return forFloatRows(dtype, path, [&]<class Tile>() {
    return runShared<ScoreRowsState<Tile>, typename Tile::Shared>(
        stream, tilesOf(rows), tasks,
        [&](auto& block, auto& shared) { profilesBody<Tile>(block, shared, batch.tasks[block.y()]); });
  });
}

cudaError_t launchAssign(DType dtype, Path path, const Batch<AssignParams>& batch, Index tasks, Index rows,
                         cudaStream_t stream) {
  return forFloatRows(dtype, path, [&]<class Tile>() {
    return runShared<AssignState<Tile>, typename Tile::Shared>(
        stream, tilesOf(rows), tasks,
        [&](auto& block, auto& shared) { assignBody<Tile>(block, shared, batch.tasks[block.y()]); });
  });
}

cudaError_t launchCount(const Batch<SortParams>& batch, Index tasks, Index points, cudaStream_t stream) {
  return runGrid<SortState>(stream, segmentsOf(points), tasks,
                            [&](auto& block) { countBody(block, batch.tasks[block.y()]); });
}

cudaError_t launchSegments(const Batch<SortParams>& batch, Index tasks, Index clusters, cudaStream_t stream) {
  return runGrid<SortState>(stream, shares(clusters, kThreads), tasks,
                            [&](auto& block) { segmentsBody(block, batch.tasks[block.y()]); });
}

cudaError_t launchFirstMembers(const Batch<SortParams>& batch, Index tasks, cudaStream_t stream) {
  return runShared<SortState, SortShared>(
      stream, 1, tasks, [&](auto& block, auto& shared) { firstMembersBody(block, shared, batch.tasks[block.y()]); });
}

cudaError_t launchMembers(const Batch<SortParams>& batch, Index tasks, Index points, cudaStream_t stream) {
  return runShared<SortState, SortShared>(stream, segmentsOf(points), tasks, [&](auto& block, auto& shared) {
    membersBody(block, shared, batch.tasks[block.y()]);
  });
}

cudaError_t launchMeans(DType dtype, const Batch<MeansParams>& batch, Index tasks, Index clusters,
                        cudaStream_t stream) {
  return forType(dtype, [&]<class T>() {
    return runGrid<MeansState>(stream, clusters, tasks,
                               [&](auto& block) { meansBody<T>(block, batch.tasks[block.y()]); });
  });
}

cudaError_t launchCentroidDots(const CentroidScoresParams& params, cudaStream_t stream) {
  return runShared<CentroidDotsState, CentroidDotsShared>(
      stream, shares(params.rowCount, kCentroidTile), shares(params.keyCount, kCentroidTile),
      [&](auto& block, auto& shared) { centroidDotsBody(block, shared, params); });
}

cudaError_t launchCentroidSoftmax(const CentroidScoresParams& params, cudaStream_t stream) {
  return runShared<CentroidRowState, CentroidRowShared>(
      stream, params.rowCount, 1, [&](auto& block, auto& shared) { centroidSoftmaxBody(block, shared, params); });
}

cudaError_t launchCentroidOrder(const CentroidScoresParams& params, cudaStream_t stream) {
  return runShared<CentroidOrderState, CentroidOrderShared>(
      stream, params.rowCount, 1, [&](auto& block, auto& shared) { centroidOrderBody(block, shared, params); });
}

cudaError_t launchSelectLargest(const SelectLargestParams& params, Index rows, cudaStream_t stream) {
  return runShared<SelectLargestState, SelectLargestShared>(
      stream, rows, 1, [&](auto& block, auto& shared) { selectLargestBody(block, shared, params); });
}

cudaError_t launchGather(const GatherParams& params, cudaStream_t stream) {
  return runGrid<GatherState>(stream, gatherBlocksOf(params), 1, [&](auto& block) { gatherBody(block, params); });
}

cudaError_t launchTrial(std::int32_t* out, cudaStream_t stream) {
  const cudaError_t status = emulated::beginLaunch(stream);
  if (status == cudaSuccess) *out = 1;
  return status;
}

}  // namespace cuda
}  // namespace sparsight

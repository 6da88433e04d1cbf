// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

// Parameters stay where the launch put them: which head's a block reads is known on the device only.
static_assert(sizeof(Batch<ScoreRowsParams>) <= 4096, "a launch takes 4 KiB of parameters");

__global__ void __launch_bounds__(kThreads) spreadKernel(const __grid_constant__ Batch<SpreadParams> batch) {
  DeviceBlock<SpreadState> block;
  spreadBody(block, batch.tasks[blockIdx.y]);
}

template <class T>
__global__ void __launch_bounds__(kThreads) squaresKernel(const __grid_constant__ Batch<SquaresParams> batch) {
  DeviceBlock<SquaresState> block;
  squaresBody<T>(block, batch.tasks[blockIdx.y]);
}

template <class Tile>
__global__ void __launch_bounds__(kThreads, 3) profilesKernel(const __grid_constant__ Batch<ScoreRowsParams> batch) {
  __shared__ typename Tile::Shared shared;
  DeviceBlock<ScoreRowsState<Tile>> block;
  profilesBody<Tile>(block, shared, batch.tasks[blockIdx.y]);
}

template <class Tile>
__global__ void __launch_bounds__(kThreads, 3) assignKernel(const __grid_constant__ Batch<AssignParams> batch) {
  __shared__ typename Tile::Shared shared;
  DeviceBlock<AssignState<Tile>> block;
  assignBody<Tile>(block, shared, batch.tasks[blockIdx.y]);
}

__global__ void __launch_bounds__(kThreads) countKernel(const __grid_constant__ Batch<SortParams> batch) {
  DeviceBlock<SortState> block;
  countBody(block, batch.tasks[blockIdx.y]);
}

__global__ void __launch_bounds__(kThreads) segmentsKernel(const __grid_constant__ Batch<SortParams> batch) {
  DeviceBlock<SortState> block;
  segmentsBody(block, batch.tasks[blockIdx.y]);
}

__global__ void __launch_bounds__(kThreads) firstMembersKernel(const __grid_constant__ Batch<SortParams> batch) {
  __shared__ SortShared shared;
  DeviceBlock<SortState> block;
  firstMembersBody(block, shared, batch.tasks[blockIdx.y]);
}

__global__ void __launch_bounds__(kThreads) membersKernel(const __grid_constant__ Batch<SortParams> batch) {
  __shared__ SortShared shared;
  DeviceBlock<SortState> block;
  membersBody(block, shared, batch.tasks[blockIdx.y]);
}

template <class T>
__global__ void __launch_bounds__(kThreads) meansKernel(const __grid_constant__ Batch<MeansParams> batch) {
  DeviceBlock<MeansState> block;
  meansBody<T>(block, batch.tasks[blockIdx.y]);
}

dim3 gridOf(Index blocks, Index tasks) { return {static_cast<unsigned>(blocks), static_cast<unsigned>(tasks)}; }

}  // namespace

cudaError_t launchSpread(const Batch<SpreadParams>& batch, Index tasks, Index elements, cudaStream_t stream) {
  spreadKernel<<<gridOf(shares(elements, kThreads), tasks), kThreads, 0, stream>>>(batch);
  return cudaGetLastError();
}

cudaError_t launchSquares(DType dtype, const Batch<SquaresParams>& batch, Index tasks, Index rows,
                          cudaStream_t stream) {
  return forType(dtype, [&]<class T>() {
    squaresKernel<T><<<gridOf(tilesOf(rows), tasks), kThreads, 0, stream>>>(batch);
    return cudaGetLastError();
  });
}

cudaError_t launchProfiles(DType dtype, Path path, const Batch<ScoreRowsParams>& batch, Index tasks, Index rows,
                           cudaStream_t stream) {
  return forFloatRows(dtype, path, [&]<class Tile>() {
    profilesKernel<Tile><<<gridOf(tilesOf(rows), tasks), kThreads, 0, stream>>>(batch);
    return cudaGetLastError();
  });
}

cudaError_t launchAssign(DType dtype, Path path, const Batch<AssignParams>& batch, Index tasks, Index rows,
                         cudaStream_t stream) {
  return forFloatRows(dtype, path, [&]<class Tile>() {
    assignKernel<Tile><<<gridOf(tilesOf(rows), tasks), kThreads, 0, stream>>>(batch);
    return cudaGetLastError();
  });
}

cudaError_t launchCount(const Batch<SortParams>& batch, Index tasks, Index points, cudaStream_t stream) {
  countKernel<<<gridOf(segmentsOf(points), tasks), kThreads, 0, stream>>>(batch);
  return cudaGetLastError();
}

cudaError_t launchSegments(const Batch<SortParams>& batch, Index tasks, Index clusters, cudaStream_t stream) {
  segmentsKernel<<<gridOf(shares(clusters, kThreads), tasks), kThreads, 0, stream>>>(batch);
  return cudaGetLastError();
}

cudaError_t launchFirstMembers(const Batch<SortParams>& batch, Index tasks, cudaStream_t stream) {
  firstMembersKernel<<<gridOf(1, tasks), kThreads, 0, stream>>>(batch);
  return cudaGetLastError();
}

cudaError_t launchMembers(const Batch<SortParams>& batch, Index tasks, Index points, cudaStream_t stream) {
  membersKernel<<<gridOf(segmentsOf(points), tasks), kThreads, 0, stream>>>(batch);
  return cudaGetLastError();
}

cudaError_t launchMeans(DType dtype, const Batch<MeansParams>& batch, Index tasks, Index clusters,
                        cudaStream_t stream) {
  return forType(dtype, [&]<class T>() {
    meansKernel<T><<<gridOf(clusters, tasks), kThreads, 0, stream>>>(batch);
    return cudaGetLastError();
  });
}

}  // namespace sparsight::cuda

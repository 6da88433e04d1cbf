// SPDX-License-Identifier: Apache-2.0
#pragma once

// One round of k-means: every point against every centroid in 64 x 64 tiles, the nearest kept on the way; then one
// block per cluster adds its members in double, in the order of the points.

#include "cuda/score_tile.h"

namespace sparsight::cuda {

struct SquaresParams {
  const void* rows;  ///< [rowCount, depth]
  std::int32_t rowCount;
  std::int32_t depth;  ///< a multiple of kDepth
  float* squares;      ///< [rowCount] sum of squares
};
struct SquaresState {
  struct Share {
    float sum;
#ifdef __CUDACC__
    __device__ __forceinline__ Share shuffleDown(unsigned lanes) const {
      return {__shfl_down_sync(0xFFFFFFFFU, sum, lanes)};
    }
#endif
  };
  Share share;
};

/// Block x: 64 rows, four lanes each.
template <class T, class Block>
SPARSIGHT_DEVICE void squaresBody(Block& block, const SquaresParams& p) {
  block.each([&](int t, auto& s) {
    const std::int32_t row = block.x() * kTileRows + t / kLanes;
    s.share.sum = 0.0F;
    for (int column = t % kLanes * 4; column < p.depth; column += kLanes * 4) {
      const Float4 x = loadOperand<T>(p.rows, row, row < p.rowCount, p.depth, column);
      SPARSIGHT_UNROLL
      for (int i = 0; i < 4; ++i) s.share.sum = fmaOf(x.v[i], x.v[i], s.share.sum);
    }
  });
  block.mergeLanes(
      [](auto& s) -> SquaresState::Share& { return s.share; },
      [](const SquaresState::Share& a, const SquaresState::Share& b) { return SquaresState::Share{a.sum + b.sum}; });
  block.each([&](int t, auto& s) {
    const std::int32_t row = block.x() * kTileRows + t / kLanes;
    if (t % kLanes == 0 && row < p.rowCount) p.squares[row] = s.share.sum;
  });
}

enum class Nearness : std::int32_t { Euclid, Cosine, Dot };
/// Norms that cosines are divided by are sqrt(|x|^2 + this).
inline constexpr float kNormFloor = 1e-8F;

struct AssignParams {
  Operands in;  ///< q: points, k: centroids
  std::int32_t row0;
  std::int32_t rowCount;  ///< points row0 .. row0 + rowCount of q
  std::int32_t clusters;
  Nearness nearness;
  const float* pointSquares;   ///< [rowCount]; not for Dot
  const float* centreSquares;  ///< [clusters]; not for Dot
  std::int32_t* labels;        ///< [rowCount]
  float* nearest;              ///< [rowCount] squared distance, or similarity
};

template <class Tile>
struct AssignState {
  struct Best {
    float value;  ///< similarity, or minus the distance
    std::int32_t label;
#ifdef __CUDACC__
    __device__ __forceinline__ Best shuffleDown(unsigned lanes) const {
      return {__shfl_down_sync(0xFFFFFFFFU, value, lanes), __shfl_down_sync(0xFFFFFFFFU, label, lanes)};
    }
#endif
  };
  typename Tile::State tile;
  Best best;
  float square;
};

/// Block x: 64 points.
template <class Tile, class Block>
SPARSIGHT_DEVICE void assignBody(Block& block, typename Tile::Shared& shared, const AssignParams& p) {
  using Best = typename AssignState<Tile>::Best;
  const std::int32_t base = block.x() * kTileRows;
  const int rowCount = minOf(kTileRows, p.rowCount - base);
  block.each([&](int t, auto& s) {
    const int row = t / kLanes;
    s.best = {negativeInfinity(), 0x7FFFFFFF};
    s.square = p.nearness != Nearness::Dot && row < rowCount ? p.pointSquares[base + row] : 0.0F;
    if (p.nearness == Nearness::Cosine) s.square = 1.0F / ::sqrtf(s.square + kNormFloor);
  });
  for (std::int32_t centre0 = 0; centre0 < p.clusters; centre0 += kTileKeys) {
    Tile::run(
        block, shared, p.in, [&](int i) { return p.row0 + base + i; }, rowCount, centre0, p.clusters);
    block.each([&](int t, auto& s) {
      const float* const scores = shared.score + t / kLanes * kScoreStride;
      for (int c = t % kLanes; c < kTileKeys && centre0 + c < p.clusters; c += kLanes) {
        float value = scores[c];
        if (p.nearness == Nearness::Euclid) {
          const float distance = fmaOf(-2.0F, value, s.square + p.centreSquares[centre0 + c]);
          value = -maxOf(0.0F, distance);
        } else if (p.nearness == Nearness::Cosine) {
          value *= s.square * (1.0F / ::sqrtf(p.centreSquares[centre0 + c] + kNormFloor));
        }
        // A lane sees its centroids in ascending order: the first of equals stays.
        if (value > s.best.value) s.best = {value, centre0 + c};
      }
    });
    block.sync();
  }
  block.mergeLanes([](auto& s) -> Best& { return s.best; },
                   [](const Best& a, const Best& b) {
                     return b.value > a.value || (b.value == a.value && b.label < a.label) ? b : a;
                   });
  block.each([&](int t, auto& s) {
    const int row = t / kLanes;
    if (t % kLanes != 0 || row >= rowCount) return;
    // Nothing compares with NaN: such a point goes to the first centroid.
    p.labels[base + row] = s.best.label < p.clusters ? s.best.label : 0;
    p.nearest[base + row] = p.nearness == Nearness::Euclid ? 0.0F - s.best.value : s.best.value;
  });
}

struct MeansParams {
  const void* points;  ///< [., depth]
  std::int32_t depth;
  std::int32_t dim;                 ///< at most kThreads
  const std::int32_t* members;      ///< rows of the points, side by side per cluster, ascending
  const std::int32_t* memberFirst;  ///< [clusters + 1]
  float* means;                     ///< [clusters, dim]; of a cluster without members left as it was
};
struct MeansState {};

/// Block x: one cluster; one thread per column.
template <class T, class Block>
SPARSIGHT_DEVICE void meansBody(Block& block, const MeansParams& p) {
  const std::int32_t first = p.memberFirst[block.x()];
  const std::int32_t last = p.memberFirst[block.x() + 1];
  if (first == last) return;
  block.each([&](int t, auto&) {
    if (t >= p.dim) return;
    const T* const column = static_cast<const T*>(p.points) + t;
    double sum = 0;
    SPARSIGHT_UNROLL_BY_8
    for (std::int32_t n = first; n < last; ++n) {
      sum += static_cast<double>(toFloat(column[static_cast<std::int64_t>(p.members[n]) * p.depth]));
    }
    p.means[static_cast<std::int64_t>(block.x()) * p.dim + t] =
        static_cast<float>(sum * (1.0 / static_cast<double>(last - first)));
  });
}

}  // namespace sparsight::cuda

// SPDX-License-Identifier: Apache-2.0
#pragma once

// One round of k-means for the heads of a layer at once: every point against every centroid in 64 x 64 tiles, the
// nearest kept on the way; a stable counting sort puts the members of each cluster side by side; then one block per
// cluster adds its members in double, in the order of the points. Block y is a head's place in the launch.

#include "cuda/score_rows.h"

namespace sparsight::cuda {

/// Heads of one launch: their parameters travel with it (at most 4 KiB do).
inline constexpr int kMostTasks = 32;
template <class Params>
struct Batch {
  Params tasks[kMostTasks];
};

struct SpreadParams {
  const float* rows;  ///< [count, dim]
  std::int32_t count, dim, depth;
  float* padded;         ///< [count, depth], zeros behind dim
  std::uint16_t* parts;  ///< [count, 3 depth] the same as three bfloat16 numbers each (see splitFloat); or null
};
struct SpreadState {};

/// Rows of float32 as they are multiplied. Block x: kThreads elements.
template <class Block>
SPARSIGHT_DEVICE void spreadBody(Block& block, const SpreadParams& p) {
  block.each([&](int t, auto&) {
    const std::int64_t i = static_cast<std::int64_t>(block.x()) * kThreads + t;
    const std::int64_t row = i / p.depth;
    const std::int64_t column = i % p.depth;
    if (row >= p.count) return;
    const float value = column < p.dim ? p.rows[row * p.dim + column] : 0.0F;
    p.padded[i] = value;
    if (p.parts == nullptr) return;
    std::uint16_t parts[3];
    splitFloat(value, parts);
    SPARSIGHT_UNROLL
    for (int n = 0; n < 3; ++n) p.parts[(row * 3 + n) * p.depth + column] = parts[n];
  });
}

/// Scores of all keys in one block: profiles of points.
template <class Tile, class Block>
SPARSIGHT_DEVICE void profilesBody(Block& block, typename Tile::Shared& shared, const ScoreRowsParams& p) {
  if (static_cast<std::int64_t>(block.x()) * kTileRows >= p.rowCount) return;
  scoreRowsBody<Tile>(block, shared, p, 0);
}

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
  if (static_cast<std::int64_t>(block.x()) * kTileRows >= p.rowCount) return;
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
  if (static_cast<std::int64_t>(block.x()) * kTileRows >= p.rowCount) return;
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
    block.sync();  // formal: the next tile has one before it writes
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

// --- Members side by side
// ----------------------------------------------------------------------------------------------

/// Points of one block of the counting sort.
inline constexpr int kSegment = 4 * kThreads;
constexpr std::int32_t segmentsOf(Index points) {
  return static_cast<std::int32_t>((points + kSegment - 1) / kSegment);
}

struct SortParams {
  const std::int32_t* labels;  ///< [count]
  std::int32_t count, clusters;
  std::uint32_t* segments;    ///< [segmentsOf(count), clusters] members, then how many earlier segments hold
  std::int32_t* memberFirst;  ///< [clusters + 1]
  std::int32_t* members;      ///< [count] points side by side per cluster, ascending
};
struct SortState {
  Counter a, b;
  std::int32_t label;
  std::uint32_t next;
};
struct SortShared {
  Counter scan[2][kThreads];
  std::int32_t label[kThreads];
};

/// Block x: one segment. Counts its members of every cluster.
template <class Block>
SPARSIGHT_DEVICE void countBody(Block& block, const SortParams& p) {
  const std::int64_t first = static_cast<std::int64_t>(block.x()) * kSegment;
  if (first >= p.count) return;
  std::uint32_t* const counts = p.segments + static_cast<std::int64_t>(block.x()) * p.clusters;
  block.each([&](int t, auto&) {
    for (std::int32_t c = t; c < p.clusters; c += kThreads) counts[c] = 0;
  });
  block.sync();
  block.each([&](int t, auto&) {
    for (std::int64_t i = first + t; i < first + kSegment && i < p.count; i += kThreads) {
      addAtomic(&counts[p.labels[i]], 1);
    }
  });
}

/// Block x: kThreads clusters. Turns counts of segments into what lies before each, and leaves the sizes of the
/// clusters in memberFirst[1 ..].
template <class Block>
SPARSIGHT_DEVICE void segmentsBody(Block& block, const SortParams& p) {
  const std::int32_t segments = segmentsOf(p.count);
  block.each([&](int t, auto&) {
    const std::int64_t c = static_cast<std::int64_t>(block.x()) * kThreads + t;
    if (c >= p.clusters) return;
    std::uint32_t before = 0;
    for (std::int32_t n = 0; n < segments; ++n) {
      std::uint32_t& count = p.segments[static_cast<std::int64_t>(n) * p.clusters + c];
      const std::uint32_t own = count;
      count = before;
      before += own;
    }
    p.memberFirst[c + 1] = static_cast<std::int32_t>(before);
  });
}

/// One block. Running sums of the sizes in memberFirst.
template <class Block>
SPARSIGHT_DEVICE void firstMembersBody(Block& block, SortShared& shared, const SortParams& p) {
  const std::int32_t each = (p.clusters + kThreads - 1) / kThreads;
  block.each([&](int t, auto&) {
    Counter own = 0;
    const std::int32_t last = minOf((t + 1) * each, p.clusters);
    for (std::int32_t c = t * each; c < last; ++c) own += static_cast<Counter>(p.memberFirst[c + 1]);
    shared.scan[0][t] = own;
    shared.scan[1][t] = 0;
  });
  block.sync();
  scanOfBlock(block, shared);
  block.each([&](int t, auto&) {
    Counter before = t > 0 ? shared.scan[0][t - 1] : 0;
    if (t == 0) p.memberFirst[0] = 0;
    const std::int32_t last = minOf((t + 1) * each, p.clusters);
    for (std::int32_t c = t * each; c < last; ++c) {
      before += static_cast<Counter>(p.memberFirst[c + 1]);
      p.memberFirst[c + 1] = static_cast<std::int32_t>(before);
    }
  });
}

/// Block x: one segment. Every point takes the next place of its cluster, in the order of the points.
template <class Block>
SPARSIGHT_DEVICE void membersBody(Block& block, SortShared& shared, const SortParams& p) {
  const std::int64_t first = static_cast<std::int64_t>(block.x()) * kSegment;
  if (first >= p.count) return;
  std::uint32_t* const before = p.segments + static_cast<std::int64_t>(block.x()) * p.clusters;
  for (std::int64_t base = first; base < first + kSegment && base < p.count; base += kThreads) {
    block.each([&](int t, auto& s) {
      s.label = base + t < p.count ? p.labels[base + t] : -1;
      shared.label[t] = s.label;
    });
    block.sync();
    block.each([&](int t, auto& s) {
      if (s.label < 0) return;
      std::uint32_t rank = 0;
      std::uint32_t all = 0;
      SPARSIGHT_UNROLL_BY_8
      for (int i = 0; i < kThreads; ++i) {
        const std::uint32_t same = shared.label[i] == s.label ? 1 : 0;
        all += same;
        rank += i < t ? same : 0;
      }
      const std::uint32_t place = before[s.label] + rank;
      p.members[p.memberFirst[s.label] + static_cast<std::int32_t>(place)] = static_cast<std::int32_t>(base + t);
      // The last of these moves the place on, once all have read it.
      s.next = rank + 1 == all ? place + 1 : 0;
    });
    block.sync();
    block.each([&](int, auto& s) {
      if (s.label >= 0 && s.next != 0) before[s.label] = s.next;
    });
  }
}

struct MeansParams {
  const void* points;  ///< [., depth]
  std::int32_t depth;
  std::int32_t dim;                 ///< at most kThreads
  const std::int32_t* members;      ///< rows of the points, side by side per cluster, ascending
  const std::int32_t* memberFirst;  ///< [clusters + 1]
  std::int32_t clusters;
  float* means;  ///< [clusters, dim]; of a cluster without members left as it was
};
struct MeansState {};

/// Block x: one cluster; one thread per column.
template <class T, class Block>
SPARSIGHT_DEVICE void meansBody(Block& block, const MeansParams& p) {
  if (block.x() >= p.clusters) return;
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

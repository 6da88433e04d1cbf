// SPDX-License-Identifier: Apache-2.0
#pragma once

// The 64 x 64 tile of q.k that every portable kernel starts from: fp32 arithmetic on exactly converted elements, so
// that float16 and bfloat16 inputs lose nothing, on any GPU from compute capability 7.5.

#include "cuda/block.h"

namespace sparsight::cuda {

inline constexpr int kTileRows = 64;
inline constexpr int kTileKeys = 64;
/// Elements of the head dimension per shared-memory stage; device rows are zero-padded to a multiple of it.
inline constexpr int kDepth = 16;
/// Row stride of the score tile: 4 modulo 32 banks, so that 8 rows x 4 lanes of a warp hit 32 banks.
inline constexpr int kScoreStride = kTileKeys + 4;
/// Row stride of the transposed operand stages; a multiple of 4 keeps 16-byte reads aligned.
inline constexpr int kStageStride = kTileRows + 4;

/// Elements of a device row of a matrix with `cols` columns.
constexpr int paddedCols(Index cols) { return static_cast<int>((cols + kDepth - 1) / kDepth * kDepth); }

/// q and k as they lie in device memory: [rows, depth], depth a multiple of kDepth.
struct Operands {
  const void* q;
  const void* k;
  std::int32_t depth;
};

struct alignas(16) ScoreShared {
  float q[2][kDepth][kStageStride];
  float k[2][kDepth][kStageStride];
  float score[kTileRows * kScoreStride];
};

/// Registers of one thread: a 4 x 4 patch of the tile, and the operands in flight for the next stage.
struct ScoreState {
  float acc[4][4];
  Float4 nextQ;
  Float4 nextK;
};

// Rows and keys past the end read as zeros: no access outside the allocation, and no NaN from stale memory.
template <class T>
SPARSIGHT_DEVICE Float4 loadOperand(const void* base, std::int32_t row, bool inside, std::int32_t depth, int column) {
  if (!inside) return {{0.0F, 0.0F, 0.0F, 0.0F}};
  return loadFour(static_cast<const T*>(base) + static_cast<std::int64_t>(row) * depth + column);
}

// Transposed, so that the product reads 4 neighbouring rows at one depth as one 16-byte access.
SPARSIGHT_DEVICE void stageOperand(float (&stage)[kDepth][kStageStride], int row, int column, const Float4& value) {
  SPARSIGHT_UNROLL
  for (int i = 0; i < 4; ++i) stage[column + i][row] = value.v[i];
}

/// score[i][j] = q[rowOf(i)] . k[key0 + j] for i < rowCount, key0 + j < keyEnd; zeros elsewhere. `score` is complete
/// for all threads when this returns; a barrier lies between any earlier reading of it and this writing. rowOf(i): the
/// query row of tile row i (called for i < rowCount only).
template <class T, class Block, class RowOf>
SPARSIGHT_DEVICE void scoreTile(Block& block, ScoreShared& shared, const Operands& in, RowOf rowOf, int rowCount,
                                std::int32_t key0, std::int32_t keyEnd) {
  const int stages = in.depth / kDepth;
  block.each([&](int t, auto& s) {
    SPARSIGHT_UNROLL
    for (int i = 0; i < 4; ++i) {
      SPARSIGHT_UNROLL
      for (int j = 0; j < 4; ++j) s.tile.acc[i][j] = 0.0F;
    }
    const int row = t / kLanes;
    const int column = t % kLanes * 4;
    const bool rowInside = row < rowCount;
    stageOperand(shared.q[0], row, column,
                 loadOperand<T>(in.q, rowInside ? rowOf(row) : 0, rowInside, in.depth, column));
    stageOperand(shared.k[0], row, column, loadOperand<T>(in.k, key0 + row, key0 + row < keyEnd, in.depth, column));
  });
  block.sync();
  for (int stage = 0; stage < stages; ++stage) {
    const int buffer = stage % 2;
    const bool more = stage + 1 < stages;
    block.each([&](int t, auto& s) {
      const int row = t / kLanes;
      const int column = t % kLanes * 4;
      if (more) {
        // In flight while the current stage is multiplied.
        const int next = (stage + 1) * kDepth + column;
        const bool rowInside = row < rowCount;
        s.tile.nextQ = loadOperand<T>(in.q, rowInside ? rowOf(row) : 0, rowInside, in.depth, next);
        s.tile.nextK = loadOperand<T>(in.k, key0 + row, key0 + row < keyEnd, in.depth, next);
      }
      const int tileRow = t / 16 * 4;
      const int tileKey = t % 16 * 4;
      SPARSIGHT_UNROLL
      for (int e = 0; e < kDepth; ++e) {
        const Float4 a = loadShared(&shared.q[buffer][e][tileRow]);
        const Float4 b = loadShared(&shared.k[buffer][e][tileKey]);
        SPARSIGHT_UNROLL
        for (int i = 0; i < 4; ++i) {
          SPARSIGHT_UNROLL
          for (int j = 0; j < 4; ++j) s.tile.acc[i][j] += a.v[i] * b.v[j];
        }
      }
      if (more) {
        // The other buffer was last read before the previous barrier.
        stageOperand(shared.q[1 - buffer], row, column, s.tile.nextQ);
        stageOperand(shared.k[1 - buffer], row, column, s.tile.nextK);
      }
    });
    if (more) block.sync();
  }
  block.each([&](int t, auto& s) {
    const int tileRow = t / 16 * 4;
    const int tileKey = t % 16 * 4;
    SPARSIGHT_UNROLL
    for (int i = 0; i < 4; ++i) {
      storeShared(&shared.score[(tileRow + i) * kScoreStride + tileKey],
                  {{s.tile.acc[i][0], s.tile.acc[i][1], s.tile.acc[i][2], s.tile.acc[i][3]}});
    }
  });
  block.sync();
}

}  // namespace sparsight::cuda

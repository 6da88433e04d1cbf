// SPDX-License-Identifier: Apache-2.0
#pragma once

// The 64 x 64 tile of q.k that every kernel starts from. PortableTile: fp32 arithmetic on exactly converted elements,
// on any GPU from compute capability 7.5. MmaTile: tensor cores (from 8.0) for float16 and bfloat16, whose products are
// exact in fp32 and are summed in fp32; only the order of the sums differs. Nothing is rounded again on either path,
// and float32 input never takes the second.

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
/// Elements of a stage on the tensor-core path, and its row stride in 32-bit words: 20, so that the 8 rows x 4 words
/// which a warp reads at once hit 32 banks.
inline constexpr int kMmaDepth = 32;
inline constexpr int kMmaStride = 20;

/// Elements of a device row of a matrix with `cols` columns.
constexpr int paddedCols(Index cols) { return static_cast<int>((cols + kDepth - 1) / kDepth * kDepth); }

/// q and k as they lie in device memory: q [rows, depth] and k [rows, repeats x depth], depth a multiple of kDepth. The
/// tile is the sum over the `repeats` parts of k's rows (1 but for numbers that were split into several).
struct Operands {
  const void* q;
  const void* k;
  std::int32_t depth;
  std::int32_t repeats;
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

/// TQ, TK: element types of q and k.
template <class TQ, class TK = TQ>
struct PortableTile {
  struct alignas(16) Shared {
    float q[2][kDepth][kStageStride];
    float k[2][kDepth][kStageStride];
    float score[kTileRows * kScoreStride];
  };
  /// Registers of one thread: a 4 x 4 patch of the tile, and the operands in flight for the next stage.
  struct State {
    float acc[4][4];
    Float4 nextQ;
    Float4 nextK;
  };

  /// score[i][j] = q[rowOf(i)] . k[key0 + j] for i < rowCount, key0 + j < keyEnd; zeros elsewhere. `score` is complete
  /// for all threads when this returns; a barrier lies between any earlier reading of it and this writing. rowOf(i):
  /// the query row of tile row i (called for i < rowCount only). Every score depends on the two rows' contents only,
  /// never on their places in the tile.
  template <class Block, class RowOf>
  static SPARSIGHT_DEVICE void run(Block& block, Shared& shared, const Operands& in, RowOf rowOf, int rowCount,
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
                   loadOperand<TQ>(in.q, rowInside ? rowOf(row) : 0, rowInside, in.depth, column));
      stageOperand(shared.k[0], row, column, loadOperand<TK>(in.k, key0 + row, key0 + row < keyEnd, in.depth, column));
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
          s.tile.nextQ = loadOperand<TQ>(in.q, rowInside ? rowOf(row) : 0, rowInside, in.depth, next);
          s.tile.nextK = loadOperand<TK>(in.k, key0 + row, key0 + row < keyEnd, in.depth, next);
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
            for (int j = 0; j < 4; ++j) s.tile.acc[i][j] = fmaOf(a.v[i], b.v[j], s.tile.acc[i][j]);
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
};

/// Eight 16-bit elements, as they lie in memory.
struct alignas(16) Words4 {
  std::uint32_t w[4];
};

/// T: HalfBits or Bf16Bits. Warp w makes rows 16 (w / 2) and keys 32 (w % 2) of the tile.
template <class T>
struct MmaTile {
  struct alignas(16) Shared {
    std::uint32_t q[2][kTileRows][kMmaStride];
    std::uint32_t k[2][kTileKeys][kMmaStride];
    float score[kTileRows * kScoreStride];
  };
  struct State {
    MmaFragments part;
    Words4 nextQ;
    Words4 nextK;
  };

  /// As PortableTile::run.
  template <class Block, class RowOf>
  static SPARSIGHT_DEVICE void run(Block& block, Shared& shared, const Operands& in, RowOf rowOf, int rowCount,
                                   std::int32_t key0, std::int32_t keyEnd) {
    const int whole = in.depth * in.repeats;
    const int stages = (whole + kMmaDepth - 1) / kMmaDepth;
    const auto fetch = [&](int t, auto& s, int stage) {
      const int row = t / kLanes;
      // Eight elements never cross the end of a part: parts are multiples of 16.
      const int column = stage * kMmaDepth + t % kLanes * 8;
      s.tile.nextQ =
          load(in.q, row < rowCount && column < whole, row < rowCount ? rowOf(row) : 0, in.depth, column % in.depth);
      s.tile.nextK = load(in.k, key0 + row < keyEnd && column < whole, key0 + row, whole, column);
    };
    const auto stash = [&](int t, const auto& s, int buffer) {
      store(&shared.q[buffer][t / kLanes][t % kLanes * 4], s.tile.nextQ);
      store(&shared.k[buffer][t / kLanes][t % kLanes * 4], s.tile.nextK);
    };
    block.each([&](int t, auto& s) {
      SPARSIGHT_UNROLL
      for (int n = 0; n < 4; ++n) {
        SPARSIGHT_UNROLL
        for (int i = 0; i < 4; ++i) s.tile.part.acc[n][i] = 0.0F;
      }
      fetch(t, s, 0);
      stash(t, s, 0);
    });
    block.sync();
    for (int stage = 0; stage < stages; ++stage) {
      const int buffer = stage % 2;
      const bool more = stage + 1 < stages;
      if (more) {
        block.each([&](int t, auto& s) { fetch(t, s, stage + 1); });
      }
      SPARSIGHT_UNROLL
      for (int step = 0; step < kMmaDepth / 16; ++step) {
        block.each([&](int t, auto& s) {
          const int lane = t % 32;
          const int word = step * 8 + lane % 4;
          const std::uint32_t* const q = shared.q[buffer][t / 64 * 16 + lane / 4] + word;
          const std::uint32_t* const k = shared.k[buffer][t / 32 % 2 * 32 + lane / 4] + word;
          SPARSIGHT_UNROLL
          for (int i = 0; i < 4; ++i) s.tile.part.a[i] = q[i % 2 * 8 * kMmaStride + i / 2 * 4];
          SPARSIGHT_UNROLL
          for (int n = 0; n < 4; ++n) {
            SPARSIGHT_UNROLL
            for (int i = 0; i < 2; ++i) s.tile.part.b[n][i] = k[n * 8 * kMmaStride + i * 4];
          }
        });
        block.template multiply<T>([](auto& s) -> MmaFragments& { return s.tile.part; });
      }
      if (more) {
        // The other buffer was last read before the previous barrier.
        block.each([&](int t, auto& s) { stash(t, s, 1 - buffer); });
        block.sync();
      }
    }
    block.each([&](int t, auto& s) {
      const int lane = t % 32;
      float* const to = shared.score + (t / 64 * 16 + lane / 4) * kScoreStride + t / 32 % 2 * 32 + lane % 4 * 2;
      SPARSIGHT_UNROLL
      for (int n = 0; n < 4; ++n) {
        SPARSIGHT_UNROLL
        for (int i = 0; i < 4; ++i) to[i / 2 * 8 * kScoreStride + n * 8 + i % 2] = s.tile.part.acc[n][i];
      }
    });
    block.sync();
  }

 private:
  static SPARSIGHT_DEVICE Words4 load(const void* base, bool inside, std::int32_t row, std::int32_t width, int column) {
    if (!inside) return {{0U, 0U, 0U, 0U}};
    const T* const from = static_cast<const T*>(base) + static_cast<std::int64_t>(row) * width + column;
#ifdef __CUDACC__
    return *reinterpret_cast<const Words4*>(from);
#else
    Words4 out;
    std::memcpy(&out, from, sizeof out);
    return out;
#endif
  }
  static SPARSIGHT_DEVICE void store(std::uint32_t* to, const Words4& value) {
#ifdef __CUDACC__
    *reinterpret_cast<Words4*>(to) = value;
#else
    std::memcpy(to, &value, sizeof value);
#endif
  }
};

/// The tile of a head of type T, on tensor cores or not.
template <class T, bool kMma>
struct ChooseTile {
  using Type = PortableTile<T>;
};
template <class T>
struct ChooseTile<T, true> {
  using Type = MmaTile<T>;
};
template <class T, bool kMma>
using TileOf = typename ChooseTile<T, kMma>::Type;

}  // namespace sparsight::cuda

// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention of listed query rows over exact key intervals or over each row's largest scores, renormalised over the kept
// keys: streaming softmax over 64-key tiles; a tile that no row of the block keeps is not computed.

#include "cuda/pooled_map.h"

namespace sparsight::cuda {

/// Rows of v whose key is not valid become zeros.
struct ClearValuesParams {
  void* v;
  const std::uint8_t* keyValid;  ///< [rowCount]
  std::int32_t rowCount;
  std::int32_t rowUnits;  ///< 16-byte units of a row
};
struct ClearValuesState {};

/// Block x: 64 rows, four lanes each.
template <class Block>
SPARSIGHT_DEVICE void clearValuesBody(Block& block, const ClearValuesParams& p) {
  block.each([&](int t, auto&) {
    const std::int32_t row = block.x() * kTileRows + t / kLanes;
    if (row >= p.rowCount || p.keyValid[row] != 0) return;
    Words4* const to = static_cast<Words4*>(p.v) + static_cast<std::int64_t>(row) * p.rowUnits;
    for (std::int32_t i = t % kLanes; i < p.rowUnits; i += kLanes) to[i] = {{0U, 0U, 0U, 0U}};
  });
}

struct AttendParams {
  Operands in;
  Validity validity;  ///< mask rows are positions in this launch's list
  const void* v;      ///< [Nk, vCols], vCols a multiple of kDepth; unused when the output width is 0
  std::int32_t vCols;
  std::int32_t keyCount;
  const std::int32_t* rows;  ///< [rowCount] query rows of this launch
  std::int32_t rowCount;
  const std::int64_t* keepFirst;  ///< [rowCount] first interval of each row; null: all keys are kept
  const std::int64_t* keepLast;   ///< [rowCount] one past the last
  const std::int32_t* intervals;  ///< pairs first, last: sorted, disjoint, non-empty
  const float* cut;             ///< [rowCount] kept: cutSign * q.k above it, or equal and key <= lastTie; null: no cut
  float cutSign;                ///< as the scores that the cut was found in: 0 for a scale of 0, where all keys tie
  const std::int32_t* lastTie;  ///< [rowCount]
  float sign;
  float exponentScale;
  double absScale;
  float* out;           ///< [rowCount, vCols]
  float* lse;           ///< [rowCount] natural log over the kept keys; -inf: none
  std::int64_t* count;  ///< [rowCount]
};

/// Keys of one stage of V.
inline constexpr int kValueKeys = 16;
/// Floats of a stage of V, and columns of a thread: at least 4 and 1, as arrays cannot be empty.
constexpr std::size_t stageFloats(int width) { return static_cast<std::size_t>(kValueKeys * (width > 0 ? width : 4)); }
constexpr std::size_t threadCols(int width) { return width > 0 ? static_cast<std::size_t>(width) / 16 : 1; }

template <int kWidth>
struct ValueStage {
  float stage[stageFloats(kWidth)];
};

template <class Tile, int kWidth>
struct AttendShared {
  // The stages of q and k are free while V is multiplied; one 16-key stage of V fits into them up to width 256.
  union {
    typename Tile::Shared scores;
    ValueStage<kWidth> value;
  };
  float rowScale[kTileRows];
};

template <class Tile, int kWidth>
struct AttendState {
  typename Tile::State tile;
  Partial part;  ///< this lane's share of the row, relative to the row's running maximum
  float rowMax;
  std::int64_t cursor;  ///< first interval of the row that ends behind the current tile's start
  std::int64_t cursorEnd;
  float acc[4][threadCols(kWidth)];
};

/// Block x: 64 listed rows. T: type of V; kWidth: its padded columns (0, 64, 128 or 256).
template <class T, class Tile, int kWidth, class Block>
SPARSIGHT_DEVICE void attendBody(Block& block, AttendShared<Tile, kWidth>& shared, const AttendParams& p) {
  static_assert(sizeof(shared.value) <= sizeof(shared.scores.q) + sizeof(shared.scores.k),
                "the V stage must not reach the probabilities");
  const std::int32_t listBase = block.x() * kTileRows;
  const int rowCount = minOf(kTileRows, p.rowCount - listBase);
  block.each([&](int t, auto& s) {
    const int row = t / kLanes;
    s.part = {0.0F, 0.0F, 0};
    s.rowMax = negativeInfinity();
    s.cursor = 0;
    s.cursorEnd = 0;
    if (p.keepFirst != nullptr && row < rowCount) {
      s.cursor = p.keepFirst[listBase + row];
      s.cursorEnd = p.keepLast[listBase + row];
    }
    SPARSIGHT_UNROLL
    for (int i = 0; i < 4; ++i) {
      SPARSIGHT_UNROLL
      for (std::size_t j = 0; j < threadCols(kWidth); ++j) s.acc[i][j] = 0.0F;
    }
  });
  for (std::int32_t key0 = 0; key0 < p.keyCount; key0 += kTileKeys) {
    const std::int32_t tileEnd = minOf(key0 + kTileKeys, p.keyCount);
    if (p.keepFirst != nullptr) {
      const bool wanted = block.any([&](int, auto& s) {
        while (s.cursor < s.cursorEnd && p.intervals[2 * s.cursor + 1] <= key0) ++s.cursor;
        return s.cursor < s.cursorEnd && p.intervals[2 * s.cursor] < tileEnd;
      });
      if (!wanted) continue;
    }
    Tile::run(
        block, shared.scores, p.in, [&](int i) { return p.rows[listBase + i]; }, rowCount, key0, p.keyCount);
    // Mark what is not kept, find the row's maximum.
    block.each([&](int t, auto& s) {
      const int row = t / kLanes;
      float* scores = shared.scores.score + row * kScoreStride;
      std::int64_t cursor = s.cursor;
      float max = s.rowMax;
      for (int c = t % kLanes; c < kTileKeys; c += kLanes) {
        const std::int32_t key = key0 + c;
        bool kept = row < rowCount && key < tileEnd;
        if (kept && p.keepFirst != nullptr) {
          while (cursor < s.cursorEnd && p.intervals[2 * cursor + 1] <= key) ++cursor;
          kept = cursor < s.cursorEnd && p.intervals[2 * cursor] <= key;
        }
        if (kept && p.cut != nullptr) {
          const float score = p.cutSign * scores[c];
          kept = score > p.cut[listBase + row] || (score == p.cut[listBase + row] && key <= p.lastTie[listBase + row]);
        }
        if (kept) kept = p.validity.allows(listBase + row, key);
        if (kept) {
          ++s.part.count;
          max = maxOf(max, p.sign * scores[c]);
        } else {
          scores[c] = -p.sign * HUGE_VALF;
        }
      }
      s.part.max = max;
    });
    block.maxOfLanes([](auto& s) -> float& { return s.part.max; });
    block.each([&](int t, auto& s) {
      const int row = t / kLanes;
      float* scores = shared.scores.score + row * kScoreStride;
      const float max = s.part.max;
      // No kept key so far: nothing to rescale, every probability of this tile is 0.
      const bool none = max == negativeInfinity();
      const float rescale = none || s.rowMax == negativeInfinity() ? 0.0F : exp2Of((s.rowMax - max) * p.exponentScale);
      float sum = s.part.sum * rescale;
      for (int c = t % kLanes; c < kTileKeys; c += kLanes) {
        const float score = p.sign * scores[c];
        const bool masked = score == negativeInfinity();
        const float probability = masked ? 0.0F : exp2Of((score - max) * p.exponentScale);
        scores[c] = probability;
        sum += probability;
      }
      s.part.sum = sum;
      s.rowMax = max;
      if (t % kLanes == 0) shared.rowScale[row] = rescale;
    });
    block.sync();
    if constexpr (kWidth > 0) {
      block.each([&](int t, auto& s) {
        SPARSIGHT_UNROLL
        for (int i = 0; i < 4; ++i) {
          const float rescale = shared.rowScale[t / 16 * 4 + i];
          SPARSIGHT_UNROLL
          for (int j = 0; j < kWidth / 16; ++j) s.acc[i][j] *= rescale;
        }
      });
      for (int stage = 0; stage < kTileKeys; stage += kValueKeys) {
        block.each([&](int t, auto&) {
          constexpr int kFours = kWidth / 4;
          SPARSIGHT_UNROLL
          for (int i = 0; i < kValueKeys * kFours / kThreads; ++i) {
            const int item = t + i * kThreads;
            const int key = item / kFours;
            const int column = item % kFours * 4;
            const std::int32_t at = key0 + stage + key;
            // A padding key may hold anything, and 0 x NaN is NaN.
            const bool inside =
                at < p.keyCount && column < p.vCols && (p.validity.keyValid == nullptr || p.validity.keyValid[at] != 0);
            storeShared(&shared.value.stage[key * kWidth + column], loadOperand<T>(p.v, at, inside, p.vCols, column));
          }
        });
        block.sync();
        block.each([&](int t, auto& s) {
          const float* scores = shared.scores.score + t / 16 * 4 * kScoreStride + stage;
          const float* values = shared.value.stage + t % 16 * 4;
          SPARSIGHT_UNROLL
          for (int e = 0; e < kValueKeys; e += 4) {
            Float4 probability[4];
            SPARSIGHT_UNROLL
            for (int i = 0; i < 4; ++i) probability[i] = loadShared(scores + i * kScoreStride + e);
            SPARSIGHT_UNROLL
            for (int k = 0; k < 4; ++k) {
              SPARSIGHT_UNROLL
              for (int j = 0; j < kWidth / 64; ++j) {
                const Float4 value = loadShared(values + (e + k) * kWidth + j * 64);
                SPARSIGHT_UNROLL
                for (int i = 0; i < 4; ++i) {
                  SPARSIGHT_UNROLL
                  for (int c = 0; c < 4; ++c) s.acc[i][j * 4 + c] += probability[i].v[k] * value.v[c];
                }
              }
            }
          }
        });
        block.sync();
      }
    }
  }
  block.each([&](int, auto& s) { s.part.max = 0.0F; });
  block.mergeLanes([](auto& s) -> Partial& { return s.part; },
                   [](const Partial& a, const Partial& b) {
                     return Partial{0.0F, a.sum + b.sum, a.count + b.count};
                   });
  block.each([&](int t, auto& s) {
    const int row = t / kLanes;
    if (t % kLanes != 0) return;
    shared.rowScale[row] = s.part.count > 0 ? 1.0F / s.part.sum : 0.0F;
    if (row >= rowCount) return;
    p.count[listBase + row] = s.part.count;
    p.lse[listBase + row] =
        s.part.count > 0
            ? static_cast<float>(static_cast<double>(s.rowMax) * p.absScale + ::log(static_cast<double>(s.part.sum)))
            : negativeInfinity();
  });
  block.sync();
  if constexpr (kWidth > 0) {
    block.each([&](int t, auto& s) {
      SPARSIGHT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int row = t / 16 * 4 + i;
        SPARSIGHT_UNROLL
        for (int j = 0; j < kWidth / 64; ++j) {
          SPARSIGHT_UNROLL
          for (int c = 0; c < 4; ++c) {
            const int column = j * 64 + t % 16 * 4 + c;
            if (row < rowCount && column < p.vCols) {
              p.out[static_cast<std::int64_t>(listBase + row) * p.vCols + column] =
                  s.acc[i][j * 4 + c] * shared.rowScale[row];
            }
          }
        }
      }
    });
  }
}

}  // namespace sparsight::cuda

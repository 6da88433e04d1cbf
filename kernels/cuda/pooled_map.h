// SPDX-License-Identifier: Apache-2.0
#pragma once

// Row LSE and pooled probabilities in one pass over the scores. The keys are cut into sub-blocks (never across an edge
// of the caller's column partition). Per row and sub-block the pass keeps (largest score, sum of exponentials relative
// to it): since each pair has its own reference, nothing is rescaled later, key ranges may run in different blocks, and
// the row LSE and every cell follow from the pairs by merging in a fixed order. V is never read, N x N never stored.

#include "cuda/score_tile.h"

namespace sparsight::cuda {

/// What may be attended: both null = everything. Shared by all operations.
struct Validity {
  const std::uint8_t* keyValid;  ///< [Nk]
  const std::uint8_t* mask;      ///< [rows of the launch, maskStride], first column = key maskKey0
  std::int64_t maskStride;
  std::int32_t maskKey0;

  [[nodiscard]] SPARSIGHT_DEVICE bool allows(std::int32_t launchRow, std::int32_t key) const {
    if (keyValid != nullptr && keyValid[key] == 0) return false;
    return mask == nullptr || mask[launchRow * maskStride + (key - maskKey0)] != 0;
  }
};

struct PartialsParams {
  Operands in;
  Validity validity;
  std::int32_t row0, rowEnd;      ///< query rows of this launch
  std::int32_t keyRows;           ///< rows of k
  const std::int32_t* subBounds;  ///< [subCount + 1] key edges, strictly increasing
  const std::int32_t* splitPtr;   ///< block y runs sub-blocks [splitPtr[y], splitPtr[y + 1])
  std::int32_t subCount;
  float sign;               ///< -1 for a negative softmax scale: the largest logit is then the smallest q.k
  float exponentScale;      ///< |scale| log2(e)
  float* partMax;           ///< [rowEnd - row0, subCount] largest sign * q.k
  float* partSum;           ///< same shape
  std::int32_t* partCount;  ///< same shape; null without a dense mask (then counts are those of the keys)
};

template <class Tile>
struct PartialsState {
  typename Tile::State tile;
  Partial part;
};

// Adds the columns [first, last) of the tile that belong to this lane. The largest first, so that a segment costs one
// rescale, and one exponential per score.
SPARSIGHT_DEVICE void addSegment(Partial& part, const float* scores, int first, int last, int lane, std::int32_t row,
                                 std::int32_t key0, const PartialsParams& p) {
  const int start = first + ((lane - first) & (kLanes - 1));
  float max = part.max;
  unsigned valid = 0;
  int count = 0;
  unsigned bit = 1;
  for (int c = start; c < last; c += kLanes, bit <<= 1U) {
    if (!p.validity.allows(row, key0 + c)) continue;
    max = maxOf(max, p.sign * scores[c]);
    valid |= bit;
    ++count;
  }
  if (count == 0) return;
  float sum = part.count == 0 ? 0.0F : part.sum * exp2Of((part.max - max) * p.exponentScale);
  bit = 1;
  for (int c = start; c < last; c += kLanes, bit <<= 1U) {
    if ((valid & bit) != 0) sum += exp2Of((p.sign * scores[c] - max) * p.exponentScale);
  }
  part = {max, sum, part.count + count};
}

/// Block x: rows [row0 + 64 x, ...), block y: one split of the sub-blocks.
template <class Tile, class Block>
SPARSIGHT_DEVICE void partialsBody(Block& block, typename Tile::Shared& shared, const PartialsParams& p) {
  const std::int32_t rowBase = p.row0 + block.x() * kTileRows;
  const int rowCount = minOf(kTileRows, p.rowEnd - rowBase);
  std::int32_t sub = p.splitPtr[block.y()];
  const std::int32_t keyBegin = p.subBounds[sub];
  const std::int32_t keyEnd = p.subBounds[p.splitPtr[block.y() + 1]];
  block.each([&](int, auto& s) { s.part = Partial::none(); });
  for (std::int32_t key0 = keyBegin; key0 < keyEnd; key0 += kTileKeys) {
    Tile::run(
        block, shared, p.in, [&](int i) { return rowBase + i; }, rowCount, key0, keyEnd);
    const std::int32_t tileEnd = minOf(key0 + kTileKeys, keyEnd);
    for (std::int32_t position = key0; position < tileEnd;) {
      const std::int32_t subEnd = p.subBounds[sub + 1];
      const std::int32_t segmentEnd = minOf(subEnd, tileEnd);
      block.each([&](int t, auto& s) {
        const int row = t / kLanes;
        if (row >= rowCount) return;
        addSegment(s.part, shared.score + row * kScoreStride, position - key0, segmentEnd - key0, t % kLanes,
                   rowBase - p.row0 + row, key0, p);
      });
      if (segmentEnd == subEnd) {
        block.mergeLanes([](auto& s) -> Partial& { return s.part; },
                         [&](const Partial& a, const Partial& b) { return mergePartials(a, b, p.exponentScale); });
        block.each([&](int t, auto& s) {
          const int row = t / kLanes;
          if (t % kLanes == 0 && row < rowCount) {
            const std::int64_t at = static_cast<std::int64_t>(rowBase - p.row0 + row) * p.subCount + sub;
            p.partMax[at] = s.part.max;
            p.partSum[at] = s.part.sum;
            if (p.partCount != nullptr) p.partCount[at] = s.part.count;
          }
          s.part = Partial::none();
        });
        ++sub;
      }
      position = segmentEnd;
    }
  }
}

/// What the second and third kernel read of the first one's result.
struct PartialsView {
  const float* partMax;
  const float* partSum;
  const std::int32_t* partCount;  ///< or null
  const std::int32_t* subValid;   ///< [subCount] valid keys of a sub-block, used when partCount is null
  std::int32_t subCount;
  std::int32_t row0, rowEnd;
  double absScale;  ///< |scale|

  [[nodiscard]] SPARSIGHT_DEVICE std::int64_t at(std::int32_t row, std::int32_t sub) const {
    return static_cast<std::int64_t>(row - row0) * subCount + sub;
  }
  [[nodiscard]] SPARSIGHT_DEVICE std::int32_t countAt(std::int32_t row, std::int32_t sub) const {
    return partCount != nullptr ? partCount[at(row, sub)] : subValid[sub];
  }
};

struct RowLseParams {
  PartialsView parts;
  const std::uint8_t* queryValid;  ///< [Nq] or null
  float exponentScale;
  double* lse;  ///< [Nq] natural log; -inf: no valid key; NaN: padding row
};

/// A row's partials merged; the sum in double, as it spans up to 10^5 keys.
struct RowTotal {
  double sum;
  float max;
  std::int32_t count;
#ifdef __CUDACC__
  __device__ __forceinline__ RowTotal shuffleDown(unsigned lanes) const {
    return {__shfl_down_sync(0xFFFFFFFFU, sum, lanes), __shfl_down_sync(0xFFFFFFFFU, max, lanes),
            __shfl_down_sync(0xFFFFFFFFU, count, lanes)};
  }
#endif
};
SPARSIGHT_DEVICE RowTotal mergeTotals(const RowTotal& a, const RowTotal& b, float exponentScale) {
  if (b.count == 0) return a;
  if (a.count == 0) return b;
  const float max = maxOf(a.max, b.max);
  return {a.sum * static_cast<double>(exp2Of((a.max - max) * exponentScale)) +
              b.sum * static_cast<double>(exp2Of((b.max - max) * exponentScale)),
          max, a.count + b.count};
}
struct RowLseState {
  RowTotal total;
};

/// Block x: 64 rows, four lanes each. The logit of the maximum is formed in double, so that the LSE of extreme logits
/// is as exact as the fp32 product itself.
template <class Block>
SPARSIGHT_DEVICE void rowLseBody(Block& block, const RowLseParams& p) {
  const std::int32_t rowBase = p.parts.row0 + block.x() * kTileRows;
  block.each([&](int t, auto& s) {
    s.total = {0.0, negativeInfinity(), 0};
    const std::int32_t row = rowBase + t / kLanes;
    if (row >= p.parts.rowEnd) return;
    for (std::int32_t sub = t % kLanes; sub < p.parts.subCount; sub += kLanes) {
      const std::int64_t at = p.parts.at(row, sub);
      const RowTotal part{static_cast<double>(p.parts.partSum[at]), p.parts.partMax[at], p.parts.countAt(row, sub)};
      s.total = mergeTotals(s.total, part, p.exponentScale);
    }
  });
  block.mergeLanes([](auto& s) -> RowTotal& { return s.total; },
                   [&](const RowTotal& a, const RowTotal& b) { return mergeTotals(a, b, p.exponentScale); });
  block.each([&](int t, auto& s) {
    const std::int32_t row = rowBase + t / kLanes;
    if (t % kLanes != 0 || row >= p.parts.rowEnd) return;
    double lse = -HUGE_VAL;
    if (s.total.count > 0) lse = static_cast<double>(s.total.max) * p.parts.absScale + ::log(s.total.sum);
    if (p.queryValid != nullptr && p.queryValid[row] == 0) lse = ::nan("");
    p.lse[row] = lse;
  });
}

/// Columns and row lanes of a block of the cell kernel.
inline constexpr int kCellCols = 64;
inline constexpr int kCellRowLanes = kThreads / kCellCols;

struct CellsParams {
  PartialsView parts;
  const std::uint8_t* queryValid;  ///< [Nq] or null
  const double* lse;               ///< [Nq]
  const std::int32_t* rowBounds;   ///< [rows + 1]; block x works on row block firstRowBlock + x
  const std::int32_t* subPtr;      ///< [cols + 1] sub-blocks of each column block
  std::int32_t firstRowBlock;
  std::int32_t cols;
  std::int32_t firstRow;    ///< of the whole operation; launches start at multiples of kTileRows from it
  double* cellSum;          ///< [row blocks, cols] sum of p, added to over the launches
  float* cellMax;           ///< same shape
  std::int64_t* cellCount;  ///< same shape: valid pairs
};
struct CellsShared {
  double sum[kCellRowLanes][kCellCols];
  float max[kCellRowLanes][kCellCols];
  std::int64_t count[kCellRowLanes][kCellCols];
};
struct CellsState {
  double sum;
  float max;
  std::int64_t count;
};

/// Block y: 64 column blocks. Every cell belongs to one thread group of one block per launch, launches follow one
/// another on a stream, and rows are added in steps of kTileRows counted from the operation's first row: the order of
/// additions never changes, however the rows are cut into launches.
template <class Block>
SPARSIGHT_DEVICE void cellsBody(Block& block, CellsShared& shared, const CellsParams& p) {
  const std::int32_t rowBlock = p.firstRowBlock + block.x();
  const std::int32_t rowFirst = maxOf(p.rowBounds[rowBlock], p.parts.row0);
  const std::int32_t rowLast = minOf(p.rowBounds[rowBlock + 1], p.parts.rowEnd);
  block.each([&](int t, auto& s) {
    const std::int32_t col = block.y() * kCellCols + t;
    if (t >= kCellCols || col >= p.cols) return;
    const std::int64_t at = static_cast<std::int64_t>(rowBlock) * p.cols + col;
    s.sum = p.cellSum[at];
    s.max = p.cellMax[at];
    s.count = p.cellCount[at];
  });
  for (std::int32_t step = rowFirst; step < rowLast;) {
    const std::int32_t stepEnd = minOf(rowLast, p.firstRow + ((step - p.firstRow) / kTileRows + 1) * kTileRows);
    block.each([&](int t, auto&) {
      const int lane = t / kCellCols;
      const std::int32_t col = block.y() * kCellCols + t % kCellCols;
      double sum = 0;
      float max = 0;
      std::int64_t count = 0;
      if (col < p.cols) {
        const std::int32_t subFirst = p.subPtr[col];
        const std::int32_t subLast = p.subPtr[col + 1];
        for (std::int32_t row = step + lane; row < stepEnd; row += kCellRowLanes) {
          if (p.queryValid != nullptr && p.queryValid[row] == 0) continue;
          const double lse = p.lse[row];
          for (std::int32_t sub = subFirst; sub < subLast; ++sub) {
            const std::int32_t pairs = p.parts.countAt(row, sub);
            if (pairs == 0) continue;
            const std::int64_t at = p.parts.at(row, sub);
            // The difference in double: both terms may be 1e4 while their difference decides.
            const float peak =
                ::expf(static_cast<float>(static_cast<double>(p.parts.partMax[at]) * p.parts.absScale - lse));
            sum += static_cast<double>(p.parts.partSum[at]) * static_cast<double>(peak);
            max = maxOf(max, peak);
            count += pairs;
          }
        }
      }
      shared.sum[lane][t % kCellCols] = sum;
      shared.max[lane][t % kCellCols] = max;
      shared.count[lane][t % kCellCols] = count;
    });
    block.sync();
    block.each([&](int t, auto& s) {
      if (t >= kCellCols) return;
      for (int lane = 0; lane < kCellRowLanes; ++lane) {
        s.sum += shared.sum[lane][t];
        s.max = maxOf(s.max, shared.max[lane][t]);
        s.count += shared.count[lane][t];
      }
    });
    block.sync();  // before the next step writes
    step = stepEnd;
  }
  block.each([&](int t, auto& s) {
    const std::int32_t col = block.y() * kCellCols + t;
    if (t >= kCellCols || col >= p.cols) return;
    const std::int64_t at = static_cast<std::int64_t>(rowBlock) * p.cols + col;
    p.cellSum[at] = s.sum;
    p.cellMax[at] = s.max;
    p.cellCount[at] = s.count;
  });
}

}  // namespace sparsight::cuda

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sparsight/kernels/types.h"

/// The inner loops of the CPU backend, compiled once per instruction set (simd_*.cpp) and chosen at run time here.
///
/// Layout: `lanes` queries stand side by side in vector lanes (a panel, [dim, lanes]) and keys are broadcast, so that a
/// score tile is [keys, lanes] and every row statistic is vertical: no horizontal step, no padding of keys or head_dim,
/// and column blocks of any width cost the same. A lane's result never depends on its neighbours.
namespace sparsight::cpu {

/// Lanes of the widest instruction set; alignment of every panel and tile in bytes.
inline constexpr Index kMaxLanes = 32;
inline constexpr std::size_t kAlignment = 64;

/// Rows that SimdKernels::dotsDouble takes at once.
inline constexpr Index kDotRows = 4;

/// Most keys whose scores SimdKernels::foldBf16 keeps waiting, and the fewest that a column may have for it.
inline constexpr Index kFoldMostKeys = 11;
inline constexpr Index kFoldFewestKeys = 6;

/// Scores whose exponentials are still to be taken: they are, between the dot products of the next keys.
struct PendingScores {
  alignas(kAlignment) float scores[kFoldMostKeys * kMaxLanes];  ///< [count, lanes]
  alignas(kAlignment) float partial[kMaxLanes];                 ///< sums of the column's keys before these
  Index count = 0;                                              ///< 0: none wait, the rest means nothing
  float scale = 0;
  const float* reference = nullptr;  ///< [lanes], read when the exponentials are taken
  float* sums = nullptr;             ///< [lanes] that the column is added to; nullptr: more of its keys follow

  /// A lane's reference moved: the sum up to now times `factor`.
  void rescale(Index lane, float factor) noexcept { partial[lane] *= factor; }
};

/// Keys of one column of a map against a panel.
struct FoldColumn {
  const std::uint16_t* panel;  ///< as SimdKernels::scoresBf16 takes it
  const std::uint16_t* keys;
  Index stride, count, dim;  ///< count >= kFoldFewestKeys
  float scale;
  const float* reference;  ///< [lanes]
  const float* limit;      ///< [lanes] scores above it ask for another reference
  float* sums;             ///< [lanes] += exp2(scale * score - reference)
  float* top;              ///< [lanes] largest scores
  const std::byte* ahead;  ///< memory to bring near meanwhile
  Index aheadBytes;
  Index done = 0;                                ///< keys whose scores were taken
  Index part = 0;                                ///< calls of the inner loop that took them
  alignas(kAlignment) float largest[kMaxLanes];  ///< of the last of them
};

struct SimdKernels {
  std::string_view name;  ///< "baseline", "avx2", "avx512" or "avx512bf16"
  Index lanes;            ///< queries per panel
  Index valueColumns;     ///< values are padded to a multiple of this many columns

  /// scores[n, lanes] = key n . query; keys are rows of `dim` floats, `stride` floats apart. Also
  /// largest[lane] = max(largest[lane], scores[., lane]).
  void (*scores)(const float* panel, const float* keys, Index stride, Index count, Index dim, float* scores,
                 float* largest) noexcept;
  /// The same of bfloat16 numbers, two products per step, summed in float32 (the products are exact in it): panel is
  /// [dim / 2, lanes, 2], dim is even, strides count elements. nullptr where the CPU has no such instruction.
  void (*scoresBf16)(const std::uint16_t* panel, const std::uint16_t* keys, Index stride, Index count, Index dim,
                     float* scores, float* largest) noexcept;
  /// Scores, sums of exponentials and maxima of a column in one go. The exponentials run one step behind: those of the
  /// keys before are taken between these dot products, in units of the CPU that dot products leave idle, and the last
  /// ones wait in `pending` for the next column, whatever its panel. False: a score is above its limit; the reference
  /// may be moved (with sums and pending) before the next call, which goes on from there. True: all keys are done.
  /// 2^x to within 3e-7 above 2^-123, 0 below 2^-124. nullptr where scoresBf16 is.
  bool (*foldBf16)(FoldColumn& column, PendingScores& pending) noexcept;
  /// Takes the exponentials that wait.
  void (*foldRest)(PendingScores& pending) noexcept;
  /// largest[lane] = max(largest[lane], scores[., lane]).
  void (*tileMax)(const float* scores, Index count, float* largest) noexcept;
  /// sums[lane] += sum of exp2(scale * scores[., lane] - reference[lane]).
  void (*tileExpSum)(const float* scores, Index count, float scale, const float* reference, float* sums) noexcept;
  /// tileExpSum and tileMax in one go.
  void (*tileExpSumMax)(const float* scores, Index count, float scale, const float* reference, float* sums,
                        float* largest) noexcept;
  /// sums[n, lane] += exp2(scale * scores[n, lane] - reference[lane]): a column per key.
  void (*tileExpEach)(const float* scores, Index count, float scale, const float* reference, float* sums) noexcept;
  /// tileExpSum, and the scores are replaced by the exponentials.
  void (*tileExp)(float* scores, Index count, float scale, const float* reference, float* sums) noexcept;
  /// sums[n] += sum over the lanes of tile[n, .] * factor; lanes with a factor of 0 take no part.
  void (*addLanes)(const float* tile, Index count, const float* factor, double* sums) noexcept;
  /// tops[n] = max(tops[n], tile[n, .] * factor); tile and factor are at least 0.
  void (*maxLanes)(const float* tile, Index count, const float* factor, float* tops) noexcept;
  /// out[lane, columns] += weights[., lane]^T values; columns is a multiple of valueColumns, rows 64-byte aligned.
  void (*accumulate)(const float* weights, Index count, const float* values, Index valueStride, Index columns,
                     float* out, Index outStride) noexcept;
  /// The tile's centroids against what each lane has so far: distance = max(0, pointSquares + centreSquares[n] -
  /// 2 scores), the least wins; ties go to the lowest. `first` is the number of the tile's first centroid.
  void (*nearest)(const float* scores, Index count, const float* pointSquares, const float* centreSquares,
                  std::int32_t first, float* best, std::int32_t* label) noexcept;
  /// The same with the largest score.
  void (*mostSimilar)(const float* scores, Index count, std::int32_t first, float* best, std::int32_t* label) noexcept;
  /// out[r, count] = rows[r] . columns in double: rows of `dim` floats, columns [dim, count], count a multiple of 32.
  /// Products of two floats are exact in double and every sum follows the dimension: the same bits in every set.
  void (*dotsDouble)(const float* const* rows, const double* columns, Index count, Index dim, double* out) noexcept;
  /// rows[lane * rowStride + n] = scores[n, lane].
  void (*toRows)(const float* scores, Index count, float* rows, Index rowStride) noexcept;
  /// float16 and bfloat16 to float32, exact.
  void (*widenHalf)(const std::uint16_t* from, Index count, float* to) noexcept;
  void (*widenBf16)(const std::uint16_t* from, Index count, float* to) noexcept;
  /// One row: largest value (-inf for none).
  float (*rowMax)(const float* row, Index count) noexcept;
  /// One row: weights[n] = w = exp2(t), t = scale * (row[n] - top); adds the sums of w and of w t (0 where w is 0).
  /// The entries that equal `top` have a weight of exactly 1.
  void (*rowExp)(const float* row, Index count, float scale, float top, float* weights, double* sum,
                 double* sumLog) noexcept;
  /// Register-resident fused multiply-adds, for the peak probe: returns the floating point operations done. `sink`
  /// holds 32 numbers, all different (equal chains would be computed once).
  double (*peak)(Index rounds, float* sink) noexcept;
  /// The same with bfloat16 dot products; nullptr where the CPU has none.
  double (*peakBf16)(Index rounds, float* sink) noexcept;
};

const SimdKernels& baselineKernels() noexcept;
#if defined(__x86_64__)
const SimdKernels& avx2Kernels() noexcept;
const SimdKernels& avx512Kernels() noexcept;
const SimdKernels& avx512Bf16Kernels() noexcept;
#endif

/// The widest set that this CPU runs, or the one named by SPARSIGHT_SIMD (baseline, avx2, avx512,
/// avx512bf16).
/// Throws Error{InvalidArgument} when that name is unknown or the CPU lacks it.
const SimdKernels& simdKernels();
/// A named set, or nullptr when it is unknown or this CPU lacks it.
const SimdKernels* findSimdKernels(std::string_view name) noexcept;

}  // namespace sparsight::cpu

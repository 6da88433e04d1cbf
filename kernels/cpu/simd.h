// SPDX-License-Identifier: Apache-2.0
#pragma once

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

struct SimdKernels {
  std::string_view name;  ///< "baseline", "avx2" or "avx512"
  Index lanes;            ///< queries per panel
  Index valueColumns;     ///< values are padded to a multiple of this many columns

  /// scores[n, lanes] = key n . query; keys are rows of `dim` floats, `stride` floats apart.
  void (*scores)(const float* panel, const float* keys, Index stride, Index count, Index dim, float* scores) noexcept;
  /// largest[lane] = max(largest[lane], scores[., lane]).
  void (*tileMax)(const float* scores, Index count, float* largest) noexcept;
  /// sums[lane] += sum of exp2(scale * scores[., lane] - reference[lane]).
  void (*tileExpSum)(const float* scores, Index count, float scale, const float* reference, float* sums) noexcept;
  /// sums[n, lane] += exp2(scale * scores[n, lane] - reference[lane]): a column per key.
  void (*tileExpEach)(const float* scores, Index count, float scale, const float* reference, float* sums) noexcept;
  /// tileExpSum, and the scores are replaced by the exponentials.
  void (*tileExp)(float* scores, Index count, float scale, const float* reference, float* sums) noexcept;
  /// out[lane, columns] += weights[., lane]^T values; columns is a multiple of valueColumns, rows 64-byte aligned.
  void (*accumulate)(const float* weights, Index count, const float* values, Index valueStride, Index columns,
                     float* out, Index outStride) noexcept;
  /// rows[lane * rowStride + n] = scores[n, lane].
  void (*toRows)(const float* scores, Index count, float* rows, Index rowStride) noexcept;
  /// One row: largest value (-inf for none).
  float (*rowMax)(const float* row, Index count) noexcept;
  /// One row: weights[n] = w = exp2(t), t = scale * (row[n] - top); adds the sums of w and of w t (0 where w is 0).
  /// The entries that equal `top` have a weight of exactly 1.
  void (*rowExp)(const float* row, Index count, float scale, float top, float* weights, double* sum,
                 double* sumLog) noexcept;
  /// Register-resident fused multiply-adds, for the peak probe: returns the floating point operations done. `sink`
  /// holds 16 numbers, all different (equal chains would be computed once).
  double (*peak)(Index rounds, float* sink) noexcept;
};

const SimdKernels& baselineKernels() noexcept;
#if defined(__x86_64__)
const SimdKernels& avx2Kernels() noexcept;
const SimdKernels& avx512Kernels() noexcept;
#endif

/// The widest set that this CPU runs, or the one named by SPARSIGHT_SIMD (baseline, avx2, avx512).
/// Throws Error{InvalidArgument} when that name is unknown or the CPU lacks it.
const SimdKernels& simdKernels();
/// A named set, or nullptr when it is unknown or this CPU lacks it.
const SimdKernels* findSimdKernels(std::string_view name) noexcept;

}  // namespace sparsight::cpu

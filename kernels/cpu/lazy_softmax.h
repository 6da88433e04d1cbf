// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/simd.h"

namespace sparsight::cpu {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// The running references of a panel's rows. Exponentials are taken relative to a reference in log2 units that moves
/// only when a score exceeds it by more than 2^20, so that sums are rescaled a few times per row and not once per tile
/// (the lazy rescaling of FlashAttention-4). Sums stay below keys x 2^20 and lose nothing of float's relative
/// precision.
struct LazyReference {
  static constexpr float kSlack = 20.0F;

  alignas(kAlignment) float value[kMaxLanes];    ///< -inf: no finite score yet
  alignas(kAlignment) float applied[kMaxLanes];  ///< the same, 0 for -inf, so that -inf - applied stays -inf

  void reset(Index lanes) noexcept {
    for (Index lane = 0; lane < lanes; ++lane) {
      value[lane] = kMinusInfinity;
      applied[lane] = 0;
    }
  }
  /// Lifts the references over the scores of a tile; `largest` are raw scores. Calls rescale(lane, factor) for sums
  /// that were taken relative to an older reference. Every lane decides for itself, so a row's result does not depend
  /// on the rows beside it.
  template <class Rescale>
  void lift(const float* largest, float factor, Index lanes, const Rescale& rescale) noexcept {
    int above = 0;  // counted without branches: nearly always none
    for (Index lane = 0; lane < lanes; ++lane) above += factor * largest[lane] > value[lane] + kSlack ? 1 : 0;
    if (above == 0) return;
    for (Index lane = 0; lane < lanes; ++lane) {
      const float top = factor * largest[lane];
      if (!(top > value[lane] + kSlack)) continue;
      if (value[lane] > kMinusInfinity) rescale(lane, std::exp2(value[lane] - top));
      value[lane] = top;
      applied[lane] = top;
    }
  }
  /// Raw scores up to which lift() surely has nothing to do: a little below the true limit, whatever rounding does.
  void limits(float factor, Index lanes, float* limit) const noexcept {
    constexpr float kMargin = 0x1p-20F;
    for (Index lane = 0; lane < lanes; ++lane) {
      const float exact = (value[lane] + kSlack) / factor;
      limit[lane] = exact - kMargin * std::min(std::abs(exact), std::numeric_limits<float>::max());
    }
  }
};

}  // namespace sparsight::cpu

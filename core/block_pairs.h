// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "sparsight/kernels/backend.h"

namespace sparsight {

/// Edges of blocks of `block` tokens over [0, tokens); the last may be shorter.
[[nodiscard]] std::vector<Index> blockEdges(Index tokens, Index block);

/// Valid (query, key) pairs of each block [Bq, Bk]. Linear in tokens and blocks; with a dense mask in pairs.
[[nodiscard]] std::vector<Index> validBlockPairs(const AttentionIn& in, std::span<const Index> qBounds,
                                                 std::span<const Index> kBounds, const Control& control);

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <vector>

#include "measure.h"

namespace sparsight::bench {

/// Row LSE and pooled probabilities in cells of `block` tokens (the last may be shorter), as a program without our
/// kernels makes them: a library's matrix product into a buffer, exponentials in place, sums of tiles before
/// normalising.
struct BaselineMap {
  Index block = 0;
  std::vector<float> lse, mean, max;  ///< [N], [C, C], [C, C] with C = ceil(N / block)
};

/// Fills scores [rows, N] (row stride N, scale applied) of the query rows [first, first + rows). One call per thread at
/// a time; `thread` counts them.
using ScoreProduct = std::function<void(int thread, Index first, Index rows, float* scores)>;

/// A few map rows at a time in each of `threads` threads, at most 512 cells per side.
[[nodiscard]] BaselineMap baselineMap(Index tokens, int threads, const ScoreProduct& product);

/// Measures baselineMap for a library and sets the errors as for map_exact: LSE absolute, cells relative.
void measureBaselineMap(benchmark::State& state, const BenchHead& head, int threads, const ScoreProduct& product);

/// Tokens that baselines are registered for, and the threads of this machine.
[[nodiscard]] std::vector<Index> baselineTokens();
[[nodiscard]] int allCores();

}  // namespace sparsight::bench

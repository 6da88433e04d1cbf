// SPDX-License-Identifier: Apache-2.0
#include "cpu/cluster_scores_pass.h"

#include <algorithm>
#include <array>

#include "cluster_scores.h"

namespace sparsight::cpu {
namespace {

/// Query clusters that share a pass over the key centroids.
constexpr Index kTogether = kDotRows;
constexpr Index kGrain = 4 * kTogether;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

}  // namespace

ClusterScores scoreClusters(const ClusterScoresRequest& request, const SimdKernels& simd, const Executor& executor,
                            const Control& control) {
  const detail::CentroidColumns columns = detail::centroidColumns(request);
  ClusterScores scores = detail::emptyScores(request);
  const auto queries = static_cast<Index>(scores.crossing.size());
  LoopProgress progress(control, std::max<Index>(queries, 1));
  executor.parallelFor(queries, kGrain, control, [&](Index first, Index last) {
    detail::ClusterRowScorer scorer(request);
    std::vector<double> dots(at(kTogether * columns.stride));
    for (Index i = first; i < last; i += kTogether) {
      control.checkpoint();
      const Index count = std::min(kTogether, last - i);
      // Rows behind the last are the last once more.
      std::array<const float*, kDotRows> rows{};
      for (Index r = 0; r < kTogether; ++r) {
        rows[at(r)] = request.queries.data() + (i + std::min(r, count - 1)) * request.dim;
      }
      simd.dotsDouble(rows.data(), columns.values.data(), columns.stride, request.dim, dots.data());
      for (Index r = 0; r < count; ++r) {
        const std::span<double> row =
            std::span(scores.probabilities).subspan(at((i + r) * columns.keys), at(columns.keys));
        std::copy_n(dots.begin() + r * columns.stride, columns.keys, row.begin());
        scores.crossing[at(i + r)] =
            scorer.finish(row, std::span(scores.order).subspan(at((i + r) * columns.keys), at(columns.keys)));
      }
    }
    progress.add(last - first);
  });
  return scores;
}

}  // namespace sparsight::cpu

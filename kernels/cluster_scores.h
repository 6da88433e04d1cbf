// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sparsight/kernels/backend.h"

/// What the CPU's forms of Backend::scoreClusters share: it has the same bits on every backend.
namespace sparsight::detail {

/// Sums of probabilities that are divided by are at least this (SVOO's and SVG2's clamp).
inline constexpr double kLeastClusterSum = 1e-12;

/// Key centroids by column in double: [dim, stride], zeros behind the last key, stride a multiple of 32.
struct CentroidColumns {
  Index keys = 0, stride = 0;
  std::vector<double> values;
};
[[nodiscard]] CentroidColumns centroidColumns(const ClusterScoresRequest& request);

/// Space for the results of `request`.
[[nodiscard]] ClusterScores emptyScores(const ClusterScoresRequest& request);

/// Turns the dot products of one query cluster into probabilities and orders them.
class ClusterRowScorer {
 public:
  explicit ClusterRowScorer(const ClusterScoresRequest& request) : m_request(request) {}
  /// `row`: dot products [Kk], which become probabilities. `order`: [Kk]. Returns how many clusters cross topP.
  [[nodiscard]] Index finish(std::span<double> row, std::span<std::int32_t> order);

 private:
  const ClusterScoresRequest& m_request;
  std::vector<std::uint64_t> m_keys;
};

}  // namespace sparsight::detail

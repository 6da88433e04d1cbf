// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <benchmark/benchmark.h>

#include <vector>

#include "sparsight/kernels/backend.h"

/// What the CPU's and the GPU's cases share: shapes, random plans, and the comparison with the oracle.
namespace sparsight::bench {

inline constexpr Index kMapCells = 512;
inline constexpr double kKept = 0.25;
/// Rows that are compared with the oracle where all would take too long.
inline constexpr Index kErrorRows = 8;
/// Clusters of the k-means cases.
inline constexpr Index kClusters = 1000;

[[nodiscard]] std::vector<Index> evenBounds(Index size, Index blocks);
[[nodiscard]] std::vector<Index> allRows(Index rows);
/// `count` rows from the first to the last.
[[nodiscard]] std::vector<Index> sampledRows(Index rows, Index count);

/// Random kept blocks of variable width (mean 64 keys) for row groups of 128; kKept of them.
struct RandomBlocks {
  explicit RandomBlocks(Index tokens);
  std::vector<Index> ptr{0};
  std::vector<Interval> intervals;
  std::vector<Index> group;
  double pairs = 0;
  [[nodiscard]] RowKeep keep() const { return {ptr, intervals, group}; }
};
/// A random permutation, the same every time.
[[nodiscard]] std::vector<Index> randomOrder(Index size);
/// kClusters normal vectors.
[[nodiscard]] std::vector<float> randomCentroids(Index dim);
/// Query clusters of the score_clusters cases; the keys have kClusters of about as many tokens each.
inline constexpr Index kQueryClusters = 300;
/// SVG2's step between its clusters and its map: probabilities of kClusters for kQueryClusters, and their order.
struct ClusterCase {
  explicit ClusterCase(Index dim);
  Index dim;
  std::vector<float> keys, queries;
  std::vector<Index> sizes;
  [[nodiscard]] ClusterScoresRequest request() const;
  /// Multiply-adds count as two.
  [[nodiscard]] double flops() const {
    return 2.0 * static_cast<double>(kQueryClusters) * static_cast<double>(kClusters) * static_cast<double>(dim);
  }
};

/// A map of blocks x blocks masses of which a fifth is kept, row by row.
struct BlockCase {
  explicit BlockCase(Index blocks);
  Index blocks;
  std::vector<double> values;
  std::vector<Index> counts;
  [[nodiscard]] SelectRequest request() const { return {blocks, values, counts}; }
};

/// A head on the backend under measurement and on the oracle.
struct Compared {
  Backend& backend;
  const PreparedHead& head;
  Backend& oracle;
  const PreparedHead& exact;
};
/// Sets the errors of a benchmark from a few rows, or the first tokens.
void attentionErrors(benchmark::State& state, const Compared& heads, const RowKeep& keep);
void rowStatsErrors(benchmark::State& state, const Compared& heads, double mass);
void kMeansErrors(benchmark::State& state, const Compared& heads, std::span<const float> centroids);

}  // namespace sparsight::bench

// SPDX-License-Identifier: Apache-2.0
#include "case_parts.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "measure.h"

namespace sparsight::bench {
namespace {

constexpr Index kGroupRows = 128;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

}  // namespace

std::vector<Index> evenBounds(Index size, Index blocks) {
  std::vector<Index> bounds;
  for (Index i = 0; i <= blocks; ++i) bounds.push_back(i * size / blocks);
  return bounds;
}

std::vector<Index> allRows(Index rows) {
  std::vector<Index> list(at(rows));
  std::iota(list.begin(), list.end(), Index{0});
  return list;
}

std::vector<Index> sampledRows(Index rows, Index count) {
  std::vector<Index> list;
  for (Index i = 0; i < count; ++i) list.push_back(i * (rows - 1) / std::max<Index>(1, count - 1));
  return list;
}

RandomBlocks::RandomBlocks(Index tokens) {
  std::mt19937 random(7);
  std::vector<Index> edges{0};
  while (edges.back() < tokens) {
    edges.push_back(std::min(tokens, edges.back() + 16 + static_cast<Index>(random() % 97)));
  }
  for (Index row = 0; row < tokens; row += kGroupRows) {
    const Index groupRows = std::min(kGroupRows, tokens - row);
    group.insert(group.end(), at(groupRows), row / kGroupRows);
    for (std::size_t b = 0; b + 1 < edges.size(); ++b) {
      if (static_cast<double>(random() % 1000) >= kKept * 1000) continue;
      pairs += static_cast<double>(groupRows) * static_cast<double>(edges[b + 1] - edges[b]);
      if (static_cast<Index>(intervals.size()) > ptr.back() && intervals.back().last == edges[b]) {
        intervals.back().last = edges[b + 1];
      } else {
        intervals.push_back({edges[b], edges[b + 1]});
      }
    }
    ptr.push_back(static_cast<Index>(intervals.size()));
  }
}

std::vector<Index> randomOrder(Index size) {
  std::vector<Index> order = allRows(size);
  std::mt19937 random(17);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  return order;
}

std::vector<float> randomCentroids(Index dim) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> centroids(at(kClusters * dim));
  for (float& c : centroids) c = normal(random);
  return centroids;
}

ClusterCase::ClusterCase(Index dimension) : dim(dimension), keys(randomCentroids(dimension)) {
  queries.assign(keys.rbegin(), keys.rbegin() + static_cast<std::ptrdiff_t>(kQueryClusters * dim));
  std::mt19937 random(23);
  for (Index j = 0; j < kClusters; ++j) sizes.push_back(static_cast<Index>(random() % 60));
}

BlockCase::BlockCase(Index side) : blocks(side), counts(static_cast<std::size_t>(side), side / 5) {
  std::mt19937_64 random(29);
  for (Index i = 0; i < side * side; ++i) values.push_back(std::ldexp(static_cast<double>(random() >> 11U), -53));
}

ClusterScoresRequest ClusterCase::request() const {
  return {dim, queries, keys, sizes, 1.0 / std::sqrt(static_cast<double>(dim)), 0.9};
}

void attentionErrors(benchmark::State& state, const Compared& heads, const RowKeep& keep) {
  const std::vector<Index> rows = sampledRows(heads.head.input().q.rows, kErrorRows);
  RowKeep sampled = keep;
  std::vector<Index> group;
  if (!keep.group.empty()) {
    for (const Index row : rows) group.push_back(keep.group[at(row)]);
    sampled.group = group;
  }
  const AttendResult got = heads.backend.attend(heads.head, rows, sampled, {});
  const AttendResult want = heads.oracle.attend(heads.exact, rows, sampled, {});
  // Relative to the size of the row: single components cross zero.
  Errors errors;
  const std::size_t dv = got.out.size() / rows.size();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    double difference = 0;
    double norm = 0;
    for (std::size_t c = i * dv; c < (i + 1) * dv; ++c) {
      const double d = static_cast<double>(got.out[c]) - static_cast<double>(want.out[c]);
      difference += d * d;
      norm += static_cast<double>(want.out[c]) * static_cast<double>(want.out[c]);
      errors.maxAbs = std::max(errors.maxAbs, std::abs(d));
    }
    errors.maxRel = std::max(errors.maxRel, std::sqrt(difference / norm));
  }
  setErrors(state, errors);
}

void rowStatsErrors(benchmark::State& state, const Compared& heads, double mass) {
  const std::vector<Index> rows = sampledRows(heads.head.input().q.rows, kErrorRows);
  const RowStats got = heads.backend.rowStats(heads.head, rows, mass, {});
  const RowStats want = heads.oracle.rowStats(heads.exact, rows, mass, {});
  Errors errors;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    errors.add(got.lse[i], want.lse[i]);
    errors.add(static_cast<float>(got.keysForMass[i]), static_cast<float>(want.keysForMass[i]));
  }
  setErrors(state, errors);
}

void kMeansErrors(benchmark::State& state, const Compared& heads, std::span<const float> centroids) {
  const ClusterRequest few{Side::Key,        0, std::min<Index>(heads.head.input().k.rows, 256), centroids,
                           Distance::Euclid, {}};
  const ClusterResult got = heads.backend.cluster(heads.head, few, {});
  const ClusterResult want = heads.oracle.cluster(heads.exact, few, {});
  Errors errors;
  double other = 0;
  for (std::size_t i = 0; i < want.labels.size(); ++i) {
    errors.add(got.nearest[i], want.nearest[i]);
    other += got.labels[i] == want.labels[i] ? 0 : 1;
  }
  setErrors(state, errors);
  state.counters["other_labels"] = other;  // ties within rounding
}

}  // namespace sparsight::bench

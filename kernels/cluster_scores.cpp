// SPDX-License-Identifier: Apache-2.0
// Compiled with -ffp-contract=off, as exact_exp.h wants it.
#include "cluster_scores.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "checks.h"
#include "exact_exp.h"

namespace sparsight {
namespace {

constexpr Index kColumnStep = 32;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

}  // namespace

namespace detail {

CentroidColumns centroidColumns(const ClusterScoresRequest& request) {
  CentroidColumns columns;
  columns.keys = static_cast<Index>(request.keys.size()) / request.dim;
  columns.stride = (columns.keys + kColumnStep - 1) / kColumnStep * kColumnStep;
  columns.values.assign(at(request.dim * columns.stride), 0.0);
  for (Index j = 0; j < columns.keys; ++j) {
    for (Index d = 0; d < request.dim; ++d) {
      columns.values[at(d * columns.stride + j)] = static_cast<double>(request.keys[at(j * request.dim + d)]);
    }
  }
  return columns;
}

ClusterScores emptyScores(const ClusterScoresRequest& request) {
  const std::size_t queries = request.queries.size() / at(request.dim);
  const std::size_t keys = request.keys.size() / at(request.dim);
  ClusterScores scores;
  scores.probabilities.resize(queries * keys);
  scores.order.resize(queries * keys);
  scores.crossing.resize(queries);
  return scores;
}

Index ClusterRowScorer::finish(std::span<double> row, std::span<std::int32_t> order) {
  const std::size_t keys = row.size();
  double top = -std::numeric_limits<double>::infinity();  // over empty clusters, too
  for (double& value : row) {
    value = exact::mul(value, m_request.scale);
    top = value > top ? value : top;
  }
  for (double& value : row) value = exact::exp(exact::sub(value, top));
  if (!m_request.weights.empty()) {
    for (std::size_t j = 0; j < keys; ++j) row[j] = exact::mul(static_cast<double>(m_request.weights[j]), row[j]);
  }
  double sum = 0;
  for (const double value : row) sum = exact::add(sum, value);
  sum = sum < kLeastClusterSum ? kLeastClusterSum : sum;
  for (double& value : row) value = exact::div(value, sum);

  // Sorted by the leading bits, with the number of the cluster in place of the rest; what is equal so far is put right
  // afterwards.
  const std::uint64_t numbers = (std::uint64_t{1} << static_cast<unsigned>(std::bit_width(keys - 1))) - 1;
  m_keys.resize(keys);
  for (std::size_t j = 0; j < keys; ++j) m_keys[j] = (exact::rankOf(row[j]) & ~numbers) | j;
  std::sort(m_keys.begin(), m_keys.end());
  for (std::size_t n = 0; n < keys; ++n) {
    const auto own = static_cast<std::size_t>(m_keys[n] & numbers);
    const std::uint64_t rank = exact::rankOf(row[own]);
    std::size_t place = n;
    for (; place > 0 && (m_keys[place - 1] & ~numbers) == (m_keys[n] & ~numbers); --place) {
      if (exact::rankOf(row[static_cast<std::size_t>(order[place - 1])]) <= rank) break;
      order[place] = order[place - 1];
    }
    order[place] = static_cast<std::int32_t>(own);
  }
  std::size_t crossing = 1;
  double before = row[static_cast<std::size_t>(order[0])];
  while (crossing < keys && before <= m_request.topP) {
    before = exact::add(before, row[static_cast<std::size_t>(order[crossing++])]);
  }
  return static_cast<Index>(crossing);
}

}  // namespace detail

ClusterScores Backend::scoreClusters(const ClusterScoresRequest& request, const Control& control) {
  detail::checkClusterScores(request);
  const detail::CentroidColumns columns = detail::centroidColumns(request);
  const std::size_t keys = at(columns.keys);
  ClusterScores scores = detail::emptyScores(request);
  detail::ClusterRowScorer scorer(request);
  for (std::size_t i = 0; i < scores.crossing.size(); ++i) {
    control.checkpoint();
    const std::span<double> row = std::span(scores.probabilities).subspan(i * keys, keys);
    for (Index d = 0; d < request.dim; ++d) {
      const auto factor = static_cast<double>(request.queries[i * at(request.dim) + at(d)]);
      const double* const column = columns.values.data() + d * columns.stride;
      for (std::size_t j = 0; j < keys; ++j) row[j] += factor * column[j];  // the product is exact
    }
    scores.crossing[i] = scorer.finish(row, std::span(scores.order).subspan(i * keys, keys));
  }
  return scores;
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
// Scores between centroids, and the order of key clusters that top-p takes them in.
#include <fmt/format.h>

#include <algorithm>

#include "cluster_scores.h"
#include "cuda/backend_impl.h"

namespace sparsight::cuda {
namespace {

/// A multiply-add in double among those in float: what small GPUs make of it.
constexpr double kWorkPerDouble = 32;
/// The grid's second dimension.
constexpr Index kMostKeyTiles = 65535;

}  // namespace

ClusterScores CudaBackend::scoreClusters(const ClusterScoresRequest& request, const Control& control) {
  detail::checkClusterScores(request);
  const Index dim = request.dim;
  const Index keys = static_cast<Index>(request.keys.size()) / dim;
  const Index queries = static_cast<Index>(request.queries.size()) / dim;
  if (shares(keys, kCentroidTile) > kMostKeyTiles) {
    throw Error(ErrorCode::Unsupported, fmt::format("cuda: {} key clusters; use the CPU", keys));
  }
  start();
  return withSmallerBatches(Op::ScoreClusters, [&](const LaunchLimits& limits) {
    const Drain drain(m_stream);
    control.checkpoint();
    ClusterScores scores = detail::emptyScores(request);
    if (queries == 0) return scores;
    const double work =
        static_cast<double>(keys) * (kWorkPerDouble * static_cast<double>(dim) + 2 * static_cast<double>(keys));
    const Index bytesPerRow = keys * static_cast<Index>(sizeof(double) + sizeof(std::int32_t)) +
                              (dim + 1) * static_cast<Index>(sizeof(float));
    const Index perLaunch = std::min(rowsPerLaunch(limits, queries, work, bytesPerRow), queries);
    reserve<float>(m_scratch.centres, keys * dim, "centroids");
    reserve<float>(m_scratch.queryCentres, perLaunch * dim, "centroids");
    reserve<std::int64_t>(m_scratch.weights, static_cast<Index>(request.weights.size()), "sizes of the clusters");
    reserve<double>(m_scratch.probabilities, perLaunch * keys, "probabilities of the clusters");
    reserve<std::int32_t>(m_scratch.ranking, perLaunch * keys, "order of the clusters");
    reserve<std::int32_t>(m_scratch.crossing, perLaunch, "order of the clusters");
    m_staging.upload(m_scratch.centres.as<void>(), request.keys.data(), static_cast<Index>(request.keys.size_bytes()),
                     control, "upload the centroids");
    if (!request.weights.empty()) {
      m_staging.upload(m_scratch.weights.as<void>(), request.weights.data(),
                       static_cast<Index>(request.weights.size_bytes()), control, "upload the sizes of the clusters");
    }
    std::vector<std::int32_t> crossing(at(queries));
    beginTiming();
    for (Index first = 0; first < queries; first += perLaunch) {
      control.checkpoint();
      const Index n = std::min(perLaunch, queries - first);
      m_staging.upload(m_scratch.queryCentres.as<void>(), request.queries.data() + first * dim,
                       n * dim * static_cast<Index>(sizeof(float)), control, "upload the centroids");
      CentroidScoresParams params{};
      params.queries = m_scratch.queryCentres.as<const float>();
      params.keys = m_scratch.centres.as<const float>();
      params.weights = request.weights.empty() ? nullptr : m_scratch.weights.as<const std::int64_t>();
      params.rowCount = static_cast<std::int32_t>(n);
      params.keyCount = static_cast<std::int32_t>(keys);
      params.dim = static_cast<std::int32_t>(dim);
      params.scale = request.scale;
      params.topP = request.topP;
      params.probabilities = m_scratch.probabilities.as<double>();
      params.order = m_scratch.ranking.as<std::int32_t>();
      params.crossing = m_scratch.crossing.as<std::int32_t>();
      check(launchCentroidDots(params, m_stream.get()), "score_clusters: scores");
      check(launchCentroidSoftmax(params, m_stream.get()), "score_clusters: probabilities");
      check(launchCentroidOrder(params, m_stream.get()), "score_clusters: order");
      endTiming();
      downloadTo(scores.probabilities.data() + first * keys, params.probabilities, n * keys, "read the probabilities");
      downloadTo(scores.order.data() + first * keys, params.order, n * keys, "read the order");
      downloadTo(crossing.data() + first, params.crossing, n, "read the order");
      m_stream.wait("score_clusters");
      control.report(static_cast<double>(first + n) / static_cast<double>(queries));
    }
    std::copy(crossing.begin(), crossing.end(), scores.crossing.begin());
    return scores;
  });
}

}  // namespace sparsight::cuda

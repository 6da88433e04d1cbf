// SPDX-License-Identifier: Apache-2.0
// Ten rounds of FAISS's k-means from the same points and centroids as kmeans_lloyd. Compiled where FAISS is found.
// OpenBLAS below it has one thread where it can be told from here; else set OPENBLAS_NUM_THREADS=1.
#include <faiss/Clustering.h>
#include <faiss/IndexFlat.h>
#include <fmt/format.h>
#include <omp.h>

#include <numeric>

#include "baselines_common.h"
#include "inputs.h"

extern "C" void openblas_set_num_threads(int) __attribute__((weak));

namespace sparsight::bench {
namespace {

void faissKMeans(benchmark::State& state, Index tokens, Index dim, Index clusters, unsigned seed) {
  const auto head = makeMixtureHead(tokens, dim, DType::F32);
  const std::vector<float> start = startCentroids(*head, clusters, seed);
  const auto* points = reinterpret_cast<const float*>(head->k.data());
  const int threads = allCores();
  omp_set_num_threads(threads);
  if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
  std::vector<float> centroids;
  const double flops = 20.0 * static_cast<double>(tokens) * static_cast<double>(clusters * dim);
  measure(state, threads, flops, [&] {
    faiss::ClusteringParameters parameters;
    parameters.niter = 10;
    parameters.min_points_per_centroid = 1;
    parameters.max_points_per_centroid = static_cast<int>(tokens);  // its default trains on 256 per centroid at most
    faiss::Clustering clustering(static_cast<int>(dim), static_cast<int>(clusters), parameters);
    clustering.centroids = start;
    faiss::IndexFlatL2 index(static_cast<int>(dim));
    clustering.train(tokens, points, index);
    centroids = clustering.centroids;
  });
  Executor executor(threads);
  const auto backend = createBackend("cpu", executor);
  const auto last = backend->cluster(*backend->prepare(head->in, head, {}),
                                     {Side::Key, 0, tokens, centroids, Distance::Euclid, {}}, {});
  state.counters["objective"] = std::accumulate(last.nearest.begin(), last.nearest.end(), 0.0);
}

const bool kRegistered = [] {
  for (const Index tokens : baselineTokens()) {
    for (const Index clusters : {100, 500, 1000}) {
      const std::string name =
          fmt::format("baseline/faiss/kmeans/k{}/fp32/d128/{}/threads:{}", clusters, tokens, allCores());
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        faissKMeans(state, tokens, 128, clusters, 0);
      })->Unit(benchmark::kMillisecond);
    }
  }
  return true;
}();

}  // namespace
}  // namespace sparsight::bench

// SPDX-License-Identifier: Apache-2.0
// Whole tasks as other programs do them too (bench/peers): k-means from given centroids, one head read from a trace,
// the maps of several heads.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <string>
#include <thread>

#include "core/clustering.h"
#include "inputs.h"
#include "measure.h"
#include "sparsight/core/trace.h"

namespace sparsight::bench {
namespace {

constexpr Index kIterations = 10;

/// Sum of squared distances of all points to the nearest of these centroids.
double objectiveOf(Backend& backend, const PreparedHead& head, std::span<const float> centroids) {
  const ClusterResult last =
      backend.cluster(head, {Side::Key, 0, head.input().k.rows, centroids, Distance::Euclid, {}}, {});
  return std::accumulate(last.nearest.begin(), last.nearest.end(), 0.0);
}

void kMeansLloyd(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads, Index clusters,
                 unsigned seed, bool bfloatCentroids) {
  const auto head = makeMixtureHead(tokens, dim, dtype);
  const std::vector<float> start = startCentroids(*head, clusters, seed);
  Executor executor(threads);
  const auto backend = createBackend("cpu", executor);
  const auto prepared = backend->prepare(head->in, head, {});
  ClusterGeometry geometry;
  geometry.tokens = geometry.videoTokens = tokens;
  KMeansOptions options;
  options.iterations = kIterations;
  options.returnMovedOnStop = true;
  options.empty = EmptyPolicy::Relocate;  // as FAISS and scikit-learn do, each in its way
  options.bfloatCentroids = bfloatCentroids;
  Clustering result;
  const double flops =
      2 * static_cast<double>(tokens) * static_cast<double>(clusters * dim) * static_cast<double>(kIterations);
  measure(
      state, threads, flops, [&] { result = kMeans(*prepared, geometry, Side::Key, start, options, *backend, {}); },
      bfloatCentroids ? scorePeak(dtype) : PeakKind::Fp32);
  state.counters["objective"] = objectiveOf(*backend, *prepared, result.centroids);
  state.counters["rounds"] = static_cast<double>(result.objective.size());
}

/// Maps of several heads one after the other, as a run over a layer does; packing is part of the time, an oracle is not
/// asked: for series over N and heads.
void mapHeads(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads, int heads) {
  const auto head = makeBenchHead(tokens, dim, dtype);
  Executor executor(threads);
  const auto backend = createBackend("cpu", executor);
  std::vector<Index> bounds;
  const Index cells = std::min<Index>(tokens, 512);
  for (Index i = 0; i <= cells; ++i) bounds.push_back(i * tokens / cells);
  const double n = static_cast<double>(tokens);
  measure(state, threads, 2 * n * n * static_cast<double>(dim) * heads, [&] {
    std::vector<LseMapResult> maps;
    for (int h = 0; h < heads; ++h)
      maps.push_back(backend->lseMap(*backend->prepare(head->in, head, {}), {bounds, bounds, true, true, {}}, {}));
    benchmark::DoNotOptimize(maps.data());
  });
}

/// Q, K and V of one head after the other, never twice from a cache of ours: what a click on another head waits for
/// once the cache is full. Or only their outline: what it waits for where the map is on disk.
enum class Part : std::uint8_t { All, Outline };
void loadHead(benchmark::State& state, Index tokens, Index dim, DType dtype, bool contiguous, Part part) {
  constexpr int kHeads = 4;  // more than a last-level cache together
  const char* given = contiguous ? std::getenv("SPARSIGHT_BENCH_TRACE") : nullptr;
  const auto own = std::filesystem::temp_directory_path() / fmt::format("sparsight-bench-{}.h5", ::getpid());
  if (given == nullptr) writeBenchTrace(own, *makeBenchHead(tokens, dim, dtype), kHeads, contiguous);
  {
    TraceOptions options;
    options.cacheBytes = 3 * tokens * dim * static_cast<Index>(itemSize(dtype));  // one head: the next takes its place
    const auto trace = openTrace(given != nullptr ? std::filesystem::path(given) : own, options);
    const CallInfo& call = trace->info().calls.front();
    std::size_t next = 0;
    const auto load = [&]() -> Index {
      const HeadId id{call.id, call.heads[next++ % call.heads.size()]};
      if (part == Part::All) return trace->load(id).bytes;
      benchmark::DoNotOptimize(trace->outline(id)->queries.low);
      return 2 * tokens * dim * static_cast<Index>(itemSize(dtype));
    };
    for (std::size_t i = 0; i < call.heads.size(); ++i) benchmark::DoNotOptimize(load());
    Index bytes = 0;
    const auto start = std::chrono::steady_clock::now();
    for (auto _ : state) bytes = load();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    state.counters["mib"] = static_cast<double>(bytes) / (1 << 20);
    state.counters["gb_per_s"] =
        1e-9 * static_cast<double>(bytes) * static_cast<double>(state.iterations()) / seconds.count();
  }
  if (given == nullptr) std::filesystem::remove(own);
}

const bool kRegistered = [] {
  const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const auto add = [](const std::string& name, auto run) {
    benchmark::RegisterBenchmark(name.c_str(), run)->Unit(benchmark::kMillisecond);
  };
  for (const DType dtype : {DType::F32, DType::BF16}) {
    for (const Index tokens : {8192, 32760, 118800}) {
      for (const Index clusters : {100, 500, 1000}) {
        for (unsigned seed = 0; seed < 10; ++seed) {
          for (const bool bfloats : {false, true}) {
            if (bfloats && dtype != DType::BF16) continue;
            add(fmt::format("kmeans_lloyd{}/k{}/{}/d128/{}/seed:{}/threads:{}", bfloats ? "_bf16" : "", clusters,
                            shortName(dtype), tokens, seed, cores),
                [=](benchmark::State& state) {
                  kMeansLloyd(state, tokens, 128, dtype, cores, clusters, seed, bfloats);
                });
          }
        }
      }
      const auto addLoad = [&](const char* name, bool contiguous, Part part) {
        add(fmt::format("{}/{}/d128/{}", name, shortName(dtype), tokens),
            [=](benchmark::State& state) { loadHead(state, tokens, 128, dtype, contiguous, part); });
      };
      addLoad("load_head", true, Part::All);
      addLoad("load_head_chunked", false, Part::All);
      addLoad("outline_head_chunked", false, Part::Outline);
    }
  }
  const auto addMaps = [&](Index tokens, int heads) {
    add(fmt::format("map_heads/bf16/d128/{}/heads:{}/threads:{}", tokens, heads, cores),
        [=](benchmark::State& state) { mapHeads(state, tokens, 128, DType::BF16, cores, heads); });
  };
  for (const int heads : {1, 2, 4, 8, 16}) addMaps(8192, heads);
  for (const Index tokens : {16384, 32760, 65536, 118800}) addMaps(tokens, 1);
  return true;
}();

}  // namespace
}  // namespace sparsight::bench

// SPDX-License-Identifier: Apache-2.0
#include "cuda_cases.h"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>

#include "case_parts.h"
#include "measure.h"
#ifdef SPARSIGHT_HAVE_CUDA
#include "cuda/cuda_backend.h"
#endif

namespace sparsight::bench {

#ifdef SPARSIGHT_HAVE_CUDA
namespace {

/// Runs of a case; the first ones warm up and are not counted.
constexpr int kWarmUps = 3;
constexpr int kRuns = 24;
/// Heads that the runs take turns with: the same tensors from another row on.
constexpr Index kInputSets = 3;
constexpr Index kSetStep = 64;
/// Heads of the layer that k-means is measured on.
constexpr Index kLayerHeads = 24;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

double medianOf(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The heads of a case on the device, and the oracle for the errors.
struct Setup {
  Setup(Index tokenCount, Index dim, DType dtype)
      : tokens(tokenCount),
        storage(makeBenchHead(tokenCount + (kInputSets - 1) * kSetStep, dim, dtype)),
        backend(createCudaBackend(executor)),
        oracle(createReferenceBackend()) {
    for (Index set = 0; set < kInputSets; ++set) {
      AttentionIn in = storage->in;
      for (MatrixView* m : {&in.q, &in.k, &in.v}) {
        m->data += set * kSetStep * m->rowStrideBytes;
        m->rows = tokens;
      }
      heads.push_back(backend->prepare(in, storage, {}));
    }
  }
  Index tokens;
  Executor executor;
  std::shared_ptr<const BenchHead> storage;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Backend> oracle;
  std::vector<std::shared_ptr<const PreparedHead>> heads;

  [[nodiscard]] double dim() const { return static_cast<double>(storage->in.q.cols); }
  [[nodiscard]] const PreparedHead& first() const { return *heads.front(); }
  std::shared_ptr<const PreparedHead> exact;  ///< made when first wanted: the oracle holds everything in double
  [[nodiscard]] Compared compared() {
    if (!exact) exact = onOracle();
    return {*backend, first(), *oracle, *exact};
  }
  [[nodiscard]] std::shared_ptr<const PreparedHead> onOracle() const {
    return oracle->prepare(heads.front()->input(), storage, {});
  }
};

/// Median over the runs of the device's own clock (first to last kernel) as the benchmark's time, with the wall clock
/// of the whole call, copies included, beside it.
void measureDevice(benchmark::State& state, Setup& s, double flops,
                   const std::function<void(const PreparedHead&)>& work) {
  using Clock = std::chrono::steady_clock;
  for (auto _ : state) {
    std::vector<double> device;
    std::vector<double> wall;
    for (int run = 0; run < kWarmUps + kRuns; ++run) {
      const auto start = Clock::now();
      work(*s.heads[static_cast<std::size_t>(run) % s.heads.size()]);
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (run < kWarmUps) continue;
      device.push_back(cudaDeviceSeconds(*s.backend));
      wall.push_back(seconds);
    }
    const double median = medianOf(device);
    state.SetIterationTime(median);
    state.counters["device_ms"] = median * 1e3;
    state.counters["device_ms_least"] = *std::min_element(device.begin(), device.end()) * 1e3;
    state.counters["device_ms_most"] = *std::max_element(device.begin(), device.end()) * 1e3;
    state.counters["wall_ms"] = medianOf(wall) * 1e3;
    state.counters["runs"] = kRuns;
    state.counters["tflops"] = flops / median / 1e12;
  }
  // A case that was cut into smaller batches is not the case that its name says.
  state.counters["notes"] = static_cast<double>(s.backend->takeFallbacks().size());
}

void mapExact(benchmark::State& state, Index tokens, Index dim, DType dtype, bool givenLse, Index cells) {
  Setup s(tokens, dim, dtype);
  const std::vector<Index> bounds = evenBounds(tokens, std::min(tokens, cells));
  const std::vector<float> lse = givenLse ? s.backend->lseMap(s.first(), {}, {}).lse : std::vector<float>();
  LseMapResult map;
  const double pairs = static_cast<double>(tokens) * static_cast<double>(tokens);
  measureDevice(state, s, 2 * pairs * s.dim(), [&](const PreparedHead& head) {
    map = s.backend->lseMap(head, {bounds, bounds, true, !givenLse, lse}, {});
  });
  map = s.backend->lseMap(s.first(), {bounds, bounds, true, !givenLse, lse}, {});
  const std::vector<Index> rows = sampledRows(tokens, kErrorRows);
  const std::vector<float> want = s.oracle->attend(*s.onOracle(), rows, {}, {}).lse;
  Errors errors;
  for (std::size_t i = 0; i < rows.size(); ++i) errors.add(map.lse[at(rows[i])], want[i]);
  setErrors(state, errors);
}
void mapExactCase(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  mapExact(state, tokens, dim, dtype, false, kMapCells);
}
void adaSpaCase(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  mapExact(state, tokens, dim, dtype, true, (tokens + 63) / 64);
}

void denseAttention(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  Setup s(tokens, dim, dtype);
  const std::vector<Index> rows = allRows(tokens);
  const double pairs = static_cast<double>(tokens) * static_cast<double>(tokens);
  measureDevice(state, s, 4 * pairs * s.dim(), [&](const PreparedHead& head) {
    benchmark::DoNotOptimize(s.backend->attend(head, rows, {}, {}).out.data());
  });
  attentionErrors(state, s.compared(), {});
}

void sparseAttention(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  Setup s(tokens, dim, dtype);
  const RandomBlocks blocks(tokens);
  const std::vector<Index> rows = allRows(tokens);
  measureDevice(state, s, 4 * blocks.pairs * s.dim(), [&](const PreparedHead& head) {
    benchmark::DoNotOptimize(s.backend->attend(head, rows, blocks.keep(), {}).out.data());
  });
  state.counters["kept_fraction"] = blocks.pairs / (static_cast<double>(tokens) * static_cast<double>(tokens));
  attentionErrors(state, s.compared(), blocks.keep());
}

/// Exact number of keys for 95 % of the mass, of every row.
void density(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  Setup s(tokens, dim, dtype);
  const std::vector<Index> rows = allRows(tokens);
  const double pairs = static_cast<double>(tokens) * static_cast<double>(tokens);
  measureDevice(state, s, 2 * pairs * s.dim(), [&](const PreparedHead& head) {
    benchmark::DoNotOptimize(s.backend->rowStats(head, rows, 0.95, {}).keysForMass.data());
  });
  rowStatsErrors(state, s.compared(), 0.95);
}

void kMeansRound(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  Setup s(tokens, dim, dtype);
  const std::vector<float> centroids = randomCentroids(dim);
  const ClusterRequest request{Side::Key, 0, tokens, centroids, Distance::Euclid, {}};
  measureDevice(
      state, s, 2 * static_cast<double>(tokens) * static_cast<double>(kClusters) * s.dim(),
      [&](const PreparedHead& head) { benchmark::DoNotOptimize(s.backend->cluster(head, request, {}).labels.data()); });
  kMeansErrors(state, s.compared(), centroids);
}

/// The same for the heads of a layer at once; they take turns with the tensors of the input sets.
void kMeansLayer(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  Setup s(tokens, dim, dtype);
  const std::vector<float> centroids = randomCentroids(dim);
  const ClusterRequest request{Side::Key, 0, tokens, centroids, Distance::Euclid, {}};
  std::vector<ClusterTask> tasks;
  for (Index i = 0; i < kLayerHeads; ++i) tasks.push_back({s.heads[at(i % kInputSets)].get(), request});
  measureDevice(
      state, s, 2 * static_cast<double>(kLayerHeads * tokens) * static_cast<double>(kClusters) * s.dim(),
      [&](const PreparedHead&) { benchmark::DoNotOptimize(s.backend->clusterAll(tasks, {}).front().labels.data()); });
  kMeansErrors(state, s.compared(), centroids);
}

/// Keys and values in a random order, as a plan of clusters wants them: what is read and written, beside a copy of as
/// many bytes in the same run. The goal is 80 % of that.
void permuteKeys(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  Setup s(tokens, dim, dtype);
  const std::vector<Index> order = randomOrder(tokens);
  const std::vector<Index> oneRow{0};
  for (const auto& head : s.heads) static_cast<void>(s.backend->attend(*head, oneRow, {}, {}));  // V is there, too
  measureDevice(state, s, 0, [&](const PreparedHead& head) {
    benchmark::DoNotOptimize(s.backend->permuteKeys(head, {order}, {}).get());
  });
  const Index moved = 2 * tokens * dim * static_cast<Index>(itemSize(dtype));
  const double copied = 2.0 * static_cast<double>(moved) / cudaCopySeconds(moved) / 1e9;
  const double rate = 2.0 * static_cast<double>(moved) / (state.counters["device_ms"] * 1e-3) / 1e9;
  state.counters["gb_per_s"] = rate;
  state.counters["copy_gb_per_s"] = copied;
  state.counters["share_of_copy"] = rate / copied;
}

void scoreClusters(benchmark::State& state, Index dim) {
  Setup s(4096, dim, DType::BF16);
  const ClusterCase clusters(dim);
  measureDevice(state, s, clusters.flops(), [&](const PreparedHead&) {
    benchmark::DoNotOptimize(s.backend->scoreClusters(clusters.request(), {}).order.data());
  });
}

/// AdaSpa's choice of a fifth of the blocks of each row.
void selectLargest(benchmark::State& state, Index blocks) {
  Setup s(4096, 128, DType::BF16);
  const BlockCase map(blocks);
  measureDevice(state, s, 0, [&](const PreparedHead&) {
    benchmark::DoNotOptimize(s.backend->selectLargest(map.request(), {}).data());
  });
}

}  // namespace
#endif

void registerCuda() {
#ifdef SPARSIGHT_HAVE_CUDA
  std::string why;
  if (!probeCuda(why)) {
    benchmark::AddCustomContext("cuda", "not measured: " + why);
    return;
  }
  Executor executor;
  const BackendInfo info = createCudaBackend(executor)->info();
  benchmark::AddCustomContext("cuda", info.deviceName + ", " + info.detail);
  struct Family {
    const char* name;
    void (*run)(benchmark::State&, Index, Index, DType);
  };
  for (const Family& family : {Family{"map_exact", mapExactCase}, Family{"adaspa_search/cached", adaSpaCase},
                               Family{"density", density}, Family{"dense_attention", denseAttention},
                               Family{"sparse_attention/kept25", sparseAttention}, Family{"kmeans/k1000", kMeansRound},
                               Family{"kmeans_layer24/k1000", kMeansLayer}, Family{"permute_keys", permuteKeys}}) {
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
      for (const Index dim : {64, 128}) {
        for (const Index tokens : {4096, 32760, 118800}) {
          const std::string name = fmt::format("cuda/{}/{}/d{}/{}/device", family.name, shortName(dtype), dim, tokens);
          benchmark::RegisterBenchmark(name.c_str(),
                                       [=](benchmark::State& state) { family.run(state, tokens, dim, dtype); })
              ->Unit(benchmark::kMillisecond)
              ->UseManualTime()
              ->Iterations(1);
        }
      }
    }
  }
  for (const Index dim : {64, 128}) {
    const std::string name = fmt::format("cuda/score_clusters/q{}_k{}/d{}/device", kQueryClusters, kClusters, dim);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { scoreClusters(state, dim); })
        ->Unit(benchmark::kMillisecond)
        ->UseManualTime()
        ->Iterations(1);
  }
  for (const Index blocks : {512, 1857}) {
    benchmark::RegisterBenchmark(fmt::format("cuda/select_largest/{}/device", blocks).c_str(),
                                 [=](benchmark::State& state) { selectLargest(state, blocks); })
        ->Unit(benchmark::kMillisecond)
        ->UseManualTime()
        ->Iterations(1);
  }
#else
  benchmark::AddCustomContext("cuda", "not measured: built without CUDA");
#endif
}

}  // namespace sparsight::bench

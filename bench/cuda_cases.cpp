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
constexpr Index kMapCells = 512;
constexpr Index kGroupRows = 128;
constexpr double kKept = 0.25;
constexpr Index kErrorRows = 8;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

double medianOf(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::vector<Index> evenBounds(Index size, Index blocks) {
  std::vector<Index> bounds;
  for (Index i = 0; i <= blocks; ++i) bounds.push_back(i * size / blocks);
  return bounds;
}
std::vector<Index> rowsOf(Index tokens, Index count) {
  std::vector<Index> rows;
  for (Index i = 0; i < count; ++i) rows.push_back(i * (tokens - 1) / std::max<Index>(1, count - 1));
  return rows;
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
  const std::vector<Index> rows = rowsOf(tokens, kErrorRows);
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

void attentionErrors(benchmark::State& state, Setup& s, const RowKeep& keep) {
  const std::vector<Index> rows = rowsOf(s.tokens, kErrorRows);
  RowKeep sampled = keep;
  std::vector<Index> group;
  for (const Index row : rows) {
    if (!keep.group.empty()) group.push_back(keep.group[at(row)]);
  }
  sampled.group = group;
  const AttendResult got = s.backend->attend(s.first(), rows, sampled, {});
  const AttendResult want = s.oracle->attend(*s.onOracle(), rows, sampled, {});
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

void denseAttention(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  Setup s(tokens, dim, dtype);
  const std::vector<Index> rows = rowsOf(tokens, tokens);
  const double pairs = static_cast<double>(tokens) * static_cast<double>(tokens);
  measureDevice(state, s, 4 * pairs * s.dim(), [&](const PreparedHead& head) {
    benchmark::DoNotOptimize(s.backend->attend(head, rows, {}, {}).out.data());
  });
  attentionErrors(state, s, {});
}

/// Random kept blocks of variable width (mean 64 keys) for row groups of 128, as on the CPU.
void sparseAttention(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  Setup s(tokens, dim, dtype);
  std::mt19937 random(7);
  std::vector<Index> edges{0};
  while (edges.back() < tokens) {
    edges.push_back(std::min(tokens, edges.back() + 16 + static_cast<Index>(random() % 97)));
  }
  std::vector<Index> ptr{0};
  std::vector<Interval> intervals;
  std::vector<Index> group;
  double pairs = 0;
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
  const std::vector<Index> rows = rowsOf(tokens, tokens);
  const RowKeep keep{ptr, intervals, group};
  measureDevice(state, s, 4 * pairs * s.dim(), [&](const PreparedHead& head) {
    benchmark::DoNotOptimize(s.backend->attend(head, rows, keep, {}).out.data());
  });
  state.counters["kept_fraction"] = pairs / (static_cast<double>(tokens) * static_cast<double>(tokens));
  attentionErrors(state, s, keep);
}

/// Exact number of keys for 95 % of the mass, of every row.
void density(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  Setup s(tokens, dim, dtype);
  const std::vector<Index> rows = rowsOf(tokens, tokens);
  const double pairs = static_cast<double>(tokens) * static_cast<double>(tokens);
  measureDevice(state, s, 2 * pairs * s.dim(), [&](const PreparedHead& head) {
    benchmark::DoNotOptimize(s.backend->rowStats(head, rows, 0.95, {}).keysForMass.data());
  });
  const std::vector<Index> few = rowsOf(tokens, kErrorRows);
  const RowStats got = s.backend->rowStats(s.first(), few, 0.95, {});
  const RowStats want = s.oracle->rowStats(*s.onOracle(), few, 0.95, {});
  Errors errors;
  for (std::size_t i = 0; i < few.size(); ++i) {
    errors.add(got.lse[i], want.lse[i]);
    errors.add(static_cast<float>(got.keysForMass[i]), static_cast<float>(want.keysForMass[i]));
  }
  setErrors(state, errors);
}

void kMeansRound(benchmark::State& state, Index tokens, Index dim, DType dtype) {
  Setup s(tokens, dim, dtype);
  constexpr Index kClusters = 1000;
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> centroids(at(kClusters * dim));
  for (float& c : centroids) c = normal(random);
  const ClusterRequest request{Side::Key, 0, tokens, centroids, Distance::Euclid, {}};
  measureDevice(
      state, s, 2 * static_cast<double>(tokens) * static_cast<double>(kClusters) * s.dim(),
      [&](const PreparedHead& head) { benchmark::DoNotOptimize(s.backend->cluster(head, request, {}).labels.data()); });
  const ClusterRequest few{Side::Key, 0, std::min<Index>(tokens, 256), centroids, Distance::Euclid, {}};
  const ClusterResult got = s.backend->cluster(s.first(), few, {});
  const ClusterResult want = s.oracle->cluster(*s.onOracle(), few, {});
  Errors errors;
  double other = 0;
  for (std::size_t i = 0; i < want.labels.size(); ++i) {
    errors.add(got.nearest[i], want.nearest[i]);
    other += got.labels[i] == want.labels[i] ? 0 : 1;
  }
  setErrors(state, errors);
  state.counters["other_labels"] = other;  // ties within rounding
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
  for (const Family& family :
       {Family{"map_exact", mapExactCase}, Family{"adaspa_search/cached", adaSpaCase}, Family{"density", density},
        Family{"dense_attention", denseAttention}, Family{"sparse_attention/kept25", sparseAttention},
        Family{"kmeans/k1000", kMeansRound}}) {
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
#else
  benchmark::AddCustomContext("cuda", "not measured: built without CUDA");
#endif
}

}  // namespace sparsight::bench

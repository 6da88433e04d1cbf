// SPDX-License-Identifier: Apache-2.0
#include "bench_cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include "case_parts.h"
#include "measure.h"
#include "sparsight/core/response.h"

namespace sparsight::bench {
namespace {

constexpr Index kTileTokens = 512;

/// A shape under measurement: backend, prepared head, and the oracle for the errors.
struct Setup {
  Setup(Index tokens, Index dim, DType dtype, int threads)
      : head(makeBenchHead(tokens, dim, dtype)),
        executor(threads),
        backend(createBackend("cpu", executor)),
        prepared(backend->prepare(head->in, head, {})),
        oracle(createReferenceBackend()) {}
  std::shared_ptr<const BenchHead> head;
  Executor executor;
  std::unique_ptr<Backend> backend;
  std::shared_ptr<const PreparedHead> prepared;
  std::unique_ptr<Backend> oracle;

  [[nodiscard]] Index tokens() const { return head->in.q.rows; }
  [[nodiscard]] double dim() const { return static_cast<double>(head->in.q.cols); }
  /// Prepares the oracle's head when it is first wanted: it holds everything in double.
  [[nodiscard]] Compared compared() {
    if (!exact) exact = oracleHead();
    return {*backend, *prepared, *oracle, *exact};
  }
  std::shared_ptr<const PreparedHead> exact;
  [[nodiscard]] std::shared_ptr<const PreparedHead> oracleHead() const { return oracle->prepare(head->in, head, {}); }
};

void peak(benchmark::State& state, int threads, PeakKind kind) {
  double sum = 0;
  for (auto _ : state) sum += probePeak(threads, kind).gflops;
  state.counters["gflops"] = sum / static_cast<double>(state.iterations());
}

void peakMemory(benchmark::State& state, int threads) {
  double sum = 0;
  for (auto _ : state) sum += probeMemoryRead(threads);
  state.counters["gb_per_s"] = sum / static_cast<double>(state.iterations());
}

void mapExact(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads) {
  Setup s(tokens, dim, dtype, threads);
  const std::vector<Index> bounds = evenBounds(tokens, std::min(tokens, kMapCells));
  LseMapResult map;
  measure(
      state, threads, 2 * static_cast<double>(tokens) * static_cast<double>(tokens) * s.dim(),
      [&] {
        map = s.backend->lseMap(*s.prepared, {bounds, bounds, true, true}, {});
      },
      scorePeak(dtype));

  // Against the oracle: the row LSE and the cells of one map row in the middle.
  const Index mapCols = static_cast<Index>(bounds.size()) - 1;
  const Index mapRow = mapCols / 2;
  const Index first = bounds[static_cast<std::size_t>(mapRow)];
  const Index last = bounds[static_cast<std::size_t>(mapRow + 1)];
  std::vector<Index> rows;
  for (Index row = first; row < last; ++row) rows.push_back(row);
  const auto exact = s.oracleHead();
  const std::vector<float> exactLse = s.oracle->attend(*exact, rows, {}, {}).lse;
  std::vector<float> lse(static_cast<std::size_t>(tokens), 0.0F);
  Errors lseErrors;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    lse[static_cast<std::size_t>(rows[i])] = exactLse[i];
    lseErrors.add(map.lse[static_cast<std::size_t>(rows[i])], exactLse[i]);
  }
  Errors cellErrors;
  for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
    const std::vector<float>& got = reduce == Reduce::Mean ? map.mean : map.max;
    const std::vector<float> want = s.oracle->tile(*exact, lse, {first, last, 0, tokens, 1, mapCols}, reduce, {});
    for (std::size_t c = 0; c < want.size(); ++c) {
      cellErrors.add(got[static_cast<std::size_t>(mapRow * mapCols) + c], want[c]);
    }
  }
  setErrors(state, {lseErrors.maxAbs, cellErrors.maxRel});
}

void tileExact(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads) {
  Setup s(tokens, dim, dtype, threads);
  const Index side = std::min(tokens, kTileTokens);
  const TileRect rect{tokens / 3, tokens / 3 + side, tokens / 2, std::min(tokens, tokens / 2 + side), side, side};
  // Any LSE does for the time; for the errors it is the oracle's, on the rows that are compared.
  std::vector<float> lse(static_cast<std::size_t>(tokens), std::log(static_cast<float>(tokens)));
  std::vector<float> tile;
  measure(
      state, threads, 2 * static_cast<double>(side) * static_cast<double>(rect.col1 - rect.col0) * s.dim(),
      [&] { tile = s.backend->tile(*s.prepared, lse, rect, Reduce::Max, {}); }, scorePeak(dtype));
  const std::vector<float> want = s.oracle->tile(*s.oracleHead(), lse, rect, Reduce::Max, {});
  Errors errors;
  for (std::size_t c = 0; c < want.size(); ++c) errors.add(tile[c], want[c]);
  setErrors(state, errors);
}

void denseAttention(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads) {
  Setup s(tokens, dim, dtype, threads);
  const std::vector<Index> rows = allRows(tokens);
  measure(state, threads, 4 * static_cast<double>(tokens) * static_cast<double>(tokens) * s.dim(),
          [&] { benchmark::DoNotOptimize(s.backend->attend(*s.prepared, rows, {}, {}).out.data()); });
  attentionErrors(state, s.compared(), {});
}

void sparseAttention(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads) {
  Setup s(tokens, dim, dtype, threads);
  const RandomBlocks blocks(tokens);
  const std::vector<Index> rows = allRows(tokens);
  measure(state, threads, 4 * blocks.pairs * s.dim(),
          [&] { benchmark::DoNotOptimize(s.backend->attend(*s.prepared, rows, blocks.keep(), {}).out.data()); });
  state.counters["kept_fraction"] = blocks.pairs / (static_cast<double>(tokens) * static_cast<double>(tokens));
  attentionErrors(state, s.compared(), blocks.keep());
}

void rowStats(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads) {
  Setup s(tokens, dim, dtype, threads);
  const std::vector<Index> rows = sampledRows(tokens, std::min<Index>(tokens, 1024));
  measure(
      state, threads, 2 * static_cast<double>(rows.size()) * static_cast<double>(tokens) * s.dim(),
      [&] { benchmark::DoNotOptimize(s.backend->rowStats(*s.prepared, rows, 0.95, {}).lse.data()); }, scorePeak(dtype));
  rowStatsErrors(state, s.compared(), 0.95);
}

/// What every value of a profile leads to, as after each move of a drag: 50 steps x 30 layers x 12 heads.
void responseLookup(benchmark::State& state) {
  constexpr int kSteps = 50, kLayers = 30, kHeads = 12;
  Profile profile(kSteps, kLayers, kHeads, BudgetRole::KeptTarget);
  std::vector<HeadCurve> curves;
  std::mt19937 random(11);
  for (int step = 0; step < kSteps; ++step) {
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int head = 0; head < kHeads; ++head) {
        profile.set({step, layer, head}, static_cast<double>(random() % 1000) / 1000.0);
        HeadCurve curve;
        curve.id = {{step, "cond", layer, "self", 0}, head};
        for (int n = 0; n < kCurvePoints; ++n) {
          const double kept = static_cast<double>(n) / (kCurvePoints - 1);
          curve.points.push_back({kept, kept, std::sqrt(kept), kept, 1.0 - kept});
        }
        curves.push_back(std::move(curve));
      }
    }
  }
  ResponseTable table;
  table.add(curves);
  for (auto _ : state) benchmark::DoNotOptimize(table.predict(profile).total.mass);
  state.counters["cells"] = static_cast<double>(table.size());
}

/// One round of SVG2's k-means of the keys: every token to the nearest of 1,000 centroids, then the means.
void kMeansRound(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads) {
  Setup s(tokens, dim, dtype, threads);
  const std::vector<float> centroids = randomCentroids(dim);
  const ClusterRequest request{Side::Key, 0, tokens, centroids, Distance::Euclid, {}};
  measure(state, threads, 2 * static_cast<double>(tokens) * static_cast<double>(kClusters) * s.dim(),
          [&] { benchmark::DoNotOptimize(s.backend->cluster(*s.prepared, request, {}).labels.data()); });
  kMeansErrors(state, s.compared(), centroids);
}

/// Keys and values in a random order: gathered on the host, as a plan of clusters has them evaluated.
void permuteKeys(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads) {
  Setup s(tokens, dim, dtype, threads);
  const std::vector<Index> order = randomOrder(tokens);
  measure(state, threads, 0, [&] { benchmark::DoNotOptimize(s.backend->permuteKeys(*s.prepared, {order}, {}).get()); });
}

void scoreClusters(benchmark::State& state, Index dim, int threads) {
  Executor executor(threads);
  const auto backend = createBackend("cpu", executor);
  const ClusterCase clusters(dim);
  measure(state, threads, clusters.flops(),
          [&] { benchmark::DoNotOptimize(backend->scoreClusters(clusters.request(), {}).order.data()); });
}

void selectLargest(benchmark::State& state, Index blocks, int threads) {
  Executor executor(threads);
  const auto backend = createBackend("cpu", executor);
  const BlockCase map(blocks);
  measure(state, threads, 0, [&] { benchmark::DoNotOptimize(backend->selectLargest(map.request(), {}).data()); });
}

/// AdaSpa's block scores (sum of p per 64 x 64 block): `cached` against a row LSE that an earlier search left, else
/// with the LSE found on the way.
void adaSpaSearch(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads, bool cached) {
  Setup s(tokens, dim, dtype, threads);
  const std::vector<Index> bounds = evenBounds(tokens, (tokens + 63) / 64);
  const LseMapResult fused = s.backend->lseMap(*s.prepared, {bounds, bounds, true, false, {}}, {});
  std::span<const float> lse;
  if (cached) lse = fused.lse;
  LseMapResult scores;
  measure(
      state, threads, 2 * static_cast<double>(tokens) * static_cast<double>(tokens) * s.dim(),
      [&] {
        scores = s.backend->lseMap(*s.prepared, {bounds, bounds, true, false, lse}, {});
      },
      scorePeak(dtype));
  const Index blocks = static_cast<Index>(bounds.size()) - 1;
  const std::vector<float> want =
      s.oracle->tile(*s.oracleHead(), fused.lse, {bounds[0], bounds[1], 0, tokens, 1, blocks}, Reduce::Mean, {});
  Errors errors;
  for (std::size_t c = 0; c < want.size(); ++c) errors.add(scores.mean[c], want[c]);
  setErrors(state, errors);
}
void adaSpaFused(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads) {
  adaSpaSearch(state, tokens, dim, dtype, threads, false);
}
void adaSpaCached(benchmark::State& state, Index tokens, Index dim, DType dtype, int threads) {
  adaSpaSearch(state, tokens, dim, dtype, threads, true);
}

using Case = void (*)(benchmark::State&, Index, Index, DType, int);

}  // namespace

void registerAll() {
  benchmark::RegisterBenchmark("response_lookup/18000", responseLookup)->Unit(benchmark::kMillisecond);
  const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const std::set<int> threadCounts{1, cores};
  for (const int threads : threadCounts) {
    const auto add = [&](const char* name, auto run) {
      benchmark::RegisterBenchmark(fmt::format("peak/{}/threads:{}", name, threads).c_str(), run)
          ->Unit(benchmark::kMillisecond);
    };
    add("fp32", [threads](benchmark::State& state) { peak(state, threads, PeakKind::Fp32); });
    add("bf16", [threads](benchmark::State& state) { peak(state, threads, PeakKind::Bf16); });
    for (const Index dim : {64, 128}) {
      benchmark::RegisterBenchmark(
          fmt::format("score_clusters/q{}_k{}/d{}/threads:{}", kQueryClusters, kClusters, dim, threads).c_str(),
          [=](benchmark::State& state) { scoreClusters(state, dim, threads); })
          ->Unit(benchmark::kMillisecond);
    }
    for (const Index blocks : {512, 1857}) {  // of 64 tokens, of 32,760 and 118,800
      benchmark::RegisterBenchmark(fmt::format("select_largest/{}/threads:{}", blocks, threads).c_str(),
                                   [=](benchmark::State& state) { selectLargest(state, blocks, threads); })
          ->Unit(benchmark::kMillisecond);
    }
    add("memory", [threads](benchmark::State& state) { peakMemory(state, threads); });
  }
  struct Family {
    const char* name;
    Case run;
  };
  for (const Family& family :
       {Family{"map_exact", mapExact}, Family{"tile_exact", tileExact}, Family{"dense_attention", denseAttention},
        Family{"sparse_attention/kept25", sparseAttention}, Family{"row_stats", rowStats},
        Family{"kmeans/k1000", kMeansRound}, Family{"adaspa_search/fused", adaSpaFused},
        Family{"adaspa_search/cached", adaSpaCached}, Family{"permute_keys", permuteKeys}}) {
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
      for (const Index dim : {64, 128}) {
        for (const Index tokens : {4096, 8192, 32760, 118800}) {
          for (const int threads : threadCounts) {
            const std::string name =
                fmt::format("{}/{}/d{}/{}/threads:{}", family.name, shortName(dtype), dim, tokens, threads);
            benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
              family.run(state, tokens, dim, dtype, threads);
            })->Unit(benchmark::kMillisecond);
          }
        }
      }
    }
  }
}

}  // namespace sparsight::bench

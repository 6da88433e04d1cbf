// SPDX-License-Identifier: Apache-2.0
#include "baselines_common.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <numeric>
#include <thread>

// The exponentials are what a library does not do: compiled for wide registers too, chosen when the program runs.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SPARSIGHT_WIDE __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
#else
#define SPARSIGHT_WIDE
#endif

namespace sparsight::bench {
namespace {

constexpr Index kCells = 512;
constexpr Index kLanes = 16;
constexpr Index kPanelBytes = Index{34} << 20;

/// exp(x) for x <= 0, relative error about 2e-7: 2^(whole + part), degree 6 in the part.
inline __attribute__((always_inline)) float expOf(float x) {
  const float y = std::max(x * 1.44269504F, -126.0F);
  const float shifted = y + 12582912.0F;  // rounds to the nearest whole number
  const float part = y - (shifted - 12582912.0F);
  float p = 1.540353e-4F;
  p = p * part + 1.3398874e-3F;
  p = p * part + 9.6184373e-3F;
  p = p * part + 5.5503324e-2F;
  p = p * part + 2.4022648e-1F;
  p = p * part + 6.9314718e-1F;
  p = p * part + 1.0F;
  return std::bit_cast<float>(std::bit_cast<std::int32_t>(p) + (std::bit_cast<std::int32_t>(shifted) << 23));
}

SPARSIGHT_WIDE float largest(const float* values, Index count) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = -INFINITY;
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (Index l = 0; l < kLanes; ++l) lanes[l] = lanes[l] > values[i + l] ? lanes[l] : values[i + l];
  }
  for (; i < count; ++i) lanes[0] = lanes[0] > values[i] ? lanes[0] : values[i];
  float top = lanes[0];
  for (float lane : lanes) top = top > lane ? top : lane;
  return top;
}

SPARSIGHT_WIDE float sumOfExps(const float* values, Index count, float reference) {
  float lanes[kLanes] = {};
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (Index l = 0; l < kLanes; ++l) lanes[l] += expOf(values[i + l] - reference);
  }
  for (; i < count; ++i) lanes[0] += expOf(values[i] - reference);
  float sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

Index cellsOf(Index tokens, Index block) { return (tokens + block - 1) / block; }

/// One map row and the LSE of its query rows from their scores.
void poolMapRow(BaselineMap& map, Index tokens, Index first, Index rows, const float* scores) {
  const Index cells = cellsOf(tokens, map.block);
  const auto at = static_cast<std::size_t>(first / map.block * cells);
  std::vector<float> top(static_cast<std::size_t>(cells)), sum(top.size());
  std::vector<double> mean(top.size(), 0.0);
  for (Index row = 0; row < rows; ++row) {
    const float* line = scores + row * tokens;
    const auto width = [&](Index cell) { return std::min(map.block, tokens - cell * map.block); };
    for (Index c = 0; c < cells; ++c) top[static_cast<std::size_t>(c)] = largest(line + c * map.block, width(c));
    const float reference = *std::max_element(top.begin(), top.end());
    for (Index c = 0; c < cells; ++c)
      sum[static_cast<std::size_t>(c)] = sumOfExps(line + c * map.block, width(c), reference);
    const double total = std::accumulate(sum.begin(), sum.end(), 0.0);
    map.lse[static_cast<std::size_t>(first + row)] =
        static_cast<float>(std::log(total) + static_cast<double>(reference));
    for (std::size_t c = 0; c < top.size(); ++c) {
      mean[c] += static_cast<double>(sum[c]) / total;
      float& cell = map.max[at + c];
      cell = std::max(cell, static_cast<float>(std::exp(static_cast<double>(top[c] - reference)) / total));
    }
  }
  for (std::size_t c = 0; c < top.size(); ++c) {
    const Index width = std::min(map.block, tokens - static_cast<Index>(c) * map.block);
    map.mean[at + c] = static_cast<float>(mean[c] / static_cast<double>(rows * width));
  }
}

}  // namespace

BaselineMap baselineMap(Index tokens, int threads, const ScoreProduct& product) {
  BaselineMap map;
  map.block = cellsOf(tokens, std::min(tokens, kCells));
  const Index cells = cellsOf(tokens, map.block);
  map.lse.resize(static_cast<std::size_t>(tokens));
  map.mean.resize(static_cast<std::size_t>(cells * cells));
  map.max.resize(map.mean.size());
  // As many map rows as keep the products efficient and the buffer at a last-level cache's size, at least one.
  const Index mapRowBytes = map.block * tokens * static_cast<Index>(sizeof(float));
  const Index panelRows = map.block * std::clamp<Index>(kPanelBytes / mapRowBytes, 1, 8);
  std::atomic<Index> next{0};
  const auto work = [&](int thread) {
    std::vector<float> scores(static_cast<std::size_t>(std::min(panelRows, tokens) * tokens));
    for (Index first = next.fetch_add(panelRows); first < tokens; first = next.fetch_add(panelRows)) {
      const Index rows = std::min(panelRows, tokens - first);
      product(thread, first, rows, scores.data());
      for (Index row = 0; row < rows; row += map.block)
        poolMapRow(map, tokens, first + row, std::min(map.block, rows - row), scores.data() + row * tokens);
    }
  };
  std::vector<std::jthread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  work(0);
  others.clear();
  return map;
}

void measureBaselineMap(benchmark::State& state, const BenchHead& head, int threads, const ScoreProduct& product) {
  const Index tokens = head.in.q.rows;
  BaselineMap map;
  const double n = static_cast<double>(tokens);
  measure(state, threads, 2 * n * n * static_cast<double>(head.in.q.cols),
          [&] { map = baselineMap(tokens, threads, product); });

  const auto oracle = createReferenceBackend();
  const auto exact = oracle->prepare(head.in, nullptr, {});
  const Index cells = cellsOf(tokens, map.block);
  // Whole blocks only: a tile of the oracle has equal cells.
  const Index columns = tokens / map.block;
  const Index mapRow = cells / 2;
  const Index first = mapRow * map.block;
  const Index last = std::min(tokens, first + map.block);
  std::vector<Index> rows(static_cast<std::size_t>(last - first));
  std::iota(rows.begin(), rows.end(), first);
  const std::vector<float> exactLse = oracle->attend(*exact, rows, {}, {}).lse;
  std::vector<float> lse(static_cast<std::size_t>(tokens), 0.0F);
  Errors lseErrors;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    lse[static_cast<std::size_t>(rows[i])] = exactLse[i];
    lseErrors.add(map.lse[static_cast<std::size_t>(rows[i])], exactLse[i]);
  }
  Errors cellErrors;
  for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
    const std::vector<float>& got = reduce == Reduce::Mean ? map.mean : map.max;
    const std::vector<float> want =
        oracle->tile(*exact, lse, {first, last, 0, columns * map.block, 1, columns}, reduce, {});
    for (std::size_t c = 0; c < want.size(); ++c)
      cellErrors.add(got[static_cast<std::size_t>(mapRow * cells) + c], want[c]);
  }
  setErrors(state, {lseErrors.maxAbs, cellErrors.maxRel});
}

std::vector<Index> baselineTokens() { return {8192, 32760, 118800}; }

int allCores() { return static_cast<int>(std::max(1U, std::thread::hardware_concurrency())); }

}  // namespace sparsight::bench

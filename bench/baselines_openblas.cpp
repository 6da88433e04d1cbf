// SPDX-License-Identifier: Apache-2.0
// Exact fp32 map with OpenBLAS: a product per panel in each thread, then the epilogue. Compiled where OpenBLAS is
// found.
#include <cblas.h>
#include <fmt/format.h>

#include "baselines_common.h"

namespace sparsight::bench {
namespace {

void openblasMap(benchmark::State& state, Index tokens, Index dim) {
  const auto head = makeBenchHead(tokens, dim, DType::F32);
  const auto* q = reinterpret_cast<const float*>(head->q.data());
  const auto* k = reinterpret_cast<const float*>(head->k.data());
  openblas_set_num_threads(1);  // our threads, one product each: no barrier per product
  measureBaselineMap(state, *head, allCores(), [&](int, Index first, Index rows, float* scores) {
    const auto n = static_cast<blasint>(tokens);
    const auto d = static_cast<blasint>(dim);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<blasint>(rows), n, d,
                static_cast<float>(head->in.scale), q + first * dim, d, k, d, 0.0F, scores, n);
  });
}

const bool kRegistered = [] {
  for (const Index tokens : baselineTokens()) {
    const std::string name = fmt::format("baseline/openblas/map/fp32/d128/{}/threads:{}", tokens, allCores());
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
      openblasMap(state, tokens, 128);
    })->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace sparsight::bench

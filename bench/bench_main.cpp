// SPDX-License-Identifier: Apache-2.0
// sparsight-bench: Google Benchmark with the names and counters that scripts rely on (see README.md).
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bench_cases.h"
#include "cpu/simd.h"
#include "cuda_cases.h"
#include "inputs.h"
#include "sparsight/kernels/backend.h"

int main(int argc, char** argv) {
  // Without flags: the small cases only, well under a minute.
  std::vector<char*> arguments(argv, argv + argc);
  std::string filter = "--benchmark_filter=^peak/|/4096/";
  std::string minTime = "--benchmark_min_time=0.2";
  const auto given = [&](std::string_view flag) {
    for (int i = 1; i < argc; ++i) {
      if (std::string_view(argv[i]).substr(0, flag.size()) == flag) return true;
    }
    return false;
  };
  if (!given("--benchmark_filter")) arguments.push_back(filter.data());
  if (!given("--benchmark_min_time")) arguments.push_back(minTime.data());
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);

  try {
    if (const auto code = sparsight::bench::writeInputs(argc, argv)) return *code;
    sparsight::Executor executor;
    const auto info = sparsight::createBackend("cpu", executor)->info();
    benchmark::AddCustomContext("processor", info.deviceName);
    benchmark::AddCustomContext("instruction set", std::string(sparsight::cpu::simdKernels().name));
    sparsight::bench::registerAll();
    sparsight::bench::registerCuda();
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
  } catch (const sparsight::Error& error) {
    std::fprintf(stderr, "sparsight-bench: %s\n", error.what());
    return error.code() == sparsight::ErrorCode::InvalidArgument ? 2 : 5;
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include "measure.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <thread>

#include "cpu/simd.h"

namespace sparsight::bench {
namespace {

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double cpuSeconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// A field of /proc/self/status in MiB; 0 where there is none.
double statusMib(const char* field) {
  std::ifstream status("/proc/self/status");
  std::string name;
  while (status >> name) {
    double kib = 0;
    if (name == field && status >> kib) return kib / 1024;
    status.ignore(1 << 10, '\n');
  }
  return 0;
}

/// Highest resident memory of one call beyond what was resident before it.
double extraMemory(const std::function<void()>& work) {
  std::ofstream("/proc/self/clear_refs") << "5";  // resets the high-water mark
  const double before = statusMib("VmRSS:");
  work();
  return std::max(0.0, statusMib("VmHWM:") - before);
}

std::uint16_t toHalf(float x) {
  // Values here are normal halves: round to nearest even on the bits.
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits & 0x7fffffffU) + 0xfffU + ((bits >> 13U) & 1U);
  if (rounded < 0x38800000U) return static_cast<std::uint16_t>((bits >> 16U) & 0x8000U);
  return static_cast<std::uint16_t>(((bits >> 16U) & 0x8000U) | ((rounded - 0x38000000U) >> 13U));
}

MatrixView fill(std::vector<std::byte>& out, Index rows, Index cols, DType dtype, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto item = itemSize(dtype);
  out.resize(static_cast<std::size_t>(rows * cols) * item);
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows * cols); ++i) {
    const float value = normal(random);
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (dtype == DType::F32) {
      std::memcpy(out.data() + i * item, &value, item);
    } else {
      const auto narrow = dtype == DType::F16 ? toHalf(value) : static_cast<std::uint16_t>((bits + 0x8000U) >> 16U);
      std::memcpy(out.data() + i * item, &narrow, item);
    }
  }
  return {out.data(), rows, cols, cols * static_cast<Index>(item), dtype};
}

}  // namespace

std::shared_ptr<const BenchHead> makeBenchHead(Index tokens, Index dim, DType dtype) {
  auto head = std::make_shared<BenchHead>();
  head->in.q = fill(head->q, tokens, dim, dtype, 1);
  head->in.k = fill(head->k, tokens, dim, dtype, 2);
  head->in.v = fill(head->v, tokens, dim, dtype, 3);
  head->in.scale = 1 / std::sqrt(static_cast<double>(dim));
  return head;
}

const char* shortName(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return "fp32";
    case DType::F16:
      return "fp16";
    case DType::BF16:
      return "bf16";
  }
  return "?";
}

PeakKind scorePeak(DType dtype) { return dtype == DType::BF16 ? PeakKind::Bf16 : PeakKind::Fp32; }

double probeMemoryRead(int threads) {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  constexpr std::size_t kWords = kBytes / sizeof(std::uint64_t);
  std::vector<double> each(static_cast<std::size_t>(threads));
  {
    std::vector<std::jthread> workers;
    for (double& mine : each) {
      workers.emplace_back([&mine] {
        const std::vector<std::uint64_t> memory(kWords, 1);
        double best = 0;
        for (int round = 0; round < 4; ++round) {
          const Clock::time_point start = Clock::now();
          std::uint64_t sum = 0;
          for (const std::uint64_t word : memory) sum += word;
          benchmark::DoNotOptimize(sum);
          best = std::max(best, static_cast<double>(kBytes) / secondsSince(start) / 1e9);
        }
        mine = best;
      });
    }
  }
  return std::accumulate(each.begin(), each.end(), 0.0);
}

Peak probePeak(int threads, PeakKind kind) {
  constexpr double kSeconds = 0.06;
  constexpr Index kRounds = 20000;
  const cpu::SimdKernels& simd = cpu::simdKernels();
  const auto kernel = kind == PeakKind::Bf16 && simd.peakBf16 != nullptr ? simd.peakBf16 : simd.peak;
  std::vector<Peak> each(static_cast<std::size_t>(threads));
  {
    std::vector<std::jthread> workers;
    for (Peak& mine : each) {
      workers.emplace_back([&mine, kernel] {
        std::vector<float> sink(32);
        std::iota(sink.begin(), sink.end(), 0.5F);
        double flops = 0;
        const double cpuStart = cpuSeconds(CLOCK_THREAD_CPUTIME_ID);
        const Clock::time_point start = Clock::now();
        do {
          flops += kernel(kRounds, sink.data());
        } while (secondsSince(start) < kSeconds);
        mine.gflops = flops / secondsSince(start) / 1e9;
        mine.gflopsPerCpuSecond = flops / (cpuSeconds(CLOCK_THREAD_CPUTIME_ID) - cpuStart) / 1e9;
        benchmark::DoNotOptimize(sink[2]);
      });
    }
  }
  Peak peak;
  for (const Peak& mine : each) {
    peak.gflops += mine.gflops;
    peak.gflopsPerCpuSecond += mine.gflopsPerCpuSecond / static_cast<double>(threads);
  }
  return peak;
}

void Errors::add(float got, float want) {
  if (std::isnan(got) && std::isnan(want)) return;
  const double difference = std::abs(static_cast<double>(got) - static_cast<double>(want));
  // A NaN or an infinity on one side only must not be lost in std::max.
  if (!(difference <= 1e30)) {
    maxAbs = maxRel = INFINITY;
    return;
  }
  maxAbs = std::max(maxAbs, difference);
  if (want != 0) maxRel = std::max(maxRel, difference / std::abs(static_cast<double>(want)));
}

void measure(benchmark::State& state, int threads, double flops, const std::function<void()>& work, PeakKind kind) {
  const double extra = extraMemory(work);  // also warms up
  const Peak before = probePeak(threads, kind);
  const double cpuStart = cpuSeconds(CLOCK_PROCESS_CPUTIME_ID);
  const Clock::time_point start = Clock::now();
  for (auto _ : state) work();
  const double seconds = secondsSince(start);
  const double cpu = cpuSeconds(CLOCK_PROCESS_CPUTIME_ID) - cpuStart;
  const Peak after = probePeak(threads, kind);
  const double total = flops * static_cast<double>(state.iterations()) / 1e9;
  const double peak = (before.gflops + after.gflops) / 2;
  state.counters["gflops"] = total / seconds;
  state.counters["fraction_of_peak"] = total / seconds / peak;
  state.counters["cpu_fraction_of_peak"] = total / cpu / ((before.gflopsPerCpuSecond + after.gflopsPerCpuSecond) / 2);
  state.counters["peak_gflops"] = peak;
  state.counters["peak_drift"] = std::abs(after.gflops - before.gflops) / peak;
  state.counters["extra_mib"] = extra;
}

void setErrors(benchmark::State& state, const Errors& errors) {
  state.counters["max_abs_error"] = errors.maxAbs;
  state.counters["max_rel_error"] = errors.maxRel;
}

}  // namespace sparsight::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "sparsight/kernels/backend.h"

namespace sparsight::bench {

/// Random tensors of a head, reproducible; logits have a standard deviation of about 1.
struct BenchHead {
  std::vector<std::byte> q, k, v;
  AttentionIn in;
};
[[nodiscard]] std::shared_ptr<const BenchHead> makeBenchHead(Index tokens, Index dim, DType dtype);

/// "fp32", "fp16" or "bf16".
[[nodiscard]] const char* shortName(DType dtype);

/// What the arithmetic of a case is held against.
enum class PeakKind : std::uint8_t {
  Fp32,  ///< fused multiply-adds
  Bf16,  ///< bfloat16 dot products, where the CPU has them, else as Fp32
};
/// Kind for scores of tensors of this type.
[[nodiscard]] PeakKind scorePeak(DType dtype);

/// Fused multiply-adds (or bfloat16 dot products) per second that `threads` threads reach together in registers, in
/// GFLOP/s: what the inner loops could reach at best on this machine at this moment. Takes about 60 ms.
struct Peak {
  double gflops = 0;              ///< of all threads together, by the clock on the wall
  double gflopsPerCpuSecond = 0;  ///< per second that a thread really ran: hardly moved by other programs
};
[[nodiscard]] Peak probePeak(int threads, PeakKind kind = PeakKind::Fp32);
/// Bytes per second that `threads` threads read together from memory far larger than the caches, in GB/s.
[[nodiscard]] double probeMemoryRead(int threads);

/// Errors of a result against the double-precision oracle.
struct Errors {
  double maxAbs = 0, maxRel = 0;
  void add(float got, float want);
};

/// Runs `work` under Google Benchmark's loop with the peak probed before and after, and sets the counters gflops,
/// fraction_of_peak, peak_gflops, peak_drift, cpu_fraction_of_peak (the same ratio per CPU second, for machines that
/// others use too) and extra_mib (peak memory of one call beyond what lay there before).
void measure(benchmark::State& state, int threads, double flops, const std::function<void()>& work,
             PeakKind peak = PeakKind::Fp32);
/// Sets max_abs_error and max_rel_error.
void setErrors(benchmark::State& state, const Errors& errors);

}  // namespace sparsight::bench

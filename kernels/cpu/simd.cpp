// SPDX-License-Identifier: Apache-2.0
#include "cpu/simd.h"

#include <fmt/format.h>

#include <cstdlib>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "sparsight/kernels/error.h"

namespace sparsight::cpu {
namespace {

#if defined(__x86_64__)
/// Half precision conversions; not a name that Clang 14 knows for __builtin_cpu_supports. AVX's check covers the
/// operating system.
bool hasF16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

}  // namespace

const SimdKernels* findSimdKernels(std::string_view name) noexcept {
#if defined(__x86_64__)
  // The compiler's run-time check asks the operating system too (XSAVE), not only CPUID.
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (name == "avx512bf16" && avx512 && __builtin_cpu_supports("avx512bf16")) return &avx512Bf16Kernels();
  if (name == "avx512" && avx512) return &avx512Kernels();
  if (name == "avx2" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && hasF16c()) {
    return &avx2Kernels();
  }
#endif
  return name == "baseline" ? &baselineKernels() : nullptr;
}

const SimdKernels& simdKernels() {
  const char* const wanted = std::getenv("SPARSIGHT_SIMD");
  if (wanted != nullptr && *wanted != '\0') {
    const SimdKernels* const found = findSimdKernels(wanted);
    if (found == nullptr) {
      throw Error(
          ErrorCode::InvalidArgument,
          fmt::format(
              "SPARSIGHT_SIMD={}: not an instruction set of this CPU; use baseline, avx2, avx512 or avx512bf16, "
              "or unset it",
              wanted));
    }
    return *found;
  }
  for (const std::string_view name : {"avx512bf16", "avx512", "avx2"}) {
    if (const SimdKernels* const found = findSimdKernels(name)) return *found;
  }
  return baselineKernels();
}

}  // namespace sparsight::cpu

// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>
#include <cstdlib>

#include "cpu/cpu_backend.h"
#include "sparsight/kernels/backend.h"
#ifdef SPARSIGHT_HAVE_CUDA
#include "cuda/cuda_backend.h"
#endif

namespace sparsight {
namespace {

bool probeCpu(std::string&) noexcept { return true; }

const BackendEntry* findBackend(std::string_view id) {
  for (const BackendEntry& entry : compiledBackends()) {
    if (entry.id == id) return &entry;
  }
  return nullptr;
}

}  // namespace

std::span<const BackendEntry> compiledBackends() {
  static constexpr std::array kTable{
#ifdef SPARSIGHT_HAVE_CUDA
      BackendEntry{"cuda", &probeCuda, &createCudaBackend},
#endif
      BackendEntry{"cpu", &probeCpu, &createCpuBackend},
  };
  return kTable;
}

std::unique_ptr<Backend> createBackend(std::string_view id, Executor& executor) {
  std::string_view wanted = id;
  if (wanted.empty() || wanted == "auto") {
    const char* const override = std::getenv("SPARSIGHT_BACKEND");
    wanted = override != nullptr && *override != '\0' ? override : "auto";
  }
  std::string why;
  if (wanted == "auto") {
    for (const BackendEntry& entry : compiledBackends()) {
      if (entry.probe(why)) return entry.create(executor);
    }
    throw Error(ErrorCode::Internal, "no compute backend is compiled in");
  }
  const BackendEntry* const entry = findBackend(wanted);
  if (entry == nullptr) {
    if (wanted == "cuda") {
      throw Error(
          ErrorCode::Device,
          "backend cuda: this build has no CUDA kernels; configure with -DSPARSIGHT_CUDA=ON or use --backend cpu");
    }
    throw Error(ErrorCode::InvalidArgument, fmt::format("backend \"{}\" is unknown; use auto, cpu or cuda", wanted));
  }
  if (!entry->probe(why)) {
    throw Error(ErrorCode::Device, fmt::format("backend {}: {}; use --backend cpu", wanted, why));
  }
  return entry->create(executor);
}

}  // namespace sparsight

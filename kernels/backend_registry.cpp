// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>
#include <cstdlib>

#include "cpu/cpu_backend.h"
#include "fallback_backend.h"
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

std::unique_ptr<Backend> createEntry(const BackendEntry& entry, Executor& executor) {
  auto backend = entry.create(executor);
  if (entry.id == "cpu") return backend;
  return std::make_unique<FallbackBackend>(std::move(backend), createCpuBackend(executor));
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
  std::string wanted(id);
  std::string mend = "use --backend cpu or auto";
  if (wanted.empty() || wanted == "auto") {
    const char* const override = std::getenv("SPARSIGHT_BACKEND");
    wanted = "auto";
    if (override != nullptr && *override != '\0') {
      wanted = override;
      mend = "unset SPARSIGHT_BACKEND or set it to cpu or auto";
    }
  }
  std::string why;
  if (wanted == "auto") {
    for (const BackendEntry& entry : compiledBackends()) {
      if (!entry.probe(why)) continue;
      try {
        return createEntry(entry, executor);
      } catch (const Error& e) {
        // Memory or the device was taken between the probe and now: nobody asked for this backend by name.
        if (entry.id == "cpu" || (e.code() != ErrorCode::Device && e.code() != ErrorCode::OutOfMemory)) throw;
      }
    }
    throw Error(ErrorCode::Internal, "no compute backend is compiled in");
  }
  const BackendEntry* const entry = findBackend(wanted);
  if (entry == nullptr) {
    if (wanted == "cuda") {
      throw Error(
          ErrorCode::Device,
          fmt::format("backend cuda: this program was built without CUDA; build with -DSPARSIGHT_CUDA=ON, or {}",
                      mend));
    }
    throw Error(ErrorCode::InvalidArgument, fmt::format("backend \"{}\" is unknown; {}", wanted,
                                                        wanted == id ? "use auto, cpu or cuda" : mend.c_str()));
  }
  if (!entry->probe(why)) throw Error(ErrorCode::Device, fmt::format("backend {}: {}; {}", wanted, why, mend));
  try {
    return createEntry(*entry, executor);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::OutOfMemory) throw;
    throw Error(ErrorCode::Device, fmt::format("backend {}: {}; {}", wanted, e.what(), mend));
  }
}

}  // namespace sparsight

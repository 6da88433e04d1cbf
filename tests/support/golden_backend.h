// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "sparsight/kernels/backend.h"
#include "tests/support/emulated_cuda.h"

namespace sparsight::test {

/// A golden case and what it runs on: "A_wan", "A_wan_on_emulated_cuda" or "A_wan_on_cuda".
struct GoldenParam {
  explicit GoldenParam(std::string_view param) : file(param), device("cpu") {
    const auto at = file.find("_on_");
    if (at == std::string::npos) return;
    device = file.substr(at + 4);
    file.resize(at);
  }
  std::string file, device;
};

/// The backend of a golden case, bare, so that nothing falls back; null with the reason where its device is missing.
inline std::unique_ptr<Backend> goldenBackend(const std::string& device, Executor& executor, std::string& why) {
  if (device == "cpu") return createBackend("cpu", executor);
  if (device == "emulated_cuda") {
    resetEmulatedCuda();
    return createEmulatedCudaBackend(executor);
  }
  why = "this program was built without CUDA";
  for (const BackendEntry& entry : compiledBackends()) {
    if (entry.id == device && entry.probe(why)) return entry.create(executor);
  }
  return nullptr;
}

/// The folder of the golden files of the reference data set: SPARSIGHT_TEST_DATA in the environment (as the GPU bundle
/// sets it) or the one this program was built with.
inline std::filesystem::path goldenFolder() {
  const char* const given = std::getenv("SPARSIGHT_TEST_DATA");
  return std::filesystem::path(given != nullptr ? given : SPARSIGHT_TEST_DATA) / "golden";
}

}  // namespace sparsight::test

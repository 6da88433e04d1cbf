// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "sparsight/kernels/executor.h"
#include "sparsight/kernels/types.h"

namespace sparsight {

/// A synthetic trace whose heads have a known type. Defaults are the preset "demo".
struct SynthSpec {
  int frames = 9, height = 16, width = 24;
  int textTokens = 48;
  bool textFirst = false;
  int layers = 4, heads = 6, steps = 3, headDim = 32;
  DType dtype = DType::F16;
  std::uint64_t seed = 0;
};
/// Preset by name ("demo"); throws Error{InvalidArgument} naming the known ones.
[[nodiscard]] SynthSpec synthPreset(const std::string& name);
/// Writes the trace atomically. Throws Error{InvalidArgument} for impossible sizes, Error{Io} when it cannot write.
void writeSyntheticTrace(const std::filesystem::path& out, const SynthSpec& spec, Executor& executor,
                         const Control& control);
/// The demo trace in the user's cache directory, generated on first use (under 10 s) and reused.
[[nodiscard]] std::filesystem::path demoTracePath(Executor& executor, const Control& control);

}  // namespace sparsight

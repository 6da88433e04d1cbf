// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <vector>

#include "sparsight/core/profile.h"
#include "sparsight/core/run.h"

namespace sparsight {

enum class MergeRule : std::uint8_t { Max, Mean, Gauss };  ///< gauss: mu + 1.645 sigma over traces, clamped to 1
struct ProfilingRequest {
  std::vector<std::filesystem::path> traces;
  double mass = 0.95;
  MergeRule merge = MergeRule::Max;
  HeadSelection selection;
  Index rows = -1;
  bool includePadding = true;                 ///< SVOO's own profiling counts padding
  std::filesystem::path resumeFile;           ///< finished heads are kept here; empty: not resumable
};
/// SVOO's offline profiling (svoo/sparsity/exact.py, merge.py): exact density per (step, layer, head), merged over traces,
/// rounded to 4 decimals. Values of missing heads are holes. Progress counts heads.
[[nodiscard]] Profile profileTraces(const ProfilingRequest& request, Backend& backend, const Control& control);

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/core/profile.h"
#include "sparsight/core/run.h"

namespace sparsight {

/// Max: SVOO's code (svoo/sparsity/merge.py). Gauss: the paper's conservative quantile mu + 1.645 sigma of the normal
/// distribution fitted to the traces (maximum likelihood: sigma over n), clamped to 1.
enum class MergeRule : std::uint8_t { Max, Mean, Gauss };
/// "max", "mean", "gauss".
[[nodiscard]] std::string_view mergeRuleName(MergeRule rule) noexcept;
struct ProfilingRequest {
  std::vector<std::filesystem::path> traces;
  double mass = 0.95;
  MergeRule merge = MergeRule::Max;
  HeadSelection selection;
  Index rows = -1;                   ///< evenly spaced query rows; -1: all up to 8,192 tokens, else 1,024; 0: all
  bool includePadding = true;        ///< SVOO's own profiling counts padding
  TraceOptions traceOptions;         ///< cache and memory limit of the opened traces
  std::filesystem::path resumeFile;  ///< finished heads are kept here; empty: not resumable
};
/// SVOO's offline profiling (svoo/sparsity/exact.py, merge.py): exact density per (step, layer, head), rounded to 4
/// decimals per trace as SVOO's logs are, then merged over traces and rounded again. The grid is the model's (all
/// steps, layers and heads, as far as the trace says); what was not captured or cannot be read is a hole. Progress
/// counts heads. With a resumeFile, finished heads are kept there every few seconds, on cancel and on errors, under the
/// trace's uuid and everything that changes the number (mass, rows, padding, branch, kind, call); a second call
/// continues. Throws Error{InvalidArgument} when traces have different grids or the selection matches nothing, and the
/// first error when not one head could be measured. Unreadable heads are told in `warnings`, one line each; `damaged`
/// gets the reasons of those among them whose data is malformed.
[[nodiscard]] Profile profileTraces(const ProfilingRequest& request, Backend& backend, const Control& control,
                                    std::vector<std::string>* warnings = nullptr,
                                    std::vector<std::string>* damaged = nullptr);

/// Density rounded to 4 decimals the way Python prints it (exactly, half to even): the precision of SVOO's pipeline.
[[nodiscard]] double roundedDensity(double density);
/// Merges the measured values of one cell over traces; not empty.
[[nodiscard]] double mergedDensity(const std::vector<double>& values, MergeRule rule);

/// A profile of the demo trace, so that the editor has something to show before the first capture: measured on first
/// use (a few seconds; also generates the trace if needed), steps in between filled with the nearest captured one, and
/// kept beside the trace in the user's cache directory.
[[nodiscard]] Profile demoProfile(Executor& executor, Backend& backend, const Control& control);

}  // namespace sparsight

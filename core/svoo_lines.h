// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/core/exporter.h"

// What the exports to SVOO's scripts share.
namespace sparsight::svoo {

/// The clip of the line that loads a profile. The scripts' own ones (0.05 to 0.1 for Wan) would flatten it to two
/// values; 0 and 1 leave it as it is.
struct Clip {
  double low = 0, high = 1;
};
[[nodiscard]] std::vector<ParamSpec> clipParams();
/// Throws Error{InvalidArgument} where low is above high.
[[nodiscard]] Clip clipOf(const ParamSet& params);

[[nodiscard]] std::vector<ExportModel> exportModels();
/// nullptr: no such key.
[[nodiscard]] const SvooModel* modelByKey(std::string_view key);
/// The complete grid; top-p masses are refused, since SVOO reads kept fractions.
[[nodiscard]] Profile floorsOf(const Exporter& exporter, const ExportInput& input, ExportOutput& output);
/// What a step of the file is to the runtime: both guidance passes, and both experts of Wan2.2. One sentence a line.
[[nodiscard]] std::vector<std::string> aboutSteps(const SvooModel* model);
/// Command lines that load `csv`, one per model that fits the grid (or the one asked for). The scripts change to their
/// own folder first, hence absolute paths, and let later arguments win.
[[nodiscard]] std::vector<std::string> launchLines(const Profile& profile, std::string_view model,
                                                   const std::filesystem::path& csv, const Clip& clip);

}  // namespace sparsight::svoo

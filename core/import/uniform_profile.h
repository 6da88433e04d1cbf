// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "sparsight/core/importer.h"

// What the reverse imports of scripts and configurations share: files that say one value for everything.
namespace sparsight::import {

/// One value for a grid that is taken from `options`, else from `guess` (0: not known). Throws Error{InvalidArgument}
/// naming the option of what is missing.
struct Grid {
  int steps = 0, layers = 0, heads = 0;
};
[[nodiscard]] Profile uniformProfile(const std::filesystem::path& path, BudgetRole role, double value,
                                     const ProfileImportOptions& options, const Grid& guess);
/// Layers and heads of a model that a word names ("Wan-AI/Wan2.1-T2V-14B-Diffusers", "wan21-t2v-14b"); zeros: unknown.
[[nodiscard]] Grid gridOfModel(std::string_view word);
/// A table that a script or configuration names: as it stands, else beside the file that names it. Throws Error{Io}.
[[nodiscard]] std::filesystem::path companionFile(const std::filesystem::path& main, const std::string& named);

}  // namespace sparsight::import

// SPDX-License-Identifier: Apache-2.0
#include "import/uniform_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "sparsight/kernels/error.h"

namespace sparsight::import {

Profile uniformProfile(const std::filesystem::path& path, BudgetRole role, double value,
                       const ProfileImportOptions& options, const Grid& guess) {
  const Grid grid{options.steps > 0 ? options.steps : guess.steps, options.layers > 0 ? options.layers : guess.layers,
                  options.heads > 0 ? options.heads : guess.heads};
  std::string missing;
  const auto need = [&](int have, const char* option) {
    if (have <= 0) missing += fmt::format("{}{} N", missing.empty() ? "" : " ", option);
  };
  need(grid.steps, "--steps");
  need(grid.layers, "--layers");
  need(grid.heads, "--heads");
  if (!missing.empty()) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("{}: says one value for everything, but not for how many steps, layers and heads; say {}",
                            path.string(), missing));
  }
  if (!(value >= 0 && value <= 1)) {
    throw Error(ErrorCode::Format,
                fmt::format("{}: its value {:g} is no fraction between 0 and 1", path.string(), value));
  }
  Profile profile(grid.steps, grid.layers, grid.heads, role);
  for (int s = 0; s < grid.steps; ++s) {
    for (int l = 0; l < grid.layers; ++l) {
      for (int h = 0; h < grid.heads; ++h) profile.set({s, l, h}, value);
    }
  }
  profile.provenance.parameters["file"] = path.filename().string();
  return profile;
}

Grid gridOfModel(std::string_view word) {
  std::string name(word);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto has = [&](std::string_view part) { return name.find(part) != std::string::npos; };
  if (has("wan") && has("1.3b")) return {0, 30, 12};
  if (has("wan") && (has("14b") || has("a14b"))) return {0, 40, 40};
  if (has("hunyuan") && !has("1.5") && !has("15")) return {0, 60, 24};
  if (has("cosmos-1.0") && has("14b")) return {0, 36, 40};
  if (has("cosmos-1.0") && has("7b")) return {0, 28, 32};
  if (has("cogvideox") && has("2b")) return {0, 30, 30};
  if (has("cogvideox") && has("5b")) return {0, 42, 48};
  return {};
}

std::filesystem::path companionFile(const std::filesystem::path& main, const std::string& named) {
  const std::filesystem::path path(named), folder = main.parent_path();
  std::error_code ignored;
  // The file moved with its companion is the likelier one: what another machine's path names here is chance.
  for (const std::filesystem::path& candidate : {folder / path.filename(), folder / path, path}) {
    if (std::filesystem::is_regular_file(candidate, ignored)) return candidate;
  }
  throw Error(ErrorCode::Io,
              fmt::format("{}: its values are in '{}', which is neither there nor beside it; put it there",
                          main.string(), named));
}

}  // namespace sparsight::import

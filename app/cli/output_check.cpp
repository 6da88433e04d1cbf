// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "app/cli/command.h"
#include "sparsight/kernels/error.h"

namespace sparsight::cli {
namespace fs = std::filesystem;
namespace {

bool sameFile(const fs::path& a, const fs::path& b) {
  std::error_code error;
  if (fs::equivalent(a, b, error)) return true;
  // Files that are not there yet cannot be asked; their names can.
  return fs::weakly_canonical(a, error) == fs::weakly_canonical(b, error);
}

void checkPlace(const OutputFile& output) {
  std::error_code ignored;
  const std::string name = output.path.string();
  if (fs::is_directory(output.path, ignored) || !output.path.has_filename()) {
    throw Error(ErrorCode::Io, fmt::format("{} {}: is a folder; give a file name", output.option, name));
  }
  const fs::path folder = output.path.has_parent_path() ? output.path.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, ignored)) {
    throw Error(ErrorCode::Io, fmt::format("{} {}: the folder '{}' does not exist; create it first", output.option,
                                           name, folder.string()));
  }
  if (!fs::is_symlink(output.path, ignored) && ::access(folder.c_str(), W_OK | X_OK) != 0) {
    throw Error(ErrorCode::Io, fmt::format("{} {}: no permission to write into '{}'; choose another folder",
                                           output.option, name, folder.string()));
  }
}

}  // namespace

std::vector<fs::path> filesOf(const TraceInfo& trace) {
  std::vector<fs::path> files{trace.path};
  files.insert(files.end(), trace.parts.begin(), trace.parts.end());
  return files;
}

void Context::checkOutputs(const std::vector<OutputFile>& outputs, std::vector<fs::path> inputs) const {
  for (const OutputFile& output : outputs) {
    if (output.path.empty()) continue;
    for (const fs::path& input : inputs) {
      if (!input.empty() && sameFile(output.path, input)) {
        throw Error(ErrorCode::InvalidArgument,
                    fmt::format("{} {}: this file is also read (or written) by the command; choose another name, "
                                "nothing was changed",
                                output.option, output.path.string()));
      }
    }
    checkPlace(output);
    inputs.push_back(output.path);
  }
}

}  // namespace sparsight::cli

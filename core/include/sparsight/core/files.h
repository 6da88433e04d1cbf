// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace sparsight {

/// Writes a file atomically: temporary file in the same directory, fsync, rename, fsync of the directory. On any failure
/// the target is untouched, the temporary file is gone and Error{Io} says what and how to mend it.
void writeFileAtomically(const std::filesystem::path& target, std::string_view content);
/// For writers that need a path (HDF5): calls write(temporaryPath), then syncs and renames.
void writeFileAtomically(const std::filesystem::path& target,
                         const std::function<void(const std::filesystem::path& temporary)>& write);
/// Whole file as bytes; Error{Io} when missing, a directory, unreadable or larger than maxBytes.
[[nodiscard]] std::string readWholeFile(const std::filesystem::path& path, std::uint64_t maxBytes);

/// XDG directories with the program's name appended; created on demand.
[[nodiscard]] std::filesystem::path userCacheDir();
[[nodiscard]] std::filesystem::path userStateDir();
[[nodiscard]] std::filesystem::path userConfigDir();

}  // namespace sparsight

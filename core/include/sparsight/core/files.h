// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace sparsight {

/// Writes a file atomically: temporary file in the same directory, fsync, rename, fsync of the directory. On any
/// failure the target is untouched, the temporary file is gone and Error{Io} says what and how to mend it.
void writeFileAtomically(const std::filesystem::path& target, std::string_view content);
/// For writers that need a path (HDF5): calls write(temporaryPath), then syncs and renames.
void writeFileAtomically(const std::filesystem::path& target,
                         const std::function<void(const std::filesystem::path& temporary)>& write);

/// The same in three steps, for writers that stream: write to temporary(), then commit(). Without commit the destructor
/// removes the temporary file and the target stays as it was. Symbolic links are followed, an existing target's mode is
/// kept; a target that is a directory, device or pipe is an Error{Io}.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  [[nodiscard]] const std::filesystem::path& target() const noexcept { return m_target; }
  [[nodiscard]] const std::filesystem::path& temporary() const noexcept { return m_temporary; }
  /// Makes sure that the temporary file can grow to `totalBytes`: blocks are reserved where the file system can, the
  /// process' file size limit is checked. Error{Io} says how much is missing, while the file is still intact.
  void reserve(std::uint64_t totalBytes);
  void commit();

 private:
  std::filesystem::path m_target, m_temporary;
};

/// Whole file as bytes; Error{Io} when missing, a directory, unreadable or larger than maxBytes.
[[nodiscard]] std::string readWholeFile(const std::filesystem::path& path, std::uint64_t maxBytes);

/// XDG directories with the program's name appended; created on demand (private to the user). Where no home directory
/// is known, a folder of the user's in the system's temporary directory.
[[nodiscard]] std::filesystem::path userCacheDir();
[[nodiscard]] std::filesystem::path userStateDir();
[[nodiscard]] std::filesystem::path userConfigDir();

}  // namespace sparsight

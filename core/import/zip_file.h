// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "import/byte_source.h"

namespace sparsight::import {

struct ZipMember {
  std::string name;
  std::uint64_t offset = 0;            ///< of its data in the file
  std::uint64_t stored = 0, size = 0;  ///< bytes in the file, bytes unpacked
  std::uint32_t checksum = 0;
  std::uint16_t method = 0;  ///< 0 stored, 8 deflated
};

/// The directory of a zip file (also ZIP64). Nothing is unpacked unless asked for, and never more than a member's
/// stated size.
class ZipFile {
 public:
  /// Throws Error{Format} for damaged directories, Error{Io}.
  explicit ZipFile(const std::filesystem::path& path);
  [[nodiscard]] const std::vector<ZipMember>& members() const noexcept { return m_members; }
  [[nodiscard]] const ZipMember* find(std::string_view name) const noexcept;
  [[nodiscard]] const std::shared_ptr<const FileBytes>& bytes() const noexcept { return m_bytes; }
  /// At most `count` first bytes of a member. Throws Error{Format} for damaged data, Error{Unsupported} for a method
  /// that is neither stored nor deflated.
  [[nodiscard]] std::string readPrefix(const ZipMember& member, std::size_t count) const;
  /// Unpacks a deflated member into a file without a name in `folder`, after the room for it was reserved. Its
  /// checksum must fit. Throws Error{Io|Format}, Cancelled.
  [[nodiscard]] std::shared_ptr<const FileBytes> unpack(const ZipMember& member, const std::filesystem::path& folder,
                                                        const Control& control) const;

 private:
  std::shared_ptr<const FileBytes> m_bytes;
  std::vector<ZipMember> m_members;
};

/// Begins like a zip file.
[[nodiscard]] bool looksLikeZip(const SourceHead& head);

}  // namespace sparsight::import

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sparsight/core/importer.h"

// Bytes of foreign files, read where they lie (pread: a file that shrinks meanwhile is an error, not a crash).
namespace sparsight::import {

/// A run of bytes of a file.
class FileBytes {
 public:
  /// The whole file. Throws Error{Io}.
  explicit FileBytes(const std::filesystem::path& path);
  /// Takes over an open descriptor.
  FileBytes(int descriptor, std::string name, std::uint64_t size) noexcept;
  ~FileBytes();
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  [[nodiscard]] std::uint64_t size() const noexcept { return m_size; }
  [[nodiscard]] const std::string& name() const noexcept { return m_name; }
  [[nodiscard]] int descriptor() const noexcept { return m_descriptor; }
  /// Throws Error{Format} where the range leaves the file, Error{Io} where it cannot be read.
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  [[nodiscard]] std::string readText(std::uint64_t offset, std::size_t count) const;
  [[noreturn]] void fail(const std::string& message) const;  ///< Error{Format}, "file: message"

 private:
  int m_descriptor = -1;
  std::string m_name;
  std::uint64_t m_size = 0;
};

/// A tensor at an offset of a file with strides, as numpy and torch have them.
struct StridedTensor {
  std::shared_ptr<const FileBytes> bytes;
  std::uint64_t offset = 0, length = 0;  ///< of the storage, in bytes
  Index first = 0;                       ///< element offset in the storage
  std::vector<Index> shape, strides;     ///< in elements
  std::size_t item = 0;
  bool swapped = false;  ///< of the other byte order

  /// Throws Error{Format} naming `what` where an element would lie outside the storage.
  void check(const std::string& what) const;
  /// See TensorFile::readPlane.
  void readPlane(std::span<const Index> index, std::size_t rowAxis, std::size_t columnAxis, std::span<std::byte> out,
                 const Control& control) const;
};

/// Strides of C order.
[[nodiscard]] std::vector<Index> contiguousStrides(std::span<const Index> shape);
/// Product of a shape; throws Error{Format} naming `what` for negative extents and overflow.
[[nodiscard]] Index checkedCount(std::span<const Index> shape, const std::string& what);

/// The TensorFile over strided tensors.
class StridedFile : public TensorFile {
 public:
  void readPlane(std::size_t tensor, std::span<const Index> index, std::size_t rowAxis, std::size_t columnAxis,
                 std::span<std::byte> out, const Control& control) override;

  void addFact(const std::string& name, std::string value) { m_facts[name] = std::move(value); }
  void add(FoundTensor found, StridedTensor data);

 protected:
  std::vector<StridedTensor> m_data;  ///< parallel to tensors()
};

/// "[2, 1080, 64]"
[[nodiscard]] std::string shapeText(std::span<const Index> shape);
/// Text of a foreign file without control characters, which a terminal would obey; at most 400 characters.
[[nodiscard]] std::string plain(std::string_view text);
/// Text of a foreign file for a message: printable, at most 60 characters, in quotes.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace sparsight::import

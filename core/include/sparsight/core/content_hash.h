// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>

#include "sparsight/kernels/types.h"

namespace sparsight {

/// 128 bits that differ for different contents but for accidents (odds of 2^-64 among 2^32 contents). Not
/// cryptographic: whoever wants two contents of one hash can make them.
struct ContentHash {
  std::uint64_t high = 0, low = 0;
  [[nodiscard]] std::string hex() const;  ///< 32 digits
  auto operator<=>(const ContentHash&) const = default;
};

/// Hashes a stream of bytes with XXH3 (128 bits, xxhash). The same on every machine of one byte order. Pieces are told
/// apart: add("ab"), add("c") differs from add("a"), add("bc").
class ContentHasher {
 public:
  ContentHasher();
  ~ContentHasher();
  void add(std::span<const std::byte> bytes);
  template <class T>
  requires std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>
  void add(std::span<const T> values) { add(std::as_bytes(values)); }
  void add(std::uint64_t value) { add(std::span<const std::uint64_t>(&value, 1)); }
  void add(double value);
  void add(const ContentHash& hash) {
    add(hash.high);
    add(hash.low);
  }
  [[nodiscard]] ContentHash finish() const;

 private:
  friend class MatrixHasher;
  void piece(const std::byte* data, std::size_t size);
  void endPiece(std::uint64_t bytes);
  struct State;
  std::unique_ptr<State> m_state;
};

/// The hash of a matrix that comes in pieces, each following the one before: shape, element type and values, without
/// what lies between rows.
class MatrixHasher {
 public:
  MatrixHasher(DType dtype, Index rows, Index cols);
  void add(std::span<const std::byte> bytes);
  [[nodiscard]] ContentHash finish();

 private:
  ContentHasher m_hasher;
  std::uint64_t m_bytes = 0;
};
/// The same of one that is there.
[[nodiscard]] ContentHash matrixHash(const MatrixView& matrix);

}  // namespace sparsight

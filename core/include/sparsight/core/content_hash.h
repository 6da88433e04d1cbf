// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
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

/// Hashes a stream of bytes at memory speed (eight lanes of 32 x 32 bit multiply-accumulate over stripes of 64 bytes,
/// as XXH3 does; results are this program's own). The same on every machine of one byte order. Pieces are told apart:
/// add("ab"), add("c") differs from add("a"), add("bc").
class ContentHasher {
 public:
  void add(std::span<const std::byte> bytes);
  /// Rows without what lies between them; and its shape and element type.
  void add(const MatrixView& matrix);
  template <class T>
  requires std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>
  void add(std::span<const T> values) { add(std::as_bytes(values)); }
  void add(std::uint64_t value) { add(std::span<const std::uint64_t>(&value, 1)); }
  void add(double value);
  [[nodiscard]] ContentHash finish() const;

 private:
  void stripes(const std::byte* data, std::size_t count);
  void piece(const std::byte* data, std::size_t size);
  void endPiece(std::uint64_t bytes);
  std::array<std::uint64_t, 8> m_lanes{0x9E3779B185EBCA87ULL, 0xC2B2AE3D27D4EB4FULL, 0x165667B19E3779F9ULL,
                                       0x85EBCA77C2B2AE63ULL, 0x27D4EB2F165667C5ULL, 0xD6E8FEB86659FD93ULL,
                                       0xA0761D6478BD642FULL, 0xE7037ED1A0B428DBULL};
  std::uint64_t m_stripe = 0;
  std::array<std::byte, 64> m_rest{};
  std::size_t m_restSize = 0;
};

}  // namespace sparsight

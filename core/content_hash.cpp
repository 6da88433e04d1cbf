// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/content_hash.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL  // nothing to link: the library is its header
#include <xxhash.h>

#include <bit>

namespace sparsight {

struct ContentHasher::State {
  XXH3_state_t xxh;
};

ContentHasher::ContentHasher() : m_state(std::make_unique<State>()) { XXH3_128bits_reset(&m_state->xxh); }
ContentHasher::~ContentHasher() = default;

std::string ContentHash::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

void ContentHasher::piece(const std::byte* data, std::size_t size) { XXH3_128bits_update(&m_state->xxh, data, size); }

void ContentHasher::endPiece(std::uint64_t bytes) { XXH3_128bits_update(&m_state->xxh, &bytes, sizeof bytes); }

void ContentHasher::add(std::span<const std::byte> bytes) {
  if (!bytes.empty()) piece(bytes.data(), bytes.size());
  endPiece(bytes.size());
}

void ContentHasher::add(const MatrixView& matrix) {
  add(static_cast<std::uint64_t>(matrix.dtype));
  add(static_cast<std::uint64_t>(matrix.rows));
  add(static_cast<std::uint64_t>(matrix.cols));
  const auto rowBytes = static_cast<std::size_t>(matrix.cols) * itemSize(matrix.dtype);
  if (matrix.data != nullptr && rowBytes > 0) {
    if (static_cast<std::size_t>(matrix.rowStrideBytes) == rowBytes) {
      piece(matrix.data, rowBytes * static_cast<std::size_t>(matrix.rows));
    } else {
      for (Index r = 0; r < matrix.rows; ++r) piece(matrix.row(r), rowBytes);
    }
  }
  endPiece(matrix.data == nullptr ? 0 : rowBytes * static_cast<std::size_t>(matrix.rows));
}

void ContentHasher::add(double value) { add(std::bit_cast<std::uint64_t>(value)); }

ContentHash ContentHasher::finish() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(&m_state->xxh);
  return {hash.high64, hash.low64};
}

}  // namespace sparsight

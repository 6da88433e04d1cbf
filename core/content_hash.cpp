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

void ContentHasher::add(double value) { add(std::bit_cast<std::uint64_t>(value)); }

ContentHash ContentHasher::finish() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(&m_state->xxh);
  return {hash.high64, hash.low64};
}

MatrixHasher::MatrixHasher(DType dtype, Index rows, Index cols) {
  m_hasher.add(static_cast<std::uint64_t>(dtype));
  m_hasher.add(static_cast<std::uint64_t>(rows));
  m_hasher.add(static_cast<std::uint64_t>(cols));
}

void MatrixHasher::add(std::span<const std::byte> bytes) {
  m_hasher.piece(bytes.data(), bytes.size());
  m_bytes += bytes.size();
}

ContentHash MatrixHasher::finish() {
  m_hasher.endPiece(m_bytes);
  return m_hasher.finish();
}

ContentHash matrixHash(const MatrixView& matrix) {
  MatrixHasher hasher(matrix.dtype, matrix.rows, matrix.cols);
  const auto rowBytes = static_cast<std::size_t>(matrix.cols) * itemSize(matrix.dtype);
  if (matrix.data == nullptr || rowBytes == 0) return hasher.finish();
  if (static_cast<std::size_t>(matrix.rowStrideBytes) == rowBytes) {
    hasher.add({matrix.data, rowBytes * static_cast<std::size_t>(matrix.rows)});
  } else {
    for (Index r = 0; r < matrix.rows; ++r) hasher.add({matrix.row(r), rowBytes});
  }
  return hasher.finish();
}

}  // namespace sparsight

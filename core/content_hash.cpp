// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/content_hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace sparsight {
namespace {

constexpr std::size_t kStripe = 64;
constexpr std::uint64_t kScrambleEvery = 16;
constexpr std::uint64_t kPrime = 0x9E3779B1U;
constexpr std::array<std::uint64_t, 8> kSecret{0xBE4BA423396CFEB8ULL, 0x1CAD21F72C81017CULL, 0xDB979083E96DD4DEULL,
                                               0x1F67B3B7A4A44072ULL, 0x78E5C0CC4EE679CBULL, 0x2172FFCC7DD05A82ULL,
                                               0x8E2443F7744608B8ULL, 0x4C263A81E69035E0ULL};
// Differs from stripe to stripe, so that stripes that change places are seen.
constexpr std::uint64_t kStep = 0xD1B54A32D192ED03ULL;

std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31U);
}

}  // namespace

std::string ContentHash::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

void ContentHasher::stripes(const std::byte* data, std::size_t count) {
  std::array<std::uint64_t, 8> lanes = m_lanes;
  for (std::size_t s = 0; s < count; ++s, data += kStripe) {
    std::array<std::uint64_t, 8> words;
    std::memcpy(words.data(), data, kStripe);
    const std::uint64_t place = m_stripe * kStep;
    for (std::size_t i = 0; i < 8; ++i) {
      const std::uint64_t keyed = words[i] ^ (kSecret[i] + place);
      lanes[i] += words[i ^ 1U] + (keyed & 0xFFFFFFFFU) * (keyed >> 32U);
    }
    if (++m_stripe % kScrambleEvery == 0) {
      for (std::size_t i = 0; i < 8; ++i) {
        lanes[i] = (lanes[i] ^ (lanes[i] >> 47U) ^ kSecret[7 - i]) * kPrime;
      }
    }
  }
  m_lanes = lanes;
}

void ContentHasher::piece(const std::byte* data, std::size_t size) {
  if (m_restSize > 0) {
    const std::size_t take = std::min(size, kStripe - m_restSize);
    std::memcpy(m_rest.data() + m_restSize, data, take);
    m_restSize += take;
    data += take;
    size -= take;
    if (m_restSize < kStripe) return;
    stripes(m_rest.data(), 1);
    m_restSize = 0;
  }
  stripes(data, size / kStripe);
  m_restSize = size % kStripe;
  if (m_restSize > 0) std::memcpy(m_rest.data(), data + (size - m_restSize), m_restSize);
}

void ContentHasher::endPiece(std::uint64_t bytes) {
  std::array<std::byte, sizeof bytes> length;
  std::memcpy(length.data(), &bytes, sizeof bytes);
  piece(length.data(), length.size());
}

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
  ContentHasher copy = *this;
  std::fill(copy.m_rest.begin() + static_cast<std::ptrdiff_t>(copy.m_restSize), copy.m_rest.end(), std::byte{0});
  const std::uint64_t total = copy.m_stripe * kStripe + copy.m_restSize;
  copy.stripes(copy.m_rest.data(), 1);
  ContentHash hash{total, ~total};
  for (std::size_t i = 0; i < 8; ++i) {
    hash.high = mixed(hash.high ^ (copy.m_lanes[i] + kSecret[i]));
    hash.low = mixed(hash.low + (std::rotl(copy.m_lanes[i], 23) ^ kSecret[7 - i]));
  }
  return hash;
}

}  // namespace sparsight

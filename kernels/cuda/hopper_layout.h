// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where things lie in the shared memory of the Hopper kernels. Index arithmetic only, the same on device and host.
//
// Every tile is rows x 64 elements of 16 bits: rows of 128 bytes, as a tensor copy with a 128-byte swizzle writes them
// and as wgmma reads them. Wider matrices are several such boxes, one behind the other.

#include <cstddef>
#include <cstdint>

namespace sparsight::cuda::hopper {

/// A block: one warpgroup that feeds, two that compute 64 rows each.
inline constexpr int kGroupThreads = 128;
inline constexpr int kWarps = 4;  ///< of a group
inline constexpr int kConsumers = 2;
inline constexpr int kBlockThreads = kGroupThreads * (1 + kConsumers);
inline constexpr int kGroupRows = 64;
inline constexpr int kBlockRows = kGroupRows * kConsumers;
/// Keys of a tile.
inline constexpr int kKeys = 128;
inline constexpr int kBoxCols = 64;
inline constexpr int kRowBytes = 128;
/// Head and value dimensions up to this take the path; 64 and 128 fill it.
inline constexpr int kLargestWidth = 128;

/// The swizzle repeats every 8 rows: tiles start at multiples of it.
inline constexpr std::uint32_t kAtomBytes = 1024;
inline constexpr std::uint32_t kQueryBoxBytes = kGroupRows * kRowBytes;
inline constexpr std::uint32_t kKeyBoxBytes = kKeys * kRowBytes;

/// Byte of a tile at which byte `column` (0 to 127) of a row lies: 16-byte units are exchanged by the row modulo 8.
constexpr std::uint32_t swizzled(std::uint32_t row, std::uint32_t column) {
  return row * kRowBytes + (column ^ (row % 8 * 16));
}

/// Matrix descriptor of wgmma (PTX ISA, "Matrix Descriptor Format") for the 128-byte swizzle: start address, leading
/// and stride offset in units of 16 bytes, swizzle mode 1 in the top bits.
constexpr std::uint64_t descriptor(std::uint32_t address, std::uint32_t leadingBytes, std::uint32_t strideBytes) {
  return static_cast<std::uint64_t>((address & 0x3FFFFU) >> 4U) |
         (static_cast<std::uint64_t>((leadingBytes & 0x3FFFFU) >> 4U) << 16U) |
         (static_cast<std::uint64_t>((strideBytes & 0x3FFFFU) >> 4U) << 32U) | (std::uint64_t{1} << 62U);
}

/// Rows of q or k, whose depth is contiguous ("K-major"): step s is the 16 elements from 16 s on. A step stays within
/// one 128-byte row, so there is no leading offset; groups of 8 rows follow each other.
constexpr std::uint64_t rowsDescriptor(std::uint32_t tile, std::uint32_t boxBytes, int step) {
  return descriptor(tile + static_cast<std::uint32_t>(step / 4) * boxBytes + static_cast<std::uint32_t>(step % 4) * 32,
                    16, kAtomBytes);
}
/// Rows of v, whose columns are contiguous and whose rows are summed over ("MN-major"): step s is the 16 rows from 16 s
/// on. The stride leads to the next 8 rows, the leading offset to the next 64 columns.
constexpr std::uint64_t columnsDescriptor(std::uint32_t tile, std::uint32_t boxBytes, int step) {
  return descriptor(tile + static_cast<std::uint32_t>(step) * 2 * kAtomBytes, boxBytes, kAtomBytes);
}

/// Accumulator i of thread t of a group: row of the group's 64 and column (PTX ISA, "Register Fragments for
/// wgmma.mma_async.m64nNk16", D).
constexpr int accRow(int t, int i) { return t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8; }
constexpr int accCol(int t, int i) { return i / 4 * 8 + t % 4 * 2 + i % 2; }

/// Bits [first, last) of a 32-bit word; bounds below 0 or above 32 are cut.
constexpr std::uint32_t rangeBits(int first, int last) {
  if (first < 0) first = 0;
  if (last > 32) last = 32;
  if (first >= last) return 0;
  return (~std::uint32_t{0} >> static_cast<unsigned>(32 - (last - first))) << static_cast<unsigned>(first);
}

/// Shared memory of a block, as byte offsets from a multiple of kAtomBytes. kBoxes: 64-column boxes of a row;
/// kMatrices: matrices of a stage (keys, or keys and values).
template <int kBoxes, int kMatrices, int kStageCount>
struct Layout {
  static constexpr int kStages = kStageCount;
  static constexpr std::uint32_t kMatrixBytes = kBoxes * kKeyBoxBytes;
  static constexpr std::uint32_t kStageBytes = kMatrices * kMatrixBytes;

  static constexpr std::uint32_t query(int consumer) {
    return static_cast<std::uint32_t>(consumer) * kBoxes * kQueryBoxBytes;
  }
  static constexpr std::uint32_t tile(int stage, int matrix) {
    return query(kConsumers) + static_cast<std::uint32_t>(stage) * kStageBytes +
           static_cast<std::uint32_t>(matrix) * kMatrixBytes;
  }
  /// Four words for each row of the block: which keys of the tile it may use.
  static constexpr std::uint32_t masks(int stage) {
    return tile(kStages, 0) + static_cast<std::uint32_t>(stage) * kBlockRows * 16;
  }
  /// What the feeding warps say about a stage: four kinds, and the tile's first key.
  static constexpr std::uint32_t notes(int stage) { return masks(kStages) + static_cast<std::uint32_t>(stage) * 32; }
  static constexpr std::uint32_t full(int stage) { return notes(kStages) + static_cast<std::uint32_t>(stage) * 8; }
  static constexpr std::uint32_t empty(int stage) { return full(kStages) + static_cast<std::uint32_t>(stage) * 8; }
  /// Phases in which a computing group may start the products of its scores.
  static constexpr std::uint32_t turn(int consumer) {
    return empty(kStages) + static_cast<std::uint32_t>(consumer) * 8;
  }
  /// Words for the feeding warps to agree in.
  static constexpr std::uint32_t kVotes = turn(kConsumers);
  static constexpr std::uint32_t kBytes = kVotes + 16;

  /// Arrivals that complete a phase: every feeding thread; one lane of every computing warp.
  static constexpr std::uint32_t kFullCount = kGroupThreads;
  static constexpr std::uint32_t kEmptyCount = kConsumers * kWarps;
  static constexpr std::uint32_t kTurnCount = kWarps;
};

/// Opt-in limit of shared memory of a block at compute capability 9.0; the start is aligned by hand.
inline constexpr std::uint32_t kMostSharedBytes = 227 * 1024;
template <class Place>
inline constexpr std::uint32_t kDynamicBytes = Place::kBytes + kAtomBytes;

/// Registers of a thread for 64 rows of kBoxes x 64 columns.
template <int kBoxes>
inline constexpr std::size_t kOutRegisters = static_cast<std::size_t>(kBoxes) * 32;

/// The map kernel keeps four tiles of keys in flight, the attention kernel two of keys and values.
template <int kBoxes>
using MapLayout = Layout<kBoxes, 1, 4>;
template <int kBoxes>
using AttendLayout = Layout<kBoxes, 2, kBoxes == 1 ? 4 : 2>;
static_assert(kDynamicBytes<MapLayout<2>> <= kMostSharedBytes && kDynamicBytes<AttendLayout<2>> <= kMostSharedBytes);
static_assert(kDynamicBytes<AttendLayout<1>> <= kMostSharedBytes);

}  // namespace sparsight::cuda::hopper

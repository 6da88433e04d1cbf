// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <mutex>

#include "cpu/scratch.h"
#include "sparsight/kernels/backend.h"

namespace sparsight::cpu {

inline constexpr double kLog2E = 1.4426950408889634074;
inline constexpr double kLn2 = 0.69314718055994530942;

/// Rows of keys (or centroids) as the inner loops take them, in place or in a scratch buffer.
struct KeyTile {
  const void* data = nullptr;
  Index stride = 0;  ///< elements
};

/// A head as the inner loops see it. "Compact" positions count valid keys only, so that padding keys cost nothing and
/// need no test; without padding they are the original ones. Keys stay as they were stored: bfloat16 heads are
/// multiplied as such where the CPU can, else tiles of keys are widened to float32 on the way, which costs little
/// because many queries share a tile. So a head needs no memory of its own beyond its inputs (but for values()).
class CpuHead final : public PreparedHead {
 public:
  CpuHead(const AttentionIn& in, std::shared_ptr<const void> keepAlive, const SimdKernels& simd);

  [[nodiscard]] Index bytes() const noexcept override;
  [[nodiscard]] const SimdKernels& simd() const noexcept { return m_simd; }

  /// Log2 logits are factor() * (panel . key); factor() > 0, the sign of the scale is in the panel.
  [[nodiscard]] float factor() const noexcept { return m_factor; }
  [[nodiscard]] Index dim() const noexcept { return input().q.cols; }
  [[nodiscard]] Index keyCount() const noexcept { return m_keyCount; }

  /// Floats of a panel of queries and of the scratch of a tile of `count` keys, in either type of numbers.
  [[nodiscard]] Index panelFloats() const noexcept { return (dim() + 1) * m_simd.lanes; }
  [[nodiscard]] Index tileFloats(Index count) const noexcept { return count * (dim() + 1); }
  /// Compact keys [first, first + count), or those listed.
  [[nodiscard]] KeyTile keys(Index first, Index count, float* scratch) const noexcept;
  [[nodiscard]] KeyTile keys(std::span<const Index> positions, float* scratch) const noexcept;
  /// Asks for compact keys [first, last), as far as there are, to be brought near while others are worked on.
  void prefetch(Index first, Index last) const noexcept;
  /// Compact keys [first, last) as memory, as far as there are and they lie side by side; empty otherwise.
  [[nodiscard]] std::span<const std::byte> keyBytes(Index first, Index last) const noexcept;
  /// Panels and tiles are bfloat16, of evenDim() numbers.
  [[nodiscard]] bool bfloats() const noexcept { return m_bf16; }
  [[nodiscard]] Index evenDim() const noexcept { return dim() + dim() % 2; }
  /// SimdKernels::scores of a packed panel and a tile of keys.
  void scores(const float* panel, const KeyTile& tile, Index count, float* scores, float* largest) const noexcept;

  /// Values in float32, in compact order, padded with zero columns; nullptr without V. Packed on first use.
  struct Values {
    const float* data = nullptr;
    Index columns = 0;  ///< a multiple of SimdKernels::valueColumns
    Index stride = 0;
    [[nodiscard]] const float* row(Index n) const noexcept { return data + n * stride; }
  };
  [[nodiscard]] Values values(const Executor& executor, const Control& control) const;

  /// Number of valid keys before original position `key` (0..Nk).
  [[nodiscard]] Index compact(Index key) const noexcept {
    return m_before.empty() ? key : m_before[static_cast<std::size_t>(key)];
  }
  [[nodiscard]] Index original(Index n) const noexcept {
    return m_original.empty() ? n : m_original[static_cast<std::size_t>(n)];
  }

  /// Query rows side by side, panelFloats() floats; lanes beyond rows.size() are 0. `row` is dim() floats of working
  /// memory.
  void packPanel(std::span<const Index> rows, float* panel, float* row) const noexcept;
  /// The same of any rows of q or k as they are: float32 [dim, lanes], or bfloat16 pairs [dim / 2, lanes, 2] of a
  /// bfloat16 matrix.
  void packPoints(const MatrixView& tokens, std::span<const Index> rows, bool pairs, float* panel,
                  float* row) const noexcept;
  /// Any row of a matrix in float32.
  void widenRow(const MatrixView& view, Index row, float* out) const noexcept;
  /// Scores of a tile of compact keys `positions` (or first, first + 1, ... when empty) become -inf where the dense
  /// mask hides the pair. Nothing to do without a mask.
  void applyDenseMask(std::span<const Index> rows, Index first, std::span<const Index> positions, Index count,
                      float* scores) const noexcept;
  [[nodiscard]] bool masked() const noexcept { return !input().denseMask.empty(); }
  /// Valid keys of a row in compact range [first, last).
  [[nodiscard]] Index validPairs(Index row, Index first, Index last) const noexcept;

 private:
  [[nodiscard]] Index tileStride() const noexcept { return m_bf16 ? evenDim() : dim(); }
  void loadKey(Index key, Index n, float* scratch) const noexcept;
  void packPairs(const MatrixView& tokens, std::span<const Index> rows, bool negate, float* panel) const noexcept;
  void packFloats(const MatrixView& tokens, std::span<const Index> rows, float sign, float* panel,
                  float* row) const noexcept;

  const SimdKernels& m_simd;
  float m_factor = 1;
  float m_sign = 1;
  std::vector<Index> m_before, m_original;
  Index m_keyCount = 0;
  bool m_bf16 = false;    ///< panels and tiles are bfloat16
  bool m_direct = false;  ///< tiles of neighbours are used in place

  mutable std::mutex m_valuesMutex;
  mutable AlignedFloats m_packedValues;
  mutable Values m_values;
  mutable std::atomic<Index> m_valueBytes{0};
};

}  // namespace sparsight::cpu

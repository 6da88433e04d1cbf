// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <mutex>

#include "cpu/scratch.h"
#include "sparsight/kernels/backend.h"

namespace sparsight::cpu {

inline constexpr double kLog2E = 1.4426950408889634074;
inline constexpr double kLn2 = 0.69314718055994530942;

/// A head with its valid keys packed side by side in float32, so that padding keys cost nothing and need no test in the
/// inner loops. "Compact" positions count valid keys only; without padding they are the original ones.
class CpuHead final : public PreparedHead {
 public:
  CpuHead(const AttentionIn& in, std::shared_ptr<const void> keepAlive, const SimdKernels& simd,
          const Executor& executor, const Control& control);

  [[nodiscard]] Index bytes() const noexcept override;
  [[nodiscard]] const SimdKernels& simd() const noexcept { return m_simd; }

  /// Log2 logits are factor() * (panel . key); factor() > 0, the sign of the scale is in the panel.
  [[nodiscard]] float factor() const noexcept { return m_factor; }
  [[nodiscard]] Index dim() const noexcept { return input().q.cols; }
  [[nodiscard]] Index keyCount() const noexcept { return m_keyCount; }
  [[nodiscard]] Index keyStride() const noexcept { return m_keyStride; }
  [[nodiscard]] const float* key(Index n) const noexcept { return m_keys + n * m_keyStride; }

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

  /// Query rows side by side, [dim, lanes]; lanes beyond rows.size() are 0. `row` is dim() floats of working memory.
  void packPanel(std::span<const Index> rows, float* panel, float* row) const noexcept;
  /// Scores of a tile of compact keys `positions` (or first, first + 1, ... when empty) become -inf where the dense
  /// mask hides the pair. Nothing to do without a mask.
  void applyDenseMask(std::span<const Index> rows, Index first, std::span<const Index> positions, Index count,
                      float* scores) const noexcept;
  [[nodiscard]] bool masked() const noexcept { return !input().denseMask.empty(); }
  /// Valid keys of a row in compact range [first, last).
  [[nodiscard]] Index validPairs(Index row, Index first, Index last) const noexcept;

 private:
  const SimdKernels& m_simd;
  float m_factor = 1;
  float m_sign = 1;
  std::vector<Index> m_before, m_original;
  AlignedFloats m_packedKeys;
  const float* m_keys = nullptr;
  Index m_keyCount = 0;
  Index m_keyStride = 0;
  Index m_keyBytes = 0;

  mutable std::mutex m_valuesMutex;
  mutable AlignedFloats m_packedValues;
  mutable Values m_values;
  mutable std::atomic<Index> m_valueBytes{0};
};

}  // namespace sparsight::cpu

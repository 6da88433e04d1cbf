// SPDX-License-Identifier: Apache-2.0
#include "cpu/cpu_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "convert.h"

namespace sparsight::cpu {
namespace {

constexpr Index kFloatBytes = sizeof(float);
constexpr Index kHalfBytes = sizeof(std::uint16_t);
constexpr Index kPackRows = 1024;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

}  // namespace

CpuHead::CpuHead(const AttentionIn& in, std::shared_ptr<const void> keepAlive, const SimdKernels& simd)
    : PreparedHead(in, std::move(keepAlive)), m_simd(simd) {
  // A scale of 0 makes all keys equal: zero queries do that without a factor of 0, which would turn -inf into NaN.
  m_sign = in.scale > 0 ? 1.0F : (in.scale < 0 ? -1.0F : 0.0F);
  if (in.scale != 0) m_factor = static_cast<float>(std::abs(in.scale) * kLog2E);

  m_keyCount = in.k.rows;
  if (std::find(in.keyValid.begin(), in.keyValid.end(), std::uint8_t{0}) != in.keyValid.end()) {
    m_before.reserve(in.keyValid.size() + 1);
    for (std::size_t key = 0; key < in.keyValid.size(); ++key) {
      m_before.push_back(static_cast<Index>(m_original.size()));
      if (in.keyValid[key] != 0) m_original.push_back(static_cast<Index>(key));
    }
    m_keyCount = static_cast<Index>(m_original.size());
    m_before.push_back(m_keyCount);
  }

  m_bf16 = simd.scoresBf16 != nullptr && in.q.dtype == DType::BF16 && in.k.dtype == DType::BF16;
  const Index size = in.k.dtype == DType::F32 ? kFloatBytes : kHalfBytes;
  m_direct = (m_bf16 ? dim() % 2 == 0 : in.k.dtype == DType::F32) && m_before.empty() &&
             in.k.rowStrideBytes % size == 0 && reinterpret_cast<std::uintptr_t>(in.k.data) % at(size) == 0;
}

KeyTile CpuHead::keys(Index first, Index count, float* scratch) const noexcept {
  const MatrixView& k = input().k;
  if (m_direct) return {k.data + first * k.rowStrideBytes, k.rowStrideBytes / (m_bf16 ? kHalfBytes : kFloatBytes)};
  for (Index n = 0; n < count; ++n) loadKey(original(first + n), n, scratch);
  return {scratch, tileStride()};
}

KeyTile CpuHead::keys(std::span<const Index> positions, float* scratch) const noexcept {
  for (std::size_t n = 0; n < positions.size(); ++n) loadKey(original(positions[n]), static_cast<Index>(n), scratch);
  return {scratch, tileStride()};
}

void CpuHead::prefetch(Index first, Index last) const noexcept {
  const MatrixView& k = input().k;
  const Index rowBytes = dim() * (k.dtype == DType::F32 ? kFloatBytes : kHalfBytes);
  for (Index n = first; n < std::min(last, m_keyCount); ++n) {
    const std::byte* const row = k.data + original(n) * k.rowStrideBytes;
    for (Index b = 0; b < rowBytes; b += static_cast<Index>(kAlignment)) __builtin_prefetch(row + b, 0, 2);
  }
}

std::span<const std::byte> CpuHead::keyBytes(Index first, Index last) const noexcept {
  const MatrixView& k = input().k;
  const Index rowBytes = dim() * (k.dtype == DType::F32 ? kFloatBytes : kHalfBytes);
  last = std::min(last, m_keyCount);
  if (!m_before.empty() || k.rowStrideBytes != rowBytes || first >= last) return {};
  return {k.data + first * rowBytes, at((last - first) * rowBytes)};
}

void CpuHead::loadKey(Index key, Index n, float* scratch) const noexcept {
  if (!m_bf16) {
    widenRow(input().k, key, scratch + n * tileStride());
    return;
  }
  auto* const to = reinterpret_cast<std::uint16_t*>(scratch) + n * tileStride();
  std::memcpy(to, input().k.data + key * input().k.rowStrideBytes, at(dim() * kHalfBytes));
  if (dim() % 2 != 0) to[dim()] = 0;
}

void CpuHead::scores(const float* panel, const KeyTile& tile, Index count, float* scores,
                     float* largest) const noexcept {
  if (m_bf16) {
    m_simd.scoresBf16(reinterpret_cast<const std::uint16_t*>(panel), static_cast<const std::uint16_t*>(tile.data),
                      tile.stride, count, evenDim(), scores, largest);
  } else {
    m_simd.scores(panel, static_cast<const float*>(tile.data), tile.stride, count, dim(), scores, largest);
  }
}

void CpuHead::widenRow(const MatrixView& view, Index row, float* out) const noexcept {
  const std::byte* const from = view.data + row * view.rowStrideBytes;
  // Tensors of files are aligned to their numbers; whatever is not goes the long way.
  if (view.dtype == DType::F32 || reinterpret_cast<std::uintptr_t>(from) % alignof(std::uint16_t) != 0) {
    detail::convertRow(view, row, out);
    return;
  }
  const auto* const halves = reinterpret_cast<const std::uint16_t*>(from);
  (view.dtype == DType::F16 ? m_simd.widenHalf : m_simd.widenBf16)(halves, view.cols, out);
}

Index CpuHead::bytes() const noexcept {
  const auto indices = static_cast<Index>((m_before.size() + m_original.size()) * sizeof(Index));
  return m_valueBytes.load() + indices;
}

CpuHead::Values CpuHead::values(const Executor& executor, const Control& control) const {
  const MatrixView& v = input().v;
  if (v.data == nullptr) return {};
  // A mutex and not std::call_once: packing may be cancelled, and an exception out of call_once hangs the next caller
  // on some platforms (GCC bug 66146) and under the thread sanitizer.
  const std::lock_guard lock(m_valuesMutex);
  if (m_values.data == nullptr) {
    const Index unit = m_simd.valueColumns;
    const Index columns = (v.cols + unit - 1) / unit * unit;
    // An odd number of cache lines per row: the same columns of consecutive rows fall into different L1 sets.
    constexpr Index kLine = static_cast<Index>(kAlignment) / kFloatBytes;
    const Index lines = (columns + kLine - 1) / kLine;
    const Index stride = (lines | 1) * kLine;
    AlignedFloats packed(m_keyCount * stride);
    executor.parallelFor(m_keyCount, kPackRows, control, [&](Index first, Index last) {
      for (Index n = first; n < last; ++n) {
        float* const row = packed.get() + n * stride;
        widenRow(v, original(n), row);
        std::fill(row + v.cols, row + stride, 0.0F);
      }
    });
    m_packedValues = std::move(packed);
    m_valueBytes = m_keyCount * stride * kFloatBytes;
    m_values = {m_packedValues.get(), columns, stride};
  }
  return m_values;
}

void CpuHead::packPanel(std::span<const Index> rows, float* panel, float* row) const noexcept {
  std::fill(panel, panel + panelFloats(), 0.0F);
  if (m_sign == 0) return;
  if (m_bf16) {
    packPairs(input().q, rows, m_sign < 0, panel);
  } else {
    packFloats(input().q, rows, m_sign, panel, row);
  }
}

void CpuHead::packPoints(const MatrixView& tokens, std::span<const Index> rows, bool pairs, float* panel,
                         float* row) const noexcept {
  std::fill(panel, panel + panelFloats(), 0.0F);
  if (pairs) {
    packPairs(tokens, rows, false, panel);
  } else {
    packFloats(tokens, rows, 1.0F, panel, row);
  }
}

/// [dim / 2, lanes] pairs of bfloat16.
void CpuHead::packPairs(const MatrixView& tokens, std::span<const Index> rows, bool negate,
                        float* panel) const noexcept {
  constexpr std::uint32_t kSigns = 0x80008000U;
  const std::uint32_t flip = negate ? kSigns : 0U;
  const Index lanes = m_simd.lanes;
  auto* const pairs = reinterpret_cast<std::uint32_t*>(panel);
  for (std::size_t lane = 0; lane < rows.size(); ++lane) {
    const std::byte* const from = tokens.data + rows[lane] * tokens.rowStrideBytes;
    std::uint32_t* to = pairs + lane;
    for (Index i = 0; i + 1 < dim(); i += 2, to += lanes) {
      std::uint32_t pair = 0;
      std::memcpy(&pair, from + i * kHalfBytes, sizeof pair);
      *to = pair ^ flip;
    }
    if (dim() % 2 != 0) {
      std::uint16_t last = 0;
      std::memcpy(&last, from + (dim() - 1) * kHalfBytes, sizeof last);
      *to = (std::uint32_t{last} ^ flip) & 0xffffU;
    }
  }
}

/// [dim, lanes]
void CpuHead::packFloats(const MatrixView& tokens, std::span<const Index> rows, float sign, float* panel,
                         float* row) const noexcept {
  const Index lanes = m_simd.lanes;
  for (std::size_t lane = 0; lane < rows.size(); ++lane) {
    widenRow(tokens, rows[lane], row);
    float* to = panel + lane;
    for (Index i = 0; i < dim(); ++i, to += lanes) *to = sign * row[i];
  }
}

void CpuHead::applyDenseMask(std::span<const Index> rows, Index first, std::span<const Index> positions, Index count,
                             float* scores) const noexcept {
  if (!masked()) return;
  const Index lanes = m_simd.lanes;
  for (std::size_t lane = 0; lane < rows.size(); ++lane) {
    const std::uint8_t* const mask = input().denseMask.data() + rows[lane] * input().k.rows;
    float* const column = scores + lane;
    for (Index n = 0; n < count; ++n) {
      const Index position = positions.empty() ? first + n : positions[static_cast<std::size_t>(n)];
      if (mask[original(position)] == 0) column[n * lanes] = -std::numeric_limits<float>::infinity();
    }
  }
}

Index CpuHead::validPairs(Index row, Index first, Index last) const noexcept {
  if (!masked()) return last - first;
  const std::uint8_t* const mask = input().denseMask.data() + row * input().k.rows;
  Index pairs = 0;
  for (Index n = first; n < last; ++n) pairs += mask[original(n)] != 0 ? 1 : 0;
  return pairs;
}

}  // namespace sparsight::cpu

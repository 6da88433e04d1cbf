// SPDX-License-Identifier: Apache-2.0
#include "cpu/cpu_head.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "convert.h"

namespace sparsight::cpu {
namespace {

constexpr Index kFloatBytes = sizeof(float);
constexpr Index kPackRows = 1024;

}  // namespace

CpuHead::CpuHead(const AttentionIn& in, std::shared_ptr<const void> keepAlive, const SimdKernels& simd,
                 const Executor& executor, const Control& control)
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

  m_keyStride = in.k.cols;
  const bool usable = in.k.dtype == DType::F32 && m_before.empty() && in.k.rowStrideBytes % kFloatBytes == 0 &&
                      reinterpret_cast<std::uintptr_t>(in.k.data) % alignof(float) == 0;
  if (usable) {
    m_keys = reinterpret_cast<const float*>(in.k.data);
    m_keyStride = in.k.rowStrideBytes / kFloatBytes;
    return;
  }
  m_packedKeys = AlignedFloats(m_keyCount * m_keyStride);
  m_keyBytes = m_keyCount * m_keyStride * kFloatBytes;
  m_keys = m_packedKeys.get();
  executor.parallelFor(m_keyCount, kPackRows, control, [&](Index first, Index last) {
    for (Index n = first; n < last; ++n) detail::convertRow(in.k, original(n), m_packedKeys.get() + n * m_keyStride);
  });
}

Index CpuHead::bytes() const noexcept {
  const auto indices = static_cast<Index>((m_before.size() + m_original.size()) * sizeof(Index));
  return m_keyBytes + m_valueBytes.load() + indices;
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
        detail::convertRow(v, original(n), row);
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
  const Index lanes = m_simd.lanes;
  std::fill(panel, panel + dim() * lanes, 0.0F);
  if (m_sign == 0) return;
  for (std::size_t lane = 0; lane < rows.size(); ++lane) {
    detail::convertRow(input().q, rows[lane], row);
    float* target = panel + lane;
    for (Index i = 0; i < dim(); ++i, target += lanes) *target = m_sign * row[i];
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

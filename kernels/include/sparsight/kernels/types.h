// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sparsight {

/// Every count or offset of tokens, blocks or bytes in tensors.
using Index = std::int64_t;

/// Element types that a trace can hold. Arithmetic is float32 (oracle: float64), never the storage type.
enum class DType : std::uint8_t { F32, F16, BF16 };

/// Bytes of one element: 4 or 2.
[[nodiscard]] constexpr std::size_t itemSize(DType dtype) noexcept { return dtype == DType::F32 ? 4U : 2U; }

/// "float32", "float16" or "bfloat16".
[[nodiscard]] const char* dtypeName(DType dtype) noexcept;

/// A borrowed row-major matrix [rows, cols]; rows may be farther apart than cols * itemSize. Never owns.
struct MatrixView {
  const std::byte* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index rowStrideBytes = 0;
  DType dtype = DType::F32;

  [[nodiscard]] bool empty() const noexcept { return data == nullptr || rows == 0; }
  [[nodiscard]] const std::byte* row(Index r) const noexcept { return data + r * rowStrideBytes; }
};

/// View of a contiguous float32 buffer [rows, cols].
[[nodiscard]] inline MatrixView viewOf(std::span<const float> values, Index rows, Index cols) noexcept {
  return {reinterpret_cast<const std::byte*>(values.data()), rows, cols, cols * static_cast<Index>(sizeof(float)),
          DType::F32};
}

/// Half-open range of key positions [first, last).
struct Interval {
  Index first = 0;
  Index last = 0;
  friend bool operator==(const Interval&, const Interval&) = default;
};

/// Converts one row of any dtype to float32; `out` has view.cols elements.
void rowToFloat(const MatrixView& view, Index row, std::span<float> out);

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "sparsight/kernels/types.h"

#include <bit>
#include <cstring>

#include "convert.h"
#include "sparsight/kernels/error.h"

namespace sparsight {

const char* dtypeName(DType dtype) noexcept {
  switch (dtype) {
    case DType::F32:
      return "float32";
    case DType::F16:
      return "float16";
    case DType::BF16:
      return "bfloat16";
  }
  return "unknown";
}

void rowToFloat(const MatrixView& view, Index row, std::span<float> out) {
  if (row < 0 || row >= view.rows || static_cast<Index>(out.size()) < view.cols) {
    throw Error(ErrorCode::InvalidArgument, "row conversion: the row or the output does not fit the matrix");
  }
  detail::convertRow(view, row, out.data());
}

namespace detail {

void convertRow(const MatrixView& view, Index row, float* out) noexcept {
  const std::byte* source = view.row(row);
  const auto count = static_cast<std::size_t>(view.cols);
  if (view.dtype == DType::F32) {
    std::memcpy(out, source, count * sizeof(float));
    return;
  }
  // The bytes may stand at any address (a strided view of a file buffer), hence memcpy instead of a cast.
  for (std::size_t i = 0; i < count; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, source + i * sizeof bits, sizeof bits);
    out[i] = view.dtype == DType::F16 ? halfToFloat(bits) : bfloatToFloat(bits);
  }
}

}  // namespace detail
}  // namespace sparsight

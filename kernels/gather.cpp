// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstring>

#include "sparsight/kernels/backend.h"

namespace sparsight {

OwnedMatrix gatherRows(const MatrixView& in, std::span<const Index> order) {
  const std::size_t rowBytes = static_cast<std::size_t>(in.cols) * itemSize(in.dtype);
  OwnedMatrix out;
  out.storage.resize(rowBytes * order.size());
  std::byte* target = out.storage.data();
  for (const Index row : order) {
    if (row < 0 || row >= in.rows) {
      throw Error(ErrorCode::InvalidArgument, fmt::format("token order: {} is outside 0..{}", row, in.rows - 1));
    }
    std::memcpy(target, in.row(row), rowBytes);
    target += rowBytes;
  }
  out.view = {out.storage.data(), static_cast<Index>(order.size()), in.cols, static_cast<Index>(rowBytes), in.dtype};
  return out;
}

}  // namespace sparsight

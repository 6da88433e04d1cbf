// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sparsight/kernels/backend.h"

namespace sparsight::detail {

/// Selects in one row after another; keeps what it works with.
class RowSelector {
 public:
  explicit RowSelector(const SelectRequest& request) : m_request(request) {}
  void select(std::size_t row, std::span<std::uint8_t> kept);

 private:
  const SelectRequest& m_request;
  std::vector<std::uint64_t> m_ranks;
};

}  // namespace sparsight::detail

// SPDX-License-Identifier: Apache-2.0
#include "select_largest.h"

#include <algorithm>

#include "checks.h"
#include "exact_exp.h"

namespace sparsight {

void detail::RowSelector::select(std::size_t row, std::span<std::uint8_t> kept) {
  const auto columns = static_cast<std::size_t>(m_request.columns);
  const std::span<const double> values = m_request.values.subspan(row * columns, columns);
  const auto open = [&](std::size_t i) { return m_request.excluded.empty() || m_request.excluded[i] == 0; };
  m_ranks.clear();
  for (std::size_t i = 0; i < columns; ++i) {
    if (open(i)) m_ranks.push_back(exact::rankOf(values[i]));
  }
  std::fill(kept.begin(), kept.end(), std::uint8_t{0});
  const std::size_t count = std::min(static_cast<std::size_t>(m_request.counts[row]), m_ranks.size());
  if (count == 0) return;
  const auto last = m_ranks.begin() + static_cast<std::ptrdiff_t>(count) - 1;
  std::nth_element(m_ranks.begin(), last, m_ranks.end());
  const std::uint64_t cut = *last;
  auto left = static_cast<std::ptrdiff_t>(count) -
              std::count_if(m_ranks.begin(), last, [cut](std::uint64_t rank) { return rank < cut; });
  for (std::size_t i = 0; i < columns; ++i) {
    if (!open(i)) continue;
    const std::uint64_t rank = exact::rankOf(values[i]);
    if (rank < cut || (rank == cut && left-- > 0)) kept[i] = 1;
  }
}

std::vector<std::uint8_t> Backend::selectLargest(const SelectRequest& request, const Control& control) {
  detail::checkSelect(request);
  std::vector<std::uint8_t> kept(request.values.size());
  detail::RowSelector selector(request);
  const auto columns = static_cast<std::size_t>(request.columns);
  for (std::size_t row = 0; row < request.counts.size(); ++row) {
    control.checkpoint();
    selector.select(row, std::span(kept).subspan(row * columns, columns));
  }
  return kept;
}

}  // namespace sparsight

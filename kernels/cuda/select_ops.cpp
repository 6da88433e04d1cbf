// SPDX-License-Identifier: Apache-2.0
// The largest values of rows of a map.
#include <fmt/format.h>

#include <algorithm>

#include "cuda/backend_impl.h"

namespace sparsight::cuda {
namespace {

/// A row is looked at eight times for its cut, and once or twice more.
constexpr double kWorkPerValue = 100;

}  // namespace

std::vector<std::uint8_t> CudaBackend::selectLargest(const SelectRequest& request, const Control& control) {
  detail::checkSelect(request);
  const Index columns = request.columns;
  const auto rows = static_cast<Index>(request.counts.size());
  if (columns > kMostTokens) {
    throw Error(ErrorCode::Unsupported, fmt::format("cuda: rows of {} values; use the CPU", columns));
  }
  start();
  const Index open = columns - std::count_if(request.excluded.begin(), request.excluded.end(),
                                             [](std::uint8_t flag) { return flag != 0; });
  return withSmallerBatches(Op::SelectLargest, [&](const LaunchLimits& limits) {
    const Drain drain(m_stream);
    control.checkpoint();
    std::vector<std::uint8_t> kept(request.values.size());
    if (kept.empty()) return kept;
    const Index perLaunch = std::min(rows, rowsPerLaunch(limits, rows, kWorkPerValue * static_cast<double>(columns),
                                                         columns * static_cast<Index>(sizeof(double) + 1) + 4));
    reserve<double>(m_scratch.probabilities, perLaunch * columns, "values to select from");
    reserve<std::uint8_t>(m_scratch.kept, perLaunch * columns, "selection");
    reserve<std::int32_t>(m_scratch.counts, perLaunch, "selection");
    reserve<std::uint8_t>(m_scratch.excluded, static_cast<Index>(request.excluded.size()), "selection");
    if (!request.excluded.empty()) {
      m_staging.upload(m_scratch.excluded.as<void>(), request.excluded.data(),
                       static_cast<Index>(request.excluded.size()), control, "upload the excluded columns");
    }
    beginTiming();
    for (Index first = 0; first < rows; first += perLaunch) {
      control.checkpoint();
      const Index n = std::min(perLaunch, rows - first);
      std::vector<std::int32_t> counts(at(n));
      for (Index i = 0; i < n; ++i) {
        counts[at(i)] = static_cast<std::int32_t>(std::min(request.counts[at(first + i)], open));
      }
      uploadTable(m_scratch.counts, counts, control, "upload the counts");
      m_staging.upload(m_scratch.probabilities.as<void>(), request.values.data() + first * columns,
                       n * columns * static_cast<Index>(sizeof(double)), control, "upload the values");
      SelectLargestParams params{};
      params.values = m_scratch.probabilities.as<const double>();
      params.excluded = request.excluded.empty() ? nullptr : m_scratch.excluded.as<const std::uint8_t>();
      params.counts = m_scratch.counts.as<const std::int32_t>();
      params.columns = static_cast<std::int32_t>(columns);
      params.kept = m_scratch.kept.as<std::uint8_t>();
      check(launchSelectLargest(params, n, m_stream.get()), "select_largest");
      endTiming();
      downloadTo(kept.data() + first * columns, params.kept, n * columns, "read the selection");
      m_stream.wait("select_largest");
      control.report(static_cast<double>(first + n) / static_cast<double>(rows));
    }
    return kept;
  });
}

}  // namespace sparsight::cuda

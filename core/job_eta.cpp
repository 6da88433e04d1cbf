// SPDX-License-Identifier: Apache-2.0
#include "job_eta.h"

#include <algorithm>

namespace sparsight::detail {

void EtaEstimator::restart(double seconds) noexcept {
  m_count = m_next = 0;
  m_start = m_lastSeconds = seconds;
  m_lastFraction = 0;
}

void EtaEstimator::update(double fraction, double seconds) noexcept {
  if (fraction < m_lastFraction) {  // a job that starts over (second pass): old units say nothing about it
    restart(seconds);
  }
  const double advanced = fraction - m_lastFraction;
  if (advanced < kUnit) return;
  m_secondsPerWhole[m_next] = std::max(0.0, seconds - m_lastSeconds) / advanced;
  m_next = (m_next + 1) % kUnits;
  m_count = std::min(m_count + 1, kUnits);
  m_lastSeconds = seconds;
  m_lastFraction = fraction;
}

double EtaEstimator::secondsLeft(double seconds) const noexcept {
  const double elapsed = seconds - m_start;
  if (m_count == 0 || (m_lastFraction < kMinFraction && elapsed < kMinSeconds)) return -1;
  std::array<double, kUnits> costs = m_secondsPerWhole;
  const auto middle = costs.begin() + static_cast<std::ptrdiff_t>(m_count / 2);
  std::nth_element(costs.begin(), middle, costs.begin() + static_cast<std::ptrdiff_t>(m_count));
  const double left = *middle * (1 - m_lastFraction);
  const double since = seconds - m_lastSeconds;
  // A unit that takes longer than all that was left: the median no longer describes the job, its overall pace does.
  if (since > left) return elapsed / std::max(m_lastFraction, kUnit) * (1 - m_lastFraction);
  return left - since;
}

}  // namespace sparsight::detail

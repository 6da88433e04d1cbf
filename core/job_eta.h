// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>

namespace sparsight::detail {

/// Time left of a job from its progress reports. The cost of progress is the median over the last 20 units (a unit is
/// at least 0.5 %), so that one slow file read or one cheap head does not throw the estimate about. Not thread-safe.
class EtaEstimator {
 public:
  static constexpr double kMinFraction = 0.05, kMinSeconds = 3.0, kUnit = 0.005;

  /// Forgets everything; progress counts from `seconds` on.
  void restart(double seconds) noexcept;
  /// Progress `fraction` (0..1) was reached at `seconds` (any monotonic clock).
  void update(double fraction, double seconds) noexcept;
  /// Seconds left as of `seconds`; -1 while nothing can be said: before 5 % or 3 s, or without progress.
  [[nodiscard]] double secondsLeft(double seconds) const noexcept;

 private:
  static constexpr std::size_t kUnits = 20;
  std::array<double, kUnits> m_secondsPerWhole{};  // cost of a unit, scaled to the whole job
  std::size_t m_count = 0, m_next = 0;
  double m_start = 0, m_lastSeconds = 0, m_lastFraction = 0;
};

}  // namespace sparsight::detail

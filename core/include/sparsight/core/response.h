// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sparsight/core/compare.h"
#include "sparsight/core/profile.h"

namespace sparsight {

/// Settings of a method's knob that a curve is measured at when nobody says otherwise.
inline constexpr int kCurvePoints = 21;

/// The curves of a request, from the file beside the trace where there is one, else measured and kept there.
struct KeptCurves {
  std::vector<HeadCurve> curves;
  bool fromFile = false;
  std::vector<std::string> warnings;  ///< a file that could not be read or written; the curves are good
};
/// Throws what responseCurves throws.
[[nodiscard]] KeptCurves keptCurves(const Trace& trace, const RunRequest& request, int points, Backend& backend,
                                    const Control& control);

/// What budgets lead to, where curves know it: means over the covered cells.
struct Prediction {
  Index cells = 0, covered = 0;  ///< cells with a value; those of them that have a curve
  double kept = 0, mass = 0;     ///< of the covered ones
  std::optional<double> error;   ///< of the covered ones with values (V); nullopt: none
};
struct LayerPredictions {
  Prediction total;
  std::vector<Prediction> layers;
};

/// Response curves by the cell of a profile that they are of. Lookups allocate nothing.
class ResponseTable {
 public:
  ResponseTable() = default;
  /// A cell's later curve replaces its earlier one.
  void add(const std::vector<HeadCurve>& curves);
  [[nodiscard]] const HeadCurve* find(CellId cell) const noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return m_size; }
  /// Cells of `profile` that have a curve, with a value or without.
  [[nodiscard]] Index coverage(const Profile& profile) const noexcept;
  /// The consequence of every value of a profile as a kept fraction (of its step, or its head, where given).
  [[nodiscard]] LayerPredictions predict(const Profile& profile, std::optional<int> step = {},
                                         std::optional<int> head = {}) const;

 private:
  [[nodiscard]] std::size_t index(CellId cell) const noexcept;
  int m_steps = 0, m_layers = 0, m_heads = 0;
  std::vector<HeadCurve> m_curves;  // no points: none
  std::size_t m_size = 0;
};

}  // namespace sparsight

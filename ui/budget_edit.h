// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QString>
#include <map>
#include <optional>
#include <vector>

#include "sparsight/core/profile.h"

namespace sparsight {

/// Which steps and heads the budget editor shows and edits; layers are its rows.
struct BudgetScope {
  std::optional<int> step;  ///< nullopt: all steps
  std::optional<int> head;  ///< nullopt: all heads
  friend bool operator==(const BudgetScope&, const BudgetScope&) = default;
};

/// How a layer's new mean is spread over its cells.
enum class SpreadMode : std::uint8_t {
  Shift,   ///< every cell by the same amount; cells stop at 0 and 1 and the rest goes further, so that the mean is met
  Scale,   ///< every cell by the same factor, likewise
  SetAll,  ///< every cell gets the value; holes too
};

namespace budget {

[[nodiscard]] CellRange layerRange(const Profile& profile, int layer, const BudgetScope& scope);
[[nodiscard]] ProfileSummary summarise(const Profile& profile, int layer, const BudgetScope& scope);
/// Over all layers.
[[nodiscard]] ProfileSummary summarise(const Profile& profile, const BudgetScope& scope);

struct LayerEdit {
  ProfileEdit edit;
  Index clampedCells = 0;         ///< cells that end at 0 or 1 although their share of the move would go beyond
  std::vector<int> lockedLayers;  ///< asked for and left alone
};
/// Gives each layer of `targets` the mean (fraction in [0, 1]) over the scope. New values are rounded to 4 decimals,
/// the precision of SVOO's files. Holes stay holes unless the whole layer is one or the mode is SetAll. The edit is
/// named "Set kept of L12-L18 to 24 %", or `label` if given. Throws Error{InvalidArgument} for targets outside [0, 1].
[[nodiscard]] LayerEdit setLayerMeans(const Profile& profile, const std::map<int, double>& targets,
                                      const BudgetScope& scope, SpreadMode mode, const QString& label = {});
/// Locks the given layers, or unlocks them when all are locked.
[[nodiscard]] ProfileEdit toggleLocks(const Profile& profile, const std::vector<int>& layers);

/// Means of `layers` (consecutive) after `passes` of 1-2-1 smoothing; the neighbours outside stay as they are.
[[nodiscard]] std::map<int, double> smoothedMeans(const Profile& profile, int firstLayer, int lastLayer,
                                                  const BudgetScope& scope, int passes);

/// "L12", "L12-L18", "L1, L3, L5" (elided after four parts).
[[nodiscard]] QString layerNames(const std::vector<int>& layers);
/// "24.0" for 0.24: one decimal, two below 1 %.
[[nodiscard]] QString percentDigits(double fraction);

/// What was typed or pasted into a kept cell.
struct TypedValue {
  std::optional<double> fraction;  ///< new mean of the layer
  QString error;                   ///< why not, when there is no value
  QString note;                    ///< how it was read, where that may surprise (decimal comma, fraction)
};
/// "24", "24.5 %", "24,5", "=prev", "*1.1", "/2", "+2", "-2" (points of percent). `previous` is the layer above.
/// asFraction: bare numbers are fractions of 1 instead of percent.
[[nodiscard]] TypedValue parseTyped(const QString& text, std::optional<double> current, std::optional<double> previous,
                                    bool asFraction = false);

}  // namespace budget
}  // namespace sparsight

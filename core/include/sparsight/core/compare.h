// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/core/run.h"

namespace sparsight {

/// A backend that remembers what `cluster` and `lseMap` gave for the same tensors and request, so that solving for a
/// budget does not cluster or search a head again for every value it tries. Oldest results go first above `bytes`.
/// Does not own `inner`; confined to one thread at a time like it.
[[nodiscard]] std::unique_ptr<Backend> createMemoBackend(Backend& inner, Index bytes = Index{512} << 20);

/// Speed of a sparse attention kernel per operation, dense attention being 1, where nothing better is known.
inline constexpr double kSparseEfficiency = 0.8;

/// Means over the planned heads of a run; sums where it says so.
struct RunSummary {
  std::size_t heads = 0, skipped = 0;
  double keptFraction = 0;  ///< pairs of all heads together count alike: the mean over heads
  double keptMass = 0, keptMassP5 = 0;
  std::optional<double> outputRelError, outputCosine;
  Index starvedRows = 0;                                        ///< sum
  double plannerFlops = 0, attentionFlops = 0, denseFlops = 0;  ///< sums
  [[nodiscard]] double plannerShare() const { return denseFlops > 0 ? plannerFlops / denseFlops : 0; }
  /// Attention time relative to dense attention: kept / efficiency + planner cost, both as shares of dense
  /// floating point operations. `efficiency` is that of the sparse kernel against the dense one, which runs what is
  /// kept whole.
  [[nodiscard]] double relativeTime(double efficiency) const {
    return (keptFraction < 1.0 ? keptFraction / efficiency : 1.0) + plannerShare();
  }
};
[[nodiscard]] RunSummary summarise(const RunReport& report);

enum class Budget : std::uint8_t { Kept, Mass, Error };
struct BudgetTarget {
  Budget budget = Budget::Kept;
  double value = 0;
};
/// The setting of a method's knob whose mean over the selected heads comes nearest to the target.
struct Solution {
  std::string knob;      ///< parameter name
  double knobValue = 0;  ///< as used
  double asked = 0, reached = 0;
  double quantum = 0;    ///< step of the reachable values around the target: SVG's bands, AdaSpa's blocks per row
  bool flagged = false;  ///< more than 0.5 points off
  int runs = 0;          ///< of the method
  RunReport report;      ///< with that setting, evaluated
};
inline constexpr double kFlagAbove = 0.005;
/// onHead sees the heads of the last run, with that setting. Throws Error{Unsupported} for a method without a knob and
/// when no head can be planned.
[[nodiscard]] Solution solveBudget(const Trace& trace, RunRequest request, const BudgetTarget& target, Backend& backend,
                                   const Control& control, const std::function<void(const HeadReport&)>& onHead = {});

/// One method of a comparison: the one path of CLI and GUI.
struct Compared {
  RunReport report;
  std::optional<Solution> solution;  ///< without its report, which is `report`; nullopt: at the request's own setting
};
/// At the target where there is one and the method has a knob to move, else at the request's own setting. onHead as in
/// runMethod and solveBudget.
[[nodiscard]] Compared compareMethod(const Trace& trace, const RunRequest& request,
                                     const std::optional<BudgetTarget>& target, Backend& backend,
                                     const Control& control, const std::function<void(const HeadReport&)>& onHead = {});

/// What a budget does to one head, measured at several settings of the method's knob.
struct CurvePoint {
  double knob = 0, kept = 0, mass = 0, massP5 = 0;
  std::optional<double> error;  ///< relative output error
};
struct HeadCurve {
  HeadId id;
  std::vector<CurvePoint> points;  ///< by rising kept fraction
  /// The consequence of a kept fraction, linear between the measured points, the nearest one outside them.
  [[nodiscard]] CurvePoint at(double kept) const;
};
/// `points` settings evenly spaced over the knob's range, both ends included; numbers on the request's rows. Throws
/// Error{Unsupported} for a method without a knob.
[[nodiscard]] std::vector<HeadCurve> responseCurves(const Trace& trace, RunRequest request, int points,
                                                    Backend& backend, const Control& control);
/// Where curves of this request are kept beside the trace: "TRACE.curves/METHOD-HASH.json", the hash being of all that
/// decides them.
[[nodiscard]] std::filesystem::path curvePath(const Trace& trace, const RunRequest& request, int points);
void writeCurves(const std::filesystem::path& path, const std::vector<HeadCurve>& curves);
/// Throws Error{Io|Format}.
[[nodiscard]] std::vector<HeadCurve> readCurves(const std::filesystem::path& path);

/// Floating point operations of a generation: denseTotal - attention * (1 - warmup) * (1 - density), attention =
/// 4 S^2 (H D) layers forwards; warmup and density are fractions (the SVG2 paper's accounting, dense layers ignored).
struct GenerationCost {
  double tokens = 0, width = 0;  ///< S; H D
  double layers = 0, forwards = 0;
  double denseTotal = 0;
  [[nodiscard]] double attention() const { return 4.0 * tokens * tokens * width * layers * forwards; }
  [[nodiscard]] double total(double warmup, double density) const {
    return denseTotal - attention() * (1.0 - warmup) * (1.0 - density);
  }
  /// Attention-bound speed-up: denseTime / (otherTime + attentionTime (w + (1 - w) (density / efficiency + overhead))).
  [[nodiscard]] static double speedup(double attentionShare, double warmup, double density, double efficiency,
                                      double overhead) {
    return 1.0 /
           (1.0 - attentionShare + attentionShare * (warmup + (1.0 - warmup) * (density / efficiency + overhead)));
  }
};

/// How alike the kept pairs of two plans of the same tokens are.
struct Overlap {
  double jaccard = 0;  ///< |A and B| / |A or B| over the pairs of the rows looked at
  double covered = 0;  ///< share of A's pairs that B keeps: what is left when A's mask is replaced by B's
  Index rows = 0;
};
/// rows as in EvaluateOptions. Throws Error{Unsupported} for plans by row count and for plans of other shapes.
[[nodiscard]] Overlap overlapOf(const Plan& a, const Plan& b, Index rows, const Control& control);

}  // namespace sparsight

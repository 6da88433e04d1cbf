// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/types.h"

namespace sparsight {

enum class BlockState : std::uint8_t { Skipped = 0, Whole = 1, Partial = 2 };
enum class HeadClass : std::uint8_t { None, Spatial, Temporal, Clustered, Sink, Diffuse };
[[nodiscard]] std::string_view headClassName(HeadClass c) noexcept;  ///< "spatial", ...; "" for None

/// What a method keeps of one head: the answer of Method::plan, stored in plan files, drawn as overlay, executed by any
/// backend. Positions are in computed order; qOrder / kOrder map a position to a stored query row / key token.
struct Plan {
  std::string methodId;
  std::string paramsJson = "{}";  ///< every parameter as resolved
  Index queryCount = 0, keyCount = 0;
  std::vector<Index> qOrder, kOrder;    ///< permutations; empty = model order
  std::vector<Index> qBounds, kBounds;  ///< block edges, non-decreasing, first 0, last Nq / Nk
  std::vector<std::uint8_t> blockMask;  ///< [Bq, Bk] BlockState

  // Exact kept key ranges per group of query rows (computed order); authoritative when present.
  std::vector<Index> intervalRows;     ///< [G + 1] row edges of the groups
  std::vector<Index> rowIntervalsPtr;  ///< [G + 1]
  std::vector<Interval> rowIntervals;  ///< sorted, disjoint, non-empty within a group

  // Instead of intervals (oracle_token): row keeps its rowCount most probable keys; model order.
  std::vector<float> rowThreshold;
  std::vector<Index> rowCount;

  std::vector<std::int32_t> qLabels, kLabels;  ///< cluster of each model token
  std::vector<float> qCentroids, kCentroids;   ///< [K, D]
  std::vector<Index> qSizes, kSizes;
  std::vector<float> scores;      ///< [Bq, Bk] the method's own block scores
  std::vector<std::uint8_t> map;  ///< [Bq, Bk] the method's own block map
  std::vector<float> lse;         ///< [N] natural log, where the method has it
  std::vector<std::int32_t> levels;
  std::vector<float> recall;

  HeadClass headClass = HeadClass::None;
  std::optional<std::array<float, 2>> mse;  ///< svg: spatial, temporal
  std::optional<double> margin;             ///< |a - b| / (a + b)
  double plannerFlops = 0;
  bool wouldBeDense = false;
  std::optional<int> reusedFromStep;
  std::map<std::string, double> facts;  ///< further numbers a method reports
  std::vector<std::string> warnings;

  [[nodiscard]] Index qBlocks() const noexcept { return static_cast<Index>(qBounds.size()) - 1; }
  [[nodiscard]] Index kBlocks() const noexcept { return static_cast<Index>(kBounds.size()) - 1; }
  /// Throws Error{InvalidArgument} naming the first broken rule.
  void validate() const;
  /// Kept key intervals of one row position, from intervals or from whole blocks (merged). Not for rowCount plans.
  [[nodiscard]] std::vector<Interval> keptIntervals(Index rowPosition) const;
  /// Derives blockMask from the intervals: 0, 1 (whole) or 2 (partial). Zero-length blocks keep what they were (0 when
  /// there was no mask yet). Linear in rows and intervals, never N x N.
  void deriveBlockMask();
};

/// Memory of a plan, nearly all of it arrays.
[[nodiscard]] Index planBytes(const Plan& plan);
/// The plan without its orders, masks, intervals and labels: what it says about the head in numbers.
[[nodiscard]] Plan withoutArrays(const Plan& plan);
/// The dense plan: one block, everything kept.
[[nodiscard]] Plan densePlan(Index queryCount, Index keyCount);

struct EvaluateOptions {
  Index rows = -1;  ///< -1: all up to 8,192 tokens, 1,024 above; 0: all; n: n rows evenly spaced over the valid
  bool includePadding = false;
  bool perRow = false;  ///< fill the per-row arrays
};
/// The numbers of section "Numbers" of the CLI contract. kept_fraction is element-exact over all valid pairs.
struct Evaluation {
  double keptFraction = 0, blocksKeptFraction = 0;
  double keptMass = 0, keptMassP5 = 0;
  std::optional<double> keptMassCi95;                                      ///< half width; only when rows were sampled
  std::optional<double> outputRelError, outputCosine, outputRelErrorCi95;  ///< nullopt without V
  Index starvedRows = 0;
  Index evaluatedRows = 0, totalRows = 0;
  double attentionFlops = 0;
  double evaluateMs = 0;
  std::string backend;
  std::vector<std::string> fallbacks, warnings;
  std::vector<Index> rows;                        ///< perRow: stored query rows evaluated
  std::vector<float> rowMass, rowError, rowKept;  ///< perRow: mass, relative output error, kept keys / valid keys
};
/// Element counts over all valid pairs of a head (never over samples): what kept_fraction is made of.
struct PairCounts {
  double kept = 0, all = 0;            ///< query-key pairs
  double blockKept = 0, blockAll = 0;  ///< token area of blocks not skipped / of all blocks
  Index starvedRows = 0;               ///< valid rows without a kept valid key
};
/// Needs the validity flags and sizes of `in`, not its tensors. Linear in rows and intervals (with a dense mask: in
/// pairs).
[[nodiscard]] PairCounts countPairs(const Plan& plan, const AttentionIn& in, const Control& control);
/// Rows of `valid` to evaluate: all, or `wanted` evenly spaced ones.
[[nodiscard]] std::vector<Index> evaluationRows(const std::vector<Index>& valid, Index tokenCount, Index wanted);
[[nodiscard]] Evaluation evaluatePlan(const Plan& plan, const HeadData& head, const EvaluateOptions& options,
                                      Backend& backend, const Control& control);
/// The same with a head already prepared in model order under the same padding rule (effectiveInput), so that it is not
/// packed or uploaded again.
[[nodiscard]] Evaluation evaluatePlan(const Plan& plan, const HeadData& head, const PreparedHead& prepared,
                                      const EvaluateOptions& options, Backend& backend, const Control& control);
/// `head` with its keys and values (validity and dense mask too) in the order of `kOrder` (empty: model order),
/// prepared; query rows stay in stored order. Where a prepared head is at hand, Backend::permuteKeys saves the copies.
[[nodiscard]] std::shared_ptr<const PreparedHead> prepareInKeyOrder(const HeadData& head, bool includePadding,
                                                                    std::span<const Index> kOrder, Backend& backend,
                                                                    const Control& control);

/// Plan with everything kept or skipped at a token pair; `row` is a stored query row, `key` a key token. rowCount plans
/// need the row's probabilities: then nullopt.
[[nodiscard]] std::optional<bool> isKept(const Plan& plan, Index row, Index key);

}  // namespace sparsight

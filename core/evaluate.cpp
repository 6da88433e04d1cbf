// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "plan_ranges.h"
#include "sparsight/core/method.h"
#include "sparsight/core/plan.h"

namespace sparsight {
namespace {

// Bounds the memory of two float outputs per row and gives progress and cancelling a rhythm.
constexpr Index kRowsPerChunk = 2048;
constexpr Index kDefaultAllRows = 8192;
constexpr Index kDefaultSampledRows = 1024;

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

[[nodiscard]] std::vector<Index> inverse(const std::vector<Index>& order, Index count) {
  std::vector<Index> positions(at(count));
  for (Index i = 0; i < count; ++i) positions[at(order.empty() ? i : order[at(i)])] = i;
  return positions;
}

[[nodiscard]] bool rowIsValid(const AttentionIn& in, Index row) {
  return in.queryValid.empty() || in.queryValid[at(row)] != 0;
}

[[nodiscard]] std::vector<Index> validPrefix(Index count, const std::vector<Index>& order,
                                             std::span<const std::uint8_t> valid) {
  std::vector<Index> prefix(at(count) + 1, 0);
  for (Index i = 0; i < count; ++i) {
    const Index token = order.empty() ? i : order[at(i)];
    prefix[at(i + 1)] = prefix[at(i)] + (valid.empty() || valid[at(token)] != 0 ? 1 : 0);
  }
  return prefix;
}

void countBlocks(const Plan& plan, const std::vector<Index>& rowPrefix, const std::vector<Index>& keyPrefix,
                 PairCounts& counts) {
  for (Index i = 0; i < plan.qBlocks(); ++i) {
    const Index rows = rowPrefix[at(plan.qBounds[at(i + 1)])] - rowPrefix[at(plan.qBounds[at(i)])];
    if (rows == 0) continue;
    Index keys = 0;
    for (Index j = 0; j < plan.kBlocks(); ++j) {
      if (plan.blockMask[at(i) * at(plan.kBlocks()) + at(j)] == 0) continue;
      keys += keyPrefix[at(plan.kBounds[at(j + 1)])] - keyPrefix[at(plan.kBounds[at(j)])];
    }
    counts.blockKept += static_cast<double>(rows) * static_cast<double>(keys);
  }
  counts.blockAll = static_cast<double>(rowPrefix.back()) * static_cast<double>(keyPrefix.back());
}

// Half width of the 95 % interval of a mean over n of total rows, with the finite-population correction.
[[nodiscard]] double halfWidth95(double variance, Index n, Index total) {
  const double count = static_cast<double>(n);
  const double correction = 1.0 - count / static_cast<double>(total);
  return 1.96 * std::sqrt(std::max(0.0, variance) / count * std::max(0.0, correction));
}

[[nodiscard]] double variance(const std::vector<double>& values, double mean) {
  if (values.size() < 2) return 0;
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return sum / static_cast<double>(values.size() - 1);
}

// Linear interpolation between order statistics, as numpy.percentile does by default.
[[nodiscard]] double percentile(std::vector<double> values, double fraction) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const double position = fraction * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(position);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (position - static_cast<double>(low)) * (values[high] - values[low]);
}

[[nodiscard]] Evaluation evaluate(const Plan& plan, const HeadData& head, const PreparedHead* prepared,
                                  const EvaluateOptions& options, Backend& backend, const Control& control) {
  const auto started = std::chrono::steady_clock::now();
  const AttentionIn in = effectiveInput(head, options.includePadding);
  if (plan.queryCount != in.q.rows || plan.keyCount != in.k.rows) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("plan: made for {} queries and {} keys, but the head has {} and {}", plan.queryCount,
                            plan.keyCount, in.q.rows, in.k.rows));
  }
  Evaluation evaluation;
  evaluation.backend = backend.info().id;
  const PairCounts counts = countPairs(plan, in, control);
  evaluation.keptFraction = counts.all > 0 ? counts.kept / counts.all : 0;
  evaluation.blocksKeptFraction = counts.blockAll > 0 ? counts.blockKept / counts.blockAll : 0;
  evaluation.starvedRows = counts.starvedRows;
  evaluation.attentionFlops = 2.0 * counts.kept * static_cast<double>(in.q.cols + (in.v.empty() ? 0 : in.v.cols));

  std::vector<Index> valid;
  for (Index row = 0; row < in.q.rows; ++row) {
    if (rowIsValid(in, row)) valid.push_back(row);
  }
  const std::vector<Index> rows = evaluationRows(valid, in.k.rows, options.rows);
  evaluation.evaluatedRows = static_cast<Index>(rows.size());
  evaluation.totalRows = static_cast<Index>(valid.size());
  const bool sampled = rows.size() < valid.size();

  std::shared_ptr<const PreparedHead> own;
  if (prepared == nullptr) {
    own = backend.prepare(in, head.keepAlive, control);
    prepared = own.get();
  }
  std::shared_ptr<const PreparedHead> ordered;
  const bool byCount = !plan.rowCount.empty();
  if (!byCount && !plan.kOrder.empty()) {
    ordered = backend.permuteKeys(*prepared, {plan.kOrder}, control);
  }
  std::optional<KeptRanges> ranges;
  if (!byCount) ranges.emplace(plan);
  const std::vector<Index> positions = inverse(plan.qOrder, plan.queryCount);
  const bool hasV = !in.v.empty();
  const Index width = hasV ? in.v.cols : 0;
  if (!hasV) evaluation.warnings.emplace_back("values (V) were not captured: no output error can be given");

  std::vector<double> masses, errorSquares, denseSquares;
  double cosineSum = 0;
  Index cosineRows = 0;
  const Index rowCount = static_cast<Index>(rows.size());
  for (Index first = 0; first < rowCount; first += kRowsPerChunk) {
    control.checkpoint();
    const std::span<const Index> chunk =
        std::span<const Index>(rows).subspan(at(first), at(std::min(kRowsPerChunk, rowCount - first)));
    const Control inner{control.stop, {}};
    const AttendResult dense = backend.attend(*prepared, chunk, {}, inner);
    AttendResult sparse;
    if (byCount) {
      std::vector<Index> wanted;
      for (const Index row : chunk) wanted.push_back(plan.rowCount[at(row)]);
      sparse = backend.attendTop(*prepared, chunk, wanted, inner);
    } else {
      std::vector<Index> group;
      for (const Index row : chunk) group.push_back(ranges->groupOf(positions[at(row)]));
      sparse = backend.attend(ordered ? *ordered : *prepared, chunk, RowKeep{ranges->ptr(), ranges->intervals(), group},
                              inner);
    }
    for (std::size_t i = 0; i < chunk.size(); ++i) {
      const double denseLse = static_cast<double>(dense.lse[i]);
      double mass = 0;
      const bool hasKeys = dense.count[i] > 0;
      if (sparse.count[i] == dense.count[i] && hasKeys) {
        mass = 1;  // exactly, whatever two summation orders round to
      } else if (sparse.count[i] > 0) {
        mass = std::min(1.0, std::exp(static_cast<double>(sparse.lse[i]) - denseLse));
      }
      double error = 0, square = 0, sparseSquare = 0, dot = 0;
      for (Index c = 0; c < width; ++c) {
        const double o = static_cast<double>(dense.out[i * at(width) + at(c)]);
        const double s = static_cast<double>(sparse.out[i * at(width) + at(c)]);
        error += (s - o) * (s - o);
        square += o * o;
        sparseSquare += s * s;
        dot += s * o;
      }
      if (hasKeys) masses.push_back(mass);
      errorSquares.push_back(error);
      denseSquares.push_back(square);
      if (hasV && square > 0) {
        cosineSum += sparseSquare > 0 ? dot / std::sqrt(square * sparseSquare) : 0.0;
        ++cosineRows;
      }
      if (options.perRow) {
        evaluation.rows.push_back(chunk[i]);
        evaluation.rowMass.push_back(static_cast<float>(mass));
        evaluation.rowError.push_back(hasV && square > 0 ? static_cast<float>(std::sqrt(error / square))
                                                         : std::numeric_limits<float>::quiet_NaN());
        evaluation.rowKept.push_back(
            hasKeys ? static_cast<float>(static_cast<double>(sparse.count[i]) / static_cast<double>(dense.count[i]))
                    : 0);
      }
    }
    control.report(static_cast<double>(first + static_cast<Index>(chunk.size())) / static_cast<double>(rowCount));
  }

  if (!masses.empty()) {
    double sum = 0;
    for (const double mass : masses) sum += mass;
    evaluation.keptMass = sum / static_cast<double>(masses.size());
    evaluation.keptMassP5 = percentile(masses, 0.05);
    if (sampled) {
      evaluation.keptMassCi95 =
          halfWidth95(variance(masses, evaluation.keptMass), evaluation.evaluatedRows, evaluation.totalRows);
    }
  }
  if (hasV && rowCount > 0) {
    double errorSum = 0, denseSum = 0;
    for (const double value : errorSquares) errorSum += value;
    for (const double value : denseSquares) denseSum += value;
    if (denseSum > 0) {
      const double ratio = errorSum / denseSum;
      evaluation.outputRelError = std::sqrt(ratio);
      if (sampled) {
        // Ratio estimator: the residuals e_i = error_i - ratio * dense_i give its variance; the square root by the
        // delta method.
        std::vector<double> residuals(errorSquares.size());
        for (std::size_t i = 0; i < residuals.size(); ++i) residuals[i] = errorSquares[i] - ratio * denseSquares[i];
        const double meanDense = denseSum / static_cast<double>(rowCount);
        const double half =
            halfWidth95(variance(residuals, 0), evaluation.evaluatedRows, evaluation.totalRows) / meanDense;
        evaluation.outputRelErrorCi95 = ratio > 0 ? half / (2.0 * std::sqrt(ratio)) : 0.0;
      }
    }
    if (cosineRows > 0) evaluation.outputCosine = cosineSum / static_cast<double>(cosineRows);
  }
  evaluation.fallbacks = backend.takeFallbacks();
  evaluation.evaluateMs = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - started).count();
  return evaluation;
}

}  // namespace

PairCounts countPairs(const Plan& plan, const AttentionIn& in, const Control& control) {
  PairCounts counts;
  const std::vector<Index> rowPrefix = validPrefix(plan.queryCount, plan.qOrder, in.queryValid);
  const std::vector<Index> keyPrefix = validPrefix(plan.keyCount, plan.kOrder, in.keyValid);
  countBlocks(plan, rowPrefix, keyPrefix, counts);
  const Index validKeys = keyPrefix.back();

  // A dense mask has no structure to exploit; it is itself N x N, so looking at its pairs costs no more than reading
  // it.
  const auto maskedRow = [&](Index row, Index column) {
    return in.denseMask[at(row) * at(plan.keyCount) + at(plan.kOrder.empty() ? column : plan.kOrder[at(column)])] != 0;
  };
  const auto validInRow = [&](Index row, Index first, Index last) {
    Index count = 0;
    for (Index column = first; column < last; ++column) {
      if (keyPrefix[at(column + 1)] != keyPrefix[at(column)] && maskedRow(row, column)) ++count;
    }
    return count;
  };

  if (!plan.rowCount.empty()) {
    for (Index row = 0; row < plan.queryCount; ++row) {
      if (row % kRowsPerChunk == 0) control.checkpoint();
      if (!rowIsValid(in, row)) continue;
      const Index available = in.denseMask.empty() ? validKeys : validInRow(row, 0, plan.keyCount);
      const Index kept = std::min(plan.rowCount[at(row)], available);
      counts.kept += static_cast<double>(kept);
      counts.all += static_cast<double>(available);
      if (kept == 0) ++counts.starvedRows;
    }
    return counts;
  }

  const KeptRanges ranges(plan);
  for (Index group = 0; group < ranges.groups(); ++group) {
    if (group % kRowsPerChunk == 0) control.checkpoint();
    const Index row0 = ranges.edges()[at(group)];
    const Index row1 = ranges.edges()[at(group + 1)];
    const Index rows = rowPrefix[at(row1)] - rowPrefix[at(row0)];
    if (rows == 0) continue;
    const auto intervals = ranges.intervals().subspan(at(ranges.ptr()[at(group)]),
                                                      at(ranges.ptr()[at(group + 1)] - ranges.ptr()[at(group)]));
    if (in.denseMask.empty()) {
      Index keys = 0;
      for (const Interval& interval : intervals) keys += keyPrefix[at(interval.last)] - keyPrefix[at(interval.first)];
      counts.kept += static_cast<double>(rows) * static_cast<double>(keys);
      counts.all += static_cast<double>(rows) * static_cast<double>(validKeys);
      if (keys == 0) counts.starvedRows += rows;
      continue;
    }
    for (Index position = row0; position < row1; ++position) {
      control.checkpoint();
      const Index row = plan.qOrder.empty() ? position : plan.qOrder[at(position)];
      if (!rowIsValid(in, row)) continue;
      Index keys = 0;
      for (const Interval& interval : intervals) keys += validInRow(row, interval.first, interval.last);
      counts.kept += static_cast<double>(keys);
      counts.all += static_cast<double>(validInRow(row, 0, plan.keyCount));
      if (keys == 0) ++counts.starvedRows;
    }
  }
  return counts;
}

std::vector<Index> evaluationRows(const std::vector<Index>& valid, Index tokenCount, Index wanted) {
  const Index count = static_cast<Index>(valid.size());
  if (wanted < 0) wanted = tokenCount <= kDefaultAllRows ? 0 : kDefaultSampledRows;
  if (wanted == 0 || wanted >= count) return valid;
  // The middle of each of `wanted` equal strata: evenly spaced, and neither end is favoured.
  std::vector<Index> rows(at(wanted));
  for (Index i = 0; i < wanted; ++i) rows[at(i)] = valid[at(((2 * i + 1) * count) / (2 * wanted))];
  return rows;
}

std::shared_ptr<const PreparedHead> prepareInKeyOrder(const HeadData& head, bool includePadding,
                                                      std::span<const Index> kOrder, Backend& backend,
                                                      const Control& control) {
  auto prepared = backend.prepare(effectiveInput(head, includePadding), head.keepAlive, control);
  return kOrder.empty() ? prepared : backend.permuteKeys(*prepared, {kOrder}, control);
}

Evaluation evaluatePlan(const Plan& plan, const HeadData& head, const EvaluateOptions& options, Backend& backend,
                        const Control& control) {
  return evaluate(plan, head, nullptr, options, backend, control);
}

Evaluation evaluatePlan(const Plan& plan, const HeadData& head, const PreparedHead& prepared,
                        const EvaluateOptions& options, Backend& backend, const Control& control) {
  return evaluate(plan, head, &prepared, options, backend, control);
}

}  // namespace sparsight

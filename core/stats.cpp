// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "sparsight/core/run.h"

namespace sparsight {
namespace {

constexpr std::size_t kRowsPerChunk = 2048;

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

// Mean mass on given key ranges, by exp(lse over them - lse over all).
class MassMean {
 public:
  void add(double keptLse, double fullLse, bool hasKeys) {
    if (!std::isfinite(fullLse)) return;
    m_sum += hasKeys ? std::min(1.0, std::exp(keptLse - fullLse)) : 0.0;
    ++m_rows;
  }
  [[nodiscard]] std::optional<double> mean() const {
    return m_rows > 0 ? std::optional<double>(m_sum / static_cast<double>(m_rows)) : std::nullopt;
  }

 private:
  double m_sum = 0;
  Index m_rows = 0;
};

// attend() over groups of ranges for listed rows, in chunks; returns the LSE of each row.
struct RangeLse {
  std::vector<float> lse;
  std::vector<Index> count;
};
[[nodiscard]] RangeLse lseOver(const PreparedHead& prepared, std::span<const Index> rows,
                               const std::vector<std::vector<Interval>>& groups, std::span<const Index> groupOf,
                               Backend& backend, const Control& control) {
  std::vector<Index> ptr{0};
  std::vector<Interval> intervals;
  for (const auto& group : groups) {
    intervals.insert(intervals.end(), group.begin(), group.end());
    ptr.push_back(static_cast<Index>(intervals.size()));
  }
  RangeLse result;
  for (std::size_t first = 0; first < rows.size(); first += kRowsPerChunk) {
    control.checkpoint();
    const std::size_t n = std::min(kRowsPerChunk, rows.size() - first);
    const AttendResult part =
        backend.attend(prepared, rows.subspan(first, n), RowKeep{ptr, intervals, groupOf.subspan(first, n)},
                       Control{control.stop, {}});
    result.lse.insert(result.lse.end(), part.lse.begin(), part.lse.end());
    result.count.insert(result.count.end(), part.count.begin(), part.count.end());
  }
  return result;
}

[[nodiscard]] std::optional<double> meanMass(const PreparedHead& prepared, std::span<const Index> rows,
                                             std::span<const float> fullLse,
                                             const std::vector<std::vector<Interval>>& groups,
                                             std::span<const Index> groupOf, Backend& backend, const Control& control) {
  const RangeLse part = lseOver(prepared, rows, groups, groupOf, backend, control);
  MassMean mass;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    mass.add(static_cast<double>(part.lse[i]), static_cast<double>(fullLse[i]), part.count[i] > 0);
  }
  return mass.mean();
}

[[nodiscard]] Index validKeysOf(const AttentionIn& in, Index row, Index unmasked) {
  if (in.denseMask.empty()) return unmasked;
  Index keys = 0;
  for (Index key = 0; key < in.k.rows; ++key) {
    keys += (in.keyValid.empty() || in.keyValid[at(key)] != 0) && in.denseMask[at(row) * at(in.k.rows) + at(key)] != 0;
  }
  return keys;
}

[[nodiscard]] Index unmaskedKeys(const AttentionIn& in) {
  if (in.keyValid.empty()) return in.k.rows;
  return static_cast<Index>(
      std::count_if(in.keyValid.begin(), in.keyValid.end(), [](std::uint8_t valid) { return valid != 0; }));
}

[[nodiscard]] RowStats statsOf(const PreparedHead& prepared, std::span<const Index> rows, double mass, Backend& backend,
                               const Control& control) {
  RowStats all;
  for (std::size_t first = 0; first < rows.size(); first += kRowsPerChunk) {
    control.checkpoint();
    const std::size_t n = std::min(kRowsPerChunk, rows.size() - first);
    const RowStats part = backend.rowStats(prepared, rows.subspan(first, n), mass, Control{control.stop, {}});
    all.lse.insert(all.lse.end(), part.lse.begin(), part.lse.end());
    all.entropyBits.insert(all.entropyBits.end(), part.entropyBits.begin(), part.entropyBits.end());
    all.top1.insert(all.top1.end(), part.top1.begin(), part.top1.end());
    all.keysForMass.insert(all.keysForMass.end(), part.keysForMass.begin(), part.keysForMass.end());
    control.report(static_cast<double>(first + n) / static_cast<double>(rows.size()));
  }
  return all;
}

[[nodiscard]] std::vector<Index> validRowsOf(const AttentionIn& in) {
  std::vector<Index> rows;
  for (Index row = 0; row < in.q.rows; ++row) {
    if (in.queryValid.empty() || in.queryValid[at(row)] != 0) rows.push_back(row);
  }
  return rows;
}

// torch.linspace(0, count - 1, n) in float32, rounded half to even, consecutive duplicates dropped (exact.py).
[[nodiscard]] std::vector<Index> roundedLinspace(Index count, Index n) {
  if (n <= 0 || n >= count) {
    std::vector<Index> all(at(count));
    for (Index i = 0; i < count; ++i) all[at(i)] = i;
    return all;
  }
  if (n == 1) return {count / 2};
  const float end = static_cast<float>(count - 1);
  const float step = end / static_cast<float>(n - 1);
  std::vector<Index> positions;
  for (Index i = 0; i < n; ++i) {
    const float value = i < n / 2 ? step * static_cast<float>(i) : end - step * static_cast<float>(n - 1 - i);
    const auto position = static_cast<Index>(std::nearbyint(value));
    if (positions.empty() || positions.back() != position) positions.push_back(position);
  }
  return positions;
}

}  // namespace

HeadStats computeStats(const HeadData& head, const PreparedHead& prepared, const StatsOptions& options,
                       Backend& backend, const Control& control) {
  const AttentionIn& in = prepared.input();
  const std::vector<Index> valid = validRowsOf(in);
  const std::vector<Index> rows = evaluationRows(valid, in.k.rows, options.evaluate.rows);
  HeadStats stats;
  stats.id = head.id;
  stats.evaluatedRows = static_cast<Index>(rows.size());
  stats.totalRows = static_cast<Index>(valid.size());
  if (rows.empty()) return stats;

  const RowStats numbers = statsOf(prepared, rows, options.mass, backend, control);
  const Index unmasked = unmaskedKeys(in);
  double density = 0, densitySquares = 0;
  Index counted = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!std::isfinite(numbers.lse[i])) continue;  // no valid key at all
    stats.lseMean += static_cast<double>(numbers.lse[i]);
    stats.entropyBits += static_cast<double>(numbers.entropyBits[i]);
    stats.top1Mass += static_cast<double>(numbers.top1[i]);
    const double share = static_cast<double>(numbers.keysForMass[i]) /
                         static_cast<double>(std::max<Index>(1, validKeysOf(in, rows[i], unmasked)));
    density += share;
    densitySquares += share * share;
    ++counted;
  }
  if (counted > 0) {
    const double n = static_cast<double>(counted);
    stats.lseMean /= n;
    stats.entropyBits /= n;
    stats.top1Mass /= n;
    stats.exactDensity = density / n;
    if (rows.size() < valid.size() && counted > 1) {
      const double variance = std::max(0.0, (densitySquares - n * stats.exactDensity * stats.exactDensity) / (n - 1.0));
      stats.exactDensityCi95 = 1.96 * std::sqrt(variance / n * (1.0 - n / static_cast<double>(valid.size())));
    }
  }

  // Query rows and keys share the token numbers only in self-attention over the captured layout.
  const TokenLayout& layout = head.layout;
  const bool selfAttention = in.k.rows == layout.tokenCount;
  const Segment* video = selfAttention ? layout.video() : nullptr;
  std::vector<Index> same(rows.size(), 0);
  if (selfAttention) {
    std::vector<Interval> text;
    for (const Segment& segment : layout.segments) {
      if (segment.kind == SegmentKind::Text && segment.length > 0) {
        text.push_back({segment.start, segment.start + segment.length});
      }
    }
    if (!text.empty()) stats.textMass = meanMass(prepared, rows, numbers.lse, {text}, same, backend, control);
  }
  if (video == nullptr) return stats;
  const Index frameSize = Index{video->height} * Index{video->width};
  const Index frames = video->frames;
  stats.sinkMass =
      meanMass(prepared, rows, numbers.lse, {{{video->start, video->start + frameSize}}}, same, backend, control);

  std::vector<Index> videoRows, ownFrame, ownPlace;
  std::vector<float> videoLse;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Index token = head.queryToken(rows[i]) - video->start;
    if (token < 0 || token >= video->length) continue;
    videoRows.push_back(rows[i]);
    videoLse.push_back(numbers.lse[i]);
    ownFrame.push_back(token / frameSize);
    // Group of (place, frame): all frames of the place but its own.
    ownPlace.push_back((token % frameSize) * frames + token / frameSize);
  }
  if (videoRows.empty()) return stats;
  std::vector<std::vector<Interval>> byFrame;
  for (Index f = 0; f < frames; ++f) {
    byFrame.push_back({{video->start + f * frameSize, video->start + (f + 1) * frameSize}});
  }
  stats.frameLocality = meanMass(prepared, videoRows, videoLse, byFrame, ownFrame, backend, control);

  // In token-major order the other frames of a place are at most two ranges.
  std::vector<Index> order(at(in.k.rows));
  for (Index i = 0; i < in.k.rows; ++i) order[at(i)] = i;
  for (Index i = 0; i < video->length; ++i) {
    order[at(video->start + i)] = video->start + (i % frames) * frameSize + i / frames;
  }
  const auto tokenMajor = backend.permuteKeys(prepared, {order, false}, control);
  std::vector<std::vector<Interval>> otherFrames(at(video->length));
  for (const Index group : ownPlace) {
    auto& intervals = otherFrames[at(group)];
    if (!intervals.empty()) continue;
    const Index own = video->start + group;
    const Index first = video->start + (group / frames) * frames;
    if (first < own) intervals.push_back({first, own});
    if (own + 1 < first + frames) intervals.push_back({own + 1, first + frames});
  }
  stats.temporalLocality = meanMass(*tokenMajor, videoRows, videoLse, otherFrames, ownPlace, backend, control);
  return stats;
}

double exactDensity(const HeadData& head, const PreparedHead& prepared, double mass, Index rows, bool includePadding,
                    Backend& backend, const Control& control) {
  std::shared_ptr<const PreparedHead> own;
  const AttentionIn wanted = effectiveInput(head, includePadding);
  const PreparedHead* used = &prepared;
  if (prepared.input().keyValid.size() != wanted.keyValid.size()) {
    own = backend.prepare(wanted, head.keepAlive, control);
    used = own.get();
  }
  const AttentionIn& in = used->input();
  const std::vector<Index> valid = validRowsOf(in);
  const Index count = static_cast<Index>(valid.size());
  if (count == 0) return 0;
  // The default rule decides how many rows, exact.py which ones.
  const Index asked = rows < 0 ? static_cast<Index>(evaluationRows(valid, in.k.rows, -1).size()) : rows;
  std::vector<Index> sampled;
  for (const Index position : roundedLinspace(count, asked)) sampled.push_back(valid[at(position)]);
  const RowStats numbers = statsOf(*used, sampled, mass, backend, control);
  const Index unmasked = unmaskedKeys(in);
  double sum = 0;
  for (std::size_t i = 0; i < sampled.size(); ++i) {
    sum += static_cast<double>(numbers.keysForMass[i]) /
           static_cast<double>(std::max<Index>(1, validKeysOf(in, sampled[i], unmasked)));
  }
  return sum / static_cast<double>(sampled.size());
}

}  // namespace sparsight

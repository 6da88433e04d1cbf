// SPDX-License-Identifier: Apache-2.0
// Sparse VideoGen (arXiv 2502.01776; svg-project/Sparse-VideoGen): every head is profiled on a few sampled query rows
// against a spatial and a temporal mask; the better one decides the token order, one band serves both.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "sampling.h"
#include "sparsight/core/method.h"
#include "svg_rules.h"

namespace sparsight {
namespace {

constexpr Index kBlock = 128;

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

// Kept ranges of rows in order; equal neighbours share a group.
class IntervalBuilder {
 public:
  void add(const std::vector<Interval>& kept) {
    if (m_rows > 0 && kept == m_last) {
      m_edges.back() = ++m_rows;
      return;
    }
    m_intervals.insert(m_intervals.end(), kept.begin(), kept.end());
    m_ptr.push_back(static_cast<Index>(m_intervals.size()));
    m_edges.push_back(++m_rows);
    m_last = kept;
  }
  void moveInto(Plan& plan) && {
    plan.intervalRows = std::move(m_edges);
    plan.rowIntervalsPtr = std::move(m_ptr);
    plan.rowIntervals = std::move(m_intervals);
  }

 private:
  Index m_rows = 0;
  std::vector<Index> m_edges{0}, m_ptr{0};
  std::vector<Interval> m_intervals, m_last;
};

// The sampled query rows: distinct stored rows with how often each was drawn.
struct Sample {
  std::vector<Index> rows;
  std::vector<Index> positions;  // in the frame-major layout of the rules
  std::vector<double> times;
  Index drawn = 0;
};

[[nodiscard]] std::vector<Index> inverseOf(const std::vector<Index>& order, Index count) {
  std::vector<Index> positions(at(count));
  for (Index i = 0; i < count; ++i) positions[at(order.empty() ? i : order[at(i)])] = i;
  return positions;
}

[[nodiscard]] Sample sampleRows(const MethodInput& input, const SvgGeometry& geometry,
                                const std::vector<Index>& frameMajor) {
  const HeadData& head = input.head;
  // Positions that can be drawn are those whose query row was captured.
  std::map<Index, Index> rowOfPosition;
  const std::vector<Index> positionOfToken = inverseOf(frameMajor, geometry.tokens);
  for (Index row = 0; row < head.input.q.rows; ++row) {
    rowOfPosition.emplace(positionOfToken[at(head.queryToken(row))], row);
  }
  const Index range = std::min(input.params.integer("sample_mse_max_row"), geometry.tokens);

  std::vector<Index> drawn;
  if (input.draws != nullptr && !input.draws->sampledRows.empty()) {
    drawn = input.draws->sampledRows;
    for (const Index position : drawn) {
      if (position < 0 || position >= geometry.tokens) {
        throw Error(ErrorCode::InvalidArgument,
                    fmt::format("draws: sampled_rows holds {}, but the call has {} tokens", position, geometry.tokens));
      }
      if (rowOfPosition.find(position) == rowOfPosition.end()) {
        throw Error(ErrorCode::Unsupported,
                    fmt::format("svg: the given sampled row {} is not among the {} captured query rows", position,
                                head.input.q.rows));
      }
    }
  } else {
    std::vector<Index> candidates;
    for (const auto& [position, row] : rowOfPosition) {
      if (position < range) candidates.push_back(position);
    }
    if (candidates.empty()) {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("svg: no query row below token {} (sample_mse_max_row) was captured", range));
    }
    SeededRandom random(callSeed(input.seed, head.id.call));
    const Index wanted = std::min(input.params.integer("num_sampled_rows"), geometry.tokens);
    for (Index i = 0; i < wanted; ++i) {
      drawn.push_back(candidates[at(random.below(static_cast<Index>(candidates.size())))]);
    }
  }
  std::map<Index, Index> times;
  for (const Index position : drawn) ++times[position];
  Sample sample;
  sample.drawn = static_cast<Index>(drawn.size());
  for (const auto& [position, count] : times) {
    sample.rows.push_back(rowOfPosition.at(position));
    sample.positions.push_back(position);
    sample.times.push_back(static_cast<double>(count));
  }
  return sample;
}

// Mean squared difference over drawn rows and channels. A row that keeps nothing has an undefined softmax: NaN, as in
// the reference, where it then wins the argmin.
[[nodiscard]] double meanSquaredError(const AttendResult& kept, const AttendResult& full, const Sample& sample,
                                      Index width) {
  double sum = 0;
  for (std::size_t i = 0; i < sample.rows.size(); ++i) {
    if (kept.count[i] == 0) return std::numeric_limits<double>::quiet_NaN();
    double row = 0;
    for (Index c = 0; c < width; ++c) {
      const std::size_t n = i * at(width) + at(c);
      const double difference = static_cast<double>(kept.out[n]) - static_cast<double>(full.out[n]);
      row += difference * difference;
    }
    sum += sample.times[i] * row;
  }
  return sum / (static_cast<double>(sample.drawn) * static_cast<double>(width));
}

struct Losses {
  double spatial = 0, temporal = 0;
  Index drawn = 0;
};

[[nodiscard]] Losses profile(const MethodInput& input, const SvgGeometry& geometry, Backend& backend,
                             const Control& control) {
  const HeadData& head = input.head;
  if (head.input.v.empty()) {
    throw Error(ErrorCode::Unsupported,
                "svg: profiling compares attention outputs, but values (V) were not captured; capture V or set "
                "force_class");
  }
  const std::vector<Index> frameMajor = svgOrder(geometry, false);
  const std::vector<Index> tokenMajor = svgOrder(geometry, true);
  const Sample sample = sampleRows(input, geometry, frameMajor);

  // Only the sampled queries travel. Padding keys take part in profiling (both implementations attend to them), so the
  // validity flags are dropped here.
  HeadData rows = head;
  const OwnedMatrix queries = gatherRows(head.input.q, sample.rows);
  rows.input.q = queries.view;
  rows.input.queryValid = {};
  std::vector<std::uint8_t> maskRows;
  if (!head.input.denseMask.empty()) {
    for (const Index row : sample.rows) {
      const auto first = head.input.denseMask.begin() + row * geometry.tokens;
      maskRows.insert(maskRows.end(), first, first + geometry.tokens);
    }
    rows.input.denseMask = maskRows;
  }
  std::vector<Index> all(sample.rows.size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<Index>(i);

  const auto attendMasked = [&](const PreparedHead& prepared, bool temporal) {
    const std::vector<Index> token = temporal ? inverseOf(tokenMajor, geometry.tokens) : std::vector<Index>{};
    std::vector<Index> ptr{0};
    std::vector<Interval> intervals;
    for (const Index position : sample.positions) {
      const Index own = temporal ? token[at(frameMajor.empty() ? position : frameMajor[at(position)])] : position;
      const std::vector<Interval> kept = svgProfileRow(geometry, temporal, own);
      intervals.insert(intervals.end(), kept.begin(), kept.end());
      ptr.push_back(static_cast<Index>(intervals.size()));
    }
    return backend.attend(prepared, all, RowKeep{ptr, intervals, {}}, control);
  };
  const Index width = head.input.v.cols;
  Losses losses;
  losses.drawn = sample.drawn;
  AttendResult full;
  {
    const auto prepared = frameMajor.empty() ? backend.prepare(effectiveInput(rows, true), head.keepAlive, control)
                                             : prepareInKeyOrder(rows, true, frameMajor, backend, control);
    full = backend.attend(*prepared, all, {}, control);
    losses.spatial = meanSquaredError(attendMasked(*prepared, false), full, sample, width);
  }
  // Token-major keys turn the temporal mask into ranges, too.
  const auto prepared = prepareInKeyOrder(rows, true, tokenMajor, backend, control);
  losses.temporal = meanSquaredError(attendMasked(*prepared, true), full, sample, width);
  return losses;
}

class SvgMethod final : public Method {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "svg"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SVG"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Sparse VideoGen: each head is spatial or temporal by a sampled test; temporal heads are reordered, one "
           "band "
           "serves both.";
  }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::optional<Knob> knob() const override { return Knob{"sparsity"}; }

  [[nodiscard]] std::map<std::string, std::string, std::less<>> defaultsFor(const TraceInfo& trace,
                                                                            const ParamSet& given) const override {
    auto defaults = Method::defaultsFor(trace, given);
    switch (resolveModelRule(given.text("model_rule"), trace.model.family, trace.layout)) {
      case ModelRule::Wan:
        // Cosmos shares Wan's mask, not its script.
        defaults["sparsity"] = isCosmosFamily(trace.model.family) ? "0.25" : "0.3";
        break;
      case ModelRule::Hunyuan:
        defaults["sparsity"] = "0.25";
        break;
      case ModelRule::CogVideoX:
        defaults["sparsity"] = "0.25";
        defaults["num_sampled_rows"] = "32";
        defaults["sample_mse_max_row"] = "1000000000";  // the script samples over all tokens
        break;
    }
    return defaults;
  }

  [[nodiscard]] Plan plan(const MethodInput& input, MethodState*, Backend& backend,
                          const Control& control) const override {
    const HeadData& head = input.head;
    const SvgGeometry geometry = svgGeometry(head, input.params);
    Plan plan;
    plan.methodId = "svg";
    plan.queryCount = head.input.q.rows;
    plan.keyCount = head.input.k.rows;

    const std::string forced = input.params.text("force_class");
    if (forced != "none") {
      plan.headClass = forced == "temporal" ? HeadClass::Temporal : HeadClass::Spatial;
    } else {
      classify(input, geometry, backend, control, plan);
    }
    const bool temporal = plan.headClass == HeadClass::Temporal;
    const double kept = input.params.real("sparsity", input.headIndex);
    const Index width = svgBandWidth(geometry, kept);
    plan.facts["band_tokens"] = static_cast<double>(width);
    plan.facts["band_frames"] = svgBandFrames(geometry, kept);
    if (width <= 0) {
      plan.warnings.push_back(fmt::format(
          "kept {:g} % leaves no band beside the text of this sequence (band {} tokens)", kept * 100.0, width));
    }
    layOut(geometry, temporal, width, head, control, plan);
    return plan;
  }

 private:
  static void classify(const MethodInput& input, const SvgGeometry& geometry, Backend& backend, const Control& control,
                       Plan& plan) {
    const Losses losses = profile(input, geometry, backend, control);
    const double a = losses.spatial;
    const double b = losses.temporal;
    // argmin with 0 winning ties and an undefined loss counting as smallest.
    const bool temporal = !std::isnan(a) && (std::isnan(b) || b < a);
    plan.headClass = temporal ? HeadClass::Temporal : HeadClass::Spatial;
    plan.mse = {static_cast<float>(a), static_cast<float>(b)};
    if (std::isnan(a) || std::isnan(b)) {
      plan.warnings.emplace_back(
          "a sampled row keeps nothing under a profiling mask: its loss is undefined and decides the class, as in the "
          "reference");
    } else {
      plan.margin = a + b > 0 ? std::abs(a - b) / (a + b) : 0.0;
    }
    plan.facts["sampled_rows"] = static_cast<double>(losses.drawn);
    // The method's own cost: scores of the sampled rows once, then three softmax-value products.
    const double pairs = static_cast<double>(losses.drawn) * static_cast<double>(geometry.tokens);
    plan.plannerFlops = pairs * (2.0 * static_cast<double>(input.head.input.q.cols) +
                                 6.0 * static_cast<double>(input.head.input.v.cols));
  }

  static void layOut(const SvgGeometry& geometry, bool temporal, Index width, const HeadData& head,
                     const Control& control, Plan& plan) {
    plan.kOrder = svgOrder(geometry, temporal);
    const std::vector<Index> positions = inverseOf(plan.kOrder, geometry.tokens);
    // One frame or one place: token-major is frame-major. In memory an identity is empty.
    if (std::is_sorted(plan.kOrder.begin(), plan.kOrder.end())) plan.kOrder.clear();
    std::vector<Index> rows(at(plan.queryCount));
    std::vector<Index> positionOfRow(at(plan.queryCount));
    bool identity = true;
    for (Index row = 0; row < plan.queryCount; ++row) {
      rows[at(row)] = row;
      positionOfRow[at(row)] = positions[at(head.queryToken(row))];
    }
    std::sort(rows.begin(), rows.end(), [&](Index a, Index b) { return positionOfRow[at(a)] < positionOfRow[at(b)]; });
    for (Index i = 0; i < plan.queryCount; ++i) identity = identity && rows[at(i)] == i;

    IntervalBuilder builder;
    for (Index i = 0; i < plan.queryCount; ++i) {
      if (i % 4096 == 0) control.checkpoint();
      builder.add(svgRuntimeRow(geometry, width, positionOfRow[at(rows[at(i)])]));
    }
    std::move(builder).moveInto(plan);

    // Blocks are the runtime's 128 x 128 of the whole sequence; with captured query subsets some have no row.
    const Index blocks = (geometry.tokens + kBlock - 1) / kBlock;
    for (Index b = 0; b <= blocks; ++b) plan.kBounds.push_back(std::min(b * kBlock, geometry.tokens));
    Index next = 0;
    for (const Index edge : plan.kBounds) {
      while (next < plan.queryCount && positionOfRow[at(rows[at(next)])] < edge) ++next;
      plan.qBounds.push_back(next);
    }
    if (!identity) plan.qOrder = std::move(rows);
    plan.deriveBlockMask();
  }

  std::vector<ParamSpec> m_params = withCommonParams({
      ParamSpec::real(
          "sparsity", "0.3", 0, 1, "fraction of query-key pairs kept",
          "Kept fraction that the band is sized for. Despite the published name a larger value keeps more; the kept "
          "fraction reached differs by rounding to 128 tokens and by the first-frame columns (wan).",
          "--sparsity, sparsity_to_width in svg/models/*/utils.py")
          .withAliases({"kept"}),
      ParamSpec::integer(
          "num_sampled_rows", "64", 1, 1e9, "rows",
          "Query rows drawn, uniformly with replacement, to compare the two profiling masks with full attention.",
          "--num_sampled_rows, sample_mse in svg/models/*/attention.py"),
      ParamSpec::integer(
          "sample_mse_max_row", "10000", 1, 1e9, "tokens",
          "Rows are drawn below this token (and below the number of tokens), so long videos are judged by their first "
          "frames.",
          "--sample_mse_max_row"),
      ParamSpec::choice("force_class", "none", {"none", "spatial", "temporal"},
                        "Skips profiling and takes this class for every head.",
                        "not in the reference: for what-if comparisons"),
  });
};

}  // namespace

const Method& svg_method() {
  static const SvgMethod method;
  return method;
}

}  // namespace sparsight

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
#include "sparsight/core/stages.h"
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

[[nodiscard]] Index modelToken(const std::vector<Index>& order, Index position) {
  return order.empty() ? position : order[at(position)];
}

void showSample(const MethodInput& input, const Sample& sample, const std::vector<Index>& frameMajor, Index tokens) {
  Stage stage;
  stage.chapter = "sampled rows";
  stage.title = fmt::format("A few query rows decide: {} of {}", sample.drawn, tokens);
  stage.text =
      "The whole head would cost as much as the attention that is to be saved, so a few rows stand for it. "
      "Their exact output is computed, and what it would be under either of two masks.";
  stage.source = "sample_mse in svg/models/*/attention.py; num_sampled_rows, sample_mse_max_row";
  stage.facts = {StageFact::count("rows drawn", sample.drawn),
                 StageFact::count("different rows", static_cast<Index>(sample.rows.size())),
                 StageFact::count("drawn from the first", std::min(input.params.integer("sample_mse_max_row"), tokens)),
                 StageFact::words("starts from", "nothing: each step is judged anew")};
  TokenPicture picture;
  picture.what = "sampled query rows";
  picture.values.assign(at(tokens), 0.0F);
  for (const Index position : sample.positions) picture.values[at(modelToken(frameMajor, position))] = 1.0F;
  stage.tokens.push_back(std::move(picture));
  (*input.stages)(std::move(stage));
}

// What one profiling mask keeps of the sampled rows, and what that costs.
void showMask(const MethodInput& input, const Sample& sample, const SvgGeometry& geometry,
              const std::vector<Index>& order, const std::vector<Index>& queries, bool temporal,
              const std::vector<Index>& ptr, const std::vector<Interval>& intervals, double loss) {
  Stage stage;
  stage.chapter = temporal ? "temporal mask" : "spatial mask";
  stage.title = temporal ? "What if the head looks at one place in all frames?"
                         : "What if the head looks around in its own frame?";
  stage.text = temporal ? "The temporal mask: a band in token-major order, where all frames of a place lie side by "
                          "side. On the video: what one of the sampled rows (marked) may look at."
                        : "The spatial mask: a band in frame-major order, which is the frames around the query's own. "
                          "On the video: what one of the sampled rows (marked) may look at.";
  stage.formula = "loss = mean |O_masked - O_dense|^2 over sampled rows and channels";
  stage.source = "get_attention_mask in svg/models/*/utils.py; bands of 128-token blocks, whatever the budget";
  BlockPicture blocks;
  blocks.what = temporal ? "kept share of 128 keys, token-major order" : "kept share of 128 keys, frame-major order";
  blocks.rowName = "sampled row";
  blocks.columnName = "key block";
  blocks.rows = static_cast<Index>(sample.rows.size());
  blocks.columns = (geometry.tokens + kBlock - 1) / kBlock;
  blocks.logScale = false;
  blocks.values.assign(at(blocks.rows * blocks.columns), 0.0F);
  double kept = 0;
  for (Index i = 0; i < blocks.rows; ++i) {
    for (Index n = ptr[at(i)]; n < ptr[at(i + 1)]; ++n) {
      const Interval& range = intervals[at(n)];
      kept += static_cast<double>(range.last - range.first) * sample.times[at(i)];
      for (Index b = range.first / kBlock; b * kBlock < range.last; ++b) {
        const Index first = std::max(range.first, b * kBlock);
        const Index end = std::min({range.last, (b + 1) * kBlock});
        const Index size = std::min(kBlock, geometry.tokens - b * kBlock);
        blocks.values[at(i * blocks.columns + b)] += static_cast<float>(end - first) / static_cast<float>(size);
      }
    }
  }
  stage.blocks = std::move(blocks);
  stage.facts = {StageFact::fraction("keys kept by a sampled row, mean",
                                     kept / (static_cast<double>(sample.drawn) * static_cast<double>(geometry.tokens))),
                 StageFact::real(temporal ? "temporal loss" : "spatial loss", loss)};
  // A row in the middle of the sample: neither at the video's border nor always the same.
  const std::size_t shown = sample.rows.size() / 2;
  TokenPicture picture;
  picture.what = "keys that the marked row keeps";
  picture.values.assign(at(geometry.tokens), 0.0F);
  for (Index n = ptr[shown]; n < ptr[shown + 1]; ++n) {
    for (Index c = intervals[at(n)].first; c < intervals[at(n)].last; ++c) {
      picture.values[at(modelToken(order, c))] = 1.0F;
    }
  }
  picture.marked = {queries[shown]};
  stage.tokens.push_back(std::move(picture));
  (*input.stages)(std::move(stage));
}

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
  std::vector<Index> sampledTokens;
  for (const Index position : sample.positions) sampledTokens.push_back(modelToken(frameMajor, position));
  if (input.stages != nullptr) showSample(input, sample, frameMajor, geometry.tokens);

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

  const Index width = head.input.v.cols;
  Losses losses;
  losses.drawn = sample.drawn;
  AttendResult full;
  const auto lossUnder = [&](const PreparedHead& prepared, bool temporal) {
    const std::vector<Index> token = temporal ? inverseOf(tokenMajor, geometry.tokens) : std::vector<Index>{};
    std::vector<Index> ptr{0};
    std::vector<Interval> intervals;
    for (const Index position : sample.positions) {
      const Index own = temporal ? token[at(modelToken(frameMajor, position))] : position;
      const std::vector<Interval> kept = svgProfileRow(geometry, temporal, own);
      intervals.insert(intervals.end(), kept.begin(), kept.end());
      ptr.push_back(static_cast<Index>(intervals.size()));
    }
    const AttendResult kept = backend.attend(prepared, all, RowKeep{ptr, intervals, {}}, control);
    const double loss = meanSquaredError(kept, full, sample, width);
    if (input.stages != nullptr) {
      showMask(input, sample, geometry, temporal ? tokenMajor : frameMajor, sampledTokens, temporal, ptr, intervals,
               loss);
    }
    return loss;
  };
  const auto stored = backend.prepare(effectiveInput(rows, true), head.keepAlive, control);
  {
    const auto prepared = frameMajor.empty() ? stored : backend.permuteKeys(*stored, {frameMajor}, control);
    full = backend.attend(*prepared, all, {}, control);
    losses.spatial = lossUnder(*prepared, false);
  }
  // Token-major keys turn the temporal mask into ranges, too.
  losses.temporal = lossUnder(*backend.permuteKeys(*stored, {tokenMajor}, control), true);
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
        if (given.text("variant") == "sparsevideo") break;  // its configuration has the declared defaults
        defaults["sparsity"] = "0.25";
        defaults["num_sampled_rows"] = "32";
        defaults["sample_mse_max_row"] = "1000000000";  // the script samples over all tokens
        break;
    }
    return defaults;
  }

  [[nodiscard]] bool hasStages() const noexcept override { return true; }
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
    if (input.stages != nullptr) {
      showDecision(input, plan, forced != "none");
      showBand(input, geometry, temporal, width, kept);
    }
    return plan;
  }

 private:
  static void showDecision(const MethodInput& input, const Plan& plan, bool forced) {
    const bool temporal = plan.headClass == HeadClass::Temporal;
    Stage stage;
    stage.chapter = "decision";
    stage.title = fmt::format("This head is {}", headClassName(plan.headClass));
    stage.source = "force_class";
    if (forced) {
      stage.text = fmt::format("The class was not measured: force_class says {}.", headClassName(plan.headClass));
      (*input.stages)(std::move(stage));
      return;
    }
    stage.text =
        "The mask with the smaller loss gives the class; spatial wins a tie. The margin says how sure that is: "
        "0 is a coin toss, 1 is certain.";
    stage.formula = "class = argmin(spatial loss a, temporal loss b),   margin = |a - b| / (a + b)";
    stage.source = "svg/models/*/attention.py";
    const auto loss = [&](std::size_t i) { return static_cast<double>((*plan.mse)[i]); };
    stage.facts = {StageFact::real("spatial loss", loss(0)), StageFact::real("temporal loss", loss(1)),
                   StageFact::words("class", std::string(headClassName(plan.headClass)))};
    if (plan.margin) stage.facts.push_back(StageFact::real("margin", *plan.margin));
    stage.bars = StageBars{"loss of either mask: the smaller one wins",
                           {{"spatial", loss(0), 0, !temporal}, {"temporal", loss(1), 0, temporal}},
                           std::nullopt,
                           {}};
    (*input.stages)(std::move(stage));
  }

  static void showBand(const MethodInput& input, const SvgGeometry& geometry, bool temporal, Index width, double kept) {
    Stage stage;
    stage.last = true;
    stage.chapter = "plan";
    stage.title = temporal ? "Reordered, a band along the diagonal" : "A band along the diagonal";
    stage.text = temporal ? "Tokens are put in token-major order: all frames of one place side by side. What was "
                            "scattered becomes a band, and one band mask serves both classes."
                          : "In the model's frame-major order, near tokens are near the diagonal: a band keeps them. "
                            "Text rows and columns, or the first frame's keys, stay as the model's rule says.";
    stage.formula = "half width W = S (1 - sqrt(1 - s')),   s' = s - 2 C / S, rounded to 128 tokens";
    stage.source = "sparsity_to_width in svg/models/*/utils.py";
    stage.facts = {StageFact::fraction("kept, asked for", kept), StageFact::count("band, tokens to either side", width),
                   StageFact::real("the same in frames, before rounding", svgBandFrames(geometry, kept)),
                   StageFact::words("rule", std::string(modelRuleName(geometry.rule)))};
    (*input.stages)(std::move(stage));
  }

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

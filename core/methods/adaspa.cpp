// SPDX-License-Identifier: Apache-2.0
// AdaSpa: exact block scores, searched at a few denoising steps, with the budget moved between the heads of a layer.
#include <fmt/format.h>

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <map>
#include <numeric>

#include "block_pairs.h"
#include "sparsight/core/method.h"
#include "sparsight/core/stages.h"

namespace sparsight {
namespace {

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

// Block edges of a call and which blocks touch a token that is no video.
struct Blocks {
  std::vector<Index> edges;
  std::vector<std::uint8_t> text;  // [N]
  [[nodiscard]] Index count() const noexcept { return static_cast<Index>(text.size()); }
  [[nodiscard]] Index textCount() const noexcept {
    return static_cast<Index>(std::count(text.begin(), text.end(), std::uint8_t{1}));
  }
};

struct Rules {
  bool row = true, sink = true, sinkInBudget = false;
};

// The scores of a head at a search event, until all heads of the layer have theirs.
struct Search {
  std::vector<double> scores;  // [N, N] sum of exp(z - LSE) over the valid pairs of a block
  std::vector<double> fresh;   // the same against this step's own LSE; empty: the LSE is this step's own
  std::vector<float> lse;      // [L] the one used
  double lseShift = 0;         // mean |LSE now - LSE used| over rows
  int lseStep = 0;
};

struct Found {
  std::vector<std::uint8_t> mask;  // [N, N]
  std::vector<float> scores;       // only until the next step
  double sparsity = 0, baseRecall = 0, recall = 0;
  int level = 0;  // -1 keeps more, +1 keeps less
  std::size_t levelHeads = 0;
  int step = 0, scheduledFor = 0;
  std::optional<double> staleCost, lseShift;
  int lseStep = 0;
};

class AdaSpaState final : public MethodState {
 public:
  std::map<int, std::vector<float>> lse;  // by head; of the first search, never refreshed
  std::map<int, int> lseStep;
  std::map<int, Search> pending;
  std::map<int, Found> found;
};

// Half to even, as Python rounds.
[[nodiscard]] Index roundedShare(double share, Index count) {
  return static_cast<Index>(std::nearbyint(share * static_cast<double>(count)));
}

[[nodiscard]] Blocks blocksOf(const HeadData& head, Index edge, bool pad) {
  Blocks blocks;
  const Index tokens = head.layout.tokenCount;
  const Segment* video = head.layout.video();
  const Index videoFirst = video != nullptr ? video->start : 0;
  const Index videoLast = video != nullptr ? video->start + video->length : tokens;
  Index start = 0;
  while (start < tokens) {
    blocks.edges.push_back(start);
    Index end = std::min(tokens, start + edge);
    // pad: the video part starts and ends on block borders of its own.
    for (const Index border : {videoFirst, videoLast}) {
      if (pad && start < border && border < end) end = border;
    }
    blocks.text.push_back(start < videoFirst || end > videoLast ? 1 : 0);
    start = end;
  }
  blocks.edges.push_back(tokens);
  return blocks;
}

// The kept blocks for a removed fraction; ties go to the lower block.
[[nodiscard]] std::vector<std::uint8_t> select(const std::vector<double>& scores, const Blocks& blocks, double sparsity,
                                               const Rules& rules, Backend& backend, const Control& control) {
  const Control inner{control.stop, {}};
  const Index n = blocks.count();
  const Index sink = rules.sink ? blocks.textCount() : 0;
  const Index open = n - sink;  // blocks a side that have to be chosen
  const auto isSink = [&](Index i) { return rules.sink && blocks.text[at(i)] != 0; };
  const double keep = 1.0 - sparsity;
  std::vector<std::uint8_t> sinks;
  if (sink > 0) sinks = blocks.text;
  if (open == 0) return std::vector<std::uint8_t>(at(n * n), 1);
  if (!rules.row) {
    std::vector<std::uint8_t> outside;
    for (Index i = 0; i < n && sink > 0; ++i) {
      for (Index j = 0; j < n; ++j) outside.push_back(isSink(i) || isSink(j) ? 1 : 0);
    }
    const Index candidates = open * open;
    const std::vector<Index> count{std::max<Index>(
        1, rules.sinkInBudget ? roundedShare(keep, n * n) - (n * n - candidates) : roundedShare(keep, candidates))};
    std::vector<std::uint8_t> mask = backend.selectLargest({n * n, scores, count, outside}, inner);
    for (std::size_t i = 0; i < outside.size(); ++i) mask[i] = static_cast<std::uint8_t>(mask[i] | outside[i]);
    return mask;
  }
  const Index each = std::max<Index>(1, rules.sinkInBudget ? roundedShare(keep, n) - sink : roundedShare(keep, open));
  // Rows of text keep everything: what is chosen in them does not matter.
  const std::vector<Index> counts(at(n), each);
  std::vector<std::uint8_t> mask = backend.selectLargest({n, scores, counts, sinks}, inner);
  for (Index i = 0; i < n && sink > 0; ++i) {
    for (Index j = 0; j < n; ++j) {
      if (isSink(i) || isSink(j)) mask[at(i * n + j)] = 1;
    }
  }
  return mask;
}

[[nodiscard]] double recallOf(const std::vector<double>& scores, const std::vector<std::uint8_t>& mask) {
  double kept = 0, all = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    all += scores[i];
    if (mask[i] != 0) kept += scores[i];
  }
  return all > 0 ? kept / all : 0;
}

[[nodiscard]] BlockPicture pictureOf(const std::vector<double>& scores, const Blocks& blocks) {
  BlockPicture picture;
  picture.what = "probability mass of a block";
  picture.rowName = "query block";
  picture.columnName = "key block";
  picture.rows = picture.columns = blocks.count();
  picture.values.assign(scores.begin(), scores.end());
  return picture;
}

[[nodiscard]] BlockPicture pictureOf(const std::vector<double>& scores, const Blocks& blocks,
                                     std::vector<std::uint8_t> kept) {
  BlockPicture picture = pictureOf(scores, blocks);
  picture.kept = std::move(kept);
  return picture;
}

class AdaSpaMethod final : public Method {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "adaspa"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "AdaSpa"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Blocks by their exact probability mass, searched at a few steps with a cached LSE; heads of a layer trade "
           "budget by recall.";
  }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::optional<Knob> knob() const override { return Knob{"sparsity", false}; }
  [[nodiscard]] std::unique_ptr<MethodState> newState() const override { return std::make_unique<AdaSpaState>(); }
  [[nodiscard]] bool hasStages() const noexcept override { return true; }
  [[nodiscard]] bool surveys(const ParamSet& params) const override { return params.flag("levels"); }

  /// The paper's warm-up ends with the first search, whose step is still dense; it has no dense layers.
  [[nodiscard]] std::map<std::string, std::string, std::less<>> defaultsFor(const TraceInfo& trace,
                                                                            const ParamSet& given) const override {
    auto defaults = Method::defaultsFor(trace, given);
    defaults.insert_or_assign("first_layers_fp", std::string(1, '0'));
    const int steps = stepsOf(trace);
    if (steps > 0) {
      const int dense = std::min(steps, static_cast<int>(searchSteps(given).front()) + 1);
      double fraction = static_cast<double>(dense) / static_cast<double>(steps);
      while (std::floor(fraction * static_cast<double>(steps)) < static_cast<double>(dense)) {
        fraction = std::nextafter(fraction, 2.0);
      }
      defaults["first_times_fp"] = fmt::format("{}", fraction);
    }
    return defaults;
  }
  [[nodiscard]] WarmupGate warmup(const TraceInfo& trace, const ParamSet& params) const override {
    const auto share = [&](const char* name, int count) {
      return static_cast<int>(std::floor(params.real(name) * static_cast<double>(count)));
    };
    WarmupGate gate;
    gate.denseSteps = share("first_times_fp", stepsOf(trace));
    gate.denseLayers = share("first_layers_fp", trace.model.numLayers);
    gate.text = warmupText(gate.denseSteps, stepsOf(trace), gate.denseLayers, trace.model.numLayers);
    return gate;
  }

  void survey(const MethodInput& input, MethodState* state, Backend& backend, const Control& control) const override {
    auto& own = static_cast<AdaSpaState&>(*state);
    const int step = input.head.id.call.step;
    const std::vector<Index> steps = searchSteps(input.params);
    if (input.dense && !std::binary_search(steps.begin(), steps.end(), Index{step})) return;
    if (searchesAt(input, own)) own.pending[input.head.id.head] = search(input, own, backend, control);
  }

  void observeDense(const MethodInput& input, MethodState* state, Backend& backend,
                    const Control& control) const override {
    const std::vector<Index> steps = searchSteps(input.params);
    if (!std::binary_search(steps.begin(), steps.end(), Index{input.head.id.call.step})) return;
    try {
      static_cast<void>(plan(input, state, backend, control));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::Unsupported) throw;  // the head is dense here: nothing to skip
    }
  }

  [[nodiscard]] Plan plan(const MethodInput& input, MethodState* state, Backend& backend,
                          const Control& control) const override {
    control.checkpoint();
    AdaSpaState alone;
    AdaSpaState& own = state != nullptr ? static_cast<AdaSpaState&>(*state) : alone;
    const HeadData& head = input.head;
    const int number = head.id.head;
    checkHead(head);
    const Blocks blocks = blocksOf(head, input.params.integer("block_size"), input.params.text("align") == "pad");
    if (!own.pending.contains(number) && searchesAt(input, own)) {
      own.pending[number] = search(input, own, backend, control);
    }
    const bool searched = own.pending.contains(number);
    if (searched) settle(input, blocks, own, backend, control);
    const Found& found = own.found.at(number);
    if (input.stages != nullptr) showOutcome(input, blocks, found);

    Plan plan;
    plan.methodId = "adaspa";
    plan.queryCount = plan.keyCount = head.layout.tokenCount;
    plan.qBounds = plan.kBounds = blocks.edges;
    plan.map = plan.blockMask = found.mask;  // 1 is BlockState::Whole
    if (found.step == head.id.call.step) {
      plan.scores = found.scores;
      const double tokens = static_cast<double>(head.layout.tokenCount);
      plan.plannerFlops = 2.0 * tokens * tokens * static_cast<double>(head.input.q.cols);
    } else {
      plan.reusedFromStep = found.step;
    }
    plan.levels = {found.level};
    plan.recall = {static_cast<float>(found.baseRecall)};
    if (const auto lse = own.lse.find(number); lse != own.lse.end()) plan.lse = lse->second;
    plan.facts["level"] = found.level;
    plan.facts["level_heads"] = static_cast<double>(found.levelHeads);
    plan.facts["removed_fraction"] = found.sparsity;
    plan.facts["base_recall"] = found.baseRecall;
    plan.facts["search_recall"] = found.recall;
    plan.facts["lse_from_step"] = found.lseStep;
    plan.facts["text_blocks"] = static_cast<double>(blocks.textCount());
    if (found.staleCost) plan.facts["stale_lse_recall_cost"] = *found.staleCost;
    if (found.lseShift) plan.facts["stale_lse_shift"] = *found.lseShift;
    const int scheduled = scheduledFor(input.params, head.id.call.step);
    if (scheduled < 0) {
      plan.warnings.push_back(fmt::format(
          "step {} lies before the first search (step {}), where AdaSpa is dense; planned as if searched here",
          head.id.call.step, searchSteps(input.params).front()));
    } else if (found.step != scheduled) {
      plan.warnings.push_back(fmt::format(
          "search step {} was not run (captured, selected): searched at step {} instead", scheduled, found.step));
    }
    if (input.params.flag("levels") && input.numHeads > static_cast<int>(found.levelHeads)) {
      plan.warnings.push_back(
          fmt::format("levels are among the {} captured heads of {}", found.levelHeads, input.numHeads));
    }
    return plan;
  }

 private:
  static int stepsOf(const TraceInfo& trace) {
    return trace.run.timesteps.empty() ? trace.run.numInferenceSteps : static_cast<int>(trace.run.timesteps.size());
  }

  static std::vector<Index> searchSteps(const ParamSet& params) {
    std::vector<Index> steps = params.integers("search_steps");
    if (steps.empty()) {
      throw Error(ErrorCode::InvalidArgument, "parameter search_steps: needs at least one denoising step, like 9,29");
    }
    std::sort(steps.begin(), steps.end());
    return steps;
  }

  // The search whose mask a step uses; -1: before the first.
  static int scheduledFor(const ParamSet& params, int step) {
    int last = -1;
    for (const Index search : searchSteps(params)) {
      if (search <= step) last = static_cast<int>(search);
    }
    return last;
  }

  static bool searchesAt(const MethodInput& input, const AdaSpaState& state) {
    const auto found = state.found.find(input.head.id.head);
    if (found == state.found.end()) return true;
    const int step = input.head.id.call.step;
    if (found->second.step == step) return false;
    const int scheduled = scheduledFor(input.params, step);
    return scheduled < 0 || found->second.scheduledFor != scheduled;
  }

  static void checkHead(const HeadData& head) {
    const std::string& kind = head.id.call.kind;
    if (kind != "self" && kind != "joint") {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("adaspa: {}-attention stays dense; only self-attention is searched", kind));
    }
    const Index tokens = head.layout.tokenCount;
    if (!head.qRows.empty() || head.input.q.rows != tokens || head.input.k.rows != tokens) {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("adaspa: {} of {} query rows and {} keys were captured; block scores need them all",
                              head.input.q.rows, tokens, head.input.k.rows));
    }
  }

  static Search search(const MethodInput& input, AdaSpaState& state, Backend& backend, const Control& control) {
    checkHead(input.head);
    const AttentionIn& in = input.prepared.input();
    const Blocks blocks = blocksOf(input.head, input.params.integer("block_size"), input.params.text("align") == "pad");
    const std::vector<Index> pairs = validBlockPairs(in, blocks.edges, blocks.edges, control);
    const auto sums = [&](const LseMapResult& map) {
      std::vector<double> out(pairs.size(), 0.0);
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (pairs[i] > 0) out[i] = static_cast<double>(map.mean[i]) * static_cast<double>(pairs[i]);
      }
      return out;
    };
    const int number = input.head.id.head;
    const auto cached = state.lse.find(number);
    Search found;
    LseMapResult own = backend.lseMap(input.prepared, {blocks.edges, blocks.edges, true, false, {}}, control);
    if (cached == state.lse.end()) {
      found.scores = sums(own);
      found.lse = std::move(own.lse);
      found.lseStep = input.head.id.call.step;
      if (input.stages != nullptr) showScores(input, blocks, found);
      if (scheduledFor(input.params, input.head.id.call.step) >= 0) {
        state.lse[number] = found.lse;
        state.lseStep[number] = found.lseStep;
      }
      return found;
    }
    found.lse = cached->second;
    found.lseStep = state.lseStep.at(number);
    found.scores = sums(backend.lseMap(input.prepared, {blocks.edges, blocks.edges, true, false, found.lse}, control));
    if (std::any_of(found.scores.begin(), found.scores.end(), [](double s) { return !std::isfinite(s); })) {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("adaspa: against the LSE of step {} the scores of step {} leave the number range; search "
                              "from a nearer step (search_steps)",
                              found.lseStep, input.head.id.call.step));
    }
    found.fresh = sums(own);
    Index rows = 0;
    for (std::size_t i = 0; i < found.lse.size(); ++i) {
      const double shift = std::abs(static_cast<double>(own.lse[i]) - static_cast<double>(found.lse[i]));
      if (!std::isfinite(shift)) continue;
      found.lseShift += shift;
      ++rows;
    }
    if (rows > 0) found.lseShift /= static_cast<double>(rows);
    if (input.stages != nullptr) showScores(input, blocks, found);
    return found;
  }

  static void showScores(const MethodInput& input, const Blocks& blocks, const Search& search) {
    Stage stage;
    stage.chapter = "block scores";
    stage.title = fmt::format("The exact mass of all {} blocks", blocks.count() * blocks.count());
    stage.text =
        "Nothing is estimated: one pass over the whole head sums the softmax probability in every block. That "
        "is affordable because it is done at two steps only.";
    stage.formula = "S[p,q] = sum over the pairs of the block of exp(q_i . k_j / sqrt(D) - LSE_i)";
    stage.source = "paper Eq. 4";
    stage.facts = {StageFact::count("block, tokens a side", input.params.integer("block_size")),
                   StageFact::count("blocks a side", blocks.count()),
                   StageFact::count("of them with text", blocks.textCount())};
    if (search.fresh.empty()) {
      stage.facts.push_back(StageFact::words("starts from", "nothing: first search, no earlier step"));
      stage.facts.push_back(StageFact::words("row LSE", "this step's own"));
    } else {
      stage.text +=
          fmt::format(" The row sums (LSE) are not computed anew: those of step {} are used.", search.lseStep);
      stage.facts.push_back(StageFact::words("starts from", fmt::format("the LSE of step {}", search.lseStep)));
      stage.facts.push_back(StageFact::real("mean shift of the LSE since", search.lseShift));
    }
    stage.blocks = pictureOf(search.scores, blocks);
    stage.blocks->rowsAreShares = true;
    (*input.stages)(std::move(stage));
  }

  // Which heads give budget and which take it.
  static void showLevels(const MethodInput& input, const std::map<int, Found>& results, std::vector<int> order,
                         Index above, Index moved, double low, double high) {
    const Found& own = results.at(input.head.id.head);
    Stage stage;
    stage.chapter = "levels";
    stage.title = "Heads trade budget";
    stage.text =
        "Heads that keep most of their mass anyway can do with less; those that lose much get it. As many give "
        "as take, so the mean over the layer stays what was asked for.";
    stage.formula =
        "n = min(heads with recall above the threshold, half of them); n best remove (1 + s) / 2, n worst "
        "(3 s - 1) / 2";
    stage.source = "paper section 4.2";
    stage.facts = {StageFact::count("heads searched", static_cast<Index>(order.size())),
                   StageFact::count("above the threshold", above),
                   StageFact::count("n that give, n that take", moved),
                   StageFact::fraction("kept at the base", 1.0 - input.params.real("sparsity")),
                   StageFact::fraction("kept by the best n", 1.0 - high),
                   StageFact::fraction("kept by the worst n", 1.0 - low),
                   StageFact::fraction("this head's recall at the base", own.baseRecall),
                   StageFact::words("this head", own.level > 0   ? "gives: keeps less"
                                                 : own.level < 0 ? "takes: keeps more"
                                                                 : "keeps the base")};
    StageBars bars;
    bars.what = "recall of the layer's heads at the base budget, best first";
    bars.threshold = input.params.real("recall_threshold");
    bars.groupNames[0] = "keeps more";
    bars.groupNames[1] = "base";
    bars.groupNames[2] = "keeps less";
    for (const int head : order) {
      const Found& found = results.at(head);
      bars.bars.push_back({fmt::format("H{}", head), found.baseRecall, found.level, head == input.head.id.head});
    }
    stage.bars = std::move(bars);
    (*input.stages)(std::move(stage));
  }

  static void showSelection(const MethodInput& input, const Blocks& blocks, const std::vector<double>& scores,
                            const Found& found, const Rules& rules) {
    const Index n = blocks.count();
    std::vector<std::uint8_t> chosen = found.mask;
    Index sink = 0;
    Index own = 0;
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < n; ++j) {
        const bool text = rules.sink && (blocks.text[at(i)] != 0 || blocks.text[at(j)] != 0);
        if (text) chosen[at(i * n + j)] = 0;
        (text ? sink : own) += found.mask[at(i * n + j)];
      }
    }
    Stage stage;
    stage.chapter = "selection";
    stage.title = rules.row ? "Each row of blocks keeps its best" : "The best blocks of the whole head";
    stage.text = rules.row ? "Every block of queries keeps the same number of key blocks, those with the largest mass: "
                             "no query starves, and the work is even."
                           : "All blocks compete: those with the largest mass are kept, wherever they are. Some rows "
                             "keep much, some little.";
    stage.formula = rules.row ? "per row the max(1, round((1 - s) x key blocks)) largest S, ties to the lower block"
                              : "the round((1 - s) x blocks) largest S of the head, ties to the lower block";
    stage.source = rules.row ? "paper section 4.3" : "paper Eq. 14";
    const double rows = static_cast<double>(rules.sink ? n - blocks.textCount() : n);
    stage.facts = {StageFact::fraction("kept budget of this head", 1.0 - found.sparsity),
                   StageFact::count("blocks chosen", own),
                   StageFact::real("per row of blocks, mean", rows > 0 ? static_cast<double>(own) / rows : 0)};
    stage.blocks = pictureOf(scores, blocks, chosen);
    stage.blocks->rowsAreShares = true;
    (*input.stages)(std::move(stage));
    if (!rules.sink || blocks.textCount() == 0) return;
    Stage text;
    text.chapter = "text sink";
    text.title = "Text is always kept";
    text.text =
        "Rows and columns of blocks that hold a text token are kept whatever they score: the prompt steers the "
        "video, and it is cheap.";
    text.source = "paper section 4.3; text_sink";
    text.facts = {StageFact::count("blocks with text a side", blocks.textCount()),
                  StageFact::count("blocks kept for it", sink),
                  StageFact::words("counted", rules.sinkInBudget ? "inside the budget" : "on top of the budget"),
                  StageFact::fraction("recall on the block scores", found.recall)};
    text.blocks = pictureOf(scores, blocks, found.mask);
    text.blocks->rowsAreShares = true;
    (*input.stages)(std::move(text));
  }

  static void showOutcome(const MethodInput& input, const Blocks& blocks, const Found& found) {
    const bool reused = found.step != input.head.id.call.step;
    if (reused) {
      Stage stage;
      stage.chapter = "reuse";
      stage.title = fmt::format("No search here: the mask of step {}", found.step);
      stage.text =
          "Which blocks matter changes slowly from one denoising step to the next, so the mask that was found "
          "is kept until the next search.";
      stage.source = "paper Fig. 7, T_s; search_steps";
      stage.facts = {StageFact::words("starts from", fmt::format("the mask of step {}", found.step)),
                     StageFact::count("blocks a side", blocks.count()),
                     StageFact::fraction("recall when it was found", found.recall)};
      (*input.stages)(std::move(stage));
    } else if (found.staleCost) {
      Stage stage;
      stage.chapter = "stale LSE";
      stage.title = fmt::format("What the LSE of step {} costs", found.lseStep);
      stage.text =
          "An old LSE weighs the rows of a block wrongly against each other, so other blocks may win. Searched "
          "once more with this step's own LSE, the same number of blocks holds this much more.";
      stage.formula = "cost = recall of the mask from fresh scores - recall of this mask, both on fresh scores";
      stage.source = "the cached LSE of the first search is never refreshed; stale_lse_recall_cost";
      stage.facts = {StageFact::fraction("recall that staleness costs", *found.staleCost),
                     StageFact::real("mean shift of the LSE", found.lseShift.value_or(0)),
                     StageFact::words("LSE from", fmt::format("step {}", found.lseStep))};
      (*input.stages)(std::move(stage));
    }
    Stage last;
    last.last = true;
    last.chapter = "plan";
    last.title = "The mask, in the model's own order";
    last.text =
        "AdaSpa moves no token: blocks are kept where they lie. The recall on the block scores is the kept mass "
        "itself, unless mask or LSE are of an earlier step.";
    last.source = "paper section 4.3";
    last.facts = {StageFact::fraction("recall at the search", found.recall),
                  StageFact::words("searched at", fmt::format("step {}", found.step))};
    (*input.stages)(std::move(last));
  }

  // Levels and masks of all heads that were searched at this step.
  static void settle(const MethodInput& input, const Blocks& blocks, AdaSpaState& state, Backend& backend,
                     const Control& control) {
    const ParamSet& params = input.params;
    const double base = params.real("sparsity");
    const Rules rules{params.text("selection") == "row", params.flag("text_sink"), params.flag("sink_in_budget")};
    std::map<int, Found> results;
    std::vector<int> order;
    Index above = 0;
    const int shown = input.head.id.head;
    for (const auto& [head, search] : state.pending) {
      Found& found = results[head];
      found.mask = select(search.scores, blocks, base, rules, backend, control);
      found.baseRecall = found.recall = recallOf(search.scores, found.mask);
      found.sparsity = base;
      if (found.baseRecall > params.real("recall_threshold")) ++above;
      order.push_back(head);
    }
    if (params.flag("levels")) {
      // n heads lose what n others gain, so that the mean stays; at most half of them each.
      const Index moved = std::min(above, static_cast<Index>(order.size()) / 2);
      double high = (1.0 + base) / 2.0;
      double low = (3.0 * base - 1.0) / 2.0;
      if (low < 0) {
        low = 0;
        high = 2.0 * base;
      }
      std::stable_sort(order.begin(), order.end(),
                       [&](int a, int b) { return results[a].baseRecall > results[b].baseRecall; });
      const auto moveTo = [&](int head, int level, double sparsity) {
        Found& found = results[head];
        found.level = level;
        found.sparsity = sparsity;
        found.mask = select(state.pending[head].scores, blocks, sparsity, rules, backend, control);
        found.recall = recallOf(state.pending[head].scores, found.mask);
      };
      for (Index i = 0; i < moved; ++i) {
        moveTo(order[at(i)], 1, high);
        moveTo(order[order.size() - 1 - at(i)], -1, low);
      }
      if (input.stages != nullptr) showLevels(input, results, order, above, moved, low, high);
    }
    if (input.stages != nullptr) showSelection(input, blocks, state.pending[shown].scores, results[shown], rules);
    for (auto& [head, found] : results) {
      const Search& search = state.pending[head];
      found.levelHeads = order.size();
      found.step = input.head.id.call.step;
      found.scheduledFor = scheduledFor(params, found.step);
      found.lseStep = search.lseStep;
      found.scores.assign(search.scores.begin(), search.scores.end());
      if (!search.fresh.empty()) {
        const auto best = select(search.fresh, blocks, found.sparsity, rules, backend, control);
        found.staleCost = recallOf(search.fresh, best) - recallOf(search.fresh, found.mask);
        found.lseShift = search.lseShift;
      }
      state.found[head] = std::move(found);
    }
    state.pending.clear();
  }

  static std::vector<ParamSpec> specs() {
    std::vector<ParamSpec> own{
        ParamSpec::real("sparsity", "0.8", 0, 1, "fraction of blocks removed",
                        "Removed fraction of the blocks, as the paper writes it: 0.8 keeps 20 %. `kept` is 1 - it.",
                        "paper Eq. 14, section 4.3")
            .withComplement("kept"),
        ParamSpec::integer("block_size", "64", 1, 65536, "tokens",
                           "Side of a block in tokens, model order; the paper runs 64.", "paper section 5"),
        ParamSpec::integers(
            "search_steps", "9,29", 0, 100000, "denoising step indices",
            "0-based steps that search (step index 9 = 10th step; the paper's 10 and 30). The first is dense and gives "
            "the "
            "LSE, later ones reuse that LSE.",
            "paper Fig. 7, T_s"),
        ParamSpec::real(
            "recall_threshold", "0.8", 0, 1, "recall",
            "Heads whose recall at the base budget is above this count towards the number of heads that trade budget.",
            "paper section 4.2"),
        ParamSpec::boolean(
            "levels", "true",
            "Head-adaptive levels: the n best recalled heads of a layer remove (1 + s) / 2, the n worst (3 s - 1) / 2.",
            "paper section 4.2"),
        ParamSpec::choice(
            "selection", "row", {"row", "global"},
            "row: every query block keeps the same number of key blocks (what the paper runs); global: the best of the "
            "whole head (as Eq. 14 prints it).",
            "paper section 4.3, Eq. 14"),
        ParamSpec::boolean("text_sink", "true",
                           "Blocks that touch a text token are always kept, as rows and as columns.",
                           "paper section 4.3"),
        ParamSpec::boolean("sink_in_budget", "false",
                           "Text blocks count towards the budget; false: they come on top. The paper does not say.",
                           "choice"),
        ParamSpec::choice(
            "align", "superset", {"superset", "pad"},
            "Where text does not start on a block border: superset: a block with any text token counts as text; pad: "
            "blocks start anew at the border. The paper does not say.",
            "choice"),
    };
    return withCommonParams(std::move(own), {"reference", "paper"});
  }

  std::vector<ParamSpec> m_params = specs();
};

}  // namespace

const Method& adaspa_method() {
  static const AdaSpaMethod method;
  return method;
}

}  // namespace sparsight

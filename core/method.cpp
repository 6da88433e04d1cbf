// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/method.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>

namespace sparsight {
namespace {

[[nodiscard]] std::string lowered(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

[[nodiscard]] std::string rangeOf(int dense, int total, const char* one, const char* many) {
  if (total <= 0) return fmt::format("number of {} unknown, none dense", many);
  if (dense == 0) return fmt::format("no {} of {} dense", one, total);
  if (dense == 1) return fmt::format("{} 0 of {} dense", one, total);
  return fmt::format("{} 0-{} of {} dense", many, dense - 1, total);
}

// floor of the binary float product, as the launch code computes it: 0.29 * 100 is 28.999... there, too.
[[nodiscard]] int flooredShare(double fraction, int count) {
  return std::clamp(static_cast<int>(std::floor(fraction * static_cast<double>(count))), 0, count);
}

// The threshold is a timestep, not an index: where the schedule moves by less than the margin, further steps are dense.
[[nodiscard]] int stepsAbove(const std::vector<double>& timesteps, double threshold) {
  int count = 0;
  for (const double t : timesteps) {
    if (!(t > threshold)) break;
    ++count;
  }
  return count;
}

}  // namespace

std::string_view modelRuleName(ModelRule rule) noexcept {
  switch (rule) {
    case ModelRule::Wan:
      return "wan";
    case ModelRule::Hunyuan:
      return "hunyuan";
    case ModelRule::CogVideoX:
      return "cogvideox";
  }
  return "wan";
}

bool isCosmosFamily(std::string_view family) { return lowered(family).rfind("cosmos", 0) == 0; }

ModelRule resolveModelRule(std::string_view asked, std::string_view family, const TokenLayout& layout) {
  if (asked == "wan") return ModelRule::Wan;
  if (asked == "hunyuan") return ModelRule::Hunyuan;
  if (asked == "cogvideox") return ModelRule::CogVideoX;
  if (asked != "auto") {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("parameter model_rule: takes one of wan, hunyuan, cogvideox, auto, not '{}'", asked));
  }
  const std::string name = lowered(family);
  const auto starts = [&](std::string_view prefix) { return name.rfind(prefix, 0) == 0; };
  if (starts("wan") || starts("cosmos") || starts("ltx")) return ModelRule::Wan;
  if (starts("hunyuan")) return ModelRule::Hunyuan;
  if (starts("cogvideox") || starts("easyanimate")) return ModelRule::CogVideoX;
  const Segment* text = layout.text();
  const Segment* video = layout.video();
  if (text == nullptr || text->length == 0) return ModelRule::Wan;
  return video != nullptr && text->start < video->start ? ModelRule::CogVideoX : ModelRule::Hunyuan;
}

std::vector<ParamSpec> withCommonParams(std::vector<ParamSpec> own, std::vector<std::string> variants) {
  const std::string first = variants.front();
  std::vector<ParamSpec> specs{
      ParamSpec::choice(
          "variant", first, std::move(variants),
          "Whose rules: reference = the method's own repository, paper = as printed, sparsevideo = the export runtime.",
          "the method's repository and paper, SparseVideo"),
      ParamSpec::choice(
          "model_rule", "auto", {"auto", "wan", "hunyuan", "cogvideox"},
          "Whose mask and warm-up rules: auto goes by the trace's model family, else by where the text tokens lie.",
          "svg/models/{wan,hyvideo,cog,cosmos}/utils.py"),
      ParamSpec::real("first_times_fp", "0.2", 0, 1, "fraction of denoising steps",
                      "Warm-up: the first steps stay dense. Floor of fraction times steps (CogVideoX: timestep above "
                      "1000 (1 - it)).",
                      "*_inference.py, --first_times_fp"),
      ParamSpec::real("first_layers_fp", "0.03", 0, 1, "fraction of layers",
                      "Warm-up: the first layers stay dense. Floor of fraction times layers; sparsevideo: at least one "
                      "when above 0.",
                      "*_inference.py, --first_layers_fp")};
  specs.insert(specs.end(), std::make_move_iterator(own.begin()), std::make_move_iterator(own.end()));
  return specs;
}

AttentionIn effectiveInput(const HeadData& head, bool includePadding) {
  AttentionIn in = head.input;
  if (includePadding) {
    in.keyValid = {};
    in.queryValid = {};
  }
  return in;
}

std::map<std::string, std::string, std::less<>> Method::defaultsFor(const TraceInfo& trace,
                                                                    const ParamSet& given) const {
  // SparseVideo's configurations, the same for nearly every model (dense_warmup_step_ratio, dense_warmup_layer_ratio).
  if (given.text("variant") == "sparsevideo") return {{"first_times_fp", "0.1"}, {"first_layers_fp", "0.03"}};
  switch (resolveModelRule(given.text("model_rule"), trace.model.family, trace.layout)) {
    case ModelRule::Wan:
      return {{"first_times_fp", isCosmosFamily(trace.model.family) ? "0.3" : "0.2"}, {"first_layers_fp", "0.03"}};
    case ModelRule::Hunyuan:
      return {{"first_times_fp", "0.1"}, {"first_layers_fp", "0.03"}};
    case ModelRule::CogVideoX:
      return {{"first_times_fp", "0.2"}, {"first_layers_fp", "0.025"}};
  }
  return {};
}

std::map<std::string, std::string, std::less<>> Method::adjusted(const TokenLayout&, const ParamSet&,
                                                                 const Draws* draws) const {
  if (draws == nullptr || draws->sampledRows.empty()) return {};
  return {{"num_sampled_rows", std::to_string(draws->sampledRows.size())}};
}

WarmupGate Method::warmup(const TraceInfo& trace, const ParamSet& params) const {
  const std::vector<double>& timesteps = trace.run.timesteps;
  const int steps = timesteps.empty() ? trace.run.numInferenceSteps : static_cast<int>(timesteps.size());
  const int layers = trace.model.numLayers;
  const double timesFraction = params.real("first_times_fp");
  const double layersFraction = params.real("first_layers_fp");
  const ModelRule rule = resolveModelRule(params.text("model_rule"), trace.model.family, trace.layout);

  WarmupGate gate;
  gate.denseSteps = flooredShare(timesFraction, steps);
  gate.denseLayers = flooredShare(layersFraction, layers);
  if (params.text("variant") == "sparsevideo") {
    if (layersFraction > 0 && layers > 0) gate.denseLayers = std::max(1, gate.denseLayers);
  } else if (rule == ModelRule::CogVideoX) {
    // The old rule: both sides are compared raw, so 42 layers * 0.025 = 1.05 makes layers 0 and 1 dense.
    gate.denseLayers = std::clamp(static_cast<int>(std::ceil(static_cast<double>(layers) * layersFraction)), 0, layers);
    if (!timesteps.empty()) gate.denseSteps = stepsAbove(timesteps, 1000.0 * (1.0 - timesFraction));
  } else if (gate.denseSteps > 0 && !timesteps.empty()) {
    const double last = timesteps[static_cast<std::size_t>(gate.denseSteps - 1)];
    const bool cosmos = isCosmosFamily(trace.model.family);
    // Schedules in [0, 1] are a capture's own unit; the margin of 1 belongs to timesteps in [0, 1000].
    if (cosmos || timesteps.front() > 2.0) gate.denseSteps = stepsAbove(timesteps, last - (cosmos ? 0.01 : 1.0));
  }
  gate.text = warmupText(gate.denseSteps, steps, gate.denseLayers, layers);
  return gate;
}

std::string warmupText(int denseSteps, int steps, int denseLayers, int layers) {
  return rangeOf(denseSteps, steps, "step", "steps") + ", " + rangeOf(denseLayers, layers, "layer", "layers");
}

namespace {

const ParamSpec* keptParam(std::span<const ParamSpec> specs, std::string_view param) {
  for (const ParamSpec& spec : specs) {
    const bool alias = std::find(spec.aliases.begin(), spec.aliases.end(), "kept") != spec.aliases.end();
    if (spec.name == param && (alias || spec.complement == "kept")) return &spec;
  }
  return nullptr;
}

}  // namespace

std::string shownName(const Method& method, std::string_view param) {
  const auto specs = method.params();
  return keptParam(specs, param) != nullptr ? "kept" : std::string(param);
}

double shownValue(const Method& method, std::string_view param, double value) {
  const auto specs = method.params();
  const ParamSpec* spec = keptParam(specs, param);
  return spec != nullptr && spec->complement == "kept" ? 1.0 - value : value;
}

const Method& methodById(std::string_view id) {
  std::vector<std::string_view> known;
  for (const Method* method : allMethods()) {
    if (method->id() == id) return *method;
    known.push_back(method->id());
  }
  throw Error(ErrorCode::InvalidArgument,
              fmt::format("method '{}': unknown; there are {}", id, fmt::join(known, ", ")));
}

}  // namespace sparsight

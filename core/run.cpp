// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "sparsight/core/head_feed.h"
#include "sparsight/core/profile.h"
#include "sparsight/core/stages.h"

namespace sparsight {
namespace {

using Clock = std::chrono::steady_clock;

[[nodiscard]] double millisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

[[nodiscard]] std::string listed(const std::vector<int>& values) { return fmt::format("{}", fmt::join(values, ", ")); }

[[noreturn]] void nothingSelected(const char* option, const std::string& asked, const std::string& available) {
  throw Error(ErrorCode::InvalidArgument,
              fmt::format("{} {} selects nothing; the trace has {}", option, asked, available));
}

[[nodiscard]] std::string describe(const Selector& selector) {
  if (selector.ranges.empty()) return "all";
  std::vector<std::string> parts;
  for (const auto& [first, last] : selector.ranges) {
    parts.push_back(first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last));
  }
  return fmt::format("{}", fmt::join(parts, ","));
}

void checkSelector(const char* option, const Selector& selector, const std::vector<int>& available) {
  if (std::none_of(available.begin(), available.end(), [&](int value) { return selector.contains(value); })) {
    nothingSelected(option, describe(selector), available.empty() ? "none" : listed(available));
  }
}

// Errors of one head that say nothing about the next.
[[nodiscard]] bool concernsOneHead(ErrorCode code) {
  return code == ErrorCode::Unsupported || code == ErrorCode::Io || code == ErrorCode::Format ||
         code == ErrorCode::OutOfMemory;
}

[[nodiscard]] nlohmann::ordered_json typedValue(const ParamSpec& spec, const std::string& text) {
  if (text.find(',') == std::string::npos) {
    if (spec.type == ParamType::Bool) return text == "true";
    if (spec.type == ParamType::Int || spec.type == ParamType::Real) {
      auto number = nlohmann::ordered_json::parse(text, nullptr, false);
      if (number.is_number()) return number;
    }
  }
  return text;
}

// Number of selected heads of each call, in run order.
[[nodiscard]] std::vector<std::size_t> headsPerCall(const std::vector<HeadId>& heads) {
  std::vector<std::size_t> sizes;
  for (std::size_t n = 0; n < heads.size(); ++n) {
    if (n == 0 || heads[n].call != heads[n - 1].call) sizes.push_back(0);
    ++sizes.back();
  }
  return sizes;
}

[[nodiscard]] Evaluation countsOf(const Plan& plan, const HeadData& head, const EvaluateOptions& options,
                                  const Control& control) {
  const AttentionIn in = effectiveInput(head, options.includePadding);
  const PairCounts counts = countPairs(plan, in, control);
  Evaluation numbers;
  numbers.keptFraction = counts.all > 0 ? counts.kept / counts.all : 0;
  numbers.blocksKeptFraction = counts.blockAll > 0 ? counts.blockKept / counts.blockAll : 0;
  numbers.starvedRows = counts.starvedRows;
  numbers.attentionFlops = 2.0 * counts.kept * static_cast<double>(in.q.cols + (in.v.empty() ? 0 : in.v.cols));
  return numbers;
}

// Lists that are too short are refused before any work.
void checkPerHead(const Method& method, const ParamSet& params, std::size_t heads) {
  for (const ParamSpec& spec : method.params()) {
    if (!spec.perHead) continue;
    const std::string text = params.text(spec.name);
    const auto values = static_cast<std::size_t>(std::count(text.begin(), text.end(), ',')) + 1;
    if (values > 1 && values < heads) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("parameter {}: {} values for {} selected heads; give one value for all heads or one per "
                              "selected head",
                              spec.name, values, heads));
    }
  }
}

// Empty unless this head is watched. `data` and `prepared` must outlive the sink.
[[nodiscard]] StageSink stagesOf(const RunRequest::Watch* watch, const HeadData& data, const PreparedHead& prepared) {
  if (watch == nullptr || watch->head != data.id || !watch->stage) return {};
  return [watch, &data, &prepared](Stage stage) { watch->stage(std::move(stage), data, prepared); };
}

[[nodiscard]] std::string profilePath(const Method& method, const ParamSet& params) {
  for (const ParamSpec& spec : method.params()) {
    if (spec.name != "sparsity_csv_path") continue;
    const std::string path = params.text(spec.name);
    return path == "none" ? std::string() : path;
  }
  return {};
}

}  // namespace

Selector Selector::parse(std::string_view text) {
  Selector selector;
  if (text == "all") return selector;
  const auto fail = [&]() -> Error {
    return {ErrorCode::InvalidArgument,
            fmt::format("selector '{}': write 5, 0-3, 0,4,7 or all (whole numbers from 0)", text)};
  };
  std::size_t start = 0;
  while (true) {
    const auto comma = text.find(',', start);
    const std::string_view part = text.substr(start, comma == std::string_view::npos ? comma : comma - start);
    const auto number = [&](std::string_view digits) {
      int value = 0;
      const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (digits.empty() || code != std::errc{} || end != digits.data() + digits.size() || value < 0) throw fail();
      return value;
    };
    const auto dash = part.find('-');
    const int first = number(part.substr(0, dash));
    const int last = dash == std::string_view::npos ? first : number(part.substr(dash + 1));
    if (last < first) throw fail();
    selector.ranges.emplace_back(first, last);
    if (comma == std::string_view::npos) return selector;
    start = comma + 1;
  }
}

bool Selector::contains(int value) const noexcept {
  return ranges.empty() || std::any_of(ranges.begin(), ranges.end(), [value](const std::pair<int, int>& range) {
           return value >= range.first && value <= range.second;
         });
}

std::vector<HeadId> selectHeads(const TraceInfo& trace, const HeadSelection& selection) {
  if (trace.calls.empty()) throw Error(ErrorCode::Format, "the trace holds no attention call");
  const std::string branch = selection.branch.value_or(trace.defaultBranch());
  const auto branches = trace.branches();
  const bool everyBranch = branch == "all";
  if (!everyBranch && std::find(branches.begin(), branches.end(), branch) == branches.end()) {
    nothingSelected("--branch", branch, fmt::format("{}", fmt::join(branches, ", ")));
  }
  const bool hasSelf =
      std::any_of(trace.calls.begin(), trace.calls.end(), [](const CallInfo& call) { return call.id.kind == "self"; });
  std::vector<const CallInfo*> calls;
  std::set<std::string> kinds;
  std::set<int> numbers;
  const auto kindMatches = [&](const std::string& kind) {
    return kind == selection.kind || (selection.kind == "self" && !hasSelf && kind == "joint");
  };
  for (const CallInfo& call : trace.calls) {
    kinds.insert(call.id.kind);
    if (kindMatches(call.id.kind)) numbers.insert(call.id.call);
    if ((everyBranch || call.id.branch == branch) && kindMatches(call.id.kind) && call.id.call == selection.call)
      calls.push_back(&call);
  }
  if (calls.empty()) {
    if (numbers.empty()) nothingSelected("--kind", selection.kind, fmt::format("{}", fmt::join(kinds, ", ")));
    nothingSelected("--call", fmt::format("{} (kind {}, branch {})", selection.call, selection.kind, branch),
                    fmt::format("calls {}", fmt::join(numbers, ", ")));
  }
  if (selection.component) {
    std::set<std::string> components;
    for (const CallInfo* call : calls) components.insert(call->component);
    if (!components.contains(*selection.component)) {
      nothingSelected("--component", *selection.component, fmt::format("{}", fmt::join(components, ", ")));
    }
    calls.erase(std::remove_if(calls.begin(), calls.end(),
                               [&](const CallInfo* call) { return call->component != *selection.component; }),
                calls.end());
  }
  std::set<int> steps, layers, heads;
  for (const CallInfo* call : calls) {
    steps.insert(call->id.step);
    layers.insert(call->id.layer);
    heads.insert(call->heads.begin(), call->heads.end());
  }
  checkSelector("--step", selection.steps, {steps.begin(), steps.end()});
  checkSelector("--layer", selection.layers, {layers.begin(), layers.end()});
  checkSelector("--head", selection.heads, {heads.begin(), heads.end()});

  std::vector<HeadId> selected;
  for (const CallInfo* call : calls) {
    if (!selection.steps.contains(call->id.step) || !selection.layers.contains(call->id.layer)) continue;
    for (const int head : call->heads) {
      if (selection.heads.contains(head)) selected.push_back({call->id, head});
    }
  }
  if (selected.empty()) {
    throw Error(
        ErrorCode::InvalidArgument,
        fmt::format("--step {} --layer {} --head {} select nothing together; see sparsight-cli info for what was "
                    "captured",
                    describe(selection.steps), describe(selection.layers), describe(selection.heads)));
  }
  std::sort(selected.begin(), selected.end(), [](const HeadId& a, const HeadId& b) {
    return std::tie(a.call.branch, a.call.layer, a.call.step, a.call.kind, a.call.call, a.head) <
           std::tie(b.call.branch, b.call.layer, b.call.step, b.call.kind, b.call.call, b.head);
  });
  return selected;
}

ParamSet resolveParams(const Method& method, const TraceInfo& trace, const ParamSet& given) {
  std::map<std::string, std::string, std::less<>> defaults;
  for (const ParamSpec& spec : method.params()) defaults[spec.name] = spec.defaultValue;
  ParamSet resolved;
  for (const auto& [name, value] : given.values()) {
    if (defaults.find(name) == defaults.end()) {
      throw Error(ErrorCode::InvalidArgument, fmt::format("parameter {}: unknown to method {}", name, method.id()));
    }
    resolved.set(name, value);
  }
  resolved.setDefaults(defaults);
  for (auto& [name, value] : method.defaultsFor(trace, resolved)) defaults[name] = value;
  resolved.setDefaults(std::move(defaults));
  return resolved;
}

RunReport runMethod(const Trace& trace, const RunRequest& request, Backend& backend, const Control& control,
                    const std::function<void(const HeadReport&)>& onHead) {
  const Method& method = methodById(request.methodId);
  const TraceInfo& info = trace.info();
  const ParamSet params = resolveParams(method, info, request.params);
  std::vector<HeadId> heads = selectHeads(info, request.selection);
  const bool shared = method.sharesBranches(params);
  if (shared) {
    // What the branches share is handed on as in the model: all branches of a step, then the next step.
    std::stable_sort(heads.begin(), heads.end(), [](const HeadId& a, const HeadId& b) {
      return std::tie(a.call.layer, a.call.step, a.call.branch) < std::tie(b.call.layer, b.call.step, b.call.branch);
    });
  }
  const std::vector<std::size_t> callSizes = headsPerCall(heads);
  checkPerHead(method, params, *std::max_element(callSizes.begin(), callSizes.end()));
  std::optional<Profile> profile;
  if (const std::string path = profilePath(method, params); !path.empty()) profile = readProfile(path);

  RunReport report;
  report.methodId = request.methodId;
  report.warmup = method.warmup(info, params);
  nlohmann::ordered_json paramsJson = nlohmann::ordered_json::object();
  const CallInfo* firstCall = info.find(heads.front().call);
  const auto adjusted = method.adjusted(firstCall != nullptr ? firstCall->layout : info.layout, params,
                                        request.draws ? &*request.draws : nullptr);
  for (const ParamSpec& spec : method.params()) {
    const auto changed = adjusted.find(spec.name);
    const std::string value = changed != adjusted.end() ? changed->second : params.text(spec.name);
    report.resolved[spec.name] = value;
    paramsJson[spec.name] = typedValue(spec, value);
  }
  if (const auto rule = report.resolved.find("model_rule"); rule != report.resolved.end()) {
    rule->second = std::string(modelRuleName(
        resolveModelRule(rule->second, info.model.family, firstCall != nullptr ? firstCall->layout : info.layout)));
    paramsJson["model_rule"] = rule->second;
  }
  report.resolved["warmup"] = request.warmup ? "on" : "off";
  report.resolved["warmup_text"] = report.warmup.text;
  report.resolved["dense_steps"] = std::to_string(report.warmup.denseSteps);
  report.resolved["dense_layers"] = std::to_string(report.warmup.denseLayers);
  const std::string paramsText = paramsJson.dump();

  for (const auto& [id, head] : request.earlier) {
    if (head.plan.paramsJson == paramsText) continue;
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("the earlier results were made with the parameters {}, now they are {}; repeat the first "
                            "command or start anew",
                            head.plan.paramsJson, paramsText));
  }

  const int numSteps =
      info.run.timesteps.empty() ? info.run.numInferenceSteps : static_cast<int>(info.run.timesteps.size());
  std::set<std::string> warnings;
  std::unique_ptr<MethodState> state;
  const CallId* stateOf = nullptr;
  int stepOrdinal = -1;
  std::size_t headIndex = 0;
  std::size_t callNumber = 0;
  std::size_t aheadUntil = 0;  // heads before this one are planned ahead
  double aheadMs = 0;          // and this is what each took
  const auto inputOf = [&](const HeadData& data, const PreparedHead& prepared, std::size_t index) {
    return MethodInput{data,
                       prepared,
                       params,
                       request.seed,
                       index,
                       stepOrdinal,
                       numSteps,
                       info.model.numLayers,
                       info.run.timesteps,
                       request.draws ? &*request.draws : nullptr,
                       request.evaluate.includePadding,
                       profile ? &*profile : nullptr,
                       callSizes[callNumber],
                       info.model.numHeads,
                       request.warmup && report.warmup.dense(data.id.call.step, data.id.call.layer)};
  };
  // Every captured head of the call, selected or not: what one head keeps must not depend on the selection.
  const auto surveyCall = [&](const CallId& call, const Control& whole) {
    const CallInfo* const found = info.find(call);
    if (found == nullptr) return;
    std::vector<HeadId> captured;
    for (const int number : found->heads) captured.push_back({call, number});
    HeadFeed feed(trace, backend, captured, request.evaluate.includePadding, control.stop);
    for (std::size_t h = 0; h < captured.size(); ++h) {
      const int number = captured[h].head;
      const Control share{whole.stop, [&whole, h, count = captured.size()](double fraction) {
                            whole.report((static_cast<double>(h) + fraction) / static_cast<double>(count));
                          }};
      try {
        feed.release(h);
        const auto& [data, prepared] = feed.at(h);
        MethodInput input = inputOf(data, *prepared, 0);
        const StageSink sink = stagesOf(request.watch, data, *prepared);
        if (sink) input.stages = &sink;
        method.survey(input, state.get(), backend, share);
      } catch (const Error& error) {
        if (!concernsOneHead(error.code())) throw;
        warnings.insert(fmt::format("step {} layer {} head {} left out of the survey: {}", call.step, call.layer,
                                    number, error.what()));
      }
    }
  };
  // Places in the feed of the heads that are read at all.
  std::vector<HeadId> read;
  std::vector<std::size_t> placeOf(heads.size());
  const bool carries = method.newState() != nullptr;
  for (std::size_t n = 0; n < heads.size(); ++n) {
    placeOf[n] = read.size();
    if (carries || !request.earlier.contains(heads[n])) read.push_back(heads[n]);
  }
  HeadFeed feed(trace, backend, read, request.evaluate.includePadding, control.stop);
  // The heads [n, n + the result) of one call, worked on together; their data is held until their turn.
  const auto planAhead = [&](std::size_t n, const Control& whole) -> std::size_t {
    std::size_t last = n + 1;
    while (last < heads.size() && heads[last].call == heads[n].call) ++last;
    last = n + feed.together(placeOf[n], placeOf[n] + (last - n));
    aheadMs = 0;
    std::vector<MethodInput> inputs;
    for (std::size_t i = n; i < last; ++i) {
      try {
        const auto& [data, prepared] = feed.at(placeOf[i]);
        inputs.push_back(inputOf(data, *prepared, headIndex + (i - n)));
      } catch (const Error& error) {
        if (!concernsOneHead(error.code())) throw;  // said at its turn
      }
    }
    if (inputs.size() < 2) return 1;
    const auto started = Clock::now();
    try {
      method.planAhead(inputs, state.get(), backend, whole);
    } catch (const Error& error) {
      if (!concernsOneHead(error.code())) throw;  // each head tries alone
    }
    aheadMs = millisecondsSince(started) / static_cast<double>(inputs.size());
    return last - n;
  };
  report.heads.reserve(heads.size());
  for (std::size_t n = 0; n < heads.size(); ++n) {
    control.checkpoint();
    const HeadId& id = heads[n];
    const bool newCall = n == 0 || heads[n - 1].call != id.call;
    if (stateOf == nullptr || (!shared && stateOf->branch != id.call.branch) || stateOf->layer != id.call.layer ||
        stateOf->kind != id.call.kind || stateOf->call != id.call.call) {
      state = method.newState();
      stepOrdinal = -1;
    }
    if (newCall) {
      if (stepOrdinal < 0 || stateOf->step != id.call.step) ++stepOrdinal;
      headIndex = 0;
      callNumber += n == 0 ? 0 : 1;
    } else {
      ++headIndex;
    }
    stateOf = &id.call;
    const auto earlier = request.earlier.find(id);
    if (earlier != request.earlier.end() && state == nullptr) {
      warnings.insert(earlier->second.plan.warnings.begin(), earlier->second.plan.warnings.end());
      report.heads.push_back(earlier->second);
      if (onHead) onHead(report.heads.back());
      continue;
    }
    HeadReport head;
    head.id = id;
    head.wouldBeDense = report.warmup.dense(id.call.step, id.call.layer);
    const auto part = [&](double from, double share) {
      return Control{control.stop, [&control, n, total = heads.size(), from, share](double fraction) {
                       control.report((static_cast<double>(n) + from + share * fraction) / static_cast<double>(total));
                     }};
    };
    try {
      if (newCall && method.surveys(params)) surveyCall(id.call, part(0, 0.5));
      feed.release(placeOf[n]);
      const auto& [data, prepared] = feed.at(placeOf[n]);
      warnings.insert(data.warnings.begin(), data.warnings.end());
      double planned = 0;
      if (method.plansAhead() && request.watch == nullptr && n >= aheadUntil) {
        planned = 0.4;
        aheadUntil = n + planAhead(n, part(0, planned));
      }
      const auto started = Clock::now();
      MethodInput input = inputOf(data, *prepared, headIndex);
      const StageSink sink = stagesOf(request.watch, data, *prepared);
      if (sink) input.stages = &sink;
      if (input.dense) {
        method.observeDense(input, state.get(), backend, part(planned, 0.5 - planned));
        head.plan = densePlan(data.input.q.rows, data.input.k.rows);
      } else {
        head.plan = method.plan(input, state.get(), backend, part(planned, 0.5 - planned));
      }
      head.plan.methodId = request.methodId;
      head.plan.paramsJson = paramsText;
      head.plan.wouldBeDense = head.wouldBeDense;
      head.plan.validate();
      head.planMs = millisecondsSince(started) + (n < aheadUntil ? aheadMs : 0.0);
      if (sink && request.watch->planned) request.watch->planned(head.plan, data, *prepared);
      std::vector<std::string> fallbacks = backend.takeFallbacks();
      if (earlier != request.earlier.end()) {
        head.planMs = earlier->second.planMs;
        head.evaluation = earlier->second.evaluation;
      } else {
        head.evaluation = request.countsOnly
                              ? countsOf(head.plan, data, request.evaluate, control)
                              : evaluatePlan(head.plan, data, *prepared, request.evaluate, backend, part(0.5, 0.5));
        fallbacks.insert(fallbacks.end(), head.evaluation.fallbacks.begin(), head.evaluation.fallbacks.end());
        head.evaluation.fallbacks = std::move(fallbacks);
      }
      warnings.insert(head.evaluation.warnings.begin(), head.evaluation.warnings.end());
      warnings.insert(head.plan.warnings.begin(), head.plan.warnings.end());
    } catch (const Error& error) {
      if (!concernsOneHead(error.code())) throw;
      head.plan = {};
      head.skippedReason = error.what();
      head.damaged = isDamage(trace.info(), id, error);
      warnings.insert(
          fmt::format("step {} layer {} head {} skipped: {}", id.call.step, id.call.layer, id.head, error.what()));
    }
    control.report(static_cast<double>(n + 1) / static_cast<double>(heads.size()));
    report.heads.push_back(std::move(head));
    if (onHead) onHead(report.heads.back());
    if (!request.keepPlanArrays) report.heads.back().plan = withoutArrays(report.heads.back().plan);
  }
  report.warnings.assign(warnings.begin(), warnings.end());
  return report;
}

}  // namespace sparsight

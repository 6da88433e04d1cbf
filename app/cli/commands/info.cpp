// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "app/cli/command.h"
#include "sparsight/core/importer.h"
#include "sparsight/core/profile.h"
#include "sparsight/core/run.h"
#include "sparsight/core/trace.h"

namespace sparsight {
namespace cli {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& document) {
  return document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

// "0-3 7 9-11"
std::string rangesText(const std::vector<int>& values) {
  std::string text;
  for (std::size_t i = 0; i < values.size();) {
    std::size_t j = i;
    while (j + 1 < values.size() && values[j + 1] == values[j] + 1) ++j;
    text += fmt::format("{}{}", text.empty() ? "" : " ", values[i]);
    if (j > i) text += fmt::format("{}{}", j > i + 1 ? "-" : " ", values[j]);
    i = j + 1;
  }
  return text.empty() ? "none" : text;
}

Json tokensOf(const TokenLayout& layout) {
  const Segment* video = layout.video();
  const Segment* text = layout.text();
  Json tokens{{"n_tokens", layout.tokenCount}};
  tokens["grid"] = video != nullptr ? Json{video->frames, video->height, video->width} : Json();
  tokens["video_start"] = video != nullptr ? Json(video->start) : Json();
  tokens["video_len"] = video != nullptr ? video->length : 0;
  tokens["text_start"] = text != nullptr ? text->start : 0;
  tokens["text_len"] = text != nullptr ? text->length : 0;
  tokens["segments"] = Json::array();
  for (const Segment& s : layout.segments) {
    tokens["segments"].push_back({{"kind", segmentKindName(s.kind)},
                                  {"start", s.start},
                                  {"length", s.length},
                                  {"grid", {s.frames, s.height, s.width}}});
  }
  return tokens;
}

Json callOf(const CallInfo& call) {
  Json json{{"step", call.id.step},
            {"branch", call.id.branch},
            {"component", call.component},
            {"layer", call.id.layer},
            {"kind", call.id.kind},
            {"call", call.id.call},
            {"heads", call.heads},
            {"kv_heads", call.kvHeads},
            {"dtype", dtypeName(call.dtype)},
            {"n_q", call.nQ},
            {"n_k", call.nK},
            {"head_dim", call.headDim},
            {"has_v", call.hasV},
            {"has_lse", call.hasLse},
            {"has_out", call.hasOut},
            {"mask", call.hasDenseMask  ? "dense"
                     : call.hasKeyValid ? "key_valid"
                                        : "none"},
            {"q_subset", call.qSubset},
            {"scale", call.scale},
            {"timestep", call.timestep},
            {"module", call.module},
            {"available", call.available}};
  if (!call.unavailableHeads.empty()) {
    json["unavailable_heads"] = call.unavailableHeads;
    json["unavailable_reason"] = call.unavailableReason;
  }
  return json;
}

Json traceJson(const TraceInfo& info) {
  const ModelInfo& m = info.model;
  const RunInfo& r = info.run;
  Json document{{"format", "trace"},         {"format_version", {info.versionMajor, info.versionMinor}},
                {"complete", info.complete}, {"writer", info.writer},
                {"uuid", info.uuid},         {"created_utc", info.createdUtc}};
  if (const auto record = importRecord(info)) {
    document["import"] = {{"source", record->source},
                          {"formats", record->formats},
                          {"assumed", record->assumed},
                          {"warnings", record->warnings}};
  }
  document["model"] = {{"family", m.family},
                       {"class_name", m.className},
                       {"repo_id", m.repoId},
                       {"revision", m.revision},
                       {"attention", m.attention},
                       {"num_layers", m.numLayers},
                       {"num_heads", m.numHeads},
                       {"num_kv_heads", m.numKvHeads},
                       {"head_dim", m.headDim},
                       {"qk_norm", m.qkNorm},
                       {"rope", m.rope}};
  document["run"] = {{"pipeline_class", r.pipelineClass},
                     {"prompt", r.prompt},
                     {"seed", r.seed},
                     {"height", r.height},
                     {"width", r.width},
                     {"num_frames", r.numFrames},
                     {"fps", r.fps},
                     {"num_inference_steps", r.numInferenceSteps},
                     {"guidance_scale", r.guidanceScale},
                     {"guidance_mode", r.guidanceMode},
                     {"scheduler", r.scheduler},
                     {"compute_dtype", r.computeDtype},
                     {"attention_backend", r.attentionBackend}};
  document["tokens"] = tokensOf(info.layout);
  document["captured"] = Json::array();
  for (const CallInfo& call : info.calls) document["captured"].push_back(callOf(call));
  document["frames"] = info.frames ? Json{{"count", info.frames->count},
                                          {"height", info.frames->height},
                                          {"width", info.frames->width},
                                          {"fps", info.frames->fps}}
                                   : Json();
  document["has_synthetic_truth"] = info.hasSyntheticTruth;
  document["warnings"] = info.warnings;
  return document;
}

void printTrace(const std::string& file, const TraceInfo& info) {
  fmt::print("{}: trace {}.{}{}\n", file, info.versionMajor, info.versionMinor, info.complete ? "" : ", not complete");
  const ModelInfo& m = info.model;
  fmt::print("  model     {} {}({} layers x {} heads, head_dim {}, {} attention)\n",
             m.family.empty() ? "unknown" : m.family, m.className.empty() ? "" : m.className + " ", m.numLayers,
             m.numHeads, m.headDim, m.attention.empty() ? "self" : m.attention);
  std::string segments;
  for (const Segment& s : info.layout.segments) {
    segments += segments.empty() ? "" : " + ";
    segments += fmt::format("{} {}", s.length, segmentKindName(s.kind));
    if (s.frames > 0) segments += fmt::format(" ({}x{}x{})", s.frames, s.height, s.width);
  }
  fmt::print("  tokens    {} = {}\n", info.layout.tokenCount, segments);
  if (!info.run.timesteps.empty())
    fmt::print("  schedule  {} steps{}\n", info.run.timesteps.size(),
               info.run.scheduler.empty() ? "" : ", " + info.run.scheduler);
  fmt::print("  captured  {} calls: steps {} (0-based), layers {}, heads {}, branches {}\n", info.calls.size(),
             rangesText(info.steps()), rangesText(info.layers()), rangesText(info.heads()),
             fmt::join(info.branches(), " "));
  std::set<std::string> types;
  bool hasV = true, hasLse = true, hasOut = true, subset = false;
  Index unavailable = 0;
  double bytes = 0;
  for (const CallInfo& c : info.calls) {
    types.insert(dtypeName(c.dtype));
    hasV = hasV && c.hasV;
    hasLse = hasLse && c.hasLse;
    hasOut = hasOut && c.hasOut;
    subset = subset || c.qSubset;
    unavailable += static_cast<Index>(c.unavailableHeads.size());
    const auto d = [](Index v) { return static_cast<double>(v); };
    bytes += (d(static_cast<Index>(c.heads.size())) * d(c.nQ) * d(c.headDim) +
              d(c.kvHeads) * d(c.nK) * d(c.headDim + c.valueDim)) *
             static_cast<double>(itemSize(c.dtype));
  }
  if (!info.calls.empty()) {
    fmt::print("  tensors   {}; q k{}{}{}{}; {:.1f} MiB unpacked\n", fmt::join(types, " "), hasV ? " v" : "",
               hasLse ? " lse" : "", hasOut ? " out" : "", subset ? " (query rows sampled)" : "", bytes / 1048576.0);
  }
  if (unavailable > 0) fmt::print("  missing   {} heads are not available\n", unavailable);
  if (info.frames)
    fmt::print("  frames    {} of {}x{} at {:g} fps\n", info.frames->count, info.frames->width, info.frames->height,
               info.frames->fps);
  if (info.hasSyntheticTruth) fmt::print("  truth     types of the heads are known (synthetic)\n");
  if (const auto record = importRecord(info)) {
    fmt::print("  imported  from {} ({})\n", record->source, fmt::join(record->formats, ", "));
    for (const std::string& line : record->assumed) fmt::print("  assumed   {}\n", line);
    for (const std::string& line : record->warnings) fmt::print("  imported  {}\n", line);
  }
  for (const std::string& warning : info.warnings) fmt::print("  warning   {}\n", warning);
}

Json numberOrNull(double value) { return std::isfinite(value) ? Json(value) : Json(); }

int infoOfProfile(const std::string& file, const std::string& format, bool json) {
  std::vector<CsvIssue> issues;
  const Profile profile = readProfile(file, &issues);
  const ProfileSummary summary = summarise(profile);
  if (json) {
    Json document{{"format", format},
                  {"role", budgetRoleName(profile.role)},
                  {"steps", profile.steps()},
                  {"layers", profile.layers()},
                  {"heads", profile.heads()},
                  {"cells", profile.cellCount()},
                  {"holes", profile.holeCount()},
                  {"mean", numberOrNull(summary.mean)},
                  {"min", numberOrNull(summary.min)},
                  {"max", numberOrNull(summary.max)},
                  {"model", profile.provenance.model},
                  {"source", profile.provenance.source}};
    document["warnings"] = Json::array();
    for (const CsvIssue& issue : issues)
      document["warnings"].push_back(fmt::format("line {}, column {}: {}", issue.line, issue.column, issue.message));
    printJson(dump(document));
    return kOk;
  }
  fmt::print("{}: profile ({}), {} steps x {} layers x {} heads, {} holes\n", file,
             format == "profile-csv" ? "CSV" : "JSON", profile.steps(), profile.layers(), profile.heads(),
             profile.holeCount());
  if (summary.count > 0) {
    fmt::print("  role      {}\n  kept      mean {:.1f} % (skipped {:.1f} %), from {:.1f} % to {:.1f} %\n",
               budgetRoleName(profile.role), 100 * summary.mean, 100 * (1 - summary.mean), 100 * summary.min,
               100 * summary.max);
  }
  for (const CsvIssue& issue : issues)
    fmt::print("  warning   line {}, column {}: {}\n", issue.line, issue.column, issue.message);
  return kOk;
}

struct MethodNumbers {
  Index heads = 0, skipped = 0, withError = 0;
  double kept = 0, mass = 0, error = 0;
};

int infoOfPlan(const std::string& file, const std::string& format, bool json) {
  const ResultsFile results = readResultsFile(file);
  const ResultsHeader& header = results.header;
  std::map<std::string, MethodNumbers> methods;
  std::map<std::string, Index> counts;
  std::set<int> steps, layers;
  Index skipped = 0;
  for (const PlanFileEntry& entry : results.heads) {
    steps.insert(entry.id.call.step);
    layers.insert(entry.id.call.layer);
    if (!entry.skippedReason.empty()) {
      ++skipped;
      continue;
    }
    ++counts[entry.plan.methodId];
    MethodNumbers& numbers = methods[entry.plan.methodId];
    ++numbers.heads;
    numbers.kept += entry.evaluation.keptFraction;
    numbers.mass += entry.evaluation.keptMass;
    if (entry.evaluation.outputRelError) {
      ++numbers.withError;
      numbers.error += *entry.evaluation.outputRelError;
    }
  }
  const auto mean = [](double sum, Index count) { return count > 0 ? sum / static_cast<double>(count) : std::nan(""); };
  if (json) {
    Json document{{"format", format},
                  {"complete", header.complete},
                  {"trace_path", header.tracePath.string()},
                  {"trace_uuid", header.traceUuid},
                  {"program", header.program},
                  {"request", header.request},
                  {"methods", counts}};
    document["summary"] = Json::array();
    for (const auto& [method, n] : methods) {
      document["summary"].push_back({{"method", method},
                                     {"heads", n.heads},
                                     {"kept_fraction", numberOrNull(mean(n.kept, n.heads))},
                                     {"kept_mass", numberOrNull(mean(n.mass, n.heads))},
                                     {"output_rel_error", numberOrNull(mean(n.error, n.withError))}});
    }
    document["heads"] = Json::array();
    for (const PlanFileEntry& e : results.heads) {
      Json head{{"step", e.id.call.step},
                {"branch", e.id.call.branch},
                {"layer", e.id.call.layer},
                {"kind", e.id.call.kind},
                {"call", e.id.call.call},
                {"head", e.id.head},
                {"method", e.plan.methodId},
                {"kept_fraction", numberOrNull(e.evaluation.keptFraction)},
                {"kept_mass", numberOrNull(e.evaluation.keptMass)},
                {"head_class", headClassName(e.plan.headClass)}};
      if (!e.skippedReason.empty()) head["skipped_reason"] = e.skippedReason;
      document["heads"].push_back(std::move(head));
    }
    document["warnings"] = Json::array();
    printJson(dump(document));
    return kOk;
  }
  fmt::print("{}: {} file, {} heads{}\n", file, format, results.heads.size(),
             header.complete ? "" : ", of an interrupted run");
  fmt::print("  holds     {}\n", header.plans ? "plans (orders, masks, exact intervals) and their numbers"
                                              : "numbers of planned heads, no masks");
  fmt::print("  trace     {}{}\n", header.tracePath.empty() ? "unnamed" : header.tracePath.string(),
             header.traceUuid.empty() ? "" : fmt::format(" (uuid {})", header.traceUuid));
  if (!header.request.empty()) fmt::print("  run       {}\n", header.request);
  fmt::print("  heads     steps {} (0-based), layers {}\n", rangesText({steps.begin(), steps.end()}),
             rangesText({layers.begin(), layers.end()}));
  for (const auto& [method, n] : methods) {
    fmt::print("  {:<9} {} heads, means: kept {:.1f} % (skipped {:.1f} %), kept mass {:.4f}", method, n.heads,
               100 * mean(n.kept, n.heads), 100 * (1 - mean(n.kept, n.heads)), mean(n.mass, n.heads));
    if (n.withError > 0) fmt::print(", output error {:.4f}", mean(n.error, n.withError));
    fmt::print("\n");
  }
  if (skipped > 0) fmt::print("  skipped   {} heads could not be planned\n", skipped);
  return kOk;
}

class InfoCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("FILE", m_file, "A trace, profile, plan or results file")->required();
    app.add_flag("--json", m_json, "One JSON document on standard output");
  }

  int run(Context& context) override {
    const std::string format = sniffFormat(m_file);
    if (format.starts_with("profile")) return infoOfProfile(m_file, format, m_json);
    if (format != "trace") return infoOfPlan(m_file, format, m_json);
    const auto trace = openTrace(m_file, context.traceOptions());
    if (m_json) {
      printJson(dump(traceJson(trace->info())));
    } else {
      printTrace(m_file, trace->info());
    }
    return kOk;
  }

 private:
  std::string m_file;
  bool m_json = false;
};

}  // namespace
}  // namespace cli

const CommandInfo& info_command() {
  static const CommandInfo info{"info", "What a trace, profile, plan or results file holds",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::InfoCommand>()); }};
  return info;
}

}  // namespace sparsight

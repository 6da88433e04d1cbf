// SPDX-License-Identifier: Apache-2.0
// Plan and results files: one HDF5 group per head, "/plan/step_0019/cond/layer_000/self/head_00".
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <nlohmann/json.hpp>

#include "sparsight/core/files.h"
#include "sparsight/core/run.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace {

constexpr const char* kPlanFormat = "sparsight-plan";
constexpr const char* kResultsFormat = "sparsight-results";
constexpr Index kMaxElements = Index{1} << 31;
constexpr Index kCompressFrom = 4096;  // below, a chunk index costs more than it saves

[[nodiscard]] std::string groupPath(const HeadId& id) {
  const std::string leaf = id.call.call == 0 ? id.call.kind : fmt::format("{}.{}", id.call.kind, id.call.call);
  return fmt::format("plan/step_{:04}/{}/layer_{:03}/{}/head_{:02}", id.call.step, id.call.branch, id.call.layer, leaf,
                     id.head);
}

template <class T>
void writeTable(h5::Group& group, const char* name, std::span<const T> values, std::vector<Index> shape) {
  h5::StorageOptions storage;
  if (static_cast<Index>(values.size()) >= kCompressFrom) {
    // Orders, edges and masks are runs of nearly constant differences: shuffle and the quickest deflate shrink them
    // tenfold.
    storage.chunk = shape;
    const Index inner = std::max<Index>(1, static_cast<Index>(values.size()) / std::max<Index>(1, shape.front()));
    storage.chunk.front() =
        std::clamp<Index>((Index{1} << 20) / (inner * static_cast<Index>(sizeof(T))), 1, shape.front());
    storage.deflate = 1;
    storage.shuffle = true;
  }
  group.writeDataset<T>(name, values, shape, storage);
}

template <class T>
void writeColumn(h5::Group& group, const char* name, const std::vector<T>& values) {
  if (!values.empty()) {
    writeTable<T>(group, name, std::span<const T>(values), {static_cast<Index>(values.size())});
  }
}

void writeOrder(h5::Group& group, const char* name, const std::vector<Index>& order, Index count) {
  std::vector<Index> identity;
  if (order.empty()) {
    identity.resize(static_cast<std::size_t>(count));
    for (Index i = 0; i < count; ++i) identity[static_cast<std::size_t>(i)] = i;
  }
  writeTable<Index>(group, name, std::span<const Index>(order.empty() ? identity : order), {count});
}

void writeArrays(h5::Group& group, const Plan& plan, Index headDim) {
  writeOrder(group, "q_order", plan.qOrder, plan.queryCount);
  writeOrder(group, "k_order", plan.kOrder, plan.keyCount);
  writeColumn(group, "q_bounds", plan.qBounds);
  writeColumn(group, "k_bounds", plan.kBounds);
  const std::vector<Index> blocks{plan.qBlocks(), plan.kBlocks()};
  writeTable<std::uint8_t>(group, "block_mask", plan.blockMask, blocks);
  if (!plan.intervalRows.empty()) {
    writeColumn(group, "interval_rows", plan.intervalRows);
    writeColumn(group, "row_intervals_ptr", plan.rowIntervalsPtr);
    std::vector<Index> flat;
    flat.reserve(plan.rowIntervals.size() * 2);
    for (const Interval& interval : plan.rowIntervals) {
      flat.push_back(interval.first);
      flat.push_back(interval.last);
    }
    writeTable<Index>(group, "row_intervals", flat, {static_cast<Index>(plan.rowIntervals.size()), 2});
  }
  writeColumn(group, "row_threshold", plan.rowThreshold);
  writeColumn(group, "row_count", plan.rowCount);
  writeColumn(group, "q_labels", plan.qLabels);
  writeColumn(group, "k_labels", plan.kLabels);
  for (const auto& [name, centroids] :
       {std::pair{"q_centroids", &plan.qCentroids}, std::pair{"k_centroids", &plan.kCentroids}}) {
    if (!centroids->empty() && headDim > 0) {
      writeTable<float>(group, name, *centroids, {static_cast<Index>(centroids->size()) / headDim, headDim});
    }
  }
  writeColumn(group, "q_sizes", plan.qSizes);
  writeColumn(group, "k_sizes", plan.kSizes);
  if (!plan.scores.empty()) writeTable<float>(group, "scores", plan.scores, blocks);
  if (!plan.map.empty()) writeTable<std::uint8_t>(group, "map", plan.map, blocks);
  writeColumn(group, "lse", plan.lse);
  writeColumn(group, "levels", plan.levels);
  writeColumn(group, "recall", plan.recall);
}

void writeOptional(h5::Group& group, const char* name, const std::optional<double>& value) {
  if (value) group.writeReal(name, *value);
}

void writeNumbers(h5::Group& group, const HeadReport& head) {
  const Plan& plan = head.plan;
  const Evaluation& numbers = head.evaluation;
  group.writeString("method", plan.methodId);
  group.writeString("params", plan.paramsJson);
  group.writeReal("kept_fraction", numbers.keptFraction);
  group.writeReal("blocks.kept_fraction", numbers.blocksKeptFraction);
  group.writeReal("kept_mass", numbers.keptMass);
  group.writeReal("kept_mass_p5", numbers.keptMassP5);
  writeOptional(group, "kept_mass_ci95", numbers.keptMassCi95);
  writeOptional(group, "output_rel_error", numbers.outputRelError);
  writeOptional(group, "output_rel_error_ci95", numbers.outputRelErrorCi95);
  writeOptional(group, "output_cosine", numbers.outputCosine);
  group.writeInt("starved_rows", numbers.starvedRows);
  group.writeInt("evaluated_rows", numbers.evaluatedRows);
  group.writeInt("total_rows", numbers.totalRows);
  if (plan.headClass != HeadClass::None) group.writeString("head_class", headClassName(plan.headClass));
  if (plan.mse) group.writeDataset<float>("mse", std::vector<float>{plan.mse->front(), plan.mse->back()});
  writeOptional(group, "margin", plan.margin);
  group.writeReal("planner_flops", plan.plannerFlops);
  group.writeReal("attention_flops", numbers.attentionFlops);
  group.writeReal("plan_ms", head.planMs);
  group.writeReal("evaluate_ms", numbers.evaluateMs);
  group.writeString("backend", numbers.backend);
  if (!numbers.fallbacks.empty()) group.writeStrings("fallbacks", numbers.fallbacks);
  group.writeByte("would_be_dense", head.wouldBeDense ? 1 : 0);
  if (plan.reusedFromStep) group.writeInt("reused_from_step", *plan.reusedFromStep);
  if (!plan.facts.empty()) group.writeString("facts", nlohmann::json(plan.facts).dump());
  if (!plan.warnings.empty()) group.writeStrings("warnings", plan.warnings);
}

void writeFile(const std::filesystem::path& out, const Trace& trace, std::span<const HeadReport* const> heads,
               const ResultsHeader& header, const Control& control) {
  writeFileAtomically(out, [&](const std::filesystem::path& temporary) {
    h5::File file = h5::File::create(temporary);
    const TraceInfo& info = trace.info();
    file.writeString("format", header.plans ? kPlanFormat : kResultsFormat);
    file.writeArray("format_version", std::vector<std::int32_t>{1, 0});
    file.writeByte("complete", header.complete ? 1 : 0);
    file.writeString("request", header.request);
    file.writeString("trace_uuid", info.uuid);
    file.writeString("trace_path", info.path.string());
    file.writeString("program", "sparsight " SPARSIGHT_VERSION);
    file.writeInt("seed", static_cast<std::int64_t>(header.seed));
    file.writeString("padding", header.includePadding ? "include" : "exclude");
    std::size_t done = 0;
    for (const HeadReport* report : heads) {
      control.checkpoint();
      control.report(static_cast<double>(done++) / static_cast<double>(heads.size()));
      const HeadReport& head = *report;
      if (header.plans && !head.skippedReason.empty()) continue;
      h5::Group group = file.createGroup(groupPath(head.id));
      group.writeInt("step", head.id.call.step);
      group.writeString("branch", head.id.call.branch);
      group.writeInt("layer", head.id.call.layer);
      group.writeString("kind", head.id.call.kind);
      group.writeInt("call", head.id.call.call);
      group.writeInt("head", head.id.head);
      if (!head.skippedReason.empty()) {
        group.writeString("skipped_reason", head.skippedReason);
        continue;
      }
      const CallInfo* call = info.find(head.id.call);
      if (call != nullptr) group.writeReal("scale", call->scale);
      writeNumbers(group, head);
      if (header.plans) writeArrays(group, head.plan, call != nullptr ? call->headDim : 0);
    }
    file.close();
  });
}

void writeReport(const std::filesystem::path& out, const Trace& trace, const RunReport& report,
                 const RunRequest& request, bool plans, bool complete) {
  std::vector<const HeadReport*> heads;
  for (const HeadReport& head : report.heads) heads.push_back(&head);
  ResultsHeader header;
  header.plans = plans;
  header.complete = complete;
  header.request = describeRequest(request);
  header.seed = request.seed;
  header.includePadding = request.evaluate.includePadding;
  writeFile(out, trace, heads, header, {});
}

// ---------------------------------------------------------------------------------------------------------------------

template <class T>
[[nodiscard]] std::vector<T> readColumn(const h5::Group& group, const char* name, bool required = false) {
  if (required || group.has(name)) return group.openDataset(name).template read<T>(kMaxElements);
  return {};
}

void readShaped(const h5::Group& group, const char* name, Index rows, Index cols, auto& values) {
  if (!group.has(name)) return;
  const h5::Dataset dataset = group.openDataset(name);
  if (dataset.info().shape != std::vector<Index>{rows, cols}) {
    dataset.failFormat(fmt::format("shape {}, expected [{}, {}]; write the plan again",
                                   h5::shapeText(dataset.info().shape), rows, cols));
  }
  values = dataset.read<typename std::remove_reference_t<decltype(values)>::value_type>(kMaxElements);
}

[[nodiscard]] std::vector<Index> readOrder(const h5::Group& group, const char* name, Index& count) {
  std::vector<Index> order = readColumn<Index>(group, name, true);
  count = static_cast<Index>(order.size());
  for (Index i = 0; i < count; ++i) {
    if (order[static_cast<std::size_t>(i)] != i) return order;
  }
  return {};  // identity has one form in memory
}

void readArrays(const h5::Group& group, Plan& plan) {
  plan.qOrder = readOrder(group, "q_order", plan.queryCount);
  plan.kOrder = readOrder(group, "k_order", plan.keyCount);
  plan.qBounds = readColumn<Index>(group, "q_bounds", true);
  plan.kBounds = readColumn<Index>(group, "k_bounds", true);
  if (!group.has("block_mask")) group.failFormat("block_mask is missing; write the plan again");
  readShaped(group, "block_mask", plan.qBlocks(), plan.kBlocks(), plan.blockMask);
  plan.intervalRows = readColumn<Index>(group, "interval_rows");
  plan.rowIntervalsPtr = readColumn<Index>(group, "row_intervals_ptr", !plan.intervalRows.empty());
  if (!plan.intervalRows.empty()) {
    std::vector<Index> flat;
    readShaped(group, "row_intervals", plan.rowIntervalsPtr.empty() ? 0 : plan.rowIntervalsPtr.back(), 2, flat);
    for (std::size_t n = 0; n + 1 < flat.size(); n += 2) plan.rowIntervals.push_back({flat[n], flat[n + 1]});
  }
  plan.rowThreshold = readColumn<float>(group, "row_threshold");
  plan.rowCount = readColumn<Index>(group, "row_count");
  plan.qLabels = readColumn<std::int32_t>(group, "q_labels");
  plan.kLabels = readColumn<std::int32_t>(group, "k_labels");
  plan.qCentroids = readColumn<float>(group, "q_centroids");
  plan.kCentroids = readColumn<float>(group, "k_centroids");
  plan.qSizes = readColumn<Index>(group, "q_sizes");
  plan.kSizes = readColumn<Index>(group, "k_sizes");
  readShaped(group, "scores", plan.qBlocks(), plan.kBlocks(), plan.scores);
  readShaped(group, "map", plan.qBlocks(), plan.kBlocks(), plan.map);
  plan.lse = readColumn<float>(group, "lse");
  plan.levels = readColumn<std::int32_t>(group, "levels");
  plan.recall = readColumn<float>(group, "recall");
}

[[nodiscard]] HeadClass headClassOf(const h5::Group& group, const std::string& name) {
  for (const HeadClass c :
       {HeadClass::Spatial, HeadClass::Temporal, HeadClass::Clustered, HeadClass::Sink, HeadClass::Diffuse}) {
    if (headClassName(c) == name) return c;
  }
  group.failFormat(fmt::format("head_class '{}' is unknown", name));
}

[[nodiscard]] int smallInt(const h5::Group& group, const char* name) {
  const std::int64_t value = group.readInt(name);
  if (value < 0 || value > std::numeric_limits<int>::max()) {
    group.failFormat(fmt::format("{} is {}, outside 0..2147483647", name, value));
  }
  return static_cast<int>(value);
}

[[nodiscard]] HeadId idOf(const h5::Group& group) {
  HeadId id;
  id.call.step = smallInt(group, "step");
  id.call.branch = group.readString("branch");
  id.call.layer = smallInt(group, "layer");
  id.call.kind = group.readString("kind");
  id.call.call = smallInt(group, "call");
  id.head = smallInt(group, "head");
  return id;
}

[[nodiscard]] PlanFileEntry readEntry(const h5::Group& group, bool withArrays) {
  PlanFileEntry entry;
  entry.id = idOf(group);
  Plan& plan = entry.plan;
  Evaluation& numbers = entry.evaluation;
  if (const auto reason = group.tryString("skipped_reason")) {
    entry.skippedReason = reason->empty() ? "no reason given" : *reason;
    plan.warnings.push_back(entry.skippedReason);
    return entry;
  }
  entry.planMs = group.tryReal("plan_ms").value_or(0);
  plan.methodId = group.readString("method");
  plan.paramsJson = group.tryString("params").value_or("{}");
  numbers.keptFraction = group.readReal("kept_fraction");
  numbers.blocksKeptFraction = group.tryReal("blocks.kept_fraction").value_or(0);
  numbers.keptMass = group.tryReal("kept_mass").value_or(0);
  numbers.keptMassP5 = group.tryReal("kept_mass_p5").value_or(0);
  numbers.keptMassCi95 = group.tryReal("kept_mass_ci95");
  numbers.outputRelError = group.tryReal("output_rel_error");
  numbers.outputRelErrorCi95 = group.tryReal("output_rel_error_ci95");
  numbers.outputCosine = group.tryReal("output_cosine");
  numbers.starvedRows = group.tryInt("starved_rows").value_or(0);
  numbers.evaluatedRows = group.tryInt("evaluated_rows").value_or(0);
  numbers.totalRows = group.tryInt("total_rows").value_or(0);
  numbers.attentionFlops = group.tryReal("attention_flops").value_or(0);
  numbers.evaluateMs = group.tryReal("evaluate_ms").value_or(0);
  numbers.backend = group.tryString("backend").value_or("");
  if (group.hasAttribute("fallbacks")) numbers.fallbacks = group.readStrings("fallbacks");
  if (const auto name = group.tryString("head_class")) plan.headClass = headClassOf(group, *name);
  if (group.has("mse")) {
    const std::vector<float> mse = group.openDataset("mse").read<float>(2);
    if (mse.size() != 2)
      group.failFormat(fmt::format("mse has {} entries, expected 2 (spatial, temporal)", mse.size()));
    plan.mse = {mse[0], mse[1]};
  }
  plan.margin = group.tryReal("margin");
  plan.plannerFlops = group.tryReal("planner_flops").value_or(0);
  plan.wouldBeDense = group.tryInt("would_be_dense").value_or(0) != 0;
  if (const auto step = group.tryInt("reused_from_step")) plan.reusedFromStep = static_cast<int>(*step);
  if (const auto text = group.tryString("facts")) {
    const auto facts = nlohmann::json::parse(*text, nullptr, false);
    if (!facts.is_object()) group.failFormat("facts is no JSON object");
    for (const auto& [name, value] : facts.items()) {
      if (value.is_number()) plan.facts[name] = value.get<double>();
    }
  }
  if (group.hasAttribute("warnings")) plan.warnings = group.readStrings("warnings");
  if (!withArrays) return entry;
  readArrays(group, plan);
  try {
    plan.validate();
  } catch (const Error& error) {
    group.failFormat(fmt::format("{}; write the plan again", error.what()));
  }
  return entry;
}

// Groups that bear the attribute "head", wherever they lie below /plan: names are for people, attributes count.
void collect(const h5::Group& group, int depth, const Control& control,
             const std::function<void(const h5::Group&)>& each) {
  control.checkpoint();
  if (group.hasAttribute("head")) return each(group);
  if (depth == 0) return;
  for (const h5::LinkInfo& link : group.links()) {
    if (link.kind != h5::LinkKind::Hard) continue;
    if (const auto child = group.tryGroup(link.name)) collect(*child, depth - 1, control, each);
  }
}
constexpr int kDepth = 5;  // step, branch, layer, kind, head

struct OpenedResults {
  h5::File file;
  bool plans;
};
[[nodiscard]] OpenedResults openResults(const std::filesystem::path& path) {
  h5::File file = h5::File::openRead(path, "a plan or results file");
  const std::string format = file.readString("format", "is this a plan written by sparsight-cli run --plan?");
  if (format != kPlanFormat && format != kResultsFormat) {
    file.failFormat(fmt::format("format is '{}', expected '{}' or '{}'", format, kPlanFormat, kResultsFormat));
  }
  const std::vector<std::int64_t> version = file.readInts("format_version");
  if (version.empty() || version.front() != 1) {
    throw Error(ErrorCode::Unsupported,
                fmt::format("{}: format_version {} of {}, this program reads version 1; update the program",
                            path.string(), version.empty() ? 0 : version.front(), format));
  }
  return {std::move(file), format == kPlanFormat};
}

[[nodiscard]] std::vector<PlanFileEntry> readEntries(const h5::File& file, bool withArrays, const Control& control) {
  std::vector<PlanFileEntry> entries;
  if (const auto root = file.tryGroup("plan")) {
    collect(*root, kDepth, control, [&](const h5::Group& group) { entries.push_back(readEntry(group, withArrays)); });
  }
  std::sort(entries.begin(), entries.end(), [](const PlanFileEntry& a, const PlanFileEntry& b) { return a.id < b.id; });
  return entries;
}

[[nodiscard]] std::vector<std::vector<Index>> readHeadDraws(const h5::File& file, const char* name) {
  std::vector<std::vector<Index>> perHead;
  if (!file.has(name)) return perHead;
  const h5::Dataset dataset = file.openDataset(name);
  if (dataset.info().shape.size() != 2) {
    dataset.failFormat(fmt::format("shape {}, expected [heads, clusters]", h5::shapeText(dataset.info().shape)));
  }
  const std::vector<Index> flat = dataset.read<Index>();
  const auto columns = static_cast<std::size_t>(dataset.info().shape[1]);
  for (std::size_t h = 0; h < static_cast<std::size_t>(dataset.info().shape[0]); ++h) {
    const auto first = flat.begin() + static_cast<std::ptrdiff_t>(h * columns);
    perHead.emplace_back(first, first + static_cast<std::ptrdiff_t>(columns));
  }
  return perHead;
}

}  // namespace

std::string describeRequest(const RunRequest& request) {
  std::uint64_t draws = 0xCBF29CE484222325ULL;  // FNV-1a
  const auto add = [&](Index value) { draws = (draws ^ static_cast<std::uint64_t>(value)) * 0x100000001B3ULL; };
  if (request.draws) {
    for (const Index row : request.draws->sampledRows) add(row);
    for (const auto* side : {&request.draws->initQ, &request.draws->initK}) {
      for (const auto& row : *side) {
        add(-1);
        for (const Index token : row) add(token);
      }
    }
  }
  return fmt::format("method {}, seed {}, padding {}, rows {}, warm-up {}, draws {}", request.methodId, request.seed,
                     request.evaluate.includePadding ? "include" : "exclude",
                     request.evaluate.rows < 0    ? "default"
                     : request.evaluate.rows == 0 ? "all"
                                                  : std::to_string(request.evaluate.rows),
                     request.warmup ? "on" : "off", request.draws ? fmt::format("{:016x}", draws) : "none");
}

RunRequest requestAgain(const TraceInfo& trace, const HeadReport& head, const ResultsHeader& made,
                        const std::vector<int>& steps) {
  if (made.request.find("draws ") != std::string::npos && made.request.find("draws none") == std::string::npos) {
    throw Error(ErrorCode::Unsupported,
                "the run took its random draws from a file, which is not known here; use sparsight-cli run --draws");
  }
  RunRequest request;
  request.methodId = head.plan.methodId;
  request.seed = made.seed;
  request.evaluate.includePadding = made.includePadding;
  request.warmup = made.request.find("warm-up on") != std::string::npos;
  if (const auto rows = made.request.find("rows "); rows != std::string::npos) {
    const std::string_view text = std::string_view(made.request).substr(rows + 5);
    Index count = -1;
    if (text.starts_with("all")) count = 0;
    std::from_chars(text.data(), text.data() + text.size(), count);  // "default" leaves it
    request.evaluate.rows = count;
  }
  const auto params = nlohmann::json::parse(head.plan.paramsJson, nullptr, false);
  const CallInfo* call = trace.find(head.id.call);
  for (const ParamSpec& spec : methodById(request.methodId).params()) {
    if (!params.is_object() || !params.contains(spec.name)) continue;
    const auto& value = params.at(spec.name);
    std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    const auto values = static_cast<std::size_t>(std::count(text.begin(), text.end(), ',')) + 1;
    if (spec.perHead && values > 1 && call != nullptr && values == call->heads.size()) {
      // One value per head of the call; of this one alone its own.
      const auto place = std::find(call->heads.begin(), call->heads.end(), head.id.head) - call->heads.begin();
      std::size_t first = 0;
      for (std::ptrdiff_t n = 0; n < place && first != std::string::npos; ++n) first = text.find(',', first) + 1;
      text = text.substr(first, text.find(',', first) - first);
    }
    request.params.set(spec.name, std::move(text));
  }
  HeadSelection& selection = request.selection;
  selection.branch = head.id.call.branch;
  selection.kind = head.id.call.kind;
  selection.call = head.id.call.call;
  selection.layers.ranges = {{head.id.call.layer, head.id.call.layer}};
  selection.heads.ranges = {{head.id.head, head.id.head}};
  for (const int step : steps) {
    if (step < head.id.call.step) selection.steps.ranges.emplace_back(step, step);
  }
  selection.steps.ranges.emplace_back(head.id.call.step, head.id.call.step);
  return request;
}

void writePlanFile(const std::filesystem::path& out, const Trace& trace, const RunReport& report,
                   const RunRequest& request) {
  writeReport(out, trace, report, request, true, true);
}

void writeResultsFile(const std::filesystem::path& out, const Trace& trace, const RunReport& report,
                      const RunRequest& request, bool complete) {
  writeReport(out, trace, report, request, false, complete);
}

void writeHeads(const std::filesystem::path& out, const Trace& trace,
                std::span<const std::shared_ptr<const HeadReport>> heads, const ResultsHeader& header,
                const Control& control) {
  std::vector<const HeadReport*> all;
  for (const auto& head : heads) all.push_back(head.get());
  writeFile(out, trace, all, header, control);
}

std::map<HeadId, HeadReport> readEarlierResults(const std::filesystem::path& path, const Trace& trace,
                                                const RunRequest& request) {
  std::string uuid, made;
  {
    const h5::File file = h5::File::openRead(path, "a results file");
    uuid = file.tryString("trace_uuid").value_or("");
    made = file.tryString("request").value_or("an earlier version");
  }
  const auto differs = [&](const std::string& what) {
    return Error(ErrorCode::InvalidArgument,
                 fmt::format("{}: cannot go on from it: {}; name another results file or repeat the first command",
                             path.string(), what));
  };
  if (uuid != trace.info().uuid) throw differs("it was made from another trace");
  if (const std::string asked = describeRequest(request); made != asked) {
    throw differs(fmt::format("made with {}, asked for {}", made, asked));
  }
  std::map<HeadId, HeadReport> heads;
  for (PlanFileEntry& entry : readPlanFile(path)) {
    if (entry.plan.methodId.empty()) continue;  // skipped then: tried again
    HeadReport head;
    head.id = entry.id;
    head.plan = std::move(entry.plan);
    head.evaluation = std::move(entry.evaluation);
    head.planMs = entry.planMs;
    head.wouldBeDense = head.plan.wouldBeDense;
    heads.emplace(entry.id, std::move(head));
  }
  return heads;
}

std::vector<PlanFileEntry> readPlanFile(const std::filesystem::path& path) {
  const OpenedResults opened = openResults(path);
  return readEntries(opened.file, opened.plans, {});
}

ResultsFile readResultsFile(const std::filesystem::path& path, const Control& control) {
  const OpenedResults opened = openResults(path);
  const h5::File& file = opened.file;
  ResultsFile results;
  ResultsHeader& header = results.header;
  header.plans = opened.plans;
  header.complete = file.tryInt("complete").value_or(1) != 0;
  header.request = file.tryString("request").value_or("");
  header.seed = static_cast<std::uint64_t>(file.tryInt("seed").value_or(0));
  header.includePadding = file.tryString("padding").value_or("exclude") == "include";
  header.traceUuid = file.tryString("trace_uuid").value_or("");
  header.program = file.tryString("program").value_or("");
  header.tracePath = file.tryString("trace_path").value_or("");
  results.heads = readEntries(file, false, control);
  return results;
}

PlanFileEntry readPlanOf(const std::filesystem::path& path, const HeadId& id, const Control& control) {
  const OpenedResults opened = openResults(path);
  std::optional<PlanFileEntry> found;
  if (const auto root = opened.file.tryGroup("plan"); root && opened.plans) {
    collect(*root, kDepth, control, [&](const h5::Group& group) {
      if (!found && idOf(group) == id) found = readEntry(group, true);
    });
  }
  if (!found) {
    opened.file.failFormat(fmt::format("no plan of step {} layer {} head {}; was the file replaced?", id.call.step,
                                       id.call.layer, id.head));
  }
  return std::move(*found);
}

Draws readDraws(const std::filesystem::path& path) {
  const h5::File file = h5::File::openRead(path, "a file of draws");
  Draws draws;
  if (file.has("sampled_rows")) {
    const h5::Dataset dataset = file.openDataset("sampled_rows");
    if (dataset.info().shape.size() != 1) {
      dataset.failFormat(fmt::format("shape {}, expected [rows]", h5::shapeText(dataset.info().shape)));
    }
    draws.sampledRows = dataset.read<Index>();
  }
  draws.initQ = readHeadDraws(file, "init_q_idx");
  draws.initK = readHeadDraws(file, "init_k_idx");
  if (draws.sampledRows.empty() && draws.initQ.empty() && draws.initK.empty()) {
    throw Error(ErrorCode::Format,
                fmt::format("{}: holds no draws; expected sampled_rows [n], init_q_idx [heads, clusters] or init_k_idx",
                            path.string()));
  }
  return draws;
}

}  // namespace sparsight

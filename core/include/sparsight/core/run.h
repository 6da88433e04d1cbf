// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sparsight/core/method.h"
#include "sparsight/core/plan.h"
#include "sparsight/core/trace.h"

namespace sparsight {

/// "5", "0-3", "0,4,7", "all". Empty list = all. Throws Error{InvalidArgument}.
struct Selector {
  std::vector<std::pair<int, int>> ranges;  ///< inclusive; empty = all
  static Selector parse(std::string_view text);
  [[nodiscard]] bool contains(int value) const noexcept;
};
/// Which heads of a trace: the selectors every command shares.
struct HeadSelection {
  Selector steps, layers, heads;
  std::optional<std::string> branch;     ///< "all", or one; default: TraceInfo::defaultBranch()
  std::optional<std::string> component;  ///< default: the one that ran at that step
  std::string kind = "self";             ///< "self" also matches "joint" when no self call exists
  int call = 0;
};
/// Selected heads in run order: branch, layer, step ascending, head (a run of a method that shares its state between
/// branches walks layer, step, branch, head). Throws Error{InvalidArgument} naming the selector
/// that matches nothing and what there is.
[[nodiscard]] std::vector<HeadId> selectHeads(const TraceInfo& trace, const HeadSelection& selection);

/// One head of a run: its plan, its numbers, or why there are none.
struct HeadReport {
  HeadId id;
  Plan plan;
  Evaluation evaluation;
  double planMs = 0;
  bool wouldBeDense = false;
  std::string skippedReason;  ///< not empty: no plan, and why
  bool damaged = false;       ///< skipped because its data is malformed or cannot be read
};
struct RunRequest {
  std::string methodId;
  ParamSet params;  ///< as parsed; family defaults are merged by runMethod
  HeadSelection selection;
  std::uint64_t seed = 0;
  bool warmup = false;  ///< apply the warm-up gate
  EvaluateOptions evaluate;
  std::optional<Draws> draws;
  /// false: plans in the report lose their orders, masks and intervals once evaluated (onHead still sees them). At
  /// 100,000 tokens a plan is some 12 MiB, so a run over a whole model cannot keep them all.
  bool keepPlanArrays = true;
  /// true: of the numbers only kept fractions, starved rows and attention FLOPs, without a pass over the tensors.
  bool countsOnly = false;
  /// Heads that an interrupted run of this request has measured (readEarlierResults): they are not evaluated again, and
  /// planned again only where the method carries state on to later steps. Their plans come without arrays.
  std::map<HeadId, HeadReport> earlier;
  /// A head whose decision is watched: its stages, then its plan, each with what it was made from.
  struct Watch {
    HeadId head;
    std::function<void(Stage, const HeadData&, const PreparedHead&)> stage;
    std::function<void(const Plan&, const HeadData&, const PreparedHead&)> planned;
  };
  const Watch* watch = nullptr;  ///< nullptr: nobody watches; must outlive the run
};
struct RunReport {
  std::string methodId;
  std::map<std::string, std::string> resolved;  ///< every parameter as used, model_rule, variant, warm-up text
  WarmupGate warmup;
  std::vector<HeadReport> heads;
  std::vector<std::string> warnings;
};
/// Every parameter of `method` as it will be used on this trace: given values over family defaults over the declared
/// ones.
[[nodiscard]] ParamSet resolveParams(const Method& method, const TraceInfo& trace, const ParamSet& given);
/// The one path that GUI, CLI, tests and bench take. onHead is called after each head (any thread), in run order.
[[nodiscard]] RunReport runMethod(const Trace& trace, const RunRequest& request, Backend& backend,
                                  const Control& control, const std::function<void(const HeadReport&)>& onHead = {});

/// Attention statistics of one head (section "Numbers"): see the CLI contract for definitions.
struct HeadStats {
  HeadId id;
  Index evaluatedRows = 0, totalRows = 0;
  double lseMean = 0, entropyBits = 0, exactDensity = 0, top1Mass = 0;
  std::optional<double> sinkMass, textMass, frameLocality, temporalLocality;
  std::optional<double> exactDensityCi95;
};
struct StatsOptions {
  double mass = 0.95;
  EvaluateOptions evaluate;
};
[[nodiscard]] HeadStats computeStats(const HeadData& head, const PreparedHead& prepared, const StatsOptions& options,
                                     Backend& backend, const Control& control);

/// SVOO's exact density of one head at `mass`: mean over rows of keys needed / keys. rows as in EvaluateOptions; the
/// evenly sampled rows follow svoo/sparsity/exact.py (rounded linspace).
[[nodiscard]] double exactDensity(const HeadData& head, const PreparedHead& prepared, double mass, Index rows,
                                  bool includePadding, Backend& backend, const Control& control);

/// Plan files (format "sparsight-plan"); one group per head. Written atomically.
void writePlanFile(const std::filesystem::path& out, const Trace& trace, const RunReport& report,
                   const RunRequest& request);
/// The numbers of a run without its big arrays (format "sparsight-results"), one group per head, atomically.
/// complete = false: an interrupted run, to be gone on with.
void writeResultsFile(const std::filesystem::path& out, const Trace& trace, const RunReport& report,
                      const RunRequest& request, bool complete = true);
/// The measured heads of a results file for RunRequest::earlier. Throws Error{InvalidArgument} that says what differs
/// when the file was made from another trace, method, seed, padding, rows, warm-up or draws; runMethod checks the
/// parameters.
[[nodiscard]] std::map<HeadId, HeadReport> readEarlierResults(const std::filesystem::path& path, const Trace& trace,
                                                              const RunRequest& request);
struct PlanFileEntry {
  HeadId id;
  Plan plan;
  Evaluation evaluation;
  double planMs = 0;
  std::string skippedReason;  ///< as in HeadReport
};
/// Reads either file back; results come with plans that hold facts and class only. Plans are validated. Throws
/// Error{Io|Format|Unsupported} naming file and dataset.
[[nodiscard]] std::vector<PlanFileEntry> readPlanFile(const std::filesystem::path& path);

/// What a plan or results file says of the run in it.
struct ResultsHeader {
  bool plans = false;    ///< a plan file: heads have their arrays
  bool complete = true;  ///< false: an interrupted run
  std::string request;   ///< what decided the numbers beside trace, method and parameters, as describeRequest
  std::uint64_t seed = 0;
  bool includePadding = false;
  std::string traceUuid, program;
  std::filesystem::path tracePath;
};
struct ResultsFile {
  ResultsHeader header;
  std::vector<PlanFileEntry> heads;  ///< ascending; plans hold facts and class only, also those of a plan file
};
/// "method svg, seed 0, padding exclude, rows default, warm-up off, draws none": two runs of a method with the same
/// text and parameters give the same numbers.
[[nodiscard]] std::string describeRequest(const RunRequest& request);
/// The request that makes the plan of a head again, when only its numbers are left: the parameters it was made with,
/// the seed, padding, rows and warm-up of `made`, this head alone at `steps` (those of the run up to its own: methods
/// carry state from step to step). Throws Error{Unsupported} when the run used draws from a file.
[[nodiscard]] RunRequest requestAgain(const TraceInfo& trace, const HeadReport& head, const ResultsHeader& made,
                                      const std::vector<int>& steps);
/// Header and numbers, without the arrays of plans. Throws as readPlanFile.
[[nodiscard]] ResultsFile readResultsFile(const std::filesystem::path& path, const Control& control = {});
/// One head of a plan file with its arrays. Throws as readPlanFile, Error{Format} also when it is not in the file.
[[nodiscard]] PlanFileEntry readPlanOf(const std::filesystem::path& path, const HeadId& id,
                                       const Control& control = {});
/// Writes either file (header.plans) from heads gathered elsewhere; request, seed, padding and complete come from
/// `header`, the rest from the trace. Skipped heads go into results files only. Atomic; control stops between heads.
void writeHeads(const std::filesystem::path& out, const Trace& trace,
                std::span<const std::shared_ptr<const HeadReport>> heads, const ResultsHeader& header,
                const Control& control = {});

[[nodiscard]] Draws readDraws(const std::filesystem::path& path);

}  // namespace sparsight

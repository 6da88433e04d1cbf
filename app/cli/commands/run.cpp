// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/cli/command.h"
#include "app/cli/method_rows.h"
#include "sparsight/core/run.h"

namespace sparsight {
namespace cli {
namespace {

using Json = nlohmann::ordered_json;

Json rowOf(const HeadReport& head) {
  Json row = placeOf(head.id);
  row["would_be_dense"] = head.wouldBeDense;
  if (!head.skippedReason.empty()) {
    row["skipped_reason"] = head.skippedReason;
    return row;
  }
  const Plan& plan = head.plan;
  const Evaluation& numbers = head.evaluation;
  row["kept_fraction"] = numbers.keptFraction;
  row["blocks"] = Json{{"kept_fraction", numbers.blocksKeptFraction}};
  row["kept_mass"] = numbers.keptMass;
  row["kept_mass_p5"] = numbers.keptMassP5;
  row["output_rel_error"] = orNull(numbers.outputRelError);
  row["output_cosine"] = orNull(numbers.outputCosine);
  row["starved_rows"] = numbers.starvedRows;
  row["head_class"] = plan.headClass == HeadClass::None ? Json() : Json(headClassName(plan.headClass));
  row["mse"] = plan.mse ? Json(*plan.mse) : Json();
  row["margin"] = orNull(plan.margin);
  row["planner_flops"] = plan.plannerFlops;
  row["attention_flops"] = numbers.attentionFlops;
  row["plan_ms"] = head.planMs;
  row["evaluate_ms"] = numbers.evaluateMs;
  row["backend"] = numbers.backend;
  row["fallbacks"] = numbers.fallbacks;
  row["evaluated_rows"] = numbers.evaluatedRows;
  row["total_rows"] = numbers.totalRows;
  if (numbers.keptMassCi95) row["kept_mass_ci95"] = orNull(numbers.keptMassCi95);
  if (numbers.outputRelErrorCi95) row["output_rel_error_ci95"] = orNull(numbers.outputRelErrorCi95);
  row["reused_from_step"] = plan.reusedFromStep ? Json(*plan.reusedFromStep) : Json();
  if (!plan.facts.empty()) row["facts"] = plan.facts;
  return row;
}

Json resolvedOf(const RunReport& report) {
  Json resolved = Json::object();
  const auto specs = methodById(report.methodId).params();
  for (const auto& [key, text] : report.resolved) {
    const std::string& name = key;  // clang 14 cannot capture a structured binding
    const auto spec = std::find_if(specs.begin(), specs.end(), [&](const ParamSpec& s) { return s.name == name; });
    const bool number = name == "dense_steps" || name == "dense_layers" ||
                        (spec != specs.end() && (spec->type == ParamType::Int || spec->type == ParamType::Real));
    if (spec != specs.end() && spec->type == ParamType::Bool) {
      resolved[name] = text == "true";
      continue;
    }
    const Json parsed = number ? Json::parse(text, nullptr, false) : Json();
    resolved[name] = parsed.is_number() ? parsed : Json(text);
  }
  return resolved;
}

void printTable(const RunReport& report) {
  fmt::print("{:>5} {:>5} {:>4}  {:<9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7}  {}\n", "step", "layer", "head", "class",
             "kept", "skipped", "mass", "mass p5", "error", "margin", "note");
  for (const HeadReport& head : report.heads) {
    fmt::print("{:>5} {:>5} {:>4}  ", head.id.call.step, head.id.call.layer, head.id.head);
    if (!head.skippedReason.empty()) {
      fmt::print("skipped: {}\n", head.skippedReason);
      continue;
    }
    const Evaluation& numbers = head.evaluation;
    std::string note = head.wouldBeDense ? "warm-up: would be dense" : "";
    if (numbers.starvedRows > 0) {
      note += fmt::format("{}{} rows keep nothing", note.empty() ? "" : "; ", numbers.starvedRows);
    }
    if (numbers.keptMassCi95) {
      note += fmt::format("{}mass +-{:.2f} % from {} of {} rows", note.empty() ? "" : "; ",
                          *numbers.keptMassCi95 * 100.0, numbers.evaluatedRows, numbers.totalRows);
    }
    fmt::print("{:<9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7}  {}\n", headClassName(head.plan.headClass),
               percent(numbers.keptFraction), percent(1.0 - numbers.keptFraction), percent(numbers.keptMass),
               percent(numbers.keptMassP5),
               numbers.outputRelError ? fmt::format("{:.5f}", *numbers.outputRelError) : "no V",
               head.plan.margin ? fmt::format("{:.3f}", *head.plan.margin) : "", note);
  }
}

class RunCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("trace", m_options.trace, "Trace file");
    app.add_option("--warmup", m_warmup, "on: the first steps and layers stay dense as the method's warm-up says")
        ->check(CLI::IsMember({"off", "on"}));
    app.add_option("--draws", m_draws, "HDF5 file of random draws (sampled_rows, init_q_idx, init_k_idx)");
    app.add_option("--plan", m_plan, "Writes the plans (orders, masks, exact intervals) to this HDF5 file");
    app.add_option("--results", m_results, "Writes the numbers to this HDF5 file");
    app.add_flag("--resume", m_resume,
                 "With --results: goes on from that file where it exists, and keeps what is done when interrupted");
    app.add_flag("--json", m_json, "One JSON document on standard output");
    m_options.define(app);
  }

  int run(Context& context) override {
    RunRequest request = m_options.request("run", context);
    if (m_resume && m_results.empty()) {
      throw Error(ErrorCode::InvalidArgument, "run: --resume needs --results, the file to go on from");
    }
    if (m_resume && !m_plan.empty()) {
      throw Error(ErrorCode::InvalidArgument, "run: --resume keeps numbers only; leave out --plan");
    }
    const auto trace = openTrace(m_options.trace, context.traceOptions());
    std::vector<std::filesystem::path> inputs = filesOf(trace->info());
    inputs.emplace_back(m_draws);
    if (request.params.has("sparsity_csv_path")) inputs.emplace_back(request.params.text("sparsity_csv_path"));
    context.checkOutputs({{"--plan", m_plan}, {"--results", m_results}}, std::move(inputs));
    request.warmup = m_warmup == "on";
    request.keepPlanArrays = !m_plan.empty();
    if (!m_draws.empty()) request.draws = readDraws(m_draws);

    if (m_resume && std::filesystem::exists(m_results))
      request.earlier = readEarlierResults(m_results, *trace, request);
    RunReport report = runKeeping(*trace, request, context);
    const auto planned = std::find_if(report.heads.begin(), report.heads.end(),
                                      [](const HeadReport& head) { return head.skippedReason.empty(); });
    if (planned == report.heads.end()) {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("{}: no head could be planned; {}", m_options.trace, report.heads.front().skippedReason));
    }
    std::vector<std::string> warnings = trace->info().warnings;
    warnings.insert(warnings.end(), report.warnings.begin(), report.warnings.end());
    if (!m_plan.empty()) writePlanFile(m_plan, *trace, report, request);
    if (!m_results.empty()) writeResultsFile(m_results, *trace, report, request);
    if (m_json) {
      Json rows = Json::array();
      for (const HeadReport& head : report.heads) rows.push_back(rowOf(head));
      printJson(Json{{"trace", m_options.trace},
                     {"method", m_options.method},
                     {"resolved", resolvedOf(report)},
                     {"warnings", warnings},
                     {"rows", std::move(rows)}}
                    .dump(2));
      failOnDamaged(report);
      return kOk;
    }
    for (const std::string& warning : warnings) context.warn(warning);
    printTable(report);
    fmt::print("\nmethod {}, resolved:", m_options.method);
    const Method& method = methodById(m_options.method);
    for (const auto& [name, value] : report.resolved) {
      const std::string shown = shownName(method, name);
      const bool list = value.find(',') != std::string::npos;
      fmt::print(" {}={}", shown,
                 shown == name || list ? value : fmt::format("{:g}", shownValue(method, name, std::stod(value))));
    }
    fmt::print("\n");
    failOnDamaged(report);
    return kOk;
  }

 private:
  // With --resume an interruption leaves a results file of the heads that are done.
  [[nodiscard]] RunReport runKeeping(const Trace& trace, const RunRequest& request, Context& context) const {
    if (!m_resume) return runMethod(trace, request, context.backend(), context.control(m_options.method));
    RunReport done;
    done.methodId = m_options.method;
    try {
      return runMethod(trace, request, context.backend(), context.control(m_options.method),
                       [&](const HeadReport& head) {
                         HeadReport numbers = head;
                         numbers.plan.blockMask = {};  // the arrays are not in a results file
                         numbers.plan.rowIntervals = {};
                         numbers.plan.scores = {};
                         numbers.plan.map = {};
                         done.heads.push_back(std::move(numbers));
                       });
    } catch (const Cancelled&) {
      if (!done.heads.empty()) writeResultsFile(m_results, trace, done, request, false);
      throw;
    }
  }

  static void failOnDamaged(const RunReport& report) {
    const auto damaged = [](const HeadReport& head) { return head.damaged; };
    const auto first = std::find_if(report.heads.begin(), report.heads.end(), damaged);
    if (first == report.heads.end()) return;
    failOnDamagedHeads(static_cast<std::size_t>(std::count_if(first, report.heads.end(), damaged)), report.heads.size(),
                       first->skippedReason);
  }

  std::string m_warmup = "off", m_draws, m_plan, m_results;
  bool m_json = false, m_resume = false;
  MethodOptions m_options;
};

}  // namespace
}  // namespace cli

const CommandInfo& run_command() {
  static const CommandInfo info{"run", "Plans and evaluates a method on the selected heads, steps in order",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::RunCommand>()); }};
  return info;
}

}  // namespace sparsight

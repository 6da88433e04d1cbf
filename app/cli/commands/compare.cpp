// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "app/cli/command.h"
#include "app/cli/method_rows.h"
#include "sparsight/core/compare.h"
#include "sparsight/core/run.h"

namespace sparsight {
namespace cli {
namespace {

using Json = nlohmann::ordered_json;

Json rowOf(const std::string& method, const HeadReport& head) {
  Json row{{"method", method}};
  row.update(placeOf(head.id));
  row["would_be_dense"] = head.wouldBeDense;
  if (!head.skippedReason.empty()) {
    row["skipped_reason"] = head.skippedReason;
    return row;
  }
  const Evaluation& numbers = head.evaluation;
  row["kept_fraction"] = numbers.keptFraction;
  row["kept_mass"] = numbers.keptMass;
  row["kept_mass_p5"] = numbers.keptMassP5;
  row["output_rel_error"] = orNull(numbers.outputRelError);
  row["output_cosine"] = orNull(numbers.outputCosine);
  row["starved_rows"] = numbers.starvedRows;
  row["planner_flops"] = head.plan.plannerFlops;
  row["attention_flops"] = numbers.attentionFlops;
  row["plan_ms"] = head.planMs;
  row["evaluate_ms"] = numbers.evaluateMs;
  row["evaluated_rows"] = numbers.evaluatedRows;
  row["total_rows"] = numbers.totalRows;
  if (numbers.keptMassCi95) row["kept_mass_ci95"] = *numbers.keptMassCi95;
  return row;
}

class CompareCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("trace", m_trace, "Trace file");
    app.add_option("--methods", m_methodList, "Method ids separated by commas")->required();
    app.add_option("--param", m_params, "Parameters METHOD.name=value; see sparsight-cli methods");
    auto* kept = app.add_option("--at-kept", m_kept, "At this kept fraction, or the nearest a method can reach")
                     ->check(CLI::Range(0.0, 1.0));
    auto* mass = app.add_option("--at-mass", m_mass, "At this kept mass")->check(CLI::Range(0.0, 1.0))->excludes(kept);
    app.add_option("--at-error", m_error, "At this relative output error")
        ->check(CLI::Range(0.0, 1e6))
        ->excludes(kept)
        ->excludes(mass);
    app.add_option("--efficiency", m_efficiency, "Speed of the sparse kernel per operation, dense attention being 1")
        ->check(CLI::Range(0.01, 2.0));
    app.add_option("--warmup", m_warmup, "on: the first steps and layers stay dense")
        ->check(CLI::IsMember({"off", "on"}));
    auto* json = app.add_flag("--json", m_json, "One JSON document on standard output");
    auto* csv = app.add_flag("--csv", m_csv, "Rows as comma-separated values on standard output")->excludes(json);
    app.add_flag("--markdown", m_markdown, "The summary as a Markdown table")->excludes(json)->excludes(csv);
    m_selectors.define(app);
  }

  int run(Context& context) override {
    takeTraceFromParams("compare", m_trace, m_params);
    std::istringstream list(m_methodList);
    for (std::string id; std::getline(list, id, ',');) m_methods.push_back(id);
    std::vector<RunRequest> requests;
    for (const std::string& id : m_methods) {
      RunRequest request;
      request.methodId = id;
      request.params = ParamSet::parse(methodById(id).params(), assignmentsFor(id, m_methods, m_params));
      request.selection = m_selectors.selection();
      request.seed = context.seed;
      request.warmup = m_warmup == "on";
      request.evaluate.rows = m_selectors.rowCount();
      request.evaluate.includePadding = context.includePadding();
      request.keepPlanArrays = false;
      requests.push_back(std::move(request));
    }
    const auto trace = openTrace(m_trace, context.traceOptions());
    const Control control = context.control("compare");
    Json rows = Json::array(), summaries = Json::array();
    std::vector<std::string> warnings = trace->info().warnings;
    for (std::size_t n = 0; n < requests.size(); ++n) {
      const Control part{control.stop, [&control, n, total = requests.size()](double fraction) {
                           control.report((static_cast<double>(n) + fraction) / static_cast<double>(total));
                         }};
      const auto target = targetOf();
      // dense has nothing to move: it stands in the table as it is.
      const auto [report, solution] = compareMethod(*trace, requests[n], target, context.backend(), part);
      for (const HeadReport& head : report.heads) {
        rows.push_back(rowOf(m_methods[n], head));
        if (!solution || !head.skippedReason.empty()) continue;
        // The knob is solved for the mean; a head's own value stands beside it.
        rows.back()["asked"] = solution->asked;
        rows.back()["reached"] = rows.back()[m_kept ? "kept_fraction" : m_mass ? "kept_mass" : "output_rel_error"];
        rows.back()["quantum"] = solution->quantum;
      }
      for (const std::string& warning : report.warnings) warnings.push_back(m_methods[n] + ": " + warning);
      summaries.push_back(summaryOf(m_methods[n], report, solution));
      if (solution && solution->flagged) {
        warnings.push_back(fmt::format("{}: asked for {:.4f}, nearest reachable {:.4f} ({} = {:g})", m_methods[n],
                                       solution->asked, solution->reached, solution->knob, solution->knobValue));
      }
    }
    print(context, rows, summaries, warnings);
    return kOk;
  }

 private:
  [[nodiscard]] std::optional<BudgetTarget> targetOf() const {
    if (m_kept) return BudgetTarget{Budget::Kept, *m_kept};
    if (m_mass) return BudgetTarget{Budget::Mass, *m_mass};
    if (m_error) return BudgetTarget{Budget::Error, *m_error};
    return std::nullopt;
  }

  [[nodiscard]] Json summaryOf(const std::string& method, const RunReport& report,
                               const std::optional<Solution>& solution) const {
    const RunSummary sum = summarise(report);
    Json entry{{"method", method}, {"heads", sum.heads}, {"skipped_heads", sum.skipped}};
    if (solution) {
      entry["asked"] = solution->asked;
      entry["reached"] = solution->reached;
      entry["quantum"] = solution->quantum;
      entry["flagged"] = solution->flagged;
      entry["knob"] = solution->knob;
      entry["knob_value"] = solution->knobValue;
    }
    entry["kept_fraction"] = sum.keptFraction;
    entry["kept_mass"] = sum.keptMass;
    entry["kept_mass_p5"] = sum.keptMassP5;
    entry["output_rel_error"] = orNull(sum.outputRelError);
    entry["output_cosine"] = orNull(sum.outputCosine);
    entry["starved_rows"] = sum.starvedRows;
    entry["planner_flops"] = sum.plannerFlops;
    entry["attention_flops"] = sum.attentionFlops;
    entry["dense_attention_flops"] = sum.denseFlops;
    entry["planner_share"] = sum.plannerShare();
    entry["efficiency"] = m_efficiency;
    entry["predicted_relative_time"] = sum.relativeTime(m_efficiency);
    Json resolved = Json::object();
    for (const auto& [name, value] : report.resolved) resolved[name] = value;
    entry["resolved"] = std::move(resolved);
    return entry;
  }

  void print(const Context& context, const Json& rows, const Json& summaries,
             const std::vector<std::string>& warnings) const {
    if (m_json) {
      Json document{{"trace", m_trace}};
      if (const auto target = targetOf()) {
        document["target"] = m_kept ? "kept_fraction" : m_mass ? "kept_mass" : "output_rel_error";
        document["asked"] = target->value;
      }
      document["summary"] = summaries;
      document["warnings"] = warnings;
      document["rows"] = rows;
      printJson(document.dump(2));
      return;
    }
    for (const std::string& warning : warnings) context.warn(warning);
    if (m_csv) {
      fmt::print("{}", toCsv(rows));
      return;
    }
    const char* const line = m_markdown ? "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n"
                                        : "{:<13} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>9}  {}\n";
    const auto printLine = [&](const auto&... cells) { fmt::print(fmt::runtime(line), cells...); };
    printLine("method", "kept", "skipped", "mass", "mass p5", "error", "planner", "time", "setting");
    if (m_markdown) fmt::print("|---|---|---|---|---|---|---|---|---|\n");
    for (const Json& entry : summaries) {
      std::string setting;
      if (entry.contains("knob")) {
        const Method& method = methodById(entry["method"].get<std::string>());
        const auto knob = entry["knob"].get<std::string>();
        setting = fmt::format("{} = {:.4g}; asked {:.4f}, reached {:.4f}, quantum {:.4f}{}", shownName(method, knob),
                              shownValue(method, knob, entry["knob_value"].get<double>()), entry["asked"].get<double>(),
                              entry["reached"].get<double>(), entry["quantum"].get<double>(),
                              entry["flagged"].get<bool>() ? ": out of reach" : "");
      }
      const Json& error = entry["output_rel_error"];
      printLine(entry["method"].get<std::string>(), percent(entry["kept_fraction"]),
                percent(1.0 - entry["kept_fraction"].get<double>()), percent(entry["kept_mass"]),
                percent(entry["kept_mass_p5"]),
                error.is_null() ? std::string("no V") : fmt::format("{:.4f}", error.get<double>()),
                percent(entry["planner_share"]), percent(entry["predicted_relative_time"]), setting);
    }
    if (!m_markdown) {
      fmt::print(
          "\nMeans over the heads. planner: its operations as a share of dense attention's; time: predicted "
          "attention time relative to dense, kept / {:g} + planner.\n",
          m_efficiency);
    }
  }

  std::string m_trace, m_methodList, m_warmup = "off";
  std::vector<std::string> m_methods, m_params;
  std::optional<double> m_kept, m_mass, m_error;
  double m_efficiency = kSparseEfficiency;
  bool m_json = false, m_csv = false, m_markdown = false;
  SelectorOptions m_selectors;
};

}  // namespace
}  // namespace cli

const CommandInfo& compare_command() {
  static const CommandInfo info{"compare", "Methods side by side, at their settings or at an equal budget",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::CompareCommand>()); }};
  return info;
}

}  // namespace sparsight

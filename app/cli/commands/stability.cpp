// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "app/cli/command.h"
#include "app/cli/method_rows.h"
#include "sparsight/core/compare.h"
#include "sparsight/core/run.h"

namespace sparsight {
namespace cli {
namespace {

using Json = nlohmann::ordered_json;

// Two plans of one (layer, head) that differ in step, branch or trace.
struct Pairing {
  const char* between;
  const HeadReport* a;
  const HeadReport* b;
};

class StabilityCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("trace", m_options.trace, "Trace file");
    app.add_option("trace2", m_trace2, "A second trace (another prompt or seed) of the same model and size");
    auto* json = app.add_flag("--json", m_json, "One JSON document on standard output");
    app.add_flag("--csv", m_csv, "Rows as comma-separated values on standard output")->excludes(json);
    m_options.define(app);
  }

  int run(Context& context) override {
    RunRequest request = m_options.request("stability", context);
    if (!request.selection.branch && m_trace2.empty()) request.selection.branch = "all";
    request.countsOnly = true;  // what is kept is compared, not what it holds
    const Control control = context.control("stability");
    const double share = m_trace2.empty() ? 0.8 : 0.4;
    const auto plansOf = [&](const std::string& path, double from) {
      const auto trace = openTrace(path, context.traceOptions());
      return runMethod(*trace, request, context.backend(),
                       Control{control.stop, [&control, from, share](double f) { control.report(from + share * f); }});
    };
    const RunReport first = plansOf(m_options.trace, 0);
    const RunReport second = m_trace2.empty() ? RunReport{} : plansOf(m_trace2, share);
    const std::vector<Pairing> pairings = pairingsOf(first, second);
    if (pairings.empty()) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{}: nothing to compare: select two steps or two branches of a head, or give a second "
                              "trace with the same steps, layers and heads",
                              m_options.trace));
    }
    Json rows = Json::array();
    for (std::size_t n = 0; n < pairings.size(); ++n) {
      rows.push_back(rowOf(pairings[n], control));
      control.report(0.8 + 0.2 * static_cast<double>(n + 1) / static_cast<double>(pairings.size()));
    }
    std::vector<std::string> warnings = first.warnings;
    warnings.insert(warnings.end(), second.warnings.begin(), second.warnings.end());
    print(context, rows, summaryOf(rows), warnings);
    return kOk;
  }

 private:
  // Neighbouring steps of a head, branches of a step, and the same head in the two traces.
  static std::vector<Pairing> pairingsOf(const RunReport& first, const RunReport& second) {
    std::vector<Pairing> out;
    std::vector<const HeadReport*> planned;
    for (const HeadReport& head : first.heads) {
      if (head.skippedReason.empty()) planned.push_back(&head);
    }
    const auto at = [](const HeadReport* r) {
      return std::tie(r->id.call.layer, r->id.call.kind, r->id.call.call, r->id.head);
    };
    for (const HeadReport* a : planned) {
      const HeadReport* next = nullptr;
      for (const HeadReport* b : planned) {
        if (at(a) != at(b)) continue;
        if (a->id.call.branch == b->id.call.branch && b->id.call.step > a->id.call.step &&
            (next == nullptr || b->id.call.step < next->id.call.step)) {
          next = b;
        }
        if (a->id.call.step == b->id.call.step && a->id.call.branch < b->id.call.branch)
          out.push_back({"branches", a, b});
      }
      if (next != nullptr) out.push_back({"steps", a, next});
      for (const HeadReport& b : second.heads) {
        if (b.skippedReason.empty() && b.id == a->id) out.push_back({"traces", a, &b});
      }
    }
    return out;
  }

  [[nodiscard]] Json rowOf(const Pairing& pairing, const Control& control) const {
    const Overlap overlap = overlapOf(pairing.a->plan, pairing.b->plan, m_options.selectors.rowCount(), control);
    Json row{{"between", pairing.between}};
    row.update(placeOf(pairing.a->id));
    row["other_step"] = pairing.b->id.call.step;
    row["other_branch"] = pairing.b->id.call.branch;
    row["jaccard"] = overlap.jaccard;
    row["covered"] = overlap.covered;
    row["kept_fraction"] = pairing.a->evaluation.keptFraction;
    row["other_kept_fraction"] = pairing.b->evaluation.keptFraction;
    const HeadClass a = pairing.a->plan.headClass;
    const HeadClass b = pairing.b->plan.headClass;
    row["class"] = a == HeadClass::None ? Json() : Json(headClassName(a));
    row["other_class"] = b == HeadClass::None ? Json() : Json(headClassName(b));
    row["same_class"] = a == HeadClass::None || b == HeadClass::None ? Json() : Json(a == b);
    row["compared_rows"] = overlap.rows;
    return row;
  }

  static Json summaryOf(const Json& rows) {
    Json summary = Json::array();
    for (const char* between : {"steps", "branches", "traces"}) {
      double jaccard = 0, covered = 0, same = 0;
      int count = 0, classed = 0;
      for (const Json& row : rows) {
        if (row["between"] != between) continue;
        ++count;
        jaccard += row["jaccard"].get<double>();
        covered += row["covered"].get<double>();
        if (row["same_class"].is_null()) continue;
        ++classed;
        same += row["same_class"].get<bool>() ? 1 : 0;
      }
      if (count == 0) continue;
      summary.push_back({{"between", between},
                         {"pairs", count},
                         {"jaccard", jaccard / count},
                         {"covered", covered / count},
                         {"same_class", classed > 0 ? Json(same / classed) : Json()}});
    }
    return summary;
  }

  void print(const Context& context, const Json& rows, const Json& summary,
             const std::vector<std::string>& warnings) const {
    if (m_json) {
      printJson(Json{
          {"trace", m_options.trace},
          {"trace2", m_trace2.empty() ? Json() : Json(m_trace2)},
          {"method", m_options.method},
          {"summary", summary},
          {"warnings", warnings},
          {"rows",
           rows}}.dump(2));
      return;
    }
    for (const std::string& warning : warnings) context.warn(warning);
    if (m_csv) {
      fmt::print("{}", toCsv(rows));
      return;
    }
    fmt::print("{:<9} {:>5} {:>5} {:>4}  {:<14} {:>8} {:>8}  {}\n", "between", "step", "layer", "head", "other",
               "jaccard", "covered", "class");
    for (const Json& row : rows) {
      std::string classes = row["class"].is_null() ? "" : row["class"].get<std::string>();
      if (!row["same_class"].is_null() && !row["same_class"].get<bool>()) {
        classes += " / " + row["other_class"].get<std::string>();
      }
      fmt::print("{:<9} {:>5} {:>5} {:>4}  {:<14} {:>8.3f} {:>8.3f}  {}\n", row["between"].get<std::string>(),
                 row["step"].get<int>(), row["layer"].get<int>(), row["head"].get<int>(),
                 fmt::format("{} {}", row["other_branch"].get<std::string>(), row["other_step"].get<int>()),
                 row["jaccard"].get<double>(), row["covered"].get<double>(), classes);
    }
    fmt::print("\n");
    for (const Json& entry : summary) {
      fmt::print("between {}: {} pairs, mean Jaccard {:.3f}, covered {:.3f}{}\n", entry["between"].get<std::string>(),
                 entry["pairs"].get<int>(), entry["jaccard"].get<double>(), entry["covered"].get<double>(),
                 entry["same_class"].is_null()
                     ? std::string()
                     : fmt::format(", same class in {}", percent(entry["same_class"].get<double>())));
    }
    fmt::print(
        "Jaccard: kept pairs in common / kept in either; covered: share of the first's pairs that the other "
        "keeps.\n");
  }

  std::string m_trace2;
  bool m_json = false, m_csv = false;
  MethodOptions m_options;
};

}  // namespace
}  // namespace cli

const CommandInfo& stability_command() {
  static const CommandInfo info{
      "stability", "How alike a method's kept pairs and classes are between steps, branches, traces",
      [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::StabilityCommand>()); }};
  return info;
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/cli/command.h"
#include "app/cli/method_rows.h"
#include "sparsight/core/compare.h"
#include "sparsight/core/response.h"
#include "sparsight/core/run.h"

namespace sparsight {
namespace cli {
namespace {

using Json = nlohmann::ordered_json;

class CurveCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("trace", m_options.trace, "Trace file");
    app.add_option("--points", m_points, "Settings of the method's knob, evenly spaced over its range")
        ->check(CLI::Range(2, 1001));
    app.add_option("--at", m_at, "Only what these kept fractions lead to, between the measured points")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::Range(0.0, 1.0));
    app.add_flag("--no-cache", m_noCache, "Neither reads nor writes TRACE.curves beside the trace");
    auto* json = app.add_flag("--json", m_json, "One JSON document on standard output");
    app.add_flag("--csv", m_csv, "Rows as comma-separated values on standard output")->excludes(json);
    m_options.define(app);
  }

  int run(Context& context) override {
    const RunRequest request = m_options.request("curve", context);
    const auto trace = openTrace(m_options.trace, context.traceOptions());
    KeptCurves kept;
    if (m_noCache) {
      kept.curves = responseCurves(*trace, request, m_points, context.backend(), context.control("curve"));
    } else {
      kept = keptCurves(*trace, request, m_points, context.backend(), context.control("curve"));
    }
    for (const std::string& warning : kept.warnings) context.warn(warning);
    print(kept.curves, kept.fromFile ? curvePath(*trace, request, m_points).string() : std::string());
    return kOk;
  }

 private:
  void print(const std::vector<HeadCurve>& curves, const std::string& from) const {
    Json rows = Json::array();
    const std::string knob = methodById(m_options.method).knob()->name;
    for (const HeadCurve& curve : curves) {
      std::vector<CurvePoint> points = curve.points;
      if (!m_at.empty()) {
        points.clear();
        for (const double kept : m_at) points.push_back(curve.at(kept));
      }
      for (const CurvePoint& point : points) {
        Json row = placeOf(curve.id);
        row["knob"] = knob;
        row["knob_value"] = point.knob;
        row["kept_fraction"] = point.kept;
        row["kept_mass"] = point.mass;
        row["kept_mass_p5"] = point.massP5;
        row["output_rel_error"] = orNull(point.error);
        rows.push_back(std::move(row));
      }
    }
    if (m_json) {
      printJson(Json{
          {"trace", m_options.trace},
          {"method", m_options.method},
          {"knob", knob},
          {"cached", from.empty() ? Json() : Json(from)},
          {"rows",
           rows}}.dump(2));
      return;
    }
    if (m_csv) {
      fmt::print("{}", toCsv(rows));
      return;
    }
    // "asked": the knob where it is a kept fraction itself, beside the one reached.
    const Method& method = methodById(m_options.method);
    const std::string shown = shownName(method, knob);
    fmt::print("{:>5} {:>5} {:>4}  {:>12} {:>8} {:>8} {:>8} {:>8} {:>9}\n", "step", "layer", "head",
               shown == "kept" ? "asked" : shown, "kept", "skipped", "mass", "mass p5", "error");
    for (const Json& row : rows) {
      const Json& error = row["output_rel_error"];
      fmt::print("{:>5} {:>5} {:>4}  {:>12.5g} {:>8} {:>8} {:>8} {:>8} {:>9}\n", row["step"].get<int>(),
                 row["layer"].get<int>(), row["head"].get<int>(),
                 shownValue(method, knob, row["knob_value"].get<double>()), percent(row["kept_fraction"]),
                 percent(1.0 - row["kept_fraction"].get<double>()), percent(row["kept_mass"]),
                 percent(row["kept_mass_p5"]),
                 error.is_null() ? std::string("no V") : fmt::format("{:.5f}", error.get<double>()));
    }
  }

  std::vector<double> m_at;
  int m_points = kCurvePoints;
  bool m_noCache = false, m_json = false, m_csv = false;
  MethodOptions m_options;
};

}  // namespace
}  // namespace cli

const CommandInfo& curve_command() {
  static const CommandInfo info{"curve", "Kept fraction against kept mass and output error, per head",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::CurveCommand>()); }};
  return info;
}

}  // namespace sparsight

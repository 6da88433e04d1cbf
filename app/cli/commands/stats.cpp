// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "app/cli/command.h"
#include "sparsight/core/head_feed.h"
#include "sparsight/core/run.h"

namespace sparsight {
namespace cli {
namespace {

using Json = nlohmann::ordered_json;

struct Metric {
  const char* name;
  std::optional<double> (*value)(const HeadStats&);
};
constexpr std::array<Metric, 8> kMetrics{{
    {"lse_mean", [](const HeadStats& s) { return std::optional<double>(s.lseMean); }},
    {"entropy_bits", [](const HeadStats& s) { return std::optional<double>(s.entropyBits); }},
    {"exact_density", [](const HeadStats& s) { return std::optional<double>(s.exactDensity); }},
    {"top1_mass", [](const HeadStats& s) { return std::optional<double>(s.top1Mass); }},
    {"sink_mass", [](const HeadStats& s) { return s.sinkMass; }},
    {"text_mass", [](const HeadStats& s) { return s.textMass; }},
    {"frame_locality", [](const HeadStats& s) { return s.frameLocality; }},
    {"temporal_locality", [](const HeadStats& s) { return s.temporalLocality; }},
}};

struct Row {
  HeadStats stats;
  std::string skippedReason;
  bool damaged = false;
};

class StatsCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("trace", m_trace, "Trace file")->required();
    app.add_option("--metric", m_metrics, "Only these metrics, separated by commas")->delimiter(',');
    app.add_option("--mass", m_mass, "Share of a row's probability that exact_density counts keys for")
        ->check(CLI::Range(1e-9, 1.0));
    auto* json = app.add_flag("--json", m_json, "One JSON document on standard output");
    app.add_flag("--csv", m_csv, "Comma-separated values on standard output")->excludes(json);
    m_selectors.define(app);
  }

  int run(Context& context) override {
    const std::vector<const Metric*> metrics = chosenMetrics();
    const auto trace = openTrace(m_trace, context.traceOptions());
    const std::vector<HeadId> heads = selectHeads(trace->info(), m_selectors.selection());
    StatsOptions options;
    options.mass = m_mass;
    options.evaluate.rows = m_selectors.rowCount();
    options.evaluate.includePadding = context.includePadding();
    const Control control = context.control("stats");
    Backend& backend = context.backend();

    HeadFeed feed(*trace, backend, heads, options.evaluate.includePadding, control.stop);
    std::vector<Row> rows;
    for (std::size_t n = 0; n < heads.size(); ++n) {
      control.checkpoint();
      Row row;
      row.stats.id = heads[n];
      const Control part{control.stop, [&control, n, total = heads.size()](double fraction) {
                           control.report((static_cast<double>(n) + fraction) / static_cast<double>(total));
                         }};
      try {
        feed.release(n);
        const auto& [head, prepared] = feed.at(n);
        row.stats = computeStats(head, *prepared, options, backend, part);
      } catch (const Error& error) {
        if (error.code() == ErrorCode::Internal || error.code() == ErrorCode::Device) throw;
        if (heads.size() == 1) throw;
        row.skippedReason = error.what();
        row.damaged = isDamage(trace->info(), heads[n], error);
      }
      control.report(static_cast<double>(n + 1) / static_cast<double>(heads.size()));
      rows.push_back(std::move(row));
    }
    if (std::all_of(rows.begin(), rows.end(), [](const Row& row) { return !row.skippedReason.empty(); })) {
      throw Error(ErrorCode::Format, fmt::format("{}: no head could be read; {}", m_trace, rows.front().skippedReason));
    }
    print(context, *trace, rows, metrics);
    const auto damaged = [](const Row& row) { return row.damaged; };
    const auto first = std::find_if(rows.begin(), rows.end(), damaged);
    if (first != rows.end()) {
      failOnDamagedHeads(static_cast<std::size_t>(std::count_if(first, rows.end(), damaged)), rows.size(),
                         first->skippedReason);
    }
    return kOk;
  }

 private:
  [[nodiscard]] std::vector<const Metric*> chosenMetrics() const {
    std::vector<const Metric*> chosen;
    for (const std::string& name : m_metrics) {
      const auto metric =
          std::find_if(kMetrics.begin(), kMetrics.end(), [&](const Metric& known) { return name == known.name; });
      if (metric == kMetrics.end()) {
        std::vector<std::string> known;
        for (const Metric& candidate : kMetrics) known.emplace_back(candidate.name);
        throw Error(ErrorCode::InvalidArgument,
                    fmt::format("--metric {}: unknown; there are {}", name, fmt::join(known, ", ")));
      }
      chosen.push_back(&*metric);
    }
    if (chosen.empty()) {
      for (const Metric& metric : kMetrics) chosen.push_back(&metric);
    }
    return chosen;
  }

  void print(const Context& context, const Trace& trace, const std::vector<Row>& rows,
             const std::vector<const Metric*>& metrics) const {
    const bool density = std::any_of(metrics.begin(), metrics.end(), [](const Metric* metric) {
      return std::string_view(metric->name) == "exact_density";
    });
    if (m_json) {
      Json list = Json::array();
      for (const Row& row : rows) {
        const HeadId& id = row.stats.id;
        Json entry{{"step", id.call.step}, {"branch", id.call.branch}, {"layer", id.call.layer}, {"head", id.head}};
        if (!row.skippedReason.empty()) {
          entry["skipped_reason"] = row.skippedReason;
          list.push_back(std::move(entry));
          continue;
        }
        for (const Metric* metric : metrics) {
          const auto value = metric->value(row.stats);
          entry[metric->name] = value && std::isfinite(*value) ? Json(*value) : Json();
        }
        if (density && row.stats.exactDensityCi95) entry["exact_density_ci95"] = *row.stats.exactDensityCi95;
        entry["evaluated_rows"] = row.stats.evaluatedRows;
        entry["total_rows"] = row.stats.totalRows;
        list.push_back(std::move(entry));
      }
      printJson(Json{{"trace", m_trace},
                     {"mass", m_mass},
                     {"padding", context.padding},
                     {"warnings", trace.info().warnings},
                     {"rows", std::move(list)}}
                    .dump(2));
      return;
    }
    for (const std::string& warning : trace.info().warnings) context.warn(warning);
    for (const Row& row : rows) {
      if (row.skippedReason.empty()) continue;
      context.warn(fmt::format("step {} layer {} head {} skipped: {}", row.stats.id.call.step, row.stats.id.call.layer,
                               row.stats.id.head, row.skippedReason));
    }
    std::string text = m_csv ? "step,branch,layer,head" : fmt::format("{:>5} {:>5} {:>4}", "step", "layer", "head");
    for (const Metric* metric : metrics)
      text += m_csv ? fmt::format(",{}", metric->name) : fmt::format(" {:>17}", metric->name);
    text += m_csv ? ",evaluated_rows\n" : fmt::format(" {:>8}\n", "rows");
    for (const Row& row : rows) {
      if (!row.skippedReason.empty()) continue;
      const HeadId& id = row.stats.id;
      text += m_csv ? fmt::format("{},{},{},{}", id.call.step, id.call.branch, id.call.layer, id.head)
                    : fmt::format("{:>5} {:>5} {:>4}", id.call.step, id.call.layer, id.head);
      for (const Metric* metric : metrics) {
        const auto value = metric->value(row.stats);
        const std::string number = !value ? "" : m_csv ? fmt::format("{}", *value) : fmt::format("{:.5f}", *value);
        text += m_csv ? "," + number : fmt::format(" {:>17}", number);
      }
      text += m_csv ? fmt::format(",{}\n", row.stats.evaluatedRows) : fmt::format(" {:>8}\n", row.stats.evaluatedRows);
    }
    printJson(text);
  }

  std::string m_trace;
  std::vector<std::string> m_metrics;
  double m_mass = 0.95;
  bool m_json = false, m_csv = false;
  SelectorOptions m_selectors;
};

}  // namespace
}  // namespace cli

const CommandInfo& stats_command() {
  static const CommandInfo info{"stats",
                                "Attention statistics per head: LSE, entropy, exact density, masses, localities",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::StatsCommand>()); }};
  return info;
}

}  // namespace sparsight

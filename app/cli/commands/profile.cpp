// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/profile.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/cli/command.h"
#include "sparsight/core/files.h"
#include "sparsight/core/profiling.h"

namespace sparsight {
namespace cli {
namespace {

/// "0-3, 7"
std::string listText(const std::vector<int>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    if (!text.empty()) text += ", ";
    text += last == i ? fmt::format("{}", numbers[i]) : fmt::format("{}-{}", numbers[i], numbers[last]);
    i = last + 1;
  }
  return text;
}

/// Which cells have no value, in as few lines as it takes: whole steps, whole layers, then the number of the rest.
std::vector<std::string> holeLines(const Profile& p) {
  std::vector<int> emptySteps, emptyLayers;
  Index explained = 0;
  for (int s = 0; s < p.steps(); ++s) {
    Index holes = 0;
    for (int l = 0; l < p.layers(); ++l) holes += summariseLayer(p, l, s).holes;
    if (holes == Index{p.layers()} * p.heads()) {
      emptySteps.push_back(s);
      explained += holes;
    }
  }
  for (int l = 0; l < p.layers(); ++l) {
    if (summariseLayer(p, l).count == 0) {
      emptyLayers.push_back(l);
      explained += Index{p.steps() - static_cast<int>(emptySteps.size())} * p.heads();
    }
  }
  std::vector<std::string> lines;
  if (!emptySteps.empty()) lines.push_back("no head at step indices " + listText(emptySteps));
  if (!emptyLayers.empty()) lines.push_back("no head in layers " + listText(emptyLayers));
  if (const Index rest = p.holeCount() - explained; rest > 0) {
    lines.push_back(fmt::format("{} more single heads without a value", rest));
  }
  return lines;
}

class ProfileCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    m_app = &app;
    app.add_option("traces", m_traces, "Trace files of one model and schedule, one per prompt")->required();
    app.add_option("--mass", m_mass, "Share of a row's probability that the counted keys must reach")
        ->check(CLI::Range(1e-9, 1.0));
    app.add_option("--merge", m_merge, "How traces are combined: max (SVOO's code), mean, gauss (mean + 1.645 sigma)")
        ->check(CLI::IsMember({"max", "mean", "gauss"}));
    app.add_option("--out", m_out, "Profile to write: P.csv (SVOO) or P.json")->required();
    app.add_option("--resume", m_resume, "Keeps finished heads in this file; a second call with it continues");
    app.add_flag("--json", m_json, "One JSON document on standard output");
    m_selectors.define(app);
    app.footer("Padding counts by default here, as in SVOO's own profiling; --padding exclude leaves it out.");
  }

  int run(Context& context) override {
    const std::string extension = std::filesystem::path(m_out).extension().string();
    if (extension != ".csv" && extension != ".json") {
      throw Error(ErrorCode::InvalidArgument, fmt::format("--out {}: the name must end with .csv or .json", m_out));
    }
    context.checkOutputs({{"--out", m_out}, {"--resume", m_resume}}, {m_traces.begin(), m_traces.end()});
    ProfilingRequest request;
    request.traces.assign(m_traces.begin(), m_traces.end());
    request.mass = m_mass;
    request.merge = m_merge == "max" ? MergeRule::Max : m_merge == "mean" ? MergeRule::Mean : MergeRule::Gauss;
    request.selection = m_selectors.selection();
    request.rows = m_selectors.rowCount();
    request.includePadding = !paddingGiven() || context.includePadding();
    request.traceOptions = context.traceOptions();
    request.resumeFile = m_resume;
    std::vector<std::string> warnings, damaged;
    const Profile measured = profileTraces(request, context.backend(), context.control("profile"), &warnings, &damaged);
    for (const std::string& warning : warnings) context.warn(warning);

    Profile profile = measured;
    profile.provenance.program = context.program;
    const Index holes = profile.holeCount();
    writeFileAtomically(m_out, extension == ".csv" ? formatSvooCsv(profile, true) : formatProfileJson(profile));
    if (!m_resume.empty()) {
      std::error_code ignored;
      std::filesystem::remove(m_resume, ignored);
    }
    print(profile, holes, extension == ".csv", warnings);
    if (!damaged.empty()) {
      const auto cells = static_cast<std::size_t>(summarise(measured).count);
      failOnDamagedHeads(damaged.size(), damaged.size() + cells, damaged.front());
    }
    return kOk;
  }

 private:
  [[nodiscard]] bool paddingGiven() const {
    const CLI::App* root = m_app->get_parent();
    const CLI::Option* option = root == nullptr ? nullptr : root->get_option_no_throw("--padding");
    return option != nullptr && option->count() > 0;
  }

  void print(const Profile& profile, Index holes, bool csv, const std::vector<std::string>& warnings) const {
    const ProfileSummary all = summarise(profile);
    const std::vector<std::string> lines = holeLines(profile);
    const std::filesystem::path full = std::filesystem::path(m_out).replace_extension(".json");
    if (m_json) {
      nlohmann::ordered_json document;
      document["out"] = m_out;
      document["steps"] = profile.steps();
      document["layers"] = profile.layers();
      document["heads"] = profile.heads();
      document["values"] = all.count;
      document["holes"] = holes;
      document["missing"] = lines;
      document["kept_fraction"] = {{"mean", all.mean}, {"min", all.min}, {"max", all.max}};
      document["parameters"] = profile.provenance.parameters;
      document["trace_ids"] = profile.provenance.traceIds;
      document["warnings"] = warnings;
      printJson(document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
      return;
    }
    std::string text = fmt::format(
        "{}: {} steps x {} layers x {} heads, kept {:.1f} % on average (skipped {:.1f} %), {:.1f}-{:.1f} %\n", m_out,
        profile.steps(), profile.layers(), profile.heads(), 100 * all.mean, 100 - 100 * all.mean, 100 * all.min,
        100 * all.max);
    if (holes > 0) {
      text += fmt::format("{} of {} cells were not captured and are without a value:\n", holes, profile.cellCount());
      for (const std::string& line : lines) text += fmt::format("  {}\n", line);
      const std::string next =
          fmt::format("sparsight-cli export {} --to svoo-csv --fill nearest --out {}", full.string(),
                      std::filesystem::path(full).replace_extension(".full.csv").string());
      text += csv ? fmt::format(
                        "Their rows are left out of the CSV, and with them the size of the grid. Runtimes need a "
                        "complete one: write {} instead, then {}\n",
                        full.string(), next)
                  : fmt::format("Runtimes need a complete grid: {}\n", next);
    }
    printJson(text);
  }

  const CLI::App* m_app = nullptr;
  std::vector<std::string> m_traces;
  double m_mass = 0.95;
  std::string m_merge = "max", m_out, m_resume;
  bool m_json = false;
  SelectorOptions m_selectors;
};

}  // namespace
}  // namespace cli

const CommandInfo& profile_command() {
  static const CommandInfo info{"profile",
                                "SVOO's offline profiling: keys needed per step, layer and head, over traces",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::ProfileCommand>()); }};
  return info;
}

}  // namespace sparsight

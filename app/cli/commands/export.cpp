// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/cli/command.h"
#include "sparsight/core/exporter.h"
#include "sparsight/core/files.h"
#include "sparsight/core/profile.h"

namespace sparsight {
namespace cli {
namespace {

/// "svoo-csv, json, ..."
std::string targets() {
  std::string list;
  for (const Exporter* exporter : allExporters()) list += fmt::format("{}{}", list.empty() ? "" : ", ", exporter->id());
  return list;
}

/// What each target writes and takes, for --help.
std::string targetHelp() {
  std::string text = "\nTargets:\n";
  for (const Exporter* exporter : allExporters()) {
    text += fmt::format("  {:<12} {}\n", exporter->id(), exporter->summary());
    std::string line = "               --param";
    for (const ParamSpec& spec : exporter->params()) {
      const std::string word = fmt::format(" {}={}", spec.name, spec.defaultValue);
      if (line.size() + word.size() > 118) {
        text += line + "\n";
        line = "                      ";
      }
      line += word;
    }
    if (!exporter->params().empty()) text += line + "\n";
    std::string models;
    for (const ExportModel& model : exporter->models()) models += (models.empty() ? "" : " ") + model.key;
    if (!models.empty()) text += fmt::format("               --model {}\n", models);
  }
  return text;
}

std::optional<double> fractionOf(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || !(value >= 0 && value <= 1)) {
    return std::nullopt;
  }
  return value;
}

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;

class ExportCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("profile", m_profile, "Profile: SVOO CSV or Sparsight JSON")->required();
    app.add_option("--to", m_to, "Target: " + targets())->required();
    app.add_option("--model", m_model,
                   "Model key of the target, for its own values, checks and the line that loads it");
    m_fillOption = app.add_option("--fill", m_fill,
                                  "Cells without a value: refuse, nearest (step), hold (the step before) or value=x");
    app.add_option("--param", m_params, "k=v: what the target takes, see below");
    app.add_option("--out", m_out, "File to write; companions lie beside it")->required();
    app.add_flag("--json", m_json, "One JSON document on standard output");
    app.footer(targetHelp());
  }

  int run(Context& context) override {
    const Exporter& exporter = exporterById(m_to);
    parseFill();
    context.checkOutputs({{"--out", m_out}}, {m_profile});
    std::vector<CsvIssue> issues;
    const Profile profile = readProfile(m_profile, &issues);
    for (const CsvIssue& issue : issues) {
      m_warnings.push_back(
          fmt::format("{}: line {}, column {}: {}", m_profile, issue.line, issue.column, issue.message));
    }
    ExportInput input{profile, m_profile,   m_model, ParamSet::parse(exporter.params(), m_params),
                      {},      m_fillValue, m_out};
    if (m_fillOption->count() > 0) input.fill = m_policy;
    refuseHoles(exporter, profile);
    const ExportOutput output = prepareExport(exporter, std::move(input));
    checkCompanions(context, output);
    writeExport(output);
    m_warnings.insert(m_warnings.end(), output.warnings.begin(), output.warnings.end());
    for (const std::string& warning : m_warnings) context.warn(warning);
    print(profile, output);
    return kOk;
  }

 private:
  void parseFill() {
    if (m_fill == "refuse") {
      m_policy = FillPolicy::Refuse;
    } else if (m_fill == "nearest") {
      m_policy = FillPolicy::Nearest;
    } else if (m_fill == "hold") {
      m_policy = FillPolicy::Hold;
    } else if (const auto value =
                   m_fill.rfind("value=", 0) == 0 ? fractionOf(std::string_view(m_fill).substr(6)) : std::nullopt) {
      m_policy = FillPolicy::Value;
      m_fillValue = *value;
    } else {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("--fill {}: use refuse, nearest, hold or value=x with x between 0 and 1", m_fill));
    }
  }

  // With the command that mends it, ready to be pasted.
  void refuseHoles(const Exporter& exporter, const Profile& profile) const {
    const Index holes = profile.holeCount();
    if (holes == 0 || m_policy != FillPolicy::Refuse || (m_fillOption->count() == 0 && !exporter.wantsWholeGrid())) {
      return;
    }
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("{}: {} of {} cells are without a value, and runtimes ignore incomplete profiles; run: "
                            "sparsight-cli export {} --to {}{} --fill nearest --out {} (or --fill hold, --fill "
                            "value=0.1)",
                            m_profile, holes, profile.cellCount(), shellWord(m_profile), m_to,
                            m_model.empty() ? "" : " --model " + m_model, shellWord(m_out)));
  }

  // A second export of the same name replaces its own companions; nothing else is replaced unasked.
  void checkCompanions(Context& context, const ExportOutput& output) const {
    const bool again = std::filesystem::exists(m_out);
    for (std::size_t i = 1; i < output.files.size(); ++i) {
      const std::string path = output.files[i].path.string();
      context.checkOutputs({{"a file beside --out", path}}, {m_profile});
      if (again || !std::filesystem::exists(path)) continue;
      if (readWholeFile(path, kMostBytes) == output.files[i].content) continue;
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{}: exists, and exporting {} would replace it; choose another --out or move it away",
                              path, m_out));
    }
  }

  void print(const Profile& profile, const ExportOutput& output) const {
    const Index values = profile.cellCount() - output.holes;
    if (m_json) {
      nlohmann::ordered_json document;
      document["files"] = nlohmann::ordered_json::array();
      for (const ExportFile& file : output.files) document["files"].push_back(file.path.string());
      document["to"] = m_to;
      document["steps"] = profile.steps();
      document["layers"] = profile.layers();
      document["heads"] = profile.heads();
      document["values"] = values;
      document["filled"] = output.filled;
      document["holes"] = output.holes;
      document["load"] = output.load;
      document["notes"] = output.notes;
      document["warnings"] = m_warnings;
      printJson(document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
      return;
    }
    std::string text = fmt::format("{}: {} steps x {} layers x {} heads, {} values, ", m_out, profile.steps(),
                                   profile.layers(), profile.heads(), values);
    text += profile.role == BudgetRole::TopMass ? fmt::format("top-p mass {:.1f} % on average\n", 100 * output.mean)
                                                : fmt::format("kept {:.1f} % on average (skipped {:.1f} %)\n",
                                                              100 * output.mean, 100 - 100 * output.mean);
    for (std::size_t i = 1; i < output.files.size(); ++i) {
      text += fmt::format("{}: beside it\n", output.files[i].path.string());
    }
    if (output.filled > 0) text += fmt::format("{} cells were filled ({})\n", output.filled, m_fill);
    if (output.holes > 0) text += fmt::format("{} cells stay without a value\n", output.holes);
    text += output.load.size() == 1 ? "Load it with:\n" : "Load it with the line that fits:\n";
    for (const std::string& line : output.load) text += fmt::format("  {}\n", line);
    for (const std::string& note : output.notes) text += note + "\n";
    printJson(text);
  }

  std::string m_profile, m_to, m_model, m_fill = "refuse", m_out;
  std::vector<std::string> m_params, m_warnings;
  const CLI::Option* m_fillOption = nullptr;
  FillPolicy m_policy = FillPolicy::Refuse;
  double m_fillValue = 0;
  bool m_json = false;
};

}  // namespace
}  // namespace cli

const CommandInfo& export_command() {
  static const CommandInfo info{"export",
                                "Writes what a runtime loads from a profile, and prints the line that loads it",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::ExportCommand>()); }};
  return info;
}

}  // namespace sparsight

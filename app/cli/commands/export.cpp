// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/cli/command.h"
#include "sparsight/core/files.h"
#include "sparsight/core/profile.h"

namespace sparsight {
namespace cli {
namespace {

constexpr std::array<std::string_view, 5> kTargets{"svoo-csv", "json", "sparsevideo", "svg-cli", "svoo-cli"};

std::optional<double> fractionOf(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || !(value >= 0 && value <= 1)) {
    return std::nullopt;
  }
  return value;
}

/// As a shell would need it.
std::string shellWord(const std::string& text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_-./=+,:@%").find(c) != std::string::npos;
  });
  if (plain) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

class ExportCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("profile", m_profile, "Profile: SVOO CSV or Sparsight JSON")->required();
    app.add_option("--to", m_to, "Target: svoo-csv or json")->required();
    app.add_option("--model", m_model, "Model key, for checks and the line that loads the file, e.g. wan21_t2v_14b");
    m_fillOption = app.add_option("--fill", m_fill,
                                  "Cells without a value: refuse, nearest (step), hold (the step before) or value=x");
    app.add_option("--param", m_params, "k=v: dynamic_min_kc_ratio_min or _max of the line that loads the file");
    app.add_option("--out", m_out, "File to write")->required();
    app.add_flag("--json", m_json, "One JSON document on standard output");
  }

  int run(Context& context) override {
    checkTarget();
    parseFill();
    parseParams();
    context.checkOutputs({{"--out", m_out}}, {m_profile});
    const SvooModel* model = findModel();
    std::vector<CsvIssue> issues;
    const Profile opened = readProfile(m_profile, &issues);
    for (const CsvIssue& issue : issues) {
      m_warnings.push_back(
          fmt::format("{}: line {}, column {}: {}", m_profile, issue.line, issue.column, issue.message));
    }
    const bool csv = m_to == "svoo-csv";
    if (csv && opened.role == BudgetRole::TopMass) {
      throw Error(
          ErrorCode::InvalidArgument,
          fmt::format("{}: its values are top-p masses, but SVOO reads kept fractions from its CSV; export a profile "
                      "of kept fractions",
                      m_profile));
    }
    if (model != nullptr) checkModel(*model, opened);
    const Index holes = opened.holeCount();
    // Our own format has holes; only runtimes do not.
    const bool keepHoles = !csv && m_fillOption->count() == 0;
    const Profile profile = keepHoles ? opened : filled(opened);
    writeFileAtomically(m_out, csv ? formatSvooCsv(profile) : formatProfileJson(profile));
    for (const std::string& warning : m_warnings) context.warn(warning);
    print(profile, keepHoles ? 0 : holes, model);
    return kOk;
  }

 private:
  void checkTarget() const {
    if (m_to == "svoo-csv" || m_to == "json") return;
    if (std::find(kTargets.begin(), kTargets.end(), m_to) != kTargets.end()) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("--to {} is not in this version; use svoo-csv or json", m_to));
    }
    throw Error(ErrorCode::InvalidArgument, fmt::format("--to {}: unknown; use svoo-csv or json", m_to));
  }

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

  void parseParams() {
    for (const std::string& param : m_params) {
      const std::size_t equals = param.find('=');
      const std::string name = param.substr(0, equals);
      double* target = name == "dynamic_min_kc_ratio_min"   ? &m_low
                       : name == "dynamic_min_kc_ratio_max" ? &m_high
                                                            : nullptr;
      if (target == nullptr || equals == std::string::npos) {
        throw Error(
            ErrorCode::InvalidArgument,
            fmt::format("--param {}: this target takes dynamic_min_kc_ratio_min=x and dynamic_min_kc_ratio_max=x",
                        param));
      }
      const auto value = fractionOf(std::string_view(param).substr(equals + 1));
      if (!value) throw Error(ErrorCode::InvalidArgument, fmt::format("--param {}: the value must lie in 0..1", param));
      *target = *value;
    }
    if (m_low > m_high) {
      throw Error(
          ErrorCode::InvalidArgument,
          fmt::format("dynamic_min_kc_ratio_min {} is above dynamic_min_kc_ratio_max {}; SVOO would use the latter "
                      "everywhere",
                      m_low, m_high));
    }
  }

  [[nodiscard]] const SvooModel* findModel() const {
    if (m_model.empty()) return nullptr;
    std::string known;
    for (const SvooModel& model : svooModels()) {
      if (model.key == m_model) return &model;
      known += fmt::format("{}{}", known.empty() ? "" : ", ", model.key);
    }
    throw Error(ErrorCode::InvalidArgument, fmt::format("--model {}: unknown; there are {}", m_model, known));
  }

  void checkModel(const SvooModel& model, const Profile& profile) {
    if (model.layers != profile.layers() || model.heads != profile.heads()) {
      const std::string fits = modelsOfGrid(profile.layers(), profile.heads());
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{} has {} layers x {} heads, but {} has {} x {}{}", m_profile, profile.layers(),
                              profile.heads(), model.title, model.layers, model.heads,
                              fits.empty() ? "" : fmt::format("; this is the grid of {}", fits)));
    }
    if (model.steps != profile.steps()) {
      m_warnings.push_back(fmt::format(
          "the profile has {} steps, the script of {} runs {}: SVOO reads step t as row t and takes its fallback "
          "beyond the file, so run it with --num_inference_steps {}",
          profile.steps(), model.title, model.steps, profile.steps()));
    }
  }

  [[nodiscard]] Profile filled(const Profile& opened) const {
    if (m_policy == FillPolicy::Refuse && opened.holeCount() > 0) {
      throw Error(
          ErrorCode::InvalidArgument,
          fmt::format("{}: {} of {} cells are without a value, and runtimes ignore incomplete profiles; run: "
                      "sparsight-cli export {} --to {}{} --fill nearest --out {} (or --fill hold, --fill value=0.1)",
                      m_profile, opened.holeCount(), opened.cellCount(), shellWord(m_profile), m_to,
                      m_model.empty() ? "" : " --model " + m_model, shellWord(m_out)));
    }
    return fillForExport(opened, m_policy, m_fillValue);
  }

  /// The command lines that load the file; one per model that fits its grid.
  [[nodiscard]] std::vector<std::string> loadLines(const Profile& profile, const SvooModel* asked) const {
    std::error_code error;
    const std::filesystem::path absolute = std::filesystem::absolute(m_out, error);
    const std::string path = shellWord(error ? m_out : absolute.lexically_normal().string());
    if (m_to == "json") return {fmt::format("sparsight {}", path)};
    // The scripts change to their own folder first (hence the absolute path) and let later arguments win. Their own
    // clip would flatten the profile to two values; 0 and 1 leave it as it is.
    const std::string arguments =
        fmt::format("--sparsity_csv_path {} --dynamic_min_kc_ratio_min {} --dynamic_min_kc_ratio_max {}", path,
                    formatProfileValue(m_low), formatProfileValue(m_high));
    std::vector<std::string> lines;
    for (const SvooModel& model : svooModels()) {
      const bool fits = asked != nullptr ? &model == asked
                                         : model.layers == profile.layers() && model.heads == profile.heads() &&
                                               model.steps == profile.steps();
      if (!fits) continue;
      lines.push_back(
          fmt::format("{} {}{}", model.script, arguments,
                      model.steps == profile.steps() ? "" : fmt::format(" --num_inference_steps {}", profile.steps())));
    }
    if (lines.empty()) {
      lines.push_back(fmt::format("<launch script of the model> --use_dynamic_min_kc_ratio {} --num_inference_steps {}",
                                  arguments, profile.steps()));
    }
    return lines;
  }

  void print(const Profile& profile, Index filledCells, const SvooModel* model) const {
    const std::vector<std::string> lines = loadLines(profile, model);
    const ProfileSummary all = summarise(profile);
    if (m_json) {
      nlohmann::ordered_json document;
      document["files"] = {m_out};
      document["to"] = m_to;
      document["steps"] = profile.steps();
      document["layers"] = profile.layers();
      document["heads"] = profile.heads();
      document["values"] = all.count;
      document["filled"] = filledCells;
      document["holes"] = profile.holeCount();
      document["load"] = lines;
      document["warnings"] = m_warnings;
      printJson(document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
      return;
    }
    std::string text = fmt::format(
        "{}: {} steps x {} layers x {} heads, {} values, kept {:.1f} % on average (skipped {:.1f} %)\n", m_out,
        profile.steps(), profile.layers(), profile.heads(), all.count, 100 * all.mean, 100 - 100 * all.mean);
    if (filledCells > 0) text += fmt::format("{} cells were filled ({})\n", filledCells, m_fill);
    if (profile.holeCount() > 0) text += fmt::format("{} cells stay without a value\n", profile.holeCount());
    text += lines.size() == 1 ? "Load it with:\n" : "Load it with the line of your model:\n";
    for (const std::string& line : lines) text += fmt::format("  {}\n", line);
    if (m_to == "svoo-csv") {
      text += "SVOO prints \"Loaded N ... entries\" when it uses the file; without that line it runs without it.\n";
    }
    printJson(text);
  }

  std::string m_profile, m_to, m_model, m_fill = "refuse", m_out;
  std::vector<std::string> m_params, m_warnings;
  const CLI::Option* m_fillOption = nullptr;
  FillPolicy m_policy = FillPolicy::Refuse;
  double m_fillValue = 0, m_low = 0, m_high = 1;
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

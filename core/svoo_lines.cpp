// SPDX-License-Identifier: Apache-2.0
#include "svoo_lines.h"

#include <fmt/format.h>

namespace sparsight::svoo {

std::vector<ParamSpec> clipParams() {
  return {ParamSpec::real("dynamic_min_kc_ratio_min", "0", 0, 1, "fraction of key clusters",
                          "Values are raised to this when SVOO reads them.", "--dynamic_min_kc_ratio_min"),
          ParamSpec::real("dynamic_min_kc_ratio_max", "1", 0, 1, "fraction of key clusters",
                          "Then lowered to this. SVOO's scripts say 0.05 and 0.1, which flattens most profiles.",
                          "--dynamic_min_kc_ratio_max")};
}

Clip clipOf(const ParamSet& params) {
  const Clip clip{params.real("dynamic_min_kc_ratio_min"), params.real("dynamic_min_kc_ratio_max")};
  if (clip.low > clip.high) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("dynamic_min_kc_ratio_min {} is above dynamic_min_kc_ratio_max {}; SVOO would use the "
                            "latter everywhere",
                            clip.low, clip.high));
  }
  return clip;
}

std::vector<ExportModel> exportModels() {
  std::vector<ExportModel> models;
  for (const SvooModel& model : svooModels()) {
    models.push_back({std::string(model.key), std::string(model.title), model.steps, model.layers, model.heads});
  }
  return models;
}

const SvooModel* modelByKey(std::string_view key) {
  for (const SvooModel& model : svooModels()) {
    if (model.key == key) return &model;
  }
  return nullptr;
}

Profile floorsOf(const Exporter& exporter, const ExportInput& input, ExportOutput& output) {
  if (input.profile.role == BudgetRole::TopMass) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("{}: its values are top-p masses, but SVOO reads kept fractions from its CSV; export a "
                            "profile of kept fractions",
                            input.name));
  }
  if (input.profile.role == BudgetRole::KeptTarget) {
    output.notes.emplace_back(
        "SVOO takes these numbers as the least kept share of key clusters, on top of its top-p rule");
  }
  return completeForExport(exporter, input, output);
}

std::vector<std::string> aboutSteps(const SvooModel* model) {
  std::vector<std::string> lines{
      "a step's values serve both of its guidance passes; SVOO's own files were measured in the first, conditional "
      "one"};
  if (model != nullptr && model->key.starts_with("wan22")) {
    lines.emplace_back(
        "Wan2.2 has two experts: layers of both count from 0 and the step tells them apart, so another number of steps "
        "moves the switch within the file");
  }
  return lines;
}

std::vector<std::string> launchLines(const Profile& profile, std::string_view model, const std::filesystem::path& csv,
                                     const Clip& clip) {
  const std::string arguments =
      fmt::format("--sparsity_csv_path {} --dynamic_min_kc_ratio_min {} --dynamic_min_kc_ratio_max {}",
                  shellWord(absolutePath(csv)), formatProfileValue(clip.low), formatProfileValue(clip.high));
  const SvooModel* asked = modelByKey(model);
  std::vector<std::string> lines;
  for (const SvooModel& known : svooModels()) {
    const bool fits = asked != nullptr ? &known == asked
                                       : known.layers == profile.layers() && known.heads == profile.heads() &&
                                             known.steps == profile.steps();
    if (!fits) continue;
    lines.push_back(
        fmt::format("{} {}{}", known.script, arguments,
                    known.steps == profile.steps() ? "" : fmt::format(" --num_inference_steps {}", profile.steps())));
  }
  if (lines.empty()) {
    lines.push_back(fmt::format("<launch script of the model> --use_dynamic_min_kc_ratio {} --num_inference_steps {}",
                                arguments, profile.steps()));
  }
  return lines;
}

}  // namespace sparsight::svoo

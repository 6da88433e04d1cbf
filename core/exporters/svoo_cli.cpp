// SPDX-License-Identifier: Apache-2.0
// A shell script that runs SVOO's own launch script with a budget. The scripts append their arguments last and argparse
// lets the last one win, so nothing of SVOO is edited.
#include <fmt/format.h>

#include <cmath>

#include "sparsight/core/exporter.h"
#include "svoo_lines.h"

namespace sparsight {
namespace {

class SvooCliExporter final : public Exporter {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "svoo-cli"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SVOO launch script"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "A shell script for a checkout of SVOO that runs its launch script with this budget; the CSV lies beside "
           "it.";
  }
  [[nodiscard]] std::string_view suffix() const noexcept override { return "sh"; }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::vector<ExportModel> models() const override { return svoo::exportModels(); }

  [[nodiscard]] ExportOutput prepare(const ExportInput& input) const override {
    const SvooModel* model = svoo::modelByKey(input.model);
    if (model == nullptr) model = onlyFit(input);
    ExportOutput output;
    const Profile profile = svoo::floorsOf(*this, input, output);
    const svoo::Clip clip = svoo::clipOf(input.params);
    const std::filesystem::path csv = companionOf(input.out, ".csv");
    // Found beside the script wherever the pair is copied to; SVOO's script changes its folder first.
    std::string about;
    for (std::string& line : svoo::aboutSteps(model)) {
      about += fmt::format("# {}.\n", line);
      output.notes.push_back(std::move(line));
    }
    // floor(share of the steps or layers), as SVOO has it; the script's own share where none is said.
    const auto dense = [&](const char* name, int own, int of, int now) {
      const double share = input.params.text(name) == "none" ? static_cast<double>(own) / of : input.params.real(name);
      return static_cast<int>(std::floor(share * now + 1e-9));
    };
    std::string script = fmt::format(
        "#!/bin/sh\n"
        "# {} with the budget of {}, written by Sparsight {}.\n"
        "# Run it in a checkout of SVOO. Model, prompt and devices are SVOO's own variables: MODEL_ROOT, PROMPT_ID,\n"
        "# GPUS, OUTPUT_DIR, ...; DRY_RUN=1 prints the command. Further arguments are passed on.\n"
        "# The CSV counts steps from 1, layers and heads from 0. Steps and layers that warm-up keeps dense are not "
        "read:\n"
        "# the first {} of {} steps and {} of {} layers, as this script sets it.\n"
        "{}"
        "set -e\n"
        "here=$(CDPATH= cd -- \"$(dirname -- \"$0\")\" && pwd)\n",
        model->title, commentText(input.name), SPARSIGHT_VERSION,
        dense("first_times_fp", model->denseSteps, model->steps, profile.steps()), profile.steps(),
        dense("first_layers_fp", model->denseLayers, model->layers, model->layers), model->layers, about);
    script += fmt::format(
        "{} \\\n  --sparsity_csv_path \"$here\"/{} \\\n  --dynamic_min_kc_ratio_min {} "
        "--dynamic_min_kc_ratio_max {}",
        model->script, shellWord(csv.filename().string()), formatProfileValue(clip.low), formatProfileValue(clip.high));
    for (const char* name : kPassed) {
      if (input.params.text(name) != "none") script += fmt::format(" \\\n  --{} {}", name, input.params.text(name));
    }
    if (profile.steps() != model->steps) script += fmt::format(" \\\n  --num_inference_steps {}", profile.steps());
    script += " \"$@\"\n";
    output.files.push_back({input.out, std::move(script), true});
    output.files.push_back({csv, formatSvooCsv(profile), false});
    output.load.push_back(
        fmt::format("cd SVOO && MODEL_ROOT=/models GPUS=0 sh {}", shellWord(absolutePath(input.out))));
    output.notes.emplace_back(
        "SVOO prints \"Loaded N ... entries\" when it uses the file; without that line it runs without it.");
    return output;
  }

 private:
  static constexpr const char* kPassed[] = {"top_p_kmeans", "min_kc_ratio", "first_times_fp", "first_layers_fp"};

  static const SvooModel* onlyFit(const ExportInput& input) {
    const SvooModel* fit = nullptr;
    std::string keys;
    int fits = 0;
    for (const SvooModel& model : svooModels()) {
      keys += fmt::format("{}{}", keys.empty() ? "" : ", ", model.key);
      if (model.layers != input.profile.layers() || model.heads != input.profile.heads() ||
          model.steps != input.profile.steps()) {
        continue;
      }
      fit = &model;
      ++fits;
    }
    if (fits == 1) return fit;
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("{}: {} of SVOO's models run {} steps x {} layers x {} heads; say which with --model: {}",
                            input.name, fits == 0 ? "none" : "several", input.profile.steps(), input.profile.layers(),
                            input.profile.heads(), keys));
  }

  static ParamSpec passed(const char* name, const char* unit, const char* meaning) {
    return ParamSpec::real(name, "none", 0, 1, unit, meaning, fmt::format("--{}", name)).orWords({"none"});
  }
  static std::vector<ParamSpec> all() {
    std::vector<ParamSpec> specs = svoo::clipParams();
    specs.push_back(passed("top_p_kmeans", "estimated probability mass", "none: the script's own."));
    specs.push_back(passed("min_kc_ratio", "fraction of key clusters",
                           "Floor of layers that the file does not cover; none: the script's own."));
    specs.push_back(passed("first_times_fp", "fraction of denoising steps", "Dense steps; none: the script's own."));
    specs.push_back(passed("first_layers_fp", "fraction of layers", "Dense layers; none: the script's own."));
    return specs;
  }
  std::vector<ParamSpec> m_params = all();
};

}  // namespace

const Exporter& svoo_cli_exporter() {
  static const SvooCliExporter exporter;
  return exporter;
}

}  // namespace sparsight

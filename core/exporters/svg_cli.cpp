// SPDX-License-Identifier: Apache-2.0
// Command lines of Sparse VideoGen's entry points. They take one value for all steps, layers and heads, and each script
// knows other flags: svg/*_inference.py and the launch scripts of svg-project/Sparse-VideoGen.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "sparsight/core/exporter.h"

namespace sparsight {
namespace {

struct Script {
  const char* key;
  const char* title;
  const char* entry;
  const char* fixed;             ///< arguments that its launch script always gives
  const char *times, *layersFp;  ///< warm-up of its launch script
  const char* qCentroids = "";   ///< of SAP; empty: the script has no SAP
  const char* output = "--output_file";
  const char* stepsFlag = "--num_inference_steps";
  int steps = 50, layers = 0, heads = 0;
  bool zeroStep = false;  ///< knows --zero_step_kmeans_init
  bool image = false;
  bool maxRow = true;  ///< knows --sample_mse_max_row
  bool logs = true;    ///< knows --logging_file
};

constexpr Script wan(const char* key, const char* title, const char* fixed, const char* times) {
  return {.key = key,
          .title = title,
          .entry = "wan_t2v_inference.py",
          .fixed = fixed,
          .times = times,
          .layersFp = "0.03",
          .qCentroids = "300",
          .layers = 40,
          .heads = 40};
}
constexpr Script wanImage(const char* key, const char* title, const char* fixed, const char* times) {
  Script script = wan(key, title, fixed, times);
  script.entry = "wan_i2v_inference.py";
  script.steps = 40;
  script.zeroStep = script.image = true;
  return script;
}
constexpr Script hunyuan(const char* key, const char* title, const char* fixed, const char* times,
                         const char* layersFp) {
  return {.key = key,
          .title = title,
          .entry = "hyvideo_t2v_inference.py",
          .fixed = fixed,
          .times = times,
          .layersFp = layersFp,
          .qCentroids = "400",
          .layers = 60,
          .heads = 24,
          .zeroStep = true};
}
constexpr Script kScripts[] = {
    wan("wan_t2v_720p", "Wan2.1 14B T2V 720p", "--model_id Wan-AI/Wan2.1-T2V-14B-Diffusers --height 720 --width 1280",
        "0.2"),
    wanImage("wan_i2v_720p", "Wan2.1 14B I2V 720p", "--model_id Wan-AI/Wan2.1-I2V-14B-720P-Diffusers --resolution 720p",
             "0.35"),
    wanImage("wan_i2v_480p", "Wan2.1 14B I2V 480p", "--model_id Wan-AI/Wan2.1-I2V-14B-480P-Diffusers --resolution 480p",
             "0.2"),
    hunyuan("hyvideo_t2v_720p", "HunyuanVideo T2V 720p",
            "--model_id tencent/HunyuanVideo --height 720 --width 1280 --resolution 720p", "0.1", "0.03"),
    hunyuan("hyvideo_t2v_480p", "HunyuanVideo T2V 480p",
            "--model_id tencent/HunyuanVideo --height 480 --width 720 --resolution 480p", "0.04", "0.0"),
    {.key = "cosmos_t2v",
     .title = "Cosmos 14B Text2World",
     .entry = "cosmos_t2v_inference.py",
     .fixed = "--model_id nvidia/Cosmos-1.0-Diffusion-14B-Text2World --height 704 --width 1280",
     .times = "0.3",
     .layersFp = "0.03",
     .qCentroids = "400",
     .steps = 35},
    {.key = "cogvideox_i2v",
     .title = "CogVideoX 1.5 I2V",
     .entry = "cog_inference.py",
     .fixed = "--version v1.5",
     .times = "0.2",
     .layersFp = "0.025",
     .output = "--output_path",
     .stepsFlag = "--num_step",
     .image = true,
     .maxRow = false,
     .logs = false},
};

const Script* scriptByKey(std::string_view key) {
  const auto found =
      std::find_if(std::begin(kScripts), std::end(kScripts), [&](const Script& s) { return s.key == key; });
  return found == std::end(kScripts) ? nullptr : found;
}

class SvgCliExporter final : public Exporter {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "svg-cli"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SVG / SVG2 command line"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "A shell script for a checkout of Sparse VideoGen. It takes one value for all steps, layers and heads: the "
           "mean of what it will read.";
  }
  [[nodiscard]] std::string_view suffix() const noexcept override { return "sh"; }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::vector<ExportModel> models() const override {
    std::vector<ExportModel> models;
    for (const Script& s : kScripts) models.push_back({s.key, s.title, s.steps, s.layers, s.heads});
    return models;
  }
  [[nodiscard]] std::map<std::string, std::string, std::less<>> defaultsFor(std::string_view model) const override {
    const Script* script = scriptByKey(model);
    if (script == nullptr) return {};
    std::map<std::string, std::string, std::less<>> defaults{{"first_times_fp", script->times},
                                                             {"first_layers_fp", script->layersFp}};
    if (*script->qCentroids != '\0') defaults["num_q_centroids"] = script->qCentroids;
    if (!script->maxRow) defaults["num_sampled_rows"] = "32";
    if (std::string_view(script->entry) == "hyvideo_t2v_inference.py") defaults["zero_step_kmeans_init"] = "true";
    return defaults;
  }
  // One value comes out: holes do not matter.
  [[nodiscard]] bool wantsWholeGrid() const noexcept override { return false; }

  [[nodiscard]] ExportOutput prepare(const ExportInput& input) const override {
    const Script* script = scriptByKey(input.model);
    if (script == nullptr) {
      std::vector<std::string_view> keys;
      for (const Script& s : kScripts) keys.emplace_back(s.key);
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{}: every script of Sparse VideoGen has its own flags; say which with --model: {}",
                              input.name, fmt::join(keys, ", ")));
    }
    ExportOutput output;
    const Profile profile = completeForExport(*this, input, output);
    const ParamSet& params = input.params;
    const bool sap = usesClusters(profile, params);
    if (sap && *script->qCentroids == '\0') {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{} has no SVG2 (--pattern SAP); export a profile of kept fractions to reach, or say "
                              "pattern=SVG",
                              script->entry));
    }
    if (!sap && profile.role == BudgetRole::TopMass) {
      throw Error(
          ErrorCode::InvalidArgument,
          fmt::format("{}: its values are top-p masses, but SVG takes a kept fraction; say pattern=SAP", input.name));
    }
    const int denseSteps = static_cast<int>(params.real("first_times_fp") * profile.steps());
    const int denseLayers = static_cast<int>(params.real("first_layers_fp") * profile.layers());
    const BudgetSpread spread = spreadBehind(profile, denseSteps, denseLayers);
    if (spread.cells == 0) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{}: no value is left behind the warm-up of {} steps and {} layers", input.name,
                              denseSteps, denseLayers));
    }
    const std::string value = fmt::format("{:.4g}", spread.mean);
    std::string line = fmt::format("python {} {}", script->entry, script->fixed);
    line += " --prompt \"${PROMPT:?say what to generate: PROMPT=...}\"";
    if (script->image) line += " --image_path \"${IMAGE:?say where the first frame lies: IMAGE=...}\"";
    line += fmt::format(" \\\n  --seed \"${{SEED:-0}}\" {} {} --pattern {}", script->stepsFlag, profile.steps(),
                        sap ? "SAP" : "SVG");
    line += fmt::format(" \\\n  --first_times_fp {} --first_layers_fp {}", params.text("first_times_fp"),
                        params.text("first_layers_fp"));
    std::string taken;
    if (sap) {
      const bool mass = profile.role == BudgetRole::TopMass;
      taken = mass ? "top_p_kmeans" : "min_kc_ratio";
      line += fmt::format(
          " \\\n  --num_q_centroids {} --num_k_centroids {} --top_p_kmeans {} --min_kc_ratio {}"
          " \\\n  --kmeans_iter_init {} --kmeans_iter_step {}",
          params.text("num_q_centroids"), params.text("num_k_centroids"), mass ? value : params.text("top_p_kmeans"),
          mass ? params.text("min_kc_ratio") : value, params.text("kmeans_iter_init"), params.text("kmeans_iter_step"));
      if (params.flag("zero_step_kmeans_init")) {
        if (script->zeroStep) {
          line += " --zero_step_kmeans_init";
        } else if (params.has("zero_step_kmeans_init")) {
          output.warnings.push_back(fmt::format("{} does not know --zero_step_kmeans_init: left out", script->entry));
        }
      }
    } else {
      taken = "sparsity";
      line += fmt::format(" \\\n  --sparsity {} --num_sampled_rows {}", value, params.text("num_sampled_rows"));
      if (script->maxRow) line += fmt::format(" --sample_mse_max_row {}", params.text("sample_mse_max_row"));
    }
    line += fmt::format(" \\\n  {} \"${{OUT:-out}}\"/video.mp4", script->output);
    if (script->logs) line += " --logging_file \"${OUT:-out}\"/video.jsonl";
    line += " \"$@\"\n";
    output.files.push_back(
        {input.out,
         fmt::format("#!/bin/sh\n"
                     "# {} with the budget of {}, written by Sparsight {}.\n"
                     "# Run it in a checkout of Sparse VideoGen: PROMPT=\"...\"{} sh {}\n"
                     "# --{} is the mean of the {} cells it stands for, which lie between {:.4g} and {:.4g}: this\n"
                     "# program takes one value for all steps, layers and heads.{}\n"
                     "# Dense: the first {} of {} steps and {} of {} layers.\n"
                     "set -e\n"
                     "mkdir -p \"${{OUT:-out}}\"\n{}",
                     script->title, commentText(input.name), SPARSIGHT_VERSION, script->image ? " IMAGE=first.png" : "",
                     commentText(input.out.filename().string()), taken, spread.cells, spread.minimum, spread.maximum,
                     taken == "sparsity" ? " Despite its name it is the kept fraction." : "", denseSteps,
                     profile.steps(), denseLayers, profile.layers(), line),
         true});
    output.load.push_back(fmt::format("cd Sparse-VideoGen && PROMPT=\"...\"{} sh {}",
                                      script->image ? " IMAGE=first.png" : "", shellWord(absolutePath(input.out))));
    output.notes.push_back(fmt::format("--{} {}: the mean of {} cells, which lie between {:.4g} and {:.4g}", taken,
                                       value, spread.cells, spread.minimum, spread.maximum));
    if (spread.maximum - spread.minimum > 1e-9) {
      output.warnings.push_back(
          fmt::format("{} takes one value for all steps, layers and heads: the profile's differences are lost; "
                      "sparsevideo and svoo-csv keep them",
                      script->entry));
    }
    if (!sap && profile.role == BudgetRole::KeptFloor) {
      output.warnings.emplace_back(
          "the values are lower bounds on the kept fraction, and SVG takes them as the fraction to reach");
    }
    return output;
  }

 private:
  static bool usesClusters(const Profile& profile, const ParamSet& params) {
    const std::string pattern = params.text("pattern");
    return pattern == "auto" ? profile.role != BudgetRole::KeptTarget : pattern == "SAP";
  }

  std::vector<ParamSpec> m_params{
      ParamSpec::choice("pattern", "auto", {"auto", "SVG", "SAP"},
                        "SVG: one band, sized by the kept fraction. SAP (SVG2): clusters. auto: SVG for kept fractions "
                        "to reach, SAP for lower bounds and top-p masses.",
                        "--pattern"),
      ParamSpec::real("first_times_fp", "0.2", 0, 1, "fraction of denoising steps", "Dense first steps.",
                      "--first_times_fp"),
      ParamSpec::real("first_layers_fp", "0.03", 0, 1, "fraction of layers", "Dense first layers.",
                      "--first_layers_fp"),
      ParamSpec::integer("num_sampled_rows", "64", 1, 1e9, "rows", "SVG: rows that the profiling draws.",
                         "--num_sampled_rows"),
      ParamSpec::integer("sample_mse_max_row", "10000", 1, 1e9, "tokens", "SVG: drawn among the first so many.",
                         "--sample_mse_max_row"),
      ParamSpec::integer("num_q_centroids", "300", 1, 65536, "clusters", "SVG2: query clusters.", "--num_q_centroids"),
      ParamSpec::integer("num_k_centroids", "1000", 1, 65536, "clusters", "SVG2: key clusters.", "--num_k_centroids"),
      ParamSpec::real("top_p_kmeans", "0.9", 0, 1, "estimated probability mass",
                      "SVG2: mass to keep, unless the profile says it.", "--top_p_kmeans"),
      ParamSpec::real("min_kc_ratio", "0.1", 0, 1, "fraction of key clusters",
                      "SVG2: lower bound, unless the profile says it.", "--min_kc_ratio"),
      ParamSpec::integer("kmeans_iter_init", "50", 1, 10000, "iterations",
                         "SVG2: of the first clustering. The program's own default, 0, would not cluster.",
                         "--kmeans_iter_init"),
      ParamSpec::integer("kmeans_iter_step", "2", 1, 10000, "iterations", "SVG2: of every later step.",
                         "--kmeans_iter_step"),
      ParamSpec::boolean("zero_step_kmeans_init", "false", "SVG2: clusters on dense steps, too.",
                         "--zero_step_kmeans_init"),
  };
};

}  // namespace

const Exporter& svg_cli_exporter() {
  static const SvgCliExporter exporter;
  return exporter;
}

}  // namespace sparsight

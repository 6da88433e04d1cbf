// SPDX-License-Identifier: Apache-2.0
// SparseVideo: one flat configuration per call of replace_attention, every key written out (an unknown model would fall
// back to 0 k-means iterations). Budgets finer than that go through SVOO's CSV or through a small adapter beside it.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "sparsevideo_adapter.h"
#include "sparsight/core/exporter.h"

namespace sparsight {
namespace {

using Json = nlohmann::ordered_json;

struct Model {
  const char* key;
  const char* title;
  int layers, heads;
};
constexpr Model kModels[] = {{"wan21-t2v-1.3b", "Wan2.1 1.3B T2V", 30, 12},
                             {"wan21-t2v-14b", "Wan2.1 14B T2V", 40, 40},
                             {"wan21-i2v-14b", "Wan2.1 14B I2V", 40, 40},
                             {"wan22-t2v-a14b", "Wan2.2 A14B T2V", 40, 40},
                             {"wan22-i2v-a14b", "Wan2.2 A14B I2V", 40, 40},
                             {"hunyuan-t2v", "HunyuanVideo T2V", 60, 24},
                             {"hunyuan-i2v", "HunyuanVideo I2V", 60, 24},
                             {"cogvideox-t2v", "CogVideoX T2V", 0, 0},
                             {"cogvideox-i2v", "CogVideoX I2V", 0, 0},
                             {"ltx-video", "LTX-Video", 0, 0},
                             {"mochi-1", "Mochi 1", 0, 0},
                             {"allegro", "Allegro", 0, 0},
                             {"easyanimate-v5-t2v-12b", "EasyAnimate v5 12B", 0, 0}};

bool startsWith(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

class SparseVideoExporter final : public Exporter {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "sparsevideo"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SparseVideo configuration"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "A complete method configuration; budgets per step, layer and head as SVOO's CSV, or as a profile with the "
           "adapter that registers a budgeted method.";
  }
  [[nodiscard]] std::string_view suffix() const noexcept override { return "json"; }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::vector<ExportModel> models() const override {
    std::vector<ExportModel> models;
    for (const Model& m : kModels) models.push_back({m.key, m.title, 0, m.layers, m.heads});
    return models;
  }
  // methods/*/config.yaml, model_defaults, where they differ from the declared values.
  [[nodiscard]] std::map<std::string, std::string, std::less<>> defaultsFor(std::string_view model) const override {
    std::map<std::string, std::string, std::less<>> defaults;
    if (startsWith(model, "hunyuan")) {
      defaults = {{"sparsity", "0.25"}, {"context_length", "256"}};
    } else if (model == "allegro") {
      defaults = {{"num_sampled_rows", "256"}};
    } else if (model == "cogvideox-t2v") {
      defaults = {{"reuse_interval", "50"}};
    }
    return defaults;
  }

  [[nodiscard]] ExportOutput prepare(const ExportInput& input) const override {
    ExportOutput output;
    const Profile profile = completeForExport(*this, input, output);
    const std::string method = methodFor(profile.role, input.params);
    const std::string key = keyFor(method, profile.role, input, output);
    const bool csv = method == "svoo" && profile.role != BudgetRole::TopMass;
    const ParamSet& params = input.params;
    const int denseSteps = static_cast<int>(params.real("dense_warmup_step_ratio") * profile.steps());
    const double layerRatio = params.real("dense_warmup_layer_ratio");
    const int denseLayers = layerRatio <= 0 ? 0 : std::max(1, static_cast<int>(layerRatio * profile.layers()));
    const BudgetSpread spread = spreadBehind(profile, denseSteps, denseLayers);
    if (spread.cells == 0) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{}: no value is left behind the dense warm-up of {} steps and {} layers", input.name,
                              denseSteps, denseLayers));
    }
    Json config = configOf(method, input.model, params, profile.steps());
    const std::filesystem::path table = companionOf(input.out, csv ? ".csv" : ".profile.json");
    if (csv) {
      config["use_dynamic_min_kc_ratio"] = true;
      config["sparsity_csv_path"] = absolutePath(table);
    } else {
      config[key] = rounded(spread.mean);  // what the file means without the adapter
    }
    output.files.push_back({input.out, config.dump(2) + "\n", false});
    if (csv) {
      output.files.push_back({table, formatSvooCsv(profile), false});
      output.load = {
          fmt::format("import json, sparsevideo; sparsevideo.apply(pipe, method=\"svoo\", config=json.load(open({})))",
                      quoted(absolutePath(input.out))),
          fmt::format("python scripts/infer_diffusers.py --method svoo --method-config-json \"$(cat {})\"",
                      shellWord(absolutePath(input.out)))};
      output.notes.push_back(fmt::format("sparsity_csv_path in the configuration is {}: change it when the files move",
                                         absolutePath(table)));
    } else {
      const std::filesystem::path adapter = input.out.parent_path() / "sparsight_sparsevideo.py";
      output.files.push_back({table, formatProfileJson(profile), false});
      output.files.push_back({adapter, std::string(kSparseVideoAdapter), false});
      output.load = {
          fmt::format("import json, sys; sys.path.insert(0, {}); from sparsight_sparsevideo import apply_budget; "
                      "apply_budget(pipe, \"{}\", json.load(open({})), {}, key=\"{}\")",
                      quoted(absolutePath(input.out.parent_path().empty() ? "." : input.out.parent_path())), method,
                      quoted(absolutePath(input.out)), quoted(absolutePath(table)), key)};
      output.notes.push_back(fmt::format(
          "{} alone is a configuration with {} {:.4g} for everything, the mean of {} cells between {:.4g} and {:.4g}",
          input.out.filename().string(), key, spread.mean, spread.cells, spread.minimum, spread.maximum));
      if (key != "min_kc_ratio" && profile.heads() > 1) {
        output.notes.push_back(fmt::format("{} takes one {} per layer: the mean over its heads", method, key));
      }
      if (startsWith(input.model, "cogvideox")) {
        output.notes.emplace_back("CogVideoX runs both guidance branches in one batch: give apply_budget branches=2");
      }
    }
    output.notes.push_back(fmt::format("dense: the first {} of {} steps and {} of {} layers; their values are not read",
                                       denseSteps, profile.steps(), denseLayers, profile.layers()));
    if (startsWith(input.model, "wan22")) {
      output.notes.emplace_back(
          "Wan2.2 has two experts: under Diffusers both use layers 0 to 39 and the step tells them apart; DiffSynth "
          "counts the second expert's layers from 40, which a CSV for layers 0 to 39 does not cover");
    }
    if (input.model.empty()) {
      output.warnings.emplace_back(
          "without --model the grid is not checked and generic cluster counts are written; say the model");
    }
    return output;
  }

 private:
  static std::string quoted(const std::string& text) { return Json(text).dump(); }  // Python reads JSON's strings
  static double rounded(double value) { return std::stod(fmt::format("{:.6g}", value)); }

  static std::string methodFor(BudgetRole role, const ParamSet& params) {
    std::string asked = params.text("method");
    if (asked != "auto") return asked;
    return role == BudgetRole::KeptFloor ? "svoo" : role == BudgetRole::KeptTarget ? "svg1" : "svg2";
  }

  // What the values become. A floor is none of SVG's notions and a target none of the clustering methods'.
  static std::string keyFor(const std::string& method, BudgetRole role, const ExportInput& input,
                            ExportOutput& output) {
    if (method == "svg1") {
      if (role == BudgetRole::TopMass) {
        throw Error(ErrorCode::InvalidArgument,
                    fmt::format("{}: its values are top-p masses, but svg1 takes kept fractions; say method=svg2 or "
                                "svoo",
                                input.name));
      }
      if (role == BudgetRole::KeptFloor) {
        output.warnings.emplace_back("the values are lower bounds, and svg1 takes them as the kept fraction to reach");
      }
      return "sparsity";
    }
    if (role == BudgetRole::TopMass) return "top_p_kmeans";
    if (role == BudgetRole::KeptTarget) {
      output.warnings.push_back(
          fmt::format("the values are kept fractions to reach, and {} takes them as lower bounds: top_p_kmeans may "
                      "keep more",
                      method));
    }
    return "min_kc_ratio";
  }

  static Json configOf(const std::string& method, const std::string& model, const ParamSet& params, int steps) {
    const auto optional = [&](const char* name) -> Json {
      return params.text(name) == "none" ? Json() : Json(params.integer(name));
    };
    const auto clip = [&](const char* name) -> Json {
      return params.text(name) == "none" ? Json() : Json(params.real(name));
    };
    const bool hunyuan = startsWith(model, "hunyuan");
    const auto chosen = [&](const char* name, double own) {  // the method's own value unless the user gave one
      return params.text(name) == "auto" ? own : params.real(name);
    };
    const auto counted = [&](const char* name, Index own) {
      return params.text(name) == "auto" ? own : params.integer(name);
    };
    Json config{{"dense_warmup_step_ratio", params.real("dense_warmup_step_ratio")},
                {"dense_warmup_layer_ratio", params.real("dense_warmup_layer_ratio")},
                {"num_inference_steps", steps}};
    if (method == "svg1") {
      config["num_sampled_rows"] = params.integer("num_sampled_rows");
      config["sample_mse_max_row"] = params.integer("sample_mse_max_row");
      config["sparsity"] = params.real("sparsity");
      config["context_length"] = optional("context_length");
      config["prompt_length"] = nullptr;
      return config;
    }
    const bool svoo = method == "svoo";
    const bool easy = startsWith(model, "easyanimate"), cog = startsWith(model, "cogvideox");
    const bool allegro = model == "allegro";
    config["num_q_centroids"] = counted("num_q_centroids", svoo      ? (cog || easy ? 100 : 256)
                                                           : hunyuan ? 400
                                                           : easy    ? 256
                                                                     : 300);
    config["num_k_centroids"] = counted("num_k_centroids", svoo ? (cog ? 200 : easy ? 300 : 1024) : easy ? 512 : 1000);
    config["top_p_kmeans"] = chosen("top_p_kmeans", svoo ? (hunyuan ? 0.88 : 0.9) : allegro ? 0.95 : 0.9);
    config["min_kc_ratio"] = chosen("min_kc_ratio", !svoo && allegro ? 0.3 : 0.1);
    config["kmeans_iter_init"] = counted("kmeans_iter_init", svoo ? 2 : 50);
    config["kmeans_iter_step"] = counted("kmeans_iter_step", 2);
    config["zero_step_kmeans_init"] = params.text("zero_step_kmeans_init") == "auto"
                                          ? !svoo && hunyuan
                                          : params.text("zero_step_kmeans_init") == "true";
    if (!svoo) {
      config["context_length"] = optional("context_length");
      config["prompt_length"] = nullptr;
      return config;
    }
    config["enable_mem_save"] = true;
    config["reuse_interval"] = optional("reuse_interval");
    config["use_dynamic_min_kc_ratio"] = false;
    config["sparsity_csv_path"] = "";
    config["dynamic_min_kc_ratio_min"] = clip("dynamic_min_kc_ratio_min");
    config["dynamic_min_kc_ratio_max"] = clip("dynamic_min_kc_ratio_max");
    config["measure_attention_sparsity"] = false;
    config["sparsity_output_file"] = "attention_sparsity.txt";
    config["sparsity_batch_size"] = 0;
    config["sparsity_query_samples"] = 0;
    config["sparsity_threshold"] = 0.95;
    config["sparsity_start_step"] = 1;
    return config;
  }

  std::vector<ParamSpec> m_params{
      ParamSpec::choice("method", "auto", {"auto", "svoo", "svg2", "svg1"},
                        "auto: svoo for lower bounds, svg1 for kept fractions to reach, svg2 for top-p masses.",
                        "list_methods()"),
      ParamSpec::real("dense_warmup_step_ratio", "0.1", 0, 1, "fraction of denoising steps", "Dense first steps.",
                      "dense_warmup_step_ratio"),
      ParamSpec::real("dense_warmup_layer_ratio", "0.03", 0, 1, "fraction of layers",
                      "Dense first layers; at least one above 0.", "dense_warmup_layer_ratio"),
      ParamSpec::real("top_p_kmeans", "auto", 0, 1, "estimated probability mass", "svg2, svoo; auto: the model's own.",
                      "top_p_kmeans")
          .orWords({"auto"}),
      ParamSpec::real("min_kc_ratio", "auto", 0, 1, "fraction of key clusters",
                      "svg2, svoo, where the profile does not say it; auto: the model's own.", "min_kc_ratio")
          .orWords({"auto"}),
      ParamSpec::integer("num_q_centroids", "auto", 1, 65536, "clusters", "svg2, svoo; auto: the model's own.",
                         "num_q_centroids")
          .orWords({"auto"}),
      ParamSpec::integer("num_k_centroids", "auto", 1, 65536, "clusters", "svg2, svoo; auto: the model's own.",
                         "num_k_centroids")
          .orWords({"auto"}),
      ParamSpec::integer("kmeans_iter_init", "auto", 1, 10000, "iterations", "svg2 50, svoo 2.", "kmeans_iter_init")
          .orWords({"auto"}),
      ParamSpec::integer("kmeans_iter_step", "auto", 1, 10000, "iterations", "2.", "kmeans_iter_step")
          .orWords({"auto"}),
      ParamSpec::choice("zero_step_kmeans_init", "auto", {"auto", "true", "false"},
                        "svg2, svoo: clusters on dense steps, too.", "zero_step_kmeans_init"),
      ParamSpec::integer("reuse_interval", "20", 1, 100000, "denoising steps", "svoo; none: never clusters again.",
                         "reuse_interval")
          .orWords({"none"}),
      ParamSpec::real("dynamic_min_kc_ratio_min", "none", 0, 1, "fraction of key clusters",
                      "svoo: values are raised to this; none: not.", "dynamic_min_kc_ratio_min")
          .orWords({"none"}),
      ParamSpec::real("dynamic_min_kc_ratio_max", "none", 0, 1, "fraction of key clusters",
                      "svoo: values are lowered to this; none: not. The runtime's own 0.1 would flatten the profile.",
                      "dynamic_min_kc_ratio_max")
          .orWords({"none"}),
      ParamSpec::real("sparsity", "0.3", 0, 1, "fraction of query-key pairs kept",
                      "svg1, where the profile does not say it: the kept fraction, despite its name.", "sparsity"),
      ParamSpec::integer("num_sampled_rows", "64", 1, 1e9, "rows", "svg1.", "num_sampled_rows"),
      ParamSpec::integer("sample_mse_max_row", "10000", 1, 1e9, "tokens", "svg1.", "sample_mse_max_row"),
      ParamSpec::integer("context_length", "none", 1, 1e9, "tokens", "svg1, svg2: HunyuanVideo's text length, 256.",
                         "context_length")
          .orWords({"none"}),
  };
};

}  // namespace

const Exporter& sparsevideo_exporter() {
  static const SparseVideoExporter exporter;
  return exporter;
}

}  // namespace sparsight

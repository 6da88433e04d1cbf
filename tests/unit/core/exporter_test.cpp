// SPDX-License-Identifier: Apache-2.0
// What budgets become for the runtimes: which flags and keys, which values, which refusals.
#include "sparsight/core/exporter.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "sparsight/core/files.h"

namespace sparsight {
namespace {

using testing::HasSubstr;

Profile grid(int steps, int layers, int heads, BudgetRole role) {
  Profile profile(steps, layers, heads, role);
  for (int s = 0; s < steps; ++s) {
    for (int l = 0; l < layers; ++l) {
      for (int h = 0; h < heads; ++h) profile.set({s, l, h}, ((s * layers + l) * heads + h) % 100 / 100.0);
    }
  }
  return profile;
}

ExportOutput exported(const char* id, const Profile& profile, const char* model = "",
                      const std::vector<std::string>& params = {}, std::optional<FillPolicy> fill = {}) {
  const Exporter& exporter = exporterById(id);
  return prepareExport(exporter, {profile, "p.csv", model, ParamSet::parse(exporter.params(), params), fill, 0.5,
                                  std::string("/tmp/run.") + std::string(exporter.suffix())});
}

std::set<std::string> flagsOf(const std::string& script) {
  std::set<std::string> flags;
  const std::string commands = std::regex_replace(script, std::regex("(^|\n)#[^\n]*"), "");
  const std::regex flag(R"((--[a-z_0-9]+))");
  for (std::sregex_iterator at(commands.begin(), commands.end(), flag), end; at != end; ++at) flags.insert(at->str());
  return flags;
}

TEST(Exporter, EveryOneSaysWhatItIsAndRefusesForeignModels) {
  const Profile profile = grid(50, 40, 40, BudgetRole::KeptFloor);
  std::set<std::string_view> ids;
  for (const Exporter* exporter : allExporters()) {
    EXPECT_TRUE(ids.insert(exporter->id()).second);
    EXPECT_FALSE(exporter->title().empty() || exporter->summary().empty() || exporter->suffix().empty());
    EXPECT_THROW((void)exported(std::string(exporter->id()).c_str(), profile, "no-such-model"), Error);
    for (const ExportModel& model : exporter->models()) {
      if (model.layers == 0 || (model.layers == 40 && model.heads == 40)) continue;
      EXPECT_THROW((void)exported(std::string(exporter->id()).c_str(), profile, model.key.c_str()), Error);
    }
  }
  EXPECT_THAT(ids, testing::IsSupersetOf({"json", "sparsevideo", "svg-cli", "svoo-cli", "svoo-csv"}));
  EXPECT_THROW((void)exporterById("tar"), Error);
}

TEST(Exporter, SvgScriptsGetOnlyTheFlagsTheyKnow) {
  // argparse of svg-project/Sparse-VideoGen, per entry point.
  const std::set<std::string> common{"--model_id",
                                     "--prompt",
                                     "--negative_prompt",
                                     "--prompt_source",
                                     "--prompt_idx",
                                     "--num_frames",
                                     "--num_inference_steps",
                                     "--output_file",
                                     "--logging_file",
                                     "--seed",
                                     "--skip_existing",
                                     "--pattern",
                                     "--first_layers_fp",
                                     "--first_times_fp",
                                     "--num_sampled_rows",
                                     "--sample_mse_max_row",
                                     "--sparsity",
                                     "--num_q_centroids",
                                     "--num_k_centroids",
                                     "--top_p_kmeans",
                                     "--min_kc_ratio",
                                     "--kmeans_iter_init",
                                     "--kmeans_iter_step"};
  const auto with = [&](std::initializer_list<const char*> more) {
    std::set<std::string> all = common;
    for (const char* flag : more) all.insert(flag);
    return all;
  };
  const std::map<std::string, std::set<std::string>> known{
      {"wan_t2v_inference.py", with({"--height", "--width"})},
      {"wan_i2v_inference.py",
       with({"--resolution", "--image_path", "--data_path", "--zero_step_kmeans_init", "--attention_backend"})},
      {"hyvideo_t2v_inference.py",
       with({"--height", "--width", "--resolution", "--data_path", "--zero_step_kmeans_init"})},
      {"cosmos_t2v_inference.py", with({"--height", "--width"})},
      {"cog_inference.py",
       {"--version", "--seed", "--image_path", "--prompt", "--pattern", "--num_step", "--first_layers_fp",
        "--first_times_fp", "--num_sampled_rows", "--sparsity", "--output_path"}}};
  int scripts = 0;
  for (const ExportModel& model : exporterById("svg-cli").models()) {
    for (const BudgetRole role : {BudgetRole::KeptTarget, BudgetRole::KeptFloor, BudgetRole::TopMass}) {
      const bool cog = model.key == "cogvideox_i2v";
      if (cog && role != BudgetRole::KeptTarget) continue;  // has no SVG2: below
      const Profile profile =
          grid(model.steps, model.layers == 0 ? 42 : model.layers, model.heads == 0 ? 48 : model.heads, role);
      const std::string script =
          exported("svg-cli", profile, model.key.c_str(), {"zero_step_kmeans_init=true"}).files.at(0).content;
      const std::size_t at = script.find("python ");
      ASSERT_NE(at, std::string::npos);
      const std::string entry = script.substr(at + 7, script.find(' ', at + 7) - at - 7);
      ASSERT_TRUE(known.count(entry)) << entry;
      for (const std::string& flag : flagsOf(script)) EXPECT_TRUE(known.at(entry).count(flag)) << entry << " " << flag;
      const bool sap = role != BudgetRole::KeptTarget;
      EXPECT_THAT(script, HasSubstr(sap ? "--pattern SAP" : "--pattern SVG"));
      if (sap) {
        EXPECT_THAT(script, testing::ContainsRegex("--kmeans_iter_init [1-9]"));
      }
      ++scripts;
    }
  }
  EXPECT_EQ(scripts, 19);
  EXPECT_THROW((void)exported("svg-cli", grid(50, 42, 48, BudgetRole::TopMass), "cogvideox_i2v"), Error);
  EXPECT_THROW((void)exported("svg-cli", grid(50, 42, 48, BudgetRole::KeptTarget)), Error) << "no model said";
}

TEST(Exporter, OneValueIsTheMeanOfWhatIsRead) {
  Profile profile(50, 40, 40, BudgetRole::KeptTarget);
  for (int s = 0; s < 50; ++s) {
    for (int l = 0; l < 40; ++l) {
      // 0.9 in the 10 steps and the layer that warm-up keeps dense.
      for (int h = 0; h < 40; ++h) profile.set({s, l, h}, s < 10 || l < 1 ? 0.9 : h % 2 == 0 ? 0.2 : 0.4);
    }
  }
  const ExportOutput output = exported("svg-cli", profile, "wan_t2v_720p");
  EXPECT_THAT(output.files.at(0).content, HasSubstr("--sparsity 0.3 "));
  EXPECT_THAT(output.files.at(0).content, HasSubstr("--first_times_fp 0.2 --first_layers_fp 0.03"));
  EXPECT_THAT(output.warnings, testing::Contains(HasSubstr("differences are lost")));
  EXPECT_TRUE(output.files.at(0).executable);
  EXPECT_THAT(
      exported("svg-cli", profile, "wan_t2v_720p", {"first_times_fp=0", "first_layers_fp=0"}).files.at(0).content,
      HasSubstr("--sparsity 0.432 "));
}

TEST(Exporter, HeadersSayWhatIsReadInThisRun) {
  const auto script = [](const char* to, const char* model, int steps, const std::vector<std::string>& params = {}) {
    return exported(to, grid(steps, 40, 40, BudgetRole::KeptTarget), model, params).files.at(0).content;
  };
  EXPECT_THAT(script("svoo-cli", "wan22_t2v_a14b", 40), HasSubstr("the first 8 of 40 steps and 1 of 40 layers"));
  EXPECT_THAT(script("svoo-cli", "wan22_t2v_a14b", 50),
              testing::AllOf(HasSubstr("the first 10 of 50 steps and 1 of 40 layers"), HasSubstr("two experts"),
                             HasSubstr("both of its guidance passes"), HasSubstr("counts steps from 1")));
  EXPECT_THAT(script("svoo-cli", "wan22_t2v_a14b", 40, {"first_times_fp=0.1", "first_layers_fp=0.3"}),
              HasSubstr("the first 4 of 40 steps and 12 of 40 layers"));
  EXPECT_THAT(script("svoo-cli", "wan21_t2v_14b", 50), testing::Not(HasSubstr("two experts")));
  EXPECT_THAT(script("svg-cli", "wan_t2v_720p", 50, {"first_times_fp=0"}), HasSubstr("the first 0 of 50 steps"));
  const ExportOutput csv = exported("svoo-csv", grid(40, 40, 40, BudgetRole::KeptFloor), "wan22_i2v_a14b");
  EXPECT_THAT(csv.notes, testing::AllOf(testing::Contains(HasSubstr("two experts")),
                                        testing::Contains(HasSubstr("guidance passes"))));
  EXPECT_EQ(commentText("a\nrm -rf b\r.csv"), "a rm -rf b .csv");
}

TEST(Exporter, SvooScriptFindsItsCsvBesideIt) {
  const Profile profile = grid(50, 30, 12, BudgetRole::KeptFloor);
  const ExportOutput output = exported("svoo-cli", profile, "", {"top_p_kmeans=0.8"});
  ASSERT_EQ(output.files.size(), 2U);
  EXPECT_EQ(output.files[1].path.filename(), "run.csv");
  EXPECT_EQ(output.files[1].content, formatSvooCsv(profile));
  const std::string& script = output.files[0].content;
  EXPECT_THAT(script, HasSubstr("MODEL_SIZE=1.3B bash scripts/inference/wan/wan_t2v_720p_svoo.sh"));
  EXPECT_THAT(script, HasSubstr("--sparsity_csv_path \"$here\"/run.csv"));
  EXPECT_THAT(script, HasSubstr("--top_p_kmeans 0.8"));
  EXPECT_THAT(script, HasSubstr("\"$@\"\n"));
  EXPECT_THROW((void)exported("svoo-cli", grid(50, 7, 7, BudgetRole::KeptFloor)), Error);
  EXPECT_THROW((void)exported("svoo-cli", grid(50, 30, 12, BudgetRole::TopMass)), Error);
}

TEST(Exporter, SparseVideoSpellsEveryKeyOut) {
  const std::set<std::string> common{"dense_warmup_step_ratio", "dense_warmup_layer_ratio", "num_inference_steps"};
  const std::map<std::string, std::set<std::string>> keys{
      {"svg1", {"num_sampled_rows", "sample_mse_max_row", "sparsity", "context_length", "prompt_length"}},
      {"svg2",
       {"num_q_centroids", "num_k_centroids", "top_p_kmeans", "min_kc_ratio", "kmeans_iter_init", "kmeans_iter_step",
        "zero_step_kmeans_init", "context_length", "prompt_length"}},
      {"svoo",
       {"num_q_centroids", "num_k_centroids", "top_p_kmeans", "min_kc_ratio", "kmeans_iter_init", "kmeans_iter_step",
        "zero_step_kmeans_init", "enable_mem_save", "reuse_interval", "use_dynamic_min_kc_ratio", "sparsity_csv_path",
        "dynamic_min_kc_ratio_min", "dynamic_min_kc_ratio_max", "measure_attention_sparsity", "sparsity_output_file",
        "sparsity_batch_size", "sparsity_query_samples", "sparsity_threshold", "sparsity_start_step"}}};
  for (const auto& [method, own] : keys) {
    const Profile profile = grid(50, 60, 24, method == "svg1" ? BudgetRole::KeptTarget : BudgetRole::KeptFloor);
    const ExportOutput output = exported("sparsevideo", profile, "hunyuan-t2v", {"method=" + method});
    const auto config = nlohmann::json::parse(output.files.at(0).content);
    std::set<std::string> written;
    for (const auto& [key, value] : config.items()) written.insert(key);
    std::set<std::string> expected = own;
    expected.insert(common.begin(), common.end());
    EXPECT_EQ(written, expected) << method;
    if (method == "svoo") {
      EXPECT_EQ(config.at("use_dynamic_min_kc_ratio"), true);
      EXPECT_TRUE(config.at("dynamic_min_kc_ratio_max").is_null());
      EXPECT_EQ(config.at("sparsity_csv_path"), "/tmp/run.csv");
      EXPECT_EQ(config.at("top_p_kmeans"), 0.88);
      EXPECT_EQ(output.files.at(1).content, formatSvooCsv(profile));
    } else {
      ASSERT_EQ(output.files.size(), 3U);
      const Profile back = parseProfileJson(output.files[1].content, "p");
      EXPECT_EQ(back.at({49, 59, 23}), profile.at({49, 59, 23}));
      EXPECT_EQ(output.files[2].path.filename(), "sparsight_sparsevideo.py");
      EXPECT_THAT(output.files[2].content, HasSubstr("def apply_budget("));
      EXPECT_THAT(output.load.at(0), HasSubstr(method == "svg1" ? "key=\"sparsity\"" : "key=\"min_kc_ratio\""));
      EXPECT_EQ(config.at("context_length"), 256);
    }
  }
  EXPECT_THROW((void)exported("sparsevideo", grid(5, 4, 3, BudgetRole::TopMass), "", {"method=svg1"}), Error);
}

TEST(Exporter, WhatComesOutReadsBackTheSame) {
  const Profile profile = grid(50, 30, 12, BudgetRole::KeptFloor);
  for (const char* id : {"svoo-csv", "json", "svoo-cli", "sparsevideo"}) {
    const ExportOutput output = exported(id, profile);
    const std::string& table = output.files.back().content;
    const Profile back = table.front() == '{' ? parseProfileJson(table, "t") : parseSvooCsv(table, "t").profile;
    EXPECT_TRUE(diffProfiles(profile, back).changed == 0) << id;
  }
}

TEST(Exporter, HolesNeedADecisionWhereTheTargetHasNone) {
  Profile profile = grid(50, 30, 12, BudgetRole::KeptFloor);
  profile.set({3, 2, 1}, std::nullopt);
  for (const char* id : {"svoo-csv", "svoo-cli", "sparsevideo"}) {
    EXPECT_THROW((void)exported(id, profile), Error) << id;
    EXPECT_EQ(exported(id, profile, "", {}, FillPolicy::Value).filled, 1) << id;
  }
  EXPECT_EQ(exported("json", profile).holes, 1);
  EXPECT_THROW((void)exported("json", profile, "", {}, FillPolicy::Refuse), Error);
}

TEST(Exporter, WritesCompanionsFirstAndTheMainFileRunnable) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "exporter_test";
  std::filesystem::create_directories(folder);
  const Exporter& exporter = exporterById("svoo-cli");
  const Profile profile = grid(50, 30, 12, BudgetRole::KeptFloor);
  const ExportOutput output =
      prepareExport(exporter, {profile, "p", "", ParamSet::parse(exporter.params(), {}), {}, 0, folder / "a b.sh"});
  writeExport(output);
  EXPECT_EQ(readWholeFile(folder / "a b.csv", 1 << 20), formatSvooCsv(profile));
  const auto permissions = std::filesystem::status(folder / "a b.sh").permissions();
  EXPECT_NE(permissions & std::filesystem::perms::owner_exec, std::filesystem::perms::none);
  EXPECT_THAT(output.files[0].content, HasSubstr("\"$here\"/'a b.csv'"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace sparsight

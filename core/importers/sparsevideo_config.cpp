// SPDX-License-Identifier: Apache-2.0
// A SparseVideo method configuration, as the export `sparsevideo` writes it or by hand: one value per key, and where
// the budgets are finer, the CSV that it names or our profile beside it.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "import/shallow_json.h"
#include "import/uniform_profile.h"
#include "sparsight/core/exporter.h"
#include "sparsight/core/files.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

class SparseVideoConfig final : public Importer {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "sparsevideo"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SparseVideo configuration"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "A method's configuration (JSON) with the CSV or profile that belongs to it, as a profile.";
  }
  [[nodiscard]] std::string_view suffixes() const noexcept override { return "*.json"; }
  [[nodiscard]] bool isProfile() const noexcept override { return true; }
  [[nodiscard]] int match(const SourceHead& head) const override {
    const std::size_t start = head.bytes.find_first_not_of(" \t\r\n");
    return start != std::string::npos && head.bytes[start] == '{' &&
                   head.bytes.find("\"dense_warmup_step_ratio\"") != std::string::npos &&
                   head.bytes.find("sparsight-profile") == std::string::npos
               ? 2
               : 0;
  }

  [[nodiscard]] ProfileImport readProfile(const std::filesystem::path& path,
                                          const ProfileImportOptions& options) const override {
    const auto config = import::parseJson(readWholeFile(path, std::uint64_t{1} << 24), path.string());
    if (!config.is_object())
      throw Error(ErrorCode::Format, fmt::format("{}: is no JSON object; correct it", path.string()));
    const auto real = [&](const char* key) -> std::optional<double> {
      return config.contains(key) && config[key].is_number() ? std::optional(config[key].get<double>()) : std::nullopt;
    };
    ProfileImport out;
    if (config.value("use_dynamic_min_kc_ratio", nlohmann::json(false)) == true &&
        config.contains("sparsity_csv_path") && config["sparsity_csv_path"].is_string() &&
        !config["sparsity_csv_path"].get_ref<const std::string&>().empty()) {
      const auto csv = import::companionFile(path, config["sparsity_csv_path"].get<std::string>());
      CsvImport read = readSvooCsv(csv);
      out.profile = std::move(read.profile);
      for (const CsvIssue& issue : read.issues)
        out.warnings.push_back(fmt::format("{}: line {}: {}", csv.string(), issue.line, issue.message));
      clip(config, out);
      return out;
    }
    std::error_code ignored;
    if (const auto table = companionOf(path, ".profile.json"); std::filesystem::is_regular_file(table, ignored)) {
      out.profile = sparsight::readProfile(table);
      out.assumed.push_back(fmt::format("{} beside it holds its budgets", table.filename().string()));
      return out;
    }
    import::Grid guess;
    if (config.contains("num_inference_steps") && config["num_inference_steps"].is_number_integer()) {
      guess.steps =
          static_cast<int>(std::clamp<std::int64_t>(config["num_inference_steps"].get<std::int64_t>(), 0, 100'000));
    }
    const auto use = [&](const char* key, BudgetRole role) {
      out.profile = import::uniformProfile(path, role, *real(key), options, guess);
      out.assumed.push_back(fmt::format("{} {:g} everywhere", key, *real(key)));
    };
    if (real("sparsity")) {
      use("sparsity", BudgetRole::KeptTarget);
    } else if (real("min_kc_ratio") && *real("min_kc_ratio") > 0) {
      use("min_kc_ratio", BudgetRole::KeptFloor);
      if (real("top_p_kmeans"))
        out.warnings.push_back(fmt::format("top_p_kmeans {:g} is not part of the profile", *real("top_p_kmeans")));
    } else if (real("top_p_kmeans")) {
      use("top_p_kmeans", BudgetRole::TopMass);
    } else {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("{}: holds none of sparsity, min_kc_ratio and top_p_kmeans, so it is of a "
                              "method whose budget is no fraction",
                              path.string()));
    }
    out.profile.provenance.source = "SparseVideo configuration";
    return out;
  }

 private:
  // What the runtime would have made of the values.
  static void clip(const nlohmann::json& config, ProfileImport& out) {
    const auto bound = [&](const char* key) -> std::optional<double> {
      return config.contains(key) && config[key].is_number() ? std::optional(config[key].get<double>()) : std::nullopt;
    };
    const auto low = bound("dynamic_min_kc_ratio_min"), high = bound("dynamic_min_kc_ratio_max");
    if (low.value_or(0) <= 0 && high.value_or(1) >= 1) return;
    out.warnings.push_back(fmt::format("the runtime clips these values to {:g} .. {:g}; the profile has them unclipped",
                                       low.value_or(0), high.value_or(1)));
  }
};

}  // namespace

const Importer& sparsevideo_config_importer() {
  static const SparseVideoConfig importer;
  return importer;
}

}  // namespace sparsight

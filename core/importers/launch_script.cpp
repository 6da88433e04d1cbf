// SPDX-License-Identifier: Apache-2.0
// Command lines of Sparse VideoGen's and SVOO's programs in a shell script: read for their flags, never run.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>

#include "import/uniform_profile.h"
#include "sparsight/core/exporter.h"
#include "sparsight/core/files.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

/// Words of a script as a shell would split them; variables stay as they are written, comments are dropped.
std::vector<std::string> wordsOf(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool open = false;
  const auto close = [&] {
    if (open) words.push_back(std::move(word));
    word.clear();
    open = false;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\' && i + 1 < text.size()) {
      if (text[++i] != '\n') {
        word += text[i];
        open = true;
      }
    } else if (c == '\'' || c == '"') {
      open = true;
      while (++i < text.size() && text[i] != c) {
        if (c == '"' && text[i] == '\\' && i + 1 < text.size()) ++i;
        word += text[i];
      }
    } else if (c == '#' && !open) {
      while (i < text.size() && text[i] != '\n') ++i;
    } else if (std::isspace(static_cast<unsigned char>(c)) != 0) {
      close();
    } else {
      word += c;
      open = true;
    }
  }
  close();
  return words;
}

class LaunchScript final : public Importer {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "script"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SVG, SVG2 or SVOO command line"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "A shell script with one of their command lines, as a profile; SVOO's CSV is found beside it. Never run.";
  }
  [[nodiscard]] std::string_view suffixes() const noexcept override { return "*.sh"; }
  [[nodiscard]] bool isProfile() const noexcept override { return true; }
  [[nodiscard]] int match(const SourceHead& head) const override {
    const auto has = [&](const char* text) { return head.bytes.find(text) != std::string::npos; };
    if (!head.startsWith("#!") && head.suffix != ".sh") return 0;
    return has("--sparsity") || has("--top_p_kmeans") || has("--min_kc_ratio") || has("--pattern") ? 2 : 0;
  }

  [[nodiscard]] ProfileImport readProfile(const std::filesystem::path& path,
                                          const ProfileImportOptions& options) const override {
    const std::string text = readWholeFile(path, std::uint64_t{1} << 22);
    const std::vector<std::string> words = wordsOf(text);
    std::map<std::string, std::string, std::less<>> flags;  // the last one wins, as with argparse
    import::Grid guess;
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::string& word = words[i];
      if (!word.starts_with("--")) continue;
      const std::size_t equals = word.find('=');
      if (equals != std::string::npos) {
        flags[word.substr(2, equals - 2)] = word.substr(equals + 1);
      } else {
        flags[word.substr(2)] = i + 1 < words.size() && !words[i + 1].starts_with("--") ? words[i + 1] : std::string();
      }
    }
    ProfileImport out;
    if (const auto csv = flags.find("sparsity_csv_path"); csv != flags.end()) {
      // "$here"/run.csv: the part after the last variable is what lies beside the script.
      const std::string name =
          csv->second.find('$') == std::string::npos ? csv->second : csv->second.substr(csv->second.rfind('/') + 1);
      const auto table = import::companionFile(path, name);
      CsvImport read = readSvooCsv(table);
      for (const CsvIssue& issue : read.issues)
        out.warnings.push_back(fmt::format("{}: line {}: {}", table.string(), issue.line, issue.message));
      out.profile = std::move(read.profile);
      const double low = real(path, flags, "dynamic_min_kc_ratio_min").value_or(0);
      const double high = real(path, flags, "dynamic_min_kc_ratio_max").value_or(1);
      if (low > 0 || high < 1) {
        out.warnings.push_back(
            fmt::format("the program clips these values to {:g} .. {:g}; the profile has them unclipped", low, high));
      }
      return out;
    }
    for (const char* key : {"num_inference_steps", "num_step"}) {
      if (const auto steps = real(path, flags, key); steps && *steps >= 1 && *steps <= 1e5)
        guess.steps = static_cast<int>(*steps);
    }
    for (const char* key : {"model_id", "version"}) {
      const auto model = flags.find(key);
      if (model == flags.end()) continue;
      const std::string word = model->second == "v1.5" ? std::string("CogVideoX1.5-5B") : model->second;
      const import::Grid known = import::gridOfModel(word);
      if (known.layers == 0) continue;
      guess.layers = known.layers;
      guess.heads = known.heads;
    }
    const auto pattern = flags.find("pattern");
    const bool sap = pattern != flags.end() && (pattern->second == "SAP" || pattern->second == "SVOO");
    const auto use = [&](const char* key, BudgetRole role) {
      const double value = real(path, flags, key).value_or(-1);
      out.profile = import::uniformProfile(path, role, value, options, guess);
      out.assumed.push_back(fmt::format("--{} {:g} for all steps, layers and heads", key, value));
    };
    const auto floor = real(path, flags, "min_kc_ratio");
    const auto mass = real(path, flags, "top_p_kmeans");
    const bool meansMass = text.find("--top_p_kmeans is the mean of") != std::string::npos;
    if (!sap && real(path, flags, "sparsity")) {
      use("sparsity", BudgetRole::KeptTarget);
    } else if (mass && (meansMass || floor.value_or(0) <= 0)) {
      use("top_p_kmeans", BudgetRole::TopMass);
    } else if (floor) {
      use("min_kc_ratio", BudgetRole::KeptFloor);
      if (mass) out.warnings.push_back(fmt::format("--top_p_kmeans {:g} is not part of the profile", *mass));
    } else {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: its command line gives none of --sparsity, --min_kc_ratio, --top_p_kmeans and "
                              "--sparsity_csv_path, so there is no budget in it",
                              path.string()));
    }
    out.profile.provenance.source = "command line";
    return out;
  }

 private:
  static std::optional<double> real(const std::filesystem::path& path,
                                    const std::map<std::string, std::string, std::less<>>& flags,
                                    std::string_view key) {
    const auto found = flags.find(key);
    if (found == flags.end()) return std::nullopt;
    double value = 0;
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: --{} is '{}', not a number; variables are not followed, write it out", path.string(),
                              key, text));
    }
    return value;
  }
};

}  // namespace

const Importer& launch_script_importer() {
  static const LaunchScript importer;
  return importer;
}

}  // namespace sparsight

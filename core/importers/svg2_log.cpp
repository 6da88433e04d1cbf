// SPDX-License-Identifier: Apache-2.0
// What SVG2 writes with --logging_file: one JSON object per sparse attention call, {timestep, layer, avg_density,
// density[batch][head]}; density is the kept fraction that was reached.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "import/shallow_json.h"
#include "sparsight/core/files.h"
#include "sparsight/core/importer.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{512} << 20;
// A record of 4,096 heads and both guidance passes has some 200 KB.
constexpr std::size_t kLongestLine = std::size_t{4} << 20;

struct Mean {
  double sum = 0;
  int count = 0;
};

class Svg2Log final : public Importer {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "svg2-log"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SVG2 density log"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "JSON lines of --logging_file: the kept fractions that a run reached, as a profile.";
  }
  [[nodiscard]] std::string_view suffixes() const noexcept override { return "*.jsonl"; }
  [[nodiscard]] bool isProfile() const noexcept override { return true; }
  [[nodiscard]] int match(const SourceHead& head) const override {
    const std::string_view line = std::string_view(head.bytes).substr(0, head.bytes.find('\n'));
    return line.starts_with('{') && line.find("\"avg_density\"") != std::string_view::npos ? 2 : 0;
  }

  [[nodiscard]] ProfileImport readProfile(const std::filesystem::path& path,
                                          const ProfileImportOptions& options) const override {
    const std::string text = readWholeFile(path, kMostBytes);
    std::map<std::pair<double, int>, std::vector<Mean>> calls;  // (timestep, layer) -> heads
    std::set<double, std::greater<>> timesteps;
    std::size_t heads = 0;
    int layers = 0, number = 0, damaged = 0, repeated = 0;
    for (std::size_t from = 0; from < text.size();) {
      const std::size_t end = std::min(text.find('\n', from), text.size());
      const std::string_view line = std::string_view(text).substr(from, end - from);
      from = end + 1;
      ++number;
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      std::vector<std::vector<double>> density;
      double timestep = 0;
      int layer = -1;
      if (line.size() > kLongestLine || !parse(line, path.string(), timestep, layer, density)) {
        ++damaged;  // a run that was killed leaves a torn last line
        if (from < text.size()) {
          throw Error(ErrorCode::Format, fmt::format("{}: line {} is no density record (timestep, layer, density[][] "
                                                     "between 0 and 1); correct or remove it",
                                                     path.string(), number));
        }
        continue;
      }
      if (heads == 0) heads = density.front().size();
      auto& means = calls[{timestep, layer}];
      if (!means.empty()) ++repeated;
      means.resize(heads);
      for (const auto& entry : density) {
        if (entry.size() != heads) {
          throw Error(ErrorCode::Format,
                      fmt::format("{}: line {} has {} heads, lines before it {}; import one run's log", path.string(),
                                  number, entry.size(), heads));
        }
        for (std::size_t h = 0; h < heads; ++h) {
          means[h].sum += entry[h];
          ++means[h].count;
        }
      }
      timesteps.insert(timestep);
      layers = std::max(layers, layer + 1);
    }
    if (calls.empty()) throw Error(ErrorCode::Format, fmt::format("{}: holds no density record", path.string()));
    return profileOf(path, options, calls, timesteps, layers, static_cast<int>(heads), repeated, damaged);
  }

 private:
  static bool parse(std::string_view line, const std::string& name, double& timestep, int& layer,
                    std::vector<std::vector<double>>& density) {
    const auto json = import::parseJson(line, name);
    if (!json.is_object() || !json.contains("timestep") || !json["timestep"].is_number() || !json.contains("layer") ||
        !json["layer"].is_number_integer() || !json.contains("density") || !json["density"].is_array()) {
      return false;
    }
    timestep = json["timestep"].get<double>();
    const auto number = json["layer"].get<std::int64_t>();
    if (!std::isfinite(timestep) || number < 0 || number > 10'000) return false;
    layer = static_cast<int>(number);
    for (const auto& entry : json["density"]) {
      if (!entry.is_array() || entry.empty() || entry.size() > 4096) return false;
      std::vector<double> row;
      for (const auto& value : entry) {
        if (!value.is_number()) return false;
        const double d = value.get<double>();
        if (!(d >= 0 && d <= 1.0 + 1e-6)) return false;
        row.push_back(std::min(d, 1.0));
      }
      density.push_back(std::move(row));
    }
    return !density.empty();
  }

  static ProfileImport profileOf(const std::filesystem::path& path, const ProfileImportOptions& options,
                                 const std::map<std::pair<double, int>, std::vector<Mean>>& calls,
                                 const std::set<double, std::greater<>>& timesteps, int layers, int heads, int repeated,
                                 int damaged) {
    ProfileImport out;
    const auto count = static_cast<int>(timesteps.size());
    int steps = options.steps > 0 ? options.steps : static_cast<int>(options.timesteps.size());
    std::map<double, int> stepOf;
    if (!options.timesteps.empty()) {
      for (const double t : timesteps) {
        const auto nearest = std::min_element(options.timesteps.begin(), options.timesteps.end(),
                                              [&](double a, double b) { return std::abs(a - t) < std::abs(b - t); });
        if (std::abs(*nearest - t) > 1) {
          throw Error(
              ErrorCode::InvalidArgument,
              fmt::format("{}: timestep {:g} is not in --timesteps; give the schedule of this run", path.string(), t));
        }
        stepOf[t] = static_cast<int>(nearest - options.timesteps.begin());
      }
    } else {
      if (steps == 0) steps = count;
      if (steps < count) {
        throw Error(ErrorCode::InvalidArgument,
                    fmt::format("{}: holds {} timesteps, more than --steps {}", path.string(), count, steps));
      }
      int next = steps - count;
      for (const double t : timesteps) stepOf[t] = next++;
      if (steps > count) {
        out.assumed.push_back(
            fmt::format("the {} logged timesteps are the last of {} steps: the first ones run dense and "
                        "are not logged",
                        count, steps));
      } else {
        out.assumed.push_back(
            fmt::format("the {} logged timesteps are the whole run (--steps N if its first steps ran "
                        "dense, which are not logged)",
                        count));
      }
    }
    if ((options.layers > 0 && options.layers < layers) || (options.heads > 0 && options.heads != heads)) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{}: has {} layers of {} heads, which --layers and --heads contradict", path.string(),
                              layers, heads));
    }
    if (options.layers > 0) layers = options.layers;
    out.profile = Profile(steps, layers, heads, BudgetRole::KeptTarget);
    for (const auto& [place, means] : calls) {
      for (int h = 0; h < heads; ++h) {
        const Mean& mean = means[static_cast<std::size_t>(h)];
        out.profile.set({stepOf.at(place.first), place.second, h}, mean.sum / mean.count);
      }
    }
    if (repeated > 0) {
      out.assumed.push_back(
          fmt::format("{} further records of a timestep and layer (guidance passes) are averaged", repeated));
    }
    if (damaged > 0)
      out.warnings.emplace_back("the last line is torn and left out: the run was stopped while it wrote");
    if (out.profile.holeCount() > 0) {
      out.warnings.push_back(
          fmt::format("{} cells are without a value: dense steps and layers are not logged", out.profile.holeCount()));
    }
    out.profile.provenance.source = "SVG2 density log";
    out.profile.provenance.parameters["file"] = path.filename().string();
    return out;
  }
};

}  // namespace

const Importer& svg2_log_importer() {
  static const Svg2Log importer;
  return importer;
}

}  // namespace sparsight

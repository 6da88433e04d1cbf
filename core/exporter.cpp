// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/exporter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

#include "sparsight/core/files.h"

namespace sparsight {

const Exporter& exporterById(std::string_view id) {
  std::vector<std::string_view> known;
  for (const Exporter* exporter : allExporters()) {
    if (exporter->id() == id) return *exporter;
    known.push_back(exporter->id());
  }
  throw Error(ErrorCode::InvalidArgument,
              fmt::format("export target {}: unknown; there are {}", id, fmt::join(known, ", ")));
}

ExportOutput prepareExport(const Exporter& exporter, ExportInput input) {
  const std::vector<ExportModel> models = exporter.models();
  const Profile& profile = input.profile;
  std::vector<std::string> warnings;
  if (!input.model.empty()) {
    const auto model = std::find_if(models.begin(), models.end(), [&](const auto& m) { return m.key == input.model; });
    if (model == models.end()) {
      std::vector<std::string> known;
      for (const ExportModel& m : models) known.push_back(m.key);
      throw Error(ErrorCode::InvalidArgument,
                  known.empty()
                      ? fmt::format("--model {}: {} knows no models", input.model, exporter.id())
                      : fmt::format("--model {}: unknown; there are {}", input.model, fmt::join(known, ", ")));
    }
    if ((model->layers != 0 && model->layers != profile.layers()) ||
        (model->heads != 0 && model->heads != profile.heads())) {
      const std::string fits = modelsOfGrid(profile.layers(), profile.heads());
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{} has {} layers x {} heads, but {} has {} x {}{}", input.name, profile.layers(),
                              profile.heads(), model->title, model->layers, model->heads,
                              fits.empty() ? "" : fmt::format("; this is the grid of {}", fits)));
    }
    if (model->steps != 0 && model->steps != profile.steps()) {
      warnings.push_back(
          fmt::format("the profile has {} steps, the script of {} runs {}: step t is read as row t and nothing beyond "
                      "the file, so run it with --num_inference_steps {}",
                      profile.steps(), model->title, model->steps, profile.steps()));
    }
  }
  input.params.setDefaults([&] {
    std::map<std::string, std::string, std::less<>> defaults;
    for (const ParamSpec& spec : exporter.params()) defaults[spec.name] = spec.defaultValue;
    for (auto& [name, value] : exporter.defaultsFor(input.model)) defaults[name] = value;
    return defaults;
  }());
  ExportOutput output = exporter.prepare(input);
  output.warnings.insert(output.warnings.begin(), warnings.begin(), warnings.end());
  return output;
}

void writeExport(const ExportOutput& output) {
  for (auto file = output.files.rbegin(); file != output.files.rend(); ++file) {
    writeFileAtomically(file->path, file->content);
    if (file->executable) {
      using std::filesystem::perms;
      std::error_code error;  // where there are no such bits, "sh FILE" does
      std::filesystem::permissions(file->path, perms::owner_exec | perms::group_exec | perms::others_exec,
                                   std::filesystem::perm_options::add, error);
    }
  }
}

Profile completeForExport(const Exporter& exporter, const ExportInput& input, ExportOutput& output) {
  const Index holes = input.profile.holeCount();
  if (!input.fill && !exporter.wantsWholeGrid()) {
    output.holes = holes;
    output.mean = summarise(input.profile).mean;
    return input.profile;
  }
  const FillPolicy policy = input.fill.value_or(FillPolicy::Refuse);
  if (policy == FillPolicy::Refuse && holes > 0) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("{}: {} of {} cells are without a value, and runtimes ignore incomplete profiles; choose "
                            "how to fill them (nearest step, hold, or a value), or export JSON, which keeps holes",
                            input.name, holes, input.profile.cellCount()));
  }
  output.filled = holes;
  Profile whole = fillForExport(input.profile, policy, input.fillValue);
  output.mean = summarise(whole).mean;
  return whole;
}

std::filesystem::path companionOf(const std::filesystem::path& main, std::string_view ending) {
  std::filesystem::path path = main;
  path.replace_extension();
  path += ending;
  return path;
}

std::string shellWord(const std::string& text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_-./=+,:@%").find(c) != std::string_view::npos;
  });
  if (plain) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string commentText(std::string text) {
  for (char& c : text) {
    if (std::iscntrl(static_cast<unsigned char>(c)) != 0) c = ' ';
  }
  return text;
}

std::string absolutePath(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path.string() : absolute.lexically_normal().string();
}

BudgetSpread spreadBehind(const Profile& profile, int denseSteps, int denseLayers) {
  BudgetSpread spread{0, 1, 0, 0};
  for (int s = denseSteps; s < profile.steps(); ++s) {
    for (int l = denseLayers; l < profile.layers(); ++l) {
      for (int h = 0; h < profile.heads(); ++h) {
        const std::optional<double> value = profile.at({s, l, h});
        if (!value) continue;
        spread.mean += *value;
        spread.minimum = std::min(spread.minimum, *value);
        spread.maximum = std::max(spread.maximum, *value);
        ++spread.cells;
      }
    }
  }
  if (spread.cells == 0) return {};
  spread.mean /= static_cast<double>(spread.cells);
  return spread;
}

}  // namespace sparsight

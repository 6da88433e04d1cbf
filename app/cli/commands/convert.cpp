// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/cli/command.h"
#include "sparsight/core/importer.h"
#include "sparsight/core/profile.h"

namespace sparsight {
namespace cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t from = 0; from <= text.size();) {
    const std::size_t end = std::min(text.find(',', from), text.size());
    parts.push_back(text.substr(from, end - from));
    from = end + 1;
  }
  return parts;
}

std::vector<double> numbers(const std::string& text, const char* option) {
  std::vector<double> values;
  for (const std::string& part : split(text)) {
    double value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (part.empty() || error != std::errc() || end != part.data() + part.size()) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{} takes numbers with commas between, not '{}'", option, text));
    }
    values.push_back(value);
  }
  return values;
}

std::string sizeText(double bytes) {
  if (bytes < 0x1p20) return fmt::format("{:.1f} KiB", bytes / 0x1p10);
  return bytes < 0x1p30 ? fmt::format("{:.1f} MiB", bytes / 0x1p20) : fmt::format("{:.1f} GiB", bytes / 0x1p30);
}

std::string help() {
  std::string text = "\nSources:\n";
  for (const Importer* importer : allImporters())
    text += fmt::format("  {:<12} {}\n", importer->id(), importer->summary());
  text +=
      "  folders      of any tensor files, read together\n  profiles     SVOO CSV and Sparsight JSON into each "
      "other\n\nPresets:\n";
  for (const ImportPreset& preset : importPresets()) text += fmt::format("  {:<22} {}\n", preset.key, preset.title);
  return text;
}

class ConvertCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("IN", m_in, "File or folder to read")->required();
    app.add_option("OUT", m_out, "Trace (.h5), or profile (.csv, .json), to write; not needed with --dry-run");
    app.add_option("--preset", m_options.preset, "Model and size that the tensors are of, see below");
    app.add_option("--grid", m_grid, "Video tokens T,H,W (frames, rows, columns)");
    app.add_option("--text", m_text, "Text tokens beside the video's")->check(CLI::Range(Index{0}, Index{1} << 30));
    app.add_flag("--text-first", m_textFirst, "Text before the video (CogVideoX) instead of after it");
    app.add_option("--map", m_maps,
                   "q=PATTERN, k=PATTERN, v=PATTERN: names with {step} {timestep} {layer} {head} {branch} {kind} "
                   "{call} {*}; also "
                   "rows=PATTERN (token of each query row), valid=PATTERN (which keys count), mask=PATTERN")
        ->allow_extra_args(false);
    app.add_option("--axes", m_options.axes,
                   "One letter per axis: S step, L layer, B batch, H head, N token, D channel; for example BNHD");
    app.add_option("--branch", m_branch, "Guidance branch of all calls, or one name per batch entry: uncond,cond");
    app.add_option("--step", m_step, "0-based step index where names do not say it")->check(CLI::Range(0, 1000000));
    app.add_option("--layer", m_layer, "Layer where names do not say it")->check(CLI::Range(0, 1000000));
    app.add_option("--steps", m_steps, "Denoising steps of the whole run; for profiles: of the grid")
        ->check(CLI::Range(1, 1000000));
    app.add_option("--layers", m_profile.layers, "Profiles: layers of the model")->check(CLI::Range(1, 100000));
    app.add_option("--heads", m_profile.heads, "Profiles: heads of the model")->check(CLI::Range(1, 100000));
    app.add_option("--timesteps", m_timesteps, "The whole schedule, a,b,c,...: tells timesteps from steps");
    app.add_option("--scale", m_scale, "Factor on q k^T; default 1/sqrt(channels)");
    app.add_option("--family", m_options.family, "Model family, for the methods' rules: wan2.1, hunyuanvideo, ...");
    app.add_option("--kind", m_options.kind, "Kind of the attention calls; default self, with text joint");
    app.add_flag("--cross", m_options.cross, "Cross-attention too, where names say that it is (attn2, cross)");
    app.add_option("--double-blocks", m_doubleBlocks,
                   "Layer of single block 0, where double and single blocks are numbered apart (HunyuanVideo: 20)")
        ->check(CLI::Range(0, 100000));
    app.add_option("--component", m_options.component, "transformer, or transformer_2 of a two-expert model");
    app.add_option("--raw16", m_raw16, "What 2-byte elements without a type are")
        ->check(CLI::IsMember({"bfloat16", "float16"}));
    app.add_option("--dtype", m_dtype, "Stored type; default the one that holds every value as it is")
        ->check(CLI::IsMember({"float16", "bfloat16", "float32"}));
    app.add_option("--deflate", m_options.deflate, "Compress: 1 to 9; default 0, no")->check(CLI::Range(0, 9));
    app.add_flag("--dry-run", m_dry, "Only say what was found and what would be written");
    app.add_flag("--json", m_json, "One JSON document on standard output");
    app.footer(help());
  }

  int run(Context& context) override {
    takeOptions(context);
    if (m_out.empty() && !m_dry) {
      throw Error(ErrorCode::InvalidArgument, "no OUT: give the file to write, or --dry-run to look only");
    }
    std::error_code ignored;
    const Importer* importer = importerFor(m_in);
    if (importer != nullptr && importer->isProfile()) return convertProfile(context, importer);
    if (importer == nullptr && fs::is_regular_file(m_in, ignored) && sniffsAsProfile())
      return convertProfile(context, nullptr);
    return convertTensors(context);
  }

 private:
  void takeOptions(const Context& context) {
    ImportOptions& o = m_options;
    if (!m_grid.empty()) o.grid = parseGrid(m_grid);
    o.text = m_text;
    if (m_textFirst) o.textFirst = true;
    if (!m_branch.empty()) o.branches = split(m_branch);
    o.step = m_step;
    o.layer = m_layer;
    o.steps = m_steps;
    o.scale = m_scale;
    o.doubleBlocks = m_doubleBlocks;
    if (!m_timesteps.empty()) o.timesteps = numbers(m_timesteps, "--timesteps");
    for (const std::string& map : m_maps) {
      constexpr std::array<std::string_view, 6> kRoles{"q", "k", "v", "rows", "valid", "mask"};
      const std::size_t equals = std::min(map.find('='), map.size());
      const auto role = std::find(kRoles.begin(), kRoles.end(), std::string_view(map).substr(0, equals));
      if (role == kRoles.end() || equals + 1 >= map.size()) {
        throw Error(ErrorCode::InvalidArgument,
                    fmt::format("--map {}: use q=PATTERN, k=, v=, rows=, valid= or mask=PATTERN", map));
      }
      o.patterns[static_cast<std::size_t>(role - kRoles.begin())] = map.substr(equals + 1);
    }
    if (!m_raw16.empty()) o.raw16 = m_raw16 == "float16" ? SourceType::F16 : SourceType::BF16;
    if (!m_dtype.empty())
      o.dtype = m_dtype == "float16" ? DType::F16 : m_dtype == "bfloat16" ? DType::BF16 : DType::F32;
    if (context.memoryLimitMiB > 0) o.memoryLimitBytes = context.memoryLimitMiB << 20;
    m_profile.steps = m_steps.value_or(0);
    m_profile.timesteps = o.timesteps;
  }

  [[nodiscard]] bool sniffsAsProfile() const {
    try {
      return sniffFormat(m_in).starts_with("profile");
    } catch (const Error&) {
      return false;
    }
  }

  int convertProfile(Context& context, const Importer* importer) {
    ProfileImport read;
    if (importer != nullptr) {
      read = importer->readProfile(m_in, m_profile);
    } else {
      std::vector<CsvIssue> issues;
      read.profile = readProfile(m_in, &issues);
      for (const CsvIssue& issue : issues)
        read.warnings.push_back(fmt::format("line {}, column {}: {}", issue.line, issue.column, issue.message));
    }
    if (!m_dry) {
      context.checkOutputs({{"OUT", m_out}}, {m_in});
      writeProfile(m_out, read.profile);
    }
    for (const std::string& warning : read.warnings) context.warn(warning);
    const Profile& p = read.profile;
    if (m_json) {
      Json document{{"in", m_in},
                    {"out", m_dry ? Json() : Json(m_out)},
                    {"format", importer != nullptr ? importer->id() : "profile"},
                    {"kind", "profile"},
                    {"role", budgetRoleName(p.role)},
                    {"steps", p.steps()},
                    {"layers", p.layers()},
                    {"heads", p.heads()},
                    {"values", p.cellCount() - p.holeCount()},
                    {"holes", p.holeCount()},
                    {"assumed", read.assumed},
                    {"warnings", read.warnings}};
      printJson(document.dump(2, ' ', false, Json::error_handler_t::replace));
      return kOk;
    }
    std::string text =
        fmt::format("{}: profile, {} steps x {} layers x {} heads, {} values, {} holes\n", m_dry ? m_in : m_out,
                    p.steps(), p.layers(), p.heads(), p.cellCount() - p.holeCount(), p.holeCount());
    for (const std::string& line : read.assumed) text += fmt::format("  assumed  {}\n", line);
    printJson(text);
    return kOk;
  }

  int convertTensors(Context& context) {
    const Survey survey = surveySource(m_in, quietly(context));
    if (!m_dry && (m_out.ends_with(".csv") || m_out.ends_with(".json"))) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{} holds tensors, which become a trace: name OUT *.h5", m_in));
    }
    const ImportPlan plan = planImport(survey, m_options);
    if (!m_dry) {
      context.checkOutputs({{"OUT", m_out}}, {m_in});
      runImport(survey, plan, m_out, context.control("convert"));
    }
    for (const std::string& warning : survey.warnings) context.warn(warning);
    for (const std::string& warning : plan.warnings) context.warn(warning);
    print(survey, plan);
    return kOk;
  }

  static Control quietly(const Context& context) {
    Control control = context.control("look");
    control.progress = {};
    return control;
  }

  void print(const Survey& survey, const ImportPlan& plan) const {
    const TokenLayout& layout = plan.header.layout;
    const Segment *video = layout.video(), *text = layout.text();
    std::vector<std::string> warnings = survey.warnings;
    warnings.insert(warnings.end(), plan.warnings.begin(), plan.warnings.end());
    if (m_json) {
      Json document{{"in", m_in},
                    {"out", m_dry ? Json() : Json(m_out)},
                    {"kind", "trace"},
                    {"formats", survey.formats},
                    {"calls", Json::array()},
                    {"grid", {video->frames, video->height, video->width}},
                    {"n_tokens", layout.tokenCount},
                    {"text_start", text != nullptr ? text->start : 0},
                    {"text_len", text != nullptr ? text->length : 0},
                    {"dtype", dtypeName(plan.options.dtype)},
                    {"bytes", plan.bytes},
                    {"assumed", plan.assumed},
                    {"warnings", warnings}};
      for (const PlannedCall& call : plan.calls) {
        const CallHeader& h = call.header;
        document["calls"].push_back({{"step", h.id.step},
                                     {"branch", h.id.branch},
                                     {"layer", h.id.layer},
                                     {"kind", h.id.kind},
                                     {"call", h.id.call},
                                     {"timestep", h.timestep},
                                     {"heads", h.heads.size()},
                                     {"n_q", h.nQ},
                                     {"n_k", h.nK},
                                     {"mask", call.keyValid || call.mask},
                                     {"head_dim", h.headDim},
                                     {"has_v", h.valueDim > 0}});
      }
      if (m_dry) {
        document["tensors"] = Json::array();
        for (const FoundTensor& found : survey.tensors) {
          document["tensors"].push_back({{"file", found.file.generic_string()},
                                         {"name", found.name},
                                         {"shape", found.shape},
                                         {"dtype", found.dtype}});
        }
      }
      printJson(document.dump(2, ' ', false, Json::error_handler_t::replace));
      return;
    }
    std::string out;
    if (m_dry) {
      constexpr std::size_t kShown = 40;
      out += fmt::format("{}: {} tensors ({})\n", m_in, survey.tensors.size(), fmt::join(survey.formats, ", "));
      for (std::size_t i = 0; i < std::min(kShown, survey.tensors.size()); ++i) {
        const FoundTensor& found = survey.tensors[i];
        out += fmt::format("  {}  [{}] {}\n", found.label(), fmt::join(found.shape, ", "), found.dtype);
      }
      if (survey.tensors.size() > kShown) out += fmt::format("  ... and {} more\n", survey.tensors.size() - kShown);
      out += "Would write: ";
    } else {
      out += m_out + ": ";
    }
    std::size_t heads = 0;
    for (const PlannedCall& call : plan.calls) heads = std::max(heads, call.header.heads.size());
    out += fmt::format(
        "{} attention call{} of {} head{}, {} tokens ({} x {} x {} video{}), head_dim {}, {}, {}\n", plan.calls.size(),
        plan.calls.size() == 1 ? "" : "s", heads, heads == 1 ? "" : "s", layout.tokenCount, video->frames,
        video->height, video->width,
        text != nullptr ? fmt::format(" + {} text {}", text->length, text->start == 0 ? "first" : "last") : "",
        plan.header.model.headDim, dtypeName(plan.options.dtype), sizeText(plan.bytes));
    const auto count = [&](auto&& has) { return std::count_if(plan.calls.begin(), plan.calls.end(), has); };
    if (const auto some = count([](const PlannedCall& call) { return call.rows.has_value(); }); some > 0)
      out += fmt::format("  rows     {} of {} calls hold some query rows only\n", some, plan.calls.size());
    if (const auto masked = count([](const PlannedCall& call) { return call.keyValid || call.mask; }); masked > 0)
      out += fmt::format("  masks    of {} of {} calls\n", masked, plan.calls.size());
    for (const std::string& line : plan.assumed) out += fmt::format("  assumed  {}\n", line);
    printJson(out);
  }

  std::string m_in, m_out, m_grid, m_branch, m_timesteps, m_raw16, m_dtype;
  std::vector<std::string> m_maps;
  std::optional<Index> m_text;
  std::optional<int> m_step, m_layer, m_steps, m_doubleBlocks;
  std::optional<double> m_scale;
  ImportOptions m_options;
  ProfileImportOptions m_profile;
  bool m_textFirst = false, m_dry = false, m_json = false;
};

}  // namespace
}  // namespace cli

const CommandInfo& convert_command() {
  static const CommandInfo info{"convert",
                                "Makes a trace from tensors of other programs, or a profile from another format",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::ConvertCommand>()); }};
  return info;
}

}  // namespace sparsight

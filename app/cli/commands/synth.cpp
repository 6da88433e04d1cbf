// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "app/cli/command.h"
#include "sparsight/core/synth.h"

namespace sparsight {
namespace cli {
namespace {

class SynthCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("OUT", m_out, "The trace to write (.h5)")->required();
    app.add_option("--preset", m_preset,
                   "Start from a preset: demo (grid 9,16,24, 48 text tokens, 4 layers x 6 heads x 3 steps)");
    app.add_option("--grid", m_grid, "Video tokens T,H,W (frames, rows, columns)");
    app.add_option("--text", m_text, "Text tokens (0: none)");
    app.add_flag("--text-first", m_textFirst, "Text before the video (CogVideoX) instead of after it");
    app.add_option("--layers", m_layers, "Layers");
    app.add_option("--heads", m_heads, "Heads per layer");
    app.add_option("--steps", m_steps, "Captured denoising steps");
    app.add_option("--head-dim", m_headDim, "Channels per head");
    app.add_option("--dtype", m_dtype, "Stored type")->check(CLI::IsMember({"float16", "bfloat16", "float32"}));
  }

  int run(Context& context) override {
    SynthSpec spec = synthPreset(m_preset);
    if (!m_grid.empty()) {
      const auto grid = parseGrid(m_grid);
      spec.frames = grid[0];
      spec.height = grid[1];
      spec.width = grid[2];
    }
    const auto take = [](const std::optional<int>& given, int& value) { value = given.value_or(value); };
    take(m_text, spec.textTokens);
    take(m_layers, spec.layers);
    take(m_heads, spec.heads);
    take(m_steps, spec.steps);
    take(m_headDim, spec.headDim);
    spec.textFirst = m_textFirst;
    if (m_dtype == "bfloat16") spec.dtype = DType::BF16;
    if (m_dtype == "float32") spec.dtype = DType::F32;
    spec.seed = context.seed;
    writeSyntheticTrace(m_out, spec, context.executor(), context.control("synth"));
    const Index tokens = Index{spec.frames} * spec.height * spec.width + spec.textTokens;
    fmt::print("{}: {} steps x {} layers x {} heads, {} tokens ({}x{}x{} video + {} text), head_dim {}, {}\n", m_out,
               spec.steps, spec.layers, spec.heads, tokens, spec.frames, spec.height, spec.width, spec.textTokens,
               spec.headDim, dtypeName(spec.dtype));
    return kOk;
  }

 private:
  std::string m_out, m_preset = "demo", m_grid, m_dtype = "float16";
  std::optional<int> m_text, m_layers, m_heads, m_steps, m_headDim;
  bool m_textFirst = false;
};

}  // namespace
}  // namespace cli

const CommandInfo& synth_command() {
  static const CommandInfo info{"synth", "Writes a synthetic trace whose heads have a known type",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::SynthCommand>()); }};
  return info;
}

}  // namespace sparsight

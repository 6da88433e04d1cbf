// SPDX-License-Identifier: Apache-2.0
// Facts of published models, from the configurations of huggingface/diffusers, and ways to lay out N tokens.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "sparsight/core/importer.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

using Triple = std::array<int, 3>;

/// What all sizes of a model share.
struct Model {
  const char* family;
  const char* className;
  Triple patch, vae;
  bool twoPasses;
  const char* rope = "interleaved";
  int text = 0;
  bool textFirst = false, textVaries = false;
};
constexpr Triple kHalved{1, 2, 2}, kWhole{1, 1, 1}, kVae488{4, 8, 8}, kVae416{4, 16, 16};
constexpr Model kWan21{"wan2.1", "WanTransformer3DModel", kHalved, kVae488, true};
constexpr Model kWan22{"wan2.2", "WanTransformer3DModel", kHalved, kVae488, true};
constexpr Model kWan22Small{"wan2.2", "WanTransformer3DModel", kHalved, kVae416, true};
constexpr Model kHunyuan{"hunyuanvideo", "HunyuanVideoTransformer3DModel", kHalved, kVae488, false, "interleaved", 256};
constexpr Model kHunyuan15{
    "hunyuanvideo-1.5", "HunyuanVideo15Transformer3DModel", kWhole, kVae416, true, "interleaved", 1985, false, true};
constexpr Model kCogNoRope{"cogvideox", "CogVideoXTransformer3DModel", kHalved, kVae488, false, "none", 226, true};
constexpr Model kCog{"cogvideox", "CogVideoXTransformer3DModel", kHalved, kVae488, false, "interleaved", 226, true};
constexpr Model kCog15{"cogvideox", "CogVideoXTransformer3DModel", {2, 2, 2}, kVae488, false, "interleaved", 226, true};
constexpr Model kLtx{"ltx", "LTXVideoTransformer3DModel", kWhole, {8, 32, 32}, false};
constexpr Model kMochi{"mochi", "MochiTransformer3DModel", kHalved, {6, 8, 8}, false, "interleaved", 256, false, true};
constexpr Model kCosmos1{"cosmos", "CosmosTransformer3DModel", kHalved, {8, 8, 8}, true, "half"};
constexpr Model kCosmos2{"cosmos2", "CosmosTransformer3DModel", kHalved, kVae488, true, "half"};

constexpr ImportPreset preset(const Model& m, const char* key, const char* title, int layers, int heads, int headDim,
                              Triple grid, int steps = 50) {
  return {key,    title,       m.family,     m.className, layers, heads, headDim,     grid,
          m.text, m.textFirst, m.textVaries, m.patch,     m.vae,  steps, m.twoPasses, m.rope};
}

constexpr ImportPreset kPresets[] = {
    preset(kWan21, "wan2.1-1.3b-480p", "Wan2.1 1.3B, 480 x 832, 81 frames", 30, 12, 128, {21, 30, 52}),
    preset(kWan21, "wan2.1-14b-480p", "Wan2.1 14B, 480 x 832, 81 frames", 40, 40, 128, {21, 30, 52}),
    preset(kWan21, "wan2.1-14b-720p", "Wan2.1 14B, 720 x 1280, 81 frames", 40, 40, 128, {21, 45, 80}),
    preset(kWan22, "wan2.2-a14b-480p", "Wan2.2 A14B, 480 x 832, 81 frames", 40, 40, 128, {21, 30, 52}, 40),
    preset(kWan22, "wan2.2-a14b-720p", "Wan2.2 A14B, 720 x 1280, 81 frames", 40, 40, 128, {21, 45, 80}, 40),
    preset(kWan22Small, "wan2.2-5b-704p", "Wan2.2 TI2V 5B, 704 x 1280, 121 frames", 30, 24, 128, {31, 22, 40}),
    preset(kHunyuan, "hunyuanvideo-544p", "HunyuanVideo, 544 x 960, 129 frames", 60, 24, 128, {33, 34, 60}),
    preset(kHunyuan, "hunyuanvideo-720p", "HunyuanVideo, 720 x 1280, 129 frames", 60, 24, 128, {33, 45, 80}),
    preset(kHunyuan15, "hunyuanvideo-1.5-480p", "HunyuanVideo-1.5, 480 x 848, 121 frames", 54, 16, 128, {31, 30, 53}),
    preset(kHunyuan15, "hunyuanvideo-1.5-720p", "HunyuanVideo-1.5, 720 x 1280, 121 frames", 54, 16, 128, {31, 45, 80}),
    preset(kCogNoRope, "cogvideox-2b", "CogVideoX 2B, 480 x 720, 49 frames", 30, 30, 64, {13, 30, 45}),
    preset(kCog, "cogvideox-5b", "CogVideoX 5B, 480 x 720, 49 frames", 42, 48, 64, {13, 30, 45}),
    preset(kCog15, "cogvideox1.5-5b", "CogVideoX 1.5 5B, 768 x 1360, 81 frames", 42, 48, 64, {11, 48, 85}),
    preset(kLtx, "ltx-2b", "LTX-Video 2B, 512 x 704, 161 frames", 28, 32, 64, {21, 16, 22}),
    preset(kLtx, "ltx-13b", "LTX-Video 13B, 704 x 1216, 121 frames", 48, 32, 128, {16, 22, 38}, 30),
    preset(kMochi, "mochi-1-85", "Mochi 1, 480 x 848, 85 frames", 48, 24, 128, {15, 30, 53}, 64),
    preset(kMochi, "mochi-1-163", "Mochi 1, 480 x 848, 163 frames", 48, 24, 128, {28, 30, 53}, 64),
    preset(kCosmos1, "cosmos1-7b", "Cosmos 1.0 7B, 704 x 1280, 121 frames", 28, 32, 128, {16, 44, 80}, 36),
    preset(kCosmos1, "cosmos1-14b", "Cosmos 1.0 14B, 704 x 1280, 121 frames", 36, 40, 128, {16, 44, 80}, 36),
    preset(kCosmos2, "cosmos2-2b", "Cosmos-Predict2 2B, 704 x 1280, 93 frames", 28, 16, 128, {24, 44, 80}, 35),
    preset(kCosmos2, "cosmos2-14b", "Cosmos-Predict2 14B, 704 x 1280, 93 frames", 36, 40, 128, {24, 44, 80}, 35),
};

Index volume(const Triple& grid) { return Index{grid[0]} * grid[1] * grid[2]; }

// How far a frame is from the nearest usual aspect ratio, as a factor (0: on it).
double aspectDistance(int height, int width) {
  const double aspect = std::log(static_cast<double>(width) / height);
  double best = 1e9;
  for (const double usual : {16.0 / 9, 9.0 / 16, 3.0 / 2, 2.0 / 3, 4.0 / 3, 3.0 / 4, 1.0, 26.0 / 15}) {
    best = std::min(best, std::abs(aspect - std::log(usual)));
  }
  return best;
}

}  // namespace

std::span<const ImportPreset> importPresets() noexcept { return kPresets; }

const ImportPreset& importPresetByKey(std::string_view key) {
  std::string keys;
  for (const ImportPreset& preset : kPresets) {
    if (key == preset.key) return preset;
    keys += fmt::format("{}{}", keys.empty() ? "" : ", ", preset.key);
  }
  throw Error(ErrorCode::InvalidArgument, fmt::format("no preset '{}'; there are {}", key, keys));
}

std::vector<GridProposal> proposeGrids(Index tokens, int heads, int headDim, std::size_t limit) {
  std::vector<GridProposal> proposals;
  if (tokens <= 0) return proposals;
  for (const ImportPreset& preset : kPresets) {
    const Index text = tokens - volume(preset.grid);
    if (preset.textVaries ? text < 0 || text > preset.text : text != preset.text) continue;
    if ((heads > 0 && heads > preset.heads) || (headDim > 0 && headDim != preset.headDim)) continue;
    proposals.push_back({preset.grid, text, preset.textFirst, preset.key, preset.title});
  }
  // Then any box of a usual shape, without text and with the usual lengths of it.
  struct Scored {
    double score;
    GridProposal proposal;
  };
  std::vector<Scored> scored;
  for (const auto& [text, first, cost] :
       {std::tuple<Index, bool, double>{0, false, 0}, {256, false, 0.3}, {226, true, 0.3}}) {
    const Index video = tokens - text;
    if (video < 8) continue;
    for (int frames = 1; frames <= 97 && Index{frames} * 4 <= video; ++frames) {
      if (video % frames != 0) continue;
      const Index area = video / frames;
      const auto root = static_cast<Index>(std::sqrt(static_cast<double>(area)));
      for (Index h = std::max<Index>(2, root / 3); h <= root * 3 && h <= 4096; ++h) {
        if (area % h != 0 || area / h > 4096 || area / h < 2) continue;
        const auto height = static_cast<int>(h), width = static_cast<int>(area / h);
        const double aspect = aspectDistance(height, width);
        if (aspect > 0.35) continue;
        // Videos are wide, and models make around 20 latent frames.
        const double score = cost + 2 * aspect + (height > width ? 0.2 : 0.0) + (frames < 4 ? 0.6 : 0.0) +
                             0.1 * std::abs(std::log(frames / 20.0));
        GridProposal proposal{{frames, height, width}, text, first, {}, {}};
        proposal.title = fmt::format(
            "{} x {} x {}{}", frames, height, width,
            text == 0 ? std::string() : fmt::format(" + {} text tokens {}", text, first ? "first" : "last"));
        scored.push_back({score, std::move(proposal)});
      }
    }
  }
  std::stable_sort(scored.begin(), scored.end(), [](const Scored& a, const Scored& b) { return a.score < b.score; });
  for (Scored& each : scored) {
    const bool known = std::any_of(proposals.begin(), proposals.end(), [&](const GridProposal& p) {
      return p.preset.empty() && p.grid == each.proposal.grid && p.text == each.proposal.text;
    });
    if (!known) proposals.push_back(std::move(each.proposal));
    if (proposals.size() >= limit) break;
  }
  if (proposals.size() > limit) proposals.resize(limit);
  return proposals;
}

}  // namespace sparsight

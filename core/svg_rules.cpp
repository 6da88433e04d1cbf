// SPDX-License-Identifier: Apache-2.0
#include "svg_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace sparsight {
namespace {

constexpr Index kBlock = 128;

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

[[noreturn]] void unsupported(const std::string& reason) { throw Error(ErrorCode::Unsupported, "svg: " + reason); }

// Adds [first, last) cut to [low, high) when anything is left.
void addClipped(std::vector<Interval>& out, Index first, Index last, Index low, Index high) {
  first = std::max(first, low);
  last = std::min(last, high);
  if (first < last) out.push_back({first, last});
}

[[nodiscard]] std::vector<Interval> merged(std::vector<Interval> intervals) {
  std::sort(intervals.begin(), intervals.end(), [](const Interval& a, const Interval& b) { return a.first < b.first; });
  std::vector<Interval> out;
  for (const Interval& interval : intervals) {
    if (!out.empty() && interval.first <= out.back().last) {
      out.back().last = std::max(out.back().last, interval.last);
    } else {
      out.push_back(interval);
    }
  }
  return out;
}

void appendRun(std::vector<Interval>& runs, Index position) {
  if (!runs.empty() && runs.back().last == position) {
    runs.back().last = position + 1;
  } else {
    runs.push_back({position, position + 1});
  }
}

// Half width of the profiling band in blocks: floor(w F / 128), w = 2 for models without text, 1.5 with.
[[nodiscard]] Index profileBlocks(const SvgGeometry& g) {
  return g.rule == ModelRule::Wan ? 2 * g.frameSize / kBlock : 3 * g.frameSize / (2 * kBlock);
}

[[nodiscard]] bool referenceCog(const SvgGeometry& g) { return g.rule == ModelRule::CogVideoX && !g.sparsevideo; }

}  // namespace

SvgGeometry svgGeometry(const HeadData& head, const ParamSet& params) {
  const std::string& kind = head.id.call.kind;
  if (kind != "self" && kind != "joint") {
    unsupported(fmt::format("{}-attention stays dense; only self-attention has a layout of frames", kind));
  }
  const Segment* video = head.layout.video();
  if (video == nullptr) unsupported("the call has no video segment with a token grid (tokens/grid)");
  SvgGeometry g;
  g.rule = resolveModelRule(params.text("model_rule"), head.family, head.layout);
  g.sparsevideo = params.text("variant") == "sparsevideo";
  g.tokens = head.layout.tokenCount;
  if (head.input.k.rows != g.tokens) {
    unsupported(
        fmt::format("{} keys for {} tokens; SVG needs every key of a self-attention", head.input.k.rows, g.tokens));
  }
  g.frames = video->frames;
  g.frameSize = Index{video->height} * Index{video->width};
  g.videoTokens = video->length;
  if (g.frames * g.frameSize != g.videoTokens || g.videoTokens == 0) {
    unsupported(fmt::format("the grid {} x {} x {} does not make {} video tokens", video->frames, video->height,
                            video->width, video->length));
  }
  g.textTokens = g.tokens - g.videoTokens;
  g.modelVideoStart = video->start;
  const bool textLast = video->start == 0;
  const bool textFirst = video->start + video->length == g.tokens;
  const std::string_view name = modelRuleName(g.rule);
  if (g.rule == ModelRule::Wan && g.textTokens != 0) {
    unsupported(
        fmt::format("model_rule {} has no text in self-attention, but {} of the {} tokens are no video; choose "
                    "model_rule=hunyuan (text last) or cogvideox (text first)",
                    name, g.textTokens, g.tokens));
  }
  if (g.sparsevideo ? !textLast && !textFirst : g.rule == ModelRule::CogVideoX ? !textFirst : !textLast) {
    unsupported(fmt::format("model_rule {} wants the text {} the video, but the video is tokens {} to {} of {}", name,
                            g.sparsevideo                    ? "before or after"
                            : g.rule == ModelRule::CogVideoX ? "before"
                                                             : "after",
                            video->start, video->start + video->length - 1, g.tokens));
  }
  g.videoStart = referenceCog(g) ? g.textTokens : 0;

  const std::span<const std::uint8_t> valid = head.input.keyValid;
  const std::vector<Index> order = svgOrder(g, false);
  for (Index position = 0; position < g.tokens; ++position) {
    const Index token = order.empty() ? position : order[at(position)];
    const bool padded = !g.isVideo(position) && !valid.empty() && valid[at(token)] == 0;
    if (padded) {
      if (g.isPadding.empty()) g.isPadding.resize(at(g.tokens), 0);
      g.isPadding[at(position)] = 1;
      appendRun(g.padding, position);
      continue;
    }
    appendRun(g.real, position);
    if (!g.isVideo(position)) appendRun(g.realText, position);
  }
  return g;
}

std::vector<Index> svgOrder(const SvgGeometry& g, bool temporal) {
  const bool moved = g.videoStart != g.modelVideoStart;
  if (!temporal && !moved) return {};
  std::vector<Index> order(at(g.tokens));
  for (Index i = 0; i < g.videoTokens; ++i) {
    // temporal: position p * T + f holds the token of frame f at place p.
    const Index source = temporal ? (i % g.frames) * g.frameSize + i / g.frames : i;
    order[at(g.videoStart + i)] = g.modelVideoStart + source;
  }
  Index position = g.videoStart == 0 ? g.videoTokens : 0;
  for (Index token = 0; token < g.tokens; ++token) {
    if (token >= g.modelVideoStart && token < g.modelVideoStart + g.videoTokens) continue;
    order[at(position++)] = token;
  }
  return order;
}

std::vector<Interval> svgProfileRow(const SvgGeometry& g, bool temporal, Index position) {
  const Index width = profileBlocks(g);
  std::vector<Interval> kept;
  const auto addBand = [&](Index origin, Index length) {
    const Index block = (position - origin) / kBlock;
    if (width > 0) {
      addClipped(kept, origin + kBlock * (block - width + 1), origin + kBlock * (block + width), origin,
                 origin + length);
    }
  };
  if (referenceCog(g)) {
    if (temporal) {
      // The shipped temporal mask has neither text rows nor text columns: a sampled text row keeps nothing at all.
      if (g.isVideo(position)) addBand(g.videoStart, g.videoTokens);
      return kept;
    }
    if (!g.isVideo(position)) return {{0, g.tokens}};
    // The shipped spatial band starts at token 0, not behind the text, and is filled by whole blocks.
    const Index length = std::min(g.tokens, kBlock * ((g.videoTokens + kBlock - 1) / kBlock));
    if (position < length) addBand(0, length);
    addClipped(kept, 0, g.textTokens, 0, g.tokens);
    return merged(std::move(kept));
  }
  if (!g.isVideo(position)) return {{0, g.tokens}};
  addBand(0, g.videoTokens);
  if (g.rule == ModelRule::Wan) addClipped(kept, 0, g.frameSize, 0, g.tokens);
  addClipped(kept, g.videoTokens, g.tokens, 0, g.tokens);
  return merged(std::move(kept));
}

double svgBandFrames(const SvgGeometry& g, double keptFraction) {
  const double tokens = static_cast<double>(g.tokens);
  const double total = tokens * tokens;
  // The band gets what is left after the text rows and columns that are always kept.
  double band = (keptFraction * total - 2.0 * tokens * static_cast<double>(g.textTokens)) / total;
  if (g.sparsevideo) band = std::clamp(band, 0.0, 1.0);
  return tokens * (1.0 - std::sqrt(1.0 - band)) / static_cast<double>(g.frameSize);
}

Index svgBandWidth(const SvgGeometry& g, double keptFraction) {
  const double blocks = svgBandFrames(g, keptFraction) * static_cast<double>(g.frameSize) / static_cast<double>(kBlock);
  const bool up = g.sparsevideo ? g.rule != ModelRule::Hunyuan : g.rule == ModelRule::Wan;
  return kBlock * static_cast<Index>(up ? std::ceil(blocks) : std::floor(blocks));
}

std::vector<Interval> svgRuntimeRow(const SvgGeometry& g, Index bandWidth, Index position) {
  std::vector<Interval> kept;
  if (g.rule == ModelRule::Wan) {
    addClipped(kept, 0, g.frameSize, 0, g.tokens);
    addClipped(kept, position - bandWidth, position + bandWidth + 1, 0, g.tokens);
    return merged(std::move(kept));
  }
  if (referenceCog(g)) {
    if (!g.isVideo(position)) return {{0, g.tokens}};
    addClipped(kept, 0, g.textTokens, 0, g.tokens);
    addClipped(kept, position - bandWidth + 1, position + bandWidth, 0, g.tokens);
    return merged(std::move(kept));
  }
  if (!g.isVideo(position)) {
    return !g.isPadding.empty() && g.isPadding[at(position)] != 0 ? g.padding : g.real;
  }
  kept = g.realText;
  addClipped(kept, position - bandWidth + 1, position + bandWidth, 0, g.videoTokens);
  return merged(std::move(kept));
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <span>
#include <vector>

#include "sparsight/core/files.h"
#include "sparsight/core/synth.h"
#include "sparsight/core/trace_writer.h"
#include "sparsight/kernels/error.h"

// How the heads are made. For a query i and a key j, the logit is scale * q_i . k_j. Writing places as Fourier codes
// makes that product a kernel of the distance: with phi(x) = sqrt(1/m) (cos w_1 x, sin w_1 x, ...), phi(x) . phi(y) is
// mean_n cos(w_n (x - y)), which is 1 at x = y and small elsewhere. Object identities are unit vectors, sinks a shared
// direction. So each type of head is built from the terms that define it, times a strength beta in logits:
//   spatial     beta K_frame(f - f')              mass in the query's own and the adjacent frames
//   temporal    beta (K_row + K_column)           mass on the query's (row, column) in all frames
//   diagonal    beta (K_frame + K_row + K_column) mass on the near neighbourhood in space and time
//   semantic    beta [same object]                clusters that follow the moving objects
//   sinks       beta [first frame], beta [text]
//   diffuse     noise only
// The codes are turned by a random rotation per head, as channels of a real model have no meaning either.

namespace sparsight {
namespace {

constexpr int kFormatOfDemo = 1;  // goes into the demo's file name: raise it whenever the generator's output changes

enum HeadType : std::int8_t { Spatial, Temporal, Semantic, FirstFrameSink, TextSink, Diffuse, Diagonal };
const std::vector<std::string> kClassNames{"spatial",   "temporal", "semantic", "first_frame_sink",
                                           "text_sink", "diffuse",  "diagonal"};

constexpr int kMinHeadDim = 8;
constexpr int kObjects = 3;

// Counter-based random numbers: a value depends on its coordinates only, never on the order or thread of evaluation.
std::uint64_t mix(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31U);
}
std::uint64_t hash(std::initializer_list<std::uint64_t> parts) noexcept {
  std::uint64_t h = 0x243f6a8885a308d3ULL;
  for (const std::uint64_t p : parts) h = mix(h ^ p);
  return h;
}
double uniform(std::uint64_t h) noexcept { return static_cast<double>(h >> 11U) * 0x1p-53; }
// Irwin-Hall of four 16-bit uniforms, scaled to unit variance: close to normal, exact on every machine.
float noise(std::uint64_t h) noexcept {
  const auto sum = (h & 0xffffU) + ((h >> 16U) & 0xffffU) + ((h >> 32U) & 0xffffU) + (h >> 48U);
  return (static_cast<float>(sum) * (1.0F / 65536.0F) - 2.0F) * 1.7320508F;
}

struct Scene {
  struct Object {
    double y, x, vy, vx, radius;
    std::array<double, 3> colour;
  };
  std::array<Object, kObjects> objects;

  static double bounce(double position, double extent) {
    if (extent <= 0) return 0;
    const double period = 2 * extent;
    double p = std::fmod(position, period);
    if (p < 0) p += period;
    return p > extent ? period - p : p;
  }
  // Which identity is seen at a point of frame f; the nearest (last) object wins, background is three regions.
  [[nodiscard]] int identityAt(double frame, double y, double x, double height, double width) const {
    for (int i = kObjects - 1; i >= 0; --i) {
      const Object& o = objects[static_cast<std::size_t>(i)];
      const double dy = y - bounce(o.y + o.vy * frame, height);
      const double dx = x - bounce(o.x + o.vx * frame, width);
      if (dy * dy + dx * dx <= o.radius * o.radius) return i;
    }
    if (y < 0.45 * height) return kObjects;                                                     // sky
    return x < (0.35 + 0.3 * y / std::max(height, 1.0)) * width ? kObjects + 1 : kObjects + 2;  // two grounds
  }
};

Scene makeScene(const SynthSpec& spec) {
  Scene scene{};
  const double h = spec.height, w = spec.width;
  const double size = std::min(h, w);
  constexpr std::array<std::array<double, 3>, kObjects> kColours{{{230, 120, 40}, {70, 150, 230}, {240, 225, 90}}};
  for (std::uint64_t i = 0; i < kObjects; ++i) {
    const auto u = [&](std::uint64_t n) { return uniform(hash({spec.seed, 0x5ceeULL, i, n})); };
    const double direction = 2 * std::numbers::pi * (u(0) + static_cast<double>(i)) / kObjects;
    const double speed = size * (0.06 + 0.06 * u(1));  // tokens per latent frame
    scene.objects[i] = {h * (0.2 + 0.6 * u(2)),      w * (0.2 + 0.6 * u(3)),      speed * std::sin(direction),
                        speed * std::cos(direction), size * (0.14 + 0.06 * u(4)), kColours[i]};
  }
  return scene;
}

FramesRgb renderFrames(const SynthSpec& spec, const Scene& scene) {
  // Large enough to see tokens on it, small enough to stay a preview.
  const int pixels = std::clamp(512 / std::max(spec.height, spec.width), 1, 8);
  FramesRgb frames;
  frames.info = {spec.frames, spec.height * pixels, spec.width * pixels, 8.0};
  frames.rgb.reserve(static_cast<std::size_t>(frames.info.count) * static_cast<std::size_t>(frames.info.height) *
                     static_cast<std::size_t>(frames.info.width) * 3);
  for (int f = 0; f < spec.frames; ++f) {
    for (int py = 0; py < frames.info.height; ++py) {
      for (int px = 0; px < frames.info.width; ++px) {
        const double y = (py + 0.5) / pixels - 0.5, x = (px + 0.5) / pixels - 0.5;
        const int id = scene.identityAt(f, y, x, spec.height, spec.width);
        const double shade = 0.85 + 0.15 * y / spec.height;
        std::array<double, 3> colour{};
        if (id < kObjects)
          colour = scene.objects[static_cast<std::size_t>(id)].colour;
        else if (id == kObjects)
          colour = {120 + 60 * y / spec.height, 160, 200};
        else if (id == kObjects + 1)
          colour = {80, 130 * shade, 75};
        else
          colour = {150 * shade, 120, 95};
        for (const double c : colour) frames.rgb.push_back(static_cast<std::uint8_t>(std::clamp(c, 0.0, 255.0)));
      }
    }
  }
  return frames;
}

// phi(0) .. phi(extent - 1) from `pairs` harmonics of `period`, spread over 1 .. top: rows of 2 * pairs values with
// unit norm. Harmonic 1 keeps places apart over the whole period, the top one sets how sharp the kernel is.
std::vector<float> fourierCodes(int extent, int period, int top, int pairs) {
  std::vector<float> codes;
  const double amplitude = 1.0 / std::sqrt(static_cast<double>(pairs));
  for (int place = 0; place < extent; ++place) {
    for (int i = 0; i < pairs; ++i) {
      const int harmonic =
          pairs >= top ? 1 + i % top
                       : 1 + static_cast<int>(std::lround(static_cast<double>(i) * (top - 1) / std::max(1, pairs - 1)));
      const double angle = 2 * std::numbers::pi * harmonic * place / period;
      codes.push_back(static_cast<float>(amplitude * std::cos(angle)));
      codes.push_back(static_cast<float>(amplitude * std::sin(angle)));
    }
  }
  return codes;
}

// Random orthonormal matrix [n, n] by Gram-Schmidt.
std::vector<float> rotation(int n, std::uint64_t seed) {
  const auto size = static_cast<std::size_t>(n);
  std::vector<double> m(size * size);
  for (std::size_t i = 0; i < m.size(); ++i) m[i] = static_cast<double>(noise(hash({seed, i})));
  for (std::size_t r = 0; r < size; ++r) {
    for (std::size_t p = 0; p < r; ++p) {
      double dot = 0;
      for (std::size_t c = 0; c < size; ++c) dot += m[r * size + c] * m[p * size + c];
      for (std::size_t c = 0; c < size; ++c) m[r * size + c] -= dot * m[p * size + c];
    }
    double norm = 0;
    for (std::size_t c = 0; c < size; ++c) norm += m[r * size + c] * m[r * size + c];
    norm = 1.0 / std::sqrt(norm);
    for (std::size_t c = 0; c < size; ++c) m[r * size + c] *= norm;
  }
  return {m.begin(), m.end()};
}

struct Token {
  bool text = false;
  int frame = 0, y = 0, x = 0, identity = 0;
};

struct Layout {
  TokenLayout tokens;
  std::vector<Token> table;
};

Layout makeLayout(const SynthSpec& spec, const Scene& scene) {
  Layout layout;
  const Index video = Index{spec.frames} * spec.height * spec.width;
  const Index textStart = spec.textFirst ? 0 : video;
  const Index videoStart = spec.textFirst ? spec.textTokens : 0;
  layout.tokens.tokenCount = video + spec.textTokens;
  layout.tokens.segments.push_back({SegmentKind::Video, videoStart, video, spec.frames, spec.height, spec.width});
  if (spec.textTokens > 0) layout.tokens.segments.push_back({SegmentKind::Text, textStart, spec.textTokens, 0, 0, 0});
  if (spec.textFirst)
    std::rotate(layout.tokens.segments.begin(), layout.tokens.segments.end() - 1, layout.tokens.segments.end());
  layout.table.resize(static_cast<std::size_t>(layout.tokens.tokenCount));
  for (Index t = 0; t < layout.tokens.tokenCount; ++t) {
    Token& token = layout.table[static_cast<std::size_t>(t)];
    const auto cell = layout.tokens.cellOf(t);
    token.text = !cell;
    if (!cell) continue;
    token.frame = cell->frame;
    token.y = cell->y;
    token.x = cell->x;
    token.identity = scene.identityAt(cell->frame, cell->y, cell->x, spec.height, spec.width);
  }
  return layout;
}

// Which type a head is. Every layer has both SVG classes where there are heads enough; the rest shifts with depth:
// sinks and diffuse heads towards the ends, semantic ones in the middle.
HeadType baseType(const SynthSpec& spec, int layer, int head) {
  constexpr std::array<std::array<HeadType, 6>, 4> kPattern{
      {{Spatial, Temporal, FirstFrameSink, Diffuse, TextSink, Spatial},
       {Spatial, Temporal, Semantic, Diagonal, Temporal, TextSink},
       {Temporal, Spatial, Semantic, Semantic, Diagonal, Spatial},
       {Spatial, Temporal, Semantic, FirstFrameSink, Temporal, Diffuse}}};
  const auto row = static_cast<std::size_t>(spec.layers <= 1 ? 1 : (layer * 4) / spec.layers) % 4;
  // Layers that share a row differ in where its heads stand.
  const int shift =
      spec.layers > 4 ? static_cast<int>(hash({spec.seed, 0x7a9eULL, static_cast<std::uint64_t>(layer)}) % 6) : 0;
  HeadType type = kPattern[row][static_cast<std::size_t>((head + shift) % 6)];
  if (spec.textTokens == 0 && type == TextSink) type = FirstFrameSink;
  return type;
}

// Early steps see noise: what follows content or needs both space and time is still diffuse there.
HeadType typeAt(const SynthSpec& spec, int layer, int head, double progress) {
  const HeadType type = baseType(spec, layer, head);
  return progress < 0.15 && (type == Semantic || type == Diagonal) ? Diffuse : type;
}

// Strength over the schedule and over depth: attention sharpens as the picture forms, and is sharpest in the middle
// layers (SVG and SVOO report both: early steps and first layers tolerate little sparsity).
double strengthAt(double progress, int layer, int layers) {
  const double step = 0.72 + 0.28 * std::min(1.0, progress / 0.6);
  const double depth = layers <= 1 ? 0.5 : static_cast<double>(layer) / (layers - 1);
  return step * (0.82 + 0.18 * std::sin(std::numbers::pi * (0.15 + 0.7 * depth)));
}

class HeadMaker {
 public:
  HeadMaker(const SynthSpec& spec, const Layout& layout) : m_spec(spec), m_layout(layout), m_dim(spec.headDim) {
    const int pairs = m_dim / 2;
    // Temporal heads need all channels for row and column; diagonal ones share them with the frame.
    m_framesAlone = frameCodes(spec.frames, pairs);
    const int rowPairs = std::max(1, std::min(spec.height / 2, pairs / 2));
    m_rows = placeCodes(spec.height, rowPairs);
    m_columns = placeCodes(spec.width, std::max(1, pairs - rowPairs));
    const int third = std::max(1, pairs / 3);
    m_framesThird = frameCodes(spec.frames, third);
    m_rowsThird = placeCodes(spec.height, third);
    m_columnsThird = placeCodes(spec.width, std::max(1, pairs - 2 * third));
  }

  struct Tensors {
    std::vector<float> q, k, v;
  };

  void make(HeadType type, double strength, int step, int layer, int head, Tensors& out, Executor& executor,
            const Control& control) const {
    const auto dim = static_cast<std::size_t>(m_dim);
    const std::size_t n = m_layout.table.size();
    out.q.assign(n * dim, 0.0F);
    out.k.assign(n * dim, 0.0F);
    out.v.assign(n * dim, 0.0F);
    const auto l = static_cast<std::uint64_t>(layer), h = static_cast<std::uint64_t>(head),
               s = static_cast<std::uint64_t>(step);
    // Rotation and value map belong to the weights: the same at every step.
    const auto turn = rotation(m_dim, hash({m_spec.seed, 0x2077ULL, l, h}));
    const auto valueMap = rotation(m_dim, hash({m_spec.seed, 0x7a1eULL, l, h}));
    const std::uint64_t noiseSeed = hash({m_spec.seed, 0x90153ULL, s, l, h});
    // beta logits at full agreement: scale * |q| |k| = beta with scale = dim^-1/2.
    const double beta = betaOf(type) * strength;
    const auto gain = static_cast<float>(std::sqrt(beta * std::sqrt(static_cast<double>(m_dim))));
    // Noise of about 0.4 logits (1 in diffuse heads) on top of every score.
    const auto jitter = static_cast<float>(type == Diffuse ? 1.0 : std::sqrt(0.4 / std::max(1.0, beta)));
    executor.parallelFor(static_cast<Index>(n), 256, control, [&](Index first, Index last) {
      std::vector<float> q(dim), k(dim), v(dim);
      for (Index t = first; t < last; ++t) {
        const Token& token = m_layout.table[static_cast<std::size_t>(t)];
        std::fill(q.begin(), q.end(), 0.0F);
        std::fill(k.begin(), k.end(), 0.0F);
        std::fill(v.begin(), v.end(), 0.0F);
        codesOf(type, token, q, k);
        for (std::size_t c = 0; c < dim; ++c) {
          const auto at = static_cast<std::uint64_t>(t) * dim + c;
          const float spread = 1.0F / std::sqrt(static_cast<float>(dim));
          q[c] = type == Diffuse ? noise(hash({noiseSeed, 1, at})) * 1.0F
                                 : gain * (q[c] + jitter * spread * noise(hash({noiseSeed, 1, at})));
          k[c] = type == Diffuse ? noise(hash({noiseSeed, 2, at})) * 1.0F
                                 : gain * (k[c] + jitter * spread * noise(hash({noiseSeed, 2, at})));
        }
        contentOf(token, static_cast<std::uint64_t>(t), v);
        const auto row = static_cast<std::size_t>(t) * dim;
        apply(turn, q, std::span(out.q).subspan(row, dim));
        apply(turn, k, std::span(out.k).subspan(row, dim));
        apply(valueMap, v, std::span(out.v).subspan(row, dim));
      }
    });
  }

 private:
  struct Codes {
    std::vector<float> values;
    std::size_t width = 0;
    [[nodiscard]] std::span<const float> at(int place) const {
      return std::span(values).subspan(static_cast<std::size_t>(place) * width, width);
    }
  };
  // Sharp: all harmonics of the extent, a peak one place wide.
  static Codes placeCodes(int extent, int pairs) {
    return {fourierCodes(extent, extent, std::max(1, extent / 2), pairs), static_cast<std::size_t>(pairs) * 2};
  }
  // About 1.4 radians per frame at most, so that adjacent frames still count; twice the extent, so that the last frame
  // is not the first one's neighbour.
  static Codes frameCodes(int extent, int pairs) {
    const int top = std::max(1, static_cast<int>(std::lround(0.45 * extent)));
    const int used = std::clamp(pairs, 1, top);
    return {fourierCodes(extent, 2 * extent, top, used), static_cast<std::size_t>(used) * 2};
  }

  static double betaOf(HeadType type) {
    switch (type) {
      case Spatial:
        return 9.0;
      case Temporal:
        return 18.0;
      case Semantic:
        return 6.0;
      case FirstFrameSink:
        return 5.0;
      case TextSink:
        return 6.5;
      case Diagonal:
        return 16.0;
      case Diffuse:
        break;
    }
    return 0.0;
  }

  static void put(std::span<float> out, std::size_t& at, std::span<const float> code, float weight) {
    for (std::size_t i = 0; i < code.size() && at < out.size(); ++i) out[at++] += weight * code[i];
  }

  void codesOf(HeadType type, const Token& token, std::span<float> q, std::span<float> k) const {
    std::size_t at = 0;
    const auto both = [&](const Codes& c, int place, double share) {
      const auto weight = static_cast<float>(std::sqrt(share));
      std::size_t atK = at;
      put(k, atK, c.at(place), weight);
      put(q, at, c.at(place), weight);
    };
    switch (type) {
      case Spatial:
        if (!token.text) both(m_framesAlone, token.frame, 1.0);
        break;
      case Temporal:
        if (!token.text) {
          both(m_rows, token.y, 0.5);
          both(m_columns, token.x, 0.5);
        }
        break;
      case Diagonal:
        if (!token.text) {
          both(m_framesThird, token.frame, 0.34);
          both(m_rowsThird, token.y, 0.33);
          both(m_columnsThird, token.x, 0.33);
        }
        break;
      case Semantic:
        if (!token.text)
          q[static_cast<std::size_t>(token.identity)] = k[static_cast<std::size_t>(token.identity)] = 1.0F;
        break;
      case FirstFrameSink:
        q[0] = 1.0F;
        if (!token.text && token.frame == 0) k[0] = 1.0F;
        break;
      case TextSink:
        q[0] = 1.0F;
        if (token.text) k[0] = 1.0F;
        break;
      case Diffuse:
        break;
    }
  }

  // Smooth content: what is seen there, and slow waves over row, column and frame.
  void contentOf(const Token& token, std::uint64_t index, std::span<float> v) const {
    if (token.text) {
      for (std::size_t c = 0; c < v.size(); ++c) v[c] = 0.5F * noise(hash({m_spec.seed, 0x7e87ULL, index, c}));
      return;
    }
    v[static_cast<std::size_t>(token.identity)] += 1.5F;
    const double y = (token.y + 0.5) / m_spec.height, x = (token.x + 0.5) / m_spec.width,
                 f = (token.frame + 0.5) / m_spec.frames;
    for (std::size_t c = 0; c < v.size(); ++c) {
      const auto n = static_cast<double>(c / 3 % 4) + 1;
      const double phase = 2 * std::numbers::pi * uniform(hash({m_spec.seed, 0xc0deULL, c}));
      const double place = c % 3 == 0 ? y : c % 3 == 1 ? x : f;
      v[c] += static_cast<float>(0.7 * std::cos(std::numbers::pi * n * place + phase));
    }
  }

  static void apply(const std::vector<float>& matrix, std::span<const float> in, std::span<float> out) {
    for (std::size_t r = 0; r < out.size(); ++r) {
      float sum = 0;
      for (std::size_t c = 0; c < in.size(); ++c) sum += matrix[r * in.size() + c] * in[c];
      out[r] = sum;
    }
  }

  const SynthSpec& m_spec;
  const Layout& m_layout;
  int m_dim;
  Codes m_framesAlone, m_rows, m_columns, m_framesThird, m_rowsThird, m_columnsThird;
};

void validate(const SynthSpec& spec) {
  const auto positive = [](int value, const char* option, int limit) {
    if (value < 1 || value > limit)
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("synth: {} is {}, allowed are 1 to {}", option, value, limit));
  };
  positive(spec.frames, "frames (--grid T)", 4096);
  positive(spec.height, "rows (--grid H)", 8192);
  positive(spec.width, "columns (--grid W)", 8192);
  positive(spec.layers, "--layers", 1000);
  positive(spec.heads, "--heads", 1024);
  positive(spec.steps, "--steps", 10000);
  if (spec.headDim < kMinHeadDim || spec.headDim > 1024) {
    throw Error(
        ErrorCode::InvalidArgument,
        fmt::format("synth: --head-dim is {}, allowed are {} to 1024 (fewer channels cannot tell the places apart)",
                    spec.headDim, kMinHeadDim));
  }
  if (spec.textTokens < 0 || spec.textTokens > (1 << 20))
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("synth: --text is {}, allowed are 0 to 1048576", spec.textTokens));
  constexpr Index kMaxTokens = Index{1} << 24;
  const Index video = Index{spec.frames} * spec.height * spec.width;
  if (video + spec.textTokens > kMaxTokens) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("synth: {} x {} x {} + {} tokens are more than {}; choose a smaller --grid", spec.frames,
                            spec.height, spec.width, spec.textTokens, kMaxTokens));
  }
}

// Captured steps of a schedule of `total`: the demo's 4, 20 and 40 of 50, otherwise evenly spaced.
std::vector<int> capturedSteps(int count, int total) {
  if (count == 3 && total == 50) return {4, 20, 40};
  if (count == 1) return {total * 2 / 5};
  std::vector<int> steps;
  const bool roomy = count * 4 <= total * 3;
  const double first = roomy ? 0.08 * total : 0.0, last = roomy ? 0.8 * total : total - 1.0;
  for (int i = 0; i < count; ++i)
    steps.push_back(static_cast<int>(std::lround(first + (last - first) * i / (count - 1))));
  return steps;
}

TraceHeader makeHeader(const SynthSpec& spec, const Layout& layout, int totalSteps) {
  TraceHeader header;
  header.writer = fmt::format("sparsight synth {}", SPARSIGHT_VERSION);
  header.uuid = fmt::format("synth-{:016x}{:016x}",
                            hash({spec.seed, static_cast<std::uint64_t>(spec.frames),
                                  static_cast<std::uint64_t>(spec.height), static_cast<std::uint64_t>(spec.width),
                                  static_cast<std::uint64_t>(spec.textTokens), spec.textFirst ? 1ULL : 0ULL}),
                            hash({static_cast<std::uint64_t>(spec.layers), static_cast<std::uint64_t>(spec.heads),
                                  static_cast<std::uint64_t>(spec.steps), static_cast<std::uint64_t>(spec.headDim),
                                  static_cast<std::uint64_t>(spec.dtype), std::uint64_t{kFormatOfDemo}}));
  header.createdUtc = "1970-01-01T00:00:00Z";  // the same arguments give the same bytes
  header.software = R"({"generator":"synth"})";
  header.layout = layout.tokens;
  ModelInfo& m = header.model;
  m.family = "synthetic";
  m.className = "SyntheticTransformer";
  m.attention = spec.textTokens > 0 ? "joint" : "self";
  m.qkNorm = "none";
  m.rope = "none";
  m.numLayers = spec.layers;
  m.numHeads = m.numKvHeads = spec.heads;
  m.headDim = spec.headDim;
  RunInfo& r = header.run;
  r.prompt = "three shapes moving over a landscape";
  r.guidanceMode = "none";
  r.scheduler = "flow, shift 5";
  r.computeDtype = dtypeName(spec.dtype);
  r.attentionBackend = "none";
  r.seed = static_cast<std::int64_t>(spec.seed);
  r.height = spec.height * 16;
  r.width = spec.width * 16;
  r.numFrames = (spec.frames - 1) * 4 + 1;
  r.fps = 16;
  r.numInferenceSteps = totalSteps;
  r.guidanceScale = 1;
  header.patchSize = {1, 2, 2};
  header.vaeStride = {4, 8, 8};
  for (int i = 0; i < totalSteps; ++i) {
    const double s = 1.0 - static_cast<double>(i) / totalSteps;
    const double sigma = 5.0 * s / (1.0 + 4.0 * s);
    r.sigmas.push_back(sigma);
    r.timesteps.push_back(1000.0 * sigma);
  }
  return header;
}

}  // namespace

SynthSpec synthPreset(const std::string& name) {
  if (name == "demo") return {};
  throw Error(ErrorCode::InvalidArgument, fmt::format("synth: unknown preset \"{}\"; known are: demo", name));
}

void writeSyntheticTrace(const std::filesystem::path& out, const SynthSpec& spec, Executor& executor,
                         const Control& control) {
  validate(spec);
  control.checkpoint();
  const Scene scene = makeScene(spec);
  const Layout layout = makeLayout(spec, scene);
  const int totalSteps = std::max(50, spec.steps);
  const auto steps = capturedSteps(spec.steps, totalSteps);
  const TraceHeader header = makeHeader(spec, layout, totalSteps);
  TraceWriterOptions options;
  options.dtype = spec.dtype;
  TraceWriter writer(out, header, options);
  writer.writeFrames(renderFrames(spec, scene));

  const HeadMaker maker(spec, layout);
  const Index n = layout.tokens.tokenCount;
  SyntheticTruth truth{static_cast<int>(steps.size()), spec.layers, spec.heads, {}, kClassNames};
  HeadMaker::Tensors tensors;
  const double total = static_cast<double>(steps.size()) * spec.layers * spec.heads;
  double done = 0;
  for (const int step : steps) {
    const double progress = static_cast<double>(step) / totalSteps;
    for (int layer = 0; layer < spec.layers; ++layer) {
      CallHeader call;
      call.id = {step, "cond", layer, "self", 0};
      call.module = fmt::format("blocks.{}.attn1", layer);
      call.timestep = header.run.timesteps[static_cast<std::size_t>(step)];
      call.sigma = header.run.sigmas[static_cast<std::size_t>(step)];
      call.scale = 1.0 / std::sqrt(static_cast<double>(spec.headDim));
      call.heads.resize(static_cast<std::size_t>(spec.heads));
      std::iota(call.heads.begin(), call.heads.end(), 0);
      call.nQ = call.nK = n;
      call.headDim = call.valueDim = spec.headDim;
      writer.beginCall(call);
      for (int head = 0; head < spec.heads; ++head) {
        control.checkpoint();
        const HeadType type = typeAt(spec, layer, head, progress);
        truth.classOf.push_back(type);
        maker.make(type, strengthAt(progress, layer, spec.layers), step, layer, head, tensors, executor, control);
        const auto position = static_cast<std::size_t>(head);
        writer.writeQuery(position, viewOf(tensors.q, n, spec.headDim));
        writer.writeKeyValue(position, viewOf(tensors.k, n, spec.headDim), viewOf(tensors.v, n, spec.headDim));
        control.report(++done / total);
      }
      writer.endCall();
    }
  }
  writer.writeTruth(truth);
  writer.finish();
}

std::filesystem::path demoTracePath(Executor& executor, const Control& control) {
  auto path = userCacheDir() / fmt::format("demo-{}.h5", kFormatOfDemo);
  // The file appears under its name only when it is whole, so that its existence is enough. A second process that comes
  // meanwhile writes its own temporary file, and whoever renames last leaves the same bytes.
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) writeSyntheticTrace(path, synthPreset("demo"), executor, control);
  return path;
}

}  // namespace sparsight

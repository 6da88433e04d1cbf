// SPDX-License-Identifier: Apache-2.0
#pragma once

// SVG read a second time, pair by pair and in double: predicates on positions instead of intervals, N x N loops instead
// of gathered keys. Slow, readable, and independent of core/svg_rules.cpp.
#include <cmath>
#include <limits>
#include <vector>

#include "tests/unit/core/method_test_support.h"

namespace sparsight::test {

struct SvgCase {
  std::string rule = "wan";  ///< wan, hunyuan, cogvideox
  bool sparsevideo = false;
  Index T = 3, F = 20, C = 0, P = 0;  ///< frames, tokens per frame, text, real prompt tokens
  bool textFirst = false;             ///< in the model's order

  [[nodiscard]] Index V() const { return T * F; }
  [[nodiscard]] Index S() const { return V() + C; }
  /// Whether the rules' layout has the text in front.
  [[nodiscard]] bool frontText() const { return rule == "cogvideox" && !sparsevideo; }
};

/// Model token at a position of the rules' layout.
inline Index svgTokenAt(const SvgCase& c, bool temporal, Index position) {
  const Index origin = c.frontText() ? c.C : 0;
  const Index modelOrigin = c.textFirst ? c.C : 0;
  const Index v = position - origin;
  if (v < 0 || v >= c.V()) {  // text: same order, in front or behind
    const Index text = c.frontText() ? position : position - c.V();
    return c.textFirst ? text : c.V() + text;
  }
  if (!temporal) return modelOrigin + v;
  const Index place = v / c.T;
  const Index frame = v % c.T;
  return modelOrigin + frame * c.F + place;
}

inline bool svgIsText(const SvgCase& c, Index position) { return c.frontText() ? position < c.C : position >= c.V(); }
inline bool svgIsPadding(const SvgCase& c, Index position) {
  return svgIsText(c, position) && (c.frontText() ? position : position - c.V()) >= c.P;
}

/// Profiling mask at two positions of the layout.
inline bool svgProfileKeeps(const SvgCase& c, bool temporal, Index q, Index k) {
  const double w = c.rule == "wan" ? 2.0 : 1.5;
  const double limit = std::floor(w * static_cast<double>(c.F) / 128.0);
  const auto near = [&](Index a, Index b) { return std::abs(static_cast<double>(a / 128 - b / 128)) < limit; };
  if (c.frontText()) {
    if (temporal) return q >= c.C && k >= c.C && near(q - c.C, k - c.C);
    const Index covered = 128 * ((c.V() + 127) / 128);
    return q < c.C || k < c.C || (q < covered && k < covered && near(q, k));
  }
  if (svgIsText(c, q) || svgIsText(c, k)) return true;
  return near(q, k) || (c.rule == "wan" && k < c.F);
}

inline double svgWidthFrames(const SvgCase& c, double s) {
  const double n = static_cast<double>(c.S());
  double left = s - 2.0 * static_cast<double>(c.C) / n;
  if (c.sparsevideo) left = std::min(1.0, std::max(0.0, left));
  return n * (1.0 - std::sqrt(1.0 - left)) / static_cast<double>(c.F);
}
inline Index svgRadius(const SvgCase& c, double s) {
  const double blocks = svgWidthFrames(c, s) * static_cast<double>(c.F) / 128.0;
  const bool up = c.sparsevideo ? c.rule != "hunyuan" : c.rule == "wan";
  return 128 * static_cast<Index>(up ? std::ceil(blocks) : std::floor(blocks));
}
inline bool svgRuntimeKeeps(const SvgCase& c, Index r, Index q, Index k) {
  const Index distance = std::abs(q - k);
  if (c.rule == "wan") return distance <= r || k < c.F;
  if (c.frontText()) return q < c.C || k < c.C || distance < r;
  const Index real = c.V() + c.P;
  if (q >= real && k >= real) return true;
  return q < real && k < real && (distance < r || k >= c.V() || q >= c.V());
}

struct SvgOracle {
  double mse[2] = {0, 0};
  bool temporal = false;
  std::vector<std::uint8_t> kept;  ///< [S, S] in positions of the chosen layout
  std::vector<double> out;         ///< [S, Dv] model order, all rows, padding keys included as the masks say
};

/// `rows`: sampled positions of the frame-major layout. The head has all its query rows.
inline SvgOracle svgOracle(const SvgCase& c, const HeadData& head, const std::vector<Index>& rows, double s) {
  SvgOracle result;
  const Index n = c.S();
  const Index width = head.input.v.cols;
  std::vector<std::vector<float>> v(at(n), std::vector<float>(at(width)));
  for (Index j = 0; j < n; ++j) rowToFloat(head.input.v, j, v[at(j)]);
  const auto attend = [&](Index query, const auto& keep) {
    std::vector<double> z(at(n), -INFINITY), out(at(width), 0);
    double top = -INFINITY;
    for (Index j = 0; j < n; ++j) {
      if (!keep(j)) continue;
      z[at(j)] = head.input.scale * dotOf(head.input.q, query, head.input.k, j);
      top = std::max(top, z[at(j)]);
    }
    double sum = 0;
    for (Index j = 0; j < n; ++j) {
      if (!std::isfinite(z[at(j)])) continue;
      const double weight = std::exp(z[at(j)] - top);
      sum += weight;
      for (Index d = 0; d < width; ++d) out[at(d)] += weight * static_cast<double>(v[at(j)][at(d)]);
    }
    for (double& x : out) x = sum > 0 ? x / sum : std::numeric_limits<double>::quiet_NaN();
    return out;
  };
  std::vector<Index> place[2];  // model token -> position
  for (const int m : {0, 1}) {
    place[m].resize(at(n));
    for (Index p = 0; p < n; ++p) place[m][at(svgTokenAt(c, m == 1, p))] = p;
  }
  for (const Index row : rows) {
    const Index token = svgTokenAt(c, false, row);
    const auto full = attend(token, [](Index) { return true; });
    for (const int m : {0, 1}) {
      const auto masked =
          attend(token, [&](Index key) { return svgProfileKeeps(c, m == 1, place[m][at(token)], place[m][at(key)]); });
      for (Index d = 0; d < width; ++d) {
        result.mse[m] += (masked[at(d)] - full[at(d)]) * (masked[at(d)] - full[at(d)]);
      }
    }
  }
  for (double& loss : result.mse) loss /= static_cast<double>(static_cast<Index>(rows.size()) * width);
  const bool undefined = std::isnan(result.mse[1]) && !std::isnan(result.mse[0]);
  result.temporal = undefined || result.mse[1] < result.mse[0];
  const Index r = svgRadius(c, s);
  result.kept.resize(at(n * n));
  for (Index q = 0; q < n; ++q) {
    for (Index k = 0; k < n; ++k) result.kept[at(q * n + k)] = svgRuntimeKeeps(c, r, q, k);
  }
  const std::vector<Index>& own = place[result.temporal ? 1 : 0];
  for (Index token = 0; token < n; ++token) {
    const auto out = attend(token, [&](Index key) { return result.kept[at(own[at(token)] * n + own[at(key)])] != 0; });
    for (const double x : out) result.out.push_back(std::isnan(x) ? 0.0 : x);
  }
  return result;
}

inline HeadSpec svgHeadSpec(const SvgCase& c, int height, unsigned seed) {
  HeadSpec spec;
  spec.layout =
      layoutOf(static_cast<int>(c.T), height, static_cast<int>(c.F) / height, static_cast<int>(c.C), c.textFirst);
  spec.family = c.rule == "wan" ? "wan2.1" : c.rule == "hunyuan" ? "hunyuanvideo" : "cogvideox";
  spec.paddingText = c.C - c.P;
  spec.seed = seed;
  spec.spread = 2.0;
  return spec;
}

}  // namespace sparsight::test

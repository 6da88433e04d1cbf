// SPDX-License-Identifier: Apache-2.0
#pragma once

// Heads made of seeded noise and a naive double-precision reading of what a plan keeps, shared by the tests of plans,
// evaluation and methods.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "sparsight/core/method.h"
#include "sparsight/core/plan.h"
#include "sparsight/core/run.h"
#include "sparsight/kernels/backend.h"

namespace sparsight::test {

inline std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// Video grid with text behind (or in front of) it.
inline TokenLayout layoutOf(int frames, int height, int width, int text, bool textFirst = false) {
  TokenLayout layout;
  const Index video = Index{frames} * height * width;
  layout.tokenCount = video + text;
  const Segment videoSegment{SegmentKind::Video, textFirst ? text : 0, video, frames, height, width};
  const Segment textSegment{SegmentKind::Text, textFirst ? 0 : video, text, 0, 0, 0};
  if (textFirst && text > 0) layout.segments.push_back(textSegment);
  layout.segments.push_back(videoSegment);
  if (!textFirst && text > 0) layout.segments.push_back(textSegment);
  return layout;
}

struct HeadSpec {
  TokenLayout layout = layoutOf(3, 4, 5, 0);
  std::string family = "wan";
  Index headDim = 8, valueDim = 8;
  unsigned seed = 1;
  double spread = 1.0;    ///< factor on q: larger is more peaked
  Index paddingText = 0;  ///< last text tokens are padding
  bool withV = true;
  std::vector<Index> qRows;  ///< stored query rows; empty: all
  std::vector<std::uint8_t> denseMask;
};

struct HeadStorage {
  std::vector<float> q, k, v;
  std::vector<std::uint8_t> keyValid, queryValid, denseMask;
};

inline HeadData makeHead(const HeadSpec& spec) {
  auto storage = std::make_shared<HeadStorage>();
  std::mt19937 engine(spec.seed);
  const auto noise = [&](std::vector<float>& out, Index rows, Index cols, double factor) {
    out.resize(at(rows * cols));
    // Sum of uniforms: normal enough, and the same on every standard library.
    for (float& x : out) {
      double sum = -6.0;
      for (int n = 0; n < 12; ++n) sum += static_cast<double>(engine()) / 4294967296.0;
      x = static_cast<float>(sum * factor);
    }
  };
  const Index n = spec.layout.tokenCount;
  noise(storage->q, n, spec.headDim, spec.spread);
  noise(storage->k, n, spec.headDim, 1.0);
  noise(storage->v, n, spec.valueDim, 1.0);
  HeadData head;
  head.id.call.step = 3;
  head.id.call.branch = "cond";
  head.layout = spec.layout;
  head.family = spec.family;
  head.qRows = spec.qRows;
  if (!spec.qRows.empty()) {
    std::vector<float> rows;
    for (const Index row : spec.qRows) {
      const auto first = storage->q.begin() + static_cast<std::ptrdiff_t>(row * spec.headDim);
      rows.insert(rows.end(), first, first + static_cast<std::ptrdiff_t>(spec.headDim));
    }
    storage->q = std::move(rows);
  }
  const Index nq = spec.qRows.empty() ? n : static_cast<Index>(spec.qRows.size());
  head.input.q = viewOf(storage->q, nq, spec.headDim);
  head.input.k = viewOf(storage->k, n, spec.headDim);
  if (spec.withV) head.input.v = viewOf(storage->v, n, spec.valueDim);
  head.input.scale = 1.0 / std::sqrt(static_cast<double>(spec.headDim));
  if (spec.paddingText > 0) {
    const Segment* text = spec.layout.text();
    storage->keyValid.assign(at(n), 1);
    for (Index i = 0; i < spec.paddingText; ++i) storage->keyValid[at(text->start + text->length - 1 - i)] = 0;
    for (Index row = 0; row < nq; ++row) storage->queryValid.push_back(storage->keyValid[at(head.queryToken(row))]);
    head.input.keyValid = storage->keyValid;
    head.input.queryValid = storage->queryValid;
  }
  if (!spec.denseMask.empty()) {
    storage->denseMask = spec.denseMask;
    head.input.denseMask = storage->denseMask;
  }
  head.keepAlive = storage;
  return head;
}

/// A parameter set as the run resolves it.
inline ParamSet paramsFor(const Method& method, const std::vector<std::string>& assignments, const HeadData& head) {
  TraceInfo info;
  info.model.family = head.family;
  info.layout = head.layout;
  return resolveParams(method, info, ParamSet::parse(method.params(), assignments));
}

inline Plan planOf(const std::string& methodId, const std::vector<std::string>& assignments, const HeadData& head,
                   Backend& backend, bool includePadding = false, std::uint64_t seed = 0,
                   const Draws* draws = nullptr) {
  const Method& method = methodById(methodId);
  const ParamSet params = paramsFor(method, assignments, head);
  const auto prepared = backend.prepare(effectiveInput(head, includePadding), head.keepAlive, {});
  const auto state = method.newState();
  const MethodInput input{head, *prepared, params, seed, 0, 0, 50, 40, {}, draws, includePadding};
  Plan plan = method.plan(input, state.get(), backend, {});
  plan.validate();
  return plan;
}

/// A trace in memory: heads are made on load by `make`.
class MemoryTrace final : public Trace {
 public:
  MemoryTrace(TraceInfo info, std::function<HeadData(const HeadId&)> make)
      : m_info(std::move(info)), m_make(std::move(make)) {}
  [[nodiscard]] const TraceInfo& info() const noexcept override { return m_info; }
  [[nodiscard]] HeadData load(const HeadId& id, std::stop_token) const override {
    HeadData head = m_make(id);
    head.id = id;
    return head;
  }
  [[nodiscard]] std::optional<FramesRgb> frames() const override { return std::nullopt; }
  [[nodiscard]] std::optional<SyntheticTruth> truth() const override { return std::nullopt; }
  [[nodiscard]] std::optional<std::vector<float>> storedLse(const HeadId&) const override { return std::nullopt; }
  [[nodiscard]] std::optional<std::vector<float>> storedOut(const HeadId&) const override { return std::nullopt; }

 private:
  TraceInfo m_info;
  std::function<HeadData(const HeadId&)> m_make;
};

/// Calls for every (step, layer) with `heads` heads; a schedule of 10 steps over 4 layers.
inline TraceInfo memoryInfo(const HeadSpec& spec, const std::vector<int>& steps, const std::vector<int>& layers,
                            int heads) {
  TraceInfo info;
  info.path = "memory.h5";
  info.uuid = "memory";
  info.layout = spec.layout;
  info.model.family = spec.family;
  info.model.numLayers = 4;
  info.model.numHeads = heads;
  info.run.numInferenceSteps = 10;
  for (int i = 0; i < 10; ++i) info.run.timesteps.push_back(1000.0 - 100.0 * i);
  for (const int step : steps) {
    for (const int layer : layers) {
      CallInfo call;
      call.id.step = step;
      call.id.branch = "cond";
      call.id.layer = layer;
      call.component = "transformer";
      call.scale = 1.0 / std::sqrt(static_cast<double>(spec.headDim));
      call.headDim = spec.headDim;
      call.nK = spec.layout.tokenCount;
      call.layout = spec.layout;
      for (int head = 0; head < heads; ++head) call.heads.push_back(head);
      info.calls.push_back(call);
    }
  }
  std::sort(info.calls.begin(), info.calls.end(), [](const CallInfo& a, const CallInfo& b) { return a.id < b.id; });
  return info;
}
inline MemoryTrace memoryTrace(const HeadSpec& spec, const std::vector<int>& steps = {2, 5},
                               const std::vector<int>& layers = {0, 2}, int heads = 2) {
  return {memoryInfo(spec, steps, layers, heads), [spec](const HeadId& id) {
            HeadSpec own = spec;
            own.seed = static_cast<unsigned>(1000 * id.call.step + 100 * id.call.layer + id.head) + spec.seed;
            return makeHead(own);
          }};
}

inline double dotOf(const MatrixView& a, Index i, const MatrixView& b, Index j) {
  std::vector<float> x(at(a.cols)), y(at(b.cols));
  rowToFloat(a, i, x);
  rowToFloat(b, j, y);
  double sum = 0;
  for (std::size_t c = 0; c < x.size(); ++c) sum += static_cast<double>(x[c]) * static_cast<double>(y[c]);
  return sum;
}

/// Everything N x N and in double.
struct Naive {
  Index rows = 0, keys = 0;
  std::vector<std::uint8_t> valid;  ///< [rows, keys]
  std::vector<double> p;            ///< [rows, keys], 0 where invalid
  std::vector<double> lse;          ///< [rows]

  Naive(const HeadData& head, bool includePadding) : rows(head.input.q.rows), keys(head.input.k.rows) {
    const AttentionIn in = effectiveInput(head, includePadding);
    valid.assign(at(rows * keys), 0);
    p.assign(at(rows * keys), 0);
    lse.assign(at(rows), -INFINITY);
    for (Index i = 0; i < rows; ++i) {
      if (!in.queryValid.empty() && in.queryValid[at(i)] == 0) continue;
      std::vector<double> z(at(keys), -INFINITY);
      double top = -INFINITY;
      for (Index j = 0; j < keys; ++j) {
        if (!in.keyValid.empty() && in.keyValid[at(j)] == 0) continue;
        if (!in.denseMask.empty() && in.denseMask[at(i * keys + j)] == 0) continue;
        valid[at(i * keys + j)] = 1;
        z[at(j)] = in.scale * dotOf(in.q, i, in.k, j);
        top = std::max(top, z[at(j)]);
      }
      double sum = 0;
      for (const double value : z) sum += std::isfinite(value) ? std::exp(value - top) : 0.0;
      if (sum == 0) continue;
      lse[at(i)] = top + std::log(sum);
      for (Index j = 0; j < keys; ++j) {
        if (valid[at(i * keys + j)] != 0) p[at(i * keys + j)] = std::exp(z[at(j)] - lse[at(i)]);
      }
    }
  }
  [[nodiscard]] bool rowValid(Index i) const {
    return std::any_of(valid.begin() + i * keys, valid.begin() + (i + 1) * keys, [](std::uint8_t v) { return v != 0; });
  }
};

/// Kept pairs [stored query row, key token] straight from the plan's arrays, by the words of the plan file's
/// description.
inline std::vector<std::uint8_t> keptPairs(const Plan& plan, const Naive& naive) {
  std::vector<std::uint8_t> kept(at(naive.rows * naive.keys), 0);
  const auto rowAt = [&](Index position) { return plan.qOrder.empty() ? position : plan.qOrder[at(position)]; };
  const auto keyAt = [&](Index position) { return plan.kOrder.empty() ? position : plan.kOrder[at(position)]; };
  if (!plan.rowCount.empty()) {
    for (Index i = 0; i < naive.rows; ++i) {
      std::vector<Index> keys;
      for (Index j = 0; j < naive.keys; ++j) {
        if (naive.valid[at(i * naive.keys + j)] != 0) keys.push_back(j);
      }
      std::stable_sort(keys.begin(), keys.end(), [&](Index a, Index b) {
        return naive.p[at(i * naive.keys + a)] > naive.p[at(i * naive.keys + b)];
      });
      for (Index n = 0; n < std::min<Index>(plan.rowCount[at(i)], static_cast<Index>(keys.size())); ++n) {
        kept[at(i * naive.keys + keys[at(n)])] = 1;
      }
    }
    return kept;
  }
  if (!plan.intervalRows.empty()) {
    for (std::size_t g = 0; g + 1 < plan.intervalRows.size(); ++g) {
      for (Index position = plan.intervalRows[g]; position < plan.intervalRows[g + 1]; ++position) {
        for (Index n = plan.rowIntervalsPtr[g]; n < plan.rowIntervalsPtr[g + 1]; ++n) {
          for (Index c = plan.rowIntervals[at(n)].first; c < plan.rowIntervals[at(n)].last; ++c) {
            kept[at(rowAt(position) * naive.keys + keyAt(c))] = 1;
          }
        }
      }
    }
    return kept;
  }
  for (Index i = 0; i < plan.qBlocks(); ++i) {
    for (Index j = 0; j < plan.kBlocks(); ++j) {
      if (plan.blockMask[at(i * plan.kBlocks() + j)] == 0) continue;
      for (Index r = plan.qBounds[at(i)]; r < plan.qBounds[at(i + 1)]; ++r) {
        for (Index c = plan.kBounds[at(j)]; c < plan.kBounds[at(j + 1)]; ++c) {
          kept[at(rowAt(r) * naive.keys + keyAt(c))] = 1;
        }
      }
    }
  }
  return kept;
}

struct NaiveNumbers {
  double keptFraction = 0, keptMass = 0, massP5 = 0, relError = 0, cosine = 0;
  Index starved = 0;
  std::vector<double> mass;
};
inline NaiveNumbers naiveNumbers(const Plan& plan, const HeadData& head, bool includePadding) {
  const Naive naive(head, includePadding);
  const std::vector<std::uint8_t> kept = keptPairs(plan, naive);
  NaiveNumbers out;
  double keptCount = 0, all = 0, error = 0, dense = 0, cosine = 0;
  const Index width = head.input.v.empty() ? 0 : head.input.v.cols;
  Index counted = 0;
  for (Index i = 0; i < naive.rows; ++i) {
    if (!naive.rowValid(i)) continue;
    double mass = 0, count = 0;
    std::vector<double> full(at(width), 0), part(at(width), 0);
    std::vector<float> v(at(width));
    for (Index j = 0; j < naive.keys; ++j) {
      const std::size_t n = at(i * naive.keys + j);
      if (naive.valid[n] == 0) continue;
      all += 1;
      if (width > 0) rowToFloat(head.input.v, j, v);
      for (Index c = 0; c < width; ++c) full[at(c)] += naive.p[n] * static_cast<double>(v[at(c)]);
      if (kept[n] == 0) continue;
      count += 1;
      mass += naive.p[n];
      for (Index c = 0; c < width; ++c) part[at(c)] += naive.p[n] * static_cast<double>(v[at(c)]);
    }
    keptCount += count;
    out.starved += count == 0 ? 1 : 0;
    out.mass.push_back(mass);
    out.keptMass += mass;
    ++counted;
    double dot = 0, a2 = 0, b2 = 0;
    for (Index c = 0; c < width; ++c) {
      const double s = mass > 0 ? part[at(c)] / mass : 0;
      error += (s - full[at(c)]) * (s - full[at(c)]);
      dense += full[at(c)] * full[at(c)];
      dot += s * full[at(c)];
      a2 += s * s;
      b2 += full[at(c)] * full[at(c)];
    }
    cosine += a2 > 0 && b2 > 0 ? dot / std::sqrt(a2 * b2) : 0;
  }
  out.keptFraction = keptCount / all;
  out.keptMass /= static_cast<double>(counted);
  std::vector<double> sorted = out.mass;
  std::sort(sorted.begin(), sorted.end());
  const double position = 0.05 * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(position);
  const std::size_t high = std::min(low + 1, sorted.size() - 1);
  out.massP5 = sorted[low] + (position - std::floor(position)) * (sorted[high] - sorted[low]);
  out.relError = dense > 0 ? std::sqrt(error / dense) : 0;
  out.cosine = cosine / static_cast<double>(counted);
  return out;
}

}  // namespace sparsight::test

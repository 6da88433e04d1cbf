// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/response.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace sparsight {

KeptCurves keptCurves(const Trace& trace, const RunRequest& request, int points, Backend& backend,
                      const Control& control) {
  KeptCurves kept;
  const std::filesystem::path file = curvePath(trace, request, points);
  std::error_code ignored;
  if (std::filesystem::exists(file, ignored)) {
    try {
      kept.curves = readCurves(file);
      kept.fromFile = true;
      return kept;
    } catch (const Error& error) {
      kept.warnings.emplace_back(error.what());
    }
  }
  kept.curves = responseCurves(trace, request, points, backend, control);
  try {
    writeCurves(file, kept.curves);
  } catch (const Error& error) {
    kept.warnings.push_back(fmt::format("the curves are not kept: {}", error.what()));
  }
  return kept;
}

std::size_t ResponseTable::index(CellId cell) const noexcept {
  return (static_cast<std::size_t>(cell.step) * static_cast<std::size_t>(m_layers) +
          static_cast<std::size_t>(cell.layer)) *
             static_cast<std::size_t>(m_heads) +
         static_cast<std::size_t>(cell.head);
}

void ResponseTable::add(const std::vector<HeadCurve>& curves) {
  int steps = m_steps, layers = m_layers, heads = m_heads;
  for (const HeadCurve& curve : curves) {
    steps = std::max(steps, curve.id.call.step + 1);
    layers = std::max(layers, curve.id.call.layer + 1);
    heads = std::max(heads, curve.id.head + 1);
  }
  if (steps != m_steps || layers != m_layers || heads != m_heads) {
    std::vector<HeadCurve> before = std::exchange(m_curves, {});
    m_steps = steps;
    m_layers = layers;
    m_heads = heads;
    m_curves.resize(static_cast<std::size_t>(steps) * static_cast<std::size_t>(layers) *
                    static_cast<std::size_t>(heads));
    for (HeadCurve& curve : before) {
      if (curve.points.empty()) continue;
      const std::size_t to = index({curve.id.call.step, curve.id.call.layer, curve.id.head});
      m_curves[to] = std::move(curve);
    }
  }
  for (const HeadCurve& curve : curves) {
    if (curve.points.empty()) continue;
    HeadCurve& own = m_curves[index({curve.id.call.step, curve.id.call.layer, curve.id.head})];
    if (own.points.empty()) ++m_size;
    own = curve;
  }
}

const HeadCurve* ResponseTable::find(CellId cell) const noexcept {
  if (cell.step < 0 || cell.layer < 0 || cell.head < 0 || cell.step >= m_steps || cell.layer >= m_layers ||
      cell.head >= m_heads) {
    return nullptr;
  }
  const HeadCurve& curve = m_curves[index(cell)];
  return curve.points.empty() ? nullptr : &curve;
}

Index ResponseTable::coverage(const Profile& profile) const noexcept {
  Index covered = 0;
  for (int step = 0; step < std::min(m_steps, profile.steps()); ++step) {
    for (int layer = 0; layer < std::min(m_layers, profile.layers()); ++layer) {
      for (int head = 0; head < std::min(m_heads, profile.heads()); ++head) {
        covered += find({step, layer, head}) != nullptr ? 1 : 0;
      }
    }
  }
  return covered;
}

LayerPredictions ResponseTable::predict(const Profile& profile, std::optional<int> step,
                                        std::optional<int> head) const {
  LayerPredictions out;
  out.layers.resize(static_cast<std::size_t>(std::max(0, profile.layers())));
  Index withError = 0;
  double errors = 0;
  const int firstStep = step.value_or(0), lastStep = step.value_or(profile.steps() - 1);
  const int firstHead = head.value_or(0), lastHead = head.value_or(profile.heads() - 1);
  for (int layer = 0; layer < profile.layers(); ++layer) {
    Prediction& own = out.layers[static_cast<std::size_t>(layer)];
    Index ownWithError = 0;
    double ownErrors = 0;
    for (int s = firstStep; s <= lastStep; ++s) {
      for (int h = firstHead; h <= lastHead; ++h) {
        const std::optional<double> value = profile.at({s, layer, h});
        if (!value) continue;
        ++own.cells;
        const HeadCurve* curve = find({s, layer, h});
        if (curve == nullptr) continue;
        const CurvePoint point = curve->at(*value);
        ++own.covered;
        own.kept += point.kept;
        own.mass += point.mass;
        if (!point.error) continue;
        ++ownWithError;
        ownErrors += *point.error;
      }
    }
    out.total.cells += own.cells;
    out.total.covered += own.covered;
    out.total.kept += own.kept;
    out.total.mass += own.mass;
    withError += ownWithError;
    errors += ownErrors;
    if (own.covered > 0) {
      own.kept /= static_cast<double>(own.covered);
      own.mass /= static_cast<double>(own.covered);
    }
    if (ownWithError > 0) own.error = ownErrors / static_cast<double>(ownWithError);
  }
  if (out.total.covered > 0) {
    out.total.kept /= static_cast<double>(out.total.covered);
    out.total.mass /= static_cast<double>(out.total.covered);
  }
  if (withError > 0) out.total.error = errors / static_cast<double>(withError);
  return out;
}

}  // namespace sparsight

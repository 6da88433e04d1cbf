// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "profiles/profile_text.h"
#include "sparsight/core/profile.h"
#include "sparsight/kernels/error.h"

namespace sparsight {

void ProfileEdit::apply(Profile& profile) const {
  for (const Cell& cell : cells) {
    if (!profile.contains(cell.cell)) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("'{}' does not fit this profile: {} is outside it", label, detail::cellText(cell.cell)));
    }
    if (cell.after && !(*cell.after >= 0 && *cell.after <= 1)) {
      throw Error(ErrorCode::InvalidArgument, fmt::format("'{}': {}: {} is not a fraction; values lie in 0..1", label,
                                                          detail::cellText(cell.cell), *cell.after));
    }
  }
  for (const LayerMeta& meta : layers) {
    if (meta.layer < 0 || meta.layer >= profile.layers()) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("'{}' does not fit this profile: it has no layer {}", label, meta.layer));
    }
  }
  for (const Cell& cell : cells) profile.set(cell.cell, cell.after);
  for (const LayerMeta& meta : layers) {
    profile.setLayerLocked(meta.layer, meta.lockedAfter);
    profile.setLayerNote(meta.layer, meta.noteAfter);
  }
}

ProfileEdit ProfileEdit::inverse() const {
  constexpr std::string_view kUndo = "Undo: ";
  ProfileEdit edit;
  edit.label = label.starts_with(kUndo) ? label.substr(kUndo.size()) : fmt::format("{}{}", kUndo, label);
  edit.cells.reserve(cells.size());
  // Backwards: a cell that was set twice ends at its first value again.
  for (auto it = cells.rbegin(); it != cells.rend(); ++it) edit.cells.push_back({it->cell, it->after, it->before});
  for (auto it = layers.rbegin(); it != layers.rend(); ++it) {
    edit.layers.push_back({it->layer, it->lockedAfter, it->lockedBefore, it->noteAfter, it->noteBefore});
  }
  return edit;
}

ProfileEdit ProfileEdit::mergedWith(const ProfileEdit& next) const {
  ProfileEdit merged;
  merged.label = next.label.empty() ? label : next.label;
  std::map<CellId, Cell> byCell;
  std::map<int, LayerMeta> byLayer;
  for (const ProfileEdit* edit : {this, &next}) {
    for (const Cell& cell : edit->cells) {
      const auto [it, fresh] = byCell.try_emplace(cell.cell, cell);
      if (!fresh) it->second.after = cell.after;
    }
    for (const LayerMeta& meta : edit->layers) {
      const auto [it, fresh] = byLayer.try_emplace(meta.layer, meta);
      if (fresh) continue;
      it->second.lockedAfter = meta.lockedAfter;
      it->second.noteAfter = meta.noteAfter;
    }
  }
  for (auto& [id, cell] : byCell) {
    if (cell.before != cell.after) merged.cells.push_back(cell);
  }
  for (auto& [layer, meta] : byLayer) {
    if (meta.lockedBefore != meta.lockedAfter || meta.noteBefore != meta.noteAfter) merged.layers.push_back(meta);
  }
  return merged;
}

namespace edits {
namespace {

void requireRange(const Profile& p, const CellRange& r) {
  const bool inside = r.step0 >= 0 && r.step1 < p.steps() && r.layer0 >= 0 && r.layer1 < p.layers() && r.head0 >= 0 &&
                      r.head1 < p.heads();
  if (r.step0 > r.step1 || r.layer0 > r.layer1 || r.head0 > r.head1 || !inside) {
    throw Error(
        ErrorCode::InvalidArgument,
        fmt::format("the range of steps {}-{}, layers {}-{}, heads {}-{} is empty or outside the profile of {} steps "
                    "x {} layers x {} heads",
                    r.step0, r.step1, r.layer0, r.layer1, r.head0, r.head1, p.steps(), p.layers(), p.heads()));
  }
}
void requireLayer(const Profile& p, int layer) {
  if (layer < 0 || layer >= p.layers()) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("layer {} is outside the profile; its layers are 0-{}", layer, p.layers() - 1));
  }
}
void requireStep(const Profile& p, int step) {
  if (step < 0 || step >= p.steps()) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("step index {} is outside the profile; its steps are 0-{}", step, p.steps() - 1));
  }
}
void requireFraction(double value, const char* what) {
  if (!(value >= 0 && value <= 1)) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("{} of {} % is not possible; it lies between 0 and 100 %", what,
                                                        detail::percentText(value)));
  }
}
void requireFinite(double value, const char* what) {
  if (!std::isfinite(value)) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("the {} must be a finite number", what));
  }
}

double rounded(double value) { return std::round(value * 1e9) / 1e9; }

const char* quantity(const Profile& p) { return p.role == BudgetRole::TopMass ? "top mass" : "kept"; }

std::string span(const char* prefix, int first, int last) {
  return first == last ? fmt::format("{}{}", prefix, first) : fmt::format("{}{}-{}{}", prefix, first, prefix, last);
}

/// "L12-L18", "all layers", "L3 (H2, step index 4-9)"
std::string rangeText(const Profile& p, const CellRange& r) {
  const bool allLayers = r.layer0 == 0 && r.layer1 == p.layers() - 1 && p.layers() > 1;
  std::string text = allLayers ? "all layers" : span("L", r.layer0, r.layer1);
  std::string detail;
  if (r.head0 != 0 || r.head1 != p.heads() - 1) detail = span("H", r.head0, r.head1);
  if (r.step0 != 0 || r.step1 != p.steps() - 1) {
    if (!detail.empty()) detail += ", ";
    detail +=
        r.step0 == r.step1 ? fmt::format("step index {}", r.step0) : fmt::format("step index {}-{}", r.step0, r.step1);
  }
  return detail.empty() ? text : fmt::format("{} ({})", text, detail);
}

std::string heldText(Index held) {
  if (held == 0) return {};
  return fmt::format(" ({} cell{} held at 0 or 100 %)", held, held == 1 ? "" : "s");
}

/// Calls body(cell, before) for every cell of unlocked layers and records what changes.
template <class Body>
ProfileEdit editCells(const Profile& p, const CellRange& range, const Body& body) {
  requireRange(p, range);
  ProfileEdit edit;
  for (int s = range.step0; s <= range.step1; ++s) {
    for (int l = range.layer0; l <= range.layer1; ++l) {
      if (p.layerLocked(l)) continue;
      for (int h = range.head0; h <= range.head1; ++h) {
        const CellId cell{s, l, h};
        const std::optional<double> before = p.at(cell);
        const std::optional<double> after = body(cell, before);
        if (before != after) edit.cells.push_back({cell, before, after});
      }
    }
  }
  return edit;
}

/// Shared by scale and add: computed values that leave [0, 1] are refused, or held and counted.
template <class Compute>
ProfileEdit mapCells(const Profile& p, const CellRange& range, bool clamp, const std::string& what,
                     const Compute& compute) {
  Index held = 0;
  ProfileEdit edit = editCells(p, range, [&](CellId cell, std::optional<double> before) -> std::optional<double> {
    if (!before) return before;
    const double value = rounded(compute(*before));
    if (value >= 0 && value <= 1) return value;
    if (!clamp) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{} would bring {} from {} % to {} %; values lie between 0 and 100 %", what,
                              detail::cellText(cell), detail::percentText(*before), detail::percentText(value)));
    }
    ++held;
    return std::clamp(value, 0.0, 1.0);
  });
  edit.label = what + heldText(held);
  return edit;
}

}  // namespace

ProfileEdit set(const Profile& p, const CellRange& range, double value) {
  requireFraction(value, quantity(p));
  ProfileEdit edit = editCells(p, range, [value](CellId, std::optional<double>) { return std::optional(value + 0.0); });
  edit.label = fmt::format("Set {} of {} to {} %", quantity(p), rangeText(p, range), detail::percentText(value));
  return edit;
}

ProfileEdit scale(const Profile& p, const CellRange& range, double factor, bool clamp) {
  requireFinite(factor, "factor");
  requireRange(p, range);
  return mapCells(p, range, clamp, fmt::format("Scale {} of {} by {:.4g}", quantity(p), rangeText(p, range), factor),
                  [factor](double v) { return v * factor; });
}

ProfileEdit add(const Profile& p, const CellRange& range, double delta, bool clamp) {
  requireFinite(delta, "change");
  requireRange(p, range);
  return mapCells(p, range, clamp,
                  fmt::format("{} {} of {} by {} %", delta < 0 ? "Lower" : "Raise", quantity(p), rangeText(p, range),
                              detail::percentText(std::abs(delta))),
                  [delta](double v) { return v + delta; });
}

ProfileEdit smooth(const Profile& p, const CellRange& range, int radius) {
  if (radius < 1) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("smoothing radius {}; it must be at least 1 layer", radius));
  }
  ProfileEdit edit = editCells(p, range, [&](CellId cell, std::optional<double> before) -> std::optional<double> {
    if (!before) return before;
    double sum = 0;
    int count = 0;
    const int first = std::max(0, cell.layer - std::min(radius, p.layers()));
    const int last = std::min(p.layers() - 1, cell.layer + std::min(radius, p.layers()));
    for (int l = first; l <= last; ++l) {
      if (const auto value = p.at({cell.step, l, cell.head})) {
        sum += *value;
        ++count;
      }
    }
    return std::clamp(rounded(sum / count), 0.0, 1.0);
  });
  edit.label = fmt::format("Smooth {} of {}", quantity(p), rangeText(p, range));
  return edit;
}

ProfileEdit copyLayer(const Profile& p, int fromLayer, int toLayer, const CellRange& range) {
  requireLayer(p, fromLayer);
  requireLayer(p, toLayer);
  CellRange target = range;
  target.layer0 = target.layer1 = toLayer;
  ProfileEdit edit = editCells(p, target, [&](CellId cell, std::optional<double>) {
    return p.at({cell.step, fromLayer, cell.head});
  });
  edit.label = fmt::format("Copy L{} to {}", fromLayer, rangeText(p, target));
  return edit;
}

ProfileEdit copyStep(const Profile& p, int fromStep, int toStep, const CellRange& range) {
  requireStep(p, fromStep);
  requireStep(p, toStep);
  CellRange target = range;
  target.step0 = target.step1 = toStep;
  ProfileEdit edit = editCells(p, target, [&](CellId cell, std::optional<double>) {
    return p.at({fromStep, cell.layer, cell.head});
  });
  edit.label = fmt::format("Copy step index {} to {}, {}", fromStep, toStep, span("L", range.layer0, range.layer1));
  return edit;
}

ProfileEdit fillHoles(const Profile& p, const CellRange& range, double value) {
  requireFraction(value, quantity(p));
  ProfileEdit edit = editCells(
      p, range, [value](CellId, std::optional<double> before) { return before ? before : std::optional(value + 0.0); });
  edit.label = fmt::format("Fill {} hole{} of {} with {} %", edit.cells.size(), edit.cells.size() == 1 ? "" : "s",
                           rangeText(p, range), detail::percentText(value));
  return edit;
}

ProfileEdit setLayerMean(const Profile& p, int layer, const CellRange& range, double mean) {
  requireLayer(p, layer);
  requireFraction(mean, quantity(p));
  CellRange target = range;
  target.layer0 = target.layer1 = layer;
  requireRange(p, target);
  std::vector<double> values;
  for (int s = target.step0; s <= target.step1; ++s) {
    for (int h = target.head0; h <= target.head1; ++h) {
      if (const auto value = p.at({s, layer, h})) values.push_back(*value);
    }
  }
  const auto meanOf = [&](double delta) {
    double sum = 0;
    for (const double v : values) sum += std::clamp(v + delta, 0.0, 1.0);
    return sum / static_cast<double>(values.size());
  };
  double delta = 0;
  if (!values.empty()) {
    delta = mean - meanOf(0);
    const bool leaves =
        std::any_of(values.begin(), values.end(), [&](double v) { return v + delta < 0 || v + delta > 1; });
    if (leaves) {
      // The mean of clamped values grows with the shift, from 0 at -1 to 1 at +1: bisect.
      double low = -1, high = 1;
      for (int i = 0; i < 60; ++i) {
        delta = 0.5 * (low + high);
        (meanOf(delta) < mean ? low : high) = delta;
      }
    }
  }
  Index held = 0;
  ProfileEdit edit = editCells(p, target, [&](CellId, std::optional<double> before) -> std::optional<double> {
    if (!before) return before;
    const double value = rounded(*before + delta);
    if (value < 0 || value > 1) ++held;
    return std::clamp(value, 0.0, 1.0);
  });
  edit.label = fmt::format("Set {} of {} to {} %{}", quantity(p), rangeText(p, target), detail::percentText(mean),
                           heldText(held));
  return edit;
}

ProfileEdit lockLayer(const Profile& p, int layer, bool locked) {
  requireLayer(p, layer);
  ProfileEdit edit;
  edit.label = fmt::format("{} L{}", locked ? "Lock" : "Unlock", layer);
  const std::string note = p.layerNote(layer);
  if (p.layerLocked(layer) != locked) edit.layers.push_back({layer, !locked, locked, note, note});
  return edit;
}

ProfileEdit noteLayer(const Profile& p, int layer, const std::string& note) {
  requireLayer(p, layer);
  ProfileEdit edit;
  edit.label = fmt::format("{} L{}", note.empty() ? "Remove the note of" : "Note on", layer);
  const std::string before = p.layerNote(layer);
  const bool locked = p.layerLocked(layer);
  if (before != note) edit.layers.push_back({layer, locked, locked, before, note});
  return edit;
}

}  // namespace edits
}  // namespace sparsight

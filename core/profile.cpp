// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "profiles/profile_text.h"

namespace sparsight {
namespace {

constexpr double kHole = -1;

Index checkedCells(int steps, int layers, int heads) {
  if (steps < 1 || layers < 1 || heads < 1) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("a profile of {} steps x {} layers x {} heads is empty; every count must be at least 1",
                            steps, layers, heads));
  }
  if (!detail::fitsProfile(steps, layers, heads)) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("a profile of {} steps x {} layers x {} heads has more than {} cells", steps, layers, heads,
                            kMaxProfileCells));
  }
  return Index{steps} * layers * heads;
}

}  // namespace

namespace detail {

bool fitsProfile(Index steps, Index layers, Index heads) noexcept {
  if (steps < 1 || layers < 1 || heads < 1) return false;
  if (steps > kMaxProfileCells || layers > kMaxProfileCells / steps) return false;
  return heads <= kMaxProfileCells / (steps * layers);
}

}  // namespace detail

std::string_view budgetRoleName(BudgetRole role) noexcept {
  switch (role) {
    case BudgetRole::KeptFloor:
      return "kept_floor";
    case BudgetRole::KeptTarget:
      return "kept_target";
    case BudgetRole::TopMass:
      return "top_mass";
  }
  return "kept_target";
}

Profile::Profile(int steps, int layers, int heads, BudgetRole profileRole)
    : role(profileRole), m_steps(steps), m_layers(layers), m_heads(heads) {
  m_values.assign(static_cast<std::size_t>(checkedCells(steps, layers, heads)), kHole);
  m_locked.assign(static_cast<std::size_t>(layers), false);
}

bool Profile::contains(CellId cell) const noexcept {
  return cell.step >= 0 && cell.step < m_steps && cell.layer >= 0 && cell.layer < m_layers && cell.head >= 0 &&
         cell.head < m_heads;
}

std::size_t Profile::index(CellId cell) const noexcept {
  return (static_cast<std::size_t>(cell.step) * static_cast<std::size_t>(m_layers) +
          static_cast<std::size_t>(cell.layer)) *
             static_cast<std::size_t>(m_heads) +
         static_cast<std::size_t>(cell.head);
}

std::optional<double> Profile::at(CellId cell) const {
  if (!contains(cell)) return std::nullopt;
  const double value = m_values[index(cell)];
  if (value < 0) return std::nullopt;
  return value;
}

void Profile::set(CellId cell, std::optional<double> value) {
  if (!contains(cell)) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("{} is outside the profile of {} steps x {} layers x {} heads",
                                                        detail::cellText(cell), m_steps, m_layers, m_heads));
  }
  if (value && !(*value >= 0 && *value <= 1)) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("{}: {} is not a fraction; values lie in 0..1", detail::cellText(cell), *value));
  }
  m_values[index(cell)] = value ? *value + 0.0 : kHole;  // + 0.0: a negative zero would print as "-0.0"
}

Index Profile::holeCount() const noexcept {
  return static_cast<Index>(std::count_if(m_values.begin(), m_values.end(), [](double v) { return v < 0; }));
}
Index Profile::cellCount() const noexcept { return static_cast<Index>(m_values.size()); }

bool Profile::layerLocked(int layer) const noexcept {
  return layer >= 0 && layer < m_layers && m_locked[static_cast<std::size_t>(layer)];
}
void Profile::setLayerLocked(int layer, bool locked) {
  if (layer < 0 || layer >= m_layers) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("layer {} is outside 0..{}", layer, m_layers - 1));
  }
  m_locked[static_cast<std::size_t>(layer)] = locked;
}
std::string Profile::layerNote(int layer) const {
  const auto found = m_notes.find(layer);
  return found == m_notes.end() ? std::string() : found->second;
}
void Profile::setLayerNote(int layer, std::string note) {
  if (layer < 0 || layer >= m_layers) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("layer {} is outside 0..{}", layer, m_layers - 1));
  }
  if (note.empty()) {
    m_notes.erase(layer);
  } else {
    m_notes[layer] = std::move(note);
  }
}

namespace {

ProfileSummary summariseRange(const Profile& p, const CellRange& range) {
  ProfileSummary summary;
  summary.min = std::numeric_limits<double>::infinity();
  summary.max = -std::numeric_limits<double>::infinity();
  double sum = 0;
  for (int s = range.step0; s <= range.step1; ++s) {
    for (int l = range.layer0; l <= range.layer1; ++l) {
      for (int h = range.head0; h <= range.head1; ++h) {
        const auto value = p.at({s, l, h});
        if (!value) {
          ++summary.holes;
          continue;
        }
        ++summary.count;
        sum += *value;
        summary.min = std::min(summary.min, *value);
        summary.max = std::max(summary.max, *value);
      }
    }
  }
  if (summary.count == 0) {
    summary.min = summary.max = 0;
  } else {
    summary.mean = sum / static_cast<double>(summary.count);
  }
  return summary;
}

}  // namespace

ProfileSummary summarise(const Profile& profile) { return summariseRange(profile, CellRange::all(profile)); }

ProfileSummary summariseLayer(const Profile& profile, int layer, std::optional<int> step) {
  CellRange range = CellRange::all(profile);
  range.layer0 = range.layer1 = layer;
  if (step) range.step0 = range.step1 = *step;
  return summariseRange(profile, range);
}

VarianceShares varianceShares(const Profile& p) {
  struct Group {
    double sum = 0;
    Index count = 0;
  };
  const auto size = [](int n) { return static_cast<std::size_t>(n); };
  std::vector<Group> layers(size(p.layers())), steps(size(p.steps())), heads(size(p.layers()) * size(p.heads()));
  Group all;
  const auto forAll = [&p](const auto& body) {
    for (int s = 0; s < p.steps(); ++s) {
      for (int l = 0; l < p.layers(); ++l) {
        for (int h = 0; h < p.heads(); ++h) {
          if (const auto value = p.at({s, l, h})) body(s, l, h, *value);
        }
      }
    }
  };
  forAll([&](int s, int l, int h, double value) {
    for (Group* group : {&all, &layers[size(l)], &steps[size(s)], &heads[size(l) * size(p.heads()) + size(h)]}) {
      group->sum += value;
      ++group->count;
    }
  });
  if (all.count == 0) return {};
  const double mean = all.sum / static_cast<double>(all.count);
  double total = 0;
  forAll([&](int, int, int, double value) { total += (value - mean) * (value - mean); });
  if (!(total > 0)) return {};
  const auto explained = [&](const std::vector<Group>& groups) {
    double sum = 0;
    for (const Group& group : groups) {
      if (group.count == 0) continue;
      const double difference = group.sum / static_cast<double>(group.count) - mean;
      sum += static_cast<double>(group.count) * difference * difference;
    }
    return sum / total;
  };
  return {explained(layers), explained(heads), explained(steps)};
}

ClipStatistics clipStatistics(const Profile& p, int denseSteps, int denseLayers, double low, double high,
                              int clusters) {
  ClipStatistics result;
  Index atLow = 0, atHigh = 0, between = 0, floors = 0;
  for (int s = std::max(0, denseSteps); s < p.steps(); ++s) {
    for (int l = std::max(0, denseLayers); l < p.layers(); ++l) {
      for (int h = 0; h < p.heads(); ++h) {
        const auto value = p.at({s, l, h});
        if (!value) continue;
        ++result.live;
        atLow += *value <= low ? 1 : 0;
        atHigh += *value >= high ? 1 : 0;
        between += *value > low && *value < high ? 1 : 0;
        // Low first, high last, as in SVOO: high wins where the two cross.
        floors += static_cast<Index>(std::min(std::max(*value, low), high) * clusters);
      }
    }
  }
  if (result.live == 0) return result;
  const double live = static_cast<double>(result.live);
  result.atLow = static_cast<double>(atLow) / live;
  result.atHigh = static_cast<double>(atHigh) / live;
  result.between = static_cast<double>(between) / live;
  result.meanFloorClusters = static_cast<double>(floors) / live;
  return result;
}

ProfileDiff diffProfiles(const Profile& a, const Profile& b) {
  ProfileDiff diff;
  diff.steps = std::max(a.steps(), b.steps());
  diff.layers = std::max(a.layers(), b.layers());
  diff.heads = std::max(a.heads(), b.heads());
  if (diff.steps == 0) return diff;
  diff.delta.resize(static_cast<std::size_t>(checkedCells(diff.steps, diff.layers, diff.heads)));
  // Pearson in two passes: means first, so that nearly equal values do not cancel.
  double sumA = 0, sumB = 0;
  Index both = 0;
  std::size_t at = 0;
  const auto forAll = [&](const auto& body) {
    for (int s = 0; s < diff.steps; ++s) {
      for (int l = 0; l < diff.layers; ++l) {
        for (int h = 0; h < diff.heads; ++h) body(a.at({s, l, h}), b.at({s, l, h}));
      }
    }
  };
  forAll([&](std::optional<double> x, std::optional<double> y) {
    if (x && y) {
      const double d = *x - *y;
      diff.delta[at] = d;
      ++both;
      sumA += *x;
      sumB += *y;
      diff.changed += d != 0 ? 1 : 0;
      diff.meanAbs += std::abs(d);
      diff.maxAbs = std::max(diff.maxAbs, std::abs(d));
    } else {
      diff.onlyA += x ? 1 : 0;
      diff.onlyB += y ? 1 : 0;
    }
    ++at;
  });
  if (both == 0) return diff;
  const double count = static_cast<double>(both);
  diff.meanAbs /= count;
  const double meanA = sumA / count, meanB = sumB / count;
  double varA = 0, varB = 0, cov = 0;
  forAll([&](std::optional<double> x, std::optional<double> y) {
    if (!x || !y) return;
    varA += (*x - meanA) * (*x - meanA);
    varB += (*y - meanB) * (*y - meanB);
    cov += (*x - meanA) * (*y - meanB);
  });
  diff.pearson = varA > 0 && varB > 0 ? cov / std::sqrt(varA * varB) : 0;
  return diff;
}

// ---- models --------------------------------------------------------------------------------------------------------

std::span<const SvooModel> svooModels() noexcept {
  // github.com/Mutual-Luo/SVOO, commit e4ae67b: scripts/offline/generate_sparsity_profiles.sh (keys, counts) and
  // scripts/inference/*/*_720p_svoo.sh (first_times_fp, first_layers_fp, dynamic_min_kc_ratio_min / _max).
  static constexpr std::array<SvooModel, 7> kModels{{
      {"wan21_t2v_1_3b", "Wan2.1 1.3B T2V", "MODEL_SIZE=1.3B bash scripts/inference/wan/wan_t2v_720p_svoo.sh", 50, 30,
       12, 10, 0, 0.15, 0.20},
      {"wan21_t2v_14b", "Wan2.1 14B T2V", "MODEL_SIZE=14B bash scripts/inference/wan/wan_t2v_720p_svoo.sh", 50, 40, 40,
       10, 1, 0.15, 0.20},
      {"wan21_i2v_14b", "Wan2.1 14B I2V", "MODEL_SIZE=14B bash scripts/inference/wan/wan_i2v_720p_svoo.sh", 40, 40, 40,
       8, 1, 0.10, 0.15},
      {"wan22_t2v_a14b", "Wan2.2 A14B T2V", "MODEL_SIZE=A14B bash scripts/inference/wan/wan_t2v_720p_svoo.sh", 40, 40,
       40, 8, 1, 0.20, 0.22},
      {"wan22_i2v_a14b", "Wan2.2 A14B I2V", "MODEL_SIZE=A14B bash scripts/inference/wan/wan_i2v_720p_svoo.sh", 40, 40,
       40, 8, 1, 0.20, 0.25},
      {"hunyuan10_t2v_13b", "HunyuanVideo 13B T2V", "bash scripts/inference/hunyuan10/hunyuan10_t2v_720p_svoo.sh", 50,
       60, 24, 5, 1, 0.05, 0.10},
      {"hunyuan10_i2v_13b", "HunyuanVideo 13B I2V", "bash scripts/inference/hunyuan10/hunyuan10_i2v_720p_svoo.sh", 50,
       60, 24, 5, 1, 0.05, 0.10},
  }};
  return kModels;
}

std::string modelsOfGrid(int layers, int heads) {
  std::string titles;
  for (const SvooModel& model : svooModels()) {
    if (model.layers != layers || model.heads != heads) continue;
    if (!titles.empty()) titles += " or ";
    titles += model.title;
  }
  return titles;
}

// ---- filling -------------------------------------------------------------------------------------------------------

namespace {

/// Fills the holes of one line of cells from its own values; false: it has none.
bool fillLine(Profile& out, const Profile& in, int length, bool hold, const std::function<CellId(int)>& cellAt) {
  std::vector<int> known;
  for (int i = 0; i < length; ++i) {
    if (in.at(cellAt(i))) known.push_back(i);
  }
  if (known.empty()) return false;
  for (int i = 0; i < length; ++i) {
    if (in.at(cellAt(i))) continue;
    const auto after = std::lower_bound(known.begin(), known.end(), i);
    int from = 0;
    // NOLINTNEXTLINE(bugprone-branch-clone): the first, the hold and the nearest case read better apart
    if (after == known.begin()) {
      from = *after;
    } else if (hold || after == known.end() || i - *(after - 1) <= *after - i) {
      from = *(after - 1);
    } else {
      from = *after;
    }
    out.set(cellAt(i), in.at(cellAt(from)));
  }
  return true;
}

}  // namespace

Profile fillForExport(const Profile& profile, FillPolicy policy, double value) {
  const Index holes = profile.holeCount();
  if (profile.cellCount() == 0)
    throw Error(ErrorCode::InvalidArgument, "the profile is empty; there is nothing to export");
  if (policy == FillPolicy::Value && !(value >= 0 && value <= 1)) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("--fill value={}: the value must lie in 0..1", value));
  }
  if (holes == 0) return profile;
  if (policy == FillPolicy::Refuse) {
    throw Error(ErrorCode::InvalidArgument, detail::holesText(profile) +
                                                "; runtimes ignore incomplete profiles; fill them with --fill nearest, "
                                                "--fill hold or --fill value=0.1");
  }
  Profile out = profile;
  if (policy == FillPolicy::Value) {
    for (int s = 0; s < out.steps(); ++s) {
      for (int l = 0; l < out.layers(); ++l) {
        for (int h = 0; h < out.heads(); ++h) {
          if (!out.at({s, l, h})) out.set({s, l, h}, value);
        }
      }
    }
    return out;
  }
  if (holes == profile.cellCount()) {
    throw Error(ErrorCode::InvalidArgument,
                "the profile has no value at all, so there is nothing to fill from; use --fill value=0.1");
  }
  const bool hold = policy == FillPolicy::Hold;
  for (int l = 0; l < out.layers(); ++l) {
    for (int h = 0; h < out.heads(); ++h) {
      fillLine(out, profile, out.steps(), hold, [l, h](int s) { return CellId{s, l, h}; });
    }
  }
  // Whole layers or heads that no trace captured: along layers, then heads; from the filled grid, never from itself.
  const Profile bySteps = out;
  for (int s = 0; s < out.steps(); ++s) {
    for (int h = 0; h < out.heads(); ++h) {
      fillLine(out, bySteps, out.layers(), false, [s, h](int l) { return CellId{s, l, h}; });
    }
  }
  const Profile byLayers = out;
  for (int s = 0; s < out.steps(); ++s) {
    for (int l = 0; l < out.layers(); ++l) {
      fillLine(out, byLayers, out.heads(), false, [s, l](int h) { return CellId{s, l, h}; });
    }
  }
  return out;
}

}  // namespace sparsight

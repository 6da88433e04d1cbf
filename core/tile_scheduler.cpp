// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/tile_scheduler.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace sparsight {
namespace {

Index tilesOf(Index tokens, int level) {
  const Index side = Index{kTileCells} << level;
  return (tokens + side - 1) / side;
}

}  // namespace

Index TileGrid::tileRows(int level) const noexcept { return tilesOf(rows, level); }
Index TileGrid::tileCols(int level) const noexcept { return tilesOf(cols, level); }

TileGrid gridOf(const AttentionMap& map) noexcept {
  return {map.rows(), map.cols(), map.coarseLevel(), map.maxLevel()};
}

TileSpan touchedTiles(double first, double count, int level, Index tiles) noexcept {
  const auto side = static_cast<double>(Index{kTileCells} << level);
  const auto tile = [&](double token) {
    return std::clamp<Index>(static_cast<Index>(std::floor(token / side)), 0, std::max<Index>(0, tiles - 1));
  };
  return {tile(first), std::max(tile(first), tile(std::ceil(first + count) - 1))};
}

TileScheduler::Step TileScheduler::plan(const TileGrid& grid, const TileView& view, Index dim,
                                        const std::function<bool(const TileKey&)>& has, bool affordable, bool quiet,
                                        Time now) {
  Step step;
  if (!m_view || *m_view != view) {
    m_view = view;
    m_since = now;
  }
  struct Ranked {
    TileWish wish;
    double distance;
  };
  const auto collect = [&](int level, Index ring, TileRole role) {
    std::vector<Ranked> found;
    const TileSpan x = touchedTiles(view.col0, view.cols, level, grid.tileCols(level));
    const TileSpan y = touchedTiles(view.row0, view.rows, level, grid.tileRows(level));
    const auto side = static_cast<double>(Index{kTileCells} << level);
    for (Index ty = std::max<Index>(0, y.first - ring); ty <= std::min(grid.tileRows(level) - 1, y.last + ring); ++ty) {
      for (Index tx = std::max<Index>(0, x.first - ring); tx <= std::min(grid.tileCols(level) - 1, x.last + ring);
           ++tx) {
        const bool inside = tx >= x.first && tx <= x.last && ty >= y.first && ty <= y.last;
        if (ring > 0 && inside) continue;
        // A ragged last tile is as far as its own middle, not that of a whole one.
        const double right = std::min(static_cast<double>(grid.cols), static_cast<double>(tx + 1) * side);
        const double bottom = std::min(static_cast<double>(grid.rows), static_cast<double>(ty + 1) * side);
        const double dx = (static_cast<double>(tx) * side + right) / 2 - (view.col0 + view.cols / 2);
        const double dy = (static_cast<double>(ty) * side + bottom) / 2 - (view.row0 + view.rows / 2);
        found.push_back({{{level, tx, ty, view.reduce}, role}, std::hypot(dx, dy)});
      }
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Ranked& a, const Ranked& b) { return a.distance < b.distance; });
    return found;
  };
  const auto flops = [&](int level, std::size_t tiles) {
    const auto side = static_cast<double>(Index{kTileCells} << level);
    return 2.0 * side * side * static_cast<double>(dim) * static_cast<double>(tiles);
  };

  std::map<TileKey, TileRole> wanted;  // still worth having, whether there or not
  std::vector<TileWish> missing;
  bool complete = true;
  if (view.level < grid.coarseLevel && affordable) {
    for (const Ranked& each : collect(view.level, 0, TileRole::Visible)) {
      wanted.emplace(each.wish.key, TileRole::Visible);
      if (has(each.wish.key)) continue;
      complete = false;
      missing.push_back(each.wish);
    }
    const bool rested = now - m_since >= m_options.rest;
    if (complete && quiet && !rested) step.wake = m_since + m_options.rest;
    std::vector<std::vector<Ranked>> ahead;
    if (view.level + 1 < grid.coarseLevel) ahead.push_back(collect(view.level + 1, 0, TileRole::Coarser));
    if (m_options.ring > 0) ahead.push_back(collect(view.level, m_options.ring, TileRole::Ring));
    for (const std::vector<Ranked>& group : ahead) {
      if (group.empty() || flops(group.front().wish.key.level, group.size()) > m_options.maxFlops) continue;
      for (const Ranked& each : group) {
        wanted.emplace(each.wish.key, each.wish.role);
        if (complete && quiet && rested && !has(each.wish.key)) missing.push_back(each.wish);
      }
    }
  }

  for (auto it = m_flying.begin(); it != m_flying.end();) {
    const auto still = wanted.find(it->first);
    // What was ahead of need and is needed now is asked for again, at its new place in the queue.
    const bool urgent = still != wanted.end() && still->second == TileRole::Visible && it->second != TileRole::Visible;
    // Work ahead of need gives way to what is visible.
    const bool inTheWay = !complete && still != wanted.end() && still->second != TileRole::Visible;
    if (still != wanted.end() && !urgent && !inTheWay) {
      it->second = still->second;
      ++it;
      continue;
    }
    step.cancel.push_back(it->first);
    it = m_flying.erase(it);
  }
  auto ahead = static_cast<int>(std::count_if(m_flying.begin(), m_flying.end(),
                                              [](const auto& each) { return each.second != TileRole::Visible; }));
  for (const TileWish& wish : missing) {
    if (static_cast<int>(m_flying.size()) >= m_options.inFlight) break;
    if (m_flying.contains(wish.key)) continue;
    if (wish.role != TileRole::Visible) {
      if (ahead >= m_options.speculative) break;
      ++ahead;
    }
    m_flying.emplace(wish.key, wish.role);
    step.start.push_back(wish);
  }
  return step;
}

void TileScheduler::ended(const TileKey& key) { m_flying.erase(key); }

void TileScheduler::reset() {
  m_flying.clear();
  m_view.reset();
}

std::vector<HeadId> likelyNextHeads(const TraceInfo& trace, const HeadId& current,
                                    const std::optional<HeadId>& previous, std::size_t count) {
  const std::vector<int> steps = trace.steps(), layers = trace.layers(), heads = trace.heads();
  // The value `by` places on along an axis; nullopt at its end.
  const auto moved = [](const std::vector<int>& values, int value, int by) -> std::optional<int> {
    const auto here = std::find(values.begin(), values.end(), value);
    if (here == values.end()) return std::nullopt;
    const auto place = (here - values.begin()) + by;
    if (place < 0 || place >= static_cast<std::ptrdiff_t>(values.size())) return std::nullopt;
    return values[static_cast<std::size_t>(place)];
  };
  enum Axis : std::size_t { Head, Layer, Step };
  const auto go = [&](std::size_t axis, int by) -> std::optional<HeadId> {
    int step = current.call.step, layer = current.call.layer, head = current.head;
    const std::optional<int> next = axis == Head    ? moved(heads, head, by)
                                    : axis == Layer ? moved(layers, layer, by)
                                                    : moved(steps, step, by);
    if (!next) return std::nullopt;
    (axis == Head ? head : axis == Layer ? layer : step) = *next;
    const CallInfo* call = trace.callAt(step, current.call.branch, layer);
    if (call == nullptr || std::find(call->heads.begin(), call->heads.end(), head) == call->heads.end() ||
        !call->isAvailable(head)) {
      return std::nullopt;
    }
    return HeadId{call->id, head};
  };
  std::vector<std::pair<std::size_t, int>> moves;
  if (previous) {
    const std::array<int, 3> by{current.head - previous->head, current.call.layer - previous->call.layer,
                                current.call.step - previous->call.step};
    if (std::count(by.begin(), by.end(), 0) == 2) {
      for (std::size_t axis = 0; axis < by.size(); ++axis) {
        if (by[axis] == 0) continue;
        const int on = by[axis] > 0 ? 1 : -1;
        moves.insert(moves.end(), {{axis, on}, {axis, -on}});
      }
    }
  }
  for (const std::size_t axis : {Head, Layer, Step}) moves.insert(moves.end(), {{axis, 1}, {axis, -1}});
  std::vector<HeadId> list;
  for (const auto& [axis, by] : moves) {
    if (list.size() >= count) break;
    const std::optional<HeadId> next = go(axis, by);
    if (next && *next != current && std::find(list.begin(), list.end(), *next) == list.end()) list.push_back(*next);
  }
  return list;
}

}  // namespace sparsight

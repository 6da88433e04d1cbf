// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "sparsight/core/attention_map.h"
#include "sparsight/core/trace.h"

namespace sparsight {

/// The tiles of a map: AttentionMap's geometry without the map.
struct TileGrid {
  Index rows = 0, cols = 0;
  int coarseLevel = 0, maxLevel = 0;  ///< levels from coarseLevel on are in memory and never asked for
  [[nodiscard]] Index tileRows(int level) const noexcept;
  [[nodiscard]] Index tileCols(int level) const noexcept;
};
[[nodiscard]] TileGrid gridOf(const AttentionMap& map) noexcept;

/// What is looked at: a region in tokens, painted with cells of one level.
struct TileView {
  double row0 = 0, col0 = 0, rows = 0, cols = 0;
  int level = 0;
  Reduce reduce = Reduce::Max;
  friend bool operator==(const TileView&, const TileView&) = default;
};

/// Why a tile is wanted, most urgent first.
enum class TileRole : std::uint8_t {
  Visible,  ///< painted now, centre first
  Coarser,  ///< one level up over the same region: what a zoom out shows
  Ring      ///< around the region: what a pan shows
};
struct TileWish {
  TileKey key;
  TileRole role = TileRole::Visible;
  friend bool operator==(const TileWish&, const TileWish&) = default;
};

/// Tiles [first, last] of one axis that a span of tokens touches.
struct TileSpan {
  Index first = 0, last = 0;
};
[[nodiscard]] TileSpan touchedTiles(double first, double count, int level, Index tiles) noexcept;

/// Decides which tiles are computed in which order: the visible ones, centre first; then, once those are there and the
/// view has rested, one level coarser and a ring around. The newest view wins: what it does not want any more is
/// stopped. Knows no threads and no clock of its own; one thread.
class TileScheduler {
 public:
  using Time = std::chrono::milliseconds;  ///< since any fixed moment
  struct Options {
    int inFlight = 12;       ///< tiles asked for and not there yet
    int speculative = 4;     ///< of these, not visible ones
    Time rest{80};           ///< a view that did not change for this long is looked at
    double maxFlops = 3e11;  ///< per role: what costs more is not computed ahead
    Index ring = 1;          ///< tiles
  };
  struct Step {
    std::vector<TileKey> cancel;  ///< forget and stop these; they are no longer in flight
    std::vector<TileWish> start;  ///< ask for these, in this order; they are in flight until ended()
    std::optional<Time> wake;     ///< call again then, even when nothing happens
  };

  TileScheduler() = default;
  explicit TileScheduler(const Options& options) : m_options(options) {}

  /// What to do now. has(key): the tile is there. dim: of a head, for costs. affordable: visible tiles may be computed
  /// at all. quiet: nothing else is under way, so that work ahead of need disturbs nobody.
  [[nodiscard]] Step plan(const TileGrid& grid, const TileView& view, Index dim,
                          const std::function<bool(const TileKey&)>& has, bool affordable, bool quiet, Time now);
  /// A tile arrived or failed.
  void ended(const TileKey& key);
  /// Another map: all that is in flight is to be stopped by the caller.
  void reset();
  [[nodiscard]] bool pending(const TileKey& key) const { return m_flying.contains(key); }
  [[nodiscard]] std::size_t inFlight() const noexcept { return m_flying.size(); }

 private:
  Options m_options{};
  std::map<TileKey, TileRole> m_flying;
  std::optional<TileView> m_view;
  Time m_since{0};
};

/// Heads worth making ready while nothing else is to be done, most likely first: on along the last move, then back,
/// then the neighbours on the other axes (head, layer, step). Captured heads only, the current one never; at most
/// `count`.
[[nodiscard]] std::vector<HeadId> likelyNextHeads(const TraceInfo& trace, const HeadId& current,
                                                  const std::optional<HeadId>& previous, std::size_t count);

}  // namespace sparsight

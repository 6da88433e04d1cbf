// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "sparsight/core/plan.h"
#include "sparsight/core/trace.h"
#include "sparsight/kernels/backend.h"

namespace sparsight {

class MapCache;

/// Cells per tile side.
inline constexpr int kTileCells = 256;

/// Level z: a cell is 2^z x 2^z tokens; a tile is 256 x 256 cells. Level 0 is one token per cell.
struct TileKey {
  int level = 0;
  Index tileX = 0, tileY = 0;  ///< x: keys, y: queries
  Reduce reduce = Reduce::Max;
  auto operator<=>(const TileKey&) const = default;
};
/// Pooled probabilities, float32 [cellRows, cellCols] (edge tiles are smaller); NaN: no valid pair.
struct Tile {
  TileKey key;
  int cellRows = 0, cellCols = 0;
  std::vector<float> cells;
  bool approximate = false;  ///< from sampled rows: shown with a label until the exact one arrives
};
/// How a preview was made and how far it may be off.
struct PreviewInfo {
  Index sampledRows = 0;  ///< query rows whose softmax was computed
  /// Share of a row's attention mass that lies in other cells than shown: half the absolute difference between the
  /// shown and the exact mean map, summed over a cell row and averaged over the cell rows. Estimated as the same
  /// distance between two disjoint halves of the sample, which in expectation is never below the true one (the error of
  /// either half is, by Jensen, at most their expected difference) and at most twice that of a half. NaN: no cell row
  /// had two sampled rows. Says nothing about maxima: a sampled maximum is a lower bound.
  double misplacedMass = 0;
};
/// One token pair, exactly.
struct PairReadout {
  Index row = 0, key = 0;             ///< stored query row and key token, model order
  double probability = 0, logit = 0;  ///< logit = scale q.k
  bool valid = true;                  ///< false: padding or masked
};

/// The deep-zoom map of one head in one token order. Heavy members run on a job lane and take a Control; level geometry
/// is cheap. Thread-safe after build(): tiles of any level may be asked from several threads (CPU heads).
class AttentionMap {
 public:
  /// qOrder / kOrder: computed order (empty = model order).
  AttentionMap(HeadData head, std::vector<Index> qOrder = {}, std::vector<Index> kOrder = {});
  /// Q and K come when something needs their values, by `load`, on the thread that needs them. Enough for restore() and
  /// what follows from it. What comes must be what the outline says: Error{Format} where the file changed meanwhile.
  using LoadHead = std::function<HeadData(std::stop_token)>;
  AttentionMap(HeadOutline outline, LoadHead load, std::vector<Index> qOrder = {}, std::vector<Index> kOrder = {});
  ~AttentionMap();

  [[nodiscard]] Index rows() const noexcept;
  [[nodiscard]] Index cols() const noexcept;
  /// Made from an outline: the outline's, without values of Q and K, also after they came.
  [[nodiscard]] const HeadData& head() const noexcept;
  /// With Q and K, which are read if they are not here: not on a GUI thread before loaded().
  [[nodiscard]] std::shared_ptr<const HeadData> loadedHead(const Control& control);
  [[nodiscard]] bool loaded() const noexcept;  ///< loadedHead() reads nothing
  /// Position in computed order <-> stored query row / key token (model order).
  [[nodiscard]] Index queryRowAt(Index rowPosition) const noexcept;
  [[nodiscard]] Index keyAt(Index colPosition) const noexcept;
  [[nodiscard]] Index positionOfQueryRow(Index row) const noexcept;
  [[nodiscard]] Index positionOfKey(Index key) const noexcept;
  [[nodiscard]] std::span<const Index> qOrder() const noexcept;  ///< empty: model order
  [[nodiscard]] std::span<const Index> kOrder() const noexcept;
  /// Cells of a level: ceil(rows / 2^level), ceil(cols / 2^level); and its tiles.
  [[nodiscard]] Index cellRows(int level) const noexcept;
  [[nodiscard]] Index cellCols(int level) const noexcept;
  [[nodiscard]] Index tileRows(int level) const noexcept;
  [[nodiscard]] Index tileCols(int level) const noexcept;
  /// Coarsest level: the whole map fits one tile.
  [[nodiscard]] int maxLevel() const noexcept;
  /// The level whose map has at most 512 cells a side; built by preview() and build(); coarser ones derive from it.
  [[nodiscard]] int coarseLevel() const noexcept;

  /// Coarse map from random rows of each cell row (0: one to four, by size; the draws depend on nothing but the cell
  /// row), exact in columns; all tiles >= coarseLevel become available as approximate.
  void preview(Backend& backend, const Control& control, Index rowsPerCell = 0);
  /// Of the preview that coarseTile() gives; nullopt before it and once the exact map is there.
  [[nodiscard]] std::optional<PreviewInfo> previewInfo() const;
  /// Exact LSE and coarse map, one streaming pass.
  void build(Backend& backend, const Control& control);
  /// Where exact maps are kept over sessions; nullptr: nowhere. Before any other call.
  void setCache(std::shared_ptr<MapCache> cache);
  /// Takes LSE and coarse map from the cache, if it has them: true, and the map is exact. Reads the head's tensors once
  /// (their hash is the key; an outline has it) and one small file; no backend.
  bool restore(const Control& control);
  /// Writes what build() found to the cache, once; cheap to call again. Not on a GUI thread.
  void remember();
  [[nodiscard]] bool unsaved() const noexcept;                   ///< remember() would write something
  [[nodiscard]] bool fromCache() const noexcept;                 ///< exact() is thanks to restore()
  [[nodiscard]] bool exact() const noexcept;                     ///< build() has run: LSE and coarse levels are final
  [[nodiscard]] std::span<const float> rowLse() const noexcept;  ///< computed order; empty before build()

  /// A tile of level >= coarseLevel from memory, else computed from LSE. nullptr if nothing can be shown yet.
  [[nodiscard]] std::shared_ptr<const Tile> coarseTile(const TileKey& key) const;  ///< never computes
  /// Exact tile of any level. Before build() the LSE of just its rows is computed (and kept); levels >= coarseLevel
  /// build. Throws Error{InvalidArgument} for a tile outside the map.
  [[nodiscard]] std::shared_ptr<const Tile> computeTile(const TileKey& key, Backend& backend, const Control& control);
  /// Position in computed order -> exact values. Needs the row's LSE: computed alone when build() has not run.
  [[nodiscard]] PairReadout readout(Index rowPosition, Index colPosition, Backend& backend, const Control& control);
  /// The same without a backend, in microseconds; nullopt while the row's LSE is unknown or Q and K are not here.
  [[nodiscard]] std::optional<PairReadout> readoutIfKnown(Index rowPosition, Index colPosition) const;
  /// Memory that this object holds or keeps alive: head, reordered copies, prepared heads, levels, LSE.
  [[nodiscard]] Index bytes() const noexcept;
  /// Drops what can be made again quickly (prepared heads, reordered copies, Q and K that `load` brings again); levels
  /// and LSE stay. Giving tens of
  /// megabytes back takes milliseconds: they go with the returned object (nullptr: there was nothing), which a GUI
  /// hands to a job.
  std::shared_ptr<const void> trim();

 private:
  struct Impl;
  std::unique_ptr<Impl> m_impl;
};

/// A head's map with what `cache` (or nullptr) has of it: where the cache has all, Q and K are not read before they are
/// needed. Errors as Trace::loadScores().
[[nodiscard]] std::shared_ptr<AttentionMap> openMap(std::shared_ptr<const Trace> trace, const HeadId& id,
                                                    std::vector<Index> qOrder, std::vector<Index> kOrder,
                                                    std::shared_ptr<MapCache> cache, const Control& control);

/// Any region at any cell size in one streaming pass: what `sparsight-cli map` writes. float32 [cellRows, cellCols];
/// NaN: no valid pair. Positions are in computed order (empty orders: model order). Throws Error{InvalidArgument} for a
/// region outside the map or more than 2^28 cells.
/// With a cache, a row LSE that this backend once computed for the head saves all keys outside the region, and a region
/// that covers all rows leaves its LSE there. `usedCache`: whether that was so.
[[nodiscard]] std::vector<float> mapRegion(const HeadData& head, const TileRect& rect, Reduce reduce,
                                           std::span<const Index> qOrder, std::span<const Index> kOrder,
                                           Backend& backend, const Control& control, MapCache* cache = nullptr,
                                           bool* usedCache = nullptr);

/// What a map file says about itself, beside the cells.
struct MapFileInfo {
  HeadId head;
  TileRect rect;
  Reduce reduce = Reduce::Max;
  std::string order = "model";  ///< "model" or the plan file's name
  std::string traceUuid, tracePath, program;
  bool cachedLse = false;  ///< the rows' LSE came from the disk cache
};
/// NumPy format 1.0, float32 little-endian [H, W]. Written atomically.
void writeMapNpy(const std::filesystem::path& out, std::span<const float> cells, Index cellRows, Index cellCols);
/// HDF5: dataset `map` float32 [H, W], everything of `info` as root attributes, format "sparsight-map". Atomic.
void writeMapHdf5(const std::filesystem::path& out, std::span<const float> cells, const MapFileInfo& info);

}  // namespace sparsight

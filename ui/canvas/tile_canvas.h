// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QColor>
#include <QElapsedTimer>
#include <QFont>
#include <QHash>
#include <QPointF>
#include <QPointer>
#include <QStaticText>
#include <QTimer>
#include <QWidget>
#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "sparsight/core/attention_map.h"
#include "sparsight/core/job.h"
#include "sparsight/core/tile_scheduler.h"
#include "ui/canvas/axis.h"
#include "ui/canvas/color_bar.h"
#include "ui/canvas/map_surface.h"
#include "ui/canvas/plan_overlay.h"

namespace sparsight {

/// The visible part of a map, in tokens of its order.
struct MapViewport {
  double row0 = 0, col0 = 0, rows = 0, cols = 0;
  friend bool operator==(const MapViewport&, const MapViewport&) = default;
};

/// A quantity per query row, drawn beside the map: what a method keeps, what mass it loses.
struct RowStrip {
  QString label;        ///< short: "kept", "lost"
  QString description;  ///< tooltip
  QColor color;
  std::vector<float> values;  ///< [rows] in the map's order; NaN: unknown
};

/// One token pair under the cursor or picked.
struct CanvasReadout {
  Index row = -1, col = -1;  ///< positions in the map's order; -1: none
  bool exact = false, valid = true;
  std::optional<double> probability, logit;
  std::optional<bool> kept;
};

/// Short texts laid out once in one font: frames repeat most of the last one's, and laying out costs more than
/// painting.
class LaidOut {
 public:
  const QStaticText& of(const QString& text, const QFont& font) {
    constexpr qsizetype kKept = 8192;
    if (m_font != font || m_texts.size() > kKept) m_texts.clear();
    m_font = font;
    auto found = m_texts.find(text);
    if (found == m_texts.end()) {
      found = m_texts.insert(text, QStaticText(text));
      found->setTextFormat(Qt::PlainText);
      found->prepare(QTransform(), font);
    }
    return *found;
  }

 private:
  QFont m_font;
  QHash<QString, QStaticText> m_texts;
};

/// Pan and zoom over an AttentionMap of any size: tiles on demand, coarser ones in their place until they come, with
/// axes, minimap, colour bar, row strips and readout. Row = query (down), column = key (right), origin top left. GUI
/// thread only; all computing is done by jobs.
class TileCanvas : public QWidget, private SceneSource {
  Q_OBJECT
 public:
  explicit TileCanvas(JobQueue& jobs, QWidget* parent = nullptr, std::optional<Renderer> renderer = std::nullopt);
  ~TileCanvas() override;

  /// Shows a map (computing what it lacks), or nothing. keepView: same place in the new map where the sizes agree.
  void setMap(std::shared_ptr<AttentionMap> map, AxisSpec queries = {}, AxisSpec keys = {}, bool keepView = true);
  [[nodiscard]] const std::shared_ptr<AttentionMap>& map() const noexcept { return m_map; }
  /// Shown instead of a map: what would be here and why it is not.
  void setMessage(const QString& title, const QString& text = {});
  void setOverlay(std::shared_ptr<const PlanOverlay> overlay);
  void setStrips(std::vector<RowStrip> strips);
  void setColors(const ColorSettings& colors);
  [[nodiscard]] const ColorSettings& colors() const noexcept { return m_colors; }
  void setReduce(Reduce reduce);
  [[nodiscard]] Reduce reduce() const noexcept { return m_reduce; }
  void setMinimapShown(bool shown);
  [[nodiscard]] bool minimapShown() const noexcept { return m_minimap; }
  void setGridShown(bool shown);
  [[nodiscard]] bool gridShown() const noexcept { return m_grid; }
  void setAspectLocked(bool locked);
  [[nodiscard]] bool aspectLocked() const noexcept { return m_aspect; }
  /// For several maps side by side: no scale and no readout line of its own, axes only as wide as their labels. The
  /// colour bar may then be placed elsewhere (colorBar()).
  void setCompact(bool compact);
  /// Takes levels and tiles of the same map from another canvas instead of computing them again. Both must have the
  /// same size and viewport, and the source gets its map first. nullptr: on its own.
  void setTileSource(TileCanvas* source);
  /// Memory for tiles: values, codes and kept shares, and their coloured pictures or textures.
  void setTileLimit(Index bytes);
  [[nodiscard]] Index tileBytes() const noexcept { return m_cacheBytes; }
  [[nodiscard]] Index tileLimit() const noexcept { return m_tileLimit; }
  [[nodiscard]] QString rendererDescription() const { return m_surface->description(); }

  [[nodiscard]] const MapViewport& viewport() const noexcept { return m_view; }
  /// Clamped to the map and to the deepest zoom. `remember`: an entry of the zoom history.
  void setViewport(MapViewport viewport, bool remember = false);
  void fitAll();
  void zoomBack();
  void zoomForward();
  /// Limits from the values of the whole map: 2nd to 99.8th percentile, rounded outwards to half decades.
  void fitRange();
  void resetRange();
  /// Switches the scale and fits the range to it.
  void setScale(ValueScale scale);

  /// Picks a pair by position and scrolls it into view.
  void setPicked(Index row, Index col);
  [[nodiscard]] const CanvasReadout& readout() const noexcept { return m_readout; }
  [[nodiscard]] QString readoutText() const;
  /// Level whose cells are painted when all tiles are there.
  [[nodiscard]] int targetLevel() const;
  /// True when what is painted is final and no job of this canvas is under way.
  [[nodiscard]] bool isSettled() const;
  [[nodiscard]] bool isApproximate() const;
  [[nodiscard]] bool hasPicture() const noexcept { return m_levels != nullptr; }  ///< of the whole map
  /// "exact", or "approximate" with the share of the mass that may lie in other cells.
  [[nodiscard]] QString precisionText() const;
  /// Where the map is painted, in this widget; and the token position under a point of it.
  [[nodiscard]] QRect plotRect() const noexcept { return m_plot; }
  [[nodiscard]] QPointF tokenAt(const QPointF& widgetPosition) const;
  [[nodiscard]] QRectF cellRect(Index row, Index col) const;  ///< of one token pair, in widget coordinates
  [[nodiscard]] const MapScene& currentScene();
  [[nodiscard]] ColorBar& colorBar() noexcept { return *m_bar; }
  [[nodiscard]] QRect minimapRect() const;  ///< in the plot; empty when not shown

 Q_SIGNALS:
  void picked(sparsight::Index row, sparsight::Index col);  ///< by the user, positions in the map's order
  void colorsChanged();
  void reduceChanged();
  void optionsChanged();                            ///< minimap, grid, aspect, viewport
  void navigate(int steps, int layers, int heads);  ///< keys that move the shared selection
  void readoutChanged(const QString& text);
  void levelsChanged();  ///< the whole map is there, approximate first, then exact
  void tilesChanged();   ///< finer tiles arrived, or the map cannot be computed
  void settled();

 protected:
  void paintEvent(QPaintEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;
  void changeEvent(QEvent* event) override;
  bool event(QEvent* event) override;
  void wheelEvent(QWheelEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mouseReleaseEvent(QMouseEvent* event) override;
  void mouseDoubleClickEvent(QMouseEvent* event) override;
  void leaveEvent(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  /// The levels kept in memory by the map, coded for painting.
  struct CodedLevels {
    bool approximate = true;
    std::optional<PreviewInfo> preview;
    std::map<TileKey, std::shared_ptr<const MapTile>> tiles;
    std::shared_ptr<const CodeHistogram> histogram[2];  // by Reduce
  };
  struct KnownMap {
    std::weak_ptr<AttentionMap> map;
    std::uint64_t serial = 0;
    std::shared_ptr<const CodedLevels> levels;
  };
  struct CacheKey {
    std::uint64_t serial = 0;  // map, or overlay for kept shares
    TileKey tile;
    bool mask = false;
    auto operator<=>(const CacheKey&) const = default;
  };
  struct CacheEntry {
    std::shared_ptr<const MapTile> tile;
    std::shared_ptr<const KeptMask> mask;
    Index bytes = 0;
    std::list<CacheKey>::iterator use;
  };
  enum class Drag : std::uint8_t { None, Pan, Box, Pick, Minimap };

  // SceneSource
  [[nodiscard]] MapScene scene(const QSize& devicePixels) override;
  void paintDecorations(QPainter& painter, const QSize& size) override;

  // Jobs and cache.
  void startMap();
  void startPreview();
  void startBuild();
  [[nodiscard]] bool following() const { return m_source && m_source->m_map == m_map; }
  void takeFromSource();
  static std::shared_ptr<const CodedLevels> codeLevels(const AttentionMap& map, const Control& control);
  void receiveLevels(const std::shared_ptr<AttentionMap>& map, std::shared_ptr<const CodedLevels> levels);
  void showError(const QString& text);
  /// Asks for the tiles that the scheduler wants now and stops those it does not want any more.
  void scheduleTiles();
  void rememberMap();
  void requestTile(const TileKey& key, int priority);
  void requestMask(const std::shared_ptr<const MapTile>& tile, int priority);
  void store(const CacheKey& key, CacheEntry entry);
  [[nodiscard]] std::shared_ptr<const MapTile> findTile(const TileKey& key);
  [[nodiscard]] bool hasTile(const TileKey& key) const;  ///< does not count as use
  [[nodiscard]] std::shared_ptr<const KeptMask> findMask(const TileKey& key);
  void invalidateScene();
  void rebuildScene(const QSize& devicePixels);
  void checkSettled();
  void updateLut();
  void updateBar();

  // Geometry.
  void layoutParts();
  [[nodiscard]] QSize surfacePixels() const;
  [[nodiscard]] MapViewport clamped(MapViewport viewport) const;
  void zoomAt(const QPointF& widgetPosition, double factorX, double factorY);
  void pushHistory(bool merge);
  [[nodiscard]] MapViewport bandViewport(Index row, Index col) const;

  // Readout.
  void hoverAt(const QPointF& widgetPosition);
  void updateReadout(Index row, Index col);
  void requestReadout();
  void pickAt(const QPointF& widgetPosition);
  void movePicked(Index rows, Index cols);

  // Painting.
  void paintAxes(QPainter& painter);
  void paintStrips(QPainter& painter);
  void paintReadout(QPainter& painter);
  void paintLines(QPainter& painter);
  void paintNumbers(QPainter& painter);
  void paintPicked(QPainter& painter);
  void paintMinimap(QPainter& painter);
  void paintBadge(QPainter& painter);
  [[nodiscard]] std::vector<std::pair<QString, bool>> readoutPieces() const;

  JobQueue& m_jobs;
  std::string m_tag;
  std::unique_ptr<MapSurface> m_surface;  // its widget is a child
  ColorBar* m_bar = nullptr;
  QPointer<TileCanvas> m_source;
  bool m_compact = false;

  std::shared_ptr<AttentionMap> m_map;
  std::list<KnownMap> m_known;  // most recent first
  std::uint64_t m_serial = 0, m_nextSerial = 1;
  std::shared_ptr<const CodedLevels> m_levels;
  AxisSpec m_queries, m_keys;
  QString m_messageTitle, m_message, m_error;
  std::shared_ptr<const PlanOverlay> m_overlay;
  std::uint64_t m_overlaySerial = 0;
  std::vector<RowStrip> m_strips;
  ColorSettings m_colors;
  std::shared_ptr<const ColorLut> m_lut;
  bool m_lutDark = false;
  Reduce m_reduce = Reduce::Max;
  bool m_minimap = true, m_grid = true, m_aspect = true;

  std::map<CacheKey, CacheEntry> m_cache;
  std::list<CacheKey> m_uses;
  Index m_cacheBytes = 0, m_tileLimit = 0;
  TileScheduler m_scheduler;
  TileView m_wanted;  // of the last scene
  QTimer m_wakeTimer;
  std::map<TileKey, JobHandle> m_pendingTiles, m_pendingMasks;
  JobHandle m_previewJob, m_buildJob, m_readoutJob;
  std::uint64_t m_start = 0;  // of the shown map: what jobs of an earlier one bring is dropped
  bool m_building = false, m_previewing = false, m_readoutPending = false;
  std::shared_ptr<std::atomic<float>> m_progress;
  QTimer m_progressTimer, m_sceneTimer, m_restTimer;
  MapScene m_scene;
  std::uint64_t m_sceneVersion = 0;
  bool m_sceneDirty = true, m_missing = false;
  bool m_wasSettled = false;

  MapViewport m_view;
  std::vector<MapViewport> m_back, m_forward;
  QElapsedTimer m_historyClock;
  QRect m_plot;
  int m_axisLeft = 0, m_axisTop = 0;
  QRect m_stripArea;
  double m_wheelRest = 0;

  Drag m_drag = Drag::None;
  bool m_moved = false;
  QPointF m_pressed, m_last;
  MapViewport m_dragStart;
  CanvasReadout m_readout;
  Index m_pickedRow = -1, m_pickedCol = -1;
  LaidOut m_numbers, m_labels;
  std::vector<std::uint8_t> m_ink;  // by value code: 1 dark, 2 light, 0 not looked at yet
  std::uint64_t m_inkVersion = 0;   // of the colour table
  QImage m_minimapImage;
  std::tuple<const void*, std::uint64_t, Reduce, QSize> m_minimapKey;
};

}  // namespace sparsight

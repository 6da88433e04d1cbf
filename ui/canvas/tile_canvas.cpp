// SPDX-License-Identifier: Apache-2.0
#include "ui/canvas/tile_canvas.h"

#include <QEvent>
#include <QPointer>
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr double kMaxCellPixels = 96.0;  // deepest zoom
constexpr double kPreviewFlops = 4e9;    // below: the exact pass is as quick as a preview
constexpr double kComputeFlops = 1e11;   // above: the exact pass must not block the interactive lane
constexpr double kListedFlops = 1e12;    // above: the exact pass is listed among the jobs
constexpr double kViewFlops = 3e11;      // finer tiles are computed for views up to this many operations
constexpr std::size_t kKnownMaps = 12;
constexpr std::size_t kHistory = 100;
constexpr int kRestMs = 30;  // the mouse rests: exact readout (at most 50 ms)
constexpr Index kDefaultTileLimit = Index{256} << 20;
constexpr int kQuietMs = 250;  // how often to look whether other work is over

std::uint64_t nextCanvas() {
  static std::uint64_t counter = 0;
  return ++counter;
}
std::size_t at(Index i) { return static_cast<std::size_t>(i); }

}  // namespace

TileCanvas::TileCanvas(JobQueue& jobs, QWidget* parent, std::optional<Renderer> renderer)
    : QWidget(parent), m_jobs(jobs), m_tag("canvas" + std::to_string(nextCanvas())) {
  setMouseTracking(true);
  setAttribute(Qt::WA_OpaquePaintEvent);
  setFocusPolicy(Qt::StrongFocus);
  setMinimumSize(200, 150);
  setAccessibleName(tr("Attention map"));
  m_surface = createMapSurface(renderer.value_or(chosenRenderer()), *this, this);
  m_surface->widget()->hide();
  m_bar = new ColorBar(this);
  m_bar->hide();
  connect(m_bar, &ColorBar::rangeDragged, this, [this](double minimum, double maximum) {
    ColorSettings colors = m_colors;
    colors.range.minimum = minimum;
    colors.range.maximum = maximum;
    setColors(colors);
  });
  connect(m_bar, &ColorBar::resetRequested, this, &TileCanvas::resetRange);
  m_sceneTimer.setSingleShot(true);
  connect(&m_sceneTimer, &QTimer::timeout, this, [this] {
    if (m_sceneDirty) rebuildScene(surfacePixels());
    checkSettled();
  });
  m_restTimer.setSingleShot(true);
  m_restTimer.setInterval(kRestMs);
  connect(&m_restTimer, &QTimer::timeout, this, &TileCanvas::requestReadout);
  m_wakeTimer.setSingleShot(true);
  connect(&m_wakeTimer, &QTimer::timeout, this, &TileCanvas::scheduleTiles);
  setTileLimit(kDefaultTileLimit);
  m_progressTimer.setInterval(100);
  connect(&m_progressTimer, &QTimer::timeout, this, [this] { m_surface->widget()->update(); });
  m_colors.palette = defaultPalette(Theme::current().dark);
  updateLut();
}

TileCanvas::~TileCanvas() = default;

// ---------------------------------------------------------------- what is shown

void TileCanvas::setMap(std::shared_ptr<AttentionMap> map, AxisSpec queries, AxisSpec keys, bool keepView) {
  m_queries = std::move(queries);
  m_keys = std::move(keys);
  m_error.clear();
  if (map == m_map) {
    layoutParts();
    update();
    return;
  }
  const bool sameSize = m_map && map && m_map->rows() == map->rows() && m_map->cols() == map->cols();
  m_pendingTiles.clear();
  m_scheduler.reset();
  m_pendingMasks.clear();
  m_previewJob.cancel();
  m_buildJob.cancel();
  m_readoutJob.cancel();
  m_restTimer.stop();
  m_building = m_previewing = m_readoutPending = false;
  ++m_start;
  m_overlay.reset();
  m_strips.clear();
  m_levels.reset();
  m_map = std::move(map);
  m_readout = {};
  m_pickedRow = m_pickedCol = -1;
  m_drag = Drag::None;
  if (!m_map) {
    m_surface->widget()->hide();
    if (!m_compact) m_bar->hide();
    m_serial = 0;
    invalidateScene();
    update();
    return;
  }
  if (!sameSize || !keepView) {
    m_back.clear();
    m_forward.clear();
    m_view = {0, 0, static_cast<double>(m_map->rows()), static_cast<double>(m_map->cols())};
  }
  m_surface->widget()->show();
  if (!m_compact) m_bar->show();
  startMap();
  layoutParts();
  updateBar();
  invalidateScene();
  update();
}

void TileCanvas::setMessage(const QString& title, const QString& text) {
  m_messageTitle = title;
  m_message = text;
  update();
}

void TileCanvas::setOverlay(std::shared_ptr<const PlanOverlay> overlay) {
  if (overlay == m_overlay) return;
  m_overlay = std::move(overlay);
  m_overlaySerial = m_overlay ? m_nextSerial++ : 0;
  m_pendingMasks.clear();
  if (m_readout.row >= 0) updateReadout(m_readout.row, m_readout.col);
  invalidateScene();
  update();
}

void TileCanvas::setStrips(std::vector<RowStrip> strips) {
  m_strips = std::move(strips);
  layoutParts();
  update();
}

void TileCanvas::setColors(const ColorSettings& colors) {
  if (colors == m_colors) return;
  m_colors = colors;
  updateLut();
  Q_EMIT colorsChanged();
}

void TileCanvas::setReduce(Reduce reduce) {
  if (reduce == m_reduce) return;
  m_reduce = reduce;
  m_pendingMasks.clear();
  updateBar();
  invalidateScene();
  update();
  Q_EMIT reduceChanged();
}

void TileCanvas::setMinimapShown(bool shown) {
  if (shown == m_minimap) return;
  m_minimap = shown;
  m_surface->widget()->update();
  Q_EMIT optionsChanged();
}

void TileCanvas::setGridShown(bool shown) {
  if (shown == m_grid) return;
  m_grid = shown;
  m_surface->widget()->update();
  Q_EMIT optionsChanged();
}

void TileCanvas::setAspectLocked(bool locked) {
  if (locked == m_aspect) return;
  m_aspect = locked;
  layoutParts();
  if (m_map) setViewport(m_view);
  update();
  Q_EMIT optionsChanged();
}

void TileCanvas::setCompact(bool compact) {
  if (compact == m_compact) return;
  m_compact = compact;
  m_bar->setVisible(!compact && m_map != nullptr);
  layoutParts();
  update();
}

void TileCanvas::setTileSource(TileCanvas* source) {
  if (source == m_source) return;
  if (m_source) disconnect(m_source, nullptr, this, nullptr);
  m_source = source;
  if (source == nullptr) return;
  connect(source, &TileCanvas::levelsChanged, this, &TileCanvas::takeFromSource);
  connect(source, &TileCanvas::tilesChanged, this, &TileCanvas::takeFromSource);
}

void TileCanvas::takeFromSource() {
  if (!following()) return;
  if (!m_source->m_error.isEmpty()) showError(m_source->m_error);
  if (m_source->m_levels && m_source->m_levels != m_levels) receiveLevels(m_map, m_source->m_levels);
  invalidateScene();
  checkSettled();
}

void TileCanvas::setTileLimit(Index bytes) {
  m_tileLimit = std::max(bytes, Index{32} << 20);
  // A tile is counted with its coloured picture, whether it was painted yet or not: four of ten bytes.
  m_surface->setCacheLimit(m_tileLimit / 5 * 2);
}

void TileCanvas::updateLut() {
  m_lutDark = Theme::current().dark;
  m_lut = ColorLut::shared(m_colors, Theme::current());
  m_bar->setLut(m_lut);
  updateBar();
  invalidateScene();
}

void TileCanvas::updateBar() {
  if (m_compact && m_source) return;  // the source's is shown
  const QString scale =
      m_colors.range.scale == ValueScale::Log ? QStringLiteral("p (log\u2081\u2080)") : tr("p (linear)");
  QString pooling;
  if (m_map) {
    const Index cell = Index{1} << targetLevel();
    pooling = cell == 1
                  ? tr("every pair")
                  : (m_reduce == Reduce::Max ? tr("max-pooled %1\u00d7%1") : tr("mean-pooled %1\u00d7%1")).arg(cell);
  }
  m_bar->setTitle(scale, pooling);
  m_bar->setHistogram(m_levels ? m_levels->histogram[m_reduce == Reduce::Max ? 1 : 0] : nullptr);
}

// ---------------------------------------------------------------- jobs

std::shared_ptr<const TileCanvas::CodedLevels> TileCanvas::codeLevels(const AttentionMap& map, const Control& control) {
  auto out = std::make_shared<CodedLevels>();
  out->preview = map.previewInfo();
  for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
    auto histogram = std::make_shared<CodeHistogram>(at(kValueCodes), 0U);
    for (int z = map.coarseLevel(); z <= map.maxLevel(); ++z) {
      for (Index y = 0; y < map.tileRows(z); ++y) {
        for (Index x = 0; x < map.tileCols(z); ++x) {
          control.checkpoint();
          const TileKey key{z, x, y, reduce};
          const auto tile = map.coarseTile(key);
          if (!tile) continue;
          auto coded = makeMapTile(*tile);
          out->approximate = coded->approximate;
          if (z == map.coarseLevel()) {
            for (const ValueCode code : coded->codes) ++(*histogram)[code];
          }
          out->tiles.emplace(key, std::move(coded));
        }
      }
    }
    out->histogram[reduce == Reduce::Max ? 1 : 0] = std::move(histogram);
  }
  return out;
}

namespace {
double flopsOf(const AttentionMap& map) {
  return 2.0 * static_cast<double>(map.rows()) * static_cast<double>(map.cols()) *
         static_cast<double>(map.head().input.q.cols);
}
}  // namespace

void TileCanvas::startMap() {
  if (following()) {
    m_serial = 0;
    m_levels = m_source->m_levels;
    return;
  }
  m_known.remove_if([](const KnownMap& known) { return known.map.expired(); });
  const auto found =
      std::find_if(m_known.begin(), m_known.end(), [&](const KnownMap& known) { return known.map.lock() == m_map; });
  if (found != m_known.end()) {
    m_known.splice(m_known.begin(), m_known, found);
  } else {
    m_known.push_front({m_map, m_nextSerial++, nullptr});
    if (m_known.size() > kKnownMaps) m_known.pop_back();
  }
  m_serial = m_known.front().serial;
  m_levels = m_known.front().levels;
  if (m_levels && !m_levels->approximate) return;

  m_building = true;
  if (!m_map->exact() && flopsOf(*m_map) > kPreviewFlops && !m_levels)
    startPreview();
  else
    startBuild();
}

void TileCanvas::startPreview() {
  m_previewing = true;
  JobSpec spec;
  spec.name = "Attention map: preview";
  spec.lane = Lane::Tiles;
  spec.supersedeTag = m_tag + "/preview";
  spec.priority = 900;
  using Levels = std::shared_ptr<const CodedLevels>;
  const QPointer<TileCanvas> self(this);
  m_previewJob = m_jobs.submit<Levels>(
      spec,
      [map = m_map](JobContext& context) {
        // Made while the program had nothing else to do: only to be coded.
        if (!map->previewInfo()) map->preview(context.backend(), context.control());
        return codeLevels(*map, context.control());
      },
      [self, map = m_map, start = m_start](Outcome<Levels> outcome) {
        if (!self || self->m_start != start) return;
        self->m_previewing = false;
        if (std::holds_alternative<Cancelled>(outcome)) {
          self->m_building = false;
          return self->checkSettled();
        }
        if (const auto* levels = std::get_if<Levels>(&outcome)) self->receiveLevels(map, *levels);
        // After the preview, which would wait for a core and the head's memory beside it: some hundredths of the time.
        // Its errors are the exact pass' too, which reports them.
        self->startBuild();
      });
}

void TileCanvas::startBuild() {
  const QPointer<TileCanvas> self(this);
  const auto map = m_map;
  const bool ready = map->exact();  // from the disk or made ahead of need: only to be coded
  m_progress = std::make_shared<std::atomic<float>>(0.0F);
  m_progressTimer.start();
  JobSpec spec;
  spec.name = "Attention map: layer " + std::to_string(map->head().id.call.layer) + " head " +
              std::to_string(map->head().id.head) + " step " + std::to_string(map->head().id.call.step);
  spec.lane = !ready && flopsOf(*map) > kComputeFlops ? Lane::Compute : Lane::Tiles;
  spec.supersedeTag = m_tag + "/build";
  spec.priority = ready ? 950 : 800;
  spec.userVisible = !ready && flopsOf(*map) > kListedFlops;
  using Levels = std::shared_ptr<const CodedLevels>;
  m_buildJob = m_jobs.submit<Levels>(
      spec,
      [map, progress = m_progress](JobContext& context) {
        Control control = context.control();
        control.progress = [progress, report = control.progress](double fraction) {
          progress->store(static_cast<float>(fraction));
          if (report) report(fraction);
        };
        map->build(context.backend(), control);
        return codeLevels(*map, control);
      },
      [self, map, start = m_start](Outcome<Levels> outcome) {
        if (!self || self->m_start != start) return;
        self->m_building = false;
        self->m_progressTimer.stop();
        if (const auto* levels = std::get_if<Levels>(&outcome)) {
          self->receiveLevels(map, *levels);
          self->rememberMap();
        } else if (const auto* error = std::get_if<Error>(&outcome)) {
          self->showError(QString::fromUtf8(error->what()));
        }
        self->checkSettled();
      });
}

/// For the next session, when nothing more urgent is to be read or written.
void TileCanvas::rememberMap() {
  if (!m_map->unsaved()) return;
  JobSpec spec;
  spec.name = "Remember the map";
  spec.lane = Lane::Io;
  spec.priority = -50;
  m_jobs
      .submit<bool>(
          spec,
          [map = m_map](JobContext&) {
            map->remember();
            return true;
          },
          [](const Outcome<bool>&) {})
      .release();
}

void TileCanvas::receiveLevels(const std::shared_ptr<AttentionMap>& map, std::shared_ptr<const CodedLevels> levels) {
  if (m_levels && !m_levels->approximate && levels->approximate) return;
  for (KnownMap& known : m_known) {
    if (known.map.lock() == map) known.levels = levels;
  }
  m_levels = std::move(levels);
  m_pendingMasks.clear();
  updateBar();
  if (m_readout.row >= 0) updateReadout(m_readout.row, m_readout.col);
  invalidateScene();
  update();  // "approximate" becomes "exact"
  Q_EMIT levelsChanged();
}

void TileCanvas::showError(const QString& text) {
  m_error = text;
  m_surface->widget()->update();
  update();
  Q_EMIT tilesChanged();
}

void TileCanvas::requestTile(const TileKey& key, int priority) {
  const QPointer<TileCanvas> self(this);
  const auto map = m_map;
  const std::uint64_t serial = m_serial;
  JobSpec spec;
  spec.name = "Map tile";
  spec.lane = Lane::Tiles;
  spec.supersedeTag = m_tag + "/tile/" + std::to_string(key.level) + "/" + std::to_string(key.tileX) + "/" +
                      std::to_string(key.tileY) + (key.reduce == Reduce::Max ? "/max" : "/mean");
  spec.priority = priority;
  using Result = std::shared_ptr<const MapTile>;
  m_pendingTiles[key] = m_jobs.submit<Result>(
      spec,
      [map, key](JobContext& context) {
        return makeMapTile(*map->computeTile(key, context.backend(), context.control()));
      },
      [self, map, key, serial](Outcome<Result> outcome) {
        // Whoever cancelled a request has forgotten it already, and may have made a new one for the same tile.
        if (!self || std::holds_alternative<Cancelled>(outcome)) return;
        if (self->m_map == map) {
          self->m_pendingTiles.erase(key);
          self->m_scheduler.ended(key);
        }
        if (const auto* tile = std::get_if<Result>(&outcome)) {
          CacheEntry entry;
          entry.tile = *tile;
          entry.bytes = (*tile)->bytes() + static_cast<Index>((*tile)->codes.size() * sizeof(QRgb));
          self->store({serial, key, false}, std::move(entry));
          if (self->m_map != map) return;
          if (self->m_readout.row >= 0 && !self->m_readout.exact) {
            self->updateReadout(self->m_readout.row, self->m_readout.col);
          }
          const TileView& view = self->m_wanted;
          const TileSpan x = touchedTiles(view.col0, view.cols, view.level, map->tileCols(view.level));
          const TileSpan y = touchedTiles(view.row0, view.rows, view.level, map->tileRows(view.level));
          const bool seen = key.level == view.level && key.reduce == view.reduce && key.tileX >= x.first &&
                            key.tileX <= x.last && key.tileY >= y.first && key.tileY <= y.last;
          if (seen) {
            self->invalidateScene();
            Q_EMIT self->tilesChanged();
          } else {
            self->scheduleTiles();  // made ahead of need: nothing to paint
          }
        } else if (const auto* error = std::get_if<Error>(&outcome)) {
          if (self->m_map == map) self->showError(QString::fromUtf8(error->what()));
        }
        self->checkSettled();
      });
}

void TileCanvas::requestMask(const std::shared_ptr<const MapTile>& tile, int priority) {
  const QPointer<TileCanvas> self(this);
  const auto overlay = m_overlay;
  const std::uint64_t serial = m_overlaySerial;
  const TileKey key = tile->key;
  JobSpec spec;
  spec.name = "Kept cells";
  spec.lane = Lane::Tiles;
  spec.priority = priority;
  using Result = std::shared_ptr<const KeptMask>;
  m_pendingMasks[key] = m_jobs.submit<Result>(
      spec,
      [overlay, tile](JobContext& context) {
        context.checkpoint();
        return std::make_shared<const KeptMask>(overlay->mask(tile->key, tile->cellRows, tile->cellCols, tile->values));
      },
      [self, serial, key](Outcome<Result> outcome) {
        if (!self || self->m_overlaySerial != serial || std::holds_alternative<Cancelled>(outcome)) return;
        self->m_pendingMasks.erase(key);
        if (const auto* mask = std::get_if<Result>(&outcome)) {
          CacheEntry entry;
          entry.mask = *mask;
          entry.bytes = static_cast<Index>((*mask)->size());
          self->store({serial, key, true}, std::move(entry));
          self->invalidateScene();
        }
        self->checkSettled();
      });
}

void TileCanvas::store(const CacheKey& key, CacheEntry entry) {
  const auto found = m_cache.find(key);
  if (found != m_cache.end()) {
    m_cacheBytes -= found->second.bytes;
    m_uses.erase(found->second.use);
    m_cache.erase(found);
  }
  m_uses.push_front(key);
  entry.use = m_uses.begin();
  m_cacheBytes += entry.bytes;
  m_cache.emplace(key, std::move(entry));
  while (m_cacheBytes > m_tileLimit && m_uses.size() > 1) {
    const auto oldest = m_cache.find(m_uses.back());
    m_cacheBytes -= oldest->second.bytes;
    m_cache.erase(oldest);
    m_uses.pop_back();
  }
}

std::shared_ptr<const MapTile> TileCanvas::findTile(const TileKey& key) {
  if (m_levels) {
    const auto level = m_levels->tiles.find(key);
    if (level != m_levels->tiles.end()) return level->second;
  }
  if (following()) return m_source->findTile(key);
  const auto found = m_cache.find({m_serial, key, false});
  if (found == m_cache.end()) return nullptr;
  m_uses.splice(m_uses.begin(), m_uses, found->second.use);
  return found->second.tile;
}

bool TileCanvas::hasTile(const TileKey& key) const {
  return (m_levels && m_levels->tiles.contains(key)) || m_cache.contains({m_serial, key, false});
}

std::shared_ptr<const KeptMask> TileCanvas::findMask(const TileKey& key) {
  const auto found = m_cache.find({m_overlaySerial, key, true});
  if (found == m_cache.end()) return nullptr;
  m_uses.splice(m_uses.begin(), m_uses, found->second.use);
  return found->second.mask;
}

// ---------------------------------------------------------------- scene

QSize TileCanvas::surfacePixels() const {
  const qreal ratio = devicePixelRatioF();
  return {qRound(m_plot.width() * ratio), qRound(m_plot.height() * ratio)};
}

int TileCanvas::targetLevel() const {
  if (!m_map || m_plot.isEmpty()) return 0;
  const QSize pixels = surfacePixels();
  const double scale = std::min(pixels.width() / m_view.cols, pixels.height() / m_view.rows);  // pixels per token
  int level = 0;
  while (level < m_map->maxLevel() && static_cast<double>(Index{1} << level) * scale < 0.999) ++level;
  if (level < m_map->coarseLevel()) {
    const double flops = 2.0 * m_view.rows * m_view.cols * static_cast<double>(m_map->head().input.q.cols);
    if (flops > kViewFlops) level = m_map->coarseLevel();
  }
  return level;
}

void TileCanvas::invalidateScene() {
  m_sceneDirty = true;
  m_surface->widget()->update();
  if (!m_sceneTimer.isActive()) m_sceneTimer.start(0);
}

MapScene TileCanvas::scene(const QSize& devicePixels) {
  if (m_sceneDirty || devicePixels != m_scene.pixels) rebuildScene(devicePixels);
  return m_scene;
}

const MapScene& TileCanvas::currentScene() {
  if (m_sceneDirty) rebuildScene(surfacePixels());
  return m_scene;
}

void TileCanvas::rebuildScene(const QSize& devicePixels) {
  m_sceneDirty = false;
  m_scene = {};
  m_scene.version = ++m_sceneVersion;
  m_scene.pixels = devicePixels;
  m_scene.lut = m_lut;
  m_scene.background = Theme::current().noData;
  m_missing = false;
  if (!m_map || devicePixels.isEmpty()) return;
  const AttentionIn& in = m_map->head().input;
  m_scene.hatch = m_levels && (!in.keyValid.empty() || !in.queryValid.empty() || !in.denseMask.empty());

  const double scaleX = devicePixels.width() / m_view.cols, scaleY = devicePixels.height() / m_view.rows;
  const int level = targetLevel();
  const Index side = Index{kTileCells} << level;
  const auto [x0, x1] = touchedTiles(m_view.col0, m_view.cols, level, m_map->tileCols(level));
  const auto [y0, y1] = touchedTiles(m_view.row0, m_view.rows, level, m_map->tileRows(level));

  std::vector<TileDraw> placeholders, final;
  // Whole pixels whose centre lies in [first, last) tokens.
  const auto pixelSpan = [](double first, double last, double origin, double scale) {
    return std::pair{static_cast<int>(std::ceil((first - origin) * scale - 0.5)),
                     static_cast<int>(std::ceil((last - origin) * scale - 0.5)) - 1};
  };
  const auto drawOf = [&](const std::shared_ptr<const MapTile>& tile, const QRect& pixels) {
    TileDraw draw;
    draw.tile = tile;
    draw.pixels = pixels;
    const double tokens = static_cast<double>(Index{1} << tile->key.level);
    draw.originX = (static_cast<double>(tile->key.tileX * kTileCells) * tokens - m_view.col0) * scaleX;
    draw.originY = (static_cast<double>(tile->key.tileY * kTileCells) * tokens - m_view.row0) * scaleY;
    draw.cellWidth = tokens * scaleX;
    draw.cellHeight = tokens * scaleY;
    if (m_overlay) {
      draw.kept = findMask(tile->key);
      if (!draw.kept && !m_pendingMasks.contains(tile->key)) requestMask(tile, 700);
    }
    return draw;
  };
  const bool gl = m_surface->description() != QLatin1String("raster");
  for (Index ty = y0; ty <= y1; ++ty) {
    for (Index tx = x0; tx <= x1; ++tx) {
      const TileKey key{level, tx, ty, m_reduce};
      const double col0 = static_cast<double>(tx * side), row0 = static_cast<double>(ty * side);
      const double col1 = std::min(static_cast<double>(m_map->cols()), col0 + static_cast<double>(side));
      const double row1 = std::min(static_cast<double>(m_map->rows()), row0 + static_cast<double>(side));
      const auto [left, right] = pixelSpan(col0, col1, m_view.col0, scaleX);
      const auto [top, bottom] = pixelSpan(row0, row1, m_view.row0, scaleY);
      const QRect pixels = QRect(QPoint(left, top), QPoint(right, bottom)) & QRect(QPoint(0, 0), devicePixels);
      if (pixels.isEmpty()) continue;
      const auto tile = findTile(key);
      if (!tile || gl) {
        // The nearest coarser tile stands in; with OpenGL also under tiles whose texture may not be uploaded yet.
        for (int z = level + 1; z <= m_map->maxLevel(); ++z) {
          const int up = z - level;
          if (const auto parent = findTile({z, tx >> up, ty >> up, m_reduce})) {
            placeholders.push_back(drawOf(parent, pixels));
            break;
          }
        }
      }
      if (tile) {
        final.push_back(drawOf(tile, pixels));
        continue;
      }
      m_missing = true;
    }
  }
  m_scene.draws = std::move(placeholders);
  m_scene.draws.insert(m_scene.draws.end(), std::make_move_iterator(final.begin()),
                       std::make_move_iterator(final.end()));

  m_wanted = {m_view.row0, m_view.col0, m_view.rows, m_view.cols, level, m_reduce};
  scheduleTiles();
}

void TileCanvas::scheduleTiles() {
  m_wakeTimer.stop();
  if (!m_map || following() || m_plot.isEmpty()) return;
  // Before the exact pass a fine tile needs the LSE of its rows alone: worth it for small tiles only.
  const bool affordable = m_map->exact() || m_wanted.level <= 2;
  const bool own = m_building || m_previewing || m_readoutPending || !m_pendingMasks.empty();
  const bool quiet = !own && m_map->exact() && isVisible() && (m_scheduler.inFlight() > 0 || m_jobs.idle());
  const auto now = std::chrono::duration_cast<TileScheduler::Time>(std::chrono::steady_clock::now().time_since_epoch());
  const TileScheduler::Step step = m_scheduler.plan(
      gridOf(*m_map), m_wanted, m_map->head().input.q.cols, [this](const TileKey& key) { return hasTile(key); },
      affordable, quiet, now);
  for (const TileKey& key : step.cancel) m_pendingTiles.erase(key);
  int rank = 0;
  for (const TileWish& wish : step.start) {
    requestTile(wish.key, wish.role == TileRole::Visible   ? std::max(100, 600 - rank++)
                          : wish.role == TileRole::Coarser ? 20
                                                           : 10);
  }
  if (step.wake) {
    m_wakeTimer.start(static_cast<int>(std::max<TileScheduler::Time::rep>(1, (*step.wake - now).count())));
  } else if (!quiet && isVisible() && !m_missing && m_wanted.level < m_map->coarseLevel()) {
    m_wakeTimer.start(kQuietMs);
  }
}

bool TileCanvas::isSettled() const {
  if (!m_map || !m_error.isEmpty()) return true;
  if (m_sceneDirty || m_missing || m_building || m_previewing || m_readoutPending || m_restTimer.isActive())
    return false;
  return m_levels && !m_levels->approximate && m_pendingMasks.empty();
}

bool TileCanvas::isApproximate() const { return m_map && (!m_levels || m_levels->approximate); }

QString TileCanvas::precisionText() const {
  if (!isApproximate()) return tr("exact");
  const double off = m_levels && m_levels->preview ? m_levels->preview->misplacedMass : std::nan("");
  return std::isnan(off) ? tr("approximate")
                         : tr("approximate, up to %1 of the mass misplaced").arg(formatPercent(off));
}

void TileCanvas::checkSettled() {
  const bool now = isSettled();
  if (now && !m_wasSettled) Q_EMIT settled();
  m_wasSettled = now;
}

// ---------------------------------------------------------------- geometry

void TileCanvas::layoutParts() {
  const QFontMetrics metrics(fonts::secondary());
  int widest = metrics.horizontalAdvance(QStringLiteral("f00"));
  for (std::size_t i = 0; i < m_queries.bands.size() && i < 512; ++i) {
    widest = std::max(widest, metrics.horizontalAdvance(m_queries.bands[i].label));
  }
  m_axisLeft = std::max(m_compact ? 28 : 56, widest + (m_compact ? 10 : 2 * Theme::kPad));
  m_axisTop = metrics.height() + Theme::kPad;
  const int readout = m_compact ? 0 : QFontMetrics(fonts::tabular()).height() + Theme::kPad;
  const int titleHeight = 2 * metrics.height() + 4;
  const int stripWidth = 34, stripGap = 8, stripLead = 16;
  const int strips = m_strips.empty() ? 0 : static_cast<int>(m_strips.size()) * (stripWidth + stripGap) + stripLead;
  const int barWidth =
      m_compact ? 0
                : std::max(m_bar->sizeHint().width(),
                           metrics.horizontalAdvance(QStringLiteral("mean-pooled 256\u00d7256")) + 2 * Theme::kPad);
  const int gap = m_compact ? Theme::kUnit : Theme::kGroupGap;
  const int stripFoot = m_strips.empty() ? 0 : metrics.height() + 4;

  const int top = m_compact ? m_axisTop : std::max(m_axisTop, titleHeight - 4);
  QRect room(m_axisLeft, top, width() - m_axisLeft - strips - gap - barWidth,
             height() - top - readout - Theme::kUnit - stripFoot);
  if (room.width() < 40 || room.height() < 40) room.setSize(room.size().expandedTo(QSize(40, 40)));
  QRect plot = room;
  if (m_aspect && m_map) {
    const double ratio = static_cast<double>(m_map->cols()) / static_cast<double>(m_map->rows());
    // Very oblong maps (a cross attention) fill the room instead of becoming a line.
    if (ratio > 0.2 && ratio < 5.0) {
      const int w = std::min(room.width(), static_cast<int>(room.height() * ratio));
      const int h = std::min(room.height(), static_cast<int>(w / ratio));
      // Centred as a whole: axis, map, strips and scale belong together.
      const int slackX = room.width() - w;
      plot = QRect(room.left() + slackX / 2, room.top(), w, h);
    }
  }
  const bool changed = plot != m_plot;
  m_plot = plot;
  m_surface->widget()->setGeometry(plot);
  m_stripArea = QRect(plot.right() + 1 + stripLead, plot.top(), std::max(0, strips - stripLead), plot.height());
  if (!m_compact) {
    const int barLeft = plot.right() + 1 + strips + gap;
    m_bar->setGeometry(barLeft, 0, std::min(barWidth, std::max(0, width() - barLeft)), height() - readout);
    m_bar->setBarExtent(plot.top() + 12, plot.bottom() - 6);
  }
  if (changed && m_map) {
    m_view = clamped(m_view);
    updateBar();
    invalidateScene();
  }
}

MapViewport TileCanvas::clamped(MapViewport v) const {
  if (!m_map) return v;
  const double rows = static_cast<double>(m_map->rows()), cols = static_cast<double>(m_map->cols());
  const auto positive = [](double x, double fallback) { return std::isfinite(x) && x > 0 ? x : fallback; };
  v.cols = std::clamp(positive(v.cols, cols), std::min(cols, std::max(1.0, m_plot.width() / kMaxCellPixels)), cols);
  v.rows = std::clamp(positive(v.rows, rows), std::min(rows, std::max(1.0, m_plot.height() / kMaxCellPixels)), rows);
  v.col0 = std::clamp(std::isfinite(v.col0) ? v.col0 : 0.0, 0.0, cols - v.cols);
  v.row0 = std::clamp(std::isfinite(v.row0) ? v.row0 : 0.0, 0.0, rows - v.rows);
  return v;
}

void TileCanvas::setViewport(MapViewport viewport, bool remember) {
  const MapViewport next = clamped(viewport);
  if (next == m_view) return;
  if (remember) pushHistory(false);
  m_view = next;
  updateBar();
  invalidateScene();
  // Axes, strips and readout; the map is the scene's, the scale stays.
  QRegion around(rect());
  around -= m_surface->widget()->geometry();
  if (m_bar->isVisible()) around -= m_bar->geometry();
  update(around);
  Q_EMIT optionsChanged();
}

void TileCanvas::pushHistory(bool merge) {
  // A burst of wheel notches is one step back.
  if (merge && m_historyClock.isValid() && m_historyClock.elapsed() < 600) {
    m_historyClock.restart();
    return;
  }
  m_historyClock.restart();
  if (!merge) m_historyClock.invalidate();
  m_back.push_back(m_view);
  if (m_back.size() > kHistory) m_back.erase(m_back.begin());
  m_forward.clear();
}

void TileCanvas::fitAll() {
  if (m_map) setViewport({0, 0, static_cast<double>(m_map->rows()), static_cast<double>(m_map->cols())}, true);
}

void TileCanvas::zoomBack() {
  if (m_back.empty()) return;
  const MapViewport target = m_back.back();
  m_back.pop_back();
  m_forward.push_back(m_view);
  m_historyClock.invalidate();
  setViewport(target);
}

void TileCanvas::zoomForward() {
  if (m_forward.empty()) return;
  const MapViewport target = m_forward.back();
  m_forward.pop_back();
  m_back.push_back(m_view);
  m_historyClock.invalidate();
  setViewport(target);
}

QPointF TileCanvas::tokenAt(const QPointF& p) const {
  return {m_view.col0 + (p.x() - m_plot.left()) / std::max(1, m_plot.width()) * m_view.cols,
          m_view.row0 + (p.y() - m_plot.top()) / std::max(1, m_plot.height()) * m_view.rows};
}

QRectF TileCanvas::cellRect(Index row, Index col) const {
  const double sx = m_plot.width() / m_view.cols, sy = m_plot.height() / m_view.rows;
  return {m_plot.left() + (static_cast<double>(col) - m_view.col0) * sx,
          m_plot.top() + (static_cast<double>(row) - m_view.row0) * sy, sx, sy};
}

void TileCanvas::zoomAt(const QPointF& p, double factorX, double factorY) {
  if (!m_map) return;
  const QPointF token = tokenAt(p);
  MapViewport next = m_view;
  next.cols = m_view.cols / factorX;
  next.rows = m_view.rows / factorY;
  const MapViewport size = clamped(next);
  // The token under the cursor stays there: computed with the sizes that clamping leaves.
  next.cols = size.cols;
  next.rows = size.rows;
  next.col0 = token.x() - (p.x() - m_plot.left()) / m_plot.width() * next.cols;
  next.row0 = token.y() - (p.y() - m_plot.top()) / m_plot.height() * next.rows;
  next = clamped(next);
  if (next == m_view) return;
  pushHistory(true);
  setViewport(next);
}

MapViewport TileCanvas::bandViewport(Index row, Index col) const {
  const auto bandOf = [](const AxisSpec& axis, Index position, Index count) {
    for (const AxisBand& band : axis.bands) {
      if (position >= band.first && position < band.last) return std::pair{band.first, band.last};
    }
    // No structure: a 64th of the map around the place.
    const Index half = std::max<Index>(4, count / 16);
    return std::pair{std::max<Index>(0, position - half), std::min(count, position + half)};
  };
  const auto [r0, r1] = bandOf(m_queries, row, m_map->rows());
  const auto [c0, c1] = bandOf(m_keys, col, m_map->cols());
  MapViewport v{static_cast<double>(r0), static_cast<double>(c0), static_cast<double>(r1 - r0),
                static_cast<double>(c1 - c0)};
  if (m_aspect) {
    const double scale = std::max(v.cols / m_plot.width(), v.rows / m_plot.height());
    const double cols = scale * m_plot.width(), rows = scale * m_plot.height();
    v.col0 -= (cols - v.cols) / 2;
    v.row0 -= (rows - v.rows) / 2;
    v.cols = cols;
    v.rows = rows;
  }
  return clamped(v);
}

void TileCanvas::fitRange() {
  if (!m_levels) return;
  const auto& histogram = m_levels->histogram[m_reduce == Reduce::Max ? 1 : 0];
  double total = 0;
  for (int code = kCodeFirst; code < kValueCodes; ++code) total += (*histogram)[static_cast<std::size_t>(code)];
  if (total == 0) return;
  const auto quantile = [&](double q) {
    double seen = 0;
    for (int code = kCodeFirst; code < kValueCodes; ++code) {
      seen += (*histogram)[static_cast<std::size_t>(code)];
      if (seen >= q * total) return decodeValue(static_cast<ValueCode>(code));
    }
    return 1.0;
  };
  ColorSettings colors = m_colors;
  const double low = quantile(0.02), high = quantile(0.998);
  if (colors.range.scale == ValueScale::Log) {
    // Half decades; never narrower than one decade, so that noise does not look like structure.
    double a = std::floor(std::log10(low) * 2.0) / 2.0, b = std::min(0.0, std::ceil(std::log10(high) * 2.0) / 2.0);
    a = std::max(a, -12.0);
    if (b - a < 1.0) a = b - 1.0;
    colors.range.minimum = std::pow(10.0, a);
    colors.range.maximum = std::pow(10.0, b);
  } else {
    colors.range.minimum = 0.0;
    colors.range.maximum = high;
  }
  setColors(colors);
}

void TileCanvas::setScale(ValueScale scale) {
  if (scale == m_colors.range.scale) return;
  ColorSettings colors = m_colors;
  colors.range = ValueRange{};
  colors.range.scale = scale;
  if (scale == ValueScale::Linear) colors.range.minimum = 0.0;
  setColors(colors);
  fitRange();
}

void TileCanvas::resetRange() {
  ColorSettings colors = m_colors;
  colors.range = ValueRange{};
  colors.range.scale = m_colors.range.scale;
  if (colors.range.scale == ValueScale::Linear) colors.range.minimum = 0.0;
  setColors(colors);
}

}  // namespace sparsight

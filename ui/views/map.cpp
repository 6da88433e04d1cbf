// SPDX-License-Identifier: Apache-2.0
// The attention map of the selected head: the canvas, what it shows it in, and the result of the selected method over
// it.
#include <QCoreApplication>
#include <QEvent>
#include <QJsonArray>
#include <QJsonObject>
#include <QPointer>
#include <QPushButton>
#include <QTimer>
#include <QVBoxLayout>
#include <algorithm>
#include <list>
#include <set>

#include "sparsight/core/map_cache.h"
#include "sparsight/core/plan.h"
#include "sparsight/core/tile_scheduler.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/map_header.h"
#include "ui/open_buttons.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/settings.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {
namespace {

constexpr std::size_t kMapCacheCount = 32;
constexpr int kIdleMs = 400;            // nothing happened for this long: the next heads are made ready
constexpr std::size_t kReadyHeads = 3;  // this many
constexpr double kReadyFlops = 1e12;    // above: a preview ahead of need, not the exact map
constexpr Index kStripRows = 512;       // rows on which lost mass is evaluated for the strip
constexpr int kPatienceMs = 250;        // a reading head keeps the old picture this long

QString text(std::string_view s) { return QString::fromUtf8(s.data(), static_cast<qsizetype>(s.size())); }

/// Values of sampled map rows spread over all rows: each row takes the nearest sample's.
std::vector<float> spread(std::vector<std::pair<Index, float>> samples, Index rows) {
  std::vector<float> out(static_cast<std::size_t>(rows), std::numeric_limits<float>::quiet_NaN());
  std::sort(samples.begin(), samples.end());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const Index from = i == 0 ? 0 : (samples[i - 1].first + samples[i].first + 1) / 2;
    const Index to = i + 1 == samples.size() ? rows : (samples[i].first + samples[i + 1].first + 1) / 2;
    for (Index r = from; r < to; ++r) out[static_cast<std::size_t>(r)] = samples[i].second;
  }
  return out;
}

struct LoadedMap {
  HeadId id;
  QString order;  // "model", or the method whose computed order it is
  std::shared_ptr<AttentionMap> map;
  AxisSpec queries, keys;
};

class MapView : public View {
 public:
  MapView(Session& session, QWidget* parent) : View(session, parent), m_canvas(new TileCanvas(session.jobs(), this)) {
    m_header = new MapHeader(this);
    m_order = new CaptionCombo(tr("order"), m_header);
    m_pooling = new CaptionCombo(tr("pooling"), m_header);
    m_scale = new CaptionCombo(tr("scale"), m_header);
    m_overlay = new CaptionCombo(tr("overlay"), m_header);
    m_palette = new CaptionCombo(tr("colours"), m_header);
    m_order->addItem(tr("model"), QStringLiteral("model"));
    m_order->setToolTip(tr("Token order: as the model has it, or as the method's plan permutes it"));
    m_pooling->addItem(tr("max"), QStringLiteral("max"));
    m_pooling->addItem(tr("mean"), QStringLiteral("mean"));
    m_pooling->setToolTip(
        tr("How a cell shows its token pairs: max keeps single bright pairs visible, mean keeps mass"));
    m_scale->addItem(tr("log"), QStringLiteral("log"));
    m_scale->addItem(tr("linear"), QStringLiteral("linear"));
    m_scale->setToolTip(tr("Colour scale (L)"));
    m_overlay->addItem(tr("none"), QStringLiteral("none"));
    m_overlay->setToolTip(tr("Dims the token pairs that the selected method skips"));
    for (const Palette palette : sequentialPalettes()) {
      m_palette->addItem(paletteTitle(palette), text(paletteName(palette)));
    }
    m_palette->setToolTip(tr("Colour map (C for the next)"));
    for (QWidget* control : {m_order, m_pooling, m_scale, m_overlay, m_palette}) m_header->addControl(control);

    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, Theme::kUnit);
    layout->setSpacing(0);
    layout->addWidget(m_header);
    m_gap = new QWidget(this);
    auto* gapRow = new QHBoxLayout(m_gap);
    gapRow->setContentsMargins(Theme::kGroupGap, 0, Theme::kGroupGap, Theme::kUnit);
    gapRow->setSpacing(Theme::kPad);
    m_gapText = new NoteLabel(m_gap, false);
    m_gapText->setObjectName(QStringLiteral("planGap"));
    m_gapText->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
    m_runAgain = new QPushButton(tr("Run this head again"), m_gap);
    m_runAgain->setObjectName(QStringLiteral("runAgain"));
    m_runAgain->setProperty("link", true);
    m_runAgain->setToolTip(tr("With the parameters its numbers were made with"));
    gapRow->addWidget(m_gapText, 1);
    gapRow->addWidget(m_runAgain);
    m_gap->hide();
    layout->addWidget(m_gap);
    layout->addWidget(m_canvas, 1);
    setFocusProxy(m_canvas);
    connect(m_runAgain, &QPushButton::clicked, this, [this] { this->session().runSelectedAgain(); });
    m_open = new OpenButtons(Qt::Horizontal, this);
    m_open->hide();

    connect(m_order, &QComboBox::currentIndexChanged, this, [this] {
      m_wantComputed = m_order->currentData().toString() != QStringLiteral("model");
      showHead();
    });
    connect(m_pooling, &QComboBox::currentIndexChanged, this, [this] {
      m_canvas->setReduce(m_pooling->currentData().toString() == QStringLiteral("mean") ? Reduce::Mean : Reduce::Max);
    });
    connect(m_scale, &QComboBox::currentIndexChanged, this, [this] {
      m_canvas->setScale(m_scale->currentData().toString() == QStringLiteral("linear") ? ValueScale::Linear
                                                                                       : ValueScale::Log);
    });
    connect(m_overlay, &QComboBox::currentIndexChanged, this, [this] {
      m_wantOverlay = m_overlay->currentData().toString() != QStringLiteral("none");
      showResult();
    });
    connect(m_palette, &QComboBox::currentIndexChanged, this, [this] {
      const auto palette = paletteByName(m_palette->currentData().toString().toStdString());
      if (!palette) return;
      m_paletteChosen = true;
      ColorSettings colors = m_canvas->colors();
      colors.palette = *palette;
      m_canvas->setColors(colors);
    });
    connect(m_canvas, &TileCanvas::colorsChanged, this, [this] {
      if (!m_fitting) m_fitPending = false;  // limits chosen by hand stay
      const ColorSettings& colors = m_canvas->colors();
      if (m_palette->currentData().toString() != text(paletteName(colors.palette))) m_paletteChosen = true;
      syncControls();
    });
    connect(m_canvas, &TileCanvas::reduceChanged, this, [this] { syncControls(); });
    connect(m_canvas, &TileCanvas::levelsChanged, this, [this] { fitOnce(); });
    connect(m_canvas, &TileCanvas::navigate, this,
            [this](int steps, int layers, int heads) { this->session().moveSelection(steps, layers, heads); });
    connect(m_canvas, &TileCanvas::picked, this, [this](Index row, Index col) {
      const AttentionMap& map = *m_canvas->map();
      this->session().setPair({map.head().queryToken(map.queryRowAt(row)), map.keyAt(col)});
    });
    m_idle.setSingleShot(true);
    m_idle.setInterval(kIdleMs);
    connect(&m_idle, &QTimer::timeout, this, &MapView::makeReady);
    connect(m_canvas, &TileCanvas::settled, this, [this] { m_idle.start(); });
    m_patience.setSingleShot(true);
    m_patience.setInterval(kPatienceMs);
    connect(&m_patience, &QTimer::timeout, this, [this] {
      if (!m_loading) return;
      m_canvas->setMap(nullptr);
      m_canvas->setMessage(tr("Reading the head\u2026"));
    });
    applySettings();
    syncControls();
    showHead();
  }

  void sessionChanged(ChangeFlags changes) override {
    if (changes.testFlag(Change::Trace)) {
      m_readyJob.cancel();
      discardMaps(m_maps.begin());
      m_previousId.reset();
      m_shownId.reset();
      m_notReady.clear();
      m_fitPending = !m_rangeRestored;
      m_loadJob.cancel();
      m_loading = false;
    }
    if (changes.testFlag(Change::Theme)) {
      if (!m_paletteChosen) {
        ColorSettings colors = m_canvas->colors();
        colors.palette = defaultPalette(Theme::current().dark);
        m_palette->select(text(paletteName(colors.palette)));
        m_canvas->setColors(colors);
        m_paletteChosen = false;
      }
      if (!m_keptRows.empty()) setStrips(m_keptRows, m_lostRows);
      m_canvas->update();
    }
    if (changes.testFlag(Change::Settings)) applySettings();
    if (changes & (ChangeFlags(Change::Trace) | Change::Selection | Change::Runs | Change::Settings)) showHead();
    if (changes.testFlag(Change::Pair)) showPair();
  }

  void resizeEvent(QResizeEvent* event) override {
    View::resizeEvent(event);
    placeOpen();
  }

  [[nodiscard]] bool isSettled() const override { return !m_loading && !m_stripsPending && m_canvas->isSettled(); }

  [[nodiscard]] QJsonObject saveState() const override {
    const ColorSettings& colors = m_canvas->colors();
    QJsonObject state{{QStringLiteral("pooling"), m_pooling->currentData().toString()},
                      {QStringLiteral("scale"), m_scale->currentData().toString()},
                      {QStringLiteral("order"), m_wantComputed ? QStringLiteral("computed") : QStringLiteral("model")},
                      {QStringLiteral("overlay"), m_wantOverlay ? QStringLiteral("kept") : QStringLiteral("none")},
                      {QStringLiteral("minimum"), colors.range.minimum},
                      {QStringLiteral("maximum"), colors.range.maximum},
                      {QStringLiteral("minimap"), m_canvas->minimapShown()},
                      {QStringLiteral("grid"), m_canvas->gridShown()},
                      {QStringLiteral("aspect"), m_canvas->aspectLocked()}};
    if (m_paletteChosen) state.insert(QStringLiteral("palette"), text(paletteName(colors.palette)));
    if (m_canvas->map()) {
      const MapViewport& v = m_canvas->viewport();
      state.insert(QStringLiteral("viewport"), QJsonArray{v.row0, v.col0, v.rows, v.cols});
    }
    return state;
  }

  void restoreState(const QJsonObject& state) override {
    const auto has = [&](const char* key) { return state.contains(QLatin1String(key)); };
    const auto value = [&](const char* key) { return state.value(QLatin1String(key)); };
    if (has("pooling")) {
      m_canvas->setReduce(value("pooling").toString() == QStringLiteral("mean") ? Reduce::Mean : Reduce::Max);
    }
    if (has("order")) m_wantComputed = value("order").toString() != QStringLiteral("model");
    if (has("overlay")) m_wantOverlay = value("overlay").toString() != QStringLiteral("none");
    ColorSettings colors = m_canvas->colors();
    if (has("scale")) {
      const bool linear = value("scale").toString() == QStringLiteral("linear");
      if (linear != (colors.range.scale == ValueScale::Linear)) {
        colors.range = ValueRange{};
        colors.range.scale = linear ? ValueScale::Linear : ValueScale::Log;
        if (linear) colors.range.minimum = 0.0;
      }
    }
    if (const auto palette = paletteByName(value("palette").toString().toStdString())) {
      colors.palette = *palette;
      m_paletteChosen = true;
    }
    const double minimum = value("minimum").toDouble(-1), maximum = value("maximum").toDouble(-1);
    const bool log = colors.range.scale == ValueScale::Log;
    const bool usable = minimum < maximum && maximum <= 1e6 && (log ? minimum > 0 : minimum >= 0);
    if (usable) {
      colors.range.minimum = minimum;
      colors.range.maximum = maximum;
      m_rangeRestored = true;
    }
    m_canvas->setColors(colors);
    if (usable) m_fitPending = false;
    if (has("minimap")) m_canvas->setMinimapShown(value("minimap").toBool(true));
    if (has("grid")) m_canvas->setGridShown(value("grid").toBool(true));
    if (has("aspect")) m_canvas->setAspectLocked(value("aspect").toBool(true));
    const QJsonArray v = value("viewport").toArray();
    if (v.size() == 4) {
      m_viewport = MapViewport{v[0].toDouble(), v[1].toDouble(), v[2].toDouble(), v[3].toDouble()};
      if (m_canvas->map()) applyViewport();
    }
    syncControls();
    showHead();
  }

  [[nodiscard]] QString hint() const override {
    return tr("wheel zoom \u00b7 right click picks \u00b7 PageUp/Down layer, [ ] head, , . step \u00b7 F fit");
  }

  [[nodiscard]] QStringList statusParts() const override {
    if (!m_canvas->map()) return {};
    const auto of = [](const QString& what, Index used, int limitMiB) {
      const double mib = static_cast<double>(used) / (1 << 20);
      return tr("%1 %2 / %3 MiB").arg(what, QString::number(mib, 'f', mib < 10 ? 1 : 0)).arg(limitMiB);
    };
    Index heads = 0;
    for (const LoadedMap& loaded : m_maps) heads += loaded.map->bytes();
    QStringList parts{of(tr("tiles"), m_canvas->tileBytes(), m_tileMiB), of(tr("heads"), heads, m_headMiB)};
    if (const auto& cache = session().mapCache(); cache && cache->limit() > 0 && cache->bytes() >= 0)
      parts << of(tr("disk"), cache->bytes(), static_cast<int>(cache->limit() >> 20));
    parts << m_canvas->precisionText() + (m_canvas->map()->fromCache() ? tr(", from disk") : QString())
          << m_canvas->rendererDescription().section(QLatin1Char(' '), 0, 1);
    return parts;
  }

 private:
  void applySettings() {
    const Settings settings = Settings::current();
    m_tileMiB = settings.tileCacheMiB;
    m_canvas->setTileLimit(Index{m_tileMiB} << 20);
    m_headMiB = settings.headMapsMiB;
    m_wantReady = settings.makeReady && session().mapCache() != nullptr;
    if (!m_wantReady) m_readyJob.cancel();
    trimCache();
    const auto palette = paletteByName(settings.colorMap.toStdString());
    if (palette && settings.colorMap != m_settingsPalette) {
      ColorSettings colors = m_canvas->colors();
      colors.palette = *palette;
      m_canvas->setColors(colors);
      m_paletteChosen = true;
    }
    m_settingsPalette = settings.colorMap;
  }

  void syncControls() {
    m_pooling->select(m_canvas->reduce() == Reduce::Mean ? QStringLiteral("mean") : QStringLiteral("max"));
    m_scale->select(m_canvas->colors().range.scale == ValueScale::Linear ? QStringLiteral("linear")
                                                                         : QStringLiteral("log"));
    m_palette->select(text(paletteName(m_canvas->colors().palette)));
  }

  /// Limits follow the first head of a trace, then they stay: maps of different heads must be comparable.
  void fitOnce() {
    if (!m_fitPending || !m_canvas->map()) return;
    m_fitting = true;
    m_canvas->fitRange();
    m_fitting = false;
    if (!m_canvas->isApproximate()) m_fitPending = false;
  }

  [[nodiscard]] static QString methodTitle(const QString& id) {
    for (const Method* method : allMethods()) {
      if (id == text(method->id())) return text(method->title());
    }
    return id;
  }

  void offerResult(const HeadResult& result) {
    const QString method = session().overlayMethod();
    {
      const QSignalBlocker quiet(m_order);
      const bool permuted = result && (!result->plan.qOrder.empty() || !result->plan.kOrder.empty());
      while (m_order->count() > 1) m_order->removeItem(1);
      if (permuted) m_order->addItem(tr("%1 order").arg(methodTitle(method)), method);
      m_order->setCurrentIndex(permuted && m_wantComputed ? 1 : 0);
    }
    {
      const QSignalBlocker quiet(m_overlay);
      while (m_overlay->count() > 1) m_overlay->removeItem(1);
      if (result) m_overlay->addItem(tr("%1 kept").arg(methodTitle(method)), method);
      m_overlay->setCurrentIndex(result && m_wantOverlay ? 1 : 0);
    }
    m_order->updateGeometry();
    m_overlay->updateGeometry();
    QEvent relayout(QEvent::LayoutRequest);
    QCoreApplication::sendEvent(m_header, &relayout);
  }

  /// A result without a plan says why nothing lies over the map.
  void showGap() {
    const Session::PlanGap gap = session().trace() ? session().selectedPlanGap() : Session::PlanGap::None;
    const QString method = methodTitle(session().overlayMethod());
    QString why;
    switch (gap) {
      case Session::PlanGap::None:
        break;
      case Session::PlanGap::NotPlanned:
        why =
            tr("%1 has no plan for this head: %2")
                .arg(method,
                     text(session().runs().find(session().overlayMethod(), *session().selectedHead())->skippedReason));
        break;
      case Session::PlanGap::Reading:
        why = tr("Reading the plan of %1\u2026").arg(method);
        break;
      case Session::PlanGap::NotInFile:
        why = tr("The results file holds no plans: the overlay of %1 needs the head to be run again.").arg(method);
        break;
      case Session::PlanGap::Dropped:
        why = tr("The plan of %1 was dropped to save memory; its numbers are kept.").arg(method);
        break;
    }
    m_gapText->setText(why);
    m_gapText->setToolTip(why);
    m_gapText->setRole(gap == Session::PlanGap::NotPlanned ? NoteLabel::Role::Warning : NoteLabel::Role::Secondary);
    m_runAgain->setVisible(gap == Session::PlanGap::NotInFile || gap == Session::PlanGap::Dropped);
    m_gap->setVisible(!why.isEmpty());
  }

  /// Below the message that the canvas paints in its middle.
  void placeOpen() {
    m_open->adjustSize();
    const QRect room = m_canvas->geometry();
    m_open->move(room.center().x() - m_open->width() / 2,
                 room.center().y() + 2 * m_open->height() / 2 + Theme::kGroupGap);
    m_open->raise();
  }

  void showMessage(const QString& title, const QString& message) {
    m_loadJob.cancel();
    m_loading = false;
    m_canvas->setMap(nullptr);
    m_canvas->setMessage(title, message);
  }

  void showHead() {
    const auto& trace = session().trace();
    const Selection& selection = session().selection();
    const HeadResult result = session().selectedResult();
    offerResult(trace ? result : nullptr);
    showGap();
    if (!trace) {
      m_header->setTitle(tr("Attention map"));
      m_header->hide();
      m_open->show();
      placeOpen();
      return showMessage(tr("No trace is open"), tr("The map shows what a head of a captured trace attends to."));
    }
    m_header->show();
    m_open->hide();
    QString title = tr("L%1 \u00b7 H%2 \u00b7 step %3").arg(selection.layer).arg(selection.head).arg(selection.step);
    if (!selection.branch.empty()) title += QStringLiteral(" \u00b7 ") + text(selection.branch);
    m_header->setTitle(title);
    const std::optional<HeadId> id = session().selectedHead();
    if (!id) {
      const CallInfo* call = trace->info().callAt(selection.step, selection.branch, selection.layer);
      QString why;
      if (call == nullptr) {
        why = tr("The trace has no attention call of layer %1 at step %2 in branch %3.")
                  .arg(selection.layer)
                  .arg(selection.step)
                  .arg(text(selection.branch));
      } else if (!call->available) {
        why = text(call->unavailableReason);
      } else {
        why = tr("Head %1 of this layer was not captured; %2 of its heads were.")
                  .arg(selection.head)
                  .arg(call->heads.size());
      }
      return showMessage(tr("This head was not captured"), why);
    }
    if (const CallInfo* call = trace->info().find(id->call); call != nullptr && !call->available) {
      return showMessage(tr("This head cannot be read"), text(call->unavailableReason));
    }

    const QString order = m_order->currentIndex() > 0 ? session().overlayMethod() : QStringLiteral("model");
    const auto sameOrder = [&](const LoadedMap& loaded) {
      if (loaded.order != order) return false;
      // A new run of the method may have another permutation.
      return order == QStringLiteral("model") || (result &&
                                                  std::equal(loaded.map->qOrder().begin(), loaded.map->qOrder().end(),
                                                             result->plan.qOrder.begin(), result->plan.qOrder.end()) &&
                                                  std::equal(loaded.map->kOrder().begin(), loaded.map->kOrder().end(),
                                                             result->plan.kOrder.begin(), result->plan.kOrder.end()));
    };
    for (auto it = m_maps.begin(); it != m_maps.end(); ++it) {
      if (it->id != *id || !sameOrder(*it)) continue;
      m_maps.splice(m_maps.begin(), m_maps, it);
      m_loadJob.cancel();
      m_loading = false;
      m_patience.stop();
      return showLoaded();
    }
    load(trace, *id, order, result);
  }

  void load(const std::shared_ptr<const Trace>& trace, const HeadId& id, const QString& order,
            const HeadResult& result) {
    if (m_loading && m_loadingId == id && m_loadingOrder == order) return;
    m_loadingId = id;
    m_loadingOrder = order;
    m_loading = true;
    m_patience.start();
    JobSpec spec;
    spec.name = "Read layer " + std::to_string(id.call.layer) + " head " + std::to_string(id.head) + ", step " +
                std::to_string(id.call.step);
    spec.lane = Lane::Io;
    spec.supersedeTag = "map-view/load";
    spec.priority = 100;
    using Result = std::shared_ptr<LoadedMap>;
    const HeadResult plan = order == QStringLiteral("model") ? nullptr : result;
    const QPointer<MapView> self(this);
    m_loadJob = session().jobs().submit<Result>(
        spec,
        [trace, id, order, plan, cache = session().mapCache()](JobContext& context) {
          auto loaded = std::make_shared<LoadedMap>();
          loaded->id = id;
          loaded->order = order;
          loaded->map = openMap(trace, id, plan ? plan->plan.qOrder : std::vector<Index>(),
                                plan ? plan->plan.kOrder : std::vector<Index>(), cache, context.control());
          if (plan) {
            loaded->queries = axisOf(*loaded->map, plan->plan.qOrder.empty(), plan->plan.qBounds, true);
            loaded->keys = axisOf(*loaded->map, plan->plan.kOrder.empty(), plan->plan.kBounds, false);
          } else {
            loaded->queries = axisOf(*loaded->map, true, {}, true);
            loaded->keys = axisOf(*loaded->map, true, {}, false);
          }
          return loaded;
        },
        [self, id, order](Outcome<Result> outcome) {
          if (!self || std::holds_alternative<Cancelled>(outcome)) return;
          if (!self->m_loading || self->m_loadingId != id || self->m_loadingOrder != order) return;
          self->m_loading = false;
          self->m_patience.stop();
          if (const auto* error = std::get_if<Error>(&outcome)) {
            return self->showMessage(tr("This head cannot be shown"), text(error->what()));
          }
          self->m_maps.push_front(std::move(*std::get<Result>(outcome)));
          self->showLoaded();
        });
  }

  /// Frames where the order is the model's, else the plan's blocks where there are few enough to see.
  static AxisSpec axisOf(const AttentionMap& map, bool modelOrder, const std::vector<Index>& bounds, bool queries) {
    const HeadData& head = map.head();
    if (!modelOrder && bounds.size() > 2) return blockAxis(bounds, QStringLiteral("b"));
    if (queries) {
      std::vector<Index> tokens(static_cast<std::size_t>(map.rows()));
      for (Index i = 0; i < map.rows(); ++i) tokens[static_cast<std::size_t>(i)] = head.queryToken(map.queryRowAt(i));
      return layoutAxis(head.layout, map.rows(),
                        [tokens = std::make_shared<const std::vector<Index>>(std::move(tokens))](Index i) {
                          return (*tokens)[static_cast<std::size_t>(i)];
                        });
    }
    std::vector<Index> tokens(static_cast<std::size_t>(map.cols()));
    for (Index i = 0; i < map.cols(); ++i) tokens[static_cast<std::size_t>(i)] = map.keyAt(i);
    return layoutAxis(head.layout, map.cols(),
                      [tokens = std::make_shared<const std::vector<Index>>(std::move(tokens))](Index i) {
                        return (*tokens)[static_cast<std::size_t>(i)];
                      });
  }

  void showLoaded() {
    const LoadedMap& loaded = m_maps.front();
    const bool other = m_canvas->map() != loaded.map;
    if (other) {
      m_readyJob.cancel();
      if (m_shownId && *m_shownId != loaded.id) m_previousId = m_shownId;
      m_shownId = loaded.id;
    }
    m_canvas->setMap(loaded.map, loaded.queries, loaded.keys);
    readTensors();
    if (other) {
      trimCache();
      m_shownResult.reset();
      applyViewport();
      fitOnce();
      showPair();
    }
    showResult();
  }

  /// A map found on disk is shown before its Q and K are read; zooming in and hovering need them.
  void readTensors() {
    const std::shared_ptr<AttentionMap> map = m_maps.front().map;
    if (map->loaded()) return;
    JobSpec spec;
    spec.name = "Read queries and keys";
    spec.lane = Lane::Io;
    spec.supersedeTag = "map-view/load";
    spec.priority = 90;
    const QPointer<MapView> self(this);
    m_loadJob = session().jobs().submit<bool>(
        spec,
        [map](JobContext& context) {
          static_cast<void>(map->loadedHead(context.control()));
          return true;
        },
        [self, map](Outcome<bool> outcome) {
          if (!self || self->m_canvas->map() != map) return;
          if (const auto* error = std::get_if<Error>(&outcome)) {
            return self->showMessage(tr("This head cannot be shown"), text(error->what()));
          }
          self->trimCache();
        });
  }

  /// Heads seen before keep their coarse map and LSE (a few MB); what is quickly made again goes first.
  void trimCache() {
    m_mapBytes = 0;
    std::size_t count = 0;
    for (auto it = m_maps.begin(); it != m_maps.end(); ++it, ++count) {
      if (count > 0 && it->map != m_canvas->map()) session().discard(it->map->trim());
      const Index bytes = it->map->bytes();
      if (count > 0 && (m_mapBytes + bytes > (Index{m_headMiB} << 20) || count >= kMapCacheCount)) {
        return discardMaps(it);
      }
      m_mapBytes += bytes;
    }
  }
  void discardMaps(std::list<LoadedMap>::iterator from) {
    for (auto it = from; it != m_maps.end(); ++it) session().discard(it->map);
    m_maps.erase(from, m_maps.end());
    if (m_maps.empty()) m_mapBytes = 0;
  }

  /// While nothing else is to be done, the heads that are likely looked at next are read, found on disk, computed or
  /// previewed, one after the other. Any other job stops it.
  void makeReady() {
    if (!m_wantReady || !isVisible() || !isSettled() || m_maps.empty() ||
        m_maps.front().order != QStringLiteral("model"))
      return;
    if (!session().jobs().idle()) return m_idle.start();
    const auto& trace = session().trace();
    const std::optional<HeadId> here = session().selectedHead();
    if (!trace || !here) return;
    const AttentionIn& in = m_maps.front().map->head().input;
    const Index each = (in.q.rows + in.k.rows) * in.q.cols * static_cast<Index>(itemSize(in.q.dtype));
    if (m_mapBytes + each > (Index{m_headMiB} << 20)) return;
    std::optional<HeadId> next;
    for (const HeadId& id : likelyNextHeads(trace->info(), *here, m_previousId, kReadyHeads)) {
      const bool known = std::any_of(m_maps.begin(), m_maps.end(), [&](const LoadedMap& map) {
        return map.id == id && map.order == QStringLiteral("model");
      });
      if (!known && !m_notReady.contains(id)) {
        next = id;
        break;
      }
    }
    if (!next) return;
    JobSpec spec;
    spec.name = "Make a head ready";
    spec.lane = Lane::Compute;
    spec.supersedeTag = "map-view/ready";
    spec.background = true;
    using Result = std::shared_ptr<LoadedMap>;
    const QPointer<MapView> self(this);
    m_readyJob = session().jobs().submit<Result>(
        spec,
        [trace, id = *next, cache = session().mapCache()](JobContext& context) {
          auto loaded = std::make_shared<LoadedMap>();
          loaded->id = id;
          loaded->order = QStringLiteral("model");
          loaded->map = openMap(trace, id, {}, {}, cache, context.control());
          loaded->queries = axisOf(*loaded->map, true, {}, true);
          loaded->keys = axisOf(*loaded->map, true, {}, false);
          const double flops = 2.0 * static_cast<double>(loaded->map->rows()) *
                               static_cast<double>(loaded->map->cols()) *
                               static_cast<double>(loaded->map->head().input.q.cols);
          if (!loaded->map->exact()) {
            if (flops <= kReadyFlops) {
              loaded->map->build(context.backend(), context.control());
              loaded->map->remember();
            } else {
              loaded->map->preview(context.backend(), context.control());
            }
          }
          loaded->map->trim();
          return loaded;
        },
        [self, id = *next, trace](Outcome<Result> outcome) {
          if (!self || self->session().trace() != trace) return;
          if (std::holds_alternative<Cancelled>(outcome)) return self->m_idle.start();
          auto* loaded = std::get_if<Result>(&outcome);
          if (loaded == nullptr) {
            self->m_notReady.insert(id);  // looking at it will say why
          } else if (std::none_of(self->m_maps.begin(), self->m_maps.end(), [&](const LoadedMap& map) {
                       return map.id == id && map.order == (*loaded)->order;
                     })) {
            self->m_maps.insert(std::next(self->m_maps.begin(), self->m_maps.empty() ? 0 : 1), std::move(**loaded));
            self->trimCache();
          }
          self->makeReady();
        });
  }

  void applyViewport() {
    if (!m_viewport) return;
    m_canvas->setViewport(*m_viewport);
    m_viewport.reset();
  }

  void showPair() {
    const auto& map = m_canvas->map();
    const PickedPair pair = session().pair();
    if (!map || pair.query < 0 || pair.key < 0 || pair.key >= map->cols()) return;
    Index row = pair.query;
    const auto& stored = map->head().qRows;
    if (!stored.empty()) {
      const auto found = std::lower_bound(stored.begin(), stored.end(), pair.query);
      if (found == stored.end() || *found != pair.query) return;
      row = found - stored.begin();
    }
    if (row >= map->rows()) return;
    m_canvas->setPicked(map->positionOfQueryRow(row), map->positionOfKey(pair.key));
  }

  void showResult() {
    const auto& map = m_canvas->map();
    const HeadResult result = map ? session().selectedResult() : nullptr;
    if (!result || !result->skippedReason.empty()) {
      m_canvas->setOverlay(nullptr);
      m_canvas->setStrips({});
      m_keptRows.clear();
      m_lostRows.clear();
      m_shownResult.reset();
      m_overlayOfShown.reset();
      m_stripJob.cancel();
      m_stripsPending = false;
      return;
    }
    if (result != m_shownResult) {
      m_shownResult = result;
      m_overlayOfShown.reset();
      m_keptRows.clear();
      m_lostRows.clear();
      m_canvas->setOverlay(nullptr);
      m_canvas->setStrips({});
      prepareResult(map, result);
      return;  // arrives by job
    }
    m_canvas->setOverlay(m_wantOverlay ? m_overlayOfShown : nullptr);
  }

  struct ResultParts {
    std::shared_ptr<const PlanOverlay> overlay;
    std::vector<float> kept, lost;
  };

  void prepareResult(const std::shared_ptr<AttentionMap>& map, const HeadResult& result) {
    m_stripsPending = true;
    JobSpec spec;
    spec.name = "Kept pairs";
    spec.lane = Lane::Tiles;
    spec.supersedeTag = "map-view/result";
    spec.priority = 650;
    using Parts = std::shared_ptr<ResultParts>;
    const QPointer<MapView> self(this);
    m_stripJob = session().jobs().submit<Parts>(
        spec,
        [map, result](JobContext& context) {
          auto parts = std::make_shared<ResultParts>();
          const std::shared_ptr<const Plan> plan(result, &result->plan);
          parts->overlay = std::make_shared<const PlanOverlay>(plan, *map);
          context.checkpoint();
          parts->kept = parts->overlay->rowKept();
          parts->lost = lostMass(*map, result->evaluation);
          return parts;
        },
        [self, map, result](Outcome<Parts> outcome) {
          if (!self || self->m_shownResult != result || self->m_canvas->map() != map) return;
          if (std::holds_alternative<Cancelled>(outcome)) return;
          self->m_stripsPending = false;
          const auto* parts = std::get_if<Parts>(&outcome);
          if (parts == nullptr) return;  // a plan of another size: nothing to lay over
          self->m_overlayOfShown = (*parts)->overlay;
          self->setStrips((*parts)->kept, (*parts)->lost);
          self->m_canvas->setOverlay(self->m_wantOverlay ? (*parts)->overlay : nullptr);
          if ((*parts)->lost.empty()) self->evaluateLost(map, result, (*parts)->kept);
        });
  }

  static std::vector<float> lostMass(const AttentionMap& map, const Evaluation& evaluation) {
    if (evaluation.rows.empty() || evaluation.rowMass.size() != evaluation.rows.size()) return {};
    std::vector<std::pair<Index, float>> samples;
    for (std::size_t i = 0; i < evaluation.rows.size(); ++i) {
      samples.emplace_back(map.positionOfQueryRow(evaluation.rows[i]), std::max(0.0F, 1.0F - evaluation.rowMass[i]));
    }
    return spread(std::move(samples), map.rows());
  }

  /// The mass that each row loses, on sampled rows, where the run did not keep it.
  void evaluateLost(const std::shared_ptr<AttentionMap>& map, const HeadResult& result, std::vector<float> kept) {
    m_stripsPending = true;
    JobSpec spec;
    spec.name = "Lost mass";
    spec.lane = Lane::Compute;
    spec.supersedeTag = "map-view/lost";
    using Values = std::shared_ptr<std::vector<float>>;
    const QPointer<MapView> self(this);
    m_stripJob = session().jobs().submit<Values>(
        spec,
        [map, result](JobContext& context) {
          HeadData head = *map->loadedHead(context.control());
          head.input.v = {};  // mass needs no values
          EvaluateOptions options;
          options.rows = kStripRows;
          options.perRow = true;
          const Evaluation evaluation = evaluatePlan(result->plan, head, options, context.backend(), context.control());
          return std::make_shared<std::vector<float>>(lostMass(*map, evaluation));
        },
        [self, map, result, kept = std::move(kept)](Outcome<Values> outcome) {
          if (!self || self->m_shownResult != result || self->m_canvas->map() != map) return;
          if (std::holds_alternative<Cancelled>(outcome)) return;
          self->m_stripsPending = false;
          if (const auto* values = std::get_if<Values>(&outcome)) self->setStrips(kept, **values);
        });
  }

  void setStrips(std::vector<float> kept, std::vector<float> lost) {
    m_keptRows = std::move(kept);
    m_lostRows = std::move(lost);
    const Theme& theme = Theme::current();
    std::vector<RowStrip> strips;
    // Beside the map, not before it.
    const auto muted = [&theme](const QColor& color) { return mixed(theme.window, color, 0.7); };
    strips.push_back({tr("kept"), tr("Kept keys of each query row"), muted(theme.slotA), m_keptRows});
    if (!m_lostRows.empty()) {
      strips.push_back({tr("lost"), tr("Attention mass each query row loses"), muted(theme.slotB), m_lostRows});
    }
    m_canvas->setStrips(std::move(strips));
  }

  TileCanvas* m_canvas;
  MapHeader* m_header = nullptr;
  OpenButtons* m_open = nullptr;
  QWidget* m_gap = nullptr;
  NoteLabel* m_gapText = nullptr;
  QPushButton* m_runAgain = nullptr;
  CaptionCombo *m_order = nullptr, *m_pooling = nullptr, *m_scale = nullptr, *m_overlay = nullptr, *m_palette = nullptr;
  std::list<LoadedMap> m_maps;  // most recent first; the front one is shown
  HeadId m_loadingId;
  QString m_loadingOrder, m_settingsPalette;
  bool m_loading = false;
  int m_tileMiB = 0, m_headMiB = 0;
  Index m_mapBytes = 0;  // of m_maps, as of the last trimCache
  std::optional<HeadId> m_shownId, m_previousId;
  std::set<HeadId> m_notReady;
  bool m_wantReady = false;
  QTimer m_patience, m_idle;
  HeadResult m_shownResult;
  std::shared_ptr<const PlanOverlay> m_overlayOfShown;
  std::vector<float> m_keptRows, m_lostRows;  // what the strips show
  bool m_stripsPending = false;
  bool m_wantComputed = false, m_wantOverlay = true, m_paletteChosen = false;
  bool m_fitPending = true, m_fitting = false, m_rangeRestored = false;
  std::optional<MapViewport> m_viewport;
  JobHandle m_loadJob, m_stripJob, m_readyJob;  // last: jobs end before what they use
};

}  // namespace

const ViewInfo& map_info() {
  static const ViewInfo info{"map",
                             QT_TRANSLATE_NOOP("View", "Attention map"),
                             DockArea::Centre,
                             0,
                             "map",
                             "views.md#attention-map",
                             [](Session& session, QWidget* parent) -> View* { return new MapView(session, parent); },
                             true};
  return info;
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
// A head in the model's token order and in the order a method computes in, side by side: what clustering or
// permutation did to it, how large the clusters are, and where their tokens lie on the video.
#include <QJsonObject>
#include <QPointer>
#include <QSplitter>
#include <QVBoxLayout>
#include <algorithm>
#include <utility>

#include "sparsight/core/attention_map.h"
#include "ui/canvas/color_bar.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/cluster_sizes.h"
#include "ui/frames_canvas.h"
#include "ui/map_header.h"
#include "ui/preview_loader.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {
namespace {

QString text(std::string_view s) { return QString::fromUtf8(s.data(), static_cast<qsizetype>(s.size())); }

QString titleOf(const QString& method) {
  for (const Method* m : allMethods())
    if (method == text(m->id())) return text(m->title());
  return method;
}

struct BothOrders {
  HeadId id;
  HeadResult result;
  std::shared_ptr<AttentionMap> model, computed;
  std::shared_ptr<const PlanOverlay> overlay;
  AxisSpec modelQueries, modelKeys, blockQueries, blockKeys;
};

std::vector<Index> sizesOf(const std::vector<Index>& bounds) {
  std::vector<Index> sizes;
  for (std::size_t i = 1; i < bounds.size(); ++i) sizes.push_back(bounds[i] - bounds[i - 1]);
  return sizes;
}

/// The block of a position; zero-length blocks hold none.
Index blockAt(const std::vector<Index>& bounds, Index position) {
  if (bounds.size() < 2 || position < 0 || position >= bounds.back()) return -1;
  return std::upper_bound(bounds.begin(), bounds.end(), position) - bounds.begin() - 1;
}

class PermutationView : public View {
 public:
  PermutationView(Session& session, QWidget* parent)
      : View(session, parent),
        m_model(new TileCanvas(session.jobs(), this)),
        m_computed(new TileCanvas(session.jobs(), this)),
        m_sizes(new ClusterSizes(this)),
        m_frames(new FramesCanvas(this)) {
    m_header = new MapHeader(this);
    m_side = new CaptionCombo(tr("clusters of"), m_header);
    m_side->addItem(tr("queries"), QStringLiteral("queries"));
    m_side->addItem(tr("keys"), QStringLiteral("keys"));
    m_side->setToolTip(tr("Whose clusters the sizes and the frames show"));
    m_pooling = new CaptionCombo(tr("pooling"), m_header);
    m_pooling->addItem(tr("max"), QStringLiteral("max"));
    m_pooling->addItem(tr("mean"), QStringLiteral("mean"));
    m_header->addControl(m_side);
    m_header->addControl(m_pooling);

    m_preview = new PreviewLoader(session, *m_frames, "permutation-view/preview");
    m_sizes->setObjectName(QStringLiteral("clusterSizes"));
    m_model->setObjectName(QStringLiteral("modelOrder"));
    m_computed->setObjectName(QStringLiteral("computedOrder"));
    m_readout = new NoteLabel(this, false);
    m_readout->setObjectName(QStringLiteral("clusterReadout"));
    m_readout->setContentsMargins(Theme::kEdge, 2, Theme::kEdge, 2);
    const auto column = [&](QWidget* canvas, QLabel*& caption) {
      auto* box = new QWidget;
      auto* inside = new QVBoxLayout(box);
      inside->setContentsMargins(0, 0, 0, 0);
      inside->setSpacing(0);
      caption = new NoteLabel(box, false);
      caption->setContentsMargins(Theme::kEdge, 2, Theme::kEdge, 2);
      inside->addWidget(caption);
      inside->addWidget(canvas, 1);
      return box;
    };
    auto* maps = new QSplitter(Qt::Horizontal);
    maps->addWidget(column(m_model, m_modelCaption));
    maps->addWidget(column(m_computed, m_computedCaption));
    auto* below = new QSplitter(Qt::Horizontal);
    below->addWidget(m_sizes);
    below->addWidget(m_frames);
    below->setSizes({400, 600});
    m_body = new QSplitter(Qt::Vertical);
    m_body->addWidget(maps);
    m_body->addWidget(below);
    m_body->setSizes({600, 400});
    m_empty = new TileCanvas(session.jobs(), this);  // paints messages as the map does
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, Theme::kUnit);
    layout->setSpacing(0);
    layout->addWidget(m_header);
    layout->addWidget(m_body, 1);
    layout->addWidget(m_empty, 1);
    layout->addWidget(m_readout);
    setFocusProxy(m_computed);
    for (TileCanvas* canvas : {m_model, m_computed}) canvas->setMinimapShown(false);

    connect(m_side, &QComboBox::currentIndexChanged, this, [this] {
      m_cluster = -1;
      showClusters();
    });
    connect(m_pooling, &QComboBox::currentIndexChanged, this, [this] {
      const auto reduce = m_pooling->currentData().toString() == QStringLiteral("mean") ? Reduce::Mean : Reduce::Max;
      for (TileCanvas* canvas : {m_model, m_computed}) canvas->setReduce(reduce);
    });
    // One set of colour limits: the two pictures show the same numbers.
    const auto sameColors = [this](TileCanvas* from, TileCanvas* to) {
      connect(from, &TileCanvas::colorsChanged, this, [from, to] {
        if (to->colors() == from->colors()) return;
        const QSignalBlocker quiet(to);
        to->setColors(from->colors());
      });
    };
    sameColors(m_model, m_computed);
    sameColors(m_computed, m_model);
    m_model->colorBar().setTwin(&m_computed->colorBar());
    m_computed->colorBar().setTwin(&m_model->colorBar());
    connect(m_model, &TileCanvas::levelsChanged, this, [this] {
      if (m_fitPending) m_model->fitRange();
      if (!m_model->isApproximate()) m_fitPending = false;
    });
    connect(m_computed, &TileCanvas::readoutChanged, this, [this] {
      const CanvasReadout& at = m_computed->readout();
      point(showsKeys() ? at.col : at.row);
    });
    connect(m_model, &TileCanvas::readoutChanged, this, [this] {
      if (!m_shown) return;
      const CanvasReadout& at = m_model->readout();
      if (at.row < 0 || at.col < 0) return;
      point(showsKeys() ? m_shown->computed->positionOfKey(m_shown->model->keyAt(at.col))
                        : m_shown->computed->positionOfQueryRow(m_shown->model->queryRowAt(at.row)));
    });
    connect(m_sizes, &ClusterSizes::pointed, this, [this](Index cluster) { setCluster(cluster); });
    const auto pickTokens = [this](TileCanvas* canvas) {
      connect(canvas, &TileCanvas::picked, this, [this, canvas](Index row, Index col) {
        const AttentionMap& map = *canvas->map();
        this->session().setPair({map.head().queryToken(map.queryRowAt(row)), map.keyAt(col)});
      });
      connect(canvas, &TileCanvas::navigate, this,
              [this](int steps, int layers, int heads) { this->session().moveSelection(steps, layers, heads); });
    };
    pickTokens(m_model);
    pickTokens(m_computed);
    connect(m_frames, &FramesCanvas::hovered, this, [this](Index token) { pointToken(token); });
    connect(m_frames, &FramesCanvas::queryPicked, this, [this](Index token) { pointToken(token); });
    refresh();
  }

  void sessionChanged(ChangeFlags changes) override {
    if (changes & Change::Trace) {
      m_job.cancel();
      m_loading = false;
      m_shown.reset();
      m_fitPending = true;
    }
    if (changes & Change::Theme) showCluster();
    if (changes & (ChangeFlags(Change::Trace) | Change::Selection | Change::Runs)) refresh();
    if (changes & Change::Pair) showPair();
  }
  [[nodiscard]] bool isSettled() const override {
    return !m_loading && !m_preview->isLoading() && (!m_shown || (m_model->isSettled() && m_computed->isSettled()));
  }
  [[nodiscard]] QString hint() const override { return tr("point at a cluster: its tokens and what they keep"); }
  [[nodiscard]] QJsonObject saveState() const override {
    return {{QStringLiteral("clusters"), m_side->currentData().toString()},
            {QStringLiteral("pooling"), m_pooling->currentData().toString()}};
  }
  void restoreState(const QJsonObject& state) override {
    if (state.contains(QStringLiteral("clusters"))) m_side->select(state.value(QStringLiteral("clusters")).toString());
    const QString pooling = state.value(QStringLiteral("pooling")).toString();
    for (int i = 0; i < m_pooling->count(); ++i)
      if (m_pooling->itemData(i).toString() == pooling) m_pooling->setCurrentIndex(i);
    if (state.contains(QStringLiteral("cluster")))
      m_wantedCluster = static_cast<Index>(state.value(QStringLiteral("cluster")).toDouble(-1));
    showClusters();
  }

 protected:
  void showEvent(QShowEvent* event) override {
    View::showEvent(event);
    refresh();
  }

 private:
  [[nodiscard]] bool showsKeys() const { return m_side->currentData().toString() == QStringLiteral("keys"); }

  void message(const QString& title, const QString& why) {
    m_job.cancel();
    m_loading = false;
    m_shown.reset();
    m_body->hide();
    m_readout->clear();
    m_empty->setMessage(title, why);
    m_empty->show();
  }

  void refresh() {
    const auto& trace = session().trace();
    m_header->setVisible(trace != nullptr);
    if (!trace)
      return message(tr("No trace is open"), tr("Here a head is shown before and after a method's permutation."));
    const Selection& selection = session().selection();
    m_header->setTitle(
        tr("L%1 \u00b7 H%2 \u00b7 step %3").arg(selection.layer).arg(selection.head).arg(selection.step));
    const std::optional<HeadId> id = session().selectedHead();
    if (!id) return message(tr("This head was not captured"), tr("Choose another in the heads view."));
    const HeadResult result = session().selectedResult();
    if (session().selectedPlanGap() != Session::PlanGap::None) {
      return message(tr("No clusters to show"),
                     tr("The plan of this head is not in memory. The attention map says why and makes it again."));
    }
    if (!result || !result->skippedReason.empty()) {
      return message(tr("No clusters yet"),
                     tr("Run a method that permutes tokens, such as SVG2 or SVOO, on this head (Ctrl+R in Method)."));
    }
    if (result->plan.qOrder.empty() && result->plan.kOrder.empty()) {
      return message(
          tr("Nothing is permuted"),
          tr("%1 computes this head in the model's own token order.").arg(titleOf(session().overlayMethod())));
    }
    if (!isVisible()) return;
    if (m_shown && m_shown->id == *id && m_shown->result == result) return;
    load(trace, *id, result);
  }

  void load(const std::shared_ptr<const Trace>& trace, const HeadId& id, const HeadResult& result) {
    if (m_loading && m_loadingResult == result && m_loadingId == id) return;
    m_loading = true;
    m_loadingId = id;
    m_loadingResult = result;
    JobSpec spec;
    spec.name = "Read layer " + std::to_string(id.call.layer) + " head " + std::to_string(id.head) + ", step " +
                std::to_string(id.call.step);
    spec.lane = Lane::Io;
    spec.supersedeTag = "permutation-view/load";
    spec.priority = 90;
    using Both = std::shared_ptr<BothOrders>;
    const QPointer<PermutationView> self(this);
    m_job = session().jobs().submit<Both>(
        spec,
        [trace, id, result, cache = session().mapCache()](JobContext& context) {
          auto both = std::make_shared<BothOrders>();
          both->id = id;
          both->result = result;
          const HeadData head = trace->loadScores(id, context.stop());
          both->model = std::make_shared<AttentionMap>(head);
          both->computed = std::make_shared<AttentionMap>(head, result->plan.qOrder, result->plan.kOrder);
          for (const auto& map : {both->model, both->computed}) {
            map->setCache(cache);
            map->restore(context.control());
          }
          const std::shared_ptr<const Plan> plan(result, &result->plan);
          both->overlay = std::make_shared<const PlanOverlay>(plan, *both->computed);
          both->modelQueries = layoutAxis(head.layout, both->model->rows(),
                                          [map = both->model](Index i) { return map->head().queryToken(i); });
          both->modelKeys = layoutAxis(head.layout, both->model->cols(), [](Index i) { return i; });
          both->blockQueries = blockAxis(result->plan.qBounds, QStringLiteral("q"));
          both->blockKeys = blockAxis(result->plan.kBounds, QStringLiteral("k"));
          return both;
        },
        [self, id, result](Outcome<Both> outcome) {
          if (!self || std::holds_alternative<Cancelled>(outcome)) return;
          if (self->m_loadingId != id || self->m_loadingResult != result) return;
          self->m_loading = false;
          if (const auto* error = std::get_if<Error>(&outcome))
            return self->message(tr("This head cannot be shown"), QString::fromUtf8(error->what()));
          self->m_shown = std::move(std::get<Both>(outcome));
          self->showBoth();
        });
  }

  void showBoth() {
    m_empty->hide();
    m_body->show();
    const Plan& plan = m_shown->result->plan;
    m_modelCaption->setText(tr("Model order"));
    m_computedCaption->setText(tr("%1 order: %2 \u00d7 %3 blocks, kept %4 (skipped %5)")
                                   .arg(titleOf(session().overlayMethod()), formatCount(plan.qBlocks()),
                                        formatCount(plan.kBlocks()),
                                        formatPercent(m_shown->result->evaluation.keptFraction),
                                        formatPercent(1 - m_shown->result->evaluation.keptFraction)));
    m_model->setMap(m_shown->model, m_shown->modelQueries, m_shown->modelKeys);
    m_computed->setMap(m_shown->computed, m_shown->blockQueries, m_shown->blockKeys);
    m_computed->setOverlay(m_shown->overlay);
    const HeadData& head = m_shown->model->head();
    m_frames->setLayoutOf(head.layout);
    m_frames->setMassShown(false);
    m_frames->setVisible(head.layout.video() != nullptr);
    m_preview->show(session().trace());
    m_cluster = -1;
    showClusters();
    showPair();
  }

  void showClusters() {
    if (!m_shown) return;
    const Plan& plan = m_shown->result->plan;
    m_sizes->setSizes(sizesOf(showsKeys() ? plan.kBounds : plan.qBounds),
                      showsKeys() ? tr("key clusters") : tr("query clusters"));
    if (m_cluster < 0) {
      // Something to look at: the cluster of the picked token, else of the middle of the video.
      m_cluster = std::exchange(m_wantedCluster, -1);
      const PickedPair pair = session().pair();
      if (m_cluster < 0) pointToken(showsKeys() ? pair.key : pair.query);
      const Segment* video = m_shown->model->head().layout.video();
      if (m_cluster < 0 && video != nullptr) {
        pointToken(video->start + (Index{video->frames / 2} * video->height + video->height / 2) * video->width +
                   video->width / 2);
      }
      if (m_cluster < 0) m_cluster = 0;
    }
    showCluster();
  }

  void showPair() {
    if (!m_shown) return;
    const PickedPair pair = session().pair();
    const AttentionMap& map = *m_shown->model;
    if (pair.query < 0 || pair.key < 0 || pair.key >= map.cols()) return;
    Index row = pair.query;
    const auto& stored = map.head().qRows;
    if (!stored.empty()) {
      const auto found = std::lower_bound(stored.begin(), stored.end(), pair.query);
      if (found == stored.end() || *found != pair.query) return;
      row = found - stored.begin();
    }
    if (row >= map.rows()) return;
    m_model->setPicked(row, pair.key);
    m_computed->setPicked(m_shown->computed->positionOfQueryRow(row), m_shown->computed->positionOfKey(pair.key));
    m_frames->setMarks(pair.query, pair.key);
  }

  /// A position in computed order: its cluster is shown.
  void point(Index position) {
    if (!m_shown || position < 0) return;
    const Plan& plan = m_shown->result->plan;
    const Index cluster = blockAt(showsKeys() ? plan.kBounds : plan.qBounds, position);
    if (cluster >= 0) setCluster(cluster);
  }
  void pointToken(Index token) {
    if (!m_shown || token < 0) return;
    const AttentionMap& map = *m_shown->computed;
    if (showsKeys()) return point(token < map.cols() ? map.positionOfKey(token) : -1);
    const auto& stored = map.head().qRows;
    Index row = token;
    if (!stored.empty()) {
      const auto found = std::lower_bound(stored.begin(), stored.end(), token);
      if (found == stored.end() || *found != token) return;
      row = found - stored.begin();
    }
    point(row < map.rows() ? map.positionOfQueryRow(row) : -1);
  }

  void setCluster(Index cluster) {
    if (cluster == m_cluster) return;
    m_cluster = cluster;
    showCluster();
  }

  /// The cluster's tokens bright, the tokens it keeps (or is kept by) at half: where it is and where it looks.
  void showCluster() {
    if (!m_shown || m_cluster < 0) return;
    m_sizes->setCurrent(m_cluster);
    const Plan& plan = m_shown->result->plan;
    const HeadData& head = m_shown->model->head();
    const bool keys = showsKeys();
    const std::vector<Index>& own = keys ? plan.kBounds : plan.qBounds;
    const std::vector<Index>& other = keys ? plan.qBounds : plan.kBounds;
    if (m_cluster + 1 >= static_cast<Index>(own.size())) return;
    const AttentionMap& map = *m_shown->computed;
    std::vector<float> values(static_cast<std::size_t>(head.layout.tokenCount),
                              std::numeric_limits<float>::quiet_NaN());
    const auto token = [&](Index position, bool key) {
      return key ? map.keyAt(position) : head.queryToken(map.queryRowAt(position));
    };
    const auto fill = [&](const std::vector<Index>& bounds, Index block, bool key, float value) {
      for (Index p = bounds[static_cast<std::size_t>(block)]; p < bounds[static_cast<std::size_t>(block) + 1]; ++p) {
        const Index t = token(p, key);
        if (t >= 0 && t < head.layout.tokenCount) values[static_cast<std::size_t>(t)] = value;
      }
    };
    Index partners = 0, partnerTokens = 0;
    const Index kBlocks = plan.kBlocks();
    if (!plan.blockMask.empty()) {
      for (Index b = 0; b + 1 < static_cast<Index>(other.size()); ++b) {
        const Index q = keys ? b : m_cluster, k = keys ? m_cluster : b;
        if (plan.blockMask[static_cast<std::size_t>(q * kBlocks + k)] == 0) continue;
        ++partners;
        partnerTokens += other[static_cast<std::size_t>(b) + 1] - other[static_cast<std::size_t>(b)];
        fill(other, b, !keys, kPartner);
      }
    }
    fill(own, m_cluster, keys, kMember);
    m_frames->setValues(std::move(values), {});
    ColorSettings colors;
    colors.palette = defaultPalette(Theme::current().dark);
    colors.range = {0.0, 1.05, ValueScale::Linear};
    m_frames->setColors(colors);
    const Index size = own[static_cast<std::size_t>(m_cluster) + 1] - own[static_cast<std::size_t>(m_cluster)];
    m_readout->setText((keys ? tr("key cluster %1: %2 tokens (bright), kept by %3 query clusters with %4 tokens (%5)")
                             : tr("query cluster %1: %2 tokens (bright), keeps %3 key clusters with %4 tokens (%5)"))
                           .arg(m_cluster)
                           .arg(formatCount(size), formatCount(partners), formatCount(partnerTokens),
                                formatPercent(static_cast<double>(partnerTokens) /
                                              static_cast<double>(std::max<Index>(1, other.back())))));
  }

  static constexpr float kMember = 1.0F, kPartner = 0.4F;
  TileCanvas *m_model, *m_computed, *m_empty = nullptr;
  ClusterSizes* m_sizes;
  FramesCanvas* m_frames;
  MapHeader* m_header = nullptr;
  CaptionCombo *m_side = nullptr, *m_pooling = nullptr;
  QLabel *m_modelCaption = nullptr, *m_computedCaption = nullptr;
  NoteLabel* m_readout = nullptr;
  QSplitter* m_body = nullptr;
  std::shared_ptr<BothOrders> m_shown;
  Index m_cluster = -1, m_wantedCluster = -1;
  HeadId m_loadingId;
  HeadResult m_loadingResult;
  PreviewLoader* m_preview = nullptr;
  bool m_loading = false, m_fitPending = true;
  JobHandle m_job;  // last: jobs end before what they use
};

}  // namespace

const ViewInfo& permutation_info() {
  static const ViewInfo info{
      "permutation",
      QT_TRANSLATE_NOOP("View", "Permutation"),
      DockArea::Centre,
      3,
      "permutation",
      "views.md#permutation",
      [](Session& session, QWidget* parent) -> View* { return new PermutationView(session, parent); },
      true};
  return info;
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
// What one query token attends to, on the frames of the video itself: tokens folded back to frames x rows x columns.
#include <QJsonObject>
#include <QPointer>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "sparsight/core/attention_map.h"
#include "ui/frames_canvas.h"
#include "ui/map_header.h"
#include "ui/open_buttons.h"
#include "ui/preview_loader.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {
namespace {

/// One row of the attention map, by key token.
struct QueryRow {
  HeadId id;
  TokenLayout layout;
  Index query = -1;                ///< model token of the row that was computed
  bool moved = false;              ///< the asked token was not stored; `query` is the nearest that was
  std::vector<float> p;            ///< [keys]; NaN: masked
  std::vector<std::uint8_t> kept;  ///< [keys]; empty: no plan
};

/// 1 where the plan keeps the key for this stored query row.
std::vector<std::uint8_t> keptKeys(const Plan& plan, Index row, const std::vector<float>& p) {
  std::vector<std::uint8_t> kept(p.size(), 0);
  if (plan.keyCount != static_cast<Index>(p.size()) || row >= plan.queryCount) return {};
  if (!plan.rowCount.empty()) {
    // The rowCount most probable keys; ties to the lowest key.
    std::vector<Index> order(p.size());
    std::iota(order.begin(), order.end(), Index{0});
    const auto value = [&](Index i) {
      const float v = p[static_cast<std::size_t>(i)];
      return std::isnan(v) ? -1.0F : v;
    };
    const auto count =
        std::min<std::size_t>(static_cast<std::size_t>(plan.rowCount[static_cast<std::size_t>(row)]), p.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                      [&](Index a, Index b) { return value(a) != value(b) ? value(a) > value(b) : a < b; });
    for (std::size_t i = 0; i < count; ++i) kept[static_cast<std::size_t>(order[i])] = 1;
    return kept;
  }
  Index position = row;
  if (!plan.qOrder.empty()) {
    const auto found = std::find(plan.qOrder.begin(), plan.qOrder.end(), row);
    if (found == plan.qOrder.end()) return {};
    position = found - plan.qOrder.begin();
  }
  for (const Interval& run : plan.keptIntervals(position)) {
    for (Index i = run.first; i < run.last; ++i) {
      kept[static_cast<std::size_t>(plan.kOrder.empty() ? i : plan.kOrder[static_cast<std::size_t>(i)])] = 1;
    }
  }
  return kept;
}

class FramesView : public View {
 public:
  FramesView(Session& session, QWidget* parent) : View(session, parent), m_canvas(new FramesCanvas(this)) {
    m_preview = new PreviewLoader(session, *m_canvas, "frames-view/preview");
    m_header = new MapHeader(this);
    m_scale = new CaptionCombo(tr("scale"), m_header);
    m_scale->addItem(tr("log"), QStringLiteral("log"));
    m_scale->addItem(tr("linear"), QStringLiteral("linear"));
    m_scale->setToolTip(tr("Colour scale, from the row's smallest shown to its largest probability"));
    m_ground = new CaptionCombo(tr("ground"), m_header);
    m_ground->addItem(tr("video"), QStringLiteral("video"));
    m_ground->addItem(tr("plain"), QStringLiteral("plain"));
    m_ground->setToolTip(tr("What lies under the colours: the preview frames of the trace, or nothing"));
    m_overlay = new CaptionCombo(tr("overlay"), m_header);
    m_overlay->addItem(tr("none"), QStringLiteral("none"));
    m_overlay->addItem(tr("kept"), QStringLiteral("kept"));
    m_overlay->setToolTip(tr("Greys the tokens that the selected method skips for this query"));
    for (QWidget* control : {m_scale, m_ground, m_overlay}) m_header->addControl(control);
    m_readout = new NoteLabel(this, false);
    m_readout->setObjectName(QStringLiteral("framesReadout"));
    m_limits = new NoteLabel(this, false);
    m_limits->setObjectName(QStringLiteral("framesLimits"));
    auto* foot = new QHBoxLayout;
    foot->setContentsMargins(Theme::kEdge, 2, Theme::kEdge, 2);
    foot->addWidget(m_readout);
    foot->addStretch();
    foot->addWidget(m_limits);
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(0, 0, 0, Theme::kUnit);
    column->setSpacing(0);
    column->addWidget(m_header);
    column->addWidget(m_canvas, 1);
    column->addLayout(foot);
    setFocusProxy(m_canvas);
    m_open = new OpenButtons(Qt::Horizontal, this);
    m_open->hide();

    connect(m_scale, &QComboBox::currentIndexChanged, this, [this] { recolor(); });
    connect(m_ground, &QComboBox::currentIndexChanged, this,
            [this] { m_canvas->setPreviewShown(m_ground->currentData().toString() == QStringLiteral("video")); });
    connect(m_overlay, &QComboBox::currentIndexChanged, this, [this] {
      m_wantKept = m_overlay->currentData().toString() == QStringLiteral("kept");
      showRow();
    });
    connect(m_canvas, &FramesCanvas::hovered, this, [this](Index token) {
      m_hovered = token;
      writeReadout();
    });
    connect(m_canvas, &FramesCanvas::queryPicked, this, [this](Index token) {
      this->session().setPair({token, this->session().pair().key < 0 ? token : this->session().pair().key});
    });
    connect(m_canvas, &FramesCanvas::keyPicked, this, [this](Index token) {
      this->session().setPair({queryToken(), token});
    });
    connect(m_canvas, &FramesCanvas::queryMoved, this,
            [this](int columns, int rows, int frames) { move(columns, rows, frames); });
    refresh();
  }

  void sessionChanged(ChangeFlags changes) override {
    if (changes & Change::Trace) {
      m_row.reset();
      m_rowJob.cancel();
      m_loading = false;
      loadPreview();
    }
    if (changes & Change::Theme) recolor();
    if (changes & (ChangeFlags(Change::Trace) | Change::Selection | Change::Pair | Change::Runs)) refresh();
  }
  [[nodiscard]] bool isSettled() const override { return !m_loading && !m_preview->isLoading(); }
  [[nodiscard]] QString hint() const override {
    return tr("click: query \u00b7 right click: key \u00b7 arrows move the query, Ctrl+arrows by frame");
  }
  [[nodiscard]] QJsonObject saveState() const override {
    return {{QStringLiteral("scale"), m_scale->currentData().toString()},
            {QStringLiteral("ground"), m_ground->currentData().toString()},
            {QStringLiteral("overlay"), m_wantKept ? QStringLiteral("kept") : QStringLiteral("none")}};
  }
  void restoreState(const QJsonObject& state) override {
    if (state.contains(QStringLiteral("scale"))) m_scale->select(state.value(QStringLiteral("scale")).toString());
    if (state.contains(QStringLiteral("ground"))) m_ground->select(state.value(QStringLiteral("ground")).toString());
    if (state.contains(QStringLiteral("overlay")))
      m_wantKept = state.value(QStringLiteral("overlay")).toString() == QStringLiteral("kept");
    m_canvas->setPreviewShown(m_ground->currentData().toString() == QStringLiteral("video"));
    refresh();
  }

 protected:
  void resizeEvent(QResizeEvent* event) override {
    View::resizeEvent(event);
    placeOpen();
  }
  void showEvent(QShowEvent* event) override {
    View::showEvent(event);
    loadPreview();
    refresh();
  }

 private:
  [[nodiscard]] const CallInfo* call() const {
    const std::optional<HeadId> id = session().selectedHead();
    return id && session().trace() ? session().trace()->info().find(id->call) : nullptr;
  }

  /// The picked query, else the middle of the middle frame.
  [[nodiscard]] Index queryToken() const {
    const CallInfo* c = call();
    if (c == nullptr) return -1;
    const Index picked = session().pair().query;
    if (picked >= 0 && picked < c->layout.tokenCount) return picked;
    const Segment* video = c->layout.video();
    if (video == nullptr) return -1;
    return video->start + (Index{video->frames / 2} * video->height + video->height / 2) * video->width +
           video->width / 2;
  }

  void move(int columns, int rows, int frames) {
    const CallInfo* c = call();
    if (c == nullptr) return;
    const Index token = queryToken();
    const Segment* video = c->layout.video();
    const auto cell = c->layout.cellOf(token);
    Index next = token;
    if (cell && video != nullptr) {
      const int f = std::clamp(cell->frame + frames, 0, video->frames - 1);
      const int y = std::clamp(cell->y + rows, 0, video->height - 1);
      const int x = std::clamp(cell->x + columns, 0, video->width - 1);
      next = video->start + (Index{f} * video->height + y) * video->width + x;
    } else if (const Segment* segment = c->layout.segmentOf(token)) {
      next = std::clamp(token + columns, segment->start, segment->start + segment->length - 1);
    }
    if (next != token) session().setPair({next, session().pair().key < 0 ? next : session().pair().key});
  }

  void message(const QString& title, const QString& text) {
    m_rowJob.cancel();
    m_loading = false;
    m_row.reset();
    m_canvas->setMessage(title, text);
    m_readout->clear();
    m_limits->clear();
  }

  void placeOpen() {
    m_open->adjustSize();
    const QRect room = m_canvas->geometry();
    m_open->move(room.center().x() - m_open->width() / 2, room.center().y() + m_open->height() + Theme::kGroupGap);
    m_open->raise();
  }

  void loadPreview() {
    const auto& trace = session().trace();
    m_ground->setVisible(trace && trace->info().frames.has_value());
    m_preview->show(isVisible() ? trace : nullptr);  // hidden: asked again when shown
  }

  void refresh() {
    const auto& trace = session().trace();
    m_header->setVisible(trace != nullptr);
    m_open->setVisible(trace == nullptr);
    if (!trace) {
      placeOpen();
      return message(tr("No trace is open"), tr("Here a query token's attention lies on the frames of the video."));
    }
    const Selection& selection = session().selection();
    m_header->setTitle(
        tr("L%1 \u00b7 H%2 \u00b7 step %3").arg(selection.layer).arg(selection.head).arg(selection.step));
    const std::optional<HeadId> id = session().selectedHead();
    const CallInfo* c = call();
    if (!id || c == nullptr) return message(tr("This head was not captured"), tr("Choose another in the heads view."));
    if (c->layout.video() == nullptr)
      return message(tr("No video grid"), tr("The tokens of this call have no frames x rows x columns to lie on."));
    if (!isVisible()) return;  // asked again when shown
    const HeadResult result = session().selectedResult();
    m_overlay->setVisible(result != nullptr);
    m_overlay->select(m_wantKept ? QStringLiteral("kept") : QStringLiteral("none"));
    const Index query = queryToken();
    const bool same = m_row && m_row->id == *id && m_asked == query && m_result == result;
    if (same) return showRow();
    compute(trace, *id, query, result);
  }

  void compute(const std::shared_ptr<const Trace>& trace, const HeadId& id, Index query, const HeadResult& result) {
    if (m_loading && m_loadingId == id && m_loadingQuery == query && m_loadingResult == result) return;
    m_loading = true;
    m_loadingId = id;
    m_loadingQuery = query;
    m_loadingResult = result;
    JobSpec spec;
    spec.name = "Attention of a query";
    spec.lane = Lane::Tiles;
    spec.supersedeTag = "frames-view/row";
    spec.priority = 600;
    using Row = std::shared_ptr<QueryRow>;
    const QPointer<FramesView> self(this);
    m_rowJob = session().jobs().submit<Row>(
        spec,
        [trace, id, query, result](JobContext& context) {
          auto out = std::make_shared<QueryRow>();
          const HeadData head = trace->loadScores(id, context.stop());
          out->id = id;
          out->layout = head.layout;
          Index row = query;
          if (!head.qRows.empty()) {
            auto found = std::lower_bound(head.qRows.begin(), head.qRows.end(), query);
            if (found == head.qRows.end() || (found != head.qRows.begin() && *found - query > query - *(found - 1)))
              --found;
            row = found - head.qRows.begin();
          }
          row = std::clamp<Index>(row, 0, head.input.q.rows - 1);
          out->query = head.queryToken(row);
          out->moved = out->query != query;
          const TileRect rect{row, row + 1, 0, head.input.k.rows, 1, head.input.k.rows};
          out->p = mapRegion(head, rect, Reduce::Max, {}, {}, context.backend(), context.control());
          if (result) out->kept = keptKeys(result->plan, row, out->p);
          return out;
        },
        [self, query, result](Outcome<Row> outcome) {
          if (!self || std::holds_alternative<Cancelled>(outcome)) return;
          if (self->m_loadingQuery != query || self->m_loadingResult != result) return;
          self->m_loading = false;
          if (const auto* error = std::get_if<Error>(&outcome))
            return self->message(tr("This row cannot be shown"), QString::fromUtf8(error->what()));
          self->m_row = std::move(std::get<Row>(outcome));
          self->m_asked = query;
          self->m_result = result;
          self->showRow();
        });
  }

  void recolor() {
    if (!m_row) return;
    ColorSettings colors;
    colors.palette = defaultPalette(Theme::current().dark);
    const bool linear = m_scale->currentData().toString() == QStringLiteral("linear");
    float top = 0;
    for (const float p : m_row->p)
      if (!std::isnan(p)) top = std::max(top, p);
    // Three decades below the row's largest: what lies under them adds up to little and would only veil the video.
    colors.range.scale = linear ? ValueScale::Linear : ValueScale::Log;
    colors.range.maximum = top > 0 ? static_cast<double>(top) : 1.0;
    colors.range.minimum = linear ? 0.0 : colors.range.maximum * 1e-3;
    m_canvas->setColors(colors);
    m_limits->setText(
        tr("colours p %1 to %2").arg(formatNumber(colors.range.minimum), formatNumber(colors.range.maximum)));
  }

  void showRow() {
    if (!m_row) return;
    m_canvas->setMessage({}, {});
    m_canvas->setLayoutOf(m_row->layout);
    m_canvas->setValues(m_row->p, m_wantKept ? m_row->kept : std::vector<std::uint8_t>{});
    recolor();
    m_canvas->setMarks(m_row->query, session().pair().key);
    writeReadout();
  }

  void writeReadout() {
    if (!m_row) return m_readout->clear();
    const auto describe = [&](Index token) { return QString::fromStdString(m_row->layout.describe(token)); };
    const Index picked = session().pair().key;
    const Index key = m_hovered >= 0 ? m_hovered : picked;
    QString text = tr("query %1").arg(describe(m_row->query));
    if (m_row->moved) text += tr(" (nearest captured)");
    if (key >= 0 && key < static_cast<Index>(m_row->p.size())) {
      const float p = m_row->p[static_cast<std::size_t>(key)];
      const auto valid = std::count_if(m_row->p.begin(), m_row->p.end(), [](float v) { return !std::isnan(v); });
      text += tr(" \u2192 key %1: ").arg(describe(key));
      text += std::isnan(p) ? tr("masked")
                            : tr("p %1, %2 \u00d7 uniform")
                                  .arg(formatNumber(static_cast<double>(p)),
                                       formatNumber(static_cast<double>(p) * static_cast<double>(valid)));
      if (!m_row->kept.empty() && m_wantKept)
        text += m_row->kept[static_cast<std::size_t>(key)] ? tr(" \u00b7 kept") : tr(" \u00b7 skipped");
    } else if (!m_row->kept.empty() && m_wantKept) {
      double mass = 0;
      Index count = 0;
      for (std::size_t i = 0; i < m_row->p.size(); ++i) {
        if (m_row->kept[i] == 0 || std::isnan(m_row->p[i])) continue;
        mass += static_cast<double>(m_row->p[i]);
        ++count;
      }
      text +=
          tr(" \u00b7 keeps %1 keys (%2) with %3 of its mass")
              .arg(formatCount(count), formatPercent(static_cast<double>(count) / static_cast<double>(m_row->p.size())),
                   formatPercent(mass));
    }
    m_readout->setText(text);
  }

  FramesCanvas* m_canvas;
  PreviewLoader* m_preview = nullptr;
  MapHeader* m_header = nullptr;
  CaptionCombo *m_scale = nullptr, *m_ground = nullptr, *m_overlay = nullptr;
  NoteLabel *m_readout = nullptr, *m_limits = nullptr;
  OpenButtons* m_open = nullptr;
  std::shared_ptr<QueryRow> m_row;
  Index m_asked = -1, m_hovered = -1, m_loadingQuery = -1;
  HeadId m_loadingId;
  HeadResult m_result, m_loadingResult;
  bool m_loading = false, m_wantKept = true;
  JobHandle m_rowJob;  // last: jobs end before what they use
};

}  // namespace

const ViewInfo& frames_info() {
  static const ViewInfo info{"frames",
                             QT_TRANSLATE_NOOP("View", "On the frames"),
                             DockArea::Centre,
                             2,
                             "frames",
                             "views.md#on-the-frames",
                             [](Session& session, QWidget* parent) -> View* { return new FramesView(session, parent); },
                             true};
  return info;
}

}  // namespace sparsight

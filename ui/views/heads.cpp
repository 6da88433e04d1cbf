// SPDX-License-Identifier: Apache-2.0
// Layers x heads of the selected step: class, kept fraction, kept mass, error, exact density; a click selects
// everywhere.
#include <QActionGroup>
#include <QGridLayout>
#include <QJsonObject>
#include <QLabel>
#include <QMenu>
#include <QPainter>
#include <QPushButton>
#include <QTimer>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <array>
#include <limits>

#include "ui/heads_facts.h"
#include "ui/heads_grid.h"
#include "ui/icons.h"
#include "ui/layout_pause.h"
#include "ui/open_buttons.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight {
namespace {

enum class Mode { Class, Kept, Mass, Error, Density };
struct ModeInfo {
  Mode mode;
  const char* key;    ///< in session files
  const char* title;  ///< on the mode button
  const char* meaning;
};
constexpr std::array<ModeInfo, 5> kModes{
    {{Mode::Class, "class", QT_TRANSLATE_NOOP("HeadsView", "by class"),
      QT_TRANSLATE_NOOP("HeadsView", "SVG's spatial / temporal vote on sampled rows; pale: small margin")},
     {Mode::Kept, "kept", QT_TRANSLATE_NOOP("HeadsView", "by kept %"),
      QT_TRANSLATE_NOOP("HeadsView", "kept (query, key) pairs of all valid pairs, of the shown method")},
     {Mode::Mass, "mass", QT_TRANSLATE_NOOP("HeadsView", "by kept mass"),
      QT_TRANSLATE_NOOP("HeadsView", "mean share of exact softmax probability on kept keys")},
     {Mode::Error, "error", QT_TRANSLATE_NOOP("HeadsView", "by output error"),
      QT_TRANSLATE_NOOP("HeadsView", "relative difference of the sparse and the dense output")},
     {Mode::Density, "density", QT_TRANSLATE_NOOP("HeadsView", "by exact density"),
      QT_TRANSLATE_NOOP("HeadsView", "share of keys a query needs for 95 % of its mass, from sampled rows")}}};

constexpr std::array kLegendClasses{HeadClass::Spatial, HeadClass::Temporal, HeadClass::Clustered,
                                    HeadClass::Sink,    HeadClass::Diffuse,  HeadClass::None};

/// Glyph, word and count per class that occurs; or the value range as a bar with its ends.
class Legend : public QWidget {
 public:
  explicit Legend(QWidget* parent = nullptr) : QWidget(parent) {
    setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Fixed);
  }
  void setCounts(std::vector<std::pair<HeadClass, int>> counts) {
    m_counts = std::move(counts);
    m_bar = false;
    QStringList words;
    for (const auto& [c, n] : m_counts) words << QStringLiteral("%1 %2").arg(word(c)).arg(n);
    setAccessibleName(words.join(QStringLiteral(", ")));
    updateGeometry();
    update();
  }
  void setRange(const QString& low, const QString& high, const QString& what) {
    m_bar = true;
    m_low = low;
    m_high = high;
    m_what = what;
    setAccessibleName(QStringLiteral("%1 %2 %3").arg(what, low, high));
    updateGeometry();
    update();
  }
  [[nodiscard]] QSize sizeHint() const override {
    const int perRow = columns();
    const int rows = m_bar ? 2 : std::max(1, (static_cast<int>(m_counts.size()) + perRow - 1) / perRow);
    return {200, rows * rowHeight() + 2};
  }

 protected:
  void paintEvent(QPaintEvent*) override {
    QPainter painter(this);
    const Theme& theme = Theme::current();
    const QFont small = fonts::secondary();
    painter.setFont(small);
    const QFontMetrics metrics(small);
    if (m_bar) {
      const QRectF bar(0, 4, width(), 8);
      QLinearGradient gradient(bar.topLeft(), bar.topRight());
      gradient.setColorAt(0, HeadsGrid::valueColor(0));
      gradient.setColorAt(1, HeadsGrid::valueColor(1));
      painter.fillRect(bar, gradient);
      painter.setPen(theme.secondary);
      const QRect line(0, 16, width(), metrics.height());
      painter.drawText(line, Qt::AlignLeft, m_low);
      painter.drawText(line, Qt::AlignRight, m_high);
      painter.setPen(theme.text);
      painter.drawText(line, Qt::AlignHCenter, m_what);
      return;
    }
    const int perRow = columns();
    // Close together on the left: a number far from its word is hard to pair.
    const int column = std::min(width() / perRow, 116);
    for (int i = 0; i < static_cast<int>(m_counts.size()); ++i) {
      const int x = i % perRow * column, y = i / perRow * rowHeight();
      const QRect row(x, y, column - Theme::kGroupGap, rowHeight());
      paintClassGlyph(painter, QRectF(x, y + (rowHeight() - 10) / 2.0, 10, 10),
                      m_counts[static_cast<std::size_t>(i)].first, theme);
      painter.setPen(theme.text);
      painter.drawText(row.adjusted(16, 0, 0, 0), Qt::AlignLeft | Qt::AlignVCenter,
                       word(m_counts[static_cast<std::size_t>(i)].first));
      painter.setPen(theme.secondary);
      painter.drawText(row, Qt::AlignRight | Qt::AlignVCenter,
                       QString::number(m_counts[static_cast<std::size_t>(i)].second));
    }
  }

 private:
  static QString word(HeadClass c) {
    return c == HeadClass::None
               ? QObject::tr("undecided")
               : QString::fromLatin1(headClassName(c).data(), static_cast<qsizetype>(headClassName(c).size()));
  }
  [[nodiscard]] int columns() const { return width() >= 184 ? 2 : 1; }
  [[nodiscard]] int rowHeight() const { return QFontMetrics(fonts::secondary()).height() + 6; }
  std::vector<std::pair<HeadClass, int>> m_counts;
  bool m_bar = false;
  QString m_low, m_high, m_what;
};

class HeadsView : public View {
  Q_OBJECT
 public:
  HeadsView(Session& session, QWidget* parent) : View(session, parent), m_facts(session.jobs()) {
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(Theme::kEdge - 4, 0, Theme::kEdge - 4, Theme::kPad);
    column->setSpacing(Theme::kUnit);
    auto* header = new QHBoxLayout;
    header->setContentsMargins(4, 0, 0, 0);
    m_title = new NoteLabel(nullptr, false);
    m_modeButton = new QPushButton;
    m_modeButton->setObjectName(QStringLiteral("headsMode"));
    m_modeButton->setProperty("link", true);
    m_modeButton->setAccessibleName(tr("What the head grid shows"));
    auto* menu = new QMenu(m_modeButton);
    auto* group = new QActionGroup(this);
    for (const ModeInfo& info : kModes) {
      QAction* action = menu->addAction(tr(info.title));
      action->setCheckable(true);
      action->setToolTip(tr(info.meaning));
      action->setObjectName(QStringLiteral("headsMode.%1").arg(QLatin1String(info.key)));
      group->addAction(action);
      connect(action, &QAction::triggered, this, [this, mode = info.mode] { setMode(mode); });
      m_modeActions.push_back(action);
    }
    menu->setToolTipsVisible(true);
    m_modeButton->setMenu(menu);
    header->addWidget(m_title, 1);
    header->addWidget(m_modeButton);
    column->addLayout(header);
    m_grid = new HeadsGrid;
    m_grid->setObjectName(QStringLiteral("headsGrid"));
    column->addWidget(m_grid, 1000);
    m_empty = new NoteLabel;
    m_empty->setAlignment(Qt::AlignCenter);
    m_open = new OpenButtons(Qt::Vertical);
    m_emptyBox = new QWidget;
    auto* emptyColumn = new QVBoxLayout(m_emptyBox);
    emptyColumn->setSpacing(Theme::kGroupGap);
    emptyColumn->addStretch(2);
    emptyColumn->addWidget(m_empty);
    emptyColumn->addWidget(m_open, 0, Qt::AlignHCenter);
    emptyColumn->addStretch(3);
    column->addWidget(m_emptyBox, 1000);
    m_legend = new Legend;
    auto* foot = new QVBoxLayout;
    foot->setContentsMargins(4, 4, 4, 0);
    foot->addWidget(m_legend);
    auto* progressRow = new QHBoxLayout;
    m_progress = new NoteLabel;
    m_pause = new QToolButton;
    m_pause->setObjectName(QStringLiteral("headsPause"));
    m_pause->setAutoRaise(true);
    progressRow->addWidget(m_progress, 1);
    progressRow->addWidget(m_pause);
    foot->addLayout(progressRow);
    column->addLayout(foot);
    column->addStretch(1);
    setFocusProxy(m_grid);

    connect(m_pause, &QToolButton::clicked, this, [this] { m_facts.setPaused(!m_facts.isPaused()); });
    connect(m_grid, &HeadsGrid::currentChanged, this, [this](int layer, int head) {
      Selection next = this->session().selection();
      next.layer = layer;
      next.head = head;
      this->session().setSelection(next);
    });
    // Many heads may become known within one turn; one repaint is enough.
    m_refresh.setSingleShot(true);
    m_refresh.setInterval(60);
    connect(&m_refresh, &QTimer::timeout, this, &HeadsView::refresh);
    connect(&m_facts, &HeadFactsStore::updated, this, [this] {
      if (!m_refresh.isActive()) m_refresh.start();
    });
    m_facts.setTrace(session.trace());
    setMode(Mode::Class);
    requestFacts();
  }

  void sessionChanged(ChangeFlags changes) override {
    if (changes & Change::Trace) m_facts.setTrace(session().trace());
    if (changes & (ChangeFlags(Change::Trace) | Change::Selection)) requestFacts();
    refresh();
  }

  [[nodiscard]] bool isSettled() const override {
    return (m_facts.isIdle() || m_facts.isPaused()) && !m_refresh.isActive();
  }
  [[nodiscard]] QString hint() const override { return tr("arrows move \u00B7 Ctrl+G go to \u00B7 , . step"); }

  [[nodiscard]] QJsonObject saveState() const override {
    return {{QStringLiteral("mode"), QLatin1String(kModes[static_cast<std::size_t>(m_mode)].key)}};
  }
  void restoreState(const QJsonObject& state) override {
    const QString key = state.value(QStringLiteral("mode")).toString();
    for (const ModeInfo& info : kModes)
      if (key == QLatin1String(info.key)) setMode(info.mode);
  }

 protected:
  void resizeEvent(QResizeEvent* event) override {
    View::resizeEvent(event);
    fitGrid();
  }

 private:
  /// No taller than its rows, so that the legend stands right below them.
  void fitGrid() { m_grid->setMaximumHeight(m_grid->idealHeight(m_grid->width())); }

  void setMode(Mode mode) {
    m_mode = mode;
    m_modeActions[static_cast<std::size_t>(mode)]->setChecked(true);
    updateModeButton();
    refresh();
  }
  void updateModeButton() {
    const ModeInfo& info = kModes[static_cast<std::size_t>(m_mode)];
    m_modeButton->setText(tr(info.title) + QStringLiteral(" \u25BE"));
    m_modeButton->setToolTip(tr(info.meaning));
  }

  [[nodiscard]] QString methodId() {
    if (!session().overlayMethod().isEmpty()) return session().overlayMethod();
    const QStringList methods = session().runs().methods();
    return methods.isEmpty() ? QString() : methods.front();
  }

  void requestFacts() {
    std::vector<HeadId> wanted;
    if (session().trace()) {
      const TraceInfo& info = session().trace()->info();
      const Selection& at = session().selection();
      for (const int layer : info.layers())
        for (const int head : info.heads())
          if (const std::optional<HeadId> id = session().headAt(at.step, at.branch, layer, head)) wanted.push_back(*id);
      // What is looked at first, then outwards from its layer.
      std::stable_sort(wanted.begin(), wanted.end(), [&](const HeadId& a, const HeadId& b) {
        return std::abs(a.call.layer - at.layer) < std::abs(b.call.layer - at.layer);
      });
    }
    m_facts.request(std::move(wanted));
  }

  void refresh() {
    const LayoutPause once({this});
    Session& s = session();
    const Selection& at = s.selection();
    std::vector<int> layers, heads;
    if (s.trace()) {
      const TraceInfo& info = s.trace()->info();
      const std::vector<int> capturedLayers = info.layers(), capturedHeads = info.heads();
      const int layerCount = std::max(info.model.numLayers, capturedLayers.empty() ? 0 : capturedLayers.back() + 1);
      const int headCount = std::max(info.model.numHeads, capturedHeads.empty() ? 0 : capturedHeads.back() + 1);
      for (int i = 0; i < layerCount; ++i) layers.push_back(i);
      for (int i = 0; i < headCount; ++i) heads.push_back(i);
    }
    const bool any = !layers.empty() && !heads.empty();
    m_grid->setVisible(any);
    m_legend->setVisible(any);
    m_emptyBox->setVisible(!any);
    m_open->setVisible(!s.trace());
    m_modeButton->setVisible(any);
    if (!any) {
      m_empty->setText(s.profile().isEmpty() ? tr("The heads of a trace appear here.")
                                             : tr("Heads appear here with a trace. The open profile is shown in the "
                                                  "heat maps and the budget editor."));
      m_title->clear();
      m_progress->clear();
      m_pause->hide();
      m_grid->setCells({}, {}, {});
      return;
    }
    const QString method = methodId();
    m_title->setText(m_mode == Mode::Class || m_mode == Mode::Density || method.isEmpty()
                         ? tr("%1 \u00D7 %2").arg(layers.size()).arg(heads.size())
                         : method);

    std::vector<HeadCell> cells;
    cells.reserve(layers.size() * heads.size());
    std::array<int, 6> counts{};
    QString problem;
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (const int layer : layers)
      for (const int head : heads) {
        HeadCell cell;
        const std::optional<HeadId> id = s.headAt(at.step, at.branch, layer, head);
        cell.captured = id.has_value();
        const HeadFacts* facts = id ? m_facts.find(*id) : nullptr;
        const HeadResult result = id && !method.isEmpty() ? s.runs().find(method, *id) : nullptr;
        describe(cell, layer, head, facts, result.get());
        if (facts != nullptr && !facts->error.empty() && !cell.classKnown && problem.isEmpty())
          problem = QString::fromStdString(facts->error);
        if (cell.captured) ++counts[static_cast<std::size_t>(cell.headClass)];
        if (cell.value) {
          low = std::min(low, *cell.value);
          high = std::max(high, *cell.value);
        }
        cells.push_back(std::move(cell));
      }
    m_grid->setShowsClasses(m_mode == Mode::Class);
    if (m_mode == Mode::Class) {
      std::vector<std::pair<HeadClass, int>> shown;
      for (const HeadClass c : kLegendClasses)
        if (counts[static_cast<std::size_t>(c)] > 0) shown.emplace_back(c, counts[static_cast<std::size_t>(c)]);
      m_legend->setCounts(std::move(shown));
    } else if (low <= high) {
      // Fractions are shown on their own scale from 0, errors too: a small spread must not look like a large one.
      const double from = m_mode == Mode::Mass ? std::min(low, 0.5) : 0.0;
      const double to = m_mode == Mode::Error  ? std::max(high, 1e-9)
                        : m_mode == Mode::Mass ? 1.0
                                               : std::max(high, 0.05);
      m_grid->setValueRange(from, to);
      m_legend->setRange(valueText(from, true), valueText(to, true),
                         tr(kModes[static_cast<std::size_t>(m_mode)].title).mid(3));
    } else {
      m_legend->setRange(QString(), QString(),
                         m_mode == Mode::Density ? tr("sampling heads\u2026") : tr("run a method to fill this in"));
    }
    m_grid->setCells(std::move(layers), std::move(heads), std::move(cells));
    fitGrid();
    m_grid->setCurrent(at.layer, at.head);

    const bool busy = !m_facts.isIdle();
    m_progress->setVisible(busy || !problem.isEmpty());
    m_progress->setRole(busy ? NoteLabel::Role::Secondary : NoteLabel::Role::Warning);
    if (!busy) m_progress->setText(problem);
    m_pause->setVisible(busy);
    if (busy) {
      m_progress->setText(m_facts.isPaused()
                              ? tr("paused at %1 of %2 heads").arg(m_facts.doneCount()).arg(m_facts.wantedCount())
                              : tr("sampling heads %1 of %2").arg(m_facts.doneCount()).arg(m_facts.wantedCount()));
      m_pause->setIcon(themedIcon(m_facts.isPaused() ? QStringLiteral("play") : QStringLiteral("pause")));
      m_pause->setToolTip(m_facts.isPaused() ? tr("Go on sampling heads") : tr("Pause sampling heads"));
      m_pause->setAccessibleName(m_pause->toolTip());
    }
  }

  [[nodiscard]] QString valueText(double value, bool withUnit) const {
    if (m_mode == Mode::Error || m_mode == Mode::Mass) return formatNumber(value);
    const QString percent = QString::number(value * 100, 'f', 1);
    return withUnit ? percent + QStringLiteral(" %") : percent;
  }

  void describe(HeadCell& cell, int layer, int head, const HeadFacts* facts, const HeadReport* result) const {
    QStringList words{tr("Layer %1 head %2").arg(layer).arg(head)};
    if (!cell.captured) {
      cell.accessible = words.front() + tr(", not captured at this step");
      return;
    }
    const bool ran = result != nullptr && result->skippedReason.empty();
    if (ran && result->plan.headClass != HeadClass::None) {
      cell.headClass = result->plan.headClass;
      cell.margin = result->plan.margin;
      cell.classKnown = true;
    } else if (facts != nullptr && facts->headClass != HeadClass::None) {
      cell.headClass = facts->headClass;
      cell.margin = facts->margin;
      cell.classKnown = true;
    }
    words << (cell.classKnown    ? QString::fromLatin1(headClassName(cell.headClass).data(),
                                                       static_cast<qsizetype>(headClassName(cell.headClass).size()))
              : facts != nullptr ? tr("class undecided")
                                 : tr("not sampled yet"));
    if (cell.margin) words << tr("margin %1").arg(QString::number(*cell.margin, 'f', 2));
    if (ran) {
      words << tr("kept %1 percent").arg(QString::number(result->evaluation.keptFraction * 100, 'f', 1));
      words << tr("kept mass %1").arg(QString::number(result->evaluation.keptMass, 'f', 3));
      if (result->evaluation.outputRelError)
        words << tr("error %1").arg(formatNumber(*result->evaluation.outputRelError));
    } else if (result != nullptr) {
      words << QString::fromStdString(result->skippedReason);
      cell.failed = true;
    }
    if (facts != nullptr && facts->error.empty())
      words << tr("exact density %1 percent").arg(QString::number(facts->stats.exactDensity * 100, 'f', 1));
    if (facts != nullptr && !facts->error.empty()) words << QString::fromStdString(facts->error);
    cell.accessible = words.join(QStringLiteral(", "));

    switch (m_mode) {
      case Mode::Class:
        break;
      case Mode::Kept:
        if (ran) cell.value = result->evaluation.keptFraction;
        break;
      case Mode::Mass:
        if (ran) cell.value = result->evaluation.keptMass;
        break;
      case Mode::Error:
        if (ran) cell.value = result->evaluation.outputRelError;
        break;
      case Mode::Density:
        if (facts != nullptr && facts->stats.evaluatedRows > 0) cell.value = facts->stats.exactDensity;
        break;
    }
    if (cell.value) cell.valueText = valueText(*cell.value, false);
  }

  HeadFactsStore m_facts;
  Mode m_mode = Mode::Class;
  QWidget* m_emptyBox;
  OpenButtons* m_open;
  NoteLabel *m_title, *m_empty, *m_progress;
  QPushButton* m_modeButton;
  QToolButton* m_pause;
  std::vector<QAction*> m_modeActions;
  HeadsGrid* m_grid;
  Legend* m_legend;
  QTimer m_refresh;
};

}  // namespace

const ViewInfo& heads_info() {
  static const ViewInfo info{"heads",
                             QT_TRANSLATE_NOOP("View", "Heads"),
                             DockArea::Left,
                             1,
                             "heads",
                             "views.md#heads",
                             [](Session& session, QWidget* parent) -> View* { return new HeadsView(session, parent); }};
  return info;
}

}  // namespace sparsight

#include "heads.moc"

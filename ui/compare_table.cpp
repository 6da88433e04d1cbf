// SPDX-License-Identifier: Apache-2.0
#include "ui/compare_table.h"

#include <QApplication>
#include <QClipboard>
#include <QGuiApplication>
#include <QHeaderView>
#include <QKeyEvent>
#include <QPainter>
#include <QStyledItemDelegate>
#include <algorithm>
#include <cmath>
#include <utility>

#include "ui/icons.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kRowHeight = 26;

/// Text in line with the header's padding; the current row is marked as in other tables.
class Delegate : public QStyledItemDelegate {
 public:
  using QStyledItemDelegate::QStyledItemDelegate;
  void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override {
    QStyleOptionViewItem cell = option;
    initStyleOption(&cell, index);
    const QString text = std::exchange(cell.text, QString());
    const QIcon icon = std::exchange(cell.icon, QIcon());
    cell.features &= ~QStyleOptionViewItem::HasDecoration;
    cell.state &= ~QStyle::State_HasFocus;
    QApplication::style()->drawControl(QStyle::CE_ItemViewItem, &cell, painter, cell.widget);
    painter->save();
    painter->setFont(cell.font);
    painter->setPen(cell.palette.color(QPalette::Text));
    const QRect room = option.rect.adjusted(8, 0, -8, 0);
    if (!icon.isNull()) icon.paint(painter, QRect(room.left(), room.center().y() - 7, 16, 16));
    painter->drawText(room, static_cast<int>(cell.displayAlignment | Qt::TextSingleLine),
                      QFontMetrics(cell.font).elidedText(text, Qt::ElideRight, room.width()));
    painter->restore();
  }
};

QString exactly(double value) { return QString::number(value, 'g', 12); }

const Method* methodOf(const QString& id) {
  const std::string wanted = id.toStdString();
  for (const Method* method : allMethods())
    if (method->id() == wanted) return method;
  return nullptr;
}

/// "+1.9" percentage points; of an output error the difference itself.
QString offBy(Budget budget, double difference) {
  QString number = budget == Budget::Error ? formatNumber(std::abs(difference))
                                           : QString::number(std::abs(difference) * 100.0, 'f', 1);
  if (number.toDouble() == 0.0) return number;
  return (difference < 0 ? QStringLiteral("\u2212") : QStringLiteral("+")) + number;
}

QString budgetText(Budget budget, double value) {
  return budget == Budget::Error ? formatNumber(value) : formatPercent(value);
}

/// "kept = 0.281", or what the method was given at its own setting.
QString settingText(const CompareAnswer& answer) {
  const Method* method = methodOf(answer.method);
  if (method == nullptr) return {};
  const auto shown = [method](const std::string& name, double value) {
    return QStringLiteral("%1 = %2").arg(QString::fromStdString(shownName(*method, name)),
                                         QString::number(shownValue(*method, name, value), 'g', 4));
  };
  if (answer.solution) return shown(answer.solution->knob, answer.solution->knobValue);
  QStringList given;
  for (const auto& [name, value] : answer.given.values()) {
    bool ok = false;
    const double number = QString::fromStdString(value).toDouble(&ok);
    given << (ok ? shown(name, number)
                 : QStringLiteral("%1 = %2").arg(QString::fromStdString(name), QString::fromStdString(value)));
  }
  return given.isEmpty() ? QObject::tr("defaults") : given.join(QStringLiteral(", "));
}

}  // namespace

QString formatFlops(double flops) {
  if (flops <= 0) return QStringLiteral("0");
  constexpr const char* kUnits[] = {"", "k", "M", "G", "T", "P", "E"};
  int unit = 0;
  while (flops >= 999.5 && unit < 6) {
    flops /= 1000.0;
    ++unit;
  }
  const int decimals = flops < 9.995 ? 2 : flops < 99.95 ? 1 : 0;
  return QStringLiteral("%1 %2")
      .arg(flops, 0, 'f', unit == 0 ? 0 : decimals)
      .arg(QLatin1String(kUnits[unit]))
      .trimmed();
}

CompareTable::CompareTable(QWidget* parent) : QTableWidget(0, kColumns, parent) {
  setObjectName(QStringLiteral("compareTable"));
  setAccessibleName(tr("Comparison of methods"));
  setEditTriggers(QAbstractItemView::NoEditTriggers);
  setSelectionBehavior(QAbstractItemView::SelectRows);
  setSelectionMode(QAbstractItemView::SingleSelection);
  setShowGrid(false);
  setAlternatingRowColors(true);
  setTabKeyNavigation(false);
  setFrameShape(QFrame::NoFrame);
  setWordWrap(false);
  setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
  setVerticalScrollMode(QAbstractItemView::ScrollPerPixel);
  verticalHeader()->hide();
  verticalHeader()->setDefaultSectionSize(kRowHeight);
  horizontalHeader()->setHighlightSections(false);
  horizontalHeader()->setMinimumSectionSize(40);
  const std::pair<QString, QString> heads[kColumns] = {
      {tr("method"), {}},
      {tr("setting"),
       tr("What the method was run with; at an equal budget its knob, at the value nearest to the budget.")},
      {tr("reached"), tr("The mean that the knob's value gives.")},
      {tr("off by"), tr("Reached less asked, in points. More than half a point is flagged.")},
      {tr("step"), tr("Distance of the reachable values around the budget: SVG moves in bands, AdaSpa in blocks.")},
      {tr("kept"), tr("Kept (query, key) pairs of all valid pairs; mean over the heads.")},
      {tr("skipped"), tr("The rest: pairs that are not computed.")},
      {tr("kept mass"), tr("Exact softmax probability on kept keys, mean over rows and heads.")},
      {tr("5th pct. row"), tr("Kept mass that 95 % of the rows exceed, mean over the heads.")},
      {tr("output error"), tr("Relative difference of sparse and dense output, mean over the heads.")},
      {tr("cosine"), tr("Cosine between sparse and dense output, mean over rows and heads.")},
      {tr("starved rows"), tr("Rows that keep no key, sum over the heads.")},
      {tr("time"), tr("Predicted attention time relative to dense attention: kept / %1 (the sparse kernel's speed per "
                      "operation) + the planner's share.")
                       .arg(kSparseEfficiency)},
      {tr("planner FLOP"), tr("Floating point operations of the planning, sum over the heads.")},
      {tr("of dense"), tr("The planner's operations as a share of dense attention's.")},
      {tr("attention FLOP"), tr("Operations of attention over the kept pairs, sum over the heads.")}};
  for (int column = 0; column < kColumns; ++column) {
    auto* item = new QTableWidgetItem(heads[column].first);
    item->setToolTip(heads[column].second);
    item->setTextAlignment((column == Method || column == Setting ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter);
    setHorizontalHeaderItem(column, item);
  }
  horizontalHeader()->setSectionResizeMode(QHeaderView::Fixed);
  setItemDelegate(new Delegate(this));
  fonts::give(horizontalHeader(), FontRole::Secondary);
  fill();
}

void CompareTable::restyle() { fill(); }

void CompareTable::setRows(std::vector<CompareRow> rows, const std::optional<BudgetTarget>& target) {
  const auto same = [](const std::optional<BudgetTarget>& a, const std::optional<BudgetTarget>& b) {
    return a.has_value() == b.has_value() && (!a || (a->budget == b->budget && a->value == b->value));
  };
  if (rows == m_rows && same(target, m_target)) return;  // progress changes captions thirty times a second
  m_rows = std::move(rows);
  m_target = target;
  fill();
}

void CompareTable::fill() {
  const Theme& theme = Theme::current();
  const int current = currentRow();
  clearSpans();
  setRowCount(static_cast<int>(m_rows.size()));
  for (int row = 0; row < rowCount(); ++row) {
    const CompareRow& from = m_rows[static_cast<std::size_t>(row)];
    QString texts[kColumns];
    QColor color = theme.text;
    bool flagged = false;
    texts[Method] = from.title;
    const CompareAnswer* answer = from.answer.get();
    const bool numbers = answer != nullptr && answer->error.empty() && answer->sum.heads > 0;
    if (numbers) {
      const RunSummary& sum = answer->sum;
      texts[Kept] = formatPercent(sum.keptFraction);
      texts[Skipped] = formatPercent(1.0 - sum.keptFraction);
      texts[Mass] = formatNumber(sum.keptMass);
      texts[MassP5] = formatNumber(sum.keptMassP5);
      texts[Error] = sum.outputRelError ? formatNumber(*sum.outputRelError) : tr("no V");
      texts[Cosine] = sum.outputCosine ? QString::number(*sum.outputCosine, 'f', 4) : QString();
      texts[Starved] = formatCount(sum.starvedRows);
      texts[Planner] = formatFlops(sum.plannerFlops);
      texts[PlannerShare] = formatPercent(sum.plannerShare());
      texts[Attention] = formatFlops(sum.attentionFlops);
      texts[Time] = formatPercent(sum.relativeTime(kSparseEfficiency));
      texts[Setting] = settingText(*answer);
      if (answer->solution && m_target) {
        const Solution& solution = *answer->solution;
        flagged = solution.flagged;
        texts[Reached] = budgetText(m_target->budget, solution.reached);
        texts[Off] = offBy(m_target->budget, solution.reached - solution.asked);
        if (solution.quantum > 0)
          texts[Step] = m_target->budget != Budget::Error && solution.quantum < 5e-5
                            ? tr("< 0.01 %")
                            : budgetText(m_target->budget, solution.quantum);
      } else if (m_target) {
        texts[Setting] = tr("no knob: as it is");
      }
      if (sum.skipped > 0) texts[Method] += tr(" (%1 heads left out)").arg(sum.skipped);
    } else {
      texts[Setting] = from.state;
      color = from.failed ? theme.warning : theme.secondary;
    }
    for (int column = 0; column < kColumns; ++column) {
      auto* cell = new QTableWidgetItem(texts[column]);
      const bool left = column == Method || column == Setting;
      cell->setTextAlignment((left ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter);
      cell->setFont(column == Method ? fonts::title() : column == Setting ? fonts::base() : fonts::tabular());
      cell->setForeground(column == Method                                  ? theme.text
                          : flagged && (column == Reached || column == Off) ? theme.warning
                                                                            : color);
      cell->setToolTip(texts[column]);
      if (flagged && column == Off) {
        cell->setIcon(QIcon(tintedPixmap(QStringLiteral("warning"), 16, theme.warning, devicePixelRatioF())));
        cell->setToolTip(tr("No value of the knob comes nearer to the budget"));
      }
      setItem(row, column, cell);
    }
    if (!numbers) setSpan(row, Setting, 1, kColumns - Setting);
  }
  for (const Column column : {Reached, Off, Step}) setColumnHidden(column, !m_target);
  // Columns as wide as what can stand in them, so that they do not move while results arrive.
  const QFontMetrics header(fonts::secondary()), cells(fonts::tabular());
  const int pad = 2 * Theme::kPad + 4;
  for (int column = 0; column < kColumns; ++column) {
    int width = header.horizontalAdvance(horizontalHeaderItem(column)->text());
    for (int row = 0; row < rowCount(); ++row) {
      if (column != Method && columnSpan(row, Setting) > 1) continue;
      const QTableWidgetItem& cell = *item(row, column);
      width =
          std::max(width, QFontMetrics(cell.font()).horizontalAdvance(cell.text()) + (cell.icon().isNull() ? 0 : 20));
    }
    if (column > Step) width = std::max(width, cells.horizontalAdvance(QStringLiteral("00.0 %")));
    setColumnWidth(column, width + pad);
  }
  horizontalHeader()->setMinimumHeight(kRowHeight);
  if (current >= 0 && current < rowCount()) setCurrentCell(current, 0);
  updateGeometry();
}

QSize CompareTable::sizeHint() const {
  return {600, horizontalHeader()->sizeHint().height() + kRowHeight * std::max(5, rowCount()) + 16};
}

QString CompareTable::tsv() const {
  QStringList lines{QStringLiteral(
      "method\theads\tskipped_heads\tasked\treached\tquantum\tflagged\tknob\tknob_value\tkept_fraction\tkept_mass\t"
      "kept_mass_p5\toutput_rel_error\toutput_cosine\tstarved_rows\tplanner_flops\tattention_flops\t"
      "dense_attention_flops\tplanner_share\tpredicted_relative_time")};
  for (const CompareRow& row : m_rows) {
    if (!row.answer || !row.answer->error.empty()) continue;
    const RunSummary& sum = row.answer->sum;
    QStringList cells{row.method, QString::number(sum.heads), QString::number(sum.skipped)};
    if (const auto& s = row.answer->solution) {
      cells << exactly(s->asked) << exactly(s->reached) << exactly(s->quantum)
            << (s->flagged ? QStringLiteral("true") : QStringLiteral("false")) << QString::fromStdString(s->knob)
            << exactly(s->knobValue);
    } else {
      for (int n = 0; n < 6; ++n) cells << QString();
    }
    cells << exactly(sum.keptFraction) << exactly(sum.keptMass) << exactly(sum.keptMassP5)
          << (sum.outputRelError ? exactly(*sum.outputRelError) : QString())
          << (sum.outputCosine ? exactly(*sum.outputCosine) : QString()) << QString::number(sum.starvedRows)
          << exactly(sum.plannerFlops) << exactly(sum.attentionFlops) << exactly(sum.denseFlops)
          << exactly(sum.plannerShare()) << exactly(sum.relativeTime(kSparseEfficiency));
    lines << cells.join(QLatin1Char('\t'));
  }
  return lines.join(QLatin1Char('\n')) + QLatin1Char('\n');
}

void CompareTable::keyPressEvent(QKeyEvent* event) {
  if (event->matches(QKeySequence::Copy)) {
    QGuiApplication::clipboard()->setText(tsv());
    return;
  }
  QTableWidget::keyPressEvent(event);
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "ui/stage_panel.h"

#include <QEvent>
#include <QFontDatabase>
#include <QGridLayout>
#include <QKeyEvent>
#include <QPainter>
#include <QStyle>
#include <QStyleOptionSlider>
#include <QVBoxLayout>
#include <algorithm>

#include "ui/layout_pause.h"
#include "ui/section_label.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

QString text(const std::string& s) { return QString::fromStdString(s); }

/// A share that is nearly all says how nearly: the difference is what is looked for.
QString shareOf(double fraction) {
  if (fraction > 0.995 && fraction < 1) {
    return QStringLiteral("%1 %").arg(std::min(fraction * 100, 99.999), 0, 'f', fraction > 0.9995 ? 3 : 2);
  }
  return formatPercent(fraction);
}

QString valueOf(const StageFact& fact) {
  switch (fact.kind) {
    case StageFact::Kind::Count:
      return formatCount(static_cast<qint64>(fact.value));
    case StageFact::Kind::Fraction:
      return shareOf(fact.value);
    case StageFact::Kind::Real:
      return formatNumber(fact.value);
    case StageFact::Kind::Text:
      break;
  }
  return text(fact.text);
}

}  // namespace

StagePanel::StagePanel(QWidget* parent)
    : QWidget(parent),
      m_chapter(new SectionLabel({}, this)),
      m_title(new WrapLabel(this)),
      m_text(new WrapLabel(this)),
      m_formula(new WrapLabel(this)),
      m_source(new NoteLabel(this)),
      m_note(new NoteLabel(this)),
      m_footnote(new NoteLabel(this)),
      m_grid(new QGridLayout) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(Theme::kEdge, Theme::kPad, Theme::kEdge, Theme::kPad);
  column->setSpacing(Theme::kPad);
  for (QLabel* label : {m_title, m_text, m_formula}) {
    label->setTextFormat(Qt::PlainText);
    label->setTextInteractionFlags(Qt::TextSelectableByMouse);
  }
  m_title->setObjectName(QStringLiteral("stageTitle"));
  m_text->setObjectName(QStringLiteral("stageText"));
  m_formula->setObjectName(QStringLiteral("stageFormula"));
  m_footnote->setObjectName(QStringLiteral("stageFootnote"));
  m_formula->setProperty("role", QStringLiteral("secondary"));
  m_note->setRole(NoteLabel::Role::Warning);
  m_grid->setContentsMargins(0, 0, 0, 0);
  m_grid->setHorizontalSpacing(Theme::kGroupGap);
  m_grid->setVerticalSpacing(Theme::kUnit);
  m_grid->setColumnStretch(0, 3);
  m_grid->setColumnStretch(1, 2);
  column->addWidget(m_chapter);
  column->addWidget(m_title);
  column->addWidget(m_text);
  column->addWidget(m_formula);
  column->addWidget(m_source);
  column->addSpacing(Theme::kUnit);
  column->addLayout(m_grid);
  column->addWidget(m_note);
  column->addStretch(1);
  column->addWidget(m_footnote);
  fonts::give(m_title, FontRole::Heading);
  fonts::give(m_formula, FontRole::Code);
}

void StagePanel::addFact(const QString& name, const QString& value, FontRole role) {
  if (m_used == m_rows.size()) {
    Row row{new WrapLabel(this), new WrapLabel(this), FontRole::Tabular};
    row.name->setProperty("role", QStringLiteral("secondary"));
    fonts::give(row.name, FontRole::Secondary);
    fonts::give(row.value, row.role);
    row.value->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
    row.value->setTextInteractionFlags(Qt::TextSelectableByMouse);
    const int line = static_cast<int>(m_rows.size());
    m_grid->addWidget(row.name, line, 0);
    m_grid->addWidget(row.value, line, 1);
    m_rows.push_back(row);
  }
  Row& row = m_rows[m_used++];
  if (row.role != role) fonts::give(row.value, row.role = role);
  row.name->setText(name);
  row.value->setText(value);
  row.name->show();
  row.value->show();
}

void StagePanel::setStage(const Stage& stage) {
  const LayoutPause once({this});
  m_chapter->setText(text(stage.chapter).toUpper());
  m_title->setText(text(stage.title));
  m_text->setText(text(stage.text));
  m_formula->setText(text(stage.formula));
  m_formula->setVisible(!stage.formula.empty());
  m_source->setText(tr("Source: %1").arg(text(stage.source)));
  m_source->setVisible(!stage.source.empty());
  m_used = 0;
  for (const StageFact& fact : stage.facts)
    // Equal figures stand below each other; words read better in the window's own font.
    addFact(text(fact.name), valueOf(fact), fact.kind == StageFact::Kind::Text ? FontRole::Base : FontRole::Tabular);
  QString note;
  if (stage.numbers) {
    const Evaluation& e = *stage.numbers;
    addFact(stage.last ? tr("kept (skipped)") : tr("kept (skipped), if it ended here"),
            tr("%1 (%2)").arg(formatPercent(e.keptFraction), formatPercent(1 - e.keptFraction)));
    addFact(stage.last ? tr("kept mass, measured") : tr("kept mass, measured, if it ended here"), shareOf(e.keptMass));
    addFact(tr("5th percentile row"), shareOf(e.keptMassP5));
    if (e.outputRelError) addFact(tr("output error"), formatNumber(*e.outputRelError));
    addFact(tr("measured on rows"), e.evaluatedRows < e.totalRows
                                        ? tr("%1 of %2").arg(formatCount(e.evaluatedRows), formatCount(e.totalRows))
                                        : tr("all %1").arg(formatCount(e.totalRows)));
  }
  for (std::size_t i = m_used; i < m_rows.size(); ++i) {
    m_rows[i].name->hide();
    m_rows[i].value->hide();
  }
  if (stage.dropped) note = tr("The pictures of this stage were left out to save memory.");
  m_note->setText(note);
  m_note->setVisible(!note.isEmpty());
}

void StagePanel::clear() {
  Stage nothing;
  setStage(nothing);
}

void StagePanel::setFootnote(const QString& footnote) { m_footnote->setText(footnote); }

QString StagePanel::numbersText() const {
  QString out;
  for (std::size_t i = 0; i < m_used; ++i)
    out += m_rows[i].name->text() + QLatin1Char('\t') + m_rows[i].value->text() + QLatin1Char('\n');
  return out;
}

StageSlider::StageSlider(QWidget* parent) : QSlider(Qt::Horizontal, parent) {
  setSingleStep(1);
  setPageStep(1);
}

void StageSlider::setChapters(std::vector<int> starts) {
  if (starts == m_starts) return;
  m_starts = std::move(starts);
  update();
}

int StageSlider::nextChapter() const {
  const auto next = std::upper_bound(m_starts.begin(), m_starts.end(), value());
  return next == m_starts.end() ? maximum() : *next;
}

int StageSlider::previousChapter() const {
  const auto here = std::lower_bound(m_starts.begin(), m_starts.end(), value());
  return here == m_starts.begin() ? minimum() : *std::prev(here);
}

void StageSlider::keyPressEvent(QKeyEvent* event) {
  switch (event->key()) {
    case Qt::Key_PageDown:
      return setValue(nextChapter());
    case Qt::Key_PageUp:
      return setValue(previousChapter());
    case Qt::Key_Space:
      return event->ignore();  // the view plays
    default:
      QSlider::keyPressEvent(event);
  }
}

void StageSlider::paintEvent(QPaintEvent* event) {
  QStyleOptionSlider option;
  initStyleOption(&option);
  const QRect handle = style()->subControlRect(QStyle::CC_Slider, &option, QStyle::SC_SliderHandle, this);
  const int span = width() - handle.width();
  {
    QPainter painter(this);
    const Theme& theme = Theme::current();
    for (const int start : m_starts) {
      if (maximum() <= minimum() || start <= minimum()) continue;
      const int x = QStyle::sliderPositionFromValue(minimum(), maximum(), start, span) + handle.width() / 2;
      painter.fillRect(QRectF(x - 0.5, height() / 2.0 - 9, 1, 18), theme.secondary);
    }
  }
  QSlider::paintEvent(event);
}

}  // namespace sparsight

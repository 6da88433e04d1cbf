// SPDX-License-Identifier: Apache-2.0
#include "ui/method_form.h"

#include <QCheckBox>
#include <QComboBox>
#include <QEvent>
#include <QGridLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QToolButton>
#include <algorithm>
#include <array>
#include <string_view>

#include "ui/icons.h"
#include "ui/layout_pause.h"
#include "ui/section_label.h"
#include "ui/style.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

/// Shared by all methods and seldom touched: folded away.
constexpr std::array<std::string_view, 8> kAdvanced{
    "first_times_fp",     "first_layers_fp",       "variant", "model_rule", "force_class",
    "sample_mse_max_row", "zero_step_kmeans_init", "align"};

QString text(const std::string& s) { return QString::fromStdString(s); }

bool isAdvanced(const ParamSpec& spec) {
  return std::find(kAdvanced.begin(), kAdvanced.end(), spec.name) != kAdvanced.end();
}

QString labelOf(const ParamSpec& spec) {
  // "sparsity" means kept in one method and skipped in another: where the unambiguous alias exists, that is the name.
  const bool kept =
      spec.name == "sparsity" && std::find(spec.aliases.begin(), spec.aliases.end(), "kept") != spec.aliases.end();
  QString label = kept ? QStringLiteral("kept") : text(spec.name);
  return label;
}

QString tooltipOf(const ParamSpec& spec, const std::string& defaultValue) {
  QString tip = QStringLiteral("<b>%1</b>").arg(text(spec.name).toHtmlEscaped());
  if (!spec.aliases.empty()) {
    QStringList aliases;
    for (const std::string& alias : spec.aliases) aliases << text(alias);
    tip += QObject::tr(" (also %1)").arg(aliases.join(QStringLiteral(", ")).toHtmlEscaped());
  }
  tip += QStringLiteral("<p>%1</p>").arg(text(spec.meaning).toHtmlEscaped());
  QStringList facts;
  if ((spec.type == ParamType::Int || spec.type == ParamType::Real) && spec.maximum > spec.minimum)
    facts << QObject::tr("range %1 to %2").arg(QString::number(spec.minimum), QString::number(spec.maximum));
  if (!spec.unit.empty()) facts << QObject::tr("in %1").arg(text(spec.unit));
  facts << QObject::tr("default %1").arg(defaultValue.empty() ? QObject::tr("none") : text(defaultValue));
  if (spec.perHead) facts << QObject::tr("a list a,b,\u2026 gives one value per head");
  tip += QStringLiteral("<p>%1</p>").arg(facts.join(QStringLiteral("; ")).toHtmlEscaped());
  if (!spec.source.empty()) tip += QStringLiteral("<p><i>%1</i></p>").arg(text(spec.source).toHtmlEscaped());
  return tip;
}

}  // namespace

MethodForm::MethodForm(QWidget* parent) : QWidget(parent), m_layout(new QGridLayout(this)) {
  const auto arrange = [](QGridLayout& grid) {
    grid.setContentsMargins(0, 0, 0, 0);
    grid.setHorizontalSpacing(Theme::kUnit);
    grid.setVerticalSpacing(Theme::kUnit);
    grid.setColumnStretch(0, 1);
  };
  arrange(*m_layout);
  m_more = new QToolButton(this);
  m_more->setObjectName(QStringLiteral("moreParameters"));
  m_more->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
  m_more->setAutoRaise(true);
  m_more->hide();
  m_advanced = new QWidget(this);
  arrange(*new QGridLayout(m_advanced));
  m_advanced->hide();
  connect(m_more, &QToolButton::clicked, this, [this] {
    m_folded = !m_folded;
    updateFold();
  });
}

void MethodForm::setMethod(const Method& method, const TraceInfo* trace) {
  setSpecs(method.params(), trace == nullptr ? std::map<std::string, std::string, std::less<>>{}
                                             : method.defaultsFor(*trace, ParamSet::parse(method.params(), {})));
}

MethodForm::Editor MethodForm::editorOf(ParamType type) {
  return type == ParamType::Choice ? Editor::Choice : type == ParamType::Bool ? Editor::Check : Editor::Line;
}

void MethodForm::prepare(std::span<const ParamSpec> specs) {
  std::map<std::pair<Editor, bool>, std::ptrdiff_t> needed;
  for (const ParamSpec& spec : specs) ++needed[{editorOf(spec.type), isAdvanced(spec)}];
  for (const auto& [what, count] : needed) {
    const auto [kind, advanced] = what;
    auto have = std::count_if(m_pool.begin(), m_pool.end(), [kind = kind, advanced = advanced](const auto& row) {
      return row->kind == kind && row->advanced == advanced;
    });
    for (; have < count; ++have) makeRow(kind, advanced);
  }
}

void MethodForm::setSpecs(std::span<const ParamSpec> specs, std::map<std::string, std::string, std::less<>> defaults) {
  const LayoutPause once({this, m_advanced});
  m_specs = specs;
  m_defaults = std::move(defaults);
  m_rows.clear();
  // A row keeps its place where the next parameter there is of the same kind.
  std::vector<Row*> before;
  for (const auto& row : m_pool) {
    if (row->spec != nullptr) before.push_back(row.get());
    row->spec = nullptr;
  }
  int line = 0, advancedLine = 0;
  QWidget* last = nullptr;
  const auto follow = [&last](QWidget* next) {
    if (last != nullptr) QWidget::setTabOrder(last, next);
    last = next;
  };
  bool anyAdvanced = false;
  for (const bool advanced : {false, true}) {
    for (const ParamSpec& spec : specs) {
      if (isAdvanced(spec) != advanced) continue;
      if (advanced && !anyAdvanced) {
        anyAdvanced = true;
        follow(m_more);
      }
      const auto given = m_defaults.find(spec.name);
      Row& row = takeRow(editorOf(spec.type), advanced);
      dress(row, spec, given == m_defaults.end() ? spec.defaultValue : given->second,
            (advanced ? advancedLine : line)++);
      follow(row.reset);
      follow(row.editor);
    }
  }
  for (Row* row : before)
    if (row->spec == nullptr) undress(*row);
  m_layout->removeWidget(m_more);
  m_layout->removeWidget(m_advanced);
  m_layout->addWidget(m_more, 2 * line, 0, 1, 3, Qt::AlignLeft);
  m_layout->addWidget(m_advanced, 2 * line + 1, 0, 1, 3);
  m_more->setVisible(anyAdvanced);
  m_advanced->setVisible(anyAdvanced && !m_folded);
  if (anyAdvanced) updateFold();
}

MethodForm::Row& MethodForm::takeRow(Editor kind, bool advanced) {
  for (const auto& row : m_pool)
    if (row->spec == nullptr && row->kind == kind && row->advanced == advanced) return *row;
  return makeRow(kind, advanced);
}

MethodForm::Row& MethodForm::makeRow(Editor kind, bool advanced) {
  Row& row = *m_pool.emplace_back(std::make_unique<Row>());
  row.kind = kind;
  row.advanced = advanced;
  QWidget* holder = advanced ? m_advanced : this;
  // A row of its own: one wide editor must not squeeze the names of all the others. Parts are children of the box from
  // the start: a new parent means new styles.
  row.box = new QWidget(holder);
  row.box->hide();
  row.label = new WrapLabel(row.box);
  row.label->setMinimumWidth(40);
  row.label->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
  row.reset = new QToolButton(row.box);
  switch (kind) {
    case Editor::Choice: {
      auto* combo = new QComboBox(row.box);
      connect(combo, &QComboBox::currentIndexChanged, this, [this, &row] { edited(row); });
      row.editor = combo;
      break;
    }
    case Editor::Check: {
      auto* check = new QCheckBox(row.box);
      connect(check, &QCheckBox::toggled, this, [this, &row] { edited(row); });
      row.editor = check;
      break;
    }
    case Editor::Line: {
      auto* line = new QLineEdit(row.box);
      connect(line, &QLineEdit::textChanged, this, [this, &row] { edited(row); });
      row.editor = line;
      break;
    }
  }
  row.label->setBuddy(row.editor);
  row.reset->setIcon(themedIcon(QStringLiteral("reset")));
  row.reset->setIconSize(QSize(12, 12));
  QSizePolicy keepSpace = row.reset->sizePolicy();
  keepSpace.setRetainSizeWhenHidden(true);
  row.reset->setSizePolicy(keepSpace);
  row.reset->hide();
  connect(row.reset, &QToolButton::clicked, this, [this, &row] {
    setValue(row, row.defaultValue);
    edited(row);
  });
  row.error = new NoteLabel(holder);
  row.error->setRole(NoteLabel::Role::Error);
  row.error->setObjectName(QStringLiteral("error."));
  row.error->hide();
  auto* across = new QHBoxLayout(row.box);
  across->setContentsMargins(0, 0, 0, 0);
  across->setSpacing(2);
  across->addWidget(row.label, 1);
  across->addWidget(row.reset);
  across->addWidget(row.editor);
  return row;
}

void MethodForm::dress(Row& row, const ParamSpec& spec, const std::string& defaultValue, int line) {
  row.spec = &spec;
  row.defaultValue = defaultValue;
  m_rows.push_back(&row);
  // Published names are long: they may break after an underscore.
  const QString shown = labelOf(spec), tip = tooltipOf(spec, defaultValue);
  row.label->setText(QString(shown).replace(QLatin1Char('_'), QStringLiteral("_\u200B")));
  row.label->setToolTip(tip);
  {
    const QSignalBlocker quiet(row.editor);
    if (auto* combo = qobject_cast<QComboBox*>(row.editor)) {
      QStringList choices;
      for (const std::string& choice : spec.choices) choices << text(choice);
      combo->clear();
      combo->addItems(choices);
    } else if (auto* edit = qobject_cast<QLineEdit*>(row.editor)) {
      edit->setAlignment(spec.type == ParamType::Text ? Qt::AlignLeft | Qt::AlignVCenter
                                                      : Qt::AlignRight | Qt::AlignVCenter);
      edit->setPlaceholderText(defaultValue.empty() ? tr("none") : QString());
    }
    setValue(row, defaultValue);
  }
  row.editor->setObjectName(QStringLiteral("param.%1").arg(text(spec.name)));
  row.editor->setAccessibleName(shown);
  row.editor->setAccessibleDescription(text(spec.meaning));
  row.editor->setToolTip(tip);
  fitWidth(row);
  row.reset->setToolTip(tr("Back to the default, %1").arg(defaultValue.empty() ? tr("none") : text(defaultValue)));
  row.reset->setAccessibleName(tr("Reset %1").arg(text(spec.name)));
  row.reset->hide();
  row.error->setObjectName(QStringLiteral("error.%1").arg(text(spec.name)));
  row.error->hide();
  row.valid = true;
  setLook(row.editor, "invalid", false);
  auto* grid = row.advanced ? static_cast<QGridLayout*>(m_advanced->layout()) : m_layout;
  grid->removeWidget(row.box);
  grid->removeWidget(row.error);
  grid->addWidget(row.box, 2 * line, 0, 1, 3);
  grid->addWidget(row.error, 2 * line + 1, 0, 1, 3);
  row.box->show();
}

void MethodForm::fitWidth(const Row& row) {
  row.editor->setFixedWidth(
      row.kind == Editor::Check ? 24 : static_cast<int>((row.kind == Editor::Choice ? 116 : 84) * fonts::scale()));
}

void MethodForm::changeEvent(QEvent* event) {
  QWidget::changeEvent(event);
  if (event->type() != QEvent::FontChange) return;
  for (const Row* row : m_rows) fitWidth(*row);
}

void MethodForm::undress(Row& row) {
  row.editor->setObjectName(QString());
  row.error->setObjectName(QStringLiteral("error."));
  row.box->hide();
  row.error->hide();
}

std::string MethodForm::valueOf(const Row& row) {
  if (const auto* combo = qobject_cast<const QComboBox*>(row.editor)) return combo->currentText().toStdString();
  if (const auto* check = qobject_cast<const QCheckBox*>(row.editor)) return check->isChecked() ? "true" : "false";
  const auto* line = qobject_cast<const QLineEdit*>(row.editor);
  return line->text().trimmed().toStdString();
}

void MethodForm::setValue(Row& row, const std::string& value) {
  if (auto* combo = qobject_cast<QComboBox*>(row.editor))
    combo->setCurrentText(text(value));
  else if (auto* check = qobject_cast<QCheckBox*>(row.editor))
    check->setChecked(value == "true" || value == "on" || value == "1" || value == "yes");
  else
    qobject_cast<QLineEdit*>(row.editor)->setText(text(value));
}

void MethodForm::edited(Row& row) {
  validate(row);
  bool isDefault = valueOf(row) == row.defaultValue;
  if (qobject_cast<QCheckBox*>(row.editor) != nullptr) {
    const bool on = row.defaultValue == "true" || row.defaultValue == "on" || row.defaultValue == "1";
    isDefault = qobject_cast<QCheckBox*>(row.editor)->isChecked() == on;
  }
  row.reset->setVisible(!isDefault);
  Q_EMIT changed();
}

void MethodForm::validate(Row& row) {
  QString message;
  const std::string value = valueOf(row);
  if (value != row.defaultValue || !value.empty()) {
    try {
      // The same check as the command line's; lists are checked value by value there.
      if (value != row.defaultValue)
        static_cast<void>(ParamSet::parse(std::span(row.spec, 1), {row.spec->name + "=" + value}));
    } catch (const Error& error) {
      message = QString::fromUtf8(error.what());
    }
  }
  row.valid = message.isEmpty();
  setLook(row.editor, "invalid", !row.valid);
  row.error->setText(message.isEmpty() ? QString() : QStringLiteral("\u26A0 ") + message);
  row.error->setVisible(!row.valid);
}

QStringList MethodForm::assignments() const {
  QStringList list;
  for (const Row* row : m_rows)
    if (!row->reset->isHidden() || valueOf(*row) != row->defaultValue) {
      const std::string value = valueOf(*row);
      if (qobject_cast<QCheckBox*>(row->editor) != nullptr && row->reset->isHidden()) continue;
      list << text(row->spec->name) + QLatin1Char('=') + text(value);
    }
  return list;
}

void MethodForm::setAssignments(const QStringList& assignments) {
  for (const QString& assignment : assignments) {
    const std::string name = assignment.section(QLatin1Char('='), 0, 0).toStdString();
    for (Row* row : m_rows)
      if (row->spec->name == name) setValue(*row, assignment.section(QLatin1Char('='), 1).toStdString());
  }
}

bool MethodForm::isValid() const {
  return std::all_of(m_rows.begin(), m_rows.end(), [](const Row* row) { return row->valid; });
}

void MethodForm::focusFirstError() {
  for (const Row* row : m_rows)
    if (!row->valid) {
      if (row->advanced && m_folded) {
        m_folded = false;
        updateFold();
      }
      row->editor->setFocus();
      return;
    }
}

ParamSet MethodForm::params() const {
  std::vector<std::string> list;
  for (const QString& assignment : assignments()) list.push_back(assignment.toStdString());
  ParamSet set = ParamSet::parse(m_specs, list);
  set.setDefaults([this] {
    auto defaults = m_defaults;
    for (const ParamSpec& spec : m_specs) defaults.try_emplace(spec.name, spec.defaultValue);
    return defaults;
  }());
  return set;
}

void MethodForm::resetAll() {
  for (Row* row : m_rows) {
    setValue(*row, row->defaultValue);
    edited(*row);
  }
}

void MethodForm::updateFold() {
  int changed = 0;
  for (const Row* row : m_rows)
    if (row->advanced && valueOf(*row) != row->defaultValue) ++changed;
  m_advanced->setVisible(!m_folded);
  m_more->setText(m_folded ? (changed > 0 ? tr("More parameters (%1 changed)").arg(changed) : tr("More parameters"))
                           : tr("Fewer parameters"));
  m_more->setIcon(QIcon(tintedPixmap(m_folded ? QStringLiteral("forward") : QStringLiteral("chevron-down"), 12,
                                     Theme::current().secondary, devicePixelRatioF())));
}

}  // namespace sparsight

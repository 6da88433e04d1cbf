// SPDX-License-Identifier: Apache-2.0
#include "ui/method_form.h"

#include <QCheckBox>
#include <QComboBox>
#include <QGridLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QStyle>
#include <QToolButton>
#include <algorithm>
#include <array>
#include <string_view>

#include "ui/icons.h"
#include "ui/section_label.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

/// Shared by all methods and seldom touched: folded away.
constexpr std::array<std::string_view, 8> kAdvanced{
    "first_times_fp",     "first_layers_fp",       "variant", "model_rule", "force_class",
    "sample_mse_max_row", "zero_step_kmeans_init", "align"};

QString text(const std::string& s) { return QString::fromStdString(s); }

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

void setInvalid(QWidget* editor, bool invalid) {
  if (editor->property("invalid").toBool() == invalid) return;
  editor->setProperty("invalid", invalid);
  editor->style()->unpolish(editor);
  editor->style()->polish(editor);
}

}  // namespace

MethodForm::MethodForm(QWidget* parent) : QWidget(parent), m_layout(new QGridLayout(this)) {
  m_layout->setContentsMargins(0, 0, 0, 0);
  m_layout->setHorizontalSpacing(Theme::kUnit);
  m_layout->setVerticalSpacing(Theme::kUnit);
  m_layout->setColumnStretch(0, 1);
}

void MethodForm::setMethod(const Method& method, const TraceInfo* trace) {
  setSpecs(method.params(), trace == nullptr ? std::map<std::string, std::string, std::less<>>{}
                                             : method.defaultsFor(*trace, ParamSet::parse(method.params(), {})));
}

void MethodForm::setSpecs(std::span<const ParamSpec> specs, std::map<std::string, std::string, std::less<>> defaults) {
  m_specs = specs;
  for (Row& row : m_rows)
    for (QWidget* widget : row.widgets) delete widget;
  m_rows.clear();
  delete m_more;
  m_more = nullptr;
  delete m_advanced;
  m_advanced = nullptr;
  m_defaults = std::move(defaults);
  const auto isAdvanced = [](const ParamSpec& spec) {
    return std::find(kAdvanced.begin(), kAdvanced.end(), spec.name) != kAdvanced.end();
  };
  const auto defaultOf = [this](const ParamSpec& spec) {
    const auto it = m_defaults.find(spec.name);
    return it == m_defaults.end() ? spec.defaultValue : it->second;
  };
  bool anyAdvanced = false;
  for (const ParamSpec& spec : specs) {
    if (isAdvanced(spec))
      anyAdvanced = true;
    else
      addRow(spec, defaultOf(spec), false);
  }
  if (anyAdvanced) {
    m_more = new QToolButton(this);
    m_more->setObjectName(QStringLiteral("moreParameters"));
    m_more->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    m_more->setAutoRaise(true);
    m_layout->addWidget(m_more, m_layout->rowCount(), 0, 1, 3, Qt::AlignLeft);
    m_advanced = new QWidget(this);
    auto* grid = new QGridLayout(m_advanced);
    grid->setContentsMargins(0, 0, 0, 0);
    grid->setHorizontalSpacing(m_layout->horizontalSpacing());
    grid->setVerticalSpacing(m_layout->verticalSpacing());
    grid->setColumnStretch(0, 1);
    m_layout->addWidget(m_advanced, m_layout->rowCount(), 0, 1, 3);
    connect(m_more, &QToolButton::clicked, this, [this] {
      m_folded = !m_folded;
      updateFold();
    });
    for (const ParamSpec& spec : specs)
      if (isAdvanced(spec)) addRow(spec, defaultOf(spec), true);
    updateFold();
  }
}

void MethodForm::addRow(const ParamSpec& spec, const std::string& defaultValue, bool advanced) {
  Row row;
  QWidget* holder = advanced ? m_advanced : this;
  QGridLayout* grid = advanced ? static_cast<QGridLayout*>(m_advanced->layout()) : m_layout;
  row.spec = &spec;
  row.defaultValue = defaultValue;
  row.advanced = advanced;
  // Published names are long: they may break after an underscore.
  QString name = labelOf(spec);
  auto* label = new WrapLabel(name.replace(QLatin1Char('_'), QStringLiteral("_\u200B")), holder);
  label->setToolTip(tooltipOf(spec, defaultValue));
  label->setMinimumWidth(40);
  label->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
  const std::size_t index = m_rows.size();
  switch (spec.type) {
    case ParamType::Choice: {
      auto* combo = new QComboBox(holder);
      for (const std::string& choice : spec.choices) combo->addItem(text(choice));
      connect(combo, &QComboBox::currentIndexChanged, this, [this, index] { edited(index); });
      row.editor = combo;
      break;
    }
    case ParamType::Bool: {
      auto* check = new QCheckBox(holder);
      connect(check, &QCheckBox::toggled, this, [this, index] { edited(index); });
      row.editor = check;
      break;
    }
    case ParamType::Int:
    case ParamType::Real:
    case ParamType::Text:
    case ParamType::IntList: {
      auto* line = new QLineEdit(holder);
      if (spec.type != ParamType::Text) line->setAlignment(Qt::AlignRight);
      line->setPlaceholderText(defaultValue.empty() ? tr("none") : QString());
      connect(line, &QLineEdit::textChanged, this, [this, index] { edited(index); });
      row.editor = line;
      break;
    }
  }
  row.editor->setObjectName(QStringLiteral("param.%1").arg(text(spec.name)));
  row.editor->setAccessibleName(labelOf(spec));
  row.editor->setAccessibleDescription(text(spec.meaning));
  row.editor->setToolTip(label->toolTip());
  row.editor->setFixedWidth(spec.type == ParamType::Bool
                                ? 24
                                : static_cast<int>((spec.type == ParamType::Choice ? 116 : 84) * fonts::scale()));
  label->setBuddy(row.editor);
  row.reset = new QToolButton(holder);
  row.reset->setIcon(themedIcon(QStringLiteral("reset")));
  row.reset->setIconSize(QSize(12, 12));
  row.reset->setToolTip(tr("Back to the default, %1").arg(defaultValue.empty() ? tr("none") : text(defaultValue)));
  row.reset->setAccessibleName(tr("Reset %1").arg(text(spec.name)));
  QSizePolicy keepSpace = row.reset->sizePolicy();
  keepSpace.setRetainSizeWhenHidden(true);
  row.reset->setSizePolicy(keepSpace);
  row.error = new NoteLabel(holder);
  row.error->setRole(NoteLabel::Role::Error);
  row.error->setObjectName(QStringLiteral("error.%1").arg(text(spec.name)));
  row.error->hide();
  const int line = grid->rowCount();
  // A row of its own: one wide editor must not squeeze the names of all the others.
  auto* box = new QWidget(holder);
  auto* across = new QHBoxLayout(box);
  across->setContentsMargins(0, 0, 0, 0);
  across->setSpacing(2);
  across->addWidget(label, 1);
  across->addWidget(row.reset);
  across->addWidget(row.editor);
  row.widgets = {box, row.error};  // the box owns the rest
  grid->addWidget(box, line, 0, 1, 3);
  grid->addWidget(row.error, line + 1, 0, 1, 3);
  connect(row.reset, &QToolButton::clicked, this, [this, index] {
    setValue(m_rows[index], m_rows[index].defaultValue);
    edited(index);
  });
  {
    const QSignalBlocker blocker(row.editor);
    setValue(row, defaultValue);
  }
  row.reset->hide();
  m_rows.push_back(std::move(row));
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

void MethodForm::edited(std::size_t index) {
  Row& row = m_rows[index];
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
  setInvalid(row.editor, !row.valid);
  row.error->setText(message.isEmpty() ? QString() : QStringLiteral("\u26A0 ") + message);
  row.error->setVisible(!row.valid);
}

QStringList MethodForm::assignments() const {
  QStringList list;
  for (const Row& row : m_rows)
    if (!row.reset->isHidden() || valueOf(row) != row.defaultValue) {
      const std::string value = valueOf(row);
      if (qobject_cast<QCheckBox*>(row.editor) != nullptr && row.reset->isHidden()) continue;
      list << text(row.spec->name) + QLatin1Char('=') + text(value);
    }
  return list;
}

void MethodForm::setAssignments(const QStringList& assignments) {
  for (const QString& assignment : assignments) {
    const std::string name = assignment.section(QLatin1Char('='), 0, 0).toStdString();
    for (Row& row : m_rows)
      if (row.spec->name == name) setValue(row, assignment.section(QLatin1Char('='), 1).toStdString());
  }
}

bool MethodForm::isValid() const {
  return std::all_of(m_rows.begin(), m_rows.end(), [](const Row& row) { return row.valid; });
}

void MethodForm::focusFirstError() {
  for (const Row& row : m_rows)
    if (!row.valid) {
      if (row.advanced && m_folded) {
        m_folded = false;
        updateFold();
      }
      row.editor->setFocus();
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
  for (std::size_t i = 0; i < m_rows.size(); ++i) {
    setValue(m_rows[i], m_rows[i].defaultValue);
    edited(i);
  }
}

void MethodForm::updateFold() {
  int changed = 0;
  for (const Row& row : m_rows)
    if (row.advanced && valueOf(row) != row.defaultValue) ++changed;
  m_advanced->setVisible(!m_folded);
  m_more->setText(m_folded ? (changed > 0 ? tr("More parameters (%1 changed)").arg(changed) : tr("More parameters"))
                           : tr("Fewer parameters"));
  m_more->setIcon(QIcon(tintedPixmap(m_folded ? QStringLiteral("forward") : QStringLiteral("chevron-down-accent"), 12,
                                     Theme::current().secondary, devicePixelRatioF())));
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/profile_facts_dialog.h"

#include <QDialogButtonBox>
#include <QFileInfo>
#include <QFormLayout>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QPushButton>
#include <QRegularExpression>
#include <QSpinBox>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "sparsight/kernels/error.h"
#include "ui/budget_edit.h"
#include "ui/icons.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

/// Core's lines name the command line's options; here they are the fields.
QString withoutOptions(QString line) {
  static const QRegularExpression inParentheses(QStringLiteral("\\s*\\(--[^)]*\\)")), number(QStringLiteral(" N\\b"));
  line.remove(inParentheses);
  line.replace(QLatin1String(" N --"), QLatin1String(", --"));
  for (const char* verb : {"says ", "holds ", "has "})
    if (line.startsWith(QLatin1String(verb))) line.prepend(ProfileFactsDialog::tr("The file "));
  if (line.contains(QLatin1String("--"))) line.remove(number);
  const std::pair<const char*, QString> fields[] = {{"--timesteps", ProfileFactsDialog::tr("Timesteps")},
                                                    {"--steps", ProfileFactsDialog::tr("Steps of the run")},
                                                    {"--layers", ProfileFactsDialog::tr("Layers")},
                                                    {"--heads", ProfileFactsDialog::tr("Heads")}};
  for (const auto& [option, field] : fields) line.replace(QLatin1String(option), field);
  return line;
}

QSpinBox* spin(const char* name, const QString& accessible) {
  auto* box = new QSpinBox;
  box->setObjectName(QLatin1String(name));
  box->setRange(0, 100'000);
  box->setSpecialValueText(ProfileFactsDialog::tr("as the file says"));  // 0
  box->setMinimumWidth(140);
  box->setAlignment(Qt::AlignRight);
  box->setAccessibleName(accessible);
  return box;
}

}  // namespace

ProfileFactsDialog::ProfileFactsDialog(Session& session, const QString& path, QWidget* parent)
    : QDialog(parent), m_session(session), m_path(path) {
  setObjectName(QStringLiteral("profileFactsDialog"));
  setWindowTitle(tr("Open budget of another program"));
  resize(560, 440);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(Theme::kEdge, Theme::kEdge, Theme::kEdge, Theme::kEdge);
  layout->setSpacing(Theme::kPad);
  auto* title = new ElidedLabel;
  title->setBold(true);
  title->setText(path);
  layout->addWidget(title);

  auto* form = new QFormLayout;
  form->setHorizontalSpacing(Theme::kGroupGap);
  form->setVerticalSpacing(Theme::kPad);
  m_steps = spin("facts.steps", tr("Denoising steps of the whole run"));
  m_layers = spin("facts.layers", tr("Layers of the model"));
  m_heads = spin("facts.heads", tr("Heads of a layer"));
  m_timesteps = new QLineEdit;
  m_timesteps->setObjectName(QStringLiteral("facts.timesteps"));
  m_timesteps->setPlaceholderText(tr("the schedule, if known: 999, 978, ..."));
  m_timesteps->setAccessibleName(tr("Timesteps of the whole schedule"));
  form->addRow(tr("Steps of the run"), m_steps);
  form->addRow(tr("Layers"), m_layers);
  form->addRow(tr("Heads"), m_heads);
  form->addRow(tr("Timesteps"), m_timesteps);
  layout->addLayout(form);

  auto* assumedTitle = new QLabel(tr("Taken for granted"));
  fonts::give(assumedTitle, FontRole::Title);
  layout->addWidget(assumedTitle);
  m_assumed = new QListWidget;
  m_assumed->setObjectName(QStringLiteral("facts.assumed"));
  m_assumed->setAccessibleName(assumedTitle->text());
  m_assumed->setSelectionMode(QAbstractItemView::NoSelection);
  m_assumed->setWordWrap(true);
  m_assumed->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  m_assumed->setIconSize(QSize(16, 16));
  m_assumed->setMinimumHeight(72);
  layout->addWidget(m_assumed, 1);
  m_state = new NoteLabel;
  m_state->setObjectName(QStringLiteral("facts.state"));
  m_state->setMinimumHeight(34);
  layout->addWidget(m_state);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Cancel);
  buttons->button(QDialogButtonBox::Cancel)->setIcon(QIcon());
  m_open = buttons->addButton(tr("Open"), QDialogButtonBox::AcceptRole);
  m_open->setObjectName(QStringLiteral("facts.open"));
  m_open->setProperty("primary", true);
  m_open->setDefault(true);
  m_open->setEnabled(false);
  layout->addWidget(buttons);

  for (QSpinBox* box : {m_steps, m_layers, m_heads}) connect(box, &QSpinBox::valueChanged, this, [this] { refresh(); });
  connect(m_timesteps, &QLineEdit::textChanged, this, [this] { refresh(); });
  connect(buttons, &QDialogButtonBox::accepted, this, [this] {
    if (m_read) accept();
  });
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  refresh();
}

ProfileFactsDialog::~ProfileFactsDialog() = default;

ProfileImportOptions ProfileFactsDialog::options() const {
  ProfileImportOptions options{m_steps->value(), m_layers->value(), m_heads->value(), {}};
  static const QRegularExpression separator(QStringLiteral("[\\s,;]+"));
  for (const QString& part : m_timesteps->text().split(separator, Qt::SkipEmptyParts)) {
    bool ok = false;
    options.timesteps.push_back(part.toDouble(&ok));
    if (!ok) options.timesteps.back() = std::numeric_limits<double>::quiet_NaN();  // refused in refresh()
  }
  return options;
}

void ProfileFactsDialog::refresh() {
  m_read.reset();
  m_open->setEnabled(false);
  const ProfileImportOptions said = options();
  if (std::any_of(said.timesteps.begin(), said.timesteps.end(), [](double t) { return std::isnan(t); })) {
    m_job = {};
    m_reading = false;
    m_state->setRole(NoteLabel::Role::Warning);
    m_state->setText(tr("Timesteps are numbers with commas between."));
    return;
  }
  m_reading = true;
  JobSpec spec;
  spec.name = tr("Read %1").arg(QFileInfo(m_path).fileName()).toStdString();
  spec.lane = Lane::Io;
  spec.supersedeTag = "profile.facts";
  m_job = m_session.jobs().submit<std::shared_ptr<const ProfileImport>>(
      std::move(spec),
      [file = std::filesystem::path(m_path.toStdString()), said](JobContext&) {
        const Importer* importer = importerFor(file);
        if (importer == nullptr || !importer->isProfile())
          throw Error(ErrorCode::Io, file.string() + ": changed since it was looked at; open it again");
        return std::make_shared<const ProfileImport>(importer->readProfile(file, said));
      },
      [this](Outcome<std::shared_ptr<const ProfileImport>> outcome) {
        if (std::holds_alternative<Cancelled>(outcome)) return;  // a newer one is on its way
        m_reading = false;
        m_assumed->clear();
        if (const Error* error = std::get_if<Error>(&outcome)) {
          m_state->setRole(NoteLabel::Role::Warning);
          m_state->setText(withoutOptions(QString::fromStdString(error->what()).remove(m_path + QStringLiteral(": "))));
          return;
        }
        m_read = std::get<std::shared_ptr<const ProfileImport>>(outcome);
        show(*m_read);
      });
}

void ProfileFactsDialog::show(const ProfileImport& read) {
  const auto add = [this](const char* icon, const std::string& line) {
    auto* item =
        new QListWidgetItem(themedIcon(QLatin1String(icon)), withoutOptions(QString::fromStdString(line)), m_assumed);
    item->setFlags(Qt::ItemIsEnabled);
  };
  for (const std::string& line : read.warnings) add("warning", line);
  for (const std::string& line : read.assumed) add("info", line);
  const Profile& p = read.profile;
  QString text = tr("%1 steps \u00B7 %2 layers \u00B7 %3 heads").arg(p.steps()).arg(p.layers()).arg(p.heads());
  if (p.holeCount() > 0) text += tr(" \u00B7 %1 cells without a value").arg(formatCount(p.holeCount()));
  if (const ProfileSummary summary = summarise(p); summary.count > 0) {
    text += QStringLiteral(" \u00B7 ") +
            (p.role == BudgetRole::TopMass
                 ? tr("mean attention mass %1 %").arg(budget::percentDigits(summary.mean))
                 : tr("mean kept %1 % (skipped %2 %)")
                       .arg(budget::percentDigits(summary.mean), budget::percentDigits(1 - summary.mean)));
  }
  m_state->setRole(NoteLabel::Role::Secondary);
  m_state->setText(text);
  m_open->setEnabled(true);
}

}  // namespace sparsight

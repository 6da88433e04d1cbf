// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/export_dialog.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDialogButtonBox>
#include <QDir>
#include <QDoubleSpinBox>
#include <QFileInfo>
#include <QFontDatabase>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QScrollArea>
#include <QSettings>
#include <QSignalBlocker>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "sparsight/core/files.h"
#include "sparsight/kernels/error.h"
#include "ui/budget_edit.h"
#include "ui/dialogs/file_dialogs.h"
#include "ui/icons.h"
#include "ui/method_form.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/settings.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kPreviewLines = 10;
QString text(std::string_view s) { return QString::fromUtf8(s.data(), static_cast<qsizetype>(s.size())); }

constexpr char kFormatKey[] = "export/target", kFillKey[] = "export/fill", kDirKey[] = "export/directory";

}  // namespace

ExportDialog::ExportDialog(Session& session, QWidget* parent) : QDialog(parent), m_session(session) {
  setObjectName(QStringLiteral("exportDialog"));
  setWindowTitle(tr("Export profile"));
  resize(680, 620);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(Theme::kEdge, Theme::kEdge, Theme::kEdge, Theme::kEdge);
  layout->setSpacing(Theme::kGroupGap);
  auto* form = new QFormLayout;
  form->setHorizontalSpacing(Theme::kGroupGap);
  form->setVerticalSpacing(Theme::kPad);
  form->setFieldGrowthPolicy(QFormLayout::ExpandingFieldsGrow);

  m_format = new QComboBox(this);
  m_format->setObjectName(QStringLiteral("export.format"));
  std::vector<const Exporter*> exporters(allExporters().begin(), allExporters().end());
  std::stable_sort(exporters.begin(), exporters.end(),
                   [](const Exporter* a, const Exporter* b) { return a->order() < b->order(); });
  for (const Exporter* exporter : exporters) m_format->addItem(text(exporter->title()), text(exporter->id()));
  form->addRow(tr("Target"), m_format);
  m_summary = new NoteLabel(this);
  m_summary->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Preferred);
  m_summary->setMinimumWidth(400);  // wraps at the dialog's width, not at a label's own idea of one
  form->addRow(QString(), m_summary);
  m_model = new QComboBox(this);
  m_model->setObjectName(QStringLiteral("export.model"));
  form->addRow(tr("Model"), m_model);
  m_form = form;
  m_more = new QToolButton(this);
  m_more->setObjectName(QStringLiteral("export.more"));
  m_more->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
  m_more->setAutoRaise(true);
  m_more->setCheckable(true);
  m_params = new MethodForm;
  m_params->setObjectName(QStringLiteral("export.params"));
  m_paramsArea = new QScrollArea(this);
  m_paramsArea->setWidgetResizable(true);
  m_paramsArea->setFrameShape(QFrame::NoFrame);
  m_paramsArea->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  m_paramsArea->setWidget(m_params);
  m_paramsArea->setFixedHeight(190);
  form->addRow(QString(), m_more);
  form->addRow(QString(), m_paramsArea);

  auto* pathRow = new QHBoxLayout;
  pathRow->setSpacing(Theme::kPad);
  m_path = new QLineEdit(this);
  m_path->setObjectName(QStringLiteral("export.path"));
  auto* browseButton = new QPushButton(tr("Browse..."), this);
  browseButton->setAutoDefault(false);
  pathRow->addWidget(m_path, 1);
  pathRow->addWidget(browseButton);
  form->addRow(tr("File"), pathRow);
  m_replace = new QCheckBox(tr("This file exists. Replace it"), this);
  m_replace->setObjectName(QStringLiteral("export.replace"));
  form->addRow(QString(), m_replace);

  auto* holesRow = new QHBoxLayout;
  holesRow->setSpacing(Theme::kPad);
  m_holes = new QLabel(this);
  m_holes->setObjectName(QStringLiteral("export.holes"));
  m_fill = new QComboBox(this);
  m_fill->setObjectName(QStringLiteral("export.fill"));
  m_fill->addItem(tr("do not export with holes"));
  m_fill->addItem(tr("fill from the nearest step"));
  m_fill->addItem(tr("fill from the last step before"));
  m_fill->addItem(tr("fill with"));
  m_fillValue = new QDoubleSpinBox(this);
  m_fillValue->setRange(0, 100);
  m_fillValue->setDecimals(2);
  m_fillValue->setSuffix(QStringLiteral(" %"));
  m_fillValue->setValue(100);
  holesRow->addWidget(m_holes);
  holesRow->addWidget(m_fill, 1);
  holesRow->addWidget(m_fillValue);
  form->addRow(tr("Holes"), holesRow);
  layout->addLayout(form);

  auto* previewTitle = new QLabel(tr("First lines"), this);
  fonts::give(previewTitle, FontRole::Title);
  layout->addWidget(previewTitle);
  m_preview = new QPlainTextEdit(this);
  m_preview->setObjectName(QStringLiteral("export.preview"));
  m_preview->setReadOnly(true);
  m_preview->setPlaceholderText(tr("Nothing to show until the checks below pass."));
  m_preview->setLineWrapMode(QPlainTextEdit::NoWrap);
  m_preview->setFont(QFontDatabase::systemFont(QFontDatabase::FixedFont));
  m_preview->setMinimumHeight(140);
  layout->addWidget(m_preview, 2);
  m_size = new QLabel(this);
  fonts::give(m_size, FontRole::Secondary);
  layout->addWidget(m_size);

  auto* checksTitle = new QLabel(tr("Checks"), this);
  fonts::give(checksTitle, FontRole::Title);
  layout->addWidget(checksTitle);
  m_checks = new QListWidget(this);
  m_checks->setObjectName(QStringLiteral("export.checks"));
  m_checks->setSelectionMode(QAbstractItemView::NoSelection);
  m_checks->setFocusPolicy(Qt::NoFocus);
  m_checks->setWordWrap(true);
  m_checks->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  m_checks->setIconSize(QSize(16, 16));
  m_checks->setMinimumHeight(118);
  layout->addWidget(m_checks, 1);
  m_load = new QLabel(this);
  m_load->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  m_load->setWordWrap(true);
  fonts::give(m_load, FontRole::Secondary);
  layout->addWidget(m_load);

  m_state = new QLabel(this);
  m_state->setObjectName(QStringLiteral("export.state"));
  m_state->setWordWrap(true);
  layout->addWidget(m_state);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Cancel, this);
  buttons->button(QDialogButtonBox::Cancel)->setIcon(QIcon());  // the only icon of the row would be on the wrong button
  m_export = buttons->addButton(tr("Export"), QDialogButtonBox::AcceptRole);
  m_export->setObjectName(QStringLiteral("export.go"));
  m_export->setDefault(true);
  layout->addWidget(buttons);

  const QSettings settings;
  m_format->setCurrentIndex(std::max(0, m_format->findData(settings.value(QLatin1String(kFormatKey)))));
  m_fill->setCurrentIndex(std::clamp(settings.value(QLatin1String(kFillKey), 0).toInt(), 0, 3));
  const ProfileDocument& document = m_session.profile();
  QString base =
      document.filePath().isEmpty() ? QStringLiteral("profile") : QFileInfo(document.filePath()).completeBaseName();
  const QString remembered = settings.value(QLatin1String(kDirKey)).toString();
  m_usualFolder = document.filePath().isEmpty() ? QDir::homePath() : QFileInfo(document.filePath()).absolutePath();
  m_path->setText(QDir(remembered.isEmpty() ? m_usualFolder : remembered).filePath(base + QLatin1Char('.') + suffix()));
  m_proposedFolder = remembered;

  showTarget();
  connect(m_format, &QComboBox::currentIndexChanged, this, [this] {
    const QFileInfo old(m_path->text());
    bool ours = false;  // a name's ending follows the target unless the user chose one of their own
    for (const Exporter* exporter : allExporters()) ours = ours || old.suffix() == text(exporter->suffix());
    showTarget();
    if (ours) m_path->setText(old.dir().filePath(old.completeBaseName() + QLatin1Char('.') + suffix()));
    refreshPreview();
  });
  connect(m_model, &QComboBox::currentIndexChanged, this, [this] {
    m_params->setSpecs(target().params(), target().defaultsFor(model()));
    refreshPreview();
  });
  connect(m_params, &MethodForm::changed, this, [this] { refreshPreview(); });
  connect(m_more, &QToolButton::toggled, this, [this] { showTarget(); });
  connect(m_fill, &QComboBox::currentIndexChanged, this, [this] { refreshPreview(); });
  connect(m_fillValue, &QDoubleSpinBox::valueChanged, this, [this] { refreshPreview(); });
  connect(m_path, &QLineEdit::textChanged, this, [this] {
    m_replace->setChecked(false);
    refreshPreview();  // some files say where others lie
  });
  connect(m_replace, &QCheckBox::toggled, this, [this] { refreshButton(); });
  connect(browseButton, &QPushButton::clicked, this, [this] { browse(); });
  connect(&m_session.profile(), &ProfileDocument::profileChanged, this, [this] { refreshPreview(); });
  connect(buttons, &QDialogButtonBox::accepted, this, [this] { write(); });
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  refreshPreview();
}

ExportDialog::~ExportDialog() = default;

const Exporter& ExportDialog::target() const { return exporterById(m_format->currentData().toString().toStdString()); }
QString ExportDialog::suffix() const { return text(target().suffix()); }
std::string ExportDialog::model() const { return m_model->currentData().toString().toStdString(); }
void ExportDialog::setTarget(const QString& id) { m_format->setCurrentIndex(std::max(0, m_format->findData(id))); }

/// The rows that the chosen target has: models that fit the grid first, parameters folded away.
void ExportDialog::showTarget() {
  const Exporter& exporter = target();
  m_summary->setText(text(exporter.summary()));
  const bool changed = m_shownTarget != &exporter;
  m_shownTarget = &exporter;
  if (changed) {
    const QSignalBlocker quiet(m_model);
    m_model->clear();
    m_model->addItem(tr("not said"), QString());
    const Profile& profile = m_session.profile().current();
    int fits = 0;
    for (const ExportModel& known : exporter.models()) {
      const bool fit = (known.layers == 0 || known.layers == profile.layers()) &&
                       (known.heads == 0 || known.heads == profile.heads());
      if (!fit) continue;
      m_model->addItem(QString::fromStdString(known.title), QString::fromStdString(known.key));
      if (known.layers != 0 && (known.steps == 0 || known.steps == profile.steps())) ++fits;
    }
    if (fits == 1 && m_model->count() == 2) m_model->setCurrentIndex(1);
    m_params->setSpecs(exporter.params(), exporter.defaultsFor(model()));
  }
  m_form->setRowVisible(m_model, !exporter.models().empty());
  m_form->setRowVisible(m_more, !exporter.params().empty());
  m_form->setRowVisible(m_paramsArea, !exporter.params().empty() && m_more->isChecked());
  m_more->setText(m_more->isChecked() ? tr("Fewer parameters") : tr("Parameters"));
  m_more->setArrowType(m_more->isChecked() ? Qt::DownArrow : Qt::RightArrow);
}

void ExportDialog::setPath(const QString& path) { m_path->setText(path); }
QString ExportDialog::path() const { return m_path->text().trimmed(); }
void ExportDialog::setFill(FillPolicy policy, double value) {
  if (policy == FillPolicy::Value) m_fillValue->setValue(value * 100);
  m_fill->setCurrentIndex(static_cast<int>(policy));
}
bool ExportDialog::isSettled() const { return !m_preparing && !m_writing; }

void ExportDialog::refreshPreview() {
  const Profile& profile = m_session.profile().current();
  const Exporter& exporter = target();
  const bool whole = exporter.wantsWholeGrid();
  const Index holes = profile.holeCount();
  m_holes->setText(holes == 0 ? tr("none")
                              : tr("%1 of %2 cells").arg(formatCount(holes), formatCount(profile.cellCount())));
  m_fill->setVisible(holes > 0 && whole);
  m_fillValue->setVisible(holes > 0 && whole && m_fill->currentIndex() == 3);
  m_preparing = true;
  m_prepared.reset();
  refreshButton();
  std::optional<FillPolicy> policy;
  if (whole) policy = static_cast<FillPolicy>(m_fill->currentIndex());
  const double value = m_fillValue->value() / 100;
  std::vector<std::string> assignments;
  for (const QString& assignment : m_params->assignments()) assignments.push_back(assignment.toStdString());
  const std::string name = m_session.profile().filePath().isEmpty()
                               ? std::string("this profile")
                               : QFileInfo(m_session.profile().filePath()).fileName().toStdString();
  const std::filesystem::path out(QFileInfo(path()).absoluteFilePath().toStdString());
  JobSpec spec;
  spec.name = "Prepare the export preview";
  spec.lane = Lane::Io;
  spec.supersedeTag = "export.preview";
  m_previewJob = m_session.jobs().submit<std::shared_ptr<const Prepared>>(
      spec,
      [profile, &exporter, policy, value, assignments, name, out, key = model()](JobContext&) {
        auto prepared = std::make_shared<Prepared>();
        try {
          prepared->output = prepareExport(
              exporter, {profile, name, key, ParamSet::parse(exporter.params(), assignments), policy, value, out});
        } catch (const Error& error) {
          prepared->error = QString::fromStdString(error.what());
        }
        const QFileInfo there(QString::fromStdString(out.string()));
        prepared->place = {there.isFile(), there.isDir(), there.dir().exists(), there.dir().absolutePath(), {}};
        for (const ExportFile& file : prepared->output.files) {
          const QFileInfo each(QString::fromStdString(file.path.string()));
          if (each != there && prepared->place.companion.isEmpty() && each.exists())
            prepared->place.companion = each.fileName();
        }
        return std::shared_ptr<const Prepared>(prepared);
      },
      [this](Outcome<std::shared_ptr<const Prepared>> outcome) {
        if (std::holds_alternative<Cancelled>(outcome)) return;  // a newer one is on its way
        m_preparing = false;
        if (const auto* failed = std::get_if<Error>(&outcome)) {
          auto prepared = std::make_shared<Prepared>();
          prepared->error = QString::fromStdString(failed->what());
          m_prepared = prepared;
        } else {
          m_prepared = std::get<std::shared_ptr<const Prepared>>(outcome);
        }
        // The folder of the last time may be gone; one that was chosen by hand is the user's to mend.
        const QString proposed = std::exchange(m_proposedFolder, QString());
        if (const QFileInfo to(path()); !proposed.isEmpty() && !m_prepared->place.hasFolder && to.path() == proposed) {
          m_path->setText(QDir(m_usualFolder).filePath(to.fileName()));
          return;  // prepared again
        }
        QString head;
        const std::vector<ExportFile>& files = m_prepared->output.files;
        const std::string& content = files.empty() ? std::string() : files.front().content;
        std::size_t at = 0;
        for (int i = 0; i < kPreviewLines && at < content.size(); ++i) {
          const std::size_t end = std::min(content.find('\n', at), content.size());
          head += QString::fromUtf8(content.data() + at, static_cast<qsizetype>(std::min<std::size_t>(end - at, 400)));
          head.remove(QLatin1Char('\r'));
          head += QLatin1Char('\n');
          at = end + 1;
        }
        const auto lines = std::count(content.begin(), content.end(), '\n');
        m_preview->setPlainText(head);
        QString size =
            content.empty()
                ? QString()
                : tr("%1 lines, %2 bytes").arg(formatCount(lines), formatCount(static_cast<qint64>(content.size())));
        for (std::size_t i = 1; i < files.size(); ++i) {
          size += (i == 1 ? tr(" \u00b7 beside it ") : QStringLiteral(", ")) +
                  QString::fromStdString(files[i].path.filename().string());
        }
        m_size->setText(size);
        refreshChecks();
        refreshButton();
      });
  refreshChecks();
}

void ExportDialog::refreshChecks() {
  const Profile& profile = m_session.profile().current();
  const bool whole = target().wantsWholeGrid();
  m_checks->clear();
  const auto add = [this](const char* icon, const QString& text) {
    m_checks->addItem(new QListWidgetItem(themedIcon(QLatin1String(icon)), text));
  };
  if (m_prepared && !m_prepared->error.isEmpty()) add("error", m_prepared->error);
  const ProfileSummary all = summarise(profile);
  add("info", tr("%1 steps x %2 layers x %3 heads, mean kept %4 % (skipped %5 %)")
                  .arg(profile.steps())
                  .arg(profile.layers())
                  .arg(profile.heads())
                  .arg(budget::percentDigits(all.mean), budget::percentDigits(1 - all.mean)));
  const Index holes = profile.holeCount();
  if (!whole && holes > 0 && m_prepared && m_prepared->output.holes > 0)
    add("info", tr("%1 holes are written as null").arg(formatCount(holes)));
  if (whole && holes > 0 && m_fill->currentIndex() != 0) {
    add("warning", tr("%1 holes are filled in the file only; the open profile keeps them").arg(formatCount(holes)));
  }
  if (const auto& trace = m_session.trace()) {
    const TraceInfo& info = trace->info();
    const auto compare = [&](int mine, int theirs, const QString& what) {
      if (theirs > 0 && mine != theirs) {
        add("warning", tr("the profile has %1 %2, the open trace's model %3: a runtime would look up wrong cells")
                           .arg(mine)
                           .arg(what)
                           .arg(theirs));
      }
    };
    compare(profile.steps(), info.run.numInferenceSteps, tr("steps"));
    compare(profile.layers(), info.model.numLayers, tr("layers"));
    compare(profile.heads(), info.model.numHeads, tr("heads"));
  }
  if (m_prepared) {
    for (const std::string& warning : m_prepared->output.warnings) add("warning", QString::fromStdString(warning));
    for (const std::string& note : m_prepared->output.notes) add("info", QString::fromStdString(note));
  }
  if (target().id() == "json") return;
  int locks = 0, notes = 0;
  for (int l = 0; l < profile.layers(); ++l) {
    locks += profile.layerLocked(l) ? 1 : 0;
    notes += profile.layerNote(l).empty() ? 0 : 1;
  }
  if (locks + notes > 0) {
    add("warning", tr("locks (%1) and notes (%2) are not part of it; JSON keeps them").arg(locks).arg(notes));
  }
}

void ExportDialog::refreshButton() {
  // Until the job has looked nothing can be written, and what was said last stays.
  const Place place = m_prepared ? m_prepared->place : Place();
  const bool exists = place.isFile || !place.companion.isEmpty();
  if (place.isFile)
    m_replace->setText(tr("This file exists. Replace it"));
  else if (exists)
    m_replace->setText(tr("%1 exists. Replace it").arg(place.companion));
  if (m_prepared) m_replace->setVisible(exists);
  const bool ready = m_prepared && m_prepared->error.isEmpty();
  QString why;
  if (path().isEmpty()) {
    why = tr("Type a file name.");
  } else if (place.isFolder) {
    why = tr("%1 is a folder; type a file name in it.").arg(path());
  } else if (!place.hasFolder) {
    why = tr("The folder %1 does not exist.").arg(place.folder);
  } else if (m_prepared && !m_prepared->error.isEmpty()) {
    why = tr("Cannot be exported like this; see the first check.");
  } else if (exists && !m_replace->isChecked()) {
    why = tr("Tick \"Replace it\" or choose another name.");
  }
  if (m_writing) why = tr("Writing...");
  if (m_prepared || !why.isEmpty()) m_state->setText(why);
  m_export->setText(exists ? tr("Replace") : tr("Export"));
  m_export->setEnabled(ready && why.isEmpty());
  QString load;
  if (ready && !path().isEmpty()) {
    for (const std::string& line : m_prepared->output.load) {
      load += (load.isEmpty() ? tr("Load it with\u2002") : tr("\nor\u2002")) + QString::fromStdString(line);
    }
  }
  m_load->setText(load);
}

void ExportDialog::browse() {
  const QString filter = QStringLiteral("%1 (*.%2)").arg(text(target().title()), suffix());
  // Our own checkbox asks about replacing, once.
  askWhereToSave(this, tr("Export profile"), path(), filter, false, [this](const QString& chosen) {
    m_path->setText(QFileInfo(chosen).suffix().isEmpty() ? chosen + QLatin1Char('.') + suffix() : chosen);
  });
}

void ExportDialog::write() {
  refreshButton();
  if (!m_export->isEnabled() || !m_prepared) return;
  const QString target = QFileInfo(path()).absoluteFilePath();
  JobQueue& jobs = m_session.jobs();
  rememberLater(jobs, QLatin1String(kFormatKey), m_format->currentData());
  rememberLater(jobs, QLatin1String(kFillKey), m_fill->currentIndex());
  rememberLater(jobs, QLatin1String(kDirKey), QFileInfo(target).absolutePath());
  m_writing = true;
  refreshButton();
  JobSpec spec;
  spec.name = "Export the profile";
  spec.lane = Lane::Io;
  m_writeJob = m_session.jobs().submit<bool>(
      spec,
      [prepared = m_prepared, replace = m_replace->isChecked()](JobContext&) {
        for (const ExportFile& file : prepared->output.files) {
          std::error_code ignored;
          if (!replace && std::filesystem::exists(file.path, ignored)) return false;  // came since it was looked for
        }
        writeExport(prepared->output);
        return true;
      },
      [this, target](Outcome<bool> outcome) {
        m_writing = false;
        if (const auto* failed = std::get_if<Error>(&outcome)) {
          refreshButton();
          m_state->setText(QString::fromStdString(failed->what()));
          return;
        }
        if (std::holds_alternative<Cancelled>(outcome)) {
          refreshButton();
          return;
        }
        if (!std::get<bool>(outcome)) return refreshPreview();
        Q_EMIT exported(target);
        accept();
      });
}

}  // namespace sparsight

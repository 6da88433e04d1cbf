// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/trace_import_dialog.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDialogButtonBox>
#include <QDir>
#include <QFileInfo>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QPushButton>
#include <QRegularExpression>
#include <QSettings>
#include <QSignalBlocker>
#include <QSpinBox>
#include <QToolButton>
#include <QTreeWidget>
#include <QVBoxLayout>
#include <algorithm>
#include <filesystem>

#include "sparsight/kernels/error.h"
#include "ui/dialogs/file_dialogs.h"
#include "ui/icons.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/style.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr char kDirectoryKey[] = "import/directory";
constexpr std::size_t kMostRows = 500;

QString qs(const std::string& text) { return QString::fromStdString(text); }

QString shapeText(const std::vector<Index>& shape) {
  QStringList parts;
  for (const Index extent : shape) parts << QString::number(extent);
  return parts.join(QStringLiteral(" \u00D7 "));
}

/// "q, layer 3, timestep 951".
QString placeText(const TensorPlace& place) {
  if (place.role == TensorRole::None) return TraceImportDialog::tr("not used");
  static const QString names[] = {QStringLiteral("q"),
                                  QStringLiteral("k"),
                                  QStringLiteral("v"),
                                  TraceImportDialog::tr("query rows"),
                                  TraceImportDialog::tr("valid keys"),
                                  TraceImportDialog::tr("mask")};
  QStringList parts{names[static_cast<int>(place.role) - 1]};
  if (place.step) parts << TraceImportDialog::tr("step %1").arg(*place.step);
  if (!place.step && place.timestep) parts << TraceImportDialog::tr("timestep %1").arg(*place.timestep);
  if (place.layer) parts << TraceImportDialog::tr("layer %1").arg(*place.layer);
  if (place.head) parts << TraceImportDialog::tr("head %1").arg(*place.head);
  if (!place.branch.empty()) parts << qs(place.branch);
  return parts.join(QStringLiteral(", "));
}

QString bytesText(double bytes) {
  if (bytes < 0x1p20) return TraceImportDialog::tr("%1 KiB").arg(bytes / 0x1p10, 0, 'f', 1);
  if (bytes < 0x1p30) return TraceImportDialog::tr("%1 MiB").arg(bytes / 0x1p20, 0, 'f', 1);
  return TraceImportDialog::tr("%1 GiB").arg(bytes / 0x1p30, 0, 'f', 1);
}

/// Core's lines name the command line's options; here they are the fields, and
/// proposals stand in a list.
QString withoutOptions(QString line) {
  static const QRegularExpression inParentheses(QStringLiteral("\\s*\\(--[^)]*\\)")),
      proposals(QStringLiteral("[.;] Say --(grid|preset).*$"));
  line.remove(inParentheses).remove(proposals);
  const std::pair<const char*, QString> fields[] = {
      {", or name them: --map rows=NAME", {}},
      {"say --kind cross", TraceImportDialog::tr("its names have to say so: attn2, cross")},
      {"; leave it out with --map mask=none", {}},
      {"--memory-limit", TraceImportDialog::tr("the memory limit")},
      {"--text-first", TraceImportDialog::tr("before the video")},
      {"--map", TraceImportDialog::tr("the fields Queries, Keys, Values")},
      {"--axes", TraceImportDialog::tr("field Axes")},
      {"--raw16", TraceImportDialog::tr("field 2-byte numbers")},
      {"--branch", TraceImportDialog::tr("field Guidance branch")},
      {"--scale", TraceImportDialog::tr("Score scale")},
      {"--steps", TraceImportDialog::tr("field Steps of the run")},
      {"--double-blocks N", TraceImportDialog::tr("field Double blocks")},
      {"--preset", TraceImportDialog::tr("a model")},
      {"--grid", TraceImportDialog::tr("a token grid")},
      {"--text", TraceImportDialog::tr("text tokens")}};
  for (const auto& [option, field] : fields) line.replace(QLatin1String(option), field);
  return line;
}

QSpinBox* spin(const char* name, int least, const QString& none, const QString& accessible) {
  auto* box = new QSpinBox;
  box->setObjectName(QLatin1String(name));
  box->setRange(least, 1'000'000);
  box->setValue(least);
  box->setSpecialValueText(none);  // the least value stands for "not said"
  box->setMinimumWidth(84);
  box->setAlignment(Qt::AlignRight);
  box->setAccessibleName(accessible);
  return box;
}

QHBoxLayout* rowOf(std::initializer_list<QWidget*> widgets) {
  auto* row = new QHBoxLayout;
  row->setSpacing(Theme::kPad);
  for (QWidget* widget : widgets) row->addWidget(widget);
  row->addStretch(1);
  return row;
}

}  // namespace

TraceImportDialog::TraceImportDialog(Session& session, const QStringList& sources, QWidget* parent)
    : QDialog(parent), m_session(session), m_source(QDir::cleanPath(QFileInfo(sources.value(0)).absoluteFilePath())) {
  if (sources.size() > 1) {
    m_source = QFileInfo(m_source).absolutePath();
    for (const QString& each : sources) m_only << QFileInfo(each).absoluteFilePath();
  }

  build();
  look();
}

TraceImportDialog::~TraceImportDialog() = default;

void TraceImportDialog::build() {
  setObjectName(QStringLiteral("traceImportDialog"));
  setWindowTitle(tr("Import tensors"));
  resize(720, 700);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(Theme::kEdge, Theme::kEdge, Theme::kEdge, Theme::kEdge);
  layout->setSpacing(Theme::kPad);
  m_title = new ElidedLabel;
  m_title->setBold(true);
  m_title->setText(m_only.isEmpty() ? m_source : tr("%1: %2 files").arg(m_source).arg(m_only.size()));
  layout->addWidget(m_title);
  m_facts = new NoteLabel;
  m_facts->setObjectName(QStringLiteral("import.facts"));
  layout->addWidget(m_facts);
  // All that needs a readable source; folded away where there is none.
  m_body = new QWidget;
  auto* body = new QVBoxLayout(m_body);
  body->setContentsMargins(0, 0, 0, 0);
  body->setSpacing(Theme::kPad);
  layout->addWidget(m_body, 1);
  m_found = new QTreeWidget;
  m_found->setObjectName(QStringLiteral("import.found"));
  m_found->setAccessibleName(tr("Tensors that were found"));
  m_found->setHeaderLabels({tr("Tensor"), tr("Shape"), tr("Type"), tr("Read as")});
  m_found->setRootIsDecorated(false);
  m_found->setUniformRowHeights(true);
  m_found->setMinimumHeight(76);
  m_found->setSelectionMode(QAbstractItemView::SingleSelection);
  m_found->header()->setStretchLastSection(true);
  body->addWidget(m_found, 2);

  m_form = new QFormLayout;
  m_form->setHorizontalSpacing(Theme::kGroupGap);
  m_form->setVerticalSpacing(Theme::kPad);
  m_form->setFieldGrowthPolicy(QFormLayout::ExpandingFieldsGrow);
  m_preset = new QComboBox;
  m_preset->setObjectName(QStringLiteral("import.preset"));
  m_preset->addItem(tr("not said"), QString());
  for (const ImportPreset& preset : importPresets())
    m_preset->addItem(QString::fromUtf8(preset.title), QString::fromUtf8(preset.key));
  m_preset->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
  m_form->addRow(tr("Model"), m_preset);
  m_proposals = new QComboBox;
  m_proposals->setObjectName(QStringLiteral("import.proposals"));
  m_proposals->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
  m_proposals->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  m_form->addRow(tr("Token grid"), m_proposals);
  const QString none = QStringLiteral("\u2013");
  m_grid = {spin("import.frames", 0, none, tr("Frames of tokens")), spin("import.rows", 0, none, tr("Rows of tokens")),
            spin("import.columns", 0, none, tr("Columns of tokens"))};
  const QString times = QStringLiteral("\u00D7");
  m_form->addRow(tr("Frames \u00D7 rows \u00D7 columns"),
                 rowOf({m_grid[0], new QLabel(times), m_grid[1], new QLabel(times), m_grid[2]}));
  m_text = spin("import.text", -1, tr("what is left"), tr("Text tokens"));
  m_text->setMinimumWidth(120);
  m_textFirst = new QCheckBox(tr("before the video"));
  m_textFirst->setObjectName(QStringLiteral("import.textFirst"));
  m_form->addRow(tr("Text tokens"), rowOf({m_text, m_textFirst}));
  m_branch = new QComboBox;
  m_branch->setObjectName(QStringLiteral("import.branch"));
  m_branch->setEditable(true);
  m_branch->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
  m_branch->addItems({QString(), QStringLiteral("cond"), QStringLiteral("uncond"), QStringLiteral("uncond,cond")});
  m_branch->lineEdit()->setPlaceholderText(tr("as names say; of a batch: uncond,cond"));
  m_branch->setAccessibleName(tr("Guidance branch"));
  m_scale = new QLineEdit;
  m_scale->setObjectName(QStringLiteral("import.scale"));
  m_scale->setPlaceholderText(tr("1 / sqrt(channels)"));
  m_scale->setMaximumWidth(170);
  auto* scaleLabel = new QLabel(tr("Score scale"));
  scaleLabel->setBuddy(m_scale);
  auto* branchRow = new QHBoxLayout;
  branchRow->setSpacing(Theme::kPad);
  branchRow->addWidget(m_branch, 1);
  branchRow->addWidget(scaleLabel);
  branchRow->addWidget(m_scale);
  m_form->addRow(tr("Guidance branch"), branchRow);

  m_more = new QToolButton;
  m_more->setObjectName(QStringLiteral("import.more"));
  m_more->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
  m_more->setAutoRaise(true);
  m_more->setCheckable(true);
  m_more->setArrowType(Qt::RightArrow);
  m_more->setText(tr("Names and axes"));
  m_form->addRow(QString(), m_more);
  body->addLayout(m_form);
  m_moreArea = new QWidget;
  auto* more = new QFormLayout(m_moreArea);
  more->setContentsMargins(0, 0, 0, 0);
  more->setHorizontalSpacing(Theme::kGroupGap);
  more->setVerticalSpacing(Theme::kPad);
  for (std::size_t i = 0; i < 3; ++i) {
    m_patterns[i] = new QLineEdit;
    m_patterns[i]->setObjectName(QStringLiteral("import.pattern%1").arg(i));
    m_patterns[i]->setPlaceholderText(i == 0 ? tr("name, for example step_{step}/block{layer}/query") : QString());
    more->addRow(i == 0 ? tr("Queries") : i == 1 ? tr("Keys") : tr("Values"), m_patterns[i]);
  }
  m_axes = new QLineEdit;
  m_axes->setObjectName(QStringLiteral("import.axes"));
  m_axes->setPlaceholderText(tr("by shape; else letters, for example BNHD"));
  m_axes->setToolTip(
      tr("One letter per axis: S step, L layer, B batch, H "
         "head, N token, D channel"));
  m_raw16 = new QComboBox;
  m_raw16->setObjectName(QStringLiteral("import.raw16"));
  m_raw16->addItems({tr("not said"), QStringLiteral("bfloat16"), QStringLiteral("float16")});
  auto* rawLabel = new QLabel(tr("2-byte numbers"));
  rawLabel->setBuddy(m_raw16);
  auto* axesRow = new QHBoxLayout;
  axesRow->setSpacing(Theme::kPad);
  axesRow->addWidget(m_axes, 1);
  axesRow->addWidget(rawLabel);
  axesRow->addWidget(m_raw16);
  more->addRow(tr("Axes"), axesRow);
  m_step = spin("import.step", -1, tr("by name"), tr("Step index of tensors whose name does not say it"));
  m_layer = spin("import.layer", -1, tr("by name"), tr("Layer of tensors whose name does not say it"));
  m_steps = spin("import.steps", 0, none, tr("Denoising steps of the whole run"));
  auto* layerLabel = new QLabel(tr("Layer"));
  auto* stepsLabel = new QLabel(tr("Steps of the run"));
  more->addRow(tr("Step index"), rowOf({m_step, layerLabel, m_layer, stepsLabel, m_steps}));
  m_cross = new QCheckBox(tr("cross-attention too"));
  m_cross->setObjectName(QStringLiteral("import.cross"));
  m_cross->setToolTip(tr("Calls whose names say that their keys are text: attn2, cross"));
  m_doubleBlocks = spin("import.doubleBlocks", -1, none, tr("Layer of single block 0"));
  m_doubleBlocks->setToolTip(
      tr("Where double and single blocks are numbered apart: how many double blocks come first"));
  auto* blocksLabel = new QLabel(tr("Double blocks"));
  blocksLabel->setBuddy(m_doubleBlocks);
  more->addRow(tr("Calls"), rowOf({m_cross, blocksLabel, m_doubleBlocks}));
  m_moreArea->hide();
  body->addWidget(m_moreArea);

  auto* assumedTitle = new QLabel(tr("Taken for granted"));
  fonts::give(assumedTitle, FontRole::Title);
  body->addWidget(assumedTitle);
  m_assumed = new QListWidget;
  m_assumed->setObjectName(QStringLiteral("import.assumed"));
  m_assumed->setAccessibleName(tr("What is taken for granted; recorded in the trace"));
  m_assumed->setSelectionMode(QAbstractItemView::NoSelection);
  m_assumed->setWordWrap(true);
  m_assumed->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  m_assumed->setIconSize(QSize(16, 16));
  m_assumed->setMinimumHeight(72);
  body->addWidget(m_assumed, 2);

  auto* pathRow = new QHBoxLayout;
  pathRow->setSpacing(Theme::kPad);
  auto* pathLabel = new QLabel(tr("Trace"));
  m_path = new QLineEdit;
  m_path->setObjectName(QStringLiteral("import.path"));
  pathLabel->setBuddy(m_path);
  auto* browseButton = new QPushButton(tr("Browse\u2026"));
  browseButton->setAutoDefault(false);
  pathRow->addWidget(pathLabel);
  pathRow->addWidget(m_path, 1);
  pathRow->addWidget(browseButton);
  body->addLayout(pathRow);
  m_replace = new QCheckBox(tr("This file exists. Replace it"));
  m_replace->setObjectName(QStringLiteral("import.replace"));
  m_replace->hide();
  body->addWidget(m_replace);
  m_state = new NoteLabel;
  m_state->setObjectName(QStringLiteral("import.state"));
  m_state->setMinimumHeight(34);
  layout->addWidget(m_state);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Cancel);
  buttons->button(QDialogButtonBox::Cancel)->setIcon(QIcon());
  m_go = buttons->addButton(tr("Import"), QDialogButtonBox::AcceptRole);
  m_go->setObjectName(QStringLiteral("import.go"));
  m_go->setProperty("primary", true);
  m_go->setDefault(true);
  m_go->setEnabled(false);
  layout->addWidget(buttons);

  const QFileInfo info(m_source);
  const QString remembered = QSettings().value(QLatin1String(kDirectoryKey)).toString();
  const QString name =
      (info.suffix().size() <= 11 ? info.completeBaseName() : info.fileName()) + QStringLiteral(".trace.h5");
  m_path->setText(QDir(remembered.isEmpty() ? info.absolutePath() : remembered).filePath(name));

  connect(m_more, &QToolButton::toggled, this, [this](bool on) {
    m_more->setArrowType(on ? Qt::DownArrow : Qt::RightArrow);
    m_moreArea->setVisible(on);
  });
  const auto changed = [this] {
    if (!m_filling) refresh();
  };
  connect(m_preset, &QComboBox::currentIndexChanged, this, changed);
  connect(m_proposals, &QComboBox::activated, this, [this](int index) { takeProposal(index); });
  for (QSpinBox* box : {m_grid[0], m_grid[1], m_grid[2], m_text, m_step, m_layer, m_steps, m_doubleBlocks})
    connect(box, &QSpinBox::valueChanged, this, changed);
  for (QCheckBox* box : {m_textFirst, m_cross}) connect(box, &QCheckBox::toggled, this, changed);
  connect(m_branch, &QComboBox::currentTextChanged, this, changed);
  connect(m_raw16, &QComboBox::currentIndexChanged, this, changed);
  for (QLineEdit* edit : {m_scale, m_axes, m_patterns[0], m_patterns[1], m_patterns[2]})
    connect(edit, &QLineEdit::textChanged, this, changed);
  connect(m_path, &QLineEdit::textChanged, this, [this] {
    m_replace->setChecked(false);
    refresh();
  });
  connect(m_replace, &QCheckBox::toggled, this, [this] { showDraft(); });
  connect(browseButton, &QPushButton::clicked, this, [this] { browse(); });
  connect(buttons, &QDialogButtonBox::accepted, this, &TraceImportDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
}

void TraceImportDialog::look() {
  m_looking = true;
  m_facts->setText(tr("Looking at what is inside\u2026"));
  JobSpec spec;
  spec.name = tr("Look at %1").arg(QFileInfo(m_source).fileName()).toStdString();
  spec.lane = Lane::Io;
  m_lookJob = m_session.jobs().submit<std::shared_ptr<const Survey>>(
      std::move(spec),
      [path = std::filesystem::path(m_source.toStdString()), names = m_only](JobContext& context) {
        std::vector<std::filesystem::path> only;
        for (const QString& name : names) only.emplace_back(name.toStdString());
        return std::make_shared<const Survey>(surveySource(path, context.control(), only));
      },
      [this](Outcome<std::shared_ptr<const Survey>> outcome) {
        m_looking = false;
        if (const Error* error = std::get_if<Error>(&outcome)) {
          m_facts->setRole(NoteLabel::Role::Error);
          m_facts->setText(qs(error->what()));
          m_state->setText(tr("Nothing can be imported from here."));
          m_body->hide();
          QMetaObject::invokeMethod(
              this, [this] { resize(width(), layout()->sizeHint().height()); }, Qt::QueuedConnection);
          return;
        }
        if (std::holds_alternative<Cancelled>(outcome)) return;
        m_survey = std::get<std::shared_ptr<const Survey>>(outcome);
        showFound();
        refresh();
      });
}

void TraceImportDialog::showPlace(QTreeWidgetItem* item, const TensorPlace& place) const {
  item->setText(3, placeText(place));
  const QBrush brush = palette().brush(place.role == TensorRole::None ? kSecondaryRole : QPalette::Text);
  for (int column = 0; column < 4; ++column) item->setForeground(column, brush);
}

void TraceImportDialog::showFound() {
  const Survey& survey = *m_survey;
  QStringList formats;
  for (const std::string& id : survey.formats) {
    for (const Importer* importer : allImporters())
      if (importer->id() == id)
        formats << QString::fromUtf8(importer->title().data(), static_cast<qsizetype>(importer->title().size()));
  }
  QString facts =
      (survey.tensors.size() == 1 ? tr("1 tensor")
                                  : tr("%1 tensors").arg(formatCount(static_cast<Index>(survey.tensors.size())))) +
      QStringLiteral(" \u00B7 ") + formats.join(QStringLiteral(", "));
  if (survey.bytes > 0) facts += QStringLiteral(" \u00B7 ") + bytesText(survey.bytes);
  if (survey.tensors.size() > kMostRows)
    facts += QStringLiteral(" \u00B7 ") + tr("the first %1 are listed").arg(kMostRows);
  m_facts->setText(facts);
  bool odd = false, raw = false, named = false;
  for (std::size_t i = 0; i < survey.tensors.size(); ++i) {
    const FoundTensor& found = survey.tensors[i];
    const bool input = found.place.role != TensorRole::None;
    named = named || input;
    raw = raw || (input && !found.type && found.sixteenBits);
    odd = odd || (input && found.axes.empty() && found.shape.size() > 4);
    if (i >= kMostRows) continue;
    auto* item = new QTreeWidgetItem(m_found, {qs(survey.folder || found.name.empty() ? found.label() : found.name),
                                               shapeText(found.shape), qs(found.dtype), QString()});
    item->setToolTip(0, qs(found.label()));
    showPlace(item, found.place);
  }
  for (int column = 0; column < 3; ++column) m_found->resizeColumnToContents(column);
  m_found->setColumnWidth(0, std::min(m_found->columnWidth(0), 320));
  if (odd || raw || !named) m_more->setChecked(true);  // what is there will be needed
}

ImportOptions TraceImportDialog::options() const {
  ImportOptions o;
  o.preset = m_preset->currentData().toString().toStdString();
  if (m_grid[0]->value() > 0 && m_grid[1]->value() > 0 && m_grid[2]->value() > 0)
    o.grid = {m_grid[0]->value(), m_grid[1]->value(), m_grid[2]->value()};
  if (m_text->value() >= 0) o.text = m_text->value();
  if (m_textFirst->isChecked()) o.textFirst = true;
  const QString branches = m_branch->currentText().trimmed();
  if (!branches.isEmpty())
    for (const QString& name : branches.split(QLatin1Char(','))) o.branches.push_back(name.trimmed().toStdString());
  if (const QString scale = m_scale->text().trimmed(); !scale.isEmpty()) {
    bool ok = false;
    const double value = scale.toDouble(&ok);
    o.scale = ok ? value : -1;  // refused with a message
  }
  o.axes = m_axes->text().trimmed().toUpper().toStdString();
  for (std::size_t i = 0; i < 3; ++i) o.patterns[i] = m_patterns[i]->text().trimmed().toStdString();
  if (m_raw16->currentIndex() > 0) o.raw16 = m_raw16->currentIndex() == 1 ? SourceType::BF16 : SourceType::F16;
  if (m_step->value() >= 0) o.step = m_step->value();
  if (m_layer->value() >= 0) o.layer = m_layer->value();
  if (m_steps->value() > 0) o.steps = m_steps->value();
  o.cross = m_cross->isChecked();
  if (m_doubleBlocks->value() >= 0) o.doubleBlocks = m_doubleBlocks->value();
  return o;
}

QString TraceImportDialog::path() const { return m_path->text().trimmed(); }
void TraceImportDialog::setPath(const QString& path) { m_path->setText(path); }
std::shared_ptr<const ImportPlan> TraceImportDialog::plan() const {
  if (!m_drafted || !m_drafted->draft.plan) return nullptr;
  return {m_drafted, &*m_drafted->draft.plan};
}

void TraceImportDialog::refresh() {
  if (!m_survey) return;
  m_planning = true;
  m_go->setEnabled(false);
  JobSpec spec;
  spec.name = "Plan the import";
  spec.lane = Lane::Io;
  spec.supersedeTag = "import.plan";
  const std::filesystem::path out(QFileInfo(path()).absoluteFilePath().toStdString());
  m_planJob = m_session.jobs().submit<std::shared_ptr<const Drafted>>(
      std::move(spec),
      [survey = m_survey, options = options(), out](JobContext&) {
        auto drafted = std::make_shared<Drafted>();
        drafted->draft = draftImport(*survey, options);
        std::error_code ignored;
        drafted->exists = std::filesystem::exists(out, ignored);
        drafted->folderMissing = !std::filesystem::is_directory(out.parent_path(), ignored);
        return std::shared_ptr<const Drafted>(drafted);
      },
      [this](Outcome<std::shared_ptr<const Drafted>> outcome) {
        if (std::holds_alternative<Cancelled>(outcome)) return;  // a newer one is on its way
        m_planning = false;
        if (const Error* error = std::get_if<Error>(&outcome)) {
          m_state->setRole(NoteLabel::Role::Error);
          m_state->setText(qs(error->what()));
          return;
        }
        m_drafted = std::get<std::shared_ptr<const Drafted>>(outcome);
        showDraft();
      });
}

void TraceImportDialog::showDraft() {
  if (!m_drafted || m_planning) return;
  const ImportDraft& draft = m_drafted->draft;
  {
    const QSignalBlocker quiet(m_proposals);
    m_proposals->clear();
    m_proposals->addItem(draft.tokens > 0 ? tr("ways to lay out %1 tokens").arg(formatCount(draft.tokens))
                                          : tr("no tokens yet"));
    for (const GridProposal& p : draft.grids) m_proposals->addItem(qs(p.title));
    m_proposals->setEnabled(!draft.grids.empty());
  }
  for (int i = 0; i < m_found->topLevelItemCount() && static_cast<std::size_t>(i) < draft.places.size(); ++i)
    showPlace(m_found->topLevelItem(i), draft.places[static_cast<std::size_t>(i)]);
  m_assumed->clear();
  const auto add = [this](const char* icon, const QString& line) {
    auto* item = new QListWidgetItem(themedIcon(QLatin1String(icon)), line, m_assumed);
    item->setFlags(Qt::ItemIsEnabled);
  };
  for (const std::string& line : m_survey->warnings) add("warning", qs(line));
  if (draft.plan) {
    for (const std::string& line : draft.plan->warnings) add("warning", qs(line));
    for (const std::string& line : draft.plan->assumed) add("info", withoutOptions(qs(line)));
  }
  m_replace->setVisible(m_drafted->exists);
  QString why;
  if (!draft.plan) {
    const ImportOptions said = options();
    const bool open = !said.grid && said.preset.empty() && draft.tokens > 0 && !m_survey->facts.contains("grid");
    why = open ? tr("How do the %1 tokens of a call lie? Choose a token grid, "
                    "a model, or type frames, rows and columns.")
                     .arg(formatCount(draft.tokens))
               : withoutOptions(qs(draft.problem).remove(m_source + QStringLiteral(": ")));
  } else if (path().isEmpty()) {
    why = tr("Type a file name for the trace.");
  } else if (m_drafted->folderMissing) {
    why = tr("The folder %1 does not exist.").arg(QFileInfo(path()).absolutePath());
  } else if (m_drafted->exists && !m_replace->isChecked()) {
    why = tr("Tick \"Replace it\" or choose another name.");
  }
  m_state->setRole(draft.plan ? NoteLabel::Role::Secondary : NoteLabel::Role::Warning);
  if (!why.isEmpty()) {
    m_state->setText(why);
  } else {
    const ImportPlan& plan = *draft.plan;
    const Segment* video = plan.header.layout.video();
    m_state->setText((plan.calls.size() == 1
                          ? tr("1 attention call")
                          : tr("%1 attention calls").arg(formatCount(static_cast<Index>(plan.calls.size())))) +
                     tr(" \u00B7 %1 tokens: %2 \u00D7 %3 \u00D7 %4 video, %5 text \u00B7 %6 "
                        "\u00B7 %7")
                         .arg(formatCount(plan.header.layout.tokenCount))
                         .arg(video->frames)
                         .arg(video->height)
                         .arg(video->width)
                         .arg(formatCount(plan.header.layout.tokenCount - video->length))
                         .arg(QLatin1String(dtypeName(plan.options.dtype)), bytesText(plan.bytes)));
  }
  m_go->setEnabled(why.isEmpty());
}

void TraceImportDialog::takeProposal(int index) {
  if (index <= 0 || !m_drafted || static_cast<std::size_t>(index) > m_drafted->draft.grids.size()) return;
  const GridProposal& p = m_drafted->draft.grids[static_cast<std::size_t>(index) - 1];
  m_filling = true;
  m_preset->setCurrentIndex(std::max(0, m_preset->findData(qs(p.preset))));
  for (std::size_t i = 0; i < 3; ++i) m_grid[i]->setValue(p.grid[i]);
  m_text->setValue(static_cast<int>(p.text));
  m_textFirst->setChecked(p.textFirst);
  m_filling = false;
  refresh();
}

void TraceImportDialog::browse() {
  askWhereToSave(this, tr("Write trace"), path(), tr("Traces (*.h5)"), false, [this](const QString& chosen) {
    m_path->setText(QFileInfo(chosen).suffix().isEmpty() ? chosen + QStringLiteral(".h5") : chosen);
  });
}

void TraceImportDialog::accept() {
  if (!m_go->isEnabled()) return;
  QSettings().setValue(QLatin1String(kDirectoryKey), QFileInfo(path()).absolutePath());
  m_session.importTrace(m_survey, plan(), QFileInfo(path()).absoluteFilePath());
  QDialog::accept();
}

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/synth_dialog.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDialogButtonBox>
#include <QDir>
#include <QFileInfo>
#include <QFormLayout>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QSettings>
#include <QSpinBox>
#include <QVBoxLayout>
#include <filesystem>
#include <limits>
#include <optional>

#include "ui/dialogs/file_dialogs.h"
#include "ui/section_label.h"
#include "ui/theme.h"

namespace sparsight {
namespace {
constexpr double kMostBytes = 2e12;
constexpr auto kDirectoryKey = "synth/directory";

QSpinBox* spin(const char* name, int low, int high, int value) {
  auto* box = new QSpinBox;
  box->setObjectName(QLatin1String(name));
  box->setRange(low, high);
  box->setValue(value);
  box->setMinimumWidth(84);
  box->setAlignment(Qt::AlignRight);
  return box;
}
/// What statvfs says; nothing where it cannot say. (QStorageInfo goes by the mount table, which a container or chroot
/// need not have.)
std::optional<std::uintmax_t> bytesFree(const QString& folder) {
  std::error_code error;
  const auto space = std::filesystem::space(folder.toStdString(), error);
  if (error || space.available == static_cast<std::uintmax_t>(-1)) return std::nullopt;
  return space.available;
}

}  // namespace

SynthDialog::SynthDialog(QWidget* parent) : QDialog(parent) {
  setWindowTitle(tr("Generate synthetic trace"));
  setObjectName(QStringLiteral("synthDialog"));
  setMinimumWidth(520);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(Theme::kEdge, Theme::kEdge, Theme::kEdge, Theme::kEdge);
  column->setSpacing(Theme::kPad);
  auto* about = new NoteLabel;
  about->setText(
      tr("Heads of known type (spatial, temporal, semantic clusters, sinks, diffuse) whose strength changes over steps "
         "and "
         "layers; the truth is stored in the file."));
  column->addWidget(about);
  auto* form = new QFormLayout;
  form->setHorizontalSpacing(Theme::kEdge);
  form->setVerticalSpacing(Theme::kUnit);
  const SynthSpec preset;
  m_frames = spin("synth.frames", 1, 512, preset.frames);
  m_height = spin("synth.height", 1, 512, preset.height);
  m_width = spin("synth.width", 1, 512, preset.width);
  auto* grid = new QHBoxLayout;
  grid->setSpacing(Theme::kUnit);
  for (QSpinBox* box : {m_frames, m_height, m_width}) {
    if (box != m_frames) grid->addWidget(new QLabel(QStringLiteral("\u00D7")));
    grid->addWidget(box);
  }
  grid->addStretch(1);
  m_frames->setAccessibleName(tr("Frames"));
  m_height->setAccessibleName(tr("Height in tokens"));
  m_width->setAccessibleName(tr("Width in tokens"));
  form->addRow(tr("Grid (frames \u00D7 height \u00D7 width)"), grid);
  m_text = spin("synth.text", 0, 4096, preset.textTokens);
  m_textFirst = new QCheckBox(tr("before the video"));
  auto* text = new QHBoxLayout;
  text->addWidget(m_text);
  text->addWidget(m_textFirst);
  text->addStretch(1);
  form->addRow(tr("Text tokens"), text);
  m_layers = spin("synth.layers", 1, 128, preset.layers);
  m_heads = spin("synth.heads", 1, 128, preset.heads);
  m_steps = spin("synth.steps", 1, 1000, preset.steps);
  const auto alone = [](QWidget* widget) {
    auto* row = new QHBoxLayout;
    row->addWidget(widget);
    row->addStretch(1);
    return row;
  };
  form->addRow(tr("Layers"), alone(m_layers));
  form->addRow(tr("Heads"), alone(m_heads));
  form->addRow(tr("Denoising steps"), alone(m_steps));
  m_dim = spin("synth.headDim", 8, 256, preset.headDim);
  form->addRow(tr("Head dimension"), alone(m_dim));
  m_dtype = new QComboBox;
  for (const DType dtype : {DType::F16, DType::BF16, DType::F32})
    m_dtype->addItem(QString::fromLatin1(dtypeName(dtype)), static_cast<int>(dtype));
  form->addRow(tr("Stored as"), alone(m_dtype));
  m_seed = spin("synth.seed", 0, std::numeric_limits<int>::max(), static_cast<int>(preset.seed));
  form->addRow(tr("Seed"), alone(m_seed));
  m_path = new QLineEdit;
  m_path->setObjectName(QStringLiteral("synth.path"));
  const QString directory = QSettings().value(QLatin1String(kDirectoryKey), QDir::homePath()).toString();
  m_path->setText(QDir(directory).filePath(QStringLiteral("synthetic.h5")));
  auto* browse = new QPushButton(tr("Browse\u2026"));
  auto* pathRow = new QHBoxLayout;
  pathRow->addWidget(m_path, 1);
  pathRow->addWidget(browse);
  form->addRow(tr("File"), pathRow);
  column->addLayout(form);
  m_size = new NoteLabel;
  m_size->setMinimumHeight(34);
  column->addWidget(m_size);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel);
  m_ok = buttons->button(QDialogButtonBox::Ok);
  m_ok->setText(tr("Generate"));
  m_ok->setProperty("primary", true);
  column->addWidget(buttons);
  connect(buttons, &QDialogButtonBox::accepted, this, [this] {
    QSettings().setValue(QLatin1String(kDirectoryKey), QFileInfo(path()).absolutePath());
    accept();
  });
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  connect(browse, &QPushButton::clicked, this, [this] {
    askWhereToSave(this, tr("Write trace"), path(), tr("Traces (*.h5)"), true,
                   [this](const QString& chosen) { m_path->setText(chosen); });
  });
  for (QSpinBox* box : {m_frames, m_height, m_width, m_text, m_layers, m_heads, m_steps, m_dim})
    connect(box, &QSpinBox::valueChanged, this, &SynthDialog::check);
  connect(m_dtype, &QComboBox::currentIndexChanged, this, &SynthDialog::check);
  connect(m_path, &QLineEdit::textChanged, this, &SynthDialog::check);
  check();
}

SynthSpec SynthDialog::spec() const {
  SynthSpec s;
  s.frames = m_frames->value();
  s.height = m_height->value();
  s.width = m_width->value();
  s.textTokens = m_text->value();
  s.textFirst = m_textFirst->isChecked();
  s.layers = m_layers->value();
  s.heads = m_heads->value();
  s.steps = m_steps->value();
  s.headDim = m_dim->value();
  s.dtype = static_cast<DType>(m_dtype->currentData().toInt());
  s.seed = static_cast<std::uint64_t>(m_seed->value());
  return s;
}

QString SynthDialog::path() const { return QDir::cleanPath(m_path->text().trimmed()); }

double SynthDialog::tensorBytes(const SynthSpec& s) {
  const double tokens = static_cast<double>(s.frames) * s.height * s.width + s.textTokens;
  return tokens * 3.0 * s.headDim * static_cast<double>(itemSize(s.dtype)) * s.layers * s.heads * s.steps;
}

void SynthDialog::check() {
  const SynthSpec s = spec();
  const double bytes = tensorBytes(s);
  const auto tokens = static_cast<qint64>(s.frames) * s.height * s.width + s.textTokens;
  QString problem;
  const QFileInfo file(path());
  const QFileInfo folder(file.absolutePath());
  if (path().isEmpty() || path() == QStringLiteral(".") || file.isDir())
    problem = tr("Name a file to write to.");
  else if (!folder.isDir())
    problem = tr("The folder %1 does not exist.").arg(folder.filePath());
  else if (!folder.isWritable())
    problem = tr("The folder %1 cannot be written to.").arg(folder.filePath());
  else if (bytes > kMostBytes)
    problem = tr("%1 of tensors is more than this generator is made for; take fewer heads or steps.")
                  .arg(formatBytes(static_cast<qint64>(bytes)));
  else if (const auto free = bytesFree(folder.filePath()); free && bytes > static_cast<double>(*free))
    problem = tr("%1 of tensors do not fit: %2 are free there.")
                  .arg(formatBytes(static_cast<qint64>(bytes)), formatBytes(static_cast<qint64>(*free)));
  m_size->setRole(problem.isEmpty() ? NoteLabel::Role::Secondary : NoteLabel::Role::Error);
  QString text = tr("%1 tokens \u00B7 %2 heads \u00B7 at most %3")
                     .arg(formatCount(tokens), formatCount(static_cast<qint64>(s.layers) * s.heads * s.steps),
                          formatBytes(static_cast<qint64>(bytes)));
  if (problem.isEmpty() && file.exists()) text += tr(" \u00B7 replaces the file that is there");
  m_size->setText(problem.isEmpty() ? text : problem);
  m_ok->setEnabled(problem.isEmpty());
}

}  // namespace sparsight

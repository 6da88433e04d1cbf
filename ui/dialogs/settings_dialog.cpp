// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/settings_dialog.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDialogButtonBox>
#include <QFormLayout>
#include <QLabel>
#include <QPushButton>
#include <QSpinBox>
#include <QThread>
#include <QVBoxLayout>

#include "sparsight/core/map_cache.h"
#include "sparsight/core/palette.h"
#include "ui/section_label.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kFieldWidth = 220;

QComboBox* combo(const QString& name, std::initializer_list<std::pair<QString, QString>> items,
                 const QString& current) {
  auto* box = new QComboBox;
  box->setObjectName(name);
  for (const auto& [label, value] : items) box->addItem(label, value);
  box->setCurrentIndex(std::max(0, box->findData(current)));
  box->setFixedWidth(kFieldWidth);
  return box;
}

QSpinBox* spin(const QString& name, int low, int high, int value, const QString& suffix) {
  auto* box = new QSpinBox;
  box->setObjectName(name);
  box->setRange(low, high);
  box->setValue(value);
  box->setSuffix(suffix);
  box->setFixedWidth(kFieldWidth);
  box->setAlignment(Qt::AlignRight);
  return box;
}

}  // namespace

SettingsDialog::SettingsDialog(const Settings& s, QWidget* parent) : QDialog(parent) {
  setWindowTitle(tr("Settings"));
  setObjectName(QStringLiteral("settingsDialog"));
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(Theme::kEdge, Theme::kEdge, Theme::kEdge, Theme::kEdge);
  column->setSpacing(Theme::kPad);
  const auto section = [column](const QString& title) {
    auto* form = new QFormLayout;
    form->setLabelAlignment(Qt::AlignLeft | Qt::AlignVCenter);
    form->setFieldGrowthPolicy(QFormLayout::FieldsStayAtSizeHint);
    form->setFormAlignment(Qt::AlignLeft);
    form->setHorizontalSpacing(Theme::kEdge * 2);
    form->setVerticalSpacing(Theme::kUnit);
    column->addWidget(new SectionLabel(title));
    column->addLayout(form);
    column->addSpacing(Theme::kPad);
    return form;
  };
  const auto note = [](const QString& text) {
    auto* label = new NoteLabel;
    label->setText(text);
    return label;
  };

  // One column of labels over all sections.
  const auto wide = [](const QString& text) {
    auto* label = new QLabel(text);
    label->setMinimumWidth(QFontMetrics(fonts::base()).horizontalAdvance(QDialog::tr("Memory for loaded heads")) + 4);
    return label;
  };
  QFormLayout* look = section(tr("Look"));
  m_theme = combo(QStringLiteral("settings.theme"),
                  {{tr("As the desktop"), QStringLiteral("system")},
                   {tr("Light"), QStringLiteral("light")},
                   {tr("Dark"), QStringLiteral("dark")}},
                  s.theme == Settings::ThemeChoice::Light  ? QStringLiteral("light")
                  : s.theme == Settings::ThemeChoice::Dark ? QStringLiteral("dark")
                                                           : QStringLiteral("system"));
  m_scale = spin(QStringLiteral("settings.scale"), 80, 200, s.uiScalePercent, QStringLiteral(" %"));
  m_scale->setSingleStep(10);
  m_colorMap = combo(QStringLiteral("settings.colorMap"), {{tr("By theme (viridis, magma)"), QString()}}, QString());
  for (const Palette palette : kAllPalettes) {
    if (palette == Palette::Diverging || palette == Palette::DivergingDark) continue;
    const QString name =
        QString::fromUtf8(paletteName(palette).data(), static_cast<qsizetype>(paletteName(palette).size()));
    m_colorMap->addItem(name, name);
  }
  m_colorMap->setCurrentIndex(std::max(0, m_colorMap->findData(s.colorMap)));
  m_renderer = combo(QStringLiteral("settings.renderer"),
                     {{tr("Choose by itself"), QStringLiteral("auto")},
                      {tr("OpenGL"), QStringLiteral("gl")},
                      {tr("Raster (no OpenGL)"), QStringLiteral("raster")}},
                     s.renderer);
  m_reducedMotion = new QCheckBox(tr("Reduce motion"));
  m_reducedMotion->setChecked(s.reducedMotion);
  look->addRow(wide(tr("Theme")), m_theme);
  look->addRow(tr("Interface scale"), m_scale);
  look->addRow(tr("Colour map"), m_colorMap);
  look->addRow(tr("Map renderer"), m_renderer);
  look->addRow(QString(), m_reducedMotion);

  QFormLayout* compute = section(tr("Computing"));
  m_backend = combo(QStringLiteral("settings.backend"),
                    {{tr("The fastest that works"), QStringLiteral("auto")},
                     {tr("CPU"), QStringLiteral("cpu")},
                     {tr("CUDA"), QStringLiteral("cuda")}},
                    s.backend);
  m_threads = spin(QStringLiteral("settings.threads"), 0, std::max(QThread::idealThreadCount(), s.threads), s.threads,
                   QString());
  m_threads->setSpecialValueText(tr("all cores but one (%1)").arg(std::max(1, QThread::idealThreadCount() - 1)));
  compute->addRow(wide(tr("Backend")), m_backend);
  compute->addRow(tr("Threads"), m_threads);
  m_traceCache = spin(QStringLiteral("settings.traceCache"), 64, 1 << 20, s.traceCacheMiB, QStringLiteral(" MiB"));
  m_traceCache->setSingleStep(256);
  m_tileCache = spin(QStringLiteral("settings.tileCache"), 32, 1 << 20, s.tileCacheMiB, QStringLiteral(" MiB"));
  m_tileCache->setSingleStep(128);
  m_headMaps = spin(QStringLiteral("settings.headMaps"), 64, 1 << 20, s.headMapsMiB, QStringLiteral(" MiB"));
  m_headMaps->setSingleStep(128);
  m_headMaps->setToolTip(tr("Heads looked at before, or made ready, show at once"));
  m_diskMaps = spin(QStringLiteral("settings.diskMaps"), 0, 1 << 20, s.diskMapsMiB, QStringLiteral(" MiB"));
  m_diskMaps->setSingleStep(128);
  m_diskMaps->setSpecialValueText(tr("none"));
  m_diskMaps->setToolTip(tr("Row LSE and coarse map of heads, found again by their content.\n%1\nmay be deleted at any "
                            "time.")
                             .arg(QString::fromStdString(userMapCacheDir().string())));
  m_makeReady = new QCheckBox(tr("Make the next heads ready while nothing else runs"));
  m_makeReady->setObjectName(QStringLiteral("settings.makeReady"));
  m_makeReady->setChecked(s.makeReady);
  compute->addRow(tr("Memory for loaded heads"), m_traceCache);
  compute->addRow(tr("Memory for head maps"), m_headMaps);
  compute->addRow(tr("Memory for map tiles"), m_tileCache);
  compute->addRow(tr("Maps kept on disk"), m_diskMaps);
  compute->addRow(QString(), m_makeReady);
  compute->addRow(note(tr("Backend, threads, renderer and loaded heads take effect at the next start.")));

  QFormLayout* work = section(tr("Working"));
  m_singleKeys = new QCheckBox(tr("Single-letter keys in maps and grids"));
  m_singleKeys->setChecked(s.singleKeyShortcuts);
  m_restore = new QCheckBox(tr("Open what was open last time"));
  m_restore->setChecked(s.restoreSession);
  work->addRow(m_singleKeys);
  work->addRow(m_restore);

  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel);
  buttons->button(QDialogButtonBox::Ok)->setProperty("primary", true);
  column->addWidget(buttons);
  connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
}

Settings SettingsDialog::settings() const {
  Settings s;
  const QString theme = m_theme->currentData().toString();
  s.theme = theme == QStringLiteral("light")  ? Settings::ThemeChoice::Light
            : theme == QStringLiteral("dark") ? Settings::ThemeChoice::Dark
                                              : Settings::ThemeChoice::System;
  s.uiScalePercent = m_scale->value();
  s.colorMap = m_colorMap->currentData().toString();
  s.renderer = m_renderer->currentData().toString();
  s.reducedMotion = m_reducedMotion->isChecked();
  s.backend = m_backend->currentData().toString();
  s.threads = m_threads->value();
  s.traceCacheMiB = m_traceCache->value();
  s.tileCacheMiB = m_tileCache->value();
  s.headMapsMiB = m_headMaps->value();
  s.diskMapsMiB = m_diskMaps->value();
  s.makeReady = m_makeReady->isChecked();
  s.singleKeyShortcuts = m_singleKeys->isChecked();
  s.restoreSession = m_restore->isChecked();
  return s;
}

}  // namespace sparsight

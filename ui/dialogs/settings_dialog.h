// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QDialog>

#include "ui/settings.h"

class QCheckBox;
class QComboBox;
class QSpinBox;

namespace sparsight {

/// Theme, scale, colour map, renderer; threads and backend; cache sizes; keys and session. What needs a restart says
/// so.
class SettingsDialog : public QDialog {
  Q_OBJECT
 public:
  explicit SettingsDialog(const Settings& settings, QWidget* parent = nullptr);
  [[nodiscard]] Settings settings() const;

 private:
  QComboBox *m_theme, *m_colorMap, *m_renderer, *m_backend;
  QSpinBox *m_scale, *m_threads, *m_traceCache, *m_tileCache, *m_headMaps, *m_diskMaps;
  QCheckBox *m_reducedMotion, *m_singleKeys, *m_restore, *m_makeReady;
};

}  // namespace sparsight

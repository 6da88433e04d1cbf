// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QDialog>

#include "sparsight/core/synth.h"

class QCheckBox;
class QComboBox;
class QLineEdit;
class QPushButton;
class QSpinBox;

namespace sparsight {

class NoteLabel;

/// Parameters of a synthetic trace, with the file size it will have before it is written.
class SynthDialog : public QDialog {
  Q_OBJECT
 public:
  explicit SynthDialog(QWidget* parent = nullptr);
  [[nodiscard]] SynthSpec spec() const;
  [[nodiscard]] QString path() const;
  /// Bytes of Q, K and V of all heads; what the file takes before compression.
  [[nodiscard]] static double tensorBytes(const SynthSpec& spec);

 private:
  void check();
  QSpinBox *m_frames, *m_height, *m_width, *m_text, *m_layers, *m_heads, *m_steps, *m_dim, *m_seed;
  QCheckBox* m_textFirst;
  QComboBox* m_dtype;
  QLineEdit* m_path;
  NoteLabel* m_size;
  QPushButton* m_ok;
};

}  // namespace sparsight

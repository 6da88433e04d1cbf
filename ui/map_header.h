// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QComboBox>
#include <QLabel>
#include <QWidget>

#include "ui/wrap_row.h"

namespace sparsight {

/// A combo box that says what it chooses: "pooling max".
class CaptionCombo : public QComboBox {
  Q_OBJECT
 public:
  CaptionCombo(const QString& caption, QWidget* parent = nullptr);
  [[nodiscard]] QSize sizeHint() const override;
  [[nodiscard]] QSize minimumSizeHint() const override { return sizeHint(); }
  /// Selects by data without telling anybody; false when there is no such entry.
  bool select(const QVariant& key);

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  QString m_caption;
};

/// Title and controls in one row that wraps when the dock is narrow.
class MapHeader : public WrapRow {
  Q_OBJECT
 public:
  explicit MapHeader(QWidget* parent = nullptr);
  void setTitle(const QString& title);

 protected:
  [[nodiscard]] int widthOf(const QWidget* control) const override;
  [[nodiscard]] int gapAfter(const QWidget* control) const override;

 private:
  QLabel* m_title;
};

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QWidget>

namespace sparsight {

/// "Open..." and "Open the demo" for views that are empty without a trace: the window's own actions of that name. Shows
/// nothing where the window has none (a picture of a single view).
class OpenButtons : public QWidget {
  Q_OBJECT
 public:
  explicit OpenButtons(Qt::Orientation orientation, QWidget* parent = nullptr);

 protected:
  void showEvent(QShowEvent* event) override;
};

}  // namespace sparsight

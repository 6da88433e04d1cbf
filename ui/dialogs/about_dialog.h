// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QDialog>

#include "sparsight/kernels/backend.h"

namespace sparsight {

/// Version, licence, and what the program computes on.
class AboutDialog : public QDialog {
  Q_OBJECT
 public:
  explicit AboutDialog(const BackendInfo& backend, QWidget* parent = nullptr);
};

}  // namespace sparsight

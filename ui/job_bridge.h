// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QObject>
#include <memory>

#include "sparsight/core/job.h"

namespace sparsight {

/// Carries closures from the job lanes to the GUI thread by queued invocation. Closures that arrive after the bridge is
/// gone are dropped, so that a result never meets a dead owner. Create and destroy on the GUI thread.
class JobBridge : public QObject {
  Q_OBJECT
 public:
  explicit JobBridge(QObject* parent = nullptr);
  ~JobBridge() override;

  /// May be copied to any thread and outlive the bridge.
  [[nodiscard]] Dispatcher dispatcher() const;

 private:
  struct Gate;
  std::shared_ptr<Gate> m_gate;
};

}  // namespace sparsight

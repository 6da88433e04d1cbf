// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QObject>
#include <memory>
#include <string>

#include "sparsight/core/job.h"
#include "sparsight/core/trace.h"

namespace sparsight {

class FramesCanvas;
class Session;

/// Brings a trace's preview frames to a canvas, read on the Io lane once per trace.
class PreviewLoader : public QObject {
 public:
  /// `tag` is the view's own, so that views do not stop each other. Owned by the canvas.
  PreviewLoader(Session& session, FramesCanvas& canvas, std::string tag);
  /// nullptr: nothing to show.
  void show(const std::shared_ptr<const Trace>& trace);
  [[nodiscard]] bool isLoading() const noexcept { return m_loading; }

 private:
  Session& m_session;
  FramesCanvas& m_canvas;
  std::string m_tag;
  std::weak_ptr<const Trace> m_of;
  bool m_loading = false;
  JobHandle m_job;
};

}  // namespace sparsight

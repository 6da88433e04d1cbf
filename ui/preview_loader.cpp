// SPDX-License-Identifier: Apache-2.0
#include "ui/preview_loader.h"

#include <QImage>
#include <QPointer>
#include <utility>
#include <variant>
#include <vector>

#include "ui/frames_canvas.h"
#include "ui/session.h"

namespace sparsight {

PreviewLoader::PreviewLoader(Session& session, FramesCanvas& canvas, std::string tag)
    : QObject(&canvas), m_session(session), m_canvas(canvas), m_tag(std::move(tag)) {}

void PreviewLoader::show(const std::shared_ptr<const Trace>& trace) {
  if (trace && trace == m_of.lock()) return;
  m_of = trace;
  m_job.cancel();
  m_canvas.setPreview({});
  m_loading = trace && trace->info().frames.has_value();
  if (!m_loading) return;
  JobSpec spec;
  spec.name = "Preview frames";
  spec.lane = Lane::Io;
  spec.supersedeTag = m_tag;
  using Pictures = std::vector<QImage>;
  const QPointer<PreviewLoader> self(this);
  m_job = m_session.jobs().submit<Pictures>(
      spec, [trace](JobContext& context) { return previewImages(*trace, context.stop()); },
      [self](Outcome<Pictures> outcome) {
        if (!self || std::holds_alternative<Cancelled>(outcome)) return;
        self->m_loading = false;
        if (auto* pictures = std::get_if<Pictures>(&outcome)) self->m_canvas.setPreview(std::move(*pictures));
      });
}

}  // namespace sparsight

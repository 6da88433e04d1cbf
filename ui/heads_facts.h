// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QObject>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "sparsight/core/job.h"
#include "sparsight/core/run.h"
#include "sparsight/core/trace.h"

namespace sparsight {

/// What the head grid knows of a head before any method was run on it.
struct HeadFacts {
  HeadStats stats;
  HeadClass headClass = HeadClass::None;  ///< SVG's sampled vote with its defaults
  std::optional<double> margin;           ///< of that vote
  std::string error;                      ///< not empty: could not be computed, and why
};

/// Computes facts of one step's heads in the background, from few sampled rows, one low-priority job per head so that
/// what the user asks for never waits for more than one of them. Results are kept per head for as long as the trace is
/// open.
class HeadFactsStore : public QObject {
  Q_OBJECT
 public:
  /// Query rows sampled per head; enough for a class and a density to two figures.
  static constexpr Index kSampledRows = 64;

  explicit HeadFactsStore(JobQueue& queue, QObject* parent = nullptr);
  ~HeadFactsStore() override;

  /// Another trace (or none): drops everything.
  void setTrace(std::shared_ptr<const Trace> trace);
  /// The heads wanted next, in order of interest; known ones are skipped, those of the last call that did not run are
  /// forgotten.
  void request(std::vector<HeadId> heads);
  void setPaused(bool paused);
  [[nodiscard]] bool isPaused() const noexcept { return m_paused; }
  [[nodiscard]] const HeadFacts* find(const HeadId& id) const;
  [[nodiscard]] bool isIdle() const noexcept { return m_next >= m_wanted.size() && !m_busy; }
  [[nodiscard]] std::size_t doneCount() const noexcept { return m_next - (m_busy ? 1U : 0U); }
  [[nodiscard]] std::size_t wantedCount() const noexcept { return m_wanted.size(); }

 Q_SIGNALS:
  void updated();

 private:
  void startNext();
  JobQueue& m_queue;
  std::shared_ptr<const Trace> m_trace;
  std::map<HeadId, HeadFacts> m_facts;
  std::vector<HeadId> m_wanted;
  std::size_t m_next = 0;
  bool m_paused = false, m_busy = false;
  JobHandle m_job;
};

}  // namespace sparsight

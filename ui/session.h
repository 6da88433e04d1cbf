// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QObject>
#include <QString>
#include <QStringList>
#include <QTimer>
#include <memory>
#include <optional>

#include "sparsight/core/job.h"
#include "sparsight/core/run.h"
#include "sparsight/core/trace.h"
#include "ui/profile_document.h"
#include "ui/view.h"

namespace sparsight {

/// What every view looks at.
struct Selection {
  int step = -1;              ///< 0-based index; -1: none
  std::string branch;
  int layer = -1, head = -1;
  friend bool operator==(const Selection&, const Selection&) = default;
};
/// The picked token pair, in model order.
struct PickedPair {
  Index query = -1, key = -1;
  friend bool operator==(const PickedPair&, const PickedPair&) = default;
};

/// A method result of one head, as the views show it.
using HeadResult = std::shared_ptr<const HeadReport>;

/// Results of method runs by (method, head); the newest wins.
class RunStore {
 public:
  void put(HeadResult result, const QString& methodId);
  void clear();
  [[nodiscard]] HeadResult find(const QString& methodId, const HeadId& id) const;
  [[nodiscard]] QStringList methods() const;   ///< with at least one result, newest first

 private:
  std::map<QString, std::map<HeadId, HeadResult>> m_results;
  QStringList m_order;
};

/// The facade between views and core: shared selection, the open trace, the profile, jobs, results. GUI thread only.
class Session : public QObject {
  Q_OBJECT
 public:
  explicit Session(JobQueueOptions options = {}, QObject* parent = nullptr);
  ~Session() override;

  [[nodiscard]] JobQueue& jobs() noexcept { return *m_jobs; }
  [[nodiscard]] const std::shared_ptr<const Trace>& trace() const noexcept { return m_trace; }
  [[nodiscard]] ProfileDocument& profile() noexcept { return *m_profile; }
  [[nodiscard]] const RunStore& runs() const noexcept { return m_runs; }
  [[nodiscard]] const Selection& selection() const noexcept { return m_selection; }
  [[nodiscard]] const PickedPair& pair() const noexcept { return m_pair; }
  /// The selected head if it is captured.
  [[nodiscard]] std::optional<HeadId> selectedHead() const;
  /// Method whose results overlay the map and colour the heads; empty: none.
  [[nodiscard]] const QString& overlayMethod() const noexcept { return m_overlayMethod; }
  [[nodiscard]] HeadResult selectedResult() const;   ///< of overlayMethod for the selected head

  void setSelection(Selection selection);            ///< clamped to what the trace has
  void setPair(PickedPair pair);
  void setOverlayMethod(const QString& methodId);
  void addResult(HeadResult result, const QString& methodId);

  /// Opens a trace or profile by content, on the Io lane. Errors arrive by errorOccurred; what was open stays.
  void openFile(const QString& path);
  void openDemo();                                   ///< generates it on first use, with progress
  void closeTrace();
  void notifySettingsChanged(ChangeFlags what = Change::Settings) { queueChange(what); }

  /// Runs a method (job, user-visible); results arrive one by one through addResult.
  void runMethod(RunRequest request, const QString& what);

 signals:
  void changed(sparsight::ChangeFlags changes);      ///< merged, once per event loop turn
  void errorOccurred(const QString& title, const QString& message);
  void opening(const QString& path);                 ///< "" when finished
  void fileOpened(const QString& path);              ///< for recent files
  void jobsChanged();

 private:
  void queueChange(ChangeFlags what);
  void setTrace(std::shared_ptr<const Trace> trace);
  std::unique_ptr<JobQueue> m_jobs;
  std::unique_ptr<ProfileDocument> m_profile;
  std::shared_ptr<const Trace> m_trace;
  RunStore m_runs;
  Selection m_selection;
  PickedPair m_pair;
  QString m_overlayMethod;
  ChangeFlags m_pending;
  QTimer m_flush;
  JobHandle m_openJob;
  std::vector<JobHandle> m_runJobs;
};

}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QObject>
#include <QString>
#include <QStringList>
#include <QTimer>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "sparsight/core/importer.h"
#include "sparsight/core/job.h"
#include "sparsight/core/map_cache.h"
#include "sparsight/core/run.h"
#include "sparsight/core/synth.h"
#include "sparsight/core/trace.h"
#include "ui/profile_document.h"
#include "ui/view.h"

namespace sparsight {

class JobBridge;

/// What every view looks at.
struct Selection {
  int step = -1;  ///< 0-based index; -1: none
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

/// How results came about: what was asked, and the file they were opened from.
struct RunOrigin {
  ResultsHeader header;
  std::filesystem::path file;  ///< empty: made by a run of this window
};
using RunOriginPtr = std::shared_ptr<const RunOrigin>;

/// Results of method runs by (method, head); the newest wins. Plans are large (row intervals, labels, scores): beyond
/// planLimitBytes the oldest lose their arrays and keep their numbers, hasPlan() tells.
class RunStore {
 public:
  void put(HeadResult result, const QString& methodId, RunOriginPtr origin = nullptr);
  void clear();
  [[nodiscard]] HeadResult find(const QString& methodId, const HeadId& id) const;
  [[nodiscard]] bool hasPlan(const QString& methodId, const HeadId& id) const;
  [[nodiscard]] RunOriginPtr originOf(const QString& methodId, const HeadId& id) const;
  [[nodiscard]] HeadResult newest(const QString& methodId) const;
  /// The results of a method, ascending by head.
  [[nodiscard]] std::vector<HeadResult> all(const QString& methodId) const;
  [[nodiscard]] QStringList methods() const;  ///< with at least one result, newest first
  [[nodiscard]] Index planBytes() const noexcept { return m_planBytes; }
  void setPlanLimit(Index bytes) { m_planLimit = bytes; }

 private:
  struct Entry {
    HeadResult result;
    RunOriginPtr origin;
    Index planBytes = 0;  ///< 0: stripped
    std::uint64_t order = 0;
  };
  void strip();
  std::map<QString, std::map<HeadId, Entry>> m_results;
  std::map<std::uint64_t, std::pair<QString, HeadId>> m_age;
  QStringList m_order;
  std::uint64_t m_next = 0;
  Index m_planBytes = 0, m_planLimit = Index{512} << 20;
};

/// The facade between views and core: shared selection, the open trace, the profile, jobs, results. GUI thread only.
class Session : public QObject {
  Q_OBJECT
 public:
  /// Why a result has no plan to lay over the map.
  enum class PlanGap : std::uint8_t {
    None,        ///< it has one, or there is no result
    NotPlanned,  ///< the method could not handle the head
    Reading,     ///< it is being read from its plan file
    NotInFile,   ///< opened from a results file, which holds numbers only
    Dropped      ///< to save memory
  };
  /// options.threads == 0: all cores but one, at least 1. onStatus is taken over.
  explicit Session(JobQueueOptions options = {}, QObject* parent = nullptr);
  ~Session() override;

  [[nodiscard]] JobQueue& jobs() noexcept { return *m_jobs; }
  [[nodiscard]] const std::shared_ptr<const Trace>& trace() const noexcept { return m_trace; }
  [[nodiscard]] ProfileDocument& profile() noexcept { return *m_profile; }
  /// What computes; nullopt until it was found out (jobsChanged then).
  [[nodiscard]] const std::optional<BackendInfo>& backend() const noexcept { return m_backend; }
  [[nodiscard]] const RunStore& runs() const noexcept { return m_runs; }
  [[nodiscard]] const Selection& selection() const noexcept { return m_selection; }
  [[nodiscard]] const PickedPair& pair() const noexcept { return m_pair; }
  /// The selected head if it is captured.
  [[nodiscard]] std::optional<HeadId> selectedHead() const;
  /// The head at a place, if it is captured.
  [[nodiscard]] std::optional<HeadId> headAt(int step, const std::string& branch, int layer, int head) const;
  /// Method whose results overlay the map and colour the heads; empty: none.
  [[nodiscard]] const QString& overlayMethod() const noexcept { return m_overlayMethod; }
  /// Of overlayMethod for the selected head, with its plan; nullptr when there is none or the plan was dropped.
  [[nodiscard]] HeadResult selectedResult() const;
  /// Why selectedResult() is nullptr although overlayMethod has a result for the selected head.
  [[nodiscard]] PlanGap selectedPlanGap() const;
  /// Makes the selected head's plan of overlayMethod again, with the parameters of its result.
  void runSelectedAgain();
  /// Parameters that the last run of a method was given, without defaults.
  [[nodiscard]] ParamSet givenParams(const QString& methodId) const;
  /// What the last finished run of a method resolved to (heads are empty); nullptr: none.
  [[nodiscard]] std::shared_ptr<const RunReport> lastReport(const QString& methodId) const;
  /// Values a selection may take: what the trace captured and what the open profile covers; ascending.
  [[nodiscard]] std::vector<int> selectableSteps() const;
  [[nodiscard]] std::vector<int> selectableLayers() const;
  [[nodiscard]] std::vector<int> selectableHeads() const;

  void setSelection(Selection selection);  ///< each part moves to the nearest value that there is
  /// Moves by so many existing values on each axis, stopping at the ends.
  void moveSelection(int steps, int layers, int heads);
  void setPair(PickedPair pair);
  void setOverlayMethod(const QString& methodId);
  void addResult(HeadResult result, const QString& methodId, RunOriginPtr origin = nullptr);
  /// Writes what was run of a method as a results or plan file, on the Io lane; `saved` tells what is in it.
  void saveRuns(const QString& methodId, const QString& path, bool plans);

  /// Opens a trace, profile, plan or results file by content, on the Io lane. Results wait for the traces opened with
  /// them; without a trace they fit, traceWanted says so. Errors arrive by errorOccurred; what was open stays. A newer
  /// call stops an older one; with `afterOthers` it waits for it instead (several files at once: a bad one costs only
  /// itself).
  void openFile(const QString& path, bool afterOthers = false);
  /// Generates the demo on first use, with progress; then its profile, measured on first use, unless one is open.
  void openDemo();
  /// Writes a synthetic trace on the Compute lane, then opens it.
  void generateTrace(const SynthSpec& spec, const QString& path);
  /// Converts foreign tensors into a trace on the Compute lane, then opens it. Opening something else does not stop it.
  void importTrace(std::shared_ptr<const Survey> survey, std::shared_ptr<const ImportPlan> plan, const QString& path);
  void closeTrace();
  void notifySettingsChanged(ChangeFlags what = Change::Settings) { queueChange(what); }
  /// For traces opened from now on.
  void setTraceOptions(const TraceOptions& options) { m_traceOptions = options; }
  /// Where exact maps are kept over sessions; nullptr (the default): nowhere.
  [[nodiscard]] const std::shared_ptr<MapCache>& mapCache() const noexcept { return m_mapCache; }
  void setMapCache(std::shared_ptr<MapCache> cache) { m_mapCache = std::move(cache); }
  /// Limit of that cache, in a job; empties it first when asked to.
  void setMapCacheLimit(Index bytes, bool clear = false);
  /// Gives memory back in a job, as tens of megabytes take milliseconds: at once, or when whoever else holds `object`
  /// has let it go.
  void discard(std::shared_ptr<const void> object);
  [[nodiscard]] bool isOpening() const noexcept { return m_opening > 0; }
  void cancelOpening();
  /// Takes over the opening of a file that turned out to be a profile (questions about convention and unsaved edits
  /// need a window); without it the profile is read and replaces the open one.
  std::function<void(const QString& path)> openProfile;

  /// Runs a method (job, user-visible); results arrive one by one through addResult.
  void runMethod(RunRequest request, const QString& what);

 Q_SIGNALS:
  void changed(sparsight::ChangeFlags changes);  ///< merged, once per event loop turn
  void errorOccurred(const QString& title, const QString& message);
  void opening(const QString& path);     ///< "" when finished
  void fileOpened(const QString& path);  ///< for recent files
  /// A plan or results file is in the run store.
  void resultsOpened(const QString& path, const QStringList& methods, int heads, bool complete);
  /// A plan or results file does not belong to what is open. `trace`: the file it was made from, where it exists.
  void traceWanted(const QString& path, const QString& trace, const QString& why);
  /// A file or folder holds tensors of another program: they need an import.
  void importWanted(const QString& path);
  /// saveRuns wrote a file; `leftOut` heads are not in it (dropped plans, runs with other settings).
  void saved(const QString& path, int heads, int leftOut);
  void jobsChanged();

 private:
  struct Opened;
  struct OpenedResults;
  void queueChange(ChangeFlags what);
  void probeBackend();
  /// A profile alone starts at a step that has values: measured ones are mostly holes.
  void leaveEmptyStep();
  void setTrace(std::shared_ptr<const Trace> trace);
  void giveMemoryBack();
  void submitOpen(JobSpec spec, const QString& path, std::function<Opened(JobContext&)> work);
  void finishOpen(const QString& path, Outcome<Opened> outcome);
  void receiveOpened(const QString& path, Outcome<Opened> outcome);
  void openDemoProfile();
  [[nodiscard]] static std::shared_ptr<OpenedResults> readResults(const std::filesystem::path& file,
                                                                  const QString& path, JobContext& context);
  void takeResults(const std::shared_ptr<OpenedResults>& results);
  void addOpened(const std::shared_ptr<OpenedResults>& results, std::size_t from);
  /// The selected head's plan from the plan file its numbers came from.
  void fetchPlan();
  std::unique_ptr<JobBridge> m_bridge;
  std::unique_ptr<JobQueue> m_jobs;
  std::unique_ptr<ProfileDocument> m_profile;
  std::shared_ptr<const Trace> m_trace;
  std::shared_ptr<MapCache> m_mapCache;
  RunStore m_runs;
  std::map<QString, std::shared_ptr<const RunReport>> m_reports;
  std::map<QString, ParamSet> m_given;
  std::vector<std::shared_ptr<OpenedResults>> m_waitingResults;
  std::optional<std::pair<QString, HeadId>> m_fetching;
  Selection m_selection;
  PickedPair m_pair;
  QString m_overlayMethod;
  TraceOptions m_traceOptions;
  ChangeFlags m_pending;
  QTimer m_flush, m_discardTimer;
  std::vector<std::shared_ptr<const void>> m_discarded;  ///< that others still hold
  std::vector<JobHandle> m_openJobs;
  JobHandle m_demoProfileJob, m_probeJob, m_fetchJob;
  std::optional<BackendInfo> m_backend;
  int m_opening = 0;
  std::vector<JobHandle> m_runJobs, m_importJobs;
};

}  // namespace sparsight

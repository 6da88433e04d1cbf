// SPDX-License-Identifier: Apache-2.0
#include "ui/session.h"

#include <QFileInfo>
#include <QThread>
#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "sparsight/core/profile.h"
#include "sparsight/core/profiling.h"
#include "ui/job_bridge.h"

namespace sparsight {
namespace {
constexpr int kDiscardMs = 100;

/// The numbers of a report without the arrays of its plan.
HeadResult withoutPlanArrays(const HeadReport& full) {
  auto light = std::make_shared<HeadReport>();
  light->id = full.id;
  light->evaluation = full.evaluation;
  light->planMs = full.planMs;
  light->wouldBeDense = full.wouldBeDense;
  light->skippedReason = full.skippedReason;
  light->plan = withoutArrays(full.plan);
  return light;
}

bool holdsArrays(const Plan& plan) { return planBytes(plan) > static_cast<Index>(sizeof(Plan)); }

HeadResult resultOf(PlanFileEntry entry) {
  auto result = std::make_shared<HeadReport>();
  result->id = std::move(entry.id);
  result->wouldBeDense = entry.plan.wouldBeDense;
  result->plan = std::move(entry.plan);
  result->evaluation = std::move(entry.evaluation);
  result->planMs = entry.planMs;
  result->skippedReason = std::move(entry.skippedReason);
  return result;
}

/// Where the trace of a results file is: at the place it names (a relative one as seen from the file), or beside the
/// file. Empty: nowhere.
std::filesystem::path traceOf(const ResultsHeader& header, const std::filesystem::path& results) {
  if (header.tracePath.empty()) return {};
  for (const std::filesystem::path& candidate :
       {results.parent_path() / header.tracePath, results.parent_path() / header.tracePath.filename()}) {
    try {
      if (std::filesystem::is_regular_file(candidate) && sniffFormat(candidate) == "trace") return candidate;
    } catch (const std::exception&) {
      continue;  // another file of that name is no help
    }
  }
  return {};
}

int nearest(const std::vector<int>& sorted, int value) {
  if (sorted.empty()) return -1;
  const auto it = std::lower_bound(sorted.begin(), sorted.end(), value);
  if (it == sorted.end()) return sorted.back();
  if (it == sorted.begin() || *it == value) return *it;
  return value - *(it - 1) <= *it - value ? *(it - 1) : *it;
}

std::vector<int> merged(std::vector<int> captured, int profileCount) {
  if (profileCount <= 0) return captured;
  for (int i = 0; i < profileCount; ++i) captured.push_back(i);
  std::sort(captured.begin(), captured.end());
  captured.erase(std::unique(captured.begin(), captured.end()), captured.end());
  return captured;
}

int moved(const std::vector<int>& sorted, int value, int delta) {
  if (sorted.empty() || delta == 0) return value;
  const auto here = std::lower_bound(sorted.begin(), sorted.end(), nearest(sorted, value)) - sorted.begin();
  const auto last = static_cast<std::ptrdiff_t>(sorted.size()) - 1;
  return sorted[static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(here + delta, 0, last))];
}

}  // namespace

// --- RunStore -----------------------------------------------------------------------------------------------------

void RunStore::put(HeadResult result, const QString& methodId, RunOriginPtr origin) {
  const HeadId id = result->id;
  Entry& entry = m_results[methodId][id];
  m_planBytes -= entry.planBytes;
  m_age.erase(entry.order);
  entry.planBytes = holdsArrays(result->plan) ? sparsight::planBytes(result->plan) : 0;
  entry.result = std::move(result);
  entry.origin = std::move(origin);
  entry.order = ++m_next;
  m_planBytes += entry.planBytes;
  if (entry.planBytes > 0) m_age.emplace(entry.order, std::pair(methodId, id));
  m_order.removeAll(methodId);
  m_order.prepend(methodId);
  strip();
}

void RunStore::strip() {
  // The newest always keeps its plan, however large: it is the one being looked at.
  while (m_planBytes > m_planLimit && m_age.size() > 1) {
    const auto oldest = m_age.begin();
    Entry& entry = m_results[oldest->second.first][oldest->second.second];
    entry.result = withoutPlanArrays(*entry.result);
    m_planBytes -= entry.planBytes;
    entry.planBytes = 0;
    m_age.erase(oldest);
  }
}

void RunStore::clear() {
  m_results.clear();
  m_age.clear();
  m_order.clear();
  m_planBytes = 0;
}

HeadResult RunStore::find(const QString& methodId, const HeadId& id) const {
  const auto method = m_results.find(methodId);
  if (method == m_results.end()) return nullptr;
  const auto head = method->second.find(id);
  return head == method->second.end() ? nullptr : head->second.result;
}

bool RunStore::hasPlan(const QString& methodId, const HeadId& id) const {
  const auto method = m_results.find(methodId);
  if (method == m_results.end()) return false;
  const auto head = method->second.find(id);
  return head != method->second.end() && head->second.planBytes > 0 && head->second.result->skippedReason.empty();
}

RunOriginPtr RunStore::originOf(const QString& methodId, const HeadId& id) const {
  const auto method = m_results.find(methodId);
  if (method == m_results.end()) return nullptr;
  const auto head = method->second.find(id);
  return head == method->second.end() ? nullptr : head->second.origin;
}

HeadResult RunStore::newest(const QString& methodId) const {
  const auto method = m_results.find(methodId);
  const Entry* last = nullptr;
  if (method != m_results.end())
    for (const auto& [id, entry] : method->second)
      if (last == nullptr || entry.order > last->order) last = &entry;
  return last == nullptr ? nullptr : last->result;
}

std::vector<HeadResult> RunStore::all(const QString& methodId) const {
  std::vector<HeadResult> results;
  const auto method = m_results.find(methodId);
  if (method == m_results.end()) return results;
  for (const auto& [id, entry] : method->second) results.push_back(entry.result);
  return results;
}

QStringList RunStore::methods() const { return m_order; }

// --- Session ------------------------------------------------------------------------------------------------------

/// A plan or results file as read: numbers of all heads.
struct Session::OpenedResults {
  QString path;
  std::vector<HeadResult> heads;
  std::vector<QString> methods;  ///< of each head
  RunOriginPtr origin;
  QString trace;  ///< the file it was made from, where it exists
  std::shared_ptr<const Trace> into;
};

/// What an opening job hands over: one of them.
struct Session::Opened {
  std::shared_ptr<const Trace> trace;
  std::shared_ptr<OpenedResults> results;
  std::shared_ptr<const Profile> profile;
  bool isProfile = false;  ///< not read: openProfile does that
  bool isForeign = false;  ///< tensors of another program: importWanted
  QString path;
};

Session::Session(JobQueueOptions options, QObject* parent) : QObject(parent), m_bridge(std::make_unique<JobBridge>()) {
  if (options.threads <= 0) options.threads = std::max(1, QThread::idealThreadCount() - 1);
  // With as many busy threads as cores the one that paints would wait for its turn.
  constexpr int kBelowTheWindow = 5;
  if (options.nice <= 0) options.nice = kBelowTheWindow;
  options.onStatus = [this](const std::vector<JobStatus>&) { Q_EMIT jobsChanged(); };
  m_jobs = std::make_unique<JobQueue>(m_bridge->dispatcher(), std::move(options));
  m_profile = std::make_unique<ProfileDocument>();
  connect(m_profile.get(), &ProfileDocument::profileChanged, this, [this] {
    queueChange(Change::Profile);
    setSelection(m_selection);
  });
  connect(m_profile.get(), &ProfileDocument::profileReplaced, this, &Session::leaveEmptyStep);
  probeBackend();
  m_discardTimer.setSingleShot(true);
  connect(&m_discardTimer, &QTimer::timeout, this, [this] {
    constexpr int kLongestMs = 10'000;
    m_discardTimer.setInterval(std::min(2 * m_discardTimer.interval(), kLongestMs));
    giveMemoryBack();
  });
  m_flush.setSingleShot(true);
  m_flush.setInterval(0);
  connect(&m_flush, &QTimer::timeout, this, [this] {
    const ChangeFlags what = std::exchange(m_pending, ChangeFlags());
    if (what & (ChangeFlags(Change::Trace) | Change::Selection | Change::Runs)) fetchPlan();
    if (what) Q_EMIT changed(what);
  });
}

void Session::probeBackend() {
  // Loading a driver may take a second.
  JobSpec spec;
  spec.name = "Look for a compute device";
  spec.lane = Lane::Tiles;  // files open meanwhile
  m_probeJob = m_jobs->submit<BackendInfo>(
      std::move(spec), [jobs = m_jobs.get()](JobContext&) { return jobs->backendInfo(); },
      [this](Outcome<BackendInfo> outcome) {
        if (const BackendInfo* info = std::get_if<BackendInfo>(&outcome)) m_backend = *info;
        Q_EMIT jobsChanged();
      });
}

Session::~Session() {
  // Handles first, so that nothing new is reported; then the queue joins its lanes; closures in flight die with the
  // bridge.
  m_openJobs.clear();
  m_demoProfileJob.cancel();
  m_probeJob.cancel();
  m_fetchJob.cancel();
  m_runJobs.clear();
  m_jobs.reset();
  m_bridge.reset();
}

void Session::setMapCacheLimit(Index bytes, bool clear) {
  if (!m_mapCache) return;
  JobSpec spec;
  spec.name = "Maps kept on disk";
  spec.lane = Lane::Io;
  m_jobs
      ->submit<bool>(
          spec,
          [cache = m_mapCache, bytes, clear](JobContext&) {
            if (clear) cache->clear();
            cache->setLimit(bytes);
            return true;
          },
          [](const Outcome<bool>&) {})
      .release();
}

void Session::discard(std::shared_ptr<const void> object) {
  if (!object) return;
  m_discarded.push_back(std::move(object));
  m_discardTimer.setInterval(kDiscardMs);
  giveMemoryBack();
}

void Session::giveMemoryBack() {
  // What somebody else still holds would be freed where they let go, and that is mostly here, on the GUI thread: a view
  // that is told later, a job's closure that comes back.
  const auto alone = std::stable_partition(m_discarded.begin(), m_discarded.end(),
                                           [](const std::shared_ptr<const void>& o) { return o.use_count() > 1; });
  auto free = std::make_shared<std::vector<std::shared_ptr<const void>>>(std::make_move_iterator(alone),
                                                                         std::make_move_iterator(m_discarded.end()));
  m_discarded.erase(alone, m_discarded.end());
  if (!m_discarded.empty()) m_discardTimer.start();
  if (free->empty()) return;
  JobSpec spec;
  spec.name = "Give memory back";
  spec.lane = Lane::Io;
  spec.priority = -100;
  m_jobs
      ->submit<bool>(
          spec,
          [free](JobContext&) {
            free->clear();
            return true;
          },
          [](const Outcome<bool>&) {})
      .release();
}

void Session::queueChange(ChangeFlags what) {
  m_pending |= what;
  if (!m_flush.isActive()) m_flush.start();
}

std::optional<HeadId> Session::headAt(int step, const std::string& branch, int layer, int head) const {
  if (!m_trace) return std::nullopt;
  const CallInfo* call = m_trace->info().callAt(step, branch, layer);
  if (call == nullptr || !call->available) return std::nullopt;
  if (std::find(call->heads.begin(), call->heads.end(), head) == call->heads.end()) return std::nullopt;
  return HeadId{call->id, head};
}

std::optional<HeadId> Session::selectedHead() const {
  return headAt(m_selection.step, m_selection.branch, m_selection.layer, m_selection.head);
}

HeadResult Session::selectedResult() const {
  const std::optional<HeadId> id = selectedHead();
  if (!id || m_overlayMethod.isEmpty() || !m_runs.hasPlan(m_overlayMethod, *id)) return nullptr;
  return m_runs.find(m_overlayMethod, *id);
}

std::shared_ptr<const RunReport> Session::lastReport(const QString& methodId) const {
  const auto it = m_reports.find(methodId);
  return it == m_reports.end() ? nullptr : it->second;
}

std::vector<int> Session::selectableSteps() const {
  return merged(m_trace ? m_trace->info().steps() : std::vector<int>{},
                m_profile->isEmpty() ? 0 : m_profile->current().steps());
}
std::vector<int> Session::selectableLayers() const {
  return merged(m_trace ? m_trace->info().layers() : std::vector<int>{},
                m_profile->isEmpty() ? 0 : m_profile->current().layers());
}
std::vector<int> Session::selectableHeads() const {
  return merged(m_trace ? m_trace->info().heads() : std::vector<int>{},
                m_profile->isEmpty() ? 0 : m_profile->current().heads());
}

void Session::setSelection(Selection selection) {
  selection.step = nearest(selectableSteps(), selection.step);
  selection.layer = nearest(selectableLayers(), selection.layer);
  selection.head = nearest(selectableHeads(), selection.head);
  if (m_trace) {
    const std::vector<std::string> branches = m_trace->info().branches();
    if (std::find(branches.begin(), branches.end(), selection.branch) == branches.end())
      selection.branch = m_trace->info().defaultBranch();
  } else {
    selection.branch.clear();
  }
  if (selection == m_selection) return;
  m_selection = std::move(selection);
  queueChange(Change::Selection);
}

void Session::leaveEmptyStep() {
  if (m_trace || m_profile->isEmpty()) return;
  const Profile& profile = m_profile->current();
  const auto hasValue = [&profile](int step) {
    for (int layer = 0; layer < profile.layers(); ++layer)
      for (int head = 0; head < profile.heads(); ++head)
        if (profile.at({step, layer, head})) return true;
    return false;
  };
  Selection next = m_selection;
  next.step = std::clamp(next.step, 0, std::max(0, profile.steps() - 1));
  if (hasValue(next.step)) return;
  for (int step = 0; step < profile.steps(); ++step)
    if (hasValue(step)) {
      next.step = step;
      return setSelection(std::move(next));
    }
}

void Session::moveSelection(int steps, int layers, int heads) {
  Selection next = m_selection;
  next.step = moved(selectableSteps(), next.step, steps);
  next.layer = moved(selectableLayers(), next.layer, layers);
  next.head = moved(selectableHeads(), next.head, heads);
  setSelection(std::move(next));
}

void Session::setPair(PickedPair pair) {
  if (pair == m_pair) return;
  m_pair = pair;
  queueChange(Change::Pair);
}

void Session::setOverlayMethod(const QString& methodId) {
  if (methodId == m_overlayMethod) return;
  m_overlayMethod = methodId;
  queueChange(Change::Runs);
}

void Session::addResult(HeadResult result, const QString& methodId, RunOriginPtr origin) {
  m_runs.put(std::move(result), methodId, std::move(origin));
  queueChange(Change::Runs);
}

ParamSet Session::givenParams(const QString& methodId) const {
  const auto it = m_given.find(methodId);
  return it == m_given.end() ? ParamSet() : it->second;
}

Session::PlanGap Session::selectedPlanGap() const {
  const std::optional<HeadId> id = selectedHead();
  if (!id || m_overlayMethod.isEmpty()) return PlanGap::None;
  const HeadResult result = m_runs.find(m_overlayMethod, *id);
  if (!result || m_runs.hasPlan(m_overlayMethod, *id)) return PlanGap::None;
  if (!result->skippedReason.empty()) return PlanGap::NotPlanned;
  if (m_fetching && m_fetching->first == m_overlayMethod && m_fetching->second == *id) return PlanGap::Reading;
  const RunOriginPtr origin = m_runs.originOf(m_overlayMethod, *id);
  return origin && !origin->file.empty() && !origin->header.plans ? PlanGap::NotInFile : PlanGap::Dropped;
}

void Session::fetchPlan() {
  const std::optional<HeadId> id = selectedHead();
  const RunOriginPtr origin = id && !m_overlayMethod.isEmpty() ? m_runs.originOf(m_overlayMethod, *id) : nullptr;
  if (!origin || origin->file.empty() || !origin->header.plans || m_runs.hasPlan(m_overlayMethod, *id) ||
      !m_runs.find(m_overlayMethod, *id)->skippedReason.empty()) {
    return;
  }
  const std::pair wanted(m_overlayMethod, *id);
  if (m_fetching == wanted) return;
  m_fetching = wanted;
  JobSpec spec;
  spec.name = "Read a plan";
  spec.lane = Lane::Io;
  spec.supersedeTag = "session/plan";
  spec.priority = 90;
  m_fetchJob = m_jobs->submit<HeadResult>(
      std::move(spec),
      [file = origin->file, id = *id](JobContext& context) -> HeadResult {
        return resultOf(readPlanOf(file, id, Control{context.stop(), {}}));
      },
      [this, wanted, origin, trace = m_trace](Outcome<HeadResult> outcome) {
        if (m_fetching == wanted) m_fetching.reset();
        if (trace != m_trace || std::holds_alternative<Cancelled>(outcome)) return;
        if (const Error* error = std::get_if<Error>(&outcome)) {
          // Not asked again: the numbers stay, and the plan can be made again.
          auto gone = std::make_shared<RunOrigin>(*origin);
          gone->header.plans = false;
          addResult(m_runs.find(wanted.first, wanted.second), wanted.first, std::move(gone));
          Q_EMIT errorOccurred(tr("The plan could not be read"), QString::fromUtf8(error->what()));
          return;
        }
        addResult(std::move(std::get<HeadResult>(outcome)), wanted.first, origin);
      });
}

void Session::runSelectedAgain() {
  const std::optional<HeadId> id = selectedHead();
  const HeadResult result = id ? m_runs.find(m_overlayMethod, *id) : nullptr;
  if (!result || result->plan.methodId.empty()) return;
  const RunOriginPtr origin = m_runs.originOf(m_overlayMethod, *id);
  std::vector<int> steps;
  for (const int step : m_trace->info().steps()) {
    HeadId earlier = *id;
    earlier.call.step = step;
    if (m_runs.find(m_overlayMethod, earlier)) steps.push_back(step);
  }
  try {
    const ParamSet given = givenParams(m_overlayMethod);
    runMethod(requestAgain(m_trace->info(), *result, origin ? origin->header : ResultsHeader{}, steps),
              tr("Run %1 again on layer %2 head %3, step %4")
                  .arg(QString::fromStdString(std::string(methodById(result->plan.methodId).title())))
                  .arg(id->call.layer)
                  .arg(id->head)
                  .arg(id->call.step));
    m_given[m_overlayMethod] = given;  // every parameter of an old result is not what the user gave
  } catch (const Error& error) {
    Q_EMIT errorOccurred(tr("The plan cannot be made again"), QString::fromUtf8(error.what()));
  }
}

void Session::saveRuns(const QString& methodId, const QString& path, bool plans) {
  if (!m_trace) return;
  // One file holds one run: heads of the newest one's settings.
  std::vector<HeadResult> heads;
  RunOriginPtr newest;
  int leftOut = 0;
  const std::vector<HeadResult> all = m_runs.all(methodId);
  if (const HeadResult last = m_runs.newest(methodId)) newest = m_runs.originOf(methodId, last->id);
  for (const HeadResult& head : all) {
    const RunOriginPtr origin = m_runs.originOf(methodId, head->id);
    const bool sameRun = origin && newest && origin->header.request == newest->header.request;
    const bool usable = !plans || (head->skippedReason.empty() && holdsArrays(head->plan));
    if (sameRun && usable)
      heads.push_back(head);
    else if (!plans || head->skippedReason.empty())
      ++leftOut;
  }
  const QString name = QFileInfo(path).fileName();
  if (heads.empty()) {
    Q_EMIT errorOccurred(tr("%1 was not saved").arg(name),
                         plans ? tr("There is no plan of %1 in memory; run it again.").arg(methodId)
                               : tr("%1 has not run yet.").arg(methodId));
    return;
  }
  ResultsHeader header = newest->header;
  header.plans = plans;
  header.complete = header.complete && m_runJobs.empty();
  JobSpec spec;
  spec.name = tr("Save %1").arg(name).toStdString();
  spec.lane = Lane::Io;
  spec.userVisible = true;
  const int count = static_cast<int>(heads.size());
  m_jobs
      ->submit<bool>(
          std::move(spec),
          [trace = m_trace, heads = std::move(heads), header,
           file = std::filesystem::path(path.toStdString())](JobContext& context) {
            std::vector<std::filesystem::path> inputs = trace->info().parts;
            inputs.push_back(trace->info().path);
            for (const std::filesystem::path& input : inputs) {
              std::error_code ignored;
              if (std::filesystem::equivalent(file, input, ignored)) {
                throw Error(ErrorCode::InvalidArgument,
                            file.string() + " is a file of the open trace; choose another name, nothing was changed");
              }
            }
            writeHeads(file, *trace, heads, header, context.control());
            return true;
          },
          [this, path, name, count, leftOut](const Outcome<bool>& outcome) {
            if (const Error* error = std::get_if<Error>(&outcome))
              Q_EMIT errorOccurred(tr("%1 was not saved").arg(name), QString::fromUtf8(error->what()));
            else if (std::holds_alternative<bool>(outcome))
              Q_EMIT saved(path, count, leftOut);
          })
      .release();
}

void Session::takeResults(const std::shared_ptr<OpenedResults>& results) {
  const ResultsHeader& header = results->origin->header;
  if (m_trace && header.traceUuid == m_trace->info().uuid) {
    results->into = m_trace;
    return addOpened(results, 0);
  }
  if (m_opening > 0) {
    m_waitingResults.push_back(results);  // its trace may be among them
    return;
  }
  const QString name = QFileInfo(results->path).fileName();
  const QString named = QString::fromStdString(header.tracePath.string());
  QString why = m_trace ? tr("It was made from another trace than the open one (%1): from %2.")
                              .arg(QString::fromStdString(m_trace->info().path.filename().string()), named)
                        : tr("It holds results of the trace %1, which has to be open to show them.").arg(named);
  if (results->trace.isEmpty()) why += tr(" That file is not there and not beside %1; open it first.").arg(name);
  Q_EMIT traceWanted(results->path, results->trace, why);
}

void Session::addOpened(const std::shared_ptr<OpenedResults>& results, std::size_t from) {
  constexpr std::size_t kAtOnce = 256;  // some milliseconds
  if (results->into != m_trace) return;
  const std::size_t to = std::min(from + kAtOnce, results->heads.size());
  for (std::size_t n = from; n < to; ++n) m_runs.put(results->heads[n], results->methods[n], results->origin);
  if (to < results->heads.size()) {
    QTimer::singleShot(0, this, [this, results, to] { addOpened(results, to); });
    return;
  }
  const QStringList methods = [&] {
    QStringList list;
    for (const QString& method : results->methods)
      if (!list.contains(method)) list << method;
    return list;
  }();
  if (!methods.isEmpty()) {
    setOverlayMethod(methods.front());
    // Show something of it.
    const std::optional<HeadId> selected = selectedHead();
    if (!selected || !m_runs.find(methods.front(), *selected)) {
      const HeadId& first = results->heads.front()->id;
      setSelection({first.call.step, first.call.branch, first.call.layer, first.head});
    }
  }
  queueChange(Change::Runs);
  Q_EMIT resultsOpened(results->path, methods, static_cast<int>(results->heads.size()),
                       results->origin->header.complete);
}

void Session::setTrace(std::shared_ptr<const Trace> trace) {
  m_runJobs.clear();  // results of the old trace would be nonsense in the new one
  // Heads in memory and plans go with them.
  discard(std::exchange(m_trace, std::move(trace)));
  discard(std::make_shared<const RunStore>(std::exchange(m_runs, {})));
  discard(std::make_shared<const decltype(m_reports)>(std::exchange(m_reports, {})));
  m_fetchJob.cancel();
  m_fetching.reset();
  m_overlayMethod.clear();
  m_pair = {};
  queueChange(ChangeFlags(Change::Trace) | Change::Selection | Change::Runs | Change::Pair);
  if (!m_trace) {
    setSelection(m_selection);
    return;
  }
  // Start where most is to be seen: the middle of what was captured, where warm-up is over and heads have their
  // pattern.
  const TraceInfo& info = m_trace->info();
  Selection start;
  start.branch = info.defaultBranch();
  const std::vector<int> steps = info.steps(), layers = info.layers();
  if (!steps.empty()) start.step = steps[steps.size() / 2];
  if (!layers.empty()) start.layer = layers[layers.size() / 2];
  const CallInfo* call = info.callAt(start.step, start.branch, start.layer);
  if (call == nullptr || !call->available) {
    const auto shown = std::find_if(info.calls.begin(), info.calls.end(), [&](const CallInfo& c) {
      return c.available && c.id.branch == start.branch && !c.heads.empty();
    });
    if (shown != info.calls.end()) {
      call = &*shown;
      start.step = shown->id.step;
      start.layer = shown->id.layer;
    }
  }
  start.head = call != nullptr && !call->heads.empty() ? call->heads.front() : 0;
  m_selection = {};
  setSelection(std::move(start));
}

void Session::submitOpen(JobSpec spec, const QString& path, std::function<Opened(JobContext&)> work) {
  if (!spec.supersedeTag.empty()) cancelOpening();
  ++m_opening;
  Q_EMIT opening(path);
  m_openJobs.push_back(m_jobs->submit<Opened>(std::move(spec), std::move(work), [this, path](Outcome<Opened> outcome) {
    finishOpen(path, std::move(outcome));
  }));
}

void Session::finishOpen(const QString& path, Outcome<Opened> outcome) {
  --m_opening;
  Q_EMIT opening(QString());
  receiveOpened(path, std::move(outcome));
  if (m_opening > 0) return;
  for (const auto& waiting : std::exchange(m_waitingResults, {})) takeResults(waiting);
}

void Session::receiveOpened(const QString& path, Outcome<Opened> outcome) {
  if (std::holds_alternative<Cancelled>(outcome)) return;
  if (const Error* error = std::get_if<Error>(&outcome)) {
    const QString name = path.isEmpty() ? tr("the demo") : QFileInfo(path).fileName();
    Q_EMIT errorOccurred(tr("Could not open %1").arg(name), QString::fromUtf8(error->what()));
    return;
  }
  Opened& opened = std::get<Opened>(outcome);
  if (opened.isForeign) {
    Q_EMIT importWanted(opened.path);
    return;
  }
  if (opened.trace) {
    setTrace(std::move(opened.trace));
    if (path.isEmpty() && m_profile->isEmpty()) openDemoProfile();
  } else if (opened.results) {
    takeResults(opened.results);
    return;
  } else if (opened.isProfile) {
    if (openProfile) openProfile(opened.path);
    return;
  } else if (opened.profile) {
    m_profile->open(*opened.profile, opened.path);
    queueChange(Change::Profile);
    setSelection(m_selection);
  }
  if (!opened.path.isEmpty()) Q_EMIT fileOpened(opened.path);
}

std::shared_ptr<Session::OpenedResults> Session::readResults(const std::filesystem::path& file, const QString& path,
                                                             JobContext& context) {
  ResultsFile read = readResultsFile(file, context.control());
  auto results = std::make_shared<OpenedResults>();
  results->path = path;
  // A skipped head does not say which method skipped it; the run does.
  QString method = QString::fromStdString(read.header.request).section(QLatin1Char(','), 0, 0);
  method = method.startsWith(QLatin1String("method ")) ? method.mid(7) : QString();
  for (const PlanFileEntry& entry : read.heads)
    if (method.isEmpty() && !entry.plan.methodId.empty()) method = QString::fromStdString(entry.plan.methodId);
  for (PlanFileEntry& entry : read.heads) {
    results->methods.push_back(entry.plan.methodId.empty() ? method : QString::fromStdString(entry.plan.methodId));
    results->heads.push_back(resultOf(std::move(entry)));
  }
  results->trace = QString::fromStdString(traceOf(read.header, file).string());
  results->origin = std::make_shared<const RunOrigin>(RunOrigin{std::move(read.header), file});
  return results;
}

void Session::openFile(const QString& path, bool afterOthers) {
  JobSpec spec;
  spec.name = tr("Open %1").arg(QFileInfo(path).fileName()).toStdString();
  spec.lane = Lane::Io;
  if (!afterOthers) spec.supersedeTag = "open";
  const std::filesystem::path file(path.toStdString());
  submitOpen(std::move(spec), path,
             [file, path, options = m_traceOptions, delegate = static_cast<bool>(openProfile)](JobContext& context) {
               context.checkpoint();
               Opened opened;
               opened.path = path;
               if (isImportable(file, context.control())) {
                 const Importer* importer = importerFor(file);
                 opened.isForeign = importer == nullptr || !importer->isProfile();
                 opened.isProfile = !opened.isForeign && delegate;
                 if (!opened.isForeign && !delegate)
                   opened.profile = std::make_shared<const Profile>(importer->readProfile(file, {}).profile);
                 return opened;
               }
               const std::string format = sniffFormat(file);
               if (format == "trace") {
                 opened.trace = std::shared_ptr<const Trace>(openTrace(file, options));
               } else if (format == "profile-csv" || format == "profile-json") {
                 opened.isProfile = delegate;
                 if (!delegate) opened.profile = std::make_shared<const Profile>(readProfile(file));
               } else {
                 opened.results = readResults(file, path, context);
               }
               return opened;
             });
}

void Session::openDemo() {
  JobSpec spec;
  spec.name = tr("Open the demo").toStdString();
  spec.lane = Lane::Compute;
  spec.supersedeTag = "open";
  spec.userVisible = true;
  submitOpen(std::move(spec), QString(), [options = m_traceOptions](JobContext& context) {
    context.report(0, "generating the demo trace");
    const std::filesystem::path file = demoTracePath(context.executor(), context.control());
    Opened opened;
    opened.trace = std::shared_ptr<const Trace>(openTrace(file, options));
    opened.path = QString::fromStdString(file.string());
    return opened;
  });
}

void Session::openDemoProfile() {
  JobSpec spec;
  spec.name = tr("Profile the demo").toStdString();
  spec.lane = Lane::Compute;
  spec.userVisible = true;
  m_demoProfileJob = m_jobs->submit<Profile>(
      std::move(spec),
      [](JobContext& context) { return demoProfile(context.executor(), context.backend(), context.control()); },
      [this](Outcome<Profile> outcome) {
        if (const Error* error = std::get_if<Error>(&outcome)) {
          Q_EMIT errorOccurred(tr("The demo has no profile"), QString::fromUtf8(error->what()));
          return;
        }
        // Something may have been opened meanwhile; it wins.
        if (Profile* profile = std::get_if<Profile>(&outcome); profile != nullptr && m_profile->isEmpty()) {
          m_profile->open(std::move(*profile), QString(), tr("Demo profile"));
          queueChange(Change::Profile);
        }
      });
}

void Session::generateTrace(const SynthSpec& synth, const QString& path) {
  JobSpec spec;
  spec.name = tr("Generate %1").arg(QFileInfo(path).fileName()).toStdString();
  spec.lane = Lane::Compute;
  spec.supersedeTag = "open";
  spec.userVisible = true;
  const std::filesystem::path file(path.toStdString());
  submitOpen(std::move(spec), path, [synth, file, path, options = m_traceOptions](JobContext& context) {
    context.report(0, "generating heads");
    writeSyntheticTrace(file, synth, context.executor(), context.control());
    Opened opened;
    opened.trace = std::shared_ptr<const Trace>(openTrace(file, options));
    opened.path = path;
    return opened;
  });
}

void Session::importTrace(std::shared_ptr<const Survey> survey, std::shared_ptr<const ImportPlan> plan,
                          const QString& path) {
  JobSpec spec;
  spec.name = tr("Import %1").arg(QFileInfo(path).fileName()).toStdString();
  spec.lane = Lane::Compute;
  spec.userVisible = true;
  const std::filesystem::path file(path.toStdString());
  m_importJobs.push_back(m_jobs->submit<bool>(
      std::move(spec),
      [survey, plan, file](JobContext& context) {
        context.report(0, "converting");
        runImport(*survey, *plan, file, context.control());
        return true;
      },
      [this, path](Outcome<bool> outcome) {
        if (const Error* error = std::get_if<Error>(&outcome)) {
          Q_EMIT errorOccurred(tr("The import stopped; nothing was written"), QString::fromUtf8(error->what()));
        } else if (!std::holds_alternative<Cancelled>(outcome)) {
          openFile(path);
        }
      }));
}

void Session::cancelOpening() { m_openJobs.clear(); }

void Session::closeTrace() {
  if (m_trace) setTrace(nullptr);
}

void Session::runMethod(RunRequest request, const QString& what) {
  if (!m_trace) return;
  JobSpec spec;
  spec.name = what.toStdString();
  spec.lane = Lane::Compute;
  spec.userVisible = true;
  const QString methodId = QString::fromStdString(request.methodId);
  m_given[methodId] = request.params;
  auto made = std::make_shared<RunOrigin>();
  made->header.request = describeRequest(request);
  made->header.seed = request.seed;
  made->header.includePadding = request.evaluate.includePadding;
  // Plans come one by one and are kept up to a limit; the report needs none of them a second time.
  request.keepPlanArrays = false;
  const std::shared_ptr<const Trace> trace = m_trace;
  using Report = std::shared_ptr<const RunReport>;
  JobHandle handle = m_jobs->submit<Report>(
      std::move(spec),
      [this, trace, request = std::move(request), methodId, origin = RunOriginPtr(std::move(made)),
       post = m_bridge->dispatcher()](JobContext& context) -> Report {
        auto report = std::make_shared<RunReport>(
            sparsight::runMethod(*trace, request, context.backend(), context.control(), [&](const HeadReport& head) {
              auto shared = std::make_shared<const HeadReport>(head);
              // Runs only while the bridge, and so this session, lives.
              post([this, trace, shared, methodId, origin] {
                if (trace == m_trace) addResult(shared, methodId, origin);
              });
            }));
        report->heads.clear();
        return report;
      },
      [this, trace, methodId, what](Outcome<Report> outcome) {
        std::erase_if(m_runJobs, [this](const JobHandle& job) {
          const std::vector<JobStatus> all = m_jobs->status();
          const auto it = std::find_if(all.begin(), all.end(), [&job](const JobStatus& s) { return s.id == job.id(); });
          return it == all.end() ||
                 (it->state != JobState::Queued && it->state != JobState::Running && it->state != JobState::Cancelling);
        });
        if (trace != m_trace) return;
        if (const Error* error = std::get_if<Error>(&outcome)) {
          Q_EMIT errorOccurred(tr("%1 failed").arg(what), QString::fromUtf8(error->what()));
        } else if (Report* report = std::get_if<Report>(&outcome)) {
          m_reports[methodId] = std::move(*report);
          queueChange(Change::Runs);
        }
      });
  m_runJobs.push_back(std::move(handle));
}

}  // namespace sparsight

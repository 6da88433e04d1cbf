// SPDX-License-Identifier: Apache-2.0
#include "ui/session.h"

#include <QFileInfo>
#include <QThread>
#include <algorithm>
#include <cstdlib>
#include <utility>

#include "sparsight/core/profile.h"
#include "sparsight/core/profiling.h"
#include "ui/job_bridge.h"

namespace sparsight {
namespace {

template <class T>
Index bytesOf(const std::vector<T>& v) {
  return static_cast<Index>(v.capacity() * sizeof(T));
}

Index bytesOfPlan(const Plan& p) {
  return bytesOf(p.qOrder) + bytesOf(p.kOrder) + bytesOf(p.qBounds) + bytesOf(p.kBounds) + bytesOf(p.blockMask) +
         bytesOf(p.intervalRows) + bytesOf(p.rowIntervalsPtr) + bytesOf(p.rowIntervals) + bytesOf(p.rowThreshold) +
         bytesOf(p.rowCount) + bytesOf(p.qLabels) + bytesOf(p.kLabels) + bytesOf(p.qCentroids) + bytesOf(p.kCentroids) +
         bytesOf(p.qSizes) + bytesOf(p.kSizes) + bytesOf(p.scores) + bytesOf(p.map) + bytesOf(p.lse) +
         bytesOf(p.levels) + bytesOf(p.recall) + static_cast<Index>(sizeof(Plan));
}

/// The numbers of a report without the arrays of its plan.
HeadResult withoutPlanArrays(const HeadReport& full) {
  auto light = std::make_shared<HeadReport>();
  light->id = full.id;
  light->evaluation = full.evaluation;
  light->planMs = full.planMs;
  light->wouldBeDense = full.wouldBeDense;
  light->skippedReason = full.skippedReason;
  light->plan.methodId = full.plan.methodId;
  light->plan.paramsJson = full.plan.paramsJson;
  light->plan.queryCount = full.plan.queryCount;
  light->plan.keyCount = full.plan.keyCount;
  light->plan.headClass = full.plan.headClass;
  light->plan.mse = full.plan.mse;
  light->plan.margin = full.plan.margin;
  light->plan.plannerFlops = full.plan.plannerFlops;
  light->plan.wouldBeDense = full.plan.wouldBeDense;
  light->plan.reusedFromStep = full.plan.reusedFromStep;
  light->plan.facts = full.plan.facts;
  light->plan.warnings = full.plan.warnings;
  return light;
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

void RunStore::put(HeadResult result, const QString& methodId) {
  const HeadId id = result->id;
  Entry& entry = m_results[methodId][id];
  m_planBytes -= entry.planBytes;
  m_age.erase(entry.order);
  entry.planBytes = bytesOfPlan(result->plan);
  entry.result = std::move(result);
  entry.order = ++m_next;
  m_planBytes += entry.planBytes;
  m_age.emplace(entry.order, std::pair(methodId, id));
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

QStringList RunStore::methods() const { return m_order; }

// --- Session ------------------------------------------------------------------------------------------------------

/// What an opening job hands over: one of the two.
struct Session::Opened {
  std::shared_ptr<const Trace> trace;
  std::shared_ptr<const Profile> profile;
  bool isProfile = false;  ///< not read: openProfile does that
  QString path;
};

Session::Session(JobQueueOptions options, QObject* parent) : QObject(parent), m_bridge(std::make_unique<JobBridge>()) {
  if (options.threads <= 0) options.threads = std::max(1, QThread::idealThreadCount() - 1);
  options.onStatus = [this](const std::vector<JobStatus>&) { Q_EMIT jobsChanged(); };
  m_jobs = std::make_unique<JobQueue>(m_bridge->dispatcher(), std::move(options));
  m_profile = std::make_unique<ProfileDocument>();
  connect(m_profile.get(), &ProfileDocument::profileChanged, this, [this] {
    queueChange(Change::Profile);
    setSelection(m_selection);
  });
  connect(m_profile.get(), &ProfileDocument::profileReplaced, this, &Session::leaveEmptyStep);
  probeBackend();
  m_flush.setSingleShot(true);
  m_flush.setInterval(0);
  connect(&m_flush, &QTimer::timeout, this, [this] {
    const ChangeFlags what = std::exchange(m_pending, ChangeFlags());
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
  m_runJobs.clear();
  m_jobs.reset();
  m_bridge.reset();
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

void Session::addResult(HeadResult result, const QString& methodId) {
  m_runs.put(std::move(result), methodId);
  queueChange(Change::Runs);
}

void Session::setTrace(std::shared_ptr<const Trace> trace) {
  m_runJobs.clear();  // results of the old trace would be nonsense in the new one
  m_trace = std::move(trace);
  m_runs.clear();
  m_reports.clear();
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
  if (std::holds_alternative<Cancelled>(outcome)) return;
  if (const Error* error = std::get_if<Error>(&outcome)) {
    const QString name = path.isEmpty() ? tr("the demo") : QFileInfo(path).fileName();
    Q_EMIT errorOccurred(tr("Could not open %1").arg(name), QString::fromUtf8(error->what()));
    return;
  }
  Opened& opened = std::get<Opened>(outcome);
  if (opened.trace) {
    setTrace(std::move(opened.trace));
    if (path.isEmpty() && m_profile->isEmpty()) openDemoProfile();
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

void Session::openFile(const QString& path, bool afterOthers) {
  JobSpec spec;
  spec.name = tr("Open %1").arg(QFileInfo(path).fileName()).toStdString();
  spec.lane = Lane::Io;
  if (!afterOthers) spec.supersedeTag = "open";
  const std::filesystem::path file(path.toStdString());
  submitOpen(std::move(spec), path,
             [file, path, options = m_traceOptions, delegate = static_cast<bool>(openProfile)](JobContext& context) {
               context.checkpoint();
               const std::string format = sniffFormat(file);
               Opened opened;
               opened.path = path;
               if (format == "trace") {
                 opened.trace = std::shared_ptr<const Trace>(openTrace(file, options));
               } else if (format == "profile-csv" || format == "profile-json") {
                 opened.isProfile = delegate;
                 if (!delegate) opened.profile = std::make_shared<const Profile>(readProfile(file));
               } else {
                 throw Error(ErrorCode::Unsupported,
                             file.string() + " is a " + format +
                                 " file, which the workbench does not show yet; open the trace it was made "
                                 "from, or use sparsight-cli info");
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
  // Plans come one by one and are kept up to a limit; the report needs none of them a second time.
  request.keepPlanArrays = false;
  const std::shared_ptr<const Trace> trace = m_trace;
  using Report = std::shared_ptr<const RunReport>;
  JobHandle handle = m_jobs->submit<Report>(
      std::move(spec),
      [this, trace, request = std::move(request), methodId,
       post = m_bridge->dispatcher()](JobContext& context) -> Report {
        auto report = std::make_shared<RunReport>(
            sparsight::runMethod(*trace, request, context.backend(), context.control(), [&](const HeadReport& head) {
              auto shared = std::make_shared<const HeadReport>(head);
              // Runs only while the bridge, and so this session, lives.
              post([this, trace, shared, methodId] {
                if (trace == m_trace) addResult(shared, methodId);
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

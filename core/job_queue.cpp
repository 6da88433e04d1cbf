// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "job_eta.h"
#include "sparsight/core/job.h"

namespace sparsight {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kLanes = 3;
constexpr auto kStatusPeriod = std::chrono::milliseconds(34);  // at most 30 Hz
constexpr auto kTickPeriod = std::chrono::milliseconds(500);   // elapsed time and ETA of a silent job
constexpr std::size_t kFinishedKept = 200;

double secondsOf(Clock::time_point t) { return std::chrono::duration<double>(t.time_since_epoch()).count(); }

bool isFinished(JobState s) { return s == JobState::Done || s == JobState::Failed || s == JobState::Cancelled; }

struct Job {
  std::uint64_t id = 0;
  JobSpec spec;
  std::stop_source stop;
  // Guarded by the queue's mutex; work is only called by the lane that took the job.
  std::function<void(JobContext&)> work;
  std::function<void(const Error*, bool)> done;
  std::shared_ptr<void> result;  // what `work` leaves for `done`
  JobState state = JobState::Queued;
  bool delivered = false;
  std::optional<Error> error;
  std::string note;
  Clock::time_point started{}, finished{};
  // Progress comes from any thread, often; it must not wait for the queue.
  std::mutex progressMutex;
  double fraction = 0;
  std::string stage;
  detail::EtaEstimator eta;
};
using JobPtr = std::shared_ptr<Job>;

}  // namespace

void JobContext::checkpoint() const {
  if (m_stop.stop_requested()) throw Cancelled{};
}
void JobContext::report(double fraction, std::string_view stage) {
  if (m_report) m_report(fraction, stage);
}
Control JobContext::control() {
  Control control;
  control.stop = m_stop;
  control.progress = [report = m_report](double fraction) {
    if (report) report(fraction, {});
  };
  return control;
}
Backend& JobContext::backend() { return m_backend(); }

struct JobQueue::Impl : std::enable_shared_from_this<JobQueue::Impl> {
  struct LaneState {
    std::map<std::pair<std::int64_t, std::uint64_t>, JobPtr> queued;  // (-priority, id): the next job is the first
    JobPtr running;
    std::vector<std::shared_ptr<void>> stale;  // results nobody gets, to be freed when nothing else is to be done
    std::condition_variable wake;
    std::thread thread;
    std::optional<BackendInfo> info;  // of the lane's backend, once created
  };

  Impl(Dispatcher d, JobQueueOptions o)
      : dispatcher(std::move(d)), options(std::move(o)), executor(options.threads, options.nice) {
    if (!dispatcher) dispatcher = [](const std::function<void()>& f) { f(); };
  }

  Dispatcher dispatcher;
  JobQueueOptions options;
  Executor executor;

  mutable std::mutex mutex;
  bool closing = false;
  std::uint64_t nextId = 1;
  std::array<LaneState, kLanes> lanes;
  std::map<std::uint64_t, JobPtr> jobs;  // undelivered ones, and user-visible ones until cleared
  std::optional<BackendInfo> probedInfo;

  std::mutex statusMutex;
  std::condition_variable statusWake;
  std::thread statusThread;
  bool statusDirty = false, statusPosted = false, statusClosing = false;
  std::atomic<int> visibleRunning{0};

  void start() {
    for (std::size_t i = 0; i < kLanes; ++i) lanes[i].thread = std::thread([this, i] { runLane(lanes[i]); });
    if (options.onStatus) statusThread = std::thread([this] { runStatus(); });
  }

  std::unique_ptr<Backend> makeBackend(std::string_view id) {
    return options.makeBackend ? options.makeBackend(id, executor) : createBackend(id, executor);
  }

  // ---- delivery ----------------------------------------------------------------------------------------------------

  void post(const JobPtr& job) {
    dispatcher([weak = weak_from_this(), job] {
      if (const auto self = weak.lock()) self->deliver(job);
    });
  }

  void deliver(const JobPtr& job) {
    std::shared_ptr<void> result;  // outlives `done`, which holds it too
    std::function<void(const Error*, bool)> done;
    std::optional<Error> error;
    bool cancelled = false;
    {
      const std::lock_guard lock(mutex);
      if (closing || job->delivered) return;
      job->delivered = true;
      done = std::move(job->done);
      job->done = nullptr;
      result = std::move(job->result);
      cancelled = job->state == JobState::Cancelled;
      error = job->error;
      if (!job->spec.userVisible) jobs.erase(job->id);
      trimFinishedLocked();
    }
    if (done) done(cancelled || !error ? nullptr : &*error, cancelled);
    if (!cancelled) return;
    done = nullptr;
    LaneState& lane = lanes[static_cast<std::size_t>(Lane::Io)];
    {
      const std::lock_guard lock(mutex);
      lane.stale.push_back(std::move(result));
    }
    lane.wake.notify_one();
  }

  // ---- cancelling --------------------------------------------------------------------------------------------------

  /// What a cancel must do once the mutex is free: closures of other people never run under it.
  struct Aftermath {
    std::vector<JobPtr> toDeliver;
    std::vector<std::stop_source> toStop;
    std::vector<std::function<void(JobContext&)>> toDestroy;
    bool visible = false;
  };

  void cancelLocked(const JobPtr& job, Aftermath& after) {
    if (job->delivered) return;
    after.visible |= job->spec.userVisible;
    switch (job->state) {
      case JobState::Queued:
        lanes[laneIndex(*job)].queued.erase(keyOf(*job));
        job->state = JobState::Cancelled;
        job->finished = Clock::now();
        after.toDestroy.push_back(std::move(job->work));
        job->work = nullptr;
        after.toDeliver.push_back(job);
        break;
      case JobState::Running:
        job->state = JobState::Cancelling;
        after.toStop.push_back(job->stop);
        break;
      case JobState::Done:
      case JobState::Failed:
        job->state = JobState::Cancelled;
        break;  // posted, not delivered: what arrives is Cancelled
      case JobState::Cancelling:
      case JobState::Cancelled:
        break;
    }
  }

  void settle(Aftermath& after) {
    for (auto& source : after.toStop) source.request_stop();
    after.toDestroy.clear();
    for (const auto& job : after.toDeliver) post(job);
    if (after.visible) touchStatus();
  }

  template <class Predicate>
  void cancelIf(const Predicate& matches) {
    Aftermath after;
    {
      const std::lock_guard lock(mutex);
      for (const auto& [id, job] : jobs) {
        if (matches(*job)) cancelLocked(job, after);
      }
    }
    settle(after);
  }

  // ---- lanes -------------------------------------------------------------------------------------------------------

  static std::size_t laneIndex(const Job& job) { return static_cast<std::size_t>(job.spec.lane); }
  static std::pair<std::int64_t, std::uint64_t> keyOf(const Job& job) {
    return {-static_cast<std::int64_t>(job.spec.priority), job.id};
  }

  void runLane(LaneState& lane) {
    // Opening and reading files is waited for and takes little processor time.
    if (options.nice > 0 && &lane != &lanes[static_cast<std::size_t>(Lane::Io)]) lowerThreadPriority(options.nice);
    // The backend lives and dies on this thread: it is thread-confined.
    std::unique_ptr<Backend> backend;
    bool deviceRetired = false;
    for (;;) {
      JobPtr job;
      std::function<void(JobContext&)> work;
      {
        std::unique_lock lock(mutex);
        lane.wake.wait(lock, [&] { return closing || !lane.queued.empty() || !lane.stale.empty(); });
        if (closing) return;
        if (lane.queued.empty()) {
          const auto stale = std::exchange(lane.stale, {});
          lock.unlock();
          continue;  // freed here
        }
        job = lane.queued.begin()->second;
        lane.queued.erase(lane.queued.begin());
        job->state = JobState::Running;
        job->started = Clock::now();
        work = std::move(job->work);
        job->work = nullptr;
        lane.running = job;
      }
      if (job->spec.userVisible) {
        visibleRunning.fetch_add(1);
        touchStatus();
      }
      bool cancelled = false;
      std::optional<Error> error = attempt(lane, job, work, backend, deviceRetired, cancelled);
      const bool deviceBroke =
          error && error->code() == ErrorCode::Device && !cancelled && usesDevice(lane, backend.get());
      if (deviceBroke) {
        // After a sticky fault every call on that device fails: give it up for good rather than fail job after job.
        deviceRetired = true;
        backend.reset();
        {
          const std::lock_guard lock(mutex);
          lane.info.reset();
          job->note = fmt::format("ran again on the CPU: {}", error->what());
        }
        error = attempt(lane, job, work, backend, deviceRetired, cancelled);
      }
      work = nullptr;
      {
        const std::lock_guard lock(mutex);
        job->finished = Clock::now();
        // Cancelled wins over a result or an error that came too late for it.
        if (cancelled || job->state == JobState::Cancelling) {
          job->state = JobState::Cancelled;
        } else if (error) {
          job->state = JobState::Failed;
          job->error = std::move(error);
        } else {
          job->state = JobState::Done;
        }
        lane.running = nullptr;
      }
      if (job->spec.userVisible) {
        visibleRunning.fetch_sub(1);
        touchStatus();
      }
      post(job);
    }
  }

  std::optional<Error> attempt(LaneState& lane, const JobPtr& jobPtr, const std::function<void(JobContext&)>& work,
                               std::unique_ptr<Backend>& backend, bool deviceRetired, bool& cancelled) {
    Job& job = *jobPtr;
    {
      const std::lock_guard lock(job.progressMutex);
      job.fraction = 0;
      job.stage.clear();
      job.eta.restart(secondsOf(Clock::now()));
    }
    JobContext context;
    context.m_stop = job.stop.get_token();
    context.m_executor = &executor;
    context.m_backend = [&]() -> Backend& {
      if (!backend) {
        backend = makeBackend(deviceRetired ? "cpu" : std::string_view(options.backendId));
        BackendInfo info = backend->info();
        const std::lock_guard lock(mutex);
        lane.info = std::move(info);
      }
      return *backend;
    };
    // Held weakly: a Control that a job leaks must neither keep the queue alive nor report into a dead one.
    context.m_report = [weak = weak_from_this(), weakJob = std::weak_ptr<Job>(jobPtr)](double fraction,
                                                                                       std::string_view stage) {
      const auto self = weak.lock();
      const auto target = weakJob.lock();
      if (self && target) self->progress(*target, fraction, stage);
    };
    try {
      context.checkpoint();
      work(context);
      return std::nullopt;
    } catch (const Cancelled&) {
      cancelled = true;
    } catch (const Error& e) {
      return e;
    } catch (const std::bad_alloc&) {
      return Error(ErrorCode::OutOfMemory,
                   fmt::format("{}: out of memory; choose fewer rows or heads, or close another trace", job.spec.name));
    } catch (const std::exception& e) {
      return Error(ErrorCode::Internal, fmt::format("{}: internal error: {}", job.spec.name, e.what()));
    } catch (...) {
      return Error(ErrorCode::Internal, fmt::format("{}: internal error: unknown exception", job.spec.name));
    }
    return std::nullopt;
  }

  /// From the info taken when it was made: a broken device may not even answer that.
  bool usesDevice(const LaneState& lane, const Backend* backend) const {
    const std::lock_guard lock(mutex);
    return backend != nullptr && lane.info && lane.info->id != "cpu";
  }

  /// User-visible finished jobs stay listed, but not without end.
  void trimFinishedLocked() {
    if (jobs.size() <= kFinishedKept) return;
    std::size_t count = 0;
    for (const auto& [id, job] : jobs) count += isFinished(job->state) && job->delivered ? 1U : 0U;
    for (auto it = jobs.begin(); it != jobs.end() && count > kFinishedKept;) {
      if (isFinished(it->second->state) && it->second->delivered) {
        it = jobs.erase(it);
        --count;
      } else {
        ++it;
      }
    }
  }

  // ---- progress and status -----------------------------------------------------------------------------------------

  void progress(Job& job, double fraction, std::string_view stage) {
    {
      const std::lock_guard lock(job.progressMutex);
      if (!std::isnan(fraction)) {
        job.fraction = std::clamp(fraction, 0.0, 1.0);
        job.eta.update(job.fraction, secondsOf(Clock::now()));
      }
      if (!stage.empty() && job.stage != stage) job.stage = stage;
    }
    if (job.spec.userVisible) touchStatus();
  }

  void touchStatus() {
    if (!options.onStatus) return;
    {
      const std::lock_guard lock(statusMutex);
      if (statusDirty) return;
      statusDirty = true;
    }
    statusWake.notify_one();
  }

  void runStatus() {
    auto last = Clock::now() - kStatusPeriod;
    std::unique_lock lock(statusMutex);
    while (!statusClosing) {
      if (!statusDirty) {
        const auto ready = [&] { return statusClosing || statusDirty; };
        if (visibleRunning.load() > 0) {
          if (!statusWake.wait_for(lock, kTickPeriod, ready)) statusDirty = true;
        } else {
          statusWake.wait(lock, ready);
        }
        continue;
      }
      // Not before the period is over, and never a second one behind one that the owner has not taken yet.
      if (statusPosted || Clock::now() - last < kStatusPeriod) {
        if (statusPosted) {
          statusWake.wait_for(lock, kTickPeriod, [&] { return statusClosing || !statusPosted; });
        } else {
          statusWake.wait_until(lock, last + kStatusPeriod, [&] { return statusClosing; });
        }
        continue;
      }
      statusDirty = false;
      statusPosted = true;
      last = Clock::now();
      lock.unlock();
      dispatcher([weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->deliverStatus();
      });
      lock.lock();
    }
  }

  void deliverStatus() {
    {
      const std::lock_guard lock(mutex);
      if (closing) return;
    }
    {
      // Free before the snapshot: what changes from here on is posted again.
      const std::lock_guard lock(statusMutex);
      statusPosted = false;
    }
    statusWake.notify_one();
    options.onStatus(snapshot());
  }

  std::vector<JobStatus> snapshot() const {
    std::vector<JobStatus> list;
    const std::lock_guard lock(mutex);
    const auto now = Clock::now();
    for (auto it = jobs.rbegin(); it != jobs.rend(); ++it) {
      Job& job = *it->second;
      if (!job.spec.userVisible) continue;
      JobStatus status;
      status.id = job.id;
      status.spec = job.spec;
      status.state = job.state;
      if (job.error && job.state == JobState::Failed) status.error = job.error->what();
      status.note = job.note;
      if (job.started != Clock::time_point{}) {
        status.elapsedSeconds = secondsOf(isFinished(job.state) ? job.finished : now) - secondsOf(job.started);
      }
      const std::lock_guard progressLock(job.progressMutex);
      status.fraction = job.state == JobState::Done ? 1.0 : job.fraction;
      status.stage = job.stage;
      if (job.state == JobState::Running) status.etaSeconds = job.eta.secondsLeft(secondsOf(now));
      list.push_back(std::move(status));
    }
    return list;
  }

  // ---- end ---------------------------------------------------------------------------------------------------------

  void close() {
    std::vector<JobPtr> dropped;
    std::vector<std::stop_source> toStop;
    {
      const std::lock_guard lock(mutex);
      closing = true;
      for (auto& lane : lanes) {
        if (lane.running) toStop.push_back(lane.running->stop);
        lane.queued.clear();
      }
      for (auto& [id, job] : jobs) dropped.push_back(std::move(job));
      jobs.clear();
    }
    {
      const std::lock_guard lock(statusMutex);
      statusClosing = true;
    }
    for (auto& source : toStop) source.request_stop();
    for (auto& lane : lanes) lane.wake.notify_all();
    statusWake.notify_all();
    for (auto& lane : lanes) {
      if (lane.thread.joinable()) lane.thread.join();
    }
    if (statusThread.joinable()) statusThread.join();
    // Their captures must not outlive the queue in a dispatcher that never runs again.
    for (auto& job : dropped) {
      job->work = nullptr;
      job->done = nullptr;
    }
  }
};

JobQueue::JobQueue(Dispatcher dispatcher, JobQueueOptions options)
    : m_impl(std::make_shared<Impl>(std::move(dispatcher), std::move(options))) {
  m_impl->start();
}

JobQueue::~JobQueue() { m_impl->close(); }

JobHandle JobQueue::submitErased(JobSpec spec, std::shared_ptr<void> result, std::function<void(JobContext&)> work,
                                 std::function<void(const Error*, bool cancelled)> done) {
  auto job = std::make_shared<Job>();
  job->spec = std::move(spec);
  job->result = std::move(result);
  job->work = std::move(work);
  job->done = std::move(done);
  Impl::Aftermath after;
  after.visible = job->spec.userVisible;
  {
    const std::lock_guard lock(m_impl->mutex);
    if (!job->spec.supersedeTag.empty()) {
      for (const auto& [id, other] : m_impl->jobs) {
        if (other->spec.supersedeTag == job->spec.supersedeTag) m_impl->cancelLocked(other, after);
      }
    }
    bool busy = false;
    for (const auto& [id, other] : m_impl->jobs) {
      if (other->delivered || isFinished(other->state)) continue;
      if (!job->spec.background && other->spec.background) m_impl->cancelLocked(other, after);
      busy = busy || !other->spec.background;
    }
    job->id = m_impl->nextId++;
    m_impl->jobs.emplace(job->id, job);
    m_impl->lanes[Impl::laneIndex(*job)].queued.emplace(Impl::keyOf(*job), job);
    if (job->spec.background && busy) m_impl->cancelLocked(job, after);
  }
  m_impl->settle(after);
  m_impl->lanes[Impl::laneIndex(*job)].wake.notify_one();
  return JobHandle(job->id, [weak = std::weak_ptr<Impl>(m_impl), id = job->id] {
    if (const auto impl = weak.lock()) {
      impl->cancelIf([id](const Job& other) { return other.id == id; });
    }
  });
}

void JobQueue::cancel(std::uint64_t id) {
  m_impl->cancelIf([id](const Job& job) { return job.id == id; });
}

void JobQueue::cancelTag(const std::string& tag) {
  if (tag.empty()) return;
  m_impl->cancelIf([&tag](const Job& job) { return job.spec.supersedeTag == tag; });
}

void JobQueue::clearFinished() {
  {
    const std::lock_guard lock(m_impl->mutex);
    for (auto it = m_impl->jobs.begin(); it != m_impl->jobs.end();) {
      it = it->second->delivered && isFinished(it->second->state) ? m_impl->jobs.erase(it) : std::next(it);
    }
  }
  m_impl->touchStatus();
}

std::vector<JobStatus> JobQueue::status() const { return m_impl->snapshot(); }

int JobQueue::unfinished() const {
  const std::lock_guard lock(m_impl->mutex);
  return static_cast<int>(std::count_if(m_impl->jobs.begin(), m_impl->jobs.end(), [](const auto& entry) {
    return entry.second->spec.userVisible && !isFinished(entry.second->state);
  }));
}

bool JobQueue::idle() const {
  const std::lock_guard lock(m_impl->mutex);
  return std::all_of(m_impl->lanes.begin(), m_impl->lanes.end(),
                     [](const Impl::LaneState& lane) { return lane.queued.empty() && !lane.running; });
}

Executor& JobQueue::executor() noexcept { return m_impl->executor; }

BackendInfo JobQueue::backendInfo() {
  {
    const std::lock_guard lock(m_impl->mutex);
    const auto& lane = m_impl->lanes[static_cast<std::size_t>(Lane::Compute)];
    if (lane.info) return *lane.info;
    if (m_impl->probedInfo) return *m_impl->probedInfo;
  }
  BackendInfo info;
  try {
    info = m_impl->makeBackend(m_impl->options.backendId)->info();
  } catch (const std::exception& e) {
    info.id = m_impl->options.backendId;
    info.deviceName = "unavailable";
    info.detail = e.what();
  }
  const std::lock_guard lock(m_impl->mutex);
  m_impl->probedInfo = info;
  return info;
}

}  // namespace sparsight

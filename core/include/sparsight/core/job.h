// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <any>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "sparsight/kernels/backend.h"
#include "sparsight/kernels/error.h"
#include "sparsight/kernels/executor.h"

namespace sparsight {

template <class T>
using Outcome = std::variant<T, Error, Cancelled>;

/// Io: one thread, files. Compute: one coordinator, parallel inside. Tiles: interactive work. Each lane is one thread
/// and owns its own Backend.
enum class Lane : std::uint8_t { Io, Compute, Tiles };

struct JobSpec {
  std::string name;  ///< for people: "Run SVG on layer 12"
  Lane lane = Lane::Compute;
  std::string supersedeTag;  ///< a newer job with the same tag drops queued ones and stops the running one
  int priority = 0;          ///< higher first; equal: first come
  bool userVisible = false;  ///< listed in the jobs view
  /// Work ahead of need: runs only while no other job is queued or running in any lane. A job that is not background
  /// cancels it at once; whoever wants it asks again later.
  bool background = false;
};

/// Runs a closure on the owner's thread: queued invoke in the GUI, inline in the CLI, a manual pump in tests.
using Dispatcher = std::function<void(std::function<void()>)>;

/// What a job sees. Thread-confined to its lane.
class JobContext {
 public:
  [[nodiscard]] std::stop_token stop() const noexcept { return m_stop; }
  void checkpoint() const;                                    ///< throws Cancelled on stop
  void report(double fraction, std::string_view stage = {});  ///< throttled to 30 Hz
  [[nodiscard]] Control control();                            ///< stop and progress for kernels
  [[nodiscard]] Executor& executor() noexcept { return *m_executor; }
  [[nodiscard]] Backend& backend();  ///< the lane's own backend, created on first use

 private:
  friend class JobQueue;
  std::stop_token m_stop;
  Executor* m_executor = nullptr;
  std::function<Backend&()> m_backend;
  std::function<void(double, std::string_view)> m_report;
};

enum class JobState : std::uint8_t { Queued, Running, Cancelling, Done, Failed, Cancelled };
/// A snapshot for the jobs view.
struct JobStatus {
  std::uint64_t id = 0;
  JobSpec spec;
  JobState state = JobState::Queued;
  double fraction = 0;
  std::string stage;
  double elapsedSeconds = 0;
  double etaSeconds = -1;  ///< -1: unknown yet (before 5 % or 3 s)
  std::string error;
  std::string note;  ///< e.g. "ran again on the CPU: ..." after the device failed; empty: nothing to say
};

/// Cancels on destruction unless released. Movable.
class JobHandle {
 public:
  JobHandle() = default;
  JobHandle(std::uint64_t id, std::function<void()> cancel) : m_id(id), m_cancel(std::move(cancel)) {}
  JobHandle(JobHandle&& other) noexcept
      : m_id(std::exchange(other.m_id, 0)), m_cancel(std::exchange(other.m_cancel, nullptr)) {}
  JobHandle& operator=(JobHandle&& other) noexcept {
    if (this != &other) {
      cancel();
      m_id = std::exchange(other.m_id, 0);
      m_cancel = std::exchange(other.m_cancel, nullptr);
    }
    return *this;
  }
  ~JobHandle() { cancel(); }
  void cancel() {
    if (m_cancel) std::exchange(m_cancel, nullptr)();
  }
  void release() noexcept { m_cancel = nullptr; }
  [[nodiscard]] std::uint64_t id() const noexcept { return m_id; }

 private:
  std::uint64_t m_id = 0;
  std::function<void()> m_cancel;
};

struct JobQueueOptions {
  int threads = 0;  ///< of the shared executor; 0 = all cores
  int nice = 0;     ///< of Compute, Tiles and the executor's threads (lowerThreadPriority): a window goes first
  std::string backendId = "auto";
  /// Makes a lane's backend; empty: sparsight::createBackend. For tests.
  std::function<std::unique_ptr<Backend>(std::string_view id, Executor& executor)> makeBackend;
  std::function<void(std::vector<JobStatus>)> onStatus;  ///< through the dispatcher, at most 30 Hz
};

class JobQueue {
 public:
  JobQueue(Dispatcher dispatcher, JobQueueOptions options = {});
  ~JobQueue();  ///< stops all, drains, joins; pending `done` closures are dropped
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  /// `work` runs on the lane's thread; `done` on the owner's thread exactly once, unless the queue dies first. A
  /// superseded or cancelled job gets Cancelled, even when its result was ready but not delivered yet: a stale result
  /// never arrives, and a lane's thread frees it (that may take milliseconds). `done` must not throw. T must be
  /// movable; large results travel as shared_ptr<const T>. A device error that breaks a job retires that lane's device
  /// backend: the job runs once more on the CPU, from the start, and so do the lane's later jobs.
  template <class T>
  [[nodiscard]] JobHandle submit(JobSpec spec, std::function<T(JobContext&)> work,
                                 std::function<void(Outcome<T>)> done) {
    auto result = std::make_shared<std::variant<std::monostate, T>>();
    return submitErased(
        std::move(spec), result,
        [result, work = std::move(work)](JobContext& context) { result->template emplace<1>(work(context)); },
        [result, done = std::move(done)](const Error* error, bool cancelled) {
          if (cancelled) {
            done(Outcome<T>(Cancelled{}));
          } else if (error != nullptr) {
            done(Outcome<T>(*error));
          } else {
            done(Outcome<T>(std::move(std::get<1>(*result))));
          }
        });
  }
  void cancel(std::uint64_t id);
  void cancelTag(const std::string& tag);
  void clearFinished();
  [[nodiscard]] std::vector<JobStatus> status() const;  ///< user-visible jobs, newest first
  [[nodiscard]] int unfinished() const;                 ///< user-visible jobs queued or running
  [[nodiscard]] bool idle() const;                      ///< no job queued or running in any lane
  [[nodiscard]] Executor& executor() noexcept;
  /// What the Compute lane's backend is, or would be. The first call before any job used that backend probes the
  /// devices on the calling thread (a GUI asks in a Compute job: `context.backend().info()`). Never throws: an asked
  /// backend that cannot run has deviceName "unavailable" and the reason in `detail`.
  [[nodiscard]] BackendInfo backendInfo();

 private:
  JobHandle submitErased(JobSpec spec, std::shared_ptr<void> result, std::function<void(JobContext&)> work,
                         std::function<void(const Error*, bool cancelled)> done);
  struct Impl;
  std::shared_ptr<Impl> m_impl;
};

}  // namespace sparsight

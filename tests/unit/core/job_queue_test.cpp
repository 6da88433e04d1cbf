// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/job.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "job_eta.h"
#include "tests/support/pump_dispatcher.h"

namespace sparsight {
namespace {

using test::PumpDispatcher;
using namespace std::chrono_literals;

/// A gate that the test opens; a job waits in it and leaves on stop.
class Gate {
 public:
  void open() { m_open.store(true); }
  void pass(JobContext& context) {
    m_entered.fetch_add(1);
    while (!m_open.load()) {
      context.checkpoint();
      std::this_thread::sleep_for(1ms);
    }
  }
  [[nodiscard]] int entered() const { return m_entered.load(); }

 private:
  std::atomic<bool> m_open{false};
  std::atomic<int> m_entered{0};
};

JobSpec specOf(std::string name, Lane lane = Lane::Compute, std::string tag = {}, int priority = 0,
               bool visible = false) {
  JobSpec spec;
  spec.name = std::move(name);
  spec.lane = lane;
  spec.supersedeTag = std::move(tag);
  spec.priority = priority;
  spec.userVisible = visible;
  return spec;
}

JobQueueOptions cpuOptions() {
  JobQueueOptions options;
  options.threads = 1;
  options.backendId = "cpu";
  return options;
}

/// What arrived, as text: "7", "cancelled" or "format: message".
std::string textOf(const Outcome<int>& outcome) {
  if (const int* value = std::get_if<int>(&outcome)) return std::to_string(*value);
  if (const Error* error = std::get_if<Error>(&outcome)) {
    return std::string(errorCodeName(error->code())) + ": " + error->what();
  }
  return "cancelled";
}

struct Log {
  std::vector<std::string> lines;
  std::function<void(Outcome<int>)> entry(const std::string& name) {
    return [this, name](Outcome<int> outcome) { lines.push_back(name + "=" + textOf(outcome)); };
  }
};

TEST(JobQueue, AResultNobodyGetsIsFreedOffTheOwnersThread) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher());
  std::atomic<std::thread::id> freedOn{};
  std::atomic<bool> made{false}, freed{false};
  bool cancelled = false;
  JobHandle handle = queue.submit<std::shared_ptr<int>>(
      specOf("large"),
      [&](JobContext&) {
        std::shared_ptr<int> result(new int(7), [&](const int* p) {
          delete p;
          freedOn = std::this_thread::get_id();
          freed = true;
        });
        made = true;
        return result;
      },
      [&](const Outcome<std::shared_ptr<int>>& outcome) { cancelled = std::holds_alternative<Cancelled>(outcome); });
  while (!made || !queue.idle()) std::this_thread::sleep_for(1ms);
  handle.cancel();  // done, not delivered yet
  ASSERT_TRUE(pump.pumpUntil([&] { return cancelled; }));
  for (int i = 0; i < 5000 && !freed; ++i) std::this_thread::sleep_for(1ms);
  ASSERT_TRUE(freed);
  EXPECT_NE(freedOn.load(), std::this_thread::get_id());
}

TEST(JobQueue, DeliversTheResultOnTheOwnersThreadOnce) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  std::thread::id workThread, doneThread;
  int calls = 0, value = 0;
  const JobHandle handle = queue.submit<int>(
      specOf("answer"),
      [&](JobContext&) {
        workThread = std::this_thread::get_id();
        return 42;
      },
      [&](Outcome<int> outcome) {
        doneThread = std::this_thread::get_id();
        value = std::get<int>(outcome);
        ++calls;
      });
  ASSERT_TRUE(pump.pumpUntil([&] { return calls > 0; }));
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(1ms);
    pump.pump();
  }
  EXPECT_EQ(value, 42);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(doneThread, std::this_thread::get_id());
  EXPECT_NE(workThread, std::this_thread::get_id());
  EXPECT_TRUE(queue.idle());
}

TEST(JobQueue, RunsByPriorityThenInOrderOfArrival) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  Gate gate;
  Log log;
  std::vector<JobHandle> handles;
  handles.push_back(queue.submit<int>(
      specOf("first"), [&](JobContext& c) { return gate.pass(c), 0; }, log.entry("first")));
  while (gate.entered() == 0) std::this_thread::sleep_for(1ms);
  const auto add = [&](const std::string& name, int priority) {
    handles.push_back(queue.submit<int>(
        specOf(name, Lane::Compute, {}, priority), [](JobContext&) { return 1; }, log.entry(name)));
  };
  add("a", 0);
  add("b", 0);
  add("urgent", 5);
  add("late", -3);
  add("urgent2", 5);
  EXPECT_FALSE(queue.idle());
  gate.open();
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 6; }));
  EXPECT_EQ(log.lines, (std::vector<std::string>{"first=0", "urgent=1", "urgent2=1", "a=1", "b=1", "late=1"}));
}

TEST(JobQueue, LanesDoNotWaitForEachOther) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  Gate gate;
  Log log;
  const JobHandle slow = queue.submit<int>(
      specOf("slow", Lane::Compute), [&](JobContext& c) { return gate.pass(c), 1; }, log.entry("slow"));
  const JobHandle tile = queue.submit<int>(
      specOf("tile", Lane::Tiles), [](JobContext&) { return 2; }, log.entry("tile"));
  const JobHandle file = queue.submit<int>(
      specOf("file", Lane::Io), [](JobContext&) { return 3; }, log.entry("file"));
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 2; }));
  gate.open();
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 3; }));
  EXPECT_EQ(log.lines.back(), "slow=1");
}

TEST(JobQueue, ANewerJobSupersedesTheQueuedAndTheRunningOne) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  Gate gate, tileGate;
  Log log;
  std::vector<JobHandle> handles;
  std::atomic<bool> ranQueued{false};
  handles.push_back(queue.submit<int>(
      specOf("running", Lane::Compute, "map"), [&](JobContext& c) { return gate.pass(c), 0; }, log.entry("running")));
  while (gate.entered() == 0) std::this_thread::sleep_for(1ms);
  handles.push_back(queue.submit<int>(
      specOf("other", Lane::Compute, "grid"), [](JobContext&) { return 9; }, log.entry("other")));
  handles.push_back(queue.submit<int>(
      specOf("queued", Lane::Compute, "map"),
      [&](JobContext&) {
        ranQueued = true;
        return 1;
      },
      log.entry("queued")));
  handles.push_back(queue.submit<int>(
      specOf("newest", Lane::Compute, "map"), [](JobContext&) { return 2; }, log.entry("newest")));
  // The gate stays shut: only the stop lets the running job go.
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 4; }));
  EXPECT_FALSE(ranQueued.load());
  std::sort(log.lines.begin(), log.lines.end());
  EXPECT_EQ(log.lines, (std::vector<std::string>{"newest=2", "other=9", "queued=cancelled", "running=cancelled"}));
}

TEST(JobQueue, ASupersededResultThatWasNotYetDeliveredArrivesAsCancelled) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  Log log;
  const JobHandle old = queue.submit<int>(
      specOf("old", Lane::Compute, "map"), [](JobContext&) { return 1; }, log.entry("old"));
  while (pump.pending() == 0) std::this_thread::sleep_for(1ms);  // finished, but the owner is busy
  const JobHandle fresh = queue.submit<int>(
      specOf("fresh", Lane::Compute, "map"), [](JobContext&) { return 2; }, log.entry("fresh"));
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 2; }));
  EXPECT_EQ(log.lines, (std::vector<std::string>{"old=cancelled", "fresh=2"}));
}

TEST(JobQueue, CancelsQueuedAndRunningJobsByIdTagAndHandle) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  Gate gate;
  Log log;
  JobHandle running = queue.submit<int>(
      specOf("running"), [&](JobContext& c) { return gate.pass(c), 0; }, log.entry("running"));
  while (gate.entered() == 0) std::this_thread::sleep_for(1ms);
  bool ran = false;
  const auto work = [&](JobContext&) {
    ran = true;
    return 1;
  };
  const JobHandle byId = queue.submit<int>(specOf("byId"), work, log.entry("byId"));
  const JobHandle byTag = queue.submit<int>(specOf("byTag", Lane::Compute, "t"), work, log.entry("byTag"));
  { const JobHandle byHandle = queue.submit<int>(specOf("byHandle"), work, log.entry("byHandle")); }
  queue.cancel(byId.id());
  queue.cancelTag("t");
  queue.cancelTag("no such tag");
  queue.cancel(987654);
  running.cancel();
  running.cancel();  // again: nothing
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 4; }));
  EXPECT_FALSE(ran);
  std::sort(log.lines.begin(), log.lines.end());
  EXPECT_EQ(log.lines,
            (std::vector<std::string>{"byHandle=cancelled", "byId=cancelled", "byTag=cancelled", "running=cancelled"}));
  ASSERT_TRUE(pump.pumpUntil([&] { return queue.idle(); }));
}

TEST(JobQueue, AReleasedHandleLetsTheJobFinish) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  Log log;
  queue
      .submit<int>(
          specOf("kept"), [](JobContext&) { return 5; }, log.entry("kept"))
      .release();
  ASSERT_TRUE(pump.pumpUntil([&] { return !log.lines.empty(); }));
  EXPECT_EQ(log.lines.front(), "kept=5");
}

TEST(JobQueue, TurnsEveryExceptionIntoAValue) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  Log log;
  std::vector<JobHandle> handles;
  const auto add = [&](const std::string& name, std::function<int(JobContext&)> work) {
    handles.push_back(queue.submit<int>(specOf(name, Lane::Io), std::move(work), log.entry(name)));
  };
  add("error", [](JobContext&) -> int { throw Error(ErrorCode::Format, "x.h5: bad"); });
  add("memory", [](JobContext&) -> int { throw std::bad_alloc(); });
  add("std", [](JobContext&) -> int { throw std::logic_error("oops"); });
  add("odd", [](JobContext&) -> int { throw 7; });
  add("cancel", [](JobContext&) -> int { throw Cancelled{}; });
  add("after", [](JobContext&) { return 3; });  // the lane survived
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 6; }));
  EXPECT_EQ(log.lines[0], "error=format: x.h5: bad");
  EXPECT_EQ(log.lines[1].rfind("memory=out of memory: memory: ", 0), 0U) << log.lines[1];
  EXPECT_EQ(log.lines[2], "std=internal: std: internal error: oops");
  EXPECT_EQ(log.lines[3], "odd=internal: odd: internal error: unknown exception");
  EXPECT_EQ(log.lines[4], "cancel=cancelled");
  EXPECT_EQ(log.lines[5], "after=3");
}

TEST(JobQueue, DyingWhileJobsRunStopsThemAndDeliversNothing) {
  PumpDispatcher pump;
  Log log;
  std::atomic<int> stopped{0};
  auto owned = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = owned;
  {
    JobQueue queue(pump.dispatcher(), cpuOptions());
    Gate never;
    const auto wait = [&](JobContext& context) -> int {
      try {
        never.pass(context);
      } catch (const Cancelled&) {
        stopped.fetch_add(1);
        throw;
      }
      return 0;
    };
    std::vector<JobHandle> handles;
    for (const Lane lane : {Lane::Io, Lane::Compute, Lane::Tiles}) {
      handles.push_back(queue.submit<int>(specOf("running", lane), wait, log.entry("running")));
      handles.push_back(queue.submit<int>(
          specOf("queued", lane), [owned](JobContext&) { return *owned; },
          [owned, &log](Outcome<int>) { log.lines.emplace_back("queued"); }));
    }
    while (never.entered() < 3) std::this_thread::sleep_for(1ms);
    for (JobHandle& handle : handles) handle.release();
    owned.reset();
  }
  EXPECT_EQ(stopped.load(), 3);
  EXPECT_TRUE(watch.expired()) << "captures of a dropped job must die with the queue";
  pump.pump();
  EXPECT_TRUE(log.lines.empty());
}

TEST(JobQueue, AReadyResultIsDroppedWhenTheQueueDiesFirst) {
  PumpDispatcher pump;
  Log log;
  {
    JobQueue queue(pump.dispatcher(), cpuOptions());
    queue
        .submit<int>(
            specOf("ready"), [](JobContext&) { return 1; }, log.entry("ready"))
        .release();
    while (pump.pending() == 0) std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(pump.pump(), 1U);
  EXPECT_TRUE(log.lines.empty());
}

TEST(JobQueue, AHandleMayOutliveTheQueue) {
  PumpDispatcher pump;
  JobHandle handle;
  {
    JobQueue queue(pump.dispatcher(), cpuOptions());
    handle = queue.submit<int>(
        specOf("x"), [](JobContext&) { return 1; }, [](Outcome<int>) {});
  }
  handle.cancel();
}

TEST(JobQueue, AQueueMayDieInsideItsOwnDelivery) {
  PumpDispatcher pump;
  auto queue = std::make_unique<JobQueue>(pump.dispatcher(), cpuOptions());
  bool done = false;
  queue
      ->submit<int>(
          specOf("close"), [](JobContext&) { return 1; },
          [&](Outcome<int>) {
            queue.reset();  // "close the window" as the answer to a job
            done = true;
          })
      .release();
  ASSERT_TRUE(pump.pumpUntil([&] { return done; }));
}

TEST(JobQueue, ListsUserVisibleJobsNewestFirstWithStateStageAndError) {
  PumpDispatcher pump;
  std::vector<std::vector<JobStatus>> seen;
  JobQueueOptions options = cpuOptions();
  options.onStatus = [&](std::vector<JobStatus> list) { seen.push_back(std::move(list)); };
  JobQueue queue(pump.dispatcher(), options);
  Gate gate;
  Log log;
  std::vector<JobHandle> handles;
  handles.push_back(queue.submit<int>(
      specOf("SVG on layer 12", Lane::Compute, {}, 0, true),
      [&](JobContext& context) {
        context.report(0.25, "2/5 block search");
        context.control().report(0.5);
        gate.pass(context);
        return 1;
      },
      log.entry("run")));
  handles.push_back(queue.submit<int>(
      specOf("hidden"), [](JobContext&) { return 1; }, log.entry("hidden")));
  handles.push_back(queue.submit<int>(
      specOf("Export", Lane::Compute, {}, 0, true), [](JobContext&) -> int { throw Error(ErrorCode::Io, "disk full"); },
      log.entry("export")));
  while (gate.entered() == 0) std::this_thread::sleep_for(1ms);
  std::vector<JobStatus> now = queue.status();
  ASSERT_EQ(now.size(), 2U);
  EXPECT_EQ(now[0].spec.name, "Export");
  EXPECT_EQ(now[0].state, JobState::Queued);
  EXPECT_EQ(now[1].state, JobState::Running);
  EXPECT_DOUBLE_EQ(now[1].fraction, 0.5);
  EXPECT_EQ(now[1].stage, "2/5 block search");
  EXPECT_EQ(queue.unfinished(), 2) << "hidden jobs do not count";
  handles.front().cancel();
  EXPECT_NE(queue.status()[1].state, JobState::Running) << "shown as cancelling at once";
  ASSERT_TRUE(pump.pumpUntil([&] {
    return !seen.empty() && seen.back().size() == 2 && seen.back()[0].state == JobState::Failed &&
           seen.back()[1].state == JobState::Cancelled;
  }));
  EXPECT_EQ(seen.back()[0].error, "disk full");
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 3; }));
  EXPECT_EQ(queue.unfinished(), 0);
  queue.clearFinished();
  EXPECT_TRUE(queue.status().empty());
  ASSERT_TRUE(pump.pumpUntil([&] { return seen.back().empty(); }));
}

TEST(JobQueue, ThrottlesStatusButNeverLosesTheLastState) {
  PumpDispatcher pump;
  std::atomic<int> posts{0};
  std::vector<JobStatus> last;
  JobQueueOptions options = cpuOptions();
  options.onStatus = [&](std::vector<JobStatus> list) {
    posts.fetch_add(1);
    last = std::move(list);
  };
  JobQueue queue(pump.dispatcher(), options);
  bool done = false;
  constexpr int kReports = 200000;
  queue
      .submit<int>(
          specOf("busy", Lane::Compute, {}, 0, true),
          [&](JobContext& context) {
            for (int i = 0; i < kReports; ++i) context.report(i / static_cast<double>(kReports), "stage");
            return 1;
          },
          [&](Outcome<int>) { done = true; })
      .release();
  ASSERT_TRUE(pump.pumpUntil([&] { return done && !last.empty() && last[0].state == JobState::Done; }));
  EXPECT_EQ(last[0].fraction, 1.0);
  EXPECT_LT(posts.load(), kReports / 100);
}

TEST(JobQueue, ControlCarriesTheStopOfTheJob) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  Log log;
  std::atomic<bool> running{false};
  JobHandle handle = queue.submit<int>(
      specOf("kernel"),
      [&](JobContext& context) -> int {
        const Control control = context.control();
        running = true;
        for (;;) {
          control.checkpoint();
          std::this_thread::sleep_for(1ms);
        }
      },
      log.entry("kernel"));
  while (!running.load()) std::this_thread::sleep_for(1ms);
  handle.cancel();
  ASSERT_TRUE(pump.pumpUntil([&] { return !log.lines.empty(); }));
  EXPECT_EQ(log.lines.front(), "kernel=cancelled");
}

TEST(JobQueue, EachLaneHasItsOwnBackendMadeOnce) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  std::vector<Backend*> seen;
  int arrived = 0;
  for (const Lane lane : {Lane::Compute, Lane::Compute, Lane::Tiles}) {
    queue
        .submit<Backend*>(
            specOf("backend", lane), [](JobContext& context) { return &context.backend(); },
            [&, lane](Outcome<Backend*> outcome) {
              if (lane == Lane::Compute) {
                seen.push_back(std::get<Backend*>(outcome));
              } else {
                EXPECT_EQ(std::find(seen.begin(), seen.end(), std::get<Backend*>(outcome)), seen.end());
              }
              ++arrived;
            })
        .release();
  }
  ASSERT_TRUE(pump.pumpUntil([&] { return arrived == 3; }));
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ(queue.backendInfo().id, "cpu");
}

TEST(JobQueue, AnUnknownBackendIsAnErrorOfTheJobAndNotOfTheQueue) {
  PumpDispatcher pump;
  JobQueueOptions options = cpuOptions();
  options.backendId = "no-such-device";
  JobQueue queue(pump.dispatcher(), options);
  EXPECT_EQ(queue.backendInfo().deviceName, "unavailable");
  Log log;
  queue
      .submit<int>(
          specOf("needs it"), [](JobContext& context) { return context.backend().info().id.empty() ? 0 : 1; },
          log.entry("needs it"))
      .release();
  queue
      .submit<int>(
          specOf("does not"), [](JobContext&) { return 2; }, log.entry("does not"))
      .release();
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 2; }));
  EXPECT_EQ(log.lines[0].find("needs it=cancelled"), std::string::npos);
  EXPECT_EQ(log.lines[1], "does not=2");
}

TEST(JobQueue, ADeviceErrorOnTheCpuIsNotRunTwice) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  Log log;
  std::atomic<int> runs{0};
  queue
      .submit<int>(
          specOf("broken"),
          [&](JobContext& context) -> int {
            static_cast<void>(context.backend());
            runs.fetch_add(1);
            throw Error(ErrorCode::Device, "device lost");
          },
          log.entry("broken"))
      .release();
  ASSERT_TRUE(pump.pumpUntil([&] { return !log.lines.empty(); }));
  EXPECT_EQ(runs.load(), 1);
  EXPECT_EQ(log.lines.front(), "broken=device: device lost");
}

/// A device that exists in name only; its operations are never reached.
class NamedBackend : public Backend {
 public:
  explicit NamedBackend(std::string id) : m_id(std::move(id)) {}
  [[nodiscard]] BackendInfo info() const override { return {m_id, m_id + " device", "", 0}; }
  [[nodiscard]] bool supports(Op, DType, Index) const noexcept override { return false; }
  std::shared_ptr<const PreparedHead> prepare(const AttentionIn&, std::shared_ptr<const void>,
                                              const Control&) override {
    throw Error(ErrorCode::Device, "no such operation");
  }
  LseMapResult lseMap(const PreparedHead&, const LseMapRequest&, const Control&) override { return {}; }
  std::vector<float> tile(const PreparedHead&, std::span<const float>, const TileRect&, Reduce,
                          const Control&) override {
    return {};
  }
  AttendResult attend(const PreparedHead&, std::span<const Index>, const RowKeep&, const Control&) override {
    return {};
  }
  AttendResult attendTop(const PreparedHead&, std::span<const Index>, std::span<const Index>, const Control&) override {
    return {};
  }
  RowStats rowStats(const PreparedHead&, std::span<const Index>, double, const Control&) override { return {}; }
  GlobalTop globalTop(const PreparedHead&, std::span<const Index>, Index, const Control&) override { return {}; }
  ClusterResult cluster(const PreparedHead&, const ClusterRequest&, const Control&) override { return {}; }

 private:
  std::string m_id;
};

TEST(JobQueue, ADeviceErrorRetiresTheLanesDeviceAndRunsTheJobOnceMoreOnTheCpu) {
  PumpDispatcher pump;
  JobQueueOptions options = cpuOptions();
  options.backendId = "cuda";
  options.makeBackend = [](std::string_view id, Executor&) { return std::make_unique<NamedBackend>(std::string(id)); };
  JobQueue queue(pump.dispatcher(), options);
  EXPECT_EQ(queue.backendInfo().id, "cuda");
  Log log;
  std::vector<std::string> ranOn;  // read after the result came
  const auto work = [&](JobContext& context) -> int {
    ranOn.push_back(context.backend().info().id);
    context.report(0.7, "2/2");
    if (ranOn.back() == "cuda") throw Error(ErrorCode::Device, "an illegal memory access was encountered");
    return 1;
  };
  queue.submit<int>(specOf("Run SVG", Lane::Compute, {}, 0, true), work, log.entry("first")).release();
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 1; }));
  EXPECT_EQ(log.lines[0], "first=1");
  EXPECT_EQ(ranOn, (std::vector<std::string>{"cuda", "cpu"}));
  ASSERT_EQ(queue.status().size(), 1U);
  EXPECT_EQ(queue.status()[0].note, "ran again on the CPU: an illegal memory access was encountered");
  EXPECT_EQ(queue.backendInfo().id, "cpu");
  queue.submit<int>(specOf("Run SVG again", Lane::Compute, {}, 0, true), work, log.entry("second")).release();
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 2; }));
  EXPECT_EQ(ranOn.back(), "cpu");
  EXPECT_EQ(ranOn.size(), 3U);
  EXPECT_TRUE(queue.status()[0].note.empty());
}

TEST(JobQueue, ManyThreadsOfTilesSupersedingEachOtherAllArriveOnce) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  constexpr int kJobs = 400;
  std::vector<int> arrived(kJobs, 0);
  std::vector<JobHandle> handles;
  for (int i = 0; i < kJobs; ++i) {
    handles.push_back(queue.submit<int>(
        specOf("tile", i % 2 == 0 ? Lane::Tiles : Lane::Compute, fmt::format("t{}", i % 7)),
        [](JobContext& context) {
          context.report(0.5);
          context.checkpoint();
          return 1;
        },
        [&arrived, i](Outcome<int>) { ++arrived[static_cast<std::size_t>(i)]; }));
    if (i % 50 == 0) pump.pump();
  }
  ASSERT_TRUE(pump.pumpUntil([&] { return queue.idle() && std::count(arrived.begin(), arrived.end(), 0) == 0; }));
  pump.pump();
  EXPECT_EQ(std::count(arrived.begin(), arrived.end(), 1), kJobs);
}

TEST(JobQueueEta, IsHiddenEarlyAndSteadyLater) {
  detail::EtaEstimator eta;
  eta.restart(100);
  EXPECT_EQ(eta.secondsLeft(100), -1);
  eta.update(0.02, 101);
  EXPECT_EQ(eta.secondsLeft(101), -1) << "before 5 % and 3 s";
  eta.update(0.10, 105);
  EXPECT_NEAR(eta.secondsLeft(105), 45, 1e-9);
  EXPECT_NEAR(eta.secondsLeft(107), 43, 1e-9) << "counts down between reports";
}

TEST(JobQueueEta, OneSlowUnitDoesNotMoveTheEstimate) {
  detail::EtaEstimator eta;
  eta.restart(0);
  double t = 0;
  for (int i = 1; i <= 10; ++i) eta.update(0.01 * i, t += 1.0);
  const double before = eta.secondsLeft(t);
  eta.update(0.11, t += 30.0);  // one slow file read
  const double after = eta.secondsLeft(t);
  EXPECT_NEAR(before, 90, 1e-6);
  EXPECT_NEAR(after, 89, 1e-6);
}

TEST(JobQueueEta, AStalledJobIsNotAboutToFinishForEver) {
  detail::EtaEstimator eta;
  eta.restart(0);
  eta.update(0.5, 1);
  eta.update(0.9, 2);
  EXPECT_GT(eta.secondsLeft(60), 5);
}

TEST(JobQueueEta, StartsAfreshWhenProgressDoes) {
  detail::EtaEstimator eta;
  eta.restart(0);
  eta.update(0.5, 10);
  eta.update(0.0, 10);
  EXPECT_EQ(eta.secondsLeft(10), -1);
  eta.update(0.5, 11);
  EXPECT_NEAR(eta.secondsLeft(11), 1, 1e-9);
}

TEST(JobQueue, BackgroundWorkRunsOnlyWhileNothingElseIsThere) {
  PumpDispatcher pump;
  JobQueue queue(pump.dispatcher(), cpuOptions());
  Log log;
  const auto value = [](int v) { return [v](JobContext&) { return v; }; };
  JobSpec ahead = specOf("ahead", Lane::Compute);
  ahead.background = true;
  // Alone, it runs.
  const JobHandle first = queue.submit<int>(ahead, value(1), log.entry("first"));
  ASSERT_TRUE(pump.pumpUntil([&] { return !log.lines.empty(); }));
  EXPECT_EQ(log.lines, std::vector<std::string>{"first=1"});
  log.lines.clear();
  // A job of any lane stops it.
  auto gate = std::make_shared<Gate>();
  const auto wait = [gate](JobContext& context) {
    gate->pass(context);
    return 2;
  };
  const JobHandle running = queue.submit<int>(ahead, wait, log.entry("running"));
  while (gate->entered() < 1) std::this_thread::sleep_for(1ms);
  const JobHandle queued = queue.submit<int>(ahead, value(3), log.entry("queued"));
  const JobHandle tile = queue.submit<int>(specOf("tile", Lane::Tiles), wait, log.entry("tile"));
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 2; }));
  EXPECT_THAT(log.lines, testing::UnorderedElementsAre("running=cancelled", "queued=cancelled"));
  log.lines.clear();
  // While something else is under way it is not taken at all.
  const JobHandle late = queue.submit<int>(ahead, value(4), log.entry("late"));
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 1; }));
  EXPECT_EQ(log.lines.front(), "late=cancelled");
  gate->open();
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 2; }));
  EXPECT_EQ(log.lines.back(), "tile=2");
  // Background work does not stop background work.
  const JobHandle one = queue.submit<int>(ahead, value(5), log.entry("one"));
  const JobHandle two = queue.submit<int>(ahead, value(6), log.entry("two"));
  ASSERT_TRUE(pump.pumpUntil([&] { return log.lines.size() == 4; }));
  EXPECT_THAT(log.lines, testing::IsSupersetOf({"one=5", "two=6"}));
}

}  // namespace
}  // namespace sparsight

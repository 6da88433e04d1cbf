// SPDX-License-Identifier: Apache-2.0
#include "sparsight/kernels/executor.h"

#include <tbb/blocked_range.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <tbb/task_scheduler_observer.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "sparsight/kernels/error.h"

#if defined(__linux__)
#include <sys/resource.h>
#include <unistd.h>
#endif

#if defined(SPARSIGHT_TSAN_EDGES)
extern "C" {
void __tsan_acquire(void* address);  // NOLINT: the sanitizer's names
void __tsan_release(void* address);  // NOLINT
}
#endif

namespace sparsight {
namespace {

// The distribution's oneTBB is not instrumented, so the thread sanitizer sees neither the start nor the end of its
// tasks. These two edges tell it what parallel_for guarantees: a body sees everything from before the call, and after
// the call everything the bodies did is seen. Nothing in other builds.
class ForkJoin {
 public:
#if defined(SPARSIGHT_TSAN_EDGES)
  void forked() { __tsan_release(&m_fork); }
  void started() { __tsan_acquire(&m_fork); }
  void ended() { __tsan_release(&m_join); }
  void joined() { __tsan_acquire(&m_join); }

 private:
  char m_fork = 0, m_join = 0;
#else
  void forked() const noexcept {}
  void started() const noexcept {}
  void ended() const noexcept {}
  void joined() const noexcept {}
#endif
};

/// Workers of TBB are shared by all arenas of the process; those that come to a low one stay low.
class WorkersBelow : public tbb::task_scheduler_observer {
 public:
  WorkersBelow(tbb::task_arena& arena, int nice) : tbb::task_scheduler_observer(arena), m_nice(nice) { observe(true); }
  ~WorkersBelow() override { observe(false); }
  void on_scheduler_entry(bool isWorker) override {
    thread_local bool lowered = false;
    if (isWorker && !std::exchange(lowered, true)) lowerThreadPriority(m_nice);
  }

 private:
  int m_nice;
};

}  // namespace

void lowerThreadPriority(int nice) noexcept {
#if defined(__linux__)
  // Of the calling thread alone: Linux keeps one value for each.
  const id_t self = static_cast<id_t>(gettid());
  const int now = getpriority(PRIO_PROCESS, self);
  setpriority(PRIO_PROCESS, self, std::min(19, std::max(now, 0) + nice));
#else
  static_cast<void>(nice);
#endif
}

void Control::checkpoint() const {
  if (stop.stop_requested()) throw Cancelled{};
}

struct Executor::Impl {
  Impl(int count, int nice) : arena(count), threads(count) {
    // TBB starts no more workers than there are cores unless it is told that more are wanted.
    using tbb::global_control;
    if (static_cast<std::size_t>(count) > global_control::active_value(global_control::max_allowed_parallelism)) {
      more = std::make_unique<global_control>(global_control::max_allowed_parallelism, static_cast<std::size_t>(count));
    }
    if (nice > 0) below = std::make_unique<WorkersBelow>(arena, nice);
  }
  std::unique_ptr<tbb::global_control> more;
  tbb::task_arena arena;
  std::unique_ptr<WorkersBelow> below;
  int threads;
};

Executor::Executor(int threads, int nice) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  m_impl = std::make_unique<Impl>(threads > 0 ? threads : cores, nice);
}

Executor::~Executor() = default;

int Executor::threads() const noexcept { return m_impl->threads; }

void Executor::parallelFor(Index count, Index grain, const Control& control,
                           const std::function<void(Index first, Index last)>& body) const {
  control.checkpoint();
  if (count <= 0) return;
  grain = std::max<Index>(1, grain);
  const Index pieces = (count - 1) / grain + 1;
  // Pieces are cut here and not by TBB, so that what one call of the body sees never depends on the number of threads.
  const auto piece = [&](Index i) {
    control.checkpoint();
    body(i * grain, std::min(count, (i + 1) * grain));
  };
  if (pieces == 1 || m_impl->threads == 1) {
    for (Index i = 0; i < pieces; ++i) piece(i);
    return;
  }
  ForkJoin edges;
  struct Piece {  // ends on exceptions, too
    ForkJoin& edges;
    explicit Piece(ForkJoin& e) : edges(e) { edges.started(); }
    ~Piece() { edges.ended(); }
  };
  struct Joined {
    ForkJoin& edges;
    ~Joined() { edges.joined(); }
  } const joined{edges};
  edges.forked();
  m_impl->arena.execute([&] {
    // Isolated: a parallelFor inside a body of another one neither cancels it nor is cancelled by it; its exception
    // does.
    tbb::task_group_context context(tbb::task_group_context::isolated);
    tbb::parallel_for(
        tbb::blocked_range<Index>(0, pieces, 1),
        [&](const tbb::blocked_range<Index>& range) {
          for (Index i = range.begin(); i != range.end() && !context.is_group_execution_cancelled(); ++i) {
            const Piece traced(edges);
            piece(i);
          }
        },
        tbb::simple_partitioner(), context);
  });
}

}  // namespace sparsight

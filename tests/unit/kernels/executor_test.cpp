// SPDX-License-Identifier: Apache-2.0
#include "sparsight/kernels/executor.h"

#include <gtest/gtest.h>

#if defined(__linux__)
#include <sys/resource.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

class ExecutorThreads : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(ExecutorThreads, ExecutorThreads, testing::Values(1, 2, 7));

TEST_P(ExecutorThreads, EveryItemOnceInPiecesOfTheGrain) {
  const Executor executor(GetParam());
  EXPECT_EQ(executor.threads(), GetParam());
  for (const Index count : {0, 1, 5, 64, 1001}) {
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
    executor.parallelFor(count, 10, {}, [&](Index first, Index last) {
      EXPECT_EQ(first % 10, 0);
      EXPECT_EQ(last, std::min<Index>(count, first + 10));
      for (Index i = first; i < last; ++i) ++seen[static_cast<std::size_t>(i)];
    });
    for (const auto& n : seen) EXPECT_EQ(n.load(), 1);
  }
}

TEST_P(ExecutorThreads, RethrowsABodysExceptionAndSkipsTheRest) {
  const Executor executor(GetParam());
  std::atomic<int> calls{0};
  try {
    executor.parallelFor(100000, 1, {}, [&](Index first, Index) {
      ++calls;
      if (first == 3) throw Error(ErrorCode::Format, "piece three");
      // The thread that throws may be without a core while the others run: half way they let it come to it.
      if (calls.load() > 50000) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    FAIL() << "the exception was lost";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Format);
    EXPECT_STREQ(error.what(), "piece three");
  }
  EXPECT_LT(calls.load(), 100000);
  int again = 0;
  executor.parallelFor(1, 1, {}, [&](Index, Index) { ++again; });
  EXPECT_EQ(again, 1) << "the executor serves on after an exception";
}

TEST_P(ExecutorThreads, StopIsCancelledAndNoError) {
  const Executor executor(GetParam());
  std::stop_source source;
  const Control control{source.get_token(), {}};
  std::atomic<int> calls{0};
  EXPECT_THROW(executor.parallelFor(100000, 1, control,
                                    [&](Index, Index) {
                                      if (++calls == 5) source.request_stop();
                                    }),
               Cancelled);
  EXPECT_LT(calls.load(), 1000);
  EXPECT_THROW(executor.parallelFor(1, 1, control, [](Index, Index) { FAIL(); }), Cancelled);
}

TEST_P(ExecutorThreads, LoopsMayNest) {
  const Executor executor(GetParam());
  std::atomic<int> sum{0};
  executor.parallelFor(20, 1, {}, [&](Index, Index) {
    executor.parallelFor(30, 4, {}, [&](Index first, Index last) { sum += static_cast<int>(last - first); });
  });
  EXPECT_EQ(sum.load(), 600);
  EXPECT_THROW(
      executor.parallelFor(
          20, 1, {}, [&](Index, Index) { executor.parallelFor(30, 4, {}, [](Index, Index) { throw Cancelled{}; }); }),
      Cancelled);
}

TEST(Executor, ServesSeveralThreadsAtOnce) {
  const Executor executor(2);
  std::atomic<Index> sum{0};
  {
    std::vector<std::jthread> callers;
    for (int c = 0; c < 4; ++c) {
      callers.emplace_back([&] {
        for (int n = 0; n < 50; ++n) executor.parallelFor(100, 3, {}, [&](Index a, Index b) { sum += b - a; });
      });
    }
  }
  EXPECT_EQ(sum.load(), 4 * 50 * 100);
}

TEST(Executor, DefaultIsAllCores) {
  EXPECT_EQ(Executor(0).threads(), static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  EXPECT_GE(Executor(-3).threads(), 1);
}

#if defined(__linux__)
TEST(Executor, AThreadLowersItselfAlone) {
  const auto niceness = [] { return getpriority(PRIO_PROCESS, static_cast<id_t>(gettid())); };
  const int mine = niceness();
  int theirs = 0;
  std::thread([&] {
    lowerThreadPriority(7);
    theirs = niceness();
  }).join();
  EXPECT_EQ(theirs, std::min(19, std::max(0, mine) + 7));
  EXPECT_EQ(niceness(), mine);
}

TEST(Executor, WorkersAreLoweredOnceAndTheCallerIsNot) {
  const auto niceness = [] { return getpriority(PRIO_PROCESS, static_cast<id_t>(gettid())); };
  const int mine = niceness(), below = std::min(19, std::max(0, mine) + 3);
  const Executor executor(4, 3);
  const auto caller = std::this_thread::get_id();
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> wrong{0};
    executor.parallelFor(64, 1, {}, [&](Index, Index) {
      const bool own = std::this_thread::get_id() == caller;
      if (niceness() != (own ? mine : below)) ++wrong;
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    });
    EXPECT_EQ(wrong.load(), 0);
  }
}
#endif

TEST(Executor, LoopProgressCountsEveryItemOnceAndNeverFalls) {
  const Executor executor(8);
  std::vector<double> seen;  // unguarded: one call at a time is part of the promise
  Control control;
  control.progress = [&seen](double fraction) { seen.push_back(fraction); };
  LoopProgress progress(control, 5000, 0.25, 0.5);
  executor.parallelFor(5000, 1, {}, [&](Index first, Index last) { progress.add(last - first); });
  ASSERT_EQ(seen.size(), 5000U);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_DOUBLE_EQ(seen.front(), 0.25 + 0.5 / 5000);
  EXPECT_DOUBLE_EQ(seen.back(), 0.75);
}

}  // namespace
}  // namespace sparsight

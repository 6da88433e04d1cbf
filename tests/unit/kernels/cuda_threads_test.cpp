// SPDX-License-Identifier: Apache-2.0
// Every kernel with the threads of a block run one by one, each as far as the next barrier lets it: the bits must be
// those of the ordinary emulation, whoever goes first.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tests/support/backend_ops_cases.h"
#include "tests/support/emulated_cuda.h"
#include "tests/support/emulated_cuda/thread_block.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SPARSIGHT_STACKS_ARE_WATCHED 1
#endif

namespace sparsight {
namespace {

using emulated::ThreadOrder;

class CudaThreads : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
#ifdef SPARSIGHT_STACKS_ARE_WATCHED
    GTEST_SKIP() << "sanitizers do not follow a program from one stack to another";
#endif
    resetEmulatedCuda();
    ASSERT_EQ(setenv("SPARSIGHT_CUDA_PATH", GetParam(), 1), 0);
  }
  void TearDown() override {
    unsetenv("SPARSIGHT_CUDA_PATH");
    resetEmulatedCuda();
  }
};

void append(std::vector<double>& all, const auto& values) { all.insert(all.end(), values.begin(), values.end()); }
void append(std::vector<double>& all, const AttendResult& r) {
  append(all, r.out);
  append(all, r.lse);
  append(all, r.count);
  append(all, r.threshold);
}

// What all operations give on one head.
std::vector<double> everything(Backend& backend, const testing::OpHead& tensors, Index dim) {
  const auto head = backend.prepare(tensors.in, nullptr, {});
  const Index queries = tensors.in.q.rows;
  const Index keys = tensors.in.k.rows;
  std::vector<double> all;
  const std::vector<Index> rowBounds{0, queries / 3, queries};  // the second is added in more than one step
  const std::vector<Index> colBounds = testing::makeBlocks(testing::Blocks::Ragged, keys);
  const LseMapResult map = backend.lseMap(*head, {rowBounds, colBounds}, {});
  append(all, map.lse);
  append(all, map.mean);
  append(all, map.max);
  // Equal queries have equal rows in the map: whoever counts some of them twice finds the same mean. Here they differ.
  std::vector<float> lse(static_cast<std::size_t>(queries));
  for (std::size_t i = 0; i < lse.size(); ++i) lse[i] = 5.0F + 0.01F * static_cast<float>(i);
  append(all, backend.tile(*head, lse, {0, queries, 0, keys, 1, 3}, Reduce::Mean, {}));
  std::vector<Index> rows;
  std::vector<Index> counts;
  for (Index i = 0; i < queries; i += 3) {
    rows.push_back(queries - 1 - i);
    counts.push_back(i % (keys / 2));
  }
  const std::vector<Interval> intervals{{1, 5}, {40, keys - 7}};
  const std::vector<Index> ptr{0, 2};
  const std::vector<Index> group(rows.size(), 0);
  append(all, backend.attend(*head, rows, {}, {}));
  append(all, backend.attend(*head, rows, {ptr, intervals, group}, {}));
  append(all, backend.attendTop(*head, rows, counts, {}));
  std::vector<Index> order;
  for (Index i = 0; i < keys; ++i) order.push_back((i * 7 + 3) % keys);  // keys are no multiple of 7
  append(all, backend.attend(*backend.permuteKeys(*head, {order}, {}), rows, {ptr, intervals, group}, {}));
  const RowStats stats = backend.rowStats(*head, rows, 0.9, {});
  append(all, stats.lse);
  append(all, stats.entropyBits);
  append(all, stats.top1);
  append(all, stats.keysForMass);
  const GlobalTop top = backend.globalTop(*head, rows, keys * 5, {});
  all.push_back(static_cast<double>(top.threshold));
  append(all, top.count);
  std::vector<float> centroids(static_cast<std::size_t>(70 * dim));
  for (std::size_t i = 0; i < centroids.size(); ++i) centroids[i] = std::sin(static_cast<float>(i));
  const auto basis = std::span<const float>(centroids).first(static_cast<std::size_t>(20 * dim));
  const std::vector<ClusterTask> tasks{{head.get(), {Side::Key, 3, keys - 3, centroids}},
                                       {head.get(), {Side::Query, 0, queries, centroids, Distance::Dot}},
                                       {head.get(), {Side::Key, 0, keys, centroids, Distance::Cosine, basis}}};
  for (const ClusterResult& r : backend.clusterAll(tasks, {})) {
    append(all, r.labels);
    append(all, r.nearest);
    append(all, r.sizes);
    append(all, r.means);
  }
  // More key clusters than a block takes at once, all about as probable, so that the crossing lies behind the first of
  // these steps.
  std::vector<float> many(static_cast<std::size_t>(2300 * dim));
  std::vector<Index> sizes(2300);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = std::cos(static_cast<float>(i * i % 7919)) * 0.1F;
  for (std::size_t i = 0; i < sizes.size(); ++i) sizes[i] = 1 + static_cast<Index>(i % 3);
  const ClusterScores scores = backend.scoreClusters(
      {dim, std::span(centroids).first(static_cast<std::size_t>(2 * dim)), many, sizes, 0.3, 0.9}, {});
  append(all, scores.probabilities);
  append(all, scores.order);
  append(all, scores.crossing);
  // Rows of distinct values, and of ties over more columns than a block has threads.
  std::vector<double> blockMap(2 * 700);
  for (std::size_t i = 0; i < blockMap.size(); ++i)
    blockMap[i] = i < 700 ? std::abs(std::sin(static_cast<double>(i))) : static_cast<double>(i % 3);
  const std::vector<Index> kept{100, 400};
  append(all, backend.selectLargest({700, blockMap, kept}, {}));
  return all;
}

TEST_P(CudaThreads, WhoeverGoesFirstTheBitsAreTheSame) {
  const testing::OpCase plain{"", 130, 150, 24, 40, DType::BF16, testing::Scores::Normal};
  testing::OpCase masked{"", 70, 300, 64, 0, DType::F16, testing::Scores::Duplicated};
  masked.keyPadding = masked.queryPadding = masked.denseMask = true;
  const testing::OpCase wide{"", 66, 129, 40, 130, DType::F32, testing::Scores::Peaked};
  for (const testing::OpCase& c : {plain, masked, wide}) {
    const auto head = testing::makeOpHead(c);
    std::vector<double> want;
    for (const ThreadOrder order :
         {ThreadOrder::Together, ThreadOrder::Forward, ThreadOrder::Reversed, ThreadOrder::Random}) {
      SCOPED_TRACE(::testing::Message() << itemSize(c.dtype) << " bytes an element, order " << static_cast<int>(order));
      emulated::machine().threadOrder = order;
      const auto backend = createEmulatedCudaBackend(2e5, Index{1} << 28);
      const std::vector<double> got = everything(*backend, *head, c.dim);
      if (want.empty()) want = got;
      ASSERT_EQ(got.size(), want.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_TRUE(got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i])))
            << "number " << i << ": " << got[i] << " and " << want[i];
      }
    }
  }
}
// Says on its line that it changes no result.
bool isExcused(const emulated::Barrier& barrier) {
  std::ifstream source(std::string(SPARSIGHT_SOURCE_DIR "/kernels/cuda/") + barrier.file);
  std::string line;
  for (unsigned n = 0; n < barrier.line; ++n) std::getline(source, line);
  EXPECT_THAT(line, ::testing::HasSubstr("sync()")) << barrier.file << ":" << barrier.line;
  return line.find("// formal: ") != std::string::npos;
}

// Nothing would be shown by equal bits if these tests could not see a barrier that is missing: each is left out in
// turn, in a process of its own, since what is read too early may be an index. A barrier that changes no result says so
// on its line ("formal") and why.
TEST_P(CudaThreads, NoBarrierCanBeLeftOut) {
  testing::OpCase c{"", 70, 141, 40, 70, DType::BF16, testing::Scores::Duplicated};
  c.keyPadding = true;
  const auto head = testing::makeOpHead(c);
  const auto results = [&](ThreadOrder order) {
    emulated::machine().threadOrder = order;
    return everything(*createEmulatedCudaBackend(1e12, Index{1} << 28), *head, c.dim);
  };
  const auto differ = [](const std::vector<double>& a, const std::vector<double>& b) {
    return !std::equal(a.begin(), a.end(), b.begin(), b.end(),
                       [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); });
  };
  const std::vector<double> want = results(ThreadOrder::Forward);
  const std::set<emulated::Barrier> barriers = emulated::machine().barriers;
  EXPECT_GT(barriers.size(), 25U);
  for (const emulated::Barrier& barrier : barriers) {
    // Only the tile is another one on the other path.
    if (GetParam() == std::string_view("portable") && barrier.file != "score_tile.h") continue;
    if (isExcused(barrier)) continue;
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      alarm(10);  // a search that never ends is no equal result either
      emulated::machine().leftOut = barrier;
      bool seen = false;
      try {
        for (const ThreadOrder order : {ThreadOrder::Reversed, ThreadOrder::Forward, ThreadOrder::Random}) {
          seen = seen || differ(results(order), want);
        }
      } catch (const std::exception&) {
        seen = true;  // what was read too early sent threads to different barriers
      }
      _exit(seen ? 1 : 0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << barrier.file << ":" << barrier.line << ": the results are the same without this barrier";
  }
}
INSTANTIATE_TEST_SUITE_P(Paths, CudaThreads, ::testing::Values("portable", "mma"));

// That the order of turns shows what it is there for.
struct Shared {
  int value[cuda::kThreads];
};
struct State {
  int got = 0;
};
std::vector<int> passOn(ThreadOrder order, bool barrier) {
  Shared shared{};
  std::vector<int> out(cuda::kThreads);
  cuda::ThreadScheduler scheduler(order, 1);
  scheduler.run([&](int thread) {
    cuda::ThreadBlock<State> block(scheduler, thread, 0, 0);
    block.each([&](int t, auto&) { shared.value[t] = t + 1; });
    if (barrier) block.sync();
    block.each([&](int t, auto& s) { s.got = shared.value[(t + 100) % cuda::kThreads]; });
    block.each([&](int t, auto& s) { out[static_cast<std::size_t>(t)] = s.got; });
  });
  return out;
}
class CudaThreadsOrder : public ::testing::Test {
 protected:
  void SetUp() override {
#ifdef SPARSIGHT_STACKS_ARE_WATCHED
    GTEST_SKIP() << "sanitizers do not follow a program from one stack to another";
#endif
  }
};
TEST_F(CudaThreadsOrder, AMissingBarrierShows) {
  const std::vector<int> want = passOn(ThreadOrder::Forward, true);
  EXPECT_EQ(want[0], 101);
  EXPECT_EQ(want[200], 45);
  for (const ThreadOrder order : {ThreadOrder::Forward, ThreadOrder::Reversed, ThreadOrder::Random}) {
    EXPECT_EQ(passOn(order, true), want);
    EXPECT_NE(passOn(order, false), want);
  }
}
TEST_F(CudaThreadsOrder, ABarrierThatSomeMissIsReported) {
  cuda::ThreadScheduler scheduler(ThreadOrder::Random, 3);
  EXPECT_THROW(scheduler.run([&](int thread) {
    if (thread < 100) scheduler.waitForBlock(thread);
  }),
               std::logic_error);
}

}  // namespace
}  // namespace sparsight

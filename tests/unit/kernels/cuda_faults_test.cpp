// SPDX-License-Identifier: Apache-2.0
// What can go wrong with a device, on the emulated one; the backend is wrapped as createBackend() wraps it.
//
//   fault                                       test
//   no driver, driver too old, no device,       CudaEmulatedProbe.SaysWhatIsMissing
//     GPU too old, no code for the GPU
//   kernel fails while it runs (sticky)         EveryOperationEndsOnTheCpuWhenTheDeviceIsLost
//   the error comes late, from a wait           EveryOperationEndsOnTheCpuWhenTheDeviceIsLost
//   the device was lost earlier                 ALostDeviceIsNotUsedAgain
//   a launch is refused (not sticky)            ARefusedLaunchRetiresTheDeviceOfThisJobOnly
//   device memory runs out for scratch          SmallerBatchesWhenMemoryRunsOut, SmallerBatchesInABusyDevice
//   ... for the head itself                     AHeadThatDoesNotFitRunsOnTheCpu
//   ... for one allocation out of many          NoAllocationIsLostWhenOneFails
//   scratch of earlier calls is in the way      EarlierScratchGivesWay
//   budget of 80 %, and its setting             BudgetIsEightyPercentUnlessSet
//   stop between batches                        StopsBetweenBatches
//   a setting that means nothing                SettingsThatMeanNothing
//   ... for a head in another order             CudaFaultsPermute
//   an upload beside other work fails, finds    CudaFaultsUpload
//     no room, is stopped or given up
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <numeric>

#include "cpu/cpu_backend.h"
#include "fallback_backend.h"
#include "tests/support/backend_ops_cases.h"
#include "tests/support/emulated_cuda.h"

namespace sparsight {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr Op kAllOps[] = {Op::LseMap,    Op::Tile,    Op::Attend,      Op::AttendTop,     Op::RowStats,
                          Op::GlobalTop, Op::Cluster, Op::PermuteKeys, Op::ScoreClusters, Op::SelectLargest};

class CudaFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    resetEmulatedCuda();
    testing::OpCase c{"", 333, 400, 24, 16, DType::BF16, testing::Scores::Normal};
    c.keyPadding = c.queryPadding = true;
    m_head = testing::makeOpHead(c);
    m_rows.resize(333);
    std::iota(m_rows.rbegin(), m_rows.rend(), Index{0});
    for (Index i = 0; i < 333; ++i) m_counts.push_back(i % 90);
    m_bounds = testing::makeBlocks(testing::Blocks::Ragged, 333);
    m_cols = testing::makeBlocks(testing::Blocks::Ragged, 400);
    m_centroids.resize(40 * 24);
    for (std::size_t i = 0; i < m_centroids.size(); ++i) m_centroids[i] = std::sin(static_cast<float>(i));
    for (std::size_t i = 0; i < 5 * 24; ++i) m_basis.push_back(std::cos(static_cast<float>(i)));
    m_lse.resize(333, 5.0F);
    for (std::size_t i = 0; i < 150 * 24; ++i) m_queryCentroids.push_back(std::sin(0.7F * static_cast<float>(i)));
    for (Index i = 0; i < 40; ++i) m_sizes.push_back(i % 9);
    for (Index i = 0; i < 400; ++i) m_order.push_back((i * 77 + 5) % 400);
  }
  void TearDown() override { resetEmulatedCuda(); }

  std::unique_ptr<FallbackBackend> wrap(std::unique_ptr<Backend> cuda) {
    return std::make_unique<FallbackBackend>(std::move(cuda), createCpuBackend(m_executor));
  }

  // Everything that one operation returns, as numbers in a row.
  std::vector<double> run(Backend& backend, const PreparedHead& head, Op op, const Control& control = {}) {
    std::vector<double> out;
    const auto add = [&](const auto& values) { out.insert(out.end(), values.begin(), values.end()); };
    const auto addAttend = [&](const AttendResult& r) {
      add(r.out);
      add(r.lse);
      add(r.count);
      add(r.threshold);
    };
    switch (op) {
      case Op::LseMap: {
        const LseMapResult r = backend.lseMap(head, {m_bounds, m_cols}, control);
        add(r.lse);
        add(r.mean);
        add(r.max);
        break;
      }
      case Op::Tile:
        add(backend.tile(head, m_lse, {3, 330, 5, 390, 20, 30}, Reduce::Mean, control));
        break;
      case Op::Attend:
        addAttend(backend.attend(head, m_rows, {}, control));
        break;
      case Op::AttendTop:
        addAttend(backend.attendTop(head, m_rows, m_counts, control));
        break;
      case Op::RowStats: {
        const RowStats r = backend.rowStats(head, m_rows, 0.9, control);
        add(r.lse);
        add(r.entropyBits);
        add(r.top1);
        add(r.keysForMass);
        break;
      }
      case Op::GlobalTop: {
        const GlobalTop r = backend.globalTop(head, m_rows, 9000, control);
        out.push_back(static_cast<double>(r.threshold));
        add(r.count);
        break;
      }
      case Op::Cluster:
        for (const bool profiles : {false, true}) {
          ClusterRequest request{Side::Key, 7, 390, m_centroids};
          if (profiles) {
            request.distance = Distance::Cosine;
            request.basis = m_basis;
          }
          const ClusterResult r = backend.cluster(head, request, control);
          add(r.labels);
          add(r.nearest);
          add(r.sizes);
          add(r.means);
        }
        break;
      case Op::ScoreClusters: {
        const ClusterScores r = backend.scoreClusters({24, m_queryCentroids, m_centroids, m_sizes, 0.2, 0.8}, control);
        add(r.probabilities);
        add(r.order);
        add(r.crossing);
        break;
      }
      case Op::SelectLargest: {
        std::vector<double> values;
        for (Index i = 0; i < 200 * 90; ++i) values.push_back(std::abs(std::sin(static_cast<double>(i))));
        const std::vector<Index> counts(200, 30);
        add(backend.selectLargest({90, values, counts}, control));
        break;
      }
      case Op::PermuteKeys: {
        // The values lie on the device before: they are moved with the keys.
        static_cast<void>(backend.attend(head, std::span(m_rows).first(1), {}, {control.stop, {}}));
        addAttend(backend.attend(*backend.permuteKeys(head, {m_order}, control), m_rows, {}, {control.stop, {}}));
        break;
      }
    }
    return out;
  }
  std::vector<double> onCpu(Op op) {
    const auto cpu = createCpuBackend(m_executor);
    return run(*cpu, *cpu->prepare(m_head->in, m_head, {}), op);
  }
  static void expectNear(const std::vector<double>& got, const std::vector<double>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (std::isnan(want[i]) || std::isinf(want[i])) {
        ASSERT_EQ(std::isnan(got[i]), std::isnan(want[i])) << i;
      } else {
        ASSERT_NEAR(got[i], want[i], 1e-4 + 1e-4 * std::abs(want[i])) << i;
      }
    }
  }
  // NaN equals NaN here.
  static void expectSameBits(const std::vector<double>& got, const std::vector<double>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_TRUE(got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i])))
          << i << ": " << got[i] << " and " << want[i];
    }
  }

  Executor m_executor{2};
  std::shared_ptr<const testing::OpHead> m_head;
  std::vector<Index> m_rows, m_counts, m_bounds, m_cols, m_order, m_sizes;
  std::vector<float> m_centroids, m_queryCentroids, m_basis, m_lse;
};

TEST_F(CudaFaults, EveryOperationEndsOnTheCpuWhenTheDeviceIsLost) {
  for (const Op op : kAllOps) {
    for (const cudaError_t error : {cudaErrorIllegalAddress, cudaErrorECCUncorrectable, cudaErrorUnknown}) {
      for (const bool late : {false, true}) {
        SCOPED_TRACE(::testing::Message() << opName(op) << ", error " << error << (late ? ", late" : ""));
        resetEmulatedCuda();
        const auto backend = wrap(createEmulatedCudaBackend(1.0, Index{1} << 28));  // 64 rows a batch
        const auto head = backend->prepare(m_head->in, m_head, {});
        emulated::machine().launchesUntilFailure = 2;
        emulated::machine().launchError = error;
        emulated::machine().failsLate = late;
        expectSameBits(run(*backend, *head, op), onCpu(op));
        const std::vector<std::string> fallbacks = backend->takeFallbacks();
        ASSERT_THAT(fallbacks, Not(IsEmpty()));
        EXPECT_THAT(fallbacks.front(), HasSubstr(std::string(opName(op)) + ": cuda -> cpu (device error: cuda: "));
        EXPECT_EQ(backend->info().id, "cpu");
        EXPECT_THAT(backend->info().detail, HasSubstr("cuda retired"));
        EXPECT_TRUE(emulated::machine().allocations.empty()) << "its memory is given back";
      }
    }
  }
}

TEST_F(CudaFaults, ALostDeviceIsNotUsedAgain) {
  const auto first = createEmulatedCudaBackend(m_executor);
  const auto second = createEmulatedCudaBackend(m_executor);
  const auto headOfFirst = first->prepare(m_head->in, m_head, {});
  const auto headOfSecond = second->prepare(m_head->in, m_head, {});
  emulated::machine().launchesUntilFailure = 0;
  EXPECT_THROW(static_cast<void>(run(*first, *headOfFirst, Op::LseMap)), Error);
  const int launches = emulated::machine().launches;
  // Another lane's backend of the same process shares the lost context.
  try {
    static_cast<void>(run(*second, *headOfSecond, Op::RowStats));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::Device);
  }
  EXPECT_EQ(emulated::machine().launches, launches);
  std::string why;
  EXPECT_FALSE(probeEmulatedCuda(why));
  EXPECT_THAT(why, HasSubstr("restart the program"));
}

TEST_F(CudaFaults, ARefusedLaunchRetiresTheDeviceOfThisJobOnly) {
  for (const Op op : kAllOps) {
    SCOPED_TRACE(opName(op));
    const auto backend = wrap(createEmulatedCudaBackend(m_executor));
    const auto head = backend->prepare(m_head->in, m_head, {});
    emulated::machine().launchesUntilFailure = 0;
    emulated::machine().launchError = cudaErrorLaunchOutOfResources;
    expectSameBits(run(*backend, *head, op), onCpu(op));
    EXPECT_THAT(backend->takeFallbacks().front(), HasSubstr("cudaErrorLaunchOutOfResources"));
    EXPECT_EQ(backend->info().id, "cpu");
    std::string why;
    EXPECT_TRUE(probeEmulatedCuda(why)) << "the context is whole: " << why;
  }
}

TEST_F(CudaFaults, SmallerBatchesWhenMemoryRunsOut) {
  for (const Op op : kAllOps) {
    if (op == Op::PermuteKeys) continue;  // half a batch would be half a head
    SCOPED_TRACE(opName(op));
    resetEmulatedCuda();
    const auto roomy = createEmulatedCudaBackend(1e12, Index{4} << 20);
    const std::vector<double> want = run(*roomy, *roomy->prepare(m_head->in, m_head, {}), op);
    EXPECT_THAT(roomy->takeFallbacks(), IsEmpty());

    const auto backend = createEmulatedCudaBackend(1e12, Index{64} << 20);
    const auto head = backend->prepare(m_head->in, m_head, {});
    std::vector<double> fractions;
    Control control;
    control.progress = [&](double fraction) { fractions.push_back(fraction); };
    // Refuses exactly the first allocation that the operation makes.
    emulated::machine().allocationsUntilFailure = 0;
    expectSameBits(run(*backend, *head, op, control), want);
    EXPECT_EQ(emulated::machine().failedAllocations, 1);
    EXPECT_THAT(
        backend->takeFallbacks(),
        ElementsAre(std::string(opName(op)) + ": in batches of 32 MiB instead of 64 MiB (out of device memory)"));
    EXPECT_THAT(backend->takeFallbacks(), IsEmpty()) << "taken once";
    EXPECT_TRUE(std::is_sorted(fractions.begin(), op == Op::Cluster ? fractions.begin() : fractions.end()));
  }
}

// Rows of scores of 333 x 448 floats want 583 KiB: with 200 KiB in one piece the panels are cut until they fit, with 50
// not even the smallest does.
TEST_F(CudaFaults, SmallerBatchesInABusyDevice) {
  for (const Op op : {Op::AttendTop, Op::RowStats, Op::GlobalTop}) {
    SCOPED_TRACE(opName(op));
    resetEmulatedCuda();
    const auto roomy = createEmulatedCudaBackend(m_executor);
    const std::vector<double> want = run(*roomy, *roomy->prepare(m_head->in, m_head, {}), op);

    emulated::machine().largestAllocation = 200 << 10;
    const auto backend = wrap(createEmulatedCudaBackend(1e12, Index{2} << 20));
    const auto head = backend->prepare(m_head->in, m_head, {});
    expectSameBits(run(*backend, *head, op), want);
    EXPECT_GT(emulated::machine().failedAllocations, 2);
    EXPECT_THAT(
        backend->takeFallbacks(),
        ElementsAre(std::string(opName(op)) + ": in batches of 128 KiB instead of 2 MiB (out of device memory)"));

    emulated::machine().largestAllocation = 50 << 10;
    const auto tight = wrap(createEmulatedCudaBackend(1e12, Index{2} << 20));
    expectNear(run(*tight, *tight->prepare(m_head->in, m_head, {}), op), want);
    EXPECT_THAT(tight->takeFallbacks(), ElementsAre(HasSubstr("cuda -> cpu (out of device memory: ")));
    EXPECT_EQ(tight->info().id, "cuda") << "the next call may fit";
  }
}

TEST_F(CudaFaults, ResultsDoNotDependOnTheBatch) {
  for (const Op op : kAllOps) {
    SCOPED_TRACE(opName(op));
    std::vector<double> want;
    for (const auto& [work, bytes] : {std::pair{1e12, Index{1} << 28}, std::pair{1.0, Index{1} << 28},
                                      std::pair{1e12, Index{300} << 10}, std::pair{2e6, Index{1} << 28}}) {
      const auto backend = createEmulatedCudaBackend(work, bytes);
      const int before = emulated::machine().launches;
      const std::vector<double> got = run(*backend, *backend->prepare(m_head->in, m_head, {}), op);
      if (want.empty()) {
        want = got;
      } else {
        expectSameBits(got, want);
      }
      if (work == 1.0) {
        EXPECT_GE(emulated::machine().launches - before, 333 / 128 + 1) << "several batches, of 64 or 128 rows";
      }
    }
  }
}

// Heads of several shapes and types: with and without padding, other cluster counts, a profile space, cosines.
class CudaFaultsClusterAll : public CudaFaults {
 protected:
  void SetUp() override {
    CudaFaults::SetUp();
    m_heads.push_back(m_head);
    for (const DType dtype : {DType::BF16, DType::BF16, DType::F32, DType::F16}) {
      const auto n = static_cast<Index>(m_heads.size());
      testing::OpCase c{"", 2000 + 37 * n, 1900 + 300 * n, 24, 0, dtype, testing::Scores::Normal};
      m_heads.push_back(testing::makeOpHead(c, static_cast<std::uint64_t>(n)));
    }
  }
  [[nodiscard]] std::vector<ClusterTask> tasksOf(const std::vector<std::shared_ptr<const PreparedHead>>& heads) const {
    std::vector<ClusterTask> tasks;
    for (std::size_t i = 0; i < heads.size(); ++i) {
      const Index keys = heads[i]->input().k.rows;
      const auto some = std::span(m_centroids).first((30 + i) * 24);
      tasks.push_back({heads[i].get(), {Side::Key, static_cast<Index>(i), keys - 20, some}});
      tasks.push_back({heads[i].get(), {Side::Query, 3, 300, m_centroids, Distance::Cosine}});
    }
    for (const auto& head : heads) {
      tasks.push_back({head.get(), {Side::Query, 0, 320, m_centroids, Distance::Cosine, m_basis}});
    }
    for (const auto& head : heads) tasks.push_back({head.get(), {Side::Key, 0, 390, m_centroids, Distance::Dot}});
    return tasks;
  }
  std::vector<std::shared_ptr<const PreparedHead>> prepareAll(Backend& backend) {
    std::vector<std::shared_ptr<const PreparedHead>> heads;
    for (const auto& head : m_heads) heads.push_back(backend.prepare(head->in, head, {}));
    return heads;
  }
  static std::vector<ClusterResult> oneByOne(Backend& backend, std::span<const ClusterTask> tasks) {
    std::vector<ClusterResult> results;
    for (const ClusterTask& task : tasks) results.push_back(backend.cluster(*task.head, task.request, {}));
    return results;
  }
  static void expectSame(const std::vector<ClusterResult>& got, const std::vector<ClusterResult>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      SCOPED_TRACE(::testing::Message() << "task " << i);
      EXPECT_EQ(got[i].labels, want[i].labels);
      EXPECT_EQ(got[i].nearest, want[i].nearest);
      EXPECT_EQ(got[i].sizes, want[i].sizes);
      EXPECT_EQ(got[i].means, want[i].means);
    }
  }

  std::vector<std::shared_ptr<const testing::OpHead>> m_heads;
};

TEST_F(CudaFaultsClusterAll, SameBitsAsOneByOneOnEveryBackendAndInEveryBatch) {
  const auto cpu = createCpuBackend(m_executor);
  const auto cpuHeads = prepareAll(*cpu);
  expectSame(cpu->clusterAll(tasksOf(cpuHeads), {}), oneByOne(*cpu, tasksOf(cpuHeads)));
  std::vector<ClusterResult> want;
  for (const auto& [work, bytes] : {std::pair{1e12, Index{1} << 28}, std::pair{1.0, Index{1} << 28},
                                    std::pair{5e6, Index{1} << 28}, std::pair{1e12, Index{300} << 10}}) {
    const auto backend = createEmulatedCudaBackend(work, bytes);
    const auto heads = prepareAll(*backend);
    const std::vector<ClusterTask> tasks = tasksOf(heads);
    if (want.empty()) want = oneByOne(*backend, tasks);
    const int before = emulated::machine().launches;
    expectSame(backend->clusterAll(tasks, {}), want);
    const int launches = emulated::machine().launches - before;
    if (work == 1e12 && bytes == Index{1} << 28) {
      // 13 groups of neighbours that go together, at most 13 launches each; one by one it would be 20 times 9 and more.
      EXPECT_LE(launches, 13 * 13);
      EXPECT_GT(launches, 9 * 4);
    }
  }
}

TEST_F(CudaFaultsClusterAll, AWholeLayerSharesItsLaunches) {
  const auto backend = createEmulatedCudaBackend(m_executor);
  const auto head = backend->prepare(m_head->in, m_head, {});
  const std::vector<ClusterTask> tasks(24, {head.get(), {Side::Key, 0, 400, m_centroids}});
  int before = emulated::machine().launches;
  const ClusterResult want = backend->cluster(*head, tasks[0].request, {});
  const int single = emulated::machine().launches - before;
  before = emulated::machine().launches;
  expectSame(backend->clusterAll(tasks, {}), std::vector<ClusterResult>(24, want));
  EXPECT_EQ(emulated::machine().launches - before, single);
  EXPECT_THAT(backend->clusterAll({}, {}), IsEmpty());
}

TEST_F(CudaFaultsClusterAll, StopsBetweenItsBatches) {
  const auto backend = createEmulatedCudaBackend(2e6, Index{1} << 28);
  const auto heads = prepareAll(*backend);
  std::stop_source source;
  Control control;
  control.stop = source.get_token();
  double reached = 0;
  control.progress = [&](double fraction) {
    EXPECT_GE(fraction, reached);
    reached = fraction;
    if (fraction > 0.3) source.request_stop();
  };
  EXPECT_THROW(static_cast<void>(backend->clusterAll(tasksOf(heads), control)), Cancelled);
  EXPECT_LT(reached, 0.5);
}

TEST_F(CudaFaultsClusterAll, WhateverAllocationFailsTheResultIsTheSame) {
  std::vector<ClusterResult> want;
  for (int until = 0; until < 60; ++until) {
    SCOPED_TRACE(until);
    resetEmulatedCuda();
    const auto backend = wrap(createEmulatedCudaBackend(m_executor));
    const auto heads = prepareAll(*backend);
    const std::vector<ClusterTask> tasks = tasksOf(heads);
    if (want.empty()) want = backend->clusterAll(tasks, {});
    const auto fresh = wrap(createEmulatedCudaBackend(m_executor));
    emulated::machine().allocationsUntilFailure = until;
    expectSame(fresh->clusterAll(tasks, {}), want);
    EXPECT_EQ(fresh->info().id, "cuda");
    if (emulated::machine().failedAllocations == 0) break;
  }
}

TEST_F(CudaFaultsClusterAll, ADeviceThatIsLostLeavesTheTasksToTheCpu) {
  const auto backend = wrap(createEmulatedCudaBackend(m_executor));
  const auto heads = prepareAll(*backend);
  const std::vector<ClusterTask> tasks = tasksOf(heads);
  emulated::machine().launchesUntilFailure = 20;
  const std::vector<ClusterResult> got = backend->clusterAll(tasks, {});
  EXPECT_THAT(backend->takeFallbacks(), ElementsAre(HasSubstr("cluster: cuda -> cpu (device error: "),
                                                    HasSubstr("cluster: cuda -> cpu (cuda retired: ")));
  const auto cpu = createCpuBackend(m_executor);
  const auto cpuHeads = prepareAll(*cpu);
  expectSame(got, oneByOne(*cpu, tasksOf(cpuHeads)));
}

class CudaFaultsPermute : public CudaFaults {
 protected:
  [[nodiscard]] AttendResult attendMoved(Backend& backend, const PreparedHead& head) {
    return backend.attend(*backend.permuteKeys(head, {m_order}, {}), m_rows, {}, {});
  }
};

TEST_F(CudaFaultsPermute, NothingOfKeysOrValuesIsCopiedFromTheHost) {
  const auto backend = createEmulatedCudaBackend(m_executor);
  const auto head = backend->prepare(m_head->in, m_head, {});
  static_cast<void>(backend->attend(*head, m_rows, {}, {}));  // V is there, too
  emulated::machine().copiedBytes = 0;
  const auto moved = backend->permuteKeys(*head, {m_order}, {});
  EXPECT_FALSE(moved->holdsTensors());
  EXPECT_EQ(emulated::machine().copiedBytes, 400U * (4 + 1)) << "the order and the flags";
  EXPECT_EQ(moved->bytes(), 400 * (32 + 16) * 2 + 400) << "keys, values and flags; the queries stay where they are";
}

TEST_F(CudaFaultsPermute, ScratchGivesWayAndThenTheCpuGathers) {
  resetEmulatedCuda();
  const std::vector<float> want = [&] {
    const auto roomy = createEmulatedCudaBackend(m_executor);
    return attendMoved(*roomy, *roomy->prepare(m_head->in, m_head, {})).out;
  }();
  // Room for the head, its copy and little else: the scratch of an earlier operation is in the way.
  emulated::machine().freeBytes = 690'000;
  {
    const auto backend = createEmulatedCudaBackend(m_executor);
    const auto head = backend->prepare(m_head->in, m_head, {});
    static_cast<void>(run(*backend, *head, Op::RowStats));
    ASSERT_LT(backend->info().freeBytes, 400 * 32 * 2);
    EXPECT_EQ(attendMoved(*backend, *head).out, want);
  }
  emulated::machine().freeBytes = 80'000;
  const auto backend = wrap(createEmulatedCudaBackend(m_executor));
  const auto head = backend->prepare(m_head->in, m_head, {});
  const auto moved = backend->permuteKeys(*head, {m_order}, {});
  EXPECT_THAT(backend->takeFallbacks(), ElementsAre(HasSubstr("permute_keys: cuda -> cpu (out of device memory: ")));
  EXPECT_EQ(backend->info().id, "cuda");
  const std::vector<float> got = backend->attend(*moved, m_rows, {}, {}).out;
  EXPECT_THAT(backend->takeFallbacks(), ElementsAre(HasSubstr("attend: cuda -> cpu (out of device memory: ")));
  expectNear({got.begin(), got.end()}, {want.begin(), want.end()});
}

TEST_F(CudaFaultsPermute, TheSourceMayGoAndSoMayTheBackend) {
  auto backend = createEmulatedCudaBackend(m_executor);
  auto head = backend->prepareAhead(m_head->in, m_head);
  const std::vector<float> want = attendMoved(*backend, *head).out;
  auto moved = backend->permuteKeys(*head, {m_order}, {});
  head.reset();
  EXPECT_EQ(backend->attend(*moved, m_rows, {}, {}).out, want) << "queries and values are the source's";
  backend.reset();
  moved.reset();
  EXPECT_TRUE(emulated::machine().allocations.empty());
}

TEST_F(CudaFaultsPermute, ADeviceThatIsLostLaterLeavesTheMovedHeadToTheCpu) {
  const auto cpu = createCpuBackend(m_executor);
  const AttendResult want = attendMoved(*cpu, *cpu->prepare(m_head->in, m_head, {}));
  const auto backend = wrap(createEmulatedCudaBackend(m_executor));
  const auto head = backend->prepare(m_head->in, m_head, {});
  const auto moved = backend->permuteKeys(*head, {m_order}, {});
  EXPECT_THAT(backend->takeFallbacks(), IsEmpty());
  emulated::machine().launchesUntilFailure = 0;
  EXPECT_EQ(backend->attend(*moved, m_rows, {}, {}).out, want.out);
  EXPECT_EQ(attendMoved(*backend, *head).out, want.out);
  EXPECT_THAT(backend->takeFallbacks(), ElementsAre(HasSubstr("attend: cuda -> cpu (device error: "),
                                                    HasSubstr("permute_keys: cuda -> cpu (cuda retired"),
                                                    HasSubstr("attend: cuda -> cpu (cuda retired")));
  EXPECT_TRUE(emulated::machine().allocations.empty()) << "the source's memory, too";
}

// The next head travels while the present one is worked on.
class CudaFaultsUpload : public CudaFaultsClusterAll {
 protected:
  // What an operation gives on a head that is there already.
  std::vector<double> wanted(std::size_t n, Op op) {
    const auto backend = createEmulatedCudaBackend(m_executor);
    return run(*backend, *backend->prepare(m_heads[n]->in, m_heads[n], {}), op);
  }
};

TEST_F(CudaFaultsUpload, EveryOperationWaitsForItsHead) {
  for (const Op op : kAllOps) {
    SCOPED_TRACE(opName(op));
    const std::vector<double> want = wanted(0, op);
    for (const bool later : {false, true}) {
      resetEmulatedCuda();
      emulated::machine().copiesLater = later;
      const auto backend = createEmulatedCudaBackend(m_executor);
      const auto head = backend->prepareAhead(m_heads[0]->in, m_heads[0]);
      expectSameBits(run(*backend, *head, op), want);
      expectSameBits(run(*backend, *head, op), want);
    }
  }
}

TEST_F(CudaFaultsUpload, GoesOverAnotherStreamAndTheLaunchComesAfterTheWait) {
  const std::vector<double> wantFirst = wanted(1, Op::RowStats);
  const std::vector<double> wantSecond = wanted(2, Op::RowStats);
  emulated::machine().copiesLater = true;
  const auto backend = createEmulatedCudaBackend(m_executor);
  const auto first = backend->prepare(m_heads[1]->in, m_heads[1], {});
  emulated::machine().log.clear();
  const auto second = backend->prepareAhead(m_heads[2]->in, m_heads[2]);
  expectSameBits(run(*backend, *first, Op::RowStats), wantFirst);
  {
    const emulated::Lock lock(emulated::machineLock());
    for (const std::string& line : emulated::machine().log) {
      EXPECT_THAT(line, Not(::testing::StartsWith("wait"))) << "the present head has nothing to wait for";
    }
  }
  expectSameBits(run(*backend, *second, Op::RowStats), wantSecond);
  const std::vector<std::string>& log = emulated::machine().log;
  const auto begins = [](const char* word) {
    return [word](const std::string& line) { return line.rfind(word, 0) == 0; };
  };
  const auto wait = std::find_if(log.begin(), log.end(), begins("wait"));
  ASSERT_NE(wait, log.end());
  const auto launch = std::find_if(wait, log.end(), begins("launch"));
  ASSERT_NE(launch, log.end());
  EXPECT_EQ(wait->substr(4), launch->substr(6)) << "the stream of the launch is the one that waits";
  // What travelled beside the first head's launches went over another stream.
  const std::string other = "copy" + wait->substr(4);
  EXPECT_TRUE(std::any_of(log.begin(), wait,
                          [&](const std::string& line) { return line.rfind("copy", 0) == 0 && line != other; }));
}

// Far more rows than two page-locked buffers hold, and copies that are made only when somebody waits for them: a buffer
// that is filled again before its copy was made would send the wrong rows.
TEST_F(CudaFaultsUpload, APageLockedBufferIsFilledAgainOnlyAfterItsCopy) {
  const Index rows = 40'000;
  std::vector<float> tokens(static_cast<std::size_t>(rows) * 256);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<float>(i / 256 % 4099) + 0.5F;
  AttentionIn in;
  in.q = in.k = {reinterpret_cast<const std::byte*>(tokens.data()), rows, 256, 1024, DType::F32};
  emulated::machine().copiesLater = true;
  const auto backend = createEmulatedCudaBackend(m_executor);
  const std::vector<float> zero(256, 0.0F);
  for (const bool ahead : {false, true}) {
    const auto head = ahead ? backend->prepareAhead(in, nullptr) : backend->prepare(in, nullptr, {});
    // One cluster: the distance to the origin tells each row.
    const ClusterResult r = backend->cluster(*head, {Side::Key, 0, rows, zero}, {});
    for (Index i = 0; i < rows; ++i) {
      const double value = static_cast<double>(i % 4099) + 0.5;
      ASSERT_NEAR(static_cast<double>(r.nearest[static_cast<std::size_t>(i)]), 256 * value * value,
                  1e-4 * 256 * value * value)
          << "row " << i;
    }
  }
}

TEST_F(CudaFaultsUpload, AHeadMayGoWhileItTravels) {
  emulated::machine().copiesLater = true;
  auto backend = createEmulatedCudaBackend(m_executor);
  for (int i = 0; i < 20; ++i) {
    auto ahead = backend->prepareAhead(m_heads[1]->in, m_heads[1]);
    auto other = backend->prepareAhead(m_heads[2]->in, m_heads[2]);
    if (i % 3 == 0) expectSameBits(run(*backend, *other, Op::AttendTop), wanted(2, Op::AttendTop));
    if (i % 2 == 0) ahead.reset();
  }
  const auto kept = backend->prepareAhead(m_heads[1]->in, m_heads[1]);
  backend.reset();  // a head may outlive its backend
  EXPECT_GT(kept->bytes(), 0);
}

TEST_F(CudaFaultsUpload, AHeadWithoutRoomHasItsTurnLater) {
  emulated::machine().allocationsUntilFailure = 1;
  const auto backend = createEmulatedCudaBackend(m_executor);
  const auto head = backend->prepareAhead(m_heads[1]->in, m_heads[1]);
  EXPECT_EQ(emulated::machine().failedAllocations, 1);
  EXPECT_EQ(head->bytes(), 0);
  expectSameBits(run(*backend, *head, Op::Attend), wanted(1, Op::Attend));
}

TEST_F(CudaFaultsUpload, AFaultOnTheWayEndsOnTheCpu) {
  for (const Op op : kAllOps) {
    SCOPED_TRACE(opName(op));
    resetEmulatedCuda();
    const auto backend = wrap(createEmulatedCudaBackend(m_executor));
    {
      const emulated::Lock lock(emulated::machineLock());
      emulated::machine().lost = true;
    }
    const auto head = backend->prepareAhead(m_head->in, m_head);
    expectSameBits(run(*backend, *head, op), onCpu(op));
    EXPECT_EQ(backend->info().id, "cpu");
    resetEmulatedCuda();
  }
}

TEST_F(CudaFaultsUpload, AStopEndsTheWait) {
  const auto backend = createEmulatedCudaBackend(m_executor);
  const auto head = backend->prepareAhead(m_heads[1]->in, m_heads[1]);
  std::stop_source source;
  source.request_stop();
  EXPECT_THROW(static_cast<void>(backend->rowStats(*head, m_rows, 0.9, Control{source.get_token(), {}})), Cancelled);
  expectSameBits(run(*backend, *head, Op::RowStats), wanted(1, Op::RowStats));
}

TEST_F(CudaFaultsUpload, HeadsAtOnceAreAThirdOfTheBudget) {
  emulated::machine().freeBytes = std::size_t{1000} << 20U;
  const auto backend = createEmulatedCudaBackend(m_executor);
  EXPECT_EQ(backend->headsAtOnce(Index{50} << 20), 5);
  EXPECT_EQ(backend->headsAtOnce(1), 32);
  EXPECT_EQ(backend->headsAtOnce(Index{2000} << 20), 1);
  EXPECT_EQ(createCpuBackend(m_executor)->headsAtOnce(1), 1) << "nothing to gain";
}

TEST_F(CudaFaults, AHeadThatDoesNotFitRunsOnTheCpu) {
  emulated::machine().freeBytes = 40'000;
  const auto backend = wrap(createEmulatedCudaBackend(m_executor));
  const auto head = backend->prepare(m_head->in, m_head, {});
  expectSameBits(run(*backend, *head, Op::Attend), onCpu(Op::Attend));
  EXPECT_THAT(backend->takeFallbacks(), ElementsAre(HasSubstr("attend: cuda -> cpu (out of device memory: ")));
}

// Whatever allocation fails, the result is right and nothing leaks.
TEST_F(CudaFaults, NoAllocationIsLostWhenOneFails) {
  for (const Op op : kAllOps) {
    SCOPED_TRACE(opName(op));
    std::vector<double> want;
    for (int until = 0; until < 40; ++until) {
      resetEmulatedCuda();
      {
        const auto backend = wrap(createEmulatedCudaBackend(m_executor));
        const auto head = backend->prepare(m_head->in, m_head, {});
        emulated::machine().allocationsUntilFailure = until;
        const std::vector<double> got = run(*backend, *head, op);
        if (want.empty()) want = onCpu(op);
        expectNear(got, want);
        EXPECT_EQ(backend->info().id, "cuda");
        if (emulated::machine().failedAllocations == 0) until = 1000;
      }
      ASSERT_TRUE(emulated::machine().allocations.empty());
      ASSERT_EQ(emulated::machine().allocatedBytes, 0U);
    }
  }
}

TEST_F(CudaFaults, EarlierScratchGivesWay) {
  emulated::machine().freeBytes = 2 << 20;
  const auto backend = createEmulatedCudaBackend(m_executor);
  std::vector<std::shared_ptr<const PreparedHead>> heads{backend->prepare(m_head->in, m_head, {})};
  static_cast<void>(run(*backend, *heads.front(), Op::RowStats));
  const Index each = heads.front()->bytes();
  const Index budget = Index{2} * (1 << 20) / 5 * 4;
  ASSERT_LT(backend->info().freeBytes, budget - each - (400 << 10)) << "scratch is kept between operations";
  for (Index bytes = each; bytes + each <= budget; bytes += each) {
    heads.push_back(backend->prepare(m_head->in, m_head, {}));
  }
  EXPECT_THROW(heads.push_back(backend->prepare(m_head->in, m_head, {})), Error) << "now the budget is full of heads";
}

TEST_F(CudaFaults, BudgetIsEightyPercentUnlessSet) {
  emulated::machine().freeBytes = 1000 << 20;
  EXPECT_EQ(createEmulatedCudaBackend(m_executor)->info().freeBytes, Index{800} << 20);
  ASSERT_EQ(setenv("SPARSIGHT_CUDA_MEMORY", "25%", 1), 0);
  EXPECT_EQ(createEmulatedCudaBackend(m_executor)->info().freeBytes, Index{250} << 20);
  ASSERT_EQ(setenv("SPARSIGHT_CUDA_MEMORY", "300", 1), 0);
  EXPECT_EQ(createEmulatedCudaBackend(m_executor)->info().freeBytes, Index{300} << 20);
  ASSERT_EQ(setenv("SPARSIGHT_CUDA_MEMORY", "99999999", 1), 0);
  EXPECT_EQ(createEmulatedCudaBackend(m_executor)->info().freeBytes, Index{1000} << 20) << "not more than there is";
  unsetenv("SPARSIGHT_CUDA_MEMORY");
}

TEST_F(CudaFaults, SettingsThatMeanNothing) {
  const auto refused = [&](const char* name, const char* value) {
    EXPECT_EQ(setenv(name, value, 1), 0);
    std::string message;
    try {
      static_cast<void>(createEmulatedCudaBackend(m_executor));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::InvalidArgument);
      message = e.what();
    }
    unsetenv(name);
    return message;
  };
  for (const char* value : {"0", "-5", "101%", "lots", "50%%", "1e3", "%"}) {
    EXPECT_THAT(refused("SPARSIGHT_CUDA_MEMORY", value), HasSubstr(value));
  }
  EXPECT_THAT(refused("SPARSIGHT_CUDA_PATH", "wgmma"), HasSubstr("use auto, portable, mma or hopper"));
}

TEST_F(CudaFaults, PathIsTheBestOfTheDeviceUnlessForced) {
  const auto path = [&](int major, int minor) {
    emulated::machine().major = major;
    emulated::machine().minor = minor;
    return createEmulatedCudaBackend(m_executor)->info().detail;
  };
  EXPECT_THAT(path(7, 5), HasSubstr("portable kernels"));
  EXPECT_THAT(path(8, 0), HasSubstr("tensor cores"));
  EXPECT_THAT(path(12, 0), HasSubstr("tensor cores"));
  ASSERT_EQ(setenv("SPARSIGHT_CUDA_PATH", "portable", 1), 0);
  EXPECT_THAT(path(9, 0), HasSubstr("portable kernels"));
  ASSERT_EQ(setenv("SPARSIGHT_CUDA_PATH", "mma", 1), 0);
  EXPECT_THAT(path(8, 6), HasSubstr("tensor cores"));
  try {
    static_cast<void>(path(7, 5));
    ADD_FAILURE() << "Turing has no such instruction";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::InvalidArgument) << "auto would go to the CPU without a word";
    EXPECT_THAT(e.what(), HasSubstr("needs compute capability 8.0, the device has 7.5"));
  }
  unsetenv("SPARSIGHT_CUDA_PATH");
}

TEST_F(CudaFaults, StopsBetweenBatches) {
  for (const Op op : kAllOps) {
    SCOPED_TRACE(opName(op));
    const auto backend = createEmulatedCudaBackend(1.0, Index{1} << 28);  // 64 rows or points a batch
    const auto head = backend->prepare(m_head->in, m_head, {});
    int before = emulated::machine().launches;
    static_cast<void>(run(*backend, *head, op));
    const int whole = emulated::machine().launches - before;

    std::stop_source source;
    Control control;
    control.stop = source.get_token();
    int reports = 0;
    control.progress = [&](double) {
      if (++reports == 2) source.request_stop();
    };
    before = emulated::machine().launches;
    EXPECT_THROW(static_cast<void>(run(*backend, *head, op, control)), Cancelled);
    EXPECT_LT(emulated::machine().launches - before, whole);
    EXPECT_EQ(reports, 2) << "nothing more is done";
    EXPECT_FALSE(run(*backend, *head, op).empty()) << "the backend goes on working";
  }
}

}  // namespace
}  // namespace sparsight

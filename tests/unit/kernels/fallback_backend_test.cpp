// SPDX-License-Identifier: Apache-2.0
#include "fallback_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "cpu/cpu_backend.h"
#include "tests/support/emulated_cuda.h"
#include "tests/support/fake_backend.h"

namespace sparsight {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FallbackBackendTest : public ::testing::Test {
 protected:
  FallbackBackendTest() {
    for (std::size_t i = 0; i < m_values.size(); ++i) m_values[i] = static_cast<float>(i % 17) / 17.0F - 0.4F;
    m_in.q = viewOf(std::span(m_values).first(20 * 8), 20, 8);
    m_in.k = viewOf(std::span(m_values).subspan(20 * 8, 30 * 8), 30, 8);
    m_in.v = viewOf(std::span(m_values).subspan(50 * 8, 30 * 8), 30, 8);
    m_script.id = "cuda";
    m_cpuScript.id = "cpu";
    m_backend = std::make_unique<FallbackBackend>(std::make_unique<FakeBackend>(m_script),
                                                  std::make_unique<FakeBackend>(m_cpuScript));
    m_head = m_backend->prepare(m_in, nullptr, {});
  }
  LseMapResult lse() { return m_backend->lseMap(*m_head, {}, {}); }
  // What the operation must give wherever it runs.
  std::vector<float> wanted() {
    const auto oracle = createReferenceBackend();
    return oracle->lseMap(*oracle->prepare(m_in, nullptr, {}), {}, {}).lse;
  }

  std::vector<float> m_values = std::vector<float>(80 * 8);
  AttentionIn m_in;
  FakeBackend::Script m_script;
  FakeBackend::Script m_cpuScript;
  std::unique_ptr<FallbackBackend> m_backend;
  std::shared_ptr<const PreparedHead> m_head;
};

TEST_F(FallbackBackendTest, RunsOnThePrimaryAndPreparesOnlyThere) {
  EXPECT_EQ(m_script.prepared, 0) << "a head is prepared when it is first used";
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_EQ(m_script.prepared, 1);
  EXPECT_EQ(m_cpuScript.prepared, 0);
  EXPECT_EQ(m_head->bytes(), 1000);
  EXPECT_THAT(m_backend->takeFallbacks(), IsEmpty());
  EXPECT_EQ(m_backend->info().id, "cuda");
}

TEST_F(FallbackBackendTest, UnsupportedOperationRunsOnTheCpuAndIsNamed) {
  m_script.unsupported = {Op::RowStats, Op::AttendTop,     Op::GlobalTop,
                          Op::Cluster,  Op::ScoreClusters, Op::SelectLargest};
  std::vector<Index> rows(20);
  std::iota(rows.begin(), rows.end(), 0);
  const std::vector<Index> counts(20, 3);
  EXPECT_EQ(m_backend->rowStats(*m_head, rows, 0.9, {}).lse, wanted());
  EXPECT_EQ(m_backend->rowStats(*m_head, rows, 0.9, {}).lse, wanted());
  EXPECT_EQ(m_backend->attendTop(*m_head, rows, counts, {}).count, counts);
  EXPECT_EQ(m_backend->globalTop(*m_head, rows, 60, {}).count.size(), 20U);
  const std::span<const float> centroids = std::span(m_values).first(3 * 8);
  EXPECT_EQ(m_backend->cluster(*m_head, {Side::Key, 0, 30, centroids}, {}).labels.size(), 30U);
  EXPECT_EQ(m_backend->scoreClusters({8, centroids, centroids}, {}).crossing.size(), 3U);
  const std::vector<double> values{1, 3, 2};
  const std::vector<Index> one{1};
  EXPECT_THAT(m_backend->selectLargest({3, values, one}, {}), ElementsAre(0, 1, 0));
  EXPECT_EQ(m_script.calls, 0);
  EXPECT_EQ(m_script.prepared, 0) << "nothing is uploaded for operations that do not run there";
  EXPECT_EQ(m_cpuScript.prepared, 1);
  EXPECT_THAT(m_backend->takeFallbacks(),
              ElementsAre("row_stats: cuda -> cpu (unsupported)", "attend_top: cuda -> cpu (unsupported)",
                          "global_top: cuda -> cpu (unsupported)", "cluster: cuda -> cpu (unsupported)",
                          "score_clusters: cuda -> cpu (unsupported)", "select_largest: cuda -> cpu (unsupported)"));
  EXPECT_THAT(m_backend->takeFallbacks(), IsEmpty()) << "taken once";
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_EQ(m_script.calls, 1) << "the rest still runs on the device";
}

TEST_F(FallbackBackendTest, DeviceErrorRetiresThePrimaryAndRerunsTheCall) {
  EXPECT_EQ(lse().lse, wanted());
  m_script.failNext = ErrorCode::Device;
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_FALSE(m_script.alive);
  EXPECT_EQ(m_script.liveHeads, 0) << "its memory is given back";
  EXPECT_THAT(m_backend->takeFallbacks(), ElementsAre("lse_map: cuda -> cpu (device error: fake failure)"));
  EXPECT_EQ(m_backend->info().id, "cpu");
  EXPECT_THAT(m_backend->info().detail, HasSubstr("cuda retired: fake failure"));
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_EQ(m_script.calls, 2) << "never asked again";
  EXPECT_THAT(m_backend->takeFallbacks(), ElementsAre("lse_map: cuda -> cpu (cuda retired: fake failure)"));
  EXPECT_TRUE(m_backend->supports(Op::LseMap, DType::F32, 8));
}

TEST_F(FallbackBackendTest, DeviceErrorWhilePreparingCountsToo) {
  m_script.failPrepare = ErrorCode::Device;
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_FALSE(m_script.alive);
  EXPECT_THAT(m_backend->takeFallbacks(), ElementsAre("lse_map: cuda -> cpu (device error: fake prepare failure)"))
      << "named by the operation that needed the head";
}

TEST_F(FallbackBackendTest, OutOfMemoryMovesOnlyThatCall) {
  m_script.failNext = ErrorCode::OutOfMemory;
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_THAT(m_backend->takeFallbacks(), ElementsAre("lse_map: cuda -> cpu (out of device memory: fake failure)"));
  m_script.failPrepare = ErrorCode::OutOfMemory;
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_EQ(m_cpuScript.calls, 2);
  EXPECT_TRUE(m_script.alive);
  static_cast<void>(m_backend->takeFallbacks());
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_EQ(m_cpuScript.calls, 2) << "the next call runs on the device again";
  EXPECT_THAT(m_backend->takeFallbacks(), IsEmpty());
}

TEST_F(FallbackBackendTest, ShapeThatTheDeviceRefusesRunsOnTheCpu) {
  m_script.failNext = ErrorCode::Unsupported;
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_TRUE(m_script.alive);
  EXPECT_THAT(m_backend->takeFallbacks(), ElementsAre("lse_map: cuda -> cpu (unsupported: fake failure)"));
}

TEST_F(FallbackBackendTest, OtherErrorsAndCancelPassThrough) {
  for (const ErrorCode code : {ErrorCode::InvalidArgument, ErrorCode::Internal, ErrorCode::Io, ErrorCode::Format}) {
    m_script.failNext = code;
    try {
      static_cast<void>(lse());
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code);
    }
  }
  m_script.cancelNext = true;
  EXPECT_THROW(static_cast<void>(lse()), Cancelled);
  EXPECT_EQ(m_cpuScript.calls, 0);
  EXPECT_TRUE(m_script.alive);
  EXPECT_THAT(m_backend->takeFallbacks(), IsEmpty());
}

TEST_F(FallbackBackendTest, StopReachesASlowDevice) {
  m_script.delay = std::chrono::minutes(10);
  std::stop_source source;
  Control control;
  control.stop = source.get_token();
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    source.request_stop();
  });
  EXPECT_THROW(static_cast<void>(m_backend->lseMap(*m_head, {}, control)), Cancelled);
  stopper.join();
}

TEST_F(FallbackBackendTest, OneHeadServesSeveralWrappers) {
  FakeBackend::Script other;
  other.id = "cuda";
  FallbackBackend second(std::make_unique<FakeBackend>(other), std::make_unique<FakeBackend>(m_cpuScript));
  EXPECT_EQ(lse().lse, wanted());
  EXPECT_EQ(second.lseMap(*m_head, {}, {}).lse, wanted());
  EXPECT_EQ(m_script.prepared, 1);
  EXPECT_EQ(other.prepared, 1) << "a device head belongs to its backend";
  // Both sides at once: the head's own state is the only thing shared.
  std::thread thread([&] {
    for (int i = 0; i < 20; ++i) static_cast<void>(second.lseMap(*m_head, {}, {}));
  });
  for (int i = 0; i < 20; ++i) static_cast<void>(lse());
  thread.join();
  m_head.reset();
  EXPECT_EQ(m_script.liveHeads, 0);
  EXPECT_EQ(other.liveHeads, 0);
}

TEST_F(FallbackBackendTest, AnOperationWithoutAHeadFallsBackAlike) {
  const std::span<const float> centroids = std::span(m_values).first(5 * 8);
  const ClusterScoresRequest request{8, centroids, centroids};
  const std::vector<double> want = createReferenceBackend()->scoreClusters(request, {}).probabilities;
  m_script.failNext = ErrorCode::OutOfMemory;
  EXPECT_EQ(m_backend->scoreClusters(request, {}).probabilities, want);
  EXPECT_THAT(m_backend->takeFallbacks(),
              ElementsAre("score_clusters: cuda -> cpu (out of device memory: fake failure)"));
  m_script.cancelNext = true;
  EXPECT_THROW(static_cast<void>(m_backend->scoreClusters(request, {})), Cancelled);
  m_script.failNext = ErrorCode::Device;
  EXPECT_EQ(m_backend->scoreClusters(request, {}).probabilities, want);
  EXPECT_FALSE(m_script.alive);
  EXPECT_EQ(m_backend->scoreClusters(request, {}).probabilities, want);
  EXPECT_THAT(m_backend->takeFallbacks(), ElementsAre("score_clusters: cuda -> cpu (device error: fake failure)",
                                                      "score_clusters: cuda -> cpu (cuda retired: fake failure)"));
}

TEST_F(FallbackBackendTest, KeysAreMovedOnThePrimaryAndGatheredOnceForTheCpu) {
  std::vector<Index> order(30);
  std::iota(order.rbegin(), order.rend(), 0);
  const auto moved = m_backend->permuteKeys(*m_head, {order}, {});
  EXPECT_EQ(m_script.calls, 1) << "at once";
  EXPECT_FALSE(moved->holdsTensors()) << "whatever the primary did: nothing on the host is in this order";
  m_head.reset();
  m_script.unsupported = {Op::LseMap};
  EXPECT_EQ(m_cpuScript.prepared, 0);
  std::vector<std::thread> threads;
  FakeBackend::Script other;
  FallbackBackend second(std::make_unique<FakeBackend>(other), std::make_unique<FakeBackend>(m_cpuScript));
  other.unsupported = {Op::LseMap, Op::PermuteKeys};
  const auto oracle = createReferenceBackend();
  const auto source = oracle->prepare(m_in, nullptr, {});
  const auto wanted = oracle->permuteKeys(*source, {order}, {});
  const std::vector<Index> bounds{0, 7, 20};
  const std::vector<Index> cols{0, 3, 30};
  const LseMapRequest request{bounds, cols};
  const std::vector<float> want = oracle->lseMap(*wanted, request, {}).mean;
  std::vector<float> got;
  std::thread thread([&] { got = second.lseMap(*moved, request, {}).mean; });
  EXPECT_EQ(m_backend->lseMap(*moved, request, {}).mean, want);
  thread.join();
  EXPECT_EQ(got, want);
  EXPECT_EQ(m_cpuScript.prepared, 1) << "by whichever came first";
  // A primary that cannot move keys gets them gathered.
  const std::vector<Index> rows{1, 4};
  static_cast<void>(second.rowStats(*moved, rows, 0.9, {}));
  EXPECT_EQ(other.calls, 1);
  static_cast<void>(second.takeFallbacks());
  static_cast<void>(second.permuteKeys(*moved, {order}, {}));
  EXPECT_THAT(second.takeFallbacks(), ElementsAre(HasSubstr("permute_keys: ")));
}

TEST_F(FallbackBackendTest, RefusesForeignHeadsAndBadShapes) {
  const auto oracle = createReferenceBackend();
  const auto foreign = oracle->prepare(m_in, nullptr, {});
  EXPECT_THROW(static_cast<void>(m_backend->lseMap(*foreign, {}, {})), Error);
  m_in.k.cols = 7;
  EXPECT_THROW(static_cast<void>(m_backend->prepare(m_in, nullptr, {})), Error);
}

TEST(FallbackBackendWithCuda, LostDeviceEndsOnTheCpuWithTheSameResult) {
  resetEmulatedCuda();
  Executor executor(2);
  std::vector<float> values(300 * 16);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 23) / 23.0F;
  AttentionIn in;
  in.q = viewOf(std::span(values).first(100 * 16), 100, 16);
  in.k = viewOf(std::span(values).subspan(100 * 16), 200, 16);
  FallbackBackend backend(createEmulatedCudaBackend(executor), createCpuBackend(executor));
  const auto head = backend.prepare(in, nullptr, {});
  const std::vector<float> onDevice = backend.lseMap(*head, {}, {}).lse;
  EXPECT_THAT(backend.takeFallbacks(), IsEmpty());
  emulated::machine().launchesUntilFailure = 1;
  const std::vector<float> afterwards = backend.lseMap(*head, {}, {}).lse;
  ASSERT_EQ(afterwards.size(), onDevice.size());
  for (std::size_t i = 0; i < onDevice.size(); ++i) EXPECT_NEAR(afterwards[i], onDevice[i], 1e-5F);
  const std::vector<std::string> fallbacks = backend.takeFallbacks();
  ASSERT_EQ(fallbacks.size(), 1U);
  EXPECT_THAT(fallbacks.front(), HasSubstr("device error"));
  EXPECT_EQ(backend.info().id, "cpu");
  resetEmulatedCuda();
}

}  // namespace
}  // namespace sparsight

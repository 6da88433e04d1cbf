// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/head_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "sparsight/core/profiling.h"
#include "tests/support/emulated_cuda.h"
#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// A backend of the machine that wants several heads at once, and tells what it was asked for.
class Together final : public Backend {
 public:
  Together(Backend& inner, Index most) : m_inner(inner), m_most(most) {}
  Index alone = 0;                ///< heads clustered by themselves
  std::vector<std::size_t> sets;  ///< sizes of what came together
  Index prepared = 0, ahead = 0;

  [[nodiscard]] BackendInfo info() const override { return m_inner.info(); }
  [[nodiscard]] bool supports(Op op, DType d, Index n) const noexcept override { return m_inner.supports(op, d, n); }
  [[nodiscard]] Index headsAtOnce(Index) const noexcept override { return m_most; }
  std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in, std::shared_ptr<const void> keep,
                                              const Control& c) override {
    ++prepared;
    return m_inner.prepare(in, std::move(keep), c);
  }
  std::shared_ptr<const PreparedHead> prepareAhead(const AttentionIn& in, std::shared_ptr<const void> keep) override {
    ++ahead;
    return m_inner.prepareAhead(in, std::move(keep));
  }
  LseMapResult lseMap(const PreparedHead& h, const LseMapRequest& r, const Control& c) override {
    return m_inner.lseMap(h, r, c);
  }
  std::vector<float> tile(const PreparedHead& h, std::span<const float> l, const TileRect& t, Reduce r,
                          const Control& c) override {
    return m_inner.tile(h, l, t, r, c);
  }
  AttendResult attend(const PreparedHead& h, std::span<const Index> r, const RowKeep& k, const Control& c) override {
    return m_inner.attend(h, r, k, c);
  }
  AttendResult attendTop(const PreparedHead& h, std::span<const Index> r, std::span<const Index> n,
                         const Control& c) override {
    return m_inner.attendTop(h, r, n, c);
  }
  RowStats rowStats(const PreparedHead& h, std::span<const Index> r, double m, const Control& c) override {
    return m_inner.rowStats(h, r, m, c);
  }
  GlobalTop globalTop(const PreparedHead& h, std::span<const Index> r, Index t, const Control& c) override {
    return m_inner.globalTop(h, r, t, c);
  }
  ClusterResult cluster(const PreparedHead& h, const ClusterRequest& r, const Control& c) override {
    ++alone;
    return m_inner.cluster(h, r, c);
  }
  std::vector<ClusterResult> clusterAll(std::span<const ClusterTask> tasks, const Control& c) override {
    sets.push_back(tasks.size());
    return m_inner.clusterAll(tasks, c);
  }

 private:
  Backend& m_inner;
  Index m_most;
};

class HeadFeedTest : public testing::Test {
 protected:
  static HeadSpec spec() {
    HeadSpec spec;
    spec.layout = layoutOf(3, 8, 10, 9);
    spec.family = "hunyuanvideo";
    spec.paddingText = 4;
    spec.spread = 2;
    return spec;
  }
  static std::vector<HeadId> order(const Trace& trace) { return selectHeads(trace.info(), {}); }
  Executor executor{2};
  std::unique_ptr<Backend> cpu = createBackend("cpu", executor);
};
using HeadFeedOrder = HeadFeedTest;
using HeadFeedRun = HeadFeedTest;

TEST_F(HeadFeedOrder, OneHeadAtATimeWhereNothingIsGained) {
  std::mutex mutex;
  std::vector<int> loaded;
  const MemoryTrace trace(memoryInfo(spec(), {2}, {0}, 5), [&](const HeadId& id) {
    const std::lock_guard lock(mutex);
    loaded.push_back(id.head);
    return makeHead(spec());
  });
  HeadFeed feed(trace, *cpu, order(trace), false, {});
  EXPECT_EQ(feed.at(0).data.id.head, 0);
  EXPECT_THAT(loaded, ElementsAre(0));
  EXPECT_EQ(feed.together(0, 5), 1U);
  static_cast<void>(feed.at(0));
  EXPECT_THAT(loaded, ElementsAre(0)) << "kept until it is released";
  feed.release(1);
  static_cast<void>(feed.at(0));
  EXPECT_THAT(loaded, ElementsAre(0, 0));
}

TEST_F(HeadFeedOrder, TheNextHeadIsOnItsWay) {
  std::mutex mutex;
  std::multiset<int> loaded;
  const MemoryTrace trace(memoryInfo(spec(), {2}, {0}, 5), [&](const HeadId& id) {
    const std::lock_guard lock(mutex);
    loaded.insert(id.head);
    return makeHead(spec());
  });
  Together backend(*cpu, 4);
  {
    HeadFeed feed(trace, backend, order(trace), false, {});
    static_cast<void>(feed.at(0));
    EXPECT_EQ(backend.prepared, 1);
    EXPECT_EQ(backend.ahead, 1);
    for (std::size_t n = 1; n < 5; ++n) {
      feed.release(n);
      EXPECT_EQ(feed.at(n).data.id.head, static_cast<int>(n));
      EXPECT_EQ(feed.at(n).prepared->input().q.rows, spec().layout.tokenCount);
    }
    EXPECT_EQ(feed.together(4, 5), 1U) << "there are no more";
  }
  EXPECT_EQ(backend.prepared, 1);
  EXPECT_EQ(backend.ahead, 4);
  EXPECT_THAT(loaded, ElementsAre(0, 1, 2, 3, 4)) << "each is read once";
}

TEST_F(HeadFeedOrder, AnErrorComesAtItsHead) {
  const MemoryTrace trace(memoryInfo(spec(), {2}, {0}, 4), [&](const HeadId& id) {
    if (id.head == 1) throw Error(ErrorCode::Io, "head 1 cannot be read");
    return makeHead(spec());
  });
  Together backend(*cpu, 4);
  HeadFeed feed(trace, backend, order(trace), false, {});
  EXPECT_EQ(feed.at(0).data.id.head, 0);
  EXPECT_THROW(static_cast<void>(feed.at(1)), Error);
  EXPECT_THROW(static_cast<void>(feed.at(1)), Error) << "every time";
  EXPECT_EQ(feed.together(1, 4), 1U);
  EXPECT_EQ(feed.at(2).data.id.head, 2);
}

// What a run reports, without its clocks.
void expectSameReport(const RunReport& got, const RunReport& want) {
  ASSERT_EQ(got.heads.size(), want.heads.size());
  EXPECT_EQ(got.warnings, want.warnings);
  for (std::size_t n = 0; n < want.heads.size(); ++n) {
    SCOPED_TRACE(testing::Message() << "head " << n);
    const HeadReport& a = got.heads[n];
    const HeadReport& b = want.heads[n];
    EXPECT_EQ(a.id, b.id);
    EXPECT_EQ(a.skippedReason, b.skippedReason);
    EXPECT_EQ(a.plan.qOrder, b.plan.qOrder);
    EXPECT_EQ(a.plan.kOrder, b.plan.kOrder);
    EXPECT_EQ(a.plan.facts, b.plan.facts);
    EXPECT_EQ(a.plan.plannerFlops, b.plan.plannerFlops);
    EXPECT_EQ(a.plan.reusedFromStep, b.plan.reusedFromStep);
    EXPECT_EQ(a.plan.warnings, b.plan.warnings);
    EXPECT_EQ(a.evaluation.keptFraction, b.evaluation.keptFraction);
    EXPECT_EQ(a.evaluation.keptMass, b.evaluation.keptMass);
    EXPECT_EQ(a.evaluation.outputRelError, b.evaluation.outputRelError);
  }
}

TEST_F(HeadFeedRun, HeadsThatGoTogetherGiveTheReportOfHeadsAlone) {
  const MemoryTrace trace(memoryInfo(spec(), {2, 3, 6}, {0, 2}, 5), [&](const HeadId& id) {
    if (id.call.layer == 2 && id.head == 3) throw Error(ErrorCode::Io, "this head cannot be read");
    HeadSpec own = spec();
    own.seed = static_cast<unsigned>(1000 * id.call.step + 100 * id.call.layer + id.head);
    return makeHead(own);
  });
  for (const char* params :
       {"svg2", "svg2 variant=sparsevideo", "svg2 zero_step_kmeans_init=true", "svg2 kmeans_iter_init=0", "svoo",
        "svoo reuse_interval=2 start_reuse_step=3", "svoo variant=sparsevideo", "adaspa", "svg"}) {
    SCOPED_TRACE(params);
    RunRequest request;
    std::vector<std::string> words;
    for (std::size_t from = 0; from <= std::string(params).size();) {
      const auto to = std::min(std::string(params).find(' ', from), std::string(params).size());
      words.push_back(std::string(params).substr(from, to - from));
      from = to + 1;
    }
    request.methodId = words.front();
    words.erase(words.begin());
    request.params = ParamSet::parse(methodById(request.methodId).params(), words);
    const bool clusters = request.methodId == "svg2" || request.methodId == "svoo";
    for (const bool warmup : {false, true}) {
      request.warmup = warmup;
      const RunReport want = runMethod(trace, request, *cpu, {});
      for (const Index most : {Index{2}, Index{3}, Index{100}}) {
        SCOPED_TRACE(testing::Message() << most << " at once, warm-up " << warmup);
        Together backend(*cpu, most);
        double reached = 0;
        Control control;
        control.progress = [&](double fraction) {
          if (clusters) {
            EXPECT_GE(fraction, reached - 1e-12);
          }
          reached = fraction;
        };
        expectSameReport(runMethod(trace, request, backend, control), want);
        if (clusters && !warmup) {
          EXPECT_THAT(backend.sets, testing::Contains(testing::Ge(most == 2 ? 2U : 3U)));
          if (most == 100) {
            EXPECT_EQ(backend.alone, 0);
          }
        }
        if (!clusters) {
          EXPECT_THAT(backend.sets, IsEmpty());
        }
      }
    }
  }
}

TEST_F(HeadFeedRun, AWholeLayerOnTheEmulatedDevice) {
  const MemoryTrace trace = memoryTrace(spec(), {2, 3}, {0}, 6);
  resetEmulatedCuda();
  for (const char* id : {"svg2", "svoo"}) {
    SCOPED_TRACE(id);
    RunRequest request;
    request.methodId = id;
    const auto backend = createEmulatedCudaBackend(executor);
    Together alone(*backend, 1);
    int before = emulated::machine().launches;
    const RunReport want = runMethod(trace, request, alone, {});
    const int single = emulated::machine().launches - before;
    before = emulated::machine().launches;
    emulated::machine().copiesLater = true;
    expectSameReport(runMethod(trace, request, *backend, {}), want);
    EXPECT_LT(emulated::machine().launches - before, single) << "heads share launches";
    emulated::machine().copiesLater = false;
  }
  resetEmulatedCuda();
}

TEST_F(HeadFeedRun, AStopIsSeenWhileHeadsAreTogether) {
  const MemoryTrace trace = memoryTrace(spec(), {2, 3}, {0}, 6);
  RunRequest request;
  request.methodId = "svg2";
  Together backend(*cpu, 6);
  std::stop_source source;
  Control control{source.get_token(), [&](double fraction) {
                    if (fraction > 0) source.request_stop();
                  }};
  EXPECT_THROW(static_cast<void>(runMethod(trace, request, backend, control)), Cancelled);
  EXPECT_LE(backend.sets.size(), 3U);
}

}  // namespace
}  // namespace sparsight

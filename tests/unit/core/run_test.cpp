// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fmt/format.h>

#include <filesystem>

#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;
using testing::HasSubstr;

std::string refusal(const std::function<void()>& body, ErrorCode code = ErrorCode::InvalidArgument) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return {};
}

HeadSpec textSpec() {
  HeadSpec spec;
  spec.layout = layoutOf(3, 8, 10, 9);
  spec.family = "hunyuanvideo";
  spec.paddingText = 4;
  spec.spread = 2;
  return spec;
}

class Run : public testing::Test {
 protected:
  RunRequest request(const std::string& method, const std::vector<std::string>& params = {}) {
    RunRequest r;
    r.methodId = method;
    r.params = ParamSet::parse(methodById(method).params(), params);
    return r;
  }
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

TEST_F(Run, SelectorsParse) {
  EXPECT_TRUE(Selector::parse("all").contains(12345));
  const Selector list = Selector::parse("0,4-6,9");
  for (const int value : {0, 4, 5, 6, 9}) EXPECT_TRUE(list.contains(value)) << value;
  for (const int value : {1, 3, 7, 8, 10}) EXPECT_FALSE(list.contains(value)) << value;
  for (const char* bad : {"", "a", "3-1", "1,", "-2", "1-", "0x3", "1 2", "99999999999"}) {
    EXPECT_THAT(refusal([&] { (void)Selector::parse(bad); }), HasSubstr("0-3")) << bad;
  }
}

TEST_F(Run, HeadsComeInRunOrder) {
  const MemoryTrace trace = memoryTrace(textSpec(), {7, 2}, {3, 0}, 2);
  std::vector<std::string> order;
  for (const HeadId& id : selectHeads(trace.info(), {})) {
    order.push_back(std::to_string(id.call.layer) + ":" + std::to_string(id.call.step) + ":" + std::to_string(id.head));
  }
  EXPECT_THAT(order, testing::ElementsAre("0:2:0", "0:2:1", "0:7:0", "0:7:1", "3:2:0", "3:2:1", "3:7:0", "3:7:1"));
}

TEST_F(Run, SelectorsThatMatchNothingAreNamed) {
  const MemoryTrace trace = memoryTrace(textSpec(), {2, 5}, {0, 2}, 2);
  const auto select = [&](const std::function<void(HeadSelection&)>& change) {
    return refusal([&] {
      HeadSelection selection;
      change(selection);
      (void)selectHeads(trace.info(), selection);
    });
  };
  EXPECT_THAT(select([](auto& s) { s.steps = Selector::parse("3-4"); }),
              testing::AllOf(HasSubstr("--step 3-4"), HasSubstr("2, 5")));
  EXPECT_THAT(select([](auto& s) { s.layers = Selector::parse("1"); }),
              testing::AllOf(HasSubstr("--layer 1"), HasSubstr("0, 2")));
  EXPECT_THAT(select([](auto& s) { s.heads = Selector::parse("2,3"); }),
              testing::AllOf(HasSubstr("--head 2,3"), HasSubstr("0, 1")));
  EXPECT_THAT(select([](auto& s) { s.branch = "uncond"; }),
              testing::AllOf(HasSubstr("--branch uncond"), HasSubstr("cond")));
  EXPECT_THAT(select([](auto& s) { s.component = "transformer_2"; }), HasSubstr("--component transformer_2"));
  EXPECT_THAT(select([](auto& s) { s.kind = "cross"; }), HasSubstr("--kind cross"));
  EXPECT_THAT(select([](auto& s) { s.call = 1; }), HasSubstr("--call 1"));
  HeadSelection partly;
  partly.layers = Selector::parse("2,77");
  EXPECT_EQ(selectHeads(trace.info(), partly).size(), 4U);
}

TEST_F(Run, KindSelfTakesJointCallsWhereThereIsNoSelf) {
  TraceInfo info = memoryInfo(textSpec(), {1}, {0}, 1);
  info.calls[0].id.kind = "joint";
  EXPECT_EQ(selectHeads(info, {}).size(), 1U);
  CallInfo self = info.calls[0];
  self.id.kind = "self";
  self.id.layer = 1;
  info.calls.push_back(self);
  const auto heads = selectHeads(info, {});
  ASSERT_EQ(heads.size(), 1U);
  EXPECT_EQ(heads[0].call.layer, 1);
}

TEST_F(Run, ResolvesParametersForTheFamily) {
  const MemoryTrace trace = memoryTrace(textSpec());
  const RunReport report = runMethod(trace, request("svg", {"num_sampled_rows=8"}), *backend, {});
  EXPECT_EQ(report.resolved.at("model_rule"), "hunyuan");
  EXPECT_EQ(report.resolved.at("sparsity"), "0.25");
  EXPECT_EQ(report.resolved.at("num_sampled_rows"), "8");
  EXPECT_EQ(report.resolved.at("variant"), "reference");
  EXPECT_EQ(report.resolved.at("warmup"), "off");
  EXPECT_EQ(report.resolved.at("dense_steps"), "1");
  EXPECT_THAT(report.heads.front().plan.paramsJson, HasSubstr("\"sparsity\":0.25"));
  EXPECT_EQ(report.heads.front().evaluation.totalRows, 245);
}

TEST_F(Run, WarmupGatesOnlyWhenAsked) {
  const MemoryTrace trace = memoryTrace(textSpec(), {0, 5}, {0, 2}, 1);
  RunRequest r = request("svg", {"first_times_fp=0.1", "first_layers_fp=0.25"});
  const RunReport off = runMethod(trace, r, *backend, {});
  r.warmup = true;
  const RunReport on = runMethod(trace, r, *backend, {});
  ASSERT_EQ(off.heads.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    const CallId& call = off.heads[i].id.call;
    const bool dense = call.step == 0 || call.layer == 0;
    EXPECT_EQ(off.heads[i].wouldBeDense, dense);
    EXPECT_EQ(on.heads[i].wouldBeDense, dense);
    EXPECT_LT(off.heads[i].evaluation.keptFraction, 1);
    EXPECT_EQ(on.heads[i].evaluation.keptFraction == 1.0, dense);
  }
}

TEST_F(Run, ResultsDoNotDependOnTheSelection) {
  const MemoryTrace trace = memoryTrace(textSpec(), {2, 5}, {0, 2}, 3);
  RunRequest r = request("svg");
  r.seed = 9;
  const RunReport all = runMethod(trace, r, *backend, {});
  r.selection.layers = Selector::parse("2");
  r.selection.heads = Selector::parse("1");
  const RunReport some = runMethod(trace, r, *backend, {});
  ASSERT_EQ(some.heads.size(), 2U);
  for (const HeadReport& head : some.heads) {
    const auto same =
        std::find_if(all.heads.begin(), all.heads.end(), [&](const HeadReport& h) { return h.id == head.id; });
    ASSERT_NE(same, all.heads.end());
    EXPECT_EQ(*same->plan.mse, *head.plan.mse);
    EXPECT_EQ(same->evaluation.keptMass, head.evaluation.keptMass);
  }
}

TEST_F(Run, ResultsDoNotDependOnThreads) {
  const MemoryTrace trace = memoryTrace(textSpec());
  Executor one(1), seven(7);
  const auto a = runMethod(trace, request("svg"), *createBackend("cpu", one), {});
  const auto b = runMethod(trace, request("svg"), *createBackend("cpu", seven), {});
  for (std::size_t i = 0; i < a.heads.size(); ++i) {
    EXPECT_EQ(*a.heads[i].plan.mse, *b.heads[i].plan.mse);
    EXPECT_EQ(a.heads[i].evaluation.keptMass, b.heads[i].evaluation.keptMass);
    EXPECT_EQ(*a.heads[i].evaluation.outputRelError, *b.heads[i].evaluation.outputRelError);
  }
}

TEST_F(Run, AHeadThatCannotBePlannedIsSkippedWithItsReason) {
  HeadSpec spec = textSpec();
  spec.withV = false;
  const MemoryTrace trace = memoryTrace(spec);
  const RunReport report = runMethod(trace, request("svg"), *backend, {});
  for (const HeadReport& head : report.heads) {
    EXPECT_THAT(head.skippedReason, HasSubstr("values (V) were not captured"));
    EXPECT_TRUE(head.plan.blockMask.empty());
  }
  EXPECT_THAT(report.warnings, testing::Contains(HasSubstr("step 2 layer 0 head 0 skipped")));
  const RunReport oracle = runMethod(trace, request("oracle_token"), *backend, {});
  EXPECT_TRUE(oracle.heads.front().skippedReason.empty());
  EXPECT_FALSE(oracle.heads.front().evaluation.outputRelError);
  EXPECT_THAT(oracle.warnings, testing::Contains(HasSubstr("no output error")));
}

TEST_F(Run, OneUnreadableHeadDoesNotStopTheOthers) {
  const HeadSpec spec = textSpec();
  const MemoryTrace trace(memoryInfo(spec, {2}, {0}, 3), [spec](const HeadId& id) -> HeadData {
    if (id.head == 1) throw Error(ErrorCode::Format, "memory.h5: q holds NaN");
    return makeHead(spec);
  });
  const RunReport report = runMethod(trace, request("dense"), *backend, {});
  EXPECT_TRUE(report.heads[0].skippedReason.empty());
  EXPECT_EQ(report.heads[1].skippedReason, "memory.h5: q holds NaN");
  EXPECT_TRUE(report.heads[2].skippedReason.empty());
}

TEST_F(Run, ReportsHeadsAndProgressInOrder) {
  const MemoryTrace trace = memoryTrace(textSpec());
  double last = 0;
  bool rising = true;
  Control control;
  control.progress = [&](double fraction) {
    rising = rising && fraction >= last && fraction <= 1;
    last = fraction;
  };
  std::vector<HeadId> seen;
  const RunReport report = runMethod(trace, request("oracle_block"), *backend, control,
                                     [&](const HeadReport& head) { seen.push_back(head.id); });
  EXPECT_TRUE(rising);
  EXPECT_DOUBLE_EQ(last, 1);
  ASSERT_EQ(seen.size(), report.heads.size());
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], report.heads[i].id);
}

TEST_F(Run, StopsBetweenHeads) {
  const MemoryTrace trace = memoryTrace(textSpec());
  std::stop_source source;
  int done = 0;
  EXPECT_THROW((void)runMethod(trace, request("svg"), *backend, Control{source.get_token(), {}},
                               [&](const HeadReport&) {
                                 if (++done == 2) source.request_stop();
                               }),
               Cancelled);
  EXPECT_EQ(done, 2);
}

TEST_F(Run, ArraysCanBeDroppedOnceEvaluated) {
  const MemoryTrace trace = memoryTrace(textSpec(), {2}, {0}, 2);
  RunRequest r = request("svg");
  const RunReport whole = runMethod(trace, r, *backend, {});
  r.keepPlanArrays = false;
  bool seen = true;
  const RunReport slim =
      runMethod(trace, r, *backend, {}, [&](const HeadReport& head) { seen = seen && !head.plan.blockMask.empty(); });
  EXPECT_TRUE(seen);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(slim.heads[i].plan.blockMask.empty() && slim.heads[i].plan.rowIntervals.empty());
    EXPECT_EQ(slim.heads[i].plan.mse, whole.heads[i].plan.mse);
    EXPECT_EQ(slim.heads[i].plan.facts, whole.heads[i].plan.facts);
    EXPECT_EQ(slim.heads[i].evaluation.keptMass, whole.heads[i].evaluation.keptMass);
  }
}

TEST_F(Run, CountsFollowTheDraws) {
  const MemoryTrace trace = memoryTrace(textSpec(), {2}, {0}, 1);
  RunRequest r = request("svg");
  r.draws.emplace();
  r.draws->sampledRows = {4, 9, 4};
  const RunReport report = runMethod(trace, r, *backend, {});
  EXPECT_EQ(report.resolved.at("num_sampled_rows"), "3");
  EXPECT_EQ(report.heads[0].plan.facts.at("sampled_rows"), 3);
  r.draws->sampledRows = {4, 100000};
  EXPECT_THAT(refusal([&] { (void)runMethod(trace, r, *backend, {}); }), HasSubstr("100000"));
}

TEST_F(Run, GoesOnFromAnInterruptedRun) {
  const auto path = std::filesystem::temp_directory_path() / fmt::format("run_resume_{}.h5", getpid());
  const MemoryTrace trace = memoryTrace(textSpec(), {2, 3, 5}, {0, 2}, 2);
  for (const char* id : {"svg", "svg2", "adaspa"}) {
    SCOPED_TRACE(id);
    RunRequest r = request(id);
    const RunReport whole = runMethod(trace, r, *backend, {});
    ASSERT_EQ(whole.heads.size(), 12U);
    // Stopped after five heads, in the middle of a layer's steps.
    std::stop_source source;
    RunReport done;
    const auto keep = [&](const HeadReport& head) {
      done.heads.push_back(head);
      if (done.heads.size() == 5) source.request_stop();
    };
    EXPECT_THROW((void)runMethod(trace, r, *backend, Control{source.get_token(), {}}, keep), Cancelled);
    ASSERT_EQ(done.heads.size(), 5U);
    writeResultsFile(path, trace, done, r, false);

    r.earlier = readEarlierResults(path, trace, r);
    ASSERT_EQ(r.earlier.size(), 5U);
    const RunReport resumed = runMethod(trace, r, *backend, {});
    ASSERT_EQ(resumed.heads.size(), 12U);
    for (std::size_t n = 0; n < 12; ++n) {
      const HeadReport &a = resumed.heads[n], &b = whole.heads[n];
      EXPECT_EQ(a.id, b.id);
      EXPECT_EQ(a.evaluation.keptFraction, b.evaluation.keptFraction);
      EXPECT_EQ(a.evaluation.keptMass, b.evaluation.keptMass);
      EXPECT_EQ(a.evaluation.outputRelError, b.evaluation.outputRelError);
      EXPECT_EQ(a.plan.facts, b.plan.facts);
      EXPECT_EQ(a.plan.reusedFromStep, b.plan.reusedFromStep);
      // A head of the first run was not measured a second time: its clock stands.
      if (n < 5) {
        EXPECT_EQ(a.evaluation.evaluateMs, done.heads[n].evaluation.evaluateMs);
      }
    }
    RunRequest other = r;
    other.seed = 9;
    EXPECT_THAT(refusal([&] { (void)readEarlierResults(path, trace, other); }), HasSubstr("seed 9"));
    other = r;
    other.params.set("first_times_fp", "0.4");
    EXPECT_THAT(refusal([&] { (void)runMethod(trace, other, *backend, {}); }), HasSubstr("made with the parameters"));
  }
  std::filesystem::remove(path);
}

TEST_F(Run, UnknownMethodsAndParametersAreRefused) {
  const MemoryTrace trace = memoryTrace(textSpec());
  RunRequest r = request("svg");
  r.methodId = "svgg";
  EXPECT_THAT(refusal([&] { (void)runMethod(trace, r, *backend, {}); }), HasSubstr("svgg"));
  r.methodId = "dense";
  r.params.set("sparsity", "0.1");
  EXPECT_THAT(refusal([&] { (void)runMethod(trace, r, *backend, {}); }),
              HasSubstr("sparsity: unknown to method dense"));
}

}  // namespace
}  // namespace sparsight

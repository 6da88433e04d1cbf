// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stop_token>
#include <utility>

#include "sparsight/core/run.h"
#include "tests/unit/core/method_test_support.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace {
using namespace test;
using testing::HasSubstr;
namespace fs = std::filesystem;

class PlanFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "sparsight-plan-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder = pattern;
  }
  void TearDown() override { fs::remove_all(folder); }

  RunReport run(const MemoryTrace& trace, const std::string& method, const std::vector<std::string>& params = {}) {
    request.methodId = method;
    request.params = ParamSet::parse(methodById(method).params(), params);
    return runMethod(trace, request, *backend, {});
  }
  static HeadSpec textSpec() {
    HeadSpec spec;
    spec.layout = layoutOf(4, 8, 10, 9);
    spec.family = "hunyuanvideo";
    spec.paddingText = 4;
    spec.spread = 2;
    return spec;
  }
  std::string refusal(const fs::path& path, ErrorCode code) {
    try {
      (void)readPlanFile(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "accepted";
    return {};
  }
  fs::path folder;
  RunRequest request;
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

void expectEqual(const Plan& a, const Plan& b) {
  EXPECT_EQ(a.methodId, b.methodId);
  EXPECT_EQ(a.paramsJson, b.paramsJson);
  EXPECT_EQ(a.queryCount, b.queryCount);
  EXPECT_EQ(a.keyCount, b.keyCount);
  EXPECT_EQ(a.qOrder, b.qOrder);
  EXPECT_EQ(a.kOrder, b.kOrder);
  EXPECT_EQ(a.qBounds, b.qBounds);
  EXPECT_EQ(a.kBounds, b.kBounds);
  EXPECT_EQ(a.blockMask, b.blockMask);
  EXPECT_EQ(a.intervalRows, b.intervalRows);
  EXPECT_EQ(a.rowIntervalsPtr, b.rowIntervalsPtr);
  EXPECT_EQ(a.rowIntervals, b.rowIntervals);
  EXPECT_EQ(a.rowThreshold, b.rowThreshold);
  EXPECT_EQ(a.rowCount, b.rowCount);
  EXPECT_EQ(a.qLabels, b.qLabels);
  EXPECT_EQ(a.kLabels, b.kLabels);
  EXPECT_EQ(a.qCentroids, b.qCentroids);
  EXPECT_EQ(a.kCentroids, b.kCentroids);
  EXPECT_EQ(a.qSizes, b.qSizes);
  EXPECT_EQ(a.kSizes, b.kSizes);
  EXPECT_THAT(a.scores, testing::Pointwise(testing::NanSensitiveFloatEq(), b.scores));
  EXPECT_EQ(a.map, b.map);
  EXPECT_THAT(a.lse, testing::Pointwise(testing::NanSensitiveFloatEq(), b.lse));
  EXPECT_EQ(a.levels, b.levels);
  EXPECT_EQ(a.recall, b.recall);
  EXPECT_EQ(a.headClass, b.headClass);
  EXPECT_EQ(a.mse, b.mse);
  EXPECT_EQ(a.margin, b.margin);
  EXPECT_EQ(a.plannerFlops, b.plannerFlops);
  EXPECT_EQ(a.wouldBeDense, b.wouldBeDense);
  EXPECT_EQ(a.reusedFromStep, b.reusedFromStep);
  EXPECT_EQ(a.facts, b.facts);
  EXPECT_EQ(a.warnings, b.warnings);
}

TEST_F(PlanFile, RoundTripOfEveryMethod) {
  const MemoryTrace trace = memoryTrace(textSpec());
  for (const Method* method : allMethods()) {
    SCOPED_TRACE(method->id());
    const RunReport report = run(trace, std::string(method->id()));
    const fs::path path = folder / "plan.h5";
    writePlanFile(path, trace, report, request);
    const std::vector<PlanFileEntry> entries = readPlanFile(path);
    ASSERT_EQ(entries.size(), report.heads.size());
    for (const PlanFileEntry& entry : entries) {
      const auto head = std::find_if(report.heads.begin(), report.heads.end(),
                                     [&](const HeadReport& candidate) { return candidate.id == entry.id; });
      ASSERT_NE(head, report.heads.end());
      expectEqual(head->plan, entry.plan);
      EXPECT_EQ(head->evaluation.keptFraction, entry.evaluation.keptFraction);
      EXPECT_EQ(head->evaluation.blocksKeptFraction, entry.evaluation.blocksKeptFraction);
      EXPECT_EQ(head->evaluation.keptMass, entry.evaluation.keptMass);
      EXPECT_EQ(head->evaluation.outputRelError, entry.evaluation.outputRelError);
      EXPECT_EQ(head->evaluation.outputCosine, entry.evaluation.outputCosine);
      EXPECT_EQ(head->evaluation.starvedRows, entry.evaluation.starvedRows);
      EXPECT_EQ(head->evaluation.evaluatedRows, entry.evaluation.evaluatedRows);
      EXPECT_EQ(head->evaluation.backend, entry.evaluation.backend);
    }
  }
}

TEST_F(PlanFile, StoredNumbersEqualANaiveRecomputation) {
  for (const bool includePadding : {false, true}) {
    request.evaluate.includePadding = includePadding;
    const MemoryTrace trace = memoryTrace(textSpec(), {2}, {1}, 2);
    for (const Method* method : allMethods()) {
      SCOPED_TRACE(std::string(method->id()) + (includePadding ? ", padding included" : ""));
      writePlanFile(folder / "plan.h5", trace, run(trace, std::string(method->id())), request);
      for (const PlanFileEntry& entry : readPlanFile(folder / "plan.h5")) {
        const NaiveNumbers naive = naiveNumbers(entry.plan, trace.load(entry.id, {}), includePadding);
        EXPECT_NEAR(entry.evaluation.keptFraction, naive.keptFraction, 1e-12);
        EXPECT_NEAR(entry.evaluation.keptMass, naive.keptMass, 2e-4);
        EXPECT_NEAR(entry.evaluation.keptMassP5, naive.massP5, 2e-4);
        EXPECT_NEAR(entry.evaluation.outputRelError.value(), naive.relError, 2e-4);
        EXPECT_NEAR(entry.evaluation.outputCosine.value(), naive.cosine, 2e-4);
        EXPECT_EQ(entry.evaluation.starvedRows, naive.starved);
      }
    }
  }
}

TEST_F(PlanFile, ClusterArraysSurvive) {
  // No method of this version makes clusters; the file has room for them.
  const MemoryTrace trace = memoryTrace(textSpec(), {2}, {1}, 1);
  RunReport report = run(trace, "dense");
  Plan& plan = report.heads[0].plan;
  plan.qLabels.assign(329, 3);
  plan.kLabels.assign(329, 1);
  plan.qCentroids.assign(4 * 8, 0.5F);
  plan.kCentroids.assign(2 * 8, -0.5F);
  plan.qSizes = {1, 2, 3, 643};
  plan.kSizes = {9, 640};
  plan.levels = {1, 2};
  plan.recall = {0.25F};
  plan.map = {1};
  plan.scores = {std::numeric_limits<float>::quiet_NaN()};
  plan.reusedFromStep = 1;
  plan.facts["iterations"] = 2;
  plan.warnings = {"clusters clamped"};
  writePlanFile(folder / "plan.h5", trace, report, request);
  expectEqual(plan, readPlanFile(folder / "plan.h5").front().plan);
}

TEST_F(PlanFile, LayoutOfTheFileIsTheContract) {
  const MemoryTrace trace = memoryTrace(textSpec(), {2}, {1}, 1);
  request.seed = 77;
  writePlanFile(folder / "plan.h5", trace, run(trace, "svg", {"force_class=temporal"}), request);
  const h5::File file = h5::File::openRead(folder / "plan.h5");
  EXPECT_EQ(file.readString("format"), "sparsight-plan");
  EXPECT_THAT(file.readInts("format_version"), testing::ElementsAre(1, 0));
  EXPECT_EQ(file.readInt("complete"), 1);
  EXPECT_EQ(file.readString("trace_uuid"), "memory");
  EXPECT_EQ(file.readString("trace_path"), "memory.h5");
  EXPECT_EQ(file.readInt("seed"), 77);
  EXPECT_EQ(file.readString("padding"), "exclude");
  EXPECT_THAT(file.readString("program"), HasSubstr("sparsight"));
  const h5::Group group = file.openGroup("plan/step_0002/cond/layer_001/self/head_00");
  EXPECT_EQ(group.readString("method"), "svg");
  EXPECT_NEAR(group.readReal("scale"), 1 / std::sqrt(8.0), 1e-12);
  for (const char* name : {"kept_fraction", "blocks.kept_fraction", "kept_mass", "kept_mass_p5", "output_rel_error",
                           "output_cosine", "starved_rows", "head_class", "planner_flops", "attention_flops", "plan_ms",
                           "evaluate_ms", "backend", "evaluated_rows", "would_be_dense"}) {
    EXPECT_TRUE(group.hasAttribute(name)) << name;
  }
  const auto shape = [&](const char* name) { return group.openDataset(name).info().shape; };
  EXPECT_EQ(shape("q_order"), (std::vector<Index>{329}));
  EXPECT_EQ(shape("k_order"), (std::vector<Index>{329}));
  EXPECT_EQ(shape("block_mask"), (std::vector<Index>{3, 3}));
  EXPECT_EQ(shape("q_bounds"), (std::vector<Index>{4}));
  EXPECT_EQ(shape("interval_rows"), shape("row_intervals_ptr"));
  EXPECT_EQ(shape("row_intervals")[1], 2);
  EXPECT_EQ(group.openDataset("row_intervals").info().type.size, 8U);
  EXPECT_EQ(group.openDataset("block_mask").info().type.size, 1U);
}

TEST_F(PlanFile, ResultsKeepNumbersWithoutArrays) {
  HeadSpec spec = textSpec();
  const MemoryTrace trace(memoryInfo(spec, {2}, {1}, 2), [spec](const HeadId& id) {
    HeadSpec own = spec;
    own.withV = id.head == 0;
    return makeHead(own);
  });
  const RunReport report = run(trace, "svg");
  writeResultsFile(folder / "results.h5", trace, report, request);
  EXPECT_EQ(sniffFormat(folder / "results.h5"), "results");
  const auto entries = readPlanFile(folder / "results.h5");
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].evaluation.keptMass, report.heads[0].evaluation.keptMass);
  EXPECT_EQ(entries[0].plan.headClass, report.heads[0].plan.headClass);
  EXPECT_TRUE(entries[0].plan.blockMask.empty());
  EXPECT_THAT(entries[1].plan.warnings, testing::ElementsAre(HasSubstr("values (V)")));
  // A plan file leaves the skipped head out.
  writePlanFile(folder / "plan.h5", trace, report, request);
  EXPECT_EQ(sniffFormat(folder / "plan.h5"), "plan");
  EXPECT_EQ(readPlanFile(folder / "plan.h5").size(), 1U);
}

TEST_F(PlanFile, HeaderAndNumbersComeWithoutThePlans) {
  const MemoryTrace trace = memoryTrace(textSpec());
  request.seed = 7;
  request.evaluate.includePadding = true;
  const RunReport report = run(trace, "svg2");
  writePlanFile(folder / "plan.h5", trace, report, request);
  writeResultsFile(folder / "results.h5", trace, report, request, false);
  for (const char* name : {"plan.h5", "results.h5"}) {
    SCOPED_TRACE(name);
    const bool plans = std::string(name) == "plan.h5";
    const ResultsFile file = readResultsFile(folder / name);
    EXPECT_EQ(file.header.plans, plans);
    EXPECT_EQ(file.header.complete, plans);
    EXPECT_EQ(file.header.request, describeRequest(request));
    EXPECT_EQ(file.header.seed, 7U);
    EXPECT_TRUE(file.header.includePadding);
    EXPECT_EQ(file.header.traceUuid, trace.info().uuid);
    EXPECT_EQ(file.header.tracePath, trace.info().path);
    ASSERT_EQ(file.heads.size(), report.heads.size());
    for (const PlanFileEntry& entry : file.heads) {
      const auto head = std::find_if(report.heads.begin(), report.heads.end(),
                                     [&](const HeadReport& candidate) { return candidate.id == entry.id; });
      ASSERT_NE(head, report.heads.end());
      EXPECT_EQ(entry.evaluation.keptMass, head->evaluation.keptMass);
      EXPECT_EQ(planBytes(entry.plan), static_cast<Index>(sizeof(Plan)));
      if (plans) expectEqual(head->plan, readPlanOf(folder / name, entry.id).plan);
    }
  }
  HeadId absent = report.heads.front().id;
  absent.head = 99;
  EXPECT_THROW((void)readPlanOf(folder / "plan.h5", absent), Error);
  EXPECT_THROW((void)readPlanOf(folder / "results.h5", report.heads.front().id), Error);
  std::stop_source stopped;
  stopped.request_stop();
  EXPECT_THROW((void)readResultsFile(folder / "plan.h5", {stopped.get_token(), {}}), Cancelled);
}

TEST_F(PlanFile, HeadsGatheredElsewhereAreWrittenAsByARun) {
  const MemoryTrace trace = memoryTrace(textSpec());
  const RunReport report = run(trace, "svg");
  std::vector<std::shared_ptr<const HeadReport>> heads;
  for (const HeadReport& head : report.heads) heads.push_back(std::make_shared<const HeadReport>(head));
  ResultsHeader header;
  header.plans = true;
  header.request = describeRequest(request);
  writeHeads(folder / "heads.h5", trace, heads, header);
  for (const HeadReport& head : report.heads) expectEqual(head.plan, readPlanOf(folder / "heads.h5", head.id).plan);
  header.plans = false;
  writeHeads(folder / "numbers.h5", trace, heads, header);
  // A run goes on from it as from its own.
  EXPECT_EQ(readEarlierResults(folder / "numbers.h5", trace, request).size(), report.heads.size());
  std::stop_source stopped;
  stopped.request_stop();
  EXPECT_THROW(writeHeads(folder / "late.h5", trace, heads, header, {stopped.get_token(), {}}), Cancelled);
  EXPECT_FALSE(fs::exists(folder / "late.h5"));
}

TEST_F(PlanFile, APlanIsMadeAgainFromItsNumbers) {
  const MemoryTrace trace = memoryTrace(textSpec(), {2, 5, 6}, {0, 2}, 3);
  for (const auto& [method, params] :
       std::vector<std::pair<std::string, std::vector<std::string>>>{{"svg", {"kept=0.4"}},
                                                                     {"svg2", {"min_kc_ratio=0.1,0.3,0.2"}},
                                                                     {"svoo", {}},
                                                                     {"adaspa", {"block_size=16"}}}) {
    SCOPED_TRACE(method);
    request = {};
    request.seed = 3;
    const RunReport report = run(trace, method, params);
    ResultsHeader made;
    made.request = describeRequest(request);
    made.seed = request.seed;
    for (const HeadReport& head : report.heads) {
      HeadReport numbers = head;
      numbers.plan = withoutArrays(head.plan);
      const RunReport again = runMethod(trace, requestAgain(trace.info(), numbers, made, {2, 5, 6}), *backend, {});
      ASSERT_EQ(again.heads.back().id, head.id);
      EXPECT_EQ(again.heads.back().plan.blockMask, head.plan.blockMask);
      EXPECT_EQ(again.heads.back().plan.qOrder, head.plan.qOrder);
      EXPECT_EQ(again.heads.back().evaluation.keptMass, head.evaluation.keptMass);
    }
    made.request = "method svg, seed 3, padding exclude, rows 64, warm-up on, draws none";
    const RunRequest asked = requestAgain(trace.info(), report.heads.front(), made, {});
    EXPECT_EQ(asked.evaluate.rows, 64);
    EXPECT_TRUE(asked.warmup);
    made.request = "method svg, seed 3, padding exclude, rows all, warm-up off, draws 0123456789abcdef";
    EXPECT_THROW((void)requestAgain(trace.info(), report.heads.front(), made, {}), Error);
  }
}

TEST_F(PlanFile, BrokenFilesAreRefusedByName) {
  EXPECT_THAT(refusal(folder / "none.h5", ErrorCode::Io), HasSubstr("none.h5"));
  std::ofstream(folder / "text.h5") << "hello";
  EXPECT_THAT(refusal(folder / "text.h5", ErrorCode::Format), HasSubstr("text.h5"));
  const auto make = [&](const char* name, const std::function<void(h5::File&)>& fill) {
    h5::File file = h5::File::create(folder / name);
    fill(file);
    file.close();
    return folder / name;
  };
  EXPECT_THAT(refusal(make("a.h5", [](h5::File&) {}), ErrorCode::Format), HasSubstr("format"));
  EXPECT_THAT(refusal(make("b.h5", [](h5::File& f) { f.writeString("format", "sparsight-trace"); }), ErrorCode::Format),
              HasSubstr("sparsight-trace"));
  EXPECT_THAT(refusal(make("c.h5",
                           [](h5::File& f) {
                             f.writeString("format", "sparsight-plan");
                             f.writeArray("format_version", std::vector<std::int32_t>{2, 0});
                           }),
                      ErrorCode::Unsupported),
              HasSubstr("format_version 2"));
  // A plan whose arrays contradict each other.
  const MemoryTrace trace = memoryTrace(textSpec(), {2}, {1}, 1);
  RunReport report = run(trace, "svg", {"kept=0.8", "force_class=temporal"});
  Plan& plan = report.heads[0].plan;
  ASSERT_NE(plan.blockMask[0], 0);
  const std::uint8_t state = std::exchange(plan.blockMask[0], std::uint8_t{0});
  writePlanFile(folder / "d.h5", trace, report, request);
  EXPECT_THAT(refusal(folder / "d.h5", ErrorCode::Format),
              testing::AllOf(HasSubstr("d.h5"), HasSubstr("head_00"), HasSubstr("block (0, 0)")));
  plan.blockMask[0] = state;
  plan.kOrder[1] = plan.kOrder[0];
  writePlanFile(folder / "e.h5", trace, report, request);
  EXPECT_THAT(refusal(folder / "e.h5", ErrorCode::Format),
              testing::AllOf(HasSubstr("e.h5"), HasSubstr("no permutation")));
}

TEST_F(PlanFile, NothingIsLeftWhenTheTargetCannotBeWritten) {
  const MemoryTrace trace = memoryTrace(textSpec(), {2}, {1}, 1);
  const RunReport report = run(trace, "dense");
  EXPECT_THROW(writePlanFile(folder / "missing" / "plan.h5", trace, report, request), Error);
  EXPECT_TRUE(fs::is_empty(folder));
}

TEST_F(PlanFile, Draws) {
  const fs::path path = folder / "draws.h5";
  {
    h5::File file = h5::File::create(path);
    file.writeDataset<std::int64_t>("sampled_rows", {5, 3, 5});
    const std::vector<std::int32_t> idx{1, 2, 3, 4, 5, 6};
    file.writeDataset<std::int32_t>("init_q_idx", idx, std::vector<Index>{2, 3});
    file.writeDataset<float>("something_else", {1.0F});
    file.close();
  }
  const Draws draws = readDraws(path);
  EXPECT_THAT(draws.sampledRows, testing::ElementsAre(5, 3, 5));
  ASSERT_EQ(draws.initQ.size(), 2U);
  EXPECT_THAT(draws.initQ[1], testing::ElementsAre(4, 5, 6));
  EXPECT_TRUE(draws.initK.empty());
  {
    h5::File file = h5::File::create(folder / "empty.h5");
    file.close();
  }
  EXPECT_THROW((void)readDraws(folder / "empty.h5"), Error);
  EXPECT_THROW((void)readDraws(folder / "none.h5"), Error);
}

}  // namespace
}  // namespace sparsight

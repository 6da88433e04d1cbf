// SPDX-License-Identifier: Apache-2.0
// Walking through a method watches the computation and never replaces it: the last stage is the plan of a plain run.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "clustering.h"
#include "sparsight/core/stages.h"
#include "svg_rules.h"
#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;

class Stages : public ::testing::Test {
 protected:
  Executor m_executor{2};
  std::unique_ptr<Backend> m_backend = createBackend("cpu", m_executor);

  struct Walk {
    std::vector<Stage> stages;
    HeadReport report;
    [[nodiscard]] const Stage& last() const { return stages.back(); }
    [[nodiscard]] std::vector<const Stage*> of(const std::string& chapter) const {
      std::vector<const Stage*> found;
      for (const Stage& stage : stages)
        if (stage.chapter == chapter) found.push_back(&stage);
      return found;
    }
  };
  Walk walk(const Trace& trace, ExplainRequest request) {
    Walk walk;
    walk.report =
        explainHead(trace, request, *m_backend, {}, [&](Stage stage) { walk.stages.push_back(std::move(stage)); });
    return walk;
  }
  static ExplainRequest ask(const std::string& method, const std::vector<std::string>& params, const HeadId& head,
                            std::uint64_t seed = 0) {
    ExplainRequest request;
    request.methodId = method;
    request.params = ParamSet::parse(methodById(method).params(), params);
    request.head = head;
    request.seed = seed;
    return request;
  }
  // The plan of a plain run over the steps up to the head's (or that step alone).
  HeadReport plain(const Trace& trace, const ExplainRequest& asked) {
    RunRequest run;
    run.methodId = asked.methodId;
    run.params = asked.params;
    run.seed = asked.seed;
    run.selection.layers.ranges = {{asked.head.call.layer, asked.head.call.layer}};
    run.selection.heads.ranges = {{asked.head.head, asked.head.head}};
    run.selection.steps.ranges = {{asked.earlierSteps ? 0 : asked.head.call.step, asked.head.call.step}};
    return runMethod(trace, run, *m_backend, {}).heads.back();
  }
  static HeadId headId(int step, int layer, int head) { return {{step, "cond", layer, "self", 0}, head}; }
};

void expectEqual(const Plan& a, const Plan& b) {
  EXPECT_EQ(a.methodId, b.methodId);
  EXPECT_EQ(a.paramsJson, b.paramsJson);
  EXPECT_EQ(a.qOrder, b.qOrder);
  EXPECT_EQ(a.kOrder, b.kOrder);
  EXPECT_EQ(a.qBounds, b.qBounds);
  EXPECT_EQ(a.kBounds, b.kBounds);
  EXPECT_EQ(a.blockMask, b.blockMask);
  EXPECT_EQ(a.intervalRows, b.intervalRows);
  EXPECT_EQ(a.rowIntervalsPtr, b.rowIntervalsPtr);
  EXPECT_EQ(a.rowIntervals, b.rowIntervals);
  EXPECT_EQ(a.qLabels, b.qLabels);
  EXPECT_EQ(a.kLabels, b.kLabels);
  EXPECT_EQ(a.qCentroids, b.qCentroids);
  EXPECT_EQ(a.kCentroids, b.kCentroids);
  EXPECT_EQ(a.headClass, b.headClass);
  EXPECT_EQ(a.mse, b.mse);
  EXPECT_EQ(a.margin, b.margin);
  EXPECT_EQ(a.levels, b.levels);
  EXPECT_EQ(a.recall, b.recall);
  EXPECT_EQ(a.plannerFlops, b.plannerFlops);
  EXPECT_EQ(a.reusedFromStep, b.reusedFromStep);
  EXPECT_EQ(a.facts, b.facts);
  EXPECT_EQ(a.warnings, b.warnings);
}

struct Case {
  const char* method;
  std::vector<std::string> params;
};
const std::vector<Case>& cases() {
  static const std::vector<Case> all{{"svg", {}},
                                     {"svg", {"variant=sparsevideo"}},
                                     {"svg2", {"num_q_centroids=6", "num_k_centroids=9", "kmeans_iter=4"}},
                                     {"svg2", {"kmeans_iter_init=0"}},
                                     {"svg2", {"variant=sparsevideo", "init=kmeans++", "distance=cosine"}},
                                     {"svoo", {"num_q_centroids=5", "num_k_centroids=8"}},
                                     {"svoo", {"variant=paper", "start_reuse_step=1", "reuse_interval=50"}},
                                     {"adaspa", {"block_size=8", "search_steps=2,5"}},
                                     {"adaspa", {"block_size=8", "selection=global", "levels=off"}}};
  return all;
}

TEST_F(Stages, LastPlanIsThatOfAPlainRun) {
  for (const int text : {0, 6}) {
    HeadSpec spec;
    spec.layout = layoutOf(4, 6, 7, text);
    spec.family = text == 0 ? "wan" : "hunyuanvideo";
    spec.spread = 3.0;
    const MemoryTrace trace = memoryTrace(spec, {2, 5, 6}, {0, 2}, 3);
    for (const Case& c : cases()) {
      for (const bool earlier : {false, true}) {
        for (const int head : {0, 2}) {
          for (const std::uint64_t seed : {0U, 7U}) {
            SCOPED_TRACE(fmt::format("{} {} text {} head {} seed {} earlier {}", c.method,
                                     c.params.empty() ? "" : c.params[0], text, head, seed, earlier));
            ExplainRequest request = ask(c.method, c.params, headId(6, 2, head), seed);
            request.earlierSteps = earlier;
            const Walk walked = walk(trace, request);
            const HeadReport expected = plain(trace, request);
            ASSERT_TRUE(expected.skippedReason.empty()) << expected.skippedReason;
            ASSERT_GE(walked.stages.size(), 3U);
            ASSERT_TRUE(walked.last().plan);
            EXPECT_TRUE(walked.last().last);
            expectEqual(*walked.last().plan, expected.plan);
            expectEqual(walked.report.plan, expected.plan);
            ASSERT_TRUE(walked.last().numbers);
            EXPECT_EQ(walked.last().numbers->keptFraction, expected.evaluation.keptFraction);
            EXPECT_EQ(walked.last().numbers->keptMass, expected.evaluation.keptMass);
            EXPECT_EQ(walked.last().numbers->outputRelError, expected.evaluation.outputRelError);
            for (const Stage& stage : walked.stages) {
              EXPECT_FALSE(stage.title.empty());
              EXPECT_FALSE(stage.text.empty()) << stage.title;
              EXPECT_FALSE(stage.chapter.empty()) << stage.title;
              EXPECT_EQ(stage.last, &stage == &walked.last());
              for (const TokenPicture& picture : stage.tokens) {
                EXPECT_EQ(picture.labels.size() + picture.values.size(), at(trace.info().layout.tokenCount));
                for (const std::int32_t label : picture.labels) {
                  ASSERT_LT(label, static_cast<std::int32_t>(picture.sizes.size()));
                }
              }
              if (stage.blocks) {
                EXPECT_EQ(stage.blocks->values.size(), at(stage.blocks->rows * stage.blocks->columns));
                EXPECT_TRUE(stage.blocks->kept.empty() || stage.blocks->kept.size() == stage.blocks->values.size());
              }
            }
          }
        }
      }
    }
  }
}

TEST_F(Stages, SaysWhereItStartsFrom) {
  HeadSpec spec;
  spec.layout = layoutOf(4, 6, 7, 0);
  const MemoryTrace trace = memoryTrace(spec, {2, 5}, {0}, 2);
  const auto startOf = [](const Walk& walked) {
    for (const Stage& stage : walked.stages)
      for (const StageFact& fact : stage.facts)
        if (fact.name == "starts from") return fact.text;
    return std::string();
  };
  for (const char* method : {"svg2", "svoo", "adaspa"}) {
    const std::vector<std::string> params =
        std::string(method) == "adaspa" ? std::vector<std::string>{"search_steps=2", "block_size=8"}
        : std::string(method) == "svoo" ? std::vector<std::string>{"start_reuse_step=2"}
                                        : std::vector<std::string>{};
    ExplainRequest request = ask(method, params, headId(5, 0, 1));
    EXPECT_NE(startOf(walk(trace, request)).find("no earlier step"), std::string::npos) << method;
    request.earlierSteps = true;
    EXPECT_NE(startOf(walk(trace, request)).find("step 2"), std::string::npos) << method;
  }
}

TEST_F(Stages, SvooRecallsOfHalfStepsAreThoseOfPlansMadeThere) {
  HeadSpec spec;
  spec.layout = layoutOf(4, 6, 7, 5);
  spec.family = "hunyuanvideo";
  spec.spread = 3.0;
  const MemoryTrace trace = memoryTrace(spec, {2}, {0}, 2);
  const auto params = [](int rounds) {
    return std::vector<std::string>{"num_q_centroids=5", "num_k_centroids=8", fmt::format("kmeans_iter={}", rounds)};
  };
  const Walk walked = walk(trace, ask("svoo", params(3), headId(2, 0, 1)));
  const auto halves = walked.of("co-clustering");
  ASSERT_EQ(halves.size(), 6U);
  EXPECT_FALSE(halves[0]->plan);  // keys alone: nothing can be planned yet
  for (std::size_t n = 1; n < halves.size(); ++n) ASSERT_TRUE(halves[n]->numbers) << n;
  for (const int rounds : {1, 2, 3}) {
    const HeadReport shorter = plain(trace, ask("svoo", params(rounds), headId(2, 0, 1)));
    const Stage& stage = *halves[at(2 * rounds - 1)];
    EXPECT_EQ(stage.numbers->keptMass, shorter.evaluation.keptMass) << rounds;
    EXPECT_EQ(stage.numbers->keptFraction, shorter.evaluation.keptFraction) << rounds;
    EXPECT_EQ(stage.plan->blockMask, shorter.plan.blockMask) << rounds;
    EXPECT_EQ(stage.tokens.front().labels[0], shorter.plan.qLabels[0]);
  }
}

TEST_F(Stages, AdaSpaTradesAndSelectsInTwoSteps) {
  HeadSpec spec;
  spec.layout = layoutOf(4, 6, 7, 9);
  spec.family = "hunyuanvideo";
  spec.spread = 4.0;
  const MemoryTrace trace = memoryTrace(spec, {2, 5}, {0}, 5);
  ExplainRequest request =
      ask("adaspa", {"block_size=8", "search_steps=2,5", "recall_threshold=0.05", "kept=0.4"}, headId(5, 0, 3));
  request.earlierSteps = true;
  const Walk walked = walk(trace, request);
  const Plan& plan = *walked.last().plan;

  const auto levels = walked.of("levels");
  ASSERT_EQ(levels.size(), 1U);
  const auto& bars = levels[0]->bars->bars;
  ASSERT_EQ(bars.size(), 5U);
  for (std::size_t i = 1; i < bars.size(); ++i) EXPECT_GE(bars[i - 1].value, bars[i].value);
  int sum = 0;
  for (const auto& bar : bars) {
    sum += bar.group;
    if (bar.marked) {
      EXPECT_EQ(bar.name, "H3");
      EXPECT_EQ(bar.group, plan.levels.front());
      EXPECT_FLOAT_EQ(static_cast<float>(bar.value), plan.recall.front());
    }
  }
  EXPECT_EQ(sum, 0);

  const auto chosen = walked.of("selection"), sink = walked.of("text sink");
  ASSERT_EQ(chosen.size(), 1U);
  ASSERT_EQ(sink.size(), 1U);
  EXPECT_EQ(sink[0]->blocks->kept, plan.blockMask);
  const Index n = plan.qBlocks();
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j < n; ++j) {
      const bool text = plan.qBounds[at(i) + 1] > 168 || plan.kBounds[at(j) + 1] > 168;  // 4 x 6 x 7 video tokens first
      const std::size_t b = at(i * n + j);
      EXPECT_EQ(chosen[0]->blocks->kept[b], text ? 0 : plan.blockMask[b]);
    }
  }
  const auto stale = walked.of("stale LSE");
  ASSERT_EQ(stale.size(), 1U);
  EXPECT_EQ(stale[0]->facts.front().value, plan.facts.at("stale_lse_recall_cost"));
}

TEST_F(Stages, SvgShowsTheLossesThatDecide) {
  HeadSpec spec;
  spec.layout = layoutOf(6, 8, 9, 0);
  spec.spread = 3.0;
  const MemoryTrace trace = memoryTrace(spec, {2}, {0}, 2);
  const Walk walked = walk(trace, ask("svg", {"num_sampled_rows=20"}, headId(2, 0, 1)));
  const Plan& plan = *walked.last().plan;
  const auto decision = walked.of("decision");
  ASSERT_EQ(decision.size(), 1U);
  const auto& bars = decision[0]->bars->bars;
  ASSERT_EQ(bars.size(), 2U);
  EXPECT_FLOAT_EQ(static_cast<float>(bars[0].value), (*plan.mse)[0]);
  EXPECT_FLOAT_EQ(static_cast<float>(bars[1].value), (*plan.mse)[1]);
  EXPECT_EQ(bars[0].marked, plan.headClass == HeadClass::Spatial);
  EXPECT_EQ(bars[1].marked, plan.headClass == HeadClass::Temporal);

  // The rows of the mask pictures are the rules' own, one by one.
  const HeadData head = trace.load(headId(2, 0, 1), {});
  const SvgGeometry geometry = svgGeometry(head, paramsFor(methodById("svg"), {}, head));
  const auto sampled = walked.of("sampled rows");
  ASSERT_EQ(sampled.size(), 1U);
  std::vector<Index> rows;
  for (Index t = 0; t < head.layout.tokenCount; ++t)
    if (sampled[0]->tokens.front().values[at(t)] == 1.0F) rows.push_back(t);
  ASSERT_FALSE(rows.empty());
  for (const bool temporal : {false, true}) {
    const auto mask = walked.of(temporal ? "temporal mask" : "spatial mask");
    ASSERT_EQ(mask.size(), 1U);
    const BlockPicture& picture = *mask[0]->blocks;
    ASSERT_EQ(picture.rows, static_cast<Index>(rows.size()));
    const std::vector<Index> order = svgOrder(geometry, temporal);
    const auto placeOf = [&](Index token) {
      if (order.empty()) return token;
      return static_cast<Index>(std::find(order.begin(), order.end(), token) - order.begin());
    };
    for (std::size_t r = 0; r < rows.size(); ++r) {
      double kept = 0;
      for (const Interval& range : svgProfileRow(geometry, temporal, placeOf(rows[r])))
        kept += static_cast<double>(range.last - range.first);
      double pictured = 0;
      for (Index c = 0; c < picture.columns; ++c) {
        const Index size = std::min<Index>(128, head.layout.tokenCount - 128 * c);
        pictured += static_cast<double>(picture.values[r * at(picture.columns) + at(c)]) * static_cast<double>(size);
      }
      EXPECT_NEAR(pictured, kept, 1e-3);
    }
    // On the video: exactly the keys of the marked row.
    const TokenPicture& tokens = mask[0]->tokens.front();
    ASSERT_EQ(tokens.marked.size(), 1U);
    std::vector<float> expected(at(head.layout.tokenCount), 0.0F);
    for (const Interval& range : svgProfileRow(geometry, temporal, placeOf(tokens.marked.front())))
      for (Index c = range.first; c < range.last; ++c) expected[at(order.empty() ? c : order[at(c)])] = 1.0F;
    EXPECT_EQ(tokens.values, expected);
  }
}

TEST_F(Stages, MethodsWithoutStagesSaySo) {
  const MemoryTrace trace = memoryTrace(HeadSpec{}, {2}, {0}, 1);
  for (const Method* method : allMethods()) {
    const ExplainRequest request = ask(std::string(method->id()), {}, headId(2, 0, 0));
    if (method->hasStages()) {
      EXPECT_NO_THROW(walk(trace, request)) << method->id();
      continue;
    }
    try {
      walk(trace, request);
      FAIL() << method->id();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::Unsupported);
      EXPECT_NE(std::string(error.what()).find("no stages"), std::string::npos);
    }
  }
}

TEST_F(Stages, HeadsThatCannotBePlannedSayWhy) {
  HeadSpec spec;
  spec.withV = false;
  const MemoryTrace trace = memoryTrace(spec, {2}, {0}, 1);
  try {
    walk(trace, ask("svg", {}, headId(2, 0, 0)));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Unsupported);
    EXPECT_NE(std::string(error.what()).find("values (V) were not captured"), std::string::npos);
  }
}

TEST_F(Stages, MemoryIsBoundedAndSaid) {
  HeadSpec spec;
  spec.layout = layoutOf(4, 6, 7, 0);
  const MemoryTrace trace = memoryTrace(spec, {2}, {0}, 1);
  ExplainRequest request = ask("svg2", {"num_q_centroids=8", "num_k_centroids=8"}, headId(2, 0, 0));
  const Walk whole = walk(trace, request);
  request.memoryLimit = 6000;
  const Walk bounded = walk(trace, request);
  ASSERT_EQ(bounded.stages.size(), whole.stages.size());
  std::size_t dropped = 0;
  for (std::size_t i = 0; i < bounded.stages.size(); ++i) {
    const Stage& stage = bounded.stages[i];
    EXPECT_EQ(stage.facts.size(), whole.stages[i].facts.size());
    EXPECT_FALSE(whole.stages[i].dropped);
    if (!stage.dropped) continue;
    ++dropped;
    EXPECT_TRUE(stage.tokens.empty());
    EXPECT_FALSE(stage.blocks);
  }
  EXPECT_GT(dropped, 3U);
  EXPECT_FALSE(bounded.stages.front().dropped);
  EXPECT_FALSE(bounded.last().dropped);
  expectEqual(*bounded.last().plan, *whole.last().plan);
}

TEST_F(Stages, StopsWhereItIsTold) {
  HeadSpec spec;
  spec.layout = layoutOf(4, 6, 7, 0);
  const MemoryTrace trace = memoryTrace(spec, {2}, {0}, 1);
  std::stop_source stop;
  Control control;
  control.stop = stop.get_token();
  std::size_t seen = 0;
  EXPECT_THROW(static_cast<void>(explainHead(trace, ask("svg2", {}, headId(2, 0, 0)), *m_backend, control,
                                             [&](Stage) {
                                               if (++seen == 4) stop.request_stop();
                                             })),
               Cancelled);
  EXPECT_EQ(seen, 4U);
}

}  // namespace
}  // namespace sparsight

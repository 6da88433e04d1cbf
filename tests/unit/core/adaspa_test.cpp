// SPDX-License-Identifier: Apache-2.0
// AdaSpa has no public implementation: its formulas, written down naively in double, are what it must equal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <numeric>

#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;
using testing::HasSubstr;

struct Setting {
  double sparsity = 0.8;
  Index block = 8;
  bool row = true, sink = true, inBudget = false, pad = false, levels = true;
  double threshold = 0.8;
  [[nodiscard]] std::vector<std::string> params() const {
    return {fmt::format("sparsity={}", sparsity),
            fmt::format("block_size={}", block),
            fmt::format("selection={}", row ? "row" : "global"),
            fmt::format("text_sink={}", sink),
            fmt::format("sink_in_budget={}", inBudget),
            fmt::format("align={}", pad ? "pad" : "superset"),
            fmt::format("levels={}", levels ? "on" : "off"),
            fmt::format("recall_threshold={}", threshold),
            "search_steps=2,5"};
  }
};

/// One head's blocks and block scores, S[p, q] = sum of exp(z - LSE).
struct Scored {
  std::vector<Index> edges;
  std::vector<bool> text;
  std::vector<double> S;
  [[nodiscard]] Index N() const { return static_cast<Index>(text.size()); }
};

Scored scoresOf(const HeadData& head, const Setting& s, const std::vector<double>& lse) {
  Scored out;
  const Segment* video = head.layout.video();
  const auto isText = [&](Index token) { return token < video->start || token >= video->start + video->length; };
  for (Index token = 0; token < head.layout.tokenCount;) {
    out.edges.push_back(token);
    bool touches = false;
    Index size = 0;
    // A block ends after B tokens, or (pad) where the kind of token changes.
    while (token < head.layout.tokenCount && size < s.block &&
           !(s.pad && size > 0 && isText(token) != isText(token - 1))) {
      touches = touches || isText(token);
      ++token;
      ++size;
    }
    out.text.push_back(touches);
  }
  out.edges.push_back(head.layout.tokenCount);
  const Naive naive(head, false);
  const Index n = out.N();
  out.S.assign(at(n * n), 0);
  for (Index p = 0; p < n; ++p) {
    for (Index q = 0; q < n; ++q) {
      for (Index i = out.edges[at(p)]; i < out.edges[at(p + 1)]; ++i) {
        for (Index j = out.edges[at(q)]; j < out.edges[at(q + 1)]; ++j) {
          if (naive.valid[at(i * naive.keys + j)] == 0) continue;
          const double z = head.input.scale * dotOf(head.input.q, i, head.input.k, j);
          out.S[at(p * n + q)] += std::exp(z - lse[at(i)]);
        }
      }
    }
  }
  return out;
}

/// Keeps the k largest of the listed cells, ties to the lower one: by repeated search for the largest.
void keepTop(const std::vector<double>& S, std::vector<Index> cells, Index k, std::vector<std::uint8_t>& mask) {
  for (Index n = 0; n < k && !cells.empty(); ++n) {
    std::size_t best = 0;
    for (std::size_t c = 1; c < cells.size(); ++c) {
      // Equal block contents give equal sums up to rounding: that is a tie.
      if (S[at(cells[c])] > S[at(cells[best])] * (1 + 1e-7)) best = c;
    }
    mask[at(cells[best])] = 1;
    cells.erase(cells.begin() + static_cast<std::ptrdiff_t>(best));
  }
}

std::vector<std::uint8_t> maskOf(const Scored& scored, const Setting& s, double sparsity) {
  const Index n = scored.N();
  std::vector<std::uint8_t> mask(at(n * n), 0);
  const auto sink = [&](Index block) { return s.sink && scored.text[at(block)]; };
  Index sinks = 0;
  for (Index i = 0; i < n; ++i) sinks += sink(i) ? 1 : 0;
  std::vector<Index> all;
  for (Index i = 0; i < n; ++i) {
    std::vector<Index> row;
    for (Index j = 0; j < n; ++j) {
      if (sink(i) || sink(j)) {
        mask[at(i * n + j)] = 1;
      } else {
        row.push_back(i * n + j);
        all.push_back(i * n + j);
      }
    }
    if (!s.row || sink(i)) continue;
    const double asked = s.inBudget
                             ? std::nearbyint((1 - sparsity) * static_cast<double>(n)) - static_cast<double>(sinks)
                             : std::nearbyint((1 - sparsity) * static_cast<double>(row.size()));
    keepTop(scored.S, row, static_cast<Index>(std::max(1.0, asked)), mask);
  }
  if (!s.row) {
    const double open = static_cast<double>(all.size());
    const double cells = static_cast<double>(n * n);
    const double asked =
        s.inBudget ? std::nearbyint((1 - sparsity) * cells) - (cells - open) : std::nearbyint((1 - sparsity) * open);
    keepTop(scored.S, all, static_cast<Index>(std::max(1.0, asked)), mask);
  }
  return mask;
}

double recallOf(const Scored& scored, const std::vector<std::uint8_t>& mask) {
  double kept = 0, all = 0;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    all += scored.S[i];
    kept += mask[i] != 0 ? scored.S[i] : 0;
  }
  return kept / all;
}

struct Expected {
  std::vector<std::uint8_t> mask;
  double recall = 0, sparsity = 0;
  int level = 0;
};
std::vector<Expected> expectedOf(const std::vector<Scored>& heads, const Setting& s) {
  std::vector<Expected> out(heads.size());
  std::vector<std::size_t> byRecall(heads.size());
  std::iota(byRecall.begin(), byRecall.end(), std::size_t{0});
  std::size_t n = 0;
  for (std::size_t h = 0; h < heads.size(); ++h) {
    out[h].mask = maskOf(heads[h], s, s.sparsity);
    out[h].recall = recallOf(heads[h], out[h].mask);
    out[h].sparsity = s.sparsity;
    n += out[h].recall > s.threshold ? 1U : 0U;
  }
  if (!s.levels) return out;
  n = std::min(n, heads.size() / 2);
  std::stable_sort(byRecall.begin(), byRecall.end(), [&](auto a, auto b) { return out[a].recall > out[b].recall; });
  double hi = (1 + s.sparsity) / 2, lo = (3 * s.sparsity - 1) / 2;
  if (lo < 0) {
    lo = 0;
    hi = 2 * s.sparsity;
  }
  for (std::size_t i = 0; i < heads.size(); ++i) {
    Expected& head = out[byRecall[i]];
    if (i < n) head.level = 1;
    if (i >= heads.size() - n) head.level = -1;
    head.sparsity = head.level == 1 ? hi : head.level == -1 ? lo : s.sparsity;
    head.mask = maskOf(heads[byRecall[i]], s, head.sparsity);
  }
  return out;
}

class Adaspa : public testing::Test {
 protected:
  // Heads of one layer whose recalls differ: the spread grows with the head.
  static HeadData headOf(const HeadSpec& spec, const HeadId& id, double spreadPerHead) {
    HeadSpec own = spec;
    own.seed = static_cast<unsigned>(1000 * id.call.step + 100 * id.call.layer + id.head + 1);
    own.spread = 0.3 + spreadPerHead * id.head;
    return makeHead(own);
  }
  static MemoryTrace traceOf(const HeadSpec& spec, const std::vector<int>& steps, int heads, double spreadPerHead) {
    return {memoryInfo(spec, steps, {1}, heads),
            [spec, spreadPerHead](const HeadId& id) { return headOf(spec, id, spreadPerHead); }};
  }
  RunReport run(const Trace& trace, const std::vector<std::string>& params, bool warmup = false,
                const char* heads = "all") {
    RunRequest request;
    request.methodId = "adaspa";
    request.params = ParamSet::parse(methodById("adaspa").params(), params);
    request.selection.heads = Selector::parse(heads);
    request.warmup = warmup;
    return runMethod(trace, request, *backend, {});
  }
  static void expectEqual(const Plan& plan, const Expected& want, const Scored& scored) {
    EXPECT_EQ(plan.qBounds, scored.edges);
    EXPECT_EQ(plan.kBounds, scored.edges);
    EXPECT_EQ(plan.blockMask, want.mask);
    EXPECT_EQ(plan.levels, std::vector<std::int32_t>{want.level});
    EXPECT_NEAR(plan.facts.at("removed_fraction"), want.sparsity, 1e-12);
    EXPECT_NEAR(static_cast<double>(plan.recall.at(0)), want.recall, 1e-5);
    ASSERT_EQ(plan.scores.size(), scored.S.size());
    for (std::size_t i = 0; i < scored.S.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(plan.scores[i]), scored.S[i], 1e-4 * std::max(1.0, scored.S[i]));
    }
  }

  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

TEST_F(Adaspa, EqualsItsFormulas) {
  HeadSpec joint;
  joint.layout = layoutOf(3, 5, 7, 13);  // 105 video tokens: text begins inside a block of 8
  joint.paddingText = 4;
  joint.family = "hunyuanvideo";
  HeadSpec first = joint;
  first.layout = layoutOf(3, 5, 7, 13, true);
  HeadSpec video;
  video.layout = layoutOf(4, 5, 6, 0);
  int moved = 0;
  for (const HeadSpec& spec : {joint, first, video}) {
    for (const Setting& s :
         {Setting{}, Setting{.sparsity = 0.5, .block = 16}, Setting{.sparsity = 0.9, .row = false},
          Setting{.sparsity = 0.7, .inBudget = true}, Setting{.sparsity = 0.7, .row = false, .inBudget = true},
          Setting{.sparsity = 0.6, .pad = true}, Setting{.sparsity = 0.6, .sink = false},
          Setting{.sparsity = 0.2, .threshold = 0.85},  // s < 1/3: the lower level is clamped to 0
          Setting{.sparsity = 0.4, .threshold = 0.1},   // n > H / 2
          Setting{.levels = false}, Setting{.sparsity = 0.5, .block = 7, .threshold = 0.6}}) {
      SCOPED_TRACE(fmt::format("{} tokens, sparsity {} block {} row {} pad {}", spec.layout.tokenCount, s.sparsity,
                               s.block, s.row, s.pad));
      const MemoryTrace trace = traceOf(spec, {2}, 5, 0.9);
      const RunReport report = run(trace, s.params());
      ASSERT_EQ(report.heads.size(), 5U);
      std::vector<Scored> scored;
      for (const HeadReport& head : report.heads) {
        const HeadData data = trace.load(head.id, {});
        scored.push_back(scoresOf(data, s, Naive(data, false).lse));
      }
      const std::vector<Expected> want = expectedOf(scored, s);
      for (std::size_t h = 0; h < 5; ++h) {
        SCOPED_TRACE(h);
        ASSERT_EQ(report.heads[h].skippedReason, "");
        expectEqual(report.heads[h].plan, want[h], scored[h]);
        moved += want[h].level != 0 ? 1 : 0;
      }
    }
  }
  EXPECT_GT(moved, 20) << "levels must have been at work";
}

TEST_F(Adaspa, TiesGoToTheLowerBlock) {
  // Every key the same: all blocks of a size tie.
  HeadSpec spec;
  spec.layout = layoutOf(4, 6, 8, 0);
  HeadData head = makeHead(spec);
  std::vector<float> keys(at(192 * 8), 0.25F);
  head.input.k = viewOf(keys, 192, 8);
  for (const bool row : {true, false}) {
    const Setting s{.sparsity = 0.75, .block = 16, .row = row, .levels = false};
    const Scored scored = scoresOf(head, s, Naive(head, false).lse);
    const Plan plan = planOf("adaspa", s.params(), head, *backend);
    EXPECT_EQ(plan.blockMask, maskOf(scored, s, s.sparsity));
    if (!row) continue;
    for (Index i = 0; i < plan.qBlocks(); ++i) {
      for (Index j = 0; j < plan.kBlocks(); ++j) EXPECT_EQ(plan.blockMask[at(i * 12 + j)], j < 3 ? 1 : 0);
    }
  }
}

TEST_F(Adaspa, LaterSearchesUseTheFirstLseAndReportItsDrift) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 10, 0);
  const Setting s{.sparsity = 0.6, .threshold = 0.5};
  const MemoryTrace trace = traceOf(spec, {1, 2, 4, 5, 7}, 4, 0.8);
  const RunReport report = run(trace, s.params());
  ASSERT_EQ(report.heads.size(), 20U);
  const auto at5 = [&](std::size_t h) -> const HeadReport& { return report.heads[12 + h]; };
  std::vector<Scored> stale, fresh;
  for (std::size_t h = 0; h < 4; ++h) {
    const HeadData then = trace.load(report.heads[4 + h].id, {});
    const HeadData now = trace.load(at5(h).id, {});
    ASSERT_EQ(now.id.call.step, 5);
    stale.push_back(scoresOf(now, s, Naive(then, false).lse));
    fresh.push_back(scoresOf(now, s, Naive(now, false).lse));
  }
  const std::vector<Expected> want = expectedOf(stale, s);
  for (std::size_t h = 0; h < 4; ++h) {
    SCOPED_TRACE(h);
    const Plan& plan = at5(h).plan;
    expectEqual(plan, want[h], stale[h]);
    EXPECT_EQ(plan.facts.at("lse_from_step"), 2);
    EXPECT_FALSE(plan.reusedFromStep);
    const auto best = maskOf(fresh[h], s, want[h].sparsity);
    EXPECT_NEAR(plan.facts.at("stale_lse_recall_cost"), recallOf(fresh[h], best) - recallOf(fresh[h], want[h].mask),
                1e-5);
    EXPECT_GE(plan.facts.at("stale_lse_recall_cost"), -1e-9);
    EXPECT_GT(plan.facts.at("stale_lse_shift"), 0);
    // Step 4 keeps the mask of step 2, step 7 that of step 5, without a pass over the keys.
    EXPECT_EQ(*report.heads[8 + h].plan.reusedFromStep, 2);
    EXPECT_EQ(report.heads[8 + h].plan.blockMask, report.heads[4 + h].plan.blockMask);
    EXPECT_EQ(report.heads[8 + h].plan.plannerFlops, 0);
    EXPECT_EQ(*report.heads[16 + h].plan.reusedFromStep, 5);
    EXPECT_EQ(report.heads[16 + h].plan.blockMask, plan.blockMask);
    // Step 1 lies before the first search: planned by its own scores, and nothing of it is kept.
    EXPECT_EQ(report.heads[h].plan.facts.at("lse_from_step"), 1);
    EXPECT_EQ(report.heads[4 + h].plan.facts.at("lse_from_step"), 2);
  }
  EXPECT_THAT(report.warnings, testing::Contains(HasSubstr("step 1 lies before the first search")));
}

TEST_F(Adaspa, ASearchStepThatWasNotCapturedMovesToTheNext) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 10, 0);
  const RunReport report = run(traceOf(spec, {3, 4, 7}, 2, 0.8), Setting{}.params());
  EXPECT_THAT(report.warnings,
              testing::IsSupersetOf({HasSubstr("search step 2 was not run"), HasSubstr("search step 5 was not run")}));
  EXPECT_FALSE(report.heads[0].plan.reusedFromStep);
  EXPECT_EQ(*report.heads[2].plan.reusedFromStep, 3);
  EXPECT_FALSE(report.heads[4].plan.reusedFromStep);
  EXPECT_EQ(report.heads[4].plan.facts.at("lse_from_step"), 3);
}

TEST_F(Adaspa, TheSelectionOfHeadsDoesNotChangeAHead) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 10, 0);
  const MemoryTrace trace = traceOf(spec, {2, 5}, 5, 0.9);
  const auto params = Setting{.sparsity = 0.6, .threshold = 0.5}.params();
  const RunReport all = run(trace, params);
  const RunReport one = run(trace, params, false, "4");
  ASSERT_EQ(one.heads.size(), 2U);
  EXPECT_EQ(one.heads[0].plan.blockMask, all.heads[4].plan.blockMask);
  EXPECT_EQ(one.heads[1].plan.blockMask, all.heads[9].plan.blockMask);
  EXPECT_EQ(one.heads[0].plan.levels, all.heads[4].plan.levels);
}

TEST_F(Adaspa, WarmupEndsWithTheFirstSearch) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 10, 0);
  const MemoryTrace trace = traceOf(spec, {1, 2, 3, 5}, 3, 0.9);
  const auto params = Setting{.sparsity = 0.6, .threshold = 0.5}.params();
  const RunReport off = run(trace, params), on = run(trace, params, true);
  EXPECT_EQ(on.warmup.denseSteps, 3);
  EXPECT_EQ(on.warmup.denseLayers, 0);
  for (std::size_t n = 0; n < off.heads.size(); ++n) {
    const bool dense = on.heads[n].id.call.step <= 2;
    EXPECT_EQ(on.heads[n].wouldBeDense, dense);
    // The dense step of the first search searches all the same: what follows is equal.
    if (dense) {
      EXPECT_EQ(on.heads[n].evaluation.keptFraction, 1.0);
    } else {
      EXPECT_EQ(on.heads[n].plan.blockMask, off.heads[n].plan.blockMask);
      EXPECT_EQ(on.heads[n].plan.facts.at("lse_from_step"), 2);
    }
  }
}

TEST_F(Adaspa, MoreBudgetCanLowerAHeadsMassWhenLevelsAreOn) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 10, 0);
  const MemoryTrace trace = traceOf(spec, {2}, 5, 0.9);
  // At a larger budget more heads pass the threshold; some head is then taken down a level.
  std::vector<double> before(5, 0);
  int lowered = 0, loweredWithout = 0;
  for (const bool levels : {true, false}) {
    before.assign(5, 0);
    for (int kept = 10; kept <= 90; kept += 5) {
      auto params = Setting{.levels = levels}.params();
      params.push_back(fmt::format("kept={}", kept / 100.0));
      const RunReport report = run(trace, params);
      for (std::size_t h = 0; h < 5; ++h) {
        const double mass = report.heads[h].evaluation.keptMass;
        if (mass < before[h] - 1e-4) ++(levels ? lowered : loweredWithout);
        before[h] = mass;
      }
    }
  }
  EXPECT_GT(lowered, 0);
  EXPECT_EQ(loweredWithout, 0);
}

TEST_F(Adaspa, KeptIsOneMinusSparsity) {
  const auto specs = methodById("adaspa").params();
  EXPECT_EQ(ParamSet::parse(specs, {"kept=0.1"}).text("sparsity"), "0.9");
  EXPECT_EQ(ParamSet::parse(specs, {"kept=0.25"}).text("sparsity"), "0.75");
  try {
    (void)ParamSet::parse(specs, {"kept=1.5"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::InvalidArgument);
    EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("kept"), HasSubstr("0 to 1"), HasSubstr("1.5")));
  }
}

TEST_F(Adaspa, RefusesASubsetOfRows) {
  HeadSpec spec;
  spec.qRows = {1, 5, 7};
  try {
    (void)planOf("adaspa", {}, makeHead(spec), *backend);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Unsupported);
    EXPECT_THAT(error.what(), HasSubstr("3 of 60 query rows"));
  }
}

}  // namespace
}  // namespace sparsight

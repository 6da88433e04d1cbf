// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "sampling.h"
#include "svg_rules.h"
#include "tests/unit/core/svg_oracle.h"

namespace sparsight {
namespace {
using namespace test;
using testing::HasSubstr;

class FakePrepared final : public PreparedHead {
 public:
  explicit FakePrepared(const AttentionIn& in) : PreparedHead(in, nullptr) {}
  [[nodiscard]] Index bytes() const noexcept override { return 0; }
};

class Svg : public testing::Test {
 protected:
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);

  // A head of real size without tensors: the band does not look at them when the class is given.
  Plan bandOf(const TokenLayout& layout, const std::string& family, const std::string& kept, Index prompt = -1,
              const std::string& variant = "reference") {
    m_head = HeadData{};
    m_head.layout = layout;
    m_head.family = family;
    m_head.input.q.rows = m_head.input.k.rows = layout.tokenCount;
    m_head.input.q.cols = m_head.input.k.cols = 128;
    if (prompt >= 0) {
      m_valid.assign(at(layout.tokenCount), 1);
      const Segment* text = layout.text();
      for (Index i = prompt; i < text->length; ++i) m_valid[at(text->start + i)] = 0;
      m_head.input.keyValid = m_valid;
    }
    const Method& method = methodById("svg");
    const ParamSet params = paramsFor(method, {"kept=" + kept, "force_class=spatial", "variant=" + variant}, m_head);
    const FakePrepared prepared(m_head.input);
    const MethodInput input{m_head, prepared, params, 0, 0, 0, 50, 40, {}, nullptr, true};
    Plan plan = method.plan(input, nullptr, *backend, {});
    plan.validate();
    return plan;
  }
  HeadData m_head;
  std::vector<std::uint8_t> m_valid;
};

struct TableRow {
  const char* name;
  const char* family;
  int T, height, width, text;
  bool textFirst;
  Index prompt;
  const char* kept;
  double frames;
  Index radius;
  double band, element, block;  // 0: not stated
};

// Published sizes; R, band-only, element and 128-block density by exact counts.
TEST_F(Svg, WidthsAndDensitiesOfTheModels) {
  const std::vector<TableRow> table{
      {"wan 720p", "wan2.1", 21, 45, 80, 0, false, -1, "0.20", 2.217, 8064, .2020, .2434, .2459},
      {"wan 720p", "wan2.1", 21, 45, 80, 0, false, -1, "0.25", 2.8135, 10240, .2526, .2926, .2950},
      {"wan 720p", "wan2.1", 21, 45, 80, 0, false, -1, "0.30", 3.4301, 12416, .3015, .3402, .3425},
      {"wan 480p", "wan2.1", 21, 30, 52, 0, false, -1, "0.25", 2.8135, 4480, .2548, .2948, .3006},
      {"wan 480p", "wan2.1", 21, 30, 52, 0, false, -1, "0.30", 3.4301, 5376, .3013, .3400, .3455},
      {"cosmos", "cosmos1.0", 16, 44, 80, 0, false, -1, "0.25", 2.1436, 7552, .2502, .3024, .3052},
      {"hunyuan 720p", "hunyuanvideo", 33, 45, 80, 256, false, 100, "0.20", 3.412, 12160, .1936, .1951, .1961},
      {"hunyuan 720p", "hunyuanvideo", 33, 45, 80, 256, false, 100, "0.25", 4.3487, 15616, .2448, .2462, .2471},
      {"hunyuan 480p", "hunyuanvideo", 33, 30, 45, 256, false, 100, "0.20", 3.2927, 4352, .1841, .1882, .1910},
      {"cog v1.5", "cogvideox1.5", 11, 48, 85, 226, true, -1, "0.25", 1.4174, 5760, 0, 0, 0},
      {"cog v1", "cogvideox", 13, 30, 45, 226, true, -1, "0.25", 1.5724, 2048, 0, 0, 0},
  };
  for (const TableRow& row : table) {
    SCOPED_TRACE(std::string(row.name) + " kept " + row.kept);
    const TokenLayout layout = layoutOf(row.T, row.height, row.width, row.text, row.textFirst);
    const Plan plan = bandOf(layout, row.family, row.kept, row.prompt);
    EXPECT_NEAR(plan.facts.at("band_frames"), row.frames, 1e-4 * 1.01);
    EXPECT_EQ(static_cast<Index>(plan.facts.at("band_tokens")), row.radius);
    if (row.element == 0) continue;
    AttentionIn everything = m_head.input;
    everything.keyValid = {};
    const PairCounts counts = countPairs(plan, everything, {});
    EXPECT_NEAR(counts.kept / counts.all, row.element, 5.1e-5);
    const auto skipped = std::count(plan.blockMask.begin(), plan.blockMask.end(), std::uint8_t{0});
    EXPECT_NEAR(1.0 - static_cast<double>(skipped) / static_cast<double>(plan.blockMask.size()), row.block, 5.1e-5);
    // The same by token area, which the ragged last blocks barely change.
    EXPECT_NEAR(counts.blockKept / counts.blockAll, row.block, 1e-3);
    const double real =
        static_cast<double>(row.prompt < 0 ? layout.tokenCount : layout.tokenCount - row.text + row.prompt);
    const double r = static_cast<double>(row.radius) + (row.prompt < 0 ? 0.5 : -0.5);  // <= R or < R, each side
    const double band = (2.0 * r * real + real - real - r * r) / (counts.all);
    EXPECT_NEAR(band, row.band, 1.01e-4);
  }
}

TEST_F(Svg, EveryRuleEqualsThePairwiseReading) {
  struct Variant {
    SvgCase c;
    int height;
    const char* kept;
  };
  std::vector<Variant> cases;
  for (const bool sparsevideo : {false, true}) {
    cases.push_back({{"wan", sparsevideo, 4, 150, 0, 0, false}, 10, "0.3"});
    cases.push_back({{"wan", sparsevideo, 5, 24, 0, 0, false}, 4, "0.25"});
    cases.push_back({{"hunyuan", sparsevideo, 4, 160, 9, 5, false}, 10, "0.5"});
    cases.push_back({{"hunyuan", sparsevideo, 4, 160, 9, 9, false}, 10, "0.02"});
    cases.push_back({{"cogvideox", sparsevideo, 4, 160, 9, 9, true}, 10, "0.6"});
  }
  unsigned seed = 10;
  for (const Variant& variant : cases) {
    const SvgCase& c = variant.c;
    SCOPED_TRACE(c.rule + (c.sparsevideo ? " sparsevideo" : " reference") + " kept " + variant.kept);
    const HeadData head = makeHead(svgHeadSpec(c, variant.height, seed++));
    Draws draws;
    for (Index n = 0; n < 12; ++n)
      draws.sampledRows.push_back((c.C + 7 + n * 53) % (c.S() - c.C) + (c.frontText() ? c.C : 0));
    draws.sampledRows.push_back(draws.sampledRows.front());  // drawn with replacement
    const std::string name = c.sparsevideo ? "variant=sparsevideo" : "variant=reference";
    const Plan plan = planOf("svg", {std::string("kept=") + variant.kept, name}, head, *backend, true, 0, &draws);
    const SvgOracle oracle = svgOracle(c, head, draws.sampledRows, std::stod(variant.kept));
    ASSERT_TRUE(plan.mse);
    for (const int m : {0, 1}) {
      EXPECT_NEAR(static_cast<double>(plan.mse->at(static_cast<std::size_t>(m))), oracle.mse[m],
                  1e-4 * oracle.mse[m] + 1e-9);
    }
    EXPECT_EQ(plan.headClass, oracle.temporal ? HeadClass::Temporal : HeadClass::Spatial);
    for (Index p = 0; p < c.S(); ++p) {
      const Index token = svgTokenAt(c, oracle.temporal, p);
      ASSERT_EQ(plan.kOrder.empty() ? p : plan.kOrder[at(p)], token);
      ASSERT_EQ(plan.qOrder.empty() ? p : plan.qOrder[at(p)], token);
      std::vector<std::uint8_t> row(at(c.S()), 0);
      for (const Interval& interval : plan.keptIntervals(p)) {
        for (Index k = interval.first; k < interval.last; ++k) row[at(k)] = 1;
      }
      const auto want = oracle.kept.begin() + p * c.S();
      ASSERT_TRUE(std::equal(row.begin(), row.end(), want)) << "row position " << p;
    }
  }
}

TEST_F(Svg, ProfilingRowsEqualThePairwiseReading) {
  for (const bool sparsevideo : {false, true}) {
    for (const char* rule : {"wan", "hunyuan", "cogvideox"}) {
      const bool text = std::string(rule) != "wan";
      const SvgCase c{rule, sparsevideo, 3, 200, text ? 40 : 0, text ? 30 : 0, std::string(rule) == "cogvideox"};
      const HeadData head = makeHead(svgHeadSpec(c, 10, 3));
      const ParamSet params =
          paramsFor(methodById("svg"), {sparsevideo ? "variant=sparsevideo" : "variant=reference"}, head);
      const SvgGeometry geometry = svgGeometry(head, params);
      for (const bool temporal : {false, true}) {
        for (Index q = 0; q < c.S(); ++q) {
          std::vector<bool> got(at(c.S()), false);
          for (const Interval& interval : svgProfileRow(geometry, temporal, q)) {
            for (Index k = interval.first; k < interval.last; ++k) got[at(k)] = true;
          }
          for (Index k = 0; k < c.S(); ++k) {
            ASSERT_EQ(got[at(k)], svgProfileKeeps(c, temporal, q, k))
                << rule << (sparsevideo ? " sparsevideo" : "") << (temporal ? " temporal " : " spatial ") << q << ","
                << k;
          }
        }
      }
    }
  }
}

TEST_F(Svg, CogVideoXTextRowHasNoTemporalMask) {
  // The shipped temporal mask has no text row: its loss is undefined, and argmin then takes it.
  const SvgCase c{"cogvideox", false, 3, 200, 40, 40, true};
  const HeadData head = makeHead(svgHeadSpec(c, 10, 3));
  Draws draws;
  draws.sampledRows = {100, 7, 300};  // 7 is a text token
  const Plan plan = planOf("svg", {}, head, *backend, false, 0, &draws);
  EXPECT_EQ(plan.headClass, HeadClass::Temporal);
  EXPECT_TRUE(std::isnan(plan.mse->at(1)));
  EXPECT_FALSE(std::isnan(plan.mse->at(0)));
  EXPECT_FALSE(plan.margin);
  EXPECT_THAT(plan.warnings, testing::Contains(HasSubstr("undefined")));
  // The runtime puts the text behind the video and keeps it whole: nothing undefined there.
  draws.sampledRows = {100, 607, 300};
  const Plan other = planOf("svg", {"variant=sparsevideo"}, head, *backend, false, 0, &draws);
  EXPECT_FALSE(std::isnan(other.mse->at(1)));
}

TEST_F(Svg, OrdersAreInverseToEachOther) {
  for (const int text : {0, 11}) {
    for (const bool first : {false, true}) {
      const SvgCase c{text == 0 ? "wan" : first ? "cogvideox" : "hunyuan", false, 5, 24, text, text, first};
      const HeadData head = makeHead(svgHeadSpec(c, 4, 1));
      const SvgGeometry geometry = svgGeometry(head, paramsFor(methodById("svg"), {}, head));
      const std::vector<Index> order = svgOrder(geometry, true);
      std::vector<Index> back(order.size());
      for (std::size_t p = 0; p < order.size(); ++p) back[at(order[p])] = static_cast<Index>(p);
      for (Index token = 0; token < c.S(); ++token) {
        EXPECT_EQ(order[at(back[at(token)])], token);
        const Index video = token - geometry.modelVideoStart;
        if (video >= 0 && video < c.V()) {
          // out[p * T + f] = in[f * F + p]
          EXPECT_EQ(back[at(token)] - geometry.videoStart, (video % c.F) * c.T + video / c.F);
        } else {
          EXPECT_EQ(back[at(token)], token);
        }
      }
    }
  }
}

TEST_F(Svg, KeepingEverythingIsDense) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 10, 20, 0);
  const HeadData head = makeHead(spec);
  const Plan plan = planOf("svg", {"kept=1"}, head, *backend);
  const Evaluation numbers = evaluatePlan(plan, head, {}, *backend, {});
  EXPECT_DOUBLE_EQ(numbers.keptFraction, 1.0);
  EXPECT_DOUBLE_EQ(numbers.keptMass, 1.0);
  EXPECT_NEAR(*numbers.outputRelError, 0, 1e-6);
}

TEST_F(Svg, DrawsAreSplitMixKeyedByTheCall) {
  SeededRandom zero(0);
  EXPECT_EQ(zero.next(), 0xE220A8397B1DCDAFULL);  // published first outputs of SplitMix64, seed 0
  EXPECT_EQ(zero.next(), 0x6E789E6AA1B965F4ULL);
  CallId call;
  call.branch = "cond";
  std::set<std::uint64_t> seeds{callSeed(0, call), callSeed(1, call)};
  call.step = 1;
  seeds.insert(callSeed(0, call));
  call.layer = 1;
  seeds.insert(callSeed(0, call));
  call.branch = "uncond";
  seeds.insert(callSeed(0, call));
  EXPECT_EQ(seeds.size(), 5U);
  SeededRandom random(7);
  std::vector<Index> counts(5, 0);
  for (int n = 0; n < 50000; ++n) ++counts[at(random.below(5))];
  for (const Index count : counts) EXPECT_NEAR(static_cast<double>(count), 10000, 500);
}

TEST_F(Svg, ThreadsAndHeadIndexDoNotMatter) {
  const HeadData head = makeHead(svgHeadSpec({"hunyuan", false, 4, 160, 9, 5, false}, 10, 5));
  const Plan plan = planOf("svg", {}, head, *backend, false, 42);
  Executor seven(7);
  const auto other = createBackend("cpu", seven);
  const Plan again = planOf("svg", {}, head, *other, false, 42);
  EXPECT_EQ(*plan.mse, *again.mse);
  EXPECT_EQ(plan.rowIntervals, again.rowIntervals);
  EXPECT_NE(*plan.mse, *planOf("svg", {}, head, *backend, false, 43).mse);
}

TEST_F(Svg, ForcedClassNeedsNoValues) {
  HeadSpec spec = svgHeadSpec({"wan", false, 3, 20, 0, 0, false}, 4, 1);
  spec.withV = false;
  const HeadData head = makeHead(spec);
  const Plan plan = planOf("svg", {"force_class=temporal"}, head, *backend);
  EXPECT_EQ(plan.headClass, HeadClass::Temporal);
  EXPECT_FALSE(plan.mse);
  try {
    (void)planOf("svg", {}, head, *backend);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Unsupported);
    EXPECT_THAT(error.what(), HasSubstr("values (V) were not captured"));
  }
}

TEST_F(Svg, QuerySubsetKeepsTheSameKeysAsTheWholeHead) {
  HeadSpec spec = svgHeadSpec({"hunyuan", false, 4, 160, 9, 5, false}, 10, 6);
  const HeadData whole = makeHead(spec);
  spec.qRows = {0, 1, 77, 130, 131, 300, 512, 639, 640, 644, 648};
  const HeadData part = makeHead(spec);
  for (const char* forced : {"force_class=spatial", "force_class=temporal"}) {
    const Plan all = planOf("svg", {"kept=0.4", forced}, whole, *backend);
    const Plan some = planOf("svg", {"kept=0.4", forced}, part, *backend);
    EXPECT_EQ(some.qBlocks(), all.qBlocks());
    for (std::size_t row = 0; row < spec.qRows.size(); ++row) {
      for (Index key = 0; key < 649; ++key) {
        ASSERT_EQ(isKept(some, static_cast<Index>(row), key), isKept(all, spec.qRows[row], key)) << row << "," << key;
      }
    }
  }
  // Profiling draws from the stored rows only, and refuses given rows that were not stored.
  EXPECT_NE(planOf("svg", {}, part, *backend).headClass, HeadClass::None);
  Draws draws;
  draws.sampledRows = {2};
  EXPECT_THROW((void)planOf("svg", {}, part, *backend, false, 0, &draws), Error);
}

TEST_F(Svg, UnsupportedHeadsSayWhy) {
  const auto reason = [&](HeadSpec spec, const std::vector<std::string>& params, const char* kind = "self") {
    HeadData head = makeHead(spec);
    head.id.call.kind = kind;
    try {
      (void)planOf("svg", params, head, *backend);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::Unsupported);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  HeadSpec text;
  text.layout = layoutOf(3, 4, 5, 7);
  EXPECT_THAT(reason(text, {"model_rule=wan"}),
              testing::AllOf(HasSubstr("7 of the 67"), HasSubstr("model_rule=hunyuan")));
  EXPECT_THAT(reason(text, {"model_rule=cogvideox"}), HasSubstr("before the video"));
  EXPECT_THAT(reason(text, {"model_rule=hunyuan"}, "cross"), HasSubstr("cross-attention"));
  HeadSpec plain;
  plain.layout.tokenCount = 30;
  plain.layout.segments = {{SegmentKind::Text, 0, 30, 0, 0, 0}};
  EXPECT_THAT(reason(plain, {}), HasSubstr("video segment"));
}

TEST_F(Svg, DefaultsFollowTheFamily) {
  const auto value = [](const char* family, const TokenLayout& layout, const char* name) {
    HeadData head;
    head.family = family;
    head.layout = layout;
    return paramsFor(methodById("svg"), {}, head).text(name);
  };
  const TokenLayout plain = layoutOf(2, 2, 2, 0);
  EXPECT_EQ(value("wan2.1", plain, "sparsity"), "0.3");
  EXPECT_EQ(value("cosmos", plain, "sparsity"), "0.25");
  EXPECT_EQ(value("hunyuanvideo", layoutOf(2, 2, 2, 3), "sparsity"), "0.25");
  EXPECT_EQ(value("cogvideox", layoutOf(2, 2, 2, 3, true), "num_sampled_rows"), "32");
  EXPECT_EQ(value("wan2.1", plain, "num_sampled_rows"), "64");
  EXPECT_EQ(value("wan2.1", plain, "sample_mse_max_row"), "10000");
}

TEST_F(Svg, PlannerCostIsThatOfTheMethod) {
  const HeadData head = makeHead(svgHeadSpec({"wan", false, 3, 20, 0, 0, false}, 4, 1));
  const Plan plan = planOf("svg", {"num_sampled_rows=10"}, head, *backend);
  EXPECT_DOUBLE_EQ(plan.plannerFlops, 10.0 * 60 * 8 * (2 + 6));
}

}  // namespace
}  // namespace sparsight

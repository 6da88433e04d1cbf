// SPDX-License-Identifier: Apache-2.0
// Properties of the clustering and searching methods over random sizes, layouts, budgets and draws.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>

#include "clustering.h"
#include "tests/unit/core/method_test_support.h"

#if SPARSIGHT_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#endif

namespace sparsight {
namespace {
using namespace test;

#if SPARSIGHT_HAVE_RAPIDCHECK

struct Kit {
  Executor one{1}, two{2}, seven{7};
  std::unique_ptr<Backend> single = createBackend("cpu", one), backend = createBackend("cpu", two),
                           many = createBackend("cpu", seven);
};
Kit& kit() {
  static Kit shared;
  return shared;
}

HeadSpec anyHead() {
  HeadSpec spec;
  const int text = *rc::gen::element(0, 0, 5, 11);
  spec.layout = layoutOf(*rc::gen::inRange(1, 5), *rc::gen::inRange(2, 9), *rc::gen::inRange(3, 20), text,
                         text > 0 && *rc::gen::arbitrary<bool>());
  spec.family = text == 0 ? "wan2.1" : "hunyuanvideo";
  spec.paddingText = text > 0 ? *rc::gen::inRange(0, text) : 0;
  spec.seed = *rc::gen::inRange(1U, 1000U);
  spec.spread = *rc::gen::element(0.5, 2.0, 6.0);
  return spec;
}

// Settings of a method that leave the budget to its knob.
std::vector<std::string> settingsOf(const std::string& id) {
  if (id == "adaspa") {
    return {"levels=off", fmt::format("block_size={}", *rc::gen::inRange(2, 30)),
            *rc::gen::element(std::string("selection=row"), std::string("selection=global")),
            *rc::gen::element(std::string("align=pad"), std::string("align=superset"))};
  }
  return {"min_kc_ratio=0", "kmeans_iter=3",
          *rc::gen::element(std::string("variant=reference"), std::string("variant=sparsevideo"))};
}
std::string knob(const std::string& id, double kept) {
  return id == "adaspa" ? fmt::format("kept={}", kept) : fmt::format("top_p_kmeans={}", kept);
}
std::string anyMethod() { return *rc::gen::element(std::string("svg2"), std::string("svoo"), std::string("adaspa")); }

bool holds(const char* what, const std::function<void()>& property) { return rc::check(what, property); }

TEST(ClusterMethods, MoreBudgetNeverLowersTheMass) {
  EXPECT_TRUE(holds("kept pairs, and so kept mass, rise with the knob", [] {
    const HeadData head = makeHead(anyHead());
    const std::string id = anyMethod();
    const auto shared = settingsOf(id);
    int low = *rc::gen::inRange(0, 101), high = *rc::gen::inRange(0, 101);
    if (low > high) std::swap(low, high);
    const auto planAt = [&](int percent) {
      auto params = shared;
      params.push_back(knob(id, percent / 100.0));
      return planOf(id, params, head, *kit().backend);
    };
    const Plan a = planAt(low), b = planAt(high);
    for (std::size_t i = 0; i < a.blockMask.size(); ++i) RC_ASSERT(b.blockMask[i] >= a.blockMask[i]);
    const double less = evaluatePlan(a, head, {}, *kit().backend, {}).keptMass;
    RC_ASSERT(evaluatePlan(b, head, {}, *kit().backend, {}).keptMass >= less - 1e-5);
  }));
}

TEST(ClusterMethods, KMeansRoundsAreThoseOfShorterRuns) {
  EXPECT_TRUE(holds("what round n shows is what kMeans gives after n iterations", [] {
    const HeadData head = makeHead(anyHead());
    const Segment& video = *head.layout.video();
    ClusterGeometry geometry;
    geometry.tokens = head.layout.tokenCount;
    geometry.videoStart = video.start;
    geometry.videoTokens = video.length;
    const Side side = *rc::gen::element(Side::Query, Side::Key);
    KMeansOptions options;
    options.distance = *rc::gen::element(Distance::Euclid, Distance::Cosine, Distance::Dot);
    options.returnMovedOnStop = *rc::gen::arbitrary<bool>();
    options.iterations = *rc::gen::inRange(0, 9);
    std::vector<float> seeds;
    const Index dim = head.input.q.cols;
    for (Index c = 0, count = *rc::gen::inRange<Index>(1, 7); c < count; ++c) {
      seeds.resize(seeds.size() + at(dim));
      rowToFloat(side == Side::Query ? head.input.q : head.input.k,
                 video.start + *rc::gen::inRange<Index>(0, video.length), std::span(seeds).last(at(dim)));
    }
    Backend& backend = *kit().backend;
    const auto prepared = backend.prepare(head.input, head.keepAlive, {});
    std::vector<Clustering> rounds;
    bool stopped = false;
    KMeansOptions watched = options;
    watched.onRound = [&](const Clustering& now, double, bool ended) {
      rounds.push_back(now);
      stopped = ended;
    };
    const Clustering whole = kMeans(*prepared, geometry, side, seeds, watched, backend, {});
    const Clustering unwatched = kMeans(*prepared, geometry, side, seeds, options, backend, {});
    RC_ASSERT(whole.labels == unwatched.labels && whole.centroids == unwatched.centroids);
    RC_ASSERT(!rounds.empty() && rounds.back().labels == whole.labels && rounds.back().sizes == whole.sizes);
    RC_ASSERT(stopped || static_cast<Index>(rounds.size()) == options.iterations);
    for (std::size_t n = 0; n < rounds.size(); ++n) {
      KMeansOptions shorter = options;
      shorter.iterations = options.iterations == 0 ? 0 : static_cast<Index>(n) + 1;
      const Clustering brief = kMeans(*prepared, geometry, side, seeds, shorter, backend, {});
      RC_ASSERT(rounds[n].labels == brief.labels);
      RC_ASSERT(rounds[n].sizes == brief.sizes);
      RC_ASSERT(rounds[n].objective == brief.objective);
    }
  }));
}

TEST(ClusterMethods, EverythingKeptIsDense) {
  EXPECT_TRUE(holds("p = 1 with ratio 1 equals dense", [] {
    const HeadData head = makeHead(anyHead());
    const std::string id = *rc::gen::element(std::string("svg2"), std::string("svoo"));
    const Plan plan = planOf(id, {"top_p_kmeans=1", "min_kc_ratio=1", "kmeans_iter=2"}, head, *kit().backend);
    const Evaluation numbers = evaluatePlan(plan, head, {}, *kit().backend, {});
    RC_ASSERT(numbers.keptFraction == 1.0);
    RC_ASSERT(numbers.keptMass == 1.0);
    RC_ASSERT(*numbers.outputRelError < 1e-5);
  }));
}

TEST(ClusterMethods, TokenOracleBoundsThem) {
  EXPECT_TRUE(holds("oracle_token with scope global keeps at least the mass of as many pairs", [] {
    const HeadData head = makeHead(anyHead());
    const std::string id = anyMethod();
    auto params = settingsOf(id);
    params.push_back(knob(id, *rc::gen::inRange(1, 100) / 100.0));
    const Evaluation numbers = evaluatePlan(planOf(id, params, head, *kit().backend), head, {}, *kit().backend, {});
    const Plan bound =
        planOf("oracle_token", {fmt::format("kept={}", std::min(1.0, numbers.keptFraction))}, head, *kit().backend);
    const Evaluation best = evaluatePlan(bound, head, {}, *kit().backend, {});
    RC_ASSERT(std::abs(best.keptFraction - numbers.keptFraction) < 1e-9);
    RC_ASSERT(best.keptMass >= numbers.keptMass - 1e-5);
  }));
}

TEST(ClusterMethods, NumbersOfClustersHaveNoMeaning) {
  EXPECT_TRUE(holds("seeds in another order keep the same pairs", [] {
    const HeadData head = makeHead(anyHead());
    const Index video = head.layout.video()->length;
    const auto seeds = [&](Index wanted) {
      std::vector<Index> all(at(video));
      std::iota(all.begin(), all.end(), Index{0});
      for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[*rc::gen::inRange<std::size_t>(0, i)]);
      all.resize(at(std::min(wanted, video)));
      return all;
    };
    Draws draws;
    draws.initQ = {seeds(4)};
    draws.initK = {seeds(7)};
    Draws reversed = draws;
    std::reverse(reversed.initQ[0].begin(), reversed.initQ[0].end());
    std::reverse(reversed.initK[0].begin(), reversed.initK[0].end());
    const std::string id = *rc::gen::element(std::string("svg2"), std::string("svoo"));
    const std::vector<std::string> params{"kmeans_iter=2", "top_p_kmeans=0.6", "min_kc_ratio=0.2"};
    const Plan a = planOf(id, params, head, *kit().backend, false, 0, &draws);
    const Plan b = planOf(id, params, head, *kit().backend, false, 0, &reversed);
    const Naive naive(head, false);
    RC_ASSERT(keptPairs(a, naive) == keptPairs(b, naive));
  }));
}

TEST(ClusterMethods, OrdersAndTheirInversesUndoEachOther) {
  EXPECT_TRUE(holds("permuting tokens and back is the identity", [] {
    const HeadData head = makeHead(anyHead());
    const std::string id = *rc::gen::element(std::string("svg2"), std::string("svoo"));
    const Plan plan = planOf(id, {"kmeans_iter=2"}, head, *kit().backend);
    RC_PRE(!plan.kOrder.empty());
    std::vector<Index> inverse(plan.kOrder.size());
    for (std::size_t i = 0; i < plan.kOrder.size(); ++i) inverse[at(plan.kOrder[i])] = static_cast<Index>(i);
    const OwnedMatrix there = gatherRows(head.input.k, plan.kOrder);
    const OwnedMatrix back = gatherRows(there.view, inverse);
    std::vector<float> a(at(head.input.k.cols)), b(a);
    for (Index row = 0; row < head.input.k.rows; ++row) {
      rowToFloat(head.input.k, row, a);
      rowToFloat(back.view, row, b);
      RC_ASSERT(a == b);
    }
  }));
}

TEST(ClusterMethods, ThreadsDoNotMatter) {
  EXPECT_TRUE(holds("1, 2 and 7 threads plan the same, to the bit", [] {
    const HeadData head = makeHead(anyHead());
    const std::string id = anyMethod();
    auto params = settingsOf(id);
    params.push_back(knob(id, 0.6));
    const Plan one = planOf(id, params, head, *kit().single);
    for (Backend* backend : {kit().backend.get(), kit().many.get()}) {
      const Plan other = planOf(id, params, head, *backend);
      RC_ASSERT(one.blockMask == other.blockMask);
      RC_ASSERT(one.qLabels == other.qLabels);
      RC_ASSERT(one.kCentroids == other.kCentroids);
      RC_ASSERT(one.kOrder == other.kOrder);
      RC_ASSERT(std::equal(one.scores.begin(), one.scores.end(), other.scores.begin(), other.scores.end(),
                           [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }));
    }
  }));
}

#else
TEST(ClusterMethods, NeedsRapidCheck) { GTEST_SKIP() << "built without RapidCheck: properties NOT checked"; }
#endif

}  // namespace
}  // namespace sparsight

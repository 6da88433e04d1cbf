// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/method.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/unit/core/method_test_support.h"

namespace sparsight {
namespace {
using namespace test;

TraceInfo infoOf(const char* family, int steps, int layers, std::vector<double> timesteps = {}, int text = 0) {
  TraceInfo info;
  info.model.family = family;
  info.model.numLayers = layers;
  info.run.numInferenceSteps = steps;
  info.run.timesteps = std::move(timesteps);
  info.layout = layoutOf(2, 2, 2, text);
  return info;
}

WarmupGate gateOf(const TraceInfo& info, const std::vector<std::string>& params) {
  const Method& method = methodById("svg");
  return method.warmup(info, resolveParams(method, info, ParamSet::parse(method.params(), params)));
}

std::vector<double> linear(int steps, double top) {
  std::vector<double> timesteps;
  for (int i = 0; i < steps; ++i) timesteps.push_back(top - top * i / steps);
  return timesteps;
}

TEST(Method, TheTableIsSortedAndComplete) {
  std::vector<std::string> ids;
  for (const Method* method : allMethods()) ids.emplace_back(method->id());
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
  EXPECT_THAT(ids, testing::IsSupersetOf({"dense", "oracle_block", "oracle_token", "svg"}));
  EXPECT_EQ(&methodById("svg"), &methodById("svg"));
  try {
    (void)methodById("svg9");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::InvalidArgument);
    EXPECT_THAT(error.what(), testing::HasSubstr("dense, oracle_block, oracle_token, svg, svg2"));
  }
}

TEST(Method, EveryParameterIsDescribed) {
  for (const Method* method : allMethods()) {
    EXPECT_FALSE(method->title().empty());
    EXPECT_FALSE(method->summary().empty());
    std::vector<std::string> names;
    std::set<std::string> aliases;  // one alias may set several parameters
    for (const ParamSpec& spec : method->params()) {
      SCOPED_TRACE(std::string(method->id()) + "." + spec.name);
      EXPECT_FALSE(spec.meaning.empty());
      EXPECT_FALSE(spec.source.empty());
      names.push_back(spec.name);
      aliases.insert(spec.aliases.begin(), spec.aliases.end());
      if (!spec.complement.empty()) names.push_back(spec.complement);
      // The declared default is itself accepted.
      EXPECT_NO_THROW((void)ParamSet::parse(method->params(), {spec.name + "=" + spec.defaultValue}));
    }
    names.insert(names.end(), aliases.begin(), aliases.end());
    std::sort(names.begin(), names.end());
    EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
  }
}

TEST(Method, ModelRuleByFamilyThenByText) {
  const TokenLayout none = layoutOf(2, 2, 2, 0), last = layoutOf(2, 2, 2, 3), first = layoutOf(2, 2, 2, 3, true);
  EXPECT_EQ(resolveModelRule("auto", "wan2.1", last), ModelRule::Wan);
  EXPECT_EQ(resolveModelRule("auto", "Cosmos", none), ModelRule::Wan);
  EXPECT_EQ(resolveModelRule("auto", "ltx", none), ModelRule::Wan);
  EXPECT_EQ(resolveModelRule("auto", "hunyuanvideo", none), ModelRule::Hunyuan);
  EXPECT_EQ(resolveModelRule("auto", "cogvideox", last), ModelRule::CogVideoX);
  EXPECT_EQ(resolveModelRule("auto", "easyanimate", last), ModelRule::CogVideoX);
  EXPECT_EQ(resolveModelRule("auto", "tinydit", none), ModelRule::Wan);
  EXPECT_EQ(resolveModelRule("auto", "tinydit", last), ModelRule::Hunyuan);
  EXPECT_EQ(resolveModelRule("auto", "", first), ModelRule::CogVideoX);
  EXPECT_EQ(resolveModelRule("hunyuan", "wan2.1", none), ModelRule::Hunyuan);
  EXPECT_THROW((void)resolveModelRule("mochi", "", none), Error);
}

TEST(Method, WarmupOfTheLaunchScripts) {
  WarmupGate gate = gateOf(infoOf("wan2.1", 50, 40), {});
  EXPECT_EQ(gate.denseSteps, 10);
  EXPECT_EQ(gate.denseLayers, 1);
  EXPECT_EQ(gate.text, "steps 0-9 of 50 dense, layer 0 of 40 dense");
  gate = gateOf(infoOf("wan2.1", 50, 30), {});
  EXPECT_EQ(gate.denseLayers, 0);  // floor(0.03 * 30)
  EXPECT_EQ(gate.text, "steps 0-9 of 50 dense, no layer of 30 dense");
  gate = gateOf(infoOf("hunyuanvideo", 50, 60, {}, 3), {});
  EXPECT_EQ(gate.denseSteps, 5);
  EXPECT_EQ(gate.denseLayers, 1);
  EXPECT_EQ(gateOf(infoOf("hunyuanvideo", 50, 60, {}, 3), {"first_times_fp=0.04"}).denseSteps, 2);
  EXPECT_EQ(gateOf(infoOf("cosmos", 35, 36), {}).denseSteps, 10);
  EXPECT_TRUE(gate.dense(4, 30) && gate.dense(20, 0) && !gate.dense(5, 1));
}

TEST(Method, WarmupFloorsTheBinaryProduct) {
  // 0.29 * 100 is 28.999999999999996 in binary, and the reference floors that.
  EXPECT_EQ(gateOf(infoOf("wan2.1", 100, 40), {"first_times_fp=0.29"}).denseSteps, 28);
  EXPECT_EQ(gateOf(infoOf("wan2.1", 50, 100), {"first_layers_fp=0.07"}).denseLayers, 7);
  EXPECT_EQ(gateOf(infoOf("wan2.1", 50, 40), {"first_times_fp=0"}).denseSteps, 0);
  EXPECT_EQ(gateOf(infoOf("wan2.1", 50, 40), {"first_times_fp=1"}).denseSteps, 50);
}

TEST(Method, WarmupThresholdIsATimestep) {
  // Neighbours less than 1 apart fall above timesteps[n - 1] - 1, too.
  EXPECT_EQ(gateOf(infoOf("wan2.1", 5, 40, {1000, 999.7, 999.2, 998.5, 500}), {"first_times_fp=0.2"}).denseSteps, 3);
  EXPECT_EQ(gateOf(infoOf("wan2.1", 5, 40, {1000, 900, 800, 700, 500}), {"first_times_fp=0.2"}).denseSteps, 1);
  // Cosmos counts noise levels, with a margin of 0.01.
  EXPECT_EQ(gateOf(infoOf("cosmos", 5, 40, {1.1, 1.095, 0.5, -0.5, -1.6}), {"first_times_fp=0.2"}).denseSteps, 2);
  // A schedule in 0..1 must not fall wholly above "minus 1".
  EXPECT_EQ(gateOf(infoOf("wan2.1", 5, 40, {1.0, 0.8, 0.6, 0.4, 0.2}), {"first_times_fp=0.4"}).denseSteps, 2);
}

TEST(Method, WarmupOfCogVideoXIsTheOldRule) {
  const WarmupGate gate = gateOf(infoOf("cogvideox", 50, 42, linear(50, 1000), 3), {});
  EXPECT_EQ(gate.denseLayers, 2);  // layers below 42 * 0.025 = 1.05
  EXPECT_EQ(gate.denseSteps, 10);  // t > 800
  EXPECT_EQ(gateOf(infoOf("cogvideox", 50, 40, linear(50, 1000), 3), {"first_layers_fp=0.025"}).denseLayers, 1);
}

TEST(Method, WarmupOfSparseVideoKeepsALayer) {
  EXPECT_EQ(gateOf(infoOf("wan2.1", 50, 40), {"variant=sparsevideo"}).text,
            "steps 0-4 of 50 dense, layer 0 of 40 dense");
  EXPECT_EQ(gateOf(infoOf("cogvideox", 50, 42, linear(50, 1000), 3), {"variant=sparsevideo"}).denseSteps, 5);
  EXPECT_EQ(gateOf(infoOf("wan2.1", 50, 30), {"variant=sparsevideo"}).denseLayers, 1);
  EXPECT_EQ(gateOf(infoOf("wan2.1", 50, 30), {"variant=sparsevideo", "first_layers_fp=0"}).denseLayers, 0);
  EXPECT_EQ(
      gateOf(infoOf("cogvideox", 9, 42, linear(9, 1000), 3), {"variant=sparsevideo", "first_times_fp=0.1"}).denseSteps,
      0);
}

TEST(Method, UnknownScheduleIsSaid) {
  const WarmupGate gate = gateOf(infoOf("wan2.1", 0, 0), {});
  EXPECT_EQ(gate.denseSteps, 0);
  EXPECT_THAT(gate.text, testing::HasSubstr("number of steps unknown"));
}

// What holds for every method, the ones to come included.
class MethodConformance : public testing::Test {
 protected:
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

TEST_F(MethodConformance, PlansAreValidDeterministicAndEvaluable) {
  for (const int text : {0, 7}) {
    HeadSpec spec;
    spec.layout = layoutOf(4, 6, 8, text);
    spec.family = text > 0 ? "hunyuanvideo" : "wan2.1";
    spec.paddingText = text > 0 ? 2 : 0;
    const HeadData head = makeHead(spec);
    for (const Method* method : allMethods()) {
      SCOPED_TRACE(std::string(method->id()) + (text > 0 ? " with text" : ""));
      const Plan plan = planOf(std::string(method->id()), {}, head, *backend);  // validates
      const Plan again = planOf(std::string(method->id()), {}, head, *backend);
      EXPECT_EQ(plan.blockMask, again.blockMask);
      EXPECT_EQ(plan.rowIntervals, again.rowIntervals);
      EXPECT_EQ(plan.rowCount, again.rowCount);
      EXPECT_EQ(plan.kOrder, again.kOrder);
      const Evaluation numbers = evaluatePlan(plan, head, {}, *backend, {});
      const NaiveNumbers naive = naiveNumbers(plan, head, false);
      EXPECT_DOUBLE_EQ(numbers.keptFraction, naive.keptFraction);
      EXPECT_NEAR(numbers.keptMass, naive.keptMass, 2e-4);
      EXPECT_NEAR(*numbers.outputRelError, naive.relError, 2e-4 * std::max(1.0, naive.relError));
    }
  }
}

TEST_F(MethodConformance, StopIsObeyed) {
  const HeadData head = makeHead({});
  std::stop_source source;
  source.request_stop();
  const Control control{source.get_token(), {}};
  for (const Method* method : allMethods()) {
    const ParamSet params = paramsFor(*method, {}, head);
    const auto prepared = backend->prepare(head.input, head.keepAlive, {});
    const auto state = method->newState();
    const MethodInput input{head, *prepared, params, 0, 0, 0, 50, 40, {}, nullptr, false};
    EXPECT_THROW((void)method->plan(input, state.get(), *backend, control), Cancelled) << method->id();
  }
}

TEST_F(MethodConformance, TheReferenceBackendAgrees) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 10, 20, 0);
  spec.family = "wan2.1";
  const HeadData head = makeHead(spec);
  const auto reference = createReferenceBackend();
  for (const Method* method : allMethods()) {
    SCOPED_TRACE(method->id());
    const Plan plan = planOf(std::string(method->id()), {}, head, *backend);
    const Plan oracle = planOf(std::string(method->id()), {}, head, *reference);
    EXPECT_EQ(plan.headClass, oracle.headClass);
    EXPECT_EQ(plan.blockMask, oracle.blockMask);
    EXPECT_EQ(plan.rowIntervals, oracle.rowIntervals);
    const Evaluation a = evaluatePlan(plan, head, {}, *backend, {});
    const Evaluation b = evaluatePlan(oracle, head, {}, *reference, {});
    EXPECT_NEAR(a.keptMass, b.keptMass, 1e-4);
    EXPECT_NEAR(*a.outputRelError, *b.outputRelError, 1e-4);
  }
}

}  // namespace
}  // namespace sparsight

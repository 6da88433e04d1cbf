// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sparsight/core/method.h"

namespace sparsight {
namespace {
using testing::HasSubstr;

std::vector<ParamSpec> specs() {
  return {
      {"sparsity", {"kept"}, ParamType::Real, "0.3", "", 0, 1, {}, "", "", false},
      {"rows", {}, ParamType::Int, "64", "", 1, 1000, {}, "", "", false},
      {"floor", {}, ParamType::Real, "0.1", "", 0, 1, {"none"}, "", "", true},
      {"share", {}, ParamType::Bool, "true", "", 0, 0, {}, "", "", false},
      {"scope", {}, ParamType::Choice, "global", "", 0, 0, {"global", "row"}, "", "", false},
      {"search_steps", {}, ParamType::IntList, "9,29", "", 0, 1000, {}, "", "", false},
      {"path", {}, ParamType::Text, "", "", 0, 0, {}, "", "", false},
  };
}

std::string refusal(const std::vector<std::string>& assignments) {
  const auto list = specs();
  try {
    (void)ParamSet::parse(list, assignments);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::InvalidArgument);
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return {};
}

TEST(Params, DefaultsStandUntilGiven) {
  const auto list = specs();
  const ParamSet set = ParamSet::parse(list, {});
  EXPECT_DOUBLE_EQ(set.real("sparsity"), 0.3);
  EXPECT_FALSE(set.has("sparsity"));
  EXPECT_EQ(set.integers("search_steps"), (std::vector<Index>{9, 29}));
  EXPECT_TRUE(set.flag("share"));
}

TEST(Params, AliasSetsTheCanonicalName) {
  const auto list = specs();
  const ParamSet set = ParamSet::parse(list, {"kept=0.125"});
  EXPECT_TRUE(set.has("sparsity"));
  EXPECT_EQ(set.text("sparsity"), "0.125");
}

TEST(Params, PerHeadListsGiveOneValuePerHead) {
  const auto list = specs();
  const ParamSet set = ParamSet::parse(list, {"floor=0.1,0.2,0.3"});
  EXPECT_DOUBLE_EQ(set.real("floor", 2), 0.3);
  EXPECT_THROW((void)set.real("floor", 3), Error);
  EXPECT_DOUBLE_EQ(ParamSet::parse(list, {"floor=0.5"}).real("floor", 7), 0.5);
  EXPECT_EQ(ParamSet::parse(list, {"floor=none"}).text("floor"), "none");
}

TEST(Params, BoolsHaveOneForm) {
  const auto list = specs();
  for (const char* text : {"share=off", "share=0", "share=false", "share=no"}) {
    EXPECT_EQ(ParamSet::parse(list, {text}).text("share"), "false") << text;
  }
}

TEST(Params, RefusalsNameParameterRangeAndValue) {
  EXPECT_THAT(refusal({"kept=1.5"}), testing::AllOf(HasSubstr("sparsity"), HasSubstr("0 to 1"), HasSubstr("1.5")));
  EXPECT_THAT(refusal({"kept=nan"}), HasSubstr("nan"));
  EXPECT_THAT(refusal({"kept=0.3x"}), HasSubstr("0.3x"));
  EXPECT_THAT(refusal({"rows=2.5"}), HasSubstr("whole number"));
  EXPECT_THAT(refusal({"rows=0"}), HasSubstr("1 to 1000"));
  EXPECT_THAT(refusal({"rows=1,2"}), HasSubstr("rows"));
  EXPECT_THAT(refusal({"scope=all"}), testing::AllOf(HasSubstr("global, row"), HasSubstr("all")));
  EXPECT_THAT(refusal({"share=maybe"}), HasSubstr("true or false"));
  EXPECT_THAT(refusal({"search_steps=1,x"}), HasSubstr("search_steps"));
  EXPECT_THAT(refusal({"colour=red"}), testing::AllOf(HasSubstr("colour"), HasSubstr("sparsity, rows")));
  EXPECT_THAT(refusal({"rows"}), HasSubstr("name=value"));
  EXPECT_THAT(refusal({"=3"}), HasSubstr("name=value"));
}

TEST(Params, TheLastAssignmentWins) {
  const auto list = specs();
  EXPECT_EQ(ParamSet::parse(list, {"kept=0.1", "sparsity=0.2"}).text("sparsity"), "0.2");
}

}  // namespace
}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
// sparsight-cli methods, as a program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/method_command.h"

namespace sparsight {
namespace {
using test::Program;
using test::runProgram;

TEST(Methods, JsonNamesEveryMethodAndParameter) {
  const Program program = runProgram({"methods", "--json"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  const auto document = nlohmann::json::parse(program.out);
  std::vector<std::string> ids;
  for (const auto& method : document.at("methods")) {
    ids.push_back(method.at("id"));
    for (const auto& param : method.at("params")) {
      for (const char* key :
           {"name", "aliases", "type", "unit", "minimum", "maximum", "choices", "default", "meaning", "source"}) {
        EXPECT_TRUE(param.contains(key)) << ids.back() << " " << key;
      }
    }
    if (ids.back() != "svg") continue;
    for (const auto& param : method.at("params")) {
      if (param.at("name") != "sparsity") continue;
      EXPECT_EQ(param.at("aliases"), nlohmann::json::array({"kept"}));
      EXPECT_EQ(param.at("default"), "0.3");
      EXPECT_EQ(param.at("maximum"), 1.0);
    }
  }
  EXPECT_THAT(ids, testing::IsSupersetOf({"dense", "oracle_block", "oracle_token", "svg"}));
}

TEST(Methods, TextNamesAliasesAndSources) {
  const Program program = runProgram({"methods"});
  ASSERT_EQ(program.exitCode, 0);
  EXPECT_THAT(program.out,
              testing::AllOf(testing::HasSubstr("sparsity (alias kept)"), testing::HasSubstr("sparsity_to_width")));
}

}  // namespace
}  // namespace sparsight

// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>

#include "sparsight/core/files.h"
#include "sparsight/core/profile.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

Profile sample() {
  Profile p(3, 2, 2, BudgetRole::KeptFloor);
  p.set({0, 0, 0}, 0.1 + 0.2);  // 17 digits
  p.set({0, 0, 1}, 0.0);
  p.set({1, 1, 1}, 1.0);
  p.set({2, 1, 0}, 5e-324);
  p.setLayerLocked(1, true);
  p.setLayerNote(0, "text heads \"quoted\", \xC3\xA9, line\nbreak");
  p.provenance = {
      "offline profiling", "sparsight-cli 0.1.0", {"uuid-1", "uuid-2"}, {{"mass", "0.95"}}, "Wan2.1 1.3B T2V"};
  p.lineEnding = "\n";
  return p;
}

/// The document with one member changed (or removed, for discarded JSON).
std::string changed(const std::string& pointer, const json& value) {
  json document = json::parse(formatProfileJson(sample()));
  document[json::json_pointer(pointer)] = value;
  return document.dump();
}
std::string without(const std::string& key) {
  json document = json::parse(formatProfileJson(sample()));
  document.erase(key);
  return document.dump();
}
std::string errorOf(const std::string& text, ErrorCode code = ErrorCode::Format) {
  try {
    static_cast<void>(parseProfileJson(text, "p.json"));
  } catch (const Error& e) {
    EXPECT_EQ(errorCodeName(e.code()), errorCodeName(code)) << e.what();
    EXPECT_EQ(std::string(e.what()).rfind("p.json: ", 0), 0U) << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

/// As much of JSON Schema as resources/profile.schema.json uses; returns the first violation.
std::string violation(const json& schema, const json& root, const json& value, const std::string& path) {
  if (schema.contains("$ref")) {
    const std::string ref = schema["$ref"];
    return violation(root.at(json::json_pointer(ref.substr(1))), root, value, path);
  }
  static const std::vector<std::string> kKnown{"$schema",  "$id",         "$defs",
                                               "title",    "description", "type",
                                               "required", "properties",  "additionalProperties",
                                               "items",    "prefixItems", "enum",
                                               "const",    "minimum",     "maximum",
                                               "minItems", "maxItems",    "pattern"};
  for (const auto& [keyword, rule] : schema.items()) {
    if (std::find(kKnown.begin(), kKnown.end(), keyword) == kKnown.end()) return "the test does not know " + keyword;
  }
  if (schema.contains("type")) {
    const json types = schema["type"].is_array() ? schema["type"] : json::array({schema["type"]});
    bool matches = false;
    for (const json& type : types) {
      matches |= (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
                 (type == "string" && value.is_string()) || (type == "integer" && value.is_number_integer()) ||
                 (type == "number" && value.is_number()) || (type == "null" && value.is_null());
    }
    if (!matches) return path + ": wrong type";
  }
  if (schema.contains("const") && value != schema["const"]) return path + ": not the constant";
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end()) {
    return path + ": not in the enumeration";
  }
  if (value.is_number()) {
    if (schema.contains("minimum") && value < schema["minimum"]) return path + ": too small";
    if (schema.contains("maximum") && value > schema["maximum"]) return path + ": too large";
  }
  if (value.is_string() && schema.contains("pattern") &&
      !std::regex_search(value.get<std::string>(), std::regex(schema["pattern"].get<std::string>()))) {
    return path + ": does not match the pattern";
  }
  if (value.is_object()) {
    for (const json& key : schema.value("required", json::array())) {
      if (!value.contains(key.get<std::string>()))
        return fmt::format("{}: {} is missing", path, key.get<std::string>());
    }
    for (const auto& [key, child] : value.items()) {
      json rule = schema.value("additionalProperties", json(true));
      if (schema.contains("properties") && schema["properties"].contains(key)) rule = schema["properties"][key];
      if (rule.is_boolean()) {
        if (!rule.get<bool>()) return fmt::format("{}: {} is not allowed", path, key);
        continue;
      }
      if (std::string bad = violation(rule, root, child, fmt::format("{}/{}", path, key)); !bad.empty()) return bad;
    }
  }
  if (value.is_array()) {
    if (schema.contains("minItems") && value.size() < schema["minItems"]) return path + ": too few entries";
    if (schema.contains("maxItems") && value.size() > schema["maxItems"]) return path + ": too many entries";
    for (std::size_t i = 0; i < value.size(); ++i) {
      const json* rule = nullptr;
      if (schema.contains("prefixItems") && i < schema["prefixItems"].size()) {
        rule = &schema["prefixItems"][i];
      } else if (schema.contains("items")) {
        rule = &schema["items"];
      }
      if (rule == nullptr) continue;
      if (std::string bad = violation(*rule, root, value[i], fmt::format("{}/{}", path, i)); !bad.empty()) return bad;
    }
  }
  return {};
}
json schema() {
  return json::parse(
      readWholeFile(std::filesystem::path(SPARSIGHT_SOURCE_DIR) / "resources" / "profile.schema.json", 1 << 20));
}

TEST(ProfileJson, RoundTripsEverythingExactly) {
  const Profile p = sample();
  const std::string text = formatProfileJson(p);
  EXPECT_TRUE(parseProfileJson(text, "p.json") == p);
  EXPECT_EQ(formatProfileJson(parseProfileJson(text, "p.json")), text);
  EXPECT_TRUE(parseProfileJson("\xEF\xBB\xBF" + text, "p.json") == p) << "a byte order mark does no harm here";
}

TEST(ProfileJson, IsReadableAndStableForDiffs) {
  const std::string text = formatProfileJson(sample());
  EXPECT_EQ(text.rfind("{\n  \"format\": \"sparsight-profile\",\n  \"format_version\": [\n    1,\n    0\n  ],\n", 0),
            0U)
      << text;
  EXPECT_THAT(text, HasSubstr("\n    [0.30000000000000004, 0.0],\n    [null, null]]"));
  EXPECT_EQ(text.back(), '\n');
}

TEST(ProfileJson, FollowsItsSchema) {
  const json rules = schema();
  const json document = json::parse(formatProfileJson(sample()));
  EXPECT_EQ(violation(rules, rules, document, ""), "");
  for (const json& key : rules.at("required")) {
    EXPECT_TRUE(document.contains(key.get<std::string>())) << key;
    EXPECT_THAT(errorOf(without(key.get<std::string>())), testing::Not(HasSubstr("internal"))) << key;
  }
  for (const auto& [key, value] : document.items()) {
    EXPECT_TRUE(rules.at("properties").contains(key)) << key << " is not described";
  }
}

TEST(ProfileJson, SchemaAndReaderRefuseTheSameThings) {
  const json rules = schema();
  const std::pair<const char*, json> bad[] = {{"/format", "other"},
                                              {"/role", "sparsity"},
                                              {"/steps", 0},
                                              {"/heads", 2.5},
                                              {"/layers", "2"},
                                              {"/format_version", json::array({1})},
                                              {"/values/0/0/0", 1.5},
                                              {"/values/0/0/0", -0.1},
                                              {"/values/0/0/0", "0.5"},
                                              {"/values", json::object()},
                                              {"/locks", json::array({-1})},
                                              {"/notes", json::array({"x"})},
                                              {"/provenance/trace_ids", json::array({7})},
                                              {"/provenance/parameters", json::object({{"k", 1}})},
                                              {"/csv_line_ending", "cr"}};
  for (const auto& [pointer, value] : bad) {
    SCOPED_TRACE(fmt::format("{} = {}", pointer, value.dump()));
    const std::string text = changed(pointer, value);
    EXPECT_NE(violation(rules, rules, json::parse(text), ""), "");
    errorOf(text);
  }
}

TEST(ProfileJson, SaysWhereItIsBroken) {
  EXPECT_THAT(errorOf(""), HasSubstr("empty"));
  EXPECT_THAT(errorOf("{\n  \"format\": nope\n}"), AllOf(HasSubstr("line 2, column 1"), HasSubstr("no valid JSON")));
  EXPECT_THAT(errorOf("[1,2]"), HasSubstr("no profile"));
  EXPECT_THAT(errorOf("{}"), HasSubstr("\"format\""));
  EXPECT_THAT(errorOf(changed("/values/1/1", json::array({0.5}))),
              HasSubstr("values[1][1]: has 1 entries where the profile has 2 heads"));
  EXPECT_THAT(errorOf(changed("/values/1/1/0", 7)), AllOf(HasSubstr("values[1][1][0]"), HasSubstr("'7'")));
  EXPECT_THAT(errorOf(changed("/locks", json::array({2}))), HasSubstr("locks[0]"));
  EXPECT_THAT(errorOf(changed("/notes/0/layer", 5)), HasSubstr("notes[0].layer"));
  EXPECT_THAT(errorOf(changed("/steps", 4)), HasSubstr("has 3 entries where the profile has 4 steps"));
}

TEST(ProfileJson, RefusesSizesBeforeAllocating) {
  json huge = json::parse(formatProfileJson(sample()));
  huge["steps"] = 4000000;
  huge["layers"] = 4000000;
  huge["heads"] = 4000000;
  EXPECT_THAT(errorOf(huge.dump()), HasSubstr("more than 4194304 cells"));
  EXPECT_THAT(errorOf(changed("/steps", json::parse("99999999999999999999"))), HasSubstr("steps"));
  EXPECT_THAT(errorOf(changed("/steps", json::parse("18446744073709551615"))), HasSubstr("steps"));
  EXPECT_THAT(errorOf(std::string(100000, '[')), testing::AnyOf(HasSubstr("nested"), HasSubstr("no valid JSON")));
}

TEST(ProfileJson, NewerMinorVersionsAreReadNewerMajorOnesRefused) {
  json document = json::parse(formatProfileJson(sample()));
  document["format_version"] = {1, 7};
  document["of_the_future"] = {{"x", 1}};
  EXPECT_TRUE(parseProfileJson(document.dump(), "p.json") == sample());
  document["format_version"] = {2, 0};
  EXPECT_THAT(errorOf(document.dump(), ErrorCode::Unsupported), HasSubstr("newer Sparsight"));
  document["format_version"] = {0, 9};
  errorOf(document.dump(), ErrorCode::Unsupported);
}

class ProfileJsonFile : public testing::Test {
 protected:
  void SetUp() override {
    m_folder = std::filesystem::temp_directory_path() / fmt::format("sparsight-profile-json-{}", ::getpid());
    std::filesystem::create_directories(m_folder);
  }
  void TearDown() override { std::filesystem::remove_all(m_folder); }
  std::filesystem::path m_folder;
};

TEST_F(ProfileJsonFile, IsWrittenByExtensionAndReadByContent) {
  Profile p = fillForExport(sample(), FillPolicy::Value, 0.5);
  writeProfile(m_folder / "p.json", p);
  EXPECT_TRUE(readProfile(m_folder / "p.json") == p);
  writeProfile(m_folder / "p.csv", p);
  std::filesystem::rename(m_folder / "p.csv", m_folder / "odd.name");
  std::vector<CsvIssue> issues;
  const Profile csv = readProfile(m_folder / "odd.name", &issues);
  EXPECT_EQ(diffProfiles(csv, p).changed, 0);
  EXPECT_EQ(issues.size(), 1U) << "LF";
  EXPECT_THROW(writeProfile(m_folder / "p.txt", p), Error);
  EXPECT_THROW(writeProfile(m_folder / "holes.csv", sample()), Error);
  EXPECT_FALSE(std::filesystem::exists(m_folder / "holes.csv")) << "nothing half-written";
  EXPECT_THROW(static_cast<void>(readProfile(m_folder / "missing.json")), Error);
  EXPECT_THROW(static_cast<void>(readProfile(m_folder)), Error) << "a directory";
}

}  // namespace
}  // namespace sparsight

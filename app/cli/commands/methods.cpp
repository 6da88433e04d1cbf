// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "app/cli/command.h"
#include "sparsight/core/method.h"

namespace sparsight {
namespace cli {
namespace {

const char* typeName(ParamType type) {
  switch (type) {
    case ParamType::Int:
      return "int";
    case ParamType::Real:
      return "real";
    case ParamType::Bool:
      return "bool";
    case ParamType::Choice:
      return "choice";
    case ParamType::Text:
      return "text";
    case ParamType::IntList:
      return "int_list";
  }
  return "text";
}

bool isNumeric(ParamType type) {
  return type == ParamType::Int || type == ParamType::Real || type == ParamType::IntList;
}

std::string rangeText(const ParamSpec& spec) {
  if (spec.type == ParamType::Bool) return "true|false";
  std::string text = isNumeric(spec.type) ? fmt::format("{:g}..{:g}", spec.minimum, spec.maximum) : std::string();
  for (const std::string& choice : spec.choices) text += (text.empty() ? "" : "|") + choice;
  return text;
}

class MethodsCommand final : public Command {
 public:
  void define(CLI::App& app) override { app.add_flag("--json", m_json, "One JSON document on standard output"); }

  int run(Context&) override {
    if (m_json) {
      printAsJson();
    } else {
      printAsText();
    }
    return kOk;
  }

 private:
  static void printAsJson() {
    auto methods = nlohmann::ordered_json::array();
    for (const Method* method : allMethods()) {
      auto params = nlohmann::ordered_json::array();
      for (const ParamSpec& spec : method->params()) {
        nlohmann::ordered_json param;
        param["name"] = spec.name;
        param["aliases"] = spec.aliases;
        if (!spec.complement.empty()) param["complement"] = spec.complement;
        param["type"] = typeName(spec.type);
        param["unit"] = spec.unit;
        param["minimum"] = isNumeric(spec.type) ? nlohmann::ordered_json(spec.minimum) : nlohmann::ordered_json();
        param["maximum"] = isNumeric(spec.type) ? nlohmann::ordered_json(spec.maximum) : nlohmann::ordered_json();
        param["choices"] = spec.choices;
        param["default"] = spec.defaultValue;
        param["per_head"] = spec.perHead;
        param["meaning"] = spec.meaning;
        param["source"] = spec.source;
        params.push_back(std::move(param));
      }
      methods.push_back({{"id", method->id()},
                         {"title", method->title()},
                         {"summary", method->summary()},
                         {"params", std::move(params)}});
    }
    printJson(nlohmann::ordered_json{{"methods", std::move(methods)}}.dump(2));
  }

  static void printAsText() {
    for (const Method* method : allMethods()) {
      fmt::print("{}  ({})\n  {}\n", method->id(), method->title(), method->summary());
      for (const ParamSpec& spec : method->params()) {
        std::string name = spec.name;
        if (!spec.aliases.empty()) name += fmt::format(" (alias {})", fmt::join(spec.aliases, ", "));
        if (!spec.complement.empty()) name += fmt::format(" (or {} = 1 - it)", spec.complement);
        fmt::print("  {:<32} {} {}, default {}{}{}\n", name, typeName(spec.type), rangeText(spec), spec.defaultValue,
                   spec.unit.empty() ? "" : ", " + spec.unit, spec.perHead ? ", one value or one per head" : "");
        fmt::print("      {} [{}]\n", spec.meaning, spec.source);
      }
      fmt::print("\n");
    }
    fmt::print(
        "Defaults are those of Wan's launch script; `run` resolves them for the trace's model family and prints "
        "them.\n");
  }

  bool m_json = false;
};

}  // namespace
}  // namespace cli

const CommandInfo& methods_command() {
  static const CommandInfo info{"methods", "Lists every method and parameter: type, range, default, meaning, source",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::MethodsCommand>()); }};
  return info;
}

}  // namespace sparsight

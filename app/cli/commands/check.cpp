// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "app/cli/command.h"
#include "sparsight/core/profile.h"
#include "sparsight/core/run.h"
#include "sparsight/core/trace.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace cli {
namespace {

constexpr std::array<const char*, 4> kLevelNames{"info", "warning", "error", "mismatch"};
const char* levelName(Finding::Level level) { return kLevelNames[static_cast<std::size_t>(level)]; }

std::string oneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

class CheckCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("FILE", m_file, "A trace, profile, plan or results file")->required();
    app.add_flag("--deep", m_deep, "Recompute stored lse and out of sampled rows");
    app.add_flag("--json", m_json, "One JSON document on standard output");
  }

  int run(Context& context) override {
    const std::string format = sniffFormat(m_file);
    const auto findings = findingsOf(format, context);
    const auto count = [&](Finding::Level level) {
      return std::count_if(findings.begin(), findings.end(), [&](const Finding& f) { return f.level == level; });
    };
    const auto errors = count(Finding::Level::Error), mismatches = count(Finding::Level::Mismatch),
               warnings = count(Finding::Level::Warning);
    if (m_json) {
      nlohmann::ordered_json document{
          {"file", m_file}, {"format", format}, {"errors", errors}, {"mismatches", mismatches}, {"warnings", warnings}};
      document["findings"] = nlohmann::ordered_json::array();
      for (const Finding& f : findings)
        document["findings"].push_back({{"level", levelName(f.level)}, {"where", f.where}, {"message", f.message}});
      printJson(document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
      for (const Finding& f : findings) fmt::print("{}: {}{}\n", levelName(f.level), placeOf(f), oneLine(f.message));
      fmt::print("{}: {} errors, {} mismatches, {} warnings\n", m_file, errors, mismatches, warnings);
    }
    std::fflush(stdout);
    if (errors > 0)
      throw Error(ErrorCode::Format,
                  fmt::format("'{}' has {} errors; the lines above say how to mend them", m_file, errors));
    return mismatches > 0 ? kMismatch : kOk;
  }

 private:
  std::vector<Finding> findingsOf(const std::string& format, Context& context) const {
    if (format == "trace")
      return checkTrace(m_file, m_deep, m_deep ? &context.backend() : nullptr, context.control("check"));
    std::vector<Finding> findings;
    if (format.starts_with("profile")) {
      std::vector<CsvIssue> issues;
      const Profile profile = readProfile(m_file, &issues);
      for (const CsvIssue& issue : issues) {
        findings.push_back(
            {issue.error ? Finding::Level::Error : Finding::Level::Warning, fmt::format("line {}", issue.line),
             fmt::format("{}: line {}, column {}: {}", m_file, issue.line, issue.column, issue.message)});
      }
      findings.push_back({Finding::Level::Info, "",
                          fmt::format("{} steps x {} layers x {} heads, {} holes", profile.steps(), profile.layers(),
                                      profile.heads(), profile.holeCount())});
      return findings;
    }
    const auto entries = readPlanFile(m_file);
    for (const PlanFileEntry& entry : entries) {
      if (format != "plan") break;  // a results file holds numbers only
      try {
        entry.plan.validate();
      } catch (const Error& error) {
        findings.push_back(
            {Finding::Level::Error,
             fmt::format("step {} layer {} head {}", entry.id.call.step, entry.id.call.layer, entry.id.head),
             error.what()});
      }
    }
    findings.push_back({Finding::Level::Info, "",
                        fmt::format("{} {} heads", entries.size(), format == "plan" ? "planned" : "evaluated")});
    return findings;
  }

  // Most messages already begin with file and object.
  [[nodiscard]] std::string placeOf(const Finding& f) const {
    const bool named = f.where.empty() || f.message.find(f.where) != std::string::npos || f.message.starts_with(m_file);
    return named ? std::string() : f.where + ": ";
  }

  std::string m_file;
  bool m_deep = false, m_json = false;
};

}  // namespace
}  // namespace cli

const CommandInfo& check_command() {
  static const CommandInfo info{"check", "Validates a file completely; --deep recomputes sampled rows",
                                [] { return std::unique_ptr<cli::Command>(std::make_unique<cli::CheckCommand>()); }};
  return info;
}

}  // namespace sparsight

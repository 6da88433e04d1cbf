// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "app/cli/command.h"
#include "sparsight/core/run.h"

namespace sparsight::cli {

/// What run, compare, curve and stability share with each other.

/// "A.k=v": the assignments of method `id`, and those without a method that `id` knows. Throws Error{InvalidArgument}
/// for a method that is not in `methods`.
[[nodiscard]] std::vector<std::string> assignmentsFor(const std::string& id, const std::vector<std::string>& methods,
                                                      const std::vector<std::string>& params);
/// "--param a=1 b=2" takes several words, so a trace named after it lands there; only parameters bear '='. Throws
/// Error{InvalidArgument} when no trace was given.
void takeTraceFromParams(const char* command, std::string& trace, std::vector<std::string>& params);
/// TRACE --method ID --param k=v and the selectors: what every command that runs one method asks for.
struct MethodOptions {
  std::string trace, method;
  std::vector<std::string> params;
  SelectorOptions selectors;
  /// Declares all but the trace, which comes first on `app`.
  void define(CLI::App& app);
  /// Throws Error{InvalidArgument} naming `command` when no trace was given, and for parameters that do not fit.
  [[nodiscard]] RunRequest request(const char* command, const Context& context);
};
/// null where there is no finite value.
[[nodiscard]] nlohmann::ordered_json orNull(const std::optional<double>& value);
/// step, branch, layer, kind, call, head.
[[nodiscard]] nlohmann::ordered_json placeOf(const HeadId& id);
/// "26.5 %".
[[nodiscard]] std::string percent(double fraction);
/// Rows of objects with the same keys as comma-separated values with a header; nested values are left out.
[[nodiscard]] std::string toCsv(const nlohmann::ordered_json& rows);

}  // namespace sparsight::cli

// SPDX-License-Identifier: Apache-2.0
#include "app/cli/method_rows.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "sparsight/core/method.h"

namespace sparsight::cli {

using Json = nlohmann::ordered_json;

std::vector<std::string> assignmentsFor(const std::string& id, const std::vector<std::string>& methods,
                                        const std::vector<std::string>& params) {
  std::vector<std::string> own;
  for (const std::string& text : params) {
    const std::string name = text.substr(0, text.find('='));
    const auto dot = name.find('.');
    if (dot == std::string::npos) {
      if (methods.size() > 1) {
        throw Error(ErrorCode::InvalidArgument,
                    fmt::format("parameter '{}': several methods are compared; write METHOD.name=value, e.g. {}.{}",
                                text, methods.front(), text));
      }
      own.push_back(text);
      continue;
    }
    const std::string method = name.substr(0, dot);
    if (std::find(methods.begin(), methods.end(), method) == methods.end()) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("parameter '{}': method {} is not among {}", text, method, fmt::join(methods, ", ")));
    }
    if (method == id) own.push_back(text.substr(dot + 1));
  }
  return own;
}

void takeTraceFromParams(const char* command, std::string& trace, std::vector<std::string>& params) {
  if (trace.empty() && !params.empty() && params.back().find('=') == std::string::npos) {
    trace = params.back();
    params.pop_back();
  }
  if (trace.empty()) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("{0}: no trace given; see sparsight-cli {0} --help", command));
  }
}

void MethodOptions::define(CLI::App& app) {
  app.add_option("--method", method, "Method id; see sparsight-cli methods")->required();
  app.add_option("--param", params, "Parameters name=value; see sparsight-cli methods");
  selectors.define(app);
}

RunRequest MethodOptions::request(const char* command, const Context& context) {
  takeTraceFromParams(command, trace, params);
  RunRequest request;
  request.methodId = method;
  request.params = ParamSet::parse(methodById(method).params(), assignmentsFor(method, {method}, params));
  request.selection = selectors.selection();
  request.seed = context.seed;
  request.evaluate.rows = selectors.rowCount();
  request.evaluate.includePadding = context.includePadding();
  return request;
}

Json orNull(const std::optional<double>& value) { return value && std::isfinite(*value) ? Json(*value) : Json(); }

Json placeOf(const HeadId& id) {
  return Json{{"step", id.call.step}, {"branch", id.call.branch}, {"layer", id.call.layer},
              {"kind", id.call.kind}, {"call", id.call.call},     {"head", id.head}};
}

std::string percent(double fraction) { return fmt::format("{:.1f} %", fraction * 100.0); }

std::string toCsv(const Json& rows) {
  std::vector<std::string> columns;
  for (const Json& row : rows) {
    for (const auto& [name, value] : row.items()) {
      if (!value.is_structured() && std::find(columns.begin(), columns.end(), name) == columns.end()) {
        columns.push_back(name);
      }
    }
  }
  std::string out = fmt::format("{}\n", fmt::join(columns, ","));
  for (const Json& row : rows) {
    std::vector<std::string> cells;
    for (const std::string& column : columns) {
      const auto cell = row.find(column);
      if (cell == row.end() || cell->is_null()) {
        cells.emplace_back();
      } else if (cell->is_string()) {
        std::string text = cell->get<std::string>();
        if (text.find_first_of(",\"\n") != std::string::npos) {
          std::string quoted = "\"";
          for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
          text = quoted + "\"";
        }
        cells.push_back(text);
      } else {
        cells.push_back(cell->dump());
      }
    }
    out += fmt::format("{}\n", fmt::join(cells, ","));
  }
  return out;
}

}  // namespace sparsight::cli

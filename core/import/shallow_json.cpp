// SPDX-License-Identifier: Apache-2.0
#include "import/shallow_json.h"

#include <fmt/format.h>

#include "sparsight/kernels/error.h"

namespace sparsight::import {

nlohmann::json parseJson(std::string_view text, const std::string& name) {
  constexpr int kDeepest = 16;
  const auto shallow = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kDeepest) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: its JSON is nested deeper than any such file; it is damaged, write it again", name));
    }
    return true;
  };
  return nlohmann::json::parse(text.begin(), text.end(), shallow, false);
}

}  // namespace sparsight::import

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "sparsight/core/profile.h"

namespace sparsight::detail {

/// Everything of a profile but its values.
[[nodiscard]] nlohmann::ordered_json profileHead(const Profile& profile);
/// The values as nested arrays [step][layer][head], a hole as null; `indent` spaces before each layer's line, or none
/// and no line breaks for indent < 0.
void appendProfileValues(std::string& out, const Profile& profile, int indent);
/// From a whole document; `name` goes into messages. Throws Error{Format|Unsupported}.
[[nodiscard]] Profile profileFromJson(const nlohmann::json& json, const std::string& name);
/// Parses text with a bound on the number of values; Error{Format} with line and column.
[[nodiscard]] nlohmann::json parseBoundedJson(std::string_view text, const std::string& name);

}  // namespace sparsight::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace sparsight::import {

/// JSON of a foreign file, at most 16 levels deep: brackets alone would take forty times their text in memory.
/// Discarded (is_object() is false) where it is malformed. `name` is of the file, for messages. Throws Error{Format}
/// where it is deeper.
[[nodiscard]] nlohmann::json parseJson(std::string_view text, const std::string& name);

}  // namespace sparsight::import

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sparsight/core/palette.h"

namespace sparsight::cli {

/// An 8-bit RGB PNG in memory, with text metadata (keyword, text). Throws Error{Internal|OutOfMemory}.
[[nodiscard]] std::string encodePng(std::span<const Rgb> pixels, Index height, Index width,
                                    const std::vector<std::pair<std::string, std::string>>& text);

}  // namespace sparsight::cli

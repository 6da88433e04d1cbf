// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sparsight/core/profile.h"
#include "sparsight/kernels/error.h"

namespace sparsight::detail {

/// Largest profile file that is read: the largest possible grid as text.
inline constexpr std::uint64_t kMaxProfileFileBytes = std::uint64_t{160} << 20;

/// Whether a grid of these (file-given) sizes is not empty and within kMaxProfileCells; never overflows.
[[nodiscard]] bool fitsProfile(Index steps, Index layers, Index heads) noexcept;
/// "step index 10 (11th), layer 12, head 3"
[[nodiscard]] std::string cellText(CellId cell);
/// "12 of 18000 cells are holes (first: step index 3 (4th), layer 0, head 2)"
[[nodiscard]] std::string holesText(const Profile& profile);
/// "24", "24.5", "0.79": a fraction in percent with up to 4 significant digits.
[[nodiscard]] std::string percentText(double fraction);

/// 1-based line and column of a byte of a text.
struct TextPosition {
  int line = 1, column = 1;
};
[[nodiscard]] TextPosition positionOf(std::string_view text, std::size_t byte) noexcept;
/// The file's own text in a message: control characters and overlong fields made printable.
[[nodiscard]] std::string quoted(std::string_view text);

}  // namespace sparsight::detail
